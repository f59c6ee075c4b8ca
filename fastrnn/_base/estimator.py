"""scikit-learn's protocol without scikit-learn: what the forecaster and the anomaly detector share.

``clone``, pipelines, searches and ``check_estimator`` take such an estimator; none of it imports scikit-learn, save for
what scikit-learn itself asks (``__sklearn_tags__``).
"""

import inspect
import sys

import numpy as np


class NotFittedError(ValueError, AttributeError):
    """A method that needs ``fit`` was called before it. Where scikit-learn is loaded, its own class is raised."""


class Estimator:
    """Parameters are the arguments of ``__init__``, kept as they came and checked by ``fit``.

    Fitted attributes end in an underscore; ``n_features_in_`` is the number of columns of X.

    Examples
    --------
    >>> class Mean(Estimator):
    ...     def __init__(self, power=1):
    ...         self.power = power
    >>> Mean().set_params(power=2)
    Mean(power=2)
    """

    _estimator_type = None      # "regressor", "outlier_detector": what scikit-learn's tags say
    _multi_output = False       # whether y may have columns

    @classmethod
    def _defaults(cls):
        """Name -> default of every parameter, in order."""
        arguments = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {argument.name: argument.default for argument in arguments}

    def get_params(self, deep=True):
        """The parameters, by name. `deep` is scikit-learn's: there are no estimators within."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params):
        """Sets parameters by name and returns the estimator; ValueError for a name that is none, and nothing is set."""
        known = self._defaults()
        for name in params:
            if name not in known:
                raise ValueError(f"{name}: not a parameter of {type(self).__name__}, which has {', '.join(known)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self):
        changed = [f"{name}={getattr(self, name)!r}" for name, default in self._defaults().items()
                   if not _same(getattr(self, name), default)]
        return f"{type(self).__name__}({', '.join(changed)})"

    # ---- What fitted estimators check -----------------------------------------------------------

    def __sklearn_is_fitted__(self):
        return any(name.endswith("_") and not name.startswith("_") for name in vars(self))

    def _check_fitted(self):
        if not self.__sklearn_is_fitted__():
            sklearn = sys.modules.get("sklearn.exceptions")
            error = NotFittedError if sklearn is None else sklearn.NotFittedError
            raise error(f"this {type(self).__name__} is not fitted yet: call fit first")

    def _check_features(self, count):
        """Columns of X as in fit, else ValueError in scikit-learn's words."""
        if count != self.n_features_in_:
            raise ValueError(f"X has {count} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                             "features as input")

    def __sklearn_tags__(self):
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags  # its caller is scikit-learn
        regressor = RegressorTags(poor_score=True) if self._estimator_type == "regressor" else None
        return Tags(estimator_type=self._estimator_type, regressor_tags=regressor,
                    target_tags=TargetTags(required=False, multi_output=self._multi_output),
                    input_tags=InputTags(allow_nan=True))


def columns(X, name="X", least=1):
    """X as float64 [rows, columns], NaN where a value is missing; errors in scikit-learn's words where it has some.

    Parameters
    ----------
    X : array_like, or frame
        Sparse and complex ones are refused, and infinite values.
    least : int
        Rows and columns there must be.
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


def numbers(values, name):
    """Any array_like of numbers as float64; None and NaN are missing values, infinite ones an error."""
    values = np.asarray(values)
    if values.dtype.kind == "c":
        raise ValueError(f"{name}: Complex data not supported, got dtype {values.dtype}")
    if values.dtype.kind not in "fiubO":
        raise TypeError(f"{name}: expected numbers, got dtype {values.dtype}")
    try:
        values = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    if np.isinf(values).any():
        raise ValueError(f"{name}: Input {name} contains infinity")
    return values


def _same(a, b):
    try:
        return a is b or (type(a) is type(b) and bool(a == b))
    except ValueError:          # an array's comparison
        return False
