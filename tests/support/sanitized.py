"""A pytest plugin for builds with sanitizers, which tests/campaigns/sanitizers.py loads into every process of tests.

It makes sure that the tests use that build, leaves out the tests that ran on every instruction set already where
FASTRNN_SANITIZED says so, and has LeakSanitizer look for leaks when the tests are over.
"""

import ctypes
import gc
import os
from pathlib import Path

import pytest

import fastrnn

BUILD = os.environ["FASTRNN_SANITIZED_BUILD"]
ASKED = os.environ.get("FASTRNN_SANITIZED", "").split()


def pytest_sessionstart(session):
    if Path(fastrnn.__file__).parent != Path(BUILD, "fastrnn"):
        pytest.exit(f"fastrnn is {fastrnn.__file__}, and not the build in {BUILD}", 3)


def pytest_collection_modifyitems(config, items):
    """Tests with the fixture `isa` go over the instruction sets by themselves: once is enough for them."""
    if "one-isa" in ASKED:
        left_out = [item for item in items if "isa" in item.fixturenames]
        items[:] = [item for item in items if "isa" not in item.fixturenames]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """While the interpreter is alive, what it and NumPy keep is reachable, and is no leak."""
    if "leaks" in ASKED:
        gc.collect()
        ctypes.CDLL(None).__lsan_do_recoverable_leak_check()
