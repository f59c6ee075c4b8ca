"""The checkpoints of ``training.fit``: all that a training needs to go on as if it had never stopped.

A checkpoint is a .npz file like a model file: arrays, and a JSON object under "fastrnn". The beginnings of the arrays'
names say what they are: "model." parameters, "best." parameters of the best epoch, "optimizer." what is kept for each
parameter, "history." a number for each epoch, "carried." the state between two pieces of truncated back-propagation;
"sums" are those of the epoch that has begun. Nothing else has an influence: everything random follows from the seed and
the position.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import named_arrays, reading, writing
from .._base import validation as check
from ..losses import Loss
from ..nn import files, parameters
from .data import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, IntArray
    from .data import Data
    from .run import Run

_POSITION = ("epoch", "batch", "start")


def save(path: str, run: Run, state: Any) -> None:
    """Writes the checkpoint of a training; it replaces an older one at once, and is on the disk when this returns.

    `state` is the state that truncated back-propagation carries, of all rows.
    """
    carried: list[Array] = []
    metadata = {"version": named_arrays.VERSION, "class": "checkpoint", "run": run.description, "seed": run.seed,
                "position": {name: getattr(run, name) for name in _POSITION}, "steps": run.optimizer.steps,
                "carried": _state_to_json(state, carried), "history": list(run.history)}
    optimizer = run.optimizer.state_dict()
    arrays = {"learning_rate": optimizer.pop("learning_rate"), "sums": dataclasses.astuple(run.sums),
              **{f"model.{name}": value for name, value in run.model.parameters.items()},
              **{f"best.{name}": value for name, value in (run.best or {}).items()},
              **{f"optimizer.{name}": value for name, value in optimizer.items() if name != "steps"},
              **{f"history.{name}": run.history[name] for name in run.history},
              **{f"carried.{i}": value for i, value in enumerate(carried)}}
    with writing.replacing(path) as file:
        np.savez(file, **arrays, fastrnn=np.frombuffer(json.dumps(metadata).encode(), np.uint8))


def resume(path: str, data: bytes, run: Run) -> None:
    """Brings a training to where a checkpoint of these contents was written.

    A checkpoint of another training is a ValueError that says what differs.
    """
    arrays, metadata = named_arrays.parse_npz(data, path)
    with reading.refusing(path):
        if metadata is None or metadata.get("class") != "checkpoint":
            raise reading.ModelFormatError("not a checkpoint of fastrnn.training.fit")
        description = dict(metadata["run"])
    differences = [f"{name} {description.get(name)!r:.60}, here {value!r:.60}"
                   for name, value in run.description.items() if description.get(name) != value]
    if differences:
        raise ValueError(f"checkpoint: {os.fsdecode(path)} is of another training: {'; '.join(differences)}")
    groups: dict[str, dict[str, Array]] = {}
    for name, value in arrays.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = value
    with reading.refusing(path):
        _restore_run(run, metadata, groups)
        carried = _state_from_json(metadata["carried"], groups.get("carried", {}))
    batches = run.batches() if run.batch or run.start else []       # what fails here is no fault of the checkpoint's
    with reading.refusing(path):
        _check_position(run, batches, carried)
        run.gradients.carry(carried)
        # Model and optimizer are the caller's: they change when all else is right, and both or none of them.
        loaded = parameters.load(groups["model"], run.model.parameters, run.model.dtype, True)
        run.optimizer.load_state_dict({**groups.get("optimizer", {}), "steps": metadata["steps"],
                                       "learning_rate": groups["learning_rate"][""].item()})
        run.model.load_state_dict(loaded)


def _restore_run(run: Run, metadata: dict[str, Any], groups: dict[str, dict[str, Array]]) -> None:
    best = groups.get("best")
    run.best = None if best is None else parameters.load(best, run.model.parameters, run.model.dtype, True)
    run.seed = check.size(metadata["seed"], "seed", least=0)
    for name in _POSITION:
        setattr(run, name, check.size(metadata["position"][name], name, least=0))
    count = len(dataclasses.fields(run.sums))
    run.sums = type(run.sums)(*check.shaped(groups["sums"][""], "sums", (count,)).tolist())
    run.history = type(run.history)({name: check.shaped(groups["history"][name], name, (run.epoch,)).tolist()
                                     for name in metadata["history"]})


def _check_position(run: Run, batches: Sequence[IntArray], carried: Any) -> None:
    """Refuse a position that the data do not have, or a state that the model does not have there."""
    if run.batch > len(batches) or (run.start and run.batch == len(batches)):
        raise reading.ModelFormatError(f"it is at minibatch {run.batch} of {len(batches)}")
    expected, steps = None, 0
    if run.start:
        x = run.data.take(batches[run.batch])[0]
        steps = x.shape[1 if run.batch_first else 0]
        expected = run.model.forward(cut(x, 0, 0, run.batch_first))[1]      # of these rows, before any step
    if run.start > steps:
        raise reading.ModelFormatError(f"it is at step {run.start} of {steps}")
    if _shapes(carried) != _shapes(expected):
        raise reading.ModelFormatError(
            f"carried: expected {_shapes(expected)!r:.200} at step {run.start}, got {_shapes(carried)!r:.200}")


def _shapes(state: Any) -> Any:
    """The shapes and dtypes of a state, in its tuples."""
    if isinstance(state, tuple):
        return tuple(_shapes(part) for part in state)
    return None if state is None else (*state.shape, state.dtype.name)


def description(run: Run) -> dict[str, Any]:
    """What must be the same for a training to go on, as JSON."""
    options = {name: list(value) if isinstance(value, tuple) else value
               for name, value in run.optimizer.options().items()}
    loss = run.options.loss
    return {"model": files.configuration(run.model), "optimizer": type(run.optimizer).__name__,
            "learning_rate": run.optimizer.learning_rate, "options": options,
            "loss": repr(loss) if isinstance(loss, Loss) else _name_of(loss), "batch_size": run.options.batch_size,
            "shards": None if run.options.parallel is None else run.options.shards,
            "tbptt": run.options.tbptt, "clip_norm": repr(run.options.clip_norm), "shuffle": run.options.shuffle,
            "precision": run.options.precision or run.model.dtype.name,
            "data": checksum(run.data),
            "validation": None if run.validation is None else checksum(run.validation)}


def _name_of(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def checksum(data: Data) -> int:
    """The CRC-32 of training data: of names, dtypes, shapes and contents."""
    total = 0
    for name, part in [*data.parts.items(), ("lengths", data.lengths)]:
        for a in part if isinstance(part, list) else [part]:
            if a is not None:
                total = zlib.crc32(f"{name}{a.dtype.str}{a.shape}".encode(), total)
                total = zlib.crc32(np.ascontiguousarray(a).data, total)
    return total


def _state_to_json(state: Any, arrays: list[Array]) -> Any:
    """A state as JSON: the number of an array, null, or a list; the arrays are appended to `arrays`."""
    if isinstance(state, tuple):
        return [_state_to_json(part, arrays) for part in state]
    if state is None:
        return None
    arrays.append(state)
    return len(arrays) - 1


def _state_from_json(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, list):
        return tuple(_state_from_json(part, arrays) for part in value)
    return None if value is None else arrays[str(value)]
