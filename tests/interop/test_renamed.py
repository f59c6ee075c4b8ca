"""Arrays of checkpoints renamed, left out and added at random: never a wrong layer that nothing is said of.

The oracle is torch: a layer that comes back has to compute what a torch module does that takes the arrays under its
name by strict loading, every one of them. A layer whose arrays were left alone has to come back as it was.
"""

import os
import re

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_same_bits
from safetensors.numpy import save_file
from torch import nn

from fastrnn import interop
from fastrnn.interop.parts import WRAPPERS

COUNT = int(os.environ.get("FASTRNN_RENAMINGS", 340))       # of each format
WRITERS = {
    "safetensors": lambda arrays, path: save_file(arrays, path),
    "npz": lambda arrays, path: np.savez(path, **arrays),
    "pt": lambda arrays, path: torch.save({name: torch.from_numpy(a) for name, a in arrays.items()}, path),
}
MODULES = [
    lambda: nn.LSTM(3, 4), lambda: nn.LSTM(3, 4, 2, bidirectional=True), lambda: nn.LSTM(4, 4, 3, bias=False),
    lambda: nn.LSTM(3, 4, 2, proj_size=2), lambda: nn.GRU(3, 4, 2), lambda: nn.RNN(3, 4, bidirectional=True),
    lambda: nn.GRU(4, 4, bidirectional=True, bias=False), lambda: nn.RNN(4, 4, 2), lambda: nn.LSTMCell(3, 4),
    lambda: nn.GRUCell(4, 4), lambda: nn.RNNCell(4, 4, bias=False), lambda: nn.Linear(4, 3), lambda: nn.LayerNorm(4),
]
PLACES = ["encoder", "encoder.inner", "decoder.rnn", "module.a", "b.0", "b.1", "", "heads.2.cell"]
ENDINGS = ["_raw", "_orig", "_mask", "_g", "_v", "_u", "_x", "_l1", "_reverse", ".original", ".weight", "0", "_scale"]
OTHERS = ["bias", "weight", "norm.weight", "lora_A", "h_0", "weight_ch", "zoneout", "embedding.weight", "weight_ih",
          "weight_hh", "weight_ih_l1", "bias_ih_l0", "bias_hh_l3", "weight_hr_l0", "peephole_l0", "gate.weight_ih_l0",
          "parametrizations.weight_hh_l0.original"]


def checkpoint(rng):
    """Prefix -> module of a model, and its arrays by name."""
    places = [str(place) for place in rng.choice(PLACES, int(rng.integers(1, 4)), replace=False)]
    modules = {place + "." * bool(place): MODULES[rng.integers(len(MODULES))]() for place in places}
    return modules, {prefix + name: a.numpy().copy() for prefix, module in modules.items()
                     for name, a in module.state_dict().items()}


def renamed(name, rng):
    edits = [
        lambda: name + rng.choice(ENDINGS), lambda: name.replace("_ih", "_hh"), lambda: name.replace("_hh", "_ih"),
        lambda: name.replace("_l0", "_l1"), lambda: name.replace("_l1", "_l0"), lambda: name.replace("_reverse", ""),
        lambda: name.replace("weight_", "w_"), lambda: name.upper(), lambda: rng.choice(PLACES) + "." + name,
        lambda: re.sub(r"(\w+)$", rf"{rng.choice([*WRAPPERS, 'inner'])}.\1", name), lambda: name.rpartition(".")[2],
        lambda: name.replace(".", "_"), lambda: f"x.{name}", lambda: name.replace("_l0", ""), lambda: name + "_l0",
        lambda: re.sub(r"(\w+)$", r"parametrizations.\1.original", name),
    ]
    return str(edits[rng.integers(len(edits))]())


def changed(arrays, rng):
    """The arrays after one to three changes."""
    arrays = dict(arrays)
    for _ in range(int(rng.integers(1, 4))):
        name = str(rng.choice(list(arrays)))
        kind = rng.integers(3)
        if kind == 0 and len(arrays) > 1:
            del arrays[name]
        elif kind == 1:
            arrays[renamed(name, rng)] = arrays.pop(name)
        else:
            other = str(rng.choice([renamed(name, rng), name.rpartition(".")[0] + "." + rng.choice(OTHERS),
                                    str(rng.choice(OTHERS))])).lstrip(".")
            shape = arrays[name].shape if rng.integers(2) else tuple(rng.integers(1, 17, int(rng.integers(1, 3))))
            arrays.setdefault(other, rng.standard_normal(shape).astype(np.float32))
    return arrays


def torch_modules(layer):
    """The modules of torch that a layer may be."""
    kind, sizes = type(layer).__name__, (layer.input_size, layer.hidden_size)
    options = {"proj_size": layer.proj_size} if kind == "LSTM" else {}
    yield getattr(nn, kind)(*sizes, layer.num_layers, bias=layer.bias, bidirectional=layer.bidirectional, **options)
    if layer.num_layers == 1 and not layer.bidirectional and not layer.proj_size:
        yield getattr(nn, kind + "Cell")(*sizes, bias=layer.bias)


def is_honest(layer, arrays):
    """Whether a module of torch takes all of these arrays by strict loading and computes what the layer does."""
    x = np.random.default_rng(0).standard_normal((3, 2, layer.input_size)).astype(np.float32)
    raw = {name.removesuffix("_raw"): a for name, a in arrays.items() if name.endswith("_raw")}      # weight drop
    arrays = {name: a for name, a in arrays.items() if not name.endswith("_raw")} | raw
    for module in torch_modules(layer):
        try:
            module.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()}, strict=True)
        except RuntimeError:
            continue
        with torch.no_grad():
            if isinstance(module, nn.RNNCellBase):
                expected = module(torch.from_numpy(x[0]))
                expected = (expected[0] if isinstance(expected, tuple) else expected).numpy()[None]
            else:
                expected = module(torch.from_numpy(x))[0].numpy()
        assert_close({"output": layer(x)[0][:len(expected)]}, {"output": expected}, 1e-5)
        return True
    return False


def under(name, arrays):
    """What may be meant by the name of a layer: for each prefix of that name the arrays under it."""
    prefixes = {key[:at + 1] for key in arrays for at in range(-1, len(key)) if at < 0 or key[at] == "."}
    for prefix in prefixes:
        parts = prefix.rstrip(".").split(".")
        if name in (".".join(parts), ".".join(part for part in parts if part not in WRAPPERS)):
            own = {key[len(prefix):]: a for key, a in arrays.items() if key.startswith(prefix)}
            if not prefix:          # a model's own layers and others are told apart by words
                own = {key: a for key, a in own.items() if re.match("weight|bias|peephole", key)}
            yield own
            # Weight drop: the matrices before dropout stand in the module around the layer.
            outer = re.sub(r"[^.]+\.$", "", prefix)
            raws = {key[len(outer):]: a for key, a in arrays.items()
                    if prefix and key.startswith(outer) and re.fullmatch(r"\w+_raw", key[len(outer):])}
            if raws:
                yield own | raws


@pytest.mark.slow
@pytest.mark.parametrize("ending", WRITERS)
def test_no_wrong_layer_comes_back_unannounced(ending, tmp_path):
    rng = np.random.default_rng(list(WRITERS).index(ending))
    torch.manual_seed(0)
    path, honest, refused, untouched = tmp_path / f"model.{ending}", 0, 0, 0
    for trial in range(COUNT):
        modules, original = checkpoint(rng)
        arrays = changed(original, rng)
        WRITERS[ending](arrays, path)
        skipped = {}
        found = interop.layers(path, skipped)
        assert found or skipped, arrays.keys()
        refused += bool(skipped)
        for name, layer in found.items():
            told = (trial, name, layer, sorted(arrays), skipped)
            assert any(is_honest(layer, own) for own in under(name, arrays)), told
            honest += 1
        for prefix, module in modules.items():
            own = {key: a for key, a in arrays.items() if key.startswith(prefix)}
            # A W_raw around a layer may be weight drop's, and the layer is refused.
            if any(name.endswith("_raw") for name in arrays):
                continue
            whole = own.keys() == {prefix + name for name in module.state_dict()} and all(
                own[key] is original.get(key) for key in own)
            if prefix and whole and not isinstance(module, (nn.Linear, nn.LayerNorm)):
                near = [layer for name, layer in found.items()
                        if name in (prefix.rstrip("."), prefix.removeprefix("module.").rstrip("."))]
                assert near, (trial, prefix, sorted(arrays), found, skipped)
                assert_same_bits({name: np.asarray(a) for name, a in near[0].parameters.items()}, {
                    name if "_l" in name else name + "_l0": own[prefix + name] for name in module.state_dict()})
                untouched += 1
    assert min(honest, refused, untouched) > COUNT // 10, (honest, refused, untouched)
