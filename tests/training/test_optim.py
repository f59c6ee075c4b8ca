"""Optimizers against torch's over 100 steps, for every option and instruction set; schedules; clipping."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from helpers import assert_same_bits, refuses

import fastrnn
from fastrnn import _core, optim

OPTIONS = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3}, {"momentum": 0.8, "nesterov": True},
            {"weight_decay": 0.1}, {"momentum": 0.7, "nesterov": True, "weight_decay": 0.02}],
    "RMSprop": [{}, {"alpha": 0.9}, {"eps": 1e-2}, {"momentum": 0.6}, {"centered": True}, {"weight_decay": 0.1},
                {"alpha": 0.8, "eps": 1e-3, "momentum": 0.5, "centered": True, "weight_decay": 0.01}],
    "Adam": [{}, {"betas": (0.7, 0.95)}, {"betas": (0.0, 0.9)}, {"eps": 1e-2}, {"weight_decay": 0.1}],
    "AdamW": [{}, {"betas": (0.7, 0.95), "eps": 1e-3}, {"weight_decay": 0.2}, {"weight_decay": 0.0}],
}
CASES = [pytest.param(name, options, id=f"{name}-{'-'.join(options) or 'plain'}")
         for name, several in OPTIONS.items() for options in several]


def model(dtype=np.float32):
    """Parameters of 1 to 108 elements: whole SIMD vectors, parts of one, and both."""
    return fastrnn.Sequential(fastrnn.LSTM(2, 9, dtype=dtype, rng=0), fastrnn.Linear(9, 1, dtype=dtype, rng=1))


def gradients(of, rng):
    """Gradients whose sizes, from 1e-4 to 1, differ between the parameters."""
    return {name: (rng.standard_normal(value.shape) * 10.0 ** -(i % 5)).astype(value.dtype)
            for i, (name, value) in enumerate(of.parameters.items())}


def torchs(name, of, options):
    """torch's optimizer of the same name and options; learning_rate is called lr there."""
    options = {"lr" if key == "learning_rate" else key: value for key, value in options.items()}
    parameters = {key: torch.nn.Parameter(torch.tensor(value)) for key, value in of.state_dict().items()}
    return parameters, getattr(torch.optim, name)(parameters.values(), **options)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 3e-6), (np.float64, 5e-15)])
@pytest.mark.parametrize("name, options", CASES)
def test_a_hundred_steps_are_torchs(name, options, dtype, tolerance, isa):
    """Equal to the rounding of a hundred steps, relative to how far a parameter moved and to its size."""
    mine, rng, options = model(dtype), np.random.default_rng(0), {"learning_rate": 0.01} | options
    start = mine.state_dict()
    theirs, their_optimizer = torchs(name, mine, options)
    optimizer = getattr(optim, name)(mine, **options)
    for _ in range(100):
        grads = gradients(mine, rng)
        for key, value in grads.items():
            theirs[key].grad = torch.tensor(value)
        their_optimizer.step()
        optimizer.step(grads)
    assert optimizer.steps == 100
    for key, value in mine.parameters.items():
        expected = theirs[key].detach().numpy()
        scale = np.abs(expected).max() + np.abs(expected - start[key]).max()
        assert np.abs(expected - start[key]).max() > 1e-6
        np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * scale, err_msg=key)


@pytest.mark.parametrize("name", OPTIONS)
def test_defaults_and_options_are_torchs(name):
    """Every option has torch's name and default; the learning rate is called lr there."""
    _, theirs = torchs(name, model(), {})
    mine = getattr(optim, name)(model())
    for key, value in {"lr": mine.learning_rate, **mine.options()}.items():
        assert theirs.defaults[key] == value, key
        assert key == "lr" or any(key in options for options in OPTIONS[name]), f"{key} is not tested above"


@pytest.mark.parametrize("first", [1.0, 50.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_variance_of_a_constant_gradient_is_never_below_zero(isa, dtype, first):
    """Centered: v - m^2 of a gradient that no longer changes comes to 0, and rounding takes it below.

    That happens where it was far larger before: m then comes to rest a few ULP above the gradient, m^2 twice as far
    above its square, and v only as far above it as m above the gradient.
    """
    layer = fastrnn.Linear(64, 1, bias=False, dtype=dtype, rng=0)
    optimizer = optim.RMSprop(layer, learning_rate=1e-3, alpha=0.9, eps=1e-8, centered=True)
    gradient = np.linspace(-3, 3, 64, dtype=dtype)[None]
    optimizer.step({"weight": gradient * np.dtype(dtype).type(first)})
    for _ in range(400):
        optimizer.step({"weight": gradient})
        assert np.isfinite(layer.parameters["weight"]).all()
    state = optimizer.state_dict()
    below = state["square.weight"] < state["mean.weight"].astype(np.longdouble) ** 2
    assert below.any() == (first > 1)


@pytest.mark.parametrize("name, options", CASES)
def test_a_state_dict_goes_on_to_the_bit(name, options):
    first, rng = model(), np.random.default_rng(0)
    optimizer = getattr(optim, name)(first, **options, schedule=optim.cosine(20))
    for _ in range(5):
        optimizer.step(gradients(first, rng))
    second = copy.deepcopy(first)
    again = getattr(optim, name)(second, **options, schedule=optim.cosine(20))
    again.load_state_dict(optimizer.state_dict())
    for _ in range(5):
        grads = gradients(first, rng)
        optimizer.step(grads)
        again.step(grads)
    assert_same_bits(second.state_dict(), first.state_dict())
    states = [{key: np.asarray(value) for key, value in one.state_dict().items()} for one in (again, optimizer)]
    assert_same_bits(*states)


def test_steps_write_to_no_array_that_somebody_holds():
    """A step writes to no array of a stream, a cache, a copy or the caller; yet two buffers do for a long training."""
    layer = fastrnn.GRU(3, 8, rng=0)
    optimizer, rng, x = optim.Adam(layer, learning_rate=0.1), np.random.default_rng(0), np.ones((4, 2, 3), np.float32)
    held = []
    for _ in range(4):
        output, _, cache = layer.forward(x)
        stream = layer.stream(2)
        held.append((dict(layer.parameters), layer.state_dict(), cache, layer.backward(cache, output).parameters,
                     copy.copy(layer), output, stream, layer.parameters["weight_hh_l0"][1:3, ::2],
                     memoryview(layer.parameters["bias_ih_l0"])))
        optimizer.step(gradients(layer, rng))
    for parameters, before, cache, grads, twin, output, stream, part, view in held:
        assert_same_bits(parameters, before)
        assert_same_bits(layer.backward(cache, output).parameters, grads)
        assert_same_bits(twin(x)[0], output)
        assert_same_bits(stream.run(x), output)
        assert_same_bits({"part": part, "view": np.asarray(view)},
                         {"part": before["weight_hh_l0"][1:3, ::2], "view": before["bias_ih_l0"]})
    del held, parameters, before, cache, grads, twin, output, stream, part, view
    places = set()
    for _ in range(10):
        optimizer.step(gradients(layer, rng))
        places.add(layer.parameters["weight_ih_l0"].ctypes.data)
    assert len(places) == 2
    assert not any(value.flags.writeable for value in layer.parameters.values())


HOLDERS = {"parameters": lambda layer: dict(layer.parameters), "one": lambda layer: layer.parameters["weight_hh_l0"],
           "part": lambda layer: layer.parameters["weight_hh_l0"][1:3, ::2],
           "memory": lambda layer: memoryview(layer.parameters["bias_ih_l0"]), "copy": copy.copy,
           "stream": lambda layer: layer.stream(2),
           "cache": lambda layer: layer.forward(np.ones((2, 1, 3), np.float32))[2]}


@pytest.mark.parametrize("holder", HOLDERS)
def test_whoever_holds_parameters_alone_keeps_them(holder):
    """As training holds those of its best epoch: nothing else needs these arrays any more."""
    layer, rng, x = fastrnn.GRU(3, 8, rng=0), np.random.default_rng(0), np.ones((4, 2, 3), np.float32)
    optimizer = optim.SGD(layer, learning_rate=0.1)

    def shown(held):
        if holder == "parameters":
            return {name: value.copy() for name, value in held.items()}
        if holder == "cache":
            return layer.backward(held, np.ones((2, 1, 8), np.float32)).parameters
        if holder == "copy":
            return held.state_dict()
        if holder == "stream":
            held.reset()
            return {"output": held.run(x)}
        return {"array": np.array(held)}

    for _ in range(5):
        held = HOLDERS[holder](layer)
        before = shown(held)
        for _ in range(3):
            optimizer.step(gradients(layer, rng))
        assert_same_bits(shown(held), before)


def test_parameters_set_by_others_are_where_the_next_step_starts():
    layer = fastrnn.Linear(3, 2, rng=0)
    optimizer = optim.SGD(layer, learning_rate=0.5)
    ones = {name: np.ones_like(value) for name, value in layer.parameters.items()}
    optimizer.step(ones)
    layer.load_state_dict({name: np.full_like(value, 7) for name, value in ones.items()})
    optimizer.step(ones)
    assert all((value == 6.5).all() for value in layer.parameters.values())


@pytest.mark.parametrize("name", OPTIONS)
def test_subnormal_numbers_are_flushed_and_the_mode_is_restored(name, isa):
    layer = fastrnn.Linear(40, 3, rng=0)
    optimizer = getattr(optim, name)(layer, **({"momentum": 0.9} if name in ("SGD", "RMSprop") else {}))
    for size in (1e-25, *[0.0] * 5, 1e-40):
        grads = {key: np.full_like(value, size) for key, value in layer.parameters.items()}
        mode = _core.floating_point_mode()
        optimizer.step(grads)
        assert _core.floating_point_mode() == mode
    tiny = np.finfo(np.float32).tiny
    for key, value in optimizer.state_dict().items():
        if key not in ("steps", "learning_rate"):
            assert not ((value != 0) & (np.abs(value) < tiny)).any(), key


def test_layouts_of_gradients_do_not_matter():
    from helpers import LAYOUTS
    grads = gradients(model(), np.random.default_rng(0))
    expected = None
    for name, layout in LAYOUTS.items():
        mine = model()
        optim.Adam(mine).step({key: layout(value) if value.ndim == 2 else value for key, value in grads.items()})
        expected = expected or mine.state_dict()
        assert all(np.array_equal(mine.parameters[key], value) for key, value in expected.items()), name


def test_pickles_and_copies():
    mine = model()
    optimizer = optim.AdamW(mine, learning_rate=0.1)
    optimizer.step(gradients(mine, np.random.default_rng(0)))
    for twin in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        grads = gradients(mine, np.random.default_rng(1))
        twin.step(grads)
        apart = copy.deepcopy(optimizer)
        apart.step(grads)
        assert_same_bits(twin.model.state_dict(), apart.model.state_dict())
        assert optimizer.steps == 1


# ---- Schedules ----------------------------------------------------------------------------------

def test_schedules():
    assert [optim.step_decay(3, 0.1)(i) for i in (0, 2, 3, 6)] == pytest.approx([1, 1, 0.1, 0.01])
    assert [optim.exponential(0.9)(i) for i in (0, 1, 2)] == pytest.approx([1, 0.9, 0.81])
    assert optim.cosine(10, floor=0.2)(10) == optim.cosine(10, floor=0.2)(99) == 0.2
    both = optim.warmup(4, optim.cosine(6))
    assert [both(i) for i in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert both(10) == pytest.approx(0) and both(7) == pytest.approx(0.5)


def test_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 7, eta_min=0.1)
    for i in range(8):
        assert optim.cosine(7, floor=0.1)(i) == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()


def test_a_schedule_scales_the_rate_and_counts_steps():
    layer = fastrnn.Linear(1, 1, bias=False, rng=0)
    layer.load_state_dict({"weight": np.zeros((1, 1), np.float32)})
    optimizer = optim.SGD(layer, learning_rate=1.0, schedule=optim.step_decay(2, 0.5))
    seen = []
    for _ in range(4):
        seen.append(optimizer.current_learning_rate)
        optimizer.step({"weight": -np.ones((1, 1), np.float32)})
    assert seen == [1, 1, 0.5, 0.5] and layer.parameters["weight"].item() == 3
    optimizer.learning_rate = 0.0
    optimizer.step({"weight": np.ones((1, 1), np.float32)})
    assert layer.parameters["weight"].item() == 3


# ---- Clipping -----------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_norm", [0.5, 1e6, math.inf])
def test_clipping_is_torchs(dtype, max_norm, isa):
    grads = gradients(model(dtype), np.random.default_rng(0))
    parameters = [torch.nn.Parameter(torch.zeros(value.shape, dtype=getattr(torch, np.dtype(dtype).name)))
                  for value in grads.values()]
    for parameter, value in zip(parameters, grads.values()):
        parameter.grad = torch.tensor(value)
    expected = torch.nn.utils.clip_grad_norm_(parameters, max_norm).item()
    assert optim.clip_grad_norm(grads, max_norm) == pytest.approx(expected, rel=1e-6)
    for parameter, value in zip(parameters, grads.values()):
        np.testing.assert_allclose(value, parameter.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_norm_that_is_not_finite_is_returned_and_nothing_scaled(bad):
    grads = gradients(model(), np.random.default_rng(0))
    grads["0.weight_hh_l0"][3, 3] = bad
    before = {key: value.copy() for key, value in grads.items()}
    assert not math.isfinite(optim.clip_grad_norm(grads, 1.0))
    assert_same_bits(grads, before)


def test_norms_of_large_and_small_gradients():
    """The squares are out of the range of float32."""
    for size in (1e30, 1e-30):
        grads = {"a": np.full(4, size, np.float32)}
        assert optim.clip_grad_norm(grads, math.inf) == pytest.approx(2 * size, rel=1e-6)
        optim.clip_grad_norm(grads, size / 2)
        np.testing.assert_allclose(grads["a"], size / 4, rtol=1e-6)
    assert optim.clip_grad_norm({}, 1.0) == 0
    assert optim.clip_grad_norm({"a": np.arange(12.0)[::2]}, 1e9) == pytest.approx(np.linalg.norm(np.arange(0, 12, 2)))


# ---- Cells --------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
def test_cells_are_trained(name):
    """A step of SGD is computed by hand; then Adam brings the state of the cell to a target."""
    cell, rng = getattr(fastrnn, name)(2, 3, dtype=np.float64, rng=0), np.random.default_rng(0)
    x, target = rng.standard_normal((4, 2)), rng.uniform(-0.5, 0.5, (4, 3))

    def loss_and_gradients():
        state, cache = cell.forward(x)
        h = state[0] if name == "LSTMCell" else state
        d_h = 2 * (h - target)
        return np.sum((h - target) ** 2), cell.backward(cache, (d_h, 0 * d_h) if name == "LSTMCell" else d_h).parameters

    before, (first, grads) = cell.state_dict(), loss_and_gradients()
    optim.SGD(cell, learning_rate=0.01).step(grads)
    for key, value in cell.parameters.items():
        np.testing.assert_allclose(value, before[key] - 0.01 * grads[key], rtol=1e-12)
    adam = optim.Adam(cell, learning_rate=0.05)
    for _ in range(200):
        adam.step(loss_and_gradients()[1])
    assert loss_and_gradients()[0] < first / 10


# ---- Bad input ----------------------------------------------------------------------------------

LINEAR = fastrnn.Linear(2, 1, rng=0)
GOOD = {name: np.ones_like(value) for name, value in LINEAR.parameters.items()}
BAD = [
    (lambda: optim.Adam(fastrnn.GRU(2, 3).stream()), TypeError, "model"),
    (lambda: optim.Adam(LINEAR, learning_rate=-1), ValueError, "learning_rate"),
    (lambda: optim.Adam(LINEAR, learning_rate=True), TypeError, "learning_rate"),
    (lambda: optim.Adam(LINEAR, learning_rate=np.nan), ValueError, "learning_rate"),
    (lambda: optim.Adam(LINEAR, betas=0.9), TypeError, "betas"),
    (lambda: optim.Adam(LINEAR, betas=(0.9, 1.0)), ValueError, "betas"),
    (lambda: optim.Adam(LINEAR, eps=-1), ValueError, "eps"),
    (lambda: optim.Adam(LINEAR, weight_decay=-1), ValueError, "weight_decay"),
    (lambda: optim.Adam(LINEAR, schedule=3), TypeError, "schedule"),
    (lambda: optim.Adam(LINEAR, schedule=lambda step: -1.0).step(GOOD), ValueError, "schedule"),
    (lambda: optim.SGD(LINEAR, momentum=-1), ValueError, "momentum"),
    (lambda: optim.SGD(LINEAR, nesterov=True), ValueError, "nesterov"),
    (lambda: optim.SGD(LINEAR, nesterov=1), TypeError, "nesterov"),
    (lambda: optim.SGD(LINEAR, momentum=0.9, dampening=0.1, nesterov=True), ValueError, "nesterov"),
    (lambda: optim.RMSprop(LINEAR, alpha=2), ValueError, "alpha"),
    (lambda: optim.RMSprop(LINEAR, centered="yes"), TypeError, "centered"),
    (lambda: optim.Adam(LINEAR).step({"weight": GOOD["weight"]}), ValueError, "gradients"),
    (lambda: optim.Adam(LINEAR).step(GOOD | {"colour": 1}), ValueError, "gradients"),
    (lambda: optim.Adam(LINEAR).step(GOOD | {"weight": np.ones(2, "f4")}), ValueError, "weight"),
    (lambda: optim.Adam(LINEAR).step(GOOD | {"weight": np.ones((1, 2))}), ValueError, "weight"),
    (lambda: optim.Adam(LINEAR).step(GOOD | {"weight": None}), TypeError, "weight"),
    (lambda: optim.Adam(LINEAR).step(None), TypeError, "gradients"),
    (lambda: optim.Adam(LINEAR).load_state_dict({}), ValueError, "state_dict"),
    (lambda: optim.Adam(LINEAR).load_state_dict(optim.SGD(LINEAR).state_dict()), ValueError, "state_dict"),
    (lambda: optim.Adam(LINEAR).load_state_dict(optim.Adam(LINEAR).state_dict() | {"steps": -1}), ValueError, "steps"),
    (lambda: optim.Adam(LINEAR).load_state_dict(optim.Adam(LINEAR).state_dict() | {"mean.weight": np.ones(3, "f4")}),
     ValueError, "mean.weight"),
    (lambda: optim.clip_grad_norm({"a": np.ones(2)}, 0), ValueError, "max_norm"),
    (lambda: optim.clip_grad_norm({"a": np.ones(2)}, np.nan), ValueError, "max_norm"),
    (lambda: optim.clip_grad_norm({"a": np.ones(2)}, np.ones(2)), TypeError, "max_norm"),
    (lambda: optim.clip_grad_norm(None, 1), TypeError, "gradients"),
    (lambda: optim.clip_grad_norm({"a": None}, 1), TypeError, "a"),
    (lambda: optim.clip_grad_norm({"a": [3.0, 4.0]}, 1), TypeError, "a"),
    (lambda: optim.clip_grad_norm({"a": np.ones(2, int)}, 1), TypeError, "a"),
    (lambda: optim.clip_grad_norm({"a": np.broadcast_to(1.0, 3)}, 1), ValueError, "a"),
    (lambda: optim.Adam(LINEAR).load_state_dict(None), TypeError, "state_dict"),
    (lambda: optim.cosine(0), ValueError, "steps"),
    (lambda: optim.warmup(1.5), TypeError, "steps"),
    (lambda: optim.step_decay(2, -1), ValueError, "factor"),
    (lambda: optim.exponential(np.inf), ValueError, "factor"),
]


@pytest.mark.parametrize("call, error, name", BAD)
def test_bad_input_changes_nothing(call, error, name):
    before = LINEAR.state_dict()
    with refuses(error, name):
        call()
    assert_same_bits(LINEAR.state_dict(), before)
