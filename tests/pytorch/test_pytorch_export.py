"""Accelerated models exported, compiled and quantised: as the original does, or an error says what to do."""

import copy
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402
from torch_modules import OURS, H, I, N, T, assert_close, numbers  # noqa: E402

import fastrnn.pytorch  # noqa: E402
from fastrnn.pytorch import accelerate, restore  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
KINDS = ["LSTM", "GRU", "RNN"]
OPTIONS = [{}, {"bidirectional": True, "num_layers": 2}, {"batch_first": True, "bias": False}]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.before, self.recurrent = nn.Linear(I, I), recurrent
        self.after = nn.Linear(H * (1 + getattr(recurrent, "bidirectional", False)), 2)

    def forward(self, x):
        results = self.recurrent(torch.relu(self.before(x)))
        return self.after(torch.relu(results if isinstance(results, torch.Tensor) else results[0]))


def nets(kind, **options):
    """A model of torch's modules, and an accelerated copy of it."""
    theirs = Net(getattr(nn, kind)(I, H, **options)).eval()
    ours = copy.deepcopy(theirs)
    assert list(accelerate(ours).swapped) == ["recurrent"]
    return theirs, ours


def an_input(kind):
    return numbers(*(() if kind.endswith("Cell") else (T,)), N, I, dtype=torch.float32, grad=False)


# ---- Exported -----------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_exported_graphs_are_the_originals(kind, options, strict):
    if strict and torch.__version__.startswith("2.9."):
        pytest.skip("strict export of torch 2.9 takes recurrent modules of torch's own classes alone")
    theirs, ours = nets(kind, **options)
    x = an_input(kind)
    programs = [torch.export.export(net, (x,), strict=strict) for net in (theirs, ours)]
    operators = [[str(node.target) for node in program.graph.nodes if node.op == "call_function"]
                 for program in programs]
    assert operators[0] == operators[1] and any("aten" in name for name in operators[0])
    assert list(programs[0].state_dict) == list(programs[1].state_dict)
    assert_close([programs[1].module()(x)], [theirs(x)], 1e-5)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_exported_cells(kind):
    theirs, ours = (Net(Cell(getattr(module, kind)(I, H))) for module in (nn, fastrnn.pytorch))
    x = an_input(kind)
    programs = [torch.export.export(net, (x,)) for net in (theirs, ours)]
    assert len({str([node.target for node in program.graph.nodes if node.op == "call_function"])
                for program in programs}) == 1
    assert_close([programs[1].module()(x)], [ours(x)], 1e-5)


class Cell(nn.Module):
    """The new h of a cell."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        results = self.cell(x)
        return results if isinstance(results, torch.Tensor) else results[0]


def test_exported_with_any_number_of_rows():
    theirs, ours = nets("GRU")
    x = an_input("GRU")
    program = torch.export.export(ours, (x,), dynamic_shapes=({1: torch.export.Dim("rows", min=2, max=64)},))
    more = numbers(T, 20, I, dtype=torch.float32, grad=False)
    assert_close([program.module()(more)], [theirs(more)], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_models_are_the_originals(kind, options, tmp_path):
    pytest.importorskip("onnxscript")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    theirs, ours = nets(kind, **options)
    x, graphs = an_input(kind), []
    for name, net in (("theirs", theirs), ("ours", ours)):
        path = str(tmp_path / f"{name}.onnx")
        torch.onnx.export(net, (x,), path, dynamo=True, verbose=False, external_data=False)
        graphs.append([node.op_type for node in onnx.load(path).graph.node])
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found, = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert_close([torch.from_numpy(found)], [theirs(x).detach()], 1e-4)
    assert graphs[0] == graphs[1] and (kind in graphs[0] or kind == "RNN")       # an RNN is written out by torch


# ---- Compiled in one graph ----------------------------------------------------------------------------------------

@pytest.fixture
def whole():
    """torch.compile with fullgraph=True, and the setting that lets recurrent modules into graphs."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield lambda net, backend="aot_eager": torch.compile(net, fullgraph=True, backend=backend)
    torch._dynamo.reset()


class Masked(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x, hx, mask):
        return self.recurrent(x, hx, reset_mask=mask)


def gradients(net, x, results):
    return torch.autograd.grad(results.square().sum(), [x, *net.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("options", [*OPTIONS, {"num_layers": 2, "dropout": 1.0}], ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "relu", "projection"])
def test_one_graph_holds_the_operator(kind, options, whole, passes):
    extra = {"relu": {"nonlinearity": "relu"}, "projection": {"proj_size": H - 1}}.get(kind, {})
    name = {"relu": "RNN", "projection": "LSTM"}.get(kind, kind)
    layer = OURS[name](I, H + 1 if kind == "projection" else H, **(extra | {"proj_size": H} if "proj_size" in extra
                                                                 else extra), **options)
    net = Net(layer)
    x = numbers(T, N, I, dtype=torch.float32)
    expected = net(x)
    wanted = gradients(net, x, expected)
    passes.clear()
    compiled = whole(net)
    for _ in range(2):
        found = compiled(x)
        assert_close([found], [expected], 1e-5)
        assert_close(gradients(net, x, found), wanted, 1e-5)
        assert [n for n, *_ in passes] == (["forward_layer"] * layer.num_layers
                                           + ["backward_layer"] * layer.num_layers)
        passes.clear()
    with torch.no_grad():
        assert_close([compiled(x)], [expected.detach()], 1e-5)
    assert len(passes) == layer.num_layers


@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_with_states_and_a_mask(kind, whole, passes):
    net = Masked(OURS[kind](I, H, num_layers=2, dtype=torch.float64))
    x, mask = numbers(T, N, I), torch.rand(T, N) < 0.4
    states = [numbers(2, N, H) for _ in range(1 + (kind == "LSTM"))]
    hx = tuple(states) if kind == "LSTM" else states[0]
    results = []
    for model in (whole(net), net):
        output, final = model(x, hx, mask)
        flat = [output, *(final if kind == "LSTM" else [final])]
        loss = sum(r.square().sum() for r in flat[1:]) + output.sum()
        results.append([*flat, *torch.autograd.grad(loss, [x, *states, *net.parameters()])])
    assert_close(*results, 1e-11)
    assert len(passes) == 8


def test_one_graph_without_the_kernels_is_torchs(whole, passes):
    net = Net(OURS["GRU"](I, H)).to(torch.bfloat16)
    x = an_input("GRU").to(torch.bfloat16)
    assert_close([whole(net)(x).float()], [net(x).float()], 0.05)
    assert passes == []


def test_one_graph_of_a_module_whose_results_are_used_in_part(whole):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent = OURS["LSTM"](I, H)

        def forward(self, x):
            return self.recurrent(x)[1][1]

    net, x = Last(), numbers(T, N, I, dtype=torch.float32)
    assert_close(gradients(net, x, whole(net)(x)), gradients(net, x, net(x)), 1e-5)


def test_compiled_code_may_use_the_inputs_memory(whole):
    """The input is computed within the graph, and what the kernels keep of it is a copy."""
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.recurrent = nn.Linear(I, I), OURS["GRU"](I, I)

        def forward(self, x):
            x = torch.tanh(self.before(x))
            return torch.tanh(x + self.recurrent(x)[0])

    net, x = Residual(), numbers(T, N, I, dtype=torch.float32)
    assert_close(gradients(net, x, whole(net)(x)), gradients(net, x, net(x)), 1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_operator_by_torchs_own_checks(kind):
    gates = {"lstm": 4, "gru": 3}[kind]
    x, h_0 = numbers(3, 2, 4), numbers(2, 2, 5)
    rows = gates * 5
    weights = [numbers(*shape) for _ in range(2) for shape in ((rows, 4), (rows, 5), (rows,), (rows,))]
    args = (x, h_0, numbers(2, 2, 5) if kind == "lstm" else None, weights, torch.rand(3, 2) < 0.5, kind, True, True)
    checks = torch.library.opcheck(torch.ops.fastrnn.layer.default, args)
    assert set(checks.values()) == {"SUCCESS"}


# ---- Quantised ----------------------------------------------------------------------------------------------------

def quantise(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(*args, **options)


@pytest.mark.parametrize(
    "spec", [None, {nn.LSTM}, {"recurrent"}, {nn.LSTM, nn.Linear}], ids=["none", "type", "name", "two types"]
)
def test_quantising_an_accelerated_model_says_what_to_do(spec):
    _, ours = nets("LSTM")
    with pytest.raises(RuntimeError, match=r"an accelerated LSTM cannot be quantised: call "
                                           r"fastrnn.pytorch.restore\(model\) first"):
        quantise(ours, spec, dtype=torch.qint8)
    assert isinstance(ours.recurrent, fastrnn.pytorch.LSTM)
    restore(ours)
    quantised = quantise(ours, spec, dtype=torch.qint8)
    assert type(quantised.recurrent).__module__.startswith("torch.ao.nn.quantized")


@pytest.mark.parametrize("kind", ["GRU", "LSTMCell", "GRUCell", "RNNCell"])
def test_quantising_other_modules(kind):
    model = nn.ModuleDict({"recurrent": OURS[kind](I, H)})
    with pytest.raises(RuntimeError, match=rf"an accelerated {kind} cannot be quantised"):
        quantise(model, dtype=torch.qint8)


def test_quantising_the_rest_of_a_model_leaves_the_kernels(passes):
    theirs, ours = nets("LSTM")
    quantised = quantise(ours, {nn.Linear}, dtype=torch.qint8)
    assert type(quantised.recurrent) is fastrnn.pytorch.LSTM
    x = an_input("LSTM")
    assert_close([quantised(x)], [theirs(x).detach()], 0.1)
    assert [name for name, *_ in passes] == ["forward_layer"]
    restore(quantised)
    assert type(quantised.recurrent) is nn.LSTM and not hasattr(quantised.recurrent, "qconfig")


def test_quantising_with_a_configuration_of_ones_own():
    _, ours = nets("GRU")
    ours.qconfig = torch.ao.quantization.default_dynamic_qconfig
    with pytest.raises(RuntimeError, match=r"restore\(model\)"):
        torch.ao.quantization.prepare(ours, inplace=True)
    parametrised = OURS["GRU"](I, H)
    parametrizations.weight_norm(parametrised, "weight_hh_l0")
    with pytest.raises(RuntimeError, match=r"restore\(model\)"):
        parametrised.qconfig = torch.ao.quantization.default_dynamic_qconfig
    assert not hasattr(parametrised, "qconfig")
