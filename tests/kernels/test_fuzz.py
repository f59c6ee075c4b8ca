"""Junk to every public call: a TypeError, a ValueError or a MemoryError, never a crash. ``make fuzz`` runs it long."""

import os
import warnings

import hypothesis
import numpy as np
import pytest
from child import python
from helpers import arrays, assert_same_bits
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastrnn

T, N, I, H = 4, 2, 3, 5
X = np.zeros((T, N, I), np.float32)
FUZZ_EXAMPLES = int(os.environ.get("FASTRNN_FUZZ_EXAMPLES", 300))


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)        # of a dropout that has no effect
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
