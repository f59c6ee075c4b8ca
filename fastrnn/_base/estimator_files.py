"""Files of estimators: parameters and everything fitted, as a tree (``trees``) in a .npz or .safetensors file.

The configuration in the file is {"version": 1, "class": "RNNForecaster", "state_version": 1, "state": ...}; "version"
is that of the container, which models' files share, "state_version" that of the class: it grows when a file of the new
kind would be misread by an older fastrnn. A later one is refused; of an earlier one the class makes what it has today
(``Estimator._older``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from . import named_arrays, trees
from .reading import ModelFormatError, refusing
from .registry import estimator_class

if TYPE_CHECKING:
    from .estimator import Estimator
    from .typing import Array, PathLike

    AnyEstimator = TypeVar("AnyEstimator", bound=Estimator)

__all__ = ["save", "load", "build"]


def save(estimator: Estimator, path: PathLike) -> None:
    """Write an estimator to a file; the path's ending tells the format."""
    cls = type(estimator)
    if estimator_class(cls.__name__) is not cls:
        raise TypeError(f"{cls.__qualname__}: only fastrnn's own estimators are saved, not classes derived from them, "
                        "which load would not know")
    named_arrays.ending(path)
    parameters = estimator.get_params(deep=False)
    attributes = {name: value for name, value in vars(estimator).copy().items() if name not in parameters}
    state, arrays = trees.flatten((parameters, attributes), cls.__name__)
    named_arrays.write(path, arrays, {"version": named_arrays.VERSION, "class": cls.__name__,
                                      "state_version": cls._state_version, "state": state})


def load(cls: type[AnyEstimator], path: PathLike) -> AnyEstimator:
    """The estimator of this class that ``save`` wrote."""
    arrays, metadata = named_arrays.read(path)
    with refusing(path):
        name = None if metadata is None else metadata.get("class")
        if metadata is None or name != cls.__name__:
            what = "not written by fastrnn" if metadata is None else f"it holds {name!r:.200}"
            raise ModelFormatError(f"expected a file that {cls.__name__}.save wrote, {what}")
    return build(cls, metadata, arrays, path)


def build(cls: type[AnyEstimator], metadata: dict[str, Any], arrays: dict[str, Array], path: PathLike) -> AnyEstimator:
    """The estimator of a file's configuration and arrays; ModelFormatError where they make none."""
    with refusing(path):
        version = metadata.get("state_version")
        if type(version) is not int or version < 1:
            raise ModelFormatError(f"state_version: expected a number from 1 on, got {version!r:.200}")
        if version > cls._state_version:
            raise ModelFormatError(f"a later fastrnn wrote it: {cls.__name__} has version {version} there, and version "
                                   f"{cls._state_version} is the last that this fastrnn reads")
        parameters, attributes = trees.rebuild(metadata.get("state"), arrays)
        if version < cls._state_version:
            parameters, attributes = cls._older(version, parameters, attributes)
        estimator = cls()
        estimator.set_params(**parameters)
        for name, value in attributes.items():
            trees.check_attribute(cls, name)
            setattr(estimator, name, value)
        estimator._check_loaded()
        return estimator
