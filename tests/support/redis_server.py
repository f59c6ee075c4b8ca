"""A Redis server of a test's own, on loopback, and why there is none."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time

MISSING = None
if shutil.which("redis-server") is None:
    MISSING = "redis-server is missing: apt-get install redis-server"
elif importlib.util.find_spec("redis") is None:
    MISSING = "the package redis is missing: pip install fastrnn[redis]"


@contextlib.contextmanager
def running(folder):
    """The address of a server that keeps nothing on disk, until the block ends."""
    import redis
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly",
                               "no", "--dir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"redis://127.0.0.1:{port}/0"
    try:
        with contextlib.closing(redis.Redis.from_url(address)) as client:
            for attempt in range(200):
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if attempt == 199 or server.poll() is not None:
                        raise
                    time.sleep(0.05)
        yield address
    finally:
        server.terminate()
        server.wait(20)
