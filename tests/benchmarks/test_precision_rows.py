"""benchmarks/precision.py: every contestant computes the layer it says, and errors are measured as the page says."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    """(precision, narrow_peers, adapters) as modules; they import their neighbours by name, as scripts do."""
    sys.path.insert(0, str(FOLDER))
    try:
        import adapters
        import narrow_peers
        import precision
    finally:
        sys.path.remove(str(FOLDER))
    return precision, narrow_peers, adapters


@pytest.mark.parametrize("section", ["step", "sequence"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("name", ["fastrnn float32", "fastrnn int8", "fastrnn bfloat16", "onnxruntime int8",
                                  "litert int8", "torch int8", "torch bfloat16", "torch autocast"])
def test_contestants(name, cell, section, scripts):
    """A wrong order of gates, or a state that is not kept, would be off by far more than rounding."""
    precision, narrow_peers, adapters = scripts
    try:
        adapter = (narrow_peers.OURS | narrow_peers.PEERS)[name]()
    except (ImportError, ValueError) as error:
        pytest.skip(str(error))
    problem = adapters.Problem(cell, *((1, 1, 12, 16) if section == "step" else (9, 3, 12, 16)))
    try:
        contestant = getattr(adapter, section)(problem)
    except narrow_peers.NotOffered:
        assert (name, cell) in {("onnxruntime int8", "gru"), ("onnxruntime int8", "rnn"), ("torch int8", "rnn")} or (
            name, cell, section) == ("litert int8", "gru", "sequence")
        return
    if section == "step":
        contestant = getattr(adapter, section)(problem)         # trials of threads have stepped the other one
    contestant.run(precision.STEPS if section == "step" else 2)
    rms, largest = precision.errors(contestant.output(), precision.exact(section, problem), section)
    assert (rms < 1e-6) == (name == "fastrnn float32") and rms <= largest < 0.06


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_steps_of_litert_that_are_written_out(cell, scripts):
    precision, narrow_peers, adapters = scripts
    pytest.importorskip("ai_edge_litert")
    problem, peer = adapters.Problem(cell, 1, 1, 12, 16), narrow_peers.LiteRT()
    contestant = peer.written_out_step(problem, getattr(peer, f"{cell}_equations"))
    contestant.run(precision.STEPS)
    assert 1e-5 < precision.errors(contestant.output(), precision.exact("step", problem), "step")[1] < 0.03


def test_errors_of_gradients(scripts):
    """Those of float32 are float32's; one array that is wrong by a hundredth of its largest number shows so."""
    precision, narrow_peers, adapters = scripts
    problem = adapters.Problem("lstm", 9, 3, 12, 16)
    contestant = narrow_peers.NarrowFastRNN("float32").training(problem)
    contestant.run(1)
    wanted = precision.exact("training", problem)
    assert precision.errors(contestant.output(), wanted, "training")[1] < 1e-5
    arrays = contestant.output()
    arrays[2] = arrays[2] + np.float32(0.01) * np.abs(arrays[2]).max()
    rms, largest = precision.errors(arrays, wanted, "training")
    assert largest == pytest.approx(0.01, rel=1e-3) and rms < largest


@pytest.mark.parametrize("name", ["fastrnn bfloat16", "torch bfloat16", "torch autocast"])
def test_training_contestants(name, scripts):
    precision, narrow_peers, adapters = scripts
    try:
        adapter = (narrow_peers.OURS | narrow_peers.PEERS)[name]()
    except ImportError as error:
        pytest.skip(str(error))
    problem = adapters.Problem("lstm", 9, 3, 12, 16)
    contestant = adapter.training(problem)
    contestant.run(1)
    rms, largest = precision.errors(contestant.output(), precision.exact("training", problem), "training")
    assert 1e-4 < rms < largest < 0.03


def test_who_is_ahead_is_named(scripts):
    precision, _, _ = scripts
    rows = [{"section": "step", "cell": "lstm", "case": (1, 1, 2, 3), "name": name, "rounds": [seconds] * 3}
            for name, seconds in {"fastrnn int8": 2.0, "litert int8": 1.0, "onnxruntime int8": 3.0,
                                  "openvino bfloat16": 0.1}.items()]
    assert precision.ahead(rows) == ["litert int8 takes 0.50 of fastrnn int8's time: step lstm (1, 1, 2, 3)"]


def test_the_table(scripts, capsys, monkeypatch, tmp_path):
    precision, _, _ = scripts
    monkeypatch.setattr(sys, "argv", ["precision.py", "--only", "sequence", "--cell", "gru", "--case", "3,2,4,8",
                                      "--peers", "none", "--rounds", "1", "--json", str(tmp_path / "rows.json")])
    monkeypatch.setattr(precision, "CASES", {"sequence": [(3, 2, 4, 8)]})
    monkeypatch.setattr(precision, "prepare_process", lambda args: None)
    threads = fastrnn.get_num_threads()
    try:
        assert precision.main() == 0
    finally:
        fastrnn.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "fastrnn int8" in printed and "no peer is ahead" in printed and (tmp_path / "rows.json").exists()
