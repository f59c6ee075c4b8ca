"""The examples in all docstrings run, module by module: the one place that runs them."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import fastrnn

COMPILED = "_core", "_baseline", "_avx2", "_avx512"
MODULES = ["fastrnn", *(module.name for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")
                        if not module.name.removeprefix("fastrnn.").startswith(COMPILED)
                        and not module.name.endswith("__main__"))]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"np": np, "fastrnn": fastrnn})
    assert failed == 0


def test_every_module_is_found():
    assert len(MODULES) > 60 and "fastrnn.nn.recurrent" in MODULES and "fastrnn.interop.formats.hdf5" in MODULES
