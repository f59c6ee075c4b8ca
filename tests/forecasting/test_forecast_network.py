"""ForecastNetwork: its equations and gradients, files, streams, and what fits it."""

import copy
import pickle

import numpy as np
import pytest
from child import python
from forecasters import fitted, wave
from helpers import assert_close, central_differences, refuses

import fastrnn
from fastrnn import GRU, LSTM, RNN, Linear
from fastrnn.forecasting.network import ForecastNetwork, NetworkStream

LAYERS = {"GRU": lambda **options: GRU(3, 4, rng=0, **options), "RNN": lambda **options: RNN(3, 4, rng=0, **options),
          "LSTM, two layers": lambda **options: LSTM(3, 4, 2, rng=0, **options),
          "LSTM, projected": lambda **options: LSTM(3, 5, proj_size=4, rng=0, **options)}


def network_of(kind, **options):
    return ForecastNetwork(LAYERS[kind](**options), Linear(7, 2, rng=1))


def same_parameters(a, b):
    return a.parameters.keys() == b.parameters.keys() and all(
        np.array_equal(value, b.parameters[name]) for name, value in a.parameters.items())


# ---- Equations ----------------------------------------------------------------------------------

@pytest.mark.parametrize("layer", [GRU, LSTM])
def test_the_network_and_its_gradients(layer):
    rng = np.random.default_rng(0)
    network = ForecastNetwork(layer(3, 4, rng=0, dtype=np.float64), Linear(7, 2, rng=1, dtype=np.float64))
    x, dy = rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 2, 2))
    y, _, cache = network.forward(x)
    h = network.layer(x)[0]
    expected = np.concatenate([h, x], -1) @ network.head.parameters["weight"].T + network.head.parameters["bias"]
    assert_close({"forward": y, "call": network(x)[0], "last": network.last(x, np.array([5, 3]))},
                 {"forward": expected, "call": expected, "last": np.stack([expected[4, 0], expected[2, 1]])}, 1e-14)
    grads = network.backward(cache, dy)
    with network.updating() as values:
        pass                # writable copies

    def loss():
        network.load_state_dict(values)
        return np.sum(dy * network(x)[0])

    assert_close({"input": grads.input, **grads.parameters},
                 {"input": central_differences(loss, x, 1e-5),
                  **{name: central_differences(loss, value, 1e-5) for name, value in values.items()}}, 1e-8)
    loss()                  # once more with the values as they were
    twin = copy.copy(network)
    twin.load_state_dict({name: 0 * value for name, value in values.items()})
    assert_close({"call": network(x)[0]}, {"call": y}, 1e-14)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_lengths_and_resets(kind, batch_first):
    """Each row is as if it were alone and cut to its length; later outputs are 0, and their gradients do not count."""
    network, rng = network_of(kind, batch_first=batch_first), np.random.default_rng(0)
    x, lengths = rng.standard_normal((6, 3, 3)).astype(np.float32), np.array([6, 2, 0])
    mask = rng.random((6, 3)) < 0.3

    def laid(a):
        return a.swapaxes(0, 1) if batch_first else a

    output, state, cache = network.forward(laid(x), lengths=lengths, reset_mask=mask)
    called = network(laid(x), lengths=lengths, reset_mask=mask)
    np.testing.assert_array_equal(called[0], output)
    for row, length in enumerate(lengths):
        alone = network(x[:length, row], reset_mask=mask[:length, row])[0]
        np.testing.assert_array_equal(laid(output)[:length, row], alone)
        assert not laid(output)[length:, row].any()
    assert isinstance(state, tuple) == isinstance(network.layer, LSTM)
    slope = rng.standard_normal(output.shape).astype(np.float32)
    cut = slope.copy()
    laid(cut)[2:, 1], laid(cut)[:, 2] = 0, 0
    a, b = network.backward(cache, slope), network.backward(cache, cut)
    np.testing.assert_array_equal(a.input, b.input)
    assert all(np.array_equal(value, b.parameters[name]) for name, value in a.parameters.items())
    assert network.backward(cache, slope, need_input=False).input is None


# ---- What it says it is -------------------------------------------------------------------------

def test_its_repr_makes_it_again():
    network = network_of("LSTM, two layers")
    assert repr(network) == "ForecastNetwork(LSTM(3, 4, num_layers=2), Linear(7, 2))"
    other = eval(repr(network), {**vars(fastrnn), "ForecastNetwork": ForecastNetwork})
    other.load_state_dict(network.state_dict())
    x = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(other(x)[0], network(x)[0])
    assert not isinstance(network, fastrnn.Sequential)
    assert (network.input_size, network.output_size) == (3, 2)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("kind", LAYERS)
def test_saved_and_loaded_to_the_bit(tmp_path, kind, ending):
    if ending == "safetensors":
        pytest.importorskip("safetensors")
    network, path = network_of(kind), tmp_path / f"network.{ending}"
    network.save(path)
    loaded = fastrnn.load(path)
    assert type(loaded) is ForecastNetwork and repr(loaded) == repr(network) and same_parameters(loaded, network)
    x = np.random.default_rng(0).standard_normal((9, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x)[0], network(x)[0])
    layer = fastrnn.interop.layers(path)["0"]
    np.testing.assert_array_equal(layer(x)[0], network.layer(x)[0])


def test_loaded_where_nothing_but_fastrnn_was_imported(tmp_path):
    path = tmp_path / "network.npz"
    network_of("GRU").save(path)
    assert python(f"""
        import fastrnn
        print(fastrnn.load({str(path)!r}))
    """, prelude="").strip() == "ForecastNetwork(GRU(3, 4), Linear(7, 2))"


def test_a_fitted_forecasters_networks_are_such(tmp_path):
    model = fitted(wave(60), updates=2, seasons=6)
    network = model.models_[0]
    network.save(tmp_path / "a.npz")
    x = model.encoding_.encode(model.panel_.series[0]).x
    np.testing.assert_array_equal(fastrnn.load(tmp_path / "a.npz")(x)[0], network(x)[0])


def test_files_whose_parts_do_not_fit(tmp_path):
    network = network_of("GRU")
    for wrong in ([network.layer], [network.head, network.layer], [network.layer, Linear(4, 2)],
                  [network.layer, network.head, network.head]):
        broken = copy.copy(network)
        broken.modules = tuple(wrong)
        broken.save(tmp_path / "broken.npz")
        with pytest.raises(fastrnn.ModelFormatError):
            fastrnn.load(tmp_path / "broken.npz")


@pytest.mark.parametrize("error, name, layer, head", [
    (TypeError, "layer", lambda: Linear(3, 4), lambda: Linear(7, 2)),
    (TypeError, "head", lambda: GRU(3, 4), lambda: GRU(7, 2)),
    (ValueError, "head", lambda: GRU(3, 4), lambda: Linear(4, 2)),
    (ValueError, "layer", lambda: GRU(3, 4, bidirectional=True), lambda: Linear(11, 2)),
    (ValueError, "layer", lambda: GRU(3, 4, reverse=True), lambda: Linear(7, 2)),
    (ValueError, "modules", lambda: GRU(3, 4), lambda: Linear(7, 2, dtype=np.float64))])
def test_parts_that_do_not_fit(error, name, layer, head):
    with refuses(error, name):
        ForecastNetwork(layer(), head())


def test_unsuitable_arguments():
    network, other, x = network_of("GRU"), network_of("GRU"), np.ones((5, 2, 3), np.float32)
    output, _, cache = network.forward(x)
    for error, name, call in [
            (ValueError, "x", lambda: network(np.ones((5, 2, 4), np.float32))),
            (ValueError, "x", lambda: network(np.ones((5, 2, 3)))), (TypeError, "x", lambda: network(None)),
            (ValueError, "lengths", lambda: network(x, lengths=[6, 1])),
            (TypeError, "cache", lambda: network.backward(None, output)),
            (ValueError, "cache", lambda: other.backward(cache, output)),
            (ValueError, "d_output", lambda: network.backward(cache, output[..., :1])),
            (ValueError, "batch_size", lambda: network.stream(0))]:
        with refuses(error, name):
            call()


def test_copies_and_pickles_are_their_own():
    network = network_of("GRU")
    x = np.ones((5, 3), np.float32)
    expected = network(x)[0]
    copies = [copy.copy(network), copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    with network.updating() as parameters:
        for value in parameters.values():
            value[...] = 0
    assert not network(x)[0].any() and not network.layer.parameters["weight_hh_l0"].any()
    for twin in copies:
        assert twin.layer is twin.modules[0] and twin.head is twin.modules[1]
        np.testing.assert_array_equal(twin(x)[0], expected)


# ---- Streams ------------------------------------------------------------------------------------

@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_stream_has_the_bits_of_the_call(kind, rows):
    network = network_of(kind)
    x = np.random.default_rng(0).standard_normal((20, rows, 3)).astype(np.float32)
    expected, last = network(x)
    stream, out = network.stream(rows), np.empty((rows, 2), np.float32)
    for t in range(10):
        assert stream.step(x[t], out) is out
        np.testing.assert_array_equal(out, expected[t])
    np.testing.assert_array_equal(stream.run(x[10:15]), expected[10:15])
    twin = pickle.loads(pickle.dumps(stream))
    for each in (stream, twin):
        block = np.empty((5, rows, 2), np.float32)
        assert each.run(x[15:], block) is block
        np.testing.assert_array_equal(block, expected[15:])
        np.testing.assert_array_equal(np.ravel(each.state[0]), np.ravel(last[0]))


def test_a_streams_state_is_set_and_reset():
    network = network_of("LSTM, two layers")
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    stream = network.stream(2)
    first = stream.step(x[0])
    state = stream.state
    second = stream.step(x[1])
    stream.state = state
    np.testing.assert_array_equal(stream.step(x[1]), second)
    stream.reset(rows=[1])
    mixed = stream.step(x[0])
    np.testing.assert_array_equal(mixed[1], first[1])
    assert not np.array_equal(mixed[0], first[0])
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0]), first)


def test_a_stream_keeps_the_weights_it_was_made_with():
    network, x = network_of("GRU"), np.ones((4, 3), np.float32)
    expected, stream = network(x)[0], network.stream()
    with network.updating() as parameters:
        for value in parameters.values():
            value[...] = 0
    np.testing.assert_array_equal(stream.run(x), expected)
    assert isinstance(stream, NetworkStream)
    assert repr(stream) == "<NetworkStream of 1 row, ForecastNetwork(GRU(3, 4), Linear(7, 2))>"


def test_a_stream_takes_lists_and_refuses_what_does_not_fit():
    stream = network_of("GRU").stream()
    stream.step(np.ones(3, np.float32))
    before = stream.state
    for error, name, call in [
            (ValueError, "x", lambda: stream.step(np.ones(4, np.float32))),
            (ValueError, "x", lambda: stream.step(np.ones(3))),
            (ValueError, "out", lambda: stream.step(np.ones(3, np.float32), np.empty(3, np.float32))),
            (ValueError, "block", lambda: stream.run(np.ones((5, 4), np.float32))),
            (ValueError, "out", lambda: stream.run(np.ones((5, 3), np.float32), np.empty((5, 3), np.float32)))]:
        with refuses(error, name):
            call()
        np.testing.assert_array_equal(stream.state, before)
    assert stream.step([1, 2, 3]).shape == (2,)


# ---- Training -----------------------------------------------------------------------------------

def test_a_checkpoint_goes_on_to_the_bit(tmp_path):
    """Trained by fastrnn.training like any model: stopped half way and gone on, as never stopped."""
    x = np.random.default_rng(0).standard_normal((12, 6, 3)).astype(np.float32)

    def trained(epochs, checkpoint=None):
        network = network_of("GRU")
        optimizer = fastrnn.optim.AdamW(network, learning_rate=0.01)
        fastrnn.training.fit(network, x, x[..., :2], loss=fastrnn.losses.MSE(), optimizer=optimizer, epochs=epochs,
                             batch_size=2, checkpoint=checkpoint, rng=0, progress=False)
        return network

    whole = trained(4)
    trained(2, tmp_path / "run.ckpt")
    assert same_parameters(trained(4, tmp_path / "run.ckpt"), whole) and not same_parameters(trained(2), whole)
