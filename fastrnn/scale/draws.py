"""What workers do for ``fit``: take a sample of a partition's series, and draw encoded windows of them to train on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..forecasting.encoding import missing_at_end
from ..forecasting.glitches import without_glitches
from ..forecasting.origins import held_steps
from ..forecasting.preparation import prepared, read_panel
from ..forecasting.windows import Prepared, training_windows
from .reports import PartitionError
from .sources import arrow
from .tasks import of_columns
from .work import said

if TYPE_CHECKING:
    from .._base.typing import Array, BoolArray, IntArray
    from ..forecasting import RNNForecaster
    from ..forecasting.encoding import Encoding
    from ..forecasting.options import Options
    from ..forecasting.series import Panel, Series
    from .sources import Piece
    from .work import Columns


def samples(model: RNNForecaster, table: Any, columns: Columns, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The rows of some series of a table, drawn by a seed; how many series and values it has, and the least value."""
    panel = read_panel(of_columns(model, columns), table, None, None, None)
    names, values = [each.name for each in panel.series], [each.y for each in panel.series]
    observed = [y[~np.isnan(y)] for y in values]
    usable = [n for n, y in enumerate(observed) if len(y) > 1]
    rng = np.random.default_rng([options["seed"], len(names)])
    some = np.sort(rng.choice(len(usable), min(options["sample"], len(usable)), replace=False)).tolist()
    chosen = [names[usable[n]] for n in some]
    import pyarrow.compute as pc
    column = table.column(columns.series)
    kind = column.type.value_type if hasattr(column.type, "value_type") else column.type
    result = table.filter(pc.is_in(column.cast(kind), arrow().array(chosen, kind)))
    least = min((float(y.min()) for y in observed if len(y)), default=0.0)
    return result, {"count": len(usable), "values": sum(map(len, values)), "least": repr(least)}


@dataclass(frozen=True)
class Draw:
    """What windows are drawn of a partition: it travels to the workers.

    Attributes
    ----------
    model : RNNForecaster
        The unfitted forecaster, which says how tables are read.
    columns : Columns
        Of the partitions.
    encoding : Encoding
        How windows are encoded.
    options : Options
        With numbers for all that was "auto".
    held : int or None
        The most last steps of a series that are left out: fewer of short series; None: none are.
    always : bool
        Whether `held` steps are left out of every series, short ones too.
    """

    model: RNNForecaster
    columns: Columns
    encoding: Encoding
    options: Options
    held: int | None
    always: bool = False

    def end(self, series: Series) -> int:
        """How many first steps of a series are trained on."""
        if self.held is None:
            return len(series)
        if self.always:
            return len(series) - self.held
        return len(series) - min(self.held, held_steps(len(series), self.encoding.horizon))


@dataclass
class Drawn:
    """Encoded windows: inputs [n, S, I], targets [n, S, horizon], valid steps [n], and which steps count [n, S]."""

    x: Array
    y: Array
    lengths: IntArray
    counts: BoolArray


def draw(what: Draw, piece: Piece, count: int, seed: list[int], without: list[str]) -> Drawn | None:
    """Draw `count` windows of a partition, or fewer where it has not as many; None where it has none.

    Series are drawn first, and then a window of each, so that no more is encoded than is drawn. Series whose names are
    in `without` cannot be read.
    """
    try:
        table = piece.read([what.columns.series])[0]
        columns = what.columns.of(table.column_names)
        if without:
            names = table.column(columns.series).to_pylist()
            table = table.filter(arrow().array([str(name) not in without for name in names]))
        panel = read_panel(of_columns(what.model, columns), table, None, None, None)
        rng = np.random.default_rng(seed)
        some = np.sort(rng.choice(len(panel.series), min(count, len(panel.series)), replace=False)).tolist()
        series = _usable(panel, [panel.series[n] for n in some], what.options)
        return _windows(series, what, count, rng) if series else None
    except Exception as error:
        raise PartitionError(piece.label, "", said(error)) from error


def _usable(panel: Panel, some: list[Series], options: Options) -> list[Series]:
    """Those of some series that can be trained on, without glitches and what follows their last value."""
    result = []
    with warnings.catch_warnings():         # glitches of a sample are told, those of every partition would be too many
        warnings.simplefilter("ignore", UserWarning)
        for each in some:
            try:
                series = without_glitches([each])[0]
                series = prepared(panel.with_series(series), options).series
            except ValueError:              # too short, or a value that has no logarithm: forecasts will say so
                continue
            result.append(series[0].part(0, len(series[0]) - missing_at_end(series[0].y)))
    return result


def _windows(series: list[Series], what: Draw, count: int, rng: np.random.Generator) -> Drawn | None:
    ends = [what.end(each) for each in series]
    windows = training_windows(Prepared(series, what.encoding), what.options.sequence, ends)
    if not windows:
        return None
    owners = windows.bounds[:, 0]
    if count <= len(series):                # one window of each series
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        sizes = np.diff([*firsts.tolist(), len(owners)])
        rows = firsts + (rng.random(len(firsts)) * sizes).astype(np.int64)
    else:
        rows = np.sort(rng.choice(len(windows), min(count, len(windows)), replace=False))
    windows = windows.some(rows)
    every = np.arange(len(windows))
    x, y = windows.encode(every)
    lengths = (windows.bounds[:, 2] - windows.bounds[:, 1]).astype(np.int64)
    return Drawn(x, y, lengths, windows.counts(every))
