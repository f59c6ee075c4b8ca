"""Every check of what a caller passes, and every message. The kernels behind it check nothing.

A message names the argument, what came and what was expected. TypeError: the wrong kind of thing; ValueError: the
right kind with a wrong dtype (among floats), shape or value.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .typing import RandomState

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_LARGEST = 2**63 - 1


# ---- Scalars ------------------------------------------------------------------------------------

def size(value, name, least=1):
    """A size such as hidden_size as an int."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if value > _LARGEST:
        raise ValueError(f"{name}: expected less than 2^63, got {value}")
    return value


def flag(value, name):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return bool(value)


def real(value, name):
    """A number as a float, perhaps not a finite one."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:       # a whole number past 1.8e308
        return math.inf


def number(value, name):
    """A finite number as a float."""
    result = real(value, name)
    if not math.isfinite(result):
        raise ValueError(f"{name}: expected a finite number, got {result}")
    return result


def above(value, name, bound):
    value = number(value, name)
    if not value > bound:
        raise ValueError(f"{name}: expected a number above {bound}, got {value}")
    return value


def at_least(value, name, bound):
    value = number(value, name)
    if not value >= bound:
        raise ValueError(f"{name}: expected a number of at least {bound}, got {value}")
    return value


def bound(value, name):
    """A number above 0, or infinity."""
    return math.inf if isinstance(value, (float, np.floating)) and value == math.inf else above(value, name, 0)


def probability(value, name):
    value = number(value, name)
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability from 0 to 1, got {value}")
    return value


def clip(value):
    """The bound of a cell's sums, or None."""
    value = None if value is None else number(value, "clip")
    if value is not None and value <= 0:
        raise ValueError(f"clip: expected a number above 0, or None, got {value}")
    return value


def choice(value, name, options):
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {', '.join(map(repr, options))}, got {type(value).__name__}")
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def model_dtype(value):
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError):
        dtype = None
    if value is None or dtype is None or dtype not in DTYPES:       # NumPy takes None for float64
        raise TypeError(f"dtype: expected float32 or float64, got {value!r}")
    return dtype


def generator(rng, name="rng"):
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


def path(value, name):
    """A path as a str; the folder it names is there."""
    try:
        value = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name}: expected a path, got {type(value).__name__}") from None
    if not os.path.isdir(os.path.dirname(os.path.realpath(value))):
        raise FileNotFoundError(f"{name}: no folder for {value}")
    return value


def addressable(name, *sizes, itemsize=8):
    """Refuses what no address space holds, before anything is allocated."""
    total = itemsize
    for n in sizes:
        total *= n
    if total > _LARGEST:
        raise ValueError(f"{name}: {' x '.join(map(str, sizes))} elements pass 2^63 bytes")


def mapping(value, name):
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of names to arrays, got {type(value).__name__}")


# ---- Arrays -------------------------------------------------------------------------------------

def as_array(value, name):
    """Whatever NumPy makes of `value`; the message names it where NumPy can make nothing."""
    try:
        return np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def numbers(value, name):
    """`value` as an array of real numbers, of any dtype."""
    a = as_array(value, name)
    if a.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected an array of numbers, got "
                        + ("None" if value is None else f"dtype {a.dtype}"))
    return a


def array(value, name, dtype):
    """`value` as an array of the model's dtype in native byte order; never a downcast."""
    if value is None:
        raise TypeError(f"{name}: expected an array, got None")
    a = as_array(value, name)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {a.dtype}")
    if a.dtype.kind == "f" and a.dtype.itemsize > dtype.itemsize:
        raise ValueError(f"{name}: {a.dtype} would lose precision in a {dtype} model; convert it with .astype, "
                         f"or build the model with dtype=numpy.{a.dtype.newbyteorder('=')}")
    return a.astype(dtype, copy=False)


def floats(value, name):
    """An array as float32 or float64, whichever it is; others as float64."""
    a = as_array(value, name)
    if value is None:
        raise TypeError(f"{name}: expected an array, got None")
    return array(a, name, a.dtype if a.dtype in DTYPES else np.dtype(np.float64))


def scalable(a, name):
    """An array of floats of the caller's, to be multiplied in place."""
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(a).__name__}")
    if a.dtype not in DTYPES:
        raise TypeError(f"{name}: expected native float32 or float64, got {a.dtype}")
    return output(a, name, a.shape, a.dtype)


def shaped(a, name, shape):
    if a.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {a.shape}")
    return a


def indices(value, name, bound):
    """An array of whole numbers 0 ... bound-1, as intp."""
    if value is None:
        raise TypeError(f"{name}: expected an array of ints, got None")
    a = as_array(value, name)
    if a.dtype.kind not in "iu" and a.size:
        raise TypeError(f"{name}: expected an array of ints, got dtype {a.dtype}")
    if a.size and (a.min() < 0 or a.max() >= bound):
        raise ValueError(f"{name}: expected 0 to {bound - 1}, got {a.min() if a.min() < 0 else a.max()}")
    return a.astype(np.intp, copy=False)


def walkable(a):
    """The array, or a copy the kernels can walk: aligned, its last axis contiguous."""
    flags = a.flags
    if flags.c_contiguous and flags.aligned:
        return a
    if (flags.aligned and (a.shape[-1] <= 1 or a.strides[-1] == a.itemsize)
            and not any(stride % a.itemsize for stride in a.strides)):
        return a
    return np.array(a, order="C", copy=True)


def contiguous(a):
    return a if a.flags.c_contiguous and a.flags.aligned else np.array(a, order="C", copy=True)


def sequence(x, input_size, dtype, batch_first, name="x"):
    """x as [T, N, I] without a copy where it can be, and whether it came unbatched as [T, I]."""
    x = array(x, name, dtype)
    if x.ndim not in (2, 3):
        expected = "[N, T, I]" if batch_first else "[T, N, I]"
        raise ValueError(f"{name}: expected {expected} or unbatched [T, I], got {x.ndim} dimensions, shape {x.shape}")
    if x.shape[-1] != input_size:
        raise ValueError(f"{name}: expected last axis {input_size}, got {x.shape[-1]} (shape {x.shape})")
    unbatched = x.ndim == 2
    x = x[:, None] if unbatched else x.swapaxes(0, 1) if batch_first else x
    return walkable(x), unbatched


def row_lengths(lengths, T, N):
    """(lengths falling, the caller's row of each) as int64, or (None, None)."""
    if lengths is None:
        return None, None
    lengths = as_array(lengths, "lengths")
    if lengths.dtype.kind not in "iu" and lengths.size:
        raise TypeError(f"lengths: expected ints, got dtype {lengths.dtype}")
    lengths = np.atleast_1d(lengths)
    if lengths.shape != (N,):
        raise ValueError(f"lengths: expected {N} of them, one a row, got shape {lengths.shape}")
    if N and (lengths.min() < 0 or lengths.max() > T):
        wrong = lengths.min() if lengths.min() < 0 else lengths.max()
        raise ValueError(f"lengths: expected 0 to {T}, the steps of x, got {wrong}")
    lengths = lengths.astype(np.int64)
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    return np.ascontiguousarray(lengths[order]), order


def mask(value, T, N, unbatched):
    if value is None:
        return None
    value = as_array(value, "reset_mask")
    if value.dtype != np.bool_:
        raise TypeError(f"reset_mask: expected bools, got dtype {value.dtype}")
    value = shaped(value, "reset_mask", (T,) if unbatched else (T, N))
    return value.reshape(T, N)


def one_state(value, name, layers, N, width, dtype, unbatched):
    """h_0 or c_0 as contiguous [L*D, N, width]; zeros for None."""
    if value is None:
        return np.zeros((layers, N, width), dtype)
    value = array(value, name, dtype)
    shaped(value, name, (layers, width) if unbatched else (layers, N, width))
    return contiguous(value.reshape(layers, N, width))


def pair(value, name):
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}: expected a pair (h, c) for an LSTM, got {type(value).__name__}"
                        + (f" of {len(value)}" if isinstance(value, (tuple, list)) else ""))
    return value


def _overlaps_itself(a):
    """Whether two elements share memory: strides that nest are told at once, others by their offsets."""
    reach = 0
    for stride, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach + a.itemsize:
            offsets = sum(np.ogrid[tuple(slice(n) for n in a.shape)][i] * s for i, s in enumerate(a.strides))
            starts = np.sort(np.ravel(offsets))
            return bool(np.any(np.diff(starts) < a.itemsize))
        reach += stride * (n - 1)
    return False


def output(out, name, shape, dtype):
    """An array of the caller's to write to."""
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


def writable_in_place(out, *inputs):
    """Whether kernels may write to `out` while they read `inputs`."""
    if walkable(out) is not out:
        return False
    return not any(np.may_share_memory(out, a) for a in inputs if a is not None)
