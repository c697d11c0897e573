"""Printed tables as objects: the variance components, the summary of a fit, and their layout.

Plain text for a terminal, HTML for a notebook, a DataFrame for everything else.
"""

from __future__ import annotations

import html
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.design.design import Design, RandomTerm
from ranef.families.family import Family

WIDTH = 100
_DECIMALS = {"ess_bulk": 0, "ess_tail": 0, "n": 0, "t": 2, "z": 2, "df": 2, "r_hat": 3}
_SAME_UNIT = ("estimate", "mean", "se", "sd", "lower", "upper")
_DIGITS = {"mcse_mean": 2, "p_value": 3}
_SPREADS = ("se", "sd", "variance")
MOST_DECIMALS = 6  # that a small spread gives to a block
SMALLEST_ORDER, LARGEST_ORDER = -5, 7  # powers of ten of what is written without an exponent
NOTHING = 1e-8  # of an error, below which a number is rounding
MOST_RATIO = 1e12  # of a number to its error
_NO_VARIANCES = "no variance components"


@dataclass(frozen=True, eq=False)
class VarCorr:
    """Standard deviations and correlations of the random effects.

    Attributes
    ----------
    sd : dict of str to Series
        By term label: the standard deviation of each coefficient.
    corr, cov : dict of str to DataFrame
        By term label: correlations (nan where a variance is zero) and covariances.
    sigma : float
        The residual standard deviation, or the family's scale; 1 where it has none.
    sigma2 : float
        The residual variance.
    correlated : frozenset of str
        Labels of the terms whose coefficients may be correlated.
    has_sigma : bool
        Whether there is a sigma, and with it a row `Residual` in the tables.

    Notes
    -----
    Of a posterior all of these are means, and the mean of a variance is larger than the square of
    the mean standard deviation.
    """

    sd: dict[str, pd.Series[float]]
    corr: dict[str, pd.DataFrame]
    cov: dict[str, pd.DataFrame]
    sigma: float
    sigma2: float
    correlated: frozenset[str]
    has_sigma: bool = True

    @property
    def table(self) -> pd.DataFrame:
        """Tidy table with columns `grp, var1, var2, vcov, sdcor`, as lme4's `as.data.frame`."""
        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for label, sd in self.sd.items():
            cov, corr = self.cov[label].to_numpy(), self.corr[label].to_numpy()
            pairs = combinations(range(len(sd)), 2)
            rows += [(label, name, None, cov[i, i], sd.iloc[i]) for i, name in enumerate(sd.index)]
            if label in self.correlated:
                rows += [(label, sd.index[i], sd.index[j], cov[i, j], corr[i, j]) for i, j in pairs]
        if self.has_sigma:
            rows.append(("Residual", None, None, self.sigma2, self.sigma))
        return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])

    def printed(self) -> pd.DataFrame:
        """Return the table for people: one row a coefficient, correlations with those above."""
        rows, index = [], []
        width = max((len(self.sd[t]) - 1 for t in self.correlated), default=0)
        for label, sd in self.sd.items():
            cov, corr = self.cov[label].to_numpy(), self.corr[label].to_numpy()
            for i, name in enumerate(sd.index):
                above = range(i) if label in self.correlated else ()
                words = [shown(corr[i, j], 3) for j in above]
                rows.append([cov[i, i], sd.iloc[i], *words, *[""] * (width - len(words))])
                index.append((label if i == 0 else "", name))
        if self.has_sigma:
            rows.append([self.sigma2, self.sigma, *[""] * width])
            index.append(("Residual", ""))
        blank = [" " * i for i in range(1, width)]  # heads that differ, but not to the eye
        heads = ["variance", "sd", *(["corr", *blank] if width else [])]
        labels = pd.MultiIndex.from_arrays([[pair[i] for pair in index] for i in (0, 1)])
        return pd.DataFrame(rows, labels, heads)

    def __repr__(self) -> str:
        return as_text(self.printed()) if self._has_rows else _NO_VARIANCES

    def _repr_html_(self) -> str:
        return as_html(self.printed()) if self._has_rows else f"<p>{_NO_VARIANCES}</p>"

    @property
    def _has_rows(self) -> bool:
        return self.has_sigma or bool(self.sd)


class Printed(ABC):
    """A record that prints as its summary."""

    @abstractmethod
    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""

    def __str__(self) -> str:
        return str(self.summary())

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


@dataclass(frozen=True, eq=False)
class Summary:
    """A printed table as an object: what was done, the numbers, how far to trust them.

    Attributes
    ----------
    title : str
    facts : tuple of str
        Lines below the title.
    sections : tuple of (str, DataFrame)
        Headings with their tables.
    notes : tuple of str
        What to know before believing the numbers.
    frame : DataFrame
        The main table, unrounded.
    """

    title: str
    facts: tuple[str, ...]
    sections: tuple[tuple[str, pd.DataFrame], ...]
    notes: tuple[str, ...]
    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return the main table, unrounded."""
        return self.frame.copy()

    def __str__(self) -> str:
        lines = [wrapped(self.title), *(indented(wrapped(fact, WIDTH - 2)) for fact in self.facts)]
        for heading, table in self.sections:
            lines += ["", heading, indented(as_text(table))]
        if self.notes:
            lines += ["", *(wrapped(note) for note in self.notes)]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{html.escape(self.title)}</b></p>"]
        parts += [f"<div>{html.escape(fact)}</div>" for fact in self.facts]
        for heading, table in self.sections:
            parts.append(f"<p><b>{html.escape(heading)}</b></p>{as_html(table)}")
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "\n".join(parts)


def tidy_effects(
    terms: Sequence[RandomTerm],
    values: Sequence[tuple[Array, Array, Array, Array]],
    interval: str,
    coefs: Sequence[tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """Tabulate random effects: one row a level and coefficient, one term after the other.

    Parameters
    ----------
    terms : sequence of RandomTerm
    values : sequence of (estimate, sd, lower, upper)
        Per term, arrays of shape (m, k), or of m k elements.
    interval : str
        What the intervals are.
    coefs : sequence of tuple of str, optional
        The coefficients of each term, if not those of its random effects.

    Returns
    -------
    DataFrame
        Columns `term, level, coef, estimate, sd, lower, upper`; `interval` among its `attrs`.
    """
    names = [term.coefs for term in terms] if coefs is None else coefs
    tables = [_effects(*each) for each in zip(terms, names, values, strict=True)]
    if tables:
        table = pd.concat(tables, ignore_index=True)
    else:
        words = pd.DataFrame(columns=["term", "level", "coef"], dtype=object)
        table = words.assign(**dict.fromkeys(("estimate", "sd", "lower", "upper"), np.empty(0)))
    table.attrs["interval"] = interval
    return table


def _effects(
    term: RandomTerm, coefs: tuple[str, ...], values: tuple[Array, Array, Array, Array]
) -> pd.DataFrame:
    names = ("estimate", "sd", "lower", "upper")
    words = {
        "term": term.label,
        "level": np.repeat(term.levels.to_numpy(), len(coefs)),
        "coef": np.tile(np.array(coefs, dtype=object), term.n_levels),
    }
    numbers = {name: column.ravel() for name, column in zip(names, values, strict=True)}
    return pd.DataFrame(words | numbers)


def extras(design: Design, family: Family, *, knows_sigma: bool = False) -> list[str]:
    """Return what a fit uses besides its columns, in words: trials, prior weights, an offset."""
    used = []
    if knows_sigma:
        used.append("known standard errors")
    elif design.has_weights:
        used.append(f"{design.total_weight:.0f} trials" if family.has_trials else "prior weights")
    return used + ["an offset"] * design.has_offset


def as_text(table: pd.DataFrame) -> str:
    """Return a table as aligned text, with as many decimals as the numbers need.

    Examples
    --------
    >>> print(as_text(pd.DataFrame({"sd": [24.74, np.nan]}, index=["Subject", ""])))
                  sd
    Subject  24.7400
    """
    lines = as_strings(table).to_string().split("\n")
    return "\n".join(line.rstrip() for line in lines)


def as_html(table: pd.DataFrame) -> str:
    """Return a table as HTML, numbers as in `as_text`, in the style of pandas."""
    return as_strings(table).to_html()


def as_strings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its numbers as text; nan becomes empty, and 0 is exactly zero.

    Columns in one unit have the same number of decimals: estimates, their errors, their bounds.
    A number that these do not show has its own, by `shown`: two digits of the error in its row,
    or four of its own.
    """
    same = [name for name in table.columns if name in _SAME_UNIT]
    noisy = "mcse_mean" in table.columns
    together = _decimals(same, table[same].to_numpy(), digits=4 if noisy else 6) if same else 0
    errors = [name for name in same if name in _SPREADS and len(same) > 1]
    sizes = np.abs(table[errors[0]].to_numpy()) if errors else np.full(len(table), np.nan)
    columns = {}
    for name in table.columns:
        values, is_same = table[name], name in same
        if values.dtype.kind != "f":
            columns[name] = [str(v) for v in values]
        elif name in _DIGITS:
            columns[name] = ["" if np.isnan(v) else f"{v:.{_DIGITS[name]}g}" for v in values]
        elif name in _DECIMALS:
            columns[name] = [shown(v, _DECIMALS[name]) for v in values]
        else:
            decimals = together if is_same else _decimals([name], values.to_numpy()[:, None])
            own = sizes if is_same else np.abs(values.to_numpy())
            least = 2 if is_same and errors else 4
            pairs = zip(values, own, strict=True)
            columns[name] = [
                shown(v, decimals, size if size > 0 else abs(v), least) for v, size in pairs
            ]
    return pd.DataFrame(columns, index=table.index)


def shown(x: float, decimals: int, size: float | None = None, least: int = 2) -> str:
    """Return a number with some decimals, or with more where these would not show it.

    Parameters
    ----------
    x : float
    decimals : int
    size : float, optional
        Of what two digits have to be seen: the error of x, or x itself.
    least : int
        How many digits x has where the decimals are not enough.

    Examples
    --------
    >>> shown(251.4051, 3), shown(0.00041, 3), shown(0.0, 3)
    ('251.405', '0.00041', '0')
    >>> shown(5.023e-9, 3, 1e-10), shown(1.0, 2, 3e-4)
    ('5.02e-09', '1.00000')
    """
    if x == 0 or not np.isfinite(x):
        return "" if np.isnan(x) else f"{x:g}"
    order, text = _order(abs(x)), f"{x:.{decimals}f}"
    if size is None or not np.isfinite(size):
        needed, noise = decimals, NOTHING
    else:
        needed, noise = 1 - _order(max(size, abs(x) / MOST_RATIO)), NOTHING * size
    is_seen = float(text) != 0 or abs(x) < noise
    if needed <= decimals and order <= LARGEST_ORDER and is_seen:
        return text if float(text) else text.lstrip("-")
    digits = max(order + needed + 1, 6 if order > LARGEST_ORDER else least)
    return f"{x:#.{digits}g}"


def indented(text: str) -> str:
    """Return text with two spaces before every line."""
    return "\n".join(f"  {line}".rstrip() for line in text.split("\n"))


def wrapped(text: str, width: int = WIDTH) -> str:
    """Return a sentence in lines of at most `width` characters."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _decimals(names: Sequence[str], values: Array, digits: int = 6) -> int:
    """Return the decimals of a block: so many digits of the largest, two of every usual spread."""
    values = np.where(np.isfinite(values), np.abs(values), 0.0)
    largest = values.max(initial=0.0)
    if largest == 0 or _order(largest) < SMALLEST_ORDER:
        return 0
    order = _order(largest)
    spreads = values[:, [name in _SPREADS for name in names]]
    smallest = spreads[spreads >= 10.0 ** (1 - MOST_DECIMALS)].min(initial=largest)
    return max(0, digits - 1 - order - (order < 0), 1 - _order(smallest))


def _order(number: float) -> int:
    return int(np.floor(np.log10(number)))
