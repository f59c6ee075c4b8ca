"""Cells with options (other activations, clip, peepholes, coupled gates, mirrored update) and reversed layers: against
the oracle on every instruction set, gradients against central differences, and what the options mean.

That they keep the promises of equal bits is in test_promises.py; ONNX Runtime is asked in test_interop_onnx.py.
"""

import itertools
import pickle

import hypothesis
import numpy as np
import pytest
from helpers import (
    KINDS,
    as_state,
    assert_close,
    assert_same_bits,
    central_differences,
    directions,
    make_layer,
    make_state,
    named_state,
    refuses,
    state_sizes,
)
from hypothesis import strategies as st
from test_kernels import TOLERANCE, agrees_with_the_oracle, cases

import fastrnn
from fastrnn.nn import reference
from fastrnn.nn.parameters import ACTIVATIONS, PLAIN

# ---- Each activation -----------------------------------------------------------------------------

SHAPES = [*ACTIVATIONS, ("affine", 0.7, -0.3), ("leaky_relu", 0.3), ("thresholded_relu", 0.4),
          ("thresholded_relu", -0.4), ("scaled_tanh", 1.7159, 2 / 3), ("hard_sigmoid", 1 / 6, 0.5), ("elu", 1.7)]
SUMS = np.concatenate([np.linspace(-20, 20, 4001), np.geomspace(1e-30, 1e4, 400), -np.geomspace(1e-30, 1e4, 400),
                       [0.0, -0.0, 88.0, -88.0, 104.0, -104.0, 1e38, -1e38]])


def applied(activation, sums, d=None):
    """f(sums) through an RNN whose sums are just its inputs; with d also d f'(sums)."""
    layer = fastrnn.RNN(1, 1, bias=False, activations=[activation], dtype=sums.dtype)
    layer.load_state_dict({"weight_ih_l0": np.ones((1, 1), sums.dtype), "weight_hh_l0": np.zeros((1, 1), sums.dtype)})
    output, _, cache = layer.forward(sums[None, :, None])
    return output[0, :, 0], None if d is None else layer.backward(cache, d[None, :, None]).input[0, :, 0]


def expected(activation, sums):
    """In float64: f and f'."""
    name, *given = activation if isinstance(activation, tuple) else (activation,)
    numbers = [default if at >= len(given) else given[at] for at, default in enumerate(ACTIVATIONS[name])]
    form = reference._Form("rnn_tanh", ([(name, *numbers)], np.inf, False, False))
    with np.errstate(over="ignore"):
        return form.value(0, sums.astype(float)), form.slope(0, sums.astype(float))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", SHAPES, ids=str)
def test_activation_and_slope(isa, activation, dtype):
    sums = SUMS[np.min([abs(SUMS - corner) for corner in (0.4, -0.4, 3, -3, 2.5, -2.5)], axis=0) > 1e-3].astype(dtype)
    value, slope = applied(activation, sums, np.ones_like(sums))
    bound = {"float32": 3e-7, "float64": 1e-15}[dtype]
    for got, want in zip((value, slope), expected(activation, sums), strict=True):
        error = np.abs(got - want) / np.maximum(1, np.abs(want))
        assert np.max(error) <= bound, f"{np.max(error):.3g} at {sums[np.argmax(error)]}"


def test_small_sigmoids_have_all_their_digits(isa):
    sums = np.linspace(-28, 0, 2001).astype(np.float32)         # to 7e-13
    value, want = applied("sigmoid", sums)[0], expected("sigmoid", sums)[0]
    # without FMA the product n ln 2 is rounded first: half an ulp of 28, 9.5e-7, and exp's argument is off by that
    assert np.max(np.abs(value / want - 1)) <= (2e-6 if isa == "baseline" else 4e-7)
    assert applied("sigmoid", np.array([-1e38, -104], np.float32))[0].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", SHAPES, ids=str)
def test_activation_of_nan_and_infinity(isa, activation, dtype):
    value, _ = applied(activation, np.array([np.nan, np.inf, -np.inf], dtype))
    assert np.isnan(value[0])
    limits = {"sigmoid": (1, 0), "tanh": (1, -1), "hard_sigmoid": (1, 0), "softsign": (1, -1), "relu": (np.inf, 0),
              "softplus": (np.inf, 0)}
    if activation in limits:
        assert tuple(value[1:]) == limits[activation]


# ---- Cells against the oracle ----------------------------------------------------------------------

BOUNDED = ["sigmoid", "tanh", "scaled_tanh", "hard_sigmoid", "softsign"]


@st.composite
def activation(draw, names=tuple(ACTIVATIONS)):
    name = draw(st.sampled_from(names))
    numbers = [draw(st.sampled_from([None, 0.3, 0.9])) for default in ACTIVATIONS[name] if default is not None]
    return name, *numbers


def cell_options(kind, dtype):
    """float32 has bounded activations alone: products of others are soon of another scale than 1, and so are errors."""
    own = {"peephole": st.booleans(), "coupled_gates": st.booleans()} if kind == "lstm" else {}
    own |= {"update": st.sampled_from(["torch", "mirror"])} if kind.startswith("gru") else {}
    count = len(PLAIN[kind])
    return st.fixed_dictionaries(own, optional={
        "activations": st.lists(activation(BOUNDED if dtype == "float32" else tuple(ACTIVATIONS)),
                                min_size=count, max_size=count),
        "clip": st.sampled_from([0.3, 1.0, 5.0]), "reverse": st.just(True)})


@st.composite
def cases_with_options(draw):
    case = draw(cases())
    case.options = draw(cell_options(case.kind, case.dtype))
    if case.options.get("reverse"):
        case.bidirectional = False
    if case.bidirectional and "activations" in case.options and draw(st.booleans()):
        again = draw(cell_options(case.kind, case.dtype))
        case.options["activations"] += again.get("activations", case.options["activations"])
    case.T = min(case.T, 6)     # states without a bound grow from step to step
    return case


@hypothesis.settings(max_examples=400)
@hypothesis.given(cases_with_options())
def test_agrees_with_the_oracle(case):
    hypothesis.assume(agrees_with_the_oracle(case))


# ---- Central differences --------------------------------------------------------------------------

SMOOTH = {
    "peephole": ("lstm", {"peephole": True}),
    "coupled": ("lstm", {"coupled_gates": True}),
    "peephole_coupled": ("lstm", {"peephole": True, "coupled_gates": True}),
    "peephole_projection": ("lstm", {"peephole": True, "proj_size": 3}),
    "lstm_activations": ("lstm", {"peephole": True, "activations": ["softsign", ("elu", 0.9), "softplus"]}),
    "lstm_clip": ("lstm", {"peephole": True, "clip": 0.8}),
    "lstm_two_ways": ("lstm", {"bidirectional": True, "peephole": True, "num_layers": 2,
                               "activations": ["sigmoid", "tanh", "tanh",
                                               "softsign", ("scaled_tanh", 1.2, 0.6), "tanh"]}),
    "lstm_reverse": ("lstm", {"reverse": True, "peephole": True}),
    "mirror": ("gru", {"update": "mirror"}),
    "mirror_before": ("gru_before", {"update": "mirror"}),
    "gru_activations": ("gru", {"activations": [("scaled_tanh", 0.7, 1.3), "softsign"], "clip": 0.9}),
    "gru_before_activations": ("gru_before", {"activations": ["softsign", ("affine", 0.6, 0.1)], "clip": 0.9}),
    "gru_reverse": ("gru", {"reverse": True, "num_layers": 2}),
    "rnn_softplus": ("rnn_tanh", {"activations": ["softplus"]}),
    "rnn_elu": ("rnn_tanh", {"activations": ["elu"], "clip": 1.1, "bidirectional": True}),
    "rnn_affine": ("rnn_tanh", {"activations": [("affine", 0.5, 0.2)]}),
    "rnn_hard_sigmoid": ("rnn_tanh", {"activations": ["hard_sigmoid"]}),
    "rnn_leaky": ("rnn_tanh", {"activations": [("leaky_relu", 0.2)]}),
}


@pytest.mark.parametrize("name", list(SMOOTH))
def test_gradients_agree_with_central_differences(isa, name):
    kind, options = SMOOTH[name]
    rng = np.random.default_rng(7)
    layer = make_layer(kind, 3, 5, rng=rng, dtype=np.float64, **options)
    x, lengths = rng.standard_normal((5, 4, 3)), [3, 0, 5, 1]
    resets = rng.random((5, 4)) < 0.2
    d_output = rng.standard_normal((5, 4, directions(layer) * state_sizes(layer)[0]))
    state, d_state = make_state(layer, 4, rng), make_state(layer, 4, rng)
    parameters = layer.state_dict()

    def loss():
        layer.load_state_dict(parameters)
        output, last = layer(x, as_state(state), lengths=lengths, reset_mask=resets)
        weighed = zip((d_output, *d_state), (output, *named_state(last, "h", "c").values()), strict=True)
        return sum(float(np.sum(weight * value)) for weight, value in weighed)

    _, _, cache = layer.forward(x, as_state(state), lengths, resets)
    grads = layer.backward(cache, d_output, as_state(d_state))
    actual = {"dx": grads.input, **named_state(grads.state, "dh_0", "dc_0"), **grads.parameters}
    wanted = {key: central_differences(loss, value, 1e-5)
              for key, value in (("dx", x), *named_state(state, "dh_0", "dc_0").items(), *parameters.items())}
    assert_close(actual, wanted, 1e-6, dict.fromkeys(wanted, 0.1))


# ---- Cells that diverge -----------------------------------------------------------------------------

UNBOUNDED = ["relu", "softplus", "elu", "affine"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "gru_before", "lstm", "lstm_peephole"])
def test_cells_that_diverge_do_so_as_the_oracle_does(isa, kind, dtype):
    """Cells with unbounded activations and large weights: finite, infinite and NaN where the oracle is, and close.

    Weights and inputs are positive: where large numbers of both signs cancel, what is left is a matter of rounding, and
    the step after it another one altogether. For the same reason the update gate of a GRU, which 1 - z is computed
    from, is bounded here.
    """
    options = {"peephole": True} if kind == "lstm_peephole" else {"update": "mirror"} if "gru" in kind else {}
    kind = kind.removesuffix("_peephole")
    gates = ["sigmoid"] if kind.startswith("gru") else [*UNBOUNDED, "sigmoid"]
    forms = {"rnn_tanh": 1, "lstm": 3}.get(kind, 2)
    x = abs(np.random.default_rng(0).standard_normal((30 if kind == "lstm" else 300, 3, 3))).astype(dtype)
    tolerance, diverged = 1e-9 if dtype == np.float64 else 1e-3, 0
    choices = [gates, *[[*UNBOUNDED, "tanh"]] * (forms - 1)] if forms > 1 else [UNBOUNDED]
    for activations in itertools.product(*choices):
        layer = make_layer(kind, 3, 20, dtype=dtype, rng=1, activations=list(activations), **options)
        layer.load_state_dict({name: 8 * abs(value) for name, value in layer.state_dict().items()})
        y, _ = layer(x)
        parameters = {name: layer.parameters.get(f"{name}_l0")
                      for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole")}
        zeros = np.zeros((3, 20), dtype)
        with np.errstate(all="ignore"):
            expected = reference.forward(layer._kind, parameters, x, zeros, zeros if kind == "lstm" else None,
                                         options=layer._options(0))[0]
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance, err_msg=str(activations))
        diverged += not np.isfinite(expected).all()
    assert diverged > 1


# ---- What the options mean ------------------------------------------------------------------------

def outputs(layer, x):
    output, last = layer(x)
    return {"output": output, **named_state(last, "h_n", "c_n")}


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((9, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", ["gru", "gru_before"])
def test_mirrored_update_is_the_other_with_z_negated(isa, kind, x):
    layer = make_layer(kind, 3, 7, rng=2, update="mirror")
    other = make_layer(kind, 3, 7, rng=2)
    state = layer.state_dict()
    for value in state.values():
        value[7:14] *= -1
    other.load_state_dict(state)
    assert_close(outputs(layer, x), outputs(other, x), TOLERANCE["float32"])


def test_coupled_gates_do_not_see_the_forget_rows(isa, x):
    layer = make_layer("lstm", 3, 7, rng=2, coupled_gates=True)
    before = outputs(layer, x)
    with layer.updating() as parameters:
        for value in parameters.values():
            value[7:14] = np.nan
    assert_same_bits(outputs(layer, x), before)
    output, _, cache = layer.forward(x)
    for name, value in layer.backward(cache, np.ones_like(output)).parameters.items():
        assert np.all(value[7:14] == 0) and np.any(value[14:] != 0), name


def test_zero_peepholes_are_none(isa, x):
    layer, plain = make_layer("lstm", 3, 7, rng=2, peephole=True), make_layer("lstm", 3, 7, rng=2)
    with layer.updating() as parameters:
        parameters["peephole_l0"][:] = 0
    plain.load_state_dict({name: layer.parameters[name] for name in plain.parameters})
    assert_close(outputs(layer, x), outputs(plain, x), TOLERANCE["float32"])


def test_clip_bounds_every_sum(isa, x):
    layer = make_layer("rnn_tanh", 3, 7, rng=2, clip=0.25)
    output = np.abs(layer(100 * x)[0])
    assert np.max(output) == pytest.approx(np.tanh(0.25)) and np.mean(output) > 0.99 * np.tanh(0.25)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("lengths", [None, [4, 9, 0, 7]])
def test_reverse_is_the_second_direction(isa, kind, lengths, x):
    both = make_layer(kind, 3, 7, rng=2, bidirectional=True)
    one = make_layer(kind, 3, 7, rng=3, reverse=True)
    one.load_state_dict({name.removesuffix("_reverse"): value for name, value in both.parameters.items()
                         if name.endswith("_reverse")})
    expected, found = (layer(x, lengths=lengths) for layer in (both, one))
    assert_same_bits(found[0], np.ascontiguousarray(expected[0][..., 7:]))
    assert_same_bits(named_state(found[1], "h", "c"),
                     {name: value[1:] for name, value in named_state(expected[1], "h", "c").items()})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rnn_relu"])
def test_each_direction_has_the_activations_that_are_given_for_it(isa, kind, x):
    """Beside layers of one direction; what the oracle is told of a layer's options comes from the layer itself."""
    count = len(PLAIN[kind])
    first = ["softsign", "hard_sigmoid", ("elu", 0.5)][:count]
    second = [("scaled_tanh", 0.7, 1.3), "tanh", "sigmoid"][:count]
    both = make_layer(kind, 3, 7, rng=2, bidirectional=True, activations=first + second)
    expected = both(x)[0]
    for suffix, options, columns in (("", {"activations": first}, slice(0, 7)),
                                     ("_reverse", {"activations": second, "reverse": True}, slice(7, 14))):
        one = make_layer(kind, 3, 7, rng=3, **options)
        one.load_state_dict({name: both.parameters[name + suffix] for name in one.parameters})
        assert_same_bits(one(x)[0], np.ascontiguousarray(expected[..., columns]))


def test_plain_activations_by_name_are_the_plain_cell():
    for cls, names in ((fastrnn.LSTM, PLAIN["lstm"]), (fastrnn.GRU, PLAIN["gru"]), (fastrnn.RNN, PLAIN["rnn_tanh"])):
        assert cls(2, 3, activations=names).activations is None
    relu = fastrnn.RNN(2, 3, activations=["relu"])
    assert (relu.nonlinearity, relu.activations) == ("relu", None)
    layer = fastrnn.GRU(2, 3, bidirectional=True, activations=["hard_sigmoid", ("elu", 0.5), "sigmoid", "tanh"])
    assert layer.activations == (("hard_sigmoid", 0.2, 0.5), ("elu", 0.5, None), ("sigmoid", None, None),
                                 ("tanh", None, None))


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_cells_have_the_options(isa, kind, x):
    options = {"activations": ["softsign", "tanh", "elu"][:len(PLAIN[kind])], "clip": 0.5}
    options |= {"lstm": {"peephole": True, "coupled_gates": True}, "gru": {"update": "mirror"}}.get(kind, {})
    layer = make_layer(kind, 3, 7, rng=2, **options)
    cell = getattr(fastrnn, type(layer).__name__ + "Cell")(3, 7, **options)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.parameters.items()})
    state = None
    for step in x:
        state = cell(step, state)
    assert_same_bits(named_state(state, "h_n", "c_n"),
                     {name: value[0] for name, value in named_state(layer(x)[1], "h_n", "c_n").items()})


def test_options_show_travel_and_tell_models_apart(x):
    layer = fastrnn.LSTM(3, 7, peephole=True, clip=2.0, activations=["sigmoid", "softsign", "tanh"], rng=0)
    assert "peephole=True" in repr(layer) and "clip=2.0" in repr(layer) and "softsign" in repr(layer)
    assert_same_bits(outputs(pickle.loads(pickle.dumps(layer)), x), outputs(layer, x))
    snapshot = layer.stream().snapshot()
    other = fastrnn.LSTM(3, 7, peephole=True, clip=3.0, activations=["sigmoid", "softsign", "tanh"], rng=0)
    layer.restore(snapshot)
    with refuses(ValueError, "snapshot"):
        other.restore(snapshot)


BAD = [
    (fastrnn.LSTM, {"peephole": 1}, TypeError, "peephole"),
    (fastrnn.LSTM, {"coupled_gates": None}, TypeError, "coupled_gates"),
    (fastrnn.LSTM, {"clip": 0}, ValueError, "clip"),
    (fastrnn.LSTM, {"clip": -1.0}, ValueError, "clip"),
    (fastrnn.LSTM, {"clip": float("nan")}, ValueError, "clip"),
    (fastrnn.LSTM, {"clip": float("inf")}, ValueError, "clip"),
    (fastrnn.LSTM, {"clip": 10**400}, ValueError, "clip"),
    (fastrnn.LSTM, {"clip": True}, TypeError, "clip"),
    (fastrnn.LSTM, {"clip": "1"}, TypeError, "clip"),
    (fastrnn.GRU, {"update": "paddle"}, ValueError, "update"),
    (fastrnn.GRU, {"update": True}, TypeError, "update"),
    (fastrnn.GRU, {"activations": "tanh"}, TypeError, "activations"),
    (fastrnn.GRU, {"activations": ["tanh"]}, ValueError, "activations"),
    (fastrnn.GRU, {"activations": ["tanh"] * 4}, ValueError, "activations"),
    (fastrnn.GRU, {"activations": ["tanh", "gelu"]}, ValueError, "activations"),
    (fastrnn.GRU, {"activations": ["tanh", None]}, TypeError, "activations"),
    (fastrnn.GRU, {"activations": ["tanh", ()]}, (TypeError, ValueError), "activations"),
    (fastrnn.GRU, {"activations": ["tanh", ("elu", 1, 2)]}, ValueError, "activations"),
    (fastrnn.GRU, {"activations": ["tanh", ("affine", 1, 2, 3)]}, ValueError, "activations"),
    (fastrnn.GRU, {"activations": ["tanh", ("elu", "1")]}, TypeError, "activations"),
    (fastrnn.GRU, {"activations": ["tanh", ("elu", float("nan"))]}, ValueError, "activations"),
    (fastrnn.RNN, {"reverse": 1}, TypeError, "reverse"),
    (fastrnn.RNN, {"reverse": True, "bidirectional": True}, ValueError, "reverse"),
]


@pytest.mark.parametrize("cls, options, error, name", BAD)
def test_unsuitable_options(cls, options, error, name):
    with pytest.raises(error, match=rf"^{name}\b"):
        cls(2, 3, **options)


def test_reversed_layers_do_not_stream():
    with refuses(ValueError, "a reversed layer cannot stream"):
        fastrnn.GRU(2, 3, reverse=True).stream()
