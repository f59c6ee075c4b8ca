"""Modules under torch.autocast("cpu", torch.bfloat16): on the kernels, with torch's dtypes, as exact as torch's own."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_modules import CELLS, LAYERS, H, I, N, T, numbers, pair  # noqa: E402

import fastrnn.pytorch  # noqa: E402

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """In these tests small calls run on the kernels, too."""
    torch.manual_seed(0)
    monkeypatch.setattr(fastrnn.pytorch.modules, "_gains", lambda *call: True)
    monkeypatch.setattr(fastrnn.pytorch.short_calls, "better_by_torch", lambda *call: False)


def autocast():
    return torch.autocast("cpu", BFLOAT16)


def flat(results):
    """The tensors of a call's results."""
    if isinstance(results, PackedSequence):
        return [results.data]
    if isinstance(results, torch.Tensor):
        return [results]
    return [t for part in results for t in flat(part)]


def run(module, *args):
    """The results, and the gradients of the inputs and the parameters of a loss of all of them."""
    inputs = [t for t in args if isinstance(t, torch.Tensor)]
    results = flat(module(*args))
    loss = sum((t.double() * torch.linspace(-1, 1, t.numel(), dtype=torch.float64).reshape(t.shape)).sum()
               for t in results)
    return results, torch.autograd.grad(loss, [t for t in inputs if t.requires_grad] + [*module.parameters()])


def largest(t):
    return float(t.detach().double().abs().max())


def errors(results, exact):
    """The largest error of each, relative to the largest number in it."""
    return [largest(a.double() - b) / largest(b) for a, b in zip(results, exact, strict=True)]


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_training_is_as_exact_as_torchs(kind, options, passes):
    theirs, ours = pair(kind, dtype=FLOAT32, **options)
    double = pair(kind, dtype=torch.float64, **options)[0]
    double.load_state_dict(theirs.state_dict())
    x = numbers(40, N, I, dtype=FLOAT32)
    exact = run(double, x.detach().double().requires_grad_())
    with autocast():
        expected, found = run(theirs, x), run(ours, x)
    count = theirs.num_layers
    assert [name for name, *_ in passes] == ["forward_layer"] * count + ["backward_layer"] * count
    for ours_part, theirs_part, exact_part in zip(found, expected, exact, strict=True):
        assert [t.dtype for t in ours_part] == [t.dtype for t in theirs_part]
        own, others = errors(ours_part, exact_part), errors(theirs_part, exact_part)
        assert max(own) < (0.3 if kind == "relu" else 0.03), own
        assert sum(own) < 1.1 * sum(others), (own, others)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("x_dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("state_dtype", [None, FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("form", ["padded", "one row", "packed"])
def test_dtypes_are_torchs(kind, x_dtype, state_dtype, form, passes):
    theirs, ours = pair(kind, dtype=FLOAT32)
    x = numbers(T, N, I, dtype=FLOAT32, grad=False).to(x_dtype)
    rows = (N,)
    if form == "one row":
        x, rows = x[:, 0], ()
    elif form == "packed":
        x = pack_sequence([x[:length, n] for n, length in enumerate((4, 6, 1, 6, 3))], enforce_sorted=False)
    states = None
    if state_dtype is not None:
        states = [torch.zeros(1, *rows, width, dtype=state_dtype) for width in (theirs.proj_size or H, H)]
        states = tuple(states) if theirs.mode == "LSTM" else states[0]
    for grad in (True, False):
        passes.clear()
        with autocast(), torch.set_grad_enabled(grad):
            found = flat(ours(x, states))
            assert [name for name, *_ in passes] == ["forward_layer"]
            try:
                expected = flat(theirs(x, states))
            except RuntimeError:        # torch's own code does not take every pair of dtypes
                continue
        assert [t.dtype for t in found] == [t.dtype for t in expected]
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape and largest(a.float() - b.float()) < 0.03


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_cells(kind, dtype, passes):
    theirs, ours = pair(kind, dtype=FLOAT32)
    x = numbers(N, I, dtype=FLOAT32, grad=False).to(dtype).requires_grad_()
    with autocast():
        expected, found = run(theirs, x), run(ours, x)
        with torch.no_grad():
            again = flat(ours(x))
    assert [name for name, *_ in passes] == ["forward_layer", "backward_layer", "forward_layer"]
    assert all(torch.equal(a, b) for a, b in zip(again, found[0], strict=True))
    for a, b in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert a.dtype == b.dtype and largest(a.float() - b.float()) < 0.03 * (largest(b) + 1)


def test_what_is_torchs(passes):
    """A model in float64 or bfloat16, and autocast that is off inside of autocast."""
    x = numbers(T, N, I, dtype=torch.float64)
    theirs, ours = pair("LSTM")
    with autocast():
        assert torch.equal(ours(x)[0], ours(x)[0]) and ours(x)[0].dtype == theirs(x)[0].dtype == torch.float64
        half = pair("GRU", dtype=BFLOAT16)
        passes.clear()
        assert torch.equal(*(layer(x.to(BFLOAT16))[0] for layer in half)) and passes == []
    single = pair("LSTM", dtype=FLOAT32)[1]
    with autocast(), torch.autocast("cpu", enabled=False):
        inside = single(x.float())[0]
    assert inside.dtype == FLOAT32 and torch.equal(inside, single(x.float())[0])


def test_both_precisions_stay_packed(passes):
    """Training under autocast and evaluating without it do not pack the weights again and again."""
    layer, x = pair("LSTM", dtype=FLOAT32)[1], numbers(T, N, I, dtype=FLOAT32)
    for _ in range(2):
        with autocast():
            layer(x)
        layer(x)
    packs = [args[0][0] for _, args, _ in passes]
    assert packs[0] is packs[2] and packs[1] is packs[3] and packs[0] is not packs[1]


def test_checkpoints_run_forward_again_in_the_same_precision():
    layer, x = pair("GRU", dtype=FLOAT32)[1], numbers(T, N, I, dtype=FLOAT32)
    gradients = []
    for call in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        with autocast():
            output = call(x)[0]
        gradients.append(torch.autograd.grad(output.float().square().sum(), [x, *layer.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_model_trains():
    """With its optimizer and other modules, the loss falls as it does under torch's own autocast."""
    x, curves = numbers(30, 8, 3, dtype=FLOAT32, grad=False), []
    target = x.cumsum(0).tanh()[..., :1]
    for accelerated in (False, True):
        torch.manual_seed(1)
        model = nn.ModuleDict({"layer": nn.LSTM(3, 24), "head": nn.Linear(24, 1)})
        if accelerated:
            fastrnn.pytorch.accelerate(model)
        optimizer, losses = torch.optim.Adam(model.parameters(), 0.02), []
        for _ in range(25):
            optimizer.zero_grad()
            with autocast():
                loss = (model["head"](model["layer"](x)[0]).float() - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves.append(losses)
    assert curves[0][-1] < curves[0][0] / 3 and abs(curves[1][-1] / curves[0][-1] - 1) < 0.3
