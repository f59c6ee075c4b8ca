"""How files are written: whole or not at all, errors by the caller's path, and nothing left behind by kills."""

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn import optim, training
from fastrnn._base import writing

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, devices and permissions")
unnamed = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs a system with unnamed files")


@pytest.fixture(params=["unnamed", "named"])
def drafts(request, monkeypatch):
    """Both kinds of drafts, on any system that has both."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no unnamed files")
    return request.param


def write(path, contents):
    with writing.replacing(path) as file:
        file.write(contents)


# ---- Whole or not at all ----------------------------------------------------------------------------

def test_a_file_is_made_and_replaced(drafts, tmp_path):
    path = tmp_path / "file"
    for contents in (b"first", b"", b"x" * 1_000_000):
        write(path, contents)
        assert path.read_bytes() == contents
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("where", ["join", "after"])
def test_an_interrupt_while_the_disk_takes_a_large_file(drafts, where, tmp_path, monkeypatch):
    """Before the draft is in its place the old file stays; an interrupt a moment later finds the new one, whole."""
    path, contents = tmp_path / "a", os.urandom(100_000)
    write(path, b"old")
    monkeypatch.setattr(writing, "PIECE", 1000)
    join, replace = threading.Thread.join, os.replace

    def interrupted(thread):
        join(thread)
        raise KeyboardInterrupt

    def replaced(*names):
        replace(*names)
        raise KeyboardInterrupt

    monkeypatch.setattr(*((threading.Thread, "join", interrupted) if where == "join" else (os, "replace", replaced)))
    with pytest.raises(KeyboardInterrupt):
        write(path, contents)
    monkeypatch.undo()
    assert path.read_bytes() == (b"old" if where == "join" else contents)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    write(path, contents)
    assert path.read_bytes() == contents


@posix
def test_permissions(drafts, tmp_path):
    """A new file has those that any new file has, and one that is replaced keeps its own."""
    path, other = tmp_path / "file", tmp_path / "other"
    write(path, b"new")
    other.write_bytes(b"")
    assert path.stat().st_mode == other.stat().st_mode
    path.chmod(0o640)
    write(path, b"newer")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_error_in_the_block_leaves_the_old_file(drafts, tmp_path):
    path = tmp_path / "file"
    write(path, b"old")

    def interrupted():
        with writing.replacing(path) as file:
            file.write(b"half")
            raise KeyError
    with pytest.raises(KeyError):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_at_the_end_leaves_the_old_file(step, drafts, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(path, b"old")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a draft's name")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(OSError) as caught:
            write(path, b"new")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_long_names(drafts, tmp_path):
    """A name may have all the letters that a file system allows, and two that begin alike are two files."""
    paths = [tmp_path / ("n" * 254 + letter) for letter in "ab"]
    with writing.replacing(paths[0]) as first, writing.replacing(paths[1]) as second:
        first.write(b"a")
        second.write(b"b")
    assert [path.read_bytes() for path in paths] == [b"a", b"b"]
    assert len(os.listdir(tmp_path)) == 2


# ---- Kills ------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
from fastrnn._base import writing
path, drafts, moment = sys.argv[1:]
if drafts == "named" and hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE

def killed(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

if moment != "block":
    setattr(os, moment, killed)
with writing.replacing(path) as file:
    file.write(b"new" * 100000)
    file.flush()
    if moment == "block":
        killed()
"""


@posix
@pytest.mark.parametrize("moment", ["block", "fsync", "replace"])
def test_a_kill_leaves_the_old_file_and_the_next_writer_no_draft(moment, drafts, tmp_path):
    path = tmp_path / "file"
    write(path, b"old")
    for _ in range(3):
        killed = subprocess.run([sys.executable, "-c", CHILD, path, drafts, moment], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert path.read_bytes() == b"old"
        left = len(os.listdir(tmp_path)) - 1
        assert left == (drafts == "named" or moment == "replace")       # one known name, however often
    write(path, b"newest")
    assert path.read_bytes() == b"newest" and os.listdir(tmp_path) == ["file"]


@posix
@unnamed
def test_a_draft_of_somebody_else_is_not_put_in_place(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(path, b"old")
    subprocess.run([sys.executable, "-c", CHILD, path, "unnamed", "replace"], check=False)
    (draft,) = (name for name in os.listdir(tmp_path) if name != "file")
    real, moved = os.replace, []
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)
    monkeypatch.setattr(os, "replace", lambda *names: (moved.append(names), real(*names)))
    write(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]
    assert len(moved) == 1, draft


def _writes(path, letter, count, barrier):
    barrier.wait()
    for _ in range(count):
        write(path, letter * 50_000)


@posix
@unnamed
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_writers_of_the_same_file_at_once(kind, tmp_path):
    """Nobody waits or fails, and whoever reads sees a whole file."""
    path, letters, count = tmp_path / "file", (b"a", b"b", b"c"), 40
    write(path, b"a" * 50_000)
    if kind == "threads":
        barrier, start = threading.Barrier(4), threading.Thread
    else:
        context = multiprocessing.get_context("fork")
        barrier, start = context.Barrier(4), context.Process
    writers = [start(target=_writes, args=(path, letter, count, barrier)) for letter in letters]
    for writer in writers:
        writer.start()
    barrier.wait()
    while any(writer.is_alive() for writer in writers):
        contents = path.read_bytes()
        assert len(contents) == 50_000 and contents == contents[:1] * 50_000
    for writer in writers:
        writer.join()
        assert getattr(writer, "exitcode", 0) == 0
    write(path, b"last")
    assert path.read_bytes() == b"last" and os.listdir(tmp_path) == ["file"]


@posix
def test_a_second_writer_where_drafts_have_names(tmp_path, monkeypatch):
    """The second takes the name over, and the first is told at its end, by the caller's path."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / "file"

    def first():
        with writing.replacing(path) as file:
            file.write(b"first")
            write(path, b"second")
            with writing.replacing(path) as third:
                third.write(b"third")
                file.flush()
    with pytest.raises(OSError, match="another writer") as caught:
        first()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"third" and os.listdir(tmp_path) == ["file"]


# ---- Devices and pipes ------------------------------------------------------------------------------

@posix
def test_a_device_stays_a_device(tmp_path):
    if not os.path.exists("/dev/null"):
        pytest.skip("needs /dev/null")
    link = tmp_path / "null"
    os.symlink("/dev/null", link)
    writing.check_writable(link)
    write(link, b"nothing")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.listdir(tmp_path) == ["null"]


@posix
def test_a_pipe_is_written_to(tmp_path):
    path, contents = tmp_path / "pipe", []
    os.mkfifo(path)
    writing.check_writable(path)                # does not wait for the reader
    reader = threading.Thread(target=lambda: contents.append(path.read_bytes()))
    reader.start()
    write(path, b"through the pipe")
    reader.join()
    assert contents == [b"through the pipe"] and stat.S_ISFIFO(path.stat().st_mode)


# ---- Errors, by the caller's path, before the work -----------------------------------------------------

def unwritable(tmp_path):
    """Paths that cannot be written, and the errors."""
    (tmp_path / "folder.npz").mkdir(exist_ok=True)
    (tmp_path / "a file").write_bytes(b"")
    return {tmp_path / "none" / "model.npz": FileNotFoundError, tmp_path / "folder.npz": IsADirectoryError,
            tmp_path / "a file" / "model.npz": NotADirectoryError}


@posix
def test_what_cannot_be_written_is_named_as_the_caller_named_it(drafts, tmp_path):
    layer = fastrnn.GRU(1, 2)
    for path, error in unwritable(tmp_path).items():
        for call in (layer.save, writing.check_writable):
            with pytest.raises(error) as caught:
                call(path)
            assert caught.value.filename == str(path)
    assert sorted(os.listdir(tmp_path)) == ["a file", "folder.npz"]


@posix
def test_training_finds_an_unwritable_checkpoint_before_it_begins(tmp_path):
    x, y = np.zeros((4, 5, 1), np.float32), np.zeros((4, 5, 2), np.float32)
    for path in unwritable(tmp_path):
        model = fastrnn.GRU(1, 2, rng=0)
        before = {name: value.copy() for name, value in model.parameters.items()}

        def loss(*arguments):
            raise AssertionError("the training began")
        with pytest.raises(OSError) as caught:
            training.fit(model, x, y, loss=loss, optimizer=optim.SGD(model, 0.1), epochs=1, batch_size=2,
                         checkpoint=path, progress=False)
        assert str(path) in str(caught.value)
        assert all(np.array_equal(before[name], value) for name, value in model.parameters.items())


def test_a_trial_leaves_no_trace(drafts, tmp_path):
    path = tmp_path / "file"
    writing.check_writable(path)
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"old")
    before = path.stat().st_mtime_ns
    writing.check_writable(path)
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"old" and path.stat().st_mtime_ns == before
