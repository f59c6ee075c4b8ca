"""Published weights against outputs of the packages they came with (README of the data folder), to 1e-5.

That is absolute; for cell states, which grow past 30, of the largest one (the packages' own are 1.5e-5 from float64).
Each package orders gates and lays out matrices its own way; the reordering to torch's stands here, once for each.
"""

import json

import numpy as np
import pytest
from helpers import assert_same_bits

import fastrnn

pytestmark = pytest.mark.usefixtures("isa")
TOLERANCE = 1e-5


@pytest.fixture
def model(data_dir):
    """Name of a folder and file -> its arrays."""
    def load(name, file):
        with np.load(data_dir / "models" / name / file, allow_pickle=False) as arrays:
            return dict(arrays)
    return load


def loaded(layer, **parameters):
    layer.load_state_dict(parameters)
    return layer


def assert_within(got, want):
    assert got.shape == want.shape
    difference, bound = np.max(np.abs(got - want)), TOLERANCE * max(1, np.max(np.abs(want)))
    assert difference <= bound, f"largest difference {difference:.3e} (bound {bound:.3e})"


def one_bias(weight_ih, weight_hh, bias, suffix="", order=(0, 1, 2, 3)):
    """torch's parameters from [in, G*H] matrices and one bias, whose gates stand at `order` of torch's."""
    def torch_rows(a):
        gates = np.split(a, len(order))
        return np.concatenate([gates[at] for at in order])
    return {f"weight_ih_l0{suffix}": torch_rows(weight_ih.T), f"weight_hh_l0{suffix}": torch_rows(weight_hh.T),
            f"bias_ih_l0{suffix}": torch_rows(bias), f"bias_hh_l0{suffix}": np.zeros_like(bias)}


# ---- silero_vad: voice activity from a streamed LSTM (torch's order) ------------------------------

@pytest.fixture
def silero(model):
    weights, golden = model("silero_vad", "weights_lstm.npz"), model("silero_vad", "golden.npz")
    prefix = "lstm_cell."
    layer = loaded(fastrnn.LSTM(128, 128), **{name.removeprefix(prefix) + "_l0": value
                                              for name, value in weights.items() if name.startswith(prefix)})
    return layer, golden


def test_silero_vad(silero):
    layer, golden = silero
    output, (h_n, c_n) = layer(golden["lstm_in"])
    assert_within(output, golden["lstm_out"])
    assert_within(h_n[:, None], golden["hn"])
    assert_within(c_n[:, None], golden["cn"])


def test_silero_vad_streamed(silero):
    layer, golden = silero
    output, (h_n, c_n) = layer(golden["lstm_in"])
    stream = layer.stream()
    steps = np.stack([stream.step(frame) for frame in golden["lstm_in"]])
    assert_within(steps, golden["lstm_out"])
    assert_same_bits({"output": steps, "h": stream.state[0][:, 0], "c": stream.state[1][:, 0]},
                     {"output": output, "h": h_n, "c": c_n})


# ---- resemblyzer: speaker embedding, three layers (a torch state_dict) -----------------------------

def test_resemblyzer(model):
    weights, golden = model("resemblyzer", "weights.npz"), model("resemblyzer", "golden.npz")
    layer = loaded(fastrnn.LSTM(40, 256, 3, batch_first=True),
                   **{name.removeprefix("lstm."): value for name, value in weights.items() if name.startswith("lstm.")})
    output, (h_n, c_n) = layer(golden["mel"])
    assert_within(output[0], golden["out_last_layer_b0"])
    assert_within(h_n, golden["h"])
    assert_within(c_n, golden["c"])
    embed = np.maximum(h_n[-1] @ weights["linear.weight"].T + weights["linear.bias"], 0)
    assert_within(embed / np.linalg.norm(embed, axis=1, keepdims=True), golden["embed"])


# ---- g2p_en: letters to phonemes, GRU encoder (torch's order) ---------------------------------------

def g2p_en_encoder(weights):
    return loaded(fastrnn.GRU(256, 256, batch_first=True),
                  **{f"{long}_l0": weights[f"enc_{short}"] for long, short in (
                      ("weight_ih", "w_ih"), ("weight_hh", "w_hh"), ("bias_ih", "b_ih"), ("bias_hh", "b_hh"))})


def test_g2p_en(model):
    golden = model("g2p_en", "golden_encoder.npz")
    layer = g2p_en_encoder(model("g2p_en", "checkpoint20.npz"))
    words = [name.removeprefix("x_") for name in golden if name.startswith("x_")]
    assert len(words) == 8
    for word in words:
        output, h_n = layer(golden[f"x_{word}"])
        assert_within(output, golden[f"h_{word}"])
        assert_same_bits(h_n, output[:, -1][None])


def test_g2p_en_words_in_one_ragged_batch(model):
    golden = model("g2p_en", "golden_encoder.npz")
    layer = g2p_en_encoder(model("g2p_en", "checkpoint20.npz"))
    inputs = [value for name, value in golden.items() if name.startswith("x_")]
    wanted = [value for name, value in golden.items() if name.startswith("h_")]
    lengths = [value.shape[1] for value in inputs]
    x = np.zeros((len(inputs), max(lengths), 256), np.float32)
    for row, value in zip(x, inputs, strict=True):
        row[:value.shape[1]] = value[0]
    output, _ = layer(x, lengths=lengths)
    for row, length, want in zip(output, lengths, wanted, strict=True):
        assert_within(row[:length], want[0])
        assert not row[length:].any()


# ---- g2pM: Chinese characters to pinyin, bi-LSTM over a padded batch (torch's order) ----------------

def test_g2pm(model):
    weights, golden = model("g2pM", "weights.npz"), model("g2pM", "golden_bilstm.npz")
    layer = loaded(fastrnn.LSTM(64, 32, batch_first=True, bidirectional=True),
                   **{name.removesuffix("_reverse") + "_l0" + "_reverse" * name.endswith("_reverse"): value
                      for name, value in weights.items() if name.startswith(("weight_", "bias_"))})
    output, _ = layer(golden["emb"], lengths=golden["lengths"])
    for row, length, forwards, backwards in zip(output, golden["lengths"], golden["fw"], golden["bw"], strict=True):
        assert_within(row[:length], np.concatenate([forwards, backwards], axis=1)[:length])


# ---- nagisa: Japanese words and tags, bi-LSTMs (gates i, f, o, g; one bias) --------------------------

@pytest.mark.parametrize("name, calls", [("ws_model", (0, 2, 4, 6)), ("pos_model", (1, 3, 5, 7))])
def test_nagisa(model, name, calls):
    weights, golden = model("nagisa", "weights.npz"), model("nagisa", "golden_bilstm.npz")
    parameters = {}
    for direction, suffix in (("f", ""), ("b", "_reverse")):
        own = [weights[f"{name}_0{direction}_{part}"] for part in ("WxT", "WhT", "b")]
        parameters |= one_bias(*own, suffix, order=(0, 1, 3, 2))
    layer = loaded(fastrnn.LSTM(own[0].shape[0], own[1].shape[0], bidirectional=True), **parameters)
    for call in calls:
        output, _ = layer(golden[f"x{call}"])
        assert_within(output, golden[f"y{call}"])


# ---- chars2vec: words to vectors, two Keras LSTMs with sigmoid gates (i, f, c, o; one bias) ----------

def test_chars2vec(model):
    weights, golden = model("chars2vec", "weights_eng50.npz"), model("chars2vec", "golden_eng50.npz")
    x = golden["x"]
    for name in ("lstm_1", "lstm_2"):
        own = [weights[f"{name}.{part}"] for part in ("kernel", "recurrent_kernel", "bias")]
        layer = loaded(fastrnn.LSTM(own[0].shape[0], 50, batch_first=True), **one_bias(*own))
        x, _ = layer(x)
    assert_within(x[:, -1], golden["sigmoid_tf2_keras3"])


# ---- RTNeural: audio models that torch exported (its order) ------------------------------------------

@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_rtneural(data_dir, kind):
    folder = data_dir / "rtneural"
    weights = {name: np.array(value, np.float32)
               for name, value in json.loads((folder / f"{kind}_torch.json").read_text()).items()}
    x, want = (np.loadtxt(folder / f"{kind}_torch_{end}_python.csv", dtype=np.float32) for end in "xy")
    x = x[:, None]
    for name, size, num_layers in ((kind, 1, 1), (f"{kind}2", 8, 3)):
        layer = loaded({"lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[kind](size, 8, num_layers),
                       **{key.removeprefix(f"{name}."): value for key, value in weights.items()
                          if key.startswith(f"{name}.")})
        x, _ = layer(x)
    assert_within(x @ weights["dense.weight"][0] + weights["dense.bias"], want)
