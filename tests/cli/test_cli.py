"""``python -m fastrnn``: help, exit codes, Ctrl-C, the demo on its data, the benchmark."""

import dataclasses
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import cli, datasets
from fastrnn.cli import demo, tables

COMMANDS = ("demo", "bench", "info", "inspect", "convert", "fit", "predict")


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "fastrnn", *map(str, arguments)], capture_output=True, text=True,
                          encoding="utf-8", timeout=120, env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment})


# ---- Commands -----------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_gives_an_example(command):
    result = run(*command, "--help")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^examples:\n  .*python -m fastrnn", result.stdout, re.M), result.stdout


def test_no_command_prints_the_commands(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_the_version_is_printed():
    result = run("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"fastrnn {fastrnn.__version__}\n", "")


def test_info_prints_the_instruction_set():
    isa = fastrnn.available_isas()[-1]
    result = run("info", FASTRNN_ISA=isa)
    assert result.returncode == 0, result.stderr
    assert f"instruction set: {isa}" in result.stdout
    assert fastrnn.__version__ in result.stdout


@pytest.mark.parametrize(("arguments", "words"), [
    (["nonsense"], "nonsense"),
    (["--nonsense"], "nonsense"),
    (["demo", "--updates", "0"], "--updates"),
    (["demo", "--hidden-size", "wide"], "--hidden-size"),
    (["demo", "--horizon", "25"], "--horizon"),
    (["demo", "--random-state", "-1"], "--random-state"),
    (["demo", "--hidden-size", "0"], "--hidden-size"),
    (["bench", "--seconds", "nan"], "--seconds"),
    (["bench", "--seconds", "-1"], "--seconds"),
    (["info", "more"], "more"),
])
def test_wrong_arguments_exit_2_with_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(("arguments", "suggestion"), [
    (["forcast"], "forecast"),
    (["forecast", "x.csv", "--target", "a", "--horizon", "1", "--hiden-size", "8"], "--hidden-size"),
    (["forecast", "x.csv", "--targets", "a"], "--target"),              # before what is missing
    (["forecast", "x.csv", "--season=24"], "--seasons"),
    (["demo", "--hidden", "8"], "--hidden-size"),
    (["demo", "--seed", "8"], "--random-state"),
    (["train", "x.csv", "--target", "a", "--rate", "0.1"], "--learning-rate"),
    (["train", "x.csv", "--target", "a", "--lr", "0.1"], "--learning-rate"),
    (["gradients", "--layers", "2"], "--num-layers"),
])
def test_a_misspelt_name_gets_a_suggestion(arguments, suggestion, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    assert f"did you mean {suggestion}?" in err


def test_a_name_unlike_any_gets_none(capsys):
    with pytest.raises(SystemExit):
        cli.main(["detect", "x.csv", "--zzz", "1"])
    err = capsys.readouterr().err
    assert "there is no option --zzz (see" in err


@pytest.mark.parametrize("name, program", [
    ("/usr/bin/fastrnn", "fastrnn"), (r"fastrnn.exe", "fastrnn"), ("/lib/fastrnn/__main__.py", "python -m fastrnn")])
def test_messages_begin_with_what_was_typed(name, program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit):
        cli.main(["detect", "--help"])
    assert f"usage: {program} detect FILE" in capsys.readouterr().out
    assert cli.main(["inspect", "no such file"]) == 1
    assert capsys.readouterr().err.startswith(f"{program} inspect: ")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes break otherwise on Windows")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("info",), ("forecast", "--help"), ("gradients", "--length", "5")])
def test_a_closed_pipe_ends_quietly(arguments, unbuffered):
    """As ``| head`` closes it. argparse itself passes over the error where it can write the help at once."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        result = subprocess.run([sys.executable, "-m", "fastrnn", *arguments], stdout=closed, stderr=subprocess.PIPE,
                                timeout=120, text=True, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    assert result.stderr == ""
    assert result.returncode == 141 or ("--help" in arguments and unbuffered and result.returncode == 0)


def test_wrong_command_exits_2_as_a_process():
    result = run("nonsense")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["demo", "--plot", str(tmp_path / "file" / "demo.png")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise on Windows")
@pytest.mark.parametrize("arguments", [("demo", "--updates", "1000000"), ("bench", "--seconds", "60")])
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


# ---- The examples of the help, on the data that ships ---------------------------------------------

def examples(command, capsys):
    """The argument lists of a command's examples."""
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    _, _, lines = capsys.readouterr().out.partition("examples:\n")
    return [shlex.split(line.partition("python -m fastrnn ")[2]) for line in lines.splitlines()]


def test_the_path_of_the_weather_is_printed(capsys):
    assert cli.main(["info", "--weather"]) == 0
    assert capsys.readouterr().out == f"{datasets.WEATHER}\n"
    assert cli.main(["info"]) == 0
    assert str(datasets.WEATHER) in capsys.readouterr().out


def test_the_weather_is_read_as_a_table():
    """Its header stands below a line that begins with #."""
    table, weather = tables.read(datasets.WEATHER), datasets.load_weather()
    assert table.numeric() == ["temperature_degC", "ghi_W_per_m2"]
    assert np.array_equal(table.numbers("temperature_degC", "--target"), weather.temperature)
    assert np.array_equal(table.numbers("ghi_W_per_m2", "--target"), weather.irradiance)


@pytest.mark.slow
def test_the_examples_run_on_the_weather(tmp_path, monkeypatch, capsys):
    """The first example of each command, one after the other; ``train`` writes the model that the others read."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    for command in ("train", "inspect", "convert", "gradients", "forecast", "fit", "predict", "detect"):
        chosen = [arguments for arguments in examples(command, capsys)
                  if {"weather", "weather.npz", "model.npz"} & set(arguments)]
        assert cli.main(chosen[0]) == 0, chosen[0]
        out, err = capsys.readouterr()
        assert out and "Traceback" not in err
    assert {"model.npz", "layer.onnx", "weather.npz", "forecasts.csv", "scores.png"} <= set(os.listdir(tmp_path))


# ---- Demo ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def series():
    return demo.load()


def test_the_series_is_a_year(series):
    assert [a.shape for a in vars(series).values()] == [(8760,)] * 3
    assert (series.times[0], series.times[-1]) == (np.datetime64("2001-01-01T01"), np.datetime64("2002-01-01T00"))
    assert np.bincount(series.month)[1:].tolist() == [24 * d for d in (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)]
    stamps = [line.split(",")[0] for line in datasets.WEATHER.read_text().splitlines()[2:]]  # month-day-hour
    begun = series.times - np.timedelta64(1, "h")
    assert stamps == [f"{str(hour)[5:10]}-{int(str(hour)[11:13]) + 1:02}" for hour in begun]
    assert (series.temperature.min(), series.temperature.max()) == (-16.7, 35.6)
    assert (series.irradiance.min(), series.irradiance.max()) == (0, 1013)


def test_no_held_out_hour_is_trained_on(series):
    near = np.convolve(series.held_out, np.ones(2 * demo.APART + 1), "same") > 0
    begun = series.times - np.timedelta64(1, "h")                   # the month in which an hour lies
    seen = 0
    for part in demo.training_parts(series):
        assert not near[part].any()
        assert len(set(begun[part].astype("datetime64[M]"))) == 1
        seen += part.stop - part.start
    assert seen == 12 * -2 * demo.APART + 8760 - 12 * 168
    assert series.held_out.sum() == 12 * 168
    for part in demo.held_out_weeks(series):
        assert series.held_out[part].tolist() == [False] * demo.CONTEXT + [True] * 168
        assert len(set(begun[part].astype("datetime64[M]"))) == 1


@pytest.mark.parametrize("horizon", [1, 6, 24])
def test_regression_finds_what_is_linear(series, horizon):
    """And reads nothing of what is to come: past its hours the series may be anything."""
    at = series.first + 30
    wave = 10 * np.sin(2 * np.pi * np.arange(8760) / 24 + 1)
    linear = dataclasses.replace(series, temperature=wave)
    changes = demo.linear(linear, horizon, at)
    assert changes.shape == (12, horizon)
    np.testing.assert_allclose(changes, wave[at[:, None] + np.arange(1, horizon + 1)] - wave[at, None], atol=1e-6)
    later = wave.copy()
    later[at[0] + 1:series.first[0] + 168] += 100
    np.testing.assert_array_equal(demo.linear(dataclasses.replace(linear, temperature=later), horizon, at), changes)


def test_demo_runs_and_draws(tmp_path):
    result = run("demo", "--updates", 8, "--hidden-size", 8, "--plot", tmp_path / "new" / "demo.png")
    assert result.returncode == 0, result.stderr
    for words in ("deg C", "naive", "24 hours ago", "regression", "99th percentile", "times as long"):
        assert words in result.stdout
    if importlib.util.find_spec("matplotlib") is not None:
        assert (tmp_path / "new" / "demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_demo_beats_the_simple_forecasts_and_streams_the_same(series):
    model = demo.forecaster(6, hidden_size=32, updates=300, random_state=0).set_params(ensemble=1, progress=False)
    backtest = demo.evaluate(model.fit(**series.arguments(demo.training_parts(series))), series)
    assert backtest.truth.shape == (12 * (168 - 5), 6)
    hours = backtest.origins - demo.CONTEXT + series.first[backtest.series]       # the first that each forecasts
    assert np.array_equal(backtest.truth, series.temperature[hours[:, None] + np.arange(6)])
    assert series.held_out[hours].all() and series.held_out[hours + 5].all()
    assert np.array_equal(backtest.others["24 hours ago"], series.temperature[hours[:, None] + np.arange(6) - 24])
    assert np.array_equal(backtest.others["naive"], series.temperature[hours[:, None] - np.ones(6, int)])
    rmse = {name: np.array(errors) for name, errors in demo.by_lead(backtest).items()}
    assert (rmse["forecast"] < 0.9 * rmse["naive"]).all(), rmse
    assert (rmse["forecast"] < 0.7 * rmse["24 hours ago"]).all(), rmse
    streamed, times = demo.stream(model, series)
    assert times.shape == (12, 168) and (times > 0).all()
    np.testing.assert_allclose(streamed[:, :163].reshape(-1, 6, 3), backtest.quantile_forecasts, atol=1e-3)


def test_demo_without_matplotlib_and_tqdm_says_so(tmp_path, monkeypatch, capsys):
    for name in ("matplotlib", "matplotlib.figure", "tqdm"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["demo", "--updates", "16", "--hidden-size", "8", "--plot", str(tmp_path / "demo.png")]) == 0
    out, err = capsys.readouterr()
    assert "matplotlib is not installed" in out
    assert re.search(r"epoch (\d+) of \1:", err) and "epoch" not in out


# ---- Benchmark ----------------------------------------------------------------------------------

@pytest.mark.slow
def test_bench_prints_a_table_and_writes_json(tmp_path):
    result = run("bench", "--seconds", 0.05, "--out", tmp_path / "new" / "bench.json")
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"^(LSTM|GRU|RNN) +\d.* -> ", result.stdout, re.M)) == 18
    assert "GFLOP/s" in result.stdout
    assert "DIFFER" not in result.stdout
    report = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert len(report["cases"]) == 18
    for row in report["cases"]:
        assert {"fastrnn", "numpy", "read" if row["work"] == "step" else "matmul"} <= set(row["seconds"])
        assert all(seconds > 0 for seconds in row["seconds"].values())
