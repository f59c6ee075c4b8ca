"""fastrnn.pytorch's modules beside torch's own: numbers, gradients, weights that change."""


import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, weight_norm  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence  # noqa: E402
from torch_modules import (  # noqa: E402
    CELLS,
    DTYPES,
    LAYERS,
    LENGTHS,
    H,
    I,
    N,
    T,
    assert_close,
    call,
    everything,
    numbers,
    pair,
    runs_kernels,
    states_for,
)

import fastrnn.pytorch  # noqa: E402
from fastrnn import _core  # noqa: E402


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """In these tests small calls run on the kernels, too."""
    torch.manual_seed(0)
    monkeypatch.setattr(fastrnn.pytorch.modules, "_gains", lambda *call: True)


# ---- Numbers ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("given", ["states", "no states"])
@pytest.mark.parametrize("form", ["time first", "batch first", "unbatched", "packed", "packed batch first", "equal"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False, "num_layers": 3}],
                         ids=["plain", "stacked bidirectional", "no bias"])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_give_what_torch_gives(kind, options, form, given):
    batch_first = "batch first" in form
    for dtype, tolerance in DTYPES.values():
        theirs, ours = pair(kind, dtype=dtype, batch_first=batch_first, **options)
        shape = (T, I) if form == "unbatched" else (N, T, I) if batch_first else (T, N, I)
        leaf = x = numbers(*shape, dtype=dtype)
        if "packed" in form:
            x = pack_padded_sequence(x, LENGTHS, batch_first=batch_first, enforce_sorted=False)
        elif form == "equal":
            x = pack_padded_sequence(x, [T] * N)
        states = states_for(theirs, *(() if form == "unbatched" else (N,))) if given == "states" else []
        found = everything(ours, x, states, [leaf])
        assert runs_kernels(found[0])
        assert_close(found, everything(theirs, x, states, [leaf]), tolerance)


@pytest.mark.parametrize("rows", [(), (1,), (5,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_cells_give_what_torch_gives(kind, bias, rows):
    for dtype, tolerance in DTYPES.values():
        theirs, ours = pair(kind, dtype=dtype, bias=bias)
        x = numbers(*rows, I, dtype=dtype)
        for states in (states_for(theirs, *rows), []):
            found = everything(ours, x, states, [x])
            assert runs_kernels(found[0])
            assert_close(found, everything(theirs, x, states, [x]), tolerance)


def test_a_packed_sequence_comes_back_as_one():
    theirs, ours = pair("GRU", bidirectional=True)
    rows = [numbers(n, I) for n in LENGTHS]
    for x in (pack_sequence(rows, enforce_sorted=False), pack_sequence(sorted(rows, key=len, reverse=True))):
        found, expected = ours(x)[0], theirs(x)[0]
        assert isinstance(found, PackedSequence)
        for a, b in zip(found[1:], expected[1:], strict=True):
            assert a is b is None or torch.equal(a, b)
        assert_close(pad_packed_sequence(found), pad_packed_sequence(expected), 1e-11)


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_lie_in_memory_as_torchs_do(kind):
    """The order of memory matters because a dropout that follows draws its mask in that order."""
    for options in ({}, {"batch_first": True}):
        theirs, ours = pair(kind, **options)
        x = numbers(T, N, I)
        for found, expected in zip(call(ours, x, []), call(theirs, x, []), strict=True):
            assert found.stride() == expected.stride()


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.3, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_draws_torchs_masks(kind, dtype, dropout):
    dtype, tolerance = DTYPES[dtype]
    for options in ({}, {"batch_first": True, "bidirectional": True}):
        theirs, ours = pair(kind, dtype=dtype, num_layers=3, dropout=dropout, **options)
        x = numbers(T, N, I, dtype=dtype)
        trained = everything(ours, x, [], [x], seed=5)
        assert_close(trained, everything(theirs, x, [], [x], seed=5), tolerance)
        packed = pack_padded_sequence(x, LENGTHS[:x.shape[not ours.batch_first]] if not ours.batch_first else
                                      [5, 2, 1, 5, 3, 4], batch_first=ours.batch_first, enforce_sorted=False)
        assert_close(everything(ours, packed, [], [x], seed=6), everything(theirs, packed, [], [x], seed=6), tolerance)
        calm = everything(ours.eval(), x, [], [x], seed=5)
        assert_close(calm, everything(theirs.eval(), x, [], [x], seed=5), tolerance)
        assert not torch.allclose(calm[0], trained[0])


def test_strided_inputs_and_gradients():
    theirs, ours = pair("LSTM")
    wide = numbers(2 * T, N, 2 * I)
    h, c = (numbers(1, 1, H) for _ in range(2))
    for x in (wide[::2, :, :I], wide[::2, :, ::2], wide[:T, :1, :I].expand(T, N, I), wide[:T, :, :I].flip(0)):
        states = [s.expand(1, N, H) for s in (h, c)]
        results = []
        for module in (ours, theirs):
            output = call(module, x, states)[0]
            loss = output.sum() + output[::2, :, ::2].sum()         # the gradient of a sum is one number, expanded
            results.append([output, *torch.autograd.grad(loss, [wide, h, c, *module.parameters()])])
        assert_close(*results, 1e-11)


@pytest.mark.parametrize("form", ["whole", "packed"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_one_result_alone(kind, form):
    """Gradients are right where only the output, or only a final state, enters the loss."""
    theirs, ours = pair(kind, num_layers=2)
    leaf = numbers(T, N, I)
    x = pack_padded_sequence(leaf, LENGTHS, enforce_sorted=False) if form == "packed" else leaf
    for which in range(2 + (kind == "LSTM")):
        grads = [torch.autograd.grad(call(module, x, [])[which].square().sum(), [leaf, *module.parameters()],
                                     retain_graph=True) for module in (ours, theirs)]
        assert_close(*grads, 1e-11)


# ---- Gradients ----------------------------------------------------------------------------------------------------

def functional(module, x, packed, states):
    """The module as a function of nothing but tensors: x, states, parameters."""
    names = [name for name, _ in module.named_parameters()]

    def function(x, *tensors):
        if packed:
            x = pack_padded_sequence(x, packed, enforce_sorted=False)
        hx = tensors[:len(states)]
        hx = (hx if len(hx) == 2 else hx[0],) if hx else ()
        values = dict(zip(names, tensors[len(states):], strict=True))
        results = torch.func.functional_call(module, values, (x, *hx))
        if isinstance(module, nn.RNNCellBase):
            return results
        output, final = results
        return output.data if packed else output, *(final if isinstance(final, tuple) else (final,))
    return function


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("form", ["whole", "packed", "unbatched", "no states"])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_layers_by_differences(kind, form, options):
    ours = pair(kind, 2, 3, **({"proj_size": 2} if kind == "projection" else {}), **options)[1]
    lead = (3,) if form == "unbatched" else (3, 2)
    states = [] if form == "no states" else states_for(ours, *lead[1:])
    function = functional(ours, *(None, [2, 3] if form == "packed" else None, states))
    assert torch.autograd.gradcheck(function, (numbers(*lead, 2), *states, *ours.parameters()), fast_mode=False)


@pytest.mark.parametrize("rows", [(), (2,)], ids=str)
@pytest.mark.parametrize("kind", CELLS)
def test_gradients_of_cells_by_differences(kind, rows):
    ours = pair(kind, 2, 5)[1]
    states = states_for(ours, *rows)
    function = functional(ours, None, None, states)
    assert torch.autograd.gradcheck(function, (numbers(*rows, 2), *states, *ours.parameters()))


def test_only_needed_gradients_are_computed(passes):
    theirs, ours = pair("LSTM", num_layers=2)
    x = numbers(T, N, I, grad=False)

    def needs():
        return [args[5:7] for name, args, _ in passes if name == "backward_layer"]

    ours(x)[0].sum().backward()
    assert needs() == [(True, True), (False, True)]             # the second layer's x is the first layer's output
    ours.requires_grad_(False)
    ours.weight_ih_l1.requires_grad_(True)
    ours.zero_grad()
    passes.clear()
    ours(x)[0].sum().backward()
    assert needs() == [(False, True)] and next(options for *_, options in passes)["borrow"]
    assert [name for name, p in ours.named_parameters() if p.grad is not None] == ["weight_ih_l1"]
    ours.requires_grad_(False)
    passes.clear()
    x.requires_grad_(True)
    ours(x)[0].sum().backward()
    theirs(x)[0].sum().backward()
    assert needs() == [(True, False), (True, False)]
    assert_close([x.grad], [2 * torch.autograd.grad(theirs(x)[0].sum(), [x])[0]], 1e-11)


def test_without_gradients_nothing_is_kept(passes):
    ours = pair("LSTM")[1]
    x = numbers(T, N, I, grad=False)
    with torch.no_grad():
        assert ours(x)[0].grad_fn is None
    with torch.inference_mode():
        results = call(ours, x, [])
        assert all(r.is_inference() for r in results)
    assert_close([r.clone() for r in results], call(ours, x, []), 0)
    ours.requires_grad_(False)
    assert not ours(x)[0].requires_grad
    kept = [args[8] if name == "forward_layer" else name for name, args, _ in passes]
    assert kept == ["short call", "short call", True, False]


def test_second_derivatives_are_refused_in_words():
    ours = pair("GRU")[1]
    x = numbers(T, N, I)
    first, = torch.autograd.grad(ours(x)[0].square().sum(), [x], create_graph=True)
    expected, = torch.autograd.grad(ours(x)[0].square().sum(), [x])
    assert torch.equal(first, expected)
    with pytest.raises(RuntimeError, match=r"no second derivative.*create_graph.*restore\(model\)"):
        first.square().sum().backward()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.gradgradcheck(lambda x: ours(x)[0], (x,))


def test_batched_gradients_are_refused_in_words():
    ours = pair("GRU")[1]
    x = numbers(T, N, I)
    output = ours(x)[0]
    batch = torch.ones(2, *output.shape, dtype=output.dtype)
    with pytest.raises(RuntimeError, match=r"no batched gradients.*restore\(model\)"):
        torch.autograd.grad(output, [x], batch, is_grads_batched=True)
    with pytest.raises(RuntimeError, match="no batched gradients"):
        torch.vmap(lambda d: torch.autograd.grad(output, [x], d))(batch)


def test_backward_twice():
    ours = pair("LSTM")[1]
    x = numbers(T, N, I)
    loss = ours(x)[0].sum()
    once = torch.autograd.grad(loss, [x, *ours.parameters()], retain_graph=True)
    assert_close(torch.autograd.grad(loss, [x, *ours.parameters()]), once, 0)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("changed", ["x", "weight_hh_l0", "h_0", "the first layer's output"])
def test_changes_before_backward_are_noticed(changed):
    ours = pair("GRU", num_layers=2 if "layer" in changed else 1)[1]
    x, h_0 = numbers(T, N, I).clone(), numbers(ours.num_layers, N, H).clone()
    if "layer" in changed:
        second = pair("GRU", H, H)[1]
        y, _ = ours(x)
        loss = second(y)[0].sum()
        x = y
    else:
        loss = ours(x, h_0)[0].sum()
    with torch.no_grad():
        {"x": x, "h_0": h_0}.get(changed, x if "layer" in changed else ours.weight_hh_l0).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_outputs_may_be_changed():
    theirs, ours = pair("RNN", batch_first=True)
    x = numbers(N, T, I)
    results = []
    for module in (ours, theirs):
        output = module(x)[0].clone() if module is theirs else module(x)[0]
        output.mul_(2)
        results.append(torch.autograd.grad(output.square().sum(), [x, *module.parameters()]))
    assert_close(*results, 1e-11)


def test_the_same_parameter_in_two_places():
    theirs, ours = pair("GRU", H, H, num_layers=2)
    for module in (theirs, ours):
        module.weight_hh_l1 = module.weight_hh_l0
        module.weight_ih_l1 = module.weight_ih_l0
        module.bias_ih_l0 = module.bias_hh_l0
    x = numbers(T, N, H)
    assert len(list(ours.parameters())) == 5
    assert_close(everything(ours, x, [], [x]), everything(theirs, x, [], [x]), 1e-11)


# ---- Weights that change ------------------------------------------------------------------------------------------

CHANGES = {
    "in place": lambda m: m.weight_hh_l0.detach().mul_(0.5),
    "past the version counter": lambda m: m.weight_hh_l0.data.mul_(0.5),
    "through NumPy": lambda m: np.multiply(m.weight_hh_l0.detach().numpy(), 0.5, out=m.weight_hh_l0.detach().numpy()),
    "one bit of a bias": lambda m: m.bias_hh_l0.detach().view(torch.int64)[H - 1].bitwise_xor_(2**50),
    "new data": lambda m: setattr(m.weight_hh_l0, "data", m.weight_hh_l0.data.flip(0)),
    "data transposed in place": lambda m: setattr(m.weight_hh_l0, "data", m.weight_hh_l0.data.t()),
    "a new parameter": lambda m: setattr(m, "weight_hh_l0", nn.Parameter(m.weight_hh_l0.detach() * 0.5)),
    "loaded": lambda m: m.load_state_dict({name: value * 0.5 for name, value in m.state_dict().items()}),
    "dtype": lambda m: m.float(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_seen(change):
    theirs, ours = pair("RNN", H, H)
    x = numbers(T, N, H, grad=False)
    with torch.no_grad():
        before = ours(x)[0]
        for module in (theirs, ours):
            CHANGES[change](module)
        x = x.to(ours.bias_hh_l0.dtype)
        found, expected = ours(x)[0], theirs(x)[0]
    assert_close([found], [expected], 1e-5 if change == "dtype" else 1e-11)
    assert not torch.allclose(found, before.to(x.dtype), rtol=1e-8)


def test_weights_are_packed_once_for_every_version(monkeypatch):
    packed = []

    class Spy(_core.Parameters):
        def __init__(self, *args):
            packed.append(args)

    monkeypatch.setattr(_core, "Parameters", Spy)
    ours = pair("LSTM", num_layers=2)[1]
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    x = numbers(T, N, I)
    for _ in range(3):
        ours(x)[0].sum().backward()
        assert len(packed) == 2
    optimizer.step()
    for _ in range(3):
        ours(x)[0].sum()
        assert len(packed) == 4
    ours.weight_ih_l1.data.zero_()
    ours(x)
    assert len(packed) == 5


def test_functional_call_and_what_computes_weights(isa):
    theirs, ours = pair("GRU")
    x = numbers(T, N, I)
    values = {name: numbers(*p.shape) for name, p in ours.named_parameters()}
    results = []
    for module in (ours, theirs):
        output = torch.func.functional_call(module, values, (x,))[0]
        results.append([output, *torch.autograd.grad(output.square().sum(), [x, *values.values()])])
    assert runs_kernels(results[0][0])
    assert_close(*results, 1e-11)
    assert_close([ours(x)[0]], [theirs(x)[0]], 1e-11)
    for module in (ours, theirs):
        parametrizations.weight_norm(module, "weight_hh_l0")
    assert runs_kernels(ours(x)[0])
    assert_close(everything(ours, x, [], [x]), everything(theirs, x, [], [x]), 1e-11)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_set_by_hooks():
    theirs, ours = pair("LSTM")
    x = numbers(T, N, I)
    for module in (ours, theirs):
        weight_norm(module, "weight_hh_l0")
    for _ in range(2):
        found = everything(ours, x, [], [x])
        assert runs_kernels(found[0])
        assert_close(found, everything(theirs, x, [], [x]), 1e-11)
        for module in (ours, theirs):
            module.weight_hh_l0_g.data.mul_(2)


def test_instruction_sets_may_change(isa):
    theirs, ours = pair("LSTM", bidirectional=True, num_layers=2)
    x = numbers(T, N, I)
    expected = everything(theirs, x, [], [x])
    for name in fastrnn.available_isas():
        fastrnn._base.dispatch.use_isa(name)
        assert_close(everything(ours, x, [], [x]), expected, 1e-11)
