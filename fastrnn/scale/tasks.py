"""What is computed of one partition: forecasts, scores, a backtest. A table of pyarrow comes in and goes out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..anomaly.likelihood import score_of
from ..forecasting import frames
from ..forecasting.preparation import read_panel
from ..forecasting.series import Layout, read_table
from .sources import arrow

if TYPE_CHECKING:
    from ..anomaly import RNNAnomalyDetector
    from ..forecasting import Backtest, RNNForecaster
    from ..forecasting.series import Panel, Table
    from .work import Columns


# ---- Forecasts ----------------------------------------------------------------------------------

def forecasts(model: RNNForecaster, table: Any, columns: Columns,
              options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The forecasts that follow the series of a table; a model that is not fitted is fitted to them first."""
    one, ahead = of_columns(model, columns), options["steps"]
    if one.known:
        table, ahead = _known_ahead(table, one, columns)
    one = one.apply(table) if one.__sklearn_is_fitted__() else one.fit(table)
    result = one.predict(ahead, quantiles=options["quantiles"], interval=options["interval"])
    if columns.time is None:
        series = result.column(columns.series)
        steps = np.tile(np.arange(1, 1 + len(series) // len(one.panel_.series)), len(one.panel_.series))
        result = result.add_column(1, "step", arrow().array(steps))
    return _in_columns(result, table, columns), {}


def of_columns(model: RNNForecaster, columns: Columns) -> RNNForecaster:
    """The forecaster, which takes frames with these columns."""
    model = copy.copy(model)
    model.target, model.series, model.time = columns.target[0], columns.series, columns.time
    return model


def _known_ahead(table: Any, model: RNNForecaster, columns: Columns) -> tuple[Any, Any]:
    """The rows up to the last value of each series, and those after it, whose known columns are the steps to come."""
    known = (model.known,) if isinstance(model.known, str) else tuple(model.known)
    if columns.time is None:
        raise ValueError("time: known columns of the steps to come need times")
    codes, labels = frames.label_column(frames.opened(table), columns.series)
    instants, _ = frames.time_column(frames.opened(table), columns.time)
    observed = ~np.isnan(frames.number_column(frames.opened(table), columns.target[0]))
    last = np.full(len(labels), np.datetime64(-2**62, "us"))
    np.maximum.at(last, codes[observed], instants[observed])
    ahead = instants > last[codes]
    if len(np.unique(codes[ahead])) < len(labels):
        name = labels[int(np.setdiff1d(np.arange(len(labels)), codes[ahead])[0])]
        raise ValueError(f"{', '.join(known)}: expected rows without a value of {columns.target[0]!r} at the end of "
                         f"each series, which say what is known of the steps to come; series {name!r} has none")
    mask = arrow().array(ahead)
    return table.filter(arrow().array(~ahead)), table.filter(mask)


def _in_columns(result: Any, table: Any, columns: Columns) -> Any:
    """The result with the names of series, and the times, of the types that the table has them in."""
    for name in filter(None, (columns.series, columns.time)):
        kind, at = table.schema.field(name).type, result.column_names.index(name)
        column = result.column(name)
        if column.type != kind:
            try:
                result = result.set_column(at, name, column.cast(kind))
            except (arrow().ArrowInvalid, arrow().ArrowNotImplementedError):
                pass                    # text that stood for a time
    return result


# ---- Scores -------------------------------------------------------------------------------------

def scores(detector: RNNAnomalyDetector, table: Any, columns: Columns,
           options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The score of every row, each series with a detector of its own that goes on from the one given."""
    fitted = detector.__sklearn_is_fitted__()
    timed = bool(detector.time_features) and columns.time is not None
    if fitted:
        state = detector._state
        timed = timed and state is not None and state.clock is not None
    layout = Layout(target=columns.target, time=columns.time, series=columns.series)
    rows = read_table(table, layout, list(columns.target))
    values, digits = rows.stacked(columns.target), np.empty(int(rows.starts[-1]))
    times, names = _times(rows), list(columns.target)
    for n in range(len(rows.labels)):
        own = slice(int(rows.starts[n]), int(rows.starts[n + 1]))
        when = np.array(times[own].to_pylist(), object) if timed else None
        digits[own] = _digits(detector, values[own], when, names, fitted)
    result = {columns.series: _repeated(rows, table, columns)}
    if times is not None:
        result[str(columns.time)] = times
    offset = detector.offset_ if fitted else options["offset"]
    result |= {"score": arrow().array([score_of(digit) for digit in digits.tolist()], arrow().float64()),
               "outlier": arrow().array(-digits < offset)}
    return _in_columns(arrow().table(result), table, columns), {"outliers": int((-digits < offset).sum())}


def _digits(detector: RNNAnomalyDetector, values: Any, times: Any, names: list[str], fitted: bool) -> Any:
    """-log10 p of every row of a series."""
    if not fitted:
        detector = copy.copy(detector)
        detector._begin(values.shape[1], None, times=detector._moments(values, times, len(values)))
    elif values.shape[1] != detector.n_features_in_:
        raise ValueError(f"target: expected the {detector.n_features_in_} columns that the detector was fitted with, "
                         f"got {', '.join(names)}")
    elif "feature_names_in_" in vars(detector):
        detector._check_names(names)
        detector = copy.copy(detector)
        del detector.feature_names_in_              # for rows without names of columns
    return -detector.score_samples(values, times=times)


def _times(rows: Table) -> Any:
    """The times of all rows in the order of series and times, as the table had them; None where it has none."""
    if rows.instants is None or rows.layout.times is None:
        return None
    times = frames.times_out(rows.instants, rows.layout.times, "pyarrow")
    return frames.narwhals().from_native(times, series_only=True).to_arrow()


def _repeated(rows: Table, table: Any, columns: Columns) -> Any:
    """The name of its series for each row."""
    kind = table.schema.field(columns.series).type
    labels = arrow().array(rows.labels, kind.value_type if hasattr(kind, "value_type") else kind)
    return labels.take(arrow().array(np.repeat(np.arange(len(rows.labels)), np.diff(rows.starts))))


# ---- Backtests ----------------------------------------------------------------------------------

def backtests(model: RNNForecaster, table: Any, columns: Columns,
              options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Forecasts of the past beside what came, a row for each step of each forecast, and the sums of their errors."""
    one = of_columns(model, columns)
    test = one.backtest(table, start=options["start"], stride=options["stride"], refit=options["refit"])
    panel = read_panel(one, table, None, None, None, like=vars(one).get("panel_"))
    return _in_columns(_rows_of(test, panel, table, columns), table, columns), {"errors": _errors(test)}


def _rows_of(test: Backtest, panel: Panel, table: Any, columns: Columns) -> Any:
    """The table of a backtest."""
    pa, (count, H) = arrow(), test.truth.shape
    kind = table.schema.field(columns.series).type
    names = pa.array([str(each) if isinstance(each, str) else each for each in test.names],
                     kind.value_type if hasattr(kind, "value_type") else kind)
    result: dict[str, Any] = {columns.series: names.take(pa.array(np.repeat(test.series, H)))}
    ahead = np.arange(H)
    if columns.time is not None and panel.layout is not None and panel.layout.times is not None:
        clocks: Any = test.clocks
        instants = np.empty((count, H + 1), "datetime64[us]")
        for n, clock in enumerate(clocks):
            own = np.flatnonzero(test.series == n)
            instants[own] = clock.at((test.origins[own][:, None] + np.arange(-1, H)).ravel()).reshape(-1, H + 1)
        times = [frames.narwhals().from_native(frames.times_out(part.ravel(), panel.layout.times, "pyarrow"),
                                               series_only=True).to_arrow()
                 for part in (instants[:, 1:], np.repeat(instants[:, :1], H, 1))]
        result |= {columns.time: times[0], "cutoff": times[1]}
    else:
        result["cutoff"] = pa.array(np.repeat(test.origins, H))
    result["step"] = pa.array(np.tile(ahead + 1, count))
    result[columns.target[0]] = _numbers(test.truth)
    result["forecast"] = _numbers(test.forecasts)
    for q, level in enumerate(test.quantiles):
        if level != 0.5:
            result[f"forecast_q{level:g}"] = _numbers(cast(Any, test.quantile_forecasts)[..., q])
    return pa.table(result | {name: _numbers(values) for name, values in test.others.items()})


def _numbers(values: Any) -> Any:
    """Values as a column, null where one is missing."""
    flat = np.ascontiguousarray(values, np.float64).ravel()
    return arrow().array(flat, from_pandas=True)


def _errors(test: Backtest) -> dict[str, dict[str, str]]:
    """For each kind of forecast the sums of its errors over all that came, as text that keeps every bit."""
    observed, result = ~np.isnan(test.truth), {}
    scales = np.broadcast_to(test.scales[test.series, None], observed.shape)
    scaled = observed & (scales > 0)
    for name, values in {"forecast": test.forecasts, **test.others}.items():
        error = np.abs(values - test.truth)
        size = np.abs(values) + np.abs(test.truth)
        relative = 200 * error / np.where(size > 0, size, 1)
        sums = {"count": observed.sum(), "absolute": error[observed].sum(), "square": (error[observed] ** 2).sum(),
                "relative": relative[observed].sum(), "scaled": (error[scaled] / scales[scaled]).sum(),
                "scaled_count": scaled.sum()}
        result[name] = {key: repr(float(value)) for key, value in sums.items()}
    return result
