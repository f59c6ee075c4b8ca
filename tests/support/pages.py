"""The code blocks of Markdown pages: finds them, and runs those of a page in order.

    python tests/support/pages.py docs/start.md          # a page: its blocks share one namespace and one folder
    python tests/support/pages.py README.md 2            # one block alone, counted from 0

A ``python`` block prints what the ``text`` block directly after it shows, and nothing where there is none. In a
``console`` block every line that begins with ``$ fastrnn`` (or ``$ python -m fastrnn``) is run, and prints what follows
it, if anything does; the output of a command in "$(...)" is put in its place. ``...`` stands for any text, as in
doctests. Other commands are not run: ``make`` must name a target of the Makefile, ``pip install`` extras of the package
that exist.
"""

import contextlib
import doctest
import importlib
import io
import itertools
import re
import shlex
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SUBSTITUTION = re.compile(r"\$\((.*?)\)")


@dataclass(frozen=True)
class Block:
    """One block of a page; `line` is the page's line of its first line, `expected` what a Python block prints."""

    page: Path
    line: int
    language: str
    source: str
    expected: str = ""


def blocks(page):
    """The python and console blocks of a page, in order."""
    text = page.read_text("utf-8")
    matches = list(FENCE.finditer(text))
    result = []
    for match, following in itertools.zip_longest(matches, matches[1:]):
        language, source = match.groups()
        if language in ("python", "console"):
            expected = ""
            if following is not None and following[1] == "text" and not text[match.end():following.start()].strip():
                expected = following[2]
            result.append(Block(page, text.count("\n", 0, match.start()) + 2, language, source, expected))
    return result


def compare(expected, printed, where):
    """Fails where the output differs from the page's."""
    checker = doctest.OutputChecker()
    if not checker.check_output(expected, printed, doctest.ELLIPSIS):
        raise AssertionError(f"{where}: expected\n{expected}\ngot\n{printed}")


def run_python(block, namespace):
    code = compile("\n" * (block.line - 1) + block.source, str(block.page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, namespace)
    compare(block.expected, printed.getvalue(), f"{block.page}:{block.line}")


def commands(block):
    """(command, what the block shows after it) for every command."""
    result = []
    for line in block.source.replace("\\\n", " ").splitlines(keepends=True):
        if line.startswith("$ "):
            result.append([line[2:], ""])
        elif result:
            result[-1][1] += line
        else:
            raise AssertionError(f"{block.page}:{block.line}: output before the first command")
    return result


def run_console(block):
    for command, expected in commands(block):
        where = f"{block.page}:{block.line}: {command.strip()}"
        printed = run_command(command, where)
        if expected:
            compare(expected, printed, where)


def run_command(command, where):
    """What a command of fastrnn's prints; of others it is checked that they could be run."""
    command = SUBSTITUTION.sub(lambda match: run_command(match[1], where).strip(), command)
    words = shlex.split(command, comments=True)
    if words[:3] == ["python", "-m", "fastrnn"]:
        words = words[2:]
    if words[0] != "fastrnn":
        check_command(words, where)
        return ""
    cli = importlib.import_module("fastrnn.cli.main")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            status = cli.main(words[1:])
        except SystemExit as stop:          # --help, --version
            status = stop.code
    if status:
        raise AssertionError(f"{where}: exit status {status}\n{printed.getvalue()}")
    return printed.getvalue()


def check_command(words, where):
    """That a command which is not run could be: a target of the Makefile, extras of the package."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        wrong = [word for word in words[1:] if "=" not in word and word not in targets]
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        named = [name for word in words[2:] for group in re.findall(r"\[(.*?)\]", word) for name in group.split(",")]
        wrong = [name for name in named if name not in extras]
    else:
        wrong = [] if words[0] in ("git", "cd") else [words[0]]
    if wrong:
        raise AssertionError(f"{where}: there is no {', '.join(wrong)}")


def run(page, only=None):
    """Runs the blocks of a page, or one of them, in the current folder."""
    namespace = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page)):
        if only is None or number == only:
            if block.language == "python":
                run_python(block, namespace)
            else:
                run_console(block)


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):     # the blocks write files
        run(path, int(sys.argv[2]) if len(sys.argv) > 2 else None)
