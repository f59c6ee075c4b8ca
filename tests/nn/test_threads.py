"""Models that many threads use while others change them. On a Python without a GIL all of this happens at once."""

import copy
import pickle
import sys
import threading

import numpy as np
import pytest
from helpers import KINDS, assert_same_bits, make_layer
from together import together

import fastrnn
from fastrnn import GRU, LSTM, Linear, Sequential, _core, losses, optim, training

WORKERS = 6
VERSIONS = 4


@pytest.fixture(autouse=True)
def often_another_thread():
    """Where there is a GIL, it changes hands more often than it would."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bits(*results):
    """The bytes of arrays, and of those in tuples."""
    return b"".join(bits(*result) if isinstance(result, tuple) else result.tobytes() for result in results)


def ways(layer, x):
    """name -> a function that gives the bytes of results which one version of the weights determines."""
    def training_step():
        output, last, cache = layer.forward(x)
        gradients = layer.backward(cache, output)
        return bits(output, last, gradients.input, *gradients.parameters.values())

    def stream():
        stream = layer.stream(x.shape[1])
        return bits(stream.step(x[0]), stream.run(x[1:]), stream.run(data(300, *x.shape[1:])), stream.state)

    return {"call": lambda: bits(*layer(x)), "long call": lambda: bits(*layer(x, lengths=[len(x)] * x.shape[1])),
            "training": training_step, "stream": stream,
            "pickle": lambda: bits(*pickle.loads(pickle.dumps(layer))(x)),
            "state_dict": lambda: bits(*layer.state_dict().values())}


def replace_by_turns(model, versions, done, times):
    """Replaces all parameters again and again, by the two ways to do so."""
    try:
        for i in range(times):
            version = versions[i % len(versions)]
            if i % 3:
                model.load_state_dict(version)
            else:
                with model.updating() as parameters:
                    parameters.update({name: value.copy() for name, value in version.items()})
    finally:
        done.set()


def until(done, function):
    """The set of what a function returns, called until the event is set and then once more."""
    results = set()
    while not done.is_set():
        results.add(function())
    return results | {function()}


# ---- The weights are replaced meanwhile -------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_every_result_is_of_one_version_of_the_weights(kind):
    """Those, too, that are the first of a version and pack it; and no cache keeps what is of an older one."""
    layer, x = make_layer(kind, 5, 6, 2, rng=0), data(7, 3, 5)
    versions = [make_layer(kind, 5, 6, 2, rng=seed).state_dict() for seed in range(VERSIONS)]
    allowed = {}
    for version in versions:
        fresh = make_layer(kind, 5, 6, 2, rng=9)
        fresh.load_state_dict(version)
        for name, way in ways(fresh, x).items():
            allowed.setdefault(name, []).append(way())
    done, used = threading.Event(), ways(layer, x)
    results = together(lambda: replace_by_turns(layer, versions, done, 150),
                       *(lambda way=way: until(done, way) for way in used.values()))
    for name, seen in zip(used, results[1:], strict=True):
        assert seen <= set(allowed[name]), name
    for name, way in used.items():
        assert way() == allowed[name][149 % VERSIONS], name


def replace_after(monkeypatch, owner, name, model, parameters):
    """Replaces a model's parameters when a function has returned, before its caller goes on; once."""
    original = getattr(owner, name)

    def function(*arguments, **options):
        result = original(*arguments, **options)
        monkeypatch.undo()
        model.load_state_dict(parameters)
        return result

    monkeypatch.setattr(owner, name, function)


@pytest.mark.parametrize("way", ["call", "cell", "stream"])
def test_parameters_that_are_replaced_while_they_are_packed(monkeypatch, way):
    """What is packed is of the parameters of before, and is not taken for the new ones."""
    old, new = (GRU(2, 3, rng=seed) for seed in (0, 1))
    layer, x = copy.deepcopy(old), data(4, 1, 2)
    cell = fastrnn.GRUCell(2, 3, rng=0)
    cell._layer = layer
    steps = np.concatenate([x[0], data(9, 2)])

    def stream():
        stream = layer.stream()
        return np.concatenate([stream.step(steps[:1]), stream.run(np.asfortranarray(steps[1:]))])   # the general way

    use = {"call": lambda: layer(x)[0], "cell": lambda: cell(x[0]), "stream": stream}[way]
    expected = {"call": old(x)[0], "cell": old(x)[0][0], "stream": old(steps)[0]}[way]
    replace_after(monkeypatch, GRU, "_packed_for_steps", layer, new.state_dict())
    result = use()
    assert_same_bits(result, expected)
    assert_same_bits(use(), {"call": new(x)[0], "cell": new(x)[0][0], "stream": new(steps)[0]}[way])


def test_a_linear_map_that_is_replaced_in_the_midst_of_forward(monkeypatch):
    """Its backward uses the weights that its output was computed with."""
    old, new, x = Linear(3, 2, rng=0), Linear(3, 2, rng=1), data(5, 3)
    layer = copy.deepcopy(old)
    replace_after(monkeypatch, Linear, "_apply", layer, new.state_dict())
    output, _, cache = layer.forward(x)
    assert_same_bits(output, old(x)[0])
    assert_same_bits(layer.backward(cache, output).input, old.backward(old.forward(x)[2], output).input)


def test_what_is_replaced_is_dropped_after_all_is_set():
    """A finalizer of an old value runs Python code: it finds all attributes set."""
    class Owner:
        pass

    class Value:
        def __del__(self):
            seen.append([owner.value for owner in owners])

    seen, owners = [], [Owner(), Owner()]
    for owner in owners:
        owner.value = Value()
    _core.set_attributes([(owner, "value", number) for number, owner in enumerate(owners)])
    assert seen == [[0, 1], [0, 1]]


def test_modules_of_a_sequential_are_looked_at_together():
    """What is copied, saved or listed while all parameters are replaced is of one version."""
    def model(seed):
        return Sequential(GRU(2, 3, rng=seed), Sequential(LSTM(3, 3, rng=seed), Linear(3, 4, rng=seed)),
                          Linear(4, 1, rng=seed))

    versions = [model(seed).state_dict() for seed in range(VERSIONS)]
    allowed, shared, done = {bits(*version.values()) for version in versions}, model(0), threading.Event()
    looks = [lambda: bits(*shared.parameters.values()), lambda: bits(*shared.state_dict().values()),
             lambda: bits(*copy.copy(shared).parameters.values()),
             lambda: bits(*(a for part in shared.stream()._model.modules for a in part.parameters.values()))]
    results = together(lambda: replace_by_turns(shared, versions, done, 300),
                       *(lambda look=look: until(done, look) for look in looks))
    for seen in results[1:]:
        assert seen <= allowed


def test_save_while_training(tmp_path):
    """Every file is of one update, which sets all numbers alike."""
    model, path = Sequential(GRU(1, 2, rng=0), Linear(2, 1, rng=0)), tmp_path / "model.npz"
    done = threading.Event()

    def train():
        try:
            for i in range(60):
                with model.updating() as parameters:
                    for value in parameters.values():
                        value[...] = i
        finally:
            done.set()

    def save():
        model.save(path)
        values = fastrnn.load(path).state_dict().values()
        return frozenset(float(number) for value in values for number in value.flat)

    with model.updating() as parameters:
        for value in parameters.values():
            value[...] = -1
    seen = together(train, lambda: until(done, save), timeout=100)[1]
    assert all(len(numbers) == 1 for numbers in seen)


# ---- Caches that fill while others look -------------------------------------------------------------

def uses_at_once(layer, x):
    """The same result in several ways, of a layer that nobody has used before."""
    def after_rounding():
        layer.forward(x, precision="bfloat16")
        return bits(*layer(x))

    return set(together(lambda: bits(*layer(x)), lambda: bits(*copy.copy(layer)(x)),
                        lambda: bits(*pickle.loads(pickle.dumps(layer))(x)),
                        lambda: bits(layer.stream(2).run(x), layer(x)[1]), after_rounding))


def test_copies_while_caches_fill():
    """The first call, the first backward and the first narrow pack add attributes; a copy is made meanwhile."""
    x = data(3, 2, 2)
    for seed in range(30):
        layer = GRU(2, 3, rng=seed)
        assert uses_at_once(layer, x) == {bits(*copy.deepcopy(layer)(x))}


def test_large_buffers_of_many_threads():
    """Buffers of 128 KiB and more come from a list that all threads share, and go back to it."""
    layers = [make_layer(kind, 40, 48, rng=0) for kind in ("gru", "lstm")]
    inputs = [data(40, rows, 40, seed=rows) for rows in (16, 17, 18)]

    def work(layer, x):
        output, last, cache = layer.forward(x)
        gradients = layer.backward(cache, output)
        return bits(output, last, gradients.input, *gradients.parameters.values())

    jobs = [(layer, x) for layer in layers for x in inputs]
    expected = [work(*job) for job in jobs]
    with fastrnn.threads(1):
        for _ in range(4):
            assert together(*(lambda job=job: work(*job) for job in jobs)) == expected


def test_the_number_of_threads_changes_meanwhile():
    """The results are the same for any number."""
    layer, x = make_layer("lstm", 64, 96, rng=0), data(12, 24, 64)
    expected, before, done = bits(*layer(x)), fastrnn.get_num_threads(), threading.Event()

    def change():
        try:
            for i in range(200):
                fastrnn.set_num_threads(1 + i % 3)
                fastrnn.get_num_threads()
        finally:
            done.set()

    try:
        results = together(change, *[lambda: until(done, lambda: bits(*layer(x)))] * 3)
    finally:
        fastrnn.set_num_threads(before)
    assert set().union(*results[1:]) == {expected}


# ---- Streams ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_streams_of_one_layer(kind):
    """Each thread has its own: its bits are those of a stream that is alone."""
    layer, x = make_layer(kind, 3, 8, rng=0), data(200, 3)

    def work():
        stream = layer.stream()
        return bits(*(stream.step(x_t) for x_t in x), stream.state)

    assert set(together(*[work] * WORKERS)) == {work()}


@pytest.mark.parametrize("layers, hidden", [(1, 5), (2, 5), (1, 40), (1, 160)])
def test_one_stream_contested(layers, hidden):
    """No step is torn or lost, and a step that is refused has changed nothing: all that were taken are counted."""
    layer = GRU(1, hidden, layers, rng=0)
    stream, x = layer.stream(), np.ones(1, np.float32)

    def work():
        taken = wrong = 0
        for i in range(150):
            steps = 3 if i % 5 == 4 else 1
            try:
                if steps == 3:
                    stream.run(np.ones((3, 1), np.float32))
                else:
                    stream.step(x)
            except RuntimeError as error:
                wrong += "another thread" not in str(error)
            else:
                taken += steps
            wrong += len(stream.state) != layers
        return taken if not wrong else -1

    alone, taken = layer.stream(), together(*[work] * WORKERS)
    assert min(taken) >= 0 and sum(taken) >= 1
    alone.run(np.ones((sum(taken), 1), np.float32))
    assert_same_bits(stream.state, alone.state)


def test_one_cell_and_one_layer_with_states_of_many_threads():
    """The short ways have one compiled stream a model, which one thread has at a time; the others go the long way."""
    cell, layer = fastrnn.LSTMCell(3, 8, rng=0), LSTM(3, 8, rng=0)

    def work(seed):
        x, state, last, results = data(60, 3, seed=seed), None, None, []
        for x_t in x:
            state = cell(x_t, state)
            output, last = layer(x_t[None], last)
            results += [*state, output]
        return bits(*results)

    expected = [work(seed) for seed in range(WORKERS)]
    assert together(*(lambda seed=seed: work(seed) for seed in range(WORKERS))) == expected


# ---- Training ---------------------------------------------------------------------------------------

def fitted(seed=0):
    model = Sequential(GRU(2, 5, 2, dropout=0.2, rng=seed), Linear(5, 1, rng=seed))
    x = data(24, 10, 2)
    training.fit(model, x.swapaxes(0, 1), np.cumsum(x[..., :1], 1).swapaxes(0, 1), loss=losses.MSE(),
                 optimizer=optim.Adam(model, 0.01), epochs=3, batch_size=8, rng=seed, progress=False)
    return bits(*model.parameters.values())


def test_trainings_at_once():
    """Each has a model and a generator of its own, so that its bits are those of a training that is alone."""
    expected = [fitted(seed) for seed in range(3)]
    assert together(*(lambda seed=seed: fitted(seed) for seed in (0, 1, 2, 0))) == [*expected, expected[0]]
