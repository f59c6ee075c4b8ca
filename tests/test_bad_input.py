"""What bad input gets: the table of the API's contract, line by line, for every public call.

A NaN or an Inf, and sums past every limit, are in test_promises.py; layouts of a layer's arguments in test_kernels.py.
"""

import contextlib
import dataclasses
import mmap
import os
import sys
import tracemalloc
import types

import hypothesis
import numpy as np
import pytest
from child import python
from helpers import KINDS, LAYOUTS, as_state, assert_same_bits, make_layer, make_state
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib.stride_tricks import as_strided

import fastrnn

T, N, I, H = 4, 2, 3, 5
FUZZ_EXAMPLES = int(os.environ.get("FASTRNN_FUZZ_EXAMPLES", 300))


# ---- Every public call that takes arrays --------------------------------------------------------

def arrays(*results):
    """All arrays of what a call gives, as a dict for assert_same_bits."""
    found = []
    for result in results:
        if isinstance(result, np.ndarray):
            found.append(result)
        elif dataclasses.is_dataclass(result):
            found += arrays(result.input, result.state, result.parameters).values()
        elif isinstance(result, (dict, types.MappingProxyType)):
            found += arrays(*result.values()).values()
        elif isinstance(result, tuple):
            found += arrays(*result).values()
    return dict(enumerate(found))


# call -> the arguments it takes, those tried here. h and c, dh and dc are the parts of `state` and `d_state`.
TRIED = {
    "layer": ["x", "h", "c"], "layer.forward": ["x", "h", "c"], "layer.backward": ["d_output", "dh", "dc"],
    "cell": ["x", "h", "c"], "cell.forward": ["x", "h", "c"], "cell.backward": ["dh", "dc"],
    "stream.step": ["x"], "stream.run": ["block"], "stream.state": ["h", "c"],
    "layer.load_state_dict": ["weight_hh_l1", "bias_ih_l0"], "cell.load_state_dict": ["weight_ih", "bias_hh"],
}
PUBLIC = {"h": "state", "c": "state", "dh": "d_state", "dc": "d_state"}
TAKE_OUT = ["layer", "cell", "stream.step", "stream.run"]
each_argument = pytest.mark.parametrize("name, argument", [(name, a) for name, tried in TRIED.items() for a in tried])


@contextlib.contextmanager
def refuses(error, name):
    """Asserts that exception, not one of its subclasses, and that the message begins with the argument's name."""
    with pytest.raises(error, match=rf"^{name}\b") as raised:
        yield
    assert raised.type is error


class Calls:
    """Fresh models, every call of TRIED on them with good arguments, and what no failing call may change."""

    def __init__(self, dtype="float32"):
        rng = np.random.default_rng(5)

        def new(*shape):
            return rng.standard_normal(shape).astype(dtype)

        self.layer = layer = make_layer("lstm", I, H, 2, rng=rng, dtype=dtype)
        self.cell = cell = fastrnn.LSTMCell(I, H, dtype=dtype, rng=0)
        self.stream = stream = layer.stream(N)
        stream.state = new(2, N, H), new(2, N, H)
        x, h, c, h_1, c_1 = new(T, N, I), new(2, N, H), new(2, N, H), new(N, H), new(N, H)
        d_output, dh, dc, dh_1, dc_1 = new(T, N, H), new(2, N, H), new(2, N, H), new(N, H), new(N, H)
        cache, cell_cache = layer.forward(x, (h, c))[2], cell.forward(x[0], (h_1, c_1))[1]
        x_1 = x[0].copy()

        def set_state(h, c):
            stream.state = h, c
            return stream.state

        def load(model):
            def call(**values):
                model.load_state_dict(values)
                return model.parameters
            return call

        self.calls = {
            "layer": (lambda x, h, c, **out: layer(x, (h, c), **out), dict(x=x, h=h, c=c)),
            "layer.forward": (lambda x, h, c: layer.forward(x, (h, c)), dict(x=x, h=h, c=c)),
            "layer.backward": (lambda d_output, dh, dc: layer.backward(cache, d_output, (dh, dc)),
                               dict(d_output=d_output, dh=dh, dc=dc)),
            "cell": (lambda x, h, c, **out: cell(x, (h, c), **out), dict(x=x_1, h=h_1, c=c_1)),
            "cell.forward": (lambda x, h, c: cell.forward(x, (h, c)), dict(x=x_1, h=h_1, c=c_1)),
            "cell.backward": (lambda dh, dc: cell.backward(cell_cache, (dh, dc)), dict(dh=dh_1, dc=dc_1)),
            "stream.step": (stream.step, dict(x=x_1)),
            "stream.run": (stream.run, dict(block=x)),
            "stream.state": (set_state, dict(h=h, c=c)),
            "layer.load_state_dict": (load(layer), {k: new(*v.shape) for k, v in layer.parameters.items()}),
            "cell.load_state_dict": (load(cell), {k: new(*v.shape) for k, v in cell.parameters.items()}),
        }

    def new_out(self, name):
        """A good `out` of a call, full of 7: an array, or the pair of a cell."""
        shape = {"layer": (T, N, H), "cell": (N, H), "stream.step": (N, H), "stream.run": (T, N, H)}[name]
        out = np.full(shape, 7, self.layer.dtype)
        return (out, out.copy()) if name == "cell" else out

    def run(self, name, **changed):
        call, arguments = self.calls[name]
        return call(**arguments | changed)

    def watched(self):
        return arrays(self.layer.parameters, self.cell.parameters, self.stream.state)

    def refused(self, error, public, name, **changed):
        """Asserts the exception, that its message begins with the argument's name, and that nothing has changed."""
        before = self.watched()
        out = self.new_out(name) if name in TAKE_OUT and "out" not in changed else None
        with refuses(error, public):
            self.run(name, **changed, **({} if out is None else {"out": out}))
        assert_same_bits(self.watched(), before)
        assert all(np.all(a == 7) for a in arrays(out).values())


NOT_NUMBERS = {
    "None": lambda a: None, "object": lambda a: a.astype(object), "str": lambda a: a.astype(str),
    "bytes": lambda a: a.astype(bytes), "complex": lambda a: a.astype(complex),
    "set": lambda a: {1.0}, "function": lambda a: print,
    "structured": lambda a: np.zeros(a.shape, [("re", a.dtype), ("im", a.dtype)]),
    "datetime": lambda a: np.zeros(a.shape, "datetime64[s]"), "None inside": lambda a: [None] * len(a)}

WRONG_VALUES = {
    "one dimension more": lambda a: np.concatenate([a[None], a[None]]), "one dimension less": lambda a: a[..., 0],
    "a number": lambda a: 1.0, "short": lambda a: a[..., :-1], "long": lambda a: np.concatenate([a, a], -1),
    "empty": lambda a: a[..., :0], "broadcastable": lambda a: a[..., :1], "ragged": lambda a: [[1.0], [1.0, 2.0]],
    "float64": lambda a: a.astype(np.float64), "big-endian float64": lambda a: a.astype(">f8"),
    "longdouble": lambda a: a.astype(np.longdouble)}


@pytest.mark.parametrize("fault", NOT_NUMBERS)
@each_argument
def test_wrong_kind_is_a_type_error(name, argument, fault):
    calls = Calls()
    wrong = NOT_NUMBERS[fault](calls.calls[name][1][argument])
    calls.refused(TypeError, PUBLIC.get(argument, argument), name, **{argument: wrong})


@pytest.mark.parametrize("fault", WRONG_VALUES)
@each_argument
def test_wrong_shape_or_precision_is_a_value_error(name, argument, fault):
    calls = Calls()
    wrong = WRONG_VALUES[fault](calls.calls[name][1][argument])
    calls.refused(ValueError, PUBLIC.get(argument, argument), name, **{argument: wrong})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_argument
def test_any_layout_gives_the_bits_of_the_contiguous_copy(name, argument, dtype, layout):
    expected = arrays(Calls(dtype).run(name))
    calls = Calls(dtype)
    given = LAYOUTS[layout](calls.calls[name][1][argument])
    before = given.tobytes()
    assert_same_bits(arrays(calls.run(name, **{argument: given})), expected)
    assert given.tobytes() == before


@pytest.mark.parametrize("lower", ["float16", "int8", "uint16", "int64", "bool", ">i4", "float32", ">f2"])
@each_argument
def test_lower_precision_is_converted_up(name, argument, lower):
    calls, same = Calls("float64"), Calls("float64")
    given = (3 * calls.calls[name][1][argument]).astype(np.int8).astype(lower)
    expected = arrays(same.run(name, **{argument: given.astype(np.float64)}))
    assert_same_bits(arrays(calls.run(name, **{argument: given})), expected)


def test_lists_are_arrays():
    calls = Calls("float64")
    for name, tried in TRIED.items():
        given = {a: calls.calls[name][1][a].tolist() for a in tried}
        assert_same_bits(arrays(calls.run(name, **given)), arrays(Calls("float64").run(name)))
        calls = Calls("float64")


# ---- out ----------------------------------------------------------------------------------------

def overlapping(a):
    """Of a's shape; neighbours share half of their bytes, along the last axis."""
    wide = np.full(2 * a.size, 7, a.dtype)
    return as_strided(wide, a.shape, (*[s // 2 * 2 for s in a.strides[:-1]], a.itemsize // 2))


def repeated(a):
    return as_strided(np.full(a.shape[-1], 7, a.dtype), a.shape, (*[0] * (a.ndim - 1), a.itemsize))


def interleaved(a):
    """Of a's shape; every row shares all but its first element with the next."""
    return as_strided(np.full(2 * a.size, 7, a.dtype), a.shape, (*a.strides[:-2], a.itemsize, a.itemsize))


WRONG_OUT = {
    "read-only": LAYOUTS["read_only"], "repeated": repeated, "overlapping": overlapping, "interleaved": interleaved,
    "one dimension more": lambda a: a[None], "short": lambda a: a[..., :-1], "one row": lambda a: a[:1],
    "transposed": lambda a: a.swapaxes(0, -1), "float64": lambda a: a.astype(np.float64),
    "int": lambda a: a.astype(int), "big-endian": LAYOUTS["big_endian"]}
outs = pytest.mark.parametrize("name, part", [(name, 0) for name in TAKE_OUT] + [("cell", 1)])


def with_part(out, part, change):
    """`out` with one of its arrays changed, and that array."""
    parts = list(out) if isinstance(out, tuple) else [out]
    parts[part] = change(parts[part])
    return (tuple(parts) if isinstance(out, tuple) else parts[0]), parts


@pytest.mark.parametrize("fault", WRONG_OUT)
@outs
def test_unsuitable_out(name, part, fault):
    calls = Calls()
    out, parts = with_part(calls.new_out(name), part, WRONG_OUT[fault])
    before = [a.tobytes() for a in parts]
    calls.refused(ValueError, "out", name, out=out)
    assert [a.tobytes() for a in parts] == before


@pytest.mark.parametrize("wrong", [1, "out", [[7.0]], np.float32(7), object()])
@outs
def test_out_that_is_no_array(name, part, wrong):
    calls = Calls()
    out, _ = with_part(calls.new_out(name), part, lambda a: wrong)
    calls.refused(TypeError, "out", name, out=out)


@pytest.mark.parametrize("wrong", [np.zeros((N, H), np.float32), (np.zeros((N, H), np.float32),), 3])
def test_out_of_an_lstm_cell_is_a_pair(wrong):
    Calls().refused(TypeError, "out", "cell", out=wrong)


def test_out_of_an_lstm_cell_is_two_arrays_apart():
    out = np.full((N, H), 7, np.float32)
    Calls().refused(ValueError, "out", "cell", out=(out, out))
    assert np.all(out == 7)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_out_that_is_an_input_of_a_layer(isa, kind, ragged):
    rng = np.random.default_rng(1)
    layer = make_layer(kind, H, H, 2, rng=rng)
    x, state = rng.standard_normal((2, N, H)).astype(np.float32), make_state(layer, N, rng)
    lengths = [1, 2] if ragged else None
    expected, last = layer(x, as_state(state), lengths=lengths)
    for at in range(1 + len(state)):        # x, h_0, c_0 are all [2, N, H] here
        given = [x.copy(), *(part.copy() for part in state)]
        found, found_last = layer(given[0], as_state(tuple(given[1:])), lengths=lengths, out=given[at])
        assert found is given[at]
        assert_same_bits(arrays(found, found_last), arrays(expected, last))


def test_out_in_the_memory_of_the_mask():
    layer, x = make_layer("gru", I, H, rng=0), np.ones((T, N, I), np.float32)
    mask = np.arange(T * N).reshape(T, N) % 3 == 0
    expected, last = layer(x, reset_mask=mask)
    out = np.zeros((T, N, H), np.float32)
    inside = out.view(np.bool_).reshape(-1)[:T * N].reshape(T, N)
    inside[...] = mask
    assert_same_bits(arrays(layer(x, reset_mask=inside, out=out)), arrays(expected, last))


def test_out_that_is_an_input_of_a_cell():
    rng = np.random.default_rng(1)
    lstm, gru = fastrnn.LSTMCell(H, H, rng=0), fastrnn.GRUCell(H, H, rng=0)
    x, h, c = rng.standard_normal((3, H, H)).astype(np.float32)
    expected = arrays(lstm(x, (h, c)))
    for out in ((0, 1), (1, 0), (1, 2), (2, 1), (2, 0)):
        given = [x.copy(), h.copy(), c.copy()]
        assert_same_bits(arrays(lstm(given[0], tuple(given[1:]), out=tuple(given[i] for i in out))), expected)
    expected = gru(x, h)
    for at in range(2):
        given = [x.copy(), h.copy()]
        assert_same_bits(gru(*given, out=given[at]), expected)
    square = h.copy()
    assert_same_bits(gru(x, h, out=square.T), expected)


def test_out_that_is_an_input_of_a_stream():
    layer = make_layer("lstm", H, H, 2, rng=0)
    block = np.random.default_rng(1).standard_normal((T + 1, N, H)).astype(np.float32)
    expected = layer(block)[0]
    for shift in (0, 1):
        given = np.concatenate([block, block[:1]])
        layer.stream(N).run(given[:T + 1], out=given[shift:T + 1 + shift])
        assert_same_bits(given[shift:T + 1 + shift], expected)
    given, stream = block.copy(), layer.stream(N)
    for x in given:
        stream.step(x, out=x)
    assert_same_bits(given, expected)
    given, stream = block.copy(), layer.stream(N)
    for x in given:                         # backwards in the same memory: not of the fast path
        stream.step(x, out=x[::-1, ::-1])
    assert_same_bits(np.ascontiguousarray(given[:, ::-1, ::-1]), expected)


# ---- lengths, reset_mask, pairs, caches, rows ---------------------------------------------------

X = np.zeros((T, N, I), np.float32)
BAD_LENGTHS = [
    (ValueError, [-1, 2]), (ValueError, [T + 1, 2]), (ValueError, [1]), (ValueError, [1, 2, 3]), (ValueError, []),
    (ValueError, [[1, 2]]), (ValueError, 1), (ValueError, np.uint64([2**63, 1])), (ValueError, [[1], [1, 2]]),
    (TypeError, [1.0, 2.0]), (TypeError, [True, False]), (TypeError, "ab"), (TypeError, ["1", "2"]),
    (TypeError, [None, 1]), (TypeError, object()), (TypeError, [1j, 1])]
BAD_MASKS = [
    (ValueError, np.zeros((T, N + 1), bool)), (ValueError, np.zeros(T, bool)), (ValueError, np.zeros((N, T), bool)),
    (ValueError, True), (ValueError, [[True], [True, False]]), (TypeError, np.zeros((T, N), int)),
    (TypeError, np.zeros((T, N))), (TypeError, "mask"), (TypeError, [[None] * N] * T), (TypeError, object())]


@pytest.mark.parametrize("method", ["__call__", "forward"])
@pytest.mark.parametrize("argument, error, wrong", [("lengths", *case) for case in BAD_LENGTHS]
                         + [("reset_mask", *case) for case in BAD_MASKS])
def test_lengths_and_masks(method, argument, error, wrong):
    with refuses(error, argument):
        getattr(make_layer("gru", I, H, rng=0), method)(X, **{argument: wrong})


NOT_PAIRS = [np.zeros((2, 2, N, H), np.float32), (np.zeros((2, N, H), np.float32),),
             (np.zeros((2, N, H), np.float32),) * 3, {"h": 1, "c": 2}, "hc", 1.0]


@pytest.mark.parametrize("wrong", NOT_PAIRS, ids=["stacked", "one", "three", "dict", "str", "number"])
def test_state_of_an_lstm_is_a_pair(wrong):
    layer, cell = make_layer("lstm", I, H, 2, rng=0), fastrnn.LSTMCell(I, H, rng=0)
    stream, cache, cell_cache = layer.stream(N), layer.forward(X)[2], cell.forward(X[0])[1]
    for public, call in [
            ("state", lambda: layer(X, wrong)), ("state", lambda: layer.forward(X, wrong)),
            ("state", lambda: cell(X[0], wrong)), ("state", lambda: cell.forward(X[0], wrong)),
            ("state", lambda: setattr(stream, "state", wrong)),
            ("d_state", lambda: layer.backward(cache, np.zeros((T, N, H), np.float32), wrong)),
            ("d_state", lambda: cell.backward(cell_cache, wrong))]:
        with refuses(TypeError, public):
            call()


def test_state_of_a_gru_is_no_pair():
    layer, pair = make_layer("gru", I, H, rng=0), (np.zeros((1, N, H), np.float32),) * 2
    with refuses(ValueError, "state"):
        layer(X, pair)
    with refuses(ValueError, "d_state"):
        layer.backward(layer.forward(X)[2], np.zeros((T, N, H), np.float32), pair)


def test_d_state_of_a_cell_is_not_optional():
    for cell in (fastrnn.GRUCell(I, H), fastrnn.LSTMCell(I, H)):
        with refuses(TypeError, "d_state"):
            cell.backward(cell.forward(X[0])[1], None)


@pytest.mark.parametrize("wrong", [None, 1, "cache", (1, True), (None, None), {}, object()])
def test_cache_that_is_none(wrong):
    layer, cell = make_layer("gru", I, H, rng=0), fastrnn.GRUCell(I, H)
    with refuses(TypeError, "cache"):
        layer.backward(wrong, np.zeros((T, N, H), np.float32))
    with refuses(TypeError, "cache"):
        cell.backward(wrong, np.zeros((N, H), np.float32))


def test_cache_of_another_model():
    layer, cell = make_layer("gru", I, H, rng=0), fastrnn.GRUCell(I, H)
    with refuses(ValueError, "cache"):
        make_layer("gru", I, H, rng=0).backward(layer.forward(X)[2], np.zeros((T, N, H), np.float32))
    with refuses(ValueError, "cache"):
        fastrnn.GRUCell(I, H).backward(cell.forward(X[0])[1], np.zeros((N, H), np.float32))
    with refuses(TypeError, "cache"):
        layer.backward(cell.forward(X[0])[1], np.zeros((1, N, H), np.float32))
    with refuses(TypeError, "cache"):
        cell.backward(layer.forward(X)[2], np.zeros((N, H), np.float32))


@pytest.mark.parametrize("error, wrong", [
    (ValueError, N), (ValueError, -N - 1), (ValueError, [0, N]), (ValueError, [True]), (ValueError, [[0], [0, 1]]),
    (ValueError, np.zeros((N, N), bool)), (ValueError, np.uint64(2**63)),
    (TypeError, 0.0), (TypeError, "0"), (TypeError, [None]), (TypeError, object())])
def test_rows_of_reset(error, wrong):
    calls = Calls()
    before = calls.watched()
    with refuses(error, "rows"):
        calls.stream.reset(wrong)
    assert_same_bits(calls.watched(), before)


@pytest.mark.parametrize("rows, cleared", [(None, [0, 1, 2]), (1, [1]), (-1, [2]), ([0, 2], [0, 2]), ([], []),
                                           ([True, False, True], [0, 2]), (np.int8([1, 1]), [1])])
def test_reset_zeroes_those_rows_alone(rows, cleared):
    stream = make_layer("lstm", I, H, 2, rng=0).stream(3)
    stream.step(np.full((3, I), np.nan, np.float32))
    stream.reset(rows)
    for part in stream.state:
        assert np.all(part[:, cleared] == 0)
        assert np.all(np.isnan(np.delete(part, cleared, axis=1)))


def test_nan_in_a_row_of_a_stream():
    layer, x = make_layer("lstm", I, H, 2, rng=0), np.random.default_rng(1).random((6, 3, I), dtype=np.float32)
    expected = layer(x)[0]
    broken, stream = x.copy(), layer.stream(3)
    broken[2, 1] = np.nan
    outputs = np.stack([stream.step(step) for step in broken])
    assert_same_bits(outputs[:, [0, 2]], expected[:, [0, 2]])
    assert_same_bits(outputs[:2], expected[:2])
    assert np.all(np.isnan(outputs[2:, 1]))
    stream.reset(1)
    assert_same_bits(np.stack([stream.step(step) for step in x])[:, 1], expected[:, 1])


# ---- Constructors and options -------------------------------------------------------------------

NOT_SIZES = [(TypeError, wrong) for wrong in (True, np.True_, 2.0, np.float32(2), "2", None, [2], 1j)]
BAD_SIZES = [*NOT_SIZES, *((ValueError, wrong) for wrong in (0, -1, np.int8(-3), -2**70))]
NOT_FLAGS = [(TypeError, wrong) for wrong in (0, 1, None, "yes", 1.0, [True])]
LAYERS, CELLS = (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM), (fastrnn.RNNCell, fastrnn.GRUCell, fastrnn.LSTMCell)
BAD_OPTIONS = {
    "input_size": BAD_SIZES, "hidden_size": BAD_SIZES, "bias": NOT_FLAGS,
    "dtype": [(TypeError, wrong) for wrong in (np.float16, np.longdouble, complex, int, object, "half", "nonsense", 4,
                                               ">f4", None, [("a", "f4")], (np.float32, -1), object())],
    "rng": [*((TypeError, wrong) for wrong in (True, 1.5, "seed", [1], np.random)), (ValueError, -1)]}
BAD_LAYER_OPTIONS = BAD_OPTIONS | {
    "num_layers": BAD_SIZES, "batch_first": NOT_FLAGS, "bidirectional": NOT_FLAGS,
    "dropout": [*((TypeError, wrong) for wrong in (True, None, "0.5", [0.5], 1j)),
                *((ValueError, wrong) for wrong in (-0.1, 1.5, float("nan"), float("inf"), np.float32(2)))],
    "proj_size": [*NOT_SIZES, (ValueError, -1)]}
OF_ONE_KIND = {
    fastrnn.LSTM: {"proj_size": [(ValueError, H), (ValueError, H + 1)]},
    fastrnn.GRU: {"reset_after": NOT_FLAGS, "proj_size": [(ValueError, 1)]},
    fastrnn.RNN: {"nonlinearity": [*((ValueError, wrong) for wrong in ("relu6", "TANH", "")),
                                   *((TypeError, wrong) for wrong in (None, 3, ["tanh"], np.array(["tanh", "relu"])))],
                  "proj_size": [(ValueError, 1)]},
    fastrnn.GRUCell: {"reset_after": NOT_FLAGS},
    fastrnn.RNNCell: {"nonlinearity": [(ValueError, "relu6"), (TypeError, None)]}}


def constructions():
    for cls in LAYERS + CELLS:
        table = dict(BAD_LAYER_OPTIONS if cls in LAYERS else BAD_OPTIONS)
        for option, faults in OF_ONE_KIND.get(cls, {}).items():
            table[option] = [*table.get(option, []), *faults]
        for option, faults in table.items():
            for error, wrong in faults:
                yield pytest.param(cls, option, error, wrong, id=f"{cls.__name__}-{option}-{wrong!r:.40}")


@pytest.mark.parametrize("cls, option, error, wrong", list(constructions()))
def test_constructors(cls, option, error, wrong):
    with refuses(error, option):
        cls(**{"input_size": I, "hidden_size": H} | {option: wrong})


@pytest.mark.parametrize("option", [{"num_layers": 2}, {"batch_first": True}, {"bidirectional": True}, {"proj_size": 2},
                                    {"dropout": 0.5}, {"nonsense": 1}], ids=str)
@pytest.mark.parametrize("cls", CELLS)
def test_a_cell_takes_no_option_of_a_layer(cls, option):
    with pytest.raises(TypeError, match=next(iter(option))):
        cls(I, H, **option)


@pytest.mark.parametrize("cls", LAYERS + CELLS)
def test_unknown_options_and_missing_sizes(cls):
    with pytest.raises(TypeError, match="nonsense"):
        cls(I, H, nonsense=1)
    with pytest.raises(TypeError, match="hidden_size"):
        cls(I)


@pytest.mark.parametrize("error, wrong", BAD_SIZES)
def test_batch_size_of_a_stream(error, wrong):
    with refuses(error, "batch_size"):
        make_layer("gru", I, H, rng=0).stream(wrong)


def test_bidirectional_layers_cannot_stream():
    with pytest.raises(ValueError, match="a bidirectional layer cannot stream"):
        make_layer("gru", I, H, rng=0, bidirectional=True).stream()


@pytest.mark.parametrize("error, wrong", NOT_FLAGS)
def test_flags_of_methods(error, wrong):
    layer = make_layer("lstm", I, H, rng=0)
    with refuses(error, "return_cell_states"):
        layer(X, return_cell_states=wrong)
    with refuses(error, "strict"):
        layer.load_state_dict(layer.state_dict(), strict=wrong)


@pytest.mark.parametrize("wrong", [None, "snapshot", 1, [1, 2], object(), np.zeros(3, np.uint8)])
def test_snapshot_that_is_no_bytes(wrong):
    with refuses(TypeError, "snapshot"):
        make_layer("gru", I, H, rng=0).restore(wrong)


@pytest.mark.parametrize("call", ["set_num_threads", "threads"])
@pytest.mark.parametrize("error, wrong", [(ValueError, 0), (ValueError, -1), (ValueError, -2**70), *NOT_SIZES])
def test_thread_counts(call, error, wrong):
    before = fastrnn.get_num_threads()
    with refuses(error, "num_threads"):
        if call == "threads":
            fastrnn.threads(wrong).__enter__()
        else:
            fastrnn.set_num_threads(wrong)
    assert fastrnn.get_num_threads() == before


@pytest.mark.parametrize("count", [1, 3, 257, 2**31, 2**32, 2**63 - 1, 2**63, 2**70], ids=str)
def test_a_thread_count_that_is_taken_is_of_use(count):
    layer, x = make_layer("gru", 40, 60, rng=0), np.ones((60, 9, 40), np.float32)
    expected = arrays(layer(x))
    if count < 2**63:
        with fastrnn.threads(count):
            assert_same_bits(arrays(layer(x)), expected)
    else:
        with refuses(ValueError, "num_threads"), fastrnn.threads(count):
            layer(x)


# ---- Parameters ---------------------------------------------------------------------------------

BAD_MAPPINGS = {
    "missing": (ValueError, "weight_hh", lambda d, key: {k: v for k, v in d.items() if k != key}),
    "unknown": (ValueError, "surplus", lambda d, key: d | {"surplus": d[key]}),
    "not a name": (ValueError, "7", lambda d, key: d | {7: d[key]}),
    "empty": (ValueError, "weight_hh", lambda d, key: {}),
    "None": (TypeError, "^state_dict", lambda d, key: None),
    "list": (TypeError, "^state_dict", lambda d, key: list(d.items())),
    "array": (TypeError, "^state_dict", lambda d, key: d[key])}


@pytest.mark.parametrize("model", ["layer", "cell"])
@pytest.mark.parametrize("fault", BAD_MAPPINGS)
def test_mappings_of_load_state_dict(model, fault):
    calls = Calls()
    model = getattr(calls, model)
    key = next(name for name in model.parameters if name.startswith("weight_hh"))
    error, message, change = BAD_MAPPINGS[fault]
    wrong, before = change({name: value + 1 for name, value in model.state_dict().items()}, key), calls.watched()
    with pytest.raises(error, match=message):
        model.load_state_dict(wrong)
    assert_same_bits(calls.watched(), before)


def test_names_in_messages_are_the_callers():
    cell = fastrnn.GRUCell(I, H)
    with pytest.raises(ValueError, match="'weight_hh'"):
        cell.load_state_dict({name: value for name, value in cell.state_dict().items() if name != "weight_hh"})


def test_load_that_is_not_strict_still_checks_what_it_takes():
    calls = Calls()
    before = calls.watched()
    with refuses(ValueError, "weight_hh_l1"):
        calls.layer.load_state_dict({"bias_ih_l0": np.ones(4 * H, np.float32), "weight_hh_l1": np.ones(3, np.float32)},
                                    strict=False)
    assert_same_bits(calls.watched(), before)
    calls.layer.load_state_dict({"bias_ih_l0": np.ones(4 * H, np.float32), "surplus": 1}, strict=False)
    assert np.all(calls.layer.parameters["bias_ih_l0"] == 1)


@pytest.mark.parametrize("model", ["layer", "cell"])
def test_parameters_that_are_updated(model):
    calls = Calls()
    model, before = getattr(calls, model), calls.watched()
    first = next(iter(model.parameters))
    with pytest.raises(ValueError, match="read-only"):
        model.parameters[first][...] = 0
    with pytest.raises(TypeError):
        model.parameters[first] = model.parameters[first] + 1
    assert_same_bits(calls.watched(), before)
    with refuses(ValueError, first), model.updating() as values:
        values[first] = np.zeros(3, np.float32)
    with contextlib.suppress(ZeroDivisionError), model.updating() as values:
        values[first] += 1 / 0
    model.state_dict()[first][...] = 0
    assert_same_bits(calls.watched(), before)


def test_parameters_are_copies_of_what_was_loaded():
    layer = make_layer("gru", I, H, rng=0)
    given = {name: value + 1 for name, value in layer.state_dict().items()}
    layer.load_state_dict(given)
    expected = layer(X + 1)[0]
    for value in given.values():
        value[...] = np.nan
    assert_same_bits(layer(X + 1)[0], expected)


# ---- Empty and huge -----------------------------------------------------------------------------

@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("steps, rows", [(0, N), (T, 0), (0, 0), (0, None)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_steps_or_no_rows(isa, kind, steps, rows, bidirectional, ragged):
    rng = np.random.default_rng(3)
    layer = make_layer(kind, I, H, 2, rng=rng, bidirectional=bidirectional)
    lead = (steps,) if rows is None else (steps, rows)
    x = np.zeros((*lead, I), np.float32)
    state = make_state(layer, 1 if rows is None else rows, rng)
    options = {"lengths": np.zeros(state[0].shape[1], int), "reset_mask": np.zeros(lead, bool)} if ragged else {}
    state = tuple(part[:, 0] for part in state) if rows is None else state
    output, last = layer(x, as_state(state), **options)
    assert output.shape == (*lead, H * (1 + bidirectional)) and output.dtype == np.float32
    assert_same_bits(arrays(last), arrays(state))
    kept, kept_last, cache = layer.forward(x, as_state(state), **options)
    assert_same_bits(arrays(kept, kept_last), arrays(output, last))
    grads = layer.backward(cache, kept, as_state(state))
    assert grads.input.shape == x.shape
    assert_same_bits(arrays(grads.state), arrays(state))
    for name, value in grads.parameters.items():
        assert value.shape == layer.parameters[name].shape and np.all(value == 0)


def test_no_rows_or_no_steps_elsewhere():
    calls = Calls()
    before = calls.stream.state
    out = np.zeros((0, N, H), np.float32)
    assert calls.stream.run(X[:0]).shape == (0, N, H) and calls.stream.run(X[:0], out=out) is out
    assert_same_bits(arrays(calls.stream.state), arrays(before))
    (h, c), cache = calls.cell.forward(X[0, :0])
    assert h.shape == c.shape == (0, H)
    grads = calls.cell.backward(cache, (h, c))
    assert grads.input.shape == (0, I) and np.all(grads.parameters["weight_ih"] == 0)


def test_no_rows_of_countless_steps():
    """A walk over 2^40 steps of no rows would take half an hour."""
    python("""
        layer = fastrnn.GRU(3, 5, rng=0)
        output, h_n, cache = layer.forward(np.empty((2**40, 0, 3), np.float32))
        assert layer.backward(cache, output).input.shape == (2**40, 0, 3)
    """, timeout=20)


def of_stride_zero(*shape):
    return np.broadcast_to(np.float32(1), shape)


WIDE = 2**60
PAST_2_63 = {       # bytes
    "hidden_size": lambda layer: fastrnn.GRU(1, WIDE),
    "input_size": lambda layer: fastrnn.LSTM(WIDE, 4),
    "either": lambda layer: fastrnn.RNN(2**31, 2**31),
    "hidden_size past int64": lambda layer: fastrnn.GRU(1, 2**70),
    "input_size past int64": lambda layer: fastrnn.GRUCell(2**70, 1),
    "batch_size": lambda layer: layer.stream(2**62),
    "batch_size past int64": lambda layer: layer.stream(2**70),
    "T": lambda layer: layer(of_stride_zero(WIDE, 1, 1)),
    "N": lambda layer: layer(of_stride_zero(1, WIDE, 1)),
    "T and N, backwards": lambda layer: layer.forward(of_stride_zero(2**30, 2**30, 1)),
    "rows of a cell": lambda layer: fastrnn.GRUCell(1, H)(of_stride_zero(WIDE, 1)),
    "steps of a stream": lambda layer: layer.stream().run(of_stride_zero(WIDE, 1))}
BELOW_2_63 = {      # more than any address space of today
    "hidden_size": lambda layer: fastrnn.RNN(1, 2**24),
    "input_size": lambda layer: fastrnn.LSTM(2**52, 4),
    "either": lambda layer: fastrnn.RNN(2**26, 2**26),
    "batch_size": lambda layer: layer.stream(2**52),
    "T": lambda layer: layer(of_stride_zero(2**52, 1, 1)),
    "N": lambda layer: layer(of_stride_zero(1, 2**52, 1)),
    "T and N, backwards": lambda layer: layer.forward(of_stride_zero(2**26, 2**26, 1)),
    "rows of a cell": lambda layer: fastrnn.GRUCell(1, H)(of_stride_zero(2**52, 1)),
    "steps of a stream": lambda layer: layer.stream().run(of_stride_zero(2**52, 1)),
    "converted up": lambda layer: layer(np.broadcast_to(np.int8(1), (2**52, 1, 1)))}


@pytest.mark.parametrize("case", PAST_2_63)
def test_past_2_63_bytes_nothing_is_allocated(case):
    layer = make_layer("gru", 1, H, rng=0)
    layer(np.ones((1, 1), np.float32))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            PAST_2_63[case](layer)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", BELOW_2_63)
def test_more_than_there_is_memory(case):
    layer, x = make_layer("gru", 1, H, rng=0), np.ones((3, 1), np.float32)
    expected = layer(x)[0]
    with pytest.raises(MemoryError):
        BELOW_2_63[case](layer)
    assert_same_bits(layer(x)[0], expected)


def test_countless_layers():
    """Names and shapes of 2^62 layers fill any memory: their number is to be looked at first."""
    python("""
        import resource
        if "asan" not in os.environ.get("LD_PRELOAD", ""):
            resource.setrlimit(resource.RLIMIT_DATA, (2**28, 2**28))
        try:
            fastrnn.GRU(1, 1, 2**62)
        except ValueError as e:
            sys.exit("num_layers" not in str(e))
        sys.exit("no exception")
    """, timeout=20)


@pytest.fixture(scope="module")
def reserved():
    """Two maps of 16 GiB and more of virtual memory, of which only the pages that are touched exist."""
    if sys.maxsize < 2**32 or not hasattr(mmap, "MAP_ANONYMOUS"):
        pytest.skip("needs a 64-bit address space and mmap")
    noreserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0x40)
    size = 4 * (3 * 2**30 + 2**20)
    return [np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | noreserve), np.float32)
            for _ in range(2)]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("far", ["steps", "steps back", "rows"])
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
def test_indices_past_2_31_elements(isa, reserved, kind, far, ragged):
    shape = (4, 4, 20)          # enough inputs for a pass over them by chunks
    rng = np.random.default_rng(2)
    layer = make_layer(kind, 20, 10, rng=rng, bidirectional=True)
    strides = {"steps": (2**32, 400, 4), "steps back": (-2**32, 400, 4), "rows": (400, 2**32, 4)}[far]
    first = 3 * 2**30 if far == "steps back" else 0
    x, out = (as_strided(place[first:], shape, strides) for place in reserved)
    dy, mask = out, as_strided(reserved[1].view(np.bool_)[4 * first + 2**16:], shape[:2], strides[:2])
    x[...] = rng.standard_normal(shape)
    mask[...] = rng.random(shape[:2]) < 0.3
    options = {"lengths": [3, 0, 4, 1]} if ragged else {}
    expected = layer(x.copy(), reset_mask=mask.copy(), **options)
    output, last = layer(x, reset_mask=mask, out=out, **options)
    assert np.array_equal(out, output) and output.strides == strides
    assert_same_bits(arrays(np.array(output), last), arrays(expected))
    *kept, cache = layer.forward(x, reset_mask=mask, **options)
    assert_same_bits(arrays(*kept), arrays(expected))
    dy[...] = rng.standard_normal(shape)
    assert_same_bits(arrays(layer.backward(cache, dy)), arrays(layer.backward(cache, dy.copy())))


# ---- An allocation that fails -------------------------------------------------------------------

@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the size of a process is read from /proc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer reserves its memory early")
@pytest.mark.parametrize("kind, threads", [("lstm", 2), ("gru_before", 1)])
def test_allocations_that_fail(kind, threads):
    """Under a limit that grows from nothing, each call fails at one allocation after the other until it succeeds."""
    options = "proj_size=40" if kind == "lstm" else "reset_after=False"
    done = python(f"""
        import resource
        PAGE = resource.getpagesize()
        fastrnn.set_num_threads({threads})
        make = lambda *sizes, **more: fastrnn.{kind[:4].rstrip("_").upper()}(*sizes, rng=0, {options}, **more)
        T, N, I, H = 12, 50, 120, 70
        layer, one_way, large = make(I, H, 2, bidirectional=True, dropout=0.5), make(I, H, 2), make(3 * I, 4 * H)
        x = np.random.default_rng(0).random((T, N, I), dtype=np.float32)
        block = np.tile(x, (2, 20, 1))
        stream = one_way.stream(20 * N)
        stream.run(block[:2])
        state, snapshot, values = stream.state, stream.snapshot(), large.state_dict()
        output, _, cache = layer.forward(x, rng=0)

        def flat(result):
            if isinstance(result, np.ndarray):
                return result.tobytes()
            if isinstance(result, fastrnn.Gradients):
                return flat([result.input, result.state, *result.parameters.values()])
            return b"".join(map(flat, result)) if isinstance(result, (tuple, list)) else b""

        def load():
            large.load_state_dict(values)
            return large(np.tile(x, 3))

        def run():
            result = stream.run(block)
            try:
                return result, stream.state
            finally:
                stream.state = state

        calls = dict(call=lambda: layer(x), ragged=lambda: layer(x, lengths=np.arange(N) % T),
                     forward=lambda: layer.forward(x, rng=0)[:2], backward=lambda: layer.backward(cache, output),
                     backward_first=lambda: layer.backward(layer.forward(x, rng=0)[2], output),
                     construct=lambda: list(make(I, H, 20).parameters.values()),
                     stream=lambda: one_way.stream(20 * N).step(block[0]), run=run,
                     restore=lambda: one_way.restore(snapshot).step(block[0]), load=load)

        def unchanged():
            return flat([list(model.parameters.values()) for model in (layer, one_way, large)] + [stream.state])

        before = unchanged()
        expected = {{name: flat(call()) for name, call in calls.items()}}
        unlimited = resource.getrlimit(resource.RLIMIT_AS)
        for name, call in calls.items():
            failures, room, result = 0, 0, None
            while result is None:
                size = int(open("/proc/self/statm").read().split()[0]) * PAGE
                resource.setrlimit(resource.RLIMIT_AS, (size + room, unlimited[1]))
                try:
                    result = call()
                except MemoryError:
                    failures += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_AS, unlimited)
                assert unchanged() == before, name
                room += 16 * PAGE + room // 16
            assert flat(result) == expected[name], name
            print(name, failures)
    """, MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="16384", MALLOC_TRIM_THRESHOLD_="0")
    failures = dict(line.split() for line in done.splitlines())
    assert len(failures) == 10 and all(int(count) > 5 for count in failures.values()), failures


# ---- Fuzz ---------------------------------------------------------------------------------------

SMALL = st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 6])
DTYPES = st.sampled_from([*["f4"] * 8, "f8", "f2", ">f4", "g", "i1", "i8", "u8", "?", "c8", "O", "U3", "S2", "M8[s]",
                          "f4,i2", "V3"])
INTEGERS = st.one_of(SMALL, st.sampled_from([2**52, 2**62, 2**63 - 1, 2**63, 2**64, 2**70, -2**63, -2**70]))
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(), st.complex_numbers(), st.text(max_size=3),
                    st.binary(max_size=50), st.sampled_from([object(), print, int, ..., np, np.float32(1), np.int8(2),
                                                             np.datetime64(1, "s"), np.random.default_rng(0)]))


@st.composite
def junk_arrays(draw):
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 2, 3, 3, 4, 5, 5, 6, 15, 20]), max_size=4)))
    a = np.zeros(shape, draw(DTYPES))
    if a.dtype.kind in "fiu" and a.size:
        a[...] = draw(st.sampled_from([0, 1, 3])) if a.dtype.kind != "f" else draw(st.sampled_from([1, np.nan, np.inf]))
    view = draw(st.sampled_from(["whole", "steps", "transposed", "broadcast", "read-only"]))
    if view == "steps":
        a = a[(slice(None, None, draw(st.sampled_from([-2, -1, 2]))),) * a.ndim]
    elif view == "transposed":
        a = a.T
    elif view == "broadcast":
        a = np.broadcast_to(a, (draw(SMALL.filter(lambda n: n >= 0)), *a.shape))
    elif view == "read-only":
        a.setflags(write=False)
    return a


JUNK = st.one_of(junk_arrays(), SCALARS, st.lists(SCALARS, max_size=3), st.tuples(junk_arrays(), junk_arrays()),
                 st.dictionaries(st.text(max_size=2), SCALARS, max_size=2), hnp.array_shapes(max_dims=3))


def fuzzed():
    """name -> (call, good arguments), of every public callable."""
    layer, cell = fastrnn.LSTM(I, H, 2, rng=0), fastrnn.LSTMCell(I, H, rng=0)
    gru, two_way = fastrnn.GRU(I, H, 2, batch_first=True, rng=0), fastrnn.RNN(I, H, bidirectional=True, rng=0)
    gru_cell, stream = fastrnn.GRUCell(I, H, rng=0), layer.stream(N)
    pair, one = (np.ones((2, N, H), np.float32),) * 2, (np.ones((N, H), np.float32),) * 2
    x = np.ones((T, N, I), np.float32)
    options = {"lengths": [1, T], "reset_mask": np.zeros((T, N), bool)}
    sizes = {"input_size": I, "hidden_size": H, "bias": True, "dtype": np.float32, "rng": 0}
    stacked = sizes | {"batch_first": False, "bidirectional": False, "dropout": 0.0, "proj_size": 0}

    def call_on_threads(n):
        with fastrnn.threads(n):
            layer(x)

    calls = {
        "RNN": (fastrnn.RNN, stacked | {"nonlinearity": "tanh"}), "GRU": (fastrnn.GRU, stacked | {"reset_after": True}),
        "LSTM": (fastrnn.LSTM, stacked), "RNNCell": (fastrnn.RNNCell, sizes | {"nonlinearity": "relu"}),
        "GRUCell": (fastrnn.GRUCell, sizes | {"reset_after": False}), "LSTMCell": (fastrnn.LSTMCell, sizes),
        "layer": (layer, {"x": x, "state": pair, "out": np.ones((T, N, H), np.float32), "return_cell_states": False,
                          **options}),
        "two_way": (two_way, {"x": x, "out": np.ones((T, N, 2 * H), np.float32), **options}),
        "batch_first": (gru, {"x": x.swapaxes(0, 1), "out": np.ones((N, T, H), np.float32), **options,
                              "state": pair[0]}),
        "forward": (layer.forward, {"x": x, "state": pair, **options, "rng": 0}),
        "backward": (layer.backward, {"cache": layer.forward(x)[2], "d_output": np.ones((T, N, H), np.float32),
                                      "d_state": pair}),
        "load": (lambda strict=True, **values: layer.load_state_dict(values, strict),
                 {"strict": True, **layer.state_dict()}),
        "load_all": (layer.load_state_dict, {"mapping": layer.state_dict()}),
        "cell_load": (lambda **values: cell.load_state_dict(values), cell.state_dict()),
        "stream": (layer.stream, {"batch_size": N}),
        "restore": (layer.restore, {"snapshot": stream.snapshot()}),
        "Stream": (fastrnn.Stream, {"layer": layer, "batch_size": N}),
        "cell": (cell, {"x": x[0], "state": one, "out": (one[0].copy(), one[0].copy())}),
        "gru_cell": (gru_cell, {"x": x[0], "state": one[0], "out": one[0].copy()}),
        "cell_forward": (cell.forward, {"x": x[0], "state": one}),
        "cell_backward": (cell.backward, {"cache": cell.forward(x[0])[1], "d_state": one}),
        "step": (stream.step, {"x": x[0], "out": one[0].copy()}),
        "run": (stream.run, {"block": x, "out": np.ones((T, N, H), np.float32)}),
        "set_state": (lambda value: setattr(stream, "state", value), {"value": pair}),
        "reset": (stream.reset, {"rows": [0]}),
        "threads": (call_on_threads, {"n": 2}),
    }
    return calls, layer, stream


@hypothesis.settings(max_examples=FUZZ_EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.data())
def test_fuzz(data):
    """Junk for some arguments of a call: a result, or TypeError, ValueError, MemoryError; then all is as before."""
    calls, layer, stream = fuzzed()
    name = data.draw(st.sampled_from(list(calls)))
    call, good = calls[name]
    wrong = data.draw(st.dictionaries(st.sampled_from(list(good)), JUNK, min_size=1, max_size=3))
    before = arrays(layer.parameters, stream.state)
    failed = False
    try:
        call(**good | wrong)
    except (TypeError, ValueError, MemoryError):
        failed = True
    if failed:
        assert_same_bits(arrays(layer.parameters, stream.state), before)
    stream.reset()
    assert stream.step(X[0]).shape == (N, H)


STREAM_METHODS = ["_convert(v)", "_check_out(v, (2, 5))", "_set_state(v, v)", "_set_state(h, v)", "_set_state(v, h)",
                  "_clear(v)"]


@pytest.mark.parametrize("method", STREAM_METHODS)
def test_fuzz_inherited_methods_of_streams(method):
    """What Stream inherits from the compiled class is as safe as the rest: in a process, for it may crash."""
    python(f"""
        layer, x, h = fastrnn.LSTM(3, 5, 2, rng=0), np.ones((2, 3), np.float32), np.ones((2, 2, 5), np.float32)
        for v in (None, 3, [10**12], [-10**12], [None], "a", h[0, 0, :1], h.astype(float), h[:0], h[0]):
            print(repr(v), file=sys.stderr, flush=True)
            s = layer.stream(2)
            try:
                s.{method}
            except (TypeError, ValueError, MemoryError):
                pass
            s.step(x)
            s.snapshot()
    """)


@pytest.mark.parametrize("arguments", ["", "None, 1", "[], 1", "p, 1", "p[0], 1", "cell, 1", "type(layer), 1", "0, 1",
                                       "layer.stream(), 1", "layer, 0", "layer, -1", "layer, None", "layer, 2**62"])
def test_fuzz_streams_made_by_hand(arguments):
    python(f"""
        layer, cell = fastrnn.LSTM(3, 5, 2, rng=0), fastrnn.LSTMCell(3, 5, rng=0)
        p = layer.stream().parameters
        try:
            fastrnn.Stream({arguments})
        except (TypeError, ValueError, MemoryError):
            sys.exit()
        sys.exit("no exception")
    """)
