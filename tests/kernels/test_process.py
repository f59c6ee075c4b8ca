"""Memory, threads and the environment: what a process has, and what it is told."""

import contextlib
import itertools
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from child import attempt, python
from helpers import KINDS, make_layer

import fastrnn

ISAS = fastrnn.available_isas()
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


# ---- Memory -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_with_out_allocate_nothing(kind, rows):
    layer = make_layer(kind, 6, 10, 2, rng=0)
    stream, lead = layer.stream(rows or 1), () if rows is None else (rows,)
    x, out = np.ones((*lead, 6), np.float32), np.empty((*lead, 10), np.float32)
    tracemalloc.start()
    try:
        for _ in itertools.repeat(None, 100):
            stream.step(x, out=out)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in itertools.repeat(None, 1000):
            stream.step(x, out=out)
        current, peak = tracemalloc.get_traced_memory()
        assert current == before and peak - before < 200        # arguments of a call; an array is more, as here:
        kept = [stream.step(x) for _ in range(10)]
        assert tracemalloc.get_traced_memory()[0] - before > 200 and len(kept) == 10
    finally:
        tracemalloc.stop()


def growth(work, times):
    process = psutil.Process()
    for _ in itertools.repeat(None, times // 10):
        work()
    before = process.memory_info().rss
    for _ in itertools.repeat(None, times):
        work()
    return process.memory_info().rss - before


def test_memory_of_200000_steps():
    stream = make_layer("lstm", 6, 10, 2, rng=0).stream()
    x, out = np.ones(6, np.float32), np.empty(10, np.float32)
    assert growth(lambda: stream.step(x, out=out), 200_000) < 2**20


def test_memory_of_calls_errors_and_streams():
    """Nothing is left behind by what ends well, by what raises, nor by models that are no more."""
    layer = make_layer("lstm", 50, 60, 2, rng=0, bidirectional=True)
    x = np.ones((20, 10, 50), np.float32)

    def work():
        output, _, cache = layer.forward(x, lengths=[3] * 10)
        layer.backward(cache, output)
        for call in (lambda: layer(x, out=output[:1]), lambda: layer(x[..., :1]), lambda: layer.stream()):
            with contextlib.suppress(ValueError):
                call()
        one_way = make_layer("gru", 50, 60, rng=0)
        stream = one_way.stream(10)
        one_way.restore(stream.snapshot()).step(x[0])

    assert growth(work, 300) < 4 * 2**20


# ---- Threads and the environment ------------------------------------------------------------------------------------

def test_threads_context():
    fastrnn.set_num_threads(3)
    with fastrnn.threads(5):
        assert fastrnn.get_num_threads() == 5
        with fastrnn.threads(1):
            assert fastrnn.get_num_threads() == 1
        fastrnn.set_num_threads(4)
        assert fastrnn.get_num_threads() == 5
        with ThreadPoolExecutor(1) as another:      # a thread that is not within the block
            assert another.submit(fastrnn.get_num_threads).result() == 4
    assert fastrnn.get_num_threads() == 4
    with pytest.raises(ZeroDivisionError), fastrnn.threads(2):
        raise ZeroDivisionError
    assert fastrnn.get_num_threads() == 4


NUMBER = "print(fastrnn.get_num_threads())"


def test_thread_count_from_the_environment():
    assert python(NUMBER, FASTRNN_NUM_THREADS="7").strip() == "7"
    default = python(NUMBER, FASTRNN_NUM_THREADS=None)
    assert python(NUMBER, FASTRNN_NUM_THREADS="") == default
    assert 1 <= int(default) <= psutil.cpu_count()


@linux
def test_thread_count_honours_the_affinity():
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import fastrnn; " + NUMBER
    assert python(script, prelude="", FASTRNN_NUM_THREADS=None).strip() == "1"


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", "1e3", "2,2", "0x2", " ", str(2**70)])
def test_bad_thread_counts_in_the_environment(wrong):
    done = attempt("", FASTRNN_NUM_THREADS=wrong)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: FASTRNN_NUM_THREADS: ") and repr(wrong) in last


@pytest.mark.parametrize("isa", ISAS)
def test_isa_from_the_environment(isa):
    script = "print(fastrnn.active_isa(), fastrnn.GRU(3, 5, rng=0)(np.ones((2, 3), np.float32))[0].shape)"
    assert python(script, FASTRNN_ISA=isa).strip() == f"{isa} (2, 5)"


def test_isa_without_a_wish():
    for value in (None, ""):
        assert python("print(fastrnn.active_isa(), fastrnn.available_isas())", FASTRNN_ISA=value).strip() == (
            f"{ISAS[0]} {ISAS}")


@pytest.mark.parametrize("wrong", ["neon", "AVX2", "avx2 ", "0"])
def test_bad_isa_in_the_environment(wrong):
    done = attempt("", FASTRNN_ISA=wrong)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: FASTRNN_ISA: ") and repr(wrong) in last and all(isa in last for isa in ISAS)


def test_show_config(capsys):
    with fastrnn.threads(6):
        assert fastrnn.show_config() is None
    shown = capsys.readouterr().out
    for expected in (f"fastrnn {fastrnn.__version__}", f"NumPy {np.__version__}", "threads: 6", ", ".join(ISAS),
                     f"instruction set: {fastrnn.active_isa()}", "FASTRNN_ISA", "FASTRNN_NUM_THREADS"):
        assert expected in shown
