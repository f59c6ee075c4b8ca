"""What the fuzzer of model files found, and a hundred new files of each loader: refused or read, within bounds.

The corpus holds files that together reach all code that the campaign reached (``make fuzz-files``), and those that once
broke a promise.
"""

import io
import random
import shutil
import time
import zipfile
import zlib

import fuzz_files
import mutations
import numpy as np
import pytest
import structured
from file_loaders import CORPUS, LOADERS, Loader, as_npz

import fastrnn
from fastrnn._base.reading import ModelFormatError

FRESH = mutations.COUNT // 16           # files that are made of good ones, of each loader
each_loader = pytest.mark.parametrize("name", LOADERS)


@pytest.fixture
def attempt(tmp_path):
    """Reads bytes as a file, within the bounds of a loader; returns the refusal, or None."""
    def attempt(loader, data, use=False):
        result = []

        def read(path):
            result[:] = [loader.attempt(path)]
        refusal = mutations.assert_refuses_or_loads(read, data, tmp_path / loader.file, times=loader.times, hang=2.0,
                                                    seconds=60)
        if use and refusal is None:
            loader.use(*result)
        return refusal
    return attempt


@each_loader
def test_good_files_are_read(name, attempt, tmp_path):
    loader = LOADERS[name]
    loader.beside(tmp_path)
    refusals = []
    for data in loader.good():
        (tmp_path / loader.file).write_bytes(data)
        try:
            loader.use(loader.attempt(tmp_path / loader.file))
        except ModelFormatError as error:
            refusals.append(str(error))
    # what is known and not read: torch's first TorchScript archives; other models' snapshots are refused by a pool
    known = "first releases", "m.traced", "or of more rows than one"
    assert [text for text in refusals if not any(part in text for part in known)] == []


@each_loader
def test_the_corpus(name, attempt, tmp_path):
    loader, refused = LOADERS[name], 0
    loader.beside(tmp_path)
    for data in loader.good():          # what is allocated once
        attempt(loader, data)
        break
    files = sorted((CORPUS / name).glob("*"))
    assert files
    for path in files:
        refused += attempt(loader, path.read_bytes(), use=True) is not None
    assert refused >= len(files) // 4


@pytest.mark.slow
@each_loader
def test_new_mutations_in_whole_containers(name, attempt, tmp_path):
    loader, rng, refused = LOADERS[name], random.Random(f"{name} {mutations.SEED}"), 0
    loader.beside(tmp_path)
    good = list(loader.good())
    for data in good:
        attempt(loader, data)
    for _ in range(FRESH):
        data = structured.mutated(rng.choice(good), rng)
        refused += attempt(loader, structured.mutated(data, rng) if rng.random() < 0.3 else data) is not None
    assert FRESH // 20 < refused


# ---- The mutator ---------------------------------------------------------------------------------------

def test_archives_stay_whole():
    """Most changed archives open, each entry with its checksum, and differ from the one that they were made of."""
    good = next(iter(LOADERS["npz"].good()))
    rng, whole, same = random.Random(0), 0, 0
    for _ in range(300):
        data = structured.mutated(good, rng)
        same += data == good
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                whole += archive.testzip() is None
        except (zipfile.BadZipFile, ValueError, NotImplementedError, zlib.error, EOFError, OSError):
            pass
    assert whole > 200 and same < 60


def test_an_archive_is_written_as_it_was_read():
    for good in (as_npz({"a": np.ones(3), "b": np.zeros(2)}), *LOADERS["keras"].good()):
        if good[:2] == b"PK":
            entries = structured.unzipped(good)
            with zipfile.ZipFile(io.BytesIO(structured.zipped(entries))) as archive:
                assert archive.testzip() is None
                assert [(name.encode(), archive.read(name)) for name in archive.namelist()] == [
                    (name, contents) for name, _, contents in entries]


@pytest.mark.parametrize("name", ["snapshots", "onnx", "safetensors", "rtneural"])
def test_inner_parsers_are_reached(name, attempt):
    """The messages of refusals are of many kinds, and not of broken containers alone."""
    loader, rng, messages = LOADERS[name], random.Random(1), set()
    good = list(loader.good())
    for _ in range(250):
        refusal = attempt(loader, structured.mutated(rng.choice(good), rng))
        messages.add("".join(c for c in str(refusal)[-60:] if not c.isdigit()))
    assert len(messages) > 25


# ---- The harness ------------------------------------------------------------------------------------------

def misread(path):
    """A reader with faults, each of which a beginning asks for."""
    data = path_bytes(path)
    if data[:1] == b"k":
        {}[data]
    if data[:1] == b"h":
        deadline = time.process_time() + 20
        while time.process_time() < deadline:
            pass
    if data[:1] == b"m":
        return bytearray(1 << 30)
    if data[:1] == b"n":
        raise ModelFormatError("some file is broken")
    raise ModelFormatError(f"{path}: broken")


def path_bytes(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.fixture
def harness(tmp_path, monkeypatch):
    """The campaign's harness around a reader with faults."""
    resource = pytest.importorskip("resource")
    if not hasattr(fuzz_files.signal, "SIGVTALRM") or not shutil.os.path.exists("/proc/self/statm"):
        pytest.skip("the campaign runs on Linux")
    monkeypatch.setattr(fuzz_files, "SECONDS", 0.2)
    limit, handler = resource.getrlimit(resource.RLIMIT_AS), fuzz_files.signal.getsignal(fuzz_files.signal.SIGVTALRM)
    loader = Loader("faults", "faults.bin", misread, lambda: [])
    yield fuzz_files.Harness(loader, tmp_path)
    resource.setrlimit(resource.RLIMIT_AS, limit)
    fuzz_files.signal.signal(fuzz_files.signal.SIGVTALRM, handler)
    fuzz_files.clean(shutil.os.getpid(), tmp_path)


@pytest.mark.parametrize("data, kind", [(b"good", None), (b"key", "KeyError"), (b"hang", "Hung"),
                                        (b"memory", "MemoryError"), (b"nameless", "AssertionError")])
def test_the_harness_keeps_what_breaks_a_promise(data, kind, harness):
    harness(data)
    kept = [path for path in harness.findings.iterdir() if path.suffix != ".txt"]
    assert harness.count == 1 and fuzz_files.executions(harness.findings.parent) == 1
    if kind is None:
        assert not kept
        return
    assert [path.read_bytes() for path in kept] == [data]
    assert kept[0].name.startswith(kind) and kind in kept[0].with_name(kept[0].name + ".txt").read_text()


@pytest.mark.slow
def test_a_short_campaign(tmp_path, capsys):
    """Two turns of one loader: executions add up, and what reached new code is kept."""
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python: pip install fastrnn[fuzz]")
    loaders = {"npy": LOADERS["npy"]}
    assert fuzz_files.campaign(loaders, tmp_path, 300, 200, 5) == 0
    assert fuzz_files.executions(tmp_path / "npy") == 300
    assert len(list((tmp_path / "npy" / "corpus").iterdir())) > 3
    assert "300 executions of 1 loaders, 0 inputs that break a promise" in capsys.readouterr().out


def test_layers_that_are_accepted_are_run_and_saved():
    """The check that accepted files are held to fails where a model is not the same after it was loaded."""
    from file_loaders import assert_same_model
    layer = fastrnn.GRU(2, 3, rng=0)
    with pytest.raises(AssertionError):
        assert_same_model(layer, fastrnn.GRU(2, 3, rng=1))
    assert_same_model(layer, fastrnn.GRU(2, 3, rng=0))
