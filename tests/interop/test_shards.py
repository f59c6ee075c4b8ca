"""Models in several files, with the index that Hugging Face's tools write."""

import json
import os

import h5py
import mutations
import numpy as np
import pytest
import torch
from helpers import assert_same_bits
from safetensors.numpy import save_file

import fastrnn
from fastrnn import ModelFormatError, interop

KINDS = {"safetensors": "model.safetensors.index.json", "bin": "pytorch_model.bin.index.json"}


def write_shard(path, arrays):
    if path.suffix == ".safetensors":
        save_file({name: np.array(a) for name, a in arrays.items()}, path)
    else:
        torch.save({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}, path)


@pytest.fixture(params=KINDS)
def sharded(request, tmp_path):
    """A model whose layer is spread over three files; gives its layer and the path of the index."""
    folder = tmp_path / "model"
    folder.mkdir()
    layer = fastrnn.LSTM(3, 4, 2, rng=0)
    arrays = {f"encoder.lstm.{name}": a for name, a in layer.state_dict().items()}
    arrays["head.weight"] = np.ones((1, 4), "f4")
    names, weight_map = list(arrays), {}
    for part in range(3):
        shard = f"model-{part + 1:05}-of-00003.{request.param}"
        write_shard(folder / shard, {name: arrays[name] for name in names[part::3]})
        weight_map |= dict.fromkeys(names[part::3], shard)
    index = folder / KINDS[request.param]
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return layer, index


def edit(index, change):
    model = json.loads(index.read_text())
    change(model["weight_map"])
    index.write_text(json.dumps(model))


def test_a_layer_over_several_files(sharded):
    layer, index = sharded
    assert interop.detect(index) == ("safetensors" if "safetensors" in index.name else "pytorch")
    found = interop.layers(index, batch_first=True)
    assert repr(found) == "{'encoder.lstm': LSTM(3, 4, num_layers=2, batch_first=True)}"
    assert_same_bits(dict(found["encoder.lstm"].parameters), layer.state_dict())


def test_one_shard_alone_has_parts_of_a_layer(sharded):
    _, index = sharded
    shard, skipped = next(path for path in index.parent.iterdir() if "00002" in path.name), {}
    assert interop.layers(shard, skipped) == {} and list(skipped) == ["encoder.lstm"]


def test_a_folder_says_which_file_to_read(sharded):
    _, index = sharded
    with pytest.raises(ModelFormatError, match=f"a folder, with shards .*{index.name}"):
        interop.layers(index.parent)


def test_what_is_not_there_is_named(sharded):
    _, index = sharded
    edit(index, lambda names: names.update({"encoder.lstm.weight_ih_l7": names["head.weight"]}))
    with pytest.raises(ModelFormatError, match=rf"{index.name}: model-0000.-of.* has no 'encoder\.lstm\.weight_ih_l7'"):
        interop.layers(index)
    edit(index, lambda names: names.pop("encoder.lstm.weight_ih_l7"))
    os.unlink(next(path for path in index.parent.iterdir() if "00002" in path.name))
    with pytest.raises(ModelFormatError, match=rf"{index.name}: the file 'model-00002-of-00003.* is not there"):
        interop.layers(index)


@pytest.mark.parametrize("place", ["../secret", "/etc/hostname", "a/../../secret", "", "C:\\secret", "\\\\host\\share",
                                   "link", "a\0b", "."])
def test_nothing_outside_the_folder_is_read(place, sharded):
    """Not even where a file of weights is there."""
    _, index = sharded
    suffix = ".safetensors" if "safetensors" in index.name else ".bin"
    write_shard(index.parent.parent / f"secret{suffix}", {"weight_ih_l0": np.ones((4, 1), "f4")})
    os.rename(index.parent.parent / f"secret{suffix}", index.parent.parent / "secret")
    os.symlink(index.parent.parent / "secret", index.parent / "link")
    index.write_text(json.dumps({"weight_map": {"weight_ih_l0": place}}))
    read = interop.safetensors.layers if suffix == ".safetensors" else interop.pytorch.layers
    with pytest.raises(ModelFormatError, match=rf"{index.name}: .*(model's folder|is not there)"):
        read(index)


@pytest.mark.parametrize("index", [{}, [], {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": None},
                                   {"weight_map": {str(i): f"{i}.safetensors" for i in range(5000)}}])
def test_indices_that_are_none(index, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for read in (interop.safetensors.layers, interop.pytorch.layers):
        with pytest.raises(ModelFormatError, match=r"index\.json: "):
            read(tmp_path / "model.safetensors.index.json")


def shards_of(index):
    return sorted(path for path in index.parent.iterdir() if path != index)


@pytest.mark.slow
def test_mutations_of_indices_and_shards(sharded):
    """One of the files of a model is broken: the index, or a shard of it."""
    _, index = sharded
    for number, path in enumerate([index, shards_of(index)[0]]):
        good = path.read_bytes()
        for broken in mutations.mixed(good, mutations.generator(number), mutations.COUNT // 8):
            mutations.assert_refuses_or_loads(lambda _: interop.layers(index, {}), broken, path, times=200,
                                              named=str(index.parent))
        path.write_bytes(good)


# ---- Keras ------------------------------------------------------------------------------------------------

@pytest.fixture
def keras_model(tmp_path):
    """The index of a model of two files as Keras 3.15 lays them out: a layer's arrays may be in more than one file."""
    rng = np.random.default_rng(0)
    arrays = {f"layers/{place}/cell/vars/{i}": rng.standard_normal(shape).astype("f4")
              for place in ("lstm", "bidirectional/forward_layer", "bidirectional/backward_layer")
              for i, shape in enumerate([(3 if place == "lstm" else 4, 16), (4, 16), (16,)])}
    weight_map = {}
    (tmp_path / "model").mkdir()
    for part in range(2):
        shard = f"model_{part:05}.weights.h5"
        with h5py.File(tmp_path / "model" / shard, "w") as file:
            for name in list(arrays)[part::2]:
                file[name] = arrays[name]
                weight_map.setdefault("/" + name.rpartition("/")[0], []).append(shard)
    index = tmp_path / "model" / "model.weights.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1.0}, "weight_map": weight_map}))
    with h5py.File(tmp_path / "whole.weights.h5", "w") as file:
        for name, a in arrays.items():
            file[name] = a
    return index


def test_keras_weights_in_several_files(keras_model):
    index, whole = keras_model, keras_model.parent.parent / "whole.weights.h5"
    assert interop.detect(index) == "keras"
    found, expected = interop.layers(index), interop.layers(whole)
    assert repr(found) == repr(expected) and sorted(found) == ["bidirectional", "lstm"]
    for name, layer in found.items():
        assert_same_bits(dict(layer.parameters), dict(expected[name].parameters))
    with pytest.raises(ModelFormatError, match=r"lstm.*(weights|recurrent)|no recurrent layer"):
        interop.layers(index.parent / "model_00001.weights.h5")
    edit(index, lambda names: names.update({"/layers/lstm/cell/vars": ["../secret.h5"]}))
    with pytest.raises(ModelFormatError, match=r"model\.weights\.json: .*model's folder"):
        interop.layers(index)


@pytest.mark.parametrize("change, match", [
    (lambda file: file.__setitem__("layers/lstm/cell/vars/1", np.ones((4, 16), "f4")), "'1' is an array in one file"),
    (lambda file: file.__setitem__("layers/lstm/cell/vars/1/0", np.ones((4, 16), "f4")), "'1' is an array in one file"),
    (lambda file: file.__setitem__("layers/lstm/cell/vars", np.ones(3, "f4")), "'vars' is an array in one file"),
])
def test_files_that_contradict_each_other(change, match, keras_model):
    with h5py.File(keras_model.parent / "model_00000.weights.h5", "r+") as file:
        assert "layers/lstm/cell/vars/1" not in file
        if "vars" in match:
            del file["layers/lstm/cell/vars"]
        change(file)
    with pytest.raises(ModelFormatError, match=rf"model\.weights\.json: {match}"):
        interop.layers(keras_model)


def test_groups_under_two_names_in_two_files(keras_model):
    """Each of sixty groups has the next one twice: there are 2**60 paths to the last."""
    for shard in shards_of(keras_model):
        with h5py.File(shard, "r+") as file:
            group = file["layers"]
            for _ in range(60):
                inner = group.create_group("a")
                group["b"] = inner
                group = inner
    path = keras_model.parent / "model_00001.weights.h5"
    mutations.assert_refuses_or_loads(lambda _: interop.layers(keras_model, {}), path.read_bytes(), path, times=200,
                                      named=str(keras_model.parent))


@pytest.mark.slow
def test_mutations_of_keras_indices_and_shards(keras_model):
    for number, path in enumerate([keras_model, shards_of(keras_model)[0]]):
        good = path.read_bytes()
        for broken in mutations.mixed(good, mutations.generator(number), mutations.COUNT // 8):
            mutations.assert_refuses_or_loads(lambda _: interop.layers(keras_model, {}), broken, path, times=200,
                                              named=str(keras_model.parent))
        path.write_bytes(good)
