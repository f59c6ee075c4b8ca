"""The service of examples/stream_service.py: crashes and kills lose and repeat no row."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis_server

PATH = Path(__file__).parents[2] / "examples" / "stream_service.py"
WITH_REDIS = pytest.mark.skipif(redis_server.MISSING is not None, reason=str(redis_server.MISSING))


def example():
    spec = importlib.util.spec_from_file_location("stream_service", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_crashes_with_a_log_in_this_process(tmp_path, capsys):
    service = example()
    service.demonstrate(service.MemoryLog(), tmp_path / "states.sqlite", clients=100, rows=10, rate=2000)
    assert "3 crashes: each row has one score" in capsys.readouterr().out


def test_a_crash_before_the_first_flush_and_a_wrong_score(tmp_path):
    service = example()
    log, path = service.MemoryLog(), tmp_path / "states.sqlite"
    clients = service.Clients(log, 5, 4, 1e9)
    clients.send()
    for life in range(2):
        each, calls = service.Service(service.default_model(), log, path, most=7, flush_every=1e9), iter(range(3))
        each.run(lambda calls=calls: next(calls, None) is None)
        each.close()
        assert each.repeated == (0 if life == 0 else 20)     # nothing was flushed: all 20 rows are computed again
    clients.receive()
    clients.check(service.default_model())
    clients.scores[3] = (*clients.scores[3][:2], clients.scores[3][2] + 1)
    with pytest.raises(RuntimeError, match="is not a solo stream's"):
        clients.check(service.default_model())
    del clients.scores[3]
    with pytest.raises(RuntimeError, match="lost, repeated or answered out of order"):
        clients.check(service.default_model())


@WITH_REDIS
@pytest.mark.slow
def test_kills_with_redis(tmp_path, capsys):
    """A thousand clients; the service is a process of its own, which is killed three times."""
    service = example()
    with redis_server.running(tmp_path) as address:
        clients = service.Clients(service.RedisLog(address), 1000, 10, 2000)
        receiver = service.Clients.receive
        threads = [threading.Thread(target=clients.send), threading.Thread(target=receiver, args=(clients,))]
        for thread in threads:
            thread.start()
        command = [sys.executable, str(PATH), "--redis", address, "--serve", "--states", str(tmp_path / "s.sqlite")]
        for life in range(4):
            process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
            try:
                if life < 3:
                    threads[1].join(1.5)
                else:
                    threads[1].join(100)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
        threads[0].join()
        clients.check(service.default_model())
    latencies = sorted(clients.latencies())
    assert len(latencies) == 10000
    print(f"p50 {latencies[5000]:.1f} ms, p99 {latencies[9900]:.1f} ms, three kills among them")
    assert "p50" in capsys.readouterr().out
