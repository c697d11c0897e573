"""A page of what is known about a fit: one line a finding, with the figure that decides."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ranef.printing.pages import Page, TextTable
from ranef.printing.summary import OnPage

FINE, LOOK, TROUBLE = "fine", "look", "trouble"
UNBROKEN = "\N{NO-BREAK SPACE}"
WIDTH, MARGIN, ROOM = 100, 13, 24  # of a page, of the verdicts, for the call at the end of a line


@dataclass(frozen=True)
class Finding:
    """A line of a check.

    Attributes
    ----------
    verdict : {"fine", "look", "trouble"}
    topic : str
    text : str
        A sentence with the figure that decides.
    figure : float
        This figure, nan where it is not one number.
    call : str
        What shows more, or what to do.
    """

    verdict: str
    topic: str
    text: str
    figure: float = np.nan
    call: str = ""


def graded(
    is_fine: bool, topic: str, text: str, figure: float, call: str, *, otherwise: str = LOOK
) -> Finding:
    """Return what is fine, of which no call shows more, or what is otherwise."""
    return Finding(FINE if is_fine else otherwise, topic, text, figure, "" if is_fine else call)


@dataclass(frozen=True, eq=False, repr=False)
class Check(OnPage):
    """What is known about a fit, from `fit.check()`.

    Attributes
    ----------
    title : str
    findings : tuple of Finding
    skipped : tuple of str
        What was not computed, and the call that does.
    """

    title: str
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return the findings: columns `verdict, topic, text, figure, call`."""
        rows = [(f.verdict, f.topic, f.text, f.figure, f.call) for f in self.findings]
        return pd.DataFrame(rows, columns=["verdict", "topic", "text", "figure", "call"])

    @property
    def worst(self) -> str:
        """The worst verdict of all."""
        verdicts = {finding.verdict for finding in self.findings}
        return next((one for one in (TROUBLE, LOOK) if one in verdicts), FINE)

    def _page(self) -> Page:
        table = pd.DataFrame(
            [(f.verdict, f.text, f.call) for f in self._lines()], columns=["", "finding", "more"]
        )
        return Page(self.title, (), (("", TextTable.of(table)),), self._notes())

    def __str__(self) -> str:
        lines = [*textwrap.wrap(self.title, WIDTH), ""]
        for finding in self._lines():
            lines += _as_lines(finding)
        for note in self._notes():
            lines += ["", *textwrap.wrap(note, WIDTH, break_on_hyphens=False)]
        return "\n".join(line.rstrip() for line in lines)

    def _lines(self) -> list[Finding]:
        """Return the findings, and that there is no trouble where there is none."""
        none = [] if self.worst == TROUBLE else [Finding(TROUBLE, "", "-")]
        return [*self.findings, *none]

    def _notes(self) -> tuple[str, ...]:
        return (f"Not computed: {'; '.join(self.skipped)}.",) if self.skipped else ()


def _as_lines(finding: Finding) -> list[str]:
    """Return the lines of a finding: verdict, wrapped text, and the call at the right."""
    width = WIDTH - MARGIN - (max(ROOM, len(finding.call) + 2) if finding.call else 0)
    kept = finding.text.replace("(p = ", f"(p{UNBROKEN}={UNBROKEN}")
    lines = textwrap.wrap(kept, width, break_on_hyphens=False)
    first, *others = (line.replace(UNBROKEN, " ") for line in lines)
    head = f"  {finding.verdict:<{MARGIN - 2}}{first:<{width}}"
    if finding.call:
        head = f"{head}  {finding.call}"
    return [head, *(" " * MARGIN + other for other in others)]
