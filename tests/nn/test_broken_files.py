"""Broken and hostile .npz and .safetensors files: a ModelFormatError that names the file, little memory, no code."""

import ast
import io
import json
import os
import pickle
import struct
import zipfile

import mutations
import numpy as np
import pytest

import fastrnn
from fastrnn import interop
from fastrnn._base import reading
from fastrnn.nn import files

ENDINGS = (".npz", ".safetensors")
READERS = (fastrnn.load, interop.layers)


def layer():
    return fastrnn.GRU(2, 3, rng=0)


@pytest.fixture(scope="module", params=ENDINGS)
def good(request, tmp_path_factory):
    """(ending, bytes) of a small file as we write it."""
    path = tmp_path_factory.mktemp("good") / f"model{request.param}"
    layer().save(path)
    return request.param, path.read_bytes()


def npz(entries, compression=zipfile.ZIP_STORED):
    """A zip of name -> bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(a):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(a))
    return file.getvalue()


def npy_header(text, data=b"", version=(1, 0)):
    text = text.encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def own_npz(changed=None, **configuration):
    """A file as `save` writes it, with other entries or another configuration."""
    told = files.configuration(layer()) | configuration
    entries = {f"{name}.npy": npy(a) for name, a in layer().parameters.items()}
    entries["fastrnn.npy"] = npy(np.frombuffer(json.dumps(told).encode(), np.uint8))
    return npz({name: data for name, data in (entries | (changed or {})).items() if data is not None})


def safetensors(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


# ---- Not a file, not a model ----------------------------------------------------------------------

@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_fifo_is_refused_at_once(ending, tmp_path):
    path = tmp_path / f"fifo{ending}"
    os.mkfifo(path)
    for load in READERS:
        with mutations.alarm(10), pytest.raises(fastrnn.ModelFormatError, match="not a regular file"):
            load(path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no /dev/zero here")
def test_a_device_is_refused_at_once(tmp_path):
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    for load in READERS:
        with mutations.alarm(10), pytest.raises(fastrnn.ModelFormatError, match="not a regular file"):
            load(tmp_path / "zero.npz")


@pytest.mark.parametrize("data", [b"", b"\0", b"PK", b"PK\3\4", b"{", b"{}", b"[]", b"not a model at all", bytes(5000)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_files_of_no_format(data, ending, tmp_path):
    mutations.assert_refuses(fastrnn.load, data, tmp_path / f"model{ending}")
    if data != b"{}":
        mutations.assert_refuses(interop.layers, data, tmp_path / f"model{ending}")


@pytest.mark.parametrize("load", READERS)
def test_a_file_of_the_other_format_under_this_ending(load, good, tmp_path):
    ending, data = good
    path = tmp_path / f"model{'.safetensors' if ending == '.npz' else '.npz'}"
    if load is fastrnn.load:
        mutations.assert_refuses(load, data, path)
    else:
        path.write_bytes(data)
        assert repr(load(path)) == "{'': GRU(2, 3)}"         # told from its contents


@pytest.mark.parametrize("ending", ENDINGS)
def test_named_arrays_of_others_are_not_ours(ending, tmp_path):
    from safetensors.numpy import save
    arrays = layer().state_dict()
    data = npz({f"{name}.npy": npy(a) for name, a in arrays.items()}) if ending == ".npz" else save(arrays)
    mutations.assert_refuses(fastrnn.load, data, tmp_path / f"model{ending}", "not written by fastrnn.*interop")


# ---- Damage ---------------------------------------------------------------------------------------

@pytest.mark.slow
def test_cut_at_every_byte(good, tmp_path):
    ending, data = good
    assert len(data) < 3000
    for load in READERS:
        for broken in mutations.truncations(data):
            mutations.assert_refuses(load, broken, tmp_path / f"model{ending}")


def test_more_bytes_at_the_end(good, tmp_path):
    """safetensors says how long it is; a zip archive is read from its end, and may be followed by little."""
    ending, data = good
    for more in (b"\0", b"x" * 100, bytes(1 << 20)):
        error = mutations.assert_refuses_or_loads(fastrnn.load, data + more, tmp_path / f"model{ending}")
        assert error is not None or ending == ".npz"


@pytest.mark.slow
def test_every_byte_changed(good, tmp_path):
    """Bytes of weights in a .npz have a checksum; in a .safetensors file nothing tells that they were others."""
    ending, data = good
    refused = 0
    for at in range(len(data)):
        broken = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:]
        refused += mutations.assert_refuses_or_loads(fastrnn.load, broken, tmp_path / f"model{ending}") is not None
    weights = sum(a.nbytes for a in layer().parameters.values())
    assert refused >= (len(data) - weights) / 2
    if ending == ".npz":
        assert refused > weights


@pytest.mark.slow
@pytest.mark.parametrize("load", READERS)
def test_mutations(load, good, tmp_path):
    ending, data = good
    rng, refused = np.random.default_rng(0), 0
    count = mutations.COUNT // 2
    for broken in mutations.mixed(data, rng, count, header=400):
        # an archive may unpack to EXPANSION times its size; it is read, then kept as array, then as parameter
        refused += mutations.assert_refuses_or_loads(load, broken, tmp_path / f"model{ending}",
                                                     times=3 * reading.EXPANSION) is not None
    assert refused > count // 2


# ---- Configurations that lie ------------------------------------------------------------------------

LIES = {
    "hidden_size 2**40": {"hidden_size": 2**40}, "hidden_size 2**62": {"hidden_size": 2**62},
    "hidden_size 4": {"hidden_size": 4}, "hidden_size 0": {"hidden_size": 0},
    "hidden_size true": {"hidden_size": True}, "hidden_size text": {"hidden_size": "3"},
    "hidden_size null": {"hidden_size": None}, "input_size -2": {"input_size": -2},
    "num_layers 10**9": {"num_layers": 10**9}, "num_layers 10**30": {"num_layers": 10**30},
    "num_layers 1.0": {"num_layers": 1.0}, "num_layers list": {"num_layers": [1]}, "class LSTM": {"class": "LSTM"},
    "class Gradients": {"class": "Gradients"}, "class list": {"class": []}, "class null": {"class": None},
    "cell": {"class": "GRUCell"}, "version 2": {"version": 2}, "version null": {"version": None},
    "version true": {"version": True}, "version 1.0": {"version": 1.0},
    "unknown option": {"colour": "blue"}, "rng": {"rng": 0}, "self": {"self": 0},
    "dtype float16": {"dtype": "float16"}, "dtype object": {"dtype": "O"}, "dtype list": {"dtype": [["a", "f4"]]},
    "dtype long": {"dtype": "f4," * 100000}, "dropout 2": {"dropout": 2}, "dropout text": {"dropout": "x"},
    "bias text": {"bias": "yes"}, "bidirectional": {"bidirectional": True}, "proj_size": {"proj_size": 1},
    "both ways": {"bidirectional": True, "reverse": True}, "no bias": {"bias": False}, "clip -1": {"clip": -1},
    "clip text": {"clip": "1"}, "activations text": {"activations": "tanh"},
    "activations one": {"activations": ["tanh"]}, "activations unknown": {"activations": ["sigmoid", "exec"]},
    "activations numbers": {"activations": [1, 2]}, "activations deep": {"activations": [[["tanh"]], "tanh"]},
    "update": {"update": "paddle"}, "peephole": {"peephole": True},
    "many activations": {"activations": ["tanh"] * 100000},
}


@pytest.mark.parametrize("about", LIES)
@pytest.mark.parametrize("load", READERS)
def test_a_configuration_that_lies(about, load, tmp_path):
    from safetensors.numpy import save
    mutations.assert_refuses(load, own_npz(**LIES[about]), tmp_path / "model.npz")
    told = json.dumps(files.configuration(layer()) | LIES[about])
    data = save(layer().state_dict(), metadata={"fastrnn": told})
    mutations.assert_refuses(load, data, tmp_path / "model.safetensors")


@pytest.mark.parametrize("text", [b"", b"null", b"3", b"[]", b'"GRU"', b"{", b"{}", b"\xff\xfe\xfd", b"[" * 100000,
                                  b'{"a":' * 100000, b'{"version": NaN}', b'{"version": 1, "version": 1}',
                                  b"9" * 5000, b"1e999", b'{"class":"GRU"}'])
def test_a_configuration_that_is_none(text, tmp_path):
    entries = {f"{name}.npy": npy(a) for name, a in layer().parameters.items()}
    data = npz(entries | {"fastrnn.npy": npy(np.frombuffer(text, np.uint8))})
    mutations.assert_refuses(fastrnn.load, data, tmp_path / "model.npz")
    mutations.assert_refuses(interop.layers, data, tmp_path / "model.npz")


def test_arrays_that_do_not_belong(tmp_path):
    zeros = layer().state_dict()["bias_ih_l0"]
    cases = {
        "missing key 'bias_hh_l0'": {"bias_hh_l0.npy": None},
        "unknown key 'bias_ih_l1'": {"bias_ih_l1.npy": npy(zeros)},
        r"bias_ih_l0.*\(9,\).*\(10,\)": {"bias_ih_l0.npy": npy(np.zeros(10, np.float32))},
        r"weight_ih_l0.*\(9, 2\).*\(2, 9\)": {"weight_ih_l0.npy": npy(np.zeros((2, 9), np.float32))},
        "bias_ih_l0.*float64": {"bias_ih_l0.npy": npy(zeros.astype(float))},
        "archive has no|configuration|not written": {"fastrnn.npy": None},
    }
    for match, changed in cases.items():
        mutations.assert_refuses(fastrnn.load, own_npz(changed), tmp_path / "model.npz", match)


# ---- .npz -----------------------------------------------------------------------------------------

class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("load", READERS)
def test_pickles_are_never_read(load, tmp_path):
    trap = tmp_path / "sprung"
    header = npy(np.array([None, None]))
    for name in ("weight_ih_l0.npy", "fastrnn.npy"):
        for data in (header[:128] + pickle.dumps(Trap(trap)), npy(np.array([{}], object))):
            mutations.assert_refuses(load, own_npz({name: data}), tmp_path / "model.npz", "pickled objects")
    mutations.assert_refuses(load, pickle.dumps({"weight_ih_l0": Trap(trap)}), tmp_path / "model.npz")
    assert not trap.exists()


FIELDS = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }\n"
HEADERS = {
    "shape beyond the data": FIELDS % ("'<f4'", False, "(9, 3)"),
    "shape short of the data": FIELDS % ("'<f4'", False, "(9, 1)"),
    "huge shape": FIELDS % ("'<f4'", False, "(1099511627776, 2)"),
    "product past 64 bits": FIELDS % ("'<f4'", False, "(4294967296, 4294967296, 2)"),
    "negative": FIELDS % ("'<f4'", False, "(-9, -2)"),
    "minus one": FIELDS % ("'<f4'", False, "(-1, 2)"),
    "zero times huge": FIELDS % ("'<f4'", False, f"(0, {10**30})"),
    "digits": FIELDS % ("'<f4'", False, "(%s,)" % ("9" * 5000)),
    "65 axes": FIELDS % ("'<f4'", False, "(18, %s)" % ("1, " * 65)),
    "shape of text": FIELDS % ("'<f4'", False, "('9', '2')"),
    "shape no tuple": FIELDS % ("'<f4'", False, "18"),
    "float64": FIELDS % ("'<f8'", False, "(9, 2)"),
    "object": FIELDS % ("'|O'", False, "(9,)"),
    "text": FIELDS % ("'<U2'", False, "(9,)"),
    "huge text": FIELDS % ("'<U1000000000'", False, "(0,)"),
    "bytes": FIELDS % ("'|S8'", False, "(9,)"),
    "void": FIELDS % ("'|V8'", False, "(9,)"),
    "complex": FIELDS % ("'<c8'", False, "(9,)"),
    "structured": FIELDS % ("[('a', '<f4'), ('b', '<f4')]", False, "(9,)"),
    "subarray": FIELDS % ("('<f4', (9, 2))", False, "()"),
    "no dtype": FIELDS % ("'nonsense'", False, "(9, 2)"),
    "dtype of a comma list": FIELDS % ("'%s'" % ("f4," * 2000), False, "(9, 2)"),
    "order no flag": FIELDS % ("'<f4'", "'no'", "(9, 2)"),
    "key missing": "{'descr': '<f4', 'shape': (9, 2), }\n",
    "key more": "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 2), 'x': 0}\n",
    "no dict": "(1, 2)\n", "empty": "", "nothing": "\n", "code": "__import__('os').abort()\n",
    "nested parentheses": "(" * 5000 + ")" * 5000 + "\n",
    "nested minus": FIELDS % ("'<f4'", False, "(" + "-" * 9000 + "9, 2)"),
    "nested not": FIELDS % ("'<f4'", "not " * 2400 + "1", "(9, 2)"),
    "attributes": FIELDS % ("'<f4'", False, "(a" + ".a" * 4500 + ", 2)"),
    "long": " " * 60000 + "\n", "null bytes": "\0" * 100,
}


@pytest.mark.parametrize("about", HEADERS)
@pytest.mark.parametrize("load", READERS)
def test_array_headers_that_lie(about, load, tmp_path):
    for version in ((1, 0), (2, 0)):
        data = own_npz({"weight_ih_l0.npy": npy_header(HEADERS[about], bytes(72), version)})
        mutations.assert_refuses(load, data, tmp_path / "model.npz")


def test_a_lack_of_memory_is_not_a_broken_file(tmp_path, monkeypatch):
    """Python's parser refuses deep nesting with a MemoryError; that of a short header is a real one."""
    def no_memory(*arguments, **options):
        raise MemoryError
    header = npy_header(FIELDS % ("'<f4'", False, "(9,2)"), bytes(72))          # one that is left to NumPy
    (tmp_path / "model.npz").write_bytes(own_npz({"weight_ih_l0.npy": header}))
    monkeypatch.setattr(ast, "literal_eval", no_memory)
    with pytest.raises(MemoryError):
        fastrnn.load(tmp_path / "model.npz")


@pytest.mark.parametrize("dtype, fortran, sides", [
    ("<f4", False, "(9, 2)"), (">f8", True, "(9, 2)"), ("|b1", False, "(18,)"), ("<u2", False, "()"),
    ("|i1", True, "(0, 3)"), ("<f2", False, "(9L, 2L)"), ("<f4", False, "(9,2)"), ("<i8", False, "(9, 2,)"),
    ("<f4", False, "( 9, 2)")])
def test_array_headers_are_read_as_numpy_reads_them(dtype, fortran, sides):
    """Those of one form by an expression of its own, others by NumPy; without the warning about Python 2's."""
    shape = ast.literal_eval(sides.replace("L", ""))
    body = np.random.default_rng(0).bytes(np.dtype(dtype).itemsize * int(np.prod(shape)))
    ours = reading.parse_npy(npy_header(FIELDS % (f"'{dtype}'", fortran, sides), body), "a")
    numpys = np.load(io.BytesIO(npy_header(FIELDS % (f"'{dtype}'", fortran, shape), body)))
    assert (ours.dtype, ours.shape, ours.flags.f_contiguous) == (numpys.dtype, numpys.shape, numpys.flags.f_contiguous)
    assert ours.tobytes() == numpys.tobytes()


@pytest.mark.parametrize("load", READERS)
def test_headers_that_numpys_tokenizer_gives_up_on(load, tmp_path):
    """Of an array that is none of a layer, too: it is looked at only where a message tells what there is."""
    broken = npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (9, 2")
    for name in ("weight_ih_l0.npy", "other.npy"):
        mutations.assert_refuses(load, npz({name: broken}), tmp_path / "model.npz")
        mutations.assert_refuses(load, own_npz({"weight_ih_l0.npy": broken}), tmp_path / "model.npz")


def test_array_headers_at_their_limits(tmp_path):
    text = FIELDS % ("'<f4'", False, "(9, 2)")
    for data in (npy_header(text, bytes(72))[:9], *(npy_header(text, bytes(72), (major, 0)) for major in (0, 3, 4)),
                 b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
                 b"\x93NUMPX" + npy_header(text, bytes(72))[6:], b"", b"\x93NUMPY"):
        mutations.assert_refuses(fastrnn.load, own_npz({"weight_ih_l0.npy": data}), tmp_path / "model.npz")
    for header, version in ((text, (1, 0)), (text, (2, 0)), (text.replace("False", "True"), (1, 0)),
                            (text.replace("<f4", ">f4"), (1, 0)), (text.replace("<f4", "<i2"), (1, 0))):
        size = 36 if "i2" in header else 72
        (tmp_path / "model.npz").write_bytes(own_npz({"weight_ih_l0.npy": npy_header(header, bytes(size), version)}))
        assert not fastrnn.load(tmp_path / "model.npz").parameters["weight_ih_l0"].any()


@pytest.mark.slow
@pytest.mark.parametrize("load", READERS)
def test_zip_bombs(load, tmp_path):
    path, limits = tmp_path / "model.npz", {"times": 3 * reading.EXPANSION}
    zeros = npy_header(FIELDS % ("'<f4'", False, "(5000000, 2)"), bytes(40_000_000))
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        bomb = npz({"weight_ih_l0.npy": zeros, "weight_hh_l0.npy": b""}, compression)
        mutations.assert_refuses(load, bomb, path, **limits)
        # The same with headers that claim 200 bytes, so that no sum of claims gives it away.
        true, lie = struct.pack("<I", len(zeros)), struct.pack("<I", 200)
        assert bomb.count(true) == 2
        mutations.assert_refuses(load, bomb.replace(true, lie), path, **limits)
    many = npz({f"weight_ih_l{index}.npy": zeros[:1000000] for index in range(40)}, zipfile.ZIP_DEFLATED)
    mutations.assert_refuses(load, many, path, **limits)
    # Every entry of the directory points to the same data: the sum of what they claim is what counts.
    overlapping = directory_of_many(npz({"weight_ih_l0.npy": zeros[:1000000]}, zipfile.ZIP_DEFLATED), 1000)
    mutations.assert_refuses(load, overlapping, path, **limits)


def directory_of_many(data, count):
    """An archive of one entry with its directory's record `count` times, under names of the same length."""
    start = data.rindex(b"PK\1\2")
    end = data.rindex(b"PK\5\6")
    record = data[start:end]
    records = b"".join(record.replace(b"weight_ih_l0", b"weight_%05d" % index) for index in range(count))
    return data[:start] + records + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(records), start, 0)


@pytest.mark.parametrize("load", READERS)
def test_an_entry_that_reaches_into_the_directory(load, tmp_path):
    """Compressed data say themselves where they end, so an entry longer than its data reads without a fault."""
    data = npz({f"{name}.npy": npy(a) for name, a in layer().parameters.items()}
               | {"fastrnn.npy": npy(np.frombuffer(json.dumps(files.configuration(layer())).encode(), np.uint8))},
               zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        last = archive.infolist()[-1]
    (tmp_path / "model.npz").write_bytes(data)
    load(tmp_path / "model.npz")
    size = struct.pack("<I", last.compress_size)
    assert data.count(size) == 2                    # in the entry's header and in the directory
    longer = data.replace(size, struct.pack("<I", last.compress_size + 40))
    mutations.assert_refuses(load, longer, tmp_path / "model.npz", match="overlaps the archive's directory")


@pytest.mark.parametrize("load", READERS)
def test_odd_archives(load, tmp_path):
    path, data = tmp_path / "model.npz", own_npz()
    file = io.BytesIO(data)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("weight_ih_l0.npy", npy(np.zeros((9, 2), np.float32)))
    mutations.assert_refuses(load, file.getvalue(), path, "'weight_ih_l0.npy' is in the archive twice")
    start = data.index(b"PK\1\2")
    encrypted = data[:start + 8] + b"\1" + data[start + 9:]
    mutations.assert_refuses(load, encrypted, path, "encrypted")
    wrong_sum = data[:start + 16] + b"\0\0\0\0" + data[start + 20:]
    mutations.assert_refuses(load, wrong_sum, path, "CRC")
    elsewhere = data[:start + 42] + b"\xff\xff\xff\x7f" + data[start + 46:]
    mutations.assert_refuses(load, elsewhere, path)
    # Entries that leave the archive are names like any other: nothing is ever written.
    (tmp_path / "model.npz").write_bytes(own_npz({"../outside.txt": b"x", "/etc/x": b"x"}))
    load(tmp_path / "model.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


# ---- .safetensors -----------------------------------------------------------------------------------

def tensor(dtype="F32", shape=(2,), at=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}


A = "weight_ih_l0"
TENSORS = {
    "the same bytes twice": safetensors({A: tensor(), "b": tensor()}, bytes(8)),
    "overlap": safetensors({A: tensor(), "b": tensor(at=(4, 12))}, bytes(12)),
    "a hole before": safetensors({A: tensor(at=(8, 16))}, bytes(16)),
    "a hole between": safetensors({A: tensor(), "b": tensor(at=(16, 24))}, bytes(24)),
    "bytes left over": safetensors({A: tensor()}, bytes(16)),
    "bytes missing": safetensors({A: tensor()}, bytes(4)),
    "shape larger": safetensors({A: tensor(shape=(3,))}, bytes(8)),
    "shape smaller": safetensors({A: tensor(shape=(1,))}, bytes(8)),
    "product past 64 bits": safetensors({A: tensor(shape=(2**62, 2**62))}, bytes(8)),
    "bits past 64 bits": safetensors({A: tensor(shape=(2**62,), at=(0, 2**64 - 1))}, bytes(8)),
    "number past 64 bits": safetensors({A: tensor(shape=(2**64,))}, bytes(8)),
    "negative": safetensors({A: tensor(shape=(-2,))}, bytes(8)),
    "negative twice": safetensors({A: tensor(shape=(-1, -2))}, bytes(8)),
    "float": safetensors({A: tensor(shape=(2.0,))}, bytes(8)),
    "text": safetensors({A: tensor(shape=("2",))}, bytes(8)),
    "backwards": safetensors({A: tensor(at=(8, 0))}, bytes(8)),
    "negative offset": safetensors({A: tensor(at=(-8, 0))}, bytes(8)),
    "three offsets": safetensors({A: tensor(at=(0, 8, 8))}, bytes(8)),
    "100 axes": safetensors({A: tensor(shape=(2, *[1] * 100))}, bytes(8)),
    "unknown type": safetensors({A: tensor("Q32")}, bytes(8)),
    "type null": safetensors({A: tensor(None)}, bytes(8)),
    "no offsets": safetensors({A: {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "no object": safetensors({A: 3}, bytes(8)),
    "list": safetensors(b"[]"), "number": safetensors(b"{3}"), "no header": safetensors(b""),
    "name twice": safetensors(f'{{"{A}":{json.dumps(tensor())},"{A}":{json.dumps(tensor())}}}'.encode(), bytes(8)),
    "field twice": safetensors(f'{{"{A}":{{"dtype":"F32",{json.dumps(tensor())[1:]}}}'.encode(), bytes(8)),
    "metadata twice": safetensors(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata key twice": safetensors(b'{"__metadata__":{"fastrnn":"1","fastrnn":"2"}}'),
    "metadata of numbers": safetensors({"__metadata__": {"fastrnn": 3}}),
    "metadata no object": safetensors({"__metadata__": "fastrnn"}),
    "nested": safetensors(b'{"a":' * 100000), "lists": safetensors(b'{"a":' + b"[" * 100000),
    "not UTF-8": safetensors(b'{"\xff":3}'), "UTF-16": safetensors('{"a":3}'.encode("utf-16")),
    "length 2**63": struct.pack("<Q", 2**63) + b"{}", "length 2**64 - 1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "length past the end": struct.pack("<Q", 3) + b"{}", "length 100 MB": struct.pack("<Q", 10**8) + b"{}",
    "length 0": struct.pack("<Q", 0) + b"{}", "length into the data": safetensors({A: tensor()}, b"{}      ")[:-2],
}
# What is said where a part of the header is not there, or something else is in its place.
TENSOR_WORDS = {"no offsets": f"'{A}': expected dtype, shape and data_offsets, got {{'dtype': 'F32', 'shape': ",
                "no object": f"'{A}': expected dtype, shape and data_offsets, got 3",
                "list": "the header: expected entries by name"}


@pytest.mark.parametrize("about", TENSORS)
def test_tensor_headers_that_lie(about, tmp_path):
    path = tmp_path / "model.safetensors"
    for load in (fastrnn.load, interop.safetensors.layers):
        mutations.assert_refuses(load, TENSORS[about], path, TENSOR_WORDS.get(about, ""))


@pytest.mark.slow
def test_a_name_in_a_million(tmp_path):
    """Time and memory of a header full of names stay in proportion."""
    header = b'{"__metadata__":{' + b",".join(b'"%d":"%d"' % (index, index) for index in range(50000)) + b',"1":""}}'
    mutations.assert_refuses(interop.layers, safetensors(header), tmp_path / "model.safetensors", times=40)
    good = {f"t{index}": tensor("U8", (), (index, index + 1)) for index in range(20000)}
    data, path = safetensors(good, bytes(20000)), tmp_path / "model.safetensors"
    mutations.assert_refuses(interop.layers, data, path, "no recurrent layer: its arrays are t0 .* more", times=40)
    assert mutations.assert_refuses_or_loads(lambda path: interop.layers(path, {}), data, path, times=40) is None
