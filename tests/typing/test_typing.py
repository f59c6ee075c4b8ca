"""What users write passes mypy --strict and pyright; what is wrong is rejected by both."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks

import fastrnn

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = Path(fastrnn.__file__).parents[1]
SETTINGS = {"pythonVersion": "3.11", "typeCheckingMode": "standard", "reportMissingModuleSource": False,
            "reportMissingTypeStubs": False, "reportUnusedExpression": False, "reportUnusedCoroutine": False,
            "reportSelfClsParameterName": False}

pytestmark = pytest.mark.slow


def mypy(paths):
    """Path -> the lines that mypy --strict finds fault with, each with its message."""
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--no-error-summary",
                           "--no-color-output", "--hide-error-context", "--config-file=",
                           "--untyped-calls-exclude=distributed",      # Dask's clusters are not annotated
                           f"--cache-dir={paths[0].parent / 'cache'}", *map(str, paths)],
                          capture_output=True, text=True, timeout=600, env=environment())
    assert done.returncode in (0, 1), done.stdout + done.stderr
    faults = {str(path): [] for path in paths}
    for line in done.stdout.splitlines():
        place = re.match(r"(.+?):(\d+): (error: .*)", line)
        if place and str(Path(place[1]).resolve()) in faults:
            faults[str(Path(place[1]).resolve())].append((int(place[2]), place[3]))
    return faults


def pyright(paths, folder):
    """The same by pyright."""
    (folder / "pyrightconfig.json").write_text(json.dumps(SETTINGS | {
        "include": list(map(str, paths)), "extraPaths": [str(PACKAGE)]}))
    done = subprocess.run([sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable,
                           "--project", str(folder)], capture_output=True, text=True, timeout=600, env=environment())
    assert done.returncode in (0, 1), done.stdout + done.stderr
    faults = {str(path): [] for path in paths}
    for one in json.loads(done.stdout)["generalDiagnostics"]:
        if one["severity"] == "error" and one["file"] in faults:
            faults[one["file"]].append((one["range"]["start"]["line"] + 1, one["message"]))
    return faults


def environment():
    """That of the checkers: the package is the one that the suite runs on."""
    return {**os.environ, "MYPYPATH": str(PACKAGE), "PYTHONPATH": str(PACKAGE)}


def texts():
    """Name -> Python of the README's blocks, which stand alone, and of the documentation's pages, block after block."""
    found = {f"readme_{number}": block.source for number, block in enumerate(blocks(ROOT / "README.md"))
             if block.language == "python"}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        source = "\n".join(block.source for block in blocks(page) if block.language == "python")
        if source:
            found["page_" + re.sub(r"\W", "_", str(page.relative_to(ROOT / "docs").with_suffix("")))] = source
    return found


USERS = sorted((HERE / "users").glob("*.py"))
WRONG = HERE / "wrong.py"
TEXTS = texts()
CHECKERS = pytest.mark.parametrize("checker", ["mypy", "pyright"])


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The folder of all scripts and of the pages' code; and checker -> path -> faults, in one run of each."""
    folder = tmp_path_factory.mktemp("typing").resolve()        # pyright looks at what lies in its project's folder
    scripts = {path.stem: path.read_text("utf-8") for path in (*USERS, WRONG)}
    for name, source in (scripts | TEXTS).items():
        (folder / f"{name}.py").write_text(source, "utf-8")
    paths = sorted(folder.glob("*.py"))
    return folder, {"mypy": mypy(paths), "pyright": pyright(paths, folder)}


@CHECKERS
@pytest.mark.parametrize("script", USERS, ids=lambda path: path.stem)
def test_what_users_write_is_clean(checked, checker, script):
    folder, faults = checked
    assert faults[checker][str(folder / script.name)] == []


@CHECKERS
@pytest.mark.parametrize("name", TEXTS)
def test_the_pages_are_clean(checked, checker, name):
    path = checked[0] / f"{name}.py"
    faults, lines = checked[1][checker][str(path)], path.read_text("utf-8").splitlines()
    assert faults == [], "\n".join(f"{message}\n    {lines[number - 1]}" for number, message in faults)


@CHECKERS
def test_wrong_calls_are_rejected_and_no_others(checked, checker):
    folder, faults = checked
    wrong = {number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if line.endswith("# wrong")}
    assert len(wrong) >= 30
    found = {number for number, _ in faults[checker][str(folder / WRONG.name)]}
    assert found == wrong, f"not rejected: {sorted(wrong - found)}; rejected though right: {sorted(found - wrong)}"
