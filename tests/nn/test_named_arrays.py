"""Layers of .safetensors and .npz files that others wrote: told by torch's names and by shapes; real models."""

import json
import random
import struct

import numpy as np
import pytest
import safetensors.numpy
import torch
from helpers import assert_close, assert_same_bits
from safetensors.torch import save_file

import fastrnn
from fastrnn import interop
from fastrnn._base import named_arrays
from fastrnn.interop import conventions

WRITERS = {"safetensors": safetensors.numpy.save_file, "npz": lambda arrays, path: np.savez(path, **arrays)}


# ---- torch's modules ------------------------------------------------------------------------------

class Model(torch.nn.Module):
    """One of each kind, under names of several depths, beside layers that are not recurrent."""

    def __init__(self, dtype):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3, dtype=dtype)
        self.encoder = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4, 2, bidirectional=True, dtype=dtype)})
        self.projected = torch.nn.LSTM(3, 5, proj_size=2, dtype=dtype)
        self.gru = torch.nn.GRU(4, 4, bias=False, dtype=dtype)
        self.rnn = torch.nn.RNN(2, 6, dtype=dtype)
        self.cells = torch.nn.ModuleList([torch.nn.LSTMCell(3, 2, dtype=dtype), torch.nn.GRUCell(2, 3, dtype=dtype)])
        self.head = torch.nn.Linear(4, 1, dtype=dtype)


@pytest.mark.parametrize("kind, dtype", [("safetensors", torch.bfloat16), *(       # NumPy has no bfloat16
    (kind, dtype) for kind in WRITERS for dtype in (torch.float64, torch.float32, torch.float16))])
def test_every_module_of_a_torch_model(kind, dtype, tmp_path):
    torch.manual_seed(0)
    model = Model(dtype)
    path = tmp_path / f"model.{kind}"
    if kind == "safetensors":
        save_file(model.state_dict(), path)
    else:
        np.savez(path, **{name: a.numpy() for name, a in model.state_dict().items()})
    found = interop.layers(path)
    f64 = ", dtype=float64" * (dtype is torch.float64)
    assert {name: repr(layer) for name, layer in found.items()} == {
        "encoder.lstm": f"LSTM(3, 4, num_layers=2, bidirectional=True{f64})",
        "projected": f"LSTM(3, 5, proj_size=2{f64})", "gru": f"GRU(4, 4, bias=False{f64})",
        "rnn": f"RNN(2, 6{f64})", "cells.0": f"LSTM(3, 2{f64})", "cells.1": f"GRU(2, 3{f64})"}
    wide = model.to(torch.float64 if dtype is torch.float64 else torch.float32)        # exact
    for name, layer in found.items():
        module = wide.get_submodule(name)
        assert_same_bits({key.removesuffix("_l0") if name.startswith("cells") else key: a
                          for key, a in layer.parameters.items()},
                         {key: a.numpy() for key, a in module.state_dict().items()})
        if not name.startswith("cells"):
            x = np.random.default_rng(0).standard_normal((6, 2, layer.input_size)).astype(layer.dtype)
            with torch.no_grad():
                np.testing.assert_allclose(layer(x)[0], module(torch.from_numpy(x))[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", WRITERS)
def test_options_hold_for_every_layer(kind, tmp_path):
    arrays = {f"{layer._kind}.{key}": a for layer in (fastrnn.RNN(2, 3, rng=0), fastrnn.GRU(2, 3, rng=0))
              for key, a in layer.parameters.items()}
    WRITERS[kind](arrays, tmp_path / f"model.{kind}")
    found = interop.layers(tmp_path / f"model.{kind}", nonlinearity="relu", batch_first=True)
    assert {name: repr(layer) for name, layer in found.items()} == {
        "rnn_tanh": "RNN(2, 3, batch_first=True, nonlinearity=relu)", "gru": "GRU(2, 3, batch_first=True)"}


@pytest.mark.parametrize("kind", WRITERS)
def test_options_stand_above_what_our_own_file_says(kind, tmp_path):
    for layer in (fastrnn.RNN(2, 3, rng=0), fastrnn.GRU(2, 3, update="mirror", rng=0)):
        layer.save(tmp_path / f"model.{kind}")
        found = interop.layers(tmp_path / f"model.{kind}", batch_first=True, nonlinearity="relu")
        relu = ", nonlinearity=relu" * isinstance(layer, fastrnn.RNN)
        mirror = ", update=mirror" * isinstance(layer, fastrnn.GRU)
        assert repr(found) == f"{{'': {type(layer).__name__}(2, 3, batch_first=True{relu}{mirror})}}"
    with pytest.raises(TypeError, match="colour"):
        interop.layers(tmp_path / f"model.{kind}", colour="blue")
    WRITERS[kind](fastrnn.GRU(2, 3, rng=0).state_dict(), tmp_path / f"model.{kind}")
    with pytest.raises(TypeError, match="colour"):
        interop.layers(tmp_path / f"model.{kind}", colour="blue")
    cell = fastrnn.LSTMCell(2, 3, rng=0, clip=2)
    cell.save(tmp_path / f"model.{kind}")
    assert repr(interop.layers(tmp_path / f"model.{kind}")) == "{'': LSTMCell(2, 3, clip=2.0)}"


def test_names_with_no_layer_number_may_be_reversed():
    layer = fastrnn.LSTM(2, 3, bidirectional=True, rng=0)
    found = conventions.find_layers({name.replace("_l0", ""): a for name, a in layer.parameters.items()})
    assert repr(found[""]) == repr(layer)
    assert_same_bits(dict(found[""].parameters), layer.state_dict())


@pytest.mark.parametrize("kind", WRITERS)
def test_what_makes_no_layer_is_refused_or_passed_over_by_name(kind, tmp_path):
    good = {f"good.{key}": a for key, a in fastrnn.GRU(2, 3, rng=0).state_dict().items()}
    path = tmp_path / f"model.{kind}"
    w = np.ones((9, 2), np.float32)
    cases = {
        "no matrix weight_hh_l0": {"weight_ih_l0": w},
        "no matrix weight_ih_l0": {"weight_ih_l0": w[0], "weight_hh_l0": w},
        "of no RNN, GRU or LSTM": {"weight_ih_l0": w, "weight_hh_l0": np.ones((9, 4), np.float32)},
        "missing key": {"weight_ih_l0": w, "weight_hh_l0": np.ones((9, 3), np.float32), "bias_ih_l0": w[:, 0]},
        "parameter of layer 7": {"weight_ih_l0": w, "weight_hh_l0": np.ones((9, 3), np.float32), "bias_ih_l7": w[:, 0]},
        "floating-point weights, got int8": {"weight_ih_l0": w.astype("i1"), "weight_hh_l0": np.ones((9, 3), "i1")},
        r"bias_hh_l0.*\(9,\).*\(8,\)": {"weight_ih_l0": w, "weight_hh_l0": np.ones((9, 3), np.float32),
                                        "bias_ih_l0": np.ones(9, np.float32), "bias_hh_l0": np.ones(8, np.float32)},
        "peephole": {"weight_ih_l0": w, "weight_hh_l0": np.ones((9, 3), np.float32), "peephole_l0": w[:, 0].copy()},
    }
    for match, arrays in cases.items():
        WRITERS[kind]({**good, **{f"bad.{key}": a for key, a in arrays.items()}}, path)
        with pytest.raises(fastrnn.ModelFormatError, match=rf"model\.{kind}: bad: .*{match}"):
            interop.layers(path)
        skipped = {}
        assert repr(interop.layers(path, skipped)) == "{'good': GRU(2, 3)}"
        assert list(skipped) == ["bad"]


def test_types_that_numpy_has_not(tmp_path):
    """8-bit floats are refused where a layer needs them, and of no matter elsewhere."""
    gru = {f"gru.{key}": torch.from_numpy(a) for key, a in fastrnn.GRU(2, 3, rng=0).state_dict().items()}
    small = torch.ones(9, 2).to(torch.float8_e4m3fn)
    save_file(gru | {"head.weight": small}, tmp_path / "a.safetensors")
    assert list(interop.layers(tmp_path / "a.safetensors")) == ["gru"]
    save_file(gru | {"gru.weight_ih_l0": small}, tmp_path / "a.safetensors")
    with pytest.raises(fastrnn.ModelFormatError, match=r"a\.safetensors: gru: .*F8_E4M3"):
        interop.layers(tmp_path / "a.safetensors")


def test_other_entries_of_an_archive_are_not_looked_at(tmp_path):
    np.savez(tmp_path / "a.npz", **fastrnn.GRU(2, 3, rng=0).state_dict(), words=np.array(["a"]),
             settings=np.array({"a": 1}))
    assert repr(interop.layers(tmp_path / "a.npz")) == "{'': GRU(2, 3)}"


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    words = torch.arange(-2**15, 2**15, dtype=torch.int16)                   # all there are
    save_file({"weight_ih_l0": words.view(torch.bfloat16).reshape(-1, 2)}, tmp_path / "a.safetensors")
    tensors, _ = fastrnn._base.named_arrays.read_safetensors(tmp_path / "a.safetensors")
    assert_same_bits(tensors["weight_ih_l0"].ravel(), words.view(torch.bfloat16).float().numpy())


# ---- Real models ------------------------------------------------------------------------------------

def test_silero_vad(data_dir):
    """The LSTM's steps over 353 frames of speech; the .safetensors file holds the same net with other weights."""
    folder = data_dir / "models" / "silero_vad"
    found = interop.layers(folder / "weights_lstm.npz")
    assert repr(found) == "{'lstm_cell': LSTM(128, 128), 'safetensors_': LSTM(128, 128)}"
    with np.load(folder / "golden.npz") as golden:
        output, (h, c) = found["lstm_cell"](golden["lstm_in"].reshape(-1, 1, 128))
        assert_close({"output": output[:, 0], "hn": h, "cn": c},       # outputs are below 1, cells up to 15
                     {"output": golden["lstm_out"], "hn": golden["hn"], "cn": golden["cn"]}, 1e-5)
    weights = interop.layers(folder / "silero_vad_16k.safetensors")
    assert repr(weights) == "{'lstm_cell': LSTM(128, 128)}"
    assert_same_bits(dict(weights["lstm_cell"].parameters), dict(found["safetensors_"].parameters))


def test_resemblyzer(data_dir):
    folder = data_dir / "models" / "resemblyzer"
    lstm = interop.layers(folder / "weights.npz", batch_first=True)["lstm"]
    with np.load(folder / "golden.npz") as golden:
        _, (h, c) = lstm(golden["mel"])
        assert_close({"h": h, "c": c}, {"h": golden["h"], "c": golden["c"]}, 1e-5)     # c reaches 36


# ---- The package safetensors --------------------------------------------------------------------------

def arrays_of_every_type():
    rng = np.random.default_rng(0)
    arrays = {f"{order}.{dtype}": rng.integers(0, 2, (3, order)).astype(dtype) for order in (2, 1) for dtype in (
        "?", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "f8", "i8", "u8")}
    return arrays | {"none": np.zeros((0, 3), np.float32), "one": np.array(1.5),
                     "Größe \"\\\n\x01\x7f\U0001f600": np.ones(1)}


def test_files_are_those_that_the_package_writes(tmp_path):
    arrays, text, path = arrays_of_every_type(), json.dumps({"a": "ä\n"}), tmp_path / "a.safetensors"
    for some in (arrays, {"a": np.ones(3, np.int8)}, {}):
        named_arrays.write_safetensors(path, some, text)
        assert path.read_bytes() == safetensors.numpy.save(some, metadata={"fastrnn": text})
    named_arrays.write_safetensors(path, {"a": np.arange(6.0).reshape(2, 3).T, "b": np.arange(3, dtype=">i4")}, text)
    assert_same_bits(safetensors.numpy.load_file(path), {"a": np.arange(6.0).reshape(2, 3).T.copy(),
                                                         "b": np.arange(3, dtype=np.int32)})


VALUES = (0, 1, 2, 3, 8, 16, 24, -1, 2**62, 2**64 - 1, 2**64, 2.0, True, None, "", "F32", "F4", "F6_E2M3", "BF16",
          "C64", "F8_E8M0", "BOOL", "U8", "Q", [], [0], [2], [0, 8], {}, {"a": "b"}, {"a": 1})


def changed(header, rng):
    """A header with one thing changed."""
    name = rng.choice(list(header))
    entry = header[name]
    kind = rng.randrange(5)
    if kind == 0:
        header[rng.choice(("new", "__metadata__", "\ud800", "a"))] = rng.choice(VALUES)
    elif kind == 1:
        del header[name]
    elif kind == 2:
        entry.pop(rng.choice(list(entry)), None)
    elif kind == 3 and isinstance(entry.get("shape"), list) and entry["shape"]:
        numbers = entry[rng.choice(("shape", "data_offsets"))]
        numbers[rng.randrange(len(numbers))] = rng.choice(VALUES[:13])
    else:
        entry[rng.choice(("dtype", "shape", "data_offsets", "extra"))] = rng.choice(VALUES)


def test_what_is_read_and_what_is_refused_is_what_the_package_does(tmp_path):
    path, rng, accepted = tmp_path / "a.safetensors", random.Random(0), 0
    good = safetensors.numpy.save({"a": np.ones((2, 3), np.float32), "b": np.arange(4), "c": np.zeros((0, 3), np.uint8),
                                   "d": np.array(True)}, metadata={"x": "y"})
    start = 8 + struct.unpack("<Q", good[:8])[0]
    for _ in range(600):
        header = json.loads(good[8:start])
        changed(header, rng)
        text = json.dumps(header).encode() + b" " * rng.randrange(3)
        data = struct.pack("<Q", len(text)) + text + good[start:]
        path.write_bytes(data)
        try:
            expected = dict(safetensors.deserialize(data))
        except safetensors.SafetensorError:
            with pytest.raises(fastrnn.ModelFormatError, match=r"a\.safetensors"):
                named_arrays.read_safetensors(path)
            continue
        accepted += 1
        arrays, _ = named_arrays.read_safetensors(path)
        assert arrays.keys() == expected.keys()
        for name, a in arrays.items():
            if expected[name]["dtype"] != "BF16":           # read as float32
                assert a.tobytes() == bytes(expected[name]["data"])
    assert 30 < accepted < 300
