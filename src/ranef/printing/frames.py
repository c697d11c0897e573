"""Data frames that print themselves as other tables of the package do."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ranef.printing.markup import as_html
from ranef.printing.pages import Page, TextTable
from ranef.printing.plain_text import as_text
from ranef.printing.summary import OnPage

_CAPTIONS = ("shown", "predicted", "test", "interval")  # among the attributes of a frame


def captioned(frame: pd.DataFrame, **words: str) -> Table:
    """Return a frame as a table whose attributes say what it is.

    Parameters
    ----------
    frame : DataFrame
    **words : str
        What is `shown`, what is `predicted`, what the `test` is, and the `interval`.
    """
    table = Table(frame)
    table.attrs |= frame.attrs | words
    return table


class Table(OnPage, pd.DataFrame):  # type: ignore[misc]
    """A data frame that prints itself with the digits that its errors leave, and says what it is.

    Columns or rows that are chosen by `table[...]` are a table too; all else that is made of it,
    such as by rounding, is a `DataFrame` like any other. A table of more than 60 rows shows the
    first and the last; `to_string()` shows all.

    Examples
    --------
    >>> table = Table({"level": ["a", "b"], "estimate": [251.405, 0.01], "sd": [6.825, 0.0031]})
    >>> table.attrs["interval"] = "posterior mean"
    >>> table
    posterior mean
    <BLANKLINE>
    level  estimate     sd
    a       251.4     6.8
    b         0.0100  0.0031
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if not isinstance(found, pd.DataFrame):
            return found
        table = captioned(found)
        if "lower" in self and "lower" not in table:
            table.attrs.pop("interval", None)
        return table

    def to_frame(self) -> pd.DataFrame:
        """Return the numbers as a DataFrame without a print of its own."""
        return self.copy()

    def _page(self, *, whole: bool = True) -> Page:
        cells = TextTable.of(pd.DataFrame(self))
        caption = "; ".join(str(self.attrs[name]) for name in _CAPTIONS if name in self.attrs)
        size = f"{len(self)} rows, of which the first and the last are shown."
        is_cut = not whole and cells != cells.cut()
        return Page(
            facts=(caption,) * bool(caption),
            sections=(("", cells if whole else cells.cut()),),
            notes=(size,) * is_cut,
        )

    def __str__(self) -> str:
        return as_text(self._page(whole=False))

    def _repr_html_(self) -> str:
        return as_html(self._page(whole=False))
