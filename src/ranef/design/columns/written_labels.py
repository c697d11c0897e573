"""What labels are: their types, and text that is written as numbers or dates."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Hashable, Iterable, Iterator
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from ranef.errors import listed

_NO_VALUE = {"", "-", "--", ".", "?", "na", "n/a", "nan", "null", "none", "missing", "unknown"}
_WRITTEN = (  # how measurements are written, the signs that some of them have, and what to do
    (
        r"\d{4}[-/.]\d\d?[-/.]\d\d?([ T][\d:.]+Z?)?",
        "-/.",
        "dates: (pd.to_datetime({}) - pd.Timestamp('2000-01-01')).dt.days makes numbers",
    ),
    (
        r"\d\d?[-/.]\d\d?[-/.](\d{4}|\d\d)( [\d:.]+)?",
        "-/.",
        (
            "dates: (pd.to_datetime({}, dayfirst=True) - pd.Timestamp('2000-01-01')).dt.days, or "
            "with dayfirst=False, makes numbers"
        ),
    ),
    (
        r"[-+]?\d{1,3}(,\d{3})*(\.\d+)?",
        ",",
        "numbers with commas: pd.to_numeric({}.str.replace(',', '')) makes numbers",
    ),
    (
        r"[-+]?\d+(,\d+)?",
        ",",
        "numbers with decimal commas: pd.to_numeric({}.str.replace(',', '.')) makes numbers",
    ),
    (
        r"[$€£]? ?[-+]?\d+(\.\d+)? ?[%$€£]?",
        "%$€£",
        "numbers with a sign: pd.to_numeric({}.str.strip('%$€£ ')) makes numbers",
    ),
)


def numbers_hint(label: str, levels: pd.Index[Any]) -> str:
    """Return a sentence about a factor of text that reads as numbers or dates, else nothing.

    Examples
    --------
    >>> numbers_hint("x", pd.Index(["1.5", "2.5", "n/a"]))
    " `x` is text, as `n/a` is no number: pd.to_numeric(x, errors='coerce') makes numbers of it."
    >>> numbers_hint("x", pd.Index(["0,5", "1,75"]))[:53]
    ' `x` is text that reads as numbers with decimal comma'
    """
    written = next(_written(levels), None)
    if written:
        return f" `{label}` is text that reads as {written.format(label)} of it."
    strays = _strays(levels)
    if strays is None:
        return ""
    why = f"as {listed(strays)} {'is' if len(strays) == 1 else 'are'} no number" * bool(strays)
    why = why or "although all of it reads as numbers"
    return (
        f" `{label}` is text, {why}: pd.to_numeric({label}, errors='coerce') makes numbers of it."
    )


def is_spoilt(levels: pd.Index[Any]) -> bool:
    """Whether text levels are measurements: dates, decimals, or numbers with a word for none.

    Examples
    --------
    >>> is_spoilt(pd.Index(["0", "1", "2", "3+"])), is_spoilt(pd.Index(["0", "1", "2", "n/a"]))
    (False, True)
    """
    if any(_written(levels)):
        return True
    strays = _strays(levels)
    if strays is None or len(strays) * 10 > len(levels) > 10:
        return False
    found = [reading for level in levels for reading in readings(level)]
    is_decimal = any(isinstance(r, float) and not r.is_integer() for r in found)
    return is_decimal or any(stray.strip().lower() in _NO_VALUE for stray in strays)


def _written(levels: pd.Index[Any]) -> Iterator[str]:
    """Yield what would make measurements of text, of which more than half is written alike."""
    if not all(isinstance(level, str) for level in levels):
        return
    for pattern, signs, remedy in _WRITTEN:
        alike = [level for level in levels if re.fullmatch(pattern, level.strip())]
        if 2 * len(alike) > len(levels) and any(sign in text for text in alike for sign in signs):
            yield remedy


def _strays(levels: pd.Index[Any]) -> list[str] | None:
    """Return the levels that are no numbers, if all are text and most are numbers."""
    if not all(isinstance(level, str) for level in levels):
        return None
    strays = [level for level in levels if isinstance(readings(level)[0], str)]
    return strays if 2 * len(strays) < len(levels) else None


def kinds_of(values: Iterable[object]) -> set[str]:
    """Return what the types of values are called."""
    return {_kind(one) for one in set(map(type, values))}


def _kind(one: type) -> str:
    """Return what the values of a type are called."""
    words = {
        "truth value": (bool, np.bool_),
        "complex number": (complex, np.complexfloating),
        "number": (Real, Decimal),
        "text": (str,),
        "time": (dt.datetime, np.datetime64),
        "date": (dt.date,),
    }
    return next((word for word, types in words.items() if issubclass(one, types)), one.__name__)


def readings(label: object) -> tuple[Hashable, ...]:
    """Return what a label may be read as once it has been through a text file."""
    text = label.decode(errors="replace") if isinstance(label, bytes) else str(label)
    text = text.strip().lower().removesuffix(" 00:00:00")
    if isinstance(label, bool | np.bool_):
        return (text, int(label))
    for number in (int, float):
        try:
            return (number(text),)
        except ValueError:
            pass
    return (text,)


def typed(level: object) -> str:
    """Return a label after the word for its type."""
    text = repr(level) if isinstance(level, str) else level
    return f"the {_kind(type(level))} `{text}`"
