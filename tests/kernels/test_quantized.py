"""Int8 layers: the same whole-number sums on every instruction set, the oracle step by step, and the promises."""

import copy
import pickle
import types

import numpy as np
import pytest
from helpers import (
    KINDS,
    as_parts,
    as_state,
    assert_same_bits,
    make_layer,
    make_state,
    multiply_adds,
    named_state,
    using_isa,
)

import fastrnn
from fastrnn import _core
from fastrnn._base import dispatch
from fastrnn.nn import reference
from fastrnn.nn.parameters import NAMES, layer_suffix
from fastrnn.nn.quantized import quantise, scale_names

OPTIONS = {
    "lstm_projection": {"proj_size": 7},
    "lstm_options": {"peephole": True, "clip": 2.0, "activations": ["hard_sigmoid", "softsign", ("elu", 0.7)]},
    "lstm_coupled": {"peephole": True, "coupled_gates": True},
    "gru_options": {"update": "mirror", "activations": [("scaled_tanh", 0.8, 1.5), "tanh"]},
    "gru_before_options": {"update": "mirror", "clip": 1.0},
    "rnn_tanh_options": {"activations": [("leaky_relu", 0.1)], "clip": 3.0, "bias": False},
}
VARIANTS = [*KINDS, *OPTIONS]
# I, H, num_layers, T, N: one vector of units and many, whole and padded; one row and several tiles of rows; weights in
# L2 and past it, where the input's part is computed for some steps at once.
SIZES = [(1, 8, 2, 9, 1), (3, 33, 1, 30, 17), (16, 64, 2, 12, 3), (40, 130, 1, 11, 13), (401, 300, 1, 5, 7)]
WITHOUT_DOT = " without its dot product"


@pytest.fixture(params=[*fastrnn.available_isas(), "avx512" + WITHOUT_DOT])
def kernels(request):
    """Every way to sum int8 products on this machine in turn; in use while the test runs."""
    name = request.param.removesuffix(WITHOUT_DOT)
    if name not in fastrnn.available_isas():
        pytest.skip(f"this machine does not run {name}")
    with using_isa(name):
        table = dispatch.table(np.dtype(np.float32), "int8")
        _core.use_dot(table, name == request.param)
        try:
            yield request.param
        finally:
            _core.use_dot(table, True)


def make_case(variant, size, **options):
    I, H, num_layers, T, N = size
    rng = np.random.default_rng(31)
    kind = variant if variant in KINDS else variant.rpartition("_")[0]
    layer = make_layer(kind, I, H, num_layers, rng=rng, **options, **OPTIONS.get(variant, {})).quantized("int8")
    x = rng.standard_normal((T, N, I)).astype(np.float32)
    return types.SimpleNamespace(layer=layer, x=x, state=make_state(layer, N, rng), T=T, N=N, rng=rng)


def call(layer, x, state, **options):
    output, last = layer(x, as_state(state), **options)
    return {"output": output, **named_state(last, "h_n", "c_n")}


def rows_of(result, rows):
    """Rows are axis 1 of all arrays."""
    if isinstance(result, dict):
        return {name: value[:, rows] for name, value in result.items()}
    return tuple(part[:, rows] for part in result)


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    return request.param


# ---- Sums and rounding ---------------------------------------------------------------------------

@pytest.mark.parametrize("I", [1, 3, 4, 65, 333, 2048])
@pytest.mark.parametrize("O", [1, 16, 70, 257])
def test_sums_are_the_whole_numbers(kernels, I, O):
    rng = np.random.default_rng(I + O)
    weight = rng.integers(-127, 128, (O, I)).astype(np.int8)
    x = rng.integers(-127, 128, (19, I)).astype(np.float32)
    x[:, 0] = 127                   # the largest: so the scale is 1
    weight[0], x[0] = 127, 127      # the largest sum, at which narrower intermediate sums would overflow
    weight[-1], x[1] = -127, -127
    ones = np.ones(O, np.float32), np.ones(I, np.float32)
    dense = _core.Dense(dispatch.table(np.dtype(np.float32), "int8"), weight, None, ones)
    sums = dense.apply(x, np.empty((19, O), np.float32), 1)
    assert np.array_equal(sums, (x.astype(np.int64) @ weight.T.astype(np.int64)).astype(np.float32))


def test_rows_round_half_to_even(kernels):
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 3.4999998, 0]], np.float32)
    weight = np.eye(10, dtype=np.int8)
    ones = np.ones(10, np.float32), np.ones(10, np.float32)
    dense = _core.Dense(dispatch.table(np.dtype(np.float32), "int8"), weight, None, ones)
    result = dense.apply(x, np.empty((1, 10), np.float32), 1)
    assert result.tolist() == [[127, 0, 2, 2, 0, -2, -2, 126, 3, 0]]


def test_linear_agrees_with_the_oracle(kernels):
    layer = fastrnn.Linear(37, 50, rng=0).quantized("int8")
    x = np.random.default_rng(0).standard_normal((29, 37)).astype(np.float32) * 3
    p = layer.parameters
    expected = reference._affine({name + "_x": value for name, value in p.items()}, "x", x)
    np.testing.assert_allclose(layer(x)[0], expected, rtol=1e-6, atol=1e-6)
    assert_same_bits(layer(x[3])[0], layer(x)[0][3])


def oracle_step(layer, k, x, state):
    """One step of layer k by the oracle, from a state as the layer takes it."""
    names = [name for weight in NAMES for name in (weight, *scale_names(weight))]
    one = {name: layer.parameters.get(name + layer_suffix(k, 0)) for name in names}
    h, c = (*state, None)[:2]
    _, h_n, c_n, *_ = reference.forward(layer._kind, one, x[None], h[k], None if c is None else c[k],
                                        options=layer._options(0))
    return (h_n,) if c_n is None else (h_n, c_n)


# Where r h or m is quantised within the step, a number that lies halfway may be rounded otherwise: by one of 127 steps.
TWICE = ("gru_before", "lstm_projection", "gru_before_options")


def test_each_step_agrees_with_the_oracle(kernels, variant, size):
    """From the kernel's own state each time: a difference in the last bit may round the next state otherwise."""
    case = make_case(variant, (*size[:2], 1, *size[3:]))
    state, differences = case.state, []
    for x in case.x:
        expected = oracle_step(case.layer, 0, x, state)
        _, last = case.layer(x[None], as_state(state))
        state = as_parts(last)
        for got, want in zip(state, expected, strict=True):
            differences.append(np.abs(got[0] - want) / np.maximum(1, np.abs(want)))
    worst = np.stack([d.max(axis=1) for d in differences])
    if variant in TWICE:
        assert np.mean(worst > 1e-5) < 0.05 and worst.max() < 0.05
    else:
        assert worst.max() < 1e-5


def test_weights_are_rounded_once():
    weight = np.random.default_rng(3).standard_normal((40, 70))
    w, row, column = quantise(weight)
    assert w.dtype == np.int8 and np.abs(w).max(axis=1).min() == 127
    # Half a step of the row, and what float32 scales round.
    assert (np.abs(w * row[:, None] * column - weight) <= (0.5 + 1e-4) * row[:, None] * column).all()
    zeros, row, column = quantise(np.zeros((3, 5)))
    assert not zeros.any() and not row.any() and (column == 1).all()


# ---- Promise 1: equal bits -----------------------------------------------------------------------

def test_streams_chunks_and_rows_equal_one_call(kernels, variant, size):
    case = make_case(variant, size)
    whole, cut = call(case.layer, case.x, case.state), case.T // 2
    stream = case.layer.stream(case.N)
    stream.state = as_state(case.state)
    out = np.empty_like(whole["output"][0])
    steps = [stream.step(x, out).copy() for x in case.x[:cut]]
    again = case.layer.restore(stream.snapshot())
    rest = again.run(case.x[cut:])
    assert_same_bits({"output": np.concatenate([np.stack(steps), rest]), **named_state(again.state, "h_n", "c_n")},
                     whole)
    first = call(case.layer, case.x[:cut], case.state)
    second = call(case.layer, case.x[cut:], tuple(v for name, v in first.items() if name != "output"))
    assert_same_bits({**second, "output": np.concatenate([first["output"], second["output"]])}, whole)
    for n in {0, case.N // 2, case.N - 1}:
        row = slice(n, n + 1)
        assert_same_bits(call(case.layer, case.x[:, row], rows_of(case.state, row)), rows_of(whole, row))
    target = np.empty_like(whole["output"])
    assert case.layer(case.x, as_state(case.state), out=target)[0] is target
    assert_same_bits(target, whole["output"])


def test_lengths_and_resets_equal_the_parts(kernels, variant):
    case = make_case(variant, (19, 40, 2, 13, 9), bidirectional=True)
    lengths = case.rng.integers(0, case.T + 1, case.N)
    lengths[:2] = case.T, 0
    ragged = call(case.layer, case.x, case.state, lengths=lengths)
    for n, length in enumerate(lengths):
        row = slice(n, n + 1)
        expected = call(case.layer, case.x[:length, row], rows_of(case.state, row))
        padding = np.zeros((case.T - length, *expected["output"].shape[1:]), np.float32)
        expected["output"] = np.concatenate([expected["output"], padding])
        assert_same_bits(rows_of(ragged, row), expected)
    case = make_case(variant, (19, 40, 1, 13, 9))
    resets = np.zeros((case.T, case.N), bool)
    resets[5, 2:6] = True
    found = call(case.layer, case.x, case.state, reset_mask=resets)
    fresh = call(case.layer, case.x[5:, 2:6], None)
    assert_same_bits({**rows_of(found, slice(2, 6)), "output": found["output"][5:, 2:6]}, fresh)


@pytest.mark.parametrize("size", [(40, 130, 1, 17), (16, 64, 2, 5)], ids=str)
def test_threads_change_no_bit(kernels, variant, size):
    I, H, num_layers, N = size
    T = 3 + int(4e6 / multiply_adds(make_case(variant, (I, H, 1, 1, 1)).layer, N))
    case = make_case(variant, (I, H, num_layers, T, N), bidirectional=True)
    with fastrnn.threads(1):
        expected = call(case.layer, case.x, case.state)
    for threads in (2, 3):
        with fastrnn.threads(threads):
            assert_same_bits(call(case.layer, case.x, case.state), expected)


def test_avx512_has_the_same_bits_with_and_without_its_dot_product():
    if "avx512" not in fastrnn.available_isas():
        pytest.skip("this machine does not run avx512")
    with using_isa("avx512"):
        table = dispatch.table(np.dtype(np.float32), "int8")
        case = make_case("lstm", (40, 130, 2, 11, 13))
        expected = call(case.layer, case.x, case.state)
        try:
            _core.use_dot(table, False)
            again = copy.deepcopy(case.layer)       # packs its parameters anew
            assert_same_bits(call(again, case.x, case.state), expected)
        finally:
            _core.use_dot(table, True)


# ---- Extreme numbers -----------------------------------------------------------------------------

@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38, -1e38])
@pytest.mark.parametrize("size", [(3, 9, 1, 12, 8), (40, 33, 1, 12, 3), (300, 130, 1, 12, 7)], ids=str)
def test_extreme_numbers_touch_their_own_row_alone(kernels, variant, size, bad):
    case = make_case(variant, size)
    row, step, cleared = case.N // 2, 4, 9
    others = np.arange(case.N) != row
    x = case.x.copy()
    x[step, row, ::3] = bad
    resets = np.zeros((case.T, case.N), bool)
    resets[cleared, row] = True
    expected = call(case.layer, case.x, case.state, reset_mask=resets)
    for options in ({"reset_mask": resets}, {"reset_mask": resets, "lengths": np.full(case.N, case.T)}):
        found = call(case.layer, x, case.state, **options)
        assert_same_bits(rows_of(found, others), rows_of(expected, others))
        assert_same_bits(found["output"][:step], expected["output"][:step])
        assert not np.array_equal(found["output"][step, row], expected["output"][step, row], equal_nan=True)
        assert_same_bits(found["output"][cleared:], expected["output"][cleared:])
    if np.isnan(bad):       # without the reset it stays, and is never swallowed
        output = call(case.layer, x, case.state)["output"]
        assert np.isnan(output[step:, row]).any(axis=-1).all()


@pytest.mark.parametrize("bad", [0, np.nan, np.inf, 1e38])
@pytest.mark.parametrize("size", [(3, 9), (5, 33), (67, 130), (401, 300)], ids=str)
def test_one_row_alone_has_the_bits_it_has_in_a_batch(kernels, variant, size, bad):
    """One row of a plain cell has a way of its own, as a step, as a block of steps and as a whole call."""
    T, N, row = 7, 3, slice(1, 2)
    case = make_case(variant, (*size, 2, T, N))
    x = case.x.copy()
    x[2, 1] = bad                       # all numbers of the row, then some of either sign, then the state
    x[4, 1, ::3], x[4, 1, 1::3] = bad, -bad
    state = tuple(part.copy() for part in case.state)
    state[0][1, 1, ::4] = bad
    for first in (case.state, state):
        whole = rows_of(call(case.layer, x, first), row)
        assert_same_bits(call(case.layer, x[:, row], rows_of(first, row)), whole)
        stream = case.layer.stream(1)
        stream.state = as_state(rows_of(first, row))
        steps = [stream.step(one[row]) for one in x[:3]]
        assert_same_bits({"output": np.concatenate([np.stack(steps), stream.run(x[3:, row])]),
                          **named_state(stream.state, "h_n", "c_n")}, whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38, -1e38])
@pytest.mark.parametrize("kind", list(KINDS))
def test_extreme_numbers_give_what_float32_gives(kernels, kind, bad):
    """One number of a row, so that float32 saturates, and weights that no rounding makes 0."""
    rng = np.random.default_rng(5)
    layer = make_layer(kind, 20, 33, rng=rng)
    with layer.updating() as parameters:
        for name in ("weight_ih_l0", "weight_hh_l0"):
            parameters[name] += np.sign(parameters[name]) * 0.05
    x = rng.standard_normal((1, 3, 20)).astype(np.float32)
    x[0, 1, 7] = bad
    state = make_state(layer, 3, rng)
    expected, found = (call(one, x, state) for one in (layer, layer.quantized("int8")))
    for name, wanted in expected.items():
        wanted, got = wanted[:, 1], found[name][:, 1]
        assert np.array_equal(np.isnan(got), np.isnan(wanted))
        huge = np.abs(wanted) > 1e30
        np.testing.assert_allclose(got[~huge], wanted[~huge], atol=0.03, equal_nan=True)
        assert (np.sign(got[huge]) == np.sign(wanted[huge])).all() and (np.abs(got[huge]) > 1e30).all()


def test_rows_and_matrices_of_zeros_give_the_bias(kernels):
    layer = fastrnn.Linear(20, 33, rng=0)
    narrow, bias = layer.quantized("int8"), layer.parameters["bias"]
    x = np.zeros((3, 20), np.float32)
    x[1] = 1e-40                            # subnormal: counts as zero
    x[2] = 1
    found = narrow(x)[0]
    assert_same_bits(found[0], bias)
    assert_same_bits(found[1], bias)
    with layer.updating() as parameters:
        parameters["weight"][:] = 0
    assert_same_bits(layer.quantized("int8")(x)[0], np.broadcast_to(bias, (3, 33)))
    with layer.updating() as parameters:
        parameters["weight"][4] = 1
    found = layer.quantized("int8")(x)[0]
    assert_same_bits(np.delete(found, 4, axis=1), np.delete(np.broadcast_to(bias, (3, 33)), 4, axis=1))
    assert abs(found[2, 4] - bias[4] - 20) < 1e-3


# ---- As a model ----------------------------------------------------------------------------------

def models():
    yield fastrnn.LSTM(3, 9, 2, proj_size=4, peephole=True, batch_first=True, rng=0)
    yield fastrnn.GRU(3, 9, bidirectional=True, rng=0)
    yield fastrnn.RNN(3, 9, nonlinearity="relu", bias=False, rng=0)
    yield fastrnn.Sequential(fastrnn.LSTM(3, 8, rng=0), fastrnn.GRU(8, 5, rng=1), fastrnn.Linear(5, 2, rng=2))


MODELS = list(models())


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_a_quantized_model_is_a_model(model):
    narrow, x = model.quantized("int8"), np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    assert type(narrow) is type(model) and narrow.precision == "int8" and model.precision == "float32"
    assert "precision=int8" in repr(narrow) and "precision" not in repr(model)
    expected = narrow(x)[0]
    assert 0 < np.abs(expected - model(x)[0]).max() < 0.05
    assert sum(v.nbytes for k, v in narrow.parameters.items() if "weight" in k) * 4 == sum(
        v.nbytes for k, v in model.parameters.items() if "weight" in k)
    for again in (copy.copy(narrow), copy.deepcopy(narrow), pickle.loads(pickle.dumps(narrow))):
        assert_same_bits(again(x)[0], expected)
    values = narrow.state_dict()
    other = copy.deepcopy(narrow)
    other.load_state_dict({name: np.zeros_like(value) for name, value in values.items()})
    assert not np.array_equal(other(x)[0], expected)
    other.load_state_dict(values)
    assert_same_bits(other(x)[0], expected)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_no_gradients(model):
    narrow, x = model.quantized("int8"), np.zeros((6, 2, 3), np.float32)
    with pytest.raises(TypeError, match="precision int8 has no gradients: train the float32 model"):
        narrow.forward(x)
    with pytest.raises(TypeError, match="precision int8 has no gradients"), narrow.updating():
        pass
    with pytest.raises(ValueError, match="int8 already"):
        narrow.quantized("int8")


@pytest.mark.parametrize("precision", ["int4", "float32", "INT8", ""])
def test_an_unknown_precision_lists_those_there_are(precision):
    for model in MODELS:
        with pytest.raises(ValueError, match="precision: expected one of 'int8'"):
            model.quantized(precision)
        with pytest.raises(TypeError, match="precision: expected one of 'int8'"):
            model.quantized(8)


def test_weights_without_a_scale_are_refused():
    for bad in (np.nan, np.inf):
        layer = fastrnn.GRU(3, 4, rng=0)
        with layer.updating() as parameters:
            parameters["weight_hh_l0"][2, 1] = bad
        with pytest.raises(ValueError, match="weight_hh_l0: expected finite weights"):
            layer.quantized("int8")


def test_loading_refuses_another_dtype_and_changes_nothing():
    narrow = fastrnn.GRU(3, 4, rng=0).quantized("int8")
    before, values = narrow.state_dict(), narrow.state_dict()
    values["weight_hh_l0"] = values["weight_hh_l0"].astype(np.float32)
    with pytest.raises(ValueError, match="weight_hh_l0: expected dtype int8, got float32"):
        narrow.load_state_dict(values)
    assert_same_bits(narrow.state_dict(), before)


def test_a_float64_model_becomes_a_float32_one():
    layer = fastrnn.GRU(3, 4, dtype=np.float64, rng=0)
    narrow = layer.quantized("int8")
    assert narrow.dtype == np.float32 and narrow(np.ones((5, 3), np.float32))[0].dtype == np.float32


def test_a_snapshot_is_of_its_precision():
    layer = fastrnn.GRU(3, 4, rng=0)
    narrow = layer.quantized("int8")
    with pytest.raises(ValueError, match="of another model"):
        layer.restore(narrow.stream().snapshot())
    with pytest.raises(ValueError, match="of another model"):
        narrow.restore(layer.stream().snapshot())


def test_cell_states_and_embeddings():
    layer = make_layer("lstm", 5, 20, rng=1).quantized("int8")
    x = np.random.default_rng(0).standard_normal((6, 2, 5)).astype(np.float32)
    _, (_, c_n), cells = layer(x, return_cell_states=True)
    assert_same_bits(cells[-1], c_n[0])
    words = fastrnn.Embedding(30, 8, rng=0)
    narrow, index = words.quantized("int8"), np.arange(30)
    bound = np.abs(words.parameters["weight"]).max() / 127
    assert 0 < np.abs(narrow(index)[0] - words(index)[0]).max() < bound


# ---- Real models ---------------------------------------------------------------------------------

def arrays(data_dir, name):
    with np.load(data_dir / "models" / name, allow_pickle=False) as file:
        return dict(file)


def test_speaker_embeddings_stay_where_they_were(data_dir):
    weights = arrays(data_dir, "resemblyzer/weights.npz")
    golden = arrays(data_dir, "resemblyzer/golden.npz")
    layer, head = fastrnn.LSTM(40, 256, 3, batch_first=True), fastrnn.Linear(256, 256)
    layer.load_state_dict({name.removeprefix("lstm."): value for name, value in weights.items() if "lstm" in name})
    head.load_state_dict({"weight": weights["linear.weight"], "bias": weights["linear.bias"]})
    _, (h_n, _) = layer.quantized("int8")(golden["mel"])
    embed = np.maximum(head.quantized("int8")(h_n[-1])[0], 0)
    cosine = (embed * golden["embed"]).sum(axis=1) / np.linalg.norm(embed, axis=1)
    assert cosine.min() > 0.9985


def test_voice_is_heard_where_it_was(data_dir):
    weights = arrays(data_dir, "silero_vad/weights_lstm.npz")
    golden = arrays(data_dir, "silero_vad/golden.npz")
    layer = fastrnn.LSTM(128, 128)
    layer.load_state_dict({name.removeprefix("lstm_cell.") + "_l0": value for name, value in weights.items()
                           if name.startswith("lstm_cell.")})
    # The readout sigmoid(v relu(h) + b) of the model, from its own outputs: 353 frames for 129 numbers.
    hidden = np.c_[np.maximum(golden["lstm_out"], 0), np.ones(353)].astype(float)
    logit = np.log(golden["prob"].astype(float) / (1 - golden["prob"].astype(float)))
    readout = np.linalg.lstsq(hidden, logit, rcond=None)[0]
    assert np.abs(reference.sigmoid(hidden @ readout) - golden["prob"]).max() < 1e-3
    output = layer.quantized("int8")(golden["lstm_in"])[0]
    found = reference.sigmoid(np.c_[np.maximum(output, 0), np.ones(353)] @ readout)
    assert np.abs(found - golden["prob"]).max() < 0.02
    assert ((found > 0.5) == (golden["prob"] > 0.5)).all()


