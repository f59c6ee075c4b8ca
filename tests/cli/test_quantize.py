"""``python -m fastrnn quantize``."""

import numpy as np
import pytest
from helpers import assert_same_bits
from safetensors.numpy import save_file

import fastrnn
from fastrnn import cli

MODEL = fastrnn.Sequential(fastrnn.LSTM(3, 20, 2, rng=0), fastrnn.Linear(20, 1, rng=1))


def call(capsys, *arguments):
    """Exit code, standard output, standard error."""
    try:
        code = cli.main(["quantize", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_a_model_of_fastrnns(tmp_path, capsys):
    x = np.random.default_rng(0).standard_normal((9, 3), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    MODEL.save(tmp_path / "model.npz")
    code, out, _ = call(capsys, tmp_path / "model.npz", tmp_path / "narrow.safetensors", "--data", tmp_path / "x.npy")
    narrow, report = fastrnn.quantize(MODEL, "int8", data=x)
    assert code == 0 and out == f"{tmp_path / 'narrow.safetensors'}: {narrow!r}\n{report}\n"
    assert_same_bits(fastrnn.load(tmp_path / "narrow.safetensors")(x)[0], narrow(x)[0])
    assert cli.main(["inspect", str(tmp_path / "narrow.safetensors")]) == 0
    assert "precision=int8" in capsys.readouterr().out


def test_one_layer_of_another_file(tmp_path, capsys):
    layers = {"a": fastrnn.GRU(2, 3, rng=0), "b": fastrnn.RNN(2, 5, rng=1)}
    save_file({f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()},
              tmp_path / "several.safetensors")
    code, _, err = call(capsys, tmp_path / "several.safetensors", tmp_path / "narrow.npz")
    assert code == 2 and "--layer" in err
    code, out, _ = call(capsys, tmp_path / "several.safetensors", tmp_path / "narrow.npz", "--layer", "a")
    assert code == 0 and "GRU(2, 3, precision=int8)" in out
    assert_same_bits(dict(fastrnn.load(tmp_path / "narrow.npz").parameters),
                     dict(layers["a"].quantized("int8").parameters))


@pytest.mark.parametrize("arguments, message", [
    (["model.npz", "narrow.onnx"], "argument OUT: path: expected a name that ends in .npz or .safetensors"),
    (["model.npz", "narrow.npz", "--precision", "int4"], "--precision"),
    (["model.npz", "narrow.npz", "--data", "wrong.npy"], "x: expected"),
    (["narrow.npz", "again.npz"], "int8 already"),
    (["cell.npz", "narrow2.npz"], "'GRUCell' cannot be quantized"),
    (["detector.npz", "narrow2.npz"], "the precision of a RNNAnomalyDetector is a parameter of its own")])
def test_what_goes_wrong_is_said(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MODEL.save("model.npz")
    fastrnn.anomaly.RNNAnomalyDetector().save("detector.npz")
    MODEL.quantized("int8").save("narrow.npz")
    fastrnn.GRUCell(2, 3, rng=0).save("cell.npz")
    np.save("wrong.npy", np.zeros((4, 7), np.float32))
    code, out, err = call(capsys, *arguments)
    assert code in (1, 2) and not out
    assert message in " ".join(err.split())
