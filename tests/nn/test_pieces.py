"""Large files and arrays piece by piece: the same bytes, and an end between two pieces."""

import io
import zipfile

import numpy as np
import pytest

from fastrnn._base import pieces


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 64)


class Slow(io.BytesIO):
    """A file that notes how much each call asks for, and is interrupted after some of them."""

    calls = 1000

    def __init__(self, *data):
        super().__init__(*data)
        self.sizes = []

    def _count(self, size):
        self.sizes.append(size)
        if len(self.sizes) > self.calls:
            raise KeyboardInterrupt

    def readinto(self, buffer):
        self._count(len(buffer))
        return super().readinto(buffer)

    def write(self, data):
        self._count(len(data))
        return super().write(data)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 1000, 9000])
@pytest.mark.parametrize("asked", [0, 64, 65, 1000, 9000, 20000])
def test_a_file_is_read_in_pieces(size, asked):
    data = np.random.default_rng(0).bytes(size)
    file = Slow(data)
    assert pieces.read_in_pieces(file, asked) == data[:asked]
    assert max(file.sizes, default=0) <= 64


def test_an_entry_of_an_archive_is_read_in_pieces():
    data, file = np.random.default_rng(0).bytes(5000), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", data)
    with zipfile.ZipFile(file) as archive, archive.open("a") as entry:
        assert pieces.read_in_pieces(entry, 5001) == data


@pytest.mark.parametrize("data", [b"", b"x" * 64, bytes(range(256)), np.arange(100.0).reshape(5, 20), np.ones((0, 3)),
                                  np.array(True), np.arange(70, dtype=np.int8)])
def test_writing_in_pieces(data):
    file = Slow()
    pieces.write_in_pieces(file, data)
    assert file.getvalue() == (data if isinstance(data, bytes) else data.tobytes())
    assert max(file.sizes, default=0) <= 64


def test_an_interrupt_ends_reading_and_writing_between_two_pieces():
    file = Slow(bytes(1000))
    file.calls = 3
    with pytest.raises(KeyboardInterrupt):
        pieces.read_in_pieces(file, 1000)
    assert file.tell() == 3 * 64
    file = Slow()
    file.calls = 3
    with pytest.raises(KeyboardInterrupt):
        pieces.write_in_pieces(file, bytes(1000))
    assert len(file.getvalue()) == 3 * 64


@pytest.mark.parametrize("shape", [(), (1,), (1000,), (30, 7), (3, 50, 2), (0, 5), (5, 0)])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i1", "?"])
def test_copies(shape, dtype):
    values = np.random.default_rng(0).integers(-9, 9, shape)
    plain = np.asarray(values, dtype)
    for a in (plain, plain.copy(order="F"), plain[..., ::-1] if shape else plain):
        for wanted in (None, np.dtype(np.float32)):
            copy = pieces.copied(a, wanted)
            assert copy.dtype == (a.dtype if wanted is None else wanted) and copy.flags.c_contiguous
            assert not np.shares_memory(copy, a) and np.array_equal(copy, a.astype(copy.dtype))
        stored = pieces.as_stored(a)
        assert stored.tobytes() == a.astype(a.dtype.newbyteorder("<")).tobytes() and stored.flags.c_contiguous
        assert not shape or np.array_equal(pieces.stacked([a, a, a]), np.stack([a, a, a]))


@pytest.mark.parametrize("shape", [(), (1,), (1000,), (30, 7), (3, 50, 2), (0, 5), (5, 0)])
def test_functions_of_every_number(shape):
    a, sizes = np.asarray(np.random.default_rng(0).standard_normal(shape), np.float32), []

    def function(piece):
        sizes.append(piece.size)
        return piece * 2 - 1

    result = pieces.mapped(function, a, np.dtype(np.float64))
    assert result.dtype == np.float64 and np.array_equal(result, (a * 2 - 1).astype(np.float64))
    assert max(sizes) <= max(16, np.prod(shape[1:]))            # numbers in a piece of 64 bytes, or one row
