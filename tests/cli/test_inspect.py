"""``python -m fastrnn inspect`` and ``convert``, and how a file's format is recognised by its contents."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from helpers import assert_same_bits
from safetensors.numpy import save_file

import fastrnn
from fastrnn import cli, interop


def call(capsys, *arguments):
    """Exit code, standard output, standard error."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


@pytest.fixture
def several(tmp_path):
    """A file with two layers, one that makes none, and something else."""
    arrays = {f"encoder.{name}": a for name, a in fastrnn.LSTM(4, 3, 2, rng=0).state_dict().items()}
    arrays |= {f"rnn.{name}": a for name, a in fastrnn.RNN(2, 5, rng=1).state_dict().items()}
    arrays |= {"broken.weight_ih_l0": np.ones((9, 2), np.float32), "head.weight": np.ones((1, 3), np.float32)}
    save_file(arrays, tmp_path / "several.safetensors")
    return tmp_path / "several.safetensors"


# ---- Formats ------------------------------------------------------------------------------------------

def write_zip(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")


def write_tar(path):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")


WRITERS = {
    "torch": ("pytorch", lambda path: torch.save(torch.nn.GRU(2, 3).state_dict(), path)),
    "torch-older": ("pytorch", lambda path: torch.save(torch.nn.GRU(2, 3).state_dict(), path,
                                                       _use_new_zipfile_serialization=False)),
    "torch-oldest": ("pytorch", write_tar),
    "keras": ("keras", lambda path: write_zip(path, "metadata.json", "config.json", "model.weights.h5")),
    "hdf5": ("keras", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))),
    "onnx": ("onnx", lambda path: interop.onnx.export(fastrnn.GRU(2, 3), path)),
    "safetensors": ("safetensors", lambda path: save_file(fastrnn.GRU(2, 3).state_dict(), path)),
    "safetensors-empty": ("safetensors", lambda path: save_file({}, path)),
    "json": ("rtneural", lambda path: path.write_text('{"layers": []}')),
    "json-spaced": ("rtneural", lambda path: path.write_text('\n  {\n"layers": []}')),
    "json-marked": ("rtneural", lambda path: path.write_bytes(b'\xef\xbb\xbf{"layers": []}')),
    "npz": ("npz", lambda path: np.savez(path, **fastrnn.GRU(2, 3).state_dict())),
    "npz-deflated": ("npz", lambda path: np.savez_compressed(path, a=np.arange(3))),
    "tflite": ("tflite", lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))),
    "zip-empty": ("npz", lambda path: write_zip(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_format_is_recognised_by_the_contents(name, tmp_path):
    kind, write = WRITERS[name]
    write(tmp_path / "model.npz")               # savez adds no ending then; no ending says anything here
    assert interop.detect(tmp_path / "model.npz") == kind


@pytest.mark.parametrize("data", [b"", b"x", b"# text", b"<html>", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4", b"\x1f\x8b\x08\0",
                                  b"\x7fELF", bytes(1000), b"[1, 2]", b"\x80\x01c"])
def test_other_contents_are_refused(data, tmp_path):
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(fastrnn.ModelFormatError, match=r"model\.pt: none of PyTorch.*Keras.*ONNX"):
        interop.detect(tmp_path / "model.pt")


def test_another_archive_is_refused_by_what_it_holds(tmp_path):
    write_zip(tmp_path / "a.docx", "word/document.xml")
    with pytest.raises(fastrnn.ModelFormatError, match=r"document\.xml"):
        interop.detect(tmp_path / "a.docx")


def test_formats_are_modules_that_load_when_named():
    assert sorted(interop.FORMATS) == ["keras", "nam", "npz", "onnx", "pytorch", "rtneural", "safetensors", "tflite"]
    for name in interop.FORMATS:
        assert callable(getattr(interop, name).layers)
    assert not hasattr(interop, "tensorflow")
    code = "import sys, fastrnn.interop; print([m for m in sys.modules if m.startswith('fastrnn.interop.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


# ---- inspect ------------------------------------------------------------------------------------------

def test_inspect_lists_layers_and_what_makes_none(several, capsys):
    code, out, err = call(capsys, "inspect", several)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == [f"{several}:", "safetensors"]
    assert ["encoder", "LSTM(4,", "3,", "num_layers=2)", "float32", "204"] in lines
    assert ["rnn", "RNN(2,", "5)", "float32", "45"] in lines
    assert any(line[:4] == ["broken", "cannot", "be", "represented:"] and "weight_hh_l0" in line for line in lines)


def test_inspect_for_machines(several, capsys):
    code, out, _ = call(capsys, "inspect", several, "--json")
    report = json.loads(out)
    assert code == 0 and report["format"] == "safetensors" and report["file"] == str(several)
    assert sorted(report["layers"]) == ["encoder", "rnn"] and list(report["skipped"]) == ["broken"]
    encoder = report["layers"]["encoder"]
    assert {key: encoder[key] for key in ("class", "input_size", "hidden_size", "num_layers", "dtype")} == {
        "class": "LSTM", "input_size": 4, "hidden_size": 3, "num_layers": 2, "dtype": "float32"}
    assert encoder["parameters"]["weight_ih_l1"] == [12, 3]
    assert encoder["parameter_count"] == sum(np.prod(shape) for shape in encoder["parameters"].values()) == 204
    assert report["layers"]["rnn"]["nonlinearity"] == "tanh"


def test_options_that_a_file_does_not_have(several, tmp_path, capsys):
    _, out, _ = call(capsys, "inspect", several, "--nonlinearity", "relu", "--batch-first")
    assert "RNN(2, 5, batch_first=True, nonlinearity=relu)" in out
    assert "LSTM(4, 3, num_layers=2, batch_first=True)" in out
    _, out, _ = call(capsys, "inspect", several, "--option", "clip=2.5", "--option", 'activations=["tanh"]')
    assert "RNN(2, 5, clip=2.5)" in out                     # three activations are an LSTM's, one is an RNN's
    (tmp_path / "model.json").write_text(json.dumps({name: a.tolist() for name, a in
                                                     fastrnn.GRU(2, 3, rng=0).state_dict().items()}))
    _, out, _ = call(capsys, "inspect", tmp_path / "model.json", "--option", "dtype=float64")
    assert "GRU(2, 3, dtype=float64)" in out


def test_a_file_without_layers(tmp_path, capsys):
    save_file({"head.weight": np.ones((2, 2))}, tmp_path / "a.safetensors")
    code, out, _ = call(capsys, "inspect", tmp_path / "a.safetensors")
    assert code == 0 and "no recurrent layer" in out
    code, out, err = call(capsys, "convert", tmp_path / "a.safetensors", tmp_path / "b.npz")
    assert (code, out) == (1, "") and "no recurrent layer" in err
    assert not (tmp_path / "b.npz").exists()


def test_names_cannot_write_to_the_terminal(tmp_path, capsys):
    """Escape sequences, line ends and lone surrogates of a hostile file are shown as such."""
    name = "\x1b[2J\nname\r\ud800é"
    arrays = {f"{name}.{key}": a.tolist() for key, a in fastrnn.GRU(2, 3, rng=0).state_dict().items()}
    arrays |= {f"{name}2.weight_ih_l0": [[1]]}
    (tmp_path / "model.json").write_text(json.dumps(arrays))
    code, out, err = call(capsys, "inspect", tmp_path / "model.json")
    assert (code, err) == (0, "") and out.replace("\n", "").isprintable()
    assert r"\x1b[2J\nname\r\ud800é" in out and len(out.splitlines()) == 4
    code, out, err = call(capsys, "convert", tmp_path / "model.json", tmp_path / "a.npz", "--layer", name + "2")
    assert code == 1 and len(err.splitlines()) == 1 and "\x1b" not in err
    result = subprocess.run([sys.executable, "-m", "fastrnn", "inspect", str(tmp_path / "model.json")], check=True,
                            capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert rb"\ud800\xe9" in result.stdout


# ---- convert ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".SAFETENSORS"])
def test_convert_one_of_several(several, ending, tmp_path, capsys):
    code, out, err = call(capsys, "convert", several, tmp_path / f"out{ending}", "--layer", "rnn", "--nonlinearity",
                          "relu")
    assert (code, err) == (0, "")
    assert out == f"{tmp_path / f'out{ending}'}: RNN(2, 5, nonlinearity=relu), rnn\n"
    layer = fastrnn.load(tmp_path / f"out{ending}")
    assert repr(layer) == "RNN(2, 5, nonlinearity=relu)"
    assert_same_bits(layer.state_dict(), fastrnn.RNN(2, 5, rng=1).state_dict())


def test_convert_to_onnx_and_back(tmp_path, capsys):
    layer = fastrnn.GRU(2, 3, 2, bidirectional=True, rng=0)
    layer.save(tmp_path / "a.npz")
    assert call(capsys, "convert", tmp_path / "a.npz", tmp_path / "b.onnx")[0] == 0
    assert call(capsys, "convert", tmp_path / "b.onnx", tmp_path / "c.safetensors")[0] == 0
    assert repr(fastrnn.load(tmp_path / "c.safetensors")) == repr(layer)
    assert_same_bits(fastrnn.load(tmp_path / "c.safetensors").state_dict(), layer.state_dict())


def test_what_onnx_cannot_express(tmp_path, capsys):
    fastrnn.LSTM(2, 3, proj_size=1, rng=0).save(tmp_path / "a.npz")
    code, out, err = call(capsys, "convert", tmp_path / "a.npz", tmp_path / "b.onnx")
    assert (code, out) == (1, "") and "projection" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "b.onnx").exists()


def test_torchs_file_to_every_other(tmp_path, capsys):
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4), "head": torch.nn.Linear(4, 1)})
    torch.save(module.state_dict(), tmp_path / "model.pt")
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    with torch.no_grad():
        expected = module["lstm"](torch.from_numpy(x))[0].numpy()
    for ending in (".npz", ".safetensors", ".onnx"):
        code, _, err = call(capsys, "convert", tmp_path / "model.pt", tmp_path / f"out{ending}")
        assert code == 0, err
        (layer,) = interop.layers(tmp_path / f"out{ending}").values()
        np.testing.assert_allclose(layer(x)[0], expected, rtol=0, atol=1e-6)


# ---- Errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("arguments", "words"), [
    (["inspect"], "FILE"), (["convert", "{file}"], "OUT"), (["inspect", "{file}", "more"], "more"),
    (["convert", "{file}", "out.npz"], "--layer.*'encoder', 'rnn'"),
    (["convert", "{file}", "out.npz", "--layer", "head"], "--layer.*'head'.*'encoder', 'rnn'"),
    (["convert", "{file}", "out.pt"], r"OUT.*\.safetensors, \.npz, \.onnx.*out\.pt"),
    (["convert", "{file}", "out"], "OUT"), (["convert", "no such file", "out.pt"], "OUT"),
    (["inspect", "{file}", "--nonlinearity", "sigmoid"], "--nonlinearity"),
    (["inspect", "{file}", "--option", "clip"], "--option.*NAME=VALUE.*'clip'"),
    (["inspect", "{file}", "--option", "colour=blue"], "safetensors: .*colour"),
    (["inspect", "{file}", "--option", "path=x"], "path"),
])
def test_wrong_arguments_exit_2_with_one_line(arguments, words, several, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *(argument.format(file=several) for argument in arguments))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.search(words, err), err
    assert os.listdir(tmp_path) == [several.name]


@pytest.mark.parametrize("command", [["inspect", "{file}"], ["inspect", "{file}", "--json"],
                                     ["convert", "{file}", "out.npz"]])
@pytest.mark.parametrize("data", [None, b"", b"PK\3\4", b"PK\5\6", b"{", b"\x89HDF\r\n\x1a\n", b"\x80\x02",
                                  b"\x08\x07\x12", b"\x02\0\0\0\0\0\0\0{}x", bytes(100)])
def test_broken_files_exit_1_with_one_line(command, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if data is not None:
        (tmp_path / "model").write_bytes(data)
    code, out, err = call(capsys, *(argument.format(file="model") for argument in command))
    assert (code, out) == (1, "")
    assert err.startswith(f"python -m fastrnn {command[0]}: ") and len(err.splitlines()) == 1
    assert "model" in err
    assert not (tmp_path / "out.npz").exists()


def test_a_folder_and_a_place_that_cannot_be_written_exit_1(several, tmp_path, capsys):
    for arguments in (["inspect", tmp_path], ["convert", several, tmp_path / "no" / "out.npz", "--layer", "rnn"]):
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (1, "") and len(err.splitlines()) == 1


def test_a_missing_package_exits_1_naming_the_extra(several, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, out, err = call(capsys, "convert", several, several.with_name("rnn.onnx"), "--layer", "rnn")
    assert (code, out) == (1, "") and "pip install fastrnn[onnx]" in err


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_help_gives_an_example(command):
    result = subprocess.run([sys.executable, "-m", "fastrnn", command, "--help"], capture_output=True, text=True,
                            check=True)
    assert f"examples:\n  python -m fastrnn {command} model" in result.stdout
    assert all(about in result.stdout for about in interop.FORMATS.values())


# ---- Real models ----------------------------------------------------------------------------------------

REAL = {
    "models/silero_vad/silero_vad_16k.safetensors": {"lstm_cell": "LSTM(128, 128)"},
    "models/silero_vad/silero_vad_16k_sequence.onnx": {"/recurrent/LSTM": "LSTM(128, 128)"},
    "models/silero_vad/weights_lstm.npz": {"lstm_cell": "LSTM(128, 128)", "safetensors_": "LSTM(128, 128)"},
    "models/resemblyzer/weights.npz": {"lstm": "LSTM(40, 256, num_layers=3)"},
    "models/g2pM/weights.npz": {"": "LSTM(64, 32, bidirectional=True)"},
    "models/chars2vec/eng_50_weights.h5": {"lstm_1": "LSTM(59, 50, batch_first=True",
                                           "lstm_2": "LSTM(50, 50, batch_first=True"},
    "rtneural/gru_torch.json": {"gru": "GRU(1, 8)", "gru2": "GRU(8, 8, num_layers=3)"},
    "rtneural/lstm.json": {"layers.1": "LSTM(8, 8)"},
}


@pytest.mark.parametrize("path", REAL)
def test_real_files(path, data_dir, tmp_path, capsys):
    code, out, err = call(capsys, "inspect", data_dir / path)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 2 + len(REAL[path])
    for name, about in REAL[path].items():
        assert about in out
        code, _, err = call(capsys, "convert", data_dir / path, tmp_path / "out.npz", "--layer", name)
        assert (code, err) == (0, "")
        assert repr(fastrnn.load(tmp_path / "out.npz")).startswith(about)
