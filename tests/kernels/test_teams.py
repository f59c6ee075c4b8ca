"""Teams: several threads in every step of one pass. The same bits as one thread, however many there are and whichever
comes late; and what a team leaves behind."""

import concurrent.futures
import os
import signal
import sys
import time

import numpy as np
import pytest
from helpers import as_state, assert_same_bits, directions, make_layer, make_state, named_state, run, state_sizes
from test_promises import DTYPES, VARIANTS, make_case

import fastrnn
from fastrnn import _core

CPUS = 8                # as many threads as a team may have here, whatever the machine has
# I, H, num_layers, N, bidirectional: a panel or two a thread, an odd number of them, few rows and many, and a call
# whose rows are split among teams.
TEAMS = [(16, 130, 1, 1, False), (5, 100, 2, 4, False), (330, 301, 1, 2, False), (16, 130, 1, 3, True),
         (16, 130, 1, 17, False)]


@pytest.fixture(autouse=True)
def many_cpus():
    _core.assume_cpus(CPUS)
    yield
    _core.assume_cpus(0)


@pytest.mark.parametrize("size", TEAMS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_teams_change_no_bit(isa, variant, dtype, size):
    I, H, num_layers, N, two_ways = size
    T = 2 + 2_500_000 // (N * H * (I + H))         # a call that is worth its threads with one gate, too
    T = min(T, 60) if variant.startswith("rnn") else min(T, 60) // 2
    case = make_case(variant, dtype, (I, H, num_layers, T, N), bidirectional=two_ways)
    layer = case.layer
    d_output = case.rng.standard_normal((T, N, directions(layer) * state_sizes(layer)[0])).astype(dtype)
    d_state = make_state(layer, N, case.rng)
    lengths = case.rng.integers(T // 2, T + 1, N)
    lengths[0] = T
    for options in ({}, {"lengths": lengths}, {"reset_mask": case.rng.random((T, N)) < 0.2}):
        with fastrnn.threads(1):
            expected = run(layer, case.x, case.state, d_output, d_state, **options)
        for threads in (2, 3, 5, 8):
            with fastrnn.threads(threads):
                result = run(layer, case.x, case.state, d_output, d_state, **options)
            assert_same_bits(result, expected)


NARROW = ["int8"]


@pytest.mark.parametrize("size", TEAMS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("precision", NARROW)
def test_teams_of_narrow_layers_change_no_bit(isa, precision, variant, size):
    I, H, num_layers, N, two_ways = size
    T = min(2 + 5_000_000 // (N * H * (I + H)), 200)         # long enough for all members to come
    case = make_case(variant, "float32", (I, H, num_layers, T, N), bidirectional=two_ways)
    layer = case.layer.quantized(precision)
    lengths = case.rng.integers(T // 2, T + 1, N)
    lengths[0] = T

    def call(**options):
        output, last = layer(case.x, as_state(case.state), **options)
        return {"output": output, **named_state(last, "h_n", "c_n")}

    for options in ({}, {"lengths": lengths}, {"reset_mask": case.rng.random((T, N)) < 0.2}):
        with fastrnn.threads(1):
            expected = call(**options)
        for threads in (2, 3, 8):
            with fastrnn.threads(threads):
                assert_same_bits(call(**options), expected)


# ---- A step of a stream ------------------------------------------------------------------------------

LEAST_WORK = 2_000_000      # multiply-adds of a step above which threads share it
# I, H, N: one row whose panels are shared, few rows, rows among teams, and more rows than a cell has panels for.
STEPS = [(16, 330, 1), (70, 130, 5), (40, 100, 26), (4, 20, 300)]


def step_work(layer, rows):
    """Multiply-adds of a step of all layers."""
    return sum(packed[0].multiply_adds for packed in layer._packed()) * rows


def large_step(variant, dtype, size):
    """As many layers as a step needs to be shared, and what one thread gives for three steps."""
    I, H, N = size
    one, two = (step_work(make_case(variant, dtype, (I, H, layers, 1, 1)).layer, N) for layers in (1, 2))
    num_layers = 1 + max(0, -(-(LEAST_WORK + 1 - one) // (two - one)))
    with fastrnn.threads(1):
        case = make_case(variant, dtype, (I, H, num_layers, 3, N))
    assert step_work(case.layer, N) > LEAST_WORK
    return case


def steps_of(stream, case):
    """The outputs of a stream's steps from the case's state, and the state after them."""
    stream.state = as_state(case.state)
    outputs = np.stack([stream.step(x) for x in case.x])
    return {"output": outputs, **named_state(stream.state, "h_n", "c_n")}


@pytest.mark.parametrize("size", STEPS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_shared_step_changes_no_bit(isa, variant, dtype, size):
    case = large_step(variant, dtype, size)
    stream = case.layer.stream(size[2])
    for threads in (1, 2, 3, 5, 2):
        with fastrnn.threads(threads):
            assert_same_bits(steps_of(stream, case), case.whole)


@pytest.mark.parametrize("N", [1, 2, 26])
@pytest.mark.parametrize("variant", ["lstm", "lstm_options", "lstm_projection", "gru", "gru_before", "rnn_relu"])
@pytest.mark.parametrize("precision", NARROW)
def test_a_shared_step_of_a_narrow_layer(isa, precision, variant, N):
    case = large_step(variant, "float32", (70, 330, N))
    layer = case.layer.quantized(precision)
    with fastrnn.threads(1):
        expected = steps_of(layer.stream(N), case)
    for threads in (2, 3, 5):
        with fastrnn.threads(threads):
            assert_same_bits(steps_of(layer.stream(N), case), expected)


@pytest.mark.parametrize("N", [1, 26])
@pytest.mark.parametrize("variant", ["lstm", "gru_before"])
def test_a_stream_whose_steps_are_shared(variant, N):
    """`out`, cleared rows, snapshots and blocks between steps, and a number of threads that changes."""
    case = large_step(variant, "float32", (70, 330, N))

    def whole_life(counts):
        stream, outputs = case.layer.stream(N), []
        stream.state = as_state(case.state)
        for x, threads in zip(case.x, counts):
            with fastrnn.threads(threads):
                out = np.empty((N, stream.output_size), np.float32)
                assert stream.step(x, out=out) is out
                stream.reset([N // 2])
                outputs += [out, stream.run(case.x)]
                stream = case.layer.restore(stream.snapshot())
                outputs.append(stream.step(x))
        return [output.tobytes() for output in outputs] + [stream.snapshot()]

    expected = whole_life([1, 1, 1])
    assert whole_life([2, 2, 2]) == expected
    assert whole_life([3, 1, 5]) == expected


def test_shared_steps_of_several_streams_at_once():
    """The pool serves one step at a time; the others do the same work on their own threads."""
    case = large_step("lstm", "float32", (70, 330, 5))

    def work(_):
        with fastrnn.threads(3):
            stream = case.layer.stream(5)
            return [steps_of(stream, case) for _ in range(10)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for results in pool.map(work, range(4)):
            for result in results:
                assert_same_bits(result, case.whole)


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
def test_shared_steps_in_the_child_of_a_fork():
    """The child has no workers of its parent's: the stream starts new ones."""
    case = large_step("gru", "float32", (70, 330, 5))
    with fastrnn.threads(3):
        stream = case.layer.stream(5)
        assert_same_bits(steps_of(stream, case), case.whole)
        child = os.fork()
        if child == 0:
            try:
                assert_same_bits(steps_of(stream, case), case.whole)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_same_bits(steps_of(stream, case), case.whole)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
@pytest.mark.parametrize("size", [(256, 256, 16000), (64, 64, 120000)], ids=["panels", "rows"])
def test_an_interrupted_shared_step(size):
    """Kernels look for signals every 50 ms. The handler's exception ends the step, which has then changed nothing."""
    I, H, N = size
    layer, x = make_layer("lstm", I, H, 2, rng=0), np.ones((N, I), np.float32)
    stream, outcomes = layer.stream(N), []
    with fastrnn.threads(1):
        start = time.perf_counter()
        expected = stream.step(x)
        took = time.perf_counter() - start
    after = [part.tobytes() for part in stream.state]

    class Stop(BaseException):
        pass

    def stop(*_):
        raise Stop

    def step_until_stopped():
        signal.setitimer(signal.ITIMER_REAL, 0.1 * took)
        stream.step(x)
        signal.pause()                          # where the step was over before

    handler = signal.signal(signal.SIGALRM, stop)
    try:
        with fastrnn.threads(3):
            for _ in range(3):
                stream.reset()
                with pytest.raises(Stop):
                    step_until_stopped()
                outcomes.append([part.tobytes() for part in stream.state])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    stream.reset()
    before = [part.tobytes() for part in stream.state]
    assert all(outcome in (before, after) for outcome in outcomes)
    assert before in outcomes
    with fastrnn.threads(3):
        assert np.array_equal(stream.step(x), expected)
