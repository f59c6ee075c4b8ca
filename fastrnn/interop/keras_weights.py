"""The weights in Keras' files, in their two layouts: by the names of layers, or by the attributes of the model."""

from __future__ import annotations

import collections
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._base.reading import ModelFormatError
from .formats.hdf5 import Dataset, Group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._base.typing import Array

Place: TypeAlias = tuple[str, ...]          # the names of the groups that lead to a group


def text_of(value: Any) -> str | None:
    """The text of an attribute, of whatever kind of string; None where there is none."""
    if value is None:
        return None
    value = value.item() if value.ndim == 0 else None
    if not isinstance(value, bytes):
        raise ModelFormatError(f"expected an attribute that is a string, got {value!r:.100}")
    return value.decode()


def _texts(group: Group, name: str) -> list[str]:
    """The list of strings of an attribute, or of name0, name1, ... that a long one was split into."""
    found, attributes = [], group.attributes
    for key in [name] if name in attributes else (f"{name}{i}" for i in range(len(attributes))):
        if key not in attributes:
            break
        value = attributes[key]
        if value.size and value.dtype.kind not in "SO":         # an empty list is an array of numbers
            raise ModelFormatError(f"attribute {key!r}: expected strings, got {value.dtype}")
        found += [text.decode() for text in value.ravel().tolist()]
    return found


@dataclass(eq=False)
class Record:
    """The weights of one cell as a file has them.

    names: of the models, wrappers and the layer it is in; direction: which of a Bidirectional's; cell: its own name;
    parts: "kernel", "recurrent_kernel" and perhaps "bias", each as datasets that stand side by side.
    """

    names: tuple[str, ...]
    direction: str | None
    cell: str
    parts: dict[str, list[Dataset]]
    claimed: bool = False

    def array(self, part: str) -> Array | None:
        """A part as one array, or None."""
        arrays = []
        for dataset in self.parts.get(part, ()):
            a = dataset.read()
            if a.dtype == "V2" and text_of(dataset.attributes.get("dtype")) == "bfloat16":
                a = (a.view("<u2").astype(np.uint32) << 16).view(np.float32)       # the upper half of a float32
            arrays.append(a)
        return np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0] if arrays else None


def _datasets(group: Group, most: int = 1000) -> dict[str, Dataset]:
    """Name -> dataset of a group and of those within it, `most` at most."""
    result: dict[str, Dataset] = {}
    stack, seen = [("", group)], set()
    while stack and len(result) < most:
        prefix, group = stack.pop()
        if id(group) in seen:
            continue
        seen.add(id(group))
        for name in group:
            child = group[name]
            if isinstance(child, Group):
                stack.append((f"{prefix}{name}/", child))
            else:
                result[prefix + name] = child
    return result


class Named:
    """Weights by the names of layers: a group for each, with the list of its weights' names."""

    def __init__(self, group: Group) -> None:
        self.datasets = functools.partial(_datasets, group)
        self._groups: dict[str, list[Record]] = {}
        self._by_name: dict[str, list[Record]] = {}
        for layer in dict.fromkeys(_texts(group, "layer_names")):
            if not isinstance(group.get(layer), Group):
                raise ModelFormatError(f"no group of weights {layer!r}")
            self._groups[layer] = list(_named_records(layer, group[layer]))
            for record in self._groups[layer]:
                for name in record.names:
                    self._by_name.setdefault(name, []).append(record)

    def slots(self, place: Place, container: str, entries: list[Any]) -> list[Place]:
        """Where the weights of a model's layers are; here that is told by their names alone."""
        return [place] * len(entries)

    def claim(self, names: tuple[str, ...], places: list[Place]) -> list[Record]:
        """The records of a layer: by all its names; by its own within the model it is in, or the next there; by its own
        anywhere, for Keras 1 has no groups of models."""
        named = [record for record in self._by_name.get(names[-1], ()) if not record.claimed]
        grouped = [record for record in self._groups.get(names[0], ()) if not record.claimed]
        found = next((found for found in ([record for record in grouped if record.names == names],
                                          [record for record in grouped if names[-1] in record.names], grouped, named)
                      if len(found) >= len(places)), [])
        found = sorted(found[:len(places)], key=lambda record: record.direction == "backward_layer")
        for record in found:
            record.claimed = True
        return found

    def left(self) -> list[Record]:
        """The records that no layer has claimed."""
        return [record for records in self._groups.values() for record in records if not record.claimed]


_CELL = re.compile(r"(?:stacked_rnn_cells|(?:lstm|gru|simple_rnn)_cell)(?:_\d+)?")


def _named_records(layer: str, group: Group) -> Iterator[Record]:
    """The records of a layer's group, told from names such as "lstm_1/lstm_cell/kernel:0"; in Keras 1 "lstm_1_W_i"."""
    found: dict[tuple[str, ...], tuple[list[str], dict[str, dict[str, Dataset]]]] = {}
    for name in _texts(group, "weight_names"):
        *scope, last = re.sub(r":\d+$", "", name).split("/")
        if match := re.fullmatch(r"(kernel|recurrent_kernel|bias)(_\d+)?", last):
            key, part, gate = (*scope, match[2]), match[1], ""
        elif match := re.fullmatch(r"(.+)_([WUb])(?:_([a-z]))?", last):            # Keras 1: a matrix for each gate
            scope.append(match[1])
            key, part, gate = tuple(scope), {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}[match[2]], match[3]
        else:
            continue
        if not isinstance(group.get(name), Dataset):
            raise ModelFormatError(f"layer {layer!r}: no weights {name!r}")
        found.setdefault(key, (scope, {}))[1].setdefault(part, {})[gate or ""] = group[name]
    for scope, parts in found.values():
        if {"kernel", "recurrent_kernel"} <= set(parts):
            names = scope[scope.index(layer):] if layer in scope else [layer, *scope]
            cell = names[-1]
            names = [name for name in names if not _CELL.fullmatch(name)] or [layer]
            direction = None
            for at, name in enumerate(names[1:], 1):
                if match := re.match(r"forward_|backward_", name):
                    names, direction = names[:at], match[0] + "layer"
                    break
            yield Record(tuple(names), direction, cell, {
                part: [gates[gate] for gate in sorted(gates, key="ifcozrh".find)] for part, gates in parts.items()})


class Tree:
    """Weights by attributes: a layer's cell is at ``layers/lstm/cell``, its arrays are ``vars/0``, ``vars/1``, ...

    Layers in a list go by their classes, counted: ``lstm``, ``lstm_1``.
    """

    def __init__(self, root: Group) -> None:
        self.datasets = functools.partial(_datasets, root)
        # The name of a model's list of layers, which Keras 2.12 gave by that of a property; it counts layers twice.
        self._container = "_layer_checkpoint_dependencies"
        if not any(name.startswith(self._container) for name in root):
            self._container = "layers"
        self.version = "3" if self._container == "layers" else "2.12"
        self._records: dict[Place, Record] = {}
        self._children: dict[Place, dict[str, dict[str, None]]] = {}
        labels: dict[Place, str | None] = {}
        cells: dict[Place, Group] = {}
        stack: list[tuple[Place, Group]] = [((), root)]
        seen = set()
        while stack:
            place, group = stack.pop()
            if id(group) in seen:                               # one object may have many names
                continue
            seen.add(id(group))
            if len(place) > 100:
                raise ModelFormatError(f"groups {len(place)} deep in one another")
            own = group.get("vars")
            if isinstance(own, Group):
                labels[place] = text_of(own.attributes.get("name"))
                if place[-1:] == ("cell",) or place[-2:-1] == ("cells",):
                    cells[place] = own
            for name in sorted(group, key=_counted, reverse=True):
                if name != "vars" and isinstance(group[name], Group):
                    stack.append(((*place, *name.split("\\")), group[name]))      # so on Windows, Keras 2.12
        for place, own in cells.items():
            self._records[place] = Record(*self._names(place, labels), {
                part: [_dataset(own, str(i))] for i, part in enumerate(("kernel", "recurrent_kernel", "bias"))
                if str(i) in own})
            for depth, name in enumerate(place):
                self._children.setdefault(place[:depth], {}).setdefault(_counted(name)[0], {})[name] = None

    def _names(self, place: Place, labels: dict[Place, str | None]) -> tuple[tuple[str, ...], str | None, str]:
        """names, direction and cell of a Record: Keras' names where the file has them, else those of the groups."""
        end = len(place) - (1 if place[-1] == "cell" else 2)
        end -= place[end - 1:end] == ("cell",)
        names, direction = [], None
        for at, name in enumerate(place[:end]):
            if name in ("forward_layer", "backward_layer"):
                direction = name
            elif name != self._container:
                names.append(labels.get(place[:at + 1]) or name)
        return tuple(names), direction, labels.get(place) or place[-1]

    def slots(self, place: Place, container: str, entries: list[Any]) -> list[Place]:
        """The places of a list of layers: the i-th of its class, where all are there, else the one of that number."""
        place = (*place, self._container if container == "layers" else container)
        stems = [snake_case(str(entry.get("class_name")).split(">")[-1]) for entry in entries]
        totals, slots = collections.Counter(stems), []
        counts: collections.Counter[str] = collections.Counter()
        there = {stem: sorted(self._children.get(place, {}).get(stem, ()), key=_counted) for stem in totals}
        for stem in stems:
            i, named = counts[stem], there[stem]
            counts[stem] += 1
            slots.append((*place, named[i] if len(named) == totals[stem] else f"{stem}_{i}" if i else stem))
        return slots

    def claim(self, names: tuple[str, ...], places: list[Place]) -> list[Record]:
        """The records of a layer, by their places."""
        return [self._records.pop(place) for place in places if place in self._records]

    def left(self) -> list[Record]:
        """The records that no layer has claimed."""
        return list(self._records.values())


def _dataset(group: Group, name: str) -> Dataset:
    child = group[name]
    if not isinstance(child, Dataset):
        raise ModelFormatError(f"{name!r} among a cell's variables is a group, expected an array")
    return child


def _counted(name: str) -> tuple[str, int]:
    """("lstm", 2) of "lstm_2"."""
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", name, re.DOTALL)
    return (match[1], int(match[2] or 0)) if match else (name, 0)


def snake_case(name: str) -> str:
    """Keras' way from a class to a name: "SimpleRNN" to "simple_rnn"."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
