"""Bfloat16 layers: each step is the float32 layer's on rounded numbers, bit for bit; the oracle; and the promises."""

import copy
import pickle

import numpy as np
import pytest
from helpers import KINDS, as_parts, as_state, assert_same_bits, make_layer, make_state, multiply_adds, named_state
from narrow_layers import KERNELS, NARROWED_TWICE, VARIANTS, call, make_case, rows_of, using_kernels

import fastrnn
from fastrnn.nn import reference
from fastrnn.nn.parameters import NAMES, from_bfloat16, layer_suffix, to_bfloat16
from fastrnn.nn.quantized import is_weight

# I, H, num_layers, T, N: half a vector of units, one and many, whole and padded; one row and several tiles of rows;
# odd and even numbers of k; weights in L2 and past it, where the input's part is computed for some steps at once.
SIZES = [(1, 8, 2, 9, 1), (3, 33, 1, 9, 17), (16, 64, 2, 12, 1), (40, 130, 1, 6, 31), (401, 300, 1, 5, 7)]


@pytest.fixture(params=KERNELS)
def kernels(request):
    with using_kernels(request.param, "bfloat16") as name:
        yield name


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    return request.param


def rounded(layer):
    """The float32 layer of the rounded weights."""
    twin = copy.deepcopy(layer)
    with twin.updating() as values:
        for name in filter(is_weight, values):
            values[name] = reference.round_half(values[name])
    return twin


# ---- Sums and rounding ---------------------------------------------------------------------------

def test_a_step_is_that_of_float32_on_rounded_numbers(kernels, variant, size):
    """From a rounded state. Where the cell rounds another vector within the step, that one differs."""
    I, H, _, _, N = size
    case = make_case(variant, (I, H, 1, 1, N), "bfloat16")
    h, *c = case.state
    state = (reference.round_half(h), *c)
    found, expected = call(case.layer, case.x, state), call(rounded(case.wide), reference.round_half(case.x), state)
    if variant in NARROWED_TWICE:
        for name, value in expected.items():
            assert np.abs(found[name] - value).max() < 0.02
        if "c_n" in found:
            assert_same_bits(found["c_n"], expected["c_n"])
    else:
        assert_same_bits(found, expected)
        other = tuple(part + np.float32(0.001) for part in state)
        assert not np.array_equal(call(case.layer, case.x, other)["output"],
                                  call(rounded(case.wide), reference.round_half(case.x), other)["output"])


def oracle_step(layer, x, state):
    """One step of the first layer by the oracle, from a state as the layer takes it."""
    one = {name: layer.parameters.get(name + layer_suffix(0, 0)) for name in NAMES}
    h, c = (*state, None)[:2]
    _, h_n, c_n, *_ = reference.forward(layer._kind, one, x[None], h[0], None if c is None else c[0],
                                        options=layer._options(0))
    return (h_n,) if c_n is None else (h_n, c_n)


def test_each_step_agrees_with_the_oracle(kernels, variant, size):
    """From the kernel's own state each time: a difference in the last bit may round the next state otherwise."""
    case = make_case(variant, (*size[:2], 1, *size[3:]), "bfloat16")
    state, differences = case.state, []
    for x in case.x:
        expected = oracle_step(case.layer, x, state)
        state = as_parts(case.layer(x[None], as_state(state))[1])
        differences += [np.abs(got[0] - want) / np.maximum(1, np.abs(want).max(axis=1, keepdims=True))
                        for got, want in zip(state, expected, strict=True)]
    worst = np.stack([d.max(axis=1) for d in differences])
    if variant in NARROWED_TWICE:
        assert np.mean(worst > 1e-5) < 0.1 and worst.max() < 0.005
    else:
        assert worst.max() < 1e-5


def test_linear_embedding_and_weights():
    rng = np.random.default_rng(0)
    layer = fastrnn.Linear(37, 50, rng=0)
    narrow, x = layer.quantized("bfloat16"), rng.standard_normal((29, 37)).astype(np.float32) * 3
    assert_same_bits(narrow(x)[0], rounded(layer)(reference.round_half(x))[0])
    assert_same_bits(narrow(x[3])[0], narrow(x)[0][3])
    words = fastrnn.Embedding(30, 8, rng=0)
    assert_same_bits(words.quantized("bfloat16")(np.arange(30))[0], reference.round_half(words.parameters["weight"]))
    bits = rng.integers(0, 2**32, 4000, np.uint32).view(np.float32)
    normal = ~(np.abs(bits) < 2.0**-126)
    assert_same_bits(from_bfloat16(to_bfloat16(bits))[normal & ~np.isnan(bits)],
                     reference.round_half(bits)[normal & ~np.isnan(bits)])
    assert np.array_equal(np.isnan(from_bfloat16(to_bfloat16(bits))), np.isnan(bits))


# ---- Promise 1: equal bits -----------------------------------------------------------------------

def test_streams_chunks_and_rows_equal_one_call(kernels, variant, size):
    case = make_case(variant, size, "bfloat16")
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
    case = make_case(variant, (19, 40, 2, 9, 8), "bfloat16", bidirectional=True)
    lengths = case.rng.integers(0, case.T + 1, case.N)
    lengths[:2] = case.T, 0
    ragged = call(case.layer, case.x, case.state, lengths=lengths)
    for n, length in enumerate(lengths):
        row = slice(n, n + 1)
        expected = call(case.layer, case.x[:length, row], rows_of(case.state, row))
        padding = np.zeros((case.T - length, *expected["output"].shape[1:]), np.float32)
        expected["output"] = np.concatenate([expected["output"], padding])
        assert_same_bits(rows_of(ragged, row), expected)
    case = make_case(variant, (19, 40, 1, 9, 8), "bfloat16")
    resets = np.zeros((case.T, case.N), bool)
    resets[5, 2:6] = True
    found = call(case.layer, case.x, case.state, reset_mask=resets)
    fresh = call(case.layer, case.x[5:, 2:6], None)
    assert_same_bits({**rows_of(found, slice(2, 6)), "output": found["output"][5:, 2:6]}, fresh)


@pytest.mark.parametrize("size", [(40, 130, 1, 17), (16, 64, 2, 1)], ids=str)
def test_threads_change_no_bit(kernels, variant, size):
    I, H, num_layers, N = size
    T = 3 + int(3e6 / multiply_adds(make_case(variant, (I, H, 1, 1, 1), "bfloat16").layer, N))
    case = make_case(variant, (I, H, num_layers, T, N), "bfloat16", bidirectional=N > 1)
    with fastrnn.threads(1):
        expected = call(case.layer, case.x, case.state)
    for threads in (2, 3):
        with fastrnn.threads(threads):
            assert_same_bits(call(case.layer, case.x, case.state), expected)


# ---- Extreme numbers -----------------------------------------------------------------------------

EXTREME = [np.nan, np.inf, -np.inf, 1e38, -1e38, 3.4e38]


@pytest.mark.parametrize("bad", EXTREME)
@pytest.mark.parametrize("size", [(3, 9, 1, 9, 1), (40, 33, 1, 9, 8)], ids=str)
def test_extreme_numbers_touch_their_own_row_alone(kernels, variant, size, bad):
    case = make_case(variant, size, "bfloat16")
    row, step, cleared = case.N // 2, 3, 7
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


@pytest.mark.parametrize("bad", EXTREME)
@pytest.mark.parametrize("kind", list(KINDS))
def test_extreme_numbers_give_what_float32_gives(kernels, kind, bad):
    """One number of a row, so that float32 saturates."""
    rng = np.random.default_rng(5)
    layer = make_layer(kind, 20, 33, rng=rng)
    with layer.updating() as parameters:
        for name in ("weight_ih_l0", "weight_hh_l0"):
            parameters[name] += np.sign(parameters[name]) * 0.05
    x = rng.standard_normal((1, 3, 20)).astype(np.float32)
    x[0, 1, 7] = bad
    state = make_state(layer, 3, rng)
    expected, found = (call(one, x, state) for one in (layer, layer.quantized("bfloat16")))
    for name, wanted in expected.items():
        wanted, got = wanted[:, 1], found[name][:, 1]
        assert np.array_equal(np.isnan(got), np.isnan(wanted))
        huge = np.abs(wanted) > 1e30
        np.testing.assert_allclose(got[~huge], wanted[~huge], atol=0.03, equal_nan=True)
        assert (np.sign(got[huge]) == np.sign(wanted[huge])).all() and (np.abs(got[huge]) > 1e30).all()


def test_zeros_give_the_bias(kernels):
    layer = fastrnn.Linear(20, 33, rng=0)
    narrow, bias = layer.quantized("bfloat16"), layer.parameters["bias"]
    x = np.zeros((2, 20), np.float32)
    x[1] = 1e-40                            # subnormal: counts as zero
    assert_same_bits(narrow(x)[0], np.broadcast_to(bias, (2, 33)))
    with layer.updating() as parameters:
        parameters["weight"][:] = 0
    assert_same_bits(layer.quantized("bfloat16")(np.ones((2, 20), np.float32))[0], np.broadcast_to(bias, (2, 33)))


# ---- As a model ----------------------------------------------------------------------------------

MODELS = [fastrnn.LSTM(3, 9, 2, proj_size=4, peephole=True, batch_first=True, rng=0),
          fastrnn.GRU(3, 9, bidirectional=True, rng=0), fastrnn.RNN(3, 9, nonlinearity="relu", bias=False, rng=0),
          fastrnn.Sequential(fastrnn.LSTM(3, 8, rng=0), fastrnn.GRU(8, 5, rng=1), fastrnn.Linear(5, 2, rng=2))]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_a_narrow_model_is_a_model(model, precision):
    narrow, x = model.quantized(precision), np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    assert type(narrow) is type(model) and narrow.precision == precision and model.precision == "float32"
    assert f"precision={precision}" in repr(narrow)
    expected = narrow(x)[0]
    assert expected.dtype == np.float32 and 0 < np.abs(expected - model(x)[0]).max() < 0.02
    for name, value in narrow.parameters.items():
        assert value.nbytes * (2 if "weight" in name else 1) == model.parameters[name].nbytes
    for again in (copy.copy(narrow), copy.deepcopy(narrow), pickle.loads(pickle.dumps(narrow))):
        assert_same_bits(again(x)[0], expected)
    other = copy.deepcopy(narrow)
    other.load_state_dict({name: np.zeros_like(value) for name, value in narrow.parameters.items()})
    assert not np.array_equal(other(x)[0], expected)
    other.load_state_dict(narrow.state_dict())
    assert_same_bits(other(x)[0], expected)
    other.load_state_dict(model.state_dict())       # float32 is rounded as it was
    assert_same_bits(dict(other.parameters), dict(narrow.parameters))
    with pytest.raises(TypeError, match=f"precision {precision} has no gradients: train the float32 model"):
        narrow.forward(x)
    with pytest.raises(ValueError, match=f"{precision} already"):
        narrow.quantized("int8")


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_float16_computes_what_float32_does(model):
    """Of the rounded weights, to the bit, in calls and in streams."""
    narrow, x = model.quantized("float16"), np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    twin = copy.deepcopy(model)
    twin.load_state_dict({name: value.astype(np.float16).astype(np.float32) if "weight" in name else value
                          for name, value in model.parameters.items()})
    assert_same_bits(narrow(x)[0], twin(x)[0])
    if not getattr(model, "bidirectional", False):
        assert_same_bits(narrow.stream().run(x[:, 0]), twin.stream().run(x[:, 0]))


def test_float16_refuses_what_it_cannot_hold():
    layer = fastrnn.GRU(3, 4, rng=0)
    with layer.updating() as parameters:
        parameters["weight_hh_l0"][2, 1] = -70000
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected weights of at most 65504 in size.*got 70000"):
        layer.quantized("float16")
    assert layer.quantized("bfloat16").precision == "bfloat16"


def test_loading_refuses_other_dtypes_and_changes_nothing():
    for precision, wrong in (("bfloat16", np.int32), ("float16", np.float64), ("bfloat16", np.float64)):
        narrow = fastrnn.GRU(3, 4, rng=0).quantized(precision)
        before, values = narrow.state_dict(), narrow.state_dict()
        values["weight_hh_l0"] = values["weight_hh_l0"].astype(wrong) * wrong(100001)
        if wrong is np.int32:
            values["weight_hh_l0"] = values["weight_hh_l0"].astype(complex)
        with pytest.raises((TypeError, ValueError), match="weight_hh_l0"):
            narrow.load_state_dict(values)
        assert_same_bits(narrow.state_dict(), before)


def test_a_float64_model_becomes_a_float32_one():
    layer = fastrnn.GRU(3, 4, dtype=np.float64, rng=0)
    for precision in ("bfloat16", "float16"):
        narrow = layer.quantized(precision)
        assert narrow.dtype == np.float32 and narrow(np.ones((5, 3), np.float32))[0].dtype == np.float32


def test_a_snapshot_is_of_its_precision():
    layer = fastrnn.GRU(3, 4, rng=0)
    for precision in ("bfloat16", "float16"):
        narrow = layer.quantized(precision)
        with pytest.raises(ValueError, match="of another model"):
            layer.restore(narrow.stream().snapshot())
        with pytest.raises(ValueError, match="of another model"):
            narrow.restore(layer.stream().snapshot())


# ---- Real models ---------------------------------------------------------------------------------

def arrays(data_dir, name):
    with np.load(data_dir / "models" / name, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_speaker_embeddings_stay_where_they_were(data_dir, precision):
    weights = arrays(data_dir, "resemblyzer/weights.npz")
    golden = arrays(data_dir, "resemblyzer/golden.npz")
    layer, head = fastrnn.LSTM(40, 256, 3, batch_first=True), fastrnn.Linear(256, 256)
    layer.load_state_dict({name.removeprefix("lstm."): value for name, value in weights.items() if "lstm" in name})
    head.load_state_dict({"weight": weights["linear.weight"], "bias": weights["linear.bias"]})
    _, (h_n, _) = layer.quantized(precision)(golden["mel"])
    embed = np.maximum(head.quantized(precision)(h_n[-1])[0], 0)
    cosine = (embed * golden["embed"]).sum(axis=1) / np.linalg.norm(embed, axis=1)
    assert cosine.min() > (0.9999 if precision == "bfloat16" else 0.999998)


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
    output = layer.quantized("bfloat16")(golden["lstm_in"])[0]
    found = reference.sigmoid(np.c_[np.maximum(output, 0), np.ones(353)] @ readout)
    assert np.abs(found - golden["prob"]).max() < 0.02
    assert ((found > 0.5) == (golden["prob"] > 0.5)).all()
