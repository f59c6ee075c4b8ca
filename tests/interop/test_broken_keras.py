"""Keras files that are broken or hostile: each is refused, or what is whole in it is read."""

import io
import json
import zipfile

import h5py
import mutations
import numpy as np
import pytest
from keras_files import H
from keras_layouts import drawn, named, sequential, write_named, write_zip

from fastrnn import ModelFormatError
from fastrnn._base import reading
from fastrnn.interop import keras
from fastrnn.interop.formats import hdf5

LIMITS = {"times": reading.EXPANSION + 2 * hdf5.STRUCTURE}


@pytest.fixture(scope="module", params=["tiny.keras", "tiny.h5", "tiny.weights.h5", "keras 1"])
def good(request, keras_folder, tmp_path_factory):
    """The bytes of a small file."""
    if request.param != "keras 1":
        return (keras_folder / request.param).read_bytes()
    path = tmp_path_factory.mktemp("good") / "model.h5"
    arrays = dict(zip("WUb", drawn("gru", np.random.default_rng(0)), strict=True))
    write_named(path, {"gru_1": {f"gru_1_{letter}": a for letter, a in arrays.items()}}, version=None,
                config=sequential(("gru_1", "GRU", {"output_dim": H, "inner_activation": "hard_sigmoid"})))
    return path.read_bytes()


def both(path):
    """Both ways to read: with an error for a layer that makes none, and without."""
    keras.layers(path, {})
    return keras.layers(path)


@pytest.mark.slow
def test_truncated_anywhere(good, tmp_path):
    path = tmp_path / "broken.keras"
    for broken in mutations.truncations(good, 1100):
        mutations.assert_refuses(keras.layers, broken, path, **LIMITS)
    for broken in mutations.truncations(good, step=101):
        mutations.assert_refuses_or_loads(keras.layers, broken, path, **LIMITS)


@pytest.mark.slow
def test_mutations(good, tmp_path):
    for broken in mutations.mixed(good, mutations.generator(13), mutations.COUNT // 5):
        mutations.assert_refuses_or_loads(both, broken, tmp_path / "broken.keras", **LIMITS)


def changed(path, **entries):
    """The bytes of a .keras file with other entries; None leaves one out."""
    file = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            data = entries.get(name.replace(".", "_"), old.read(name))
            if data is not None:
                new.writestr(name, data)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("entry, data, match", [
    ("config_json", None, "no 'config.json'"), ("metadata_json", None, "no 'metadata.json'"),
    ("model_weights_h5", None, "no 'model.weights.h5'"), ("metadata_json", b"[]", "keras_version"),
    ("metadata_json", b'{"keras_version": 3}', "keras_version"), ("config_json", b"", "JSON"),
    ("config_json", b"[" * 10 ** 5, "Recursion"), ("config_json", b'{"a":' * 10 ** 5, "Recursion"),
    ("model_weights_h5", b"", "HDF5"), ("model_weights_h5", bytes(1000), "HDF5")])
def test_broken_archives(keras_folder, tmp_path, entry, data, match):
    mutations.assert_refuses(keras.layers, changed(keras_folder / "tiny.keras", **{entry: data}),
                             tmp_path / "broken.keras", match, **LIMITS)


@pytest.mark.parametrize("old, new, match", [
    ('"units": 2', '"units": 3', "3 units, but weights of 2"),
    ('"LSTM"', '"GRU"', "layer 'a': not all of its weights"), ('"name": "b"', '"name": "a"', "another layer is named"),
    ('"LSTM"', '"RNN"', "class 'RNN' is none"), ('"activation": "tanh"', '"activation": []', "activation"),
    ('"activation": "tanh"', '"activation": {"class_name": "ELU", "config": {"alpha": "a"}}', "activation 'ELU'"),
    ('"activation": "tanh"', '"activation": {"class_name": ["ELU"], "config": 3}', "activation"),
    ('"activation": "tanh"', '"activation": {"class_name": null}', "activation None"),
    ('"merge_mode": "concat", "layer"', '"merge_mode": "concat", "no"', "layer")])
def test_configurations_that_do_not_fit_the_weights(keras_folder, tmp_path, old, new, match):
    with zipfile.ZipFile(keras_folder / "tiny.keras") as archive:
        config = archive.read("config.json").decode()
    assert old in config
    mutations.assert_refuses(keras.layers, changed(keras_folder / "tiny.keras", config_json=config.replace(old, new)),
                             tmp_path / "broken.keras", match, **LIMITS)


@pytest.mark.parametrize("cls", ["GRU", "SimpleRNN", "CuDNNGRU"])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_weights_of_other_shapes(tmp_path, cls, part):
    arrays = drawn("lstm", np.random.default_rng(16))
    for wrong in (arrays, [*arrays[:part], arrays[part][..., :-1], *arrays[part + 1:]],
                  [*arrays[:part], arrays[part][None], *arrays[part + 1:]]):
        write_named(tmp_path / "model.h5", {"a": named("a", wrong)}, config=sequential(
            ("a", cls if wrong is arrays else "LSTM", {"units": H})))
        with pytest.raises(ModelFormatError, match=r"layer 'a': .* of shapes"):
            keras.layers(tmp_path / "model.h5")


def test_a_layer_whose_weights_are_not_there(keras_folder, tmp_path):
    config = sequential(("a", "LSTM", {"units": 2}), ("z", "LSTM", {"units": 2}), as_list=False)
    path = tmp_path / "model.keras"
    write_zip(path, config, {"layers/lstm/cell": [np.ones((3, 8)), np.ones((2, 8))]})
    skipped = {}
    assert list(keras.layers(path, skipped)) == ["a"]
    assert "not all of its weights" in skipped["z"]


def test_zip_bombs(tmp_path):
    """Zeros that were packed: in the archive, in the HDF5 file, and in both."""
    def weights(**options):
        file = io.BytesIO()
        with h5py.File(file, "w") as h5:
            h5.create_dataset("layers/lstm/cell/vars/0", data=np.zeros((1, 4 * 1000), "f4"), **options)
            h5.create_dataset("layers/lstm/cell/vars/1", data=np.zeros((1000, 4 * 1000), "f4"), **options)
        return file.getvalue()
    config, path = sequential(("lstm", "LSTM", {"units": 1000}), as_list=False), tmp_path / "model.keras"
    for compression, options in ((zipfile.ZIP_DEFLATED, {}), (zipfile.ZIP_STORED, {"compression": "gzip"}),
                                 (zipfile.ZIP_DEFLATED, {"compression": "gzip", "shuffle": True})):
        write_zip(path, config, weights(**options), compression=compression)
        assert path.stat().st_size < 200_000
        mutations.assert_refuses(keras.layers, path.read_bytes(), path, "far larger|claims to hold", **LIMITS)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_many_layers_of_the_same_weights(tmp_path, ending):
    """A small file whose layers would fill the memory."""
    count, path = 1000, tmp_path / f"model{ending}"
    file = io.BytesIO() if ending == ".keras" else path
    names = [f"lstm_{i}" if i else "lstm" for i in range(count)]
    config = sequential(*((name, "LSTM", {"units": 100}) for name in names), as_list=False)
    with h5py.File(file, "w") as h5:
        h5["kernel"] = np.ones((100, 400), "f4")
        if ending == ".h5":
            h5.attrs["model_config"], h5.create_group("model_weights").attrs["layer_names"] = json.dumps(config), names
        for name in names:
            for i, part in enumerate(("kernel:0", "recurrent_kernel:0")):
                place = f"layers/{name}/cell/vars/{i}" if ending == ".keras" else f"model_weights/{name}/{part}"
                h5[place] = h5["kernel"]
            if ending == ".h5":
                h5[f"model_weights/{name}"].attrs["weight_names"] = ["kernel:0", "recurrent_kernel:0"]
    if ending == ".keras":
        write_zip(path, config, file.getvalue())
    mutations.assert_refuses(keras.layers, path.read_bytes(), path, "far larger than the file", capped=False,
                             **LIMITS)


def test_groups_deep_in_one_another(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as h5:
        h5["/".join(["layers"] * 300) + "/vars/0"] = 1.0
    mutations.assert_refuses(keras.layers, path.read_bytes(), path, "deep", **LIMITS)


def test_nothing_of_the_file_is_run(tmp_path):
    """A Lambda's code, a class's module, a function to import: passed over."""
    path = tmp_path / "model.keras"
    trap = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None, "closure": None}}
    config = {"module": "os", "class_name": "system", "registered_name": "os>system", "config": {"layers": [
        {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "lambda", "function": trap}},
        {"module": "builtins", "class_name": "exec", "config": {"name": "touch", "layer": {
            "module": "builtins", "class_name": "LSTM", "config": {"name": "a", "units": H, "activation": trap}}}},
        {"module": "keras.layers", "class_name": "LSTM", "config": {"name": "b", "units": H}}]}}
    rng = np.random.default_rng(14)
    write_zip(path, config, {"layers/exec/layer/cell": drawn("lstm", rng), "layers/lstm/cell": drawn("lstm", rng)})
    skipped = {}
    assert list(keras.layers(path, skipped)) == ["b"]
    assert "activation '__lambda__'" in skipped["touch/a"]
