"""``python -m fastrnn``: help, exit codes, Ctrl-C, the demo on its data, the benchmark."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import cli, demo

COMMANDS = ("demo", "bench", "info", "inspect", "convert")


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "fastrnn", *map(str, arguments)], capture_output=True, text=True,
                          encoding="utf-8", timeout=120, env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment})


# ---- Commands -----------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_gives_an_example(command):
    result = run(*command, "--help")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^example:\n  .*python -m fastrnn", result.stdout, re.M), result.stdout


def test_no_command_prints_the_commands(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_info_prints_the_instruction_set():
    isa = fastrnn.available_isas()[-1]
    result = run("info", FASTRNN_ISA=isa)
    assert result.returncode == 0, result.stderr
    assert f"instruction set: {isa}" in result.stdout
    assert fastrnn.__version__ in result.stdout


@pytest.mark.parametrize(("arguments", "said"), [
    (["nonsense"], "nonsense"),
    (["--nonsense"], "nonsense"),
    (["demo", "--epochs", "0"], "--epochs"),
    (["demo", "--hidden", "wide"], "--hidden"),
    (["demo", "--horizon", "25"], "--horizon"),
    (["demo", "--seed", "-1"], "--seed"),
    (["bench", "--seconds", "nan"], "--seconds"),
    (["bench", "--seconds", "-1"], "--seconds"),
    (["info", "more"], "more"),
])
def test_wrong_arguments_exit_2_with_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_wrong_command_exits_2_as_a_process():
    result = run("nonsense")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["demo", "--out", str(tmp_path / "file" / "demo.png")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise on Windows")
@pytest.mark.parametrize("arguments", [("demo", "--epochs", "100000"), ("bench", "--seconds", "60")])
def test_ctrl_c_exits_130_without_traceback(arguments, tmp_path):
    process = subprocess.Popen([sys.executable, "-u", "-m", "fastrnn", *arguments], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True,
                               cwd=tmp_path,       # a shell's background job would hand down that it ignores SIGINT
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                               env={**os.environ, "PYTHONPATH": str(Path(fastrnn.__file__).parents[1])})
    try:
        assert process.stdout.readline()                # it is under way,
        time.sleep(1)       # and past its imports: CPython drops an exception raised in callbacks of import locks
        os.killpg(process.pid, signal.SIGINT)           # as a terminal does, to all it started
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err, err
    assert err.endswith("Interrupted.\n")


def test_layers_do_not_load_the_commands():
    code = "import sys, fastrnn; print([m for m in sys.modules if m.startswith('fastrnn.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(f"'fastrnn.{name}'" in loaded for name in ("cli", "demo", "bench", "__main__")), loaded


# ---- Demo ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def series():
    return demo.load()


def test_the_series_is_a_year(series):
    assert [a.shape for a in vars(series).values()] == [(8760,)] * 5
    assert np.array_equal(series.hour, np.tile(np.arange(1, 25), 365))
    assert np.bincount(series.month)[1:].tolist() == [24 * d for d in (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)]
    assert (series.temperature.min(), series.temperature.max()) == (-16.7, 35.6)
    assert (series.irradiance.min(), series.irradiance.max()) == (0, 1013)


@pytest.mark.parametrize("horizon", [1, 6, 24])
def test_no_held_out_hour_is_trained_on(series, horizon):
    for rng in (None, np.random.default_rng(0), np.random.default_rng(1)):
        windows = demo.training_windows(series, horizon, rng)
        hours = windows[0] + np.arange(demo.WINDOW + horizon)[:, None]      # inputs and targets
        assert set(series.month[windows[0]]) == set(range(1, 13))
        assert np.array_equal(series.month[hours], np.broadcast_to(series.month[hours[0]], hours.shape))
        near = np.convolve(series.held_out, np.ones(2 * demo.APART - 1), "same") > 0
        assert not near[hours].any()


@pytest.mark.parametrize("horizon", [1, 6, 24])
def test_every_held_out_hour_is_forecast_once_at_each_lead(series, horizon):
    at = demo.held_out_sequences(series, horizon)
    for lead in range(1, horizon + 1):
        rows = slice(demo.CONTEXT + horizon - lead, len(at) - lead)         # as evaluate takes them
        assert np.array_equal(np.sort((at[rows] + lead).ravel()), np.flatnonzero(series.held_out))
    # forecasts of the truth have no error
    x, truth = demo.features(series), demo.changes(series.temperature, at, horizon)
    assert np.abs(demo.evaluate(series, x, at, truth)["GRU"]).max() < 1e-12


def test_gradients_agree_with_differences(series):
    rng = np.random.default_rng(0)
    head = {"weight": rng.standard_normal((3, 4)), "bias": rng.standard_normal(3)}
    model = demo.Model(fastrnn.GRU(6, 4, dtype=np.float64, rng=rng), head, np.ones(3))
    x, target = rng.standard_normal((5, 2, 6)), rng.standard_normal((5, 2, 3))

    def loss():
        error, gradients = demo.gradients_of(model, x, target, slice(2, None))
        return np.mean(error ** 2), gradients

    _, gradients = loss()
    assert set(gradients) == {*model.layer.parameters, *head}
    for name, gradient in gradients.items():
        at = tuple(rng.integers(size) for size in gradient.shape)
        moved = []
        for change in (1e-6, -2e-6):
            with model.layer.updating() as parameters:
                {**parameters, **head}[name][at] += change
            moved.append(loss()[0])
        with model.layer.updating() as parameters:
            {**parameters, **head}[name][at] += 1e-6
        assert gradient[at] == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-6, abs=1e-9), name


def test_demo_runs_and_draws(tmp_path):
    result = run("demo", "--epochs", 1, "--hidden", 8, "--out", tmp_path / "new" / "demo.png")
    assert result.returncode == 0, result.stderr
    for said in ("deg C", "persistence", "24 hours ago", "99th percentile", "equal to the bit"):
        assert said in result.stdout
    if importlib.util.find_spec("matplotlib") is not None:
        assert (tmp_path / "new" / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_beats_the_simple_forecasts(series):
    x, at = demo.features(series), demo.held_out_sequences(series, 6)
    model = demo.train(series, x, hidden=32, horizon=6, epochs=60, seed=0)
    errors = demo.evaluate(series, x, at, model.changes(model.layer(x[at])[0]))
    rmse = {name: np.sqrt(np.mean(np.square(e), axis=(1, 2))) for name, e in errors.items()}
    assert (rmse["GRU"] < 0.9 * rmse["persistence"]).all(), rmse
    assert (rmse["GRU"] < 0.7 * rmse["24 hours ago"]).all(), rmse


def test_demo_without_matplotlib_and_tqdm_says_so(tmp_path, monkeypatch, capsys):
    for name in ("matplotlib", "matplotlib.figure", "tqdm"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["demo", "--epochs", "2", "--hidden", "8", "--out", str(tmp_path / "demo.png")]) == 0
    out = capsys.readouterr().out
    assert "matplotlib is not installed" in out
    assert "epoch 2 of 2" in out


# ---- Benchmark ----------------------------------------------------------------------------------

def test_bench_prints_a_table_and_writes_json(tmp_path):
    result = run("bench", "--seconds", 0.05, "--json", tmp_path / "new" / "bench.json")
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"^(LSTM|GRU|RNN) +\d.* -> ", result.stdout, re.M)) == 18
    assert "GFLOP/s" in result.stdout
    assert "DIFFER" not in result.stdout
    found = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert len(found["cases"]) == 18
    for row in found["cases"]:
        assert {"fastrnn", "numpy", "read" if row["work"] == "step" else "matmul"} <= set(row["seconds"])
        assert all(seconds > 0 for seconds in row["seconds"].values())
