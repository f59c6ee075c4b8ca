"""Narrow weights: fastrnn beside its peers in their own narrow forms, each one's time with its error.

    python benchmarks/precision.py                        everything, some minutes on one pinned CPU
    python benchmarks/precision.py --only step --cell lstm
    python benchmarks/precision.py --case 100,16,128,128 --rounds 9
    python benchmarks/precision.py --json out/precision.json

The contestants of a case take turns as in peers.py, in one thread on one CPU; a time is the median of the rounds, a
ratio the median of the rounds' ratios over fastrnn's float32. The error of a contestant is that of its outputs from
fastrnn's own float64 model of the same float32 weights (which tests hold to NumPy's equations): the root of their mean
square, and the largest one. In training it is that of all gradients, each array over its largest number. Speed and
error stand in one table, and neither says anything without the other. A peer that is ahead of fastrnn in its own
precision (int8 or bfloat16) is named at the end.
"""
# Nothing but the standard library (and what keeps to it) may be imported here: threads and the CPU are set before NumPy
# and the peers load.
import argparse
import json
import sys
from pathlib import Path
from statistics import median

from peers import Turns, cpu_model, prepare_process, ratio
from report import CELLS, label

SIZES = [(64, 128), (128, 256), (512, 512)]         # I, H
CASES = {
    "step": [(1, 1, I, H) for I, H in [(16, 32), *SIZES]],
    "sequence": [(100, 1, 64, 128), (100, 1, 512, 512), (100, 16, 128, 128), (100, 32, 256, 256), (50, 64, 512, 512)],
    "training": [(100, 16, 128, 128), (100, 32, 256, 256), (30, 64, 512, 512)],
}
UNITS = {"step": (1e6, "us"), "sequence": (1e3, "ms"), "training": (1e3, "ms")}
STEPS = 3           # taken before a step is timed, and compared after: from state 0
ROUNDS, TURN = 15, 2e-3


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES), help="sections (all)")
    parser.add_argument("--cell", choices=CELLS, nargs="+", default=["lstm", "gru"], help="cells (lstm gru)")
    parser.add_argument("--case", type=lambda text: tuple(map(int, text.split(","))), nargs="+", metavar="T,N,I,H",
                        help="these cases alone")
    parser.add_argument("--peers", metavar="LIST", help="comma-separated instead of all; 'none' for fastrnn alone")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"rounds of every case ({ROUNDS})")
    parser.add_argument("--isa", metavar="NAME", help="run fastrnn with FASTRNN_ISA=NAME, for example avx2")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    args = parser.parse_args()
    args.threads, args.child = 1, None          # what prepare_process asks for
    return args


def contestants(chosen):
    """(name -> adapter, name -> why it is absent)."""
    import narrow_peers
    found, absent = {}, {}
    peers = narrow_peers.PEERS if chosen is None else {
        name: narrow_peers.PEERS[name] for name in map(str.strip, chosen.split(",")) if name != "none"}
    for name, make in (narrow_peers.OURS | peers).items():
        try:
            found[name] = make()
        except Exception as error:              # a broken installation raises anything
            absent[name] = f"{type(error).__name__}: {error}"
    return found, absent


def exact(section, problem):
    """The outputs, or outputs and gradients, of the float64 model."""
    import numpy as np

    import fastrnn
    layer = getattr(fastrnn, problem.cell.upper())(problem.I, problem.H, dtype=np.float64)
    layer.load_state_dict(problem.weights)
    if section == "step":
        stream = layer.stream()
        return [[stream.step(problem.x[0, 0].astype(np.float64)) for _ in range(STEPS)][-1]]
    output, _, cache = layer.forward(problem.x.astype(np.float64))
    if section == "sequence":
        return [output]
    gradients = layer.backward(cache, problem.d_output.astype(np.float64))
    return [gradients.input, *(gradients.parameters[name] for name in problem.weights)]


def errors(arrays, wanted, section):
    """(root mean square, largest) of what arrays differ by; gradients as parts of their arrays' largest numbers."""
    import numpy as np
    if section == "training":
        arrays = arrays[1:]                     # the output came with the gradients
    scales = [np.abs(b).max() if section == "training" else 1.0 for b in wanted]
    parts = [np.ravel((a.astype(np.float64).reshape(b.shape) - b) / scale)
             for a, b, scale in zip(arrays, wanted, scales, strict=True)]
    difference = np.concatenate(parts)
    return float(np.sqrt(np.square(difference).mean())), float(np.abs(difference).max())


def contest(adapters, turns, section, cell, case):
    """One case: the rows of all contestants, and reasons of those that are not in it."""
    from adapters import Problem
    from narrow_peers import NotOffered
    problem = Problem(cell, *case)
    wanted, runs, found, missing, kept = exact(section, problem), {}, {}, {}, []
    for name, adapter in adapters.items():
        if section == "training" and "int8" in name:
            continue
        try:
            contestant = getattr(adapter, section)(problem)
            contestant.run(STEPS if section == "step" else 1)
            found[name] = errors(contestant.output(), wanted, section)
        except (NotOffered, NotImplementedError) as error:
            missing[name] = str(error) or "not offered"
            continue
        except Exception as error:              # whatever a peer raises is its row's entry, not our end
            missing[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            continue
        runs[name] = contestant.run
        kept.append(contestant)
    times = turns.measure(runs, [name for name in runs if not name.startswith("fastrnn")])
    base = times.get("fastrnn float32")
    rows = [{"section": section, "cell": cell, "case": case, "name": name, "seconds": median(times[name]),
             "ratio": ratio(times[name], base) if base else None, "rms": found[name][0], "largest": found[name][1],
             "rounds": times[name]} for name in runs]
    return rows, missing


def ahead(rows):
    """Sentences that name the peers ahead of fastrnn in their own precision."""
    said = []
    for row in rows:
        if row["name"].startswith("fastrnn"):
            continue
        own = "int8" if "int8" in row["name"] else "bfloat16"
        ours = next((one for one in rows if one["name"] == f"fastrnn {own}" and all(
            one[key] == row[key] for key in ("section", "cell", "case"))), None)
        if ours is not None and (value := ratio(row["rounds"], ours["rounds"])) < 1:
            said.append(f"{row['name']} takes {value:.2f} of fastrnn {own}'s time: {row['section']} {row['cell']} "
                        f"({label(row['case'])})")
    return said


def main():
    args = arguments()
    cpu = prepare_process(args)
    adapters, absent = contestants(args.peers)
    import fastrnn
    fastrnn.set_num_threads(1)
    versions = {adapter.package: adapter.version() for adapter in adapters.values()}
    header = {"machine": cpu_model(), "pinned to": cpu, "isa": fastrnn.active_isa(),
              "packages": ", ".join(f"{name} {number}" for name, number in versions.items()),
              "not taking part": "; ".join(f"{name} ({why})" for name, why in absent.items()) or "nobody"}
    for key, value in header.items():
        print(f"{key:<16}{value}", flush=True)
    turns, rows, missing = Turns(args.rounds, TURN), [], {}
    for section in args.only:
        scale, unit = UNITS[section]
        print(f"\n{section}: {unit} a call, time over fastrnn's float32, error against float64 (rms, largest)"
              + (" of gradients" if section == "training" else ""), flush=True)
        for cell in args.cell:
            for case in CASES[section]:
                if args.case is not None and case not in args.case:
                    continue
                found, reasons = contest(adapters, turns, section, cell, case)
                missing |= {(section, cell, name): why for name, why in reasons.items()}
                rows += found
                print(f"{cell} {label(case)}")
                for row in found:
                    over = f"{row['ratio']:8.2f}" if row["ratio"] is not None else f"{'-':>8}"
                    print(f"    {row['name']:<20}{row['seconds'] * scale:10.4g}{over}{row['rms']:11.1e}"
                          f"{row['largest']:9.1e}", flush=True)
    for (section, cell, name), why in missing.items():
        print(f"not in it: {name}, {section} {cell}: {why}")
    said = ahead(rows)
    print("\n" + "\n".join(said or ["no peer is ahead of fastrnn in its own precision"]))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"header": header, "rows": rows, "ahead": said,
                                         "not in it": [[*key, why] for key, why in missing.items()]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
