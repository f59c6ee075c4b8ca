"""The parameters of recurrent layers among a file's arrays: found by name, and computed where they are reparametrised.

Several tools keep a weight W under other names than its own, and compute it from these whenever the layer is called:

- ``W_raw`` (weight drop): W is W_raw outside of training; a W beside it is what the last dropout left;
- ``W_orig``, ``W_mask`` (pruning): W = W_orig * W_mask;
- ``W_g``, ``W_v``, or ``parametrizations.W.original0`` and ``.original1`` (weight norm): W = g * v / ||v||;
- ``W_orig``, ``W_u``, ``W_v``, or ``parametrizations.W.original``, ``.0._u`` and ``.0._v`` (spectral norm):
  W = W_orig / (u . W_orig v).

What else stands beside the parameters of a layer makes it another one, which is refused and not read as a plain one.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._base.reading import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .._base.typing import Array

Shape: TypeAlias = "tuple[int, ...] | None"

NAME = re.compile(
    r"(?P<prefix>.*?)(?P<parametrised>parametrizations\.)?(?P<name>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh|peephole)"
    r"(?P<layer>_l\d+)?(?P<reverse>_reverse)?"
    r"(?P<part>_raw|_orig|_mask|_g|_v|_u|\.original[01]?|\.\d+\.\w+)?", re.DOTALL)
# What wrappers put into the names of a model's parts: nn.DataParallel, torch.compile, FSDP, Lightning Fabric,
# activation checkpointing.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module", "_checkpoint_wrapped_module")
# Other layers of a model, where names do not tell by dots what belongs to what.
OTHERS = re.compile(
    r"(?:emb|wte|hidden_(?:weight|bias)|linear|fc|dense|head|out(?!\w*gate)|conv|logit|classif|decoder|encoder|softmax"
    r"|attention|attn|char|vocab|projection|mlp|stft|token|word)", re.IGNORECASE)
# Words in names -> what they say of a layer.
HINTS = {"lora": "a LoRA adapter, which has to be merged into the weights before they are saved",
         "norm": "normalisation within the cell", "parametrizations": "a parametrisation that is not known here",
         "_raw": "weights that are computed in a way not known here", "_orig": "weights that are computed in a way not "
         "known here", "weight_c": "peephole weights", "zoneout": "zoneout", "scale": "quantisation",
         "zero_point": "quantisation", "_packed": "quantisation"}
STEPS = 200_000             # names that are looked at, in all, for what stands beside parameters


class Unread:
    """An array of a file that is not read, with the reason; its shape, None where it is no array of numbers."""

    def __init__(self, reason: str, shape: Shape | Callable[[], Shape] = None) -> None:
        self.reason, self._shape = reason, shape

    @property
    def shape(self) -> Shape:
        """The shape, which may have to be read first."""
        return self._shape() if callable(self._shape) else self._shape


def is_part(name: str) -> bool:
    """Whether an array of this name is a parameter of a recurrent layer, or what one is computed from."""
    match = NAME.fullmatch(name)
    return match is not None and bool(match["parametrised"]) == (match["part"] or "").startswith(".")


def unwrapped(name: str) -> str:
    """A name without the parts that wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


@dataclass
class Group:
    """The arrays under one prefix: base name ("weight_ih_l0", or a cell's "weight_ih") -> part ("" or "_raw") -> array.

    names: theirs in the file; problems: what makes it unusable.
    """

    bases: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def is_only(self, part: str) -> bool:
        """Whether all arrays here are such parts of parameters."""
        return all(parts.keys() == {part} for parts in self.bases.values())


def gather(arrays: Mapping[str, Any]) -> dict[str, Group]:
    """The groups of a file's arrays that recurrent layers may be made of, by prefix with its last separator."""
    groups: dict[str, Group] = {}
    for name, value in arrays.items():
        if is_part(name) and (match := NAME.fullmatch(name)):
            group = groups.setdefault(match["prefix"], Group())
            base = match["name"] + (match["layer"] or "") + (match["reverse"] or "")
            group.bases.setdefault(base, {})[match["part"] or ""] = value
            group.names.add(name)
    _move_inwards(groups)
    return groups


def _move_inwards(groups: dict[str, Group]) -> None:
    """Weight drop keeps ``W_raw`` in the module around the layer: the parts go to the one layer within."""
    within: dict[str, list[str]] = {}
    for prefix, group in groups.items():
        if not group.is_only("_raw") and (match := re.fullmatch(r"(.*?)[^.]+\.", prefix, re.DOTALL)):
            within.setdefault(match[1], []).append(prefix)
    for outer in [prefix for prefix, group in groups.items() if prefix in within and group.is_only("_raw")]:
        for prefix in within[outer]:
            if len(within[outer]) > 1:
                names = ", ".join(sorted(groups[outer].names)[:3])
                groups[prefix].problems.append(f"{names} may be of it or of another layer")
            for base, parts in groups[outer].bases.items():
                groups[prefix].bases.setdefault(base, {}).update(parts)
        del groups[outer]


class Neighbours:
    """What stands beside the parameters of a group and is not accounted for."""

    def __init__(self, arrays: Mapping[str, Any], groups: Mapping[str, Group], flat: bool = False) -> None:
        self._names, self._arrays, self._flat = sorted(arrays), arrays, flat
        self._grouped = {name for group in groups.values() for name in group.names}
        self._steps = STEPS

    def of(self, prefix: str, group: Group, most: int = 4) -> list[str]:
        """Up to `most` of the names under a prefix that are not the group's.

        In files that people put together by hand (flat), where no dot ends the prefix, names do not tell what belongs
        to what: other layers of a model are told by words.
        """
        flat = self._flat and not prefix.endswith(".")
        strangers: list[str] = []
        for name in self._names[bisect.bisect_left(self._names, prefix):]:
            self._steps -= 1
            if self._steps < 0:
                raise ModelFormatError("too many names that begin alike")
            if not name.startswith(prefix) or len(strangers) == most:
                break
            if name in group.names or (flat and (name in self._grouped or OTHERS.match(name[len(prefix):]))):
                continue
            if self._arrays[name].shape is not None:
                strangers.append(name)
        return strangers


def hint(names: Iterable[str]) -> str:
    """What words in the names say, as a part of a message; "" where they say nothing."""
    joined = " ".join(names).lower()
    return next((f" ({meaning})" for word, meaning in HINTS.items() if word in joined), "")


# ---- Parameters that are computed -----------------------------------------------------------------

def resolve(base: str, parts: Mapping[str, Any]) -> Array:
    """The array of a parameter, of itself or of what it is computed from.

    Raises
    ------
    ModelFormatError
        How it is computed is not known, or an array cannot be read.
    """
    for part, value in parts.items():
        if isinstance(value, Unread):
            raise ModelFormatError(f"{base}{part} is not read: {value.reason}")
    kinds = {part for part in parts if part}
    arrays = {part: parts[part] for part in kinds}
    result: Array
    if not kinds:
        result = parts[""]
        return result
    if kinds == {"_raw"}:
        result = arrays["_raw"]
        if "" in parts and parts[""].shape != result.shape:
            raise ModelFormatError(f"{base} {parts[''].shape} and {base}_raw {result.shape} are not of one shape")
        return result
    for part, a in arrays.items():
        if a.dtype.kind not in "fbiu" or (part != "_mask" and a.dtype.kind != "f"):
            raise ModelFormatError(f"{base}{part}: expected floating-point numbers, got {a.dtype}")
    with np.errstate(all="ignore"):
        if kinds == {"_orig", "_mask"}:
            return _masked(base, arrays["_orig"], arrays["_mask"])
        if kinds == {"_g", "_v"}:
            return _weight_norm(base, arrays["_g"], arrays["_v"])
        if kinds == {".original0", ".original1"}:
            return _weight_norm(base, arrays[".original0"], arrays[".original1"])
        if kinds == {"_orig", "_u", "_v"}:
            return _spectral_norm(base, arrays["_orig"], arrays["_u"], arrays["_v"])
        if kinds == {".original", ".0._u", ".0._v"}:
            return _spectral_norm(base, arrays[".original"], arrays[".0._u"], arrays[".0._v"])
    raise ModelFormatError(f"{base} is computed from {', '.join(base + part for part in sorted(kinds))}"
                           + " and itself" * ("" in parts) + " in a way that is not known here")


def _masked(base: str, original: Array, mask: Array) -> Array:
    if original.shape != mask.shape:
        raise ModelFormatError(f"{base}_orig {original.shape} and {base}_mask {mask.shape} are not of one shape")
    masked: Array = (original * mask).astype(original.dtype)
    return masked


def _weight_norm(base: str, g: Array, v: Array) -> Array:
    """g * v / ||v||, with the norm over the axes along which g has one number; over all if it is one number."""
    if g.ndim not in (0, v.ndim) or any(n not in (1, m) for n, m in zip(g.shape, v.shape)):
        raise ModelFormatError(f"{base}: a norm {g.shape} and a direction {v.shape} that do not fit")
    axes = tuple(axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1)
    norm = np.sqrt(np.square(v, dtype=np.float64).sum(axes, keepdims=True))
    weight: Array = (v * (g / norm)).astype(v.dtype)
    return weight


def _spectral_norm(base: str, original: Array, u: Array, v: Array) -> Array:
    """W / sigma with sigma = u . W v, torch's estimate of the largest singular value."""
    matrix = original.astype(np.float64)
    if original.ndim == 2 and (u.shape, v.shape) == (original.shape[1:], original.shape[:1]) and u.shape != v.shape:
        matrix = matrix.T
    elif original.ndim != 2 or (u.shape, v.shape) != (original.shape[:1], original.shape[1:]):
        raise ModelFormatError(f"{base}: spectral norm's vectors {u.shape} and {v.shape} do not fit {original.shape}")
    weight: Array = (original / (u.astype(np.float64) @ matrix @ v.astype(np.float64))).astype(original.dtype)
    return weight
