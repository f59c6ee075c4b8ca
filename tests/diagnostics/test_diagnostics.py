"""Gradient flow: every norm against central differences of the loss, Jacobians against theirs and in closed form."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import KINDS, central_differences, make_layer, refuses

import fastrnn
from fastrnn import diagnostics
from fastrnn.diagnostics import gradient_flow

OPTIONS = {
    "plain": {},
    "stacked": {"num_layers": 2},
    "both_ways": {"num_layers": 2, "bidirectional": True},
    "reversed": {"reverse": True},
    "clipped": {"clip": 0.9},
}


def single(layer, k, d, input_size):
    """A direction of layer k as a layer of its own that walks forward."""
    own = {"nonlinearity": layer.nonlinearity} if isinstance(layer, fastrnn.RNN) else {}
    own |= {"reset_after": layer.reset_after} if isinstance(layer, fastrnn.GRU) else {}
    end = f"_l{k}" + "_reverse" * d
    return type(layer).from_parameters(
        {name.removesuffix(end) + "_l0": value for name, value in layer.parameters.items() if name.endswith(end)},
        input_size, layer.hidden_size, clip=layer.clip, dtype=np.float64, **own)


def perturbed(layer, x, state, where=None, delta=None):
    """The output [T, N, D*S] of a stack whose state after step t of layer k, direction d (t as it walks) is moved by
    delta (dh,) or (dh, dc) on its way to the next step; dh moves that step's output too. where: (k, d, t)."""
    D = 1 + layer.bidirectional
    for k in range(layer.num_layers):
        outputs = []
        for d in range(D):
            one = single(layer, k, d, x.shape[2])
            backwards = d == 1 or layer.reverse
            walked = x[::-1] if backwards else x
            h = tuple(part[k * D + d][None] for part in state)
            if where is not None and where[:2] == (k, d):
                t = where[2]
                first, h = one(walked[:t + 1], h if len(h) == 2 else h[0])
                h = tuple(part + move for part, move in zip(h if isinstance(h, tuple) else (h,), delta, strict=True))
                first[t] += delta[0]
                rest = one(walked[t + 1:], h if len(h) == 2 else h[0])[0]
                y = np.concatenate([first, rest])
            else:
                y = one(walked, h if len(h) == 2 else h[0])[0]
            outputs.append(y[::-1] if backwards else y)
        x = np.concatenate(outputs, axis=-1)
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS)
def test_norms_agree_with_central_differences(kind, options):
    rng = np.random.default_rng(1)
    layer = make_layer(kind, 2, 3, rng=2, dtype=np.float64, **OPTIONS[options])
    D, T, N = 1 + layer.bidirectional, 5, 2
    x = rng.standard_normal((T, N, 2))
    is_lstm = kind == "lstm"
    state = tuple(rng.standard_normal((layer.num_layers * D, N, 3)) for _ in range(1 + is_lstm))
    d_output = rng.standard_normal((T, N, 3 * D))
    assert np.array_equal(perturbed(layer, x, state), layer(x, state if is_lstm else state[0])[0])

    flow = gradient_flow(layer, x, d_output, state=state if is_lstm else state[0], jacobian_rows=0)
    assert list(flow) == [f"l{k}" + "_reverse" * d for k in range(layer.num_layers) for d in range(D)]
    for k in range(layer.num_layers):
        for d in range(D):
            layer_flow = flow[f"l{k}" + "_reverse" * d]
            assert layer_flow.jacobian.shape == (T, 0)
            backwards = d == 1 or layer.reverse
            assert layer_flow.reversed == backwards
            for t in range(T):
                delta = tuple(np.zeros((N, 3)) for _ in state)
                for norms, part in zip((layer_flow.hidden, layer_flow.cell), delta, strict=False):

                    def loss(where=(k, d, t), delta=delta):
                        return np.vdot(d_output, perturbed(layer, x, state, where, delta))

                    gradient = central_differences(loss, part, 1e-5)
                    at = T - 1 - t if backwards else t
                    np.testing.assert_allclose(norms[at], np.linalg.norm(gradient, axis=1), rtol=1e-6, atol=1e-9)
            assert (layer_flow.cell is not None) == is_lstm


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"clip": 0.9}])
def test_jacobians_agree_with_central_differences(kind, options):
    rng = np.random.default_rng(3)
    layer = make_layer(kind, 2, 4, rng=4, dtype=np.float64, **options)
    x = rng.standard_normal((6, 3, 2))
    flow = gradient_flow(layer, x, jacobian_rows=2)["l0"]
    assert flow.jacobian.shape == (6, 2)
    one = single(layer, 0, 0, 2)
    parts = 2 if kind == "lstm" else 1
    for n in range(2):
        state = np.zeros(4 * parts)
        walk = reversed(range(6)) if layer.reverse else range(6)
        for t in walk:

            def step(s, n=n, t=t):
                h = tuple(s[None, None, 4 * i:4 * i + 4] for i in range(parts))
                after = one(x[t:t + 1, n:n + 1], h if parts == 2 else h[0])[1]
                return np.concatenate([part.ravel() for part in (after if parts == 2 else (after,))])

            moves = 1e-5 * np.eye(4 * parts)
            jacobian = np.stack([(step(state + move) - step(state - move)) / 2e-5 for move in moves], 1)
            np.testing.assert_allclose(flow.jacobian[t, n], np.linalg.svd(jacobian)[1][0], rtol=1e-6)
            state = step(state)


def test_a_plain_rnn_has_the_jacobian_of_the_papers():
    """diag(1 - h_t^2) W_hh: Pascanu et al. 2013."""
    layer = fastrnn.RNN(1, 8, rng=0)
    x = np.random.default_rng(0).standard_normal((20, 1, 1), np.float32)
    h = layer(x)[0].astype(float)
    weight = layer.parameters["weight_hh_l0"].astype(float)
    expected = [np.linalg.norm((1 - h_t[0, :, None] ** 2) * weight, 2) for h_t in h]
    np.testing.assert_allclose(gradient_flow(layer, x)["l0"].jacobian[:, 0], expected, rtol=1e-5)


def test_a_linear_recurrence_is_known_exactly():
    """h_t = a h_{t-1}: |dL/dh_t| = a^(T - 1 - t), far below what float32 can tell from zero."""
    layer = fastrnn.RNN(1, 1, activations=[("affine", 1.0, 0.0)], bias=False)
    layer.load_state_dict({"weight_ih_l0": np.float32([[1]]), "weight_hh_l0": np.float32([[0.5]])})
    flow = gradient_flow(layer, np.zeros((500, 1), np.float32))["l0"]
    np.testing.assert_allclose(flow.hidden[:, 0], 0.5 ** np.arange(499.0, -1, -1), rtol=1e-12)
    np.testing.assert_allclose(flow.jacobian, 0.5, rtol=1e-12)
    assert flow.rate == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"reverse": True}])
def test_a_ragged_row_is_the_row_alone(options):
    layer = make_layer("lstm", 2, 3, rng=5, dtype=np.float64, **options)
    x = np.random.default_rng(6).standard_normal((7, 3, 2))
    flow = gradient_flow(layer, x, lengths=[4, 0, 7], jacobian_rows=3)
    for n, length in ((0, 4), (2, 7)):
        alone = gradient_flow(layer, x[:length, n])
        for name in flow:
            for norms, expected in ((flow[name].hidden, alone[name].hidden), (flow[name].cell, alone[name].cell),
                                    (flow[name].jacobian, alone[name].jacobian)):
                np.testing.assert_allclose(norms[:length, n], expected[:, 0], rtol=1e-12)
                assert np.isnan(norms[length:, n]).all()
    assert np.isnan(flow["l0"].hidden[:, 1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_comes_through_a_reset(kind):
    layer = make_layer(kind, 2, 3, rng=7)
    reset = np.arange(9) == 4
    flow = gradient_flow(layer, np.ones((9, 2), np.float32), reset_mask=reset)["l0"]
    assert (flow.hidden[:4] == 0).all() and (flow.hidden[4:] > 0).all()
    assert flow.jacobian[4] == 0 and (np.delete(flow.jacobian, 4) > 0).all()


@pytest.mark.parametrize("kind, options", [
    ("gru", {"num_layers": 3, "bidirectional": True}),
    ("gru", {"bidirectional": True, "update": "mirror",
             "activations": ["hard_sigmoid", "softsign", "sigmoid", "tanh"]}),
    ("gru_before", {"num_layers": 2, "reverse": True, "activations": ["sigmoid", ("elu", 0.5)]}),
    ("lstm", {"num_layers": 2, "bidirectional": True, "proj_size": 3, "peephole": True, "bias": False}),
    ("lstm", {"coupled_gates": True, "clip": 0.8}),
    ("rnn_tanh", {"bidirectional": True, "activations": ["softplus"]}),
])
def test_every_option_walks_as_the_layer_runs(kind, options):
    """By the output, and by dL/dx of the first layer, which backward gives and the walk does too."""
    layer = make_layer(kind, 2, 5, rng=8, dtype=np.float64, **options)
    x = np.random.default_rng(9).standard_normal((6, 4, 2))
    lengths = [6, 2, 5, 3]
    mask = np.random.default_rng(10).random((6, 4)) < 0.2
    chain = diagnostics._Chain(layer, x, None, lengths, mask)
    output, _, cache = layer.forward(x, lengths=lengths, reset_mask=mask)
    d_output = np.random.default_rng(11).standard_normal(output.shape)
    assert np.array_equal(chain.output, output)
    _, d_input = chain.parts[0].flows(chain.gradient(d_output), 0)
    np.testing.assert_allclose(d_input, layer.backward(cache, d_output).input, rtol=1e-12, atol=1e-15)


# ---- Sequential ---------------------------------------------------------------------------------

def test_a_sequential_from_words_to_a_loss():
    """The flow of each recurrent layer in a chain: against differences of the loss in what enters the next step."""
    rng = np.random.default_rng(12)
    f64 = {"dtype": np.float64}
    words, gru = fastrnn.Embedding(7, 3, rng=rng, **f64), fastrnn.GRU(3, 4, rng=rng, **f64)
    middle, rnn = fastrnn.Linear(4, 2, rng=rng, **f64), fastrnn.RNN(2, 3, rng=rng, **f64)
    head = fastrnn.Linear(3, 2, rng=rng, **f64)
    model = fastrnn.Sequential(words, fastrnn.Sequential(gru, middle), rnn, head)
    x, target = rng.integers(0, 7, (6, 2)), rng.standard_normal((6, 2, 2))

    def through(first, rest, y, t, delta):
        """A layer's output over y, its state moved after step t."""
        start, h = first(y[:t + 1])
        start[t] += delta
        return np.concatenate([start, rest(y[t + 1:], h + delta)[0]])

    flow = gradient_flow(model, x, lambda y: fastrnn.losses.MSE()(y, target)[1], jacobian_rows=0)
    assert list(flow) == ["1.0.l0", "2.l0"]
    for t in range(6):
        delta = np.zeros((2, 4))
        gradient = central_differences(lambda t=t, delta=delta: np.mean((
            head(rnn(middle(through(gru, gru, words(x)[0], t, delta))[0])[0])[0] - target) ** 2), delta, 1e-5)
        np.testing.assert_allclose(flow["1.0.l0"].hidden[t], np.linalg.norm(gradient, axis=1), rtol=1e-6, atol=1e-9)
        delta = np.zeros((2, 3))
        gradient = central_differences(lambda t=t, delta=delta: np.mean((
            head(through(rnn, rnn, middle(gru(words(x)[0])[0])[0], t, delta))[0] - target) ** 2), delta, 1e-5)
        np.testing.assert_allclose(flow["2.l0"].hidden[t], np.linalg.norm(gradient, axis=1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sequential", [False, True])
def test_layouts_are_one(sequential):
    x = np.random.default_rng(13).standard_normal((6, 2, 3), np.float32)
    flows = []
    for batch_first in (False, True):
        model = fastrnn.GRU(3, 4, batch_first=batch_first, rng=0)
        if sequential:
            model = fastrnn.Sequential(fastrnn.Linear(3, 3, rng=1), model, fastrnn.Linear(4, 1, rng=2))
        name = "1.l0" if sequential else "l0"
        ordered = x.swapaxes(0, 1) if batch_first else x
        flows.append(gradient_flow(model, ordered, lambda y: y, lengths=[6, 3])[name])
        alone = gradient_flow(model, x[:, 0], lambda y: y)[name]
        np.testing.assert_allclose(alone.hidden[:, 0], flows[-1].hidden[:, 0], rtol=1e-12)
    for norms in ("hidden", "jacobian"):
        assert np.array_equal(getattr(flows[0], norms), getattr(flows[1], norms), equal_nan=True)


# ---- Defaults, output, refused arguments -------------------------------------------------------

def test_the_default_loss_is_the_last_output_of_each_row():
    layer = fastrnn.RNN(2, 3, dtype=np.float64, rng=0)
    x = np.random.default_rng(14).standard_normal((5, 2, 2))
    d_output = np.zeros((5, 2, 3))
    d_output[2, 0] = d_output[4, 1] = 1
    default, expected = gradient_flow(layer, x, lengths=[3, 5]), gradient_flow(layer, x, d_output, lengths=[3, 5])
    assert np.array_equal(default["l0"].hidden, expected["l0"].hidden, equal_nan=True)


def test_gates_hold_what_a_plain_rnn_loses():
    x = np.random.default_rng(15).standard_normal((100, 4, 2), np.float32)
    gated = []
    for cls, gate in ((fastrnn.LSTM, 1), (fastrnn.GRU, 1)):
        layer = cls(2, 16, rng=0)
        with layer.updating() as p:
            p["bias_ih_l0"][gate * 16:gate * 16 + 16] += 5
        gated.append(gradient_flow(layer, x)["l0"])
    plain = gradient_flow(fastrnn.RNN(2, 16, rng=0), x)["l0"]
    assert plain.rate < 0.8
    for flow in gated:
        assert 0.97 < flow.rate < 1.03
        assert (flow.hidden[0] > 1e6 * plain.hidden[0]).all()


def test_a_table_and_a_figure():
    pytest.importorskip("matplotlib")
    flow = gradient_flow(fastrnn.LSTM(2, 3, num_layers=2, bidirectional=True, rng=0), np.ones((8, 2), np.float32))
    assert [line.split()[0] for line in str(flow).splitlines()] == ["layer", "l0", "l0_reverse", "l1", "l1_reverse"]
    gradients, jacobians = flow.plot()
    assert gradients.figure is jacobians.figure and gradients.get_yscale() == "log"
    drawn = {line.get_label(): line.get_ydata() for line in gradients.get_lines()}
    assert set(drawn) == {f"{name}: {what}" for name in flow for what in ("dL/dh", "dL/dc")}
    np.testing.assert_allclose(drawn["l1: dL/dh"], flow["l1"].hidden[:, 0], rtol=1e-12)
    gradients.figure.canvas.draw()


def test_panels_of_the_users_own():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    flow = gradient_flow(fastrnn.GRU(2, 3, rng=0), np.ones((8, 2), np.float32))
    panels = figure.subplots(2, 1)
    assert flow.plot(ax=panels) == tuple(panels) and all(len(panel.get_lines()) >= 1 for panel in panels)
    assert flow.plot(ax=tuple(panels)) == tuple(panels)
    for wrong in (panels[0], figure.subplots(3, 1)):
        with refuses(ValueError, "ax"):
            flow.plot(ax=wrong)


def test_zeros_and_missing_steps_are_drawn_as_nothing():
    joined = diagnostics.rms_over_rows(np.array([[3e-200, 4e-200], [0, 0], [np.nan, 2], [np.nan, np.nan]]))
    np.testing.assert_allclose(joined, [np.sqrt(12.5) * 1e-200, 0, 2, np.nan], rtol=1e-12)


def test_without_matplotlib_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"fastrnn\[plot\]"):
        gradient_flow(fastrnn.RNN(1, 2), np.ones((3, 1), np.float32)).plot()


def test_what_is_refused():
    layer, x = fastrnn.GRU(2, 3), np.ones((4, 1, 2), np.float32)
    with refuses(TypeError, "model"):
        gradient_flow("model", x)
    with refuses(TypeError, "model"):
        gradient_flow(fastrnn.GRUCell(2, 3), x)
    with refuses(ValueError, "model"):
        gradient_flow(fastrnn.Sequential(fastrnn.Linear(2, 3)), x)
    with refuses(ValueError, "x"):
        gradient_flow(layer, x[:0])
    with refuses(ValueError, "x"):
        gradient_flow(layer, x[..., :1])
    with refuses(ValueError, "d_output"):
        gradient_flow(layer, x, np.ones((4, 1, 2)))
    with refuses(ValueError, "d_output"):
        gradient_flow(layer, x, lambda y: y[:-1])
    with refuses(ValueError, "lengths"):
        gradient_flow(layer, x, lengths=[5])
    with refuses(TypeError, "jacobian_rows"):
        gradient_flow(layer, x, jacobian_rows=True)
    with refuses(ValueError, "jacobian_rows"):
        gradient_flow(layer, x, jacobian_rows=-1)


# ---- What it is for ------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_example_shows_whose_gradient_vanishes_and_who_learns(tmp_path):
    """A slice of `make gradients`: the adding problem at T = 100, copy memory at T = 20, one seed."""
    example = Path(__file__).parents[2] / "examples" / "vanishing_gradients.py"
    figure = tmp_path / "new" / "figure.png"
    result = subprocess.run([sys.executable, str(example), "--plot", str(figure)], cwd=tmp_path, capture_output=True,
                            text=True, timeout=300,
                            env={**os.environ, "PYTHONPATH": str(Path(fastrnn.__file__).parents[1])})
    assert result.returncode == 0, result.stderr
    factors = re.findall(r"^  (RNN|GRU|LSTM) +(\(gates half open\))? .* (\d\.\d+)$", result.stdout, re.M)
    assert len(factors) == 2 * 5
    for cell, half_open, factor in factors:
        assert float(factor) < 0.7 if cell == "RNN" or half_open else 0.95 < float(factor) < 1.01, (cell, factor)
    runs = re.findall(r"^  T +(\d+), (RNN|GRU|LSTM) *: learnt (\d) of 1; loss (\d+\.\d+) ", result.stdout, re.M)
    assert [run[:2] for run in runs] == [(T, cell) for T in ("100", "20") for cell in ("RNN", "GRU", "LSTM")]
    for (_, cell, learnt, loss), (baseline, enough) in zip(runs, 3 * [(1 / 6, 0.01)] + 3 * [(np.log(8), 0.1)],
                                                           strict=True):
        if cell == "RNN":
            assert learnt == "0" and float(loss) > baseline / 3
        else:
            assert learnt == "1" and float(loss) < enough
    assert figure.read_bytes().startswith(b"\x89PNG")
