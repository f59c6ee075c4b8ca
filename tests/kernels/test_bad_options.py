"""What bad options get: the constructors of every class, and process-wide settings."""

import numpy as np
import pytest
from helpers import arrays, assert_same_bits, make_layer, refuses

import fastrnn

T, N, I, H = 4, 2, 3, 5
X = np.zeros((T, N, I), np.float32)


# ---- Constructors and options -------------------------------------------------------------------

NOT_SIZES = [(TypeError, wrong) for wrong in (True, np.True_, 2.0, np.float32(2), "2", None, [2], 1j)]
BAD_SIZES = [*NOT_SIZES, *((ValueError, wrong) for wrong in (0, -1, np.int8(-3), -2**70))]
NOT_FLAGS = [(TypeError, wrong) for wrong in (0, 1, None, "yes", 1.0, [True])]
LAYERS, CELLS = (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM), (fastrnn.RNNCell, fastrnn.GRUCell, fastrnn.LSTMCell)
BAD_OPTIONS = {
    "input_size": BAD_SIZES, "hidden_size": BAD_SIZES, "bias": NOT_FLAGS,
    "dtype": [(TypeError, wrong) for wrong in (np.float16, np.longdouble, complex, int, object, "half", "nonsense", 4,
                                               ">f4", None, [("a", "f4")], (np.float32, -1), object())],
    "rng": [*((TypeError, wrong) for wrong in (True, 1.5, "seed", [1], np.random)), (ValueError, -1)]}
BAD_LAYER_OPTIONS = BAD_OPTIONS | {
    "num_layers": BAD_SIZES, "batch_first": NOT_FLAGS, "bidirectional": NOT_FLAGS,
    "dropout": [*((TypeError, wrong) for wrong in (True, None, "0.5", [0.5], 1j)),
                *((ValueError, wrong) for wrong in (-0.1, 1.5, float("nan"), float("inf"), np.float32(2)))],
    "proj_size": [*NOT_SIZES, (ValueError, -1)]}
OF_ONE_KIND = {
    fastrnn.LSTM: {"proj_size": [(ValueError, H), (ValueError, H + 1)]},
    fastrnn.GRU: {"reset_after": NOT_FLAGS, "proj_size": [(ValueError, 1)]},
    fastrnn.RNN: {"nonlinearity": [*((ValueError, wrong) for wrong in ("relu6", "TANH", "")),
                                   *((TypeError, wrong) for wrong in (None, 3, ["tanh"], np.array(["tanh", "relu"])))],
                  "proj_size": [(ValueError, 1)]},
    fastrnn.GRUCell: {"reset_after": NOT_FLAGS},
    fastrnn.RNNCell: {"nonlinearity": [(ValueError, "relu6"), (TypeError, None)]}}


def constructions():
    for cls in LAYERS + CELLS:
        table = dict(BAD_LAYER_OPTIONS if cls in LAYERS else BAD_OPTIONS)
        for option, faults in OF_ONE_KIND.get(cls, {}).items():
            table[option] = [*table.get(option, []), *faults]
        for option, faults in table.items():
            for error, wrong in faults:
                value = repr(wrong).partition(" at 0x")[0]
                yield pytest.param(cls, option, error, wrong, id=f"{cls.__name__}-{option}-{value:.40}")


@pytest.mark.parametrize("cls, option, error, wrong", list(constructions()))
def test_constructors(cls, option, error, wrong):
    with refuses(error, option):
        cls(**{"input_size": I, "hidden_size": H} | {option: wrong})


@pytest.mark.parametrize("option", [{"num_layers": 2}, {"batch_first": True}, {"bidirectional": True}, {"proj_size": 2},
                                    {"dropout": 0.5}, {"nonsense": 1}], ids=str)
@pytest.mark.parametrize("cls", CELLS)
def test_a_cell_takes_no_option_of_a_layer(cls, option):
    with pytest.raises(TypeError, match=next(iter(option))):
        cls(I, H, **option)


@pytest.mark.parametrize("cls", LAYERS + CELLS)
def test_unknown_options_and_missing_sizes(cls):
    with pytest.raises(TypeError, match="nonsense"):
        cls(I, H, nonsense=1)
    with pytest.raises(TypeError, match="hidden_size"):
        cls(I)


@pytest.mark.parametrize("error, wrong", BAD_SIZES)
def test_batch_size_of_a_stream(error, wrong):
    with refuses(error, "batch_size"):
        make_layer("gru", I, H, rng=0).stream(wrong)


def test_bidirectional_layers_cannot_stream():
    with pytest.raises(ValueError, match="a bidirectional layer cannot stream"):
        make_layer("gru", I, H, rng=0, bidirectional=True).stream()


@pytest.mark.parametrize("error, wrong", NOT_FLAGS)
def test_flags_of_methods(error, wrong):
    layer = make_layer("lstm", I, H, rng=0)
    with refuses(error, "return_cell_states"):
        layer(X, return_cell_states=wrong)
    with refuses(error, "strict"):
        layer.load_state_dict(layer.state_dict(), strict=wrong)


@pytest.mark.parametrize("wrong", [None, "snapshot", 1, [1, 2], object(), np.zeros(3, np.uint8)])
def test_snapshot_that_is_no_bytes(wrong):
    with refuses(TypeError, "snapshot"):
        make_layer("gru", I, H, rng=0).restore(wrong)


@pytest.mark.parametrize("call", ["set_num_threads", "threads"])
@pytest.mark.parametrize("error, wrong", [(ValueError, 0), (ValueError, -1), (ValueError, -2**70), *NOT_SIZES])
def test_thread_counts(call, error, wrong):
    before = fastrnn.get_num_threads()
    with refuses(error, "num_threads"):
        if call == "threads":
            fastrnn.threads(wrong).__enter__()
        else:
            fastrnn.set_num_threads(wrong)
    assert fastrnn.get_num_threads() == before


@pytest.mark.parametrize("count", [1, 3, 257, 2**31, 2**32, 2**63 - 1, 2**63, 2**70], ids=str)
def test_a_thread_count_that_is_taken_is_of_use(count):
    layer, x = make_layer("gru", 40, 60, rng=0), np.ones((60, 9, 40), np.float32)
    expected = arrays(layer(x))
    if count < 2**63:
        with fastrnn.threads(count):
            assert_same_bits(arrays(layer(x)), expected)
    else:
        with refuses(ValueError, "num_threads"), fastrnn.threads(count):
            layer(x)
