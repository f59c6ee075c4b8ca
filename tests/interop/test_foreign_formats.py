"""Files of formats that are not read are told apart by name; .nam files of LSTMs are read."""

import json
import pickle
import tarfile
import zipfile

import mutations
import numpy as np
import pytest
import torch
from helpers import assert_close
from torch import nn

from fastrnn import ModelFormatError, interop

# The first bytes of a GraphDef whose first node is a Placeholder "x"; of a SavedModel; of a DyNet model.
GRAPH = (b"\x0a\x2f\x0a\x01x\x12\x0bPlaceholder*\x0b\x0a\x05dtype\x12\x02\x30\x01*\x10\x0a\x05shape\x12\x07:\x05"
         b"\x12\x03\x08\x80\x01")
SAVED = b"\x08\x01\x12\x2a\x0a\x0f\x0a\x05\x0a\x03Add\x22\x05serve2\x01x" + bytes(40)
DYNET = b"#Parameter# /lstm/W {12,3} 36 ZERO_GRAD\n" + b"0.1 " * 36

NAMED = {
    "frozen graph of TensorFlow": GRAPH, "TensorFlow SavedModel": SAVED,
    "DyNet": DYNET, "DyNet model": DYNET.replace(b"#Parameter#", b"#LookupParameter#"),
    "Paddle": pickle.dumps({"lstm.weight_ih_l0": np.ones((4, 1), "f4"), "StructuredToParameterName@@": {"a": "b"}}, 4),
    "Paddle checkpoint": pickle.dumps({"StructuredToParameterName@@": {}}, 2),
}


@pytest.mark.parametrize("name", NAMED)
def test_formats_that_are_not_read_are_named(name, tmp_path):
    (tmp_path / "model").write_bytes(NAMED[name])
    for read in (interop.detect, interop.layers):
        with pytest.raises(ModelFormatError, match=rf"model: .*{name.partition(' ')[0]}.*not read here"):
            read(tmp_path / "model")


@pytest.mark.parametrize("name", NAMED)
def test_mutations_of_formats_that_are_not_read(name, tmp_path):
    """By whatever reader they are given to then."""
    for broken in mutations.mixed(NAMED[name], mutations.generator(3), mutations.COUNT // 10, header=60):
        mutations.assert_refuses_or_loads(lambda path: interop.layers(path, {}), broken, tmp_path / "model", times=200)


@pytest.mark.parametrize("member, match", [
    ("saved_model.pb", "TensorFlow SavedModel"),
    ("__0_0.distcp", "distributed checkpoint of PyTorch.*dcp_to_torch_save"),
    ("model.safetensors.index.json", r"model\.safetensors\.index\.json"), ("model.safetensors", "one of them"),
    ("config.json", "no weights"),
])
def test_folders_of_models_are_named(member, match, tmp_path):
    (tmp_path / member).write_bytes(b"")
    with pytest.raises(ModelFormatError, match=f"a folder, .*{match}"):
        interop.layers(tmp_path)


def test_a_real_distributed_checkpoint(tmp_path):
    import torch.distributed.checkpoint as checkpoint
    checkpoint.save(nn.LSTM(2, 3).state_dict(), checkpoint_id=tmp_path / "folder", no_dist=True)
    with pytest.raises(ModelFormatError, match="distributed checkpoint of PyTorch"):
        interop.layers(tmp_path / "folder")
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    dcp_to_torch_save(tmp_path / "folder", tmp_path / "model.pt")
    assert repr(interop.layers(tmp_path / "model.pt")) == "{'': LSTM(2, 3)}"


def test_archives_of_other_kinds_are_named_by_what_they_hold(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("weights.txt", "1 2 3")
    with pytest.raises(ModelFormatError, match=r"no known kind.*weights\.txt"):
        interop.layers(tmp_path / "model.zip")
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        archive.add(tmp_path / "model.zip", "x")
    with pytest.raises(ModelFormatError, match="tar"):
        interop.layers(tmp_path / "model.tar")


# ---- neural-amp-modeler -------------------------------------------------------------------------------

def nam(lstm, head, state):
    """A .nam file's contents as neural-amp-modeler writes them of a torch LSTM, a linear head and a state."""
    weights = []
    for k in range(lstm.num_layers):
        matrix = torch.cat([getattr(lstm, f"weight_ih_l{k}"), getattr(lstm, f"weight_hh_l{k}")], dim=1)
        bias = getattr(lstm, f"bias_ih_l{k}") + getattr(lstm, f"bias_hh_l{k}")
        weights += [matrix.flatten(), bias, state[0][k], state[1][k]]
    weights += [head.weight.flatten(), head.bias]
    return {"version": "0.5.4", "metadata": {"name": "amplifier"}, "architecture": "LSTM", "sample_rate": 48000,
            "config": {"input_size": lstm.input_size, "hidden_size": lstm.hidden_size, "num_layers": lstm.num_layers},
            "weights": torch.cat(weights).tolist()}


@pytest.fixture(params=[1, 3])
def model(request):
    torch.manual_seed(0)
    lstm, head = nn.LSTM(1, 4, request.param), nn.Linear(4, 1)
    state = torch.randn(request.param, 4), torch.randn(request.param, 4)
    with torch.no_grad():
        return lstm, head, state, nam(lstm, head, state)


def test_a_nam_file_computes_the_amplifiers_sound(model, tmp_path):
    lstm, head, state, contents = model
    path = tmp_path / "amplifier.nam"
    path.write_text(json.dumps(contents))
    assert interop.detect(path) == "nam"
    (name, layer), = interop.layers(path, dtype=np.float64).items()
    arrays = interop.nam.load_state_dict(path, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((50, 1, 1))
    output, _ = layer(x, (arrays["h_0"], arrays["c_0"]))
    with torch.no_grad():
        expected = head(lstm(torch.from_numpy(x).float(), tuple(s[:, None] for s in state))[0])
    assert name == "lstm"
    assert_close({"sound": output @ arrays["head.weight"].T + arrays["head.bias"]}, {"sound": expected.numpy()}, 1e-5)


@pytest.mark.parametrize("change, match", [
    ({"architecture": "WaveNet"}, "architecture 'WaveNet'"), ({"architecture": None}, "architecture None"),
    ({"config": {}}, "expected input_size, hidden_size"), ({"config": None}, "expected input_size"),
    ({"config": {"input_size": 1, "hidden_size": 5, "num_layers": 1}}, "weights, expected"),
    ({"config": {"input_size": True, "hidden_size": 5, "num_layers": 1}}, "expected input_size"),
    ({"config": {"input_size": 1, "hidden_size": 1 << 30, "num_layers": 1000}}, "weights, expected"),
    ({"config": {"input_size": 1, "hidden_size": 4, "num_layers": 10**9}}, "expected input_size"),
    ({"weights": None}, "list of numbers"), ({"weights": ["a"]}, "list of numbers"), ({"weights": [1e300]}, "finite"),
])
def test_broken_nam_files_are_refused(change, match, model, tmp_path):
    path = tmp_path / "amplifier.nam"
    path.write_text(json.dumps(model[-1] | change))
    for read in (interop.layers, interop.nam.load_state_dict):
        with pytest.raises(ModelFormatError, match=rf"amplifier\.nam: .*{match}"):
            read(path)
    if "architecture" in change:
        skipped = {}
        assert interop.layers(path, skipped) == {} and "architecture" in skipped[""]


def test_mutated_nam_files(model, tmp_path):
    good, rng = json.dumps(model[-1]).encode(), mutations.generator(0)
    (tmp_path / "good.nam").write_bytes(good)
    interop.layers(tmp_path / "good.nam")
    for broken in mutations.mixed(good, rng, mutations.COUNT // 4):
        mutations.assert_refuses_or_loads(interop.nam.layers, broken, tmp_path / "broken.nam", times=40)
