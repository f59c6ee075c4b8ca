"""Files of bfloat16 and float16 weights: layers of float32, from which the narrow ones have the file's bits."""

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import assert_same_bits

import fastrnn
from fastrnn import cli, interop

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_model(cell, dtype):
    torch.manual_seed(0)
    return getattr(torch.nn, cell)(5, 12, 2, bidirectional=cell == "GRU").to(dtype)


def bits(tensor):
    """The 16 bits of each number."""
    return tensor.detach().view(torch.int16).numpy().view(np.uint16)


def written(model, kind, folder):
    """The path of a file that torch or safetensors wrote."""
    path = folder / f"model{kind}"
    if kind == ".safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict() if kind == ".pt" else model, path)
    return path


@pytest.mark.parametrize("kind", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("precision", list(DTYPES))
def test_narrow_layers_have_the_bits_of_the_file(precision, cell, kind, tmp_path):
    model = torch_model(cell, DTYPES[precision])
    layer, = interop.layers(written(model, kind, tmp_path)).values()
    assert layer.precision == "float32"
    narrow = layer.quantized(precision)
    for name, tensor in model.state_dict().items():
        value = narrow.parameters[name]
        if name.startswith("weight"):
            assert_same_bits(value.view(np.uint16), bits(tensor))
        else:
            assert_same_bits(value, tensor.float().numpy())
    again = interop.layers(written(model.float(), kind, tmp_path))      # a file of float32 that holds the same numbers
    assert_same_bits(dict(next(iter(again.values())).quantized(precision).parameters), dict(narrow.parameters))


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("precision", list(DTYPES))
def test_through_the_command_and_a_file_of_fastrnns_own(precision, ending, tmp_path, capsys):
    """`fastrnn quantize model.pt`: half the bytes, the same bits, and what torch computes to its own rounding."""
    torch.manual_seed(0)
    model = torch.nn.LSTM(64, 96, 2).to(DTYPES[precision])
    path, out = written(model, ".pt", tmp_path), tmp_path / f"narrow{ending}"
    assert cli.main(["quantize", str(path), str(out), "--precision", precision]) == 0
    capsys.readouterr()
    narrow = fastrnn.load(out)
    assert narrow.precision == precision
    assert_same_bits(narrow.parameters["weight_hh_l1"].view(np.uint16), bits(model.weight_hh_l1))
    model.float()
    torch.save(model.state_dict(), tmp_path / "float.pt")
    assert out.stat().st_size <= 0.52 * (tmp_path / "float.pt").stat().st_size
    x = torch.randn(20, 3, 64)
    with torch.inference_mode():
        wanted = model(x)[0].numpy()
    difference = np.abs(narrow(x.numpy())[0] - wanted).max()
    assert difference < (1e-5 if precision == "float16" else 0.02)      # bfloat16 rounds x and h, too
    found, = interop.layers(out).values()
    assert_same_bits(dict(found.parameters), dict(narrow.parameters))
    assert cli.main(["inspect", str(out)]) == 0
    assert precision in capsys.readouterr().out
