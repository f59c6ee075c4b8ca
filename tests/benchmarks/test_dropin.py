"""benchmarks/replacements.py without the packages it is for: on their published weights, against their outputs.

madmom publishes no weights apart from itself: there, stand-ins of its layers compute its formulas in plain NumPy.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

TOLERANCE = 1e-5


@pytest.fixture
def replacements(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import replacements
    yield replacements
    del sys.modules["replacements"]


def arrays(data_dir, name):
    with np.load(data_dir / "models" / name, allow_pickle=False) as arrays:
        return dict(arrays)


def assert_within(got, want):
    assert got.shape == want.shape
    difference = np.max(np.abs(got - want))
    assert difference <= TOLERANCE, f"largest difference {difference:.3e}"


def test_the_benchmark_starts_with_the_standard_library_alone():
    script = Path(__file__).parents[2] / "benchmarks" / "dropin.py"
    answer = subprocess.run([sys.executable, "-S", script, "--help"], capture_output=True, text=True, check=True)
    assert "--only {g2p_en,g2pM,nagisa,madmom}" in answer.stdout and not answer.stderr


# ---- g2p_en ----------------------------------------------------------------------------------------------


@pytest.fixture
def g2p(replacements, data_dir):
    """The drop-in on a stand-in of the package's class: its weights; phonemes are their numbers."""
    weights = arrays(data_dir, "g2p_en/checkpoint20.npz")

    class G2p:
        def __init__(self):
            self.g2idx = {letter: at for at, letter in enumerate("abcdefghijklmnopqrstuvwxyz", 3)}
            self.idx2p = list(range(len(weights["dec_emb"])))
            self.load_variables()

        def load_variables(self):
            vars(self).update(weights)

        def __call__(self, text):
            return [sound for word in text.split() for sound in [*(self.predict(word) if "a" <= word else [word]), " "]]

    return replacements.faster_g2p_en(G2p)()


def test_g2p_en(g2p, data_dir):
    golden = json.loads((data_dir / "models" / "g2p_en" / "golden_phonemes.json").read_text())
    names = {}
    for word, phonemes in golden.items():
        numbers = g2p.predict(word)
        assert len(numbers) == len(phonemes), word
        for number, name in zip(numbers, phonemes, strict=True):
            assert names.setdefault(number, name) == name, word
    assert len(set(names.values())) == len(names) > 40
    assert g2p.predict_all(list(golden)) == [g2p.predict(word) for word in golden]


def test_g2p_en_fills_in_a_text(g2p):
    words = ["hello", "12", "numpy", "hello", "q"]
    want = [sound for word in words for sound in [*(["12"] if word == "12" else g2p.predict(word)), " "]]
    assert g2p(" ".join(words)) == want
    assert g2p("12") == ["12", " "] and g2p("") == []
    assert g2p.predict("q") == g2p.predict_all(["q"])[0]


# ---- g2pM and nagisa -------------------------------------------------------------------------------------------


def test_g2pM(replacements, data_dir):
    weights, golden = arrays(data_dir, "g2pM/weights.npz"), arrays(data_dir, "g2pM/golden_bilstm.npz")

    class G2pM:
        def __init__(self):
            self.load_variable({
                f"lstm.{name.removesuffix('_reverse')}_l0{'_reverse' * name.endswith('_reverse')}": value
                for name, value in weights.items() if name.startswith(("weight_", "bias_"))})

        def load_variable(self, state_dict):
            vars(self).update(weights)

        def fc_layer(self, hidden):
            self.hidden = hidden
            return np.maximum(hidden @ self.hidden_weight_l0.T + self.hidden_bias_l0, 0) @ self.hidden_weight_l1.T

    g2p, ids, lengths = replacements.faster_g2pM(G2pM)(), golden["ids"], golden["lengths"]
    want = np.concatenate([golden["fw"], golden["bw"]], axis=2)
    last = lengths - 1
    assert g2p.predict(ids, last).shape == lengths.shape            # one character of each of several sentences
    assert_within(g2p.hidden, want[np.arange(len(ids)), last])
    for row, length in enumerate(lengths):                          # characters of one sentence
        g2p.predict(ids[row:row + 1, :length], list(range(length)))
        assert_within(g2p.hidden, want[row, :length])


def test_nagisa_stacked(replacements):
    rng = np.random.default_rng(0)

    def direction(inputs, units=4):
        own = SimpleNamespace(WxT=rng.standard_normal((inputs, 4 * units)), WhT=rng.standard_normal((units, 4 * units)),
                              b=rng.standard_normal(4 * units))
        return SimpleNamespace(**{name: value.astype(np.float32) for name, value in vars(own).items()})

    layers = [(direction(inputs), direction(inputs)) for inputs in (3, 8)]
    x = rng.standard_normal((6, 3), np.float32)
    one_by_one = x
    for pair in layers:
        one_by_one = replacements.FasterBiRNN(SimpleNamespace(layers=[pair])).transduce(one_by_one)
    assert np.array_equal(replacements.FasterBiRNN(SimpleNamespace(layers=layers)).transduce(x), one_by_one)


@pytest.mark.parametrize("name, calls", [("ws_model", (0, 2, 4, 6)), ("pos_model", (1, 3, 5, 7))])
def test_nagisa(replacements, data_dir, name, calls):
    weights, golden = arrays(data_dir, "nagisa/weights.npz"), arrays(data_dir, "nagisa/golden_bilstm.npz")
    pair = [SimpleNamespace(**{part: weights[f"{name}_0{side}_{part}"] for part in ("WxT", "WhT", "b")})
            for side in "fb"]
    birnn = replacements.FasterBiRNN(SimpleNamespace(layers=[pair]))
    for call in calls:
        assert_within(birnn.transduce(golden[f"x{call}"]), golden[f"y{call}"])


# ---- madmom ------------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def tanh(x):
    return np.tanh(x)


class Gate:
    def __init__(self, rng, inputs, units, activation_fn, peephole=False):
        self.activation_fn = activation_fn
        self.weights, self.recurrent_weights, self.bias = (
            rng.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((inputs, units), (units, units), units))
        self.peephole_weights = rng.uniform(-0.5, 0.5, units).astype(np.float32) if peephole else None

    def sums(self, x, h):
        return x @ self.weights + self.bias + h @ self.recurrent_weights


class RecurrentLayer(Gate):
    def __init__(self, rng, inputs, units):
        super().__init__(rng, inputs, units, tanh)
        self.init = rng.uniform(-1, 1, units).astype(np.float32)

    def activate(self, data):
        h, outputs = self.init, []
        for x in data:
            h = np.tanh(self.sums(x, h))
            outputs.append(h)
        return np.array(outputs)


class GRULayer:
    def __init__(self, rng, inputs, units):
        self.reset_gate, self.update_gate = (Gate(rng, inputs, units, sigmoid) for _ in range(2))
        self.cell, self.init = Gate(rng, inputs, units, tanh), rng.uniform(-1, 1, units).astype(np.float32)

    def activate(self, data):
        h, outputs, cell = self.init, [], self.cell
        for x in data:
            r, z = sigmoid(self.reset_gate.sums(x, h)), sigmoid(self.update_gate.sums(x, h))
            n = np.tanh(x @ cell.weights + cell.bias + r * (h @ cell.recurrent_weights))
            h = z * n + (1 - z) * h
            outputs.append(h)
        return np.array(outputs)


class LSTMLayer:
    activation_fn = staticmethod(tanh)

    def __init__(self, rng, inputs, units):
        self.input_gate, self.forget_gate, self.output_gate = (
            Gate(rng, inputs, units, sigmoid, peephole=True) for _ in range(3))
        self.cell = Gate(rng, inputs, units, tanh)
        self.init, self.cell_init = rng.uniform(-1, 1, (2, units)).astype(np.float32)

    def activate(self, data):
        h, c, outputs = self.init, self.cell_init, []
        for x in data:
            i, f = (sigmoid(gate.sums(x, h) + c * gate.peephole_weights)
                    for gate in (self.input_gate, self.forget_gate))
            c = f * c + i * np.tanh(self.cell.sums(x, h))
            h = sigmoid(self.output_gate.sums(x, h) + c * self.output_gate.peephole_weights) * np.tanh(c)
            outputs.append(h)
        return np.array(outputs)


class BidirectionalLayer:
    def __init__(self, kind, rng, inputs, units):
        self.fwd_layer, self.bwd_layer = kind(rng, inputs, units), kind(rng, inputs, units)

    def activate(self, data):
        return np.hstack([self.fwd_layer.activate(data), self.bwd_layer.activate(data[::-1])[::-1]])


@pytest.mark.parametrize("kind", [RecurrentLayer, GRULayer, LSTMLayer])
def test_madmom_one_direction(replacements, kind):
    rng = np.random.default_rng(0)
    own = [kind(rng, inputs, 5) for inputs in (7, 5, 5)]
    data = rng.standard_normal((20, 7), np.float32)
    want = data
    for layer in own:
        want = layer.activate(want)
    network = replacements.with_fastrnn(SimpleNamespace(layers=[*own, "the rest"]))
    stack, rest = network.layers
    assert rest == "the rest"
    assert_within(stack.activate(data), want)
    assert_within(stack.activate(data.astype(float)), want)
    streamed = [stack.activate(data[t:t + 1], reset=not t) for t in range(6)] + [stack.activate(data[6:], reset=False)]
    assert_within(np.concatenate(streamed), want)


@pytest.mark.parametrize("kind", [RecurrentLayer, GRULayer, LSTMLayer])
def test_madmom_bidirectional(replacements, kind):
    rng = np.random.default_rng(0)
    own = [BidirectionalLayer(kind, rng, inputs, 5) for inputs in (7, 10)]
    data = rng.standard_normal((20, 7), np.float32)
    stack = replacements.FasterStack(own)
    assert_within(stack.activate(data), own[1].activate(own[0].activate(data)))
    stack.reset()
    assert_within(stack.activate(data), own[1].activate(own[0].activate(data)))
