"""A Python without a GIL: importing fastrnn leaves it so. And imports of many threads at once."""

import sysconfig

import pytest
from child import python

MODULES = """
import importlib, pkgutil
import fastrnn
names = [module.name for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")
         if not module.name.endswith("__main__") and not module.name.startswith("fastrnn._a")]
"""


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_no_module_turns_the_gil_on():
    """A module that does not say that it can do without has the GIL turned on when it is imported, with a warning."""
    printed = python(MODULES + """
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print("left out", name, error)
assert not sys._is_gil_enabled()
assert {f"fastrnn._{isa}_float32" for isa in fastrnn.available_isas()} <= set(sys.modules)
print("imported", len(names))
    """.strip(), prelude="import sys, warnings\nwarnings.simplefilter('error')\nimport numpy\n")
    assert int(printed.split()[-1]) > 100


def test_imports_of_many_threads():
    """Each imports the package, then its parts in an order of its own, and computes as soon as it can.

    The package first: where one thread imports it and another one a part of it, Python gives up the order, lest they
    wait for each other, and one of them may see a module that is not complete.
    """
    printed = python("""
import importlib, pkgutil, random, sys, threading
import numpy as np
sys.setswitchinterval(1e-5)
barrier, errors, results = threading.Barrier(8), [], set()
names = ["fastrnn.nn", "fastrnn.training", "fastrnn.optim", "fastrnn.losses", "fastrnn.forecasting",
         "fastrnn.anomaly", "fastrnn.diagnostics", "fastrnn.interop", "fastrnn.scale", "fastrnn.cli"]

def work(seed):
    try:
        barrier.wait()
        import fastrnn
        for name in random.Random(seed).sample(names, len(names)):
            importlib.import_module(name)
        results.add(fastrnn.GRU(3, 4, rng=0)(np.ones((5, 2, 3), np.float32))[0].tobytes())
    except BaseException as error:
        errors.append(repr(error))

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(errors, len(results))
    """, prelude="")
    assert printed.split("\n")[0] == "[] 1"
