"""No steps, no rows, sizes past every limit, and allocations that fail."""

import itertools
import mmap
import os
import sys
import tracemalloc

import numpy as np
import pytest
from child import python
from helpers import KINDS, arrays, as_state, assert_same_bits, make_layer, make_state, using_isa
from numpy.lib.stride_tricks import as_strided

import fastrnn
from fastrnn._base import dispatch

T, N, I, H = 4, 2, 3, 5
X = np.zeros((T, N, I), np.float32)


# ---- Empty and huge -----------------------------------------------------------------------------

@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("steps, rows", [(0, N), (T, 0), (0, 0), (0, None)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_steps_or_no_rows(isa, kind, steps, rows, bidirectional, ragged):
    rng = np.random.default_rng(3)
    layer = make_layer(kind, I, H, 2, rng=rng, bidirectional=bidirectional)
    lead = (steps,) if rows is None else (steps, rows)
    x = np.zeros((*lead, I), np.float32)
    state = make_state(layer, 1 if rows is None else rows, rng)
    options = {"lengths": np.zeros(state[0].shape[1], int), "reset_mask": np.zeros(lead, bool)} if ragged else {}
    state = tuple(part[:, 0] for part in state) if rows is None else state
    output, last = layer(x, as_state(state), **options)
    assert output.shape == (*lead, H * (1 + bidirectional)) and output.dtype == np.float32
    assert_same_bits(arrays(last), arrays(state))
    kept, kept_last, cache = layer.forward(x, as_state(state), **options)
    assert_same_bits(arrays(kept, kept_last), arrays(output, last))
    grads = layer.backward(cache, kept, as_state(state))
    assert grads.input.shape == x.shape
    assert_same_bits(arrays(grads.state), arrays(state))
    for name, value in grads.parameters.items():
        assert value.shape == layer.parameters[name].shape and np.all(value == 0)


def test_no_rows_of_countless_steps():
    """A walk over 2^40 steps of no rows would take half an hour."""
    python("""
        layer = fastrnn.GRU(3, 5, rng=0)
        output, h_n, cache = layer.forward(np.empty((2**40, 0, 3), np.float32))
        assert layer.backward(cache, output).input.shape == (2**40, 0, 3)
    """, timeout=20)


def of_stride_zero(*shape):
    return np.broadcast_to(np.float32(1), shape)


WIDE = 2**60
PAST_2_63 = {       # bytes
    "hidden_size": lambda layer: fastrnn.GRU(1, WIDE),
    "input_size": lambda layer: fastrnn.LSTM(WIDE, 4),
    "either": lambda layer: fastrnn.RNN(2**31, 2**31),
    "hidden_size past int64": lambda layer: fastrnn.GRU(1, 2**70),
    "input_size past int64": lambda layer: fastrnn.GRUCell(2**70, 1),
    "batch_size": lambda layer: layer.stream(2**62),
    "batch_size past int64": lambda layer: layer.stream(2**70),
    "T": lambda layer: layer(of_stride_zero(WIDE, 1, 1)),
    "N": lambda layer: layer(of_stride_zero(1, WIDE, 1)),
    "T and N, backwards": lambda layer: layer.forward(of_stride_zero(2**30, 2**30, 1)),
    "rows of a cell": lambda layer: fastrnn.GRUCell(1, H)(of_stride_zero(WIDE, 1)),
    "steps of a stream": lambda layer: layer.stream().run(of_stride_zero(WIDE, 1))}
BELOW_2_63 = {      # more than any address space of today
    "hidden_size": lambda layer: fastrnn.RNN(1, 2**24),
    "input_size": lambda layer: fastrnn.LSTM(2**52, 4),
    "either": lambda layer: fastrnn.RNN(2**26, 2**26),
    "batch_size": lambda layer: layer.stream(2**52),
    "T": lambda layer: layer(of_stride_zero(2**52, 1, 1)),
    "N": lambda layer: layer(of_stride_zero(1, 2**52, 1)),
    "T and N, backwards": lambda layer: layer.forward(of_stride_zero(2**26, 2**26, 1)),
    "rows of a cell": lambda layer: fastrnn.GRUCell(1, H)(of_stride_zero(2**52, 1)),
    "steps of a stream": lambda layer: layer.stream().run(of_stride_zero(2**52, 1)),
    "converted up": lambda layer: layer(np.broadcast_to(np.int8(1), (2**52, 1, 1)))}


@pytest.mark.parametrize("case", PAST_2_63)
def test_past_2_63_bytes_nothing_is_allocated(case):
    layer = make_layer("gru", 1, H, rng=0)
    layer(np.ones((1, 1), np.float32))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            PAST_2_63[case](layer)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", BELOW_2_63)
def test_more_than_there_is_memory(case):
    layer, x = make_layer("gru", 1, H, rng=0), np.ones((3, 1), np.float32)
    expected = layer(x)[0]
    with pytest.raises(MemoryError):
        BELOW_2_63[case](layer)
    assert_same_bits(layer(x)[0], expected)


def test_countless_layers():
    """Names and shapes of 2^62 layers fill any memory: their number is to be looked at first."""
    python("""
        import resource
        if "asan" not in os.environ.get("LD_PRELOAD", ""):
            resource.setrlimit(resource.RLIMIT_DATA, (2**28, 2**28))
        try:
            fastrnn.GRU(1, 1, 2**62)
        except ValueError as e:
            sys.exit("num_layers" not in str(e))
        sys.exit("no exception")
    """, timeout=20)


@pytest.fixture(scope="module")
def reserved():
    """Two maps of 16 GiB and more of virtual memory, of which only the pages that are touched exist."""
    if sys.maxsize < 2**32 or not hasattr(mmap, "MAP_ANONYMOUS"):
        pytest.skip("needs a 64-bit address space and mmap")
    noreserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0x40)
    size = 4 * (3 * 2**30 + 2**20)
    return [np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | noreserve), np.float32)
            for _ in range(2)]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("far", ["steps", "steps back", "rows"])
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
def test_indices_past_2_31_elements(isa, reserved, kind, far, ragged):
    shape = (4, 4, 20)          # enough inputs for a pass over them by chunks
    rng = np.random.default_rng(2)
    layer = make_layer(kind, 20, 10, rng=rng, bidirectional=True)
    strides = {"steps": (2**32, 400, 4), "steps back": (-2**32, 400, 4), "rows": (400, 2**32, 4)}[far]
    first = 3 * 2**30 if far == "steps back" else 0
    x, out = (as_strided(place[first:], shape, strides) for place in reserved)
    dy, mask = out, as_strided(reserved[1].view(np.bool_)[4 * first + 2**16:], shape[:2], strides[:2])
    x[...] = rng.standard_normal(shape)
    mask[...] = rng.random(shape[:2]) < 0.3
    options = {"lengths": [3, 0, 4, 1]} if ragged else {}
    expected = layer(x.copy(), reset_mask=mask.copy(), **options)
    output, last = layer(x, reset_mask=mask, out=out, **options)
    assert np.array_equal(out, output) and output.strides == strides
    assert_same_bits(arrays(np.array(output), last), arrays(expected))
    *kept, cache = layer.forward(x, reset_mask=mask, **options)
    assert_same_bits(arrays(*kept), arrays(expected))
    dy[...] = rng.standard_normal(shape)
    assert_same_bits(arrays(layer.backward(cache, dy)), arrays(layer.backward(cache, dy.copy())))


# ---- An allocation that fails -------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the size of a process is read from /proc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer reserves its memory early")
@pytest.mark.parametrize("kind, threads", [("lstm", 2), ("gru_before", 1)])
def test_allocations_that_fail(kind, threads):
    """Under a limit that grows from nothing, each call fails at one allocation after the other until it succeeds."""
    options = "proj_size=40" if kind == "lstm" else "reset_after=False"
    script = f"""
        import resource
        PAGE = resource.getpagesize()
        fastrnn.set_num_threads({threads})
        make = lambda *sizes, **more: fastrnn.{kind[:4].rstrip("_").upper()}(*sizes, rng=0, {options}, **more)
        T, N, I, H = 12, 50, 120, 70
        layer, one_way, large = make(I, H, 2, bidirectional=True, dropout=0.5), make(I, H, 2), make(3 * I, 4 * H)
        x = np.random.default_rng(0).random((T, N, I), dtype=np.float32)
        block = np.tile(x, (2, 20, 1))
        stream = one_way.stream(20 * N)
        stream.run(block[:2])
        state, snapshot, values = stream.state, stream.snapshot(), large.state_dict()
        output, _, cache = layer.forward(x, rng=0)

        def flat(result):
            if isinstance(result, np.ndarray):
                return result.tobytes()
            if isinstance(result, fastrnn.Gradients):
                return flat([result.input, result.state, *result.parameters.values()])
            return b"".join(map(flat, result)) if isinstance(result, (tuple, list)) else b""

        def load():
            large.load_state_dict(values)
            return large(np.tile(x, 3))

        def run():
            result = stream.run(block)
            try:
                return result, stream.state
            finally:
                stream.state = state

        calls = dict(call=lambda: layer(x), ragged=lambda: layer(x, lengths=np.arange(N) % T),
                     forward=lambda: layer.forward(x, rng=0)[:2], backward=lambda: layer.backward(cache, output),
                     backward_first=lambda: layer.backward(layer.forward(x, rng=0)[2], output),
                     construct=lambda: list(make(I, H, 20).parameters.values()),
                     stream=lambda: one_way.stream(20 * N).step(block[0]), run=run,
                     restore=lambda: one_way.restore(snapshot).step(block[0]), load=load)

        def unchanged():
            return flat([list(model.parameters.values()) for model in (layer, one_way, large)] + [stream.state])

        before = unchanged()
        expected = {{name: flat(call()) for name, call in calls.items()}}
        unlimited = resource.getrlimit(resource.RLIMIT_AS)
        for name, call in calls.items():
            failures, room, result = 0, 0, None
            while result is None:
                try:
                    one_way.stream(2**40)       # gives up the spare blocks, which would serve the call
                except MemoryError:
                    pass
                size = int(open("/proc/self/statm").read().split()[0]) * PAGE
                resource.setrlimit(resource.RLIMIT_AS, (size + room, unlimited[1]))
                try:
                    result = call()
                except MemoryError:
                    failures += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_AS, unlimited)
                assert unchanged() == before, name
                room += 4 * PAGE + room // 16
            assert flat(result) == expected[name], name
            print(name, failures)
    """
    for _ in range(3):      # a process may by chance have memory that a call can use; then little fails in it
        done = python(script, MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="16384", MALLOC_TRIM_THRESHOLD_="0")
        failures = dict(line.split() for line in done.splitlines())
        assert len(failures) == 10
        if all(int(count) > 5 for count in failures.values()):
            return
    pytest.fail(done)


# ---- Layers of half a vector ----------------------------------------------------------------------

@pytest.mark.skipif(not {"avx2", "avx512"} <= set(fastrnn.available_isas()), reason="needs AVX-512 and AVX2")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_half_a_vector_have_the_bits_of_both_instruction_sets(kind, dtype, monkeypatch):
    most = dispatch._HALF_A_VECTOR // np.dtype(dtype).itemsize
    rng = np.random.default_rng(0)
    for H, I, N in itertools.product(range(1, most + 1), (1, 5, 19), (1, 6)):
        x, dy = (rng.standard_normal((11, N, size)).astype(dtype) for size in (I, H))
        results = []
        for half in (dispatch._HALF_A_VECTOR, 0):       # by AVX2, and by AVX-512 as it would be otherwise
            monkeypatch.setattr(dispatch, "_HALF_A_VECTOR", half)
            with using_isa("avx512"):
                layer = make_layer(kind, I, H, rng=np.random.default_rng(1), dtype=dtype)
                own = layer._packed()[0][0].capsule
                assert (own is dispatch._tables["avx2"][np.dtype(dtype)]) == bool(half)
                output, _, cache = layer.forward(x)
                gradients = layer.backward(cache, dy)
                results.append([layer(x)[0], output, gradients.input, *gradients.parameters.values()])
        monkeypatch.undo()
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)
