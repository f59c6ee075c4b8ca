"""Models that several Python threads share: calls while one of them trains, streams that several step, and a number of
threads that changes meanwhile. `make tsan` runs these under ThreadSanitizer."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import KINDS, as_parts, make_layer

import fastrnn
from fastrnn import optim, scale

SIZES = {"one thread's work": (6, 20, 5), "work for two threads": (40, 130, 17)}       # I, H, N
STEPS = 20


@pytest.fixture(autouse=True)
def same_threads_after():
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)


class Meanwhile:
    """Runs functions again and again, each on a thread of its own, while a `with` block runs; then their results."""

    def __init__(self, *functions):
        self.stop, self.pool = threading.Event(), ThreadPoolExecutor(len(functions))
        self.functions, self.begun = functions, threading.Barrier(len(functions) + 1)

    def repeat(self, function):
        results = [function()]
        self.begun.wait(60)
        while not self.stop.is_set():
            results.append(function())
        return [*results, function()]

    def __enter__(self):
        self.running = [self.pool.submit(self.repeat, function) for function in self.functions]
        self.begun.wait(60)
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.results = [running.result(60) for running in self.running]
        self.pool.shutdown()


COUNTS = itertools.cycle([1, 2, 3])


def change_threads():
    fastrnn.set_num_threads(next(COUNTS))


def call_bytes(layer, x):
    output, last = layer(x)
    return b"".join(part.tobytes() for part in (output, *as_parts(last)))


@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", list(KINDS))
def test_calls_while_the_layer_is_trained(kind, size, precision):
    """Every call uses the parameters of one update, whole; later calls never those of an earlier one."""
    I, H, N = SIZES[size]
    layer, rng = make_layer(kind, I, H, 2, rng=0), np.random.default_rng(1)
    x, d_output = (rng.standard_normal((8, N, width)).astype(np.float32) for width in (I, H))
    optimizer, stream = optim.Adam(layer, 0.01), layer.stream(N)
    steps = [stream.step(row).tobytes() for row in x]
    versions = [layer.state_dict()]

    def steps_of_the_stream():
        with fastrnn.threads(2):
            stream.reset()
            return [stream.step(row).tobytes() for row in x]

    with Meanwhile(lambda: call_bytes(layer, x), lambda: call_bytes(layer, x), steps_of_the_stream,
                   change_threads) as meanwhile:
        for update in range(STEPS):
            if update % 4 == 3:
                with layer.updating() as parameters:
                    parameters["bias_ih_l0"] += 0.1
            else:
                _, _, cache = layer.forward(x, precision=precision)
                optimizer.step(layer.backward(cache, d_output).parameters)
            versions.append(layer.state_dict())
    *called, stepped, _ = meanwhile.results
    alone, expected = make_layer(kind, I, H, 2, rng=0), {}
    for number, values in enumerate(versions):
        alone.load_state_dict(values)
        expected[call_bytes(alone, x)] = number
    assert len(expected) == len(versions)
    for results in called:
        numbers = [expected[result] for result in results]
        assert numbers == sorted(numbers) and numbers[-1] == STEPS
    assert all(result == steps for result in stepped)       # a stream keeps the parameters that it was made with


@pytest.mark.parametrize("kind", list(KINDS))
def test_training_passes_of_one_layer_on_several_threads(kind):
    """forward and backward keep nothing in the layer: each thread has the gradients that it would have alone."""
    layer, rng = make_layer(kind, 24, 60, 2, rng=0, bidirectional=True), np.random.default_rng(1)
    inputs = rng.standard_normal((4, 10, 9, 24)).astype(np.float32)

    def gradients(x):
        output, _, cache = layer.forward(x, lengths=[3, 10, *[7] * 7])
        result = layer.backward(cache, output)
        return b"".join(part.tobytes() for part in (result.input, *result.parameters.values()))

    fastrnn.set_num_threads(1)
    expected = [gradients(x) for x in inputs]
    with Meanwhile(*(lambda x=x: gradients(x) for x in inputs[1:]), change_threads) as meanwhile:
        results = [gradients(inputs[0]) for _ in range(10)]
    assert set(results) == {expected[0]}
    for found, right in zip(meanwhile.results[:-1], expected[1:], strict=True):
        assert set(found) == {right}


def test_parameters_changed_by_several_threads():
    """Of blocks at the same time one is the last, whole; its parameters are those of the layer and of its packing."""
    layer, x = make_layer("gru", 6, 20, rng=0), np.ones((3, 2, 6), np.float32)

    def change(value):
        with layer.updating() as parameters:
            for array in parameters.values():
                array[...] = value
        call_bytes(layer, x)

    with Meanwhile(*(lambda value=value: change(value) for value in (0.1, 0.2, 0.3))):
        for _ in range(50):
            values = layer.parameters
            assert len({array.flat[0] for array in values.values()}) == 1
            assert all((array == array.flat[0]).all() for array in values.values())
    other = make_layer("gru", 6, 20, rng=1)
    other.load_state_dict(layer.state_dict())
    assert call_bytes(layer, x) == call_bytes(other, x)


def unless_refused(call, words):
    """What a call gives, or None where it is refused in these words."""
    try:
        return call()
    except RuntimeError as error:
        if words not in str(error):
            raise
        return None


@pytest.mark.parametrize("rows, width", [(1, 20), (40, 160)], ids=["short steps", "long steps"])
@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_stream_that_several_threads_step(precision, rows, width):
    """A step is right, or is refused by name and changes nothing: the state is that of as many steps as were done."""
    layer = make_layer("lstm", width, width, rng=0)
    layer = layer.quantized(precision) if precision else layer
    stream, alone, x = layer.stream(rows), layer.stream(rows), np.ones((rows, width), np.float32)
    outputs = [alone.step(x).tobytes()]

    def step():
        result = unless_refused(lambda: stream.step(x), "another thread is in a step of this stream")
        return None if result is None else result.tobytes()

    with Meanwhile(step, step, stream.snapshot, change_threads) as meanwhile:
        own = [step() for _ in range(150)]
    done = [output for results in (own, *meanwhile.results[:2]) for output in results if output is not None]
    while len(outputs) < len(done):
        outputs.append(alone.step(x).tobytes())
    assert sorted(done) == sorted(outputs)
    assert stream.snapshot() == alone.snapshot()


@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_pool_that_several_threads_use(precision):
    """A call of another thread meanwhile is refused by name, or comes before or after: never between two rows."""
    layer = make_layer("gru", 12, 64, rng=0)
    layer = layer.quantized(precision) if precision else layer
    keys, x = list(range(48)), np.ones((48, 12), np.float32)
    pool = scale.StreamPool(layer, 48)
    alone = layer.stream()
    outputs = [alone.step(x[0]).tobytes()]

    def step():
        result = unless_refused(lambda: pool.step(keys, x), "another thread is in a call of this pool")
        assert result is None or (result == result[0]).all()
        return None if result is None else result[0].tobytes()

    with Meanwhile(step, step, change_threads) as meanwhile:
        own = [step() for _ in range(100)]
    done = [output for results in (own, *meanwhile.results[:2]) for output in results if output is not None]
    while len(outputs) < len(done):
        outputs.append(alone.step(x[0]).tobytes())
    assert sorted(done) == sorted(outputs)


@pytest.mark.parametrize("rows", [(), (4,)], ids=["one row", "rows"])
@pytest.mark.parametrize("cls", [fastrnn.RNNCell, fastrnn.GRUCell, fastrnn.LSTMCell])
def test_steps_of_a_cell_while_its_parameters_change(cls, rows):
    """Every step uses one version of the parameters, whole; later steps never an earlier version."""
    cell, x = cls(6, 20, rng=0), np.ones((*rows, 6), np.float32)

    def step_bytes(cell):
        return b"".join(part.tobytes() for part in as_parts(cell(x)))

    versions = [cell.state_dict()]
    with Meanwhile(*[lambda: step_bytes(cell)] * 3) as meanwhile:
        for update in range(200):
            with cell.updating() as parameters:
                parameters["bias_ih"] += 0.01
            versions.append(cell.state_dict())
            if update % 2:
                step_bytes(cell)
    alone, expected = cls(6, 20, rng=1), {}
    for number, values in enumerate(versions):
        alone.load_state_dict(values)
        expected[step_bytes(alone)] = number
    assert len(expected) == len(versions)
    for results in meanwhile.results:
        numbers = [expected[result] for result in results]
        assert numbers == sorted(numbers) and numbers[-1] == len(versions) - 1
