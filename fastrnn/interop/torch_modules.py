"""Whole modules in PyTorch's files: the options of their recurrent layers, from attributes or TorchScript's text.

A layer is taken for one of torch's own where its class is torch's; a class of one's own may compute anything, and is
refused by its name. Nothing is imported or run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .._base.reading import ModelFormatError
from .formats.pickles import Name, Opaque, Pairs, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conventions import Layer

CLASSES = re.compile(r"(?:torch\.nn\.modules\.rnn|fastrnn\.pytorch(?:\.modules)?)\.((?:LSTM|GRU|RNN)(?:Cell)?)")
OPTIONS = ("batch_first", "dropout", "mode", "nonlinearity")
MODES = {"RNN": ("RNN_TANH", "RNN_RELU"), "LSTM": ("LSTM",), "GRU": ("GRU",)}
SIZES = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional", "proj_size")
# Hooks that compute parameters from others, whose names tell how.
HOOKS = ("torch.nn.utils.weight_norm.WeightNorm", "torch.nn.utils.spectral_norm.SpectralNorm", "torch.nn.utils.prune.")
_SCRIPT = "__torch__."
# TorchScript's literals. A whole number of more digits is none of a layer's, and int() refuses one of 4,301.
_INTEGER = r"[0-9]{1,18}"
_REAL = rf"{_INTEGER}(?:\.[0-9]{{0,30}})?(?:e[+-]?[0-9]{{1,4}})?"
_LITERALS = {bool: r"True|False", int: _INTEGER, float: _REAL, str: r"\"\w*\""}
_KINDS = {"batch_first": bool, "dropout": float, "mode": str, "nonlinearity": str, "bias": bool, "bidirectional": bool}
_FINAL = re.compile(r"^  (\w+) : Final\[\w+\] = (.+)$", re.MULTILINE)
_CALL = re.compile(rf"torch\.(lstm|gru|rnn_tanh|rnn_relu)\(.*, (True|False), ({_INTEGER}), ({_REAL}), "
                   r"(?:True|False|\w+), (True|False), (True|False)\)$", re.MULTILINE)
# A trace has the parts of a cell: torch.tanh(...).
_CELL_CALL = re.compile(r"\btorch\.(?:rnn_)?(tanh|relu)(?:_cell|_)?\(")


def attributes(module: Opaque, code: Callable[[str], str] | None) -> dict[str, Any]:
    """The options and sizes of a module of torch's recurrent classes.

    Raises
    ------
    ModelFormatError
        The class is another one, or hooks act on the module.
    """
    scripted = module.name.startswith(_SCRIPT)
    name = re.sub(r"___torch_mangle_\d+\.", "", module.name.removeprefix(_SCRIPT)) if scripted else module.name
    match = CLASSES.fullmatch(name)
    if match is None:
        raise ModelFormatError(f"class {shown(name)} may compute anything with its weights. If it computes what "
                               "torch's own layer does, save its state_dict() and read that")
    if scripted:
        result = _of_code(module, match[1], code)
    else:
        _check_hooks(module)
        result = {key: module.attribute(key) for key in OPTIONS + SIZES}
    result = {key: value for key, value in result.items() if value is not None}
    mode = result.pop("mode", None)
    if mode is not None:                        # what torch computes by, whatever the class and the nonlinearity say
        if mode not in MODES.get(match[1], ()):
            raise ModelFormatError(f"mode is {shown(mode)}, which is none of {match[1]}'s")
        if match[1] == "RNN":
            result["nonlinearity"] = mode[4:].lower()
    for key, kinds in (("batch_first", (bool,)), ("dropout", (int, float)), ("nonlinearity", (str,))):
        if key in result and type(result[key]) not in kinds:
            raise ModelFormatError(f"{key} is a {type(result[key]).__name__}")
    for key, classes in (("batch_first", tuple(MODES)), ("nonlinearity", ("RNN", "RNNCell"))):
        if match[1] in classes and key not in result:
            raise ModelFormatError(f"{key} is not among what the file tells of it")
    result["class"] = match[1]
    return result


def _check_hooks(module: Opaque) -> None:
    for table in ("_forward_hooks", "_forward_pre_hooks"):
        hooks = module.attribute(table)
        for hook in hooks[1::2] if type(hooks) is Pairs else ():
            name = hook.name if type(hook) in (Opaque, Name) else type(hook).__name__
            if not name.startswith(HOOKS):
                raise ModelFormatError(f"{shown(name)} is among its hooks, which may change what it computes")


def _of_code(module: Opaque, cls: str, code: Callable[[str], str] | None) -> dict[str, Any]:
    """What the text of a TorchScript class says: its constants, or those in the one call of a traced module."""
    path, _, name = module.name.rpartition(".")
    text = "" if code is None else code(path.replace(".", "/") + ".py")
    start = re.search(rf"^class {re.escape(name)}\(Module\):$", text, re.MULTILINE)
    if start is None:
        raise ModelFormatError(f"the code of {shown(module.name)} is not in the archive")
    text = re.split(r"^class ", text[start.end():], maxsplit=1, flags=re.MULTILINE)[0]
    result = {key: _literal(key, value) for key, value in _FINAL.findall(text) if key in OPTIONS + SIZES}
    calls = _CALL.findall(text)
    if "batch_first" not in result and not cls.endswith("Cell"):
        if len(set(calls)) != 1:
            raise ModelFormatError(f"the code of {shown(module.name)} does not tell batch_first and the other options")
        operator, bias, num_layers, dropout, bidirectional, batch_first = calls[0]
        result = {"bias": bias == "True", "num_layers": int(num_layers), "dropout": float(dropout),
                  "bidirectional": bidirectional == "True", "batch_first": batch_first == "True",
                  "mode": operator.upper()}
    elif cls == "RNNCell" and "nonlinearity" not in result:
        called = set(_CELL_CALL.findall(text))
        if len(called) == 1:
            result["nonlinearity"] = called.pop()
    return result


def _literal(key: str, text: str) -> bool | int | float | str:
    """The constant of a TorchScript class, of the type that torch's layers have there."""
    kind = _KINDS.get(key, int)
    if not re.fullmatch(_LITERALS[kind], text):
        raise ModelFormatError(f"{key} is {shown(text)} in its code, expected {kind.__name__}")
    return text == "True" if kind is bool else text.strip('"') if kind is str else kind(text)


def check_sizes(layer: Layer, known: dict[str, Any]) -> None:
    """Refuses a layer whose weights contradict its module's attributes."""
    for key in SIZES:
        expected, actual = known.get(key), getattr(layer, key)
        if type(expected) in (int, bool, float, str) and expected != actual:
            raise ModelFormatError(f"{key} is {shown(expected)}, but the weights are of {actual}")
    kind = type(layer).__name__
    if known["class"].removesuffix("Cell") != kind:
        raise ModelFormatError(f"class {known['class']}, but the weights are of a {kind}")
