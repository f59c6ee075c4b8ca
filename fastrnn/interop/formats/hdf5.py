"""HDF5 as far as h5py writes it for Keras, read with NumPy alone.

libhdf5 trusts what it reads: a damaged file can crash the process or take all of its memory. This reader checks every
address and length before it uses them, and bounds what one file may cost: structures are walked at most
``STRUCTURE`` times the file's size in all, and contents handed out are at most ``files.EXPANSION`` times it, so that
neither cycles, nor many references to one place, nor compression, nor unwritten data make more of it.

Read: superblocks 0 to 3; object headers 1 and 2; groups as symbol tables, compact and dense links; attributes in the
header and dense; integers, floats, enumerations, opaque data, fixed and variable-length strings; contiguous, compact
and chunked data (version 1 B-tree, single chunk, implicit, fixed array) with deflate, shuffle and fletcher32. All else
is a ModelFormatError that names it. Source: the HDF Group's "HDF5 File Format Specification", versions 1.1 to 3.0.
"""

from __future__ import annotations

import collections.abc
import functools
import math
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._base.reading import EXPANSION, ModelFormatError
from .hdf5_trees import Cursor, FractalHeap, fixed_array, global_heap, leaves, records

if TYPE_CHECKING:
    from ..._base.typing import Array, PathLike

SIGNATURE = b"\x89HDF\r\n\x1a\n"
STRUCTURE = 4               # an honest file's structures are each read once, and are a part of it

# Messages of object headers that mean something here.
DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LINK, EXTERNAL, LAYOUT = 1, 2, 3, 4, 5, 6, 7, 8
FILTERS, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 11, 12, 16, 17, 21
SINGLE = {DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, EXTERNAL, LAYOUT, FILTERS, SYMBOL_TABLE, ATTRIBUTE_INFO}

TYPES = ("integer", "float", "time", "string", "bit field", "opaque", "compound", "reference", "enumeration",
         "variable-length", "array", "complex")
FLOATS = {2: (0, 16, 10, 5, 0, 10, 15), 4: (0, 32, 23, 8, 0, 23, 127), 8: (0, 64, 52, 11, 0, 52, 1023)}
FILTER_NAMES = {4: "szip", 5: "nbit", 6: "scale-offset", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32015: "zstd"}
LAYOUTS = ("compact", "contiguous", "chunked", "virtual")
CHUNK_INDEXES = {1: "single chunk", 2: "implicit", 3: "fixed array", 4: "extensible array", 5: "version 2 B-tree"}


class File:
    """An HDF5 file in memory: ``File(data).root["group/dataset"].read()``.

    Parameters
    ----------
    data : bytes
    path : str or path-like
        For messages.
    limit : int, optional
        Bytes of contents that may be handed out in all; EXPANSION times the data if not given.

    Raises
    ------
    ModelFormatError
        Here and from everything found through it: data that are broken, or use a feature that is not read.

    >>> import io, h5py
    >>> file = io.BytesIO()
    >>> with h5py.File(file, "w") as h5:
    ...     h5["group/dataset"] = [1.0, 2.0]
    >>> File(file.getvalue()).root["group/dataset"].read()
    array([1., 2.])
    """

    def __init__(self, data: bytes, path: PathLike = "HDF5 data", limit: int | None = None) -> None:
        self.path = os.fspath(path)
        self._structure = STRUCTURE * len(data)
        self._contents = EXPANSION * len(data) if limit is None else limit
        self._objects, self._heaps = {}, {}
        start = 0                                               # a user's block of any power of 2 may stand first
        while data[start:start + 8] != SIGNATURE:
            start = start * 2 or 512
            if start > len(data):
                self.fail("not an HDF5 file")
        self._data = memoryview(data)[start:]
        head = self.cursor(0, 24, "superblock")
        head.take(8)
        version = head.uint(1)
        if version > 3:
            self.unsupported(f"superblock version {version}")
        head.take(4 if version < 2 else 0)
        self.offset_size, self.length_size = head.uint(1), head.uint(1)
        if not {self.offset_size, self.length_size} <= {2, 4, 8}:
            self.fail(f"addresses of {self.offset_size} bytes and lengths of {self.length_size}")
        at = (24, 28, 12, 12)[version]                          # of the base address, which is where it was found
        root = self.cursor(at, (6 if version < 2 else 4) * self.offset_size)
        root.take((5 if version < 2 else 3) * self.offset_size)
        self.root = self.object(root.offset())
        if not isinstance(self.root, Group):
            self.fail("the root is not a group")

    # ---- What every structure is read through ------------------------------------------------

    def fail(self, message):
        raise ModelFormatError(f"{self.path}: {message}")

    def unsupported(self, feature):
        self.fail(f"HDF5 feature that is not read: {feature}")

    def charge(self, contents=0, structure=0):
        """Counts bytes against what a file of this size may cost."""
        self._contents -= contents
        self._structure -= structure
        if self._contents < 0:
            self.fail("its contents are far larger than the file")
        if self._structure < 0:
            self.fail("its structures lead to the same place again and again")

    def span(self, address, size, what="data"):
        """`size` bytes at an address, checked to lie in the file."""
        if address is None or address + size > len(self._data):
            self.fail(f"{what}: {size} bytes at {address} are not in the file of {len(self._data)}")
        return self._data[address:address + size]

    def cursor(self, address, size, what="structure"):
        data = self.span(address, size, what)
        self.charge(structure=size)
        return Cursor(self, data)

    def object(self, address):
        """The Group or Dataset whose header is at an address; the same object each time."""
        if address not in self._objects:
            self._objects[address] = make_object(self, address)
        return self._objects[address]

    def heap_string(self, size, address, index):
        """A variable-length string: the first `size` bytes of an object of a global heap."""
        if not size:
            return b""
        if address not in self._heaps:
            self._heaps[address] = dict(global_heap(self, address))
        start, held = self._heaps[address].get(index, (0, 0))
        if size > held:
            self.fail(f"string of {size} bytes: object {index} of the global heap at {address} has {held}")
        self.charge(contents=size)
        return bytes(self.span(start, size))


# ---- Objects: groups, datasets, their attributes -----------------------------------------------------

def messages(file, address):
    """(type, is shared, body) of each message of an object header and of the blocks that continue it."""
    first = file.span(address, 1, "object header")[0]
    if first == 1:
        head = file.cursor(address, 16, "object header")
        head.take(8)
        blocks, shape = [(address + 16, head.uint(4))], 8
    else:
        head = file.cursor(address, 6, "object header")
        head.expect(b"OHDR", 2)
        flags = head.uint(1)
        at = address + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
        width = 1 << (flags & 3)
        blocks, shape = [(at + width, file.cursor(at, width).uint(width))], 6 if flags & 4 else 4
    seen = set()
    for start, size in blocks:                                  # grows as it is walked
        if start in seen:
            file.fail("an object header that goes on in itself")
        seen.add(start)
        block = file.cursor(start, size, "object header")
        if shape != 8 and len(seen) > 1:
            if block.take(4) != b"OCHK":
                file.fail("an object header goes on where no block is")
            block.data = block.data[:max(len(block.data) - 4, 4)]      # checksum
        while block.left() >= shape:
            if shape == 8:
                kind, length, flags = block.uint(2), block.uint(2), block.uint(1)
                block.take(3)
            else:
                kind, length, flags = block.uint(1), block.uint(2), block.uint(1)
                block.take(shape - 4)                           # order of creation
            body = Cursor(file, block.take(length))
            if kind == CONTINUATION:
                blocks.append((body.offset(), body.length()))
            elif kind:
                yield kind, bool(flags & 2), body


def make_object(file, address):
    attributes, links, parts = Attributes(file), {}, {}
    for kind, shared, body in messages(file, address):
        if kind == ATTRIBUTE:
            if shared:
                file.unsupported("shared attribute")
            attributes.add(body)
        elif kind == LINK:
            links.update([read_link(body)])
        elif kind in SINGLE:
            if shared:
                file.unsupported("shared message (such as a committed datatype)")
            parts[kind] = body
    if ATTRIBUTE_INFO in parts:
        body = parts[ATTRIBUTE_INFO]
        body.take(1)
        body.take(2 if body.uint(1) & 1 else 0)
        for found in dense(file, body.offset(), body.offset(), 8, 17, 0):
            attributes.add(found)
    if LAYOUT in parts:
        return Dataset(file, attributes, parts)
    if not {SYMBOL_TABLE, LINK_INFO} & set(parts) and not links:
        file.unsupported(f"object at {address} that is neither a group nor a dataset")
    if SYMBOL_TABLE in parts:
        links.update(symbol_table(file, parts[SYMBOL_TABLE]))
    if LINK_INFO in parts:
        body = parts[LINK_INFO]
        body.take(1)
        body.take(8 if body.uint(1) & 1 else 0)
        links.update(read_link(found) for found in dense(file, body.offset(), body.offset(), 5, 11, 4))
    return Group(file, attributes, links)


class Group(collections.abc.Mapping):
    """Name -> Group or Dataset; a path of names is followed. ``attributes``: name -> array."""

    def __init__(self, file, attributes, links):
        self._file, self.attributes, self._links = file, attributes, links

    def __getitem__(self, path):
        found = self
        for name in filter(None, path.split("/")):
            if not isinstance(found, Group) or name not in found._links:
                raise KeyError(path)
            address = found._links[name]
            if address is None:
                self._file.unsupported(f"soft or external link {name!r}")
            found = self._file.object(address)
        return found

    def __contains__(self, path):
        try:
            self[path]
        except KeyError:
            return False
        return True

    def __iter__(self):
        return iter(self._links)

    def __len__(self):
        return len(self._links)


class Merged(Group):
    """Several groups as one: what is under a name in any of them, groups under one name merged in turn."""

    def __init__(self, groups: list[Any], known: dict[tuple[int, ...], Any] | None = None) -> None:
        self._groups, self._children = groups, {}
        self._known = {} if known is None else known    # groups under many names are merged once
        self.attributes = next((group.attributes for group in groups if len(group.attributes)), groups[0].attributes)

    def __getitem__(self, path):
        found = self
        for name in filter(None, path.split("/")):
            if not isinstance(found, Group):
                raise KeyError(path)
            found = found._child(name) if isinstance(found, Merged) else found[name]
        return found

    def _child(self, name):
        if name not in self._children:
            children = [group[name] for group in self._groups if name in group]
            if not children:
                raise KeyError(name)
            if len(children) > 1 and not all(isinstance(child, Group) for child in children):
                raise ModelFormatError(f"{name!r:.200} is an array in one file, and is in another one, too")
            key = tuple(map(id, children))
            if key not in self._known:
                self._known[key] = Merged(children, self._known) if len(children) > 1 else children[0]
            self._children[name] = self._known[key]
        return self._children[name]

    def __iter__(self):
        return iter(dict.fromkeys(name for group in self._groups for name in group))

    def __len__(self):
        return len(list(iter(self)))


class Attributes(collections.abc.Mapping):
    """Name -> array, decoded when it is asked for; strings are bytes."""

    def __init__(self, file):
        self._file, self._bodies = file, {}

    def add(self, body):
        version, flags = body.uint(1), body.uint(1)
        if version not in (1, 2, 3):
            self._file.unsupported(f"attribute of version {version}")
        sizes = [body.uint(2) for _ in range(3)]
        body.take(1 if version == 3 else 0)                     # character set of the name
        take = body.padded if version == 1 else lambda size: Cursor(self._file, body.take(size))
        name = take(sizes[0]).text(sizes[0])
        self._bodies[name] = (flags if version > 1 else 0, take(sizes[1]), take(sizes[2]), body)

    def __getitem__(self, name):
        flags, datatype, dataspace, body = self._bodies[name]
        if flags & 3:
            self._file.unsupported(f"shared datatype of attribute {name!r}")
        kind, shape = Type(Cursor(self._file, datatype.data)), read_shape(Cursor(self._file, dataspace.data))
        return kind.read(Cursor(self._file, body.data[body.at:]).take(kind.size(shape)), shape)

    def __iter__(self):
        return iter(self._bodies)

    def __len__(self):
        return len(self._bodies)


# ---- Links, and where they are kept --------------------------------------------------------------------

def read_link(body):
    """(name, address of its object) of a link message; no address for soft and external links."""
    version, flags = body.uint(1), body.uint(1)
    if version != 1:
        body.file.unsupported(f"link message of version {version}")
    kind = body.uint(1) if flags & 8 else 0
    body.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))      # order of creation, character set
    name = body.text(body.uint(1 << (flags & 3)))
    return name, None if kind else body.offset()


def symbol_table(file, body):
    """(name, address) of the links of an old group: a B-tree of nodes of entries, whose names are in a local heap."""
    tree, heap = body.offset(), body.offset()
    head = file.cursor(heap, 8 + 2 * file.length_size + file.offset_size, "local heap")
    head.expect(b"HEAP", 0)
    head.take(3)
    size, _, start = head.length(), head.length(), head.offset()
    names = bytes(file.cursor(start, size, "local heap").data)
    for _, node in leaves(file, tree, 0, file.length_size):
        head = file.cursor(node, 8, "symbol table node")
        head.expect(b"SNOD", 1)
        head.take(1)
        count = head.uint(2)
        entries = file.cursor(node + 8, count * (2 * file.offset_size + 24), "symbol table node")
        for _ in range(count):
            at, address, kind, _ = entries.uint(file.offset_size), entries.offset(), entries.uint(4), entries.take(20)
            name = names[at:max(names.find(b"\0", at), at)]
            file.charge(structure=len(name))                    # many entries may bear one long name
            yield name.decode("utf-8", "replace"), None if kind == 2 else address


def dense(file, heap, tree, kind, record_size, skip):
    """The objects of a fractal heap that a version 2 B-tree lists: a record has `skip` bytes, then the object's ID."""
    if heap is None or tree is None:
        return
    heap = FractalHeap(file, heap)
    for record in records(file, tree, kind, record_size):
        yield heap.object(Cursor(file, record[skip:]))


# ---- Data ------------------------------------------------------------------------------------------------

def read_shape(body):
    version, rank, _ = body.uint(1), body.uint(1), body.uint(1)
    if version not in (1, 2):
        body.file.unsupported(f"dataspace of version {version}")
    if version == 2 and body.uint(1) == 2:
        body.file.unsupported("null dataspace")
    if rank > 32:
        body.file.fail(f"an array of {rank} dimensions")
    body.take(5 if version == 1 else 0)
    return tuple(body.length() for _ in range(rank))


class Type:
    """``stored``: the dtype of elements in the file; ``dtype``: as handed out, object for variable-length strings."""

    def __init__(self, body, of_enumeration=False):
        self._file = file = body.file
        first, bits, size = body.uint(1), body.uint(3), body.uint(4)
        kind, order = first & 15, ">" if bits & 1 else "<"
        stored = None
        if not 0 < size < 2 ** 31:
            file.fail(f"elements of {size} bytes")
        if kind == 0 and size in (1, 2, 4, 8) and (body.uint(2), body.uint(2)) == (0, 8 * size):
            stored = f"{order}{'i' if bits & 8 else 'u'}{size}"
        elif kind == 1 and size in FLOATS and not bits & 64 and struct.unpack("<2H4BI", body.take(12)) == FLOATS[size]:
            stored = f"{order}f{size}"
        elif kind in (3, 5):
            stored = f"{'S' if kind == 3 else 'V'}{size}"
        elif kind == 8 and not of_enumeration:                  # it is read as the integers it names
            stored = Type(body, of_enumeration=True).stored
        elif kind == 9 and bits & 15 == 1 and size == 8 + file.offset_size:
            stored = f"V{size}"
        if stored is None:
            file.unsupported(f"datatype {TYPES[kind] if kind < len(TYPES) else kind} of {size} bytes")
        self.stored = np.dtype(stored)
        self.dtype = np.dtype(object) if kind == 9 else self.stored

    def size(self, shape):
        """Bytes of an array, which it may cost."""
        if math.prod(n or 1 for n in shape) * self.stored.itemsize >= 2 ** 62:      # NumPy counts empty arrays so, too
            self._file.fail(f"an array of shape {shape}")
        size = math.prod(shape) * self.stored.itemsize
        self._file.charge(contents=size, structure=size if self.dtype == object else 0)
        return size

    def read(self, raw, shape):
        """The array whose elements are the bytes `raw`."""
        a = np.frombuffer(raw, self.stored, math.prod(shape)).reshape(shape)
        if self.dtype != object:
            return a
        strings = np.empty(a.size, object)
        for n, each in enumerate(a.reshape(-1)):
            element = Cursor(self._file, memoryview(each.tobytes()))
            strings[n] = self._file.heap_string(element.uint(4), element.offset(), element.uint(4))
        return strings.reshape(shape)


class Dataset:
    """``shape``, ``dtype``, ``attributes``; ``read()`` gives the array."""

    def __init__(self, file, attributes, parts):
        self._file, self.attributes, self._parts = file, attributes, parts
        if not {DATASPACE, DATATYPE} <= set(parts):
            file.fail("a dataset without shape or type")
        if EXTERNAL in parts:
            file.unsupported("data in external files")

    @functools.cached_property
    def shape(self):
        return read_shape(Cursor(self._file, self._parts[DATASPACE].data))

    @functools.cached_property
    def _type(self):
        return Type(Cursor(self._file, self._parts[DATATYPE].data))

    @property
    def dtype(self):
        return self._type.dtype

    def read(self) -> Array:
        """The data; read-only where they lie in the file in one piece.

        Every reading counts against what the file may cost.
        """
        body, size = Cursor(self._file, self._parts[LAYOUT].data), self._type.size(self.shape)
        version, kind = body.uint(1), body.uint(1)
        if version not in (3, 4, 5) or kind > 2:
            name = LAYOUTS[kind] if version in (3, 4, 5) and kind < len(LAYOUTS) else "data"
            self._file.unsupported(f"{name} layout of version {version}")
        if kind == 2:
            raw = self._chunked(body, version)
        elif kind == 1:
            address, stored = body.offset(), body.length()
            raw = self._unwritten() if address is None else self._file.span(address, min(size, stored))
        else:
            raw = body.take(body.uint(2))[:size]
        if len(raw) < size:
            self._file.fail(f"{len(raw)} bytes of data for an array of {size}")
        return self._type.read(raw, self.shape)

    def _unwritten(self):
        """Elements that no storage was given to: the fill value over and over, or zeros."""
        value = b""
        if FILL in self._parts:
            body = Cursor(self._file, self._parts[FILL].data)
            version = body.uint(1)
            if version == 3:
                defined = body.uint(1) & 32
            else:
                body.take(2)
                defined = body.uint(1) or version == 1
            value = body.take(body.uint(4)) if defined else b""
        elif OLD_FILL in self._parts:
            body = Cursor(self._file, self._parts[OLD_FILL].data)
            value = body.take(body.uint(4))
        itemsize, count = self._type.stored.itemsize, math.prod(self.shape)
        if len(value) not in (0, itemsize):
            self._file.fail(f"a fill value of {len(value)} bytes for elements of {itemsize}")
        return bytes(value) * count if len(value) else bytes(itemsize * count)

    def _chunked(self, body, version):
        stored, rank = self._type.stored, len(self.shape)
        flags = body.uint(1) if version > 3 else 0
        dimensions = body.uint(1)
        address = body.offset() if version == 3 else None
        width = 4 if version == 3 else body.uint(1)
        chunk = [body.uint(width) for _ in range(dimensions)]
        if len(chunk) != rank + 1 or not rank or chunk[-1] != stored.itemsize or not all(chunk):
            self._file.fail(f"chunks of {chunk} for {self.shape} elements of {stored.itemsize} bytes")
        itemsize = chunk.pop()
        filters = read_filters(Cursor(self._file, self._parts[FILTERS].data)) if FILTERS in self._parts else []
        size = math.prod(chunk) * itemsize
        if version == 3:
            found = self._tree(address, rank)
        else:
            grid = [-(-n // c) for n, c in zip(self.shape, chunk, strict=True)]
            found = self._index(body, flags, grid, chunk, size, bool(filters))
        a = np.frombuffer(bytearray(self._unwritten()), stored).reshape(self.shape)
        for offsets, at, length, mask in found:
            if any(o % c or o >= n for o, c, n in zip(offsets, chunk, self.shape, strict=True)):
                self._file.fail(f"a chunk at {offsets} of {self.shape} in steps of {chunk}")
            self._file.charge(contents=size + length)
            raw = unfilter(self._file, self._file.span(at, length, "chunk"), filters, mask, size)
            part = np.frombuffer(raw, stored, math.prod(chunk)).reshape(chunk)
            here = a[tuple(slice(o, o + c) for o, c in zip(offsets, chunk, strict=True))]
            here[...] = part[tuple(map(slice, here.shape))]
        return memoryview(a.reshape(-1).view(np.uint8))

    def _tree(self, address, rank):
        """(offsets, address, size, mask of filters left out) of each chunk, as a version 1 B-tree keeps them."""
        if address is not None:
            for key, child in leaves(self._file, address, 1, 8 + 8 * (rank + 1)):
                size, mask = key.uint(4), key.uint(4)
                yield [key.uint(8) for _ in range(rank)], child, size, mask

    def _index(self, body, flags, grid, chunk, size, filtered):
        """The same from the indexes of layout version 4, whose order is that of the chunks."""
        kind, file = body.uint(1), self._file
        if kind not in (1, 2, 3) or flags & 1:
            file.unsupported(f"chunk index {CHUNK_INDEXES.get(kind, kind)}, flags {flags}")
        offsets = _offsets(grid, chunk)
        if kind == 1:
            stored, mask = (body.length(), body.uint(4)) if flags & 2 else (size, 0)
            entries = [(body.offset(), stored, mask)]
        elif kind == 2:
            start = body.offset()
            entries = ((None if start is None else start + i * size, size, 0) for i in range(math.prod(grid)))
        else:
            body.take(1)
            entries = fixed_array(file, body.offset(), size, filtered)
        for at, (address, stored, mask) in zip(offsets, entries, strict=False):
            file.charge(structure=file.offset_size)             # what an entry takes, be it written or not
            if address is not None:
                yield at, address, stored, mask


def _offsets(grid, chunk):
    """Where the chunks of a grid begin, the last axis fastest. Nothing is kept of a grid that claims to be huge."""
    for n in range(math.prod(grid)):
        offsets = []
        for count, size in zip(reversed(grid), reversed(chunk), strict=True):
            n, i = divmod(n, count)
            offsets.append(i * size)
        yield offsets[::-1]


# ---- Filters ---------------------------------------------------------------------------------------------

def read_filters(body):
    """[(number, parameters)] in the order in which they were applied."""
    version, count = body.uint(1), body.uint(1)
    if version not in (1, 2):
        body.file.unsupported(f"filters of version {version}")
    body.take(6 if version == 1 else 0)
    filters = []
    for _ in range(count):
        number = body.uint(2)
        name = body.uint(2) if version == 1 or number >= 256 else 0
        body.take(2)
        values = body.uint(2)
        body.take(name + -name % 8 if version == 1 else name)
        filters.append((number, [body.uint(4) for _ in range(values)]))
        body.take(4 if version == 1 and values % 2 else 0)
        if number not in (1, 2, 3):
            body.file.unsupported(f"filter {FILTER_NAMES.get(number, number)}")
    return filters


def unfilter(file, raw, filters, mask, size):
    """The `size` bytes of a chunk from those that are stored."""
    for i, (number, values) in reversed(list(enumerate(filters))):
        if mask >> i & 1:
            continue
        if number == 1:
            try:
                raw = zlib.decompressobj().decompress(raw, size + 8)        # a checksum may have been put before
            except zlib.error as error:
                file.fail(f"chunk: {error}")
        elif number == 2:
            width = values[0] if values and values[0] else 1
            whole = len(raw) - len(raw) % width
            raw = np.frombuffer(raw, np.uint8, whole).reshape(width, -1).T.tobytes() + bytes(raw[whole:])
        else:
            if len(raw) < 4 or fletcher32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
                file.fail("a chunk whose fletcher32 checksum is another")
            raw = raw[:-4]
    if len(raw) < size:
        file.fail(f"a chunk of {len(raw)} bytes, expected {size}")
    return raw


def fletcher32(raw):
    """HDF5's checksum: both sums modulo 65535 over big-endian 16-bit words, 65535 rather than 0 but for no data."""
    words = np.frombuffer(bytes(raw) + bytes(len(raw) % 2), ">u2").astype(np.uint64)
    low = high = 0
    for block in np.array_split(words, len(words) // 65536 + 1):          # no sum passes 64 bits
        high += low * len(block) + int(block @ np.arange(len(block), 0, -1, np.uint64))
        low += int(block.sum())
    low, high = (n and (n - 1) % 65535 + 1 for n in (low, high))
    return high << 16 | low
