"""What else torch's modules can do: other dtypes and transforms, tracing, checkpoints, hooks, threads, copies."""

import copy
import importlib
import inspect
import io
import pickle
import sys
import threading
import typing

import pytest
from child import attempt, python

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_modules import (  # noqa: E402
    CELLS,
    LAYERS,
    OURS,
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
)

import fastrnn.pytorch  # noqa: E402
from fastrnn import _core  # noqa: E402
from fastrnn.pytorch import internals  # noqa: E402

gains = fastrnn.pytorch.modules._gains


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """In these tests small calls run on the kernels, too."""
    torch.manual_seed(0)
    monkeypatch.setattr(fastrnn.pytorch.modules, "_gains", lambda *call: True)


# ---- What goes to torch -------------------------------------------------------------------------------------------

SMALL = {       # module, sizes, (steps, rows), gradients: on the kernels?
    ("GRU", 7, 19, (6, 5), True): True,
    ("GRU", 7, 19, (1, 1), True): True,
    ("GRU", 7, 19, (1, 1), False): True,
    ("GRU", 300, 300, (1, 1), False): False,
    ("GRU", 7, 19, (1, 4), False): True,
    ("GRU", 300, 300, (2, 1), True): False,
    ("GRU", 300, 300, (2, 1), False): True,
    ("GRU", 300, 300, (2, 32), True): True,
    ("GRU", 300, 300, (1, 64), True): False,
    ("RNN", 7, 19, (1, 64), False): True,
    ("RNN", 7, 19, (1, 64), True): True,
    ("RNN", 100, 120, (1, 1), True): False,
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
    monkeypatch.setattr(fastrnn.pytorch.modules, "_gains", gains)
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
    for cell_dtype in (torch.float16, torch.bfloat16):          # a GRU cell, as oneDNN may have no LSTM of float16
        cells = pair("GRUCell", dtype=torch.float32)
        with torch.autocast("cpu", torch.float16):
            expected, found = (cell(x[0].to(cell_dtype)) for cell in cells)
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


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
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


# ---- Other versions of torch ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("holder, name", [
    (torch._C, "_are_functorch_transforms_active"), (torch._C, "_len_torch_dispatch_stack"),
    (torch._C._functorch, "is_legacy_batchedtensor"), (torch.autograd.forward_ad, "_current_level")])
def test_without_a_private_name_of_torchs_its_own_code_runs(holder, name, monkeypatch, passes):
    with monkeypatch.context() as without:
        without.delattr(holder, name)
        importlib.reload(internals)
    try:
        assert not internals.COMPLETE
        for kind in ("LSTM", "GRUCell"):
            theirs, ours = pair(kind)
            x = numbers(N, I)
            assert torch.equal(call(ours, x, None)[0], call(theirs, x, None)[0]) and passes == []
    finally:
        importlib.reload(internals)
    assert internals.COMPLETE
    pair("LSTM")[1](numbers(T, N, I))
    assert [name for name, *_ in passes] == ["forward_layer"]


def test_without_the_names_of_a_layers_weights_torchs_code_runs(monkeypatch, passes):
    theirs, ours = pair("GRU")
    monkeypatch.setattr(internals, "weight_names", lambda layer: None)
    x = numbers(T, N, I)
    assert torch.equal(ours(x)[0], theirs(x)[0]) and passes == []


@pytest.mark.parametrize("name", ["set_code_exec_strategy", "_FrameExecStrategy", "_FrameAction"])
def test_without_the_compilers_private_names_functions_are_left_as_they_are(name, monkeypatch):
    monkeypatch.delattr(torch._C._dynamo.eval_frame, name)
    internals.leave_uncompiled(lambda: None)


# ---- The package --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", fastrnn.pytorch.__all__)
def test_public_names_are_documented(name):
    assert ">>>" in getattr(fastrnn.pytorch, name).__doc__


@pytest.mark.parametrize("name", OURS)
def test_signatures_are_torchs(name):
    """Every option, by name, position and default; torch shows those of its layers in an overload."""
    constructor = getattr(nn, name).__init__
    overloads = typing.get_overloads(constructor)
    shown = [list(inspect.signature(function).parameters.values())[1:]
             for function in (*overloads[:1], constructor, OURS[name].__init__)]
    theirs, ours = shown[0], shown[-1]
    assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs]
    assert list(inspect.signature(OURS[name]).parameters) == [p.name for p in theirs]
    with pytest.raises(TypeError, match="hidden"):
        OURS[name](2, hidden=3)


def test_fastrnn_does_not_import_torch():
    python("import fastrnn.interop; assert 'torch' not in sys.modules")


def test_without_torch_the_extra_is_named():
    done = attempt("sys.modules['torch'] = None\nimport fastrnn.pytorch")
    assert done.returncode and "ImportError: fastrnn.pytorch needs PyTorch (pip install fastrnn[torch])" in done.stderr


def test_importing_does_not_bring_in_the_compiler():
    python("import torch\nbefore = 'torch._dynamo' in sys.modules\nimport fastrnn.pytorch\n"
           "assert ('torch._dynamo' in sys.modules) == before")
