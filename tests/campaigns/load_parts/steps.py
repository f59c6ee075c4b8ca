"""A billion steps of one stream, and counters beyond 32 bits."""

import itertools
import time

import numpy as np
import psutil

from .common import child

STEPS = 10**9
CHECKPOINTS = 10
CELL = (1, 2)           # inputs and units: the least that a step can cost
PERIOD = 2**20          # steps after which the input begins again
BEYOND = (2**31, 2**32, 2**53)


def go_on(stream, x, start, stop, sizes):
    """Takes steps start..stop of the periodic input, in blocks of the given sizes; a block of 1 is a step."""
    t = start
    while t < stop:
        at = t % PERIOD
        count = min(next(sizes), stop - t, PERIOD - at)
        if count == 1:
            stream.step(x[at])
        else:
            stream.run(x[at:at + count])
        t += count


def run_long(steps):
    """Two streams with blocks of different sizes; prints a line at each checkpoint."""
    import fastrnn
    steps = int(steps)
    layer = fastrnn.GRU(*CELL, rng=0)
    x = np.random.default_rng(0).standard_normal((PERIOD, CELL[0]), dtype=np.float32)
    streams = layer.stream(), layer.stream()
    rng = np.random.default_rng(1)
    regular = itertools.repeat(65536)
    irregular = itertools.cycle([1] * 50 + rng.integers(2, 200_000, 500).tolist())
    process, size, begin = psutil.Process(), None, time.monotonic()
    for number in range(1, CHECKPOINTS + 1):
        start, stop = steps * (number - 1) // CHECKPOINTS, steps * number // CHECKPOINTS
        for stream, sizes in zip(streams, (regular, irregular), strict=True):
            go_on(stream, x, start, stop, sizes)
        size = size or process.memory_info().rss
        equal = np.array_equal(streams[0].state, streams[1].state) and np.isfinite(streams[0].state).all()
        again = layer.restore(streams[0].snapshot())
        equal = equal and np.array_equal(again.step(x[0]), layer.restore(streams[1].snapshot()).step(x[0]))
        print(stop, int(equal), process.memory_info().rss - size, f"{time.monotonic() - begin:.0f}", flush=True)


def beyond(count):
    """Faults of estimators and optimizers whose counters stand at `count`, where a twin's stand at a small number."""
    from fastrnn import Linear, optim
    from fastrnn.anomaly import RNNAnomalyDetector
    from fastrnn.forecasting import RNNForecaster
    faults, values = [], np.sin(np.arange(400) / 5) + 0.1 * np.random.default_rng(0).standard_normal(400)
    model = RNNForecaster(4, updates=5, random_state=0, blend=False).fit(values)
    twins = model.stream(), model.stream()
    twins[1]._count += count
    for value in values[:200]:
        forecasts = [stream.step(value) for stream in twins]
        if not np.array_equal(*forecasts):
            faults.append("a forecast stream")
            break
    twins[0].restore(twins[1].snapshot())
    detectors = [RNNAnomalyDetector(random_state=0, refractory=20).fit(values[:, None]) for _ in range(2)]
    state = detectors[1]._state
    state.peaks = type(state.peaks)((row + count, digits) for row, digits in state.peaks)
    state.count += count
    for value in np.concatenate([values[:200], [9.0], values[:100]]):
        if detectors[0].score_one(value) != detectors[1].score_one(value):
            faults.append("a detector")
            break
        for detector in detectors:
            detector.learn_one(value)
    detectors[0].restore(detectors[1].snapshot())
    net = Linear(3, 2, rng=0)
    optimizer = optim.Adam(net)
    optimizer.load_state_dict(optimizer.state_dict() | {"steps": count})
    optimizer.step({name: np.ones_like(value) for name, value in net.parameters.items()})
    if optimizer.steps != count + 1 or not all(np.isfinite(value).all() for value in net.parameters.values()):
        faults.append("an optimizer")
    return faults


CHILDREN = {"long": run_long}


def run(options, report):
    """The steps in a process of its own; the counters here."""
    steps = 10**7 if options.slice else STEPS
    process, equal, growth = child("steps", "long", steps), True, 0
    for line in process.stdout:
        at, same, grown, seconds = line.split()
        report.note(f"  {int(at):13,} steps: {'equal' if same == '1' else 'DIFFERENT'}, memory {int(grown):+} bytes, "
                    f"{seconds} s")
        equal, growth = equal and same == "1", max(growth, int(grown))
    report.judge("steps", process.wait() == 0 and equal, f"two streams of {steps:,} steps, in blocks of different "
                 "sizes, are equal and finite at every checkpoint")
    report.judge("their memory", growth <= 2**20, f"grew by {growth / 2**10:.0f} KiB, at most 1024")
    for count in BEYOND:
        faults = beyond(count)
        report.judge(f"counters at {count}", not faults, f"wrong: {', '.join(faults) or 'none'}")
