"""Every code block of the documentation and of the README runs, and prints what the page says it prints."""

import importlib
import os
import re
import subprocess
import sys

import pages
import pytest

README = pages.ROOT / "README.md"
DRAWING = pages.ROOT / "docs" / "figures" / "draw.py"
PAGES = [path for path in sorted((pages.ROOT / "docs").rglob("*.md")) if "generated" not in path.parts]
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def run(page, *number):
    done = subprocess.run([sys.executable, pages.__file__, str(page), *map(str, number)], text=True,
                          capture_output=True, timeout=180, encoding="utf-8",
                          env={"KERAS_BACKEND": "torch", **os.environ, "OMP_NUM_THREADS": "1",
                               "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"})
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def name(page):
    return page.relative_to(pages.ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if pages.blocks(page)], ids=name)
def test_a_page_runs_from_top_to_bottom(page):
    run(page)


@pytest.mark.parametrize("number, line", [(number, block.line) for number, block in enumerate(pages.blocks(README))])
def test_every_block_of_the_readme_runs_alone(number, line):
    run(README, number)


@pytest.mark.parametrize("page", [README, pages.ROOT / "CONTRIBUTING.md", *PAGES],
                         ids=name)
def test_links_lead_to_files(page):
    for target in LINK.findall(CODE.sub("", page.read_text("utf-8"))):
        if "generated/" in target:      # drawn by `make docs`, which fails where a picture is missing
            assert f'"{target.rpartition("/")[2]}"' in DRAWING.read_text("utf-8"), target
        else:
            assert (page.parent / target).exists(), target


PLACE = re.compile(r"`((?:fastrnn|src|tests|docs|examples|benchmarks|\.github|\.ci)/[\w./-]+)`")


@pytest.mark.parametrize("page", [README, pages.ROOT / "CONTRIBUTING.md", *PAGES], ids=name)
def test_files_and_folders_that_are_named_are_there(page):
    for place in PLACE.findall(page.read_text("utf-8")):
        assert (pages.ROOT / place).exists() or "peach" in place, place


REFERENCE = re.compile(r"^\.\. currentmodule:: (\S+)\n\n\.\. autosummary::\n(?:   :.*\n)*\n((?:   \w+\n)+)",
                       re.MULTILINE)


def documented():
    """The dotted names that the pages of docs/reference list."""
    return {f"{module}.{name}" for page in (pages.ROOT / "docs" / "reference").glob("*.md")
            for module, names in REFERENCE.findall(page.read_text("utf-8")) for name in names.split()}


@pytest.mark.parametrize("module", ["fastrnn", "fastrnn.training", "fastrnn.losses", "fastrnn.optim",
                                    "fastrnn.forecasting", "fastrnn.anomaly", "fastrnn.diagnostics", "fastrnn.interop",
                                    "fastrnn.pytorch", "fastrnn.scale", "fastrnn.datasets"])
def test_the_reference_has_every_public_name(module):
    package = importlib.import_module(module)
    names = getattr(package, "__all__", None) or [
        name for name, value in vars(package).items() if getattr(value, "__module__", "") == module and name[0] != "_"]
    public = {name: getattr(package, name) for name in names if callable(getattr(package, name))}
    there = {id(lookup(dotted)) for dotted in documented()}         # a name may be documented in another module
    assert public and [name for name, value in public.items() if id(value) not in there] == []


def lookup(dotted):
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_reference_names_what_there_is():
    for dotted in documented():
        assert lookup(dotted) is not None


def test_the_reference_has_every_command():
    text = (pages.ROOT / "docs" / "reference" / "command-line.md").read_text("utf-8")
    commands = importlib.import_module("fastrnn.cli.main").COMMANDS
    assert re.findall(r"^## fastrnn (\w+)$", text, re.MULTILINE) == re.findall(r"help/(\w+).txt", text)[1:]
    assert set(commands) == set(re.findall(r"^## fastrnn (\w+)$", text, re.MULTILINE))


def test_differing_output_and_errors_fail(tmp_path):
    """The mechanism itself: a page that does not do what it says is told."""
    for wrong in ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "```python\nprint(1)\n```\n",
                  "```python\n1 / 0\n```\n", "```console\n$ fastrnn inspect nothing.npz\n```\n",
                  "```console\n$ make nothing\n```\n", "```console\n$ pip install fastrnn[nothing]\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(wrong)
        with pytest.raises((AssertionError, ZeroDivisionError)):
            pages.run(page)
