"""What a detector does row by row, as river's detectors do, and the snapshots of where it is in its stream."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from .._base.estimator import Estimator
from .._base.reading import ModelFormatError, refusing
from .._base.trees import check_attribute, packed, unpacked
from ..nn.recurrent_base import Recurrent
from .clock import moment_of, moments_of
from .likelihood import score_of
from .rows import LARGEST, channel_names, checked_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, ArrayLike, Float64Array
    from .clock import Moments
    from .rows import Row
    from .state import State

# What every fitted detector has beside its parameters.
_FITTED = {"model_", "n_features_in_", "offset_", "_adapt", "_state"}


class OnlineDetector(Estimator, ABC):
    """Score and learn single rows; a class derived from it has `time_features` and makes the state in ``_begin``."""

    _state: State | None = None             # from the first row on

    n_features_in_: int
    feature_names_in_: Array
    model_: Any
    offset_: float
    time_features: str | Sequence[str]

    @abstractmethod
    def _begin(self, channels: int, names: list[str] | None, rows: Float64Array | None = None,
               times: Moments | None = None) -> State:
        """Check the parameters and start anew; where one is unsuitable nothing is changed."""

    def score_one(self, x: Row, time: Any = None) -> float:
        """Compute the anomaly score of the row that comes next; nothing is learnt.

        Parameters
        ----------
        x : float, array_like or dict of str to float
            A value for each channel, [channels]; a bare number where there is one channel; or values by name. NaN or
            None, or a name left out, where a value is missing.
        time : datetime, datetime64, str or None
            When the row is, where the detector learns from times.

        Returns
        -------
        float
            From 0 to below 1 (most unusual): a sixth of -log10 p up to 5/6, then d / (d + 1) with d = -log10 p.

        Raises
        ------
        TypeError, ValueError
            Something else than numbers, infinite numbers, or not one for each channel.

        Examples
        --------
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> detector = RNNAnomalyDetector(random_state=0)
        >>> for n in range(200):
        ...     detector.learn_one(float(n % 2))
        >>> detector.score_one(9.0) > 5 / 6
        True
        """
        state = self._state
        if state is None:
            return 0.0
        row = self._row(x)
        if time is not None or state.clock is not None:
            self._tell(state, time)
        return score_of(state.digits(row))

    def learn_one(self, x: Row, time: Any = None) -> None:
        """Learn a row: the statistics of the channels, the read-out, the network's state.

        The first row of a detector that was not fitted determines how many channels there are, and their names.

        Parameters
        ----------
        x : float, array_like or dict of str to float
            The row, as for ``score_one``.
        time : datetime, datetime64, str or None
            When the row is, where the detector learns from times.

        Raises
        ------
        TypeError, ValueError
            An unsuitable row; nothing is learnt from it.

        Examples
        --------
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> detector = RNNAnomalyDetector(random_state=0)
        >>> detector.learn_one({"load": 1.5, "heat": 20.0})
        >>> list(detector.feature_names_in_)
        ['load', 'heat']
        """
        state = self._state
        if state is None:
            count = len(x) if isinstance(x, dict) else max(1, np.size(cast("ArrayLike", x)))
            times = moments_of([time], "time") if time is not None and self.time_features else None
            state = self._begin(count, channel_names(x), times=times)
        row = self._row(x)
        if time is not None or state.clock is not None:
            self._tell(state, time)
        state.learn(row)

    @overload
    def explain_one(self, x: dict[str, Any], time: Any = None) -> dict[str, float]: ...

    @overload
    def explain_one(self, x: ArrayLike | None, time: Any = None) -> Float64Array: ...

    def explain_one(self, x: Row, time: Any = None) -> Float64Array | dict[str, float]:
        """Compute the score of every channel of the row that comes next; nothing is learnt.

        Parameters
        ----------
        x : float, array_like or dict of str to float
            The row, as for ``score_one``.
        time : datetime, datetime64, str or None
            When the row is, where the detector learns from times.

        Returns
        -------
        array of float64, [channels], or dict of str to float
            From 0 to 1 (most unusual); by name where x is a dict.

        Raises
        ------
        TypeError, ValueError
            An unsuitable row.
        NotFittedError
            No row was learnt yet.

        Examples
        --------
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> detector = RNNAnomalyDetector(random_state=0)
        >>> for n in range(200):
        ...     detector.learn_one({"load": n % 2, "heat": n % 3})
        >>> scores = detector.explain_one({"load": 0.0, "heat": 9.0})
        >>> max(scores, key=scores.get)
        'heat'
        """
        self._check_fitted()
        state, row = cast("State", self._state), self._row(x)
        if time is not None or state.clock is not None:
            self._tell(state, time)
        scores = state.channel_scores(row)
        return (dict(zip(self.feature_names_in_.tolist(), scores, strict=True)) if isinstance(x, dict)
                else np.array(scores))

    def _tell(self, state: State, time: Any) -> None:
        """Tell the state the next row's time, which must be given with every row or with none."""
        if not self.time_features:
            return
        if state.clock is None:
            raise ValueError("time: expected None, as the rows before had no times")
        if time is None:
            raise ValueError("time: expected the time of the row, as the rows before had times; got None")
        shown, instant, zoned = moment_of(time, "time")
        state.clock.check(instant, zoned, "time")
        state.tell(shown, instant, zoned)

    def _row(self, x: Row) -> list[float]:
        """x as a list of floats, one a channel, NaN where a value is missing."""
        if type(x) is float and -LARGEST < x < LARGEST and self.n_features_in_ == 1:
            return [x]                              # the shortest way for what comes most often
        return checked_row(x, self.n_features_in_, getattr(self, "feature_names_in_", ()))

    # ---- Snapshots ------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Write where the detector is in its stream to bytes, without the network's weights, for ``restore``.

        Returns
        -------
        bytes
            The state, a hash of the weights, a version and a checksum; no pickle. Any store of bytes can keep it.

        Raises
        ------
        NotFittedError
            No row was learnt yet.

        Examples
        --------
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> detector = RNNAnomalyDetector(hidden_size=8, random_state=0)
        >>> for n in range(200):
        ...     detector.learn_one(n % 2)
        >>> snapshot, score = detector.snapshot(), detector.score_one(0.0)
        >>> detector.learn_one(9.0)
        >>> detector.restore(snapshot)
        >>> detector.score_one(0.0) == score
        True
        """
        self._check_fitted()
        return packed(self._fitted_attributes(), type(self).__name__, list(self.model_.parameters.values()))

    def restore(self, snapshot: bytes) -> None:
        """Bring the detector to where a snapshot was made, of this one or of another with the same network.

        Detectors with the same parameters, an int for `random_state` among them, and `updates` of 0 have the same
        network for the same number of channels.

        Parameters
        ----------
        snapshot : bytes
            From ``snapshot``.

        Raises
        ------
        TypeError, ValueError
            It is no snapshot of a detector, damaged, or of another network; the detector stays as it was.
        NotFittedError
            This detector has no network yet, as it learnt no row.

        Examples
        --------
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> first, second = (RNNAnomalyDetector(hidden_size=8, random_state=0) for _ in range(2))
        >>> for n in range(200):
        ...     first.learn_one(n % 2)
        >>> second.learn_one(0.0)
        >>> second.restore(first.snapshot())
        >>> second.score_one(5.0) == first.score_one(5.0)
        True
        """
        self._check_fitted()
        attributes = unpacked(snapshot, type(self).__name__, list(self.model_.parameters.values()))
        other = type(self)(**self.get_params())
        with refusing("snapshot"):
            for name, value in attributes.items():
                check_attribute(type(self), name)
                setattr(other, name, value)
            other._check_loaded()
        parameters = {name: value for name, value in vars(self).copy().items() if name in self._defaults()}
        self.__dict__ = {**parameters, **other._fitted_attributes()}        # all at once

    def _fitted_attributes(self) -> dict[str, Any]:
        parameters = self._defaults()
        return {name: value for name, value in vars(self).copy().items() if name not in parameters}

    def _check_loaded(self) -> None:
        """Raise an error of any kind where what a file holds cannot score a row and learn it."""
        names = self._fitted_attributes().keys()
        if not names:
            return                          # never fitted
        if missing := _FITTED - names:
            raise ModelFormatError(f"a fitted detector without {', '.join(sorted(missing))}")
        if not isinstance(self.model_, Recurrent) or not isinstance(self.offset_, float):
            raise ModelFormatError("expected a layer as model_ and a number as offset_")
        state = cast("State", self._state)
        network = state.stream._model
        state = copy.deepcopy(state, {id(each): each for each in (network, *network.parameters.values())})
        counts = {len(state.channels), len(getattr(self, "feature_names_in_", state.channels))}
        if counts != {self.n_features_in_}:
            raise ModelFormatError(f"{self.n_features_in_} channels, but the state or the names of {sorted(counts)}")
        for value in (0.0, float("nan")):
            row = self._row([value] * self.n_features_in_)
            float(state.digits(row))
            state.learn(row)
