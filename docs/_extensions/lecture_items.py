"""What lecture notes show, one thing after the other, and the lines, which are run, that do it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import HTML

DATA = Path(__file__).parents[1] / "_data" / "lecture_items.txt"
VERDICTS = {"yes": "in a line or two", "partly": "partly", "no": "not"}


@dataclass(frozen=True)
class Item:
    """A thing that notes show.

    Attributes
    ----------
    number, verdict, target, what : str
        `target` is a page and a place in it, `#place` of this page, or "-".
    code : str
        What does it.
    holds : str
        What is true then, or empty.
    remark : str
        Why it can be done in part only, or not.
    """

    number: str
    verdict: str
    target: str
    what: str
    code: str
    holds: str
    remark: str

    def run(self, names: dict[str, Any]) -> None:
        """Run the code among the variables of a page, and see that it says what it must."""
        try:
            with redirect_stdout(StringIO()):
                exec(self.code, names)  # noqa: S102 -- the page's own code
            holds = not self.holds or bool(eval(self.holds, names))  # noqa: S307
        except Exception as error:
            raise RuntimeError(f"{self.number}, `{self.code}`, does not run") from error
        if not holds:
            raise RuntimeError(f"{self.number}: `{self.holds}` is not true")
        plt.close("all")

    def is_written(self) -> bool:
        """Whether the page that it is shown on is there."""
        page = self.target.partition("#")[0]
        return not page or (DATA.parents[1] / f"{page}.md").exists()

    def html(self) -> str:
        """Return a row of a table."""
        words = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(self.remark, quote=False))
        code = "<br>".join(
            f"<code>{escape(line, quote=False)}</code>" for line in self.code.splitlines()
        )
        page, _, place = self.target.partition("#")
        page += ".html" * bool(page)
        link = f'<a href="{page}#{place}">shown</a>' if place and self.is_written() else ""
        said = "" if self.verdict == "yes" else f"<b>{self.verdict.capitalize()}.</b> {words}"
        cells = [self.number, escape(self.what), "<br>".join(x for x in (code, said) if x), link]
        return "<tr>" + " ".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def items() -> list[Item]:
    """Return all of them, in the order of the notes."""
    return [_item(block) for block in re.split(r"\n\s*\n", DATA.read_text().strip())]


def _item(block: str) -> Item:
    head, what, *lines = block.splitlines()
    number, verdict, target = head.split()
    marked = {mark: [x[2:] for x in lines if x.startswith(mark)] for mark in ("= ", "# ")}
    code = [line for line in lines if not line.startswith(("= ", "# "))]
    holds, remark = " and ".join(marked["= "]), " ".join(marked["# "])
    return Item(number, verdict, target, what, "\n".join(code), holds, remark)


def run_all(names: dict[str, Any]) -> list[Item]:
    """Run all of them, in their order."""
    found = items()
    for item in found:
        item.run(names)
    return found


def count(found: Sequence[Item]) -> HTML:
    """Say how many can be done, and how many are checked by more than that they run."""
    counts = Counter(item.verdict for item in found)
    lines = [f"<b>{counts[v]}</b> of {len(found)} {words}" for v, words in VERDICTS.items()]
    checked = sum(bool(item.holds) for item in found)
    lines.append(f"of <b>{checked}</b> a number is checked too, or another thing that must be true")
    return HTML('<ul class="counts">' + "".join(f"<li>{line}</li>" for line in lines) + "</ul>")


def table(found: Sequence[Item], deck: str) -> HTML:
    """Return the table of one deck."""
    rows = " ".join(item.html() for item in found if item.number.startswith(deck))
    head = "<tr><th></th><th>What is shown</th><th>Here</th><th></th></tr>"
    inner = f'<table class="table items"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    return HTML(f'<div class="pst-scrollable-table-container">{inner}</div>')
