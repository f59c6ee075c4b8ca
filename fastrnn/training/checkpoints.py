"""The checkpoints of ``training.fit``: all that a training needs to go on as if it had never stopped.

A checkpoint is a .npz like a model file: arrays, and in "fastrnn" a JSON object. Its arrays are, by the beginning of
their names, "model." (parameters), "best." (those of the best epoch), "optimizer." (what is kept for each parameter),
"history." (a number for each epoch), "carried." (the state between two pieces of tbptt), and "sums" of the epoch begun.
Nothing else has an influence: what is random follows from the seed and the position.
"""

import json
import os
import zlib

import numpy as np

from .._base import named_arrays, reading
from .._base import validation as check
from ..losses import Loss
from ..nn import files, parameters

_POSITION = ("epoch", "batch", "start")


def save(path, run):
    """Writes the checkpoint of a training (``training._Run``): at once, and on the disk when this returns."""
    carried = []
    told = {"version": named_arrays.VERSION, "class": "checkpoint", "run": run.description, "seed": run.seed,
            "position": {name: getattr(run, name) for name in _POSITION}, "steps": run.optimizer.steps,
            "carried": _taken_apart(run.carried, carried), "history": list(run.history)}
    optimizer = run.optimizer.state_dict()
    arrays = {"learning_rate": optimizer.pop("learning_rate"), "sums": list(run.sums.values()),
              **{f"model.{name}": value for name, value in run.model.parameters.items()},
              **{f"best.{name}": value for name, value in (run.best or {}).items()},
              **{f"optimizer.{name}": value for name, value in optimizer.items() if name != "steps"},
              **{f"history.{name}": run.history[name] for name in run.history},
              **{f"carried.{i}": value for i, value in enumerate(carried)}}
    with reading.replacing(path, draft=os.path.basename(os.fsdecode(path)) + ".tmp") as file:
        np.savez(file, **arrays, fastrnn=np.frombuffer(json.dumps(told).encode(), np.uint8))


def resume(path, run):
    """Brings a training to where a checkpoint was written; ValueError where that was another training.

    Returns
    -------
    bool
        Whether there is such a file.
    """
    if not os.path.exists(path):
        return False
    arrays, told = named_arrays.read_npz(path)
    with reading.refusing(path):
        if told is None or told.get("class") != "checkpoint":
            raise reading.ModelFormatError("not a checkpoint of fastrnn.training.fit")
        found = dict(told["run"])
    differs = [f"{name} {found.get(name)!r:.60}, here {value!r:.60}" for name, value in run.description.items()
               if found.get(name) != value]
    if differs:
        raise ValueError(f"checkpoint: {os.fsdecode(path)} is of another training: {'; '.join(differs)}")
    with reading.refusing(path):
        _restore(run, told, arrays)
    return True


def _restore(run, told, arrays):
    groups = {}
    for name, value in arrays.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = value
    best = groups.get("best")
    run.best = best if best is None else parameters.load(best, run.model.parameters, run.model.dtype, True)
    run.optimizer.load_state_dict({**groups.get("optimizer", {}), "steps": told["steps"],
                                   "learning_rate": arrays["learning_rate"].item()})
    run.model.load_state_dict(groups["model"])
    run.seed = check.size(told["seed"], "seed", least=0)
    for name in _POSITION:
        setattr(run, name, check.size(told["position"][name], name, least=0))
    run.sums = dict(zip(run.sums, check.shaped(arrays["sums"], "sums", (len(run.sums),)).tolist()))
    run.history = type(run.history)({name: check.shaped(groups["history"][name], name, (run.epoch,)).tolist()
                                     for name in told["history"]})
    run.carried = _put_together(told["carried"], groups.get("carried", {}))


def description(run):
    """What must be the same for a training to go on: JSON."""
    return {"model": files.configuration(run.model), "optimizer": type(run.optimizer).__name__,
            "learning_rate": run.optimizer.learning_rate,
            "options": {name: list(value) if isinstance(value, tuple) else value
                        for name, value in run.optimizer.options().items()},
            "loss": repr(run.loss) if isinstance(run.loss, Loss) else _named(run.loss), "batch_size": run.batch_size,
            "tbptt": run.tbptt, "clip_norm": repr(run.clip_norm), "shuffle": run.shuffle, "data": checksum(run.data),
            "validation": None if run.validation is None else checksum(run.validation)}


def _named(function):
    return getattr(function, "__qualname__", type(function).__qualname__)


def checksum(data):
    """CRC-32 of a ``training.Data``."""
    total = 0
    for name, part in [*data.parts.items(), ("lengths", data.lengths)]:
        for a in part if isinstance(part, list) else [part]:
            if a is not None:
                total = zlib.crc32(f"{name}{a.dtype.str}{a.shape}".encode(), total)
                total = zlib.crc32(np.ascontiguousarray(a).data, total)
    return total


def _taken_apart(state, arrays):
    """A state as JSON: the number of an array, null, or a list; the arrays are appended to `arrays`."""
    if isinstance(state, tuple):
        return [_taken_apart(part, arrays) for part in state]
    if state is None:
        return None
    arrays.append(state)
    return len(arrays) - 1


def _put_together(told, arrays):
    if isinstance(told, list):
        return tuple(_put_together(part, arrays) for part in told)
    return None if told is None else arrays[str(told)]
