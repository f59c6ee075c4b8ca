"""interop.from_arrays: layers of arrays under any names, against the equations written out and other layers."""

import numpy as np
import pytest
from helpers import assert_same_bits

import fastrnn
from fastrnn.interop import conventions, from_arrays

X = np.random.default_rng(0).standard_normal((5, 2, 3))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def arrays_of(layer, order, layout="rows"):
    """Name -> array of a layer, its gates in another order."""
    kind = type(layer).__name__.lower()
    letters = order.translate(str.maketrans("cjh", "ggn"))
    result = {}
    for name, a in layer.state_dict().items():
        target = letters if not name.startswith("peephole") else "".join(gate for gate in letters if gate in "ifo")
        source = conventions.GATE_ORDERS["torch"]["peephole" if name.startswith("peephole") else kind]
        gates = dict(zip(source, np.split(a, len(source))))
        a = np.concatenate([gates[gate] for gate in target])
        result[name] = a.T if layout == "columns" and a.ndim == 2 else a
    return result


@pytest.mark.parametrize("layout", ["rows", "columns", "keras"])
@pytest.mark.parametrize("order", ["ifgo", "ifog", "iofc", "IJFO", "ocfi"])
def test_every_order_and_layout_of_an_lstm(order, layout):
    layer = fastrnn.LSTM(3, 4, 2, bidirectional=True, peephole=True, rng=0, dtype=np.float64)
    arrays = arrays_of(layer, order.lower(), "rows" if layout == "rows" else "columns")
    found = from_arrays(arrays, "LSTM", order=order.lower(), layout=layout, batch_first=True)
    assert repr(found) == ("LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True, peephole=True, "
                           "dtype=float64)")
    assert_same_bits(dict(found.parameters), layer.state_dict())


@pytest.mark.parametrize("order", ["rzn", "zrh", "hzr"])
def test_every_order_of_a_gru(order):
    layer = fastrnn.GRU(3, 4, rng=0, reset_after=False)
    found = from_arrays(arrays_of(layer, order, "columns"), "gru", order=order, layout="columns", reset_after=False)
    assert repr(found) == "GRU(3, 4, reset_after=False)"
    assert_same_bits(dict(found.parameters), layer.state_dict())


# As each framework's source has them, written down here once more: the table itself is what is tested.
LSTM_ORDERS = {"torch": "ifgo", "keras": "ifgo", "onnx": "iofg", "tensorflow": "igfo", "haiku": "igfo", "caffe": "ifog",
               "dynet": "ifog", "nagisa": "ifog"}
GRU_ORDERS = {"torch": "rzn", "keras": "zrn", "onnx": "zrn"}


@pytest.mark.parametrize("framework, order", LSTM_ORDERS.items())
def test_orders_of_an_lstm_by_the_name_of_a_framework(framework, order):
    layer = fastrnn.LSTM(3, 4, rng=0)
    found = from_arrays(arrays_of(layer, order), "lstm", order=framework)
    assert_same_bits(dict(found.parameters), layer.state_dict())


@pytest.mark.parametrize("framework, order", GRU_ORDERS.items())
def test_orders_of_a_gru_by_the_name_of_a_framework(framework, order):
    layer = fastrnn.GRU(3, 4, rng=0)
    found = from_arrays(arrays_of(layer, order), "gru", order=framework)
    assert_same_bits(dict(found.parameters), layer.state_dict())


def test_every_framework_of_the_table_is_tested():
    assert {name for name, orders in conventions.GATE_ORDERS.items() if "lstm" in orders} == set(LSTM_ORDERS)
    assert {name for name, orders in conventions.GATE_ORDERS.items() if "gru" in orders} == set(GRU_ORDERS)


def test_an_array_for_each_gate():
    layer = fastrnn.LSTM(3, 4, rng=0)
    parts = {"W": "weight_ih_l0", "U": "weight_hh_l0", "b": "bias_ih_l0"}
    arrays = {f"{part}{gate}": block for part, name in parts.items()
              for gate, block in zip("ifco", np.split(layer.parameters[name], 4))}
    names = {"weight_ih": "W{gate}", "weight_hh": ["Uo", "Uc", "Uf", "Ui"], "bias": "b{gate}"}
    found = from_arrays(arrays, "lstm", names=names, order="ocfi")
    expected = layer.state_dict() | {"bias_hh_l0": np.zeros(16, np.float32)}
    assert_same_bits(dict(found.parameters), expected)


def test_tensorflows_kernel_and_forget_bias():
    """BasicLSTMCell: [x, h] kernel + bias, split into i, j, f, o; c' = c sigmoid(f + 1) + sigmoid(i) tanh(j)."""
    rng = np.random.default_rng(1)
    kernel, bias = rng.standard_normal((7, 16)), rng.standard_normal(16)
    h = c = np.zeros((2, 4))
    for x in X:
        i, j, f, o = np.split(np.hstack([x, h]) @ kernel + bias, 4, axis=1)
        c = c * sigmoid(f + 1) + sigmoid(i) * np.tanh(j)
        h = np.tanh(c) * sigmoid(o)
    layer = from_arrays({"kernel": kernel, "bias": bias, "other": np.ones(3)}, "lstm",
                        names={"weight": "kernel", "bias": "bias"}, order="tensorflow", layout="tensorflow",
                        forget_bias=1)
    np.testing.assert_allclose(layer(X)[1][0][0], h, rtol=0, atol=1e-12)


def test_a_plain_rnn_with_a_projectionless_stack():
    layer = fastrnn.RNN(3, 4, 2, nonlinearity="relu", rng=0)
    arrays = {f"net/{name}": a for name, a in layer.state_dict().items()}
    found = from_arrays(arrays, "rnn", names={name: f"net/{name}" for name in layer.parameters}, nonlinearity="relu")
    assert repr(found) == repr(layer)
    np.testing.assert_array_equal(found(X.astype(np.float32))[0], layer(X.astype(np.float32))[0])


def test_a_projection():
    layer = fastrnn.LSTM(3, 4, proj_size=2, rng=0)
    assert_same_bits(dict(from_arrays(layer.state_dict(), "lstm").parameters), layer.state_dict())


W, U = np.ones((12, 3), np.float32), np.ones((12, 4), np.float32)
NAMES = {"names": {"weight_ih": "a", "weight_hh": "b"}}


@pytest.mark.parametrize("arrays, kind, options, match", [
    ({"a": W}, "lstm", {}, "names: which array is which.* a"),
    ({"a": W}, "gru", {"names": {"weight_ih": "b"}}, "no array 'b'; there are a"),
    ({"a": W}, "gru", {"names": {"kernel": "a"}}, "'kernel' is none of weight_ih"),
    ({"a": W, "b": U}, "gru", NAMES | {"order": "ifgo"}, "order: expected one of"),
    ({"a": W, "b": U}, "gru", NAMES | {"order": "caffe"}, "order of a gru in caffe"),
    ({"a": W, "b": U}, "lstm", NAMES, "kind: lstm was told, but .* of a GRU"),
    ({"a": W, "b": U}, "gru", NAMES | {"layout": "columns"}, "layout another"),
    ({"a": W, "b": U}, "gru", {"names": {"weight_ih": ["a", "b"], "weight_hh": "b"}}, "different shapes"),
    ({"a": W, "b": U}, "gru", {"names": {"weight_ih": ["a"], "weight_hh": "b"}}, "a name for each of the gates"),
    ({"a": W, "b": U}, "gru", {"names": {"weight_ih": "a"}}, "no matrix weight_hh_l0"),
    ({"a": W, "b": U}, "gru", {"names": NAMES["names"] | {"weight_ih_l0": "a"}}, "told more than once"),
    ({"a": W.astype(int), "b": U}, "gru", NAMES, "floating-point weights"),
    ({"weight": W[:, :2]}, "lstm", {}, "more than 3 columns"),
    ({"a": W}, "tree", {}, "kind"), ({"a": W}, "gru", {"layout": "diagonal"}, "layout"),
])
def test_what_does_not_fit_is_named(arrays, kind, options, match):
    with pytest.raises(ValueError, match=match):
        from_arrays(arrays, kind, **options)
