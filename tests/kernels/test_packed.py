"""The compiled passes' own options: packed batches, borrowed inputs, gradients left out. The same bits as without."""

import numpy as np
import pytest
from helpers import KINDS, assert_same_bits, make_layer, make_state

import fastrnn
from fastrnn import _core

LENGTHS = np.array([7, 5, 5, 3, 1, 0])      # falling
T, N, I, H = 7, 6, 18, 21


def pack(a):
    """[T, N, width] to packed rows: time by time, the rows that still run."""
    return np.concatenate([a[t, :np.count_nonzero(t < LENGTHS)] for t in range(len(a))])


def passes(layer, batch, x, h, c, dy, dh, dc, **options):
    """Every result of forward and backward, by name."""
    directions, threads = layer._packed()[0], 2
    y = np.full(dy.shape, np.nan, layer.dtype)
    h_n, c_n, saved = _core.forward_layer(directions, batch, x, h, c, None, y, None, True, threads, layer.reverse,
                                          options.get("borrow", False))
    kept = {name: value for name, value in options.items() if name != "borrow"}
    dx, dh_0, dc_0, gradients = _core.backward_layer(saved, dy, dh, dc, threads, **kept)
    found = {"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh_0": dh_0, "dc_0": dc_0}
    for direction, values in enumerate(gradients):
        found |= {f"{name}_{direction}": value for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def arguments(kind, dtype, **options):
    rng = np.random.default_rng(4)
    layer = make_layer(kind, I, H, rng=rng, dtype=dtype, **options)
    state, d_state = ((*make_state(layer, N, rng), None)[:2] for _ in range(2))
    x = rng.standard_normal((T, N, I)).astype(dtype)
    dy = rng.standard_normal((T, N, (1 + layer.bidirectional) * (layer.proj_size or H))).astype(dtype)
    return layer, x, state, dy, d_state


WAYS = {"forward": {}, "reverse": {"reverse": True}, "both": {"bidirectional": True}}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("kind", [*KINDS, "projection"])
def test_packed_rows(isa, kind, way, dtype):
    options = {"proj_size": 5} if kind == "projection" else {}
    layer, x, state, dy, d_state = arguments("lstm" if options else kind, dtype, **WAYS[way], **options)
    lengths = LENGTHS.astype(np.int64)
    expected = passes(layer, _core.Batch(T, N, lengths, np.arange(N)), x, *state, dy, *d_state)
    expected |= {name: pack(expected[name]) for name in ("y", "dx")}
    for borrow in (False, True):
        batch = _core.Batch(T, N, lengths, None, True)
        found = passes(layer, batch, pack(x), *state, pack(dy), *d_state, borrow=borrow)
        assert_same_bits(found, expected)
    wide = np.full((len(pack(x)), I + 3), np.nan, x.dtype)      # rows further apart
    wide[:, :I] = pack(x)
    found = passes(layer, _core.Batch(T, N, lengths, None, True), wide[:, :I], *state, pack(dy), *d_state, borrow=True)
    assert_same_bits(found, expected)


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("kind", list(KINDS))
def test_borrowed_input(isa, kind, way):
    layer, x, state, dy, d_state = arguments(kind, "float32", **WAYS[way])
    batch = _core.Batch(T, N, None, None)
    expected = passes(layer, batch, x, *state, dy, *d_state)
    wide = np.full((T, N, I + 5), np.nan, x.dtype)
    wide[..., :I] = x
    for given in (x, wide[..., :I], x.swapaxes(0, 1).copy().swapaxes(0, 1)):    # even rows; rows apart; batch first
        assert_same_bits(passes(layer, batch, given, *state, dy, *d_state, borrow=True), expected)


@pytest.mark.parametrize("kind", list(KINDS))
def test_gradients_left_out(isa, kind):
    layer, x, state, dy, d_state = arguments(kind, "float32", bidirectional=True)
    batch = _core.Batch(T, N, None, None)
    whole = passes(layer, batch, x, *state, dy, *d_state)
    fresh = make_layer(kind, I, H, rng=0, bidirectional=True)       # nothing packed for backward yet
    fresh.load_state_dict(layer.state_dict())
    for options, absent in (({"need_input": False}, ["dx"]), ({"need_parameters": False}, ["weight", "bias"])):
        found = passes(fresh, batch, x, *state, dy, *d_state, **options)
        assert_same_bits(found, {name: value for name, value in whole.items()
                                 if not name.startswith(tuple(absent))})
    assert_same_bits(passes(fresh, batch, x, *state, dy, *d_state), whole)


@pytest.mark.parametrize("cls", [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM])
def test_layer_without_input_gradient(cls):
    layer = cls(3, 5, 2, rng=0)
    output, _, cache = layer.forward(np.ones((4, 2, 3), np.float32))
    whole, part = (layer.backward(cache, output, need_input=need) for need in (True, False))
    assert part.input is None
    assert_same_bits(part.parameters, whole.parameters)


def test_parameters_know_their_bytes():
    layer = fastrnn.LSTM(3, 5, proj_size=2, rng=0)
    packed = layer._packed()[0][0]
    given = [value.copy() for value in layer.parameters.values()]
    assert packed.holds(*given)
    for value in given:
        value.reshape(-1)[-1] *= 1.0001
        assert not packed.holds(*given)
        value[...] = next(old for old in layer.parameters.values() if old.shape == value.shape
                          and np.allclose(old, value, rtol=1e-3))
        assert packed.holds(*given)
    assert not packed.holds(*given[:2], None, *given[3:])
    assert not packed.holds(given[0][:-1], *given[1:])


def test_the_batch_of_packed_rows():
    """From the sizes alone come the lengths; those of rows of one length are left out."""
    running = LENGTHS[LENGTHS > 0]
    sizes = np.array([np.count_nonzero(t < running) for t in range(T)])
    for given in (sizes, np.repeat(sizes, 2)[::2]):         # strided, too
        batch = _core.packed_batch(given, int(sizes.sum()))
        assert (batch.T, batch.N, batch.rows) == (T, len(running), sizes.sum())
        np.testing.assert_array_equal(batch.lengths, running)
        assert batch.order is None
    even = _core.packed_batch(np.array([3, 3]), 6)
    assert (even.T, even.N, even.rows, even.lengths) == (2, 3, 6, None)


@pytest.mark.parametrize(("sizes", "rows"), [
    ([2, 3], 5), ([3, 2], 6), ([3, 2], 4), ([3, 0], 3), ([0, 0], 0), ([-1], -1), ([3, -3], 0),
    (np.array([], np.int64), 0), ([2 ** 62, 2 ** 62], 8), ([[2]], 2), (np.array([2, 1], np.int32), 3),
    (np.array([2.0, 1.0]), 3)])
def test_sizes_that_fit_no_packed_rows(sizes, rows):
    assert _core.packed_batch(np.array(sizes), rows) is None


def test_orders_of_states():
    """Two inverse orders of the rows are taken; numbers outside of the rows never are, whatever lies beside them."""
    batch = _core.Batch(T, N, None, None)
    order = np.random.default_rng(0).permutation(N)
    assert batch.order_states(order, np.argsort(order))
    for wrong, place in ((N, N - 1), (-1, 0)):
        memory = np.arange(-1, N + 1)
        memory[wrong + 1] = place               # beside the inverse order, there is what the wrong number would need
        order, inverse = np.arange(N), memory[1:-1]
        assert batch.order_states(order, inverse)
        order[place] = wrong
        assert not batch.order_states(order, inverse)
    rows = np.arange(N)
    for order, inverse in ((np.zeros(N, np.int64), rows), (rows, rows[::-1].copy()), (rows[:-1], rows[:-1]),
                           (rows.astype(np.int32), rows), (rows, rows.astype(float)), (rows[None], rows),
                           (np.arange(2 * N)[::2], rows)):
        assert not batch.order_states(order, inverse)
