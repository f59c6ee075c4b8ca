"""Cells with options: each beside the plain cell, and beside a careful loop in NumPy.

    python benchmarks/options.py                       all cells and sizes
    python benchmarks/options.py --cell GRU --quick
    python benchmarks/options.py --json out/options.json

The NumPy loop takes the input's part of all steps in one product and works in place from there. How it measures: as
benchmarks/peers.py does. One process on one CPU, one thread for every library; contestants take turns in every round;
a time is the median over rounds, a ratio the median of the rounds' ratios. Outputs are compared, to 1e-5.
"""
import argparse
import json
from pathlib import Path
from statistics import median

from peers import Turns, prepare_process, ratio

ACTIVATIONS = ["affine", "leaky_relu", "thresholded_relu", "scaled_tanh", "hard_sigmoid", "elu", "softsign", "softplus"]
SHAPES = [(100, 1, 16, 32), (100, 1, 64, 128), (100, 32, 128, 128)]      # T, N, I, H
TARGET = 5      # times as fast as NumPy


def variants():
    """cell, name, options."""
    yield from (("LSTM", name, options) for name, options in {
        "peephole": {"peephole": True}, "coupled_gates": {"coupled_gates": True}, "clip": {"clip": 2.0},
        "peephole, coupled, clip": {"peephole": True, "coupled_gates": True, "clip": 2.0},
        "hard_sigmoid, tanh, tanh": {"activations": ["hard_sigmoid", "tanh", "tanh"]},
        "softsign, elu, softplus": {"activations": ["softsign", "elu", "softplus"]}}.items())
    yield from (("GRU", name, options) for name, options in {
        "mirror": {"update": "mirror"}, "mirror, before": {"update": "mirror", "reset_after": False},
        "hard_sigmoid, softsign": {"activations": ["hard_sigmoid", "softsign"]}}.items())
    yield from (("RNN", name, {"activations": [(name, 0.5)] if name == "affine" else [name]}) for name in ACTIVATIONS)


def numpy_loop(layer, np, reference):
    """x [T, N, I] -> output [T, N, H]: what a careful user of NumPy writes."""
    form = reference._Form(layer._kind, layer._options(0))
    p, H, kind = layer.parameters, layer.hidden_size, layer._kind
    w_ih, w_hh = p["weight_ih_l0"].T.copy(), p["weight_hh_l0"].T.copy()
    w_rz, w_n = w_hh[:, :2 * H].copy(), w_hh[:, 2 * H:].copy()
    b, b_hh = p["bias_ih_l0"] + p["bias_hh_l0"], p["bias_hh_l0"]
    if kind == "gru":
        b = b - np.concatenate([np.zeros(2 * H, b.dtype), b_hh[2 * H:]])
    peephole = np.split(p["peephole_l0"], 3) if layer.peephole else None

    def run(x):
        T, N, I = x.shape
        sums = (x.reshape(-1, I) @ w_ih).reshape(T, N, -1)
        sums += b
        h, c, output = np.zeros((N, H), x.dtype), np.zeros((N, H), x.dtype), np.empty((T, N, H), x.dtype)
        for t, a in enumerate(sums):
            if kind == "lstm":
                a += h @ w_hh
                if peephole:
                    a[:, :H] += peephole[0] * c
                    a[:, H:2 * H] += peephole[1] * c
                if layer.coupled_gates:
                    i = form.value(0, a[:, :H])
                    f = 1 - i
                else:
                    i, f = np.split(form.value(0, a[:, :2 * H]), 2, axis=1)
                c *= f
                c += i * form.value(1, a[:, 2 * H:3 * H])
                if peephole:
                    a[:, 3 * H:] += peephole[2] * c
                h = form.value(0, a[:, 3 * H:]) * form.value(2, c, clipped=False)
            elif kind.startswith("gru"):
                if kind == "gru":
                    u = h @ w_hh
                    r, z = np.split(form.value(0, a[:, :2 * H] + u[:, :2 * H]), 2, axis=1)
                    n = form.value(1, a[:, 2 * H:] + r * (u[:, 2 * H:] + b_hh[2 * H:]))
                else:
                    r, z = np.split(form.value(0, a[:, :2 * H] + h @ w_rz), 2, axis=1)
                    n = form.value(1, a[:, 2 * H:] + (r * h) @ w_n)
                h = h + z * (n - h) if form.mirror else n + z * (h - n)
            else:
                a += h @ w_hh
                h = form.value(0, a)
            output[t] = h
        return output

    return run


def measured(turns, case, np, fastrnn, reference, repeated):
    cell, name, options, (T, N, I, H) = case
    rng = np.random.default_rng(0)
    layer = getattr(fastrnn, cell)(I, H, rng=rng, **options)
    kept = {key: value for key, value in options.items() if key == "reset_after"}
    plain = getattr(fastrnn, cell)(I, H, rng=0, **kept)
    x, out = rng.standard_normal((T, N, I), np.float32), np.empty((T, N, H), np.float32)
    loop = numpy_loop(layer, np, reference)
    difference = float(np.max(np.abs(loop(x) - layer(x)[0])))
    times = turns.measure({"fastrnn": repeated(lambda: layer(x, out=out))[0], "numpy": repeated(lambda: loop(x))[0],
                           "plain": repeated(lambda: plain(x, out=out))[0]})
    return {"cell": cell, "options": name, "shape": [T, N, I, H], "seconds": median(times["fastrnn"]),
            "over_plain": ratio(times["fastrnn"], times["plain"]),
            "numpy_over": ratio(times["numpy"], times["fastrnn"]), "difference": difference}


def main():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 rounds of short turns")
    parser.add_argument("--cell", choices=["LSTM", "GRU", "RNN"], help="one cell instead of all")
    parser.add_argument("--isa", metavar="NAME", help="run fastrnn with FASTRNN_ISA=NAME, for example avx2")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    args = parser.parse_args()
    args.only = args.child = None
    prepare_process(args)
    import numpy as np
    from adapters import repeated

    import fastrnn
    from fastrnn.nn import reference
    turns = Turns(5 if args.quick else 15, 1e-3 if args.quick else 5e-3)
    cases = [(*variant, shape) for shape in SHAPES for variant in variants() if args.cell in (None, variant[0])]
    rows, shape = [], None
    for case in cases:
        if case[3] != shape:
            shape = case[3]
            print(f"\nT, N, I, H = {shape}: µs, over the plain cell, NumPy's time over it (target {TARGET})")
        row = measured(turns, case, np, fastrnn, reference, repeated)
        rows.append(row)
        said = "" if row["numpy_over"] >= TARGET else "  missed"
        said += "" if row["difference"] <= 1e-5 else f"  outputs differ by {row['difference']:.1e}"
        print(f"  {row['cell']:5}{row['options']:26}{1e6 * row['seconds']:9.1f}{row['over_plain']:7.2f}"
              f"{row['numpy_over']:7.1f}{said}", flush=True)
    met = sum(row["numpy_over"] >= TARGET for row in rows)
    print(f"\n{met} of {len(rows)} at {TARGET} times NumPy or more; "
          f"{turns.interrupted} of {turns.taken} turns disturbed")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1))
    raise SystemExit(any(row["difference"] > 1e-5 for row in rows))


if __name__ == "__main__":
    main()
