"""What comes back computes what the file's author computed, or the reader says by name why not: files of arrays."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune

import fastrnn
from fastrnn import interop

WRITERS = {
    "pt": lambda arrays, path: torch.save(arrays, path),
    "safetensors": lambda arrays, path: save_file({name: a.numpy().copy() for name, a in arrays.items()}, path),
    "npz": lambda arrays, path: np.savez(path, **{name: a.numpy() for name, a in arrays.items()}),
}
in_every_format = pytest.mark.parametrize("ending", WRITERS)
MATRICES = ("weight_ih_l0", "weight_hh_l0")


@pytest.fixture
def save(tmp_path):
    def save(arrays, ending="pt"):
        path = tmp_path / f"model.{ending}"
        WRITERS[ending]({name: a.detach() for name, a in arrays.items()}, path)
        return path
    return save


def assert_as(module, path, name, x):
    """The one layer of a file gives the outputs of a torch module, to 1e-5."""
    skipped = {}
    found = interop.layers(path, skipped)
    assert list(found) == [name] and skipped == {}
    with torch.no_grad():
        assert_close({"output": found[name](x.numpy())[0]}, {"output": module(x)[0].numpy()}, 1e-5)


# ---- Parameters that are computed from others ----------------------------------------------------------

class WeightDrop(nn.Module):
    """As in AWD-LSTM: the weights are in ``..._raw``; beside them is the last matrix that dropout left, or none."""

    def __init__(self, module, own, keep):
        super().__init__()
        self.module, self.own, self.keep = module, own, keep
        raw = module.weight_hh_l0
        if not keep:
            del module._parameters["weight_hh_l0"]
        (self if own else module).register_parameter("weight_hh_l0_raw", nn.Parameter(raw.data))

    def forward(self, x):
        raw = (self if self.own else self.module).weight_hh_l0_raw
        dropped = F.dropout(raw, 0.5, self.training)
        if self.keep:
            self.module._parameters["weight_hh_l0"] = nn.Parameter(dropped.detach())
        else:
            self.module.weight_hh_l0 = dropped
        return self.module(x)


@in_every_format
@pytest.mark.filterwarnings("ignore:RNN module weights")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_weight_drop(own, keep, ending, save):
    torch.manual_seed(0)
    model, x = WeightDrop(nn.LSTM(5, 6), own, keep), torch.randn(7, 2, 5)
    if keep:
        model.train()
        model(x)
    model.eval()
    assert_as(model, save(model.state_dict(), ending), "", x)
    outer = {f"rnns.0.{name}": a for name, a in model.state_dict().items()}
    assert_as(model, save(outer, ending), "rnns.0", x)


@in_every_format
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated", "ignore:RNN module weights")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, parametrizations.weight_norm])
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("names", [MATRICES, MATRICES[1:]])
def test_weight_norm(norm, dim, names, ending, save):
    torch.manual_seed(1)
    model, x = nn.GRU(5, 6, 2, bias=len(names) == 1), torch.randn(7, 2, 5)
    for name in names:
        norm(model, name, dim=dim)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("_g", "original0")):
                parameter.mul_(1.5)
    assert_as(model, save({f"a.{name}": a for name, a in model.state_dict().items()}, ending), "a", x)


@in_every_format
@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated", "ignore:RNN module weights")
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("dim", [0, 1])
def test_spectral_norm(norm, dim, ending, save):
    torch.manual_seed(2)
    model, x = nn.LSTM(5, 6), torch.randn(7, 2, 5)
    norm(model, "weight_hh_l0", dim=dim)
    for _ in range(3):
        model(x)
    model.eval()
    assert_as(model, save(model.state_dict(), ending), "", x)


@in_every_format
@pytest.mark.filterwarnings("ignore:RNN module weights")
def test_pruning(ending, save):
    torch.manual_seed(3)
    model, x = nn.RNN(5, 6), torch.randn(7, 2, 5)
    prune.random_unstructured(model, "weight_ih_l0", 0.4)
    prune.l1_unstructured(model, "weight_hh_l0", 0.4)
    model(x)
    assert_as(model, save({f"a.b.{name}": a for name, a in model.state_dict().items()}, ending), "a.b", x)


@in_every_format
@pytest.mark.parametrize("parts", [
    {"weight_hh_l0_raw": (24, 5)}, {"weight_hh_l0_orig": (24, 6)}, {"weight_hh_l0_mask": (24, 6)},
    {"weight_hh_l0_g": (24, 1)}, {"weight_hh_l0_g": (24, 2), "weight_hh_l0_v": (24, 6)},
    {"weight_hh_l0_g": (24, 1), "weight_hh_l0_v": (24, 6), "weight_hh_l0_raw": (24, 6)},
    {"weight_hh_l0_orig": (24, 6), "weight_hh_l0_mask": (24, 1)}, {"weight_hh_l0_u": (24,), "weight_hh_l0_v": (6,)},
    {"weight_hh_l0_orig": (24, 6), "weight_hh_l0_u": (24,), "weight_hh_l0_v": (7,)},
    {"parametrizations.weight_hh_l0.original": (24, 6)},
    {"parametrizations.weight_hh_l0.original": (24, 6), "parametrizations.weight_hh_l0.0.base": (24, 6)},
    {"parametrizations.weight_hh_l0.original0": (24, 1), "parametrizations.weight_hh_l0.original1": (24, 6),
     "parametrizations.weight_hh_l0.1.scale": (1,)},
], ids=lambda parts: ",".join(parts))
@pytest.mark.parametrize("beside", [True, False])
def test_parameters_computed_in_unknown_ways_are_refused(parts, beside, ending, save):
    state = nn.LSTM(5, 6).state_dict()
    if not beside:
        del state["weight_hh_l0"]
    state = {f"a.{name}": a for name, a in state.items()} | {f"a.{name}": torch.ones(s) for name, s in parts.items()}
    path, skipped = save(state | {"head.weight": torch.ones(2)}, ending), {}
    with pytest.raises(fastrnn.ModelFormatError, match=rf"model\.{ending}: a: .*weight_hh_l0"):
        interop.layers(path)
    assert interop.layers(path, skipped) == {} and list(skipped) == ["a"]


# ---- What stands beside the parameters of a layer --------------------------------------------------------

EXTRAS = ["layernorm_i.weight", "norm.weight", "weight_ch", "lora_A", "lora_weight_hh_l0.default.weight", "bias", "h_0",
          "zoneout", "decay", "weight_ih_l0_scale", "weight_hh_quantised", "tau", "attention.weight_ih_l0", "a.b.c.d",
          "bias_ih_l0_x", "weight_ih_l", "weight_ihh_l0", "peephole_i"]


@in_every_format
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("make", [nn.LSTM, nn.GRUCell])
def test_a_layer_with_more_than_its_parameters_is_refused(make, extra, ending, save):
    state = {f"net.cell.{name}": a for name, a in make(5, 6).state_dict().items()}
    state |= {f"net.other.{name}": a for name, a in nn.GRU(2, 3).state_dict().items()}
    path, skipped = save(state | {f"net.cell.{extra}": torch.ones(4)}, ending), {}
    with pytest.raises(fastrnn.ModelFormatError, match=rf"net\.cell.*: .*{extra.rpartition('.')[2]}"):
        interop.layers(path)
    found = interop.layers(path, skipped)
    assert "net.other" in found and "net.cell" in skipped and "net.cell" not in found


@in_every_format
@pytest.mark.parametrize("extra", ["weight_ch", "bias", "norm.weight", "lora_A", "h_0"])
def test_the_same_where_the_layer_is_the_model(extra, ending, save):
    with pytest.raises(fastrnn.ModelFormatError, match=f"the model: .*{extra}"):
        interop.layers(save(nn.LSTMCell(5, 6).state_dict() | {extra: torch.ones(4)}, ending))


@in_every_format
@pytest.mark.parametrize("extra", ["embeddings", "hidden_weight_l0", "fc.weight", "out_bias"])
def test_other_layers_of_a_model_without_prefixes(extra, ending, save):
    """An archive that was put together by hand may have them; a state_dict has what is one module's."""
    path = save(nn.LSTM(5, 6).state_dict() | {extra: torch.ones(4)}, ending)
    if ending == "npz":
        assert repr(interop.layers(path)) == "{'': LSTM(5, 6)}"
    else:
        with pytest.raises(fastrnn.ModelFormatError, match=f"the model: .*{extra}"):
            interop.layers(path)


@in_every_format
def test_other_parts_of_the_model_are_of_no_matter(ending, save):
    state = {f"net.rnn.{name}": a for name, a in nn.LSTM(5, 6).state_dict().items()}
    state |= {"net.weight": torch.ones(2), "net.rnn_norm.weight": torch.ones(2), "rnn.weight": torch.ones(2),
              "net.rn.bias": torch.ones(2), "h_0": torch.ones(2), "net.layernorm_i.weight": torch.ones(2)}
    assert list(interop.layers(save(state, ending))) == ["net.rnn"]


@in_every_format
@pytest.mark.parametrize("keep, named", [
    (lambda name: "_l1" in name, "weight_ih_l1"), (lambda name: "bias" in name, "no matrix|bias_ih_l0"),
    (lambda name: "reverse" in name and "_l1" in name, "weight_ih_l1_reverse"),
    (lambda name: name.startswith("weight_ih"), "weight_hh_l0"),
])
def test_parts_of_layers_are_named(keep, named, ending, save):
    state = {f"a.{name}": a for name, a in nn.LSTM(5, 6, 2, bidirectional=True).state_dict().items() if keep(name)}
    path, skipped = save(state, ending), {}
    assert interop.layers(path, skipped) == {} and list(skipped) == ["a"]
    with pytest.raises(fastrnn.ModelFormatError, match=f"a: .*({named})"):
        interop.layers(path)


@in_every_format
def test_a_cell_and_a_layer_under_one_name(ending, save):
    state = nn.GRU(2, 3).state_dict() | nn.GRUCell(2, 3).state_dict()
    with pytest.raises(fastrnn.ModelFormatError, match=r"a: .* is a layer's, .* a cell's"):
        interop.layers(save({f"a.{name}": a for name, a in state.items()}, ending))


# ---- No layer, and nothing left unsaid ---------------------------------------------------------------------

@in_every_format
def test_arrays_under_other_names_are_listed(ending, save):
    arrays = {"encoder_w_i": torch.zeros(5, 18), "encoder_w_h": torch.zeros(6, 18)}
    path, skipped = save(arrays, ending), {}
    listed = r"encoder_w_i \(5, 18\), encoder_w_h \(6, 18\).*fastrnn\.interop\.from_arrays"
    if ending == "safetensors":         # in the file's order, by name
        listed = r"encoder_w_h \(6, 18\), encoder_w_i \(5, 18\).*fastrnn\.interop\.from_arrays"
    with pytest.raises(fastrnn.ModelFormatError, match=listed):
        interop.layers(path)
    assert interop.layers(path, skipped) == {} and "encoder_w_h (6, 18)" in skipped[""]
    names = {"weight_ih": "encoder_w_i", "weight_hh": "encoder_w_h"}
    layer = interop.from_arrays({name: a.numpy() for name, a in arrays.items()}, "gru", names=names, order="zrh",
                                layout="columns")
    assert repr(layer) == "GRU(5, 6, bias=False)"


@pytest.mark.parametrize("ending", ["pt", "npz", "safetensors"])
def test_a_file_of_nothing(ending, save):
    with pytest.raises(fastrnn.ModelFormatError, match="no arrays"):
        interop.layers(save({}, ending))
