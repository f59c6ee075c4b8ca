"""Forks: after threads, within calls, in signal handlers, and what workers of multiprocessing compute.

All of it runs in a process of its own (child.py).
"""

import signal

import pytest
from child import python

forks = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals and fork")


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)     # of os.fork() where there are threads
fastrnn.set_num_threads(2)
layer, x = fastrnn.LSTM(128, 128, 2, rng=0), np.ones((60, 32, 128), np.float32)
expected = layer(x)[0]

def check():
    assert np.array_equal(layer(x)[0], expected)
    output, _, cache = layer.forward(x)
    assert np.isfinite(layer.backward(cache, output).input).all()

def in_a_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)                                # a child that hangs ends so
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return lambda: os.waitpid(pid, 0)[1]
"""


@forks
def test_fork_after_threads():
    python(FORK + """
check()

def check_in_a_grandchild():
    check()
    assert in_a_child(check)() == 0

children = [in_a_child(check), in_a_child(check_in_a_grandchild)]
check()
assert [wait() for wait in children] == [0, 0]
check()
""")


@forks
def test_fork_in_a_signal_handler_that_runs_within_a_call():
    """The child goes on in a call whose threads it lacks: an error there, and the next calls are right; never a wait.

    Calls that the handler makes in the child before it returns are right as well, and so is the parent's call.
    """
    python(FORK + """
times = []
for _ in range(10):
    start = time.perf_counter()
    layer(x)
    times.append(time.perf_counter() - start)
second = int(len(x) / min(times))                               # steps; far fewer on a build with sanitizers
long, children = np.broadcast_to(x[:1], (min(second, 6000), 32, 128)), []
whole = layer(long)[0]

def handler(*arguments):
    signal.setitimer(signal.ITIMER_REAL, 0)
    pid = os.fork()
    children.append(pid)
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        check()
        if raises:
            raise KeyError("of the handler")

signal.signal(signal.SIGALRM, handler)
for raises in (False, True):
    children.clear()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        output = layer(long)[0]
    except (RuntimeError, KeyError) as error:
        assert children == [0] and ("forked" in str(error)) != raises, error
        check()
        os._exit(17)
    assert len(children) == 1 and children[0] > 0, children       # otherwise the call ended before the signal came
    assert np.array_equal(output, whole)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 17
""")


@pytest.mark.slow
@forks
def test_fork_while_another_thread_is_in_a_kernel():
    """The child has neither that thread nor the pool it held; a stream that was in a step is whole there too."""
    python(FORK + """
long = np.broadcast_to(x[:1], (3000, 32, 128))
wide, x_1 = fastrnn.LSTM(1024, 1024, rng=0), np.ones((400, 1024), np.float32)
alone, stream = wide.stream(400), wide.stream(400)
outputs = [alone.step(x_1), alone.step(x_1)]

def step_again():
    assert np.array_equal(stream.step(x_1), outputs[0])

for target, work in ((lambda: layer(long), check), (lambda: stream.step(x_1), step_again)):
    thread = threading.Thread(target=target)
    thread.start()
    time.sleep(0.03)
    assert thread.is_alive()
    wait = in_a_child(work)
    assert thread.is_alive()
    assert wait() == 0, work
    thread.join()
check()
assert np.array_equal(stream.step(x_1), outputs[1])
""")


@pytest.mark.slow
@forks
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text("""
import multiprocessing, sys, warnings
import numpy as np
import fastrnn

warnings.simplefilter("ignore", DeprecationWarning)

def work(task):
    layer, x = task
    return layer(x)[0]

if __name__ == "__main__":
    layer, x = fastrnn.LSTM(128, 128, rng=0), np.ones((60, 32, 128), np.float32)
    expected = layer(x)[0]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        for output in pool.map(work, [(layer, x)] * 4):
            assert np.array_equal(output, expected)
    assert np.array_equal(layer(x)[0], expected)
""")
    python(f"import runpy; sys.argv = [{str(script)!r}, {method!r}]; runpy.run_path(sys.argv[0], run_name='__main__')"
           if method == "fork" else
           f"import subprocess; subprocess.run([sys.executable, {str(script)!r}, {method!r}], check=True)")
