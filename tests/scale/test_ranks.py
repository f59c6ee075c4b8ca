"""Training on several processes: the same bits for any number of them, through deaths and on other numbers."""

import multiprocessing
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import assert_same_bits

import fastrnn
from fastrnn import losses, optim, scale, training
from fastrnn.training import checkpoints
from fastrnn.training.parallel import LocalSums, Parallel, Tree

RNG = np.random.default_rng(0)
X = RNG.standard_normal((14, 21, 3)).astype(np.float32)
Y = np.cumsum(X[..., :1], 0)
SIZES = (1, 2, 3, 4, 8)
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
MPI = shutil.which("mpirun")
try:
    import mpi4py  # noqa: F401
except ImportError:
    MPI = None
with_mpi = pytest.mark.skipif(MPI is None, reason="needs MPI: Debian's openmpi-bin and libopenmpi-dev, and mpi4py")


def model(seed=0):
    return fastrnn.Sequential(fastrnn.LSTM(3, 8, 2, dropout=0.2, rng=seed), fastrnn.Linear(8, 1, rng=seed))


def train(parallel, net=None, **options):
    net = net or model()
    given = {"x": X, "y": Y, "loss": losses.MSE(), "optimizer": optim.Adam(net, 0.01), "epochs": 2, "batch_size": 8,
             "rng": 0, "progress": False, "clip_norm": 0.5, "validation": (X[:, :5], Y[:, :5])} | options
    history = training.fit(net, given.pop("x"), given.pop("y"), parallel=parallel, **given)
    return {**net.state_dict(), **{name: np.array(history[name]) for name in history if name != "seconds"}}


# ---- The tree -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("shards", [1, 2, 3, 5, 8, 13, 16])
def test_every_element_is_the_same_sum_for_any_number_of_ranks(shards):
    """Of numbers whose sum depends on the order; also where there are fewer rows than shards."""
    rng = np.random.default_rng(1)
    values = (rng.standard_normal((shards, 7)) * 10.0 ** rng.integers(-8, 8, (shards, 7))).astype(np.float32)
    for rows in {1, 2, shards - 1, shards, shards + 9} - {0}:
        expected = list(values[:rows])
        while len(expected) > 1:            # distance 1, 2, 4, ...: each second one takes its neighbour
            expected = [sum(expected[i + 1:i + 2], expected[i]) for i in range(0, len(expected), 2)]
        for ranks in range(1, shards + 3):
            tree = Tree(shards, ranks, 7, values.dtype)
            assert sorted(s for rank in range(ranks) for s in tree.block(rank)) == list(range(shards))
            sums = np.full((len(tree.nodes), 7), np.nan, np.float32)
            for rank in range(ranks):
                local = LocalSums(tree, rank)
                for s in tree.block(rank):
                    local.add(s, {"a": values[s, :3], "b": values[s, 3:]} if s < rows else None)
                for start, value in local.take().items():
                    if value is not None:
                        sums[tree.nodes[next(node for node in tree.of_rank[rank] if node[0] == start)]] = value
            total = np.concatenate([sums[:, part][tree.combine(sums[:, part], rows)]
                                    for part in map(tree.columns, range(ranks))])
            assert_same_bits(total, expected[0])


# ---- Processes ----------------------------------------------------------------------------------------

OPTIONS = {
    "plain": {}, "lengths": {"lengths": np.arange(21) % 14 + 1, "tbptt": 4, "validation": None},
    "three shards": {"lengths": np.arange(21) % 14 + 1, "tbptt": 4, "shards": 3, "validation": None},
    "five shards": {"shards": 5, "validation": None}, "mask": {"mask": np.arange(14 * 21).reshape(14, 21) % 3},
    "one row a minibatch": {"batch_size": 1, "epochs": 1, "validation": None, "x": X[:, :4], "y": Y[:, :4]},
    "ragged": {"x": [X[:n % 13 + 1, n] for n in range(21)], "y": [Y[:n % 13 + 1, n] for n in range(21)],
               "validation": None},
    "bfloat16": {"precision": "bfloat16", "epochs": 1},
    "lengths, fewer rows than shards": {"lengths": np.arange(21) % 14 + 1, "tbptt": 3, "batch_size": 16, "epochs": 1,
                                        "mask": np.arange(14 * 21).reshape(14, 21) // 42 % 2, "validation": None},
}


@forks
@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_bits_on_any_number_of_processes(options):
    expected = train(scale.processes(1), **OPTIONS[options])
    for n in SIZES[1:] if options == "plain" else (2, 5):
        assert_same_bits(train(scale.processes(n), **OPTIONS[options]), expected)


@forks
def test_batch_first_and_a_loss_of_ones_own():
    def loss(output, target, mask):
        return losses.Huber(0.3)(output, target, mask)
    results = []
    for n in (1, 3):
        net = fastrnn.GRU(3, 1, batch_first=True, rng=0)
        results.append(train(scale.processes(n), net, x=X.swapaxes(0, 1), y=Y.swapaxes(0, 1), loss=loss,
                             validation=None))
    assert_same_bits(*results)


@forks
def test_it_is_the_gradient_of_the_whole_minibatch():
    """Without dropout one update is that of training without shards, but for rounding."""
    def updated(parallel):
        net = fastrnn.GRU(3, 1, dtype=np.float64, rng=0)
        before = net.state_dict()
        training.fit(net, X.astype(float), Y.astype(float), loss=losses.MSE(), optimizer=optim.SGD(net, 1.0), epochs=1,
                     batch_size=21, lengths=np.arange(21) % 14 + 1, mask=np.arange(14 * 21).reshape(14, 21) % 4,
                     parallel=parallel, rng=0, progress=False)
        return {name: value - before[name] for name, value in net.state_dict().items()}
    expected, found = updated(None), updated(scale.processes(2))
    for name, value in expected.items():
        assert abs(value).max() > 1e-3
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-13)


@forks
@pytest.mark.parametrize("n", [1, 2])
def test_a_skipped_update_is_told_once_and_of_the_callers_line(n):
    net = fastrnn.GRU(3, 1, rng=0)
    y = Y.copy()
    y[3, 5] = np.inf
    with pytest.warns(RuntimeWarning, match="in epoch 0, minibatch 0: update skipped") as warned:
        history = training.fit(net, X, y, loss=losses.MSE(), optimizer=optim.Adam(net), epochs=1, batch_size=8,
                               shuffle=False, rng=0, parallel=scale.processes(n), progress=False)
    assert len(warned) == 1 and warned[0].filename == __file__
    assert history["skipped"] == [1] and np.isfinite(net.parameters["weight_hh_l0"]).all()


@pytest.mark.slow
def test_processes_that_are_spawned(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("PARALLEL", "scale.processes(2, start_method='spawn')"))
    subprocess.run([sys.executable, script, tmp_path / "spawned"], check=True, timeout=120)
    assert_same_bits(pickle.loads((tmp_path / "spawned").read_bytes()), train(scale.processes(1)))


# ---- Checkpoints --------------------------------------------------------------------------------------

class Stopped(Exception):
    pass


def stopping(after):
    """``checkpoints.save``, which raises when it has written so many."""
    save, count = checkpoints.save, 0

    def stopped(*arguments):
        nonlocal count
        save(*arguments)
        count += 1
        if count == after:
            raise Stopped
    return stopped


def contents(path):
    """The arrays of a checkpoint but for the times."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name not in ("fastrnn", "history.seconds")} | {
            "sums": file["sums"][:-1]}


@forks
@pytest.mark.parametrize("options", ["plain", "lengths", "three shards"])
def test_checkpoints_are_the_same_and_go_on_on_another_number(options, tmp_path, monkeypatch):
    """Stopped in the middle of a minibatch, too, where truncated back-propagation carries a state."""
    expected = train(scale.processes(1), **OPTIONS[options])
    for after in (1, 2, 5):
        before = []
        for n, then in ((1, 4), (2, 1), (3, 2)):
            given = OPTIONS[options] | {"checkpoint_every": 1, "checkpoint": tmp_path / f"{after} {n}"}
            with monkeypatch.context() as patch:
                patch.setattr(checkpoints, "save", stopping(after))
                with pytest.raises(Stopped):
                    train(scale.processes(n), **given)
            before.append(contents(tmp_path / f"{after} {n}"))
            assert_same_bits(before[-1], before[0])
            assert_same_bits(train(scale.processes(then), model(5), **given), expected)


def test_a_checkpoint_knows_its_shards(tmp_path):
    train(scale.processes(1), checkpoint=tmp_path / "a", epochs=1)
    with pytest.raises(ValueError, match="shards"):
        train(scale.processes(1), checkpoint=tmp_path / "a", shards=8)
    with pytest.raises(ValueError, match="shards"):
        train(None, checkpoint=tmp_path / "a")


# ---- Faults -------------------------------------------------------------------------------------------

def in_rank(rank, act):
    """A loss that does something once, at its third call in one of the ranks."""
    leader, calls = os.getpid(), 0

    def loss(output, target, mask):
        nonlocal calls
        calls += 1
        own = 0 if os.getpid() == leader else 1
        if calls == 3 and own == rank:
            act()
        return losses.MSE()(output, target, mask)
    return loss


def raises():
    raise KeyError("in the loss")


@forks
def test_an_error_in_another_process_is_told():
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 failed: KeyError: 'in the loss'"):
        train(scale.processes(2), loss=in_rank(1, raises))
    with pytest.raises(KeyError):
        train(scale.processes(2), loss=in_rank(0, raises))


def interrupts():
    raise KeyboardInterrupt


@forks
def test_an_interrupt_in_one_process_ends_all():
    with pytest.raises(RuntimeError, match="rank 1 of 2 failed: KeyboardInterrupt"):
        train(scale.processes(2), loss=in_rank(1, interrupts))
    with pytest.raises(KeyboardInterrupt):
        train(scale.processes(2), loss=in_rank(0, interrupts))
    assert not multiprocessing.active_children()


@forks
def test_a_process_that_is_killed_is_named_and_the_checkpoint_goes_on(tmp_path):
    path = tmp_path / "checkpoint"

    def loss(output, target, mask):
        return losses.MSE()(output, target, mask)
    killing = in_rank(1, lambda: os.kill(os.getpid(), signal.SIGKILL))
    killing.__qualname__ = loss.__qualname__
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 \(process \d+\) ended: exit status -9"):
        train(scale.processes(2), loss=killing, checkpoint=path)
    assert path.exists()                    # though no epoch was ended, and no checkpoint_every was given
    assert_same_bits(train(scale.processes(3), model(4), loss=loss, checkpoint=path),
                     train(scale.processes(1), loss=loss))


@forks
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds processes in /proc")
def test_no_process_outlives_the_one_that_called(tmp_path):
    """Killed, interrupted or done: its workers end as well."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("PARALLEL", "scale.processes(3)").replace("epochs=2", "epochs=100000"))
    for number in (signal.SIGKILL, signal.SIGINT):
        process, workers = subprocess.Popen([sys.executable, script, tmp_path / "out"], stderr=subprocess.DEVNULL), []
        try:
            children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
            wait_until(lambda path=children: len(path.read_text().split()) == 2)
            workers = children.read_text().split()
            time.sleep(0.2)
            process.send_signal(number)
            assert process.wait(30) != 0
            wait_until(lambda pids=workers: not any(map(runs, pids)))
        finally:
            process.kill()
            process.wait()
            for worker in filter(runs, workers):
                os.kill(int(worker), signal.SIGKILL)


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to that in 30 s")


def runs(pid):
    """Whether a process runs, and does not just wait to be collected."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("arguments, error, match", [
    ({"n": 0}, ValueError, "^n\\b"), ({"n": 1.5}, TypeError, "^n\\b"), ({"n": 2, "threads": 0}, ValueError, "threads"),
    ({"n": 2, "start_method": "thread"}, ValueError, "start_method")])
def test_unsuitable_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        scale.processes(**arguments)


def test_unsuitable_parallel():
    with pytest.raises(TypeError, match=r"parallel: expected fastrnn\.scale\.processes"):
        train(4)
    with pytest.raises(ValueError, match="shards"):
        train(scale.processes(1), shards=0)
    assert isinstance(scale.processes(1), Parallel)


# ---- MPI ----------------------------------------------------------------------------------------------

SCRIPT = f"""
import os, pickle, sys
sys.path[:0] = {[str(pathlib.Path(__file__).parents[1] / "support"), str(pathlib.Path(__file__).parent),
                 str(pathlib.Path(__file__).parents[2])]}
from test_ranks import *
signal.signal(signal.SIGINT, signal.default_int_handler)     # a suite that runs in the background has it ignored
if __name__ == "__main__":
    net = model()
    history = training.fit(net, X, Y, loss=losses.MSE(), optimizer=optim.Adam(net, 0.01), epochs=2, batch_size=8, rng=0,
                           progress=False, clip_norm=0.5, validation=(X[:, :5], Y[:, :5]), parallel=PARALLEL)
    result = {{**net.state_dict(), **{{name: np.array(history[name]) for name in history if name != "seconds"}}}}
    with open(sys.argv[1] + os.environ.get("OMPI_COMM_WORLD_RANK", ""), "wb") as file:
        pickle.dump(result, file)
"""


def mpirun(n, *command):
    environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                                "OMPI_MCA_mpi_yield_when_idle": "1", "OMP_NUM_THREADS": "1", "FASTRNN_NUM_THREADS": "1"}
    return subprocess.run([MPI, "--oversubscribe", "-n", str(n), sys.executable, *map(str, command)], env=environment,
                          capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@with_mpi
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_mpi_has_the_same_bits(n, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("PARALLEL", "scale.mpi()"))
    done = mpirun(n, script, tmp_path / "rank")
    assert done.returncode == 0, done.stderr
    expected = train(scale.processes(1))
    for rank in range(n):
        assert_same_bits(pickle.loads((tmp_path / f"rank{rank}").read_bytes()), expected)


@pytest.mark.slow
@with_mpi
@pytest.mark.parametrize("act, reason", [("raises", "KeyError: 'in the loss'"), ("interrupts", "KeyboardInterrupt")])
def test_an_error_in_a_rank_of_mpi_is_told_everywhere(act, reason, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("PARALLEL", "scale.mpi()").replace(
        "loss=losses.MSE()", "loss=in_rank(int(os.environ['OMPI_COMM_WORLD_RANK'] != '1'), ACT)".replace("ACT", act)))
    done = mpirun(2, script, tmp_path / "rank")
    assert done.returncode != 0
    assert f"rank 1 of 2 failed: {reason}" in done.stderr
    assert not list(tmp_path.glob("rank*"))


def test_without_mpi4py_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"pip install fastrnn\[mpi\]"):
        scale.mpi()
