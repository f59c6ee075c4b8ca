"""PyTorch's files, each written by torch itself: the tensors torch.load gives, and layers with torch's outputs."""

import collections
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from child import python
from helpers import assert_same_bits
from torch import nn

import fastrnn
from fastrnn import interop
from fastrnn.interop import pytorch

TOLERANCE = 1e-5


@pytest.fixture(params=["zip", "legacy"])
def save(request, tmp_path):
    """An object -> the path of a file of it, in both formats."""
    def write(value, **options):
        torch.save(value, tmp_path / "model.pt", _use_new_zipfile_serialization=request.param == "zip", **options)
        return tmp_path / "model.pt"
    write.format = request.param
    return write


@pytest.fixture
def save_zip(tmp_path):
    def write(value):
        torch.save(value, tmp_path / "model.pt")
        return tmp_path / "model.pt"
    return write


def flattened(value, name=()):
    """What load_state_dict should give, from what torch.load gives."""
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_conj().resolve_neg()
        return {".".join(name): (value.float() if value.dtype == torch.bfloat16 else value).numpy()}
    if isinstance(value, dict):
        entries = value.items()
    else:
        entries = enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {key: array for index, child in entries for key, array in flattened(child, (*name, str(index))).items()}


def assert_as_torch(path, weights_only=True):
    """Same names in the same order, dtypes, shapes and bits."""
    want, got = flattened(torch.load(path, weights_only=weights_only)), pytorch.load_state_dict(path)
    assert list(got) == list(want)
    assert [a.dtype for a in got.values()] == [a.dtype for a in want.values()]
    assert_same_bits(real(got), real(want))
    return got


def real(arrays):
    """Complex numbers as pairs."""
    return {name: np.stack([a.real, a.imag]) if a.dtype.kind == "c" else a for name, a in arrays.items()}


# ---- Tensors --------------------------------------------------------------------------------------

def values(*shape, dtype=torch.float32):
    torch.manual_seed(0)
    if dtype == torch.bool:
        return torch.rand(shape) > 0.5
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, dtype=torch.complex64 if dtype.is_complex else torch.float32).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


DTYPES = ["float64", "float32", "float16", "bfloat16", "complex64", "complex128", "int64", "int32", "int16", "int8",
          "uint64", "uint32", "uint16", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype, save):
    if save.format == "legacy" and dtype in ("uint64", "uint32", "uint16"):
        pytest.skip("torch writes them to zip archives alone")
    tensor = values(3, 4, dtype=getattr(torch, dtype))
    got = assert_as_torch(save({"a": tensor, "b": tensor.T, "row": tensor[1], "none": tensor[:0],
                                "one": tensor[1, 2]}))
    assert {a.dtype.name for a in got.values()} == {"float32" if dtype == "bfloat16" else dtype}


def test_extreme_numbers(save):
    numbers = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, 3e38])
    assert_as_torch(save({str(dtype): numbers.to(dtype) for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16)} | {"i": torch.tensor([-(2**63), 2**63 - 1])}))


def views():
    a = values(5, 6)
    return {
        "whole": a, "transposed": a.T, "row": a[2], "column": a[:, 2], "block": a[1:4, 2:5],
        "every second": a[::2, 1::2], "permuted": values(2, 3, 4).permute(2, 0, 1), "reshaped": a.reshape(3, 10),
        "scalar": a[3, 3], "diagonal": a.diagonal(), "unfolded": a.unfold(1, 3, 1), "0-d": torch.tensor(3),
        "expanded": values(1, 4).expand(3, 4), "one for all": torch.tensor(2.0).expand(2, 3),
        "axis of one": a[:, None, :1], "as_strided": a.as_strided((4, 4), (1, 2), 3), "empty": torch.zeros(0),
        "no rows": torch.zeros(0, 7), "no columns": a[:, 6:], "empty of three": torch.zeros(2, 0, 3),
        "dimensions": torch.ones((1,) * 30),
    }


def test_views_of_every_kind(save):
    assert_as_torch(save(views()))
    for name, tensor in views().items():
        assert_as_torch(save({name: tensor}))


def test_conjugated_and_negated(save):
    a = values(3, 2, dtype=torch.complex64)
    assert a.conj().is_conj() and a.conj().imag.is_neg()
    assert_as_torch(save({"a": a, "conj": a.conj(), "transposed": a.conj().T}))
    assert_as_torch(save({"neg": a.conj().imag}))


def test_memory_is_shared_as_in_torch(save):
    a = values(6, 4)
    got = pytorch.load_state_dict(save({"a": a, "tied": a, "transposed": a.T, "row": a[1], "other": a.clone()}))
    assert all(np.shares_memory(got["a"], got[name]) for name in ("tied", "transposed", "row"))
    assert not np.shares_memory(got["a"], got["other"])
    got["row"][:] = 7                                   # writable, too
    assert (got["a"][1] == 7).all() and (got["transposed"][:, 1] == 7).all()


def test_only_what_a_view_needs_of_the_file(save):
    """torch writes whole storages; what comes is no larger than that."""
    got = pytorch.load_state_dict(save({"part": values(1000, 100)[5:7]}))
    assert got["part"].base.nbytes == 4 * 1000 * 100


def containers():
    named = collections.OrderedDict(a=values(2), b=[values(3), (values(1), {"c": values(2, 2)})])
    shared = {"w": values(4)}
    deep = values(1)
    for _ in range(50):
        deep = [deep]
    return {
        "named": named, "counter": collections.Counter("hello"), "parameter": nn.Parameter(values(2)),
        3: {4.5: values(2), None: values(1)}, True: values(1), "shared": shared, "again": shared, "deep": deep,
        "size": values(2, 3).shape, "dtype": torch.float16, "device": torch.device("cuda", 1), "set": {1, 2},
        "bytes": b"\x00\xff", "complex": 1 + 2j, "none": None, "bool": True, "big": 10**30, "negative": -5,
        "text": "naïve ☃ 😀", "long text": "x" * 70000, "tuple": (1, 2, 3, 4), "empty": [{}, [], ()],
        "numbers": list(range(3000)), "": values(1), "dots.in.names": values(1), "bytearray": bytearray(b"ab"),
    }


def test_containers_of_every_kind(save):
    got = assert_as_torch(save(containers()))
    assert {"named.a", "named.b.0", "named.b.1.1.c", "shared.w", "again.w", "3.4.5", "3.None", "True", "parameter",
            ""} <= set(got)
    assert ".".join(["deep"] + ["0"] * 50) in got


@pytest.mark.parametrize("protocol", [1, 3, 4, 5])
def test_other_protocols(protocol, save):
    """torch's default is 2, the only one that its weights_only reads."""
    assert_as_torch(save(containers(), pickle_protocol=protocol), weights_only=False)
    assert_as_torch(save(views(), pickle_protocol=protocol), weights_only=False)


@pytest.mark.parametrize("value, names", [
    (torch.ones(2), [""]), ([torch.ones(1), 5, torch.ones(1)], ["0", "2"]), ((), []), (None, []), ("text", []),
    ({}, []), (7, []), (collections.OrderedDict(a=torch.ones(1)), ["a"]), (torch.ones(2).untyped_storage(), []),
], ids=repr)
def test_objects_that_are_no_dict(value, names, save):
    path = save(value)
    assert list(pytorch.load_state_dict(path)) == names
    skipped = {}
    assert pytorch.layers(path, skipped) == {}
    assert re.search(r"its arrays are .*from_arrays" if names else "there are no arrays", skipped[""])
    with pytest.raises(fastrnn.ModelFormatError, match="no recurrent layer"):
        pytorch.layers(path)


def test_a_tensor_with_attributes(save_zip):
    parameter, tensor = nn.Parameter(values(2, 2)), values(3)
    parameter.note, tensor.note = "kept by torch", [1, 2]
    assert_as_torch(save_zip({"parameter": parameter, "tensor": tensor}))


def test_a_recursive_container(save):
    value = {"a": values(2)}
    value["self"] = value
    with pytest.raises(fastrnn.ModelFormatError, match="containers"):
        pytorch.load_state_dict(save(value))


def test_two_tensors_of_one_name(save):
    with pytest.raises(fastrnn.ModelFormatError, match=r"two tensors are named a\.b"):
        pytorch.load_state_dict(save({"a": {"b": values(1)}, "a.b": values(1)}))


def test_tensors_under_a_key_that_is_no_name(save):
    assert list(pytorch.load_state_dict(save({(1, 2): 3, "a": values(1)}))) == ["a"]
    found = pytorch.load_state_dict(save({"a": values(1), (1, 2): [values(2)], torch.float32: values(3)}))
    assert {name: a.shape for name, a in found.items()} == {"a": (1,), "a tuple 1.0": (2,), "torch.float32": (3,)}


def test_tensors_that_share_within_reason(save):
    """A model under several names, and small tensors broadcast: no more than the file's size and then some."""
    state = {"weight": values(500, 500)}
    assert_as_torch(save({name: state for name in "abc"}))
    with pytest.raises(fastrnn.ModelFormatError, match="would take 10000000 bytes"):
        pytorch.load_state_dict(save({name: state for name in "abcdefghij"}))
    assert_as_torch(save(values(1).expand(500, 500)))
    with pytest.raises(fastrnn.ModelFormatError, match="would take 4000000 bytes"):
        pytorch.load_state_dict(save(values(1).expand(1000, 1000)))


# ---- Archives -----------------------------------------------------------------------------------------

def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """The archive with every entry's (name, bytes) put through a function; None leaves it out."""
    with zipfile.ZipFile(path) as archive:
        entries = [change(name, archive.read(name)) for name in archive.namelist()]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in filter(None, entries):
            archive.writestr(name, data)
    path.write_bytes(file.getvalue())
    return path


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name not in ("uint16", "uint32", "uint64")])
def test_big_endian(dtype, save_zip):
    """As a big-endian machine writes it; torch swaps by the storage's dtype."""
    tensor = values(3, 4, dtype=getattr(torch, dtype))
    path = save_zip({"a": tensor, "b": tensor.T})
    want = pytorch.load_state_dict(path)
    size = tensor.element_size() // (2 if tensor.is_complex() else 1)

    def swap(name, data):
        if name.endswith("byteorder"):
            assert data == b"little"
            data = b"big"
        return name, np.frombuffer(data, f"u{size}").byteswap().tobytes() if "/data/" in name else data

    rewritten(path, swap)
    assert_same_bits(real(assert_as_torch(path)), real(want))


@pytest.mark.parametrize("folder", ["archive", "model", "best.checkpoint", "ünïcode", "data", "a b"])
def test_a_folder_of_any_name(folder, save_zip):
    path = save_zip(views())
    want = pytorch.load_state_dict(path)
    rewritten(path, lambda name, data: (folder + name[name.index("/"):], data))
    assert_same_bits(pytorch.load_state_dict(path), want)
    assert interop.detect(path) == "pytorch"


def test_an_archive_packed_anew(save_zip):
    """Compressed, without what does not matter; and as PyTorch 1.6 wrote it, without a byteorder."""
    path = save_zip(views())
    want = pytorch.load_state_dict(path)
    needed = ("data.pkl", "version")
    rewritten(path, lambda name, data: (name, data) if "/data/" in name or name.endswith(needed) else None,
              zipfile.ZIP_DEFLATED)
    assert_same_bits(pytorch.load_state_dict(path), want)


def test_the_formats_are_told_apart(save):
    assert interop.detect(save({"a": values(2)})) == "pytorch"


def test_a_path_of_any_kind(save_zip):
    path = save_zip({"a": values(2)})
    for same in (path, str(path)):
        assert list(pytorch.load_state_dict(same)) == ["a"]
    for load in (pytorch.load_state_dict, pytorch.layers):
        with pytest.raises(FileNotFoundError):
            load(path.with_name("missing.pt"))
        with pytest.raises(OSError):
            load(path.parent)


# ---- Layers -------------------------------------------------------------------------------------------

NETS = {
    "lstm": (nn.LSTM, {}), "gru": (nn.GRU, {}), "tanh": (nn.RNN, {}), "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "stacked": (nn.LSTM, {"num_layers": 3}), "both ways": (nn.GRU, {"bidirectional": True, "num_layers": 2}),
    "no bias": (nn.LSTM, {"bias": False}), "projected": (nn.LSTM, {"proj_size": 3, "num_layers": 2}),
    "projected both ways": (nn.LSTM, {"proj_size": 3, "bidirectional": True}),
    "batch first": (nn.GRU, {"batch_first": True}),
    "rnn all": (nn.RNN, {"bidirectional": True, "num_layers": 2, "bias": False, "batch_first": True}),
}


def net(kind):
    torch.manual_seed(1)
    cls, options = NETS[kind]
    return cls(4, 6, **options)


def given(options):
    """What a file of weights does not tell."""
    return {name: options[name] for name in ("batch_first", "nonlinearity") if name in options}


def assert_same_outputs(layer, module, dtype=np.float32):
    x = np.random.default_rng(0).standard_normal((5, 3, layer.input_size)).astype(dtype)
    output, state = layer(x)
    with torch.no_grad():
        want, want_state = module(torch.from_numpy(x))
    got = [output, *(state if isinstance(state, tuple) else (state,))]
    wanted = [want, *(want_state if isinstance(want_state, tuple) else (want_state,))]
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b.numpy()).max() <= TOLERANCE


@pytest.mark.parametrize("kind", NETS)
def test_layers(kind, save):
    module = net(kind)
    layer, = pytorch.layers(save(module.state_dict()), **given(NETS[kind][1])).values()
    assert_same_outputs(layer, module)
    for option, value in NETS[kind][1].items():
        assert getattr(layer, option) == value
    assert_same_bits(layer.state_dict(), flattened(module.state_dict()))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_layers_of_other_dtypes(kind, dtype, save):
    """16 bits become 32; torch computes with the same numbers."""
    module = net(kind).to(getattr(torch, dtype))
    layer, = pytorch.layers(save(module.state_dict())).values()
    wide = np.float64 if dtype == "float64" else np.float32
    assert layer.dtype == wide
    assert_same_outputs(layer, module.to(torch.float64 if dtype == "float64" else torch.float32), wide)


@pytest.mark.parametrize("cls", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(cls, save):
    torch.manual_seed(2)
    cell = cls(4, 6)
    layer = pytorch.layers(save(nn.ModuleDict({"cell": cell}).state_dict()))["cell"]
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    with torch.no_grad():
        want = cell(torch.from_numpy(x))
    output, _ = layer(x[None])
    assert np.abs(output[0] - (want[0] if isinstance(want, tuple) else want).numpy()).max() <= TOLERANCE


class Model(nn.Module):
    """Recurrent layers at several depths, among others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(10, 4)
        self.encoder = nn.ModuleDict({"rnn": nn.GRU(4, 6), "norm": nn.LayerNorm(6)})
        self.stack = nn.Sequential(nn.Linear(6, 4), nn.LSTM(4, 6))
        self.lstm = nn.LSTM(4, 6, 2, bidirectional=True)
        self.head = nn.Linear(12, 2)

    def recurrent(self):
        return {"encoder.rnn": self.encoder["rnn"], "stack.1": self.stack[1], "lstm": self.lstm}


def trained(model):
    """An optimizer with state for every parameter."""
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    return optimizer


CHECKPOINTS = {
    "state_dict": lambda model: model.state_dict(),
    "checkpoint": lambda model: {"model_state": model.state_dict(), "optimizer": trained(model).state_dict(),
                                 "epoch": 3, "loss": 0.25, "config": {"hidden": [6, 6], "name": "x"},
                                 "rng": torch.get_rng_state()},
    "lightning": lambda model: {"epoch": 1, "global_step": 10, "state_dict": model.state_dict(), "lr_schedulers": [],
                                "optimizer_states": [trained(model).state_dict()], "pytorch-lightning_version": "2.0"},
    "model_state_dict": lambda model: {"model_state_dict": model.state_dict(),
                                       "optim": {"momentum": dict(model.state_dict())}},
    "DataParallel": lambda model: nn.DataParallel(model).state_dict(),
    "DataParallel within": lambda model: {"net": nn.DataParallel(model).state_dict()},
    "compiled": lambda model: {f"_orig_mod.{name}": value for name, value in model.state_dict().items()},
    "both wrappers": lambda model: {f"_orig_mod.module.{name}": value for name, value in model.state_dict().items()},
    "plain dict": lambda model: {name: value.clone() for name, value in model.state_dict().items()},
    "parameters": lambda model: dict(model.named_parameters()),
    "list": lambda model: {"model": [("ignored", 1)], "weights": model.state_dict()},
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_layers_are_found_and_named(kind, save):
    model = Model()
    path = save(CHECKPOINTS[kind](model))
    found = pytorch.layers(path)
    assert list(found) == list(model.recurrent())
    for name, module in model.recurrent().items():
        assert_same_outputs(found[name], module)
    assert_as_torch(path)


def test_names_that_a_user_gave_are_kept(save):
    """Modules saved side by side; two models in one file; a layer that is the whole model."""
    state = nn.ModuleDict({"rnn": nn.GRU(2, 3)}).state_dict()
    assert list(pytorch.layers(save({"encoder": state, "decoder": state}))) == ["encoder.rnn", "decoder.rnn"]
    assert list(pytorch.layers(save({"model": state, "net": state}))) == ["model.rnn", "net.rnn"]
    assert list(pytorch.layers(save({"state_dict": state, "ema": state}))) == ["rnn", "ema.rnn"]
    assert list(pytorch.layers(save({"encoder": {"state_dict": state}, "decoder": {"state_dict": state}}))) == [
        "encoder.rnn", "decoder.rnn"]
    assert list(pytorch.layers(save([state, state]))) == ["0.rnn", "1.rnn"]
    assert list(pytorch.layers(save(nn.GRU(2, 3).state_dict()))) == [""]
    assert list(pytorch.layers(save({"model_state": nn.GRU(2, 3).state_dict()}))) == [""]
    assert list(pytorch.layers(save({"optimal_model": state}))) == ["optimal_model.rnn"]
    assert list(pytorch.layers(save(nn.DataParallel(nn.GRU(2, 3)).state_dict()))) == [""]


def test_two_layers_of_one_name(save_zip):
    """A cell's and a layer's parameters, whose names differ where those of their modules do not."""
    state, cell = nn.GRU(2, 3).state_dict(), nn.GRUCell(2, 3).state_dict()
    path = save_zip({"a": {"b": state} | {f"b.{name}": value for name, value in cell.items()}})
    with pytest.raises(fastrnn.ModelFormatError, match=r"two layers of one name among a\.b"):
        pytorch.layers(path)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.Adagrad, torch.optim.RMSprop,
                                  lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)])
def test_optimizers_are_no_layers(make, save):
    module = nn.LSTM(4, 6)
    optimizer = make(module.parameters())
    sum(p.square().sum() for p in module.parameters()).backward()
    optimizer.step()
    path = save({"opt": optimizer.state_dict(),
                 "sgd": {"state": dict(module.state_dict()), "param_groups": [{"lr": 0.1}]}})
    skipped = {}
    assert pytorch.layers(path, skipped) == {} and skipped == {"": "no recurrent layer: its tensors are an optimizer's"}
    assert assert_as_torch(path)                    # yet its tensors are there for who wants them


def test_options_hold_for_every_layer(save_zip):
    model = nn.ModuleDict({"a": nn.RNN(2, 3, 2), "b": nn.GRU(2, 3, 2), "c": nn.LSTM(2, 3, 2)})
    found = pytorch.layers(save_zip(model.state_dict()), batch_first=True, dropout=0.5, nonlinearity="relu")
    assert [layer.batch_first for layer in found.values()] == [True] * 3
    assert [layer.dropout for layer in found.values()] == [0.5] * 3
    assert found["a"].nonlinearity == "relu"
    with pytest.raises(TypeError, match="batch_frist"):
        pytorch.layers(save_zip(model.state_dict()), batch_frist=True)


def test_what_makes_no_layer(save_zip):
    state = Model().state_dict()
    del state["lstm.weight_hh_l1"]
    state["encoder.rnn.bias_ih_l0"] = state["encoder.rnn.bias_ih_l0"].int()
    path = save_zip({"state_dict": state})
    with pytest.raises(fastrnn.ModelFormatError, match=r"model\.pt: encoder\.rnn: .*int32"):
        pytorch.layers(path)
    skipped = {}
    assert list(pytorch.layers(path, skipped)) == ["stack.1"]
    assert list(skipped) == ["encoder.rnn", "lstm"] and "'weight_hh_l1'" in skipped["lstm"]


def test_signalling_nans_among_weights_of_two_widths(save_zip):
    """Widened without a warning."""
    nan = torch.full((12, 4), 0x7f800001, dtype=torch.int32).view(torch.float32)
    layer = pytorch.layers(save_zip({"weight_ih_l0": nan, "weight_hh_l0": torch.ones(12, 3, dtype=torch.float64)}))[""]
    assert layer.dtype == np.float64 and np.isnan(layer.parameters["weight_ih_l0"]).all()


@pytest.mark.parametrize("parameters", [
    {"weight_ih_l0": (12, 4)}, {"weight_hh_l0": (12, 3)}, {"weight_ih_l0": (12, 4), "weight_hh_l0": (12, 5)},
    {"weight_ih_l0": (12,), "weight_hh_l0": (12, 3)}, {"weight_ih_l0": (12, 0), "weight_hh_l0": (12, 3)},
    {"weight_ih_l0": (0, 4), "weight_hh_l0": (0, 0)}, {"weight_ih_l0": (0, 4), "weight_hh_l0": (0, 3)},
    {"weight_ih_l0": (), "weight_hh_l0": ()}, {"weight_ih_l0": (16, 4), "weight_hh_l0": (16, 2), "weight_hr_l0": ()},
    {"weight_ih_l0": (16, 4), "weight_hh_l0": (16, 2), "weight_hr_l0": (2, 0)},
    {"weight_ih_l0": (12, 4), "weight_hh_l0": (12, 3), "weight_ih_l99999999999": (1, 1)},
    {"weight_ih_l0": (12, 4), "weight_hh_l0": (12, 3), "bias_ih_l0": (12,)},
    {"weight_ih_l0": (12, 4), "weight_hh_l0": (12, 3), "weight_ih_l0_reverse": (12, 4)},
], ids=repr)
def test_parameters_that_make_no_layer(parameters, save_zip):
    path = save_zip({f"rnn.{name}": torch.ones(shape) for name, shape in parameters.items()})
    with pytest.raises(fastrnn.ModelFormatError, match=r"model\.pt: rnn: "):
        pytorch.layers(path)
    assert pytorch.load_state_dict(path)


def test_resemblyzer(data_dir, save):
    """Published weights (a torch state_dict), through a file of torch's, against the package's own outputs."""
    folder = data_dir / "models" / "resemblyzer"
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        weights = dict(arrays)
    with np.load(folder / "golden.npz", allow_pickle=False) as arrays:
        golden = dict(arrays)
    path = save({"model_state": {name: torch.from_numpy(value) for name, value in weights.items()}, "step": 1})
    layer = pytorch.layers(path, batch_first=True)["lstm"]
    assert repr(layer) == "LSTM(40, 256, num_layers=3, batch_first=True)"
    output, (h_n, c_n) = layer(golden["mel"])
    tensors = pytorch.load_state_dict(path)
    embed = np.maximum(h_n[-1] @ tensors["model_state.linear.weight"].T + tensors["model_state.linear.bias"], 0)
    embed /= np.linalg.norm(embed, axis=1, keepdims=True)
    for got, want in ((output[0], golden["out_last_layer_b0"]), (h_n, golden["h"]), (c_n, golden["c"]),
                      (embed, golden["embed"])):
        assert np.abs(got - want).max() <= TOLERANCE * max(1, np.abs(want).max())


# ---- Beside torch ---------------------------------------------------------------------------------------

def test_threads_may_load_at_once(save_zip):
    from concurrent.futures import ThreadPoolExecutor
    path = save_zip(views())
    want = pytorch.load_state_dict(path)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(pytorch.load_state_dict, [path] * 16):
            assert_same_bits(got, want)


def test_torch_is_not_imported(save_zip):
    path = save_zip(Model().state_dict())
    assert python(f"""
        from fastrnn.interop import pytorch
        from fastrnn.interop.formats import pickles
        print(list(pytorch.layers({str(path)!r})), [name for name in sys.modules if name.partition(".")[0] == "torch"])
    """) == "['encoder.rnn', 'stack.1', 'lstm'] []\n"


def test_the_example_works_without_torch():
    example = Path(__file__).parents[2] / "examples" / "from_pytorch.py"
    out = python(f"import runpy\nsys.modules['torch'] = None\nrunpy.run_path({str(example)!r})")
    assert out.startswith("PyTorch is not installed") and "the same to the bit" in out
