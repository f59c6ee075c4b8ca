"""Forecasts, scores and backtests of any number of series: ``forecast``, ``score``, ``backtest``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from ..anomaly import RNNAnomalyDetector
from ..anomaly.detector import AUTO
from ..forecasting import RNNForecaster
from ..forecasting.series import check_name, check_names
from .runs import Setting, estimator, run
from .tasks import backtests, forecasts, scores
from .work import Columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Executor

    from .._base.typing import PathLike
    from .reports import Report

SERIES, TIME, TARGET = "unique_id", "ds", "y"       # columns of long frames, as statsforecast and others name them


def forecast(model: RNNForecaster | PathLike, source: PathLike | Iterable[Any], out: PathLike, *,
             executor: Executor | Any | None = None, steps: int | None = None, interval: float | None = None,
             quantiles: bool = False, series: str | None = None, time: str | None = None, target: str | None = None,
             threads: int | None = None, progress: bool = True) -> Report:
    """Forecast all series of a source, partition by partition, into a folder.

    A series that the forecaster was fitted with has its own weights of the blend, by its name; others have the mean
    weights. A forecaster that is not fitted is fitted to each partition by itself. The results do not depend on the
    executor, to the byte.

    Parameters
    ----------
    model : RNNForecaster, str or path-like
        The forecaster, or the path of its file. It is written into the folder once, and every worker reads it once.
    source : str, path-like, sequence of these, or iterable of frames
        The partitions: Parquet or CSV files, a folder of them, or a pattern with ``*``; or frames of pandas, polars or
        pyarrow, which are taken one by one. Each has all rows of its series; ``partition`` makes such files. Where the
        forecaster reads known columns, the last rows of each series have no target: they are the steps to forecast.
    out : str or path-like
        The folder of the results: a Parquet file for each partition, called like it; the model; a manifest. Workers
        write into it, so that they all must see it. Called again after a kill or a failure, the run goes on where it
        was; a folder of another model or of other arguments is refused.
    executor : concurrent.futures.Executor, Dask client or None
        Who does the work: a ProcessPoolExecutor, a ``dask.distributed.Client``, an ``MPIPoolExecutor`` of mpi4py, or
        any other with their ``submit``. None: this process. Retries are the executor's to make.
    steps : int, optional
        How many steps to forecast; the forecaster's horizon if not given.
    interval : float, optional
        The probability of an interval to give with the forecasts, such as 0.9.
    quantiles : bool
        Whether to give all quantiles that the forecaster was asked for, in place of the point forecast.
    series, time, target : str, optional
        Columns of the partitions; those that the forecaster names if not given, or else "unique_id", "ds" (where there
        is one) and "y".
    threads : int, optional
        How many threads a worker uses. By default 1 beside an executor, which has its own processes, and otherwise as
        many as ``fastrnn.get_num_threads`` says.
    progress : bool
        Whether to show on stderr how far the run is, how fast it is and how long it will take.

    Returns
    -------
    Report
        What was done, and which series failed, with the reasons.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name; a folder of another run.
    ImportError
        The package pyarrow is missing: ``pip install fastrnn[scale]``.
    RuntimeError
        The executor broke, as a process pool does when one of its workers is killed. What was finished stays.
    OSError
        The folder cannot be written.

    Warns
    -----
    UserWarning
        Series or partitions have no results; the report names them.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> import pyarrow.parquet as pq
    >>> from fastrnn import scale
    >>> from fastrnn.forecasting import RNNForecaster
    >>> t = np.arange(100)
    >>> table = pa.table({"unique_id": np.repeat(["a", "b"], 100), "y": np.concatenate([np.sin(t / 4), 9 + t])})
    >>> model = RNNForecaster(3, updates=20, target="y", series="unique_id", random_state=0).fit(table)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = scale.partition(table, out=os.path.join(folder, "parts"), partitions=2)
    ...     report = scale.forecast(model, parts, os.path.join(folder, "forecasts"), progress=False)
    ...     result = pa.concat_tables(map(pq.read_table, report.files))
    >>> report.series, result.column_names, result.num_rows
    (2, ['unique_id', 'step', 'y'], 6)
    """
    one = estimator(model, RNNForecaster)
    _check_reproducible(one)
    if interval is not None and check.flag(quantiles, "quantiles"):
        raise ValueError("quantiles, interval: expected one of them at most")
    if steps is not None and one.known:
        raise ValueError("steps: expected None, as the partitions have rows for the steps to come, with what is known "
                         "of them")
    options = {"steps": None if steps is None else check.size(steps, "steps"),
               "interval": None if interval is None else check.probability(interval, "interval"),
               "quantiles": check.flag(quantiles, "quantiles")}
    return run(forecasts, one, source, out, _columns(one, series, time, target), options,
               Setting(executor, threads, progress))


def score(detector: RNNAnomalyDetector | PathLike, source: PathLike | Iterable[Any], out: PathLike, *,
          executor: Executor | Any | None = None, series: str | None = None, time: str | None = None,
          target: str | Sequence[str] | None = None, threads: int | None = None, progress: bool = True) -> Report:
    """Score every row of all series of a source, partition by partition, into a folder.

    Every series is walked by a detector of its own, which learns the rows as it goes: a copy of the one given. If that
    is fitted, its scores follow what it has learnt; if it is not, the first 50 rows of a series score 0.

    Parameters
    ----------
    detector : RNNAnomalyDetector, str or path-like
        The detector, or the path of its file.
    source : str, path-like, sequence of these, or iterable of frames
        The partitions, as in ``forecast``.
    out : str or path-like
        The folder of the results, as in ``forecast``. A result has the columns of series and time, "score" (from 0 to
        below 1, as ``score_one`` gives it) and "outlier", as ``predict`` tells them.
    executor : concurrent.futures.Executor, Dask client or None
        Who does the work, as in ``forecast``.
    series, time : str, optional
        Columns of the partitions: "unique_id" and, where there is one, "ds" if not given. Rows are taken by time.
    target : str or sequence of str, optional
        The channels; "y", or those that the detector was fitted with, if not given.
    threads : int, optional
        How many threads a worker uses, as in ``forecast``.
    progress : bool
        Whether to show on stderr how far the run is, how fast it is and how long it will take.

    Returns
    -------
    Report
        What was done, and which series failed, with the reasons.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name; a folder of another run.
    ImportError
        The package pyarrow is missing: ``pip install fastrnn[scale]``.
    RuntimeError
        The executor broke. What was finished stays.
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> import pyarrow.parquet as pq
    >>> from fastrnn import scale
    >>> from fastrnn.anomaly import RNNAnomalyDetector
    >>> y = np.sin(np.arange(600) / 8) + 0.05 * np.random.default_rng(0).standard_normal(600)
    >>> y[450] = 4
    >>> table = pa.table({"unique_id": np.repeat(["a", "b"], 300), "y": y})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     detector = RNNAnomalyDetector(random_state=0)
    ...     report = scale.score(detector, [table], os.path.join(folder, "scores"), progress=False)
    ...     result = pq.read_table(report.files[0])
    >>> int(np.argmax(result["score"])), report.rows
    (450, 600)
    """
    one = estimator(detector, RNNAnomalyDetector, "detector")
    _check_reproducible(one, "detector")
    names = check_names(target, "target")
    if not names:
        names = tuple(map(str, getattr(one, "feature_names_in_", ()))) or (TARGET,)
    columns = Columns(check_name(series, "series") or SERIES, check_name(time, "time") or TIME, names, time is None)
    return run(scores, one, source, out, columns, {"offset": AUTO}, Setting(executor, threads, progress))


def backtest(model: RNNForecaster | PathLike, source: PathLike | Iterable[Any], out: PathLike, *, start: int,
             stride: int = 1, refit: bool | None = None, executor: Executor | Any | None = None,
             series: str | None = None, time: str | None = None, target: str | None = None,
             threads: int | None = None, progress: bool = True) -> Report:
    """Make forecasts of all series as they would have been made in the past, beside what came.

    Parameters
    ----------
    model : RNNForecaster, str or path-like
        The forecaster, or the path of its file.
    source : str, path-like, sequence of these, or iterable of frames
        The partitions, as in ``forecast``.
    out : str or path-like
        The folder of the results, as in ``forecast``. A result has a row for each step of each forecast: series, time,
        "cutoff" (the last time before the forecast, or without times how many steps were known), "step", the value,
        "forecast" and those of naive forecasts.
    start : int
        The first forecast of a series is made with y[:start]. A negative number counts from the end.
    stride : int
        Steps from one forecast to the next.
    refit : bool, optional
        True: for each partition a copy is fitted to what lies before `start` in its series. False: the forecaster is
        used as it is fitted; whether it has seen what it forecasts is the caller's to know. By default True for a
        forecaster that is not fitted, and False otherwise.
    executor : concurrent.futures.Executor, Dask client or None
        Who does the work, as in ``forecast``.
    series, time, target : str, optional
        Columns of the partitions, as in ``forecast``.
    threads : int, optional
        How many threads a worker uses, as in ``forecast``.
    progress : bool
        Whether to show on stderr how far the run is, how fast it is and how long it will take.

    Returns
    -------
    Report
        What was done. ``scores()`` has the errors of all forecasts beside those of naive ones.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name; a folder of another run.
    ImportError
        The package pyarrow is missing: ``pip install fastrnn[scale]``.
    RuntimeError
        The executor broke. What was finished stays.
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from fastrnn import scale
    >>> from fastrnn.forecasting import RNNForecaster
    >>> table = pa.table({"unique_id": np.repeat(["a", "b"], 100), "y": np.sin(np.arange(200) / 4)})
    >>> model = RNNForecaster(3, blend=["seasonal naive", "naive"], seasons=25, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = scale.backtest(model, [table], os.path.join(folder, "tests"), start=-20, progress=False)
    >>> scores = report.scores()
    >>> list(scores), scores["forecast"]["MAE"] < scores["naive"]["MAE"]
    (['forecast', 'naive', 'seasonal naive 25'], True)
    """
    one = estimator(model, RNNForecaster)
    again = not one.__sklearn_is_fitted__() if refit is None else check.flag(refit, "refit")
    if not again:
        one._check_fitted()
    _check_reproducible(one, always=again)
    if isinstance(start, (bool, np.bool_)) or not isinstance(start, (int, np.integer)):
        raise TypeError(f"start: expected an int, got {type(start).__name__}")
    options = {"start": int(start), "stride": check.size(stride, "stride"), "refit": again}
    return run(backtests, one, source, out, _columns(one, series, time, target), options,
               Setting(executor, threads, progress))


def _columns(model: RNNForecaster, series: str | None, time: str | None, target: str | None) -> Columns:
    """The columns of partitions, as they are named, as the forecaster names them, or as is usual."""
    targets = check_names(model.target, "target")
    if len(targets) > 1 and target is None:
        raise ValueError(f"target: expected one column, as partitions are long tables; the forecaster has {targets}")
    either = time is None and model.time is None
    return Columns(check_name(series, "series") or model.series or SERIES,
                   check_name(time, "time") or model.time or TIME,
                   (check_name(target, "target") or (targets[0] if targets else TARGET),), either)


def _check_reproducible(model: Any, name: str = "model", always: bool = False) -> None:
    """Raise ValueError where a model that is fitted anew in every partition would be another one every time."""
    if (always or not model.__sklearn_is_fitted__()) and not isinstance(model.random_state, (int, np.integer)):
        raise ValueError(f"{name}: expected a random_state that is an int, as it is fitted to each partition anew, and "
                         "a run that goes on must give the same results")
