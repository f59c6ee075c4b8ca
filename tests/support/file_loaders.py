"""Everything in fastrnn that reads a model file, as the fuzzer of files calls it: one ``Loader`` for each format.

    loader = LOADERS["onnx"]
    loader.good()                   # bytes of small files that it reads
    loader.read(path)               # what a user would call; ModelFormatError where the file is broken

What a loader owes a file is in ``SECURITY.md``: a result, or a ModelFormatError that names the file, in bounded memory
and time.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import cli, interop, losses, optim, scale, training
from fastrnn._base import named_arrays, reading
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.cli import quantize
from fastrnn.forecasting import RNNForecaster
from fastrnn.interop.formats import hdf5
from fastrnn.nn import files

TESTS = Path(__file__).resolve().parents[1]
CORPUS = TESTS / "interop" / "corpus"
MOST = 1 << 15                      # bytes of a file that is tried


@dataclasses.dataclass(frozen=True)
class Loader:
    """How a format is read.

    Parameters
    ----------
    name : str
        Of the folder of its corpus, too.
    file : str
        The name that files are given.
    read : function
        path -> what was read. Called for every file.
    good : function
        () -> bytes of good files, made by fastrnn, or by the packages whose files are kept in tests/interop/files.
    use : function, optional
        What was read -> None; runs and saves it. Called for some of the files that are accepted.
    times : int
        Memory that reading may take, in sizes of the file; 4 MiB come on top.
    errors : tuple of class
        Exceptions that are refusals, beside ModelFormatError.
    beside : function, optional
        folder -> None; writes files that the format refers to.
    """

    name: str
    file: str
    read: Callable
    good: Callable
    use: Callable = lambda result: None
    times: int = 16
    errors: tuple = ()
    beside: Callable = lambda folder: None

    def attempt(self, path):
        """What was read; every refusal is a ModelFormatError."""
        try:
            return self.read(path)
        except reading.ModelFormatError:
            raise
        except self.errors as error:
            raise reading.ModelFormatError(f"{path}: {error}") from error


# ---- Models that were read ---------------------------------------------------------------------------

def use_layers(result):
    """Layers by name compute something, and are the same after they were saved and loaded."""
    for layer in list(result.values())[:2]:
        use_model(layer)


def use_model(model):
    """As above, of a layer, a cell or a module."""
    run(model)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        path = os.path.join(folder, "again.npz")
        model.save(path)
        assert_same_model(model, fastrnn.load(path))


def run(model):
    """Calls a model with an input of zeros: two steps, one row."""
    first = model
    while hasattr(first, "modules"):
        first = first.modules[0]
    if isinstance(first, fastrnn.Embedding):
        model(np.zeros((2, 1), int))
        return
    size = getattr(first, "input_size", None) or getattr(first, "in_features", 1)
    dtype = getattr(first, "dtype", np.dtype(np.float32))
    one_step = type(model).__name__.endswith("Cell")
    steps = (1,) if one_step else (1, 2) if getattr(first, "batch_first", False) else (2, 1)
    model(np.zeros((*steps, size), dtype))


def assert_same_model(model, again):
    assert files.configuration(model) == files.configuration(again)
    assert list(model.parameters) == list(again.parameters)
    for name, value in model.parameters.items():
        other = again.parameters[name]
        assert value.dtype == other.dtype and value.shape == other.shape and value.tobytes() == other.tobytes(), name


def use_estimator(estimator):
    """An estimator takes what comes next if it was fitted, and is saved and loaded."""
    if not isinstance(estimator, (RNNForecaster, RNNAnomalyDetector)):
        use_model(estimator)
        return
    if not estimator.__sklearn_is_fitted__():
        pass
    elif isinstance(estimator, RNNForecaster):
        estimator.predict()
    else:
        estimator.score_one([0.0] * estimator.n_features_in_)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        path = os.path.join(folder, "again.npz")
        estimator.save(path)
        again = fastrnn.load(path)
        again.save(os.path.join(folder, "twice.npz"))
        assert named_arrays.read(path)[1] == named_arrays.read(os.path.join(folder, "twice.npz"))[1]


def memory_folder():
    """A folder in memory, where the system has one; None for that of temporary files."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# ---- How each format is read ---------------------------------------------------------------------------

def by(read):
    """A reader of layers, with what makes no layer noted (three files of four) or an error."""
    def layers(path):
        with open(path, "rb") as file:
            odd = zlib.crc32(file.read(512)) & 3
        return read(path, {} if odd else None)
    return layers


def read_pytorch(path):
    for array in interop.pytorch.load_state_dict(path).values():
        array.tobytes()
    return interop.pytorch.layers(path, {})


def read_nam(path):
    interop.nam.load_state_dict(path)
    return interop.nam.layers(path, {})


def read_hdf5(path):
    """Every attribute and every array of an HDF5 file."""
    file = hdf5.File(reading.read_bytes(path), path)
    with reading.refusing(path):
        walk(file.root, set())
    return {}


def walk(group, seen):
    """Reads what is in a group, or an array."""
    if id(group) in seen:
        return
    seen.add(id(group))
    for name in group.attributes:
        group.attributes[name]
    if isinstance(group, hdf5.Dataset):
        group.read().tobytes()
        return
    for name in group:
        walk(group[name], seen)


def read_any(path):
    interop.detect(path)
    return interop.layers(path, {})


def inspect(path):
    """``fastrnn inspect``, whose output has no control characters of the file's."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = cli.main(["inspect", os.fspath(path)])
        except SystemExit as error:
            status = error.code
    text = output.getvalue() + errors.getvalue()
    strange = re.findall(r"[\0-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert not strange, f"control characters {strange[:5]!r} in what is printed"
    assert "Traceback" not in text and "not enough memory" not in text, text[-400:]
    if status != 0:
        raise reading.ModelFormatError(text or f"exit status {status}")
    return {}


class Checkpoints:
    """A training of two updates that a checkpoint goes on with."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.x, self.y = rng.standard_normal((2, 3, 4, 1)).astype(np.float32)

    def fit(self, path, epochs=2):
        net = fastrnn.Sequential(fastrnn.LSTM(1, 2, rng=0), fastrnn.Linear(2, 1, rng=0))
        optimizer = optim.Adam(net, 0.01)
        before = list(net.parameters.values())
        try:
            training.fit(net, self.x, self.y, loss=losses.MSE(), optimizer=optimizer, epochs=epochs, batch_size=4,
                         tbptt=2, checkpoint=path, rng=0, validation=(self.x, self.y), patience=5, checkpoint_every=1,
                         progress=False)
        except reading.ModelFormatError:
            same = all(a is b for a, b in zip(net.parameters.values(), before, strict=True))
            assert same and optimizer.steps == 0, "a refused checkpoint changed the model or the optimizer"
            raise

    def read(self, path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the gradient's norm", RuntimeWarning)
            self.fit(path)
        return {}

    def good(self):
        with tempfile.TemporaryDirectory() as folder:
            for epochs in (1, 2):
                path = os.path.join(folder, f"checkpoint{epochs}")
                self.fit(path, epochs)
                yield Path(path).read_bytes()


class Snapshots:
    """Bytes that streams, detectors and pools go on from."""

    def __init__(self):
        self.layers = [fastrnn.GRU(2, 3, rng=0), fastrnn.LSTM(2, 3, 2, dtype=np.float64, rng=0)]
        season = np.sin(np.arange(40) / 2)
        self.forecaster = RNNForecaster(horizon=2, window=6, hidden_size=2, updates=2, random_state=0, blend=False)
        self.forecaster.fit(season)
        self.detector = RNNAnomalyDetector(hidden_size=2, random_state=0)
        for value in season[:20].tolist():
            self.detector.learn_one(value)

    def step(self, function):
        """What was restored computes something; numbers that a snapshot was given may be too large for it."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            function(0.5)

    def read(self, path):
        data = reading.read_bytes(path)
        if data[:8] == b"FRNNTREE":
            if b"ForecastStream" in data[:80]:
                stream = self.forecaster.stream()
                stream.restore(data)
                self.step(stream.step)
            else:
                self.detector.restore(data)
                self.step(self.detector.score_one)
        elif data[:8] == b"FRNNPOOL":
            pool = scale.StreamPool(self.layers[0], capacity=4)
            pool.restore(data)
        else:
            layer = self.layers[data[10:11] == b"\x08"]            # the bytes of a float
            layer.restore(data).step(np.zeros((1, 2), layer.dtype)[0]) if data[16:24] == b"\1" + bytes(7) else \
                layer.restore(data)
            scale.StreamPool(layer, capacity=1, store={"a": data}).step(["a"], np.zeros((1, 2), layer.dtype))
        return {}

    def good(self):
        for layer in self.layers:
            for rows in (1, 2):
                stream = layer.stream(rows)
                stream.step(np.ones((rows, 2), layer.dtype))
                yield stream.snapshot()
        pool = scale.StreamPool(self.layers[0], capacity=4)
        pool.step(["a", 7, ("b", 1.5)], np.ones((3, 2), np.float32))
        yield pool.snapshot()
        yield self.forecaster.stream().snapshot()
        yield self.detector.snapshot()


class Late:
    """One of the above, made when it is first used: that takes some tenths of a second."""

    def __init__(self, cls):
        self._cls, self._object = cls, None

    def __getattr__(self, name):
        def method(*arguments):
            self._object = self._object or self._cls()
            return getattr(self._object, name)(*arguments)
        return method


checkpoints, snapshots = Late(Checkpoints), Late(Snapshots)


# ---- Good files -------------------------------------------------------------------------------------------

def kept(*patterns, most=MOST):
    """Files of other packages, of tests/interop/files, whose names match "package:file", the shortest first."""
    for pattern in patterns:
        found = []
        for path in sorted((TESTS / "interop" / "files").rglob("*.npz")):
            if not Path(f"{path.stem}/").match(pattern.partition(":")[0]):
                continue
            with np.load(path) as contents:
                found += [contents[name].tobytes() for name in contents.files
                          if name.endswith(".file") and Path(name).match(pattern.partition(":")[2] + ".file")]
        yield from sorted({data for data in found if len(data) <= most}, key=lambda data: (len(data), data))


def models():
    """Small models of every class and option."""
    rng = np.random.default_rng(0)
    yield fastrnn.GRU(2, 3, rng=0)
    yield fastrnn.LSTM(1, 2, 2, peephole=True, clip=1.5, dropout=0.1, rng=0)
    yield fastrnn.LSTM(2, 3, proj_size=2, bidirectional=True, rng=0)
    yield fastrnn.RNN(2, 2, activations=[("affine", 0.3, 0.1)], dtype=np.float64, reverse=True, rng=0)
    yield fastrnn.GRU(2, 2, update="mirror", reset_after=False, batch_first=True, bias=False, rng=0)
    yield fastrnn.LSTMCell(2, 2, coupled_gates=True, rng=0)
    yield fastrnn.Sequential(fastrnn.Embedding(4, 2, rng=0), fastrnn.GRU(2, 2, rng=0), fastrnn.Linear(2, 1, rng=0))
    yield fastrnn.LSTM(2, 2, rng=rng).quantized("int8")
    yield fastrnn.GRU(2, 2, rng=rng).quantized("bfloat16")


def saved(ending):
    def good():
        with tempfile.TemporaryDirectory() as folder:
            for model in models():
                path = Path(folder) / f"model{ending}"
                model.save(path)
                yield path.read_bytes()
    return good


def estimators():
    for path in sorted((TESTS / "package" / "files").glob("*.npz")):
        if path.name in ("RNNForecaster-1-quantiles.npz", "RNNForecaster-2-plain.npz"):
            yield path.read_bytes()
    season = np.sin(np.arange(40) / 2)
    small = [RNNForecaster(horizon=2, window=6, hidden_size=2, updates=2, random_state=0, blend=False).fit(season),
             RNNAnomalyDetector(hidden_size=2, random_state=0)]
    for value in season[:20].tolist():
        small[1].learn_one(value)
    with tempfile.TemporaryDirectory() as folder:
        for estimator in small:
            path = Path(folder) / "model.npz"
            estimator.save(path)
            yield path.read_bytes()


def arrays_of_torch(write):
    """Files of arrays under torch's names, two of them of other options."""
    def good():
        for layer in list(models())[:4]:
            arrays = {f"encoder.{name}": value for name, value in layer.state_dict().items()}
            yield write(arrays | {"head.weight": np.ones((1, 3), np.float16)})
    return good


def as_npz(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def as_safetensors(arrays):
    from safetensors.numpy import save
    return save(arrays)


def npz_files():
    yield from saved(".npz")()
    yield from arrays_of_torch(as_npz)()


def safetensors_files():
    yield from saved(".safetensors")()
    yield from arrays_of_torch(as_safetensors)()
    yield from kept("safetensors-*:*")
    yield shard_index(fastrnn.GRU(2, 3, rng=0).parameters, "shard.safetensors")


def shard_index(names, file):
    return json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, file)}).encode()


def write_shard(folder):
    (Path(folder) / "shard.safetensors").write_bytes(as_safetensors(fastrnn.GRU(2, 3, rng=0).state_dict()))


def onnx_files():
    from fastrnn.interop.onnx import export
    with tempfile.TemporaryDirectory() as folder:
        for layer in models():
            if type(layer).__name__ in ("LSTM", "GRU", "RNN") and layer.precision != "bfloat16":
                path = Path(folder) / "model.onnx"
                with contextlib.suppress(ValueError, TypeError):        # proj_size
                    export(layer, path)
                    yield path.read_bytes()
    yield from kept("onnx-1.23*:*_14_*", "torch-*:[gr]*.traced.onnx", "tf2onnx*:gru", most=4000)
    yield from list(kept("torch-1*:rnn.onnx"))[:1]


def rtneural_files():
    dialects = [
        {"in_shape": [None, 1], "layers": [
            {"type": "gru", "activation": "tanh", "shape": [None, 1], "weights": [
                [[0.5, -1e-3, 2]], [[1, 0.25, -3.0]], [[0, 1, 2], [0.125, 2e1, -0.5]]]},
            {"type": "lstm", "activation": "tanh", "shape": [None, 1], "weights": [
                [[0.5, 1, 2, 3]], [[1, 0.25, -3.0, 0]], [0, 1, 2, 0.5]]},
            {"type": "dense", "activation": "", "shape": [None, 1], "weights": [[[1.0]], [0.5]]}]},
        {"state_dict": {"rnn.weight_ih_l0": [[0.5, 1e-3], [1, 2]], "rnn.weight_hh_l0": [[1, 2], [-3, 0]],
                        "rnn.bias_ih_l0": [1, -0.5], "rnn.bias_hh_l0": [0.25, 0]}, "model_data": {"unit_type": "RNN"}},
        {"gru.weight_ih_l0": [[1], [2], [3]], "gru.weight_hh_l0": [[1], [2], [3]]}]
    return [json.dumps(model).encode() for model in dialects]


def nam_files():
    for layers in (1, 2):
        count = 4 * 2 * 3 + 8 + 4 + (layers - 1) * (4 * 2 * 4 + 8 + 4) + 3
        yield json.dumps({"version": "0.5.4", "metadata": {"name": "amplifier"}, "architecture": "LSTM",
                          "config": {"input_size": 1, "hidden_size": 2, "num_layers": layers},
                          "weights": [round(0.01 * n, 2) for n in range(count)], "sample_rate": 48000}).encode()


def torch_files():
    """State_dicts in both formats, checkpoints, whole modules, TorchScript, one exported program."""
    yield from kept("torch-*:gru*.pt", "torch-*:rnn*.pt", "torch-*:lstm_proj*.pt", "torch-*:lstm.legacy.pt", most=4500)
    yield from list(kept("torch-*:rnn.ckpt"))[:2]
    yield from list(kept("torch-*:rnn.pt2"))[:1]


def hdf5_data(fill, **options):
    """The bytes of an HDF5 file that `fill` fills."""
    import h5py
    file = io.BytesIO()
    with h5py.File(file, "w", **options) as h5:
        fill(h5)
    return file.getvalue()


CONFIGURATIONS = [
    ("LSTM", {"name": "a", "units": 1, "activation": "tanh", "recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"name": "a", "units": 1, "reset_after": True, "go_backwards": True}),
    ("Bidirectional", {"name": "a", "merge_mode": "concat", "layer": {"class_name": "SimpleRNN", "config": {
        "name": "b", "units": 1}}}),
    ("RNN", {"name": "a", "cell": {"class_name": "StackedRNNCells", "config": {"cells": [
        {"class_name": "GRUCell", "config": {"name": "c", "units": 1}}]}}})]
SHAPES = {"LSTM": ((1, 4), (1, 4), (4,)), "GRU": ((1, 3), (1, 3), (2, 3)), "RNN": ((1, 3), (1, 3), (2, 3)),
          "Bidirectional": ((1, 1), (1, 1), (1,), (1, 1), (1, 1), (1,))}


def keras_named(cls, config, version=b"2.2.4"):
    """A .h5 file of one layer, as Keras 1 and 2 lay it out."""
    def fill(h5):
        h5.attrs["keras_version"] = version
        h5.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [
            {"class_name": cls, "config": config}]}).encode()
        top = h5.create_group("model_weights")
        top.attrs["layer_names"] = [b"a"]
        group = top.create_group("a")
        places = ("forward_b/", "backward_b/") if cls == "Bidirectional" else ("",)
        names = [f"{place}{part}:0" for place in places for part in ("kernel", "recurrent_kernel", "bias")]
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name, shape in zip(names, SHAPES[cls]):
            group[name] = np.ones(shape, "f4")
    return fill


def keras_tree(h5, cls="LSTM"):
    """The weights of a .keras file."""
    for number, shape in enumerate(SHAPES[cls]):
        h5[f"layers/{cls.lower()}/cell/vars/{number}"] = np.ones(shape, "f4")


def keras_archive(cls, config, weights):
    """A .keras file of one layer."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {
            "name": "s", "layers": [{"class_name": cls, "config": config}]}}))
        archive.writestr("model.weights.h5", weights)
    return file.getvalue()


def hdf5_files():
    def others(h5):
        h5.create_dataset("packed", data=np.zeros((6, 4), "f4"), chunks=(2, 4), compression="gzip", shuffle=True,
                          fletcher32=True)
        h5["words"] = np.array([b"ab", b"c"])
        h5.attrs["text"], h5.attrs["numbers"] = "text", np.arange(3)
        h5.create_dataset("whole", data=np.arange(4, dtype=">i2"))

    for options in ({}, {"libver": "latest"}):
        yield hdf5_data(others, **options)
        yield hdf5_data(keras_tree, **options)
        yield hdf5_data(keras_named(*CONFIGURATIONS[0]), **options)
    yield from list(kept("keras-1.2*:rnn*.h5"))[:1]


def keras_files():
    for cls, config in CONFIGURATIONS:
        yield hdf5_data(keras_named(cls, config), libver="latest")
        if cls in ("LSTM", "GRU"):
            weights = hdf5_data(lambda h5, cls=cls: keras_tree(h5, cls), libver="latest")
            yield keras_archive(cls, config, weights)
    yield hdf5_data(keras_tree, libver="latest")
    yield hdf5_data(keras_named(*CONFIGURATIONS[0], b"1.2.2"))
    yield json.dumps({"metadata": {}, "weight_map": {"/layers/lstm": ["shard.h5"]}}).encode()
    yield from list(kept("keras-1.2*:rnn*.h5"))[:1]
    yield from list(kept("keras-3.0*:rnn.keras"))[:1]


def write_keras_shard(folder):
    (Path(folder) / "shard.h5").write_bytes(hdf5_data(keras_tree, libver="latest"))


def write_shards(folder):
    write_shard(folder)
    write_keras_shard(folder)


def tflite_files():
    yield from kept("tflite*:lstm_float", "tflite*:lstm", "tflite*:lstm_int8", "tflite*:lstm_float16",
                    "tflite*:lstm_time_major_float", most=4500)
    yield from list(kept("tflite*:rnn"))[:1]


def npy_files():
    for a in (np.arange(6.0).reshape(2, 3), np.ones((2, 1, 3), np.float32, order="F"), np.array([True, False])):
        file = io.BytesIO()
        np.lib.format.write_array(file, a)
        yield file.getvalue()


def every_file():
    """Some of each format."""
    for name in ("npz", "safetensors", "pytorch", "keras", "onnx", "tflite", "rtneural", "nam"):
        yield from list(LOADERS[name].good())[::4][:4]


def read_npy(path):
    return {"": quantize._array(path)}


EXPANDED = 3 * reading.EXPANSION
LOADERS = {loader.name: loader for loader in (
    Loader("load-npz", "model.npz", fastrnn.load, saved(".npz"), use_estimator, EXPANDED),
    Loader("load-safetensors", "model.safetensors", fastrnn.load, saved(".safetensors"), use_estimator),
    Loader("estimators", "model.npz", fastrnn.load, estimators, use_estimator, EXPANDED),
    Loader("checkpoints", "model.ckpt", checkpoints.read, checkpoints.good, times=EXPANDED, errors=(ValueError,)),
    Loader("snapshots", "snapshot", snapshots.read, snapshots.good, times=64, errors=(ValueError,)),
    Loader("npz", "model.npz", by(interop.npz.layers), npz_files, use_layers, EXPANDED),
    Loader("safetensors", "model.safetensors", by(interop.safetensors.layers), safetensors_files, use_layers, 40,
           beside=write_shard),
    Loader("pytorch", "model.pt", read_pytorch, torch_files, use_layers, EXPANDED),
    Loader("keras", "model.keras", by(interop.keras.layers), keras_files, use_layers, EXPANDED,
           beside=write_keras_shard),
    Loader("hdf5", "model.h5", read_hdf5, hdf5_files, times=reading.EXPANSION + 2 * hdf5.STRUCTURE),
    Loader("onnx", "model.onnx", by(interop.onnx.layers), onnx_files, use_layers, errors=(OSError,)),
    Loader("tflite", "model.tflite", by(interop.tflite.layers), tflite_files, use_layers),
    Loader("rtneural", "model.json", by(interop.rtneural.layers), rtneural_files, use_layers, 40),
    Loader("nam", "model.nam", read_nam, nam_files, use_layers, 40),
    Loader("npy", "array.npy", read_npy, npy_files),
    Loader("any", "model", read_any, every_file, use_layers, EXPANDED, errors=(OSError,), beside=write_shards),
    Loader("inspect", "model", inspect, every_file, times=EXPANDED, beside=write_shards),
)}
