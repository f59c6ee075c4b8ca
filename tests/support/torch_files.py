"""Files in PyTorch's two formats made by hand, opcode by opcode: for tests of what torch would never write."""

import io
import pickle
import struct
import zipfile

import mutations
import numpy as np
import pytest

from fastrnn.interop import pytorch

# Every byte of a pickle may stand for a small object of Python's: memory may be so many times the file's size.
TIMES = 32


def name(module, function):
    return f"c{module}\n{function}\n".encode()


def text(value):
    value = value.encode()
    return b"X" + struct.pack("<I", len(value)) + value


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def storage(key="0", kind="FloatStorage", length=6, module="torch", view=b"N"):
    return tuple_of(text("storage"), name(module, kind), text(key), text("cpu"), number(length), view) + b"Q"


def tensor(what=None, offset=0, size=(2, 3), stride=(3, 1), function="_rebuild_tensor_v2", more=b"\x89)"):
    parts = (storage() if what is None else what, *map(number, (offset, size, stride)), more)
    return name("torch._utils", function) + tuple_of(*parts) + b"R"


def dict_of(**entries):
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickled(value, protocol=2):
    return bytes([0x80, protocol]) + value + b"."


NUMBERS = np.arange(6, dtype="<f4").tobytes()


def archive(data, storages=None, compression=zipfile.ZIP_STORED, **entries):
    """A zip archive of a pickle. A storage has one part less in it than in the older format: the view."""
    data = data.replace(number(6) + b"NtQ", number(6) + b"tQ")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as z:
        z.writestr("m/data.pkl", data)
        for key, value in ({"0": NUMBERS} if storages is None else storages).items():
            z.writestr(f"m/data/{key}", value)
        for key, value in ({"version": b"3\n", "byteorder": b"little"} | entries).items():
            z.writestr(f"m/{key}", value)
    return file.getvalue()


def legacy(data, storages=None, keys=None, magic=0x1950a86a20f9469cfc6c, protocol=1001):
    """The older format of a pickle. storages: key -> (count, bytes); as many as the pickle has if not given."""
    if storages is None:
        storages = {"0": (6, NUMBERS)} if b"storage" in data else {}
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(part, 2) for part in (magic, protocol, about)]
    parts += [data, pickle.dumps(sorted(storages) if keys is None else keys, 2)]
    return b"".join([*parts, *(struct.pack("<q", count) + part for _, (count, part) in sorted(storages.items()))])


# For tests that take `build`: a pickle -> a file of it.
in_both_formats = pytest.mark.parametrize("build", [archive, legacy])


def read(path):
    """By both ways in; every byte of every array is looked at."""
    for array in pytorch.load_state_dict(path).values():
        array.tobytes()
    return pytorch.layers(path)


def refuses(data, path, match="", **limits):
    """Asserts that both ways in do, with a message that matches."""
    limits = {"times": TIMES} | limits
    for load in (pytorch.load_state_dict, pytorch.layers):
        mutations.assert_refuses(load, data, path, match, **limits)


def loads(data, path):
    """The tensors of a file of these bytes."""
    path.write_bytes(data)
    return pytorch.load_state_dict(path)
