"""fastrnn's own model files: ``save`` writes a model, ``load`` makes it again, to the bit."""

from __future__ import annotations

import inspect
import json
import os
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .._base.named_arrays import VERSION, read_npz, read_safetensors, safetensors_package
from .._base.reading import ModelFormatError, refusing, replacing
from .._base.registry import CONTAINERS, MODELS, model_class
from .._base.typing import Array, PathLike
from .parameters import UNDRAWN

if TYPE_CHECKING:
    from .base import Parametrised
    from .modules import Container


def save(model: Parametrised, path: PathLike) -> None:
    """Write a model to a file, from which ``load`` makes the same one, bit for bit.

    Parameters
    ----------
    model : layer, cell, Linear, Embedding or Sequential
        The model.
    path : str or path-like
        The ending tells the format: ``.npz`` (NumPy alone) or ``.safetensors`` (``pip install fastrnn[safetensors]``).
        An existing file is replaced atomically: readers never see a partial file.

    Raises
    ------
    TypeError
        The model is none of these; a derived class is refused, too, because ``load`` would not know it.
    ValueError
        The path ends otherwise.
    OSError
        The file cannot be written.

    Notes
    -----
    The arrays bear the names of ``state_dict()``. The configuration is a JSON object: "version" 1, "class",
    "input_size", "hidden_size", every option of the class by its name, "dtype" as NumPy spells it, "activations" as
    [name, alpha, beta] each. A Sequential has "modules", a list of such objects, and arrays "0.weight_ih_l0", ... In a
    .npz the object is the array "fastrnn", its UTF-8 bytes; in a .safetensors file the metadata "fastrnn".

    Examples
    --------
    >>> import os, tempfile
    >>> import fastrnn
    >>> layer = fastrnn.GRU(2, 3, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(layer, os.path.join(folder, "gru.npz"))
    ...     load(os.path.join(folder, "gru.npz"))
    GRU(2, 3)
    """
    ending = _ending(path)
    text, tensors = json.dumps(configuration(model)), dict(model.parameters)
    if ending == ".npz":
        with replacing(path) as file:
            # The cast is for NumPy's stubs, in which `allow_pickle` might be among the names.
            np.savez(file, **cast("dict[str, Any]", tensors), fastrnn=np.frombuffer(text.encode(), np.uint8))
    else:
        data = safetensors_package().numpy.save(tensors, metadata={"fastrnn": text})
        with replacing(path) as file:
            file.write(data)


def load(path: PathLike) -> Any:
    """Load the model that ``save`` wrote; for files of other libraries see ``fastrnn.interop``.

    Parameters
    ----------
    path : str or path-like
        The file, which ends in .npz or .safetensors.

    Returns
    -------
    layer, cell, Linear, Embedding or Sequential
        A model of the class that was saved, with its options and, bit for bit, its parameters.

    Raises
    ------
    ValueError
        The path ends otherwise.
    ModelFormatError
        The file is broken, or not one of fastrnn's.
    OSError
        The file cannot be read.
    ImportError
        The file is a .safetensors file, and the package safetensors is missing.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastrnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "cell.npz")
    ...     fastrnn.LSTMCell(2, 3, peephole=True).save(path)
    ...     fastrnn.load(path)
    LSTMCell(2, 3, peephole=True)
    """
    read = read_npz if _ending(path) == ".npz" else read_safetensors
    tensors, metadata = read(path)
    if metadata is None:
        raise ModelFormatError(f"{os.fsdecode(path)}: not written by fastrnn; fastrnn.interop.layers reads what others "
                               "write")
    return build(metadata, tensors, path)


def configuration(model: Parametrised) -> dict[str, Any]:
    """What the JSON in a file says of a model: its class, and every argument of its constructor but rng."""
    name = type(model).__name__
    if MODELS.get(name) is not type(model):
        raise TypeError(f"model: expected one of {', '.join(MODELS)}, got {type(model).__qualname__}")
    if name in CONTAINERS:
        modules = cast("Container", model).modules
        return {"version": VERSION, "class": name, "modules": [configuration(module) for module in modules]}
    layer = getattr(model, "_layer", model)         # a cell's options are those of its layer
    options = {option: getattr(layer, option) for option in inspect.signature(type(model)).parameters
               if option != "rng"}
    return {"version": VERSION, "class": name, **options, "dtype": layer.dtype.name}


def build(metadata: dict[str, Any], tensors: dict[str, Array], path: PathLike, **options: Any) -> Any:
    """The model of a configuration and its parameters; options take precedence over the configuration."""
    with refusing(path):
        name: Any = metadata.get("class")
        cls = model_class(name)
        if cls is None:
            raise ModelFormatError(f"class: expected one of {', '.join(MODELS)}, got {name!r:.200}")
        if name in CONTAINERS:
            return cls(*(build(one, part, path) for one, part in members(metadata, tensors)))
        options = {**metadata, **options}
        del options["class"], options["version"]
        if isinstance(options.get("num_layers"), int) and options["num_layers"] > len(tensors):
            raise ModelFormatError(f"num_layers {options['num_layers']}, but {len(tensors)} arrays")
        if options.get("dtype") not in ("float32", "float64"):          # NumPy takes far more for a dtype
            raise ModelFormatError(f"dtype: expected float32 or float64, got {options.get('dtype')!r:.200}")
        model = cls(**options, rng=UNDRAWN)
        model.load_state_dict(tensors)
        return model


def members(metadata: dict[str, Any],
            tensors: dict[str, Array]) -> list[tuple[dict[str, Any], dict[str, Array]]]:
    """A container's configuration taken apart: of each module its configuration, and the tensors "i.name" by name."""
    modules = metadata.get("modules")
    if metadata.keys() != {"version", "class", "modules"} or not isinstance(modules, list):
        raise ModelFormatError(f"a Sequential: expected version, class and a list of modules, got {metadata!r:.200}")
    for one in modules:
        if not isinstance(one, dict) or one.get("version") != VERSION:
            raise ModelFormatError(f"modules: expected configurations of version {VERSION}, got {one!r:.200}")
    parts: dict[str, dict[str, Array]] = {str(i): {} for i in range(len(modules))}
    for name, value in tensors.items():
        i, _, rest = name.partition(".")
        if i not in parts:
            raise ModelFormatError(f"unknown key {name!r} for {len(modules)} modules")
        parts[i][rest] = value
    return list(zip(modules, parts.values()))


def _ending(path: PathLike) -> str:
    ending = os.path.splitext(os.fsdecode(path))[1].lower()
    if ending not in (".npz", ".safetensors"):
        raise ValueError(f"path: expected a name that ends in .npz or .safetensors, got {os.fsdecode(path)!r}")
    return ending
