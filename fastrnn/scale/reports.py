"""What a run over many series returns: how much was done, what failed, errors beside naive forecasts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

SHOWN = 5               # failures that a text names


class PartitionError(RuntimeError):
    """A partition failed as a whole; the others go on.

    Parameters
    ----------
    partition : str
        The partition: its file, or the number of its frame.
    series : str
        The series in it, as far as they could be read.
    error : str
        What went wrong.

    Examples
    --------
    >>> print(PartitionError("part-00003.parquet", "shop 7 and 411 more", "OSError: no space left on device"))
    part-00003.parquet (series shop 7 and 411 more): OSError: no space left on device
    """

    def __init__(self, partition: str, series: str, error: str) -> None:
        super().__init__(partition, series, error)      # three arguments, so that it can be sent between processes
        self.partition, self.series, self.error = partition, series, error

    def __str__(self) -> str:
        return f"{self.partition}{f' (series {self.series})' if self.series else ''}: {self.error}"


@dataclass(frozen=True)
class Failure:
    """A series that has no result, or a whole partition.

    Attributes
    ----------
    partition : str
        The partition: its file, or the number of its frame.
    series : str
        The series; of a partition that failed as a whole the first of them, and how many there are.
    error : str
        What went wrong.
    whole : bool
        Whether the partition failed as a whole.

    Examples
    --------
    >>> Failure("part-00003.parquet", "shop 7", "ValueError: y: expected 2 samples or more").series
    'shop 7'
    """

    partition: str
    series: str
    error: str
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.partition}{f', series {self.series}' if self.series else ''}: {self.error}"


@dataclass(repr=False)
class Report:
    """What ``scale.forecast``, ``score`` or ``backtest`` did.

    Attributes
    ----------
    out : str
        The folder of the results.
    files : list of str
        The result files, in the order of the partitions; a partition that failed or has no rows has none.
    partitions : int
        How many partitions there are.
    resumed : int
        How many of them an earlier call had finished.
    series : int
        How many series have results, those of earlier calls too.
    rows : int
        How many rows the results have.
    failures : list of Failure
        Series and partitions without results. A later call with the same arguments tries partitions again that failed
        as a whole, and those whose file has changed.
    seconds : float
        How long this call took.
    worker_seconds : dict of str to float
        How long all workers together took to "read" partitions, to "compute" and to "write" results.
    peak_memory : int
        The most memory that a worker process has used, in bytes; 0 where the system does not tell.
    errors : list of dict
        Of a backtest, for each partition the sums that ``scores`` makes means of.
    new_series : int
        How many series this call did.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from fastrnn import scale
    >>> from fastrnn.forecasting import RNNForecaster
    >>> table = pa.table({"unique_id": np.repeat(["a", "b"], 50), "y": np.sin(np.arange(100) / 4)})
    >>> model = RNNForecaster(3, blend=["naive", "drift"], target="y", series="unique_id").fit(table)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = scale.forecast(model, [table], os.path.join(folder, "forecasts"), progress=False)
    >>> report.series, report.rows, report.failures
    (2, 6, [])
    """

    out: str
    files: list[str] = field(default_factory=list)
    partitions: int = 0
    resumed: int = 0
    series: int = 0
    rows: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    worker_seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    new_series: int = 0

    def __repr__(self) -> str:
        lines = [f"<Report: {self.series} series, {self.rows} rows of results in {len(self.files)} of "
                 f"{self.partitions} partitions, {self.out}>"]
        if self.resumed:
            lines.append(f"{self.resumed} partitions were there already")
        if self.new_series and self.seconds:
            lines.append(f"{self.new_series} series in {self.seconds:.1f} s, {self.new_series / self.seconds:.0f} a "
                         f"second; workers: {', '.join(f'{k} {v:.1f} s' for k, v in self.worker_seconds.items())}")
        if self.errors:
            scores = self.scores()
            lines += [f"{name}: " + ", ".join(f"{measure} {value:.4g}" for measure, value in row.items())
                      for name, row in scores.items()]
        lines += [f"failed: {each}" for each in self.failures[:SHOWN]]
        if len(self.failures) > SHOWN:
            lines.append(f"and {len(self.failures) - SHOWN} more failures")
        return "\n  ".join(lines)

    def scores(self) -> dict[str, dict[str, float]]:
        """Compute the errors of a backtest, over all series, beside those of naive forecasts.

        Returns
        -------
        dict of str to dict
            For "forecast", "naive" and each "seasonal naive m": "MAE", "RMSE", "sMAPE" (in per cent) and "MASE", as
            ``Backtest.scores`` has them. MASE leaves out series whose past does not vary.

        Raises
        ------
        ValueError
            The run was no backtest.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import pyarrow as pa
        >>> from fastrnn import scale
        >>> from fastrnn.forecasting import RNNForecaster
        >>> table = pa.table({"unique_id": np.repeat(["a", "b"], 50), "y": np.arange(100.0)})
        >>> model = RNNForecaster(3, blend=["naive", "drift"], random_state=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = scale.backtest(model, [table], os.path.join(folder, "tests"), start=-10, progress=False)
        >>> report.scores()["naive"]
        {'MAE': 2.0, 'RMSE': 2.160246899469287, 'sMAPE': 3.3648551828144324, 'MASE': 2.0}
        """
        if not self.errors:
            raise ValueError("scores: only a backtest has errors")
        names = list(dict.fromkeys(name for part in self.errors for name in part))
        return {name: _means([part[name] for part in self.errors if name in part]) for name in names}


def _means(parts: list[dict[str, Any]]) -> dict[str, float]:
    """The measures of one kind of forecast from the sums of partitions."""
    total = {key: math.fsum(float(part[key]) for part in parts) for key in parts[0]}

    def mean(name: str, count: str) -> float:
        return total[name] / total[count] if total[count] else math.nan

    return {"MAE": mean("absolute", "count"), "RMSE": math.sqrt(mean("square", "count")),
            "sMAPE": mean("relative", "count"), "MASE": mean("scaled", "scaled_count")}
