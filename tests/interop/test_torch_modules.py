"""Whole pickled modules and TorchScript archives: tensors and options are read from them, nothing is run."""

import io
import re
import types
import warnings
import zipfile

import numpy as np
import pytest
import torch
from child import python
from helpers import assert_close
from torch import nn
from torch.nn.utils import parametrizations

import fastrnn
import fastrnn.pytorch
from fastrnn import interop

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*source code", "ignore:.*weight_norm",
                                        "ignore::torch.jit.TracerWarning", "ignore:RNN module weights",
                                        "ignore:.*TorchScript", "ignore::DeprecationWarning",
                                        "ignore:The tensor attributes")

LAYERS = {
    "lstm": lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, dropout=0.5), "gru": lambda: nn.GRU(3, 4),
    "rnn": lambda: nn.RNN(3, 4, nonlinearity="relu"), "tanh": lambda: nn.RNN(3, 4, 2, batch_first=True, bias=False),
    "projected": lambda: nn.LSTM(3, 4, proj_size=2, batch_first=True), "cell": lambda: nn.LSTMCell(3, 4),
    "grucell": lambda: nn.GRUCell(3, 4, bias=False), "rnncell": lambda: nn.RNNCell(3, 4, nonlinearity="relu"),
}


class Net(nn.Module):
    """A layer within other modules; forward's type is the same whatever it is."""

    def __init__(self, layer):
        super().__init__()
        self.inner = nn.ModuleList([nn.Identity(), layer])
        self.head = nn.Linear(4, 1)
        self.is_cell = isinstance(layer, nn.RNNCellBase)

    def forward(self, x):
        for module in self.inner:
            result = module(x)
            if isinstance(result, torch.Tensor):
                x = result
            else:
                x = result[0]
        return x


def save_whole(net, path, x):
    torch.save(net, path)


def save_legacy(net, path, x):
    torch.save({"net": net, "epoch": np.int64(3)}, path, _use_new_zipfile_serialization=False)


def save_script(net, path, x):
    torch.jit.save(torch.jit.script(net.inner[1]), path)


def save_trace(net, path, x):
    torch.jit.save(torch.jit.trace(net, x, check_trace=False), path)


@pytest.mark.parametrize("save", [save_whole, save_legacy, save_script, save_trace])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_their_options(name, save, tmp_path):
    torch.manual_seed(0)
    net, path = Net(LAYERS[name]()).eval(), tmp_path / "model.pt"
    layer, is_cell = net.inner[1], net.is_cell
    x = torch.randn(2, 3) if is_cell else torch.randn(5, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(net, path, x)
    skipped = {}
    (key, found), = interop.layers(path, skipped).items()
    assert key == ("" if save is save_script else "inner.1") and skipped == {}
    if not is_cell:
        assert found.batch_first == layer.batch_first
        assert found.dropout == (layer.dropout if save is not save_legacy or layer.num_layers > 1 else found.dropout)
    with torch.no_grad():
        expected = layer(x)
        expected = expected if isinstance(expected, torch.Tensor) else expected[0]
    output = found(x.numpy()[None])[0][0] if is_cell else found(x.numpy())[0]
    assert_close({"output": output}, {"output": expected.numpy()}, 1e-5)


def test_dropout_of_a_layer_that_is_no_stack(tmp_path):
    """torch warns of it when the layer is made; here it is left out, with no warning."""
    with pytest.warns(UserWarning, match="dropout"):
        torch.save(nn.LSTM(3, 4, dropout=0.5), tmp_path / "model.pt")
    assert interop.layers(tmp_path / "model.pt")[""].dropout == 0
    torch.save(nn.LSTM(3, 4, 2, dropout=0.5), tmp_path / "model.pt")
    assert interop.layers(tmp_path / "model.pt")[""].dropout == 0.5


def test_options_that_are_given_stand_above_the_file(tmp_path):
    torch.save(nn.LSTM(3, 4, batch_first=True), tmp_path / "model.pt")
    assert interop.layers(tmp_path / "model.pt", batch_first=False)[""].batch_first is False
    assert interop.layers(tmp_path / "model.pt")[""].batch_first is True


class Mine(nn.LSTM):
    def forward(self, x):
        return super().forward(2 * x)


def hooked():
    layer = nn.GRU(3, 4)
    layer.register_forward_pre_hook(double)
    return layer


def double(module, arguments):
    return (2 * arguments[0],)


def contradicted(cls=nn.LSTM, **attributes):
    layer = cls(3, 4) if issubclass(cls, nn.RNNCellBase) else cls(3, 4, 2)
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


@pytest.mark.parametrize("make, match", [
    (lambda: Mine(3, 4), r"class test_torch_modules\.Mine .*state_dict"), (hooked, r"double is among its hooks"),
    (lambda: contradicted(hidden_size=5), "hidden_size is 5"), (lambda: contradicted(num_layers=1), "num_layers is 1"),
    (lambda: contradicted(bidirectional=True), "bidirectional is True"),
    (lambda: contradicted(batch_first=3), "batch_first is a int"),
    (lambda: contradicted(proj_size=1), "proj_size is 1"), (lambda: contradicted(hidden_size="4"), "hidden_size is 4"),
    (lambda: contradicted(num_layers=2.5), r"num_layers is 2\.5"),
    (lambda: contradicted(dropout=True), "dropout is a bool"),
    (lambda: contradicted(dropout=float("nan")), "dropout: expected a finite number"),
    (lambda: contradicted(mode="GRU"), "mode is GRU, which is none of LSTM's"),
    (lambda: contradicted(mode=["LSTM"]), "mode is a list"),
    (lambda: contradicted(nn.RNN, mode="RNN_ELU"), "mode is RNN_ELU"),
    (lambda: contradicted(nn.RNN, mode="LSTM"), "mode is LSTM"),
    (lambda: contradicted(nn.GRU, mode="RNN_TANH"), "none of GRU's"),
    (lambda: contradicted(nn.RNNCell, nonlinearity="elu"), "nonlinearity: .*elu"),
    (lambda: contradicted(nn.RNNCell, nonlinearity=1), "nonlinearity is a int"),
    (lambda: contradicted(nn.RNN, mode=None, nonlinearity=None), "nonlinearity is not among"),
    (lambda: contradicted(nn.GRU, batch_first=None), "batch_first is not among"),
])
def test_what_may_compute_otherwise_is_refused(make, match, tmp_path):
    net, path, skipped = nn.ModuleDict({"good": nn.GRU(2, 3), "bad": make()}), tmp_path / "model.pt", {}
    torch.save(net, path)
    with pytest.raises(fastrnn.ModelFormatError, match=rf"model\.pt: bad: .*{match}"):
        interop.layers(path)
    assert repr(interop.layers(path, skipped)) == "{'good': GRU(2, 3)}" and list(skipped) == ["bad"]


def test_weight_norm_of_a_whole_module(tmp_path):
    torch.manual_seed(0)
    for norm in (nn.utils.weight_norm, parametrizations.weight_norm):
        layer, x = norm(nn.GRU(3, 4), "weight_hh_l0"), torch.randn(5, 2, 3)
        if norm is parametrizations.weight_norm:        # such modules are only saved as state_dicts
            torch.save(layer.state_dict(), tmp_path / "model.pt")
        else:
            torch.save(layer, tmp_path / "model.pt")
        found = interop.layers(tmp_path / "model.pt")[""]
        assert_close({"output": found(x.numpy())[0]}, {"output": layer(x)[0].detach().numpy()}, 1e-5)


def test_the_mode_is_what_torch_computes_by(tmp_path):
    """A nonlinearity that was set later has no effect in torch, which looks at the mode."""
    x = np.random.default_rng(0).standard_normal((5, 2, 3), np.float32)
    for mode in ("RNN_TANH", "RNN_RELU"):
        layer = contradicted(nn.RNN, mode=mode, nonlinearity="elu")
        torch.save(layer, tmp_path / "model.pt")
        found = interop.layers(tmp_path / "model.pt")[""]
        assert_close({"output": found(x)[0]}, {"output": layer(torch.from_numpy(x))[0].detach().numpy()}, 1e-5)


def test_wrappers_leave_the_names(tmp_path):
    wrapped = nn.DataParallel(nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 1)))
    torch.save(wrapped, tmp_path / "model.pt")
    assert list(interop.layers(tmp_path / "model.pt")) == ["0"]
    state = nn.GRU(2, 3).state_dict()
    for prefix, name in {"module.": "", "_orig_mod.module.a.": "a", "a._orig_mod.b.": "a.b", "a.module.": "a",
                         "_forward_module.a._fsdp_wrapped_module.b.": "a.b",
                         "a._checkpoint_wrapped_module.0.": "a.0"}.items():
        torch.save({"state_dict": {prefix + key: a for key, a in state.items()}}, tmp_path / "model.pt")
        assert list(interop.layers(tmp_path / "model.pt")) == [name]
    both = {f"{prefix}{key}": a for prefix in ("a.", "a.module.") for key, a in state.items()}
    torch.save(both, tmp_path / "model.pt")
    skipped = {}
    assert list(interop.layers(tmp_path / "model.pt", skipped)) == ["a.module"] and list(skipped) == ["a"]


def test_fastrnns_own_modules(tmp_path):
    torch.save(nn.Sequential(fastrnn.pytorch.GRU(3, 4, batch_first=True)), tmp_path / "model.pt")
    assert repr(interop.layers(tmp_path / "model.pt")) == "{'0': GRU(3, 4, batch_first=True)}"


def test_a_frozen_archive_says_so(tmp_path):
    frozen = torch.jit.freeze(torch.jit.trace(Net(nn.LSTM(3, 4)).eval(), torch.ones(5, 2, 3)))
    torch.jit.save(frozen, tmp_path / "model.pt")
    with pytest.raises(fastrnn.ModelFormatError, match="freeze"):
        interop.layers(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:.*quantiz", "ignore::UserWarning")
def test_quantised_models_are_named(tmp_path):
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(3, 4)), {nn.LSTM})
    script = torch.jit.script(model)
    for write in (lambda: torch.save(model.state_dict(), tmp_path / "model.pt"),
                  lambda: torch.save(model, tmp_path / "model.pt"),
                  lambda: torch.jit.save(script, tmp_path / "model.pt")):
        write()
        with pytest.raises(fastrnn.ModelFormatError, match="its weights are quantised"):
            interop.layers(tmp_path / "model.pt")


def test_a_scripted_class_of_ones_own_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(Mine(3, 4).eval(), torch.ones(5, 2, 3)), tmp_path / "model.pt")
    with pytest.raises(fastrnn.ModelFormatError, match="Mine may compute anything"):
        interop.layers(tmp_path / "model.pt")


@pytest.mark.parametrize("number", ["-.", "..", "1.2.3", "e5", "-0.5", "2.5", "1e999", 5000 * "1"],
                         ids=lambda number: number[:5])
@pytest.mark.parametrize("place", ["dropout of a call", "layers of a call", "dropout", "num_layers", "proj_size",
                                   "batch_first"])
def test_numbers_in_code_that_are_none_of_a_layers(tmp_path, place, number):
    """Text that only looks like a number, or one that no layer has, is refused; so is a bool that is a number."""
    path, key = tmp_path / "model.pt", place.partition(" ")[0]
    if place.endswith("call"):
        torch.jit.save(torch.jit.trace(Net(nn.LSTM(3, 4, 2)).eval(), torch.ones(5, 2, 3)), path)
        pattern = r"(torch\.lstm\(.*, True, )" + (r"(\d+)(, )" if key == "layers" else r"(\d+, )([\d.]+)")
        fill = rf"\g<1>{number}\3" if key == "layers" else rf"\g<1>\g<2>{number}"
    else:
        torch.jit.save(torch.jit.script(nn.LSTM(3, 4, 2)), path)
        pattern, fill = rf"(  {key} : Final\[\w+\] = )(.+)", rf"\g<1>{number}"
    assert edit_code(path, pattern, fill) == 1
    with pytest.raises(fastrnn.ModelFormatError, match=rf"model\.pt: (the model|inner\.1): ({key}\b|.* does not tell)"):
        interop.layers(path)


@pytest.mark.parametrize("make, pattern, replacement, match", [
    (lambda: torch.jit.trace(Net(nn.RNN(3, 4, nonlinearity="relu")).eval(), torch.ones(5, 2, 3)),
     r"torch\.rnn_relu\(", "torch.gru(", "mode is GRU, which is none of RNN's"),
    (lambda: torch.jit.trace(Net(nn.GRU(3, 4)).eval(), torch.ones(5, 2, 3)),
     r"torch\.gru\(", "torch.rnn_tanh(", "mode is RNN_TANH, which is none of GRU's"),
    (lambda: torch.jit.trace(Net(nn.RNNCell(3, 4, nonlinearity="relu")).eval(), torch.ones(2, 3)),
     r"torch\.relu\(", "torch.elu(", "nonlinearity is not among"),
    (lambda: torch.jit.trace(Net(nn.RNNCell(3, 4)).eval(), torch.ones(2, 3)),
     r"torch\.tanh\((\w+)\)", r"torch.relu(torch.tanh(\1))", "nonlinearity is not among"),
    (lambda: torch.jit.script(nn.RNN(3, 4, nonlinearity="relu")),
     r"  mode : Final.*\n", "", "nonlinearity is not among"),
], ids=["other operator", "another operator", "other cell", "both cells", "no mode"])
def test_code_that_does_not_tell_what_is_computed(tmp_path, make, pattern, replacement, match):
    torch.jit.save(make(), tmp_path / "model.pt")
    assert interop.layers(tmp_path / "model.pt")
    assert edit_code(tmp_path / "model.pt", pattern, replacement) == 1
    with pytest.raises(fastrnn.ModelFormatError, match=match):
        interop.layers(tmp_path / "model.pt")


@pytest.mark.parametrize("dropout", [0.0, 0.1, 1e-5, 2.0**-20, 0.9999999999999999, 1.0])
def test_dropout_in_code(tmp_path, dropout):
    torch.jit.save(torch.jit.script(nn.GRU(3, 4, 2, dropout=dropout)), tmp_path / "script.pt")
    torch.jit.save(torch.jit.trace(Net(nn.GRU(3, 4, 2, dropout=dropout)).eval(), torch.ones(5, 2, 3)),
                   tmp_path / "trace.pt")
    for name, key in (("script", ""), ("trace", "inner.1")):
        assert interop.layers(tmp_path / f"{name}.pt")[key].dropout == dropout


def edit_code(path, pattern, replacement):
    """How many places of an archive's code were replaced."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    total = 0
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in entries.items():
            if entry.endswith(".py"):
                text, count = re.subn(pattern, replacement, data.decode())
                data, total = text.encode(), total + count
            archive.writestr(entry, data)
    return total


def test_tensors_of_whole_modules_by_name(tmp_path):
    net = Net(nn.LSTM(3, 4)).eval()
    torch.save({"model": net}, tmp_path / "model.pt")
    found = interop.pytorch.load_state_dict(tmp_path / "model.pt")
    assert {name: a.shape for name, a in found.items()} == {
        f"model.{name}": tuple(a.shape) for name, a in net.state_dict().items()}


def test_nothing_is_imported(tmp_path):
    torch.save(Net(nn.LSTM(3, 4)), tmp_path / "whole.pt")
    torch.jit.save(torch.jit.script(nn.LSTM(3, 4)), tmp_path / "script.pt")
    assert python(f"""
        from fastrnn import interop
        for name in ("whole", "script"):
            print(interop.layers({str(tmp_path)!r} + f"/{{name}}.pt"))
        print([name for name in sys.modules if name.split(".")[0] in ("torch", "test_torch_modules")])
    """) == "{'inner.1': LSTM(3, 4)}\n{'': LSTM(3, 4)}\n[]\n"


def test_a_module_within_itself(tmp_path):
    net = nn.Sequential(nn.GRU(2, 3))
    net._modules["self"] = types.SimpleNamespace(inner=net)
    torch.save(net, tmp_path / "model.pt")
    assert list(interop.layers(tmp_path / "model.pt")) == ["0"]
    net._modules["self"] = net
    torch.save(net, tmp_path / "model.pt")
    with pytest.raises(fastrnn.ModelFormatError, match="within"):
        interop.layers(tmp_path / "model.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("convert", [np.array, np.asfortranarray, lambda a: a.astype(">f4"), lambda a: a.astype("f8")])
def test_checkpoints_of_numpys_arrays(convert, protocol, zipped, tmp_path):
    layer = fastrnn.LSTM(3, 4, 2, rng=0)
    arrays = {f"encoder.{name}": convert(a) for name, a in layer.state_dict().items()}
    torch.save({"weights": arrays, "words": np.array(["a", "b"]), "objects": np.array([None])}, tmp_path / "model.pt",
               pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    (name, found), = interop.layers(tmp_path / "model.pt").items()
    assert name == "encoder"
    for key, a in layer.parameters.items():
        np.testing.assert_array_equal(found.parameters[key], a)
    assert list(interop.pytorch.load_state_dict(tmp_path / "model.pt")) == [f"weights.{name}" for name in arrays]


# ---- Exported programs ----------------------------------------------------------------------------------

class Exported(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.inner, self.head = layer, nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.inner(x)[0])


def write_older(program, path):
    """As torch.export.save did before 2.8: the weights as torch.save writes them."""
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        graph = archive.read(next(name for name in archive.namelist() if name.endswith("models/model.json")))
    weights = io.BytesIO()
    torch.save(dict(program.state_dict), weights)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", graph)
        archive.writestr("serialized_state_dict.pt", weights.getvalue())
        archive.writestr("version", "5.3")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("make", [
    lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=False), lambda: nn.GRU(3, 4, batch_first=True),
    lambda: nn.RNN(3, 4, nonlinearity="relu"), lambda: nn.LSTM(3, 4, bias=False)])
def test_exported_programs(make, older, tmp_path):
    torch.manual_seed(0)
    net, path, x = Exported(make()).eval(), tmp_path / "model.pt2", torch.randn(5, 2, 3)
    program = torch.export.export(net, (x,))
    (write_older if older else torch.export.save)(program, path)
    assert interop.detect(path) == "pytorch"
    skipped = {}
    found = interop.layers(path, skipped)
    assert list(found) == ["inner"] and skipped == {}
    assert found["inner"].batch_first == net.inner.batch_first
    with torch.no_grad():
        assert_close({"output": found["inner"](x.numpy())[0]}, {"output": net.inner(x)[0].numpy()}, 1e-5)
    tensors = interop.pytorch.load_state_dict(path)
    assert {name: a.shape for name, a in tensors.items()} == {
        name: tuple(a.shape) for name, a in net.state_dict().items()}


def test_an_exported_program_that_computes_weights_is_refused(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.GRU(3, 4, bias=False)

        def forward(self, x):
            weights = [2 * self.inner.weight_ih_l0, self.inner.weight_hh_l0]
            return torch.gru(x, torch.zeros(1, x.shape[1], 4), weights, False, 1, 0.0, False, False, False)[0]

    torch.export.save(torch.export.export(Scaled(), (torch.randn(5, 2, 3),)), tmp_path / "model.pt2")
    with pytest.raises(fastrnn.ModelFormatError, match=r"inner: gru.* computes with weights that are computed"):
        interop.layers(tmp_path / "model.pt2")
