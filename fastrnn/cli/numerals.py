"""Numbers as tables write them: decimal points and commas, groups of digits, signs, percent signs.

A number such as 3,5 or 1.234,5 can be read in one way only and says what the decimal mark is. 1,234 cannot: where
nothing else in the table tells, it is refused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MISSING", "Evidence", "evidence", "is_missing", "number", "shared_unit"]

MISSING = frozenset(("", "na", "nan", "n/a", "null", "none", "#n/a", "#na", "<na>", "n.a.", "nat", "nil", "-", "--",
                     ".", "?", "k.a.", "k. a.", "n/d", "s/o", "\N{EN DASH}", "\N{EM DASH}"))     # in any case
UNITS = "%€$£¥\N{PER MILLE SIGN}"
OTHER_MARK = {".": ",", ",": "."}
GROUPS = r"\s'\N{RIGHT SINGLE QUOTATION MARK}"      # what may group digits beside the other mark


def is_missing(cell: Any, further: frozenset[str] = frozenset()) -> bool:
    """Whether a cell stands for a missing value."""
    text = str(cell).strip().lower()
    return cell is None or text in MISSING or text in further


@functools.cache
def _pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    """What a number looks like; the groups are the sign, the digits before and after the mark, the exponent."""
    if thousands is None:
        grouped = rf"[1-9]\d{{0,2}}(?:(?P<mark>[{GROUPS}{re.escape(OTHER_MARK[decimal])}])\d{{3}})(?:(?P=mark)\d{{3}})*"
        whole = rf"{grouped}|\d+|(?={re.escape(decimal)}\d)"
    else:
        mark = r"\s" if thousands == " " else re.escape(thousands)
        whole = rf"\d[\d{mark}]*|(?={re.escape(decimal)}\d)"
    return re.compile(rf"([+-]?)\s?({whole})(?:{re.escape(decimal)}(\d*))?(e[+-]?\d+)?", re.IGNORECASE)


def number(cell: Any, decimal: str = ".", thousands: str | None = None) -> float:
    """The number that a cell is, with that decimal mark.

    `thousands` is what groups the digits before it; None: spaces, apostrophes or the other mark, by threes.
    """
    if not isinstance(cell, str):
        return float(cell)
    text = cell.strip().replace("\N{MINUS SIGN}", "-")
    match = _pattern(decimal, thousands).fullmatch(text)
    if match is None:
        if text.strip("+-").lower() in ("inf", "infinity"):
            return float(text)
        raise ValueError(text)
    groups = match.groups()
    sign, whole, fraction, exponent = groups[0], groups[1], groups[-2], groups[-1]
    digits = "".join(filter(str.isdigit, whole))
    return float(f"{sign}{digits or 0}.{fraction or ''}{exponent or ''}")


@dataclass(frozen=True)
class Evidence:
    """What the cells of a column say of the decimal mark.

    Attributes
    ----------
    marks : str
        The marks with which every cell is a number: ".", ",", both or none.
    doubtful : str or None
        The first cell that is one number with a point and another one with a comma.
    last : str
        The mark of most cells: of `marks` if there is any, else that of the cells before the first that is no number.
    """

    marks: str
    doubtful: str | None
    last: str


def evidence(cells: Iterable[str]) -> Evidence:
    """What the cells of a column, none of them missing, say of the decimal mark."""
    marks, doubtful, last = ".,", None, "."
    for cell in cells:
        readings = {}
        for mark in marks:
            try:
                readings[mark] = number(cell, mark)
            except ValueError:
                pass
        marks, last = "".join(readings), marks[0]
        if not marks:
            break
        last = marks[0]
        if len(set(readings.values())) == 2:
            doubtful = doubtful or cell
    return Evidence(marks, doubtful if len(marks) == 2 else None, last)


def shared_unit(cells: Sequence[str]) -> str | None:
    """The percent or currency sign that every cell has before or behind its number; None if there is no such sign."""
    for unit in UNITS if cells else "":
        if unit in cells[0] and all(unit in (cell.strip()[:1], cell.strip()[-1:]) for cell in cells):
            return unit
    return None


