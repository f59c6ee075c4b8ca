"""Pickles, copies and snapshots."""

import copy
import pickle
import struct
import sys
import zlib

import numpy as np
import pytest
from helpers import KINDS, assert_same_bits, make_layer

import fastrnn

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


# ---- Copies ---------------------------------------------------------------------------------------------------

COPIES = {"pickle": lambda a: pickle.loads(pickle.dumps(a)), "deepcopy": copy.deepcopy, "copy": copy.copy,
          "pickle of protocol 2": lambda a: pickle.loads(pickle.dumps(a, 2))}
MODELS = {
    "RNN": lambda: fastrnn.RNN(3, 5, nonlinearity="relu", bias=False, rng=0),
    "GRU": lambda: fastrnn.GRU(3, 5, 2, batch_first=True, reset_after=False, dtype=np.float64, rng=0),
    "LSTM": lambda: fastrnn.LSTM(3, 5, 2, bidirectional=True, proj_size=2, dropout=0.5, rng=0),
    "RNNCell": lambda: fastrnn.RNNCell(3, 5, nonlinearity="relu", rng=0),
    "GRUCell": lambda: fastrnn.GRUCell(3, 5, reset_after=False, dtype=np.float64, rng=0),
    "LSTMCell": lambda: fastrnn.LSTMCell(3, 5, bias=False, rng=0)}


def results(model):
    """Outputs, states and gradients of a model on a fixed input, as bytes."""
    x = np.random.default_rng(3).random((4, 2, 3)[-2 if "Cell" in type(model).__name__ else 0:]).astype(model.dtype)
    dropout = {"rng": 0} if getattr(model, "dropout", 0) else {}
    *found, cache = model.forward(x, **dropout)
    grads = model.backward(cache, found[0])
    flat = [part for value in found for part in (value if isinstance(value, tuple) else (value,))]
    return [a.tobytes() for a in (*flat, grads.input, *grads.parameters.values())]


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", MODELS)
def test_copies_of_models(name, way, used):
    model = MODELS[name]()
    expected = results(MODELS[name]())
    if used:
        results(model)              # has packed weights
    twin = COPIES[way](model)
    assert type(twin) is type(model) and repr(twin) == repr(model)
    assert results(twin) == expected
    with twin.updating() as values:
        for value in values.values():
            value *= 2
    changed = results(twin)
    assert changed != expected and results(model) == expected
    model.load_state_dict({name: value * 0 for name, value in model.state_dict().items()})
    assert results(twin) == changed
    with pytest.raises(ValueError, match="read-only"):
        next(iter(twin.parameters.values()))[...] = 0


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_streams(kind, way):
    layer = make_layer(kind, 3, 5, 2, rng=0)
    x = np.random.default_rng(0).random((6, 2, 3), dtype=np.float32)
    expected = layer(x)[0]
    stream = layer.stream(2)
    stream.run(x[:3])
    layer.load_state_dict({name: value * 0 for name, value in layer.state_dict().items()})
    twin = COPIES[way](stream)          # of the weights that the stream has, not of the layer's new ones
    assert repr(twin) == repr(stream) and twin.batch_size == 2
    assert_same_bits(twin.run(x[3:]), expected[3:])
    assert_same_bits(stream.run(x[3:5]), expected[3:5])
    twin.reset()
    assert_same_bits(stream.step(x[5]), expected[5])


# ---- Snapshots --------------------------------------------------------------------------------------------------

def snapshot_case(kind="lstm", dtype="float32", **options):
    layer = make_layer(kind, 3, 5, 2, rng=0, dtype=dtype, **options)
    x = np.random.default_rng(0).random((6, 2, 3)).astype(dtype)
    stream = layer.stream(2)
    for x_t in x[:3]:
        stream.step(x_t)
    return layer, x, stream.snapshot()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind, options", [*((kind, {}) for kind in KINDS), ("lstm", {"proj_size": 3}),
                                           ("gru", {"bias": False})])
def test_snapshots_are_restored_to_the_bit(kind, options, dtype):
    layer, x, snapshot = snapshot_case(kind, dtype, **options)
    expected = layer(x)[0]
    for data in (snapshot, bytearray(snapshot), memoryview(snapshot)):
        stream = copy.deepcopy(layer).restore(data)
        assert stream.snapshot() == snapshot
        assert_same_bits(np.stack([stream.step(x_t) for x_t in x[3:]]), expected[3:])


def test_a_snapshot_bears_its_state_alone():
    """Not the way to it: the same state gives the same bytes, and what was computed before no longer shows."""
    layer, x, snapshot = snapshot_case()
    stream = layer.restore(snapshot)
    stream.run(x)
    stream.state = layer.restore(snapshot).state
    assert stream.snapshot() == snapshot


def test_snapshots_cut_short_or_with_a_flipped_bit():
    layer, _, snapshot = snapshot_case()
    for size in range(len(snapshot)):
        with pytest.raises(ValueError, match=r"^snapshot\b"):
            layer.restore(snapshot[:size])
    with pytest.raises(ValueError, match=r"^snapshot\b"):
        layer.restore(snapshot + b"\0")
    for bit in range(8 * len(snapshot)):
        broken = bytearray(snapshot)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"^snapshot\b"):
            layer.restore(broken)


def forged(snapshot, at, data):
    """With other bytes at a place and a checksum that agrees."""
    body = snapshot[:at] + data + snapshot[at + len(data):-4]
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("at, data", [
    (0, b"FRNNSNAQ"), (0, b"\x89PNG\r\n\x1a\n"),                                # magic
    *((8, struct.pack("<H", version)) for version in (0, 2, 2**16 - 1)),
    (10, b"\x08"), (10, b"\x00"), (10, b"\xff"),                                 # bytes of a float
    *((12, struct.pack("<I", layers)) for layers in (0, 1, 4, 2**32 - 1)),
    *((16, struct.pack("<Q", rows)) for rows in (0, 1, 4, 2**63, 2**64 - 1)),
    *((12, struct.pack("<IQ", *sizes)) for sizes in ((1, 4), (4, 1), (0, 0))),
    (24, b"\0" * 32)], ids=repr)                                                 # the model's hash
def test_snapshots_with_a_forged_header(at, data):
    layer, _, snapshot = snapshot_case()
    assert layer.restore(forged(snapshot, 0, b"")).snapshot() == snapshot
    with pytest.raises(ValueError, match=r"^snapshot\b"):
        layer.restore(forged(snapshot, at, data))


def test_snapshots_of_other_models():
    layer, _, snapshot = snapshot_case("gru")
    others = [make_layer("gru", 3, 5, 2, rng=1), make_layer("gru", 3, 5, 1, rng=0), make_layer("gru", 4, 5, 2, rng=0),
              make_layer("gru_before", 3, 5, 2, rng=0), make_layer("rnn_tanh", 3, 5, 2, rng=0),
              make_layer("gru", 3, 5, 2, rng=0, dtype="float64"), make_layer("gru", 3, 5, 2, rng=0, bias=False)]
    for other in others:
        with pytest.raises(ValueError, match=r"^snapshot\b"):
            other.restore(snapshot)
    assert layer.restore(snapshot).batch_size == 2
    with layer.updating() as values:
        values["bias_ih_l1"][3] = np.nextafter(values["bias_ih_l1"][3], np.float32(9))
    with pytest.raises(ValueError, match=r"^snapshot\b"):
        layer.restore(snapshot)
