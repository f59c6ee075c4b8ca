"""The package as such: what an import brings in, documentation, doctests, types."""

import ast
import doctest
import importlib
import inspect
import os
from pathlib import Path

import pytest
from child import python

import fastrnn
from fastrnn import _core

PUBLIC = {name: getattr(fastrnn, name) for name in fastrnn.__all__ if not inspect.ismodule(getattr(fastrnn, name))}
MODULES = {"nn", "losses", "optim", "training", "forecasting", "anomaly", "diagnostics", "interop", "pytorch", "scale",
           "datasets"}
FOLDER = Path(fastrnn.__file__).parent


def test_an_import_brings_in_numpy_alone():
    """Beside the standard library, and what Cython calls its own runtime."""
    loaded = python("""
        import sys
        before = set(sys.modules)
        import fastrnn
        print(*{name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
    """, prelude="").split()
    assert {name for name in loaded if "cython" not in name} == {"numpy", "fastrnn"}


def test_an_import_starts_no_thread_and_prints_nothing():
    assert python("""
        import numpy, psutil
        before = psutil.Process().num_threads()
        import fastrnn
        assert psutil.Process().num_threads() == before
    """, prelude="") == ""


def visible(value):
    return {name for name in dir(value) if not name.startswith("_") and not inspect.ismodule(getattr(value, name))}


def test_names():
    assert sorted(set(fastrnn.__all__)) == sorted(fastrnn.__all__)
    assert {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "set_num_threads", "get_num_threads", "threads",
            "active_isa", "available_isas", "show_config"} <= set(PUBLIC)
    assert set(dir(fastrnn)) == set(fastrnn.__all__) == set(PUBLIC) | MODULES


def public_members():
    for name, value in PUBLIC.items():
        yield name, value
        if inspect.isclass(value):
            for member, found in inspect.getmembers(value):
                if not member.startswith("_") and callable(found):
                    yield f"{name}.{member}", found


@pytest.mark.parametrize("name, value", [pytest.param(*member, id=member[0]) for member in public_members()])
def test_public_names_are_documented(name, value):
    assert (inspect.getdoc(value) or "").strip()


def test_calls_document_every_argument():
    for call in (fastrnn.GRU.__call__, fastrnn.LSTM.__call__, fastrnn.GRU.forward, fastrnn.GRU.backward,
                 fastrnn.GRUCell.__call__, fastrnn.Stream.step, fastrnn.Stream.run):
        text = inspect.getdoc(call)
        for argument in list(inspect.signature(call).parameters)[1:]:
            assert argument in text, f"{call.__qualname__}: {argument}"


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if inspect.isclass(value)])
def test_every_public_class_has_an_example_that_runs(name):
    cls = PUBLIC[name]
    runner = doctest.DocTestRunner()
    tests = doctest.DocTestFinder().find(cls, name, globs={**vars(inspect.getmodule(cls)), "fastrnn": fastrnn})
    for test in tests:
        runner.run(test)
    assert runner.tries > 0 and runner.failures == 0
    assert any(test.name == name and test.examples for test in tests), "in the docstring of the class itself"


@pytest.mark.parametrize("module, name", [(module, name) for module in ("losses", "optim", "training")
                                          for name in getattr(fastrnn, module).__all__])
def test_every_public_name_of_learning_has_an_example(module, name):
    module = getattr(fastrnn, module)
    text = inspect.getdoc(getattr(module, name))
    assert doctest.DocTestParser().get_examples(text), "test_doctests runs it"
    public = {name for name, value in vars(module).items()
              if getattr(value, "__module__", "").startswith(module.__name__) and not name.startswith("_")}
    assert set(module.__all__) <= public


# ---- Types ----------------------------------------------------------------------------------------------------

def named(body):
    """name -> node of a stub's top level or a class's body; of what stands there for type checkers alone, nothing."""
    found = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = node
    return {name: node for name, node in found.items() if not name.startswith("_")}


def test_the_package_is_typed():
    assert (FOLDER / "py.typed").read_bytes() == b""


def test_the_stub_names_what_the_compiled_module_has():
    stub = named(ast.parse((FOLDER / "_core.pyi").read_text()).body)
    assert set(stub) == visible(_core)
    for name, node in stub.items():
        if isinstance(node, ast.ClassDef):
            assert set(named(node.body)) == visible(getattr(_core, name)), name


def test_the_stub_has_the_arguments_of_the_compiled_functions():
    """Of those that Cython tells; methods with their self."""
    stub = named(ast.parse((FOLDER / "_core.pyi").read_text()).body)
    functions = [(name, node, getattr(_core, name)) for name, node in stub.items() if isinstance(node, ast.FunctionDef)]
    for name, node in stub.items():
        if isinstance(node, ast.ClassDef):
            functions += [(f"{name}.{method}", found, getattr(getattr(_core, name), method))
                          for method, found in named(node.body).items()
                          if isinstance(found, ast.FunctionDef) and not found.decorator_list]
    assert len(functions) >= 9
    for name, node, value in functions:
        assert [a.arg for a in node.args.args] == list(inspect.signature(value).parameters), name


def test_built_from_the_sources_that_are_here():
    """Every kernel module of this machine's instruction sets is there, in both types."""
    for isa in fastrnn.available_isas():
        for dtype in ("float32", "float64"):
            module = importlib.import_module(f"fastrnn._{isa}_{dtype}")
            assert os.path.dirname(module.__file__) == os.path.dirname(_core.__file__)
            assert type(module.table).__name__ == "PyCapsule"
