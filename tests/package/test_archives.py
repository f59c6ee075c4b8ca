"""What is built from a commit: the same bytes for everybody, and nothing that is not under version control."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import wheel_check

ROOT = Path(__file__).parents[2]
BUILD_TWICE = ROOT / "tests/campaigns/reproducible.py"


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("git") and (ROOT / ".git").exists() and importlib.util.find_spec("build")),
                    reason="a checkout with git and the package build are needed")
def test_the_same_commit_gives_the_same_source_distribution(tmp_path):
    result = subprocess.run([sys.executable, BUILD_TWICE, "--sdist", "--no-isolation", "--folder", tmp_path],
                            text=True, capture_output=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "1 of 1 archives are the same to the byte"


TAG = "cpython-311-x86_64-linux-gnu"
TRACKED = {"fastrnn/__init__.py", "fastrnn/py.typed", "fastrnn/nn/__init__.py", "setup.py", "README.md"}
KNOWN = {"fastrnn/__init__.py": b"", "fastrnn/py.typed": b"", "fastrnn/nn/__init__.py": b"",
         f"fastrnn/_core.{TAG}.so": b"", "fastrnn-0.1.0.dist-info/METADATA": b"", "fastrnn-0.1.0.dist-info/RECORD": b""}


def wheel_of(files, path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_wheel_of_the_package_is_accepted(tmp_path):
    wheel = wheel_of(KNOWN, tmp_path / "a.whl")
    assert wheel_check.strangers(wheel, TRACKED) == []


@pytest.mark.parametrize("name", [
    "fastrnn/notes.txt", "fastrnn/nn/extra.py", "tests/test_a.py", f"fastrnn/_other.{TAG}.so", "fastrnn/_core.c",
    "README.md", "fastrnn-0.1.0.data/scripts/run.sh", "fastrnn.libs/libgomp.so.1", "../outside.py", "setup.py"])
def test_a_wheel_with_anything_else_is_refused(name, tmp_path):
    wheel = wheel_of({**KNOWN, name: b""}, tmp_path / "a.whl")
    assert wheel_check.strangers(wheel, TRACKED) == [name]
