"""Training with products of bfloat16 factors: beside the oracle with the same rounding, float64, and bit for bit."""

import numpy as np
import pytest

import fastrnn
from fastrnn import _core, losses, optim, training
from fastrnn._base import dispatch
from fastrnn.nn import reference
from fastrnn.nn.parameters import NAMES

F32 = np.float32
LAYERS = {
    "lstm": lambda I, H: fastrnn.LSTM(I, H, rng=1),
    "lstm with options": lambda I, H: fastrnn.LSTM(I, H, peephole=True, clip=1.5, rng=1),
    "lstm with projection": lambda I, H: fastrnn.LSTM(I, H, proj_size=max(1, H // 2 - 1), rng=1),
    "gru": lambda I, H: fastrnn.GRU(I, H, rng=1),
    "gru reset before": lambda I, H: fastrnn.GRU(I, H, reset_after=False, rng=1),
    "rnn": lambda I, H: fastrnn.RNN(I, H, rng=1),
    "relu": lambda I, H: fastrnn.RNN(I, H, nonlinearity="relu", rng=1),
    "reversed": lambda I, H: fastrnn.GRU(I, H, reverse=True, rng=1),
    "no bias": lambda I, H: fastrnn.LSTM(I, H, bias=False, rng=1),
}
SIZES = [(1, 5), (3, 8), (7, 33), (20, 64)]


@pytest.fixture(params=dispatch.available_isas())
def isa(request):
    before = dispatch.active_isa()
    dispatch.use_isa(request.param)
    yield request.param
    dispatch.use_isa(before)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def forward_and_backward(model, x, d_output, precision="bfloat16", **options):
    """Everything that comes out, by name."""
    output, state, cache = model.forward(x, precision=precision, **options)
    gradients = model.backward(cache, d_output)
    states = state if isinstance(state, tuple) else (state,)
    return {"output": output, "input": gradients.input, **dict(zip(("h_n", "c_n"), states)), **gradients.parameters}


def by_oracle(layer, x, d_output, precision, dtype=F32, lengths=None):
    values = {name: layer.parameters.get(name + "_l0") for name in NAMES}
    values = {name: None if a is None else a.astype(dtype) for name, a in values.items()}
    N, H = x.shape[1], layer.hidden_size
    h_0 = np.zeros((N, layer.proj_size or H))
    c_0 = np.zeros((N, H)) if layer._kind == "lstm" else None
    y, h_n, c_n, _, cache = reference.forward(layer._kind, values, x, h_0, c_0, lengths, reverse=layer.reverse,
                                              options=layer._options(0), precision=precision)
    dx, _, _, gradients = reference.backward(cache, d_output)
    result = {"output": y, "input": dx, "h_n": h_n[None], "c_n": None if c_n is None else c_n[None],
              **{name + "_l0": a for name, a in gradients.items()}}
    return {name: a for name, a in result.items() if a is not None}


def largest_difference(results, expected):
    """The largest difference of each result, relative to the largest number in it."""
    assert results.keys() == expected.keys()
    return {name: float(np.abs(results[name] - a).max() / (np.abs(a).max() or 1)) for name, a in expected.items()}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_as_the_oracle(isa, kind, sizes):
    layer = LAYERS[kind](*sizes)
    for T, N in ((1, 1), (5, 3), (4, 13)):
        x, d_output = numbers(T, N, sizes[0]), numbers(T, N, layer.proj_size or sizes[1], seed=1)
        results = forward_and_backward(layer, x, d_output)
        rounded = largest_difference(results, by_oracle(layer, x, d_output, "bfloat16"))
        # A sum in another order may round a factor of the next product the other way: by 2^-8 of one of many factors.
        assert max(rounded.values()) < 1.5e-3, rounded
        if kind == "relu":      # a sum near 0 may have the other slope in float64
            continue
        exact = largest_difference(results, by_oracle(layer, x, d_output, None, np.float64))
        assert max(exact.values()) < 0.02, exact
        if T > 1:
            assert np.mean([*exact.values()]) > 4 * np.mean([*rounded.values()]), (exact, rounded)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru reset before", "rnn"])
def test_one_step_of_factors_that_need_no_rounding_is_exact(isa, kind):
    """Where every factor is a bfloat16 number already, there is nothing to round, in either path."""
    layer = LAYERS[kind](6, 20)
    with layer.updating() as values:
        for a in values.values():
            a[...] = np.round(a * 64) / 64
    x = np.round(numbers(1, 9, 6) * 8) / 8
    narrow = layer.forward(x, precision="bfloat16")[0]
    np.testing.assert_allclose(narrow, layer.forward(x)[0], rtol=0, atol=3e-7)


@pytest.mark.parametrize("kind", LAYERS)
def test_nothing_behind_an_odd_number_of_rows_counts(isa, kind):
    """Products take rows in pairs: the last one alone, whether NaN follows in the caller's array or in used memory."""
    layer, T, N = LAYERS[kind](6, 20), 5, 3
    x, d_output = numbers(T, N, 6), numbers(T, N, layer.proj_size or 20, seed=1)
    expected = forward_and_backward(layer, x, d_output)
    behind = [np.full((T + 3, *a.shape[1:]), np.nan, np.float32) for a in (x, d_output)]
    forward_and_backward(layer, *behind)            # leaves NaN in the memory that the next call takes
    for a, b in zip(behind, (x, d_output)):
        a[:T] = b
    results = forward_and_backward(layer, behind[0][:T], behind[1][:T])
    assert all((results[name] == a).all() for name, a in expected.items())


@pytest.mark.parametrize("kind", LAYERS)
def test_the_bits_do_not_depend_on_threads(kind):
    layer = LAYERS[kind](40, 96)
    x, d_output = numbers(40, 26, 40), numbers(40, 26, layer.proj_size or 96, seed=1)
    lengths = np.random.default_rng(2).integers(0, 41, 26)
    for options in ({}, {"lengths": lengths}):
        results = []
        for threads in (1, 2, 3, 1):
            with fastrnn.threads(threads):
                results.append(forward_and_backward(layer, x, d_output, **options))
        for other in results[1:]:
            assert all((other[name] == a).all() for name, a in results[0].items())


@pytest.mark.parametrize("kind", ["lstm", "lstm with projection", "gru", "gru reset before", "rnn"])
def test_the_bits_do_not_depend_on_teams(kind):
    """Few rows: threads share the units of every step, forward and backward."""
    layer = LAYERS[kind](16, 130)
    for N in (1, 3):
        x, d_output = numbers(60, N, 16), numbers(60, N, layer.proj_size or 130, seed=1)
        mask = np.random.default_rng(2).random((60, N)) < 0.2
        results = []
        try:
            for threads in (1, 2, 3, 5):
                _core.assume_cpus(0 if threads == 1 else 8)
                with fastrnn.threads(threads):
                    results.append(forward_and_backward(layer, x, d_output, reset_mask=mask))
        finally:
            _core.assume_cpus(0)
        for other in results[1:]:
            assert all((other[name] == a).all() for name, a in results[0].items())


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_rows_are_independent(kind):
    """Outputs and the gradients of inputs: a row alone, in a batch, and padded, to the bit."""
    layer = LAYERS[kind](11, 48)
    x, d_output = numbers(9, 14, 11), numbers(9, 14, 48, seed=1)
    whole = forward_and_backward(layer, x, d_output)
    ragged = forward_and_backward(layer, x, d_output, lengths=[5] * 7 + [9] * 7)
    for n in (0, 6, 13):
        steps = 5 if n < 7 else 9
        alone = forward_and_backward(layer, x[:, n:n + 1], d_output[:, n:n + 1])
        cut = forward_and_backward(layer, x[:steps, n:n + 1], d_output[:steps, n:n + 1])
        for name in ("output", "input"):
            assert (alone[name][:, 0] == whole[name][:, n]).all()
            assert (cut[name][:, 0] == ragged[name][:steps, n]).all() and not ragged[name][steps:, n].any()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_with_and_without_the_instructions(kind):
    """A CPU without instructions for pairs gets the same bits."""
    table = dispatch.table(np.dtype(F32), "training in bfloat16")
    if not _core.use_dot(table):
        pytest.skip("this CPU has no instructions for pairs")
    layer, x, d_output = LAYERS[kind](13, 40), numbers(7, 17, 13), numbers(7, 17, 40, seed=1)
    fast = forward_and_backward(layer, x, d_output)
    try:
        _core.use_dot(table, False)
        layer = LAYERS[kind](13, 40)        # the parameters of the other are packed for the instructions
        slow = forward_and_backward(layer, x, d_output)
    finally:
        _core.use_dot(table, True)
    assert all((slow[name] == a).all() for name, a in fast.items())


def test_stacks_directions_resets_and_dropout():
    layer = fastrnn.LSTM(6, 24, num_layers=2, bidirectional=True, dropout=0.3, rng=0)
    x, d_output = numbers(8, 5, 6), numbers(8, 5, 48, seed=1)
    mask = np.random.default_rng(3).random((8, 5)) < 0.2
    narrow, wide = (forward_and_backward(layer, x, d_output, precision, reset_mask=mask, rng=4)
                    for precision in ("bfloat16", "float32"))
    differences = largest_difference(narrow, wide)
    assert 1e-5 < min(differences.values()) and max(differences.values()) < 0.03, differences


def test_modules_pass_the_precision_on():
    model = fastrnn.Sequential(fastrnn.Embedding(9, 6, rng=0), fastrnn.GRU(6, 40, rng=1), fastrnn.Linear(40, 3, rng=2))
    x = np.random.default_rng(0).integers(0, 9, (7, 4))
    output, _, cache = model.forward(x, precision="bfloat16")
    gradients = model.backward(cache, np.ones_like(output)).parameters
    wide, _, cache = model.forward(x, precision="float32")
    expected = model.backward(cache, np.ones_like(wide)).parameters
    assert (wide == model.forward(x)[0]).all() and 0 < np.abs(output - wide).max() < 0.02
    for name, a in expected.items():
        difference = np.abs(gradients[name] - a).max() / np.abs(a).max()
        assert difference < 0.02 and (difference > 0 or name == "2.bias"), name


def test_linear_rounds_its_factors():
    layer, x, dy = fastrnn.Linear(37, 21, rng=0), numbers(50, 37), numbers(50, 21, seed=1)
    output, _, cache = layer.forward(x, precision="bfloat16")
    gradients = layer.backward(cache, dy)
    half = reference.round_half
    W, b = (layer.parameters[name] for name in ("weight", "bias"))
    np.testing.assert_allclose(output, half(x) @ half(W).T + b, rtol=0, atol=2e-6)
    np.testing.assert_allclose(gradients.input, half(dy) @ half(W), rtol=0, atol=2e-6)
    np.testing.assert_allclose(gradients.parameters["weight"], half(dy).T @ half(x), rtol=0, atol=2e-5)
    np.testing.assert_allclose(gradients.parameters["bias"], dy.sum(0), rtol=0, atol=2e-5)


def test_parameters_that_change_are_rounded_anew():
    layer, x = fastrnn.GRU(3, 16, rng=0), numbers(4, 2, 3)
    before = layer.forward(x, precision="bfloat16")[0]
    with layer.updating() as values:
        values["weight_ih_l0"] += 0.25
    assert np.abs(layer.forward(x, precision="bfloat16")[0] - before).max() > 0.01


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_odd_numbers_stay_in_their_row(value):
    layer, x = fastrnn.LSTM(5, 20, rng=0), numbers(6, 4, 5)
    clean = layer.forward(x, precision="bfloat16")[0]
    x[2, 1, 3] = value
    output = layer.forward(x, precision="bfloat16")[0]
    others = [0, 2, 3]
    assert (output[:, others] == clean[:, others]).all() and (output[:2] == clean[:2]).all()
    assert np.isnan(output[2:, 1]).any() == (not value == 1e38) or np.isinf(value)


def test_what_precision_may_be():
    layer, x = fastrnn.GRU(3, 4, rng=0), numbers(2, 1, 3)
    assert (layer.forward(x, precision="float32")[0] == layer.forward(x)[0]).all()
    with pytest.raises(ValueError, match="precision: expected one of 'float32', 'float64', 'bfloat16', got 'int8'"):
        layer.forward(x, precision="int8")
    with pytest.raises(ValueError, match="precision: a model of float32 trains in float32 or bfloat16, got 'float64'"):
        layer.forward(x, precision="float64")
    with pytest.raises(TypeError, match="precision"):
        layer.forward(x, precision=16)
    double = fastrnn.Linear(3, 4, dtype=np.float64)
    with pytest.raises(ValueError, match="precision: a model of float64 trains in float64, got 'bfloat16'"):
        double.forward(x, precision="bfloat16")


def wave(model, **options):
    x = np.sin(np.arange(161) / 5).astype(F32).reshape(-1, 1, 1)
    return training.fit(model, x[:-1], x[1:], loss=losses.MSE(), optimizer=optim.Adam(model, 0.01), batch_size=1,
                        tbptt=20, progress=False, rng=0, **options)


def new_model():
    return fastrnn.Sequential(fastrnn.GRU(1, 24, rng=0), fastrnn.Linear(24, 1, rng=1))


def test_fit():
    narrow, wide = new_model(), new_model()
    losses_narrow = wave(narrow, epochs=12, precision="bfloat16")["loss"]
    losses_wide = wave(wide, epochs=12)["loss"]
    assert losses_narrow[-1] < losses_narrow[0] / 4
    assert 0.5 < losses_narrow[-1] / losses_wide[-1] < 2 and losses_narrow[-1] != losses_wide[-1]
    assert all(a.dtype == F32 for a in narrow.parameters.values())
    again = new_model()
    assert wave(again, epochs=12, precision="bfloat16")["loss"] == losses_narrow


def test_checkpoints_record_the_precision(tmp_path):
    path = tmp_path / "run.ckpt"
    wave(new_model(), epochs=2, precision="bfloat16", checkpoint=path)
    with pytest.raises(ValueError, match="precision 'bfloat16', here 'float32'"):
        wave(new_model(), epochs=4, checkpoint=path)
    resumed, whole = new_model(), new_model()
    wave(resumed, epochs=4, precision="bfloat16", checkpoint=path)
    wave(whole, epochs=4, precision="bfloat16")
    assert all((resumed.parameters[name] == a).all() for name, a in whole.parameters.items())
