"""Linear, Embedding and Sequential: against torch, central differences, and the promises layers keep."""

import copy
import pickle

import numpy as np
import pytest
import torch
from helpers import assert_same_bits, central_differences, refuses

import fastrnn
from fastrnn import GRU, LSTM, RNN, Embedding, Linear, Sequential, losses

F64 = {"dtype": np.float64}


def deep(seed=0, **options):
    """Every kind of module, one Sequential in another."""
    return Sequential(Embedding(7, 3, rng=seed, **options), LSTM(3, 4, 2, bidirectional=True, rng=seed + 1, **options),
                      Linear(8, 5, rng=seed + 2, **options),
                      Sequential(GRU(5, 6, rng=seed + 3, **options), Linear(6, 2, bias=False, rng=seed + 4, **options)))


def plain(batch_first=False, dtype=np.float32):
    options = {"batch_first": batch_first, "dtype": dtype}
    return Sequential(GRU(3, 8, rng=0, **options), Linear(8, 4, rng=1, dtype=dtype), RNN(4, 5, rng=2, **options),
                      Linear(5, 2, rng=3, dtype=dtype))


# ---- Against torch ------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (64, 1), (70, 130)])
def test_linear_is_torchs(sizes, bias, dtype, tolerance, isa):
    layer = Linear(*sizes, bias, dtype=dtype, rng=0)
    theirs = torch.nn.Linear(*sizes, bias=bias)
    theirs.to(getattr(torch, np.dtype(dtype).name))
    theirs.load_state_dict({name: torch.tensor(a) for name, a in layer.parameters.items()})
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((6, 4, sizes[0])).astype(dtype), rng.standard_normal((6, 4, sizes[1])).astype(dtype)
    leaf = torch.tensor(x, requires_grad=True)
    expected = theirs(leaf)
    expected.backward(torch.tensor(dy))
    y, _, cache = layer.forward(x)
    grads = layer.backward(cache, dy)
    scale = np.sqrt(max(sizes)) * 4
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(grads.input, leaf.grad.numpy(), rtol=0, atol=tolerance * scale)
    for name, value in theirs.named_parameters():
        np.testing.assert_allclose(grads.parameters[name], value.grad.numpy(), rtol=0, atol=tolerance * scale)


def test_initialisations_are_torchs():
    """U(-1/sqrt(in), 1/sqrt(in)) and N(0, 1)."""
    weight = Linear(16, 4000, rng=0).parameters["weight"]
    assert 0.2499 < np.abs(weight).max() <= 0.25 and abs(weight.std() - 0.25 / np.sqrt(3)) < 1e-3
    weight = Embedding(1000, 64, rng=0).parameters["weight"]
    assert abs(weight.mean()) < 0.01 and abs(weight.std() - 1) < 0.01


def test_embedding_is_torchs():
    layer, theirs = Embedding(7, 3, rng=0), torch.nn.Embedding(7, 3)
    theirs.load_state_dict({"weight": torch.tensor(layer.state_dict()["weight"])})
    rng = np.random.default_rng(0)
    x, dy = rng.integers(0, 7, (5, 4)), rng.standard_normal((5, 4, 3)).astype(np.float32)
    expected = theirs(torch.tensor(x))
    expected.backward(torch.tensor(dy))
    y, _, cache = layer.forward(x)
    assert_same_bits(y, expected.detach().numpy())
    grads = layer.backward(cache, dy)
    assert grads.input is None
    np.testing.assert_allclose(grads.parameters["weight"], theirs.weight.grad.numpy(), rtol=1e-6, atol=1e-6)


def test_names_are_torchs():
    theirs = torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.LSTM(3, 4, 2, bidirectional=True),
                                 torch.nn.Linear(8, 5),
                                 torch.nn.Sequential(torch.nn.GRU(5, 6), torch.nn.Linear(6, 2, bias=False)))
    model = deep()
    assert [(name, a.shape) for name, a in model.parameters.items()] == \
        [(name, tuple(a.shape)) for name, a in theirs.state_dict().items()]
    model.load_state_dict({name: a.numpy() for name, a in theirs.state_dict().items()})
    assert_same_bits(model.state_dict(), {name: a.numpy() for name, a in theirs.state_dict().items()})


# ---- Gradients ----------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{}, {"lengths": [5, 0, 3]}, {"reset_mask": np.eye(5, 3, dtype=bool)}])
def test_gradients_against_central_differences(options):
    """Of every parameter and initial state, with a loss that weighs outputs and last states at random."""
    model, rng = deep(**F64), np.random.default_rng(5)
    x = rng.integers(0, 7, (5, 3))
    inner = rng.standard_normal((1, 3, 6)), None
    state = None, tuple(rng.standard_normal((4, 3, 4)) for _ in range(2)), None, inner
    output, last, cache = model.forward(x, state, **options)
    d_output = rng.standard_normal(output.shape)
    d_state = (None, tuple(rng.standard_normal(a.shape) for a in last[1]), None,
               (rng.standard_normal(last[3][0].shape), None))
    grads = model.backward(cache, d_output, d_state)
    values = model.state_dict()

    def loss():
        model.load_state_dict(values)
        output, last = model(x, state, **options)
        return ((output * d_output).sum() + sum((a * d).sum() for a, d in zip(last[1], d_state[1]))
                + (last[3][0] * d_state[3][0]).sum())

    for name, value in values.items():
        np.testing.assert_allclose(grads.parameters[name], central_differences(loss, value, 1e-6), rtol=1e-6,
                                   atol=1e-8, err_msg=name)
    for a, d in [*zip(state[1], grads.state[1]), (state[3][0], grads.state[3][0])]:
        np.testing.assert_allclose(d, central_differences(loss, a, 1e-6), rtol=1e-6, atol=1e-8)


def test_the_gradient_of_the_input():
    model, rng = plain(dtype=np.float64), np.random.default_rng(5)
    x = rng.standard_normal((4, 2, 3))
    output, _, cache = model.forward(x)
    d_output = rng.standard_normal(output.shape)
    found = model.backward(cache, d_output).input
    np.testing.assert_allclose(found, central_differences(lambda: (model(x)[0] * d_output).sum(), x, 1e-6), rtol=1e-6,
                               atol=1e-8)
    assert model.backward(cache, d_output, need_input=False).input is None


def test_gradients_are_of_the_parameters_at_the_time_and_the_input_may_be_overwritten():
    model, x = plain(), np.ones((4, 2, 3), np.float32)
    output, _, cache = model.forward(x)
    before = model.backward(cache, np.ones_like(output)).parameters
    x[:] = 5
    with model.updating() as parameters:
        for value in parameters.values():
            value += 1
    assert_same_bits(model.backward(cache, np.ones_like(output)).parameters, before)


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_lies_past_a_row_counts_nowhere(batch_first):
    model = plain(batch_first)
    x = np.random.default_rng(0).standard_normal((3, 5, 3) if batch_first else (5, 3, 3)).astype(np.float32)
    output, _, cache = model.forward(x, lengths=[5, 2, 0])
    called, _ = model(x, lengths=[5, 2, 0])
    assert_same_bits(called, output)
    past = np.arange(5)[:, None] >= [5, 2, 0]
    past = past.T if batch_first else past
    assert not output[past].any()
    dy = np.ones_like(output)
    grads = model.backward(cache, dy)
    dy[past] = np.nan
    assert_same_bits(model.backward(cache, dy).parameters, grads.parameters)
    assert not grads.input[past].any()


def test_unbatched_with_a_length():
    model, x = plain(), np.ones((5, 3), np.float32)
    output, _, cache = model.forward(x, lengths=[3])
    assert_same_bits(output[:3], model(x[:3])[0])
    assert not output[3:].any()
    assert model.backward(cache, np.ones_like(output)).input.shape == x.shape


# ---- The same bits, however it is run -----------------------------------------------------------

def test_streamed_chunked_batched_threaded_are_the_same_bits(isa):
    model = Sequential(Linear(3, 9, rng=0), GRU(9, 33, rng=1), Linear(33, 50, rng=2), LSTM(50, 7, 2, rng=3),
                       Linear(7, 2, rng=4))
    x = np.random.default_rng(0).standard_normal((40, 6, 3)).astype(np.float32)
    whole, state = model(x)
    with fastrnn.threads(2):
        assert_same_bits(model(x)[0], whole)
    first, carried = model(x[:17])
    second, last = model(x[17:], carried)
    assert_same_bits(np.concatenate([first, second]), whole)
    assert_same_bits({"h": last[1], "h, c": np.stack(last[3])}, {"h": state[1], "h, c": np.stack(state[3])})
    assert_same_bits(model(x[:, 4])[0], whole[:, 4])
    stream = model.stream(6)
    assert_same_bits(np.stack([stream.step(x_t) for x_t in x]), whole)
    assert_same_bits({"h": stream.state[1], "h, c": np.stack(stream.state[3])},
                     {"h": state[1], "h, c": np.stack(state[3])})
    stream.reset()
    assert_same_bits(np.concatenate([stream.run(x[:9]), stream.run(x[9:])]), whole)


@pytest.mark.parametrize("sizes", [(64, 1), (3, 200)])
def test_gradients_are_the_same_bits_for_any_number_of_threads(sizes, isa):
    """And no other library's threads are at work in them."""
    layer, rng = Linear(*sizes, rng=0), np.random.default_rng(0)
    x, dy = (rng.standard_normal((50, 64, size)).astype(np.float32) for size in sizes)
    _, _, cache = layer.forward(x)
    found = []
    for threads in (1, 2, 3):
        with fastrnn.threads(threads):
            grads = layer.backward(cache, dy)
            found.append({"input": grads.input, **grads.parameters})
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[2], found[0])


def test_gradients_of_a_row_that_is_nan_are_nan_where_it_counts():
    layer, x = Linear(3, 2, rng=0), np.ones((4, 3), np.float32)
    _, _, cache = layer.forward(x)
    dy = np.zeros((4, 2), np.float32)
    dy[1, 0] = np.nan
    grads = layer.backward(cache, dy)
    assert np.isnan(grads.parameters["weight"]).tolist() == [[True] * 3, [False] * 3]
    assert np.isnan(grads.parameters["bias"]).tolist() == [True, False]
    assert np.isnan(grads.input).all(1).tolist() == [False, True, False, False]


# ---- Streams ------------------------------------------------------------------------------------

def test_a_stream_of_one_row():
    model, x = plain(), np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    stream, out = model.stream(), np.empty(2, np.float32)
    for x_t, expected in zip(x, model(x)[0]):
        assert stream.step(x_t, out) is out
        assert_same_bits(out, expected)


def test_a_stream_of_whole_numbers():
    model = Sequential(Embedding(7, 3, rng=0), GRU(3, 4, rng=1), Linear(4, 2, rng=2))
    x = np.arange(6) % 7
    stream = model.stream()
    assert_same_bits(np.stack([stream.step(i) for i in x]), model(x[:, None])[0][:, 0])
    stream = model.stream(2)
    assert_same_bits(np.stack([stream.step([i, i]) for i in x])[:, 1], model(x[:, None])[0][:, 0])
    with refuses(ValueError, "x"):
        stream.step([1, 2, 3])


def test_a_stream_keeps_its_weights_goes_back_and_pickles():
    model, x = plain(), np.ones(3, np.float32)
    stream = model.stream()
    stream.step(x)
    kept = stream.state
    expected = stream.step(x)
    with model.updating() as parameters:
        for value in parameters.values():
            value += 1
    stream.state = kept
    again = pickle.loads(pickle.dumps(stream))
    assert_same_bits(stream.step(x), expected)
    assert_same_bits(again.step(x), expected)
    with refuses(ValueError, "state"):
        stream.state = kept[:2]
    with refuses(TypeError, "state"):
        stream.state = np.array("x")
    with refuses(ValueError, "out"):
        stream.step(x, np.empty(3, np.float32))


def test_rows_of_a_stream_are_reset():
    model, x = plain(), np.ones((2, 3), np.float32)
    stream = model.stream(2)
    first = stream.step(x)
    stream.reset([1])
    second = stream.step(x)
    assert_same_bits(second[1], first[1])
    assert not np.array_equal(second[0], first[0])


def test_bidirectional_models_do_not_stream():
    with pytest.raises(ValueError, match="bidirectional"):
        deep().stream()


# ---- A model as an object -----------------------------------------------------------------------

@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("model", [deep(), deep(dtype=np.float64), plain(True), Linear(3, 2, bias=False, rng=0),
                                   Embedding(4, 2, rng=0)], ids=lambda model: repr(model)[:30])
def test_saved_and_loaded_in_one_file(model, ending, tmp_path):
    model.save(tmp_path / f"model{ending}")
    loaded = fastrnn.load(tmp_path / f"model{ending}")
    assert repr(loaded) == repr(model)
    assert_same_bits(loaded.state_dict(), model.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == [f"model{ending}"]


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_interop_finds_the_recurrent_layers(ending, tmp_path):
    import fastrnn.interop
    model = deep()
    model.save(tmp_path / f"model{ending}")
    found = fastrnn.interop.layers(tmp_path / f"model{ending}")
    assert list(found) == ["1", "3.0"]
    assert repr(list(found.values())) == repr([model[1], model[3][0]])
    assert_same_bits(found["3.0"].state_dict(), model[3][0].state_dict())


def test_copies_and_pickles_are_apart():
    model, x = plain(), np.ones((4, 2, 3), np.float32)
    expected = model(x)[0]
    for twin in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same_bits(twin(x)[0], expected)
        with twin.updating() as parameters:
            parameters["0.bias_ih_l0"] += 1
        assert not np.array_equal(twin(x)[0], expected)
        assert_same_bits(model(x)[0], expected)
        assert not any(a.flags.writeable for a in twin.parameters.values())


def test_as_a_sequence():
    model = plain()
    assert len(model) == 4 and list(model)[2] is model[2] and model.recurrent == [model[0], model[2]]
    assert repr(model) == "Sequential(GRU(3, 8), Linear(8, 4), RNN(4, 5), Linear(5, 2))"


def test_a_state_dict_that_does_not_fit_changes_nothing():
    model = plain()
    before = model.state_dict()
    wrong = {name: value + 1 for name, value in before.items()}
    wrong["3.bias"] = np.zeros(5, np.float32)
    with refuses(ValueError, "3.bias"):
        model.load_state_dict(wrong)
    assert_same_bits(model.state_dict(), before)


def test_dropout_acts_in_forward_alone_and_by_its_seed():
    model = Sequential(GRU(3, 8, 2, dropout=0.5, rng=0), Linear(8, 1, rng=1))
    x = np.ones((4, 2, 3), np.float32)
    assert_same_bits(model.forward(x, rng=3)[0], model.forward(x, rng=3)[0])
    assert not np.array_equal(model.forward(x, rng=3)[0], model.forward(x, rng=4)[0])
    assert_same_bits(model(x)[0], model(x)[0])


# ---- Bad input ----------------------------------------------------------------------------------

BAD = [
    (lambda: Sequential(), ValueError, "modules"),
    (lambda: Sequential(GRU(3, 4), np.tanh), TypeError, "modules"),
    (lambda: Sequential(GRU(3, 4), Linear(5, 1)), ValueError, "modules"),
    (lambda: Sequential(GRU(3, 4), Embedding(5, 1)), ValueError, "modules"),
    (lambda: Sequential(GRU(3, 4), Linear(4, 1, dtype=np.float64)), ValueError, "modules"),
    (lambda: Sequential(GRU(3, 3, batch_first=True), GRU(3, 3)), ValueError, "modules"),
    (lambda: Sequential(*[GRU(3, 3)] * 2), ValueError, "modules"),
    (lambda: Linear(0, 1), ValueError, "in_features"),
    (lambda: Linear(1, True), TypeError, "out_features"),
    (lambda: Linear(1, 1, bias=1), TypeError, "bias"),
    (lambda: Linear(1, 1, dtype="f2"), TypeError, "dtype"),
    (lambda: Linear(2**40, 2**40), ValueError, "weight"),
    (lambda: Embedding(2**40, 2**40), ValueError, "num_embeddings"),
    (lambda: Linear(3, 1)(None), TypeError, "x"),
    (lambda: Linear(3, 1)(np.ones((2, 4), "f4")), ValueError, "x"),
    (lambda: Linear(3, 1)(np.ones((2, 3))), ValueError, "x"),
    (lambda: Embedding(3, 1)(np.ones(2)), TypeError, "x"),
    (lambda: Embedding(3, 1)([0, 3]), ValueError, "x"),
    (lambda: Embedding(3, 1)([-1]), ValueError, "x"),
    (lambda: plain()(np.ones((4, 2, 3), "f4"), [None]), ValueError, "state"),
    (lambda: plain()(np.ones((4, 2, 3), "f4"), np.ones(4)), TypeError, "state"),
    (lambda: plain()(np.ones((4, 2, 3), "f4"), lengths=[5, 1]), ValueError, "lengths"),
    (lambda: plain().backward(None, np.ones(3)), TypeError, "cache"),
    (lambda: plain().backward(plain().forward(np.ones((4, 2, 3), "f4"))[2], np.ones(3)), ValueError, "cache"),
    (lambda: Linear(3, 1).backward(Linear(3, 1).forward(np.ones(3, "f4"))[2], np.ones(1)), ValueError, "cache"),
    (lambda: Linear(3, 1).backward(None, np.ones(1)), TypeError, "cache"),
]


@pytest.mark.parametrize("call, error, name", BAD)
def test_bad_input(call, error, name):
    with refuses(error, name):
        call()


@pytest.mark.parametrize("shape", [(3, 2), (4, 2, 3), ()])
def test_a_gradient_of_another_shape(shape):
    for model in (plain(), Linear(3, 2, rng=0)):
        cache = model.forward(np.ones((4, 2, 3), np.float32))[2]
        with refuses(ValueError, "d_output"):
            model.backward(cache, np.ones(shape, np.float32))


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (0, 0, 3)])
def test_nothing_in_nothing_out(shape):
    model = plain()
    output, _, cache = model.forward(np.ones(shape, np.float32))
    assert output.shape == (*shape[:2], 2)
    grads = model.backward(cache, output)
    assert grads.input.shape == shape
    assert not any(value.any() for value in grads.parameters.values())
    embedded, _, cache = Embedding(4, 2, rng=0).forward(np.zeros(shape, int))
    assert embedded.shape == (*shape, 2)


def test_layouts_of_the_input_do_not_matter():
    from helpers import LAYOUTS
    layer = Linear(6, 5, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 3, 6)).astype(np.float32)
    y, _, cache = layer.forward(x)
    expected = layer.backward(cache, y).parameters
    for name, layout in LAYOUTS.items():
        found, _, cache = layer.forward(layout(x))
        assert np.array_equal(found, y), name
        assert_same_bits(layer.backward(cache, layout(y)).parameters, expected)


# ---- Broken files -------------------------------------------------------------------------------

LIES = [{"modules": None}, {"modules": {}}, {"modules": []}, {"modules": [1]}, {"modules": [{"class": "GRU"}]},
        {"modules": [{"version": 2, "class": "GRU"}] * 2}, {"colour": 1}, {"class": "Linear"}]


@pytest.mark.parametrize("lie", LIES, ids=str)
@pytest.mark.parametrize("read", [fastrnn.load, lambda path: __import__("fastrnn.interop").interop.layers(path)])
def test_a_configuration_that_lies(lie, read, tmp_path):
    import json

    from fastrnn.nn import files
    model = Sequential(GRU(3, 4, rng=0), Linear(4, 1, rng=1))
    text = json.dumps(files.configuration(model) | lie).encode()
    np.savez(tmp_path / "model.npz", **model.parameters, fastrnn=np.frombuffer(text, np.uint8))
    with pytest.raises(fastrnn.ModelFormatError):
        read(tmp_path / "model.npz")


def test_modules_that_nest_without_end(tmp_path):
    text = b'{"version": 1, "class": "Sequential", "modules": [' * 900 + b"]}" * 900
    np.savez(tmp_path / "model.npz", fastrnn=np.frombuffer(text, np.uint8))
    with pytest.raises(fastrnn.ModelFormatError):
        fastrnn.load(tmp_path / "model.npz")


def test_arrays_of_no_module(tmp_path):
    import json

    from fastrnn.nn import files
    model = Sequential(GRU(3, 4, rng=0), Linear(4, 1, rng=1))
    text = np.frombuffer(json.dumps(files.configuration(model)).encode(), np.uint8)
    for name in ("2.weight", "weight", "0.colour"):
        np.savez(tmp_path / "model.npz", **model.parameters, **{name: np.ones(2, np.float32)}, fastrnn=text)
        with pytest.raises(fastrnn.ModelFormatError, match="unknown"):
            fastrnn.load(tmp_path / "model.npz")


def test_mutated_files(tmp_path):
    import mutations
    model = Sequential(Embedding(3, 2, rng=0), GRU(2, 3, rng=0), Linear(3, 1, rng=1))
    model.save(tmp_path / "model.npz")
    good, rng = (tmp_path / "model.npz").read_bytes(), np.random.default_rng(0)
    for broken in mutations.mixed(good, rng, min(300, mutations.COUNT)):
        mutations.assert_refuses_or_loads(fastrnn.load, broken, tmp_path / "broken.npz")


def test_a_loss_of_a_model_end_to_end():
    """The whole way, as training goes it: the derivative along a random direction of all parameters."""
    model, rng = deep(**F64), np.random.default_rng(3)
    x, y = rng.integers(0, 7, (5, 3)), rng.integers(0, 2, (5, 3))
    loss, mask = losses.CrossEntropy(), rng.random((5, 3)) < 0.7
    output, _, cache = model.forward(x)
    grads = model.backward(cache, loss(output, y, mask)[1]).parameters
    start = model.state_dict()
    direction = {name: rng.standard_normal(value.shape) for name, value in start.items()}
    values = []
    for step in (1e-5, -1e-5):
        model.load_state_dict({name: value + step * direction[name] for name, value in start.items()})
        values.append(loss(model(x)[0], y, mask)[0])
    slope = sum((grads[name] * d).sum() for name, d in direction.items())
    assert abs((values[0] - values[1]) / 2e-5 - slope) < 1e-7 * abs(slope) + 1e-9
