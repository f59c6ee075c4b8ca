"""fastrnn.quantize with its report, and files of narrow models."""

import json
import os

import numpy as np
import pytest
from helpers import assert_same_bits

import fastrnn
from fastrnn._base import named_arrays

MODELS = [fastrnn.LSTM(3, 70, 2, proj_size=20, peephole=True, rng=0), fastrnn.GRU(3, 33, bidirectional=True, rng=0),
          fastrnn.RNN(3, 9, bias=False, rng=0), fastrnn.Linear(3, 5, rng=0), fastrnn.Embedding(50, 6, rng=0),
          fastrnn.Sequential(fastrnn.LSTM(3, 8, 2, rng=0), fastrnn.Sequential(fastrnn.Linear(8, 4, rng=1)))]


PRECISIONS = ["int8", "bfloat16", "float16"]


def sample(model):
    rng = np.random.default_rng(1)
    return rng.integers(0, 50, (7, 2)) if isinstance(model, fastrnn.Embedding) else (
        rng.standard_normal((7, 2, 3), dtype=np.float32))


def size(model):
    return sum(value.nbytes for value in model.parameters.values())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_the_report_is_what_the_models_say(model, precision):
    x = sample(model)
    narrow, report = fastrnn.quantize(model, precision, data=x)
    assert_same_bits(dict(narrow.parameters), dict(model.quantized(precision).parameters))
    difference = np.abs(narrow(x)[0].astype(float) - model(x)[0])
    assert report.precision == precision
    assert (report.bytes_before, report.bytes_after) == (size(model), size(narrow))
    assert (report.largest_error, report.mean_error) == (difference.max(), difference.mean())
    assert (report.layers[-1].largest_error, report.layers[-1].mean_error) == (difference.max(), difference.mean())
    assert sum(layer.bytes_after for layer in report.layers) == report.bytes_after
    without = fastrnn.quantize(model, precision)[1]
    assert without.largest_error is None and [layer.name for layer in without.layers] == [
        layer.name for layer in report.layers]


def test_the_report_has_every_layer():
    report = fastrnn.quantize(MODELS[-1], "int8", data=sample(MODELS[-1]))[1]
    assert [layer.name for layer in report.layers] == ["0.l0", "0.l1", "1.0"]
    assert str(report).splitlines()[0].split() == ["layer", "bytes", "before", "int8", "largest", "error", "mean",
                                                   "error"]
    first = MODELS[-1][0]
    inner = fastrnn.LSTM(3, 8, rng=0)
    inner.load_state_dict({name: value for name, value in first.parameters.items() if name.endswith("l0")})
    x = sample(inner)
    assert report.layers[0].largest_error == np.abs(
        inner.quantized("int8")(x)[0].astype(float) - inner(x)[0]).max() > 0


def test_bad_arguments():
    with pytest.raises(TypeError, match="model: expected a recurrent layer"):
        fastrnn.quantize(fastrnn.LSTMCell(2, 3), "int8")
    with pytest.raises(ValueError, match="precision: expected one of 'int8'"):
        fastrnn.quantize(MODELS[0], "int4")
    with pytest.raises(ValueError, match="x: expected"):
        fastrnn.quantize(MODELS[0], "int8", data=np.zeros((3, 99), np.float32))


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_files_give_the_same_bits(model, precision, ending, tmp_path):
    narrow, x = model.quantized(precision), sample(model)
    narrow.save(tmp_path / f"model{ending}")
    loaded = fastrnn.load(tmp_path / f"model{ending}")
    assert repr(loaded) == repr(narrow) and loaded.precision == precision
    assert_same_bits(dict(loaded.parameters), dict(narrow.parameters))
    assert_same_bits(loaded(x)[0], narrow(x)[0])
    with pytest.raises(TypeError, match="no gradients"):
        loaded.forward(x)
    if not isinstance(model, (fastrnn.Linear, fastrnn.Embedding)):
        first = next(iter(fastrnn.interop.layers(tmp_path / f"model{ending}").values()))
        expected = narrow[0] if isinstance(model, fastrnn.Sequential) else narrow
        assert repr(first) == repr(expected)
        assert_same_bits(dict(first.parameters), dict(expected.parameters))


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("precision, share", [("int8", 0.27), ("bfloat16", 0.52), ("float16", 0.52)])
def test_a_file_is_about_a_quarter_or_half(precision, share, ending, tmp_path):
    layer = fastrnn.LSTM(256, 256, 2, rng=0)
    layer.save(tmp_path / f"float{ending}")
    layer.quantized(precision).save(tmp_path / f"narrow{ending}")
    before, after = (os.path.getsize(tmp_path / f"{name}{ending}") for name in ("float", "narrow"))
    assert after <= share * before


@pytest.mark.parametrize("change, message", [
    ({"precision": "int3"}, "precision: expected one of 'int8'"),
    ({"precision": 8}, "precision: expected one of"),
    ({"precision": None}, "weight_ih_l0|unknown key"),
    ({"hidden_size": 10**6}, "expected shape")])
def test_broken_files(change, message, tmp_path):
    path = tmp_path / "model.npz"
    fastrnn.GRU(2, 3, rng=0).quantized("int8").save(path)
    tensors, metadata = named_arrays.read(path)
    named_arrays.write(path, tensors, json.loads(json.dumps(metadata | change)))
    with pytest.raises(fastrnn.ModelFormatError, match=message):
        fastrnn.load(path)


def test_a_cell_has_no_narrow_file(tmp_path):
    path = tmp_path / "model.npz"
    fastrnn.GRUCell(2, 3, rng=0).save(path)
    tensors, metadata = named_arrays.read(path)
    named_arrays.write(path, tensors, metadata | {"precision": "int8"})
    with pytest.raises(fastrnn.ModelFormatError, match="a GRUCell has none"):
        fastrnn.load(path)


def test_gradient_flow_needs_gradients():
    with pytest.raises(TypeError, match="no gradients"):
        fastrnn.diagnostics.gradient_flow(fastrnn.GRU(2, 3, rng=0).quantized("int8"), np.zeros((4, 2), np.float32))
