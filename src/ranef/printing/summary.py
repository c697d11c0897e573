"""Records that print themselves: as text, as HTML in a notebook, as Markdown and LaTeX."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import pandas as pd

from ranef.printing.markup import as_html, as_latex, as_markdown
from ranef.printing.pages import Page, TextTable
from ranef.printing.plain_text import as_text


class InNotebook:
    """A record that stands at the end of a notebook's cell: there it says its `str`."""

    def _page(self) -> Page:
        """Return what is shown."""
        first, *others = str(self).split("\n\n")
        return Page(facts=tuple(first.split("\n")), notes=tuple(others))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return as_html(self._page())


class OnPage(InNotebook, ABC):
    """A record that is read as a page."""

    @abstractmethod
    def _page(self) -> Page:
        """Return what is printed."""

    def __str__(self) -> str:
        return as_text(self._page())

    def to_markdown(self) -> str:
        """Return what is printed as Markdown, tables with pipes.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> print(fit.varcorr().to_markdown())
        |          |           | variance |    sd |
        | -------- | --------- | -------: | ----: |
        | Batch    | Intercept |     1764 | 42.00 |
        | Residual |           |     2451 | 49.51 |
        """
        return as_markdown(self._page())

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""Return what is printed as a LaTeX table, for a document with `\usepackage{booktabs}`.

        Parameters
        ----------
        caption : str, optional
            LaTeX; by default the title.
        label : str, optional
            For `\ref`.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> print(fit.varcorr().to_latex(caption="Variance components"))
        \begin{table}
        \centering
        \caption{Variance components}
        \begin{tabular}{llrr}
        \toprule
         &  & variance & sd \\
        \midrule
        Batch & Intercept & $1764$ & $42.00$ \\
        Residual &  & $2451$ & $49.51$ \\
        \bottomrule
        \end{tabular}
        \end{table}
        """
        return as_latex(self._page(), caption, label)


class Printed(OnPage):
    """A record that prints as its summary."""

    @abstractmethod
    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""

    def to_frame(self) -> pd.DataFrame:
        """Return the main table of the summary, unrounded."""
        return self.summary().to_frame()

    def _page(self) -> Page:
        return self.summary()._page()  # noqa: SLF001 -- of the same family


@dataclass(frozen=True, eq=False, repr=False)
class Summary(OnPage):
    """A printed table as an object: what was done, the numbers, how far to trust them.

    Attributes
    ----------
    title : str
    facts : tuple of str
        Lines below the title.
    sections : tuple of (str, DataFrame or str)
        Headings with their tables, or with lines of text.
    notes : tuple of str
        What to know before believing the numbers.
    frame : DataFrame
        The main table, unrounded.
    """

    title: str
    facts: tuple[str, ...]
    sections: tuple[tuple[str, pd.DataFrame | str], ...]
    notes: tuple[str, ...]
    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return the main table, unrounded."""
        return self.frame.copy()

    def _page(self) -> Page:
        sections = tuple(
            (heading, body if isinstance(body, str) else TextTable.of(body))
            for heading, body in self.sections
        )
        return Page(self.title, self.facts, sections, self.notes)
