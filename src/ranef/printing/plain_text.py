"""A page as plain text, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ranef.printing.pages import Page, TextTable

WIDTH = 100
GAP = "  "  # between columns
LABEL_WIDTH = 60  # of all row labels together; longer ones are broken


def as_text(page: Page) -> str:
    """Return a page as text: title, facts, tables, notes.

    Examples
    --------
    >>> print(as_text(Page("Title", ("a fact",), (("Heading", "lines"),), ("A note.",))))
    Title
      a fact
    <BLANKLINE>
    Heading
      lines
    <BLANKLINE>
    A note.
    """
    blocks = []
    if page.title:
        facts = [indented(wrapped(fact, WIDTH - 2)) for fact in page.facts]
        blocks.append("\n".join([wrapped(page.title), *facts]))
    elif page.facts:
        blocks.append("\n".join(map(wrapped, page.facts)))
    for heading, body in page.sections:
        width = WIDTH - 2 * bool(heading)
        text = body if isinstance(body, str) else table_as_text(body, width)
        blocks.append(f"{wrapped(heading)}\n{indented(text)}" if heading else text)
    if page.notes:
        blocks.append("\n".join(map(wrapped, page.notes)))
    return "\n\n".join(blocks)


def table_as_text(cells: TextTable, width: int = WIDTH) -> str:
    """Return a table in aligned columns; those that find no room follow below, labels again."""
    n = cells.n_labels
    most = _widest(cells)
    labels = [_justified(cells, i, most) for i in range(n)]
    others = [_justified(cells, i, width) for i in range(n, len(cells.heads))]
    room = width - sum(len(column[0][0]) + len(GAP) for column in labels)
    parts: list[list[list[list[str]]]] = [[]]
    for column in others:
        used = sum(len(other[0][0]) + len(GAP) for other in parts[-1])
        if parts[-1] and used + len(column[0][0]) > room:
            parts.append([])
        parts[-1].append(column)
    return "\n\n".join(_lines([*labels, *part]) for part in parts)


def indented(text: str) -> str:
    """Return text with two spaces before every line."""
    return "\n".join(f"  {line}".rstrip() for line in text.split("\n"))


def wrapped(text: str, width: int = WIDTH) -> str:
    """Return a sentence in lines of at most `width` characters."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _widest(cells: TextTable) -> int:
    """Return the width that no column of labels may have more of, all of them in a page."""
    lines = [[*head.split("\n"), *c] for head, c in zip(cells.heads, cells.columns, strict=True)]
    widths = [max(map(len, texts)) for texts in lines[: cells.n_labels]]
    fitting = (
        w for w in range(LABEL_WIDTH, 1, -1) if sum(min(w, x) for x in widths) <= LABEL_WIDTH
    )
    return next(fitting, 1)


def _justified(cells: TextTable, place: int, most: int) -> list[list[str]]:
    """Return the lines of each cell of a column, its head first, all of the same width."""
    head, texts = cells.heads[place], cells.columns[place]
    broken = [_broken(text, most) for text in (head, *texts)]
    width = max(len(line) for lines in broken for line in lines)
    side = ">" if cells.are_numbers[place] else "<"
    return [[f"{line:{side}{width}}" for line in lines] for lines in broken]


def _broken(text: str, most: int) -> list[str]:
    """Return the lines of a cell: its own, and what of them is too long, between words."""
    parts: list[str] = []
    for line in text.split("\n"):
        fits = len(line) <= most or line.isspace()
        parts += [line] if fits else textwrap.wrap(line, most, break_on_hyphens=False)
    return parts


def _lines(columns: Sequence[Sequence[Sequence[str]]]) -> str:
    """Return rows of cells as lines; what a cell has more than one line of stands below."""
    blanks = [" " * len(column[0][0]) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        for i in range(max(map(len, row))):
            parts = [cell[i] if i < len(cell) else b for cell, b in zip(row, blanks, strict=True)]
            lines.append(GAP.join(parts).rstrip())
    return "\n".join(lines)
