"""Whole modules, TorchScript archives, exported programs and indices, broken at random.

They are refused, or what is whole in them is read, in bounded time and memory, and nothing is run. What a pickle may
ask for is in test_hostile_pickles.py.
"""

import argparse
import collections
import contextlib
import datetime
import io
import json
import pathlib
import warnings
import zipfile

import mutations
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from torch_files import dict_of, legacy, name, pickled, refuses, text

import fastrnn
from fastrnn import interop
from fastrnn._base import reading
from fastrnn.interop import pytorch

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:The tensor attributes", "ignore:.*source code",
                                        "ignore::DeprecationWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.GRU(2, 3, batch_first=True)

    def forward(self, x):
        return self.inner(x)[0]


class Settings:
    """Stands for what people keep beside weights: OmegaConf, dataclasses, whole trainers."""

    def __init__(self, **options):
        self.__dict__ |= options


def checkpoint():
    """Weights with objects of other packages and of the author's own beside them, as trainers write them."""
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(4, 5, 2)).sum().backward()
    optimizer.step()
    return {"state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), "best": np.float64(0.5),
            "epoch": np.int64(3), "args": argparse.Namespace(path=pathlib.PurePosixPath("/data"), size=3),
            "hyper_parameters": Settings(inner=Settings(size=3), when=datetime.datetime(2026, 1, 1)),
            "history": collections.defaultdict(list, loss=[1.0, 0.5]), "kinds": {torch.float32, "a"},
            "callbacks": {Settings: {"best": torch.tensor(0.5)}}, "rng": np.random.default_rng(0).bit_generator.state,
            "half": torch.ones(3, dtype=torch.bfloat16)}


def write(kind):
    """The bytes of a good file, and the name of the entry that says what is in it."""
    file, net = io.BytesIO(), Net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "script":
            torch.jit.save(torch.jit.script(net.inner), file)
        elif kind == "code":
            torch.jit.save(torch.jit.trace(net, torch.ones(4, 5, 2)), file)
        elif kind in ("exported", "weights"):
            torch.export.save(torch.export.export(net, (torch.ones(4, 5, 2),)), file)
        elif kind == "numpy":
            torch.save(fastrnn.GRU(2, 3, rng=0).state_dict(), file)
        elif kind == "objects":
            torch.save(checkpoint(), file)
        else:
            torch.save(net, file, _use_new_zipfile_serialization=kind != "legacy")
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) if kind == "code" else contextlib.nullcontext() as archive:
        code = next((entry for entry in archive.namelist() if "/rnn/" in entry and entry.endswith(".py")), "") \
            if archive else ""
    ending = {"code": code, "exported": "models/model.json", "weights": "weights_config.json"}
    return file.getvalue(), ending.get(kind, "data.pkl")


def read(path):
    """By both ways in; every byte of every array is looked at."""
    for array in pytorch.load_state_dict(path).values():
        array.tobytes()
    return interop.layers(path, {})


def repacked(data, ending, contents):
    """An archive with one entry replaced."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w") as target:
        for entry in source.namelist():
            target.writestr(entry, contents if entry.endswith(ending) else source.read(entry))
    return file.getvalue()


KINDS = ["numpy", "objects", "module", "legacy", "script", "code", "exported", "weights"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutations_of_files(kind, tmp_path):
    good, _ = write(kind)
    path, rng, refused = tmp_path / "model.pt", mutations.generator(0), 0
    path.write_bytes(good)
    option = ", batch_first=True" * (kind not in ("numpy", "objects"))
    assert [repr(layer) for layer in read(path).values()] == [f"GRU(2, 3{option})"]
    for broken in mutations.mixed(good, rng, mutations.COUNT // 4, header=2000):
        refused += mutations.assert_refuses_or_loads(read, broken, path, times=3 * reading.EXPANSION) is not None
    assert refused > mutations.COUNT // 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "legacy"])
def test_mutations_of_what_says_what_is_in_them(kind, tmp_path):
    """In an archive that is whole: every mutation reaches the reader of the entry."""
    good, ending = write(kind)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        contents = archive.read(next(entry for entry in archive.namelist() if entry.endswith(ending)))
    path, rng = tmp_path / "model.pt", mutations.generator(1)
    path.write_bytes(good)
    read(path)
    for broken in mutations.mixed(contents, rng, mutations.COUNT // 4, header=2000):
        data = repacked(good, ending, broken)
        mutations.assert_refuses_or_loads(read, data, path, times=3 * reading.EXPANSION)


@pytest.mark.parametrize("change", [
    ('{"as_bool": true}', '{"as_booL": true}'), ('{"as_bool": true}', '{"as_bool": null}'),
    ('{"as_bool": true}', '{"as_bool": 1}'), ('{"as_int": 1}', '{"as_int": -1}'),
    ('{"as_int": 1}', '{"as_int": 1e999}'),
    ('{"as_float": 0.0}', '{"as_float": "0"}'), ('{"as_float": 0.0}', '{"as_flo\\u0000at": 0.0}'),
])
def test_arguments_of_an_exported_layer_that_are_none(change, tmp_path):
    good, ending = write("exported")
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        text = archive.read(next(entry for entry in archive.namelist() if entry.endswith(ending))).decode()
    start = text.index("aten.gru.input")
    assert change[0] in text[start:]
    text = text[:start] + text[start:].replace(*change)
    path = tmp_path / "model.pt"
    mutations.assert_refuses(read, repacked(good, ending, text.encode()), path, "graph|JSON|dropout")


def test_mutations_of_an_index(tmp_path):
    arrays = fastrnn.GRU(2, 3, rng=0).state_dict()
    save_file(arrays, tmp_path / "a.safetensors")
    good = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(arrays, "a.safetensors")}).encode()
    path, rng = tmp_path / "model.safetensors.index.json", mutations.generator(2)
    path.write_bytes(good)
    assert repr(interop.layers(path)) == "{'': GRU(2, 3)}"
    for broken in mutations.mixed(good, rng, mutations.COUNT // 4):
        mutations.assert_refuses_or_loads(lambda path: interop.layers(path, {}), broken, path, times=40)


# ---- Bombs ------------------------------------------------------------------------------------------------

def module(**state):
    """A module as a pickle has it, with these opcodes for its attributes."""
    return name("torch.nn.modules.module", "Module") + b")\x81" + dict_of(**state) + b"b"


def nested(depth):
    inner = module(_parameters=b"}", _modules=b"}")
    for _ in range(depth):
        inner = module(_parameters=b"}", _modules=dict_of(a=inner))
    return inner


SHARED = b"".join(b"0" + module(_parameters=b"}", _modules=dict_of(a=b"h\0", b=b"h\0", c=b"h\0")) + b"q\0"
                  for _ in range(60))
BOMBS = {
    "nested": nested(300), "shared": module(_parameters=b"}", _modules=b"}") + b"q\0" + SHARED,
    "opaque": b"](" + (name("a", "B") + b")R") * 20000 + b"e",
    "opaque states": b"](" + (name("a", "B") + b")R}b") * 20000 + b"e",
    "opaque of opaque": name("a", "B") + b")\x81" + b")R" * 20000,
    "arguments again and again": name("a", "B") + b"q\0" + text("x" * 50000) + b"\x85q\1](" + b"h\0h\1R" * 9000 + b"e",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_of_objects(kind, tmp_path):
    """Little memory, and no hang."""
    refuses(legacy(pickled(BOMBS[kind])), tmp_path / "model.pt", plus=1 << 20) if kind in (
        "nested", "shared", "arguments again and again") else mutations.assert_refuses_or_loads(
        lambda path: interop.layers(path, {}), legacy(pickled(BOMBS[kind])), tmp_path / "model.pt", times=32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prefixes", "flat", "raw"])
def test_many_names_take_no_time(kind, tmp_path):
    """Each name may begin as the others do: what stands beside what is looked at is bounded."""
    count = 3000
    names = {"prefixes": ["a." * (i % 90) + f"{i}.weight_ih" for i in range(count)],
             "flat": ["a_" * (i % 200) + f"fc{i}_weight_ih_l0" for i in range(count)],
             "raw": [f"{i}.weight_hh_l0_raw" for i in range(count)]}[kind]
    one = np.ones((1, 1), np.float32)
    np.savez(tmp_path / "model.npz", **dict.fromkeys(names, one))
    data = (tmp_path / "model.npz").read_bytes()
    mutations.assert_refuses_or_loads(lambda path: interop.layers(path, {}), data, tmp_path / "again.npz", seconds=20)
