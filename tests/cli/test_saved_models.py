"""fit and predict, detect with --save and --model, events, intervals, series one below the other: through files."""

import csv
import io
import json

import numpy as np
import pytest

from fastrnn import cli
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.cli import tables
from fastrnn.forecasting import RNNForecaster

STEPS = 120
SMALL = ("--updates", "20", "--hidden-size", "4", "--random-state", "1")


def run(*arguments):
    return cli.main(list(map(str, arguments)))


def columns(text):
    """The columns of a CSV text."""
    header, *rows = csv.reader(io.StringIO(text))
    return {name: [row[n] for row in rows] for n, name in enumerate(header)}


@pytest.fixture(scope="module")
def values():
    t = np.arange(STEPS)
    return np.round(50 + 10 * np.sin(2 * np.pi * t / 24) + np.random.default_rng(0).standard_normal(STEPS), 3)


@pytest.fixture
def table(values, tmp_path):
    """Hourly values as a German spreadsheet writes them."""
    times = np.datetime64("2024-03-01T00:00") + np.arange(STEPS) * np.timedelta64(1, "h")
    lines = ["Nr;Zeit;Last", *(f"{n};{time:%d.%m.%Y %H:%M};{str(value).replace('.', ',')}" for n, (time, value) in
                               enumerate(zip(times.tolist(), values.tolist(), strict=True), 1))]
    path = tmp_path / "load.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


# ---- fit and predict ------------------------------------------------------------------------------

def test_fit_and_predict_make_what_forecast_makes(table, tmp_path, capsys):
    options = ("--time", "Zeit", "--horizon", 3, "--seasons", 24, *SMALL)
    assert run("forecast", table, *options, "--out", "-") == 0
    expected, err = capsys.readouterr()
    assert "column 'Nr' is left out" in err and "decimal comma" in err and "read as %d.%m.%Y %H:%M" in err
    assert list(columns(expected)) == ["Zeit", "Last", "Last_q0.1", "Last_q0.9"]
    assert columns(expected)["Zeit"] == ["06.03.2024 00:00", "06.03.2024 01:00", "06.03.2024 02:00"]
    model = tmp_path / "models" / "load.npz"
    assert run("fit", table, *options, "--out", model) == 0
    printed = capsys.readouterr().out
    assert "naive" in printed and f"forecaster: {model}" in printed
    for source in ((), (table,)):
        assert run("predict", model, *source, "--out", "-") == 0
        assert capsys.readouterr().out == expected


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("held_out", [3, 10, None])
def test_what_is_held_out_is_not_trained_on(table, values, held_out, timed, tmp_path, monkeypatch, capsys):
    fit, trained = RNNForecaster.fit, []

    def spy(self, *args, **options):
        fit(self, *args, **options)
        trained.append([each.y for each in self.panel_.series])
        return self
    monkeypatch.setattr(RNNForecaster, "fit", spy)
    options = () if held_out is None else ("--held-out", held_out)
    assert run("fit", table, *("--time", "Zeit") * timed, "--target", "Last", "--horizon", 3, *options, *SMALL, "--out",
               tmp_path / "m.npz") == 0
    (series,), = trained
    np.testing.assert_array_equal(series, values[:-(held_out or 6)])


def test_what_fit_saves_is_a_forecaster_for_python(table, tmp_path, capsys):
    assert run("fit", table, "--time", "Zeit", "--horizon", 3, *SMALL, "--quantiles", "--out", tmp_path / "m.npz") == 0
    assert run("predict", tmp_path / "m.npz", "--out", tmp_path / "f.jsonl") == 0
    model = RNNForecaster.load(tmp_path / "m.npz")
    written = [json.loads(line)["Last"] for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(model.predict()[0], written)


def test_predict_goes_on_from_a_later_table(table, values, tmp_path, capsys):
    lines = table.read_text().splitlines()
    (tmp_path / "early.csv").write_text("\n".join(lines[:101]))
    model = tmp_path / "m.npz"
    assert run("fit", tmp_path / "early.csv", "--target", "Last", "--time", "Zeit", "--horizon", 3, *SMALL,
               "--quantiles", "--out", model) == 0
    capsys.readouterr()
    assert run("predict", model, table, "--horizon", 5, "--out", "-") == 0       # further than it was fitted for
    written = columns(capsys.readouterr().out)
    assert written["Zeit"][0] == "06.03.2024 00:00" and len(written["Last"]) == 5
    expected = RNNForecaster.load(model).apply(None, [values]).predict(5)[0]
    np.testing.assert_allclose([float(value) for value in written["Last"]], expected, rtol=1e-6)


def test_bounds_of_a_blend_go_past_its_horizon(table, tmp_path, capsys):
    model = tmp_path / "m.npz"
    assert run("fit", table, "--time", "Zeit", "--horizon", 3, "--blend", "naive", "--out", model) == 0
    capsys.readouterr()
    assert run("predict", model, "--horizon", 5, "--out", "-") == 0
    assert list(columns(capsys.readouterr().out)) == ["Zeit", "Last", "Last_q0.1", "Last_q0.9"]


def test_a_forecaster_that_python_saved(values, tmp_path, capsys):
    model = RNNForecaster(3, 24, updates=5, hidden_size=4, random_state=0).fit(values)
    model.save(tmp_path / "m.npz")
    assert run("predict", tmp_path / "m.npz", "--out", "-") == 0
    written = columns(capsys.readouterr().out)
    assert written["step"] == ["121", "122", "123"]
    np.testing.assert_allclose([float(value) for value in written["forecast"]], model.predict(), rtol=1e-6)


def test_known_columns_come_with_the_table(values, tmp_path, capsys):
    lines = ["sales,open", *(f"{value},{n % 7 != 6:d}" for n, value in enumerate(values))]
    path, later = tmp_path / "t.csv", tmp_path / "later.csv"
    path.write_text("\n".join(lines))
    later.write_text("\n".join([*lines, ",1", ",0"]))
    model = tmp_path / "m.npz"
    assert run("fit", path, "--target", "sales", "--known", "open", "--horizon", 2, *SMALL, "--out", model) == 0
    capsys.readouterr()
    assert run("predict", model, later, "--out", "-") == 0
    assert columns(capsys.readouterr().out)["step"] == ["121", "122"]
    assert run("predict", model, path) == 1
    assert "0 rows after its last value" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        run("predict", model)
    assert stop.value.code == 2 and "argument FILE: " in capsys.readouterr().err


def test_an_interval(table, tmp_path, capsys):
    options = ("--target", "Last", "--horizon", 3, *SMALL, "--interval", "0.9")
    assert run("forecast", table, *options, "--out", "-") == 0
    expected = capsys.readouterr().out
    written = {name: np.array(cells, float) for name, cells in columns(expected).items()}
    assert list(written) == ["step", "Last", "Last_lower", "Last_upper"]
    assert (written["Last_lower"] < written["Last"]).all() and (written["Last"] < written["Last_upper"]).all()
    assert run("fit", table, *options, "--out", tmp_path / "m.npz") == 0
    capsys.readouterr()
    assert run("predict", tmp_path / "m.npz", "--interval", "0.9", "--out", "-", "--plot", tmp_path / "p.png") == 0
    assert capsys.readouterr().out == expected
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_series_one_below_the_other_in_any_order(values, tmp_path, capsys):
    lines = [f"{np.datetime64('2024-01-01') + n},{name},{scale * value:.3f}"
             for n, value in enumerate(values) for name, scale in (("b", 1), ("a", 100))]
    lines = np.random.default_rng(0).permutation(lines).tolist()
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["day,shop,sales", *lines]))
    assert run("forecast", path, "--time", "day", "--series", "shop", "--horizon", 2, *SMALL, "--out", "-") == 0
    written = columns(capsys.readouterr().out)
    assert written["day"] == ["2024-04-30", "2024-05-01"] * 2
    level = dict(zip(written["shop"], map(float, written["sales"]), strict=True))
    assert 20 < level["b"] < 80 and 2000 < level["a"] < 8000


def test_columns_that_do_not_change_within_a_series(values, tmp_path, capsys):
    lines = [f"{shop},{region},{size},{scale * value:.3f}" for value in values
             for shop, region, size, scale in (("a", "north", 3, 1), ("b", "south", 5, 2), ("c", "north", 4, 3))]
    path, model = tmp_path / "t.csv", tmp_path / "m.npz"
    path.write_text("\n".join(["shop,region,size,sales", *lines]))
    options = ("--series", "shop", "--static", "region", "size", "--horizon", 2, *SMALL)
    assert run("forecast", path, *options, "--out", "-") == 0
    expected = capsys.readouterr().out
    assert list(columns(expected))[:3] == ["shop", "step", "sales"]
    assert run("fit", path, *options, "--out", model) == 0
    capsys.readouterr()
    assert run("predict", model, path, "--out", "-") == 0
    assert capsys.readouterr().out == expected
    path.write_text("\n".join(["shop,region,size,sales", *lines, "a,south,3,1"]))
    assert run("forecast", path, *options) == 1
    assert "line 362, column 'region': expected 'north'" in capsys.readouterr().err


def test_irregular_times_are_resampled_where_that_is_asked_for(values, tmp_path, capsys):
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.choice(3600 * STEPS, 6 * STEPS, replace=False))
    lines = [f"{np.datetime64('2024-03-01T00:00:00') + second}Z,{values[second // 3600]}" for second in
             seconds.tolist()]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["time,v", *lines, lines[-1]]))           # the last row twice
    options = ("forecast", path, "--time", "time", "--horizon", 2, *SMALL, "--quantiles", "--out", "-")
    assert run(*options) == 1
    assert "have the same time" in capsys.readouterr().err
    path.write_text("\n".join(["time,v", *lines]))
    assert run(*options) == 1
    assert "(--resample does it)" in capsys.readouterr().err
    path.write_text("\n".join(["time,v", *lines, lines[-1]]))
    assert run(*options, "--resample", "1h") == 0
    out, err = capsys.readouterr()
    assert columns(out)["time"] == ["2024-03-06T00:00:00Z", "2024-03-06T01:00:00Z"]
    assert "The last 4 steps of 1 series" in err and 20 < float(columns(out)["v"][0]) < 80
    assert run(*options, "--resample", "1h", "sum", "--held-out", "0") == 0
    assert float(columns(capsys.readouterr().out)["v"][0]) > 100        # six rows an hour


def test_business_days(values, tmp_path, capsys):
    days = np.busday_offset("2024-01-01", np.arange(STEPS), roll="forward")
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["day,v", *(f"{day},{value}" for day, value in zip(days, values, strict=True))]))
    assert run("forecast", path, "--time", "day", "--horizon", 2, *SMALL, "--freq", "B", "--out", "-") == 0
    following = np.busday_offset(days[-1], [1, 2])
    assert columns(capsys.readouterr().out)["day"] == list(map(str, following))


def test_months_with_an_offset(values, tmp_path, capsys):
    months = np.datetime64("2014-01", "M") + np.arange(STEPS)
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["m,v", *(f"{month}-01T00:00+01:00,{value}"
                                        for month, value in zip(months, values, strict=True))]))
    assert run("forecast", path, "--time", "m", "--horizon", 2, *SMALL, "--out", "-") == 0
    assert columns(capsys.readouterr().out)["m"] == ["2024-01-01T00:00+01:00", "2024-02-01T00:00+01:00"]


@pytest.mark.parametrize("name, data", [("m.npz", b"none"), ("m.npz", b""), ("m.bin", b"none"), ("n.npz", None)])
def test_a_model_file_that_is_none_is_one_line(name, data, tmp_path, capsys):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    (tmp_path / "t.csv").write_text("v\n1\n2\n")
    for arguments in (("predict", tmp_path / name), ("detect", tmp_path / "t.csv", "--model", tmp_path / name)):
        assert run(*arguments) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.startswith(f"python -m fastrnn {arguments[0]}: ")


def test_files_of_the_other_kind(values, tmp_path, capsys):
    RNNForecaster(3, 24, updates=5, hidden_size=4, random_state=0).fit(values).save(tmp_path / "forecaster.npz")
    RNNAnomalyDetector(random_state=0).fit(values[:, None]).save(tmp_path / "detector.npz")
    RNNForecaster().save(tmp_path / "unfitted.npz")
    (tmp_path / "t.csv").write_text("v\n1\n2\n")
    for arguments, words in ((("predict", tmp_path / "detector.npz"), "RNNForecaster"),
                             (("predict", tmp_path / "unfitted.npz"), "before it was fitted"),
                             (("detect", tmp_path / "t.csv", "--model", tmp_path / "forecaster.npz"), "Detector")):
        assert run(*arguments) == 1
        assert words in capsys.readouterr().err


# ---- detect ---------------------------------------------------------------------------------------

@pytest.fixture
def machine(tmp_path):
    """A table whose second channel jumps in rows 700 to 703."""
    rng, t = np.random.default_rng(0), np.arange(900)
    rows = np.stack([np.sin(t / 8), np.cos(t / 8)], 1) + 0.05 * rng.standard_normal((900, 2))
    rows[700:704, 1] += 6
    lines = [f"{np.datetime64('2024-03-01T00:00') + n}Z,{a:.4f},{b:.4f}" for n, (a, b) in enumerate(rows.tolist())]
    path = tmp_path / "machine.csv"
    path.write_text("\n".join(["time,first,second", *lines]))
    return path


def test_events(machine, tmp_path, capsys):
    assert run("detect", machine, "--time", "time", "--events") == 0
    out, err = capsys.readouterr()
    events = columns(out)
    assert list(events) == ["begin", "end", "peak", "score", "column", "rows"]
    begins = events["begin"]
    at = [n for n, begin in enumerate(begins) if "11:39" <= begin[11:16] <= "11:44"]
    assert len(at) == 1
    (event,) = at
    assert begins[event] <= events["peak"][event] <= events["end"][event] and events["column"][event] == "second"
    assert 5 / 6 < float(events["score"][event]) <= 1 and int(events["rows"][event]) >= 1
    assert all(begin.endswith("Z") for begin in begins)
    assert f"in {len(begins)} places" in err
    assert run("detect", machine, "--time", "time", "--out", tmp_path / "rows.csv") == 0
    rows = columns((tmp_path / "rows.csv").read_text())
    assert sum(map(int, rows["anomaly"])) == sum(map(int, events["rows"]))


def test_no_event_is_a_header(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("v\n1\n2\n3\n")
    assert run("detect", tmp_path / "t.csv", "--events", "--series", "v") == 1         # v is all there is
    capsys.readouterr()
    (tmp_path / "t.csv").write_text("s,v\na,1\na,3\nb,2\n")
    assert run("detect", tmp_path / "t.csv", "--events", "--series", "s") == 0
    assert capsys.readouterr().out == "s,begin,end,peak,score,column,rows\n"


def test_a_saved_detector_goes_on(machine, tmp_path, capsys):
    lines = machine.read_text().splitlines()
    early, late, model = tmp_path / "early.csv", tmp_path / "late.csv", tmp_path / "m.npz"
    early.write_text("\n".join(lines[:601]))
    late.write_text("\n".join([lines[0].replace("first,", "other,first,"),
                               *(line.replace("Z,", f"Z,{n % 5},") for n, line in enumerate(lines[601:]))]))
    assert run("detect", machine, "--time", "time", "--out", tmp_path / "whole.csv") == 0
    assert run("detect", early, "--time", "time", "--save", model) == 0
    assert f"detector: {model}" in capsys.readouterr().out
    assert run("detect", late, "--time", "time", "--model", model, "--save", model, "--out", "-") == 0
    scores = columns(capsys.readouterr().out)["score"]
    assert scores == columns((tmp_path / "whole.csv").read_text())["score"][600:]
    assert RNNAnomalyDetector.load(model).n_features_in_ == 2
    assert run("detect", late.with_name("t.csv"), "--model", model) == 1
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    assert run("detect", tmp_path / "t.csv", "--model", model) == 1
    assert "no column 'first'" in capsys.readouterr().err


def test_rows_of_a_step_are_joined_before_they_are_scored(machine, capsys):
    for function, at in ((), 3), (("max",), 3):
        assert run("detect", machine, "--time", "time", "--resample", "10min", *function, "--out", "-") == 0
        written = columns(capsys.readouterr().out)
        assert written["time"][:2] == ["2024-03-01T00:00Z", "2024-03-01T00:10Z"] and len(written["time"]) == 90
        assert len(written) == at + 1
    assert run("detect", machine, "--time", "time", "--resample", "soon") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--resample" in err and "'soon'" in err


def test_a_saved_detector_is_told_times_if_it_was_before(machine, tmp_path, capsys):
    assert run("detect", machine, "--save", tmp_path / "plain.npz") == 0
    assert run("detect", machine, "--time", "time", "--save", tmp_path / "timed.npz") == 0
    assert run("detect", machine, "--time", "time", "--model", tmp_path / "plain.npz") == 0     # they name rows only
    capsys.readouterr()
    assert run("detect", machine, "--model", tmp_path / "timed.npz") == 1
    assert "--time names their column" in capsys.readouterr().err


def test_options_of_the_detector_are_heard(machine, tmp_path, capsys):
    """Each changes the scores."""
    scores = set()
    for option in ((), ("--lags", 3), ("--memory", 200), ("--forgetting", 0.98), ("--rules", "error"), ("--fit", 100),
                   ("--fit", 100, "--adapt", 0), ("--time-features", "none"), ("--refractory", 50), ("--cell", "RNN"),
                   ("--hidden-size", 8), ("--num-layers", 2), ("--random-state", 1), ("--margin", "inf"),
                   ("--fit", 100, "--updates", 3), ("--fit", 100, "--learning-rate", 0.1)):
        assert run("detect", machine, "--time", "time", *option, "--out", "-") == 0
        scores.add(tuple(columns(capsys.readouterr().out)["score"]))
    assert len(scores) == 16


def test_series_have_detectors_of_their_own(machine, tmp_path, capsys):
    header, *lines = machine.read_text().splitlines()
    both = [f"{line},{name}" for line in lines for name in "ab"]
    (tmp_path / "both.csv").write_text("\n".join([f"{header},s", *both]))
    assert run("detect", machine, "--time", "time", "--out", "-") == 0
    alone = columns(capsys.readouterr().out)
    assert run("detect", tmp_path / "both.csv", "--time", "time", "--series", "s", "--out", "-") == 0
    written = columns(capsys.readouterr().out)
    assert written["s"] == ["a"] * 900 + ["b"] * 900
    assert written["score"] == alone["score"] * 2 and written["time"] == alone["time"] * 2


@pytest.mark.parametrize("arguments, words", [
    (["fit", "x.csv", "--horizon", "2"], "--out"),
    (["fit", "x.csv", "--horizon", "2", "--out", "m.npz", "--resample", "1h"], "--resample: needs --time"),
    (["fit", "x.csv", "--horizon", "2", "--out", "m.npz", "--freq", "B"], "--freq: needs --time"),
    (["fit", "x.csv", "--horizon", "2", "--out", "m.npz", "--dropout", "0.1"], "--dropout"),
    (["fit", "x.csv", "--horizon", "2", "--out", "m.npz", "--learning-rate", "0"], "--learning-rate"),
    (["fit", "x.csv", "--horizon", "2", "--out", "m.npz", "--time", "t", "--known", "k", "--resample", "1h"],
     "--resample"),
    (["fit", "x.csv", "--horizon", "2", "--out", "m.npz", "--static", "s"], "--static: needs --series"),
    (["predict"], "MODEL"),
    (["predict", "m.npz", "--interval", "1.5"], "--interval"),
    (["predict", "m.npz", "--horizon", "0"], "--horizon"),
    (["predict", "m.npz", "--horizn", "3"], "did you mean --horizon?"),
    (["detect", "x.csv", "--model", "m.npz", "--memory=9"], "--memory"),
    (["detect", "x.csv", "--series", "s", "--save", "m.npz"], "--save"),
    (["detect", "x.csv", "--resample", "1h"], "--resample: needs --time"),
    (["detect", "x.csv", "--time", "a", "b", "c"], "--time"),
    (["detect", "x.csv", "--adapt", "2"], "--adapt"),
    (["detect", "x.csv", "--rules", "none"], "--rules"),
    (["detect", "x.csv", "--time", "t", "--resample", "1h", "sum", "mean"], "--resample"),
    (["predikt"], "did you mean predict?"),
])
def test_wrong_arguments_exit_2_with_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_the_words_of_a_table_are_not_taken_on_trust(values, tmp_path, capsys):
    """The file of a forecaster says what its table was; nonsense there is refused."""
    model = RNNForecaster(3, 24, updates=5, hidden_size=4, random_state=0).fit(values)
    for kept in ({"roles": 1}, {}, {"roles": {"target": ("v",)}, "names": ["v"], "style": {}, "dialect": {"eval": 1}}):
        model.table_ = kept
        model.save(tmp_path / "m.npz")
        assert run("predict", tmp_path / "m.npz") == 1
        assert "is broken" in capsys.readouterr().err


def test_tables_are_read_in_the_dialect_of_the_first(tmp_path, values, capsys):
    lines = ["v;w", *(f"{value}".replace(".", ",") + ";1,5" for value in values.tolist())]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-16-le")
    options = ("--encoding", "utf-16-le", "--decimal", "comma", "--missing", "1,5")
    assert run("fit", tmp_path / "t.csv", "--target", "v", "--horizon", 2, *SMALL, *options,
               "--out", tmp_path / "m.npz") == 0
    assert run("predict", tmp_path / "m.npz", tmp_path / "t.csv") == 0
    dialect = tables.Dialect(encoding="utf-16-le", decimal=",")
    assert tables.read(tmp_path / "t.csv", dialect).numbers("w", "").max() == 1.5


def test_what_the_estimator_warns_of_is_a_note_that_names_the_series(values, tmp_path, capsys):
    lines = ["time,load", *(f"{np.datetime64('2024-03-01T00:00') + n},{1e9 if n == 50 else value}"
                            for n, value in enumerate(values))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert run("forecast", tmp_path / "t.csv", "--time", "time", "--horizon", 2, *SMALL, "--out", "-") == 0
    out, err = capsys.readouterr()
    notes = [line for line in err.splitlines() if "note: " in line]
    assert len([note for note in notes if "series 'load': the value 1e+09" in note]) == 1, err
    assert ".py" not in err and all(20 < float(value) < 80 for value in columns(out)["load"])


def test_what_is_not_said_is_found_and_said(values, table, capsys):
    assert run("forecast", table, "--target", "Last", "--horizon", 3, *SMALL, "--out", "-") == 0
    assert "seasons: 24" in capsys.readouterr().err
    assert run("forecast", table, "--target", "Last", "--horizon", 3, *SMALL, "--seasons", "none", "--blend", "naive",
               "--out", "-") == 0
    out, err = capsys.readouterr()
    assert "seasons: none" in err
    np.testing.assert_allclose([float(value) for value in columns(out)["Last"]], values[-1])


def test_counts_are_forecast_at_0_or_above_unless_that_is_not_wanted(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "t.csv").write_text("\n".join(["sold", *map(str, rng.poisson(0.5, 200))]))
    lowest = {}
    for option in ((), ("--no-nonnegative",)):
        assert run("forecast", tmp_path / "t.csv", "--horizon", 4, *SMALL, "--interval", "0.95", *option,
                   "--out", "-") == 0
        lowest[option] = min(map(float, columns(capsys.readouterr().out)["sold_lower"]))
    assert lowest[()] == 0 > lowest["--no-nonnegative",]


# ---- Precision ------------------------------------------------------------------------------------

def test_forecasts_of_another_precision(table, tmp_path, capsys):
    """Of fit's file, of forecast, and of predict, which may say another one."""
    options = ("--time", "Zeit", "--horizon", 3, "--seasons", 24, "--blend", "none", *SMALL)
    model = tmp_path / "load.npz"
    assert run("fit", table, *options, "--precision", "int8", "--out", model) == 0
    assert RNNForecaster.load(model).precision == "int8"
    capsys.readouterr()
    texts = []
    for precision in ((), ("--precision", "int8"), ("--precision", "float32")):
        assert run("predict", model, *precision, "--out", "-") == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert run("forecast", table, *options, "--precision", "int8", "--out", "-") == 0
    assert capsys.readouterr().out == texts[0]
    with pytest.raises(SystemExit):
        run("predict", model, "--precision", "int4")
    assert "int4" in capsys.readouterr().err


def test_a_detector_of_another_precision(machine, tmp_path, capsys):
    model = tmp_path / "machine.npz"
    assert run("detect", machine, "--time", "time", "--precision", "int8", "--save", model) == 0
    assert RNNAnomalyDetector.load(model).model_.precision == "int8"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("detect", machine, "--time", "time", "--model", model, "--precision", "float32")
    assert "--precision: cannot be with --model" in capsys.readouterr().err
