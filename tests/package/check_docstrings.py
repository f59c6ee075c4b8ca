"""Holds the docstring of every public name to numpydoc's rules: ``make lint`` runs it.

Each public function, class and method has a summary of one line, every parameter with type and description, what is
returned, and an example (which tests/package/test_docstrings.py runs). Not asked for: a See Also section, an extended
summary, and where the quotes stand.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from numpydoc.docscrape import NumpyDocString, get_doc_object
from numpydoc.validate import Validator, validate
from public_names import members, objects

# Not asked for (numpydoc's codes): where the text and the quotes stand, See Also, extended summaries, Yields of
# context managers, which are functions with a `with` block to their users.
PASSED_OVER = {"GL01", "GL02", "GL03", "ES01", "SA01", "SA04", "YD01"}
# A property has no parameters and is read like an attribute: its class shows it in use.
OF_PROPERTIES = {"EX01", "RT01", "RT03", "SS05"}


class Docstring(Validator):
    """The docstring of an object in hand. Where it stands in a file does not matter, so compiled ones are taken too."""

    source_file_def_line = None

    def __init__(self, obj_name: str, value: object) -> None:
        super().__init__(get_doc_object(value))
        self.full_name = obj_name

    @property
    def name(self) -> str:
        return self.full_name


def faults(name: str, value: object) -> list[str]:
    """What numpydoc finds in the docstring of one public name."""
    passed_over = PASSED_OVER | (OF_PROPERTIES if isinstance(value, property) else set())
    if is_record(value):
        passed_over = passed_over | {"PR01"}
    errors = validate(name, validator_cls=Docstring, value=value)["errors"]
    return [f"{name}: {code} {message}" for code, message in errors if code not in passed_over]


def is_record(value: object) -> bool:
    """Whether it is a class whose constructor takes its attributes, and which documents them as Attributes."""
    if not inspect.isclass(value):
        return False
    written = NumpyDocString(inspect.getdoc(value) or "")["Attributes"]
    attributes = {name for parameter in written for name in parameter.name.split(", ")}
    return bool(attributes) and set(inspect.signature(value).parameters) <= attributes


def main() -> int:
    """Prints every fault and how many names were looked at; the exit status says whether there was a fault."""
    wrong, count = [], 0
    for name, value in objects():
        names = [(name, value)]
        if inspect.isclass(value):
            names += [(f"{name}.{member}", function) for member, function in members(value)]
        for one_name, one in names:
            count += 1
            wrong += faults(one_name, one)
    print("\n".join([*wrong, f"{count} public names, {len(wrong)} faults in their docstrings"]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
