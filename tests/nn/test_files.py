"""fastrnn's own files, .npz and .safetensors: what is saved is loaded, to the bit; writing is atomic."""

import inspect
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import assert_same_bits

import fastrnn
from fastrnn import interop
from fastrnn.nn import files

ENDINGS = (".npz", ".safetensors")
ALL = ("sigmoid", "tanh", "relu", ("affine", 0.3, -0.1), ("leaky_relu", 0.02), ("thresholded_relu", 0.7),
       ("scaled_tanh", 1.7, 0.6), ("hard_sigmoid", 0.25, 0.45), ("elu", 1.3), "softsign", "softplus")
MODELS = {
    "RNN": [{}, {"nonlinearity": "relu", "bias": False}, {"activations": [ALL[9]], "clip": 0.1, "batch_first": True},
            {"num_layers": 3, "bidirectional": True, "dropout": 1 / 3, "activations": [ALL[3], ALL[4]]},
            {"activations": ["relu"], "reverse": True}, {"nonlinearity": "relu", "activations": ["tanh"]}],
    "GRU": [{}, {"reset_after": False, "reverse": True}, {"update": "mirror", "batch_first": True, "bias": False},
            {"activations": ALL[5:7], "clip": 1e-300, "num_layers": 2, "bidirectional": True, "dropout": 1}],
    "LSTM": [{}, {"proj_size": 2, "bidirectional": True, "num_layers": 2, "dropout": 0.5},
             {"peephole": True, "clip": 3, "batch_first": True}, {"coupled_gates": True, "bias": False},
             {"activations": (ALL[7], ALL[8], ALL[10]), "reverse": True},
             {"peephole": True, "bidirectional": True, "activations": (*ALL[:3], *ALL[3:6])}],
    "RNNCell": [{}, {"nonlinearity": "relu", "bias": False}, {"activations": [("affine", 2.0)], "clip": 0.5}],
    "GRUCell": [{}, {"reset_after": False, "update": "mirror"}, {"activations": ALL[9:11], "clip": 7, "bias": False}],
    "LSTMCell": [{}, {"peephole": True, "coupled_gates": True}, {"activations": ALL[:3], "clip": 2, "bias": False}],
}
CASES = [pytest.param(name, options, id=f"{name}-{'-'.join(options) or 'plain'}")
         for name, several in MODELS.items() for options in several]
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0]


def make(name, options, dtype=np.float32, rng=0):
    return getattr(fastrnn, name)(3, 5, dtype=dtype, rng=rng, **options)


def bits(model):
    """Its parameters as integers: NaNs by their bits, too."""
    return {name: a.view(f"u{a.itemsize}") for name, a in model.parameters.items()}


def assert_same_model(found, expected):
    assert type(found) is type(expected)
    assert repr(found) == repr(expected)
    assert files.configuration(found) == files.configuration(expected)
    assert list(found.parameters) == list(expected.parameters)
    assert_same_bits(bits(found), bits(expected))


# ---- Round trips --------------------------------------------------------------------------------

@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, options", CASES)
def test_what_is_saved_is_loaded(name, options, dtype, ending, tmp_path):
    model = make(name, options, dtype)
    path = tmp_path / ("model" + ending)
    model.save(path)
    loaded = fastrnn.load(path)
    assert_same_model(loaded, model)
    x = np.random.default_rng(1).standard_normal((4, 2, 3) if not name.endswith("Cell") else (2, 3)).astype(dtype)
    parts = [result if isinstance(result, tuple) else (result,) for result in (model(x), loaded(x))]
    flat = [[a for part in result for a in (part if isinstance(part, tuple) else (part,))] for result in parts]
    for found, expected in zip(flat[1], flat[0], strict=True):
        assert_same_bits(found, expected)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", MODELS)
def test_every_argument_is_in_a_file_and_above(name):
    """Whatever option a constructor gains, it must be saved, and be among the cases here with a value of its own."""
    cls = getattr(fastrnn, name)
    arguments = {argument.name: argument.default for base in cls.__mro__ if "__init__" in vars(base)
                 for argument in inspect.signature(base.__init__).parameters.values()
                 if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)}
    del arguments["self"], arguments["rng"]
    written = files.configuration(cls(3, 5))
    assert set(written) == {"version", "class", *arguments}
    tried = [files.configuration(make(name, options)) for options in MODELS[name]]
    constant = {key for key in arguments if all(one[key] == written[key] for one in tried)}
    assert constant - {"proj_size"} == {"input_size", "hidden_size", "dtype"}       # proj_size is an LSTM's alone


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_kind_of_number_survives(dtype, ending, tmp_path):
    layer = fastrnn.GRU(40, 7, dtype=dtype, rng=0)
    with layer.updating() as parameters:
        for seed, a in enumerate(parameters.values()):
            # all bits at random: subnormals, NaNs quiet and signalling with any payload, infinities
            words = np.frombuffer(np.random.default_rng(seed).bytes(a.nbytes), f"u{a.itemsize}")
            a[...] = words.view(dtype).reshape(a.shape)
            a.flat[:6] = SPECIAL
            a.flat[6:8] = np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).max
    layer.save(tmp_path / f"layer{ending}")
    assert_same_bits(bits(fastrnn.load(tmp_path / f"layer{ending}")), bits(layer))


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_model_gives_the_same_file(ending, tmp_path):
    for name in "ab":
        make("LSTM", {"num_layers": 2}).save(tmp_path / (name + ending))
    assert (tmp_path / ("a" + ending)).read_bytes() == (tmp_path / ("b" + ending)).read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_loaded_layer_streams_trains_and_is_saved_again(ending, tmp_path):
    layer = make("GRU", {"num_layers": 2})
    layer.save(tmp_path / f"a{ending}")
    loaded = fastrnn.load(tmp_path / f"a{ending}")
    assert loaded.restore(layer.stream().snapshot()).step(np.ones(3, np.float32)).shape == (5,)
    output, _, cache = loaded.forward(np.ones((4, 3), np.float32))
    gradients = loaded.backward(cache, np.ones_like(output)).parameters
    with loaded.updating() as parameters:
        for name, a in parameters.items():
            a -= gradients[name]
    loaded.save(tmp_path / f"a{ending}")
    assert_same_model(fastrnn.load(tmp_path / f"a{ending}"), loaded)


def test_others_read_our_files(tmp_path):
    """By NumPy and safetensors alone: torch's names, and the configuration as JSON."""
    import json

    from safetensors import safe_open
    layer = make("LSTM", {"bidirectional": True})
    layer.save(tmp_path / "layer.npz")
    layer.save(tmp_path / "layer.safetensors")
    with np.load(tmp_path / "layer.npz", allow_pickle=False) as archive:
        configuration = json.loads(archive["fastrnn"].tobytes())
        assert_same_bits({name: archive[name] for name in archive.files if name != "fastrnn"}, layer.state_dict())
    with safe_open(tmp_path / "layer.safetensors", "np") as file:
        assert json.loads(file.metadata()["fastrnn"]) == configuration
        assert_same_bits({name: file.get_tensor(name) for name in file.keys()}, layer.state_dict())
    assert configuration["class"] == "LSTM" and configuration["bidirectional"] is True


# ---- Paths and endings --------------------------------------------------------------------------

def test_paths_of_any_kind(tmp_path, monkeypatch):
    layer = make("RNN", {})
    monkeypatch.chdir(tmp_path)
    for path in ("plain.npz", tmp_path / "object.npz", str(tmp_path / "UPPER.NPZ"), "ünïcödé 层.npz", b"bytes.npz"):
        layer.save(path)
        assert_same_model(fastrnn.load(path), layer)
        (loaded,) = interop.layers(path).values()
        assert_same_model(loaded, layer)
    assert len(list(tmp_path.iterdir())) == 5
    for path in ("broken.npz", tmp_path / "broken.npz", b"broken.npz"):
        (tmp_path / "broken.npz").write_bytes(b"PK")
        for load in (fastrnn.load, interop.layers):
            with pytest.raises(fastrnn.ModelFormatError, match=r"broken\.npz: "):
                load(path)


@pytest.mark.parametrize("path", ["model.pt", "model", "npz", "model.npz.bak", ".npz"])
def test_an_unknown_ending_names_those_that_are(path, tmp_path):
    for call in (make("RNN", {}).save, fastrnn.load):
        with pytest.raises(ValueError, match=r"^path: .*\.npz.*\.safetensors.*" + path):
            call(tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_only_layers_and_cells_are_saved(tmp_path):
    class Mine(fastrnn.GRU):
        pass

    class GRU(fastrnn.GRU):
        pass

    for model in (None, 3, {}, fastrnn.GRU, Mine(2, 3), GRU(2, 3)):
        with pytest.raises(TypeError, match=r"^model\b"):
            files.save(model, tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_missing_files_and_folders_are_oserrors(ending, tmp_path):
    layer = make("RNN", {})
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(FileNotFoundError):
        fastrnn.load(tmp_path / f"missing{ending}")
    with pytest.raises(FileNotFoundError):
        layer.save(tmp_path / "missing" / f"layer{ending}")
    with pytest.raises(IsADirectoryError):
        fastrnn.load(tmp_path / f"folder{ending}")
    with pytest.raises(IsADirectoryError):
        layer.save(tmp_path / f"folder{ending}")
    assert [p.name for p in tmp_path.iterdir()] == [f"folder{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_package_safetensors_is_not_needed(ending, tmp_path, monkeypatch):
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    layer = make("GRU", {})
    layer.save(tmp_path / f"a{ending}")
    assert_same_model(fastrnn.load(tmp_path / f"a{ending}"), layer)


# ---- Atomic writing -----------------------------------------------------------------------------

@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [OSError(28, "no space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(ending, error, tmp_path, monkeypatch):
    path = tmp_path / f"model{ending}"
    old, new = make("GRU", {}, rng=0), make("LSTM", {}, rng=1)
    old.save(path)

    def fail(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        new.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert_same_model(fastrnn.load(path), old)
    with pytest.raises(type(error)):
        new.save(tmp_path / f"other{ending}")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_reader_never_sees_a_half(ending, tmp_path):
    path = tmp_path / f"model{ending}"
    models = [make("GRU", {"num_layers": 3}, rng=seed) for seed in range(2)]
    models[0].save(path)
    done = threading.Event()

    def write():
        for step in range(100):
            models[step % 2].save(path)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not done.is_set() or seen < 10:
        found = bits(fastrnn.load(path))
        assert any(all(np.array_equal(found[name], a) for name, a in bits(model).items()) for model in models)
        seen += 1
    writer.join()


@pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")
def test_a_new_file_has_the_mode_of_any_other_and_links_stay(tmp_path):
    code = ("import os, fastrnn; os.umask(0o027); fastrnn.GRU(2, 3, rng=0).save('a.npz'); open('b', 'w').close()")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")
    layer = make("LSTM", {})
    layer.save(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    (tmp_path / "a.npz").chmod(0o600)
    layer.save(tmp_path / "a.npz")
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == 0o600        # as the file it replaces
    assert_same_model(fastrnn.load(tmp_path / "a.npz"), layer)
