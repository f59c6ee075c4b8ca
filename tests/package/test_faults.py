"""The planted faults of tests/campaigns/mutants.py fit the sources; that each is caught, `make mutants` shows."""

import re
import subprocess
import sys
from collections import Counter

import pytest

mutants = pytest.importorskip("mutants", reason="needs a POSIX system", exc_type=ImportError)

FAULTS = mutants.read_faults()


def test_every_fault_fits_the_sources():
    mutants.check(FAULTS)


def test_there_are_faults_of_every_part():
    parts = Counter(fault.file.rsplit("/", 1)[0] for fault in FAULTS)
    assert len(FAULTS) >= 60
    assert {"src/kernel", "src/core", "fastrnn/interop", "fastrnn/nn", "fastrnn/optim", "fastrnn/training",
            "fastrnn/forecasting", "fastrnn/anomaly", "fastrnn/scale", "fastrnn/pytorch", "fastrnn/cli"} <= set(parts)


@pytest.mark.parametrize(("old", "new", "wanted"), [
    ("x = 1", "x = 2", "if planted_fault == 7:\n    x = 2\nelse:\n    x = 1"),
    ("x = 1", "", "if planted_fault != 7:\n    x = 1"),
    ("if a and\\\n        b:", "if a:", "if ((a) if planted_fault == 7 else (a and\\\n        b)):"),
    ("for i in range(1, n):", "for i in range(2, n):", "for i in range((2) if planted_fault == 7 else (1), n):"),
    ("cdef int x = a", "cdef int x = b", "cdef int x = (b) if planted_fault == 7 else (a)")])
def test_choices_in_cython(old, new, wanted):
    fault = mutants.Fault(7, "src/kernel/any.pxi", old, new, "It breaks.", ())
    assert mutants.switched(textwrapped(old), fault) == textwrapped(wanted)


@pytest.mark.parametrize(("old", "new", "wanted"), [
    ("x = 1;", "x = 2;", "if (planted_fault == 7) {\n    x = 2;\n} else {\n    x = 1;\n}"),
    ("vf x = a;", "vf x = b;", "vf x = planted_fault == 7 ? b : a;"),
    ("FN int f(void) { return 1; }", "FN int f(void) { return 2; }",
     "FN int f(void) { if (planted_fault == 7) {  return 2; }  return 1; }")])
def test_choices_in_c(old, new, wanted):
    fault = mutants.Fault(7, "src/kernel/any.h", old, new, "It breaks.", ())
    assert mutants.switched(textwrapped(old), fault) == textwrapped(wanted)


def textwrapped(text):
    """Lines as they stand within a function."""
    return "before\n" + "".join(f"    {line}\n" for line in text.splitlines()) + "after\n"


@pytest.mark.parametrize("text", ["a = 1\n", "a = 0\nb = 0\na = 0\nb = 0\n", "a = 0\n    b = 0\n"])
def test_a_fault_that_no_longer_fits_is_named(text):
    fault = mutants.Fault(12, "fastrnn/any.py", "a = 0\nb = 0", "a = 1", "It breaks.", ())
    with pytest.raises(mutants.Drifted, match=r"fault 12: .* stand [02] times in fastrnn/any.py"):
        mutants.planted(text, fault)


def test_what_counts_as_caught():
    assert mutants.verdict(0, "3 passed") is None
    assert mutants.verdict(5, "no tests ran") is None
    assert mutants.verdict(1, "FAILED tests/a.py::test_b - assert 0\n1 failed") == "tests/a.py::test_b"
    assert mutants.verdict(-11, "") == "a crash (SIGSEGV)"
    assert mutants.verdict(None, "") == "a test went over its limit"


def test_the_command_line():
    done = subprocess.run([sys.executable, mutants.__file__, "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and re.fullmatch(rf"{len(FAULTS)} faults fit the sources\n", done.stdout), done
