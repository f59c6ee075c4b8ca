"""Results of every cell, option, direction and precision at small sizes: written on one machine, compared on another.

    python goldens.py write FILE
    python goldens.py compare FILE
    python goldens.py compare FILE --bits

All make the same cases. `compare` holds the results of its own machine to those of the file within the promises, and
prints how many arrays have the very bits; with --bits all must, which holds where the same build runs the same
instruction set. Used by `make machines`.
"""

import sys
import types

import numpy as np
from helpers import as_parts, as_state, assert_close, make_layer, make_state, run
from narrow_layers import NARROWED_TWICE, OPTIONS, VARIANTS

import fastrnn

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# I, H, num_layers, T, N: one row and part of a vector of units, whole vectors, several panels of units, tiles of rows.
SIZES = [(1, 9, 2, 5, 1), (3, 16, 1, 6, 5), (17, 33, 2, 4, 13), (40, 70, 1, 4, 9)]
WAYS = {"forward": {}, "reverse": {"reverse": True}, "bidirectional": {"bidirectional": True}}
# A number that lies halfway between two narrow ones may go either way: those of r h and m, and those of gradients.
# The share of results that may be off by more than 1e-5, and by how much.
NARROWED = {"int8": (0.05, 0.05), "bfloat16": (0.05, 0.02)}


def wide_layer(variant, size, way, dtype, rng):
    kind = variant if variant not in OPTIONS else variant.rpartition("_")[0]
    return make_layer(kind, *size[:3], rng=rng, dtype=dtype, **WAYS[way], **OPTIONS.get(variant, {}))


def ragged(T, N, rng):
    """Lengths and resets for every other case."""
    return {"lengths": rng.integers(0, T + 1, N), "reset_mask": rng.random((T, N)) < 0.2}


def training_case(variant, size, way, dtype):
    """Outputs, states and all gradients of a layer."""
    rng = np.random.default_rng([len(variant), *size])
    layer = wide_layer(variant, size, way, dtype, rng)
    T, N = size[3:]
    x = rng.standard_normal((T, N, size[0])).astype(dtype)
    columns = (1 + layer.bidirectional) * (getattr(layer, "proj_size", 0) or layer.hidden_size)
    d_output = rng.standard_normal((T, N, columns)).astype(dtype)
    state, d_state = make_state(layer, N, rng), make_state(layer, N, rng)
    return run(layer, x, state, d_output, d_state, **(ragged(T, N, rng) if N > 5 else {}))


def narrow_case(variant, size, way, precision):
    """One step of one layer of narrow weights, from given states: nothing that was rounded is rounded again."""
    rng = np.random.default_rng([len(variant), *size])
    layer = wide_layer(variant, (*size[:2], 1, *size[3:]), way, "float32", rng).quantized(precision)
    x = rng.standard_normal((1, size[4], size[0])).astype(np.float32)
    output, last = layer(x, as_state(make_state(layer, size[4], rng)))
    return dict(zip(("output", "h_n", "c_n"), (output, *as_parts(last)), strict=False))


def bfloat16_training_case(kind, size):
    """A step and its gradients by factors that are rounded to bfloat16."""
    rng = np.random.default_rng([len(kind), *size])
    layer = make_layer(kind, *size[:2], rng=rng)
    x, d_output = (rng.standard_normal((1, size[4], columns)).astype(np.float32) for columns in size[:2])
    output, _, cache = layer.forward(x, as_state(make_state(layer, size[4], rng)), precision="bfloat16")
    grads = layer.backward(cache, d_output)
    return {"output": output, "dx": grads.input, **grads.parameters}


def results():
    """(case, what bounds its differences, the arrays) for every case."""
    for variant in VARIANTS:
        for size in SIZES:
            for way in WAYS:
                for dtype in TOLERANCE:
                    yield f"{variant} {size} {way} {dtype}", dtype, training_case(variant, size, way, dtype)
                for precision in ("int8", "bfloat16", "float16"):
                    bounds = precision if variant in NARROWED_TWICE and precision != "float16" else "float32"
                    yield f"{variant} {size} {way} {precision}", bounds, narrow_case(variant, size, way, precision)
            if variant not in OPTIONS:
                yield f"{variant} {size} training in bfloat16", "bfloat16", bfloat16_training_case(variant, size)


def assert_near(actual, expected, bounds, case):
    """Numbers that may be rounded otherwise halfway: few are off by more than 1e-5, and none by more than a step."""
    share, step = NARROWED[bounds]
    for name, want in expected.items():
        difference = np.abs(actual[name] - want) / np.max(np.abs(want), initial=1)
        assert actual[name].shape == want.shape and np.max(difference, initial=0) <= step \
            and np.count_nonzero(difference > 1e-5) <= max(2, share * want.size), f"{case}: {name}"


def write(path):
    """Writes the results of this machine."""
    arrays = {f"{case}|{name}": value for case, _, result in results() for name, value in result.items()}
    np.savez(path, **arrays)
    print(f"{len(arrays)} arrays of {fastrnn.active_isa()} kernels written")


def compare(path, bits=None):
    """Holds the results of this machine to those of the file; `bits` is "--bits" where the bits must be the same."""
    count = types.SimpleNamespace(cases=0, arrays=0, same=0)
    with np.load(path) as stored:
        wanted = {}
        for key in stored.files:
            case, name = key.split("|")
            wanted.setdefault(case, {})[name] = stored[key]
    for case, bounds, result in results():
        expected = wanted.pop(case)
        if bounds in TOLERANCE:
            scale = np.sqrt(max(1, expected["output"].shape[0] * expected["output"].shape[1]))
            assert_close(result, expected, TOLERANCE[bounds], dict.fromkeys(expected, scale), title=case)
        else:
            assert_near(result, expected, bounds, case)
        count.cases += 1
        count.arrays += len(expected)
        count.same += sum(result[name].tobytes() == want.tobytes() for name, want in expected.items())
    assert not wanted, f"cases that were not made here: {sorted(wanted)[:3]}"
    print(f"{count.cases} cases within the promises; {count.same} of {count.arrays} arrays have the same bits")
    if bits and count.same < count.arrays:
        sys.exit("all were to have the same bits")


if __name__ == "__main__":
    {"write": write, "compare": compare}[sys.argv[1]](*sys.argv[2:])
