"""scikit-learn's protocol without scikit-learn: what the forecaster and the anomaly detector share.

scikit-learn's ``clone``, pipelines, searches and ``check_estimator`` work with such an estimator. None of this imports
scikit-learn, except where scikit-learn itself calls (``__sklearn_tags__``).
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from . import estimator_files
from . import validation as check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from .typing import Array, ArrayLike, Float64Array, PathLike

CELLS = ("rnn", "gru", "lstm")


class NotFittedError(ValueError, AttributeError):
    """A method that needs ``fit`` was called before it. Where scikit-learn is loaded, its own class is raised."""


class Estimator:
    """Base class of estimators: parameters by name, and the checks of what was fitted.

    Parameters are the arguments of ``__init__``, kept as they came and checked by ``fit``. Fitted attributes end in an
    underscore; ``n_features_in_`` is the number of columns of X.

    Examples
    --------
    >>> class Mean(Estimator):
    ...     def __init__(self, power=1):
    ...         self.power = power
    >>> Mean().set_params(power=2)
    Mean(power=2)
    """

    _estimator_type: str | None = None      # "regressor", "outlier_detector": what scikit-learn's tags say
    _multi_output = False                   # whether y may have columns
    n_features_in_: int

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """The default of every parameter by name, in the order of ``__init__``."""
        arguments = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {argument.name: argument.default for argument in arguments}

    @contextlib.contextmanager
    def _whole_or_unchanged(self) -> Iterator[None]:
        """Take back every attribute that a block has set where the block does not end, such as by Ctrl-C."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool
            Part of scikit-learn's protocol; it changes nothing here, where no estimator holds another.

        Returns
        -------
        dict of str to object
            Every argument of the constructor, with its present value.

        Examples
        --------
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> RNNAnomalyDetector(hidden_size=16).get_params()["hidden_size"]
        16
        """
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; an unknown name is an error, and nothing is set then.

        Parameters
        ----------
        **params
            New values. They are checked by the next ``fit``.

        Returns
        -------
        Estimator
            This one.

        Raises
        ------
        ValueError
            A name that is no parameter.

        Examples
        --------
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> RNNAnomalyDetector().set_params(hidden_size=16, refractory=30)
        RNNAnomalyDetector(hidden_size=16, refractory=30)
        """
        known = self._defaults()
        for name in params:
            if name not in known:
                raise ValueError(f"{name}: not a parameter of {type(self).__name__}, which has {', '.join(known)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def _changed(self) -> list[str]:
        """The names of the parameters that are not the defaults."""
        return [name for name, default in self._defaults().items() if not _same(getattr(self, name), default)]

    def __repr__(self) -> str:
        changed = [f"{name}={getattr(self, name)!r}" for name in self._changed()]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _repr_html_(self) -> str:
        from .notebooks import estimator_html  # here: only notebooks ask for it
        return estimator_html(self)

    # ---- Files ----------------------------------------------------------------------------------

    _state_version = 1                      # of the files' contents; see `estimator_files`

    def save(self, path: PathLike) -> None:
        """Write this estimator to a file, from which ``load`` makes one that goes on with the same bits.

        The file holds the parameters and everything that was fitted: networks, statistics, and the data of which
        ``predict`` and ``update`` need to know. It is no pickle: reading it runs no code.

        Parameters
        ----------
        path : str or path-like
            The ending tells the format: ``.npz`` or ``.safetensors``. An existing file is replaced atomically: readers
            never see a partial file.

        Raises
        ------
        TypeError
            A parameter or a fitted attribute is of a kind that files do not hold; the message names it. Or the class is
            derived from one of fastrnn's.
        ValueError
            The path ends otherwise.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> detector = RNNAnomalyDetector(hidden_size=8, random_state=0)
        >>> for n in range(200):
        ...     detector.learn_one(n % 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     detector.save(os.path.join(folder, "detector.npz"))
        ...     again = RNNAnomalyDetector.load(os.path.join(folder, "detector.npz"))
        >>> again, again.score_one(0.5) == detector.score_one(0.5)
        (RNNAnomalyDetector(hidden_size=8, random_state=0), True)
        """
        estimator_files.save(self, path)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Make the estimator that ``save`` wrote to a file; ``fastrnn.load`` does so for any class.

        Parameters
        ----------
        path : str or path-like
            The file, which ends in .npz or .safetensors.

        Returns
        -------
        Estimator
            One of this class, which goes on where the saved one was.

        Raises
        ------
        ModelFormatError
            The file is broken, holds something else, or was written by a later version of fastrnn that keeps more.
        ValueError
            The path ends otherwise.
        OSError
            The file cannot be read.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> model = RNNForecaster(horizon=3, updates=20, random_state=0).fit(np.sin(np.arange(100) / 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(os.path.join(folder, "waves.npz"))
        ...     again = RNNForecaster.load(os.path.join(folder, "waves.npz"))
        >>> bool(np.array_equal(again.predict(), model.predict()))
        True
        """
        return estimator_files.load(cls, path)

    @classmethod
    def _older(cls, version: int, parameters: dict[str, Any],
               attributes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parameters and attributes of today for those of a file whose state_version is an earlier one."""
        return parameters, attributes

    def _check_loaded(self) -> None:
        """Raise an error of any kind where attributes that a file set do not fit each other."""

    # ---- What fitted estimators check -----------------------------------------------------------

    def __sklearn_is_fitted__(self) -> bool:
        return any(name.endswith("_") and not name.startswith("_") for name in list(vars(self)))

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            sklearn = sys.modules.get("sklearn.exceptions")
            error = NotFittedError if sklearn is None else sklearn.NotFittedError
            raise error(f"this {type(self).__name__} is not fitted yet: call fit first")

    def _check_features(self, count: int) -> None:
        """Raise ValueError, in scikit-learn's words, unless X has as many columns as in ``fit``."""
        if count != self.n_features_in_:
            raise ValueError(f"X has {count} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                             "features as input")

    def _check_names(self, names: Sequence[str] | None) -> None:
        """Raise ValueError, in scikit-learn's words, where X has names of columns other than in ``fit``."""
        fitted = getattr(self, "feature_names_in_", None)
        if names is not None and fitted is not None and list(names) != list(fitted):
            raise ValueError("The feature names should match those that were passed during fit: expected "
                             f"{', '.join(fitted)}, got {', '.join(names)}")

    def get_metadata_routing(self) -> Any:
        """Return which further arguments of ``fit`` scikit-learn passes on where its metadata routing is enabled.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRequest
            Requests of every keyword of ``fit`` but X and y: of the forecaster, `past`, `times` and `static`.

        Examples
        --------
        >>> from fastrnn.forecasting import RNNForecaster
        >>> sorted(RNNForecaster().get_metadata_routing().fit.requests)
        ['past', 'static', 'times']
        """
        from sklearn.utils.metadata_routing import MetadataRequest  # its caller is scikit-learn
        request = MetadataRequest(owner=type(self).__name__)
        for method in ("fit", "partial_fit"):
            arguments: Any = inspect.signature(getattr(self, method, Estimator.__init__)).parameters.values()
            for argument in arguments:
                if argument.kind is argument.KEYWORD_ONLY:
                    getattr(request, method).add_request(param=argument.name, alias=True)
        return request

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags  # its caller is scikit-learn
        regressor = RegressorTags(poor_score=True) if self._estimator_type == "regressor" else None
        return Tags(estimator_type=self._estimator_type, regressor_tags=regressor,
                    target_tags=TargetTags(required=False, multi_output=self._multi_output),
                    input_tags=InputTags(allow_nan=True))


def cell_name(value: str) -> str:
    """The parameter `cell` of an estimator in lower case; it may be written in any."""
    name: str = check.choice(value.lower() if isinstance(value, str) else value, "cell", CELLS)
    return name


def columns(X: ArrayLike | None, name: str = "X", least: int = 1) -> Float64Array:
    """X as float64 [rows, columns], NaN where a value is missing; errors in scikit-learn's words where it has some.

    Parameters
    ----------
    X : array_like or frame
        Sparse and complex arrays are refused, and infinite values.
    name : str
        What messages call X.
    least : int
        Rows and columns there must be.

    Returns
    -------
    array of float64, [rows, columns]
        The values.
    """
    if X is None:
        raise TypeError(f"{name}: expected an array, got None")
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError(f"{name}: sparse input is not supported; make it dense with .toarray()")
    values = numbers(X, name)
    if values.ndim != 2:
        raise ValueError(f"{name}: expected a 2D array [rows, columns], got {values.ndim} dimensions, shape "
                         f"{values.shape}. Reshape your data, for one column with .reshape(-1, 1)")
    for count, what in zip(values.shape, ("sample", "feature"), strict=True):
        if count < least:
            raise ValueError(f"{name}: found array with {count} {what}(s) (shape={values.shape}) while a minimum of "
                             f"{least} is required.")
    return values


def numbers(values: ArrayLike | Sequence[float | None] | None, name: str) -> Float64Array:
    """Any array_like of numbers as float64; None, NaN and what is masked are missing values, infinite ones an error."""
    if isinstance(values, np.ma.MaskedArray):
        array: Array = np.array(values.tolist(), object)       # None where it is masked
    else:
        array = np.asarray(values)
    if array.dtype.kind == "c":
        raise ValueError(f"{name}: Complex data not supported, got dtype {array.dtype}")
    if array.dtype.kind not in "fiubO":
        raise TypeError(f"{name}: expected numbers, got dtype {array.dtype}")
    if array.dtype.kind == "O":
        if not array.ndim and not hasattr(values, "__float__"):
            raise TypeError(f"{name}: expected an array of numbers, got {type(values).__name__}")
        array = _without_na(array)
    try:
        result = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    if np.isinf(result).any():
        raise ValueError(f"{name}: Input {name} contains infinity")
    return result


def _without_na(array: Array) -> Array:
    """Objects with None in place of the missing values of pandas."""
    missing = np.reshape([type(value).__name__ in ("NAType", "NaTType") for value in array.flat], array.shape)
    if missing.any():
        array = array.copy()
        array[missing] = None
    return array


def _same(a: object, b: object) -> bool:
    try:
        return a is b or (type(a) is type(b) and bool(a == b))
    except ValueError:          # an array's comparison
        return False
