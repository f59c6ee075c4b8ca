"""Ctrl-C at any instruction: models and optimizers, streams, estimators are whole afterwards, or say what they need."""

import contextlib
import copy
import signal
import sys

import numpy as np
import pytest
from interruptions import interrupted_everywhere
from load_parts import interrupted

import fastrnn
from fastrnn import _core, optim
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster

# ---- Where compiled code looks for signals --------------------------------------------------------------

@contextlib.contextmanager
def alarms():
    """A signal every 100 us, and looks for one wherever they are possible; gives the list of those handled.

    Pieces of the work below take longer than that, so that each look finds one: how fast the machine is matters little.
    """
    handled = []
    handler = signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
    interval = _core.look_every(0.0)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        yield handled
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _core.look_every(interval)
        signal.signal(signal.SIGALRM, handler)


def packing(precision):
    def prepare():
        layer = fastrnn.GRU(2, 1800, rng=0)
        layer = layer if precision is None else layer.quantized(precision)
        return lambda: layer._make_pack(layer._parameters)
    return prepare


def packing_linear():
    layer = fastrnn.Linear(4000, 4000, rng=0)
    return lambda: layer._make_pack(layer._parameters)


def transposing():
    layer, x = fastrnn.GRU(2, 1800, rng=0), np.zeros((1, 1, 2), np.float32)
    output, _, cache = layer.forward(x)
    return lambda: layer.backward(cache, output)


def clearing():
    layer, x = fastrnn.GRU(1, 4, rng=0), np.zeros((300, 8000, 1), np.float32)
    return lambda: layer(x, lengths=np.ones(8000, np.int64))


def copying():
    layer, x = fastrnn.RNN(64, 1, rng=0, reverse=True), np.zeros((20, 8000, 64), np.float32)
    return lambda: layer.forward(x, lengths=np.full(8000, 20))


WORK = {"packing": packing(None), "packing int8": packing("int8"), "packing bfloat16": packing("bfloat16"),
        "packing a Linear": packing_linear, "transposing": transposing, "clearing past the lengths": clearing,
        "copying ragged rows": copying}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
@pytest.mark.parametrize("work", WORK)
def test_signals_are_looked_for_beside_the_kernels(work):
    """Some before the end, that is: without looks, there would be one before the call and one after it."""
    call = WORK[work]()
    with alarms() as handled:
        call()
        assert len(handled) > 4


# ---- What an interruption leaves ------------------------------------------------------------------------

def contents(*mappings):
    """All names and numbers, to be compared."""
    return tuple((name, np.asarray(value).tobytes()) for mapping in mappings for name, value in mapping.items())


def chain():
    return fastrnn.Sequential(fastrnn.GRU(2, 3, rng=0), fastrnn.Sequential(fastrnn.LSTM(3, 3, rng=1)),
                              fastrnn.Linear(3, 1, rng=2))


MODELS = {"layer": lambda: fastrnn.GRU(2, 3, rng=0), "chain": chain, "cell": lambda: fastrnn.LSTMCell(2, 3, rng=0)}
OPTIMIZERS = {"SGD": lambda net: optim.SGD(net, 0.1, momentum=0.9), "Adam": lambda net: optim.Adam(net, 0.1),
              "RMSprop": lambda net: optim.RMSprop(net, 0.1, momentum=0.9, centered=True)}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_is_whole(kind, name):
    """Parameters, what the optimizer keeps, and its count of steps are all as before the update, or all as after it."""
    net = MODELS[kind]()
    optimizer = OPTIMIZERS[name](net)
    gradients = {key: np.full_like(value, 0.5) for key, value in net.parameters.items()}
    optimizer.step(gradients)
    before = net.state_dict(), optimizer.state_dict()

    def restore():
        net.load_state_dict(before[0])
        optimizer.load_state_dict(before[1])

    optimizer.step(gradients)
    allowed = {contents(*before), contents(net.state_dict(), optimizer.state_dict())}
    restore()

    def check():
        assert contents(net.parameters, optimizer.state_dict()) in allowed
        restore()

    assert interrupted_everywhere(lambda: optimizer.step(gradients), check, 3 if kind == "chain" else 1) > 50


def test_parameters_and_optimizers_are_loaded_whole():
    net, other = chain(), chain()
    optimizer = optim.Adam(net)
    with other.updating() as parameters:
        for value in parameters.values():
            value += 1
    states = net.state_dict(), other.state_dict()

    def check():
        assert contents(net.parameters) in set(map(contents, states))
        net.load_state_dict(states[0])

    assert interrupted_everywhere(lambda: net.load_state_dict(states[1]), check, 3) > 50
    before = optimizer.state_dict()
    optimizer.step({name: np.ones_like(value) for name, value in net.parameters.items()})
    after = optimizer.state_dict()

    def check_optimizer():
        assert contents(optimizer.state_dict()) in {contents(before), contents(after)}
        optimizer.load_state_dict(after)

    assert interrupted_everywhere(lambda: optimizer.load_state_dict(before), check_optimizer, 3) > 50


CALLS = {"step": lambda stream, x, other: stream.step(x[0]), "run": lambda stream, x, other: stream.run(x),
         "state": lambda stream, x, other: setattr(stream, "state", other),
         "reset": lambda stream, x, other: stream.reset(), "reset rows": lambda stream, x, other: stream.reset([1])}


def flat(state):
    return b"".join(flat(part) for part in state) if isinstance(state, tuple) else (
        b"-" if state is None else state.tobytes())


@pytest.mark.parametrize("call", CALLS)
def test_streams_of_chains(call):
    """All layers have taken the step, or none."""
    stream, x = chain().stream(2), np.random.default_rng(0).standard_normal((4, 2, 2), dtype=np.float32)
    stream.run(x)
    before = copy.deepcopy(stream.state)
    other = chain().stream(2)
    other.step(x[0])
    CALLS[call](stream, x, other.state)
    allowed = {flat(before), flat(stream.state)}
    assert len(allowed) == 2
    expected = stream.step(x[1])
    stream.state = before

    def check():
        assert flat(stream.state) in allowed
        stream.state = before

    assert interrupted_everywhere(lambda: CALLS[call](stream, x, other.state), check) > 10
    CALLS[call](stream, x, other.state)
    assert np.array_equal(stream.step(x[1]), expected)


def test_a_step_of_a_chain_that_fails(monkeypatch):
    """The layers before the module that fails go back to where they were; so do those of a block."""
    net = chain()
    stream, x = net.stream(2), np.ones((4, 2, 2), np.float32)
    stream.step(x[0])
    before = flat(stream.state)
    for method in ("step", "run"):
        broken = net.stream(2)
        broken.state = stream.state

        def fail(x):
            raise ZeroDivisionError

        setattr(broken._parts[2], method, fail)
        broken._chain = type(broken._chain)(list(broken._leaves()))
        with pytest.raises(ZeroDivisionError):
            getattr(broken, method)(x if method == "run" else x[0])
        assert flat(broken.state) == before


def whole_or_refused(stepped, restore, references):
    """Whether it is as one of the references; otherwise it has to say what it needs, and get it."""
    try:
        snapshot = stepped.snapshot()
    except RuntimeError:
        for refused in (stepped.snapshot, lambda: copy.deepcopy(stepped)):
            with pytest.raises(RuntimeError, match="restore a snapshot"):
                refused()
        restore()
        return False
    assert snapshot in references
    restore()
    return True


@pytest.mark.parametrize("blend", [False, ["network", "naive", "theta", "linear"]])
def test_forecast_streams(blend):
    y = np.sin(np.arange(120) / 4) + 10
    known = np.arange(120.0)[:, None]
    model = RNNForecaster(4, updates=3, window=12, seasons=(6,), blend=blend, random_state=0).fit(known, y)
    stream = model.stream(0, np.arange(120.0, 124.0)[:, None], interval=0.9)
    stream.restore(stream.snapshot())       # from now on the snapshots of one state are equal
    before = stream.snapshot()
    expected = stream.step(10.5, known=[1.0])
    after, outcomes = stream.snapshot(), []
    stream.restore(before)

    def check():
        outcomes.append(whole_or_refused(stream, lambda: stream.restore(before), (before, after)))

    assert interrupted_everywhere(lambda: stream.step(10.5, known=[1.0]), check, 7) > 50
    assert set(outcomes) == {True, False}
    assert np.array_equal(stream.step(10.5, known=[1.0]), expected)
    for bad in (["x"], [1.0, 2.0], [np.inf]):           # a refused argument is no interruption
        with pytest.raises((TypeError, ValueError)):
            stream.step(10.5, known=bad)
    stream.step(10.5, known=[1.0])


@pytest.mark.slow
@pytest.mark.parametrize("timed", [False, True])
def test_detectors_learn_whole_rows(timed):
    values = np.random.default_rng(0).standard_normal((150, 2))
    times = np.datetime64("2026-01-01T00", "h") + np.arange(151)
    options = {"time_features": ("day",)} if timed else {}
    detector = RNNAnomalyDetector(hidden_size=4, refractory=5, random_state=0, **options)
    detector.fit(values, times=times[:150] if timed else None)
    row, time = [0.1, 9.0], times[150] if timed else None
    detector.restore(detector.snapshot())   # from now on the snapshots of one state are equal
    before = detector.snapshot()
    if timed:
        detector._tell(detector._state, time)
    told = detector.snapshot()                  # it expects the row at that time
    detector.learn_one(row, time)
    after, outcomes = detector.snapshot(), []
    detector.restore(before)

    def check():
        outcomes.append(whole_or_refused(detector, lambda: detector.restore(before), (before, told, after)))

    assert interrupted_everywhere(lambda: detector.learn_one(row, time), check, 23) > 20
    assert False in outcomes
    score = detector.score_one([0.0, 0.0], time)
    detector._state._break()
    for call in (lambda: detector.score_one([0.0, 0.0], time), lambda: detector.learn_one(row, time),
                 lambda: detector.score_samples(values[:3]), lambda: detector.explain_one([0.0, 0.0], time)):
        with pytest.raises(RuntimeError, match="restore a snapshot"):
            call()
    detector.restore(before)
    assert detector.score_one([0.0, 0.0], time) == score


@pytest.mark.slow
def test_fits_are_whole():
    """An interrupted fit leaves an estimator as it was, fitted or not."""
    old, new = np.sin(np.arange(60) / 3), np.cos(np.arange(80) / 5)
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0)
    with pytest.raises(ValueError):
        detector.score_samples(old[:, None])
    fitted = copy.deepcopy(detector).fit(old[:, None])
    other = copy.deepcopy(detector).fit(new[:, None])
    allowed = [fitted.score_samples(old[:, None]), other.score_samples(old[:, None])]
    assert not np.array_equal(*allowed)
    restore = fitted.snapshot()

    def check():
        assert any(np.array_equal(fitted.score_samples(old[:, None]), each) for each in allowed)
        fitted.restore(restore)

    assert interrupted_everywhere(lambda: fitted.fit(new[:, None]), check, 30011) > 2
    model = RNNForecaster(3, updates=2, window=8, hidden_size=4, seasons=(), blend=["network", "naive"], random_state=0)
    names = set(vars(model))
    model.fit(old)
    forecasts = model.predict()
    after = copy.deepcopy(model).fit(new).predict()

    def check_model():
        assert any(np.array_equal(model.predict(), each) for each in (forecasts, after))
        model.fit(old)

    assert interrupted_everywhere(lambda: model.fit(new), check_model, 20011) > 2
    unfitted = RNNForecaster(3, updates=2, window=8, hidden_size=4, seasons=(), blend=["network", "naive"])

    def check_unfitted():
        assert set(vars(unfitted)) == names or unfitted.predict() is not None
        for name in set(vars(unfitted)) - names:
            delattr(unfitted, name)

    assert interrupted_everywhere(lambda: unfitted.fit(old), check_unfitted, 40009) > 1


# ---- What `make load` interrupts -----------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the campaign needs Linux")
@pytest.mark.parametrize("name", interrupted.CALLS)
def test_the_calls_of_the_campaign_run(name, tmp_path):
    """Each ends, and leaves what its check expects; the campaign has them interrupted at random moments."""
    call, check = interrupted.CALLS[name](tmp_path)
    call()
    check()
