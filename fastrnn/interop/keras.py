"""Keras models, ``.keras`` and ``.h5`` of Keras 1, 2 and 3, without Keras or TensorFlow.

Two things are brought together: the configuration, JSON that names layers and their options, and the weights, an HDF5
file. Of the weights there are two layouts: by layer names with lists of weight names (``Named``: Keras 1 and 2, and
``.h5`` of Keras 3), and by the attributes of the model (``Tree``: ``.keras`` and ``.weights.h5`` of Keras 2.12 on).
Nothing is deserialised: a class that is not known here is passed over by its name, and no code runs.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._base.reading import EXPANSION, Archive, ModelFormatError, read_bytes, refusing
from ..nn import parameters
from .conventions import contents_of, explained, keras_parameters, make_layer
from .formats.hdf5 import File, Merged
from .keras_weights import Named, Tree, snake_case, text_of
from .shards import is_index, read_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._base.typing import Activation, Array, PathLike
    from .conventions import Layer
    from .keras_weights import Place, Record

Made: TypeAlias = "Iterator[tuple[str, Layer]]"        # names and layers
Shape: TypeAlias = tuple[int, ...]

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
    file's version: hard_sigmoid before Keras 2.3, then sigmoid. TensorFlow 1.13 to 2.1 write "2.2.4-tf" for either, and
    the caller has to tell. Nothing tells whether the layers are so, nor go_backwards. They have Keras' names where the
    file has them, else those of its groups; cells of StackedRNNCells are a layer each, and two directions are a
    bidirectional layer.

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
    path, data = os.fspath(path), read_bytes(path)
    found: dict[str, Layer] = {}
    missed: dict[str, str] = {}
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


def _about(config: Any, weights: Named | Tree) -> str:
    """What a file without recurrent layers has, as a part of a message."""
    names = weights.datasets()
    layers = [f"{_name(entry)} ({entry.get('class_name')})" for entry in _entries(config)]
    return (f"its layers are {', '.join(layers):.300}; " if layers else "") + contents_of(names)


def _entries(config: Any) -> list[dict[str, Any]]:
    """The layers that the configuration of a model has at its top."""
    inner = config.get("config") if isinstance(config, dict) else None
    inner = inner.get("layers") if isinstance(inner, dict) else inner
    return [entry for entry in inner if isinstance(entry, dict)] if isinstance(inner, list) else []


def _check(**activations: Any) -> None:
    """TypeError or ValueError for an activation that neither Keras' names nor fastrnn's have."""
    for name, value in activations.items():
        if value is not None and not (isinstance(value, str) and value in (*ACTIVATIONS, "hard_sigmoid")):
            try:
                parameters.activations([value], "rnn_tanh", 1)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from None


def _take(name: str, found: dict[str, Layer], skipped: dict[str, str] | None, make: Callable[..., Made],
          *arguments: Any) -> None:
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

    def __init__(self, text: str) -> None:
        self.numbers = tuple(map(int, re.findall(r"\d+", text)[:2])) or (1,)
        # "2.2.4-tf" is that of TensorFlow 1.13 to 1.15, whose layers are those of Keras 2.2, and of 2.0 and 2.1.
        self.is_ambiguous = "-tf" in text and self.numbers == (2, 2)
        tensorflow2 = self.numbers >= (2, 4) or ("-tf" in text and self.numbers >= (2, 2))
        self.recurrent_activation = "sigmoid" if self.numbers >= (2, 3) or tensorflow2 else "hard_sigmoid"
        self.reset_after = tensorflow2
        self.hard_sigmoid = ("hard_sigmoid", 1 / 6, 0.5) if self.numbers >= (3,) else ("hard_sigmoid", 0.2, 0.5)


def _open(data: bytes, path: str) -> tuple[Any, Version, Named | Tree]:
    """(configuration or None, Version, Named or Tree) of a file."""
    if is_index(path):
        files = [File(read_bytes(shard), shard) for shard in read_index(path)]
        if not files:
            raise ModelFormatError("an index without files")
        tree = Tree(Merged([file.root for file in files]))
        return None, Version(tree.version), tree
    if not data.startswith(b"PK"):
        root = File(data).root
        config = text_of(root.attributes.get("model_config"))
        group = root["model_weights"] if "model_weights" in root else root
        version = text_of(group.attributes.get("keras_version", root.attributes.get("keras_version")))
        named = group is not root or {"layer_names", "layer_names0"} & set(group.attributes)
        weights = Named(group) if named else Tree(group)
        version = version or (weights.version if isinstance(weights, Tree) else "")
        return config and json.loads(config), Version(version), weights
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


# ---- From a configuration, or without one, to layers ---------------------------------------------------

@dataclass(eq=False)
class Cell:
    """One cell in fastrnn's terms. parameters: as of a layer of its own; activations: f, g, h of ONNX."""

    name: str
    kind: str
    parameters: dict[str, Array]
    activations: tuple[Any, ...]
    options: dict[str, Any]

    def like(self, other: Cell) -> bool:
        """Whether the two can be in one layer."""
        return (self.kind, self.options, *map(np.shape, list(self.parameters.values())[1:])) == (
            other.kind, other.options, *map(np.shape, list(other.parameters.values())[1:]))


def _recurrent(entry: Any, names: Place, place: Place,
               weights: Named | Tree) -> Iterator[tuple[dict[str, Any], Place, Place]]:
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


def _derived(config: dict[str, Any]) -> str | None:
    """The kind of the recurrent layer that a class of one's own derives from, told from its options; or None."""
    if "units" not in config or not {"recurrent_initializer", "recurrent_constraint"} & set(config):
        return None
    return "lstm" if "unit_forget_bias" in config else "gru" if "recurrent_activation" in config else "rnn"


def _kind(class_name: Any, config: dict[str, Any]) -> str:
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


def _name(entry: dict[str, Any]) -> str:
    config = entry.get("config")
    return str((config.get("name") if isinstance(config, dict) else None) or entry.get("name")
               or snake_case(str(entry.get("class_name"))))


def _configured(entry: dict[str, Any], names: Place, place: Place, weights: Named | Tree, version: Version) -> Made:
    """(name, layer) of those that an entry of a configuration makes, mostly one."""
    config, merge, entries = entry["config"], None, [(entry, place)]
    if entry["class_name"] == "Bidirectional":
        merge = config.get("merge_mode", "concat")
        entries = [(config["layer"], (*place, "forward_layer")),
                   (config.get("backward_layer") or config["layer"], (*place, "backward_layer"))]
    reverse = [bool(way["config"].get("go_backwards")) for way, _ in entries]
    if len(entries) == 2 and not config.get("backward_layer"):
        reverse[1] = not reverse[0]
    batch_first = not entries[0][0]["config"].get("time_major")
    described = [_cells(way, at, weights) for way, at in entries]
    places = [at for cells in described for *_, at in cells]
    claimed = weights.claim(names, places)
    for class_name, cell, _ in (cell for cells in described for cell in cells):
        _kind(class_name, cell)
    if len(claimed) < len(places):
        raise ModelFormatError("not all of its weights are in the file")
    records = iter(claimed)
    ways = [[_cell(next(records), class_name, cell, version) for class_name, cell, _ in cells] for cells in described]
    yield from _assembled("/".join(names), ways, reverse, merge, batch_first)


def _cells(entry: dict[str, Any], place: Place, weights: Named | Tree) -> list[tuple[Any, dict[str, Any], Place]]:
    """(class, configuration, place) of the cells of a recurrent layer."""
    class_name, config, place = entry.get("class_name"), entry["config"], (*place, "cell")
    cell = config.get("cell") if class_name == "RNN" else None
    if cell is None:
        return [(class_name, config, place)]
    cells = cell if isinstance(cell, list) else cell["config"].get("cells") or [cell]
    places = [place] if cells == [cell] else weights.slots(place, "cells", cells)
    return [(cell.get("class_name"), cell["config"], at) for cell, at in zip(cells, places, strict=True)]


def _cell(record: Record, class_name: Any, config: dict[str, Any], version: Version) -> Cell:
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
    assert kernel is not None and recurrent is not None         # every record has both
    kind, H = kinds[0], len(recurrent)
    if class_name is None and version.is_ambiguous and kind != "rnn":
        _check_told(kind, bias is not None, config)
    if class_name is not None and config.get("use_bias") in (True, False) and config["use_bias"] != (bias is not None):
        there = "no bias" if bias is None else "a bias"
        raise ModelFormatError(f"use_bias is {config['use_bias']}, but there is {there}")
    if config.get("units", config.get("output_dim", H)) != H:
        raise ModelFormatError(f"{config.get('units', config.get('output_dim'))!r:.100} units, but weights of {H}")
    if bias is not None and len(bias) == 2 * GATES[kind] * H:                  # cuDNN's layout
        # Each gate's matrix is laid as [H, columns], from the first byte to the last; cuDNN's gates are sigmoids.
        kernel, recurrent = (np.hstack([gate.reshape(H, -1).T for gate in np.hsplit(a, GATES[kind])])
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


def _check_told(kind: str, has_bias: bool, options: dict[str, Any]) -> None:
    """Refuse weights alone of Keras "2.2.4-tf", unless the caller tells what its version leaves open."""
    if "recurrent_activation" not in options:
        raise ModelFormatError("keras_version '2.2.4-tf' is that of TensorFlow 1.13 to 1.15, where the gates are "
                               "hard_sigmoid, and of 2.0 and 2.1, where they are sigmoid: give recurrent_activation")
    if kind == "gru" and not has_bias and "reset_after" not in options:
        raise ModelFormatError("keras_version '2.2.4-tf' is that of TensorFlow 1.13 to 1.15, where reset_after is "
                               "False, and of 2.0 and 2.1, where it is True: give reset_after")


def _fits(kind: str, kernel: Shape, recurrent: Shape, bias: Shape | None = None) -> bool:
    """Whether shapes are those of a kind's weights."""
    if len(kernel) != 2 or len(recurrent) != 2 or not all(kernel + recurrent):
        return False
    columns = GATES[kind] * recurrent[0]
    biases = [None, (columns,)] + [(2 * columns,)] * (kind != "rnn") + [(2, columns)] * (kind == "gru")
    return kernel[1] == recurrent[1] == columns and bias in biases


def _activation(value: Any, version: Version) -> Any:
    """fastrnn's activation of Keras' name, or of the configuration of a layer used as one."""
    if isinstance(value, tuple):
        return value
    name: Any = "linear" if value is None else value
    config: Any = {}
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


def _unclaimed(records: list[Record]) -> Iterator[tuple[str, list[Record]]]:
    """(name, records) of weights without a configuration: of one cell, or of a Bidirectional's two."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        shapes = [record.parts[part][0].shape for part in ("kernel", "recurrent_kernel") if record.parts.get(part)]
        if len(shapes) == 2 and any(_fits(kind, *shapes) for kind in GATES):
            groups.setdefault(record.names, []).append(record)
    for names, records in groups.items():
        records.sort(key=lambda record: record.direction == "backward_layer")
        directions = [record.direction for record in records]
        if len(records) == 2 and directions == [None, None] and re.fullmatch(r"bidirectional(_\d+)?", names[-1]):
            directions = _name_directions(records)
        if directions in ([None], ["forward_layer", "backward_layer"]):
            yield "/".join(names), records
        elif len({(record.direction, record.cell) for record in records}) < len(records):
            yield "/".join(names), records          # which is refused
        else:
            for record in records:
                yield "/".join(filter(None, (*names, record.direction, record.cell))), [record]


def _name_directions(records: list[Record]) -> list[str | None]:
    """The directions of a Bidirectional's two records, which Keras before 2.1 has one after the other, unnamed."""
    shapes = [[a.shape for parts in record.parts.values() for a in parts] for record in records]
    if shapes[0] == shapes[1]:
        records[0].direction, records[1].direction = "forward_layer", "backward_layer"
    return [record.direction for record in records]


def _inferred(name: str, records: list[Record], given: dict[str, Any], version: Version) -> Made:
    """(name, layer) of those that weights without a configuration make."""
    if len({(record.direction, record.cell) for record in records}) < len(records):
        raise ModelFormatError(f"its weights are of {len(records)} cells, and their names do not tell whether they are "
                               "stacked or walk in two directions: read the file of the whole model (model.save)")
    ways = [[_cell(record, None, given, version)] for record in records]
    yield from _assembled(name, ways, [record.direction == "backward_layer" for record in records], "concat")


def _assembled(name: str, ways: list[list[Cell]], reverse: list[bool], merge: Any, batch_first: bool = True) -> Made:
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


def _input_size(cell: Cell) -> int:
    return int(cell.parameters["weight_ih_l0"].shape[1])


def _layer(cells: list[Cell], suffixes: Sequence[str], **options: Any) -> Layer:
    """One layer of cells that are alike: a stack of them, or both directions."""
    values = {name.removesuffix("_l0") + suffix: value for cell, suffix in zip(cells, suffixes, strict=True)
              for name, value in cell.parameters.items()}
    activations = cells[0].activations + (cells[1].activations if "_l0_reverse" in suffixes else ())
    return make_layer(values, "weights", {"activations": activations, **cells[0].options, **options})
