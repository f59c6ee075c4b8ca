"""What bad input gets: the table of the API's contract, line by line, for every public call.

A NaN or an Inf, and sums past every limit, are in test_promises.py; layouts of a layer's arguments in test_kernels.py.
"""

import contextlib
import math

import numpy as np
import pytest
from helpers import KINDS, LAYOUTS, arrays, as_state, assert_same_bits, make_layer, make_state, refuses
from numpy.lib.stride_tricks import as_strided

import fastrnn

T, N, I, H = 4, 2, 3, 5


# ---- Every public call that takes arrays --------------------------------------------------------

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


# ---- Python numbers -----------------------------------------------------------------------------

PYTHON_NUMBERS = {
    "lists": lambda a: a.tolist(), "tuples": lambda a: as_tuples(a.tolist()),
    "a list of arrays": list, "ints": lambda a: np.sign(a).astype(int).tolist(),
    "bools": lambda a: (a > 0).tolist(), "ints and floats": lambda a: mixed(np.sign(a).astype(int).tolist()),
    "numpy ints and floats": lambda a: mixed(list(np.sign(a).astype(np.int64)))}


def as_tuples(value):
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def mixed(value):
    """Nested lists in which the first number of all is a Python float."""
    if isinstance(value, np.ndarray):
        value = list(value)
    return [mixed(value[0]), *value[1:]] if isinstance(value, list) else float(value)


@pytest.mark.parametrize("form", PYTHON_NUMBERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_argument
def test_python_numbers_take_the_models_dtype(name, argument, dtype, form):
    """Lists and tuples give the bits of the array that holds the same numbers in the model's dtype."""
    calls, same = Calls(dtype), Calls(dtype)
    value = PYTHON_NUMBERS[form](calls.calls[name][1][argument])
    expected = arrays(same.run(name, **{argument: np.array(value).astype(dtype)}))
    assert_same_bits(arrays(calls.run(name, **{argument: value})), expected)


def test_everything_may_be_lists():
    for dtype in ("float32", "float64"):
        calls = Calls(dtype)
        for name, tried in TRIED.items():
            values = {argument: calls.calls[name][1][argument].tolist() for argument in tried}
            assert_same_bits(arrays(calls.run(name, **values)), arrays(Calls(dtype).run(name)))
            calls = Calls(dtype)


WRONG_LISTS = {
    "float64 arrays": (ValueError, lambda a: list(a.astype(np.float64))),
    "float64 scalars": (ValueError, lambda a: nested(a, np.float64)),
    "one float64 scalar": (ValueError, lambda a: [np.float64(1), *a.tolist()] if a.ndim == 1 else
                           [[np.float64(1)] * a.shape[1], *a.tolist()] if a.ndim == 2 else
                           [nested(a[0], np.float64), *a.tolist()[1:]]),
    "longdoubles": (ValueError, lambda a: nested(a, np.longdouble)),
    "past float32": (ValueError, lambda a: np.full(a.shape, -1e39).tolist()),
    "short": (ValueError, lambda a: a[..., :-1].tolist()), "no numbers": (ValueError, lambda a: []),
    "ragged": (ValueError, lambda a: [*a.tolist()[:-1], [1.0] * (a.shape[-1] + 1)]),
    "strings": (TypeError, lambda a: nested(a, str)), "complex": (TypeError, lambda a: nested(a, complex)),
    "None inside": (TypeError, lambda a: nested(a, lambda number: number if number > 0 else None)),
    "huge ints": (TypeError, lambda a: nested(a, lambda number: 2**70))}


def nested(a, make):
    """The array as nested lists of make(number)."""
    return [nested(part, make) if part.ndim else make(part.item()) for part in a]


@pytest.mark.parametrize("fault", WRONG_LISTS)
@each_argument
def test_lists_of_something_else(name, argument, fault):
    calls = Calls()
    error, make = WRONG_LISTS[fault]
    value = make(calls.calls[name][1][argument])
    calls.refused(error, PUBLIC.get(argument, argument), name, **{argument: value})


def test_an_array_that_is_too_wide_is_told_both_ways_out():
    layer, x = make_layer("gru", I, H, rng=0), np.zeros((T, N, I))
    with pytest.raises(ValueError, match=r"^x: float64 .*\.astype\(np\.float32\).*dtype=np\.float64"):
        layer(x)
    with pytest.raises(ValueError, match=r"^x: longdouble|^x: float128 .*\.astype\(np\.float32\)"):
        layer(x.astype(np.longdouble))
    with pytest.raises(ValueError, match=r"^x: expected numbers up to 3\.4e\+38.*1e\+300.*dtype=np\.float64"):
        layer([[1e300] * I])
    layer(x.astype(np.float32))                                     # the one way
    make_layer("gru", I, H, rng=0, dtype=np.float64)(x)             # and the other


def test_python_numbers_may_be_anything_that_float32_has():
    """Infinite and NaN stay what they are; what is too small becomes zero, as in NumPy."""
    x = [[math.inf, -math.inf, math.nan], [1e-60, -1e-60, 3.4028234e38]]
    linear = fastrnn.Linear(3, 1, rng=0)
    assert_same_bits(linear(x)[0], linear(np.array(x, np.float32))[0])


def test_first_calls_of_every_module():
    """With lists alone, in a float32 model: as a newcomer types them."""
    for cell in (fastrnn.RNNCell, fastrnn.GRUCell):
        assert cell(3, 5, rng=0)([0.1, 0.2, 0.3]).dtype == np.float32
    h, c = fastrnn.LSTMCell(3, 5, rng=0)([[0.1, 0.2, 0.3]], ([[0.0] * 5], [[0] * 5]))
    assert h.shape == c.shape == (1, 5)
    model = fastrnn.Sequential(fastrnn.GRU(3, 5, rng=0), fastrnn.Linear(5, 1, rng=1))
    steps = [[0.1, 0.2, 0.3], [1, 2, 3]]
    whole, _ = model(steps)
    stream = model.stream()
    assert_same_bits(np.stack([stream.step(step) for step in steps]), whole)
    assert_same_bits(model.stream().run(steps), whole)
    stream = fastrnn.GRU(1, 2, rng=0).stream()
    assert_same_bits(stream.step([0.5]), stream._model([[0.5]])[0][0])
    with refuses(ValueError, "x"):
        stream.step(0.5)


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


def run_together(a):
    """Of a's shape; every step begins with the last element of the one before."""
    return as_strided(np.full(a.size, 7, a.dtype), a.shape, (a.strides[0] - a.itemsize, *a.strides[1:]))


WRONG_OUT = {
    "read-only": LAYOUTS["read_only"], "repeated": repeated, "overlapping": overlapping, "interleaved": interleaved,
    "run together": run_together,
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


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("place", ["first step", "last step", "end"])
@pytest.mark.parametrize("shared", ["h_0", "c_0", "reset_mask"])
def test_out_in_the_memory_of_what_a_direction_still_reads(shared, place, bidirectional, ragged):
    """The first direction clears rows past their length, and writes others, before the second reads state and mask."""
    rng, T = np.random.default_rng(2), 6
    layer, D = make_layer("lstm", I, H, rng=0, bidirectional=bidirectional), 1 + bidirectional
    given = {"h_0": rng.standard_normal((D, N, H)).astype(np.float32),
             "c_0": rng.standard_normal((D, N, H)).astype(np.float32),
             "reset_mask": np.arange(T * N).reshape(T, N) % 3 == 0}
    options = {"lengths": [2, 3] if ragged else None}

    def call(parts, **out):
        output, (h, c) = layer(x, (parts["h_0"], parts["c_0"]), reset_mask=parts["reset_mask"], **options, **out)
        return arrays(output, (h, c))
    x = rng.standard_normal((T, N, I)).astype(np.float32)
    expected = call(given)
    out = np.zeros((T, N, D * H), np.float32)
    part = given[shared]
    memory = out.view(np.uint8).reshape(-1)
    begin = {"first step": 0, "last step": out[:-1].nbytes, "end": len(memory) - part.nbytes}[place]
    memory = memory[begin:begin + part.nbytes]
    inside = memory.view(part.dtype).reshape(part.shape)
    inside[...] = part
    assert_same_bits(call(given | {shared: inside}, out=out), expected)


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
    (ValueError, [[1, 2]]), (ValueError, 1), (ValueError, np.uint64([2**63, 1])), (ValueError, [-2**63, 1]),
    (ValueError, [1, -2**63]), (ValueError, np.uint64([1, 2**64 - 1])), (ValueError, [[1], [1, 2]]),
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


# ---- Empty ----------------------------------------------------------------------------------------

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
