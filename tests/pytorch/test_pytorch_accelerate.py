"""accelerate and restore: what is swapped, what is left, and that training goes on as without them."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

import fastrnn.pytorch  # noqa: E402
from fastrnn.pytorch import accelerate, restore  # noqa: E402


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Net(nn.Module):
    """Every kind of recurrent module, one of them in two places, and packed sequences on the way."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.lstm = nn.LSTM(3, 8, num_layers=2, dropout=0.2, bidirectional=True, dtype=dtype)
        self.middle = nn.Sequential(nn.Linear(16, 6, dtype=dtype), nn.Dropout(0.2))
        self.gru = nn.GRU(6, 7, batch_first=True, dtype=dtype)
        self.rnns = nn.ModuleList([nn.RNN(7, 7, nonlinearity="relu", dtype=dtype)] * 2)
        self.cells = nn.ModuleDict({"lstm": nn.LSTMCell(7, 7, dtype=dtype), "gru": nn.GRUCell(7, 7, dtype=dtype),
                                    "rnn": nn.RNNCell(7, 7, dtype=dtype)})
        self.head = nn.Linear(16 + 3 * 7, 1, dtype=dtype)

    def forward(self, x, lengths):
        x, _ = self.lstm(pack_padded_sequence(x, lengths, enforce_sorted=False))
        x, _ = pad_packed_sequence(x)
        features = [x.mean(0)]
        x, h = self.gru(self.middle(x).transpose(0, 1))
        features.append(h[0])
        x = x.transpose(0, 1)
        for rnn in self.rnns:
            x, h = rnn(x)
        features.append(h[0])
        h = c = g = None
        for step in x[:3]:
            h, c = self.cells["lstm"](step, None if c is None else (h, c))
            g = self.cells["rnn"](self.cells["gru"](h, g))
        return self.head(torch.cat([*features, g], 1))


NAMES = ["lstm", "gru", "rnns.0", "cells.lstm", "cells.gru", "cells.rnn"]
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.2),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.005),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.005, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.001),
}


def losses(net, make_optimizer, steps, swap_at=()):
    """The losses of the given number of steps; at those in swap_at the model is swapped or restored."""
    dtype, optimizer = net.head.weight.dtype, make_optimizer(net.parameters())
    torch.manual_seed(1)
    x, wanted = torch.randn(6, 6, 3, dtype=dtype), torch.tensor([[1], [-1], [1], [-1], [1], [-1]], dtype=dtype)
    found = []
    for step in range(steps):
        if step in swap_at:
            (restore if isinstance(net.lstm, fastrnn.pytorch.LSTM) else accelerate)(net)
        loss = (net(x, [6, 4, 6, 3, 1, 5]) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-4)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_follows_the_unswapped(optimizer, dtype, tolerance, monkeypatch):
    """Dropout included: the masks are torch's. A swap in the middle changes nothing either."""
    monkeypatch.setattr(fastrnn.pytorch.modules, "_gains", lambda *call: True)      # the cells too
    net = Net(getattr(torch, dtype))
    swapped, between = copy.deepcopy(net), copy.deepcopy(net)
    assert list(accelerate(swapped).swapped) == NAMES
    expected = losses(net, OPTIMIZERS[optimizer], 100)
    found = [losses(swapped, OPTIMIZERS[optimizer], 100),
             losses(between, OPTIMIZERS[optimizer], 100, swap_at=(20, 50, 70))]
    assert expected[-10:].mean() < 0.9 * expected[:10].mean()
    for each in found:
        assert torch.allclose(each, expected, rtol=tolerance, atol=tolerance)


def test_swapped_in_place_and_back():
    net = Net()
    modules, parameters = dict(net.named_modules()), dict(net.named_parameters())
    before, keys = str(net), list(net.state_dict())
    calls = []
    net.gru.register_forward_hook(lambda module, args, result: calls.append(type(module)))
    report = accelerate(net)
    assert list(report.swapped) == NAMES and report.left == {}
    assert report.swapped["lstm"] == "LSTM(3, 8, num_layers=2, dropout=0.2, bidirectional=True)"
    assert str(net) == before and list(net.state_dict()) == keys
    for name in NAMES:
        assert type(modules[name]) is getattr(fastrnn.pytorch, type(modules[name]).__name__)
    assert dict(net.named_modules()) == modules
    assert all(p is parameters[name] for name, p in net.named_parameters())
    net.eval()
    x = torch.randn(6, 6, 3, dtype=torch.float64)
    found = net(x, [6] * 6)
    assert calls == [fastrnn.pytorch.GRU]
    again = accelerate(net)
    assert again.swapped == {} and list(again.left) == NAMES and set(again.left.values()) == {"fastrnn's already"}
    back = restore(net)
    assert list(back.swapped) == NAMES and back.left == {}
    for name in NAMES:
        assert type(modules[name]) is getattr(nn, type(modules[name]).__name__)
        assert not any("fastrnn" in key for key in vars(modules[name]))
    assert torch.allclose(net(x, [6] * 6), found, rtol=1e-12)
    assert restore(net).swapped == restore(net).left == {}


def test_the_model_may_be_a_recurrent_module():
    gru = nn.GRU(2, 3)
    report = accelerate(gru)
    assert report.swapped == {"": "GRU(2, 3)"} and type(gru) is fastrnn.pytorch.GRU
    assert str(report) == "1 swapped, 0 left\n  (the model): GRU(2, 3)"
    restore(gru)
    assert type(gru) is nn.GRU


def test_parts_of_a_model():
    net = Net()
    accelerate(net.cells)
    assert type(net.cells["gru"]) is fastrnn.pytorch.GRUCell and type(net.gru) is nn.GRU
    assert set(accelerate(net).swapped) == {"lstm", "gru", "rnns.0"}
    restore(net.rnns)
    assert type(net.rnns[0]) is type(net.rnns[1]) is nn.RNN
    assert len(restore(net).swapped) == 5


class Odd(torch.Tensor):
    pass


class Own(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


def test_what_is_left_and_why():
    replaced, parametrised = nn.GRU(2, 3), nn.GRU(2, 3)
    replaced.forward = lambda x: x
    parametrizations.weight_norm(parametrised, "weight_hh_l0")
    subclassed = nn.LSTM(2, 3)
    subclassed.weight_hh_l0 = nn.Parameter(subclassed.weight_hh_l0.detach().as_subclass(Odd))
    model = nn.ModuleDict({
        "bfloat": nn.GRU(2, 3, dtype=torch.bfloat16), "meta": nn.LSTM(2, 3, device="meta"), "own": Own(2, 3),
        "replaced": replaced, "parametrised": parametrised, "odd": subclassed, "ours": fastrnn.pytorch.RNN(2, 3),
        "good": nn.LSTM(2, 3), "linear": nn.Linear(2, 3)})
    types = {name: type(module) for name, module in model.items()}
    report = accelerate(model)
    assert report.swapped == {"good": "LSTM(2, 3)", "parametrised": repr(model["parametrised"])}
    assert report.left == {
        "bfloat": "weight_ih_l0 is torch.bfloat16",
        "meta": "weight_ih_l0 is on meta",
        "own": "it may have a forward of its own",
        "replaced": "it may have a forward of its own",
        "odd": "weight_hh_l0 is of the class Odd",
        "ours": "fastrnn's already",
    }
    lines = str(report).splitlines()
    assert lines[0] == "2 swapped, 6 left"
    assert "  good: LSTM(2, 3)" in lines and "  bfloat: left, weight_ih_l0 is torch.bfloat16" in lines
    assert {name: type(module) for name, module in model.items() if name not in report.swapped} == {
        name: kind for name, kind in types.items() if name not in report.swapped}


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*:DeprecationWarning", "ignore::UserWarning",
                            "ignore:.*torch.jit")
def test_quantised_and_scripted_modules_are_left():
    model = nn.ModuleDict({"rnn": nn.LSTM(2, 3), "cell": nn.GRUCell(2, 3)})
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.GRUCell}, dtype=torch.qint8)
    assert accelerate(quantised).left == {"rnn": "quantised", "cell": "quantised"}
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.GRUCell(2, 3)))
    assert accelerate(scripted).left == {"1": "compiled by TorchScript"}


def test_parametrised_after_the_swap():
    model = nn.ModuleDict({"rnn": nn.GRU(2, 3)})
    accelerate(model)
    parametrizations.orthogonal(model["rnn"], "weight_hh_l0")
    assert accelerate(model).left == {"rnn": "fastrnn's already"}
    nn.utils.parametrize.remove_parametrizations(model["rnn"], "weight_hh_l0")
    assert type(model["rnn"]) is fastrnn.pytorch.GRU
    parametrizations.orthogonal(model["rnn"], "weight_hh_l0")
    assert list(restore(model).swapped) == ["rnn"] and not isinstance(model["rnn"], fastrnn.pytorch.GRU)
    nn.utils.parametrize.remove_parametrizations(model["rnn"], "weight_hh_l0")
    assert type(model["rnn"]) is nn.GRU


def test_a_subclass_of_ours_is_left():
    class Mine(fastrnn.pytorch.GRU):
        pass

    assert restore(Mine(2, 3)).left == {"": "Mine is a subclass of fastrnn's"}


def test_moved_models_go_on():
    """A module whose parameters move to a dtype or device without kernels runs torch's code until they are back."""
    model = nn.GRU(3, 4)
    accelerate(model)
    x = torch.randn(5, 2, 3)
    expected = model(x)[0]
    assert model.to(torch.bfloat16)(x.bfloat16())[0].dtype == torch.bfloat16
    assert torch.allclose(model.float()(x)[0], expected, atol=0.05)
    assert model.to("meta")(x.to("meta"))[0].is_meta


def test_optimizers_and_distributed_wrappers_see_the_same_parameters():
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    average = torch.optim.swa_utils.AveragedModel(net)
    accelerate(net)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in net.parameters()}
    losses(net, lambda _: optimizer, 2)
    average.update_parameters(net)
    assert set(accelerate(average).swapped) == {f"module.{name}" for name in NAMES}


@pytest.mark.parametrize("function", [accelerate, restore])
def test_what_is_no_model(function):
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        function([nn.GRU(2, 3)])
