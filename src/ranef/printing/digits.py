"""How many digits of a number are shown: two of its error, or four of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ranef._typing import Array

ERROR_DIGITS = 2  # of an error that are shown, and of all that it is the error of
OWN_DIGITS = 4  # of a number without an error
MOST_DIGITS = 13  # of a number that has nearly no error
LARGEST_ORDER = 7  # power of ten of a number without error that is written in full
NORMAL_WIDTH = 4.0  # of a 95 % interval, in standard errors
MAX_SPELLED = 1e5  # beyond, a power of ten says how large a ratio is
LN10 = float(np.log(10.0))
ALMOST_ONE = 0.99  # of a probability whose distance from one has a digit
SMALLEST_REST = 1e-4  # of that distance, that is not said by itself
SMALLEST_LOG = 3 * LN10  # of what is written without an exponent, below one

_ERRORS = ("se", "sd")
_SAME_UNIT = ("estimate", "mean", "median", "link", "bias", "lower", "upper")
_TWO_DECIMALS = [
    *("loglik", "deviance", "objective", "aic", "bic", "AIC", "BIC", "statistic"),
    *("log_marginal_likelihood", "elpd", "elpd_se", "t", "z", "F", "chi2", "df", "df_den"),
]
_DECIMALS = dict.fromkeys(_TWO_DECIMALS, 2) | {"df_num": 0, "r_hat": 3, "probability": 3}
_COUNTS = ("n", "ess_bulk", "ess_tail", "n_draws")
_DIGITS = {"mcse_mean": 2, "p_value": 3}


def as_strings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its numbers as text; nan becomes empty.

    In a row with an error, `se` or `sd`, all numbers in its unit (estimate, mean, bounds) are
    rounded to two significant digits of it. Without one, bounds tell how large it is. A number
    without any error has four digits.

    Examples
    --------
    >>> table = pd.DataFrame({"estimate": [251.405, 5.023e-9], "se": [6.825, 0.996e-9]})
    >>> as_strings(table).to_numpy().tolist()
    [['251.4', '6.8'], ['5.02e-09', '1.0e-09']]
    """
    together = _unit_columns(table)
    are_errors = [name in _ERRORS for name in together]
    numbers = table[together].to_numpy(dtype=np.float64)
    rows = [
        _row(values, _places(values, error, are_errors))
        for values, error in zip(numbers, _errors(table), strict=True)
    ]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(together)}
    columns |= {name: _column(name, table[name]) for name in table.columns if name not in columns}
    return pd.DataFrame({name: columns[name] for name in table.columns}, index=table.index)


def significant(x: float, digits: int = OWN_DIGITS) -> str:
    """Return a number with so many digits, or all before the point.

    Examples
    --------
    >>> significant(24.74066), significant(654321.2), significant(-3.2123e-7), significant(0.0)
    ('24.74', '654321', '-3.212e-07', '0')
    """
    return _row([x], [_own_place(x, digits)])[0]


def shown(x: float, decimals: int) -> str:
    """Return a number with some decimals, or with two digits where these would not show it.

    Examples
    --------
    >>> shown(251.4051, 3), shown(0.00041, 3), shown(0.0, 3)
    ('251.405', '0.00041', '0')
    """
    if x == 0 or not np.isfinite(x):
        return _special(x)
    text = f"{x:.{decimals}f}"
    return text if float(text) and abs(x) < 10.0**LARGEST_ORDER else f"{x:#.{ERROR_DIGITS}g}"


def probability(value: float) -> str:
    """Return a probability with two digits that count, and never as a one that it is not.

    Examples
    --------
    >>> [probability(p) for p in (0.643, 0.9996, 1.0, 0.011, 3.3e-9, 0.0)]
    ['0.64', '0.9996', '1', '0.011', '3e-9', '0']
    """
    if value in (0.0, 1.0):
        return f"{value:.0f}"
    if value > ALMOST_ONE:
        rest = float(f"{1 - value:.1g}")
        return f"1 - {rest:.0e}".replace("e-0", "e-") if rest < SMALLEST_REST else f"{1 - rest:.6g}"
    return spelled(float(np.log(value)))


def spelled(log: float) -> str:
    """Return exp(log) with two digits that count, what is very large or small with an exponent.

    Examples
    --------
    >>> [spelled(np.log(x)) for x in (1.05, 3.14, 20.3, 1430.0, 2.0e8, 5.1e-9)]
    ['1.1', '3.1', '20', '1,400', '2e8', '5e-9']
    """
    if not -SMALLEST_LOG <= log < np.log(MAX_SPELLED):
        power = int(np.floor(log / LN10))
        digit = round(float(np.exp(log - power * LN10)))
        return f"{digit}e{power}" if digit < 10 else f"1e{power + 1}"
    rounded = float(f"{np.exp(log):.2g}")
    decimals = max(0, 1 - int(np.floor(np.log10(rounded))))
    return f"{rounded:,.{decimals}f}"


def _unit_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of a table that are in one unit, an error or an interval among them."""
    numbers = [name for name in table.columns if table[name].dtype.kind == "f"]
    errors = [name for name in numbers if name in _ERRORS]
    same = [name for name in numbers if name in (*_SAME_UNIT, *_ERRORS)]
    has_interval = {"lower", "upper"} <= set(numbers)
    return same if has_interval or (errors and len(same) > 1) else []


def _errors(table: pd.DataFrame) -> Array:
    """Return the error of each row; nan where there is none."""
    found = np.full(len(table), np.nan)
    if {"lower", "upper"} <= set(table.columns):
        found = (table["upper"] - table["lower"]).to_numpy(dtype=np.float64) / NORMAL_WIDTH
    for name in _ERRORS:
        if name in table.columns and table[name].dtype.kind == "f":
            own = table[name].to_numpy(dtype=np.float64)
            found = np.where(np.isfinite(own) & (own > 0), own, found)
    return np.where(np.isfinite(found) & (found > 0), found, np.nan)


def _column(name: str, values: pd.Series[float]) -> list[str]:
    """Return the texts of a column by itself."""
    if values.dtype.kind != "f":
        return [_text(value) for value in values]
    if name in _COUNTS:
        return ["" if np.isnan(v) else f"{v:.0f}" for v in values]
    if name in _DIGITS:
        return ["" if np.isnan(v) else f"{v:.{_DIGITS[name]}g}" for v in values]
    if name in _DECIMALS:
        return [shown(v, _DECIMALS[name]) for v in values]
    return [significant(v) for v in values]


def _text(value: object) -> str:
    if isinstance(value, float | np.floating):
        return significant(float(value))
    return "" if value is None or value is pd.NA or value is pd.NaT else str(value)


def _places(values: Array, error: float, are_errors: Sequence[bool]) -> list[int]:
    """Return the power of ten of the last digit of each number of a row."""
    own = [_own_place(float(v), OWN_DIGITS) for v in values]
    if np.isnan(error):
        return own
    place = _order(error) - ERROR_DIGITS + 1
    most = [max(place, _order(float(v)) - MOST_DIGITS + 1) for v in values]
    of_errors = [_own_place(float(v), ERROR_DIGITS, to_point=False) for v in values]
    return [
        a if is_error else b for a, b, is_error in zip(of_errors, most, are_errors, strict=True)
    ]


def _own_place(x: float, digits: int, *, to_point: bool = True) -> int:
    """Return the place of the last of some digits of a number, or of the point."""
    if x == 0 or not np.isfinite(x):
        return 0
    order = int(f"{x:.{digits - 1}e}".split("e")[1])  # once it is rounded
    place = order - digits + 1
    return 0 if to_point and place > 0 and order <= LARGEST_ORDER else place


def _row(values: Sequence[float] | Array, places: Sequence[int]) -> list[str]:
    """Return the texts of numbers with exponents where these make the longest shorter."""
    pairs = [(float(v), place) for v, place in zip(values, places, strict=True)]
    plain, powers = ([write(*pair) for pair in pairs] for write in (_plain, _power))
    widths = [max(map(len, texts), default=0) for texts in (plain, powers)]
    return plain if widths[0] <= widths[1] else powers


def _plain(x: float, place: int) -> str:
    if x == 0 or not np.isfinite(x):
        return _special(x)
    return _unsigned_zero(f"{round(x, -place):.{max(-place, 0)}f}")


def _power(x: float, place: int) -> str:
    if x == 0 or not np.isfinite(x):
        return _special(x)
    x = round(x, -place)
    return f"{x:.{max(_order(x) - place, 0)}e}" if x else f"0e{place:+03d}"


def _special(x: float) -> str:
    return "" if np.isnan(x) else f"{x:g}".removeprefix("-0") or "0"


def _unsigned_zero(text: str) -> str:
    return text if float(text) else text.lstrip("-")


def _order(x: float) -> int:
    return int(f"{x:.16e}".split("e")[1]) if np.isfinite(x) else 0
