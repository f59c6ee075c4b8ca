"""What peers.py makes of its rows: the project's targets, a summary, a picture."""
from collections import namedtuple
from pathlib import Path
from statistics import geometric_mean, median

CELLS = ["lstm", "gru", "rnn"]
SECTIONS_WITH_CASES = ["step", "sequence", "training"]


def label(case):
    return "{}, {}, {}, {}".format(*case)


def l1_bytes():
    try:
        return int(Path("/sys/devices/system/cpu/cpu0/cache/index0/size").read_text().strip().rstrip("K")) * 1024
    except (OSError, ValueError):
        return 32 * 1024


Target = namedtuple("Target", "name needed value met note")


def check(name, rows, key, bound, most=False, suffix="x"):
    """A target that every row has to meet: its value is the worst row's, its note the rows that miss."""
    rows = sorted((row for row in rows if row.get(key) is not None), key=lambda row: row[key], reverse=most)
    needed = f"{'<=' if most else '>='} {bound}{suffix}"
    if not rows:
        return Target(name, needed, None, None, "not measured in this run")
    missed = [row for row in rows if (row[key] > bound if most else row[key] < bound)]
    notes = [f"{row['cell']} ({label(row['case'])}) {row[key]:.3g}" for row in missed[:3] or rows[:1]]
    note = f"{len(missed)} of {len(rows)} miss: " if missed else f"worst of {len(rows)}: "
    note += "; ".join(notes) + (" ..." if len(missed) > 3 else "")
    return Target(name, needed, rows[0][key], not missed, note)


def targets(rows):
    """The targets of the project, each against what was measured."""
    def of(section, wanted=lambda row: True):
        return [row for row in rows if row["section"] == section and row.get("threads", 1) == 1 and wanted(row)]

    found = []
    for name, bound, wanted in (
            ("step, H <= 64: ratio to the best peer", 20, lambda r: r["case"][3] <= 64),
            ("step, LSTM and GRU 64->128", 6, lambda r: r["case"][3] == 128 and r["cell"] != "rnn"),
            ("step, 128->256", 3.5, lambda r: r["case"][3] == 256),
            ("step, 512->512", 1.6, lambda r: r["case"][3] == 512)):
        found.append(check(name, of("step", wanted), "ratio", bound))
    cached = l1_bytes()
    found.append(check("step over one read of the packed weights (past L1)",
                       of("step", lambda r: r["packed_bytes"] > cached), "of_read", 1.3, most=True))
    found.append(check("step, LSTM 16->32, over np.add", of("step"), "of_add", 1.0, most=True))
    for section, means, share in (("sequence", (1.25, 1.6, 1.8), 0.8), ("training", (1.4, 2, 2), 0.65)):
        found.append(check(f"{section}: ratio to the best peer, every case", of(section), "ratio", 1.0))
        for cell, bound in zip(CELLS, means):
            ratios = [row["ratio"] for row in of(section, lambda r, cell=cell: r["cell"] == cell) if "ratio" in row]
            mean = geometric_mean(ratios) if ratios else None
            found.append(Target(f"{section}: geometric mean, {cell}", f">= {bound}x", mean, mean and mean >= bound,
                                f"of {len(ratios)} cases" if ratios else "not measured in this run"))
        found.append(check(f"{section}: share of sgemm, N >= 16 and H >= 128",
                           of(section, lambda r: r["case"][1] >= 16 and r["case"][3] >= 128 and r["isa"] != "avx2"),
                           "share", share, suffix=""))
    for section in SECTIONS_WITH_CASES:
        many = [row for row in rows if row["section"] == section and row.get("threads", 1) > 1]
        found.append(check(f"{section}, two threads: ratio to the best peer, every case", many, "ratio", 1.0))
    for kind in ("sequence", "training"):
        found.append(check(f"two threads over one, {kind}, N >= 16", of("threads", lambda r, k=kind: r["kind"] == k),
                           "value", 1.7))
    avx2 = of("avx2") + of("sequence", lambda r: r["isa"] == "avx2" and r["case"][1] >= 16)
    found.append(check("AVX2, sequences N >= 16: share of its limit", avx2, "share", 0.8, suffix=""))
    found.append(check("ragged over unragged", of("ragged"), "value", 0.6, most=True, suffix=""))
    found.append(check("stream of 10^7 steps: bytes of growth", of("memory"), "growth", 2 ** 20 - 1, True, ""))
    found.append(check("bytes allocated by steps with out", of("memory"), "allocated", 0, True, ""))
    found.append(check("subnormal over normal", of("subnormal"), "value", 1.2, most=True, suffix=""))
    return found


def summary(bench, rows, found):
    print("\nsummary")
    rates = [row["sgemm_gflops"] for row in rows if "sgemm_gflops" in row and row.get("threads", 1) == 1]
    if rates:
        print(f"  sgemm rate in this run: median {median(rates):.1f} GFLOP/s, {min(rates):.1f} to {max(rates):.1f}")
    print(f"  {bench.turns.interrupted / max(1, bench.turns.taken):.1%} of the turns had other processes in them "
          "(above a few per cent: measure again on a quiet machine)")
    failed = sorted({name for row in rows for name in row.get("errors", ())})
    if bench.absent or failed:
        print(f"  ratios are to the peers that ran: {', '.join([*bench.absent, *failed])} absent or failed, see above")
    for target in found:
        if target.value is not None:
            print(f"  {'met' if target.met else 'MISSED':<7}{target.name:<52}{target.needed:>10}  {target.value:<8.3g}"
                  f"{target.note}")
    avx2 = [row["share_whole"] for row in rows if row["isa"] == "avx2" and "share" in row and row["case"][1] >= 16]
    if avx2:
        print(f"  AVX2 for N >= 16, of the whole sgemm rate: {min(avx2):.2f} to {max(avx2):.2f} "
              "(the fair measure where AVX-512 is no faster than AVX2, as on Zen 4)")
    missing = [target.name for target in found if target.value is None]
    if missing:
        print(f"  {len(missing)} targets not measured in this run: {'; '.join(missing[:3])}"
              f"{' ...' if len(missing) > 3 else ''}")
    print("  every promise of the API: the tests say, not this")


def plot(rows, header, path):
    """One panel each for step, sequence and training: a bar from 1 to the ratio to the best peer, grouped by cell."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator
    threads = min((row.get("threads", 1) for row in rows), default=1)      # of two tables the first is drawn
    drawn = [row for row in rows if "ratio" in row and row.get("threads", 1) == threads]
    panels = {name: [row for row in drawn if row["section"] == name] for name in SECTIONS_WITH_CASES}
    panels = {name: found for name, found in panels.items() if found}
    if not panels:
        print("nothing to draw: no peer was measured")
        return
    titles = {"step": "One step, N = 1  (I → H)", "sequence": "Sequences, forward  (T, N, I, H)",
              "training": "Training step  (T, N, I, H)"}
    colors = dict(zip(CELLS, ("#1b6ca8", "#d1495b", "#3c8d40")))
    tallest = max(len(found) for found in panels.values())
    figure, axes = plt.subplots(1, len(panels), figsize=(4.9 * len(panels), 1.5 + 0.23 * tallest), squeeze=False)
    for axis, (name, found) in zip(axes[0], panels.items()):
        y, ticks, names = 0, [], []
        for cell in CELLS:
            group = [row for row in found if row["cell"] == cell]
            for row in group:
                axis.barh(y, row["ratio"] - 1, left=1, height=0.72, color=colors[cell],
                          label=cell.upper() if row is group[0] else None)
                text = f"{row['ratio']:.3g}× {row['best'].replace(' without oneDNN', '')}"
                axis.annotate(text, (max(row["ratio"], 1), y), xytext=(3, 0), textcoords="offset points", va="center",
                              fontsize=7)
                ticks.append(y)
                names.append("{2} → {3}".format(*row["case"]) if name == "step" else label(row["case"]))
                y += 1
            y += 0.8 if group else 0
        top, bottom = max(row["ratio"] for row in found), min(row["ratio"] for row in found)
        # room at the right for the text of the longest bar
        axis.set(xscale="log", title=titles[name], ylim=(y - 0.3, -1),
                 xlim=(min(0.8, 0.85 * bottom), 1.3 * max(top, 1.2) ** 1.45))
        marks = (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5) if top < 8 else (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
        shown = [x for x in marks if axis.get_xlim()[0] <= x <= 1.3 * top]
        axis.xaxis.set_major_locator(FixedLocator(shown))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([f"{x:g}×" for x in shown], fontsize=8)
        axis.set_yticks(ticks, names, fontsize=7.5)
        axis.tick_params(axis="y", length=0)
        axis.axvline(1, color="black", linewidth=1)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.legend(loc="lower right", fontsize=8, frameon=False)
    line = " " if len(panels) > 1 else "\n"
    figure.suptitle(f"How many times faster than the best peer{line}(its name beside the bar): float32, "
                    + ("one thread" if threads == 1 else f"{threads} threads"), fontsize=12)
    ours = f"{header['machine']}; fastrnn {header['fastrnn'].split(' of ')[0]};"
    theirs = f"{header['peers']}; {header['date'][:10]}"
    figure.text(0.5, 0.005, f"{ours}{line}{theirs}", ha="center", fontsize=7, color="0.35")
    figure.tight_layout(rect=(0, 0.03, 1, 0.99))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"picture: {path}")
