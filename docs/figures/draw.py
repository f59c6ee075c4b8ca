"""Draws the figures of the documentation.

    python docs/figures/draw.py docs/generated

Those of the performance guide are drawn from measured.json, beside this file: no time is measured here. ``make bench``
measures, and measured.json holds what it gave, with date and machine. The figure of gradients is computed.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fastrnn
from fastrnn.diagnostics import gradient_flow

COLORS = {"LSTM": "#1c6ca8", "GRU": "#cf4858", "RNN": "#3b8c40"}


def load():
    """The measured numbers."""
    return json.loads(Path(__file__).with_name("measured.json").read_text("utf-8"))


def of_cell(rows, cell):
    """The rows of one kind of cell, in the order of the table."""
    return [row for row in rows if row["cell"] == cell]


def finish(figure, source, path):
    figure.supxlabel(source, fontsize=7, color="0.4")
    figure.savefig(path)


def draw_steps(measured, path):
    """One step against the time that one bare read of the packed weights takes."""
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    ax = figure.add_subplot()
    for cell, color in COLORS.items():
        rows = of_cell(measured["step"], cell)
        labels = ["{} → {}".format(*row["case"]) for row in rows]
        ax.plot(labels, [row["microseconds"] for row in rows], "o-", color=color, label=f"{cell}: one step")
        ax.plot(labels, [row["microseconds"] / row["times_one_read"] for row in rows], "_:", color=color,
                label=f"{cell}: one read of its weights")
    ax.set(yscale="log", xlabel="input size → hidden size", ylabel="µs")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8, frameon=False)
    finish(figure, f"stream.step, N = 1; {measured['machine']}; {measured['measured']}", path)


def draw_shares(measured, path):
    """Sequences and training as a share of the machine's sgemm rate."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for ax, (section, title) in zip(figure.subplots(1, 2), (("sequence", "Sequences, forward"),
                                                            ("training", "Training: forward and backward")),
                                    strict=True):
        for number, (cell, color) in enumerate(COLORS.items()):
            rows = of_cell(measured[section], cell)
            places = [index + 0.27 * (number - 1) for index in range(len(rows))]
            ax.bar(places, [row["share_of_sgemm"] for row in rows], 0.25, color=color, label=cell)
        ax.set_xticks(range(len(rows)), [", ".join(map(str, row["case"])) for row in rows], rotation=60, ha="right",
                      fontsize=7)
        ax.axhline(1, color="0.3", linewidth=0.8)
        ax.set(title=title, ylabel="share of the sgemm rate", ylim=(0, 1.25))
        ax.legend(fontsize=8, frameon=False, ncols=3, loc="upper left")
    finish(figure, f"T, N, I, H; {measured['machine']}; {measured['measured']}", path)


def draw_others(measured, path):
    """One step of an LSTM beside the engines that are faster: compiled for one size, or computing in 8 or 16 bits."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    ax = figure.add_subplot()
    place, ticks = 0, []
    for row in measured["small_steps"]["rows"]:
        begin = place
        for name, value in {"fastrnn": row["fastrnn"], **row["others"]}.items():
            ax.bar(place, value / row["fastrnn"], color=COLORS["LSTM"] if name == "fastrnn" else "0.65")
            if name != "fastrnn":
                ax.text(place, value / row["fastrnn"] + 0.02, name, rotation=90, ha="center", va="bottom", fontsize=7)
            place += 1
        ticks.append(((begin + place - 1) / 2, "{} → {}".format(*row["case"])))
        place += 1
    ax.set_xticks(*zip(*ticks, strict=True), fontsize=8)
    ax.set(ylabel="time over fastrnn's float32", xlabel="input size → hidden size", ylim=(0, 1.45))
    ax.axhline(1, color="0.3", linewidth=0.8)
    ax.legend([ax.patches[0], ax.patches[1]], ["fastrnn, float32", "others"], fontsize=8, frameon=False, ncols=2)
    finish(figure, f"LSTM step, N = 1; {measured['machine']}; November 2026", path)


def draw_gradients(path):
    """|dL/dh_t| over 200 steps, of cells as they are drawn and of gates that begin open."""
    x = np.random.default_rng(0).standard_normal((200, 4, 8), np.float32)
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    ax = figure.add_subplot()
    for cell, color in COLORS.items():
        layer = getattr(fastrnn, cell)(8, 64, rng=0)
        ax.plot(norms(layer, x), color=color, label=cell)
        if cell != "RNN":
            with layer.updating() as parameters:
                parameters["bias_ih_l0"][64:128] += 5           # LSTM: the forget gates; GRU: the update gates
            ax.plot(norms(layer, x), "--", color=color, label=f"{cell}, gates open")
    ax.set(yscale="log", xlabel="step t of 200; the loss is the output of the last step", ylabel="|dL/dh| at step t")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8, frameon=False)
    finish(figure, "8 inputs, 64 units, random input, mean of 4 rows, before training", path)


def norms(layer, x):
    """|dL/dh_t| for every step, the mean over the rows."""
    return gradient_flow(layer, x, jacobian_rows=0)["l0"].hidden.mean(axis=1)


def main(folder):
    """Draws every figure into a folder."""
    folder, measured = Path(folder), load()
    folder.mkdir(parents=True, exist_ok=True)
    draw_steps(measured, folder / "steps.svg")
    draw_shares(measured, folder / "shares.svg")
    draw_others(measured, folder / "others.svg")
    draw_gradients(folder / "gradients.svg")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "generated")
