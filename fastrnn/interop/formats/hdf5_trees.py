"""The indexes and heaps of an HDF5 file, and the cursor that all of it is read through: what ``hdf5`` is made with."""

import itertools


class Cursor:
    """Walks bytes of the file; to run past their end is the file's fault."""

    __slots__ = ("file", "data", "at")

    def __init__(self, file, data):
        self.file, self.data, self.at = file, data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, size):
        if size > self.left():
            self.file.fail(f"a structure of {len(self.data)} bytes says it is longer")
        self.at += size
        return self.data[self.at - size:self.at]

    def uint(self, size):
        return int.from_bytes(self.take(size), "little")

    def length(self):
        return self.uint(self.file.length_size)

    def offset(self):
        """An address, or None for the undefined one (all bits set)."""
        raw = self.take(self.file.offset_size)
        return None if raw == b"\xff" * len(raw) else int.from_bytes(raw, "little")

    def padded(self, size):
        """A stretch that is filled up to a multiple of 8."""
        value = self.take(size)
        self.take(min(-size % 8, self.left()))
        return Cursor(self.file, value)

    def text(self, size):
        return bytes(self.take(size)).partition(b"\0")[0].decode("utf-8", "replace")

    def expect(self, signature, *versions):
        """A signature, and a version after it."""
        found = bytes(self.take(len(signature)))
        if found != signature:
            self.file.fail(f"expected {signature.decode()}, found {found!r}")
        version = self.uint(1)
        if version not in versions:
            self.file.unsupported(f"{signature.decode()} of version {version}")
        return version


def leaves(file, address, kind, key_size):
    """(key, child) of every leaf entry of a version 1 B-tree, from left to right."""
    stack, seen = [(address, None)], set()
    while stack:
        address, level = stack.pop()
        if address in seen:
            file.fail("a B-tree with a cycle")
        seen.add(address)
        head = file.cursor(address, 8 + 2 * file.offset_size, "B-tree")
        if head.take(4) != b"TREE" or head.uint(1) != kind:
            file.fail(f"no B-tree node of type {kind} at {address}")
        found, count = head.uint(1), head.uint(2)
        if level is not None and found != level:
            file.fail(f"a B-tree node of level {found} where {level} was due")
        body = file.cursor(address + len(head.data), count * (key_size + file.offset_size), "B-tree")
        entries = [(body.take(key_size), body.offset()) for _ in range(count)]
        if found:
            stack += [(child, found - 1) for _, child in reversed(entries)]
        else:
            yield from ((Cursor(file, key), child) for key, child in entries)


def records(file, address, kind, record_size):
    """The records of a version 2 B-tree, in no order."""
    head = file.cursor(address, 16 + file.offset_size + 2, "B-tree")
    head.expect(b"BTHD", 0)
    found, node_size, size, depth = head.uint(1), head.uint(4), head.uint(2), head.uint(2)
    if (found, size) != (kind, record_size) or depth > 32 or node_size < 64:
        file.fail(f"a B-tree of type {found}, records of {size} bytes, depth {depth}; expected type {kind}")
    head.take(2)
    # A pointer to a child has its address, its count of records and, above its leaves, that of all below it, in as
    # few bytes as the largest such count needs.
    most = total = (node_size - 10) // size
    pointers = [0]
    for level in range(1, depth + 1):
        widths = [(most.bit_length() + 7) // 8, (total.bit_length() + 7) // 8 if level > 1 else 0]
        pointers.append(widths)
        most = max((node_size - 10 - file.offset_size - sum(widths)) // (size + file.offset_size + sum(widths)), 0)
        total = (most + 1) * total + most
    root = head.offset()
    stack = [(root, head.uint(2), depth)] if root is not None else []
    while stack:
        address, count, level = stack.pop()
        width = file.offset_size + sum(pointers[level]) if level else 0
        body = file.cursor(address, 6 + count * size + (count + 1) * width, "B-tree")
        body.expect(b"BTIN" if level else b"BTLF", 0)
        body.take(1)
        yield from [body.take(size) for _ in range(count)]
        for _ in range(count + 1 if level else 0):
            child, below = body.offset(), body.uint(pointers[level][0])
            body.take(pointers[level][1])
            stack.append((child, below, level - 1))


class FractalHeap:
    """Objects by their offset in a space of blocks that double in size row by row."""

    def __init__(self, file, address):
        L, O = file.length_size, file.offset_size
        head = file.cursor(address, 22 + 12 * L + 3 * O, "fractal heap")
        head.expect(b"FRHP", 0)
        head.take(2)
        if head.uint(2):
            file.unsupported("filters of a fractal heap")
        head.take(1)
        largest = head.uint(4)
        head.take(10 * L + 2 * O)
        self.file, self.width = file, head.uint(2)
        self.first, self.largest = head.length(), head.length()
        bits, _, self.root, self.rows = head.uint(2), head.take(2), head.offset(), head.uint(2)
        if any(n < 1 or n & n - 1 for n in (self.width, self.first, self.largest)) or not 0 < bits <= 64 or not largest:
            file.fail("a fractal heap whose blocks do not double")
        self.offset_bytes = (bits + 7) // 8
        self.length_bytes = min((self.largest.bit_length() + 6) // 8, (largest.bit_length() - 1) // 8 + 1)

    def object(self, identity):
        flags = identity.uint(1)
        if flags & 0xf0:
            self.file.unsupported("huge or tiny object of a fractal heap")
        offset, size = identity.uint(self.offset_bytes), identity.uint(self.length_bytes)
        address, rows, O = self.root, self.rows, self.file.offset_size
        block = self.first
        while rows:                                             # an indirect block: the addresses of rows of blocks
            row = (offset // (self.width * self.first)).bit_length()
            block = self.first << max(row - 1, 0)
            offset -= self.width * block if row else 0
            column, offset = divmod(offset, block)
            if row >= rows:
                self.file.fail("an object beyond its fractal heap")
            head = self.file.cursor(address, 5 + O, "fractal heap")
            head.expect(b"FHIB", 0)
            entry = address + 5 + O + self.offset_bytes + (row * self.width + column) * O
            address = self.file.cursor(entry, O, "fractal heap").offset()
            rows = 0 if block <= self.largest else (block // (self.width * self.first)).bit_length()
        if address is None or offset + size > block:
            self.file.fail("an object beyond its block of a fractal heap")
        return self.file.cursor(address + offset, size, "object of a fractal heap")


def global_heap(file, address):
    """(index, (address, size)) of the objects of a global heap's collection."""
    head = file.cursor(address, 8 + file.length_size, "global heap")
    head.expect(b"GCOL", 1)
    head.take(3)
    end = address + head.length()
    at = address + len(head.data)
    while at + 8 + file.length_size <= end:
        head = file.cursor(at, 8 + file.length_size, "global heap")
        index = head.uint(2)
        if not index:                                           # what is left is free
            return
        head.take(6)
        size = head.length()
        at += len(head.data)
        yield index, (at, size)
        at += size + -size % 8


def fixed_array(file, address, size, filtered):
    """(address, size, mask) of each chunk that a fixed array lists: in one block, or in pages of it."""
    if address is None:
        return
    head = file.cursor(address, 8 + file.length_size + file.offset_size, "fixed array")
    head.expect(b"FAHD", 0)
    head.take(1)
    entry, page, count, block = head.uint(1), 1 << head.uint(1), head.length(), head.offset()
    width = entry - file.offset_size - 4 if filtered else 0
    if entry != file.offset_size + (width + 4 if filtered else 0) or not 0 <= width <= 8:
        file.fail(f"a fixed array of entries of {entry} bytes")
    if block is None:
        return
    file.cursor(block, 6 + file.offset_size, "fixed array").expect(b"FADB", 0)
    at, pages = block + 6 + file.offset_size, None
    if count > page:                            # pages; before them a bit for each that was written, and a checksum
        pages = file.cursor(at, (count + 8 * page - 1) // (8 * page) + 4, "fixed array").data
        at += len(pages)
    for first in range(0, count, page):
        here, i = min(page, count - first), first // page
        if pages is None or pages[i // 8] & 128 >> i % 8:
            body = file.cursor(at, here * entry, "fixed array")
            for _ in range(here):
                child = body.offset()
                yield child, *((body.uint(width), body.uint(4)) if filtered else (size, 0))
        else:
            yield from itertools.repeat((None, 0, 0), here)
        at += here * entry + 4                                  # checksum
