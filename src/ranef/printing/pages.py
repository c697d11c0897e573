"""Pages: a title, facts, tables of cells that are text already, and notes.

Text, HTML, Markdown and LaTeX are four ways to write a page, so that they say the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import pandas as pd
from pandas.api.types import is_numeric_dtype

from ranef.printing.digits import as_strings

MOST_ROWS = 60  # of a table that is printed whole
ENDS = 5  # rows at either end of one that is not

_NUMBER = re.compile(r"([-+]?\d[\d,]*|[-+]?inf)(.*)", re.DOTALL)


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes
    ----------
    heads : tuple of str
        Of all columns, those of row labels first; they may be of several lines.
    columns : tuple of tuple of str
        The texts of each column: numbers of the same width, so that their points line up.
    n_labels : int
        How many columns are labels of rows.
    are_numbers : tuple of bool
        By column.
    """

    heads: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    n_labels: int
    are_numbers: tuple[bool, ...]

    @classmethod
    def of(cls, table: pd.DataFrame) -> TextTable:
        """Return the cells of a table: see `digits.as_strings` for its numbers.

        Row numbers are no labels where the first columns are words, which label rows themselves.
        """
        texts, index = as_strings(table), table.index
        words = list(takewhile(lambda name: not is_numeric_dtype(table[name]), table.columns))
        is_counted = isinstance(index, pd.RangeIndex) and index.name is None and bool(words)
        labels = [] if is_counted else [index.get_level_values(i) for i in range(index.nlevels)]
        n_labels = len(words) if is_counted else len(labels)
        heads = [*("" if label.name is None else str(label.name) for label in labels)]
        heads += [str(name) for name in table.columns]
        columns = [[str(value) for value in label] for label in labels]
        columns += [list(texts.iloc[:, i]) for i in range(texts.shape[1])]
        found = [_aligned(column) for column in columns]
        are_numbers = tuple(is_number for _, is_number in found)
        return cls(tuple(heads), tuple(tuple(c) for c, _ in found), n_labels, are_numbers)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The texts row by row."""
        return list(zip(*self.columns, strict=True))

    def cut(self) -> TextTable:
        """Return the first and last rows of a table that is too long to be read."""
        n = len(self.columns[0]) if self.columns else 0
        if n <= MOST_ROWS:
            return self
        kept = tuple((*c[:ENDS], "...", *c[-ENDS:]) for c in self.columns)
        return TextTable(self.heads, kept, self.n_labels, self.are_numbers)


@dataclass(frozen=True)
class Page:
    """What is printed: what was done, the numbers, how far to trust them.

    Attributes
    ----------
    title : str
    facts : tuple of str
        Lines below the title.
    sections : tuple of (str, TextTable or str)
        Headings with their tables, or with lines of text.
    notes : tuple of str
    """

    title: str = ""
    facts: tuple[str, ...] = ()
    sections: tuple[tuple[str, TextTable | str], ...] = ()
    notes: tuple[str, ...] = ()


def _aligned(texts: Sequence[str]) -> tuple[list[str], bool]:
    """Return the texts of a column, those of numbers with their points in line, and whether so."""
    found = [_NUMBER.fullmatch(text) for text in texts]
    sentences = sum(" " in text for text, match in zip(texts, found, strict=True) if not match)
    if sentences >= sum(map(bool, found)):  # one of which may begin with a number
        return list(texts), False
    before = max(len(match[1]) for match in found if match)
    after = max(len(match[2]) for match in found if match)
    width = max(
        before + after, *(len(t) for t, match in zip(texts, found, strict=True) if not match), 0
    )
    padded = [
        f"{match[1]:>{width - after}}{match[2]:<{after}}" if match else f"{text:>{width}}"
        for text, match in zip(texts, found, strict=True)
    ]
    return padded, True
