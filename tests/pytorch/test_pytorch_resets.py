"""reset_mask: episodes that end inside a sequence, beside a Python loop over torch's own cells."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from torch_modules import (  # noqa: E402
    DTYPES,
    LAYERS,
    LENGTHS,
    OURS,
    H,
    I,
    N,
    T,
    assert_close,
    call,
    numbers,
    pair,
    runs_kernels,
    states_for,
)

import fastrnn  # noqa: E402
import fastrnn.pytorch  # noqa: E402
from fastrnn.pytorch import resets  # noqa: E402

OPTIONS = [{}, {"bidirectional": True}, {"num_layers": 2, "bias": False}, {"num_layers": 2, "bidirectional": True}]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def some_mask(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < 0.4)


def cells_of(layer):
    """One of torch's cells for each direction of each layer, on the layer's own parameters; projections beside."""
    kind = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell}.get(layer.mode, nn.RNNCell)
    result = []
    for names in layer._all_weights:
        weights = {name.split("_l")[0]: getattr(layer, name) for name in names}
        projection = weights.pop("weight_hr", None)
        # A cell that is called with the layer's tensors in place of its own: an LSTMCell has no projection, and its
        # weight_hh may have another width.
        cell = kind(weights["weight_ih"].shape[1], layer.hidden_size, layer.bias, dtype=weights["weight_ih"].dtype,
                    **({"nonlinearity": layer.mode[4:].lower()} if kind is nn.RNNCell else {}))
        result.append((cell, weights, projection))
    return result


def one_step(cell, weights, projection, x, state):
    if projection is None:
        return torch.func.functional_call(cell, weights, (x, state if len(state) == 2 else state[0]))
    gates = nn.functional.linear(x, weights["weight_ih"], weights.get("bias_ih")) + nn.functional.linear(
        state[0], weights["weight_hh"], weights.get("bias_hh"))
    i, f, g, o = gates.chunk(4, 1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return nn.functional.linear(torch.sigmoid(o) * torch.tanh(c), projection), c


def loop(layer, x, states, mask, lengths=None):
    """Output [T, N, D*S] and final states of a Python loop; x is [T, N, I]."""
    T, N, _ = x.shape
    lengths = torch.tensor([T] * N if lengths is None else lengths)
    D, finals, cells = 1 + layer.bidirectional, [], cells_of(layer)
    for k in range(layer.num_layers):
        outputs = []
        for d in range(D):
            cell, weights, projection = cells[k * D + d]
            state, output = [s[k * D + d] for s in states], [None] * T
            for t in reversed(range(T)) if d else range(T):
                runs = (t < lengths)[:, None]
                state = [torch.where(mask[t, :, None] & runs, 0.0, s) for s in state]
                new = one_step(cell, weights, projection, x[t], state)
                new = [new] if isinstance(new, torch.Tensor) else new
                state = [torch.where(runs, n, s) for n, s in zip(new, state, strict=True)]
                output[t] = torch.where(runs, state[0], 0.0)
            outputs.append(torch.stack(output))
            finals.append(state)
        x = torch.cat(outputs, -1)
    return [x, *(torch.stack(parts) for parts in zip(*finals, strict=True))]


def with_gradients(results, leaves):
    weights = np.random.default_rng(3)
    loss = sum((r * torch.from_numpy(weights.standard_normal(r.shape)).to(r.dtype)).sum() for r in results)
    return [*results, *torch.autograd.grad(loss, leaves, retain_graph=True)]


def masked(layer, x, states, mask):
    """Output and final states in one list; states may be empty."""
    hx = (tuple(states) if len(states) == 2 else states[0],) if states else ()
    output, final = layer(x, *hx, reset_mask=mask)
    return [output.data if isinstance(output, PackedSequence) else output,
            *(final if isinstance(final, tuple) else [final])]


# ---- Numbers ------------------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("form", ["time first", "batch first", "unbatched", "torch's operations"])
@pytest.mark.parametrize("kind", LAYERS)
def test_as_a_loop_over_torchs_cells(kind, form, options, monkeypatch):
    for dtype, tolerance in DTYPES.values():
        batch_first = form == "batch first"
        theirs, ours = pair(kind, dtype=dtype, batch_first=batch_first, **options)
        rows = 1 if form == "unbatched" else N
        x, states, mask = numbers(T, rows, I, dtype=dtype), states_for(theirs, rows), some_mask(T, rows)
        leaves = [x, *states, *theirs.parameters()]
        expected = with_gradients(loop(theirs, x, states, mask), leaves)
        leaves = [x, *states, *ours.parameters()]
        if form == "unbatched":
            results = [r.unsqueeze(1) for r in masked(ours, x[:, 0], [s[:, 0] for s in states], mask[:, 0])]
        elif batch_first:
            output, *finals = masked(ours, x.transpose(0, 1), states, mask)
            results = [output.transpose(0, 1), *finals]
        elif form == "torch's operations":
            output, final = resets.by_torch(ours, x, tuple(states) if len(states) == 2 else states[0], mask)
            results = [output, *(final if len(states) == 2 else [final])]
            assert not runs_kernels(output)
        else:
            results = masked(ours, x, states, mask)
            assert runs_kernels(results[0])
        assert_close(with_gradients(results, leaves), expected, tolerance)


@pytest.mark.parametrize("order", ["sorted", "unsorted", "equal"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_packed(kind, options, order):
    theirs, ours = pair(kind, **options)
    lengths = {"sorted": sorted(LENGTHS, reverse=True), "unsorted": LENGTHS, "equal": [T] * N}[order]
    x, states, mask = numbers(T, N, I), states_for(theirs, N), some_mask(T, N)
    output, *finals = loop(theirs, x, states, mask, lengths)
    packed = pack_padded_sequence(output, lengths, enforce_sorted=order == "sorted").data
    expected = with_gradients([packed, *finals], [x, *states, *theirs.parameters()])
    found = masked(ours, pack_padded_sequence(x, lengths, enforce_sorted=order == "sorted"), states, mask)
    assert_close(with_gradients(found, [x, *states, *ours.parameters()]), expected, 1e-11)


@pytest.mark.parametrize("kind", LAYERS)
def test_as_the_numpy_layers(kind):
    """The mask means what it means to fastrnn's own layers, both directions included."""
    theirs, ours = pair(kind, bidirectional=True)
    x, mask = numbers(T, N, I, grad=False), some_mask(T, N)
    options = LAYERS[kind]
    layer = getattr(fastrnn, type(theirs).__name__)(I, H, bidirectional=True, dtype=np.float64, **options)
    layer.load_state_dict({name: p.detach().numpy() for name, p in theirs.named_parameters()})
    expected, _ = layer(x.numpy(), reset_mask=mask.numpy())
    assert np.array_equal(masked(ours, x, [], mask)[0].detach().numpy(), expected)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gradients_by_differences(kind):
    ours = pair(kind, 2, 3, num_layers=2)[1]
    mask, states = some_mask(4, 2), states_for(ours, 2)
    x = numbers(4, 2, 2)
    assert mask.any()

    def function(x, *tensors):
        values = dict(zip([name for name, _ in ours.named_parameters()], tensors[len(states):], strict=True))
        hx = tensors[:len(states)]
        output, final = torch.func.functional_call(ours, values, (x, hx if len(hx) == 2 else hx[0]),
                                                   {"reset_mask": mask})
        return output, *(final if isinstance(final, tuple) else [final])

    assert torch.autograd.gradcheck(function, (x, *states, *ours.parameters()))


def test_dropout_between_layers():
    ours = pair("GRU", num_layers=3, dropout=0.5)[1]
    x, mask = numbers(T, N, I), some_mask(T, N)
    results = []
    for run in (ours, lambda x, reset_mask: resets.by_torch(ours, x, None, reset_mask)):
        torch.manual_seed(4)
        results.append(run(x, reset_mask=mask)[0])
    assert_close(results[:1], results[1:], 1e-11)


def test_states_that_are_not_numbers_end_at_a_reset():
    for run in (lambda layer, *args: layer(*args[:2], reset_mask=args[2]), resets.by_torch):
        layer = pair("GRU")[1]
        h_0 = torch.full((1, N, H), float("nan"), dtype=torch.float64)
        mask = torch.zeros(T, N, dtype=torch.bool)
        mask[0] = True
        output, _ = run(layer, numbers(T, N, I), h_0, mask)
        assert output.isfinite().all()


# ---- Which code runs ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_small_calls_run_on_the_kernels(kind, passes):
    ours = pair(kind)[1]
    with torch.no_grad():
        ours(numbers(1, 1, I), reset_mask=torch.tensor([[True]]))
    assert [name for name, *_ in passes] == ["forward_layer"]


def test_a_mask_without_a_reset_changes_nothing():
    ours = pair("GRU", num_layers=2)[1]
    x = numbers(T, N, I)
    assert torch.equal(ours(x, reset_mask=torch.zeros(T, N, dtype=torch.bool))[0], ours(x)[0])


def test_other_dtypes_devices_and_transforms(passes):
    theirs, ours = pair("LSTM", dtype=torch.bfloat16)
    x, mask = numbers(T, N, I, dtype=torch.bfloat16), some_mask(T, N)
    assert ours(x, reset_mask=mask)[0].dtype is torch.bfloat16
    meta = OURS["GRU"](I, H, device="meta")
    assert meta(torch.empty(T, N, I, device="meta"), reset_mask=mask)[0].shape == (T, N, H)
    theirs, ours = pair("LSTM", dtype=torch.float32)
    x = numbers(T, N, I, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        cast = ours(x, reset_mask=mask)[0]
    assert cast.dtype is torch.bfloat16
    expected = loop(theirs, x, [torch.zeros(1, N, H)] * 2, mask)[0]
    assert_close([cast.float()], [expected], 0.05)
    passes.clear()
    with FlopCounterMode(display=False):        # a mode that must see torch's operations
        assert_close([ours(x, reset_mask=mask)[0]], [expected], 1e-5)
    assert passes == []


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"num_layers": 2, "bidirectional": True,
                                                               "batch_first": True}], ids=str)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_torchs_own_operations_in_both_directions(kind, options, passes):
    """What runs on other devices and under transforms has the results of the kernels."""
    ours = pair(kind, **options)[1]
    x, mask = numbers(*(N, T) if ours.batch_first else (T, N), I), some_mask(T, N)
    expected, expected_last = ours(x, reset_mask=mask)
    assert passes
    passes.clear()
    with FlopCounterMode(display=False):        # a mode that must see torch's operations
        output, last = ours(x, reset_mask=mask)
    assert passes == []
    parts = (last, expected_last) if kind == "LSTM" else ([last], [expected_last])
    assert_close([output, *parts[0]], [expected, *parts[1]], 1e-11)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_traced_graphs_hold_the_mask():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = OURS["GRU"](I, H)

        def forward(self, x, mask):
            return self.layer(x, reset_mask=mask)[0]

    net, x = Net().eval(), numbers(T, N, I, dtype=torch.float32, grad=False)
    traced = torch.jit.trace(net, (x, some_mask(T, N)))
    exported = torch.export.export(net, (x, some_mask(T, N))).module()
    symbolic = torch.fx.symbolic_trace(net)
    other = some_mask(T, N, seed=5)
    for graph in (traced, exported, symbolic):
        assert_close([graph(x, other)], [net(x, other)], 1e-5)


def test_a_packed_sequence_without_the_kernels_is_refused_by_name():
    ours = OURS["GRU"](I, H, dtype=torch.bfloat16)
    packed = pack_padded_sequence(numbers(T, N, I, dtype=torch.bfloat16), [T] * N)
    with pytest.raises(NotImplementedError, match="reset_mask with a PackedSequence needs float32 or float64"):
        ours(packed, reset_mask=some_mask(T, N))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_wrong_masks(dtype):
    ours = OURS["GRU"](I, H, dtype=dtype)
    x = numbers(T, N, I, dtype=dtype)
    with pytest.raises(TypeError, match="reset_mask: expected bools, got dtype float32"):
        ours(x, reset_mask=torch.zeros(T, N))
    with pytest.raises(ValueError, match=rf"reset_mask: expected shape \({T}, {N}\), got \({N}, {T}\)"):
        ours(x, reset_mask=torch.zeros(N, T, dtype=torch.bool))
    with pytest.raises(ValueError, match="reset_mask"):
        ours(x[:, 0], reset_mask=torch.zeros(T, N, dtype=torch.bool))


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_masks_of_other_types(form):
    ours = pair("GRU")[1]
    x, mask = numbers(T, N, I), some_mask(T, N)
    assert torch.equal(ours(x, reset_mask=form(mask.tolist()))[0], ours(x, reset_mask=mask)[0])


def test_a_mask_changed_before_backward():
    ours = pair("LSTM")[1]
    x, mask = numbers(T, N, I), some_mask(T, N)
    expected = torch.autograd.grad(ours(x, reset_mask=mask)[0].square().sum(), [x, *ours.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):      # forward runs again
        output = ours(x, reset_mask=mask)[0]
    mask.zero_()
    assert_close(torch.autograd.grad(output.square().sum(), [x, *ours.parameters()]), expected, 0)


def test_no_mask_gives_what_torch_gives():
    theirs, ours = pair("LSTM", num_layers=2)
    x = numbers(T, N, I)
    assert_close(call(ours, x, []), call(theirs, x, []), 1e-11)
