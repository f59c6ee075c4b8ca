"""Accelerated models in wrappers and several processes (DataParallel, DDP on gloo, shared memory), sizes, autocast."""

import copy
import multiprocessing
import socket

import pytest
from child import python

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_modules import OURS, H, I, N, T, assert_close, everything, numbers, pair, runs_kernels  # noqa: E402

import fastrnn.pytorch  # noqa: E402
from fastrnn.pytorch import accelerate  # noqa: E402

KINDS = ["LSTM", "GRU", "RNN"]


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """In these tests small calls run on the kernels, too."""
    torch.manual_seed(0)
    monkeypatch.setattr(fastrnn.pytorch.modules, "_gains", lambda *call: True)


@pytest.mark.parametrize("kind", KINDS)
def test_data_parallel_without_devices_is_the_module(kind):
    theirs, ours = pair(kind)
    x = numbers(T, N, I)
    wrapped = nn.DataParallel(ours, device_ids=[])
    assert_close([wrapped(x)[0]], [theirs(x)[0]], 1e-11)
    assert runs_kernels(wrapped(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_accelerated_inside_wrappers(kind):
    theirs = nn.DataParallel(getattr(nn, kind)(I, H, dtype=torch.float64), device_ids=[])
    ours = copy.deepcopy(theirs)
    assert list(accelerate(ours).swapped) == ["module"]
    x = numbers(T, N, I)
    assert_close(everything(ours.module, x, [], [x]), everything(theirs.module, x, [], [x]), 1e-11)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
                    reason="torch was built without gloo")
@pytest.mark.parametrize("when", ["before", "after"])
def test_distributed_data_parallel(when):
    """Two processes, half of the batch each: the gradients are those of one process with the whole batch."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    print(python(f"""
        import warnings
        warnings.simplefilter("ignore")
        import torch, torch.distributed as dist
        from torch import nn
        import fastrnn.pytorch as fp
        torch.set_num_threads(1)
        child = os.fork()
        rank = 0 if child else 1
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="{port}")
        dist.init_process_group("gloo", rank=rank, world_size=2)

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.recurrent, self.head = nn.LSTM(8, 16, 2, bidirectional=True), nn.Linear(32, 1)

            def forward(self, x):
                return self.head(self.recurrent(x)[0])

        torch.manual_seed(0)
        net, alone = Net(), Net()
        alone.load_state_dict(net.state_dict())
        if "{when}" == "before":
            fp.accelerate(net)
        wrapped = nn.parallel.DistributedDataParallel(net)
        if "{when}" == "after":
            fp.accelerate(wrapped)
        assert type(net.recurrent) is fp.LSTM
        x = torch.randn(10, 6, 8)
        for _ in range(3):
            for model, rows in ((wrapped, x[:, 3 * rank:3 * rank + 3]), (alone, x)):
                model.zero_grad()
                model(rows).square().mean().backward()
                with torch.no_grad():
                    for p in model.parameters():
                        p -= 0.1 * p.grad
        same = all(torch.allclose(p, q, atol=1e-6) for p, q in zip(net.parameters(), alone.parameters()))
        dist.barrier()
        dist.destroy_process_group()
        if child == 0:
            os._exit(0 if same else 1)
        assert same and os.waitpid(child, 0)[1] == 0
    """))


def _trained_elsewhere(module):
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_shared_memory_that_another_process_trains(kind):
    theirs, ours = pair(kind)
    ours.share_memory()
    x = numbers(T, N, I)
    before = ours(x)[0]
    process = multiprocessing.get_context("fork").Process(target=_trained_elsewhere, args=(ours,))
    process.start()
    process.join()
    assert process.exitcode == 0
    _trained_elsewhere(theirs)
    after = ours(x)[0]
    assert runs_kernels(after) and not torch.allclose(after, before)
    assert_close([after], [theirs(x)[0]], 1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(1, 1), (1, 33), (33, 1), (64, 64)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (40, 33)], ids=str)
def test_sizes(kind, sizes, shape):
    theirs, ours = pair(kind, *sizes)
    x = numbers(*shape, sizes[0])
    assert_close(everything(ours, x, [], [x]), everything(theirs, x, [], [x]), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_to_float16_is_torchs(kind, passes):
    theirs, ours = pair(kind, dtype=torch.float32)
    x, results = numbers(T, N, I, dtype=torch.float32), []
    for module in (ours, theirs):
        try:
            with torch.autocast("cpu", torch.float16):
                output = module(x)[0]
        except RuntimeError as error:       # oneDNN has no LSTM of float16 on many processors
            results.append(str(error))
        else:
            results.append([output, *torch.autograd.grad(output.float().square().sum(), [x, *module.parameters()])])
    if isinstance(results[1], str):
        assert results[0] == results[1]
    else:
        assert_close(*results, 0)
    assert passes == [] and OURS[kind] is type(ours)
