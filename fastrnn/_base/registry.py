"""The models that files can hold: class name -> class.

Classes register themselves where they are defined, so that code which reads files and code which defines models need
not import each other.
"""

from typing import TypeVar

MODELS: dict[str, type] = {}
Model = TypeVar("Model", bound=type)


def in_files(cls: Model) -> Model:
    """Class decorator: lets files hold instances of this class, under its name."""
    MODELS[cls.__name__] = cls
    return cls
