"""What narrow weights cost published models, in what the models are used for.

    python benchmarks/narrow_models.py                          every precision
    python benchmarks/narrow_models.py --precision int8 --json out/narrow_models.json

Models and their own outputs are those of the folder models of FASTRNN_DATA (default ../shared/data); its README says
where they come from. Each is computed in float32 and in each precision, recurrent layers and dense layers alike, and
compared with what the package itself computed. No number of a model was changed, and nothing was calibrated.
"""
import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).resolve().parent.parent))    # a checkout built in place
import numpy as np

import fastrnn
from fastrnn.nn.quantized import PRECISIONS

WORDS = """
about above across after again against almost alone along already always among another answer around asked began
behind being below between bring brought build called cannot change children clear close common complete could
country course cross decide develop differ during early earth either enough every example family father figure
final follow force friend front gave general govern great ground hundred idea inch interest island known
language laugh letter listen machine measure might minute moment money morning mother mountain nature neighbour
north notice number object ocean often order paper pattern people perhaps person picture place plain point
possible power present problem product question quick reach record remember river school science second sentence
several should simple special square stood strong surface system table talk though thought thousand through
together toward travel under until usual voice water weather whether which white whole without wonder would
write yellow young
""".split()
FOLDER = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def arrays(name):
    with np.load(FOLDER / "models" / name, allow_pickle=False) as archive:
        return dict(archive)


def recurrent(cls, input_size, hidden_size, num_layers=1, precision="float32", *, weights, **options):
    """A layer of the weights, of a precision."""
    layer = cls.from_parameters(weights, input_size, hidden_size, num_layers, **options)
    return layer if precision == "float32" else layer.quantized(precision)


def dense(weight, bias, precision):
    layer = fastrnn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer if precision == "float32" else layer.quantized(precision)


def torch_rows(kernel, recurrent_kernel, bias, suffix="", order=(0, 1, 2, 3)):
    """torch's parameters from [in, 4*H] matrices and one bias, whose gates stand at `order` of torch's."""
    def rows(a):
        gates = np.split(a, 4)
        return np.concatenate([gates[at] for at in order])
    return {f"weight_ih_l0{suffix}": rows(kernel.T), f"weight_hh_l0{suffix}": rows(recurrent_kernel.T),
            f"bias_ih_l0{suffix}": rows(bias), f"bias_hh_l0{suffix}": np.zeros_like(bias)}


def smallest_cosine(found, wanted):
    products = (found * wanted).sum(axis=1)
    return float((products / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)).min())


# ---- One function a model: precision -> {measure: number} -------------------------------------------

def resemblyzer(precision):
    """Speaker embeddings: 3 x LSTM 256 and a linear layer."""
    weights, golden = arrays("resemblyzer/weights.npz"), arrays("resemblyzer/golden.npz")
    layer = recurrent(fastrnn.LSTM, 40, 256, 3, precision, batch_first=True, weights={
        name.removeprefix("lstm."): value for name, value in weights.items() if name.startswith("lstm.")})
    _, (h_n, _) = layer(golden["mel"])
    embed = np.maximum(dense(weights["linear.weight"], weights["linear.bias"], precision)(h_n[-1])[0], 0)
    return {"smallest cosine of 8 embeddings": smallest_cosine(embed, golden["embed"])}


def silero(precision):
    """Voice activity: LSTM 128, from frame to frame; the read-out is solved from its own outputs, to 1e-3."""
    weights, golden = arrays("silero_vad/weights_lstm.npz"), arrays("silero_vad/golden.npz")
    layer = recurrent(fastrnn.LSTM, 128, 128, 1, precision, weights={
        name.removeprefix("lstm_cell.") + "_l0": value for name, value in weights.items()
        if name.startswith("lstm_cell.")})

    def features(output):
        return np.c_[np.maximum(output, 0), np.ones(len(output))].astype(float)

    wanted = golden["prob"].astype(float)
    readout = np.linalg.lstsq(features(golden["lstm_out"]), np.log(wanted / (1 - wanted)), rcond=None)[0]
    probability = 1 / (1 + np.exp(-features(layer(golden["lstm_in"])[0]) @ readout))
    return {"largest difference of probabilities": float(np.abs(probability - wanted).max()),
            "decisions changed of 353": int(((probability > 0.5) != (wanted > 0.5)).sum())}


def g2p_en(precision):
    """Letters to phonemes: a GRU 256 reads the letters, another one writes phonemes and reads its last.

    Gives word -> numbers of phonemes, for the words that the package's own outputs are there of, and WORDS.
    """
    weights = arrays("g2p_en/checkpoint20.npz")
    golden = json.loads((FOLDER / "models" / "g2p_en" / "golden_phonemes.json").read_text(encoding="utf-8"))

    def gru(part):
        return recurrent(fastrnn.GRU, 256, 256, 1, precision, weights={
            f"{long}_l0": weights[f"{part}_{short}"] for long, short in (
                ("weight_ih", "w_ih"), ("weight_hh", "w_hh"), ("bias_ih", "b_ih"), ("bias_hh", "b_hh"))})

    reader, writer, head = gru("enc"), gru("dec"), dense(weights["fc_w"], weights["fc_b"], precision)
    letters = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
    words = [word for word in dict.fromkeys([*golden, *WORDS]) if set(word) <= set(letters)]
    written = {}
    for word in words:
        _, h = reader(weights["enc_emb"][[*map(letters.index, word), 2]])
        stream, sound, sounds = writer.stream(), 2, []          # 2: the start, 3: the end
        stream.state = h[:, None]
        while len(sounds) < 20:
            sound = int(head(stream.step(weights["dec_emb"][sound])[None])[0].argmax())
            if sound == 3:
                break
            sounds.append(sound)
        written[word] = sounds
    return written


def words_changed(precision):
    """Words whose phonemes are others than those that float32 writes."""
    written, exact = g2p_en(precision), g2p_en("float32")
    return {f"words changed of {len(exact)}": sum(written[word] != exact[word] for word in exact)}


def g2pm(precision):
    """Chinese characters to pinyin: a bidirectional LSTM 32 over a padded batch, and two dense layers."""
    weights, golden = arrays("g2pM/weights.npz"), arrays("g2pM/golden_bilstm.npz")
    layer = recurrent(fastrnn.LSTM, 64, 32, 1, precision, batch_first=True, bidirectional=True, weights={
        name.removesuffix("_reverse") + "_l0" + "_reverse" * name.endswith("_reverse"): value
        for name, value in weights.items() if name.startswith(("weight_", "bias_"))})

    def classes(output, of):
        hidden = np.maximum(dense(weights["hidden_weight_l0"], weights["hidden_bias_l0"], of)(output)[0], 0)
        return dense(weights["hidden_weight_l1"], weights["hidden_bias_l1"], of)(hidden)[0].argmax(-1)

    output, _ = layer(golden["emb"], lengths=golden["lengths"])
    wanted = np.concatenate([golden["fw"], golden["bw"]], axis=2).astype(np.float32)
    known = np.arange(output.shape[1]) < golden["lengths"][:, None]
    changed = (classes(output, precision) != classes(wanted, "float32"))[known]
    return {f"classes changed of {changed.size}, of 876": int(changed.sum())}


def nagisa(precision):
    """Japanese words: a bidirectional LSTM 50 whose outputs a dense layer reads."""
    weights, golden = arrays("nagisa/weights.npz"), arrays("nagisa/golden_bilstm.npz")
    parameters = {}
    for direction, suffix in (("f", ""), ("b", "_reverse")):
        own = [weights[f"ws_model_0{direction}_{part}"] for part in ("WxT", "WhT", "b")]
        parameters |= torch_rows(*own, suffix, order=(0, 1, 3, 2))
    layer = recurrent(fastrnn.LSTM, 200, 50, 1, precision, bidirectional=True, weights=parameters)
    outputs = np.concatenate([layer(golden[f"x{call}"])[0] for call in (0, 2, 4, 6)])
    return {"smallest cosine of 247 outputs": smallest_cosine(outputs, np.concatenate(
        [golden[f"y{call}"] for call in (0, 2, 4, 6)]))}


def chars2vec(precision):
    """Words to vectors: two LSTM 50."""
    weights, golden = arrays("chars2vec/weights_eng50.npz"), arrays("chars2vec/golden_eng50.npz")
    x = golden["x"]
    for name in ("lstm_1", "lstm_2"):
        own = [weights[f"{name}.{part}"] for part in ("kernel", "recurrent_kernel", "bias")]
        x, _ = recurrent(fastrnn.LSTM, own[0].shape[0], 50, 1, precision, batch_first=True,
                         weights=torch_rows(*own))(x)
    return {"smallest cosine of 12 vectors": smallest_cosine(x[:, -1], golden["sigmoid_tf2_keras3"])}


def rtneural(kind, precision):
    """An audio effect: four layers of 8 units, one sample after another."""
    folder = FOLDER / "rtneural"
    weights = {name: np.array(value, np.float32)
               for name, value in json.loads((folder / f"{kind}_torch.json").read_text()).items()}
    x, wanted = (np.loadtxt(folder / f"{kind}_torch_{end}_python.csv", dtype=np.float32) for end in "xy")
    y, cls = x[:, None], {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[kind]
    for name, size, num_layers in ((kind, 1, 1), (f"{kind}2", 8, 3)):
        y, _ = recurrent(cls, size, 8, num_layers, precision, weights={
            key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")})(y)
    y = dense(weights["dense.weight"], np.ravel(weights["dense.bias"]), precision)(y)[0][:, 0].astype(float)
    return {"error over signal (root mean square)": float(np.sqrt(np.square(y - wanted).mean()
                                                                  / np.square(wanted.astype(float)).mean()))}


MODELS = {"Resemblyzer, 3 x LSTM 256": resemblyzer, "Silero VAD, LSTM 128": silero,
          "g2p_en, 2 x GRU 256": words_changed, "g2pM, bi-LSTM 32": g2pm, "nagisa, bi-LSTM 50": nagisa,
          "chars2vec, 2 x LSTM 50": chars2vec,
          "RTNeural, 4 x LSTM 8": lambda precision: rtneural("lstm", precision),
          "RTNeural, 4 x GRU 8": lambda precision: rtneural("gru", precision)}


def table(precisions):
    """model -> measure -> precision -> number, float32 first."""
    return {name: {measure: {precision: model(precision)[measure] for precision in ("float32", *precisions)}
                   for measure in model("float32")} for name, model in MODELS.items()}


def main():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the table here")
    args = parser.parse_args()
    if not (FOLDER / "models").is_dir():
        raise SystemExit(f"no models at {FOLDER}: set FASTRNN_DATA to the folder that has them")
    figures = table(args.precision)
    names = ("float32", *args.precision)
    print(f"{'':28}{'':42}" + "".join(f"{name:>12}" for name in names))
    for model, measures in figures.items():
        for measure, values in measures.items():
            print(f"{model:28}{measure:42}" + "".join(f"{values[name]:12.5g}" for name in names), flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
