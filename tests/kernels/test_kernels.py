"""Every cell's kernels, on every instruction set, against the oracle; and gradients against central differences."""

import copy
import dataclasses

import hypothesis
import numpy as np
import pytest
from helpers import (
    KINDS,
    LAYOUTS,
    as_state,
    assert_close,
    assert_same_bits,
    central_differences,
    directions,
    make_layer,
    make_state,
    multiply_adds,
    named_state,
    oracle,
    run,
    state_sizes,
    using_isa,
)
from hypothesis import strategies as st

import fastrnn

# Of the largest value of an array, or of its scale where all are smaller.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}

SIZES = st.one_of(st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 48, 64, 65, 100, 130]), st.integers(1, 130))
LAYOUT = st.sampled_from(list(LAYOUTS))


@dataclasses.dataclass
class Case:
    kind: str
    dtype: str
    I: int
    H: int
    T: int
    N: int
    num_layers: int = 1
    proj_size: int = 0
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    unbatched: bool = False             # with N = 1
    lengths: bool = False
    resets: bool = False
    threads: int = 1
    layouts: tuple = ("contiguous",) * 6    # of x, state, reset_mask, d_output, d_state, parameters
    seed: int = 0
    options: dict = dataclasses.field(default_factory=dict)     # of the cell


@st.composite
def cases(draw):
    kind, H = draw(st.sampled_from(list(KINDS))), draw(SIZES)
    N = draw(st.integers(0, 20))
    return Case(
        kind, draw(st.sampled_from(list(TOLERANCE))), draw(SIZES), H, draw(st.integers(0, 12)), N,
        num_layers=draw(st.sampled_from([1, 1, 2, 3])),
        proj_size=draw(st.integers(0, H - 1)) if kind == "lstm" else 0,
        bidirectional=draw(st.booleans()), bias=draw(st.booleans()), batch_first=draw(st.booleans()),
        unbatched=N == 1 and draw(st.booleans()), lengths=draw(st.booleans()), resets=draw(st.booleans()),
        threads=draw(st.integers(1, 3)), layouts=draw(st.tuples(*[LAYOUT] * 6)), seed=draw(st.integers(0, 2**32 - 1)))


def external(a, case):
    """[T, N, ...] in the convention of the layer's caller."""
    return a[:, 0] if case.unbatched else a.swapaxes(0, 1) if case.batch_first else a


def agrees_with_the_oracle(case):
    """Raises where it does not; False where no comparison is due: a sum lies within rounding of a corner of its
    activation, or activations without a bound let the state grow from step to step, and errors with it."""
    rng = np.random.default_rng(case.seed)
    layer = make_layer(case.kind, case.I, case.H, case.num_layers, rng=rng, bias=case.bias, dtype=case.dtype,
                       bidirectional=case.bidirectional, batch_first=case.batch_first,
                       **({"proj_size": case.proj_size} if case.proj_size else {}), **case.options)
    T, N = case.T, case.N
    x = rng.standard_normal((T, N, case.I)).astype(layer.dtype)
    d_output = rng.standard_normal((T, N, directions(layer) * state_sizes(layer)[0])).astype(layer.dtype)
    state, d_state = make_state(layer, N, rng), make_state(layer, N, rng)
    lengths = rng.integers(0, T + 1, N) if case.lengths else None
    resets = rng.random((T, N)) < 0.2 if case.resets else None
    with np.errstate(all="ignore" if case.options else "raise"):
        expected, margin = oracle(layer, x, state, d_output, d_state, lengths, resets)
    exact = dict(expected)
    grown = case.options and not all(np.max(np.abs(value), initial=0) < (20 if name in ("output", "cells") else 1e4)
                                     for name, value in expected.items())
    if margin < 32 * np.finfo(layer.dtype).eps or grown:
        return False
    for name in ("output", "cells", "dx"):
        if name in expected:
            expected[name] = external(expected[name], case)

    arrange = [LAYOUTS[layout] for layout in case.layouts]
    states = [tuple(arrange[at](part[:, 0] if case.unbatched else part) for part in parts)
              for at, parts in ((1, state), (4, d_state))]
    if case.unbatched:
        expected |= {name: expected[name][:, 0] for name in ("h_n", "c_n", "dh_0", "dc_0") if name in expected}
    options = {}
    if lengths is not None:
        options["lengths"] = lengths
    if resets is not None:
        options["reset_mask"] = arrange[2](resets[:, 0] if case.unbatched else resets)
    layer.load_state_dict({name: arrange[5](value) for name, value in layer.state_dict().items()})
    # All is of order 1; the gradient of a parameter is a sum over all rows, which may well cancel.
    scales = dict.fromkeys(layer.parameters, np.sqrt(max(1, T * N)))
    for isa in fastrnn.available_isas():
        with using_isa(isa), fastrnn.threads(case.threads):
            actual = run(layer, arrange[0](external(x, case)), states[0], arrange[3](external(d_output, case)),
                         states[1], **options)
        assert {value.dtype for value in actual.values()} == {layer.dtype}
        try:
            assert_close(actual, expected, TOLERANCE[case.dtype], scales, title=isa)
        except AssertionError:
            # A state that grows amplifies every rounding: then the result is as good as four roundings of the input.
            moved = moved_by_rounding(layer, x, state, d_output, d_state, lengths, resets, exact, scales)
            assert_close(actual, expected, max(TOLERANCE[case.dtype], 4 * moved), scales, title=isa)
    return True


def moved_by_rounding(layer, x, state, d_output, d_state, lengths, resets, exact, scales):
    """How far the oracle's results move, relative to their sizes, where every number that is given is rounded once."""
    rng, unit = np.random.default_rng(0), np.finfo(layer.dtype).eps / 2

    def rounded(a):
        return a * (1 + unit * rng.choice([-1.0, 1.0], a.shape))

    near, most = copy.deepcopy(layer), 0.0
    for _ in range(4):
        near._parameters = {name: rounded(value) for name, value in layer.parameters.items()}
        results = oracle(near, rounded(x), tuple(map(rounded, state)), d_output, d_state, lengths, resets)[0]
        for name, value in exact.items():
            difference = np.max(np.abs(results[name] - value), initial=0)
            most = max(most, difference / np.max(np.abs(value), initial=scales.get(name, 1.0)))
    return most


@hypothesis.settings(max_examples=1000)
@hypothesis.given(cases())
@hypothesis.example(Case("rnn_tanh", "float32", 130, 1, 9, 14, num_layers=3, bias=False, seed=2448414))     # it grows
def test_agrees_with_the_oracle(case):
    hypothesis.assume(agrees_with_the_oracle(case))


@pytest.mark.parametrize("steps, rows", [(0, 0), (0, 3), (4, 0)])
@pytest.mark.parametrize("inputs", [3, 40])
@pytest.mark.parametrize("kind", list(KINDS))
def test_no_steps_or_no_rows(kind, inputs, steps, rows):
    for ragged in (False, True):
        case = Case(kind, "float32", inputs, 5, steps, rows, num_layers=2, bidirectional=True, lengths=ragged)
        assert agrees_with_the_oracle(case)


LARGE = {       # even at half the length past the 2e6 multiply-adds below which a call keeps to one thread
    "full": Case("", "", 40, 130, 12, 19),
    "ragged": Case("", "", 40, 130, 12, 20, lengths=True, resets=True),
    "two_ways": Case("", "", 65, 100, 12, 17, num_layers=2, bidirectional=True, lengths=True),
    "past_L2": Case("", "", 330, 320, 12, 29, resets=True),     # the input's part in chunks of steps
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype, threads", [("float32", 2), ("float64", 3)])
@pytest.mark.parametrize("size", list(LARGE))
@pytest.mark.parametrize("kind", list(KINDS))
def test_large_work_on_threads_agrees_with_the_oracle(kind, size, dtype, threads):
    case = dataclasses.replace(LARGE[size], kind=kind, dtype=dtype, threads=threads)
    layer = make_layer(kind, case.I, case.H, rng=0, bidirectional=case.bidirectional)
    assert multiply_adds(layer, case.T * case.N) > 4e6
    assert any(agrees_with_the_oracle(dataclasses.replace(case, seed=seed)) for seed in range(5))


# ---- Layouts: the bits of the contiguous copy ----------------------------------------------------

T, N, I, H = 5, 7, 18, 21
PER_CALL = ["x", "state", "lengths", "reset_mask", "d_output", "d_state", "parameters"]


def layout_arguments(kind, dtype, **options):
    rng = np.random.default_rng(3)
    layer = make_layer(kind, I, H, rng=rng, dtype=dtype, **options)
    arguments = {
        "x": rng.standard_normal((T, N, I)).astype(dtype), "state": make_state(layer, N, rng),
        "lengths": rng.integers(0, T + 1, N), "reset_mask": rng.random((T, N)) < 0.3,
        "d_output": rng.standard_normal((T, N, directions(layer) * H)).astype(dtype),
        "d_state": make_state(layer, N, rng)}
    return layer, arguments


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "contiguous"])
@pytest.mark.parametrize("argument", PER_CALL)
@pytest.mark.parametrize("kind", list(KINDS))
def test_layout_changes_no_bit(isa, kind, argument, layout, dtype):
    layer, arguments = layout_arguments(kind, dtype, bidirectional=True)
    for ragged in ([True] if argument == "lengths" else [True, False]):
        given = arguments if ragged else {name: a for name, a in arguments.items() if name != "lengths"}
        expected = run(layer, **given)
        if argument == "parameters":
            layer.load_state_dict({name: LAYOUTS[layout](a) for name, a in layer.state_dict().items()})
        elif isinstance(given[argument], tuple):
            given = given | {argument: tuple(LAYOUTS[layout](part) for part in given[argument])}
        else:
            given = given | {argument: LAYOUTS[layout](given[argument])}
        assert_same_bits(run(layer, **given), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_x_of_stride_zero(isa, axis):
    layer, arguments = layout_arguments("gru", "float32")
    one = arguments["x"][:1] if axis == 0 else arguments["x"][:, :1]
    arguments["x"] = np.broadcast_to(one, (T, N, I)).copy()
    expected = run(layer, **arguments)
    arguments["x"] = np.broadcast_to(one, (T, N, I))
    assert_same_bits(run(layer, **arguments), expected)


@pytest.mark.parametrize("given", [np.float16, np.int8, np.uint64, np.bool_, np.float32, ">f4"])
def test_x_converts_up(isa, given):
    layer, arguments = layout_arguments("lstm", "float64")
    x = (3 * arguments["x"]).astype(given)
    expected = run(layer, **arguments | {"x": x.astype(np.float64)})
    assert_same_bits(run(layer, **arguments | {"x": x}), expected)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("read_only", "big_endian")])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_out_of_any_layout_is_written_in_place(isa, kind, bidirectional, ragged, layout):
    layer, arguments = layout_arguments(kind, "float32", bidirectional=bidirectional)
    options = {name: arguments[name] for name in ("reset_mask", *["lengths"] * ragged)}
    expected, _ = layer(arguments["x"], as_state(arguments["state"]), **options)
    out = LAYOUTS[layout](np.full_like(expected, 7))
    output, _ = layer(arguments["x"], as_state(arguments["state"]), out=out, **options)
    assert output is out
    assert_same_bits(np.ascontiguousarray(out), expected)
    if layout in ("apart", "strided"):      # all NaN before; what lies between the elements is the caller's
        assert np.isnan(out.base).sum() == out.base.size - out.size


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_out_that_overlaps_an_input(isa, kind, ragged):
    layer = make_layer(kind, I, I, rng=1)
    rng = np.random.default_rng(2)
    lengths = rng.integers(0, T + 1, N) if ragged else None
    block = rng.standard_normal((T + 1, N, I)).astype(np.float32)
    expected, last = layer(block[1:].copy(), lengths=lengths)
    output, state = layer(block[1:], out=block[:-1], lengths=lengths)
    assert_same_bits({"output": output, **named_state(state, "h", "c")},
                     {"output": expected, **named_state(last, "h", "c")})


# ---- Central differences --------------------------------------------------------------------------

OPTIONS = {
    "plain": {},
    "no_bias": {"bias": False},
    "lengths": {"lengths": [3, 0, 5, 1]},
    "reset_mask": {"resets": True},
    "lengths_and_resets": {"lengths": [3, 0, 5, 1], "resets": True},
    "projection": {"proj_size": 3},
    "bidirectional": {"bidirectional": True},
    "two_layers": {"num_layers": 2},
    "dropout": {"num_layers": 3, "dropout": 0.4},
    "all": {"num_layers": 2, "bidirectional": True, "dropout": 0.3, "lengths": [3, 0, 5, 1], "resets": True},
    "all_and_projection": {"num_layers": 2, "bidirectional": True, "dropout": 0.3, "lengths": [3, 0, 5, 1],
                           "resets": True, "proj_size": 3},
}


@pytest.mark.parametrize("kind, option", [(kind, option) for kind in KINDS for option in OPTIONS
                                          if kind == "lstm" or "projection" not in option])
def test_gradients_agree_with_central_differences(isa, kind, option):
    settings = OPTIONS[option].copy()
    rng = np.random.default_rng(12)
    steps, rows, inputs = 5, 4, 3
    lengths = settings.pop("lengths", None)
    resets = rng.random((steps, rows)) < 0.3 if settings.pop("resets", False) else None
    layer = make_layer(kind, inputs, 5, rng=rng, dtype=np.float64, **settings)
    x = rng.standard_normal((steps, rows, inputs))
    d_output = rng.standard_normal((steps, rows, directions(layer) * state_sizes(layer)[0]))
    state, d_state = make_state(layer, rows, rng), make_state(layer, rows, rng)
    parameters = layer.state_dict()

    def forward():
        return layer.forward(x, as_state(state), lengths, resets, rng=5)    # the same dropout every time

    def loss():
        output, last, _ = forward()
        weighed = zip((d_output, *d_state), (output, *named_state(last, "h", "c").values()), strict=True)
        return sum(float(np.sum(weight * value)) for weight, value in weighed)

    def loss_of_parameters():
        layer.load_state_dict(parameters)
        return loss()

    grads = layer.backward(forward()[-1], d_output, as_state(d_state))
    actual = {"dx": grads.input, **named_state(grads.state, "dh_0", "dc_0"), **grads.parameters}
    expected = {name: central_differences(loss, value, 1e-5)
                for name, value in (("dx", x), *named_state(state, "dh_0", "dc_0").items())}
    expected |= {name: central_differences(loss_of_parameters, value, 1e-5) for name, value in parameters.items()}
    assert_close(actual, expected, 1e-6, dict.fromkeys(expected, 0.1))
