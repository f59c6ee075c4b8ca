"""Keras models, ``.keras`` and ``.h5`` of Keras 1, 2 and 3, without Keras or TensorFlow.

Two things are brought together: the configuration, JSON that names layers and their options, and the weights, an HDF5
file. Of the weights there are two layouts: by layer names with lists of weight names (``Named``: Keras 1 and 2, and
``.h5`` of Keras 3), and by the attributes of the model (``Tree``: ``.keras`` and ``.weights.h5`` of Keras 2.12 on).
Nothing is deserialised: a class that is not known here is passed over by its name, and no code runs.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._base.reading import EXPANSION, Archive, ModelFormatError, read_bytes, refusing
from ..nn import parameters
from .conventions import contents_of, explained, keras_parameters, make_layer
from .formats.hdf5 import Dataset, File, Group, Merged
from .shards import is_index, read_index

if TYPE_CHECKING:
    from .._base.typing import Activation, PathLike
    from .conventions import Layer

KINDS = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn", "CuDNNLSTM": "lstm", "CuDNNGRU": "gru"}
CELLS = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "rnn"}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
CONVOLUTIONAL = {"ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "ConvRNN2D"}
RECURRENT = {*KINDS, "RNN", "Bidirectional", *CONVOLUTIONAL}
# Every option that Keras' own layers have had. A class of one's own with these alone is taken for what it derives from.
OPTIONS = {
    "name", "trainable", "dtype", "return_sequences", "return_state", "go_backwards", "stateful", "unroll", "units",
    "zero_output_for_mask", "activation", "recurrent_activation", "use_bias", "kernel_initializer", "use_cudnn",
    "recurrent_initializer", "bias_initializer", "unit_forget_bias", "kernel_regularizer", "recurrent_regularizer",
    "bias_regularizer", "activity_regularizer", "kernel_constraint", "recurrent_constraint", "bias_constraint",
    "dropout", "recurrent_dropout", "seed", "implementation", "time_major", "reset_after", "batch_input_shape",
    "batch_shape", "output_dim", "init", "inner_init", "forget_bias_init", "inner_activation", "W_regularizer",
    "U_regularizer", "b_regularizer", "dropout_W", "dropout_U", "consume_less", "input_dim", "input_shape",
    "input_length", "input_dtype", "ragged", "quantization_config"}

# Keras' names -> fastrnn's, with alpha and beta where its defaults are others. hard_sigmoid depends on the version.
ACTIVATIONS = {"tanh": "tanh", "sigmoid": "sigmoid", "linear": "affine", "relu": "relu", "elu": "elu", "celu": "elu",
               "softplus": "softplus", "softsign": "softsign", "leaky_relu": ("leaky_relu", 0.2),
               "sparse_sigmoid": ("hard_sigmoid", 0.5, 0.5)}


def layers(path: PathLike, skipped: dict[str, str] | None = None, *, activation: Activation | None = None,
           recurrent_activation: Activation | None = None, reset_after: bool | None = None) -> dict[str, Layer]:
    """Read the recurrent layers of a Keras file, with its weights and its options.

    The three options are for layers without a configuration in the file, as in files of weights alone.

    Parameters
    ----------
    path : str or path-like
        A ``.keras``, ``.h5`` or ``.weights.h5`` file, its kind is told from the contents; or the index of weights in
        several files, ``.weights.json``, with them beside it.
    skipped : dict, optional
        If given, it takes name -> reason of layers that cannot be represented. Without it the first of them is an
        error.
    activation : str, (str, alpha) or (str, alpha, beta), optional
        Activation of the candidate and the cell state: one of Keras' names, or of fastrnn's with its numbers.
    recurrent_activation : str, (str, alpha) or (str, alpha, beta), optional
        Activation of the gates.
    reset_after : bool, optional
        Of GRUs without a bias (whose shape tells it).

    Returns
    -------
    dict of str to layer
        By the layer's name in Keras, after those of the models and wrappers it is in: ``"encoder/lstm"``. Each is
        ``batch_first``, as Keras' layers are unless they are time_major. A call gives the whole sequence and the state,
        whatever return_sequences and return_state are. Dropout, masks and stateful are not carried over.

        go_backwards: a layer with ``reverse=True``. Its outputs stand at their input's step; Keras has them in the
        order of computation, which is ``output[:, ::-1]``.

        Bidirectional, merged by "concat", of two layers alike: a bidirectional layer. Otherwise two layers,
        ``name/forward_layer`` and ``name/backward_layer``, the second with ``reverse=True``, whose outputs can be
        added or multiplied as they are.

        RNN of StackedRNNCells: one layer with num_layers where the cells are alike, else ``name/cell`` for each, to be
        called one after the other.

    Raises
    ------
    ModelFormatError
        The file is broken, or a layer cannot be represented: an activation fastrnn has not (gelu, swish, selu,
        exponential, functions of one's own), a cell of one's own, a convolutional layer.
    OSError
        The file cannot be read.

    Notes
    -----
    Gates are i, f, c, o (LSTM) and z, r, h (GRU) in Keras' order, kernels [I, G*H]; a GRU with reset_after has biases
    [2, 3H]. CuDNNLSTM and CuDNNGRU keep each gate's matrices as cuDNN does, [H, I] in memory, and a flat bias [2*G*H].
    hard_sigmoid is clip(0.2 x + 0.5, 0, 1) in Keras 1 and 2, relu6(x + 3) / 6 in Keras 3: the file's version counts.
    Keras' own code for this is in keras/src/layers/rnn, keras/src/saving/saving_lib.py and
    keras/src/legacy/saving/legacy_h5_format.py.

    Files of weights alone (``model.save_weights``) have no configuration, nor have layers within classes of one's own.
    These layers are inferred from names and shapes, with tanh and the recurrent activation that was the default of the
    file's version: hard_sigmoid before Keras 2.3 (TensorFlow's own "2.2.4-tf" not among them), then sigmoid. Nothing
    tells whether they are so, nor go_backwards. They have Keras' names where the file has them, else those of its
    groups; cells of StackedRNNCells are a layer each, and two directions are a bidirectional layer.

    Examples
    --------
    >>> import os, tempfile
    >>> import h5py, numpy as np
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.h5")
    ...     with h5py.File(path, "w") as file:
    ...         file.attrs["layer_names"], file.attrs["keras_version"] = [b"gru"], b"2.15.0"
    ...         group = file.create_group("gru")
    ...         group.attrs["weight_names"] = [b"gru/kernel:0", b"gru/recurrent_kernel:0"]
    ...         group["gru/kernel:0"], group["gru/recurrent_kernel:0"] = np.ones((2, 9)), np.ones((3, 9))
    ...     interop.keras.layers(path)
    {'gru': GRU(2, 3, bias=False, batch_first=True, dtype=float64)}
    """
    _check(activation=activation, recurrent_activation=recurrent_activation)
    path, data, found = os.fspath(path), read_bytes(path), {}
    missed = {}
    with refusing(path):
        config, version, weights = _open(data, path)
        reasons = None if skipped is None else missed
        for entry, names, place in _recurrent(config, (), (), weights):
            _take("/".join(names), found, reasons, _configured, entry, names, place, weights, version)
        given = {"activation": activation, "recurrent_activation": recurrent_activation, "reset_after": reset_after}
        given = {name: value for name, value in given.items() if value is not None}
        for name, records in _unclaimed(weights.left()):
            _take(name, found, reasons, _inferred, name, records, given, version)
    return explained(found, path, missed, skipped, lambda: _about(config, weights))


def _about(config, weights):
    """What a file without recurrent layers has, as a part of a message."""
    names = weights.datasets()
    layers = [f"{_name(entry)} ({entry.get('class_name')})" for entry in _entries(config)]
    return (f"its layers are {', '.join(layers):.300}; " if layers else "") + contents_of(names)


def _entries(config):
    """The layers that the configuration of a model has at its top."""
    inner = config.get("config") if isinstance(config, dict) else None
    inner = inner.get("layers") if isinstance(inner, dict) else inner
    return [entry for entry in inner if isinstance(entry, dict)] if isinstance(inner, list) else []


def _check(**activations):
    """TypeError or ValueError for an activation that neither Keras' names nor fastrnn's have."""
    for name, value in activations.items():
        if value is not None and not (isinstance(value, str) and value in (*ACTIVATIONS, "hard_sigmoid")):
            try:
                parameters.activations([value], "rnn_tanh", 1)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from None


def _take(name, found, skipped, make, *arguments):
    """Puts the layers that make(*arguments) gives to `found`; what makes none is skipped with its reason or raised."""
    try:
        for key, layer in make(*arguments):
            if key in found:
                raise ModelFormatError(f"another layer is named {key!r}")
            found[key] = layer
    except ModelFormatError as error:
        if skipped is None:
            raise ModelFormatError(f"layer {name!r}: {error}") from error.__cause__
        skipped[name] = str(error)


# ---- Files: a configuration, a version, weights -------------------------------------------------------

class Version:
    """What a version of Keras takes for granted; files of Keras 1 may bear none."""

    def __init__(self, text):
        self.numbers = tuple(map(int, re.findall(r"\d+", text)[:2])) or (1,)
        tensorflow2 = self.numbers >= (2, 4) or "-tf" in text           # "2.2.4-tf" is that of TensorFlow 1.13 to 2.0
        self.recurrent_activation = "sigmoid" if self.numbers >= (2, 3) or tensorflow2 else "hard_sigmoid"
        self.reset_after = tensorflow2
        self.hard_sigmoid = ("hard_sigmoid", 1 / 6, 0.5) if self.numbers >= (3,) else ("hard_sigmoid", 0.2, 0.5)


def _open(data, path):
    """(configuration or None, Version, Named or Tree) of a file."""
    if is_index(path):
        files = [File(read_bytes(shard), shard) for shard in read_index(path)]
        if not files:
            raise ModelFormatError("an index without files")
        weights = Tree(Merged([file.root for file in files]))
        return None, Version(weights.version), weights
    if not data.startswith(b"PK"):
        root = File(data).root
        config = _text(root.attributes.get("model_config"))
        group = root["model_weights"] if "model_weights" in root else root
        version = _text(group.attributes.get("keras_version", root.attributes.get("keras_version")))
        named = group is not root or {"layer_names", "layer_names0"} & set(group.attributes)
        weights = (Named if named else Tree)(group)
        return config and json.loads(config), Version(version or ("" if named else weights.version)), weights
    archive = Archive(data, path)
    for name in ("config.json", "metadata.json", "model.weights.h5"):
        if name not in archive:
            raise ModelFormatError(f"the archive has no {name!r}; it has {', '.join(archive)!r:.200}")
    # Not files.parse_json: Keras writes NaN and Infinity, too.
    config, metadata = json.loads(archive.read("config.json")), json.loads(archive.read("metadata.json"))
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if not isinstance(version, str):
        raise ModelFormatError(f"metadata.json: no keras_version in {metadata!r:.100}")
    root = File(archive.read("model.weights.h5"), "model.weights.h5", EXPANSION * len(data)).root
    return config, Version(version), Tree(root)


def _text(value):
    """The text of an attribute, of whatever kind of string; None where there is none."""
    if value is None:
        return None
    value = value.item() if value.ndim == 0 else None
    if not isinstance(value, bytes):
        raise ModelFormatError(f"expected an attribute that is a string, got {value!r:.100}")
    return value.decode()


def _texts(group, name):
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

    names: tuple
    direction: str | None
    cell: str
    parts: dict
    claimed: bool = False

    def array(self, part):
        """A part as one array, or None."""
        arrays = []
        for dataset in self.parts.get(part, ()):
            a = dataset.read()
            if a.dtype == "V2" and _text(dataset.attributes.get("dtype")) == "bfloat16":
                a = (a.view("<u2").astype(np.uint32) << 16).view(np.float32)       # the upper half of a float32
            arrays.append(a)
        return np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0] if arrays else None


def _datasets(group, most=1000):
    """Name -> dataset of a group and of those within it, `most` at most."""
    result, stack, seen = {}, [("", group)], set()
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

    def __init__(self, group):
        self.datasets = functools.partial(_datasets, group)
        self._groups, self._by_name = {}, {}
        for layer in dict.fromkeys(_texts(group, "layer_names")):
            if not isinstance(group.get(layer), Group):
                raise ModelFormatError(f"no group of weights {layer!r}")
            self._groups[layer] = list(_named_records(layer, group[layer]))
            for record in self._groups[layer]:
                for name in record.names:
                    self._by_name.setdefault(name, []).append(record)

    def slots(self, place, container, entries):
        """Where the weights of a model's layers are; here that is told by their names alone."""
        return [place] * len(entries)

    def claim(self, names, places):
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

    def left(self):
        """The records that no layer has claimed."""
        return [record for records in self._groups.values() for record in records if not record.claimed]


_CELL = re.compile(r"(?:stacked_rnn_cells|(?:lstm|gru|simple_rnn)_cell)(?:_\d+)?")


def _named_records(layer, group):
    """The records of a layer's group, told from names such as "lstm_1/lstm_cell/kernel:0"; in Keras 1 "lstm_1_W_i"."""
    found = {}
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

    def __init__(self, root):
        self.datasets = functools.partial(_datasets, root)
        # The name of a model's list of layers, which Keras 2.12 gave by that of a property; it counts layers twice.
        self._container = "_layer_checkpoint_dependencies"
        if not any(name.startswith(self._container) for name in root):
            self._container = "layers"
        self.version = "3" if self._container == "layers" else "2.12"
        self._records, self._children, labels, cells = {}, {}, {}, {}
        stack, seen = [((), root)], set()
        while stack:
            place, group = stack.pop()
            if id(group) in seen:                               # one object may have many names
                continue
            seen.add(id(group))
            if len(place) > 100:
                raise ModelFormatError(f"groups {len(place)} deep in one another")
            own = group.get("vars")
            if isinstance(own, Group):
                labels[place] = _text(own.attributes.get("name"))
                if place[-1:] == ("cell",) or place[-2:-1] == ("cells",):
                    cells[place] = own
            for name in sorted(group, key=_counted, reverse=True):
                if name != "vars" and isinstance(group[name], Group):
                    stack.append(((*place, *name.split("\\")), group[name]))      # so on Windows, Keras 2.12
        for place, own in cells.items():
            self._records[place] = Record(*self._names(place, labels), {
                part: [own[str(i)]] for i, part in enumerate(("kernel", "recurrent_kernel", "bias")) if str(i) in own})
            for depth, name in enumerate(place):
                self._children.setdefault(place[:depth], {}).setdefault(_counted(name)[0], {})[name] = None

    def _names(self, place, labels):
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

    def slots(self, place, container, entries):
        """The places of a list of layers: the i-th of its class, where all are there, else the one of that number."""
        place = (*place, self._container if container == "layers" else container)
        stems = [_snake_case(str(entry.get("class_name")).split(">")[-1]) for entry in entries]
        totals, counts, slots = collections.Counter(stems), collections.Counter(), []
        there = {stem: sorted(self._children.get(place, {}).get(stem, ()), key=_counted) for stem in totals}
        for stem in stems:
            i, named = counts[stem], there[stem]
            counts[stem] += 1
            slots.append((*place, named[i] if len(named) == totals[stem] else f"{stem}_{i}" if i else stem))
        return slots

    def claim(self, names, places):
        """The records of a layer, by their places."""
        return [self._records.pop(place) for place in places if place in self._records]

    def left(self):
        return list(self._records.values())


def _counted(name):
    """("lstm", 2) of "lstm_2"."""
    stem, count = re.fullmatch(r"(.*?)(?:_(\d+))?", name, re.DOTALL).groups()
    return stem, int(count or 0)


def _snake_case(name):
    """Keras' way from a class to a name: "SimpleRNN" to "simple_rnn"."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


# ---- From a configuration, or without one, to layers ---------------------------------------------------

@dataclass(eq=False)
class Cell:
    """One cell in fastrnn's terms. parameters: as of a layer of its own; activations: f, g, h of ONNX."""

    name: str
    kind: str
    parameters: dict
    activations: tuple
    options: dict

    def like(self, other):
        """Whether the two can be in one layer."""
        return (self.kind, self.options, *map(np.shape, list(self.parameters.values())[1:])) == (
            other.kind, other.options, *map(np.shape, list(other.parameters.values())[1:]))


def _recurrent(entry, names, place, weights):
    """(entry, names, place) of the recurrent layers within an entry of a configuration."""
    config = entry.get("config") if isinstance(entry, dict) else None
    inner = config.get("layers") if isinstance(config, dict) else config   # a list: Sequential before Keras 2.2.3
    if isinstance(inner, list):
        inner = [child for child in inner if isinstance(child, dict)]
        for child, at in zip(inner, weights.slots(place, "layers", inner), strict=True):
            yield from _recurrent(child, (*names, _name(child)), at, weights)
    elif isinstance(config, dict):
        if entry.get("class_name") in RECURRENT or _derived(config):
            yield entry, names, place
        elif isinstance(config.get("layer"), dict):
            yield from _recurrent(config["layer"], (*names, _name(config["layer"])), (*place, "layer"), weights)


def _derived(config):
    """The kind of the recurrent layer that a class of one's own derives from, told from its options; or None."""
    if "units" not in config or not {"recurrent_initializer", "recurrent_constraint"} & set(config):
        return None
    return "lstm" if "unit_forget_bias" in config else "gru" if "recurrent_activation" in config else "rnn"


def _kind(class_name, config):
    """The kind of a recurrent layer's cell, by its class or, of a class of one's own, by its options.

    Raises
    ------
    ModelFormatError
        A class of which it is not known what it computes.
    """
    kind = KINDS.get(class_name) or CELLS.get(class_name)
    if kind is None and class_name not in RECURRENT and _derived(config) and not str(class_name).endswith("Cell"):
        unknown = sorted(map(str, set(config) - OPTIONS))
        if unknown:
            raise ModelFormatError(f"class {class_name!r:.100} has options that Keras' layers have not: "
                                   f"{', '.join(unknown):.200}")
        kind = _derived(config)
    if kind is None:
        why = "is convolutional" if class_name in CONVOLUTIONAL else "is none that fastrnn has"
        raise ModelFormatError(f"class {class_name!r:.100} {why}")
    return kind


def _name(entry):
    config = entry.get("config")
    return str((config.get("name") if isinstance(config, dict) else None) or entry.get("name")
               or _snake_case(str(entry.get("class_name"))))


def _configured(entry, names, place, weights, version):
    """(name, layer) of those that an entry of a configuration makes, mostly one."""
    config, merge, ways = entry["config"], None, [(entry, place)]
    if entry["class_name"] == "Bidirectional":
        merge = config.get("merge_mode", "concat")
        ways = [(config["layer"], (*place, "forward_layer")),
                (config.get("backward_layer") or config["layer"], (*place, "backward_layer"))]
    reverse = [bool(way["config"].get("go_backwards")) for way, _ in ways]
    if len(ways) == 2 and not config.get("backward_layer"):
        reverse[1] = not reverse[0]
    batch_first = not ways[0][0]["config"].get("time_major")
    ways = [_cells(way, at, weights) for way, at in ways]
    places = [at for cells in ways for *_, at in cells]
    records = weights.claim(names, places)
    for class_name, cell, _ in (cell for cells in ways for cell in cells):
        _kind(class_name, cell)
    if len(records) < len(places):
        raise ModelFormatError("not all of its weights are in the file")
    records = iter(records)
    ways = [[_cell(next(records), class_name, cell, version) for class_name, cell, _ in cells] for cells in ways]
    yield from _assembled("/".join(names), ways, reverse, merge, batch_first)


def _cells(entry, place, weights):
    """(class, configuration, place) of the cells of a recurrent layer."""
    class_name, config, place = entry.get("class_name"), entry["config"], (*place, "cell")
    cell = config.get("cell") if class_name == "RNN" else None
    if cell is None:
        return [(class_name, config, place)]
    cells = cell if isinstance(cell, list) else cell["config"].get("cells") or [cell]
    places = [place] if cells == [cell] else weights.slots(place, "cells", cells)
    return [(cell.get("class_name"), cell["config"], at) for cell, at in zip(cells, places, strict=True)]


def _cell(record, class_name, config, version):
    """A Cell of its weights and configuration; its kind follows from shapes where no class is given."""
    kind = None if class_name is None else _kind(class_name, config)
    f = config.get("recurrent_activation", config.get("inner_activation", version.recurrent_activation))
    g = config.get("activation", "tanh")
    arrays = [record.array(part) for part in ("kernel", "recurrent_kernel", "bias")]
    shapes = [a.shape for a in arrays if a is not None]
    kinds = [kind for kind in ([kind] if kind else GATES) if _fits(kind, *shapes)]
    if not kinds:
        raise ModelFormatError(f"{class_name or 'no recurrent layer'}: kernel, recurrent kernel and bias of shapes "
                               + ", ".join(map(str, shapes)))
    kernel, recurrent, bias = arrays
    kind, H = kinds[0], len(recurrent)
    if config.get("units", config.get("output_dim", H)) != H:
        raise ModelFormatError(f"{config.get('units', config.get('output_dim'))!r:.100} units, but weights of {H}")
    if bias is not None and len(bias) == 2 * GATES[kind] * H:                  # cuDNN's layout
        # Each gate's matrix is laid as [H, columns], from the first byte to the last; cuDNN's gates are sigmoids.
        kernel, recurrent = (np.hstack([a.reshape(H, -1).T for a in np.hsplit(a, GATES[kind])])
                             for a in (kernel, recurrent))
        bias = bias.reshape(2, -1)
        f = config.get("recurrent_activation", "sigmoid")
    f, g = _activation(f, version), _activation(g, version)
    options = {}
    if kind == "gru":
        options["reset_after"] = bias.ndim == 2 if bias is not None else bool(
            config.get("reset_after", version.reset_after))
    return Cell(str(config.get("name", record.cell)), kind, keras_parameters(kind, kernel, recurrent, bias),
                {"rnn": (g,), "gru": (f, g), "lstm": (f, g, g)}[kind], options)


def _fits(kind, kernel, recurrent, bias=None):
    """Whether shapes are those of a kind's weights."""
    if len(kernel) != 2 or len(recurrent) != 2 or not all(kernel + recurrent):
        return False
    columns = GATES[kind] * recurrent[0]
    biases = [None, (columns,)] + [(2 * columns,)] * (kind != "rnn") + [(2, columns)] * (kind == "gru")
    return kernel[1] == recurrent[1] == columns and bias in biases


def _activation(value, version):
    """fastrnn's activation of Keras' name, or of the configuration of a layer used as one."""
    if isinstance(value, tuple):
        return value
    name, config = "linear" if value is None else value, {}
    if isinstance(value, dict):
        name, config = value.get("class_name"), value.get("config")
        if name == "function":                                  # of Keras' own by their name alone
            name, config = config, {}
    config = config if isinstance(config, dict) else {}
    if isinstance(name, str):
        if name == "hard_sigmoid":
            return version.hard_sigmoid
        if name in ("LeakyReLU", "ELU"):
            alpha = config.get("negative_slope", config.get("alpha", 0.3 if name == "LeakyReLU" else 1.0))
            if isinstance(alpha, (int, float)):
                return "leaky_relu" if name == "LeakyReLU" else "elu", alpha
        if name == "ReLU" and not any(config.get(key) for key in ("max_value", "negative_slope", "threshold")):
            return "relu"
        if not config and name in ACTIVATIONS:
            return ACTIVATIONS[name]
    numbers = [f"{key} {value}" for key, value in config.items() if type(value) in (int, float)]
    options = " with " + ", ".join(numbers) if numbers else ""
    raise ModelFormatError(f"activation {name!r:.100}{options:.200} is none that fastrnn has")


def _unclaimed(records):
    """(name, records) of weights without a configuration: of one cell, or of a Bidirectional's two."""
    groups = {}
    for record in records:
        parts = [record.parts.get(part, (None,))[0] for part in ("kernel", "recurrent_kernel")]
        if None not in parts and any(_fits(kind, *(part.shape for part in parts)) for kind in GATES):
            groups.setdefault(record.names, []).append(record)
    for names, records in groups.items():
        records.sort(key=lambda record: record.direction == "backward_layer")
        directions = [record.direction for record in records]
        if directions in ([None], ["forward_layer", "backward_layer"]):
            yield "/".join(names), records
        else:
            for record in records:
                yield "/".join(filter(None, (*names, record.direction, record.cell))), [record]


def _inferred(name, records, given, version):
    """(name, layer) of those that weights without a configuration make."""
    ways = [[_cell(record, None, given, version)] for record in records]
    yield from _assembled(name, ways, [record.direction == "backward_layer" for record in records], "concat")


def _assembled(name, ways, reverse, merge, batch_first=True):
    """(name, layer) of one way through the sequence, or of two; each is a list of cells, one on top of the other."""
    if len(ways) == 2 and merge == "concat" and reverse == [False, True] and len(ways[0]) == len(ways[1]) == 1 \
            and ways[0][0].like(ways[1][0]) and _input_size(ways[0][0]) == _input_size(ways[1][0]):
        yield name, _layer([ways[0][0], ways[1][0]], ("_l0", "_l0_reverse"), batch_first=batch_first)
        return
    for cells, backwards, suffix in zip(ways, reverse, ("/forward_layer", "/backward_layer"), strict=False):
        own = name + suffix if len(ways) == 2 else name
        options = {"reverse": backwards, "batch_first": batch_first}
        if all(cell.like(cells[0]) and cell.activations == cells[0].activations for cell in cells):
            yield own, _layer(cells, [f"_l{k}" for k in range(len(cells))], **options)
        else:
            for cell in cells:
                yield f"{own}/{cell.name}", _layer([cell], ["_l0"], **options)


def _input_size(cell):
    return cell.parameters["weight_ih_l0"].shape[1]


def _layer(cells, suffixes, **options):
    """One layer of cells that are alike: a stack of them, or both directions."""
    values = {name.removesuffix("_l0") + suffix: value for cell, suffix in zip(cells, suffixes, strict=True)
              for name, value in cell.parameters.items()}
    activations = cells[0].activations + (cells[1].activations if "_l0_reverse" in suffixes else ())
    return make_layer(values, "weights", {"activations": activations, **cells[0].options, **options})
