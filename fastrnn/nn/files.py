"""fastrnn's own model files: ``save`` writes a model, ``load`` makes it again, to the bit."""

from __future__ import annotations

import functools
import inspect
import os
from typing import TYPE_CHECKING, Any, cast

from .._base import estimator_files, named_arrays, trees
from .._base.named_arrays import VERSION
from .._base.reading import ModelFormatError, refusing
from .._base.registry import CONTAINERS, MODELS, estimator_class, model_class
from .._base.typing import Array, PathLike
from .parameters import UNDRAWN, freeze

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
        The ending tells the format: ``.npz`` or ``.safetensors``. An existing file is replaced atomically: readers
        never see a partial file.

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
    [name, alpha, beta] each, and "precision" where weights are narrower than the dtype. A Sequential has "modules", a
    list of such objects, and arrays "0.weight_ih_l0", ... In a .npz the object is the array "fastrnn", its UTF-8 bytes;
    in a .safetensors file the metadata "fastrnn".

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
    named_arrays.ending(path)
    metadata = configuration(model)
    named_arrays.write(path, model.parameters, metadata)


def load(path: PathLike) -> Any:
    """Load the model or estimator that ``save`` wrote; for files of other libraries see ``fastrnn.interop``.

    Parameters
    ----------
    path : str or path-like
        The file, which ends in .npz or .safetensors.

    Returns
    -------
    layer, cell, Linear, Embedding, Sequential, RNNForecaster or RNNAnomalyDetector
        One of the class that was saved, with its options and, bit for bit, its parameters. An estimator goes on where
        it was.

    Raises
    ------
    ValueError
        The path ends otherwise.
    ModelFormatError
        The file is broken, or not one of fastrnn's.
    OSError
        The file cannot be read.

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
    tensors, metadata = named_arrays.read(path)
    if metadata is None:
        raise ModelFormatError(f"{os.fsdecode(path)}: not written by fastrnn; fastrnn.interop.layers reads what others "
                               "write")
    estimator = estimator_class(metadata.get("class"))
    if estimator is not None:
        return estimator_files.build(estimator, metadata, tensors, path)
    return build(metadata, tensors, path)


@functools.cache
def _options(name: str) -> list[str]:
    """The arguments of a model's constructor but rng."""
    return [option for option in inspect.signature(MODELS[name]).parameters if option != "rng"]


def configuration(model: Parametrised) -> dict[str, Any]:
    """What the JSON in a file says of a model: its class, and every argument of its constructor but rng."""
    name = type(model).__name__
    if MODELS.get(name) is not type(model):
        raise TypeError(f"model: expected one of {', '.join(MODELS)}, got {type(model).__qualname__}")
    if name in CONTAINERS:
        modules = cast("Container", model).modules
        return {"version": VERSION, "class": name, "modules": [configuration(module) for module in modules]}
    layer = getattr(model, "_layer", model)         # a cell's options are those of its layer
    options = {option: getattr(layer, option) for option in _options(name)}
    metadata = {"version": VERSION, "class": name, **options, "dtype": layer.dtype.name}
    precision = getattr(model, "_precision", None)
    return metadata if precision is None else {**metadata, "precision": precision}


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
        precision = options.pop("precision", None)
        if isinstance(options.get("num_layers"), int) and options["num_layers"] > len(tensors):
            raise ModelFormatError(f"num_layers {options['num_layers']}, but {len(tensors)} arrays")
        if options.get("dtype") not in ("float32", "float64"):          # NumPy takes far more for a dtype
            raise ModelFormatError(f"dtype: expected float32 or float64, got {options.get('dtype')!r:.200}")
        model = cls(**options, rng=UNDRAWN)
        if precision is not None:
            if not hasattr(model, "_expect_narrow"):
                raise ModelFormatError(f"precision: a {name} has none but its dtype, got {precision!r:.200}")
            model._expect_narrow(precision)
        model.load_state_dict(tensors)
        return model


def members(metadata: dict[str, Any],
            tensors: dict[str, Array]) -> list[tuple[dict[str, Any], dict[str, Array]]]:
    """A container's configuration taken apart: of each module its configuration, and the tensors "i.name" by name."""
    modules = metadata.get("modules")
    if metadata.keys() != {"version", "class", "modules"} or not isinstance(modules, list):
        raise ModelFormatError(f"a Sequential: expected version, class and a list of modules, got {metadata!r:.200}")
    for one in modules:
        if not isinstance(one, dict) or type(one.get("version")) is not int or one["version"] != VERSION:
            raise ModelFormatError(f"modules: expected configurations of version {VERSION}, got {one!r:.200}")
    parts: dict[str, dict[str, Array]] = {str(i): {} for i in range(len(modules))}
    for name, value in tensors.items():
        i, _, rest = name.partition(".")
        if i not in parts:
            raise ModelFormatError(f"unknown key {name!r} for {len(modules)} modules")
        parts[i][rest] = value
    return list(zip(modules, parts.values()))



# ---- Models in the state of estimators --------------------------------------------------------------

def _parts(model: Parametrised) -> list[Any]:
    return [configuration(model), dict(model.parameters)]


def _made(parts: Any) -> Any:
    metadata, tensors = parts
    if not isinstance(metadata, dict) or not isinstance(tensors, dict):
        raise ModelFormatError("a model: expected its configuration and its parameters")
    model = build(metadata, tensors, "a model")
    # The tree's own arrays in place of copies: two models of one tree share them after reading as they did before.
    model._parameters = {name: freeze(tensors[name]) if _alike(value, tensors[name]) else value
                         for name, value in model.parameters.items()}
    return model


def _alike(own: Array, other: Array) -> bool:
    return (own.dtype, own.shape) == (other.dtype, other.shape) and other.flags.c_contiguous


trees.add_kind("model", lambda value: MODELS.get(type(value).__name__) is type(value), _parts, _made)
