"""How estimators look in a notebook: as scikit-learn shows its own, or a small table where scikit-learn is missing."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .estimator import Estimator

__all__ = ["estimator_html"]


def estimator_html(estimator: Estimator) -> str:
    """HTML of an estimator.

    Parameters
    ----------
    estimator : Estimator
        Fitted or not.

    Returns
    -------
    str
        A fragment of HTML.
    """
    try:
        from sklearn.utils import estimator_html_repr
    except ImportError:
        return _table(estimator)
    return str(estimator_html_repr(estimator))


def _table(estimator: Estimator) -> str:
    """The parameters in a table that unfolds, those that are no defaults in bold."""
    changed, rows = estimator._changed(), []
    for name, value in estimator.get_params(deep=False).items():
        cells = f"<td>{html.escape(name)}</td><td>{html.escape(_short(value))}</td>"
        style = ' style="font-weight: bold"' if name in changed else ""
        rows.append(f"<tr{style}>{cells}</tr>")
    state = "fitted" if estimator.__sklearn_is_fitted__() else "not fitted"
    return (f"<details><summary><code>{html.escape(repr(estimator))}</code>, {state}</summary>"
            f"<table><thead><tr><th>parameter</th><th>value</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
            "</details>")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
