"""Signatures show every option with its default, and every public parameter and result has its type."""

import inspect

import numpy as np
import pytest
from helpers import refuses

import fastrnn

CLASSES = [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU, fastrnn.RNNCell, fastrnn.LSTMCell, fastrnn.GRUCell, fastrnn.Linear,
           fastrnn.Embedding, fastrnn.Sequential, fastrnn.Gradients, fastrnn.Stream]
FUNCTIONS = [fastrnn.load, fastrnn.active_isa, fastrnn.available_isas, fastrnn.get_num_threads, fastrnn.set_num_threads,
             fastrnn.show_config, fastrnn.threads]
COMPILED = {"Stream.step", "Stream.run"}     # their types are in _core.pyi
SHARED = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False,
          "reverse": False, "proj_size": 0, "activations": None, "clip": None, "dtype": np.float32, "rng": None}
OWN = {fastrnn.RNN: {"nonlinearity": "tanh"}, fastrnn.GRU: {"reset_after": True, "update": "torch"},
       fastrnn.LSTM: {"peephole": False, "coupled_gates": False}}


def public_callables():
    yield from ((function.__name__, function) for function in FUNCTIONS)
    for cls in CLASSES:
        yield cls.__name__, cls
        for name, member in inspect.getmembers(cls, callable):
            full_name = f"{cls.__name__}.{name}"
            if (name == "__call__" or not name.startswith("_")) and full_name not in COMPILED:
                yield full_name, member


@pytest.mark.parametrize("function", [pytest.param(function, id=name) for name, function in public_callables()])
def test_everything_is_named_and_typed(function):
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    assert not [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
    assert [p.name for p in parameters if p.kind is p.VAR_POSITIONAL] in ([], ["modules"])
    assert not [p.name for p in parameters if p.annotation is p.empty]
    if not inspect.isclass(function):
        assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("cls", OWN)
def test_every_option_of_a_layer_is_shown_with_its_default(cls):
    options = {p.name: p.default for p in inspect.signature(cls).parameters.values() if p.default is not p.empty}
    assert options == SHARED | OWN[cls]
    from_parameters = {p.name: p.default for p in inspect.signature(cls.from_parameters).parameters.values()
                       if p.default is not p.empty}
    assert from_parameters == {name: value for name, value in options.items() if name != "rng"}
    with pytest.raises(TypeError, match="hiden_size"):
        cls(2, 3, hiden_size=4)


@pytest.mark.parametrize("cls, options", [
    (fastrnn.RNN, {"nonlinearity": "relu"}), (fastrnn.GRU, {"reset_after": False, "update": "mirror"}),
    (fastrnn.LSTM, {"peephole": True, "coupled_gates": True, "proj_size": 2})])
def test_from_parameters_passes_every_option_on(cls, options):
    options |= {"bias": False, "batch_first": True, "dropout": 0.25, "bidirectional": True, "clip": 3.0,
                "dtype": np.float64}
    layer = cls(4, 5, 2, rng=0, **options)
    again = cls.from_parameters(layer.state_dict(), 4, 5, 2, **options)
    assert type(again) is cls and repr(again) == repr(layer)
    x = np.random.default_rng(0).standard_normal((3, 6, 4))
    assert np.array_equal(again(x)[0], layer(x)[0])
    reverse = cls.from_parameters(cls(4, 5, rng=0).state_dict(), 4, 5, reverse=True, activations=None)
    assert reverse.reverse and not reverse.bidirectional


def test_a_sequential_is_a_sequence_of_its_modules():
    model = fastrnn.Sequential(fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(4, 2, rng=1), fastrnn.RNN(2, 1, rng=2))
    head = model[:2]
    assert isinstance(head, fastrnn.Sequential) and list(head) == [model[0], model[1]] and model[-1] is model[2]
    x = np.ones((5, 3), np.float32)
    whole, rest = model(x)[0], model[2:](head(x)[0])[0]
    assert np.array_equal(rest, whole)
    with head.updating() as parameters:         # the modules are shared, and so are their weights
        parameters["1.bias"] += 1
    assert not np.array_equal(model(x)[0], whole)
    with refuses(ValueError, "modules"):
        model[3:]
    with pytest.raises(IndexError):
        model[3]


def test_streams_have_short_names():
    gru, linear = fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(4, 2, rng=1)
    assert repr(gru.stream()) == "<Stream of 1 row, GRU(3, 4)>"
    assert repr(fastrnn.Sequential(gru, linear).stream(2)) == \
        "<Stream of 2 rows, Sequential(GRU(3, 4), Linear(4, 2))>"
