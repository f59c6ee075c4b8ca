"""forecast, detect, train, gradients: on small tables, through files, and every way in which those can be wrong."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import cli
from fastrnn.cli import tables

COMMANDS = ("forecast", "detect", "train", "gradients")
STEPS = 400


@pytest.fixture(scope="module")
def series():
    """A daily wave by the hour, and what drives it: times, load, temperature."""
    rng, t = np.random.default_rng(0), np.arange(STEPS)
    temperature = 15 + 8 * np.sin(2 * np.pi * t / 24) + rng.standard_normal(STEPS)
    load = 50 + 10 * np.sin(2 * np.pi * (t - 2) / 24) + 0.5 * rng.standard_normal(STEPS)
    return np.datetime64("2024-03-01T00:00") + t * np.timedelta64(1, "h"), load, temperature


@pytest.fixture
def table(series, tmp_path):
    return csv(tmp_path / "series.csv", ["time,load,temperature,note"] +
               [f"{time},{load:.3f},{temperature:.3f},n{i}" for i, (time, load, temperature) in
                enumerate(zip(*series, strict=True))])


def csv(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*arguments):
    return cli.main(list(map(str, arguments)))


def columns(path):
    """A CSV file's columns of text."""
    return tables.read(path).columns


def floats(cells):
    return np.array(list(map(float, cells)))


# ---- forecast -----------------------------------------------------------------------------------

def test_forecast_writes_times_median_and_quantiles(table, tmp_path, capsys):
    out, plot = tmp_path / "new" / "f.csv", tmp_path / "f.png"
    assert run("forecast", table, "--target", "load", "--time", "time", "--horizon", 6, "--seasons", 24, "--past",
               "temperature", "--time-features", "day", "--updates", 60, "--hidden-size", 8, "--out", out,
               "--plot", plot) == 0
    printed = capsys.readouterr().out
    for name in ("forecast", "naive", "seasonal naive 24", "RMSE", "MASE", "quantile 0.1"):
        assert name in printed
    written = columns(out)
    assert list(written) == ["time", "load", "load_q0.1", "load_q0.9"]
    assert written["time"] == [f"2024-03-17T{hour:02}:00" for hour in range(16, 22)]
    low, middle, high = (floats(written[f"load{end}"]) for end in ("_q0.1", "", "_q0.9"))
    assert (low <= middle).all() and (middle <= high).all()
    expected = 50 + 10 * np.sin(2 * np.pi * (STEPS + np.arange(6) - 2) / 24)
    assert np.abs(middle - expected).max() < 4                  # the wave is 20 high
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_forecast_beats_the_naive_ones_where_there_is_something_to_learn(table, capsys):
    assert run("forecast", table, "--target", "load", "--horizon", 6, "--seasons", 24, "--updates", 100,
               "--quantiles") == 0
    printed = capsys.readouterr().out
    rmse = {line[:18].strip(): float(line.split()[-3]) for line in printed.splitlines()
            if line.startswith(("forecast ", "naive ", "seasonal naive "))}
    assert rmse["forecast"] < rmse["naive"] / 3, rmse
    assert "load:" in printed and "    401  " in printed              # with no --out the steps ahead are printed


def test_forecast_of_several_series_with_known_columns(series, tmp_path):
    """Two shops one below the other, rows in disorder, the steps to forecast with the known column alone."""
    _, load, _ = series
    lines, order = ["day,shop,open,sales"], np.random.default_rng(1)
    for shop, scale in (("b", 1), ("a", 100)):
        for t in range(130):
            is_open = t % 7 != 6
            sales = f"{scale * (10 * is_open + 0.1 * load[t]):.3f}" if t < 120 else ""
            lines.append(f"{np.datetime64('2024-01-01') + t},{shop},{is_open:d},{sales}")
    lines[1:] = order.permutation(lines[1:])
    first = lines[1].split(",")[1]
    out = tmp_path / "f.json"
    assert run("forecast", csv(tmp_path / "shops.csv", lines), "--target", "sales", "--series", "shop", "--time", "day",
               "--known", "open", "--horizon", 10, "--seasons", 7, "--updates", 150, "--hidden-size", 8, "--quantiles",
               "--out", out) == 0
    written = json.loads(out.read_text())
    assert list(written) == ["shop", "day", "sales"]
    assert written["shop"] == [first] * 10 + [("a" if first == "b" else "b")] * 10
    assert written["day"][:10] == ["2024-04-30", *(f"2024-05-0{day}" for day in range(1, 10))]
    sales = dict(zip(("first", "second"), np.reshape(written["sales"], (2, 10)), strict=True))
    for values, scale in zip(sales.values(), (1, 100) if first == "b" else (100, 1), strict=True):
        closed = np.arange(120, 130) % 7 == 6
        assert np.abs(values[closed] / scale - 5).max() < 3 and np.abs(values[~closed] / scale - 15).max() < 3


def test_forecast_of_several_columns_held_out_none(table, tmp_path, capsys):
    out = tmp_path / "f.csv"
    assert run("forecast", table, "--target", "load", "temperature", "--horizon", 3, "--held-out", 0, "--updates", 5,
               "--hidden-size", 4, "--out", out) == 0
    assert "naive" not in capsys.readouterr().out
    written = columns(out)
    assert list(written) == ["step", "load", "load_q0.1", "load_q0.9", "temperature", "temperature_q0.1",
                           "temperature_q0.9"]
    assert written["step"] == ["401", "402", "403"]


# ---- detect -------------------------------------------------------------------------------------

def test_detect_reports_the_row_and_the_column(series, tmp_path, capsys):
    times, load, temperature = (part.copy() for part in series)
    temperature[350] += 60
    lines = [f"{time};{a:.3f};{b:.3f}" for time, a, b in zip(times, load, temperature, strict=True)]
    table = csv(tmp_path / "machine.txt", ["time;load;temperature", *lines])
    out, plot = tmp_path / "scores.csv", tmp_path / "scores.svg"
    assert run("detect", table, "--time", "time", "--out", out, "--plot", plot) == 0
    assert f"\n  {times[350]}" in capsys.readouterr().out
    written = columns(out)
    assert list(written) == ["time", "score", "anomaly", "column"] and len(written["score"]) == STEPS
    assert written["anomaly"][350] == "1" and written["column"][350] == "temperature"
    scores = floats(written["score"])
    assert (scores >= 0).all() and (scores <= 1).all() and not scores[:50].any()
    assert b"<svg" in plot.read_bytes()


def test_detect_joins_reported_rows_that_are_near(tmp_path, capsys):
    values = np.sin(np.arange(300) / 5)
    values[[200, 203, 260]] += 9
    table = csv(tmp_path / "t.csv", ["v", *map(str, values)])
    previous = None
    for join in (1, 3, 99):
        assert run("detect", table, "--join", join, "--out", tmp_path / "s.csv") == 0
        lines = capsys.readouterr().out.splitlines()
        places = [[int(row) for row in line.split(":")[0].split(" to ")] for line in lines if line.startswith("  ")]
        assert f"in {len(places)} places" in lines[0]
        rows = [n for n, anomaly in enumerate(columns(tmp_path / "s.csv")["anomaly"], 1) if anomaly == "1"]
        assert {201, 204, 261} <= set(rows) and rows == (previous or rows)
        assert sorted({row for place in places for row in rows if place[0] <= row <= place[-1]}) == rows
        assert all(later[0] - place[-1] > join for place, later in itertools.pairwise(places))
        for first, *last in places:
            between = [row for row in rows if first <= row <= (last or [first])[0]]
            assert first == between[0] and last == between[1:][-1:]
            assert all(b - a <= join for a, b in itertools.pairwise(between))
        previous = rows


def test_the_range_of_earlier_values_counts_unless_margin_is_inf(tmp_path):
    # A wave, whose values the forecasts explain: in noise a value far out and a large error are the same evidence.
    wave = np.sin(np.arange(600) * np.pi / 12) + 0.1 * np.random.default_rng(0).standard_normal(600)
    table = csv(tmp_path / "t.csv", ["v", *map(str, wave), "3"])
    last = []
    for margin in (0.02, 5, "inf"):
        assert run("detect", table, "--margin", margin, "--out", tmp_path / "s.csv") == 0
        last.append(float(columns(tmp_path / "s.csv")["score"][-1]))
    assert 1 > last[0] > last[1] > 0 and last[2] == last[1], last


def test_detect_scores_before_it_learns(table, tmp_path):
    """A row's score hangs on those before it alone."""
    lines = table.read_text().splitlines()
    whole, part = tmp_path / "whole.csv", tmp_path / "part.csv"
    assert run("detect", table, "--columns", "load", "--out", whole) == 0
    assert run("detect", csv(tmp_path / "short.csv", lines[:301]), "--columns", "load", "--out", part) == 0
    assert columns(whole)["score"][:300] == columns(part)["score"]
    assert columns(part)["row"] == [str(n) for n in range(1, 301)]


def test_detect_fits_on_first_rows(table, tmp_path):
    out = tmp_path / "s.json"
    assert run("detect", table, "--columns", "load", "--fit", 300, "--updates", 2, "--hidden-size", 8,
               "--out", out) == 0
    scores = np.array(json.loads(out.read_text())["score"])
    assert not scores[:300].any() and len(scores) == STEPS


# ---- train --------------------------------------------------------------------------------------

def test_train_saves_a_model_in_the_units_of_the_table(series, table, tmp_path, capsys):
    out, plot = tmp_path / "model.npz", tmp_path / "losses.pdf"
    assert run("train", table, "--target", "load", "--ahead", 3, "--epochs", 60, "--hidden-size", 16, "--learning-rate",
               0.01, "--out", out, "--plot", plot) == 0
    printed = capsys.readouterr().out
    errors = next(line for line in printed.splitlines() if line.startswith("  load")).split()[1:]
    model_rmse, naive_rmse = map(float, errors)
    assert model_rmse < naive_rmse / 3
    model, (_, load, temperature) = fastrnn.load(out), series
    forecasts = model(np.stack([load, temperature], 1).astype(np.float32))[0][:, 0]
    held = slice(STEPS - 3 - (STEPS - 3) // 5, STEPS - 3)
    errors = forecasts[held] - load[3:][held]
    assert np.sqrt(np.mean(errors ** 2)) < 1.3 * model_rmse     # it has read more before, and so may differ a little
    assert plot.read_bytes().startswith(b"%PDF")


def test_train_resumes_to_the_same_bits(table, tmp_path):
    options = ["train", table, "--target", "load", "--hidden-size", 8, "--tbptt", 20]
    assert run(*options, "--epochs", 6, "--out", tmp_path / "whole.npz") == 0
    checkpoint = tmp_path / "run.ckpt"
    code = f"""
import os, signal
from fastrnn import cli
from fastrnn.training import checkpoints
save, saved = checkpoints.save, []
def kill_after_the_third(path, run, state):
    save(path, run, state)
    saved.append(path)
    if len(saved) == 3:
        os._exit(9)
checkpoints.save = kill_after_the_third
cli.main({[*map(str, options), "--epochs", "6", "--checkpoint", str(checkpoint)]!r})
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 9
    assert checkpoint.exists()
    assert run(*options, "--epochs", 6, "--checkpoint", checkpoint, "--out", tmp_path / "resumed.npz") == 0
    whole, resumed = (fastrnn.load(tmp_path / f"{name}.npz").state_dict() for name in ("whole", "resumed"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_train_in_bfloat16(table, tmp_path):
    models = []
    for precision in ("float32", "bfloat16"):
        path = tmp_path / f"{precision}.npz"
        assert run("train", table, "--target", "load", "--epochs", 2, "--hidden-size", 8, "--precision", precision,
                   "--out", path) == 0
        models.append(fastrnn.load(path).parameters)
    for name, a in models[0].items():
        assert models[1][name].dtype == a.dtype and 0 < np.abs(models[1][name] - a).max() < 0.1, name


def test_train_passes_over_missing_values(series, tmp_path, capsys):
    _, load, temperature = series
    lines = [f"{'' if i % 11 == 5 else f'{a:.3f}'},{'NA' if i % 13 == 2 else f'{b:.3f}'}"
             for i, (a, b) in enumerate(zip(load, temperature, strict=True))]
    table = csv(tmp_path / "gaps.csv", ["load,temperature", *lines])
    assert run("train", table, "--target", "load", "temperature", "--epochs", 3, "--hidden-size", 8) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [row[0] for row in rows] == ["load", "temperature"]
    assert all(0 < float(number) < 100 for row in rows for number in row[1:])


# ---- gradients ----------------------------------------------------------------------------------

def test_gradients_of_fresh_layers(tmp_path, capsys):
    out, plot = tmp_path / "g.csv", tmp_path / "g.png"
    assert run("gradients", "--length", 60, "--hidden-size", 8, "--cell", "RNN", "Gru", "lstm", "--forget-bias", 4,
               "--out", out, "--plot", plot) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:4]] == ["layer", "rnn", "gru", "lstm"]
    written = columns(out)
    assert len(written["step"]) == 60
    plain, gated = floats(written["rnn l0 dL/dh"]), floats(written["lstm l0 dL/dc"])
    assert plain[0] < 1e-6 * plain[-1]
    assert gated[0] > 1e-2 * gated[-2]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_gradients_of_a_model_on_a_table(series, table, tmp_path, capsys):
    model = fastrnn.Sequential(fastrnn.GRU(2, 4, rng=0), fastrnn.Linear(4, 1, rng=0))
    model.save(tmp_path / "model.npz")
    out = tmp_path / "g.json"
    assert run("gradients", tmp_path / "model.npz", "--data", table, "--columns", "load", "temperature", "--length", 30,
               "--out", out) == 0
    x = np.stack([np.round(part, 3) for part in series[1:]], 1)[-30:].astype(np.float32)
    expected = fastrnn.diagnostics.gradient_flow(model, x)["0.l0"]
    written = json.loads(out.read_text())
    np.testing.assert_allclose(written["0.l0 dL/dh"], expected.hidden[:, 0], rtol=1e-12)
    np.testing.assert_allclose(written["0.l0 jacobian"], expected.jacobian[:, 0], rtol=1e-12)
    assert "0.l0" in capsys.readouterr().out


def test_gradients_of_a_layer_among_several(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    net = torch.nn.ModuleDict({"encoder": torch.nn.GRU(3, 4), "decoder": torch.nn.GRU(4, 4)})
    torch.save(net.state_dict(), tmp_path / "model.pt")
    with pytest.raises(SystemExit) as stop:
        run("gradients", tmp_path / "model.pt")
    assert stop.value.code == 2 and "encoder" in capsys.readouterr().err
    assert run("gradients", tmp_path / "model.pt", "--layer", "decoder", "--length", 5) == 0


# ---- Tables -------------------------------------------------------------------------------------

def test_a_table_is_read_as_it_is(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff# a comment\n\nname,"a ""b"", c"\n"x\ny", 1e3\n\nz,n/a\n'.encode())
    result = tables.read(path)
    assert result.columns == {"name": ["x\ny", "z"], 'a "b", c': [" 1e3", "n/a"]}
    assert result.lines == [5, 7]
    assert np.array_equal(result.numbers('a "b", c', "--x"), [1000, np.nan], equal_nan=True)
    assert result.numeric() == ['a "b", c']


def test_times_are_read_and_written_in_iso_8601(tmp_path):
    path = csv(tmp_path / "t.tsv", ["t\tv", "2024-01-31\t1", "2024-01-31T13:00\t2", "2024-01-31 13:00:00.5+02:00\t3"])
    times = tables.read(path).times("t", "--time")
    assert times.astype(str).tolist() == ["2024-01-31T00:00:00.000000", "2024-01-31T13:00:00.000000",
                                          "2024-01-31T11:00:00.500000"]
    assert tables.iso_times(times[:2]) == ["2024-01-31T00:00", "2024-01-31T13:00"]
    assert tables.iso_times(times[:1]) == ["2024-01-31"]


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_parquet(library, series, tmp_path, monkeypatch):
    frames = pytest.importorskip(library)
    pytest.importorskip("pyarrow")
    if library == "pandas":
        monkeypatch.setitem(sys.modules, "polars", None)
    times, load, temperature = series
    frame = frames.DataFrame({"time": times.astype("datetime64[us]"), "load": load.astype(np.float32),
                              "count": np.arange(STEPS), "temperature": temperature})
    path = tmp_path / "t.parquet"
    frame.write_parquet(path) if library == "polars" else frame.to_parquet(path)
    result = tables.read(path)
    assert np.array_equal(result.times("time", "--time"), times)
    assert np.array_equal(result.numbers("load", "--target"), load.astype(np.float32))
    numeric = ["load", "count", "temperature"]
    assert numeric in (result.numeric(), result.numeric(exclude=("time",)))
    assert run("detect", path, "--columns", "load", "temperature") == 0
    path.write_bytes(b"PAR1 and no more")
    assert run("detect", path) == 1


def test_parquet_without_a_library_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in ("polars", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    assert run("detect", tmp_path / "t.parquet") == 1
    assert "pip install polars" in capsys.readouterr().err


def test_what_is_written_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "t.csv"
    columns = {"when": np.array(["2024-01-01T05", "2024-01-01T06"], "datetime64[h]"), "a": np.float32([0.1, np.nan]),
               "b": np.array([1.5, 2]), "c": np.array(["x,y", ""])}
    tables.write(str(path), columns)
    assert path.read_text() == 'when,a,b,c\n2024-01-01T05:00,0.1,1.5,"x,y"\n2024-01-01T06:00,,2.0,\n'
    with pytest.raises(ValueError):
        tables.write(str(path), {"a": [1], "b": [1, 2]})
    assert path.read_text().startswith("when,") and os.listdir(tmp_path) == ["t.csv"]
    tables.write(str(tmp_path / "t.json"), columns)
    assert json.loads((tmp_path / "t.json").read_text())["a"] == [0.1, None]


# ---- Bad input ----------------------------------------------------------------------------------

GOOD = ["time,load,temperature"] + [f"2024-01-01T{h:02}:00,{h},{h * h % 7}" for h in range(24)]
BAD_TABLES = {
    "is empty": [""],
    "no rows": GOOD[:1],
    "numbers alone": ["1,2,3", "4,5,6"],
    "line 5 has 2 cells": [*GOOD[:4], "2024-01-01T03:00,5", *GOOD[4:]],
    "line 4, column 'load': expected a number, got 'high'": [*GOOD[:3], "2024-01-01T03:00,high,3", *GOOD[4:]],
    "expected a number within 1e+30, got 'inf'": [*GOOD[:3], "2024-01-01T03:00,inf,3", *GOOD[4:]],
    "expected a number within 1e+30, got '-2e30'": [*GOOD[:3], "2024-01-01T03:00,-2e30,3", *GOOD[4:]],
    "has 'load' twice": ["time,load,load", *GOOD[1:]],
    "column 2 of the header has no name": ["time,,load", *GOOD[1:]],
    "no column 'load', only": ["time,power", "2024-01-01,1"],
    "column 'load' has no value": [GOOD[0], *(f"2024-01-01T{h:02}:00,n/a,x" for h in range(24))],
    "line 3": [*GOOD[:2], '2024-01-01T03:00,"5"x,3'],
    "": [*GOOD[:2], "soon,5,3", *GOOD[3:]],                      # no time
}
CALLS = {
    "forecast": ["--target", "load", "--horizon", "3", "--time", "time", "--updates", "2"],
    "detect": ["--columns", "load", "--time", "time"],
    "train": ["--target", "load", "--columns", "load", "--epochs", "1"],
    "gradients": [],
}


@pytest.mark.parametrize("words", BAD_TABLES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_table_is_one_line(command, words, tmp_path, capsys):
    path = csv(tmp_path / "bad.csv", BAD_TABLES[words])
    arguments = ["--data", path, "--columns", "load", "--length", "2"] if command == "gradients" else [path]
    if words == "" and command in ("train", "gradients"):
        pytest.skip("reads no times")
    assert run(command, *arguments, *CALLS[command]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith(f"python -m fastrnn {command}: ")
    assert words in err and "bad.csv" in err
    assert "expected a time" in err or words


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name, words", [("nowhere.csv", "No such file"), ("folder.csv", "folder.csv"),
                                         ("table.docx", "expected a name that ends in"), ("latin.csv", "no UTF-8")])
def test_a_file_that_is_none_is_one_line(command, name, words, tmp_path, capsys):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "table.docx").write_bytes(b"PK")
    (tmp_path / "latin.csv").write_bytes("load\n1°\n".encode("latin-1"))
    path = tmp_path / name
    assert run(command, *(["--data", path] if command == "gradients" else [path]), *CALLS[command]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and words in err


@pytest.mark.parametrize("arguments, words", [
    (["forecast", "{}", "--target", "load", "--horizon", "12", "--held-out", "24"], "too few"),
    (["forecast", "{}", "--target", "load", "--horizon", "2", "--log"], "log"),
    (["forecast", "{}", "--target", "load", "--horizon", "2", "--known", "temperature"], "--known"),
    (["forecast", "{}", "--target", "load", "--horizon", "2", "--out", "out.xlsx"], "--out"),
    (["detect", "{}", "--fit", "24"], "--fit"),
    (["detect", "{}", "--plot", "plot.csv"], "--plot"),
    (["train", "{}", "--target", "load", "--ahead", "20"], "too few"),
    (["train", "{}", "--target", "load", "--batch-size", "2", "--columns", "far"], "too far apart"),
    (["train", "{}", "--target", "load", "--out", "model.pt"], "--out"),
    (["gradients", "--data", "{}", "--length", "100"], "--length"),
    (["gradients", "{}"], "{}"),
])
def test_what_cannot_be_done_is_one_line(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = csv(tmp_path / "good.csv", [GOOD[0] + ",far", *(f"{line},{1e-20 * (i < 20) * i + (i == 20)}"
                                                           for i, line in enumerate(GOOD[1:]))])
    assert run(*(part.format(path) for part in arguments)) == 1
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("python -m fastrnn")]
    assert len(lines) == 1 and words.format(path) in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments, words", [
    (["forecast"], "FILE"),
    (["forecast", "x.csv", "--target", "load"], "--horizon"),
    (["forecast", "x.csv", "--target", "load", "--horizon", "0"], "--horizon"),
    (["forecast", "x.csv", "--target", "a", "b", "--series", "c", "--horizon", "1"], "--target"),
    (["forecast", "x.csv", "--target", "a", "--horizon", "1", "--time-features", "day"], "--time"),
    (["forecast", "x.csv", "--target", "a", "--horizon", "1", "--held-out", "-1"], "--held-out"),
    (["forecast", "x.csv", "--target", "a", "--horizon", "1", "--quantiles", "1.5"], "--quantiles"),
    (["forecast", "x.csv", "--target", "a", "--horizon", "1", "--decimal", ";"], "--decimal"),
    (["forecast", "x.csv", "--target", "a", "--horizon", "1", "--thousands", "point"], "--thousands"),
    (["detect", "x.csv", "--delimiter", ",,"], "--delimiter"),
    (["detect", "x.csv", "--delimiter", ",", "--decimal", "comma"], "--decimal"),
    (["detect", "x.csv", "--encoding", "utf-9"], "--encoding"),
    (["detect", "x.csv", "--date-format", "days"], "--date-format"),
    (["detect", "x.csv", "--forgetting", "0"], "--forgetting"),
    (["detect", "x.csv", "--threshold", "0"], "--threshold"),
    (["detect", "x.csv", "--threshold", "2"], "--threshold"),
    (["detect", "x.csv", "--cell", "transformer"], "--cell"),
    (["detect", "x.csv", "--margin", "nan"], "--margin"),
    (["detect", "x.csv", "--join", "0"], "--join"),
    (["train", "x.csv"], "--target"),
    (["train", "x.csv", "--target", "a", "--learning-rate", "inf"], "--learning-rate"),
    (["gradients", "--forget-bias", "nan"], "--forget-bias"),
    (["gradients", "--cell", "transformer"], "--cell"),
])
def test_wrong_arguments_exit_2_with_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    out = capsys.readouterr().out
    assert stop.value.code == 0 and f"examples:\n  python -m fastrnn {command} " in out


@pytest.mark.parametrize("arguments", [
    ["forecast", "{}", "--target", "load", "--horizon", "2"], ["detect", "{}"], ["train", "{}", "--target", "load"],
    ["gradients"]])
def test_without_matplotlib_a_plot_is_refused_before_the_work(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = csv(tmp_path / "good.csv", GOOD)
    assert run(*(part.format(path) for part in arguments), "--plot", tmp_path / "p.png") == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "fastrnn[plot]" in err


def test_without_tqdm_progress_is_plain_lines(table, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run("train", table, "--target", "load", "--epochs", 3, "--hidden-size", 4) == 0
    out, err = capsys.readouterr()
    assert "epoch 3 of 3" in err and "epoch 3 of 3" not in out


# ---- Values of flags, and what interrupts a command -------------------------------------------------

@pytest.mark.parametrize("flag, value, words", [
    ("--weight-decay", "-1", "expected a finite number of at least 0, got '-1'"),
    ("--weight-decay", "inf", "expected a finite number of at least 0, got 'inf'"),
    ("--weight-decay", "much", "expected a number, got 'much'"),
    ("--dropout", "1", "expected a number of at least 0 and below 1, got '1'"),
    ("--seasons", "1", "expected a whole number of at least 2, or none, got '1'"),
])
def test_values_that_a_flag_does_not_take(flag, value, words, table, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("forecast", table, flag, value)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert words in error and flag in error and error.count("\n") == 1


def test_names_that_look_like_flags_follow_two_dashes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fastrnn.GRU(2, 3, rng=0).save("--model.npz")
    assert run("inspect", "--", "--model.npz") == 0
    assert "GRU" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("inspect", "--model.npz")
    assert "there is no option --model.npz" in capsys.readouterr().err


@pytest.mark.parametrize("raised, status, words", [
    (KeyboardInterrupt, 130, "Interrupted."),
    (MemoryError, 1, "there is not enough memory for this"),
])
def test_what_ends_a_command_from_without_is_one_line(raised, status, words, table, monkeypatch, capsys):
    def ends(*_):
        raise raised
    monkeypatch.setattr(tables, "read", ends)
    assert run("forecast", table, "--horizon", 3) == status
    error = capsys.readouterr().err
    assert error.strip().split("\n")[-1].endswith(words) and "Traceback" not in error


def test_more_series_than_are_printed_are_counted(tmp_path, capsys):
    lines = [f"s{n:02d},2024-03-01T{t:02d}:00,{t % 5 + n}" for n in range(30) for t in range(24)]
    path = csv(tmp_path / "many.csv", ["shop,time,value", *lines])
    out = tmp_path / "scores.csv"
    assert run("detect", path, "--series", "shop", "--time", "time", "--out", out) == 0
    text = capsys.readouterr().out
    count = int(text.split(" more series; --out writes them all")[0].split("and ")[-1])
    assert 0 < count < 30
    assert len(set(columns(out)["shop"])) == 30


def test_an_unfitted_detector_is_refused_by_its_file(table, tmp_path, capsys):
    from fastrnn.anomaly import RNNAnomalyDetector
    RNNAnomalyDetector(random_state=0).save(tmp_path / "empty.npz")
    assert run("detect", table, "--model", tmp_path / "empty.npz", "--time", "time") == 1
    assert "this detector was saved before it had learnt anything" in capsys.readouterr().err


def test_a_detector_of_other_columns_is_refused_by_its_file(table, tmp_path, capsys):
    from fastrnn.anomaly import RNNAnomalyDetector
    RNNAnomalyDetector(hidden_size=4, random_state=0).fit(np.random.default_rng(0).standard_normal((60, 3))).save(
        tmp_path / "three.npz")
    assert run("detect", table, "--model", tmp_path / "three.npz", "--time", "time") == 1
    error = capsys.readouterr().err
    assert "three.npz: the detector has learnt 3 columns" in error
    assert "has 2 of numbers: 'load', 'temperature'" in error
