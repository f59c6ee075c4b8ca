"""Cases of layers of narrow weights, and the kernels that run them."""

import contextlib
import types

import numpy as np
import pytest
from helpers import KINDS, as_state, make_layer, make_state, named_state, using_isa

import fastrnn
from fastrnn import _core
from fastrnn._base import dispatch

OPTIONS = {
    "lstm_projection": {"proj_size": 7},
    "lstm_options": {"peephole": True, "clip": 2.0, "activations": ["hard_sigmoid", "softsign", ("elu", 0.7)]},
    "lstm_coupled": {"peephole": True, "coupled_gates": True},
    "gru_options": {"update": "mirror", "activations": [("scaled_tanh", 0.8, 1.5), "tanh"]},
    "gru_before_options": {"update": "mirror", "clip": 1.0},
    "rnn_tanh_options": {"activations": [("leaky_relu", 0.1)], "clip": 3.0, "bias": False},
}
VARIANTS = [*KINDS, *OPTIONS]
# r h or m is narrowed within the step, from the kernel's own numbers: one that lies halfway may go the other way.
NARROWED_TWICE = ("gru_before", "lstm_projection", "gru_before_options")
WITHOUT = " without its sums of products"
KERNELS = [*fastrnn.available_isas(), "avx512" + WITHOUT]


@contextlib.contextmanager
def using_kernels(name, precision):
    """One of KERNELS within a ``with`` block: an instruction set, or AVX-512 as CPUs have it that sum no products."""
    isa = name.removesuffix(WITHOUT)
    if isa not in fastrnn.available_isas():
        pytest.skip(f"this machine does not run {isa}")
    with using_isa(isa):
        table = dispatch.table(np.dtype(np.float32), precision)
        _core.use_dot(table, name == isa)
        try:
            yield name
        finally:
            _core.use_dot(table, True)


def make_case(variant, size, precision, **options):
    """A layer of I, H, num_layers, the narrow one made of it, and inputs of T steps and N rows with states."""
    I, H, num_layers, T, N = size
    rng = np.random.default_rng(31)
    kind = variant if variant in KINDS else variant.rpartition("_")[0]
    wide = make_layer(kind, I, H, num_layers, rng=rng, **options, **OPTIONS.get(variant, {}))
    x = rng.standard_normal((T, N, I)).astype(np.float32)
    return types.SimpleNamespace(layer=wide.quantized(precision), wide=wide, x=x, state=make_state(wide, N, rng), T=T,
                                 N=N, rng=rng)


def call(layer, x, state, **options):
    output, last = layer(x, as_state(state), **options)
    return {"output": output, **named_state(last, "h_n", "c_n")}


def rows_of(result, rows):
    """Rows are axis 1 of all arrays."""
    if isinstance(result, dict):
        return {name: value[:, rows] for name, value in result.items()}
    return tuple(part[:, rows] for part in result)
