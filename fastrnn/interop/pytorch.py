"""PyTorch's files (``torch.save``: .pt, .pth, .bin, .ckpt; ``torch.jit.save``), read without PyTorch.

``torch_files`` has the formats, ``torch_tensors`` what their pickles may name, ``torch_modules`` whole modules. Pickles
are read by ``formats.pickles``, which can run nothing.
"""

from __future__ import annotations

import bisect
import itertools
import os
from typing import TYPE_CHECKING, Any

from .._base.reading import ModelFormatError
from .conventions import contents_of, explained, found_layers, given_options
from .formats.pickles import shown
from .parts import Unread, is_part, unwrapped
from .shards import is_index, read_index
from .torch_exported import is_exported, read_exported
from .torch_files import Contents, module_parts, read
from .torch_modules import attributes, check_sizes
from .torch_tensors import ADVICE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Activation, Array, PathLike
    from .conventions import Layer

# Keys under which checkpoints hold a model.
_MODEL_KEYS = {"model", "model_state", "model_state_dict", "model_dict", "state_dict", "state", "net", "network",
               "weights", "params", "parameters"}


def load_state_dict(path: PathLike) -> dict[str, Array]:
    """Read the tensors of a file that ``torch.save`` wrote, by name.

    Parameters
    ----------
    path : str or path-like
        A .pt or .pth file of a state_dict, of any dicts, lists and tuples that hold tensors, such as a checkpoint, or
        of a whole module; a TorchScript archive; an exported program (.pt2); or the index of several files,
        ``pytorch_model.bin.index.json``.

    Returns
    -------
    dict of str to array
        In the file's order. Nested keys and indices are joined by dots: ``{"model": {"lstm.weight_ih_l0": ...}}`` gives
        ``"model.lstm.weight_ih_l0"``, a tensor alone ``""``. Of whole modules the names are those of their state_dict.
        NumPy's arrays are taken for tensors. What is no tensor is left out, and so are tensors that NumPy cannot hold
        (quantised, sparse, float8). dtypes are NumPy's of the same name, bfloat16 comes as float32. Tensors that share
        memory in PyTorch do so here.

    Raises
    ------
    ModelFormatError
        The file is broken, all of its tensors are such that NumPy cannot hold them, or its pickle would run code where
        PyTorch loads it, by the name of what it asks for. Nothing of it is ever run: objects beside the tensors are
        passed over, of whatever class they are.
    OSError
        The file cannot be read.

    Notes
    -----
    The formats are those of ``torch/serialization.py``.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.pt")
    ...     torch.save({"model": torch.nn.Linear(2, 3).state_dict(), "epoch": 5}, path)
    ...     {name: array.shape for name, array in interop.pytorch.load_state_dict(path).items()}
    {'model.weight': (3, 2), 'model.bias': (3,)}
    """
    contents = _read(path)
    unread = {".".join(entry.keys): entry.value for entry in contents.entries if isinstance(entry.value, Unread)}
    if unread and len(unread) == len(contents.entries):
        name, value = next(iter(unread.items()))
        raise ModelFormatError(f"{os.fspath(path)}: tensor {shown(name)} cannot be read: {value.reason}; {ADVICE}")
    return {".".join(entry.keys): entry.value for entry in contents.entries if ".".join(entry.keys) not in unread}


def layers(path: PathLike, skipped: dict[str, str] | None = None, *, batch_first: bool | None = None,
           dropout: float | None = None, nonlinearity: str | None = None, reset_after: bool | None = None,
           update: str | None = None, coupled_gates: bool | None = None, reverse: bool | None = None,
           activations: Sequence[Activation] | None = None, clip: float | None = None) -> dict[str, Layer]:
    """Read the recurrent layers of a file that ``torch.save`` wrote, with its weights.

    The options say what weights do not tell, and hold for every layer of the file that has such an option. A layer is
    returned only if everything under its name is accounted for: with other parameters beside its own it is refused.

    Parameters
    ----------
    path : str or path-like
        A file as for `load_state_dict`.
    skipped : dict, optional
        If given, it takes name -> reason of what makes no layer. Without it the first of them is an error.
    batch_first : bool, optional
        Whether the layers take [N, T, I] instead of [T, N, I].
    dropout : float, optional
        Probability of dropout between stacked layers, in training.
    nonlinearity : {"tanh", "relu"}, optional
        Of every plain RNN.
    reset_after : bool, optional
        Of every GRU: where its reset gate acts. True, the default, is torch's.
    update : {"torch", "mirror"}, optional
        Of every GRU: which of the two mixes the update gate is.
    coupled_gates : bool, optional
        Of every LSTM: whether its input gate is 1 - f.
    reverse : bool, optional
        Whether the layers walk from the last step to the first.
    activations : sequence, optional
        Activation functions in ONNX's order f, g, h, of layers that are not torch's own.
    clip : float, optional
        Bound of the sums that activations are taken of.

    Returns
    -------
    dict of str to layer
        RNN, GRU or LSTM (of cells, too) by the module's name in the model: ``"encoder.lstm"``, or ``""`` where the
        model itself is the layer. The keys that hold a model within a checkpoint (``state_dict``, ``model_state``, ...)
        and what wrapping a model puts into its names (``module``, ``_orig_mod``, ...) are left out, unless two layers
        would then have one name. An optimizer's state is never taken for layers. Whole modules and TorchScript archives
        tell their layers' options themselves; options that are given stand above them.

    Raises
    ------
    ModelFormatError
        As `load_state_dict`; besides, parameters under one name do not make a layer.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> from fastrnn import interop
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(4, 8, 2), "head": torch.nn.Linear(8, 1)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "checkpoint.pt")
    ...     torch.save({"model_state": model.state_dict(), "epoch": 5}, path)
    ...     interop.pytorch.layers(path, batch_first=True)
    {'encoder': LSTM(4, 8, num_layers=2, batch_first=True)}
    """
    options = given_options({
        "batch_first": batch_first, "dropout": dropout, "nonlinearity": nonlinearity, "reset_after": reset_after,
        "update": update, "coupled_gates": coupled_gates, "reverse": reverse, "activations": activations, "clip": clip})
    contents = _read(path)
    missed: dict[str, str] = {}
    try:
        found = _layers(contents, options, None if skipped is None else missed)
    except ModelFormatError as error:
        raise ModelFormatError(f"{os.fspath(path)}: {error}") from error.__cause__
    for name_of in (_short, _full):
        named = {name_of(keys, prefix): layer for keys, prefix, layer in found}
        if len(named) == len(found) and (name_of is _full or not named.keys() & missed.keys()):
            return explained(named, path, missed, skipped, lambda: _about(contents))
    raise ModelFormatError(f"{os.fspath(path)}: two layers of one name among {', '.join(map(shown, named))}")


def _read(path: PathLike) -> Contents:
    """The contents of a file, or of all files of an index."""
    if is_exported(path):
        return read_exported(path)
    if not is_index(path):
        return read(path)
    contents = Contents()
    for shard, names in read_index(path).items():
        entries = {".".join(entry.keys): entry for entry in read(shard).entries}
        for name in names:
            if name not in entries:
                raise ModelFormatError(f"{os.fsdecode(path)}: {os.path.basename(shard)} has no {name!r:.200}")
        contents.entries += [entries[name] for name in names]
    return contents


Found = list[tuple[tuple[str, ...], str, "Layer"]]      # the keys that lead to a dict, the prefix in it, the layer


def _layers(contents: Contents, options: dict[str, Any], missed: dict[str, str] | None) -> Found:
    """The layers of a file's tensors, dict by dict."""
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for entry in contents.entries:
        if entry.keys and not entry.of_optimizer:
            groups.setdefault(entry.keys[:-1], {})[entry.keys[-1]] = entry.value
    result: Found = []
    for keys, tensors in groups.items():
        missed_here: dict[str, str] | None = None if missed is None else {}
        known = _modules(contents, keys, tensors, missed_here)
        chosen: dict[str | None, dict[str, Any]] = {
            prefix: _options(module, prefix, tensors) | options for prefix, module in known.items()}
        for prefix, layer in found_layers(tensors, {None: options, **chosen}, missed_here, peepholes=False):
            try:
                if prefix in known:
                    check_sizes(layer, known[prefix])
            except ModelFormatError as error:
                _miss(prefix, error, missed_here)
            else:
                result.append((keys, prefix, layer))
        for prefix, reason in (missed_here or {}).items():
            assert missed is not None
            missed[_short(keys, prefix)] = reason
    return _alone(result, contents, missed)


def _options(module: dict[str, Any], prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """The options that a module's attributes tell; dropout has no effect in a layer that is no stack."""
    names = ["batch_first", "nonlinearity"]
    if any(name.startswith(f"{prefix}.weight_hh_l1".lstrip(".")) for name in tensors):
        names.append("dropout")
    return {name: module[name] for name in names if name in module}


def _miss(prefix: str, error: ModelFormatError, missed: dict[str, str] | None) -> None:
    """Notes why there is no layer of a prefix, or raises it."""
    message = f"{prefix or 'the model'}: {error}"
    if missed is None:
        raise ModelFormatError(message) from None
    missed[prefix] = message


def _modules(contents: Contents, keys: tuple[str, ...], tensors: dict[str, Any],
             missed: dict[str, str] | None) -> dict[str, dict[str, Any]]:
    """Prefix -> attributes of modules with recurrent parameters; those of other classes are taken out of `tensors`."""
    known = dict(contents.known)
    for prefix, reason in contents.refused.items():
        if missed is None:
            raise ModelFormatError(reason)
        missed[prefix] = reason
        known.pop(prefix, None)
        for name in [name for name in tensors if name.startswith(prefix + ".") and is_part(name)]:
            del tensors[name]
    for (own, prefix), module in contents.modules.items():
        if own != keys or not any(is_part(name) and prefix + name in tensors for name, _ in module_parts(module)):
            continue
        try:
            known[prefix.rstrip(".")] = attributes(module, contents.code)
        except ModelFormatError as error:
            _miss(prefix.rstrip("."), error, missed)
            for name, _ in module_parts(module):
                tensors.pop(prefix + name, None)
    return known


def _alone(found: Found, contents: Contents, missed: dict[str, str] | None) -> Found:
    """The layers that have nothing under their names in dicts of their own, such as {"lstm": {..., "norm": {...}}}."""
    if len({_full(keys, prefix) for keys, prefix, _ in found}) < len(found):
        return found                    # two of one name, which is an error of its own
    places = {".".join(entry.keys): entry.keys[:-1] for entry in contents.entries if not entry.of_optimizer}
    names, result = sorted(places), []
    for keys, prefix, layer in found:
        within = _full(keys, prefix) + "."
        start, stranger = bisect.bisect_left(names, within), None
        for name in itertools.islice(names, start, None):
            if not name.startswith(within) or stranger is not None:
                break
            stranger = name if places[name] != keys else None
        if stranger is None:
            result.append((keys, prefix, layer))
        else:
            _miss(_short(keys, prefix), ModelFormatError(f"beside its parameters there is {stranger:.100}: it is not "
                                                         "taken for a plain layer"), missed)
    return result


def _about(contents: Contents) -> str:
    """What a file without layers has, with advice where its names tell what it is."""
    arrays = {".".join(entry.keys): entry.value for entry in contents.entries if not entry.of_optimizer}
    if any("flat_param" in name for name in arrays):
        return f"FSDP has flattened its parameters: gather a full state_dict to save. {contents_of(arrays)}"
    names = [*arrays, *(module.name for module in contents.modules.values())]
    if any("_packed_params" in name or "_all_weight_values" in name or ".quantized." in name for name in names):
        return f"its weights are quantised: save the model before it is quantised. {contents_of(arrays)}"
    if not arrays and contents.entries:
        return "its tensors are an optimizer's"
    if not arrays and any(name.endswith("constants.pkl") for name in contents.names):
        return "a TorchScript archive without parameters, as torch.jit.freeze leaves them: save it before it is frozen"
    return contents_of(arrays)


def _short(keys: tuple[str, ...], prefix: str) -> str:
    """The name of a layer within its model."""
    return _full(tuple(key for key in keys if key not in _MODEL_KEYS), unwrapped(prefix))


def _full(keys: tuple[str, ...], prefix: str) -> str:
    return ".".join([*keys, prefix] if prefix else keys)
