"""fastrnn.pytorch's modules beside torch's own: numbers, gradients, and whatever else torch's modules can do."""

import copy
import doctest
import functools
import io
import pickle
import sys
import threading

import numpy as np
import pytest
from child import attempt, python

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, weight_norm  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import fastrnn.pytorch  # noqa: E402
from fastrnn import _core  # noqa: E402

OURS = {name: getattr(fastrnn.pytorch, name) for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")}
LAYERS = {"LSTM": {}, "GRU": {}, "RNN": {}, "relu": {"nonlinearity": "relu"}, "projection": {"proj_size": 4}}
CLASSES = {"relu": "RNN", "projection": "LSTM"}
CELLS = {"LSTMCell": {}, "GRUCell": {}, "RNNCell": {}, "reluCell": {"nonlinearity": "relu"}}
T, N, I, H = 6, 5, 7, 19        # H: more than a vector on every instruction set
LENGTHS = [4, 6, 1, 6, 3]
DTYPES = {"float32": (torch.float32, 2e-5), "float64": (torch.float64, 1e-11)}


def pair(kind, *sizes, dtype=torch.float64, **options):
    """torch's module and ours, with equal parameters."""
    name = CLASSES.get(kind, kind.replace("relu", "RNN"))
    options = {**(LAYERS | CELLS)[kind], **options}
    theirs = getattr(nn, name)(*(sizes or (I, H)), dtype=dtype, **options)
    ours = OURS[name](*(sizes or (I, H)), dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def numbers(*shape, dtype=torch.float64, grad=True):
    return torch.randn(*shape, dtype=dtype).requires_grad_(grad)


def states_for(module, *rows, grad=True):
    """h_0 (and c_0) with `rows` between the layers' axis and the features'; a cell's with rows alone."""
    sizes = [getattr(module, "proj_size", 0) or module.hidden_size]
    sizes += [module.hidden_size] * isinstance(module, (nn.LSTM, nn.LSTMCell))
    first = () if isinstance(module, nn.RNNCellBase) else (module.num_layers * (1 + module.bidirectional),)
    dtype = next(module.parameters()).dtype
    return [numbers(*first, *rows, size, dtype=dtype, grad=grad) for size in sizes]


def call(module, x, states):
    """Output (of a PackedSequence: its data) and final states in one list."""
    pairs = isinstance(module, (nn.LSTM, nn.LSTMCell))
    results = module(x, tuple(states) if pairs else states[0]) if states else module(x)
    if isinstance(module, nn.RNNCellBase):
        return [*results] if pairs else [results]
    output, final = results
    return [output.data if isinstance(output, PackedSequence) else output, *(final if pairs else [final])]


def everything(module, x, states, leaves, seed=0):
    """Results of a call, and the gradients of a sum of them with random weights."""
    torch.manual_seed(seed)
    results = call(module, x, states)
    weights = np.random.default_rng(seed)
    loss = sum((r * torch.from_numpy(weights.standard_normal(r.shape)).to(r.dtype)).sum() for r in results)
    return [*results, *torch.autograd.grad(loss, [*leaves, *states, *module.parameters()], retain_graph=True)]


def assert_close(found, expected, tolerance):
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), i
        bound = tolerance * max(1, b.abs().max().item()) if b.numel() else 0
        assert (a - b).abs().max().item() <= bound if b.numel() else True, (i, (a - b).abs().max().item(), bound)


def runs_kernels(tensor):
    """Whether the last operation, or the last but a view of it, was a pass of the kernels."""
    node = tensor.grad_fn
    while node is not None and "FastRNN" not in node.name():
        node = node.next_functions[0][0] if node.next_functions else None
    return node is not None


gains = fastrnn.pytorch._gains


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """Small calls too run on the kernels here."""
    torch.manual_seed(0)
    monkeypatch.setattr(fastrnn.pytorch, "_gains", lambda *call: True)


@pytest.fixture
def passes(monkeypatch):
    """The calls of the compiled passes, as (name, arguments)."""
    calls = []
    for name in ("forward_layer", "backward_layer"):
        def spy(name, real, *args, **options):
            calls.append((name, args, options))
            return real(*args, **options)
        monkeypatch.setattr(_core, name, functools.partial(spy, name, getattr(_core, name)))
    return calls


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
    """A dropout that follows draws its mask in the order of memory."""
    for options in ({}, {"batch_first": True}):
        theirs, ours = pair(kind, **options)
        x = numbers(T, N, I)
        for found, expected in zip(call(ours, x, []), call(theirs, x, []), strict=True):
            assert found.stride() == expected.stride()


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
    """Gradients where only the output, or only a final state, goes into the loss."""
    theirs, ours = pair(kind, num_layers=2)
    leaf = numbers(T, N, I)
    x = pack_padded_sequence(leaf, LENGTHS, enforce_sorted=False) if form == "packed" else leaf
    for which in range(2 + (kind == "LSTM")):
        grads = [torch.autograd.grad(call(module, x, [])[which].square().sum(), [leaf, *module.parameters()],
                                     retain_graph=True) for module in (ours, theirs)]
        assert_close(*grads, 1e-11)


# ---- Gradients ----------------------------------------------------------------------------------------------------

def functional(module, x, packed, states):
    """A function of tensors alone: x, states, parameters."""
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
        return [args[5:] for name, args, _ in passes if name == "backward_layer"]

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
    assert [args[8] for _, args, _ in passes] == [False, False, True, False]


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
        fastrnn._dispatch.use_isa(name)
        assert_close(everything(ours, x, [], [x]), expected, 1e-11)


# ---- What goes to torch -------------------------------------------------------------------------------------------

SMALL = {       # module, sizes, (steps, rows), gradients: on the kernels?
    ("GRU", 7, 19, (6, 5), True): True,
    ("GRU", 7, 19, (1, 1), True): True,
    ("GRU", 7, 19, (1, 1), False): False,
    ("GRU", 7, 19, (1, 4), False): True,
    ("GRU", 300, 300, (2, 1), True): False,
    ("GRU", 300, 300, (2, 1), False): True,
    ("GRU", 300, 300, (2, 32), True): True,
    ("GRU", 300, 300, (1, 64), True): False,
    ("RNN", 7, 19, (1, 64), False): False,
    ("RNN", 7, 19, (2, 1), True): True,
    ("LSTM", 300, 300, (1, 1), True): True,
    ("LSTMCell", 7, 19, (1,), True): True,
    ("LSTMCell", 300, 300, (64,), True): False,
    ("GRUCell", 7, 19, (1,), False): False,
    ("GRUCell", 300, 300, (4,), False): True,
    ("RNNCell", 7, 19, (64,), True): False,
}


@pytest.mark.parametrize("call", SMALL, ids=str)
def test_calls_too_small_to_gain_are_torchs(call, monkeypatch, passes):
    monkeypatch.setattr(fastrnn.pytorch, "_gains", gains)
    kind, *sizes, rows, grad = call
    ours = OURS[kind](*sizes)
    with torch.set_grad_enabled(grad):
        ours(numbers(*rows, sizes[0], dtype=torch.float32))
    assert len(passes) == SMALL[call]


def test_other_dtypes_and_autocast(passes):
    theirs, ours = pair("LSTM", dtype=torch.bfloat16)
    x = numbers(T, N, I, dtype=torch.bfloat16)
    assert torch.equal(ours(x)[0], theirs(x)[0])
    theirs, ours = pair("LSTM", dtype=torch.float32)
    x = numbers(T, N, I, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(x)[0], theirs(x)[0]
    assert found.dtype == expected.dtype and torch.equal(found, expected)
    assert passes == []
    loss = ours(x)[0].sum()
    with torch.autocast("cpu", torch.bfloat16):
        loss.backward()
    assert len(passes) == 2


def test_transforms(passes):
    theirs, ours = pair("GRUCell")
    x = numbers(3, N, I, grad=False)
    parameters = {name: p.detach() for name, p in ours.named_parameters()}

    def loss(module, x):
        return lambda values: torch.func.functional_call(module, values, (x,)).square().sum()

    assert_close([torch.vmap(ours)(x)], [torch.vmap(theirs)(x)], 1e-11)
    found, expected = (torch.func.grad(loss(module, x[0]))(parameters) for module in (ours, theirs))
    assert_close([*found.values()], [*expected.values()], 1e-11)
    tangent = torch.ones_like(x[0])
    results = []
    for module in (ours, theirs):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x[0], tangent)
            results.append(torch.autograd.forward_ad.unpack_dual(module(dual)).tangent)
    assert_close(results[:1], results[1:], 1e-11)
    assert torch.equal(torch.func.jvp(ours, (x[0],), (tangent,))[1], results[1])
    layers = pair("GRU")
    assert message(lambda: torch.vmap(layers[1])(x[None])) == message(lambda: torch.vmap(layers[0])(x[None]))
    assert passes == []


class Marked(torch.Tensor):
    pass


def test_tensors_that_are_more_or_less_than_memory(passes):
    from torch._subclasses import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode
    ours = pair("LSTM")[1]
    assert type(ours(numbers(T, N, I).detach().as_subclass(Marked))[0]) is Marked
    on_meta = OURS["LSTM"](I, H, device="meta")
    assert on_meta(torch.empty(T, N, I, device="meta"))[0].device.type == "meta"
    with FakeTensorMode():
        fake = OURS["GRU"](I, H)
        assert fake(torch.empty(T, N, I))[0].shape == (T, N, H)
    with FlopCounterMode(display=False) as counted:
        ours(numbers(T, N, I))
    assert counted.get_total_flops() > 0
    assert passes == []


def message(function):
    with pytest.raises(Exception) as caught:
        function()
    return type(caught.value), str(caught.value)


WRONG = {
    "input_size": lambda m: m(torch.ones(T, N, I + 1, dtype=torch.float64)),
    "dtype": lambda m: m(torch.ones(T, N, I)),
    "dtype of a state": lambda m: m(torch.ones(T, N, I, dtype=torch.float64), torch.ones(1, N, H)),
    "ndim": lambda m: m(torch.ones(T, N, I, 1, dtype=torch.float64)),
    "scalar": lambda m: m(torch.tensor(1.0, dtype=torch.float64)),
    "state's rows": lambda m: m(torch.ones(T, N, I, dtype=torch.float64), torch.ones(1, 1, H, dtype=torch.float64)),
    "state's ndim": lambda m: m(torch.ones(T, N, I, dtype=torch.float64), torch.ones(1, H, dtype=torch.float64)),
    "pair for a GRU": lambda m: m(torch.ones(T, N, I, dtype=torch.float64), (torch.ones(1, N, H), torch.ones(1, N, H))),
    "no steps": lambda m: m(torch.ones(0, N, I, dtype=torch.float64)),
    "integers": lambda m: m(torch.ones(T, N, I, dtype=torch.int64)),
    "no tensor": lambda m: m([[1.0]]),
    "a weight's shape": lambda m: torch.func.functional_call(
        m, {"weight_hh_l0": torch.ones(3 * H, H + 1, dtype=torch.float64)},
        (torch.ones(T, N, I, dtype=torch.float64),)),
    "a weight on another device": lambda m: torch.func.functional_call(
        m, {"weight_hh_l0": torch.ones(3 * H, H, dtype=torch.float64, device="meta")},
        (torch.ones(T, N, I, dtype=torch.float64),)),
    "a PackedSequence of more rows": lambda m: m(PackedSequence(torch.ones(5, I, dtype=torch.float64),
                                                                torch.tensor([2, 2, 2]))),
    "a PackedSequence that grows": lambda m: m(PackedSequence(torch.ones(5, I, dtype=torch.float64),
                                                              torch.tensor([2, 1, 2]))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_are_torchs(wrong):
    theirs, ours = pair("GRU")
    kind, text = message(lambda: WRONG[wrong](theirs))
    found, ours_text = message(lambda: WRONG[wrong](ours))
    assert (found, ours_text) == (kind, text)


def test_empty_batches_are_torchs():
    theirs, ours = pair("LSTM")
    x = torch.ones(T, 0, I, dtype=torch.float64)
    assert_close(call(ours, x, []), call(theirs, x, []), 0)
    theirs, ours = pair("GRUCell")
    assert ours(torch.ones(0, I, dtype=torch.float64)).shape == (0, H)


# ---- Tracing and compiling ----------------------------------------------------------------------------------------

class Net(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.before, self.recurrent, self.after = nn.Linear(I, I), recurrent, nn.Linear(H, 2)

    def forward(self, x):
        return self.after(torch.relu(self.recurrent(torch.relu(self.before(x)))[0]))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traced_and_scripted():
    net = Net(OURS["LSTM"](I, H, 2)).eval()
    x = numbers(T, N, I, dtype=torch.float32, grad=False)
    expected = net(x)
    for compiled in (torch.jit.trace(net, x), torch.jit.script(net)):
        assert_close([compiled(x), compiled(x[:2])], [expected, net(x[:2])], 1e-5)
        assert "aten::lstm" in str(compiled.inlined_graph)
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(net), stream)
    stream.seek(0)
    assert_close([torch.jit.load(stream)(x)], [expected], 1e-5)
    assert type(net.recurrent) is nn.LSTM      # scripting restores


def test_symbolically_traced():
    net = Net(OURS["LSTM"](I, H))
    graph = torch.fx.symbolic_trace(net)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["before", "recurrent", "after"]
    x = numbers(T, N, I, dtype=torch.float32)
    assert torch.equal(graph(x), net(x)) and graph.recurrent is net.recurrent


def test_another_default_device(passes):
    ours = pair("GRU", batch_first=True)[1]
    x = numbers(N, T, I)
    with torch.device("meta"):
        ours(x)[0].sum().backward()
    assert len(passes) == 2 and x.grad.is_cpu


@pytest.mark.filterwarnings("ignore:The tensor attributes.*_flat_weights:UserWarning")     # torch's modules do it too
def test_exported():
    net = Net(OURS["GRU"](I, H)).eval()
    x = numbers(T, N, I, dtype=torch.float32, grad=False)
    program = torch.export.export(net, (x,))
    assert_close([program.module()(x)], [net(x)], 1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRUCell"])
def test_compiled(kind, passes):
    """torch.compile breaks its graph at recurrent modules; what is called there are the kernels. A cell is inlined."""
    torch._dynamo.reset()
    cell = kind == "GRUCell"
    net = Net(OURS[kind](I, H))
    if cell:
        net.recurrent.register_forward_hook(lambda module, args, result: (result,))
    x = numbers(*(() if cell else (T,)), N, I, dtype=torch.float32)
    expected = [net(x)]
    passes.clear()
    compiled = torch.compile(net, backend="aot_eager")
    for _ in range(2):
        found = [compiled(x)]
        assert_close(found, expected, 1e-5)
        grads = torch.autograd.grad(found[0].sum(), [x, *net.parameters()])
        assert [name for name, *_ in passes] == ([] if cell else ["forward_layer", "backward_layer"])
        assert_close(grads, torch.autograd.grad(net(x).sum(), [x, *net.parameters()]), 1e-5)
        passes.clear()
    with torch.inference_mode():
        assert_close([compiled(x)], [e.detach() for e in expected], 1e-5)
    assert len(passes) == (not cell)
    torch._dynamo.reset()


# ---- Checkpoints, hooks, threads, copies --------------------------------------------------------------------------

@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_keep_nothing_of_the_kernels(reentrant, monkeypatch):
    theirs, ours = pair("GRU", I, I, num_layers=2)
    x, kept, real = numbers(T, N, I), [], _core.forward_layer

    def forward_layer(*args, **options):
        results = real(*args, **options)
        kept.extend(results[2:] if results[2] is not None else [])
        return results

    def alive():
        """How many passes' activations are held by others than `kept`, the loop's variable and getrefcount."""
        return sum(sys.getrefcount(activations) > 3 for activations in kept)

    monkeypatch.setattr(_core, "forward_layer", forward_layer)
    expected = torch.autograd.grad(theirs(x)[0].square().sum(), [x, *theirs.parameters()])
    output = checkpoint(lambda x: ours(x)[0], x, use_reentrant=reentrant)
    assert len(kept) == (0 if reentrant else 2) and alive() == 0
    output.square().sum().backward()
    assert_close([x.grad, *(p.grad for p in ours.parameters())], expected, 1e-11)
    assert len(kept) == (2 if reentrant else 4) and alive() == 0
    kept.clear()
    output = ours(x)[0]
    assert alive() == 2
    output.sum().backward()
    assert alive() == 0         # though the output lives


def test_hooks_on_saved_tensors():
    theirs, ours = pair("LSTM", num_layers=2, bidirectional=True)
    x = numbers(T, N, I)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone().numpy(), torch.from_numpy):
        output = ours(x)[0]
    found = torch.autograd.grad(output.square().sum(), [x, *ours.parameters()])
    assert_close(found, torch.autograd.grad(theirs(x)[0].square().sum(), [x, *theirs.parameters()]), 1e-11)


def test_module_hooks():
    ours = pair("GRU")[1]
    x = numbers(T, N, I)
    seen = []
    ours.register_forward_pre_hook(lambda module, args: seen.append("before"))
    ours.register_forward_hook(lambda module, args, result: seen.append("after"))
    ours.register_full_backward_hook(lambda module, d_input, d_output: seen.append(d_input[0].shape))
    ours.weight_hh_l0.register_hook(lambda grad: seen.append(grad.shape))
    ours(x)[0].sum().backward()
    assert seen[:2] == ["before", "after"] and set(seen[2:]) == {x.shape, ours.weight_hh_l0.shape}


def test_many_threads_one_module():
    theirs, ours = pair("LSTM", num_layers=2)
    xs = [numbers(T, N, I) for _ in range(8)]
    expected = [everything(theirs, x, [], [x]) for x in xs]
    found, errors = [None] * len(xs), []

    def work(i):
        try:
            for _ in range(10):
                found[i] = everything(ours, xs[i], [], [xs[i]])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, 1e-11)


def test_both_libraries_limit_the_threads(passes):
    ours = pair("GRU")[1]
    x = numbers(T, N, I, grad=False)
    before = torch.get_num_threads()
    try:
        for of_torch, of_fastrnn in ((3, 2), (1, 2), (2, 1)):
            torch.set_num_threads(of_torch)
            with fastrnn.threads(of_fastrnn):
                ours(x)
            assert passes[-1][1][9] == min(of_torch, of_fastrnn)
    finally:
        torch.set_num_threads(before)


def test_fork_after_threads_ran():
    print(python("""
        import warnings
        warnings.simplefilter("ignore")
        import torch, fastrnn.pytorch
        torch.manual_seed(0)
        module, x = fastrnn.pytorch.LSTM(64, 64), torch.randn(50, 32, 64)
        def gradient():
            module.zero_grad()
            module(x)[0].square().sum().backward()
            return module.weight_hh_l0.grad.clone()
        torch.set_num_threads(1)
        with fastrnn.threads(2):
            expected = gradient()
            child = os.fork()
            if child == 0:
                os._exit(0 if torch.equal(gradient(), expected) else 1)
        assert os.waitpid(child, 0)[1] == 0
    """))


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_copies_and_pickles(kind):
    theirs, ours = pair(kind)
    x = numbers(*(() if kind in CELLS else (T,)), N, I)
    expected = call(theirs, x, [])
    assert_close(call(ours, x, []), expected, 1e-11)
    assert repr(ours) == repr(theirs) and isinstance(ours, type(theirs))
    stream = io.BytesIO()
    torch.save(ours, stream)
    assert stream.tell() < 3 * sum(p.numel() * 8 for p in ours.parameters()) + 10_000      # without packed weights
    stream.seek(0)
    for twin in (copy.deepcopy(ours), copy.copy(ours), pickle.loads(pickle.dumps(ours)),
                 torch.load(stream, weights_only=False)):
        assert type(twin) is type(ours)
        assert_close(call(twin, x, []), expected, 1e-11)
    theirs.load_state_dict(ours.state_dict())
    assert copy.deepcopy(ours).state_dict().keys() == theirs.state_dict().keys()
    half = copy.deepcopy(ours).float()
    assert call(half, x.float(), [])[0].dtype == torch.float32
    ours.reset_parameters()
    assert not torch.allclose(call(ours, x, [])[0], expected[0])


def test_shared_memory():
    ours = pair("GRU")[1].share_memory()
    x = numbers(T, N, I)
    assert runs_kernels(ours(x)[0])
    assert ours.weight_hh_l0.is_shared()


# ---- The package --------------------------------------------------------------------------------------------------

def test_examples_of_the_docstrings():
    failed, tried = doctest.testmod(fastrnn.pytorch)
    assert failed == 0 and tried > 10


@pytest.mark.parametrize("name", fastrnn.pytorch.__all__)
def test_public_names_are_documented(name):
    assert ">>>" in getattr(fastrnn.pytorch, name).__doc__


def test_fastrnn_does_not_import_torch():
    python("import fastrnn.interop; assert 'torch' not in sys.modules")


def test_without_torch_the_extra_is_named():
    done = attempt("sys.modules['torch'] = None\nimport fastrnn.pytorch")
    assert done.returncode and "ImportError: fastrnn.pytorch needs PyTorch (pip install fastrnn[torch])" in done.stderr


def test_importing_does_not_bring_in_the_compiler():
    python("import torch\nbefore = 'torch._dynamo' in sys.modules\nimport fastrnn.pytorch\n"
           "assert ('torch._dynamo' in sys.modules) == before")
