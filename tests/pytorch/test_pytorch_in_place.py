"""Tensors changed in place between a call and its backward: trained on as in torch, or refused with torch's error."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402
from torch_modules import CELLS, LAYERS, H, I, N, T, assert_close, numbers, pair, runs_kernels, states_for  # noqa: E402

import fastrnn.pytorch  # noqa: E402
from fastrnn import _core  # noqa: E402
from fastrnn._base import dispatch  # noqa: E402

FORMS = ["time first", "batch first", "packed", "unbatched"]


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """In these tests small calls run on the kernels, too."""
    torch.manual_seed(0)
    monkeypatch.setattr(fastrnn.pytorch.modules, "_gains", lambda *call: True)


def change(tensor):
    """Twice the tensor, in place, unseen by autograd but not by version counters."""
    with torch.no_grad():
        tensor.mul_(2)


def trained(module, x, states, change_it, pick=lambda results: results[0]):
    """The gradients of a call whose tensors are changed before backward, or the words of torch's error."""
    module.zero_grad()
    leaves = [leaf.detach().clone().requires_grad_(leaf.requires_grad) for leaf in (x, *states)]
    x, *states = [leaf.clone() for leaf in leaves]
    hx = () if not states else (tuple(states) if len(states) == 2 else states[0],)
    results = module(x, *hx)
    flat = [results] if isinstance(results, torch.Tensor) else [
        r for part in results for r in (part if isinstance(part, tuple) else (part,))]
    change_it(module, x, states, flat)
    loss = pick(flat).square().sum
    try:
        loss().backward()
    except RuntimeError as error:
        if "modified" not in str(error) and "view" not in str(error):
            raise
        return "refused"
    gradients = [leaf.grad for leaf in leaves] + [p.grad for p in module.parameters()]
    return [g for g in gradients if g is not None]


def layer_input(form):
    return numbers(*{"time first": (T, N, I), "batch first": (N, T, I), "unbatched": (T, I)}[form])


CHANGES = {
    "x": lambda m, x, states, results: change(x),
    "h_0": lambda m, x, states, results: change(states[0]),
    "the last state given": lambda m, x, states, results: change(states[-1]),
    "output": lambda m, x, states, results: change(results[0]),
    "h_n": lambda m, x, states, results: change(results[1]),
    "the last state returned": lambda m, x, states, results: change(results[-1]),
    "weight_ih": lambda m, x, states, results: change(m.weight_ih_l0),
    "weight_hh": lambda m, x, states, results: change(m.weight_hh_l0),
    "bias_ih": lambda m, x, states, results: change(m.bias_ih_l0),
    "bias_hh": lambda m, x, states, results: change(m.bias_hh_l0),
}


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("form", ["time first", "batch first", "unbatched"])
@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_where_torch_trains_so_do_we(kind, changed, form, options):
    """Where torch refuses, there is an error, too, or the gradients of what the call was given."""
    theirs, ours = pair(kind, batch_first=form == "batch first", **options)
    x, states = layer_input(form), states_for(theirs, *(() if form == "unbatched" else (N,)))
    untouched = copy.deepcopy(theirs)
    calm = trained(untouched, x, states, lambda *call: None)
    pick = (lambda results: results[1]) if changed in ("output",) else (lambda results: results[0])
    if changed == "output":
        calm = trained(untouched, x, states, lambda *call: None, pick)
    found, expected = trained(ours, x, states, CHANGES[changed], pick), trained(theirs, x, states, CHANGES[changed],
                                                                              pick)
    if expected == "refused":
        if found != "refused":
            assert_close(found, calm, 1e-11)
    else:
        assert_close(found, expected, 1e-11)
        assert_close(found, calm, 1e-11)


REFUSED = {     # by torch and by us: the tensors that the derivatives are computed from
    "x": "time first", "h_0": "batch first", "weight_ih": "time first", "weight_hh": "batch first"}


@pytest.mark.parametrize("changed", REFUSED)
@pytest.mark.parametrize("kind", LAYERS)
def test_what_the_derivatives_need_may_not_change(kind, changed):
    form = REFUSED[changed]
    for module in pair(kind, batch_first=form == "batch first"):
        assert trained(module, layer_input(form), states_for(module, N), CHANGES[changed]) == "refused"


@pytest.mark.parametrize("kind", LAYERS)
def test_a_residual_connection_in_place(kind):
    """x += output after the call, as residual networks have it, in a layer with batch_first."""
    theirs, ours = pair(kind, I, I, batch_first=True, **({"proj_size": 0} if kind == "projection" else {}))
    before = nn.Linear(I, I, dtype=torch.float64)
    data, results = numbers(N, T, I, grad=False), []
    for module in (ours, theirs):
        x = before(data)
        output, _ = module(x)
        assert module is theirs or runs_kernels(output)
        x += output
        results.append([x, *torch.autograd.grad(x.square().mean(), [*before.parameters(), *module.parameters()])])
    assert_close(*results, 1e-11)


@pytest.mark.parametrize("form", ["time first", "batch first", "unbatched"])
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_a_frozen_layer_does_not_need_its_input(kind, form):
    theirs, ours = pair(kind, batch_first=form == "batch first")
    x, results = layer_input(form), []
    for module in (ours, theirs):
        module.requires_grad_(False)
        results.append(trained(module, x, [], CHANGES["x"]))
        results.append(trained(module, x, [], lambda *call: None))
    assert "refused" not in results
    for result in results[1:]:
        assert_close(results[0], result, 1e-11)


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_a_frozen_layer_does_not_need_its_packed_input(kind):
    """The same of packed rows: the gradients are those of what the call was given, in torch as here."""
    leaf, results = numbers(T, N, I), []
    for module in pair(kind):
        module.requires_grad_(False)
        for changed in (False, True):
            data = leaf.detach().clone().requires_grad_()
            x = pack_padded_sequence(data, [4, 6, 1, 6, 3], enforce_sorted=False)
            output, _ = module(x)
            if changed:
                change(x.data)
            results.append(torch.autograd.grad(output.data.square().sum(), [data]))
    for result in results[1:]:
        assert_close(results[0], result, 1e-11)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_sizes_of_a_packed_batch_may_change_after_the_call(kind):
    """torch's and ours compute the derivatives of the batch that the call was given."""
    leaf, results = numbers(T, N, I), []
    for module in pair(kind):
        for changed in (False, True):
            x = pack_padded_sequence(leaf, [4, 6, 1, 6, 3], enforce_sorted=False)
            output, _ = module(x)
            loss = output.data.square().sum()
            if changed and module is not None:
                x.batch_sizes.fill_(1)
                x.sorted_indices.fill_(0)
            results.append(torch.autograd.grad(loss, [*module.parameters()]))
    for result in results[2:]:
        assert_close(results[0], result, 1e-11)


@pytest.mark.parametrize("changed", ["data", "output", "states"])
@pytest.mark.parametrize("kind", LAYERS)
def test_packed_sequences(kind, changed):
    theirs, ours = pair(kind)
    leaf, results = numbers(T, N, I), []
    for module in (ours, theirs):
        states = [s.clone() for s in states_for(module, N)]
        torch.manual_seed(1)
        x = pack_padded_sequence(leaf, [4, 6, 1, 6, 3], enforce_sorted=False)
        output, final = module(x, tuple(s * 0 for s in states) if len(states) == 2 else states[0] * 0)
        loss = output.data.square().sum()
        if changed == "output":
            loss = (final[0] if isinstance(final, tuple) else final).square().sum()
        change({"data": x.data, "output": output.data, "states": final[0]}[changed])
        if changed == "data":
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()
        else:
            results.append(torch.autograd.grad(loss, [leaf, *module.parameters()]))
    if results:
        assert_close(*results, 1e-11)


@pytest.mark.parametrize("changed", ["x", "h", "output", "weight_ih", "weight_hh", "bias_ih", "bias_hh"])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind, changed):
    changes = {"x": lambda m, x, states, results: change(x), "h": lambda m, x, states, results: change(states[0]),
               "output": lambda m, x, states, results: change(results[0])}
    changes |= {name: lambda m, x, states, results: change(getattr(m, changed))
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    theirs, ours = pair(kind)
    if changed == "output" and kind != "LSTMCell":
        changes["output"] = lambda m, x, states, results: change(results[0].detach().clone())     # the loss is of it
    x, states = numbers(N, I), states_for(theirs, N)
    calm = trained(copy.deepcopy(theirs), x, states, lambda *call: None, lambda results: results[-1])
    found, expected = (trained(module, x, states, changes[changed], lambda results: results[-1])
                       for module in (ours, theirs))
    if expected == "refused":
        assert found == "refused"
    else:
        assert_close(found, expected, 1e-11)
        assert_close(found, calm, 1e-11)


def test_second_derivatives_by_a_bias_are_refused_too():
    ours = pair("GRU")[1]
    ours.requires_grad_(False)
    ours.bias_hh_l0.requires_grad_(True)
    first, = torch.autograd.grad(ours(numbers(T, N, I, grad=False))[0].square().sum(), [ours.bias_hh_l0],
                                 create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        first.square().sum().backward()


def test_a_packed_batch_is_copied_unless_it_is_borrowed():
    """What backward needs of x is a copy, so that a caller of the passes may write to x again."""
    layer = fastrnn.GRU(I, H, dtype=np.float64, rng=0)
    rng, lengths = np.random.default_rng(0), np.array([6, 4, 4, 2, 1])
    batch = _core.Batch(6, 5, lengths, None, True)
    table = dispatch.table(np.dtype(np.float64))
    p = layer.parameters
    pack = _core.Parameters(table, "gru", *(p[f"{name}_l0"].copy() for name in
                                            ("weight_ih", "weight_hh", "bias_ih", "bias_hh")), None)
    x, results = rng.standard_normal((lengths.sum(), I)), []
    for overwritten in (False, True):
        given, y = x.copy(), np.empty((lengths.sum(), H))
        kept = _core.forward_layer([pack], batch, given, np.zeros((1, 5, H)), None, None, y, None, True, 1)[2]
        if overwritten:
            given[:] = 7
        results.append(_core.backward_layer(kept, np.ones_like(y), np.zeros((1, 5, H)), None, 1, True, True)[3][0])
    for name, gradient in results[0].items():
        assert np.array_equal(gradient, results[1][name])
