"""Tables of equivalents: what one writes there, and here; each line is run when a page is built."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import HTML


def _cell(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _code(text: str) -> str:
    return f"<code>{escape(text, quote=False)}</code>" if text != "-" else "-"


def equivalents(there: str, lines: str, names: dict[str, Any]) -> HTML:
    """Run every line of a table in `names`, and return the table.

    Parameters
    ----------
    there : str
        The package that the reader comes from.
    lines : str
        Blocks with blank lines between them: a line in the language of `there` (or "-"), a line
        that is run, and what there is to say of them, if anything.
    names : dict
        The variables of the page: `globals()`.
    """
    rows = []
    for block in re.split(r"\n\s*\n", lines.strip()):
        said, code, *words = block.splitlines()
        try:
            exec(code, names)  # noqa: S102 -- the page's own code
        except Exception as error:
            raise RuntimeError(f"`{code}`, for `{said}`, does not run") from error
        note = f'<p class="said">{_cell(" ".join(words))}</p>' if words else ""
        cells = (_code(said), _code(code) + note)
        # a search takes what no space parts for one word
        rows.append("<tr>" + " ".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    plt.close("all")
    head = f"<tr><th>{escape(there)}</th><th>ranef</th></tr>"
    table = f'<table class="table equivalents"><thead>{head}</thead><tbody>{" ".join(rows)}</tbody>'
    return HTML(f'<div class="pst-scrollable-table-container">{table}</table></div>')
