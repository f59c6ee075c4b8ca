"""RNNForecaster(precision=...): forecasts by narrow weights, training by float32."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from forecasters import fitted, wave
from helpers import assert_same_bits

import fastrnn
from fastrnn.forecasting import RNNForecaster
from fastrnn.forecasting import network as network_module
from fastrnn.nn.quantized import PRECISIONS

Y = wave(160)
# How far from float32 forecasts of values with a range of 7 may be: half a step of a weight here and there.
NEAR = {"int8": 0.05, "bfloat16": 0.05, "float16": 0.01}


def by_hand(model, precision):
    """The forecaster with networks made narrow by hand."""
    other = copy.copy(model).set_params(precision="float32")
    other.models_ = [type(network)(network.layer.quantized(precision), network.head) for network in model.models_]
    return other


@pytest.fixture(scope="module", params=["network alone", "quantiles", "blend"])
def models(request):
    """(float32, the options that it was fitted with): one network, two of them with quantiles, a blend."""
    options = {"network alone": {}, "quantiles": {"quantiles": (0.1, 0.9), "ensemble": 2, "cell": "lstm"},
               "blend": {"blend": ("network", "naive"), "updates": 200}}[request.param]
    return fitted(Y, **options), options


@pytest.mark.parametrize("precision", PRECISIONS)
def test_forecasts_are_those_of_narrow_layers(precision, models):
    model, options = models
    assert model.models_, "the network has no weight in this blend: the test would show nothing"
    narrow = copy.copy(model).set_params(precision=precision)
    steps = 4 if options.get("quantiles") else 9            # past the horizon forecasts are taken for values
    exact, forecast = model.predict(steps), narrow.predict(steps)
    assert 0 < np.abs(forecast - exact).max() < NEAR[precision]
    assert_same_bits(forecast, by_hand(model, precision).predict(steps))
    for ours, theirs in zip(narrow.predict(interval=0.9), by_hand(model, precision).predict(interval=0.9), strict=True):
        assert_same_bits(ours, theirs)
    if options.get("quantiles"):
        assert_same_bits(narrow.predict(quantiles=True), by_hand(model, precision).predict(quantiles=True))
    assert narrow.set_params(precision="float32").predict().tobytes() == model.predict().tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_is_float32(precision, models):
    """Parameters, weights of the blend and updates are the same bits whatever forecasts are made with."""
    model, options = models
    narrow = fitted(Y, precision=precision, **options)
    for ours, theirs in zip(narrow.models_, model.models_, strict=True):
        assert ours.layer.precision == "float32"
        assert_same_bits(dict(ours.parameters), dict(theirs.parameters))
    assert narrow.blend_ is None or narrow.choice_.summary() == model.choice_.summary()
    later, plain = (copy.deepcopy(one).update(wave(180)[160:], updates=5) for one in (narrow, model))
    assert_same_bits(dict(later.models_[0].parameters), dict(plain.models_[0].parameters))
    assert_same_bits(later.predict(), by_hand(plain, precision).predict())      # no weights of before are kept


@pytest.mark.parametrize("precision", PRECISIONS)
def test_streams(precision, models):
    model, _ = models
    narrow = copy.copy(model).set_params(precision=precision)
    y = wave(175)
    stream, exact = narrow.stream(), model.stream()
    assert repr(stream._streams[0]).endswith(f"precision={precision})>")
    for value in y[160:]:
        forecast, other = stream.step(value), exact.step(value)
    assert 1e-5 < np.abs(forecast - other).max() < NEAR[precision]
    assert np.abs(forecast - narrow.apply(y).predict()).max() < 1e-6
    again = narrow.stream()
    again.restore(stream.snapshot())
    assert_same_bits(again.step(11.0), pickle.loads(pickle.dumps(stream)).step(11.0))
    with pytest.raises(ValueError, match="snapshot"):
        exact.restore(stream.snapshot())
    narrow.set_params(precision="float32")              # a stream keeps what it began with
    assert repr(stream._streams[0]).endswith(f"precision={precision})>")


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_files(precision, ending, models, tmp_path):
    model, _ = models
    narrow = copy.copy(model).set_params(precision=precision)
    narrow.save(tmp_path / f"model{ending}")
    loaded = fastrnn.load(tmp_path / f"model{ending}")
    assert loaded.precision == precision
    assert_same_bits(loaded.predict(), narrow.predict())
    assert_same_bits(loaded.set_params(precision="float32").predict(), model.predict())


def test_backtests(models):
    model, _ = models
    narrow = copy.copy(model).set_params(precision="int8")
    made, exact = (one.backtest(Y, start=-20, refit=False) for one in (narrow, model))
    assert 0 < np.abs(np.asarray(made.forecasts) - np.asarray(exact.forecasts)).max() < NEAR["int8"]


@pytest.mark.parametrize("value, error", [("int4", ValueError), ("float64", ValueError), (None, TypeError),
                                          (8, TypeError)])
def test_unknown_precisions(value, error):
    with pytest.raises(error, match="precision: expected"):
        RNNForecaster(precision=value).fit(Y)
    model = fitted(Y)
    with pytest.raises(error, match="precision: expected"):
        model.set_params(precision=value).predict()


def test_a_network_keeps_its_last_narrow_one_and_no_older():
    network = fitted(Y).models_[0]
    narrow = network.with_precision("int8")
    assert network.with_precision("int8") is narrow and network.with_precision("float32") is network
    twin = copy.copy(network)
    with twin.updating() as parameters:
        parameters["0.weight_ih_l0"] *= 2
    assert twin.with_precision("int8") is not narrow
    scales = [one.with_precision("int8").layer.parameters["row_scale_ih_l0"] for one in (twin, network)]
    assert_same_bits(scales[0], 2 * scales[1])
    assert "_narrow" not in network.__getstate__()


def test_a_narrow_network_is_not_kept_for_weights_that_it_was_not_made_of(monkeypatch):
    """Weights that another thread replaces at that very moment, and that come back later, have their own narrow one."""
    network = fitted(Y).models_[0]
    before, expected = network.layer._parameters, copy.deepcopy(network).with_precision("int8")

    def replaced_meanwhile(layer):
        with network.updating() as parameters:
            parameters["0.weight_ih_l0"] *= 2
        return copy.copy(layer)

    monkeypatch.setattr(network_module, "copy", SimpleNamespace(copy=replaced_meanwhile))
    network.with_precision("int8")
    monkeypatch.undo()
    network.layer._parameters = before
    scales = [one.layer.parameters["row_scale_ih_l0"] for one in (network.with_precision("int8"), expected)]
    assert_same_bits(*scales)
