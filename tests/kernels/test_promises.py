"""The promises: equal bits however a sequence is cut, batched or threaded; the bounds of tanh and sigmoid; what NaN,
Inf and huge sums may touch."""

import concurrent.futures
import itertools
import types

import numpy as np
import pytest
from helpers import (
    KINDS,
    as_parts,
    as_state,
    assert_same_bits,
    directions,
    elementwise,
    exact,
    make_layer,
    make_state,
    multiply_adds,
    named_state,
    run,
    state_sizes,
    ulp,
)

import fastrnn

# Cells with options go through the same tiles with an epilogue of their own.
OPTIONS = {
    "lstm_projection": {},
    "lstm_options": {"peephole": True, "clip": 2.0, "activations": ["hard_sigmoid", "softsign", ("elu", 0.7)]},
    "lstm_coupled": {"peephole": True, "coupled_gates": True},
    "gru_options": {"update": "mirror", "activations": [("scaled_tanh", 0.8, 1.5), "tanh"]},
    "gru_before_options": {"update": "mirror", "clip": 1.0},
    "rnn_tanh_options": {"activations": [("leaky_relu", 0.1)], "clip": 3.0},
}
VARIANTS = [*KINDS, *OPTIONS]
DTYPES = ["float32", "float64"]

# I, H, num_layers, T, N: between them every way through the kernels. One vector of units and many, whole and padded;
# inputs narrow enough to be walked with the state, and wider; weights in L2 and past it, where the input's part is
# computed for some steps at once.
SIZES = [(1, 1, 1, 40, 17), (3, 5, 2, 40, 13), (16, 16, 1, 23, 17), (1, 33, 2, 17, 8), (16, 64, 1, 20, 17),
         (40, 64, 2, 12, 5), (3, 100, 2, 9, 11), (40, 130, 1, 30, 17), (330, 301, 1, 11, 13)]


def make_case(variant, dtype, size, **options):
    """A layer, x, an initial state, and what a call on all of it gives."""
    I, H, num_layers, T, N = size
    if variant == "lstm_projection":
        H = max(H, 2)
        options["proj_size"] = max(1, H // 3)
    rng = np.random.default_rng(23)
    kind = variant if variant in KINDS else variant.rpartition("_")[0]
    layer = make_layer(kind, I, H, num_layers, rng=rng, dtype=dtype, **options, **OPTIONS.get(variant, {}))
    x = rng.standard_normal((T, N, I)).astype(dtype)
    case = types.SimpleNamespace(layer=layer, x=x, state=make_state(layer, N, rng), T=T, N=N, rng=rng)
    case.whole = call(layer, x, case.state)
    return case


def call(layer, x, state, **options):
    output, last = layer(x, as_state(state), **options)
    return {"output": output, **named_state(last, "h_n", "c_n")}


def rows_of(parts, rows):
    return tuple(part[:, rows] for part in parts)


def rows_of_result(result, rows):
    return {name: value[:, rows] for name, value in result.items()}      # rows are axis 1 in all of them


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture
def case(isa, variant, dtype, size):
    return make_case(variant, dtype, size)


@pytest.fixture
def two_way_case(isa, variant, dtype, size):
    return make_case(variant, dtype, size, bidirectional=True)


# ---- Promise 1: equal bits -----------------------------------------------------------------------

def stream_of(case, rows):
    stream = case.layer.stream(len(range(case.N)[rows]))
    stream.state = as_state(rows_of(case.state, rows))
    return stream


def test_stream_steps_equal_one_call(case):
    everything, one = slice(None), slice(case.N // 2, case.N // 2 + 1)
    for rows in (everything, one):
        stream, out = stream_of(case, rows), None
        outputs = []
        for t, x in enumerate(case.x[:, rows]):
            out = np.empty_like(outputs[0]) if t % 2 else None      # the path that allocates, and the one that does not
            outputs.append(stream.step(x, out=out))
            assert out is None or outputs[-1] is out
        assert_same_bits({"output": np.stack(outputs), **named_state(stream.state, "h_n", "c_n")},
                         rows_of_result(case.whole, rows))
    stream = stream_of(case, one)
    unbatched = [stream.step(x) for x in case.x[:, case.N // 2]]
    assert_same_bits(np.stack(unbatched), case.whole["output"][:, case.N // 2])


def random_chunks(case):
    """x cut at three places, some chunks of one step or none."""
    return np.split(case.x, sorted(case.rng.integers(0, case.T + 1, 3)))


def test_stream_run_equals_one_call(case):
    stream, outputs = stream_of(case, slice(None)), []
    for turn, chunk in enumerate(random_chunks(case)):
        if turn == 1:       # runs and steps may be mixed
            outputs.extend(stream.step(x)[None] for x in chunk)
        else:
            outputs.append(stream.run(chunk))
    assert_same_bits({"output": np.concatenate(outputs), **named_state(stream.state, "h_n", "c_n")}, case.whole)


def test_chunks_equal_one_call(case):
    state, outputs = case.state, []
    for chunk in random_chunks(case):
        found = call(case.layer, chunk, state)
        outputs.append(found.pop("output"))
        state = tuple(found.values())
    assert_same_bits({"output": np.concatenate(outputs), **named_state(as_state(state), "h_n", "c_n")}, case.whole)


def test_row_equals_itself_in_any_batch(two_way_case):
    case = two_way_case
    for rows in [[n] for n in range(case.N)] + [range(n) for n in range(2, case.N)] + [case.rng.permutation(case.N)]:
        rows = list(rows)
        assert_same_bits(call(case.layer, case.x[:, rows], rows_of(case.state, rows)), rows_of_result(case.whole, rows))
    # one row at every place of a batch of itself
    rows = [case.N - 1] * case.N
    assert_same_bits(call(case.layer, case.x[:, rows], rows_of(case.state, rows)), rows_of_result(case.whole, rows))


def test_lengths_equal_the_row_cut_short(two_way_case):
    case = two_way_case
    lengths = case.rng.integers(0, case.T + 1, case.N)
    lengths[:2] = case.T, 0
    ragged = call(case.layer, case.x, case.state, lengths=lengths)
    for n, length in enumerate(lengths):
        row = slice(n, n + 1)
        expected = call(case.layer, case.x[:length, row], rows_of(case.state, row))
        padding = np.zeros((case.T - length, *expected["output"].shape[1:]), case.x.dtype)
        expected["output"] = np.concatenate([expected["output"], padding])
        assert_same_bits(rows_of_result(ragged, row), expected)


def test_reset_equals_a_fresh_start(case):
    resets = case.rng.random((case.T, case.N)) < 0.15
    resets[0, 0] = True
    found = call(case.layer, case.x, case.state, reset_mask=resets)
    for n in range(case.N):
        row, starts = slice(n, n + 1), np.flatnonzero(resets[:, n])
        outputs, state = [], rows_of(case.state, row)
        for part in np.split(np.arange(case.T), starts):
            if len(part) and part[0] in starts:
                state = tuple(np.zeros_like(s) for s in state)
            one = call(case.layer, case.x[part, row], state)
            outputs.append(one.pop("output"))
            state = tuple(one.values())
        assert_same_bits(rows_of_result(found, row), {"output": np.concatenate(outputs),
                                                      **named_state(as_state(state), "h_n", "c_n")})


def test_forward_equals_call(two_way_case):
    case = two_way_case
    for options in ({}, {"lengths": case.rng.integers(0, case.T + 1, case.N)},
                    {"reset_mask": case.rng.random((case.T, case.N)) < 0.2}):
        output, last, _ = case.layer.forward(case.x, as_state(case.state), **options)
        assert_same_bits({"output": output, **named_state(last, "h_n", "c_n")},
                         call(case.layer, case.x, case.state, **options))


@pytest.mark.parametrize("size", [size for size in SIZES if size[2] == 1], ids=str)
@pytest.mark.parametrize("kind", list(KINDS))
def test_cells_carried_equal_one_call(isa, kind, dtype, size):
    case = make_case(kind, dtype, size)
    cls = getattr(fastrnn, type(case.layer).__name__ + "Cell")
    cell = cls(case.layer.input_size, case.layer.hidden_size, dtype=dtype, **KINDS[kind][1])
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in case.layer.state_dict().items()})
    state, outputs = as_state(tuple(part[0] for part in case.state)), []
    for x in case.x:
        state = cell(x, state)
        outputs.append(as_parts(state)[0])
    last = as_state(tuple(part[None] for part in as_parts(state)))
    assert_same_bits({"output": np.stack(outputs), **named_state(last, "h_n", "c_n")}, case.whole)


# I, H, num_layers, N, bidirectional; as many steps as it takes for a call to use its threads
THREADED = [(16, 64, 1, 17, False), (40, 130, 2, 17, False), (3, 100, 2, 9, True), (330, 301, 1, 5, False),
            (16, 130, 1, 1, True)]
THREADS_FROM = 2.0e6        # multiply-adds


@pytest.mark.parametrize("size", THREADED, ids=str)
def test_threads_change_no_bit(isa, variant, dtype, size):
    I, H, num_layers, N, two_ways = size
    layer = make_case(variant, dtype, (I, H, 1, 1, 1), bidirectional=two_ways).layer
    T = 3 + int(2 * THREADS_FROM / multiply_adds(layer, N))
    case = make_case(variant, dtype, (I, H, num_layers, T, N), bidirectional=two_ways)
    layer = case.layer
    d_output = case.rng.standard_normal((T, N, directions(layer) * state_sizes(layer)[0])).astype(dtype)
    d_state = make_state(layer, N, case.rng)
    lengths = case.rng.integers(T // 2, T + 1, N)
    lengths[0] = T
    assert multiply_adds(layer, lengths.sum()) > THREADS_FROM
    for options in ({}, {"lengths": lengths}):
        with fastrnn.threads(1):
            expected = run(layer, case.x, case.state, d_output, d_state, **options)
        for threads in (1, 2, 3):       # 1 again: from run to run
            with fastrnn.threads(threads):
                found = run(layer, case.x, case.state, d_output, d_state, **options)
            assert_same_bits(found, expected)


@pytest.mark.parametrize("kind", list(KINDS))
def test_one_layer_in_many_python_threads(kind):
    """The pool serves one call at a time; the others run alone, to the same bits."""
    case = make_case(kind, "float32", (16, 130, 1, 40, 17))
    d_output = np.ones_like(case.whole["output"])

    def work(_):
        return run(case.layer, case.x, case.state, d_output, case.state)

    expected = work(0)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for found in pool.map(work, range(12)):
                assert_same_bits(found, expected)
    finally:
        fastrnn.set_num_threads(before)


@pytest.mark.parametrize("cls", [fastrnn.RNNCell, fastrnn.GRUCell, fastrnn.LSTMCell])
def test_one_cell_in_many_python_threads(cls):
    """Its stream serves one thread at a time; the others go the layer's way, to the same bits."""
    cell, rng = cls(16, 40, rng=0), np.random.default_rng(0)
    inputs = rng.standard_normal((300, 4, 16)).astype(np.float32)

    def work(rows):
        state = None
        for x in inputs[:, :rows]:
            state = cell(x, state)
        return named_state(state, "h", "c")

    rows = [1, 4, 4, 2] * 6
    expected = {n: work(n) for n in set(rows)}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for n, found in zip(rows, pool.map(work, rows), strict=True):
            assert_same_bits(found, expected[n])


@pytest.mark.parametrize("kind", list(KINDS))
def test_cells_see_new_parameters_and_any_state(isa, kind):
    layer = make_layer(kind, 5, 9, rng=1)
    cell = getattr(fastrnn, type(layer).__name__ + "Cell")(5, 9, **KINDS[kind][1])
    rng = np.random.default_rng(2)
    for rows, seed in ((3, 1), (3, 2), (1, 3), (6, 4)):
        layer = make_layer(kind, 5, 9, rng=seed)
        cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.parameters.items()})
        x = rng.standard_normal((rows, 5)).astype(np.float32)
        state = tuple(part[0] for part in make_state(layer, rows, rng))
        expected = named_state(layer(x[None], as_state(tuple(part[None] for part in state)))[1], "h", "c")
        expected = {name: value[0] for name, value in expected.items()}
        assert_same_bits(named_state(cell(x, as_state(state)), "h", "c"), expected)
        apart = tuple(np.repeat(part, 2, axis=-1)[:, ::2] for part in state)        # not as the stream takes them
        assert_same_bits(named_state(cell(x, as_state(apart)), "h", "c"), expected)
        assert_same_bits(named_state(cell(x[0], as_state(tuple(part[0] for part in state))), "h", "c"),
                         {name: value[0] for name, value in expected.items()})


# ---- Promise 3: tanh and sigmoid -------------------------------------------------------------------

TANH_ULP = 2
SIGMOID_ERROR = 1.2e-7


# Where a formula may change, or give out: thresholds of the kernels, limits of float32
EDGES = [2.0**-126, 2.0**-12, 0.3, 0.6, 0.625, 1, 9.0, 9.0109, 11, 16.6, 22, 44, 45, 88.7, 90, 103.97, 1e38]


def float32_by_value(stride):
    """Every stride-th float32, rising, and all around the edges; infinities and zeros of both signs included."""
    around = np.arange(-2000, 2001, dtype=np.int32)
    positive = np.unique(np.concatenate(
        [np.arange(0, 0x7F800000, stride, dtype=np.int32), np.array([0x7F7FFFFF, 0x7F800000], np.int32),
         *(np.float32(edge).view(np.int32) + around for edge in EDGES)])).view(np.float32)
    return np.concatenate([-positive[::-1], positive])


@pytest.fixture(scope="module")
def sample():
    """x, rising, and exact tanh and sigmoid there: 4 million values, 1 of 1021 of all float32 and those at edges."""
    x = float32_by_value(1021)
    return x, {function: exact(function, x) for function in ("tanh", "sigmoid")}


def largest_fall(y):
    """How far y[i] lies below an earlier y, for each i."""
    return np.maximum.accumulate(y) - y


def test_tanh_within_2_ulp(isa, sample):
    x, want = sample[0], sample[1]["tanh"]
    got = elementwise("tanh", x).astype(np.float64)
    error = np.abs(got - want) / ulp(want)
    at = int(np.argmax(error))
    assert error[at] <= TANH_ULP, f"{error[at]:.3f} ULP at {x[at].hex()}: {got[at]!r} for {want[at]!r}"
    assert np.max(np.abs(got)) <= 1
    assert np.max(largest_fall(got) / ulp(got)) <= TANH_ULP


def test_tanh_is_odd(isa, sample):
    x = sample[0]
    assert_same_bits(elementwise("tanh", -x), -elementwise("tanh", x))


def test_sigmoid_error(isa, sample):
    x, want = sample[0], sample[1]["sigmoid"]
    got = elementwise("sigmoid", x).astype(np.float64)
    error = np.abs(got - want)
    at = int(np.argmax(error))
    assert error[at] <= SIGMOID_ERROR, f"{error[at]:.3e} at {x[at].hex()}: {got[at]!r} for {want[at]!r}"
    assert got.min() >= 0 and got.max() <= 1
    assert np.max(largest_fall(got)) <= SIGMOID_ERROR


@pytest.mark.parametrize("function, low, middle", [("tanh", -1, 0), ("sigmoid", 0, 0.5)])
def test_limits_are_exact_and_nan_stays(isa, dtype, function, low, middle):
    huge = np.finfo(dtype).max
    x = np.array([-np.inf, -huge, -1e38, -110, 0, 110, 1e38, huge, np.inf, np.nan, -np.nan], dtype)
    for shift in range(17):     # each value in every lane of a vector, and in its remainder
        got = elementwise(function, np.roll(x, shift))
        assert_same_bits(np.roll(got, -shift), np.array([low] * 4 + [middle] + [1] * 4 + [np.nan] * 2, dtype))


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
def test_float64_functions(isa, function):
    rng = np.random.default_rng(0)
    tiny_to_large = rng.standard_normal(100_000) * 10.0 ** rng.integers(-300, 3, 100_000)
    x = np.concatenate([rng.uniform(-30, 30, 300_000), tiny_to_large])
    error = np.abs(elementwise(function, x) - exact(function, x))
    assert np.max(error / np.abs(np.tanh(x)) if function == "tanh" else error) <= 1e-15


def gates_apart(kind, gates, units, dtype="float32", weight=1):
    """A layer whose gate sums are its inputs times `weight`, one a gate, the same for all units; no recurrence."""
    layer = KINDS[kind][0](gates, units, rng=0, dtype=dtype, **KINDS[kind][1])
    fresh = {name: np.zeros_like(value) for name, value in layer.parameters.items()}
    for gate in range(gates):
        fresh["weight_ih_l0"][gate * units:(gate + 1) * units, gate] = weight
    layer.load_state_dict(fresh)
    return layer


def worst_arguments(function, sample, bins=250):
    """For every small range of results, the arguments where the instruction set in use errs most, either way."""
    x, want = sample[0][1:-1], sample[1][function][1:-1]        # without the infinities
    error = elementwise(function, x) - want
    found = []
    for signed in (error, -error):
        order = np.lexsort((signed, np.floor(want * bins)))
        last_of_bin = np.append(np.diff(np.floor(want[order] * bins)) != 0, True)
        found.append(x[order[last_of_bin]])
    return np.unique(np.concatenate(found))


@pytest.mark.slow
@pytest.mark.parametrize("units", [3, 16])
def test_products_within_the_lstm_kernel(isa, sample, units):
    """i tanh(g) and o tanh(c), where each factor errs most, and anywhere."""
    rng = np.random.default_rng(4)
    a, b = np.meshgrid(worst_arguments("sigmoid", sample), worst_arguments("tanh", sample))
    anywhere = rng.standard_normal((2, 100_000)) * 10 ** rng.uniform(-3, 1, (2, 100_000))
    # the worst of 4e9 pairs of bad arguments, of earlier kernels and of these, with FMA and without
    known = np.transpose([(0.002649906, 4.546537), (0.38363007, 3.5397158), (0.36295173, 3.018948)])
    a, b = np.concatenate([[a.ravel(), b.ravel()], anywhere, known], axis=1).astype(np.float32)
    layer = gates_apart("lstm", 4, units)
    zeros = np.zeros((1, len(a), units), np.float32)
    huge = np.full_like(a, 1e38)

    # c = f * 0 + i tanh(g); then c = 1 * c_0 + 0 exactly, and h = o tanh(c)
    _, (_, i_tanh_g) = layer(np.stack([a, -huge, b, huge], axis=-1)[None], (zeros, zeros))
    c_0 = np.repeat(b[None, :, None], units, axis=2)
    o_tanh_c, (_, c_n) = layer(np.stack([-huge, huge, b, a], axis=-1)[None], (zeros, c_0))
    assert_same_bits(c_n, c_0)
    want = (exact("sigmoid", a) * exact("tanh", b))[None, :, None]
    for name, got in (("i tanh(g)", i_tanh_g), ("o tanh(c)", o_tanh_c)):
        error = np.abs(got - want).max(axis=(0, 2))
        n = int(np.argmax(error))
        assert error[n] <= SIGMOID_ERROR, (f"{name}: {error[n]:.3e} at sigmoid({a[n]!r}) tanh({b[n]!r}), "
                                           f"{np.sum(error > SIGMOID_ERROR)} of {len(a)} past the bound")


# ---- Huge sums ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("units", [1, 5, 16, 33])
@pytest.mark.parametrize("value, weight", [(1e38, 1), ("max", 1), ("max", 2)], ids=["1e38", "max", "overflow"])
def test_huge_sums_saturate_exactly(isa, dtype, value, weight, units):
    """Gates are exactly 0, 1 or ±1, seen through the cells' own equations, which are exact then."""
    signs = np.array(list(itertools.product([-1, 1], repeat=4)), dtype)
    sums = signs * (np.finfo(dtype).max if value == "max" else np.dtype(dtype).type(value))
    closed_or_open = np.repeat((signs > 0).astype(dtype)[:, :, None], units, axis=2)     # what sigmoid gives
    plus_or_minus = np.repeat(signs[:, :, None], units, axis=2)                          # what tanh gives
    half = np.full((1, len(signs), units), 0.5, dtype)

    def last(kind, gates, state):
        layer = gates_apart(kind, gates, units, dtype, weight)
        return as_parts(layer(sums[None, :, :gates], state)[1])

    i, f, o, g = *(closed_or_open[:, gate] for gate in (0, 1, 3)), plus_or_minus[:, 2]
    h, c = last("lstm", 4, (half, half))
    assert np.array_equal(c, f * half + i * g)      # but for a zero's sign
    assert np.array_equal(h, o * elementwise("tanh", c))
    z, n = closed_or_open[:, 1], plus_or_minus[:, 2]
    for kind in ("gru", "gru_before"):
        assert_same_bits(last(kind, 3, half)[0], z * half + (1 - z) * n)
    assert_same_bits(last("rnn_tanh", 1, half)[0], plus_or_minus[None, :, 0])


# ---- NaN and Inf -------------------------------------------------------------------------------------

@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [(3, 5, 2, 12, 8), (40, 33, 1, 12, 3), (20, 64, 2, 12, 17), (330, 301, 1, 12, 7)],
                         ids=str)
def test_nan_or_inf_touches_one_row_from_then_on(isa, variant, dtype, size, bad):
    case = make_case(variant, dtype, size)
    row, step, cleared = case.N // 2, 4, 9
    others = np.arange(case.N) != row
    x = case.x.copy()
    x[step, row, ::3] = bad
    resets = np.zeros((case.T, case.N), bool)
    resets[cleared, row] = True
    expected = call(case.layer, case.x, case.state, reset_mask=resets)
    for options in ({"reset_mask": resets}, {"reset_mask": resets, "lengths": np.full(case.N, case.T)}):
        found = call(case.layer, x, case.state, **options)
        assert_same_bits(rows_of_result(found, others), rows_of_result(expected, others))
        assert_same_bits(found["output"][:step], expected["output"][:step])
        assert not np.array_equal(found["output"][step, row], expected["output"][step, row], equal_nan=True)
        assert_same_bits(found["output"][cleared:], expected["output"][cleared:])
        assert_same_bits({name: found[name] for name in found if name != "output"},
                         {name: expected[name] for name in found if name != "output"})
    if np.isnan(bad):       # without the reset it stays, and is never swallowed
        output = call(case.layer, x, case.state)["output"]
        assert np.isnan(output[step:, row]).any(axis=-1).all()
    # The gradients of the other rows do not see it either.
    d_output = np.ones_like(expected["output"])
    _, _, cache = case.layer.forward(x, as_state(case.state), reset_mask=resets)
    _, _, clean = case.layer.forward(case.x, as_state(case.state), reset_mask=resets)
    found, wanted = (case.layer.backward(c, d_output) for c in (cache, clean))
    assert_same_bits(found.input[:, others], wanted.input[:, others])
    assert_same_bits(found.input[cleared:], wanted.input[cleared:])
    for got, want in zip(as_parts(found.state), as_parts(wanted.state), strict=True):
        assert_same_bits(got[:, others], want[:, others])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_the_state_or_past_the_length(isa, variant, dtype, bad):
    case = make_case(variant, dtype, (20, 33, 1, 6, 9))
    lengths = np.full(case.N, case.T)
    lengths[3:5] = 2, 0
    expected = call(case.layer, case.x, case.state, lengths=lengths)
    x = case.x.copy()
    x[2:, 3], x[:, 4] = bad, bad                # never read
    assert_same_bits(call(case.layer, x, case.state, lengths=lengths), expected)
    resets = np.zeros((case.T, case.N), bool)
    resets[0, 3] = True
    expected = call(case.layer, case.x, case.state, reset_mask=resets)
    for part in case.state:
        part[:, 3] = bad                        # cleared before the first step
    assert_same_bits(call(case.layer, case.x, case.state, reset_mask=resets), expected)
