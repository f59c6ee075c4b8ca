"""Short calls and blocks: the compiled way beside the general one, in bits and in what it leaves alone."""
import itertools
import pickle
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from fastrnn._base import dispatch

CELLS = {"LSTM": fastrnn.LSTM, "GRU": fastrnn.GRU, "RNN": fastrnn.RNN}
# Sizes on both sides of every boundary: of a vector, of a panel, of four panels.
SIZES = [(1, 1), (1, 3), (2, 8), (1, 16), (9, 17), (1, 24), (16, 32), (5, 33), (12, 48), (32, 64), (20, 65), (3, 100)]
OPTIONS = [{}, {"num_layers": 2}, {"num_layers": 3, "batch_first": True}, {"bias": False}, {"dtype": np.float64}]


def general(layer, x, state=None):
    """What a call gives without the compiled way: the mask makes it the general one."""
    shape = x.shape[:2][::-1] if layer.batch_first and x.ndim == 3 else x.shape[:-1]
    return layer(x, state, reset_mask=np.zeros(shape, bool))


def parts(value):
    return [value] if isinstance(value, np.ndarray) else [a for part in value for a in parts(part)]


def assert_same(a, b):
    for left, right in zip(parts(a), parts(b), strict=True):
        np.testing.assert_array_equal(left, right)
        assert left.shape == right.shape and left.dtype == right.dtype


def random(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def state_like(layer, rng, rows):
    shape = (layer.num_layers, *rows, layer.hidden_size)
    h = random(rng, layer.dtype, *shape)
    return (h, random(rng, layer.dtype, *shape)) if isinstance(layer, fastrnn.LSTM) else h


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_a_short_call_has_the_bits_of_the_general_one(isa, cell, sizes):
    rng = np.random.default_rng(0)
    for options in OPTIONS:
        layer = CELLS[cell](*sizes, **options, rng=1)
        for T, N in itertools.product((1, 2, 7, 30), (1, 3)):
            shape = (N, T) if layer.batch_first else (T, N)
            x, state = random(rng, layer.dtype, *shape, sizes[0]), state_like(layer, rng, (N,))
            assert_same(layer(x, state), general(layer, x, state))
            assert layer._quick is not None and layer._quick[2] == N        # it was the compiled way
            assert_same(layer(x), general(layer, x))
        x, state = random(rng, layer.dtype, 9, sizes[0]), state_like(layer, rng, ())
        assert_same(layer(x, state), general(layer, x, state))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_nothing_is_written_around_out(isa, cell, sizes):
    """Whole vectors are stored where the next step's row follows; before and behind the output lies the caller's."""
    rng = np.random.default_rng(0)
    for options, T, N in itertools.product(OPTIONS, (1, 2, 7), (1, 3)):
        layer = CELLS[cell](*sizes, **options, rng=1)
        shape, step = (N, T) if layer.batch_first else (T, N), N * layer.hidden_size
        x = random(rng, layer.dtype, *shape, sizes[0])
        one_step = x.reshape(T, N, sizes[0])[0]
        for run, block, steps in ((layer, x, T), (layer.stream(N).run, x, T), (layer.stream(N).step, one_step, 1)):
            memory = np.full(128 + steps * step, 7, layer.dtype)
            out = memory[64:-64].reshape(*block.shape[:-1], layer.hidden_size)
            run(block, out=out)
            assert (memory[:64] == 7).all() and (memory[-64:] == 7).all() and (np.abs(out) <= 1).all()


@pytest.mark.parametrize("cell", CELLS)
def test_a_block_is_its_steps_however_it_is_cut(isa, cell):
    rng = np.random.default_rng(0)
    for (sizes, options), N in itertools.product(itertools.product(SIZES, OPTIONS[:3]), (1, 3)):
        layer = CELLS[cell](*sizes, **options, rng=1)
        steps = random(rng, layer.dtype, 23, N, sizes[0])
        stream, other = layer.stream(N), layer.stream(N)
        singly = np.stack([other.step(x) for x in steps])
        cuts = [steps[:1], steps[1:9], steps[9:17], steps[17:]]
        blocks = [np.ascontiguousarray(cut.swapaxes(0, 1)) for cut in cuts] if layer.batch_first else cuts
        outputs = [stream.run(block) for block in blocks]
        if layer.batch_first:
            outputs = [y.swapaxes(0, 1) for y in outputs]
        assert_same(np.concatenate(outputs), singly)
        assert_same(stream.state, other.state)


def test_a_relu_network_whose_values_grow_without_bound(isa):
    layer = fastrnn.RNN(2, 40, nonlinearity="relu", rng=0)
    with layer.updating() as parameters:
        parameters["weight_hh_l0"] *= 40
    x = np.ones((60, 1, 2), np.float32)
    assert_same(layer(x), general(layer, x))
    assert np.isinf(layer(x)[0]).any() or np.isnan(layer(x)[0]).any()


@pytest.mark.parametrize("cell", CELLS)
def test_what_the_compiled_way_does_not_take(cell):
    layer, rng = CELLS[cell](3, 8, rng=0), np.random.default_rng(0)
    x, state = random(rng, np.float32, 6, 2, 3), state_like(layer, rng, (2,))
    right = general(layer, x, state)
    strided = np.empty((6, 2, 6), np.float32)
    strided[..., ::2] = x
    assert_same(layer(strided[..., ::2], state), right)
    assert_same(layer(np.asfortranarray(x), state), right)
    assert_same(layer(x.astype(np.float16), state), general(layer, x.astype(np.float16).astype(np.float32), state))
    assert_same(layer(x.tolist(), state), right)
    assert_same(layer(x.astype(">f4"), state), right)
    lists = [[part.tolist() for part in state], state.tolist() if cell != "LSTM" else None]
    assert_same(layer(x, tuple(lists[0]) if cell == "LSTM" else lists[1]), right)
    for wrong in (x[..., :2], x[0, 0], x.astype(np.float64), x[None]):
        with pytest.raises((TypeError, ValueError), match="x"):
            layer(wrong)
    with pytest.raises((TypeError, ValueError), match="state"):
        layer(x, state[0] if cell == "LSTM" else state[:, :1])
    assert layer(x[:0])[0].shape == (0, 2, 8) and layer(x[:, :0])[0].shape == (6, 0, 8)


@pytest.mark.parametrize("cell", CELLS)
def test_out_is_written_in_place_wherever_it_lies(cell):
    layer, rng = CELLS[cell](8, 8, rng=0), np.random.default_rng(0)
    x, state = random(rng, np.float32, 6, 1, 8), state_like(layer, rng, (1,))
    right = general(layer, x, state)
    out = np.full((6, 1, 8), 9, np.float32)
    assert layer(x, state, out=out)[0] is out
    assert_same(layer(x, state, out=out), right)
    same = x.copy()                                     # over x itself
    assert_same(layer(same, state, out=same), right)
    for shift in (1, 2, 3):                             # over a part of x: each step would overwrite a later one's x
        memory = np.concatenate([x, np.zeros_like(x)])
        assert_same(layer(memory[:6], state, out=memory[shift:6 + shift]), right)
        memory, stream = np.concatenate([x, np.zeros_like(x)]), layer.stream()
        stream.state = state
        assert_same(stream.run(memory[:6], out=memory[shift:6 + shift]), right[0])
    wide = np.zeros((6, 1, 16), np.float32)
    layer(x, state, out=wide[..., 4:12])
    assert_same(wide[..., 4:12], right[0])
    assert not wide[..., :4].any() and not wide[..., 12:].any()
    h = state[0] if cell == "LSTM" else state           # over the initial state
    shared = np.zeros((6, 1, 8), np.float32)
    shared[3] = h[0]
    view = (shared[3:4], state[1]) if cell == "LSTM" else shared[3:4]
    assert_same(layer(x, view, out=shared), right)
    stream = layer.stream()
    stream.state = state
    same = x.copy()
    assert_same(stream.run(same, out=same), right[0])
    frozen = np.zeros((6, 1, 8), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out"):
        layer(x, out=frozen)
    with pytest.raises(ValueError, match="out"):
        stream.run(x, out=frozen)


@pytest.mark.parametrize("hidden_size", [1, 3, 7, 8, 15, 16, 24, 33, 63])
def test_rows_of_the_output_end_where_they_should(isa, hidden_size):
    layer, x = fastrnn.GRU(2, hidden_size, rng=0), np.ones((5, 2), np.float32)
    memory = np.full(5 * hidden_size + 64, 7, np.float32)
    out = memory[:5 * hidden_size].reshape(5, hidden_size)
    layer(x, out=out)
    assert (memory[5 * hidden_size:] == 7).all()
    assert_same(out, general(layer, x)[0])


def test_changed_weights_instruction_sets_and_copies_are_followed():
    layer, x = fastrnn.GRU(2, 8, rng=0), np.ones((5, 1, 2), np.float32)
    before = layer(x)[0]
    with layer.updating() as parameters:
        parameters["bias_ih_l0"] += 1
    assert_same(layer(x), general(layer, x))
    assert (layer(x)[0] != before).any()
    other = pickle.loads(pickle.dumps(layer))
    assert "_quick" not in vars(other)
    assert_same(other(x), layer(x))
    with fastrnn.threads(1):
        assert_same(layer(x), general(layer, x))
    assert layer._quick[1] == dispatch.active_isa()


def test_many_rows_are_left_to_the_general_way():
    layer = fastrnn.GRU(2, 8, rng=0)
    layer(np.ones((2, 20_000, 2), np.float32))
    assert layer._quick is None
    with fastrnn.threads(2):                # work that two threads share
        layer, x = fastrnn.GRU(32, 64, rng=0), np.ones((200, 8, 32), np.float32)
        assert_same(layer(x), general(layer, x))


def test_one_layer_called_by_many_threads_at_once():
    layer, rng = fastrnn.LSTM(8, 48, rng=0), np.random.default_rng(0)
    inputs = [random(rng, np.float32, 400, 1, 8) for _ in range(4)]
    right = [general(layer, x) for x in inputs]
    wrong = []

    def work(x, result):
        for _ in range(50):
            output, (h, c) = layer(x)
            if not (np.array_equal(output, result[0]) and np.array_equal(h, result[1][0])
                    and np.array_equal(c, result[1][1])):
                wrong.append(1)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, right, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_blocks_of_changing_length():
    layer = fastrnn.GRU(4, 8, 2, rng=0)
    stream, rng = layer.stream(2), np.random.default_rng(0)
    x = random(rng, np.float32, 60, 2, 4)
    other, at = layer.stream(2), 0
    for T in (1, 5, 3, 5, 20, 1, 25):
        assert_same(stream.run(x[at:at + T]), np.stack([other.step(row) for row in x[at:at + T]]))
        at += T
    assert_same(stream.state, other.state)


# ---- One step of one row -------------------------------------------------------------------------

class Marked(np.ndarray):
    """A subclass, whose own ways a fast path must not pass by."""


@pytest.mark.parametrize("hidden_size", [1, 7, 8, 15, 16, 17, 24, 25, 32, 40, 48, 63, 64])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_have_the_bits_of_the_general_call_and_write_no_further(isa, cell, hidden_size):
    rng = np.random.default_rng(0)
    for options in OPTIONS:
        layer = CELLS[cell](9, hidden_size, **(options | {"batch_first": False}), rng=1)
        x, state = random(rng, layer.dtype, 7, 9), state_like(layer, rng, (1,))
        right, (*_, last) = general(layer, x[:, None], state)[0], general(layer, x[:, None], state)
        stream = layer.stream()
        stream.state = state
        for row, expected in zip(x, right, strict=True):
            memory = np.full(hidden_size + 64, 7, layer.dtype)
            out = memory[3:3 + hidden_size]
            assert stream.step(row, out) is out
            assert_same(out[None], expected)
            assert (memory[:3] == 7).all() and (memory[3 + hidden_size:] == 7).all()
        assert_same(stream.state, last)


@pytest.mark.parametrize("hidden_size", [8, 24, 40, 64])
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_may_write_over_its_own_input(isa, cell, hidden_size):
    layer, rng = CELLS[cell](hidden_size, hidden_size, 2, rng=0), np.random.default_rng(0)
    x = random(rng, np.float32, 5, hidden_size)
    right, stream, other = general(layer, x[:, None])[0][:, 0], layer.stream(), layer.stream()
    for row, expected in zip(x, right, strict=True):
        same = row.copy()
        assert_same(stream.step(same, same), expected)
        memory = np.concatenate([row, np.zeros_like(row)])
        assert_same(other.step(memory[:hidden_size], memory[3:3 + hidden_size]), expected)


@pytest.mark.parametrize("cell", CELLS)
def test_steps_from_and_to_arrays_of_every_kind(cell):
    layer, rng = CELLS[cell](6, 24, rng=0), np.random.default_rng(0)
    x = random(rng, np.float32, 11, 6)
    right, last = general(layer, x[:, None])
    right, stream = right[:, 0], layer.stream()
    wide, strided, frozen = np.zeros((11, 12), np.float32), np.zeros(48, np.float32), np.zeros(24, np.float32)
    wide[:, ::2] = x
    frozen.flags.writeable = False
    read_only = x[1].copy()
    read_only.flags.writeable = False
    assert_same(stream.step(wide[0, ::2], np.empty(24, np.float32)), right[0])
    assert_same(stream.step(read_only, strided[::2]), right[1])
    assert not strided[1::2].any()
    marked = np.empty(24, np.float32).view(Marked)
    assert stream.step(x[2].view(Marked), marked) is marked
    assert_same(np.asarray(marked), right[2])
    assert_same(stream.step(x[3].astype(">f4")), right[3])
    assert_same(stream.step(x[4].tolist()), right[4])
    assert_same(stream.step(x[5:6]), right[5:6])
    state = stream.state
    for wrong in (frozen, np.zeros(24), np.zeros(23, np.float32), np.zeros((1, 24), np.float32), [0.0] * 24):
        with pytest.raises((TypeError, ValueError), match="out"):
            stream.step(x[6], wrong)
    for wrong in (x[6, :5], x[6].astype(np.float64), x[6:8], x[6] + 1j):
        with pytest.raises((TypeError, ValueError), match="x"):
            stream.step(wrong, np.empty(24, np.float32))
    assert_same(stream.state, state)                    # what was refused has done nothing
    assert_same(stream.step(x[6]), right[6])
    again = layer.restore(stream.snapshot())            # in between, in either set of buffers
    assert_same(again.step(x[7]), right[7])
    assert_same(stream.step(x[7], np.empty(24, np.float32)), right[7])
    again = pickle.loads(pickle.dumps(stream))
    assert_same([again.step(x[8]), stream.run(x[8:9])[0]], [right[8], right[8]])
    assert_same([stream.run(x[9:])[-1], stream.state], [right[10], last])


def test_a_step_is_refused_while_another_thread_is_in_the_stream():
    layer = fastrnn.GRU(2, 8, rng=0)
    stream, x, out, result = layer.stream(), np.ones(2, np.float32), np.full(8, 7, np.float32), []

    def work():
        with pytest.raises(RuntimeError, match="another thread"):
            stream.step(x, out)
        result.append(1)

    def in_another_thread():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    stream._exclusively(in_another_thread)
    assert result and (out == 7).all() and not np.any(stream.state)
    assert_same(stream.step(x, out), layer(x[None])[0][0])


def test_the_compiled_part_of_a_stream_takes_plain_arrays_alone():
    """What is not plain is a subclass's to convert, and the base says so."""
    stream, x = fastrnn.GRU(3, 4, rng=0).stream(), np.ones(3, np.float32)
    for method, arguments in (("_convert", (x,)), ("_check_out", (x, (1, 4))), ("_run_any", (x, None))):
        with pytest.raises(TypeError, match="StreamCore is a base class"):
            getattr(_core.StreamCore, method)(stream, *arguments)


@pytest.mark.parametrize("precision, size", [("float32", 4), ("int8", 1), ("bfloat16", 2)])
def test_packed_weights_take_what_their_numbers_take_and_may_be_read(precision, size):
    """Of a layer whose sizes fill panels and vectors: W_ih and W_hh of 4 gates."""
    layer = fastrnn.LSTM(64, 64, rng=0)
    layer = layer if precision == "float32" else layer.quantized(precision)
    stream, x = layer.stream(), np.ones(64, np.float32)
    assert stream.parameters[0].packed_bytes == 2 * 64 * 4 * 64 * size
    expected = layer.stream().step(x)
    stream.parameters[0].read(3)
    assert_same(stream.step(x), expected)
