"""tanh and sigmoid of all 2^32 float32 values, on every instruction set, against NumPy in float64.

Run by `make exhaustive`: about ten minutes on two cores; `--stride n` takes every n-th value. Prints for each function
and instruction set the largest error and where it is, the deepest fall of the (rising) function, and how many NaN came
from numbers, or numbers from NaN. The exit status is not 0 when a bound of the promises is passed.
"""

import argparse
import collections
import concurrent.futures
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from helpers import elementwise, exact, ulp, using_isa

import fastrnn

BLOCK = 1 << 22
FUNCTIONS = ("tanh", "sigmoid")
UNITS = {"tanh": "ULP", "sigmoid": "absolute"}
BOUNDS = {"tanh": 2.0, "sigmoid": 1.2e-7}
PROCESSES = 2
INFINITY = 0x7F800000
NANS = (1 << 31) - INFINITY - 1         # of either sign

# Of one block: the largest error in UNITS and its argument; the largest fall within the block, in UNITS; the least and
# the largest result; wrong NaNs.
Found = collections.namedtuple("Found", "error at fall low high nans")


def arguments(first, stop, stride):
    """Every stride-th float32 of the places first..stop, in rising order: -inf is at 0, and NaNs follow +inf."""
    place = np.arange(first, stop, stride, dtype=np.int64)
    negative = INFINITY - place                         # -inf ... -0.0 at 0 ... INFINITY
    positive = place - INFINITY - 1                     # 0.0 ... +inf, then the NaNs of both signs
    bits = np.where(place <= INFINITY, negative | 0x80000000, positive)
    bits = np.where(positive > INFINITY + NANS, positive - INFINITY - NANS + 0x80000000 + INFINITY, bits)
    return bits.astype(np.uint32).view(np.float32)


def measure(first, stop, stride, isas):
    """{(function, isa): Found} of one block; the reference is computed once for all instruction sets."""
    x = arguments(first, stop, stride)
    number = ~np.isnan(x)
    found = {}
    for function in FUNCTIONS:
        want = exact(function, x)
        unit = ulp(want) if function == "tanh" else np.ones_like(want)
        for isa in isas:
            with using_isa(isa):
                got = elementwise(function, x).astype(np.float64)
            nans = np.count_nonzero(np.isnan(got) == number)
            if not number.any():
                found[function, isa] = Found(0.0, np.float32(0), 0.0, np.inf, -np.inf, nans)
                continue
            error = np.where(number, np.abs(got - want) / unit, 0)
            at = int(np.nanargmax(error))
            rising = got[number]
            fall = np.nanmax((np.fmax.accumulate(rising) - rising) / unit[number])
            found[function, isa] = Found(error[at], x[at], fall, np.nanmin(rising), np.nanmax(rising), nans)
    return found


def blocks(stride):
    for first in range(0, 1 << 32, BLOCK * stride):
        yield first, min(first + BLOCK * stride, 1 << 32), stride


def progress(results, total):
    try:
        from tqdm import tqdm
    except ImportError:
        start = time.monotonic()
        for done, result in enumerate(results, 1):
            if done % max(1, total // 50) == 0 or done == total:
                print(f"{done} of {total} blocks, {time.monotonic() - start:.0f} s", flush=True)
            yield result
    else:
        yield from tqdm(results, total=total, unit="block")


def merge(total, new, unit_of):
    """Blocks come in rising order: what an earlier one reached, a later one may not fall short of."""
    if total is None:
        return new
    across = (total.high - new.low) / unit_of(new.low) if new.low <= new.high and total.low <= total.high else 0.0
    worst = max(total, new, key=lambda found: found.error)
    return Found(worst.error, worst.at, max(total.fall, new.fall, across), min(total.low, new.low),
                 max(total.high, new.high), total.nans + new.nans)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", action="append", choices=fastrnn.available_isas(), help="default: all available")
    parser.add_argument("--stride", type=int, default=1,
                        help="take every n-th float32, n made odd so that all bits vary (default 1: all)")
    options = parser.parse_args()
    isas, todo = options.isa or fastrnn.available_isas(), list(blocks(options.stride | 1))

    totals = dict.fromkeys((function, isa) for function in FUNCTIONS for isa in isas)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        columns = zip(*todo, strict=True)
        for found in progress(pool.map(measure, *columns, [isas] * len(todo)), len(todo)):
            for (function, isa), new in found.items():
                unit_of = ulp if function == "tanh" else np.ones_like
                totals[function, isa] = merge(totals[function, isa], new, unit_of)

    bad = False
    for (function, isa), found in totals.items():
        passed = max(found.error, found.fall) <= BOUNDS[function] and not found.nans
        bad |= not passed
        print(f"{function:8}{isa:10}largest error {found.error:.4g} {UNITS[function]} at {float(found.at).hex()}, "
              f"largest fall {found.fall:.3g}, wrong NaNs {found.nans} (bound {BOUNDS[function]:g}): "
              + ("ok" if passed else "FAILED"))
    return bad


if __name__ == "__main__":
    sys.exit(main())
