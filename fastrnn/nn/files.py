"""fastrnn's own model files: ``save`` writes a model, ``load`` makes it again, to the bit."""

import inspect
import json
import os

import numpy as np

from .._base.named_arrays import VERSION, read_npz, read_safetensors, safetensors_package
from .._base.reading import ModelFormatError, refusing, replacing
from .._base.registry import CONTAINERS, MODELS, model_class
from .parameters import UNDRAWN


def save(model, path):
    """Writes a layer, a cell or a whole Sequential to a file, from which ``load`` makes the same one, to the bit.

    Parameters
    ----------
    model : layer, cell, Linear, Embedding or Sequential
    path : str or path-like
        The ending tells the format: ``.npz`` (NumPy alone) or ``.safetensors`` (``pip install fastrnn[safetensors]``).
        A file that is there is replaced at once, when all is written; nobody ever sees a half.

    Raises
    ------
    TypeError
        None of these; a class derived from one, which ``load`` would not know.
    ValueError
        Another ending.
    OSError
        The file cannot be written.

    Notes
    -----
    The arrays bear the names of ``state_dict()``. The configuration is a JSON object: "version" 1, "class",
    "input_size", "hidden_size", every option of the class by its name, "dtype" as NumPy spells it, "activations" as
    [name, alpha, beta] each. A Sequential has "modules", a list of such objects, and arrays "0.weight_ih_l0", ... In a
    .npz the object is the array "fastrnn", its UTF-8 bytes; in a .safetensors file the metadata "fastrnn".

    >>> import os, tempfile, fastrnn
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
            np.savez(file, **tensors, fastrnn=np.frombuffer(text.encode(), np.uint8))
    else:
        data = safetensors_package().numpy.save(tensors, metadata={"fastrnn": text})
        with replacing(path) as file:
            file.write(data)


def load(path):
    """The model that ``save`` wrote; files of others are for ``fastrnn.interop``.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    layer, cell, Linear, Embedding or Sequential
        Of the class that was saved, with its options and, to the bit, its parameters.

    Raises
    ------
    ValueError
        An ending that is neither .npz nor .safetensors.
    ModelFormatError
        A file that is broken, or not fastrnn's.
    OSError
        The file cannot be read.
    ImportError
        A .safetensors file, and the package is missing.

    >>> import os, tempfile, fastrnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "cell.npz")
    ...     fastrnn.LSTMCell(2, 3, peephole=True).save(path)
    ...     load(path)
    LSTMCell(2, 3, peephole=True)
    """
    read = read_npz if _ending(path) == ".npz" else read_safetensors
    tensors, found = read(path)
    if found is None:
        raise ModelFormatError(f"{os.fsdecode(path)}: not written by fastrnn; fastrnn.interop.layers reads what others "
                               "write")
    return build(found, tensors, path)


def configuration(model):
    """What the JSON in a file says of a model: its class, and every argument of its constructor but rng."""
    name = type(model).__name__
    if MODELS.get(name) is not type(model):
        raise TypeError(f"model: expected one of {', '.join(MODELS)}, got {type(model).__qualname__}")
    if name in CONTAINERS:
        return {"version": VERSION, "class": name, "modules": [configuration(module) for module in model.modules]}
    arguments = {argument.name: None for cls in reversed(type(model).__mro__) if "__init__" in vars(cls)
                 for argument in inspect.signature(cls.__init__).parameters.values()
                 if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)}
    layer = getattr(model, "_layer", model)         # a cell's options are those of its layer
    return {"version": VERSION, "class": name,
            **{key: getattr(layer, key) for key in arguments if key not in ("self", "rng")}, "dtype": layer.dtype.name}


def build(found, tensors, path, **options):
    """The model of a configuration and its parameters; options stand above what the configuration says."""
    with refusing(path):
        name = found.get("class")
        cls = model_class(name)
        if cls is None:
            raise ModelFormatError(f"class: expected one of {', '.join(MODELS)}, got {name!r:.200}")
        if name in CONTAINERS:
            return cls(*(build(one, part, path) for one, part in members(found, tensors)))
        options = {**found, **options}
        del options["class"], options["version"]
        if isinstance(options.get("num_layers"), int) and options["num_layers"] > len(tensors):
            raise ModelFormatError(f"num_layers {options['num_layers']}, but {len(tensors)} arrays")
        if options.get("dtype") not in ("float32", "float64"):          # NumPy takes far more for a dtype
            raise ModelFormatError(f"dtype: expected float32 or float64, got {options.get('dtype')!r:.200}")
        model = cls(**options, rng=UNDRAWN)
        model.load_state_dict(tensors)
        return model


def members(found, tensors):
    """A container's configuration taken apart: of each module its configuration, and the tensors "i.name" by name."""
    modules = found.get("modules")
    if found.keys() != {"version", "class", "modules"} or not isinstance(modules, list):
        raise ModelFormatError(f"a Sequential: expected version, class and a list of modules, got {found!r:.200}")
    for one in modules:
        if not isinstance(one, dict) or one.get("version") != VERSION:
            raise ModelFormatError(f"modules: expected configurations of version {VERSION}, got {one!r:.200}")
    parts = {str(i): {} for i in range(len(modules))}
    for name, value in tensors.items():
        i, _, rest = name.partition(".")
        if i not in parts:
            raise ModelFormatError(f"unknown key {name!r} for {len(modules)} modules")
        parts[i][rest] = value
    return list(zip(modules, parts.values()))


def _ending(path):
    ending = os.path.splitext(os.fsdecode(path))[1].lower()
    if ending not in (".npz", ".safetensors"):
        raise ValueError(f"path: expected a name that ends in .npz or .safetensors, got {os.fsdecode(path)!r}")
    return ending
