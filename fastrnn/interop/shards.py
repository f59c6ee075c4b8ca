"""Models in several files: the index that says which weights are in which, as Hugging Face's tools write it."""

from __future__ import annotations

import ntpath
import os
from typing import TYPE_CHECKING

from .._base.reading import ModelFormatError, parse_json, read_bytes, refusing

if TYPE_CHECKING:
    from .._base.typing import PathLike

MOST = 4096             # files of one model


def is_index(path: PathLike) -> bool:
    """Whether a file begins as JSON does, and so is an index where files of weights are expected."""
    return read_bytes(path, 0, 64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def read_index(path: PathLike) -> dict[str, list[str]]:
    """The path of each shard -> the names of the weights that it has to have.

    A shard lies in the folder of the index or below it, and nowhere else.
    """
    with refusing(path):
        index = parse_json(read_bytes(path))
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict):
            raise ModelFormatError('an index has to have a "weight_map" of names and files')
        shards: dict[str, list[str]] = {}
        for name, value in names.items():
            for shard in value if isinstance(value, list) else [value]:     # Keras has a list of files for each group
                if not isinstance(shard, str):
                    raise ModelFormatError(f"weight_map: expected the name of a file for {name!r:.200}")
                shards.setdefault(shard, []).append(name)
        if len(shards) > MOST:
            raise ModelFormatError(f"{len(shards)} shards, more than {MOST}")
        return {beside(path, shard): wanted for shard, wanted in shards.items()}


def beside(path: PathLike, name: str) -> str:
    """The path of a file in the folder of another one, or below it; ModelFormatError for any other place."""
    parts = name.replace("\\", "/").split("/")
    if not name or not parts[0] or ".." in parts or "\0" in name or ntpath.splitdrive(name)[0]:
        raise ModelFormatError(f"{name!r:.200} is no path within the model's folder")
    folder = os.path.realpath(os.path.dirname(os.fsdecode(path)))
    target = os.path.realpath(os.path.join(folder, name))
    if os.path.commonpath([folder, target]) != folder:
        raise ModelFormatError(f"{name!r:.200} is a link out of the model's folder")
    if not os.path.isfile(target):
        raise ModelFormatError(f"the file {name!r:.200} is not there")
    return target
