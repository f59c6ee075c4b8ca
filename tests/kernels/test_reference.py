"""The oracle against torch (autograd, float64) and, for every kind and gradient, against central differences."""

import numpy as np
import pytest

from fastrnn.nn import reference

T, N, INPUTS, H = 6, 5, 3, 4
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_before": 3}
TORCH_CELLS = [("rnn_tanh", 0), ("rnn_relu", 0), ("lstm", 0), ("lstm", 2), ("gru", 0)]  # kind, proj_size
CELLS = [*TORCH_CELLS, ("gru_before", 0)]
BIASES = ("bias_ih", "bias_hh")
LENGTHS = [3, 0, T, 1, 5]
# Row 0 is reset at its first step, at its last (where reverse starts) and past it; row 1 has no step to be reset at.
RESETS = np.zeros((T, N), bool)
RESETS[[0, 2, 4, 0, 3, 5, 1, 4], [0, 0, 0, 1, 2, 2, 4, 4]] = True

each_reverse = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])


def each(cells):
    return pytest.mark.parametrize("kind, proj_size", cells, ids=[kind + "_proj" * (proj > 0) for kind, proj in cells])


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def make_parameters(rng, kind, proj_size, inputs=INPUTS, biases=BIASES):
    rows = GATES[kind] * H
    shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, proj_size or H), **{name: (rows,) for name in biases}}
    if proj_size:
        shapes["weight_hr"] = (proj_size, H)
    return dict.fromkeys(BIASES) | {name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}


def make_state(rng, kind, proj_size, *lead):
    """[h_0], for LSTM [h_0, c_0]; as good for their gradients."""
    return [rng.standard_normal((*lead, N, size)) for size in ((proj_size or H, H) if kind == "lstm" else (H,))]


def make_case(kind, proj_size, biases=BIASES):
    """Arguments of `run`: parameters, x, state, dy (past the lengths too), dstate."""
    rng = np.random.default_rng(7)
    parameters = make_parameters(rng, kind, proj_size, biases=biases)
    x, dy = rng.standard_normal((T, N, INPUTS)), rng.standard_normal((T, N, proj_size or H))
    return parameters, x, make_state(rng, kind, proj_size), dy, make_state(rng, kind, proj_size)


def without_none(results):
    return {name: value for name, value in results.items() if value is not None}


def run(kind, parameters, x, state, dy, dstate, **options):
    """All that forward and backward return, by name."""
    y, h_n, c_n, c_all, cache = reference.forward(kind, parameters, x, *state, **options)
    dx, dh_0, dc_0, gradients = reference.backward(cache, dy, *dstate)
    return without_none(dict(y=y, h_n=h_n, c_n=c_n, c_all=c_all, dx=dx, dh_0=dh_0, dc_0=dc_0) | gradients)


def assert_close(actual, expected, rtol=0.0, atol=1e-12):
    """Same names, shapes and values; the message names each array that differs, with its largest difference."""
    assert sorted(actual) == sorted(expected)
    faults = []
    for name, want in expected.items():
        got = actual[name]
        if got.shape != want.shape:
            faults.append(f"{name}: shape {got.shape}, expected {want.shape}")
        elif not np.allclose(got, want, rtol=rtol, atol=atol, equal_nan=False):
            difference = np.abs(got - want)
            at = np.unravel_index(difference.argmax(), difference.shape)
            faults.append(f"{name}: largest difference {difference[at]:.3e} at {tuple(map(int, at))}, "
                          f"{got[at]:.9e} for {want[at]:.9e}")
    assert not faults, "\n".join(["", *faults])


# Against torch

def leaf(torch, array):
    return torch.tensor(array, requires_grad=True)


def torch_name(name, k, d):
    return f"{name}_l{k}{'_reverse' * d}"


def torch_layers(torch, kind, parameters, proj_size, num_layers=1, directions=1):
    """torch's module with these parameters, a list in torch's order."""
    options = {"bias": parameters[0]["bias_ih"] is not None, "bidirectional": directions == 2, "dtype": torch.float64}
    if kind == "lstm":
        module = torch.nn.LSTM(INPUTS, H, num_layers, proj_size=proj_size, **options)
    elif kind == "gru":
        module = torch.nn.GRU(INPUTS, H, num_layers, **options)
    else:
        module = torch.nn.RNN(INPUTS, H, num_layers, nonlinearity=kind.removeprefix("rnn_"), **options)
    module.load_state_dict({torch_name(name, *divmod(index, directions)): torch.tensor(value)
                            for index, one in enumerate(parameters) for name, value in without_none(one).items()})
    return module


def stack_gradients(kind, parameters, x, state, dy, dstate, lengths, num_layers, directions):
    """The chain rule over a stack, of reference.forward and reference.backward of its single directions."""
    caches, results = [], {}
    for k in range(num_layers):
        outputs = []
        for d in range(directions):
            index = k * directions + d
            y, *_, cache = reference.forward(kind, parameters[index], x, *(part[index] for part in state),
                                             lengths=lengths, reverse=d == 1)
            outputs.append(y)
            caches.append(cache)
        x = np.concatenate(outputs, axis=-1)
    for k in reversed(range(num_layers)):
        dx = 0
        for d, dy_one in enumerate(np.split(dy, directions, axis=-1)):
            index = k * directions + d
            dx_one, dh_0, dc_0, gradients = reference.backward(caches[index], dy_one, *(part[index] for part in dstate))
            dx = dx + dx_one
            results |= without_none({f"dh_0[{index}]": dh_0, f"dc_0[{index}]": dc_0})
            results |= {torch_name(name, k, d): value for name, value in gradients.items()}
        dy = dx
    return results | {"dx": dy}


@pytest.mark.parametrize("biases", [BIASES, ()], ids=["bias", "no_bias"])
@pytest.mark.parametrize("lengths", [None, [3, T, 1, 5, 2]], ids=["full", "packed"])
@pytest.mark.parametrize("num_layers, directions", [(1, 1), (1, 2), (2, 1), (2, 2)])
@each(TORCH_CELLS)
def test_layers_agree_with_torch(torch, kind, proj_size, num_layers, directions, lengths, biases):
    rng = np.random.default_rng(11)
    outputs, count = directions * (proj_size or H), num_layers * directions
    parameters = [make_parameters(rng, kind, proj_size, INPUTS if index < directions else outputs, biases)
                  for index in range(count)]
    x, dy = rng.standard_normal((T, N, INPUTS)), rng.standard_normal((T, N, outputs))
    state, dstate = make_state(rng, kind, proj_size, count), make_state(rng, kind, proj_size, count)

    module = torch_layers(torch, kind, parameters, proj_size, num_layers, directions)
    x_torch, state_torch = leaf(torch, x), [leaf(torch, part) for part in state]
    pack = torch.nn.utils.rnn
    given = x_torch if lengths is None else pack.pack_padded_sequence(x_torch, lengths, enforce_sorted=False)
    y_torch, last = module(given, tuple(state_torch) if kind == "lstm" else state_torch[0])
    if lengths is not None:
        y_torch, _ = pack.pad_packed_sequence(y_torch, total_length=T)
    last = last if kind == "lstm" else (last,)
    torch.autograd.backward([y_torch, *last], [torch.tensor(value) for value in (dy, *dstate)])
    arrays = {"y": y_torch.detach(), "dx": x_torch.grad}
    arrays |= {name: value.detach() for name, value in zip(("h_n", "c_n"), last)}
    arrays |= {f"d{name}[{index}]": part.grad[index] for name, part in zip(("h_0", "c_0"), state_torch)
               for index in range(count)}
    arrays |= {name: parameter.grad for name, parameter in module.named_parameters()}

    y, h_n, c_n = reference.layers(kind, parameters, x, *state, lengths=lengths,
                                   num_layers=num_layers, directions=directions)
    actual = stack_gradients(kind, parameters, x, state, dy, dstate, lengths, num_layers, directions)
    assert_close(actual | without_none({"y": y, "h_n": h_n, "c_n": c_n}),
                 {name: value.numpy() for name, value in arrays.items()})


def torch_step(torch, kind, parameters, proj_size):
    """(step(x, *state) -> state of one row, its parameters' tensors by our names)."""
    if kind != "gru_before":
        module = torch_layers(torch, kind, [parameters], proj_size)

        def step(x, *state):  # torch's layer over one step: its LSTMCell has no projection
            state = [part[None] for part in state]
            _, new = module(x[None], state if kind == "lstm" else state[0])
            return [part[0] for part in (new if kind == "lstm" else [new])]
        return step, {name.removesuffix("_l0"): value for name, value in module.named_parameters()}

    tensors = {name: leaf(torch, value) for name, value in parameters.items()}

    def paper_step(x, h):
        W_ir, W_iz, W_in, W_hr, W_hz, W_hn = *tensors["weight_ih"].chunk(3), *tensors["weight_hh"].chunk(3)
        b_ir, b_iz, b_in, b_hr, b_hz, b_hn = *tensors["bias_ih"].chunk(3), *tensors["bias_hh"].chunk(3)
        r = torch.sigmoid(x @ W_ir.T + b_ir + h @ W_hr.T + b_hr)
        z = torch.sigmoid(x @ W_iz.T + b_iz + h @ W_hz.T + b_hz)
        n = torch.tanh(x @ W_in.T + b_in + (r * h) @ W_hn.T + b_hn)
        return [(1 - z) * n + z * h]
    return paper_step, tensors


@each_reverse
@each(CELLS)
def test_rows_agree_with_a_hand_loop_in_torch(torch, kind, proj_size, reverse):
    parameters, x, state, dy, dstate = case = make_case(kind, proj_size)
    step, tensors = torch_step(torch, kind, parameters, proj_size)
    x_torch, state_torch = leaf(torch, x), [leaf(torch, part) for part in state]
    series = [torch.zeros(T, *part.shape, dtype=torch.float64) for part in state]
    last = []
    for n in range(N):
        current = [part[n:n + 1] for part in state_torch]
        steps = range(LENGTHS[n])
        for t in steps[::-1] if reverse else steps:
            if RESETS[t, n]:
                current = [torch.zeros_like(part) for part in current]
            current = step(x_torch[t, n:n + 1], *current)
            for part_series, part in zip(series, current):
                part_series[t, n] = part[0]
        last.append(current)
    last = [torch.cat(parts) for parts in zip(*last)]
    torch.autograd.backward([series[0], *last], [torch.tensor(value) for value in (dy, *dstate)])
    arrays = {name: value.detach() for name, value in (*zip(("y", "c_all"), series), *zip(("h_n", "c_n"), last))}
    arrays |= {name: part.grad for name, part in zip(("dx", "dh_0", "dc_0"), (x_torch, *state_torch))}
    arrays |= {name: tensor.grad for name, tensor in tensors.items()}
    assert_close(run(kind, *case, lengths=LENGTHS, reset_mask=RESETS, reverse=reverse),
                 {name: value.numpy() for name, value in arrays.items()})


# Against central differences

def central_differences(loss, array, step=1e-5):
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = loss()
        array[index] = value - step
        gradient[index] = (above - loss()) / (2 * step)
        array[index] = value
    return gradient


@pytest.mark.parametrize("biases", [BIASES, BIASES[:1], BIASES[1:], ()], ids=["both", "bias_ih", "bias_hh", "no_bias"])
@each_reverse
@each(CELLS)
def test_gradients_agree_with_central_differences(kind, proj_size, reverse, biases):
    parameters, x, state, dy, dstate = case = make_case(kind, proj_size, biases)
    options = {"lengths": LENGTHS, "reset_mask": RESETS, "reverse": reverse}

    def loss():
        y, h_n, c_n, _, _ = reference.forward(kind, parameters, x, *state, **options)
        return sum(np.sum(weight * value) for weight, value in zip((dy, *dstate), (y, h_n, c_n)))

    variables = dict(zip(("dx", "dh_0", "dc_0"), (x, *state))) | without_none(parameters)
    actual = run(kind, *case, **options)
    assert_close({name: value for name, value in actual.items() if name not in ("y", "h_n", "c_n", "c_all")},
                 {name: central_differences(loss, value) for name, value in variables.items()}, rtol=1e-6, atol=1e-9)


# Manners

@each_reverse
@each(CELLS)
def test_what_is_not_valid_is_never_read(kind, proj_size, reverse):
    parameters, x, state, dy, dstate = make_case(kind, proj_size)
    options = {"lengths": LENGTHS, "reset_mask": RESETS, "reverse": reverse}
    clean = run(kind, parameters, x, state, dy, dstate, **options)
    past = np.arange(T)[:, None] >= LENGTHS
    x[past], dy[past] = np.nan, np.nan
    for part in state:
        part[0] = np.nan  # row 0 is reset before its first step, in either direction
    assert_close(run(kind, parameters, x, state, dy, dstate, **options), clean, atol=0)
    assert not clean["y"][past].any() and not clean["dx"][past].any() and not clean["dh_0"][0].any()


@each(CELLS)
def test_arguments_and_cache_are_left_alone(kind, proj_size):
    parameters, x, state, dy, dstate = make_case(kind, proj_size)
    for array in (*parameters.values(), x, *state, dy, *dstate):
        array.setflags(write=False)
    *_, cache = reference.forward(kind, parameters, x, *state, lengths=LENGTHS, reset_mask=RESETS)
    first = reference.backward(cache, dy, *dstate)
    again = reference.backward(cache, dy, *dstate)
    assert_close(again[3] | {"dx": again[0], "dh_0": again[1]}, first[3] | {"dx": first[0], "dh_0": first[1]}, atol=0)


@each(CELLS)
def test_default_arguments(kind, proj_size):
    parameters, x, state, dy, dstate = make_case(kind, proj_size)
    explicit = {"lengths": [T] * N, "reset_mask": np.zeros((T, N), bool), "reverse": False}
    zeros = [np.zeros_like(part) for part in dstate]
    expected = run(kind, parameters, x, state, dy, zeros, **explicit)
    assert_close(run(kind, parameters, x, state, dy, []), expected, atol=0)


@each(CELLS)
def test_layers_are_single_passes(kind, proj_size):
    parameters, x, state, _, _ = make_case(kind, proj_size)
    options = {"lengths": LENGTHS, "reset_mask": RESETS}
    passes = [reference.forward(kind, parameters, x, *state, **options, reverse=reverse) for reverse in (False, True)]
    for directions, arguments in ((1, {}), (2, {"directions": 2})):  # {}: the defaults are one layer, one direction
        stacked = [np.stack([part] * directions) for part in state]
        actual = reference.layers(kind, [parameters] * directions, x, *stacked, **options, **arguments)
        y, h_n, c_n, _, _ = zip(*passes[:directions])
        expected = {"y": np.concatenate(y, axis=-1), "h_n": np.stack(h_n)}
        if kind == "lstm":
            expected["c_n"] = np.stack(c_n)
        assert_close(without_none(dict(zip(("y", "h_n", "c_n"), actual))), expected, atol=0)


@each(CELLS)
def test_float32_stays_float32(kind, proj_size):
    parameters, x, state, dy, dstate = case = make_case(kind, proj_size)
    single = {name: None if value is None else value.astype(np.float32) for name, value in parameters.items()}
    actual = run(kind, single, x, state, dy, dstate, lengths=LENGTHS, reset_mask=RESETS)
    assert {name: value.dtype for name, value in actual.items()} == dict.fromkeys(actual, np.float32)
    assert_close(actual, run(kind, *case, lengths=LENGTHS, reset_mask=RESETS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps, rows", [(0, N), (T, 0), (0, 0)])
@each(CELLS)
def test_no_steps_or_no_rows(kind, proj_size, steps, rows):
    parameters, x, state, dy, dstate = make_case(kind, proj_size)
    state, dstate = [part[:rows] for part in state], [part[:rows] for part in dstate]
    actual = run(kind, parameters, x[:steps, :rows], state, dy[:steps, :rows], dstate)
    expected = {"y": np.zeros((steps, rows, proj_size or H)), "dx": np.zeros((steps, rows, INPUTS))}
    expected |= dict(zip(("h_n", "c_n"), state)) | dict(zip(("dh_0", "dc_0"), dstate))
    if kind == "lstm":
        expected["c_all"] = np.zeros((steps, rows, H))
    expected |= {name: np.zeros_like(value) for name, value in without_none(parameters).items()}
    assert_close(actual, expected, atol=0)


def test_wrong_kind_or_cell_state():
    parameters, x, (h_0, c_0), _, _ = make_case("lstm", 0)
    with pytest.raises(ValueError, match=r"kind .*'elman'"):
        reference.forward("elman", parameters, x, h_0)
    with pytest.raises(TypeError, match="c_0"):
        reference.forward("lstm", parameters, x, h_0)
    with pytest.raises(TypeError, match="c_0"):
        reference.forward("gru", parameters, x, h_0, c_0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid(dtype):
    limits = np.array([-np.inf, np.finfo(dtype).min, -800, 0, 800, np.finfo(dtype).max, np.inf, np.nan], dtype)
    x = np.linspace(-30, 30, 4001, dtype=dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        at_limits, y = reference.sigmoid(limits), reference.sigmoid(x)
    np.testing.assert_array_equal(at_limits, np.array([0, 0, 0, 0.5, 1, 1, 1, np.nan], dtype))
    assert at_limits.dtype == y.dtype == dtype
    # Relative, so that the small values on the left count
    expected = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    assert np.max(np.abs(y - expected) / expected) < 4 * np.finfo(dtype).eps
