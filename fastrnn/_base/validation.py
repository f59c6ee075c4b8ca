"""Checks of what a caller passes, and their messages. The kernels behind them check nothing.

A message names the argument, what came and what was expected. A TypeError says that it is the wrong kind of thing, a
ValueError that it is the right kind with a wrong dtype (among floats), shape or value.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .typing import (
        Array,
        ArrayLike,
        BoolArray,
        DTypeLike,
        FloatDType,
        IntArray,
        PathLike,
        RandomState,
        Rng,
        TrainingPrecision,
    )

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
TRAINING_PRECISIONS = ("float32", "float64", "bfloat16")
_LARGEST = 2**63 - 1


# ---- Scalars ------------------------------------------------------------------------------------

def size(value: SupportsIndex, name: str, least: int = 1) -> int:
    """A size such as hidden_size as an int."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    try:
        integer: int = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if integer < least:
        raise ValueError(f"{name}: expected at least {least}, got {integer}")
    if integer > _LARGEST:
        raise ValueError(f"{name}: expected less than 2^63, got {integer}")
    return integer


def flag(value: bool, name: str) -> bool:
    """An option that is on or off."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return bool(value)


def real(value: float, name: str) -> float:
    """A number as a float, perhaps not a finite one."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:       # a whole number past 1.8e308
        return math.inf


def number(value: float, name: str) -> float:
    """A finite number as a float."""
    result = real(value, name)
    if not math.isfinite(result):
        raise ValueError(f"{name}: expected a finite number, got {result}")
    return result


def above(value: float, name: str, bound: float) -> float:
    """A finite number above a bound."""
    value = number(value, name)
    if not value > bound:
        raise ValueError(f"{name}: expected a number above {bound}, got {value}")
    return value


def at_least(value: float, name: str, bound: float) -> float:
    """A finite number that is a bound or above it."""
    value = number(value, name)
    if not value >= bound:
        raise ValueError(f"{name}: expected a number of at least {bound}, got {value}")
    return value


def bound(value: float, name: str) -> float:
    """A number above 0, or infinity."""
    return math.inf if isinstance(value, (float, np.floating)) and value == math.inf else above(value, name, 0)


def probability(value: float, name: str) -> float:
    """A number from 0 to 1."""
    value = number(value, name)
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability from 0 to 1, got {value}")
    return value


def clip(value: float | None) -> float | None:
    """The bound that a cell's sums are clipped to, or None."""
    value = None if value is None else number(value, "clip")
    if value is not None and value <= 0:
        raise ValueError(f"clip: expected a number above 0, or None, got {value}")
    return value


def choice(value: str, name: str, options: Sequence[str]) -> str:
    """One of several words."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {', '.join(map(repr, options))}, got {type(value).__name__}")
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def training_precision(value: TrainingPrecision | None, dtype: FloatDType) -> Literal["bfloat16"] | None:
    """The precision of the products of a model that is trained: None for the model's own dtype."""
    if value is None or choice(value, "precision", TRAINING_PRECISIONS) == dtype.name:
        return None
    if value == "bfloat16" and dtype == np.float32:
        return "bfloat16"
    raise ValueError(f"precision: a model of {dtype.name} trains in {dtype.name}"
                     f"{' or bfloat16' if dtype == np.float32 else ''}, got {value!r}")


def model_dtype(value: DTypeLike) -> FloatDType:
    """The dtype of a model: float32 or float64, in native byte order."""
    dtype: np.dtype[Any] | None
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError):
        dtype = None
    if value is None or dtype is None or dtype not in DTYPES:       # NumPy takes None for float64
        raise TypeError(f"dtype: expected float32 or float64, got {value!r}")
    return cast("FloatDType", dtype)


def generator(rng: Rng, name: str = "rng") -> np.random.Generator:
    """The random generator of an `rng` argument: a Generator as it is, or a new one from a seed or from entropy."""
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    return np.random.default_rng(size(rng, name, least=0))


def random_state(value: RandomState, name: str = "random_state") -> np.random.Generator:
    """The generator for what scikit-learn calls a random state: None, an int, a Generator or a RandomState.

    A Generator is used as it is. A RandomState gives the seed of a new one, and so goes on by a few numbers.
    """
    if isinstance(value, np.random.RandomState):
        return np.random.default_rng(value.randint(0, 2**32, size=4, dtype=np.uint32))
    if value is None or isinstance(value, np.random.Generator):
        return np.random.default_rng(value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected None, an int, a numpy.random.Generator or a RandomState, got "
                        f"{type(value).__name__}")
    return np.random.default_rng(size(value, name, least=0))


def path(value: PathLike, name: str) -> str:
    """A path as a str; the folder it names exists."""
    try:
        decoded: str = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name}: expected a path, got {type(value).__name__}") from None
    if not os.path.isdir(os.path.dirname(os.path.realpath(decoded))):
        raise FileNotFoundError(f"{name}: no folder for {decoded}")
    return decoded


def addressable(name: str, *sizes: int, itemsize: int = 8) -> None:
    """Raise ValueError for a size that no address space holds, before anything is allocated."""
    total = itemsize
    for n in sizes:
        total *= n
    if total > _LARGEST:
        raise ValueError(f"{name}: {' x '.join(map(str, sizes))} elements pass 2^63 bytes")


def mapping(value: Any, name: str) -> None:
    """Raise TypeError unless the value is a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of names to arrays, got {type(value).__name__}")


# ---- Arrays -------------------------------------------------------------------------------------

def as_array(value: Any, name: str) -> Array:
    """The array that NumPy makes of a value; where it can make none, the ValueError names the argument."""
    try:
        return np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def numbers(value: Any, name: str) -> Array:
    """The value as an array of real numbers, of any dtype."""
    a = as_array(value, name)
    if a.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected an array of numbers, got "
                        + ("None" if value is None else f"dtype {a.dtype}"))
    return a


def array(value: Any, name: str, dtype: np.dtype[Any]) -> Array:
    """The value as an array of the model's dtype in native byte order.

    Narrower arrays are converted up, and Python numbers, alone or in lists and tuples, take the model's dtype: they
    have none of their own. An array or a NumPy scalar of a wider dtype, in a list or not, is a ValueError, so that
    precision is never lost silently.
    """
    if value is None:
        raise TypeError(f"{name}: expected an array, got None")
    a = as_array(value, name)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {a.dtype}")
    if a.dtype.kind == "f" and a.dtype.itemsize > dtype.itemsize:
        if not _fits(value, dtype):
            wider = f", or build the model with dtype=np.{a.dtype.name}" if a.dtype.itemsize == 8 else ""
            raise ValueError(f"{name}: {a.dtype} would lose precision in a {dtype} model; convert it with "
                             f".astype(np.{dtype}){wider}")
        return _narrowed(a, name, dtype)
    return a.astype(dtype, copy=False)


def exact(value: Any, name: str, dtype: np.dtype[Any]) -> Array:
    """The value as an array, which has to have this dtype."""
    a = as_array(value, name)
    if a.dtype != dtype:
        raise ValueError(f"{name}: expected dtype {dtype}, got {a.dtype}")
    return a


def _fits(value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a value is made of Python numbers and of arrays and NumPy scalars that are no wider than the dtype."""
    if isinstance(value, (list, tuple)):
        return all(_fits(item, dtype) for item in value)
    own = getattr(value, "dtype", None)
    if isinstance(own, np.dtype):
        return own.kind != "f" or own.itemsize <= dtype.itemsize
    return isinstance(value, (int, float))


def _narrowed(a: Array, name: str, dtype: np.dtype[Any]) -> Array:
    """Python numbers, which NumPy made float64, in the model's dtype; none may become infinite."""
    with np.errstate(all="ignore"):
        result = a.astype(dtype)
    if np.any(np.isinf(result) & np.isfinite(a)):
        raise ValueError(f"{name}: expected numbers up to {np.finfo(dtype).max:.2g}, the largest {dtype}, got "
                         f"{a[np.isinf(result) & np.isfinite(a)][0]}; build the model with dtype=np.float64")
    return result


def floats(value: Any, name: str) -> Array:
    """An array as float32 or float64, whichever it is; others as float64."""
    a = as_array(value, name)
    if value is None:
        raise TypeError(f"{name}: expected an array, got None")
    return array(a, name, a.dtype if a.dtype in DTYPES else np.dtype(np.float64))


def scalable(a: Any, name: str) -> Array:
    """An array of the caller's that can be multiplied in place: native floats, writable."""
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(a).__name__}")
    if a.dtype not in DTYPES:
        raise TypeError(f"{name}: expected native float32 or float64, got {a.dtype}")
    return output(a, name, a.shape, a.dtype)


def shaped(a: Array, name: str, shape: Sequence[int]) -> Array:
    """The array, which must have that shape."""
    if a.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {a.shape}")
    return a


def indices(value: Any, name: str, bound: int) -> npt.NDArray[np.intp]:
    """An array of whole numbers 0 ... bound-1, as intp."""
    if value is None:
        raise TypeError(f"{name}: expected an array of ints, got None")
    a = as_array(value, name)
    if a.dtype.kind not in "iu" and a.size:
        raise TypeError(f"{name}: expected an array of ints, got dtype {a.dtype}")
    if a.size and (a.min() < 0 or a.max() >= bound):
        raise ValueError(f"{name}: expected 0 to {bound - 1}, got {a.min() if a.min() < 0 else a.max()}")
    return a.astype(np.intp, copy=False)


def walkable(a: Array) -> Array:
    """The array, or a copy the kernels can walk: aligned, its last axis contiguous."""
    flags = a.flags
    if flags.c_contiguous and flags.aligned:
        return a
    if (flags.aligned and (a.shape[-1] <= 1 or a.strides[-1] == a.itemsize)
            and not any(stride % a.itemsize for stride in a.strides)):
        return a
    return np.array(a, order="C", copy=True)


def contiguous(a: Array) -> Array:
    """The array, or a copy of it: C-contiguous and aligned."""
    return a if a.flags.c_contiguous and a.flags.aligned else np.array(a, order="C", copy=True)


def sequence(x: ArrayLike, input_size: int, dtype: FloatDType, batch_first: bool,
             name: str = "x") -> tuple[Array, bool]:
    """x as [T, N, I], without a copy where possible, and whether it came unbatched as [T, I]."""
    a = array(x, name, dtype)
    if a.ndim not in (2, 3):
        expected = "[N, T, I]" if batch_first else "[T, N, I]"
        raise ValueError(f"{name}: expected {expected} or unbatched [T, I], got {a.ndim} dimensions, shape {a.shape}")
    if a.shape[-1] != input_size:
        raise ValueError(f"{name}: expected last axis {input_size}, got {a.shape[-1]} (shape {a.shape})")
    unbatched = a.ndim == 2
    a = a[:, None] if unbatched else a.swapaxes(0, 1) if batch_first else a
    return walkable(a), unbatched


def row_lengths(lengths: ArrayLike | None, T: int, N: int) -> tuple[IntArray, IntArray] | tuple[None, None]:
    """The lengths in falling order and the caller's row of each, as int64; (None, None) if there are no lengths."""
    if lengths is None:
        return None, None
    values = as_array(lengths, "lengths")
    if values.dtype.kind not in "iu" and values.size:
        raise TypeError(f"lengths: expected ints, got dtype {values.dtype}")
    values = np.atleast_1d(values)
    if values.shape != (N,):
        raise ValueError(f"lengths: expected {N} of them, one a row, got shape {values.shape}")
    signed = values.astype(np.int64)
    order = np.argsort(~signed, kind="stable").astype(np.int64)        # -signed is not defined for -2^63
    ordered = np.ascontiguousarray(signed[order])
    if N and (ordered[0] > T or ordered[-1] < 0):       # a number of 2^63 and more has become negative
        wrong = values[order[-1 if ordered[-1] < 0 else 0]]
        raise ValueError(f"lengths: expected 0 to {T}, the steps of x, got {wrong}")
    return ordered, order


def mask(value: ArrayLike | None, T: int, N: int, unbatched: bool) -> BoolArray | None:
    """reset_mask as bools [T, N], or None."""
    if value is None:
        return None
    a = as_array(value, "reset_mask")
    if a.dtype != np.bool_:
        raise TypeError(f"reset_mask: expected bools, got dtype {a.dtype}")
    return shaped(a, "reset_mask", (T,) if unbatched else (T, N)).reshape(T, N)


def one_state(value: ArrayLike | None, name: str, layers: int, N: int, width: int, dtype: FloatDType,
              unbatched: bool) -> Array:
    """h_0 or c_0 as contiguous [L*D, N, width]; zeros for None."""
    if value is None:
        return np.zeros((layers, N, width), dtype)
    a = shaped(array(value, name, dtype), name, (layers, width) if unbatched else (layers, N, width))
    return contiguous(a.reshape(layers, N, width))


def pair(value: Any, name: str) -> Sequence[Any]:
    """The state of an LSTM: a tuple or list of two."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}: expected a pair (h, c) for an LSTM, got {type(value).__name__}"
                        + (f" of {len(value)}" if isinstance(value, (tuple, list)) else ""))
    return value


def states(value: Any, name: str, count: int) -> Sequence[Any]:
    """The state of a Sequential: a tuple or list with one for each of its modules."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple with a state for each module, got {type(value).__name__}")
    if len(value) != count:
        raise ValueError(f"{name}: expected {count} states, one for each module, got {len(value)}")
    return value


def _overlaps_itself(a: Array) -> bool:
    """Whether two elements share memory. Strides that nest are recognised at once, others by all their offsets."""
    reach = 0
    for stride, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach + a.itemsize:
            axes = np.ogrid[tuple(slice(n) for n in a.shape)]
            offsets = sum(axis * s for axis, s in zip(axes, a.strides, strict=True))
            starts = np.sort(np.ravel(offsets))
            return bool(np.any(np.diff(starts) < a.itemsize))
        reach += stride * (n - 1)
    return False


def output(out: Any, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """The caller's array, which can be written to: of that shape and native dtype, without overlap in itself."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(out).__name__}")
    if out.dtype != dtype or not out.dtype.isnative:
        raise ValueError(f"{name}: expected native {dtype}, got {out.dtype}")
    shaped(out, name, shape)
    if not out.flags.writeable:
        raise ValueError(f"{name}: the array is read-only")
    if not out.flags.c_contiguous and out.size and _overlaps_itself(out):
        raise ValueError(f"{name}: elements of the array overlap each other")
    return out


def writable_in_place(out: Array, *inputs: Array | None) -> bool:
    """Whether kernels may write to `out` while they read `inputs`."""
    if walkable(out) is not out:
        return False
    return not any(np.may_share_memory(out, a) for a in inputs if a is not None)
