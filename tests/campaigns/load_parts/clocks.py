"""Clocks that jump: the time of day goes back and forth while models are trained and runs report their progress.

A library of a few lines, loaded before the C library, answers every question for the time of day with one that is up
to 55 years off, another each time. The monotonic clock is left alone, as it is when somebody sets the clock.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .common import ROOT, child

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

static long shift(void)
{
    static atomic_ulong state = 88172645463325252ul;
    unsigned long x = atomic_fetch_add(&state, 0x9e3779b97f4a7c15ul);
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ul;
    return (long)((x ^ x >> 27) % 3500000000ul) - 1750000000l;    /* seconds: 55 years either way */
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, t);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) t->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


def run_work():
    """Training, forecasts, a run over partitions, the commands' timing; raises where a duration is off."""
    import time

    import numpy as np
    import pyarrow as pa

    import fastrnn
    from fastrnn import losses, optim, scale, training
    from fastrnn.forecasting import RNNForecaster
    times = [time.time() for _ in range(10)]
    jumped = max(times) - min(times) > 3600
    net = fastrnn.Sequential(fastrnn.GRU(2, 8, rng=0), fastrnn.Linear(8, 1, rng=0))
    x = np.random.default_rng(0).standard_normal((10, 16, 2), dtype=np.float32)
    history = training.fit(net, x, x[..., :1], loss=losses.MSE(), optimizer=optim.Adam(net), epochs=4, batch_size=4,
                           rng=0)
    assert all(0 <= seconds < 600 for seconds in history["seconds"]), history["seconds"]
    large, data = fastrnn.LSTM(256, 256, rng=0), np.ones((200, 32, 256), np.float32)
    with fastrnn.threads(2):                    # waits and teams go by the monotonic clock
        assert np.array_equal(large(data)[0], large(data)[0])
    names = np.repeat([f"s{n}" for n in range(8)], 60)
    table = pa.table({"unique_id": names, "y": np.sin(np.arange(480) / 4)})
    with tempfile.TemporaryDirectory() as folder:
        scale.partition(table, out=Path(folder) / "parts", partitions=4)
        model = RNNForecaster(3, updates=5, seasons=(), blend=["network", "naive"], random_state=0, target="y",
                              series="unique_id").fit(table)
        report = scale.forecast(model, Path(folder) / "parts", Path(folder) / "out", progress=False)
        assert 0 <= report.seconds < 600, report.seconds
        net.save(Path(folder) / "model.npz")    # archives note the time of day
        assert fastrnn.load(Path(folder) / "model.npz")(x)[0].shape == (10, 16, 1)
    print("jumped" if jumped else "steady", np.float64(net(x)[0].sum()).hex(), flush=True)


CHILDREN = {"work": run_work}


def run(options, report):
    """The same work with a steady clock and with one that jumps."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "shim.c", Path(folder) / "shim.so"
        source.write_text(SHIM)
        try:
            subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"],
                           check=True)
        except FileNotFoundError:
            report.judge("clocks", False, "a C compiler is needed to make the clock jump (CC names it)")
            return
        printed = [child("clocks", "work").communicate()[0].split()]
        environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, str(Path(__file__).parents[1] / "load.py"), "--child", "clocks", "work"],
                              env=environment, capture_output=True, text=True)
        printed.append(done.stdout.split())
    same = printed[0][:1] == ["steady"] and printed[1][:1] == ["jumped"] and printed[0][1] == printed[1][1]
    report.judge("clocks", same, f"the same work by a steady clock and by one that jumps: {printed}"
                 + (f" {done.stderr[-500:]}" if done.returncode else ""))
