"""The public names of fastrnn: those of its ``__all__`` lists, and the public members of the classes among them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

FORMATS = ("pytorch", "keras", "onnx", "safetensors", "rtneural", "npz")
MODULES = ("fastrnn", "fastrnn.losses", "fastrnn.optim", "fastrnn.training", "fastrnn.forecasting", "fastrnn.anomaly",
           "fastrnn.diagnostics", "fastrnn.interop", *(f"fastrnn.interop.{name}" for name in FORMATS),
           "fastrnn.pytorch", "fastrnn.scale", "fastrnn.datasets")


def objects() -> Iterator[tuple[str, object]]:
    """Dotted name and object of every public function and class; a class that has two names comes once."""
    seen = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if (inspect.isclass(value) or callable(value)) and id(value) not in seen:
                seen.add(id(value))
                yield f"{module_name}.{name}", value


def members(cls: type) -> Iterator[tuple[str, object]]:
    """Name and object of the methods and properties that a class of fastrnn has of its own or from one of its bases."""
    for name in dir(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        if owner is None or not owner.__module__.startswith("fastrnn") or (name.startswith("_") and name != "__call__"):
            continue
        value = inspect.getattr_static(cls, name)
        value = getattr(value, "__func__", value)
        if callable(value) or isinstance(value, property):
            yield name, value
