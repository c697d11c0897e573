"""How tables of numbers are printed: plain text for a terminal, HTML for a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import pandas as pd

_EXACT = {"ess_bulk", "ess_tail", "n"}
_THREE = {"corr", "r_hat", "t"}


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
        lines = [self.title, *(f"  {fact}" for fact in self.facts)]
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
            parts.append(f"<p><b>{html.escape(heading)}</b></p>{as_strings(table).to_html()}")
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "\n".join(parts)


def as_text(table: pd.DataFrame) -> str:
    """Return a table as aligned text, every column with as many decimals as it needs.

    Examples
    --------
    >>> print(as_text(pd.DataFrame({"sd": [24.74, np.nan]}, index=["Subject", ""])))
                  sd
    Subject  24.7400
    """
    lines = as_strings(table).to_string().split("\n")
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")


def as_strings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its numbers as text; nan becomes empty."""
    return pd.DataFrame(
        {name: _column(str(name), table[name]) for name in table.columns}, index=table.index
    )


def indented(text: str) -> str:
    """Return text with two spaces before every line."""
    return "\n".join(f"  {line}".rstrip() for line in text.split("\n"))


def wrapped(text: str, width: int = 100) -> str:
    """Return a sentence in lines of at most `width` characters."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".lstrip()
    return "\n".join([*lines, line])


def _column(name: str, values: pd.Series) -> list[str]:
    if values.dtype.kind != "f":
        return [str(v) for v in values]
    spec = f".{_decimals(name, values.to_numpy())}"
    return ["" if np.isnan(v) else format(v, spec) for v in values]


def _decimals(name: str, values: np.ndarray) -> str:
    """Return a format: six significant digits of the largest number, fixed point where readable."""
    if name in _EXACT:
        return "0f"
    if name in _THREE:
        return "3f"
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    if largest == 0:
        return "3f"
    order = int(np.floor(np.log10(largest)))
    if not -5 <= order <= 7:
        return "5g"
    return f"{max(0, 5 - order if order >= 0 else 4 - order)}f"
