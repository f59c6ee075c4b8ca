"""Every script in examples/ runs from a clean folder, with the data and without, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def run(example, folder, **environment):
    result = subprocess.run([sys.executable, str(example)], cwd=folder, capture_output=True, text=True,
                            encoding="utf-8", timeout=300,
                            env={"KERAS_BACKEND": "torch", **os.environ, "PYTHONIOENCODING": "utf-8",
                                 "OMP_NUM_THREADS": "1", **environment})
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert result.stdout.strip()
    assert not list(folder.iterdir())
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_with_the_data(example, data_dir, tmp_path):
    out = run(example, tmp_path, FASTRNN_DATA=str(data_dir))
    assert "FASTRNN_DATA" not in out, "the data were there, and it said they were not"


@pytest.mark.slow
@pytest.mark.parametrize("example", [path for path in EXAMPLES if "FASTRNN_DATA" in path.read_text("utf-8")],
                         ids=lambda path: path.stem)
def test_without_the_data_it_says_so_and_still_works(example, tmp_path):
    (tmp_path / "cwd").mkdir()
    out = run(example, tmp_path / "cwd", FASTRNN_DATA=str(tmp_path / "nowhere"))
    assert "FASTRNN_DATA" in out


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_reads_as_a_notebook(example):
    lines = example.read_text("utf-8").splitlines()
    assert lines[0].startswith("# %%")
    assert sum(line.startswith("# %%") for line in lines) >= 3
