"""Broken and hostile files for interop.pytorch: a ModelFormatError that names the file, little memory, no code.

What their pickles may try is in test_hostile_pickles.py.
"""

import argparse
import collections
import datetime
import decimal
import fractions
import functools
import io
import math
import pathlib
import pickle
import re
import struct
import types
import uuid
import zipfile

import mutations
import numpy as np
import pytest
import torch
from helpers import assert_same_bits
from torch import nn
from torch_files import (
    NUMBERS,
    TIMES,
    archive,
    dict_of,
    in_both_formats,
    legacy,
    loads,
    name,
    number,
    pickled,
    read,
    refuses,
    storage,
    tensor,
    text,
    tuple_of,
)

import fastrnn
from fastrnn import interop
from fastrnn._base import reading
from fastrnn.interop import pytorch
from fastrnn.nn import files

ADVICE = r"torch\.save\(model\.state_dict\(\), path\)"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


@in_both_formats
def test_files_made_here_are_good_ones(build, path):
    """What is refused below is refused for what is wrong with it. torch reads them, too."""
    got = loads(build(pickled(dict_of(a=tensor(), b=tensor(function="_rebuild_tensor", more=b"")))), path)
    assert got["a"].tolist() == got["b"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.load(path, weights_only=True)["a"].tolist() == got["a"].tolist()


def test_a_view_of_a_storage_as_old_releases_wrote_it(path):
    view = tuple_of(text("v"), number(2), number(3))
    data = legacy(pickled(dict_of(a=tensor(storage(view=view), size=(2,), stride=(1,), offset=1), b=tensor())))
    assert loads(data, path)["a"].tolist() == [3, 4]
    assert torch.load(path, weights_only=True)["a"].tolist() == [3, 4]
    refuses(legacy(pickled(tensor(storage(view=view), size=(4,), stride=(1,)))), path, "element 3 of a storage of 3")
    for part in ((5, 2), (-1, 2), (0, 7), (2**63, 1), (True, 1), (0.0, 1)):
        view = tuple_of(text("v"), *map(number, part))
        refuses(legacy(pickled(tensor(storage(view=view), size=(1,), stride=(1,)))), path, "view")
    for view in (number((1, 2)), number(3), text("view"), b"]"):
        refuses(legacy(pickled(tensor(storage(view=view)))), path, "view")


def test_python_2_wrote_this(path):
    """Strings by byte, an OrderedDict from a list of pairs, memos from 1 on, GPU storages by their own class."""
    def old(value):
        return b"U" + bytes([len(value.encode())]) + value.encode()
    kind = name("torch.cuda", "FloatStorage")
    where = tuple_of(old("storage"), kind, old("0"), old("cuda:0"), number(6), b"N") + b"Q"
    pair = b"](" + old("naïve") + b"q\x01" + tensor(where, function="_rebuild_tensor", more=b"") + b"e"
    value = name("collections", "OrderedDict") + b"](" + pair + b"e\x85R" + b"}(" + text("_metadata") + b"}ub"
    assert loads(legacy(pickled(value)), path)["naïve"].tolist() == [[0, 1, 2], [3, 4, 5]]


# ---- What torch writes, and cannot be read ------------------------------------------------------------

def quantised():
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


UNREADABLE = {
    "quantised": (quantised, "quantised"), "sparse": (lambda: torch.eye(3).to_sparse(), r"sparse.*\.to_dense\(\)"),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), r"sparse.*\.to_dense\(\)"),
    "meta": (lambda: torch.ones(3, device="meta"), "meta device"),
    "float8": (lambda: torch.ones(3).to(torch.float8_e4m3fn), r"torch\.float8_e4m3fn.*NumPy"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*quantize")
@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_numpy_cannot_hold(kind, zipped, path):
    """Alone they are refused, with advice; beside others they are left out; as a layer's they are named."""
    make, match = UNREADABLE[kind]
    if not zipped and kind == "float8":
        pytest.skip("torch writes it to zip archives alone")
    torch.save(make(), path, _use_new_zipfile_serialization=zipped)
    mutations.assert_refuses(pytorch.load_state_dict, path.read_bytes(), path, f"{match}.*{ADVICE}")
    mutations.assert_refuses(pytorch.layers, path.read_bytes(), path, "no recurrent layer")
    state = {f"gru.{name}": a for name, a in nn.GRU(2, 3).state_dict().items()}
    torch.save(state | {"x": make()}, path, _use_new_zipfile_serialization=zipped)
    assert list(pytorch.load_state_dict(path)) == list(state)
    assert repr(pytorch.layers(path)) == "{'gru': GRU(2, 3)}"
    torch.save(state | {"gru.weight_hh_l0": make()}, path, _use_new_zipfile_serialization=zipped)
    mutations.assert_refuses(pytorch.layers, path.read_bytes(), path, f"gru: weight_hh_l0.*not read: .*{match}",
                             times=TIMES)


OBJECTS = {
    "numpy array": lambda: np.ones(3), "numpy number": lambda: np.float64(1), "function": lambda: torch.sin,
    "class": lambda: nn.LSTM, "error": lambda: ValueError("x"), "path": lambda: pathlib.PurePosixPath("a"),
    "namespace": lambda: argparse.Namespace(learning_rate=0.1, sizes=[1, 2]), "slice": lambda: slice(1, 2),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]), "date": lambda: datetime.datetime(2020, 1, 1),
    "fraction": lambda: fractions.Fraction(1, 3), "decimal": lambda: decimal.Decimal("0.1"),
    "uuid": lambda: uuid.UUID(int=1), "generator": lambda: np.random.default_rng(0), "complex": lambda: 1j,
    "random state": lambda: np.random.RandomState(0).get_state(), "partial": lambda: functools.partial(math.pow, 2),
    "simple namespace": lambda: types.SimpleNamespace(a=1), "ordered": lambda: collections.OrderedDict(a=1),
    "counter": lambda: collections.Counter("aab"), "deque": lambda: collections.deque([1, 2]),
    "range": lambda: range(3), "module": lambda: nn.Linear(2, 3), "enum": lambda: re.IGNORECASE, "own": lambda: Own(),
    "optimizer": lambda: torch.optim.Adam(nn.Linear(2, 3).parameters()), "own dict": lambda: OwnDict(a=1, b=[2]),
    "own list": lambda: OwnList([1]), "named tuple": lambda: Pair(1, 2), "dtype": lambda: np.dtype("f4"),
    "torch's dtype": lambda: torch.float64, "torch's device": lambda: torch.device("cpu"),
    "torch's generator state": lambda: torch.Generator().get_state(),
    # Lightning before 1.5 has what callbacks keep under their classes, with tensors among it.
    "callbacks by class": lambda: {Own: {"best": torch.tensor(0.5)}, OwnDict: {"best": torch.tensor(0.25)}},
    "keys of pairs": lambda: {("a", 1): [1.0, 2.0], ("a", 2): {"b": torch.ones(2)}, np.int64(3): [torch.ones(1)]},
    "keys of enums": lambda: {re.IGNORECASE: {"a": 1}, re.DOTALL: {"a": torch.ones(1)}},
}


class Own:
    def __init__(self):
        self.name, self.values = "own", [1, 2]


class OwnDict(dict):
    pass


class OwnList(list):
    pass


Pair = collections.namedtuple("Pair", "first second")


@pytest.mark.filterwarnings("ignore:.*source code")
@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_beside_the_weights_are_passed_over(kind, zipped, protocol, path):
    model = nn.LSTM(2, 3)
    torch.save({"before": OBJECTS[kind](), "model": model.state_dict(), "after": [OBJECTS[kind]()]}, path,
               _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    (layer,) = pytorch.layers(path).values()
    assert_same_bits(dict(layer.parameters), {name: a.numpy() for name, a in model.state_dict().items()})
    tensors = pytorch.load_state_dict(path)
    assert {name for name in tensors if name.startswith("model.")} == {f"model.{name}" for name in model.state_dict()}


def test_the_tar_format_of_2016(path):
    import tarfile
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for part in ("storages", "tensors", "pickle"):
            tar.addfile(tarfile.TarInfo(part), io.BytesIO())
    refuses(file.getvalue(), path, "tar format")


@pytest.mark.parametrize("data", [
    b"", b"\0", b"P", b"PK", b"PK\3\4", b"PK\5\6" + bytes(18), b"{}", b"\x80", b"\x80\x02", b"\x80\x02.", b"L", b"text",
    bytes(5000), b"\x80\x02N.", pickle.dumps({"a": [1, 2]}), pickle.dumps(0x1950a86a20f9469cfc6c, 2),
    b"\x89HDF\r\n\x1a\n" + bytes(100),
], ids=repr)
def test_files_of_no_format(data, path):
    refuses(data, path)


@pytest.mark.parametrize("other", [".npz", ".safetensors"])
def test_files_of_other_formats(other, path):
    given = path.with_suffix(other)
    files.save(fastrnn.GRU(2, 3), given)
    refuses(given.read_bytes(), path, ADVICE)


# ---- Tensors that lie ---------------------------------------------------------------------------------

GEOMETRY = {
    "past the end": {"size": (2, 4)}, "offset": {"offset": 1},
    "offset past all": {"offset": 6, "size": (1,), "stride": (1,)}, "stride": {"stride": (4, 1)},
    "rank": {"size": (2, 3, 1)}, "negative size": {"size": (-2, 3)}, "negative stride": {"stride": (-3, 1)},
    "negative offset": {"offset": -1}, "huge size": {"size": (2**62, 3)},
    "huge product": {"size": (2**62, 2**62, 2**62), "stride": (0, 0, 0)}, "past 64 bits": {"size": (2**64, 3)},
    "huge stride": {"stride": (2**62, 1)}, "offset past 64 bits": {"offset": 2**64}, "float size": {"size": (2.0, 3)},
    "bool size": {"size": (True, 3)}, "text": {"size": ("2", 3)}, "list": {"size": [2, 3]}, "none": {"size": None},
    "nested": {"size": ((2,), 3)}, "broadcast": {"size": (10**6, 10**6), "stride": (0, 0)},
    "broadcast rows": {"size": (10**9, 6), "stride": (0, 1)}, "sliding": {"size": (2**31, 2), "stride": (0, 1)},
    "65 dimensions": {"size": (1,) * 65, "stride": (1,) * 65},
    "many dimensions": {"size": (1,) * 10**4, "stride": (1,) * 10**4}, "enormous number": {"offset": 2**80000},
    "empty but huge": {"size": (0, 2**62, 2**62), "stride": (1, 1, 1)}, "offset none": {"offset": None},
    "size a number": {"size": 6, "stride": 1},
}


@in_both_formats
@pytest.mark.parametrize("kind", GEOMETRY)
def test_tensors_that_leave_their_storage(kind, build, path):
    refuses(build(pickled(dict_of(a=tensor(**GEOMETRY[kind])))), path)


STORAGES = {
    "longer": storage(length=7), "shorter": storage(length=5), "huge": storage(length=2**62),
    "past 64 bits": storage(length=2**64), "negative": storage(length=-6), "float": storage(length=6.0),
    "bool": storage(length=True), "text": storage(length="6"), "other type": storage(kind="DoubleStorage"),
    "narrower type": storage(kind="HalfStorage", length=6),
    "no type": tuple_of(text("storage"), text("FloatStorage"), text("0"), text("cpu"), number(6)) + b"Q",
    "a dtype for a type": storage(kind="float32"), "a tensor for a type": storage(kind="Tensor"),
    "a function for a type": storage(module="collections", kind="OrderedDict"), "missing": storage(key="1"),
    "of another folder": storage(key="../data/0"), "absolute": storage(key="/etc/passwd"), "no key": storage(key=""),
    "number for a key": tuple_of(text("storage"), name("torch", "FloatStorage"), number(0), b"N", number(6)) + b"Q",
    "no storage": tuple_of(text("module"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(6)) + b"Q",
    "few parts": tuple_of(text("storage"), text("0")) + b"Q", "many parts": number(tuple(range(100))) + b"Q",
    "text id": text("storage") + b"Q", "dict": b"}", "none": b"N", "persid": b"P0\n", "a tensor": tensor(),
    "nothing": b"", "quantised": storage(kind="QInt8Storage"), "half complex": storage(kind="ComplexHalfStorage"),
}


@in_both_formats
@pytest.mark.parametrize("kind", STORAGES)
def test_storages_that_lie(kind, build, path):
    refuses(build(pickled(dict_of(a=tensor(STORAGES[kind])))), path)


@in_both_formats
def test_a_storage_of_two_kinds(build, path):
    for other in (storage(kind="IntStorage"), storage(length=3)):
        again = tensor(other, size=(1,), stride=(1,))
        refuses(build(pickled(dict_of(a=tensor(), b=again))), path, "storage 0 is of 6 float32")


def test_tensors_on_raw_bytes(path):
    """_rebuild_tensor_v3: the dtype comes with the tensor."""
    def v3(dtype, kind="UntypedStorage", module="torch.storage", length=24, **options):
        where = storage(kind=kind, module=module, length=length)
        value = tensor(where, function="_rebuild_tensor_v3", more=b"\x89)" + dtype, **options)
        return archive(pickled(dict_of(a=value)))
    assert loads(v3(name("torch", "float32")), path)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loads(v3(name("torch", "uint16"), size=(12,), stride=(1,)), path)["a"].shape == (12,)
    refuses(v3(name("torch", "float64")), path, "element 5 of a storage of 3")
    refuses(v3(name("torch", "float64"), "FloatStorage", "torch", 6), path, "float64 on a storage of float32")
    for dtype in (b"N", text("float32"), name("torch", "Tensor"), name("torch.storage", "UntypedStorage") + b")R"):
        refuses(v3(dtype), path)


@pytest.mark.parametrize("more", [
    b"", b"\x89", b"\x89))))", b"\x89)" + dict_of(conj=b"\x88", other=b"\x88"), b"\x89)" + number((1,)),
    b"\x89)}(" + tensor() + b"\x88u",
])
@in_both_formats
def test_arguments_that_do_not_fit(more, build, path):
    refuses(build(pickled(dict_of(a=tensor(more=more)))), path)


# ---- Archives that lie --------------------------------------------------------------------------------

GOOD = pickled(dict_of(a=tensor()))


@pytest.mark.parametrize("entries, match", [
    ({"byteorder": b"middle"}, "byteorder"), ({"byteorder": b""}, "byteorder"),
    ({"byteorder": b"little\n"}, "byteorder"),
    ({"version": b"99"}, "version"), ({"version": b""}, "version"), ({"version": b"x"}, "version"),
])
def test_entries_that_lie(entries, match, path):
    refuses(archive(GOOD, **entries), path, match)


def test_storages_of_another_size(path):
    for size in (0, 23, 25, 48):
        refuses(archive(GOOD, {"0": bytes(size)}), path, rf"m/data/0 has {size} bytes, expected 24")
    refuses(archive(GOOD, {}), path, "no 'm/data/0'")
    refuses(archive(GOOD, {"00": NUMBERS}), path, "no 'm/data/0'")


def test_older_files_that_lie(path):
    refuses(legacy(GOOD, magic=7), path, "magic")
    refuses(legacy(GOOD, magic="7"), path, "magic")
    refuses(legacy(GOOD, protocol=1002), path, "protocol 1002")
    refuses(legacy(GOOD, protocol=[1001]), path, "protocol a list")
    for count in (5, 7, -6, -1, 0, 2**62, -(2**63)):
        refuses(legacy(GOOD, {"0": (count, NUMBERS)}), path, "storage 0")
    for keys in ([], ["1"], ["0", "0"], [0], [None], [("0",)], "0", 7, {"0": 1}):
        refuses(legacy(GOOD, keys=keys), path)
    refuses(legacy(GOOD) + b"\0", path, "1 bytes follow")
    for size in range(24):
        refuses(legacy(GOOD, {"0": (6, NUMBERS[:size])}), path, "storage 0")


def test_zip_bombs(path):
    size = 40_000_000
    zeros = tensor(storage(length=size // 4), size=(size // 4,), stride=(1,))
    limits = {"times": 3 * reading.EXPANSION}
    bomb = archive(pickled(dict_of(a=zeros)), {"0": bytes(size)}, zipfile.ZIP_DEFLATED)
    refuses(bomb, path, "64 times", **limits)
    # The same where the directory claims 24 bytes; a pickle of zeros; a pickle that grows within the archive's bound.
    assert bomb.count(struct.pack("<I", size)) == 2
    refuses(bomb.replace(struct.pack("<I", size), struct.pack("<I", 24)), path, **limits)
    refuses(archive(bytes(size), compression=zipfile.ZIP_DEFLATED), path, "64 times", **limits)
    spread = np.random.default_rng(0).bytes(100_000)
    refuses(archive(pickled(b"]" * 1_000_000), {"0": spread}, zipfile.ZIP_DEFLATED), path,
            "data.pkl is said to be 1000003", times=8)


def test_entries_that_overlap(path):
    """Storages that stand in one another, as the directory says."""
    data = archive(pickled(dict_of(a=tensor(), b=tensor(storage("1")))), {"0": NUMBERS, "1": NUMBERS})
    assert sorted(loads(data, path)) == ["a", "b"]
    start = data.index(b"PK\1\2")
    records = [start] + [at for at in range(start + 1, len(data)) if data.startswith(b"PK\1\2", at)]
    first, second = (next(at for at in records if data[at + 46:].startswith(key))
                     for key in (b"m/data/0", b"m/data/1"))
    place = struct.unpack_from("<I", data, first + 42)[0]
    for offset in (place, place + 1, place + 20):
        refuses(data[:second + 42] + struct.pack("<I", offset) + data[second + 46:], path)
    refuses(data[:second + 42] + struct.pack("<I", place) + data[second + 46:], path, "overlaps")


# ---- Damage ---------------------------------------------------------------------------------------------

def small(zipped=True):
    """The bytes of a file of torch's: a small layer, another tensor, numbers and text."""
    torch.manual_seed(0)
    tensor = torch.ones(2, 3, dtype=torch.bfloat16).T
    value = {"model": nn.GRU(2, 3, bias=False).state_dict(), "x": [tensor, 2.5], "epoch": 3}
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def entries(data):
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        return {name: z.read(name) for name in z.namelist()}


def packed(entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        for name, data in entries.items():
            z.writestr(name, data)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_cut_at_every_byte(zipped, path):
    data = small(zipped)
    path.write_bytes(data)
    assert repr(read(path)) == "{'': GRU(2, 3, bias=False)}"
    for broken in mutations.truncations(data):
        mutations.assert_refuses(read, broken, path)


@pytest.mark.slow
def test_a_pickle_cut_at_every_byte(path):
    """In an archive that is whole."""
    parts = entries(small())
    for broken in mutations.truncations(parts["archive/data.pkl"]):
        mutations.assert_refuses(read, packed(parts | {"archive/data.pkl": broken}), path)


@pytest.mark.slow
def test_every_byte_of_a_pickle_changed(path):
    parts = entries(small())
    data, refused = parts["archive/data.pkl"], 0
    for at in range(len(data)):
        broken = data[:at] + bytes([data[at] ^ (0x01, 0x80)[at % 2]]) + data[at + 1:]
        broken = packed(parts | {"archive/data.pkl": broken})
        refused += mutations.assert_refuses_or_loads(read, broken, path) is not None
    assert refused > len(data) / 2


# An archive may unpack to EXPANSION times its size, which is read, then kept as array, then as parameter.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_mutations(kind, path):
    data, count, refused = small(kind != "legacy"), mutations.COUNT // 2, 0
    parts = entries(data) if kind == "pickle" else {}
    rng = mutations.generator(0)
    for broken in mutations.mixed(parts["archive/data.pkl"] if kind == "pickle" else data, rng, count, header=1200):
        if kind == "pickle":                # an archive that is whole: every mutation reaches the pickle
            broken = packed(parts | {"archive/data.pkl": broken})
        refused += mutations.assert_refuses_or_loads(read, broken, path, times=3 * reading.EXPANSION) is not None
    assert refused > count // 2


def test_mutations_by_any_reader(path):
    """`interop.layers` picks the reader by the contents, whatever they are then."""
    for zipped in (True, False):
        for broken in mutations.mixed(small(zipped), mutations.generator(1), mutations.COUNT // 8, header=300):
            mutations.assert_refuses_or_loads(interop.layers, broken, path, times=3 * reading.EXPANSION)
