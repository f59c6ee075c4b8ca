"""The HDF5 reader against h5py, which writes every file here: what it reads, what it refuses by name, what breaks."""

import functools
import io
import itertools
import struct

import h5py
import mutations
import numpy as np
import pytest

from fastrnn import ModelFormatError
from fastrnn._base import reading
from fastrnn.interop.formats import hdf5

LIBVERS = ["earliest", "v108", "v110", "v112", "latest"]
FILTERS = [{}, {"shuffle": True}, {"compression": "gzip"}, {"fletcher32": True},
           {"compression": "gzip", "compression_opts": 9, "shuffle": True, "fletcher32": True}]
rng = np.random.default_rng(0)


@pytest.fixture(params=LIBVERS)
def write(request):
    """fill(file), which writes with h5py -> the bytes of the file."""
    return functools.partial(h5_bytes, libver=request.param)


def h5_bytes(fill, **options):
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        fill(file)
    return stream.getvalue()


def as_written(value):
    """What h5py gives, in this reader's terms: strings are bytes, enumerations their integers."""
    value = np.array(value, object if type(value) in (bytes, str) else None)
    if value.dtype == object:
        flat = [text.encode() if isinstance(text, str) else text for text in value.ravel()]
        return np.array([*flat, None], object)[:-1].reshape(value.shape)
    return value.astype(np.int8) if value.dtype == bool else value


def assert_same(got, want):
    want = as_written(want)
    assert got.shape == want.shape
    assert got.dtype == want.dtype, f"{got.dtype}, written as {want.dtype}"
    assert got.tolist() == want.tolist() if want.dtype == object else got.tobytes() == want.tobytes()


def assert_reads_as_h5py(data):
    """Every group, dataset and attribute."""
    def compare(node, group):
        assert set(node.attributes) == set(group.attrs)
        for name in group.attrs:
            assert_same(node.attributes[name], group.attrs[name])
        if isinstance(group, h5py.Dataset):
            assert_same(node.read(), group[()])
            assert (node.shape, node.dtype) == (group.shape, as_written(group[()]).dtype)
        else:
            assert sorted(node) == sorted(group)
            for name in group:
                compare(node[name], group[name])
    root = hdf5.File(data).root
    with h5py.File(io.BytesIO(data)) as file:
        compare(root, file)
    return root


# ---- What is read -------------------------------------------------------------------------------------

def test_numbers_of_every_type_and_shape(write):
    def fill(file):
        for dtype, shape in itertools.product(
                ["i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "?"],
                [(), (1,), (0, 3), (7,), (2, 3, 4)]):
            file[f"{dtype}/{shape}"] = (100 * rng.standard_normal(shape)).astype(dtype)
        file["opaque"] = np.array([b"ab", b"cd"], "V2")
    assert_reads_as_h5py(write(fill))


def test_strings(write):
    def fill(file):
        file["fixed"] = np.array([[b"a", b"bcd"], [b"", b"efgh"]])
        file["variable"] = np.array([["a", ""], ["ä" * 500, "1"]], h5py.string_dtype())
        file.create_dataset("chunked", data=["one", "two", "three"] * 9, dtype=h5py.string_dtype(), chunks=(4,))
        file["scalar"] = "text"
        file["bytes"] = np.bytes_(b"text")
    assert_reads_as_h5py(write(fill))


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "none")
@pytest.mark.parametrize("shape, chunks", [((20,), (20,)), ((20,), (7,)), ((13, 9), (4, 5)), ((3, 4, 5), (2, 4, 3)),
                                           ((1100,), (1,)), ((9, 9), (20, 20))])
def test_chunks_and_filters(write, shape, chunks, filters):
    def fill(file):
        options = {"chunks": chunks, **filters} if max(np.array(chunks) - shape) <= 0 else {
            "chunks": chunks, "maxshape": chunks, **filters}
        for dtype in ("<f4", ">f8", "i2"):
            file.create_dataset(f"all {dtype}", data=(100 * rng.random(shape)).astype(dtype), **options)
            partly = file.create_dataset(f"partly {dtype}", shape, dtype, fillvalue=3, **options)
            partly[tuple(slice(n // 3) for n in shape)] = 5
    assert_reads_as_h5py(write(fill))


def test_layouts_and_fill_values(write):
    def fill(file):
        for layout in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS):
            made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            made.set_layout(layout)
            space = h5py.h5s.create_simple((3, 4))
            dataset = h5py.h5d.create(file.id, b"layout %d" % layout, h5py.h5t.IEEE_F32LE, space, made)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, rng.random((3, 4), np.float32))
        for name, value in (("zeros", None), ("value", 2.5)):
            file.create_dataset(f"unwritten {name}", (4, 2), "f4", fillvalue=value)
            file.create_dataset(f"unwritten {name}, chunked", (4, 2), "f4", fillvalue=value, chunks=(2, 2))
            file.create_dataset(f"unwritten {name}, of no chunk yet", (0, 2), "f4", chunks=(2, 2), maxshape=(8, 2))
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        early.set_chunk((2, 3))
        space = h5py.h5s.create_simple((5, 4))
        dataset = h5py.h5d.create(file.id, b"allocated early", h5py.h5t.IEEE_F32LE, space, early)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, rng.random((5, 4), np.float32))
    assert_reads_as_h5py(write(fill))


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 8, 9, 40, 600])
def test_links(write, count):
    def fill(file):
        for i in range(count):
            file[f"group/{'a longer name ' * (i % 3)}{i}"] = float(i)
            file[f"group {i}/inner/innermost"] = i
    root = assert_reads_as_h5py(write(fill))
    if count:
        assert root["group 0/inner/innermost"].read() == 0 and "group 0/inner" in root
    assert "nothing" not in root and "group 0/nothing/more" not in root and "group 0/inner/innermost/x" not in root
    with pytest.raises(KeyError, match="nothing"):
        root["nothing"]


@pytest.mark.parametrize("count", [1, 8, 9, 300])
def test_attributes(write, count):
    def fill(file):
        for where in (file, file.create_group("group"), file.create_dataset("dataset", data=[1.0])):
            for i in range(count):
                where.attrs[f"a{i}"] = [1.5 * i] * (i % 7)
            where.attrs["names"] = [b"lstm_1", b"lstm_10"]
            where.attrs["texts"] = ["one", "", "ä"]
            where.attrs["text"] = "t" * 70000
            where.attrs["bytes"] = np.bytes_(b"b" * 300)
            where.attrs["matrix"] = np.arange(6, dtype=">i2").reshape(2, 3)
            where.attrs["nothing"] = []
    assert_reads_as_h5py(write(fill))


@pytest.mark.parametrize("order", [False, True])
def test_long_attributes_and_kept_order(write, order):
    def fill(file):
        group = file.create_group("g", track_order=order)
        group.attrs["long"] = np.array([b"x" * 30] * 2000)
        for i in range(12):
            group[f"d{11 - i}"] = i
    assert_reads_as_h5py(write(fill))


@pytest.mark.parametrize("size", [512, 4096])
@pytest.mark.parametrize("libver", LIBVERS)
def test_a_block_of_the_user_may_stand_first(libver, size, tmp_path):
    with h5py.File(tmp_path / "model.h5", "w", libver=libver, userblock_size=size) as file:
        small(file)
    data = (tmp_path / "model.h5").read_bytes()
    assert data[:8] != hdf5.SIGNATURE
    assert_reads_as_h5py(data)


def test_any_datasets(write):
    """Random types, shapes, chunks and filters."""
    own = np.random.default_rng(1)

    def fill(file):
        for i in range(60):
            shape = tuple(own.integers(1, 12, own.integers(1, 4)).tolist())
            options = {}
            if own.integers(3):
                options = {"chunks": tuple(int(own.integers(1, n + 1)) for n in shape),
                           **FILTERS[own.integers(len(FILTERS))]}
            dtype = ["i1", "<u2", ">i4", "<f2", "<f4", ">f4", "<f8"][own.integers(7)]
            file.create_dataset(f"group {i % 9}/{i}", data=(50 * own.standard_normal(shape)).astype(dtype), **options)
    assert_reads_as_h5py(write(fill))


def test_reading_twice_gives_the_same():
    root = hdf5.File(h5_bytes(lambda file: file.create_dataset("a", data=np.arange(9.0), chunks=(2,)))).root
    assert root["a"] is root["a"]
    assert np.array_equal(root["a"].read(), root["a"].read())


@pytest.mark.parametrize("raw", [b"", b"a", b"\xff" * 7, bytes(100), bytes(range(256)) * 600])
def test_fletcher32(raw):
    """Against the definition, word by word; HDF5 writes 65535 for a sum that is a multiple of it, but for no data."""
    low = high = 0
    for at in range(0, len(raw), 2):
        word = raw[at] << 8 | (raw[at + 1] if at + 1 < len(raw) else 0)
        low += word
        high += low
    expected = sum((n % 65535 or 65535 * (n > 0)) << shift for n, shift in ((low, 0), (high, 16)))
    assert hdf5.fletcher32(raw) == expected


# ---- What is refused by name --------------------------------------------------------------------------

COMPOUND = np.dtype([("a", "f4"), ("b", "i4")])
UNREAD = {
    "compound": lambda file: file.create_dataset("d", data=np.zeros(2, COMPOUND)),
    "reference": lambda file: file.create_dataset("d", data=[file.ref], dtype=h5py.ref_dtype),
    "array": lambda file: file.create_dataset("d", (1,), np.dtype(("f4", (2,)))),
    "variable-length": lambda file: file.create_dataset("d", (1,), h5py.vlen_dtype("i4")),
    "float of 16 bytes": lambda file: file.create_dataset("d", data=np.zeros(2, np.longdouble)),
    "null dataspace": lambda file: file.create_dataset("d", data=h5py.Empty("f4")),
    "filter lzf": lambda file: file.create_dataset("d", data=np.zeros(8), chunks=(4,), compression="lzf"),
    "filter scale-offset": lambda file: file.create_dataset("d", data=np.zeros(8, int), chunks=(4,), scaleoffset=0),
    "external files": lambda file: file.create_dataset("d", (4,), "f4", external=[("elsewhere", 0, 16)]),
    "soft or external link 'd'": lambda file: file.__setitem__("d", h5py.SoftLink("/other")),
    "soft or external link  'd'": lambda file: file.__setitem__("d", h5py.ExternalLink("elsewhere.h5", "/other")),
    "shared message": lambda file: (file.__setitem__("t", np.dtype("f4")),
                                    file.create_dataset("d", (3,), file["t"])),
}


@pytest.mark.parametrize("name", UNREAD)
def test_features_that_are_not_read_are_named(name):
    data = h5_bytes(UNREAD[name])
    with pytest.raises(ModelFormatError, match=f"HDF5 feature that is not read: .*{name.replace('  ', ' ')}"):
        hdf5.File(data).root["d"].read()


def test_virtual_datasets_and_growing_ones_are_named():
    def fill(file):
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("elsewhere.h5", "d", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("one", data=np.zeros(8), chunks=(2,), maxshape=(None,))
        file.create_dataset("two", data=np.zeros((8, 8)), chunks=(2, 2), maxshape=(None, None))
    root = hdf5.File(h5_bytes(fill, libver="v110")).root
    for name, what in (("virtual", "virtual layout"), ("one", "extensible array"), ("two", "version 2 B-tree")):
        with pytest.raises(ModelFormatError, match=f"not read: .*{what}"):
            root[name].read()


def test_an_unread_attribute_leaves_the_others():
    def fill(file):
        file.attrs["pair"] = np.zeros((), COMPOUND)
        file.attrs["number"] = 3.0
    attributes = hdf5.File(h5_bytes(fill)).root.attributes
    assert attributes["number"] == 3.0
    with pytest.raises(ModelFormatError, match="compound"):
        attributes["pair"]


# ---- Broken files ---------------------------------------------------------------------------------------

def read_all(path):
    """Everything in a file; the first error, when all was tried."""
    errors, seen = [], set()

    def attempt(call):
        try:
            return call()
        except ModelFormatError as error:
            errors.append(error)

    def walk(node):
        if id(node) not in seen:
            seen.add(id(node))
            for name in node.attributes:
                attempt(lambda: node.attributes[name])                                  # noqa: B023
            if isinstance(node, hdf5.Dataset):
                attempt(node.read)
            for name in node if isinstance(node, hdf5.Group) else ():
                child = attempt(lambda: node[name])                                     # noqa: B023
                if child is not None:
                    walk(child)
    walk(hdf5.File(reading.read_bytes(path), path).root)
    if errors:
        raise errors[0]


def small(file):
    """A bit of everything."""
    file["data"] = np.arange(5.0)
    file.create_dataset("packed", data=rng.random((6, 5)), chunks=(4, 3), compression="gzip", shuffle=True,
                        fletcher32=True)
    file.create_dataset("unwritten", (3, 3), "f4", fillvalue=1)
    file["group/inner"] = np.array(["a", "bc"], h5py.string_dtype())
    file["group"].attrs["names"] = [b"lstm", b"gru"]
    file.attrs["text"] = '{"class_name": "Sequential"}'
    for i in range(9):
        file.create_group(f"many/{i}").attrs["i"] = i


@pytest.fixture(scope="module", params=["earliest", "v108", "latest"])
def good(request, tmp_path_factory):
    data = h5_bytes(small, libver=request.param)
    path = tmp_path_factory.mktemp("good") / "good.h5"
    path.write_bytes(data)
    read_all(path)
    return data


LIMITS = {"times": reading.EXPANSION + 2 * hdf5.STRUCTURE}


@pytest.mark.slow
def test_truncated_anywhere(good, tmp_path):
    path = tmp_path / "broken.h5"
    for broken in mutations.truncations(good, 1024):
        mutations.assert_refuses(read_all, broken, path, **LIMITS)
    for broken in mutations.truncations(good, step=37):
        mutations.assert_refuses_or_loads(read_all, broken, path, **LIMITS)


@pytest.mark.slow
def test_mutations(good, tmp_path):
    for broken in mutations.mixed(good, mutations.generator(2), mutations.COUNT // 5):
        mutations.assert_refuses_or_loads(read_all, broken, tmp_path / "broken.h5", **LIMITS)


def patched(data, at, value, size=8):
    return data[:at] + value.to_bytes(size, "little") + data[at + size:]


def assert_refused(data, path, match):
    mutations.assert_refuses(read_all, data, path, match, seconds=10, **LIMITS)


@pytest.fixture
def broken(tmp_path):
    return tmp_path / "broken.h5"


def test_a_cyclic_b_tree(broken):
    data = h5_bytes(lambda file: [file.create_group(f"g{i:03}") for i in range(300)])
    nodes = [at for at in range(len(data)) if data[at:at + 5] == b"TREE\0"]
    root = next(at for at in nodes if data[at + 5] > 0)
    for child in (root, nodes[0]):                              # itself; any other, twice
        cyclic = data
        for entry in range(struct.unpack_from("<H", data, root + 6)[0]):
            cyclic = patched(cyclic, root + 24 + 8 + 16 * entry, child)
        assert_refused(cyclic, broken, "B-tree")


@pytest.mark.parametrize("libver", ["v108", "latest"])
def test_lying_counts_of_a_new_b_tree(broken, libver):
    data = h5_bytes(lambda file: [file.create_group(f"g{i:03}") for i in range(300)], libver=libver)
    at = data.index(b"BTHD")
    for size, offset, value in ((2, 12, 33), (2, 12, 2 ** 16 - 1), (4, 6, 8), (2, 10, 0), (8, 16, 2 ** 60),
                                (2, 24, 2 ** 16 - 1)):
        assert_refused(patched(data, at + offset, value, size), broken, "B-tree|not read|expected|not in the file")
    at = data.index(b"FRHP")
    for offset, value in ((5, 1), (7, 1), (110, 3), (112, 3), (112, 0), (128, 0), (128, 255)):
        mutations.assert_refuses_or_loads(read_all, patched(data, at + offset, value, 2), broken, **LIMITS)


def test_an_object_header_that_goes_on_in_itself(broken):
    data = h5_bytes(lambda file: [file.attrs.create(f"a{i}", i) for i in range(8)])
    continued = next(at for at in range(0, len(data) - 24, 8) if data[at:at + 4] == b"\x10\0\x10\0")
    target = struct.unpack_from("<Q", data, continued + 8)[0]
    block = data[:target] + data[continued:continued + 24] + data[target + 24:]
    assert_refused(patched(block, target + 8, target), broken, "goes on in itself")


def dataspace(data, shape):
    """Where the sizes of this shape stand."""
    at = data.index(struct.pack(f"<{len(shape)}Q", *shape))
    assert data.count(struct.pack(f"<{len(shape)}Q", *shape)) >= 1
    return at


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("options", [{}, {"chunks": (7, 3)}, {"chunks": (7, 3), "compression": "gzip"}])
@pytest.mark.parametrize("rows", [10 ** 6, 10 ** 9, 2 ** 40, 2 ** 63, 2 ** 64 - 1])
def test_lying_shapes(broken, rows, options, written):
    def fill(file):
        dataset = file.create_dataset("d", (77, 3), "f4", fillvalue=1.5, **options)
        if written:
            dataset[...] = 2
    data = h5_bytes(fill)
    assert_refused(patched(data, dataspace(data, (77, 3)), rows), broken, "far larger|array of shape|bytes")


@pytest.mark.parametrize("kind", ["strings", "v110", "latest"])
def test_nothing_is_kept_of_a_huge_shape_without_elements(kind, broken):
    """Of no rows, and as many columns as would fill the memory if they were counted: strings, and grids of chunks."""
    if kind == "strings":
        data = h5_bytes(lambda file: file.create_dataset("d", (0, 2 ** 30), dtype=h5py.string_dtype()))
    else:
        data = h5_bytes(lambda file: file.create_dataset("d", (3, 4000), "f4", chunks=(1, 1)), libver=kind)
        at = dataspace(data, (3, 4000))
        data = patched(patched(data, at, 0), at + 8, 2 ** 30)
    broken.write_bytes(data)
    with mutations.bounded(1 << 20, 30):
        assert hdf5.File(reading.read_bytes(broken)).root["d"].read().shape == (0, 2 ** 30)


def test_a_chunk_that_unpacks_to_far_more(broken):
    data = h5_bytes(lambda file: file.create_dataset("d", data=np.zeros((2000, 1000), "f4"), chunks=(2000, 1000),
                                                     compression="gzip"))
    assert len(data) < 20000
    assert_refused(data, broken, "far larger than the file")


@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
def test_chunks_of_other_dimensions(broken, libver):
    data = h5_bytes(lambda file: file.create_dataset("d", data=np.arange(15.0).reshape(3, 5), chunks=(3, 5),
                                                     fletcher32=True), libver=libver)
    at = data.index(struct.pack("<3I", 3, 5, 8)) - 9 if libver == "earliest" else data.index(bytes([3, 1, 3, 5, 8]))
    assert data[at] == 3
    for dimensions in (0, 1, 2, 4, 255):
        assert_refused(patched(data, at, dimensions, 1), broken, "chunks of|longer")


def test_a_chunk_of_a_large_array(broken):
    """The array is small; its chunk says it is not."""
    data = h5_bytes(lambda file: file.create_dataset("d", data=np.zeros((3, 5)), chunks=(3, 5), compression="gzip"))
    at = data.index(struct.pack("<3I", 3, 5, 8))
    assert_refused(patched(data, at, 2 ** 31, 4), broken, "far larger|bytes")
    assert_refused(patched(data, at, 0, 4), broken, "chunks")
    assert_refused(patched(data, at + 8, 4, 4), broken, "chunks")


def test_many_references_to_one_long_string(broken):
    def fill(file):
        strings = file.create_dataset("d", (3000,), h5py.string_dtype())
        strings[0] = "x" * 60000
        strings[1:] = "y"
        fill.at = strings.id.get_offset()
    data = h5_bytes(fill)
    reference = data[fill.at:fill.at + 16]
    assert_refused(data[:fill.at] + reference * 3000 + data[fill.at + 16 * 3000:], broken, "far larger")
    assert_refused(patched(data, fill.at, 60001, 4), broken, "string of 60001 bytes")
    assert_refused(patched(data, fill.at + 12, 60001, 4), broken, "global heap")


def test_many_links_of_one_long_name(broken):
    def fill(file):
        file.create_group("n" * 60000)
        for i in range(2000):
            file.create_group(f"{i}", track_order=False)
    data = h5_bytes(fill)
    heap = data.index(b"n" * 60000)
    first = struct.unpack_from("<Q", data, data.index(b"HEAP") + 24)[0]
    entries = [at + 8 + 40 * i for at in range(len(data)) if data[at:at + 4] == b"SNOD"
               for i in range(struct.unpack_from("<H", data, at + 6)[0])]
    changed = bytearray(data)
    for at in entries:
        changed[at:at + 8] = (heap - first).to_bytes(8, "little")
    assert_refused(bytes(changed), broken, "again and again")


def test_one_object_under_many_names(broken):
    """2^60 paths lead through it; objects are read once."""
    def fill(file):
        for i in range(60):
            file.create_group(f"{i}")
        for i in range(59):
            for name in "ab":
                file[f"{i}/{name}"] = file[f"{i + 1}"]
        file["59/end"] = 1.0
    broken.write_bytes(h5_bytes(fill))
    with mutations.alarm(10):
        read_all(broken)


@pytest.mark.parametrize("options", [{}, {"fletcher32": True}], ids=str)
def test_lying_pages_of_chunks(broken, options):
    """A fixed array in pages, most of which were never written: more of them, larger ones."""
    def fill(file):
        file.create_dataset("d", (3000,), "f4", chunks=(1,), **options)[5] = 1
    data = h5_bytes(fill, libver="v110")
    at = data.index(b"FAHD")
    for bits, count in itertools.product((0, 1, 10, 33, 61, 255), (3000, 2 ** 32, 2 ** 40, 2 ** 63)):
        lying = patched(patched(data, at + 7, bits, 1), at + 8, count)
        mutations.assert_refuses_or_loads(read_all, lying, broken, seconds=10, **LIMITS)
        lying = patched(lying, dataspace(data, (3000,)), count)
        if count > 3000:
            assert_refused(lying, broken, "far larger|array of shape|not in the file")


def test_enumerations_of_enumerations():
    file = hdf5.File(h5_bytes(small))
    with pytest.raises(ModelFormatError, match="enumeration"):
        hdf5.Type(hdf5.Cursor(file, memoryview(b"\x38\0\0\0\1\0\0\0" * 9000)))


@pytest.mark.parametrize("options", [{}, {"chunks": (1000,)}], ids=str)
def test_strings_that_were_never_written(broken, options):
    data = h5_bytes(lambda file: file.create_dataset("d", (7001,), h5py.string_dtype(), **options))
    assert_refused(data, broken, "again and again|far larger")


def test_a_filter_that_fails(broken):
    def fill(file):
        for name, options in (("gzip", {"compression": "gzip"}), ("sum", {"fletcher32": True})):
            dataset = file.create_dataset(name, data=np.arange(500.0), chunks=(500,), **options)
            fill.at[name] = dataset.id.get_chunk_info(0).byte_offset
    fill.at = {}
    data = h5_bytes(fill)
    assert_refused(patched(data, fill.at["gzip"], 2 ** 64 - 1), broken, "chunk: ")
    assert_refused(patched(data, fill.at["sum"], 1), broken, "fletcher32")


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", bytes(2000), b"\x89HDF\r\n\x1a\n" + bytes(2000),
                                  b"\x89HDF\r\n\x1a\n" + b"\xff" * 2000, b"\x89HDF\r\n\x1a\n\2\x08\x08" + bytes(2000)])
def test_what_is_no_hdf5_file(data, broken):
    assert_refused(data, broken, "HDF5|object|expected|superblock|addresses|longer|not in the file")
