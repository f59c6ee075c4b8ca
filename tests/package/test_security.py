"""SECURITY.md: each promise is held by tests that exist, and no reader runs or opens anything beside its model."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from child import python
from safetensors.numpy import save_file

import fastrnn
from fastrnn import interop

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests/interop/files"
PAGE = (ROOT / "SECURITY.md").read_text()
ITEM = re.compile(r"^- \*\*.*?(?=^- \*\*|^$)", re.M | re.S)
PROMISES = {re.match(r"- \*\*(.*?)\*\*", item)[1]: item
            for heading in ("## What is promised about files", "## What is promised about archives")
            for item in ITEM.findall(PAGE.partition(heading)[2].partition("\n## ")[0])}


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_names_the_tests_that_hold_it(promise):
    names = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PROMISES[promise].partition("Held by")[2])
    assert names
    for path, test in names:
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.M), f"{path}::{test} is not there"


def test_all_promises_are_seen():
    assert len(PROMISES) == PAGE.count("Held by") >= 8


def write_keras_weights(path):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for index, shape in enumerate([(2, 12), (3, 12), (12,)]):
            file[f"layers/lstm/cell/vars/{index}"] = rng.standard_normal(shape, np.float32)


def write_rtneural(path):
    weights = [np.ones(shape).tolist() for shape in [(2, 12), (3, 12), (12,)]]
    path.write_text(json.dumps({"in_shape": [None, None, 2], "layers": [
        {"type": "lstm", "activation": "tanh", "shape": [None, None, 3], "weights": weights}]}))


def write_shards(path):
    """An index and its shards: several files that are one model."""
    arrays = fastrnn.LSTM(2, 3, rng=0).state_dict()
    names = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(arrays)}
    for shard in set(names.values()):
        save_file({name: arrays[name] for name in arrays if names[name] == shard}, path.parent / shard)
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}))


def write_tflite(path):
    with np.load(FILES / "tflite.npz") as archive:
        path.write_bytes(archive["lstm_float.file"].tobytes())


# How a file of each format is written, and the expression that reads it.
READERS = {
    "model.npz": (lambda path: fastrnn.GRU(2, 3, rng=0).save(path), "fastrnn.load(path)"),
    "model.safetensors": (lambda path: fastrnn.GRU(2, 3, rng=0).save(path), "fastrnn.load(path)"),
    "network.npz": (lambda path: fastrnn.Sequential(fastrnn.LSTM(2, 3, rng=0), fastrnn.Linear(3, 1, rng=1)).save(path),
                    "fastrnn.load(path)"),
    "named.npz": (lambda path: np.savez(path, **fastrnn.LSTM(2, 3, rng=0).state_dict()), "interop.layers(path)"),
    "named.safetensors": (lambda path: save_file(fastrnn.LSTM(2, 3, rng=0).state_dict(), path), "interop.layers(path)"),
    "index.safetensors.index.json": (write_shards, "interop.safetensors.layers(path)"),
    "zip.pt": (lambda path: torch.save(torch.nn.GRU(2, 3).state_dict(), path), "interop.layers(path)"),
    "older.pt": (lambda path: torch.save(torch.nn.GRU(2, 3).state_dict(), path, _use_new_zipfile_serialization=False),
                 "interop.layers(path)"),
    "model.weights.h5": (write_keras_weights, "interop.layers(path)"),
    "model.onnx": (lambda path: interop.onnx.export(fastrnn.GRU(2, 3, rng=0), path), "interop.layers(path)"),
    "model.tflite": (write_tflite, "interop.layers(path)"),
    "rtneural.json": (write_rtneural, "interop.layers(path)"),
}


def test_reading_runs_nothing_and_opens_the_model_alone(tmp_path):
    """Python itself reports (an audit hook) what a reader does: it opens the files of its model, and nothing else."""
    for name, (write, _) in READERS.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name / name)
    reads = {str(tmp_path / name / name): expression for name, (_, expression) in READERS.items()}
    printed = python(f"""
        import fastrnn.interop.onnx, fastrnn.interop.safetensors
        from fastrnn import cli, interop
        events, watching = [], False
        def hook(event, arguments):
            if watching and event.partition(".")[0] in (
                    "import", "exec", "open", "os", "subprocess", "socket", "pickle", "marshal", "ctypes"):
                events.append((event, str(arguments[0]) if arguments else ""))
        sys.addaudithook(hook)
        for path, expression in {reads!r}.items():
            reader = eval("lambda path: " + expression)
            reader(path)                                   # what reading needs is imported
            events.clear()
            watching = True
            result = reader(path)
            watching = False
            folder = os.path.dirname(path)
            opened = [name for event, name in events if event == "open"]
            others = [event for event in events if event[0] not in ("open", "os.listdir", "os.scandir")]
            print(os.path.basename(path), bool(result), path in opened, others,
                  [name for name in opened if os.path.dirname(name) != folder])
    """)
    assert printed.splitlines() == [f"{name} True True [] []" for name in READERS]
