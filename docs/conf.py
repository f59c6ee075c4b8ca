"""Sphinx configuration of the documentation: ``make docs`` builds it into build/docs."""

import contextlib
import importlib
import io
import os
import re
import sys
from pathlib import Path

import fastrnn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "figures"))

project = "fastrnn"
author = "the fastrnn authors"
copyright = "the fastrnn authors"
release = version = fastrnn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
exclude_patterns = ["_templates", "generated/help"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = f"fastrnn {release}"
html_show_copyright = False
html_copy_source = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

# A class's page lists its methods from the class itself (docs/_templates/autosummary/class.rst), so that numpydoc need
# not list them again. Types in docstrings are prose for readers ("array [T, N, I]") and make no links.
autosummary_generate = True
autosummary_imported_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Names of other projects have no page here.
nitpick_ignore_regex = [("py:.*", r"(numpy|np|torch|matplotlib|collections|os|typing|ArrayLike|NDArray)\b.*")]


def write_help(_):
    """Writes what ``fastrnn COMMAND --help`` prints to docs/generated/help, for the reference of the command line."""
    cli = importlib.import_module("fastrnn.cli.main")
    folder = HERE / "generated" / "help"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["COLUMNS"] = "100"
    for name in ("", *cli.COMMANDS):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            cli.main([name, "--help"] if name else ["--help"])
        (folder / f"{name or 'fastrnn'}.txt").write_text(printed.getvalue(), "utf-8")


def draw_figures(_):
    """Draws the figures into docs/generated."""
    import draw
    draw.main(HERE / "generated")


ABSOLUTE = re.compile(r"(``.*?``)|\|(?=\S)([^|`]+)\|")
FIELD = re.compile(r"\s*:[^:]+:$")


def read_as_text(app, what, name, obj, options, lines):
    """Turns what docstrings have as plain text into reStructuredText.

    |x| is an absolute value there, a substitution to reStructuredText: its bars are escaped, but for those in code. An
    indented block after a colon has equations or code, line by line: it becomes a literal block.
    """
    code = None                                         # the indentation of the text before a literal block
    for number, line in enumerate(lines):
        indentation = len(line) - len(line.lstrip())
        if code is not None and line.strip() and indentation <= code:
            code = None
        if code is not None or line.lstrip().startswith((">>>", "...")):
            continue
        lines[number] = line = ABSOLUTE.sub(lambda match: match[1] or rf"\|{match[2]}\|", line).rstrip()
        following = lines[number + 1:number + 3]
        if (line.endswith(":") and not line.endswith("::") and not FIELD.match(line) and len(following) == 2
                and not following[0].strip() and following[1].startswith(" " * (indentation + 1))):
            lines[number] = line + ":"
        if lines[number].endswith("::") and not line.lstrip().startswith(".."):
            code = indentation


def setup(app):
    app.connect("autodoc-process-docstring", read_as_text, priority=900)
    app.connect("builder-inited", write_help)
    app.connect("builder-inited", draw_figures)
