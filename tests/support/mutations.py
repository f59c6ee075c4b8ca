"""Broken files made from good ones, and what a reader owes them: for the tests of every format.

    for broken in mutations.mixed(good, rng, mutations.COUNT):
        mutations.assert_refuses_or_loads(load, broken, tmp_path / "broken.npz")

Everything follows from the seed of `rng`, which `generator` makes. Three environment variables make a campaign of the
tests: FASTRNN_FUZZ_FILES sets how many broken files a format's fuzz test tries, FASTRNN_FUZZ_SEED gives it others, and
FASTRNN_FUZZ_LIMIT=1 holds memory by a limit of the operating system's, which is several times as fast as tracing it.
"""

import contextlib
import os
import re
import signal
import sys
import time
import tracemalloc

import numpy as np

from fastrnn import ModelFormatError

COUNT = int(os.environ.get("FASTRNN_FUZZ_FILES", 2000))
SEED = int(os.environ.get("FASTRNN_FUZZ_SEED", 0))
LIMIT = os.environ.get("FASTRNN_FUZZ_LIMIT", "0") == "1"
HANG = 1.0                                  # seconds of processor time that a reader may take for a small file
MOST_TIMES, MOST_PLUS = 4, 64 << 20         # a reader's memory for a mutated file: times the file, plus bytes
# Numbers that lie about a length, as little- and big-endian words of 1 to 8 bytes.
LIES = [number.to_bytes(size, order) for size in (1, 2, 4, 8) for order in ("little", "big")
        for number in (0, 1, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1)]


# ---- Broken files -------------------------------------------------------------------------------

def generator(number=0):
    """The random numbers of a test, or of its part `number`: others for each FASTRNN_FUZZ_SEED."""
    return np.random.default_rng([number, SEED] if SEED else number)


def truncations(data, stop=None, step=1):
    """`data` cut at each byte from 0 up to `stop` (its whole length)."""
    for size in range(0, len(data) if stop is None else min(stop, len(data)), step):
        yield data[:size]


def flips(data, rng, count, start=0, stop=None):
    """`count` copies with 1 to 8 bytes between start and stop set to others."""
    stop = len(data) if stop is None else min(stop, len(data))
    for _ in range(count):
        broken = bytearray(data)
        for at in rng.integers(start, stop, int(rng.integers(1, 9))):
            broken[at] ^= int(rng.integers(1, 256))
        yield bytes(broken)


def lies(data, rng, count, start=0, stop=None):
    """`count` copies with a word between start and stop overwritten by an extreme number."""
    stop = len(data) if stop is None else min(stop, len(data))
    for _ in range(count):
        word = LIES[rng.integers(len(LIES))]
        at = int(rng.integers(start, stop))
        yield data[:at] + word + data[at + len(word):]


def spliced(data, rng, count):
    """`count` copies with a stretch left out, doubled, zeroed, or laid over another place."""
    for _ in range(count):
        start, end = sorted(int(at) for at in rng.integers(0, len(data) + 1, 2))
        if rng.integers(2):
            end = min(end, start + 64)
        part, place = data[start:end], int(rng.integers(0, len(data) + 1))
        yield (data[:start] + data[end:], data[:end] + part + data[end:], data[:start] + bytes(len(part)) + data[end:],
               data[:place] + part + data[place + len(part):])[rng.integers(4)]


def mixed(data, rng, count, header=4096):
    """`count` broken files of all these kinds, half of them broken within the first `header` bytes."""
    share = count // 8
    yield from flips(data, rng, share, stop=header)
    yield from flips(data, rng, share)
    yield from flips(data, rng, share, start=max(0, len(data) - header))
    yield from lies(data, rng, share, stop=header)
    yield from lies(data, rng, share)
    yield from spliced(data, rng, share)
    yield from spliced(data[:header], rng, share)
    for at in rng.integers(0, len(data), count - 7 * share):
        yield data[:at]


# ---- What a reader owes them ----------------------------------------------------------------------

class Hung(BaseException):
    """A reader took too long. No reader catches it for its own."""


@contextlib.contextmanager
def alarm(seconds):
    """Raises Hung in the main thread after so many seconds, where there are signals."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(signum, frame):
        raise Hung(f"still reading after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def limited(memory, seconds=30):
    """An allocation that takes the process `memory` bytes above what it has is a MemoryError; a hang is broken off."""
    import resource
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, before[1]))
    try:
        with alarm(seconds):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def bounded(memory, seconds=30):
    """Asserts that what Python and NumPy allocate within stays below `memory` bytes; a hang is broken off.

    What a module allocates when it is first imported counts too: load a good file first.
    """
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with alarm(seconds):
            yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not tracing:
            tracemalloc.stop()
    assert peak <= memory, f"{peak} bytes were allocated, at most {memory} are due"


def assert_refuses_or_loads(load, data, path, times=16, plus=1 << 22, seconds=30, hang=HANG, capped=True, named=None):
    """`load(path)` of a file of these bytes gives a result, or a ModelFormatError that names the file (or `named`).

    Nothing else is admitted. Memory is held to `times` the file's size (for zip archives above ``reading.EXPANSION``)
    `plus` a constant, and where it is `capped` also to MOST_TIMES the file plus MOST_PLUS; the process's own time,
    without what tracing its memory takes, to `hang` seconds and one more for each MiB of the file.
    Returns the error, or None where the file was loaded.
    """
    path.unlink(missing_ok=True)        # writing over a file waits for the disk on some file systems
    path.write_bytes(data)
    most, usual = MOST_TIMES * len(data) + MOST_PLUS, times * len(data) + plus
    most = max(most, 0 if capped else usual)
    hang += len(data) / (1 << 20)
    hang *= 8 if sys.gettrace() else 1      # `make coverage` traces every line, which takes several times as long
    start = time.process_time()
    with limited(most, seconds) if LIMIT else bounded(min(most, usual), seconds):
        refusal = refusal_of(load, path)
    if time.process_time() - start > hang:
        start = time.process_time()
        refusal_of(load, path)
        spent = time.process_time() - start
        assert spent <= hang, f"{len(data)} bytes took {spent:.2f} s"
    assert refusal is None or (named or path.name) in str(refusal), f"the message does not name the file: {refusal}"
    return refusal


def refusal_of(load, path):
    """The ModelFormatError that reading a file ends with, or None."""
    try:
        load(path)
    except ModelFormatError as error:
        return error
    return None


def assert_refuses(load, data, path, match="", **limits):
    """As above, and the file is refused, with a message in which the regular expression `match` is found."""
    error = assert_refuses_or_loads(load, data, path, **limits)
    assert error is not None, f"{len(data)} bytes were loaded"
    assert re.search(match, str(error)), f"{match!r} is not in the message: {error}"
