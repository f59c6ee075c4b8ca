"""Exported programs of PyTorch (``torch.export.save``: .pt2): weights by name, and layers' options from the graph.

A .pt2 file is a zip archive. Since PyTorch 2.8 the graph is ``models/<name>.json`` and each weight is a file of bare
numbers that ``data/weights/<name>_weights_config.json`` lists with types, sizes and strides. Before, the graph is
``serialized_exported_program.json`` and the weights are ``serialized_state_dict.pt``, as torch.save writes them. In the
graph a layer is one operator, ``aten.lstm`` or the like, whose arguments are its options. Nothing is run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.reading import Archive, ModelFormatError, parse_json, read_bytes, refusing
from .formats.pickles import shown
from .parts import Unread
from .torch_files import Contents, Entry, parse
from .torch_tensors import DTYPES, Storage, Tensor, is_count

if TYPE_CHECKING:
    from .._base.typing import Array, PathLike

# torch._export.serde.schema.ScalarType
_TYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
          10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16"}
_OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}
_TARGET = re.compile(r"torch\.ops\.aten\.(lstm|gru|rnn_tanh|rnn_relu)\.(input|data)")
_GRAPH = re.compile(r"(?:[^/]*/)?models/([^/]+)\.json")


def is_exported(path: PathLike) -> bool:
    """Whether a file is a .pt2 archive."""
    return read_bytes(path, 0, 4) == b"PK\3\4" and _graph(Archive(read_bytes(path), path)) is not None


def _graph(archive: Archive) -> str | None:
    """The name of the file that the graph is in."""
    return next((name for name in archive if _GRAPH.fullmatch(name)
                 or name.rpartition("/")[2] == "serialized_exported_program.json"), None)


def read_exported(path: PathLike) -> Contents:
    """The weights of an exported program as arrays, and what its graph says of the layers."""
    data = read_bytes(path)
    with refusing(path):
        archive = Archive(data, path)
        name = _graph(archive)
        if name is None:
            raise ModelFormatError("an archive without an exported program")
        program = parse_json(archive.read(name))
        if match := _GRAPH.fullmatch(name):
            folder = name[:-len(f"models/{match[1]}.json")]
            contents = Contents(_weights(archive, folder, match[1], len(data)))
        else:
            inner = name.replace("serialized_exported_program.json", "serialized_state_dict.pt")
            contents = parse(archive.read(inner), path) if inner in archive else Contents()
        _note_layers(program, contents)
        return contents


def _weights(archive: Archive, folder: str, model: str, size: int) -> list[Entry]:
    """The weights of the newer layout."""
    config = parse_json(archive.read(f"{folder}data/weights/{model}_weights_config.json"))
    table = config.get("config") if isinstance(config, dict) else None
    if not isinstance(table, dict) or not all(isinstance(about, dict) for about in table.values()):
        raise ModelFormatError("the table of weights is broken")
    text = archive.read(folder + "byteorder").strip() if folder + "byteorder" in archive else b"little"
    order = {b"little": "<", b"big": ">"}.get(text)
    if order is None:
        raise ModelFormatError("byteorder: expected little or big")
    stored: dict[tuple[str, str], Array] = {}
    entries, total = [], 0
    for name, about in table.items():
        value = _weight(archive, f"{folder}data/weights/", about, order, stored)
        total += 0 if isinstance(value, Unread) else value.nbytes
        if total > 64 * size:
            raise ModelFormatError("its weights unfold to far more than the file")
        entries.append(Entry((name,), value))
    return entries


def _weight(archive: Archive, folder: str, about: dict[str, Any], order: str,
            stored: dict[tuple[str, str], Array]) -> Array | Unread:
    """One weight: a view of the numbers in its file."""
    meta, place = about.get("tensor_meta"), about.get("path_name")
    if about.get("use_pickle") or not isinstance(meta, dict) or not isinstance(place, str):
        return Unread("it is pickled, or has no description")
    sizes, strides, (offset,) = (_numbers(meta.get(key)) for key in ("sizes", "strides", "storage_offset"))
    kind = _TYPES.get(meta.get("dtype", 0))
    if kind is None:
        return Unread(f"it is of a type that NumPy has not, number {meta.get('dtype')!r:.20}", sizes)
    dtype, key = DTYPES[kind], (place, kind)
    if key not in stored:
        data = archive.read(folder + place)
        numbers = np.frombuffer(data, np.dtype(order + dtype.str[1:]), len(data) // dtype.itemsize).astype(dtype)
        if kind == "bfloat16":                  # the upper half of a float32
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        stored[key] = numbers != 0 if kind == "bool" else numbers
    numbers = stored[key]
    Tensor(Storage(place, kind, numbers.size), offset, sizes, strides)         # checks that it lies within
    array = np.ndarray(sizes, numbers.dtype, numbers, offset * numbers.itemsize,
                       [step * numbers.itemsize for step in strides])
    return array


def _numbers(value: Any) -> tuple[int, ...]:
    """The numbers of sizes, strides or an offset, each as {"as_int": n}."""
    items = value if isinstance(value, list) else [value]
    numbers = tuple(item.get("as_int") if isinstance(item, dict) else None for item in items)
    if not all(map(is_count, numbers)):
        raise ModelFormatError(f"sizes, strides or an offset of a weight: {value!r:.100}")
    return numbers      # type: ignore[return-value]        # is_count has checked each


# How the arguments of an operator are written: types of each kind.
_ARGUMENTS: dict[str, tuple[type, ...]] = {"as_bool": (bool,), "as_int": (int,), "as_float": (float, int)}


def _note_layers(program: Any, contents: Contents) -> None:
    """Notes the attributes of the layers that the graph's operators are."""
    try:
        graph = program["graph_module"]["graph"]
        specs = program["graph_module"]["signature"]["input_specs"]
        names = {spec["parameter"]["arg"]["name"]: spec["parameter"]["parameter_name"]
                 for spec in specs if "parameter" in spec}
        for node in graph["nodes"]:
            if match := _TARGET.fullmatch(node["target"]):
                _note_layer(match[1], match[2], node, names, contents)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        message = f"{type(error).__name__}: {error}"
        raise ModelFormatError(f"the graph of the program is not as expected: {message:.200}") from None


def _note_layer(operator: str, overload: str, node: dict[str, Any], names: dict[str, str], contents: Contents) -> None:
    arguments = {argument["name"]: argument["arg"] for argument in node["inputs"]}
    weights = [names.get(value["name"]) for value in arguments["params"]["as_tensors"]]
    owners = {str(weight).rpartition(".")[0] for weight in weights}
    if None in weights or len(owners) != 1:
        for owner in owners - {""}:
            contents.refused[owner] = f"{owner}: {shown(node.get('name'))} computes with weights that are computed"
        return
    prefix = owners.pop()
    known: dict[str, Any] = {"class": _OPERATORS[operator]}
    for key, name, kind in (("bias", "has_biases", "as_bool"), ("num_layers", "num_layers", "as_int"),
                            ("dropout", "dropout", "as_float"), ("bidirectional", "bidirectional", "as_bool"),
                            ("batch_first", "batch_first", "as_bool")):
        if name in arguments:
            known[key] = value = arguments[name][kind]
            if type(value) not in _ARGUMENTS[kind] or (type(value) is int and not is_count(value)):
                raise TypeError(f"{key} is {value!r:.20}")
    if operator.startswith("rnn_"):
        known["nonlinearity"] = operator[4:]
    if overload == "data":          # of packed sequences, which have no batch_first
        known.pop("batch_first", None)
    if weights != _in_order(prefix, known, len(weights)):
        contents.refused[prefix] = f"{prefix}: {shown(node.get('name'))} takes its weights in another order"
    before = contents.known.get(prefix)
    if before is not None and before != known:
        contents.refused[prefix] = f"{prefix}: it is used twice, with different options"
    contents.known[prefix] = known


def _in_order(prefix: str, known: dict[str, Any], count: int) -> list[str]:
    """The names of a layer's weights in the order in which torch's operators take them, `count` at most."""
    parts = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if known.get("bias") else [])]
    directions = ["", "_reverse"] if known.get("bidirectional") else [""]
    layers = known["num_layers"] if is_count(known.get("num_layers")) else 0
    if layers * len(directions) * (len(parts) + 1) == count:
        parts.append("weight_hr")           # a projection
    return [f"{prefix}.{part}_l{layer}{direction}".lstrip(".") for layer in range(min(layers, count))
            for direction in directions for part in parts]
