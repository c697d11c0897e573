"""A page as HTML, Markdown or LaTeX."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from ranef.printing.pages import Page, TextTable

STYLE = """
.ranef {max-width: 60em; line-height: 1.4; color: inherit}
.ranef p, .ranef pre {margin: 0.2em 0; color: inherit; background: none}
.ranef pre {font-family: monospace; white-space: pre-wrap; padding: 0 0 0 1em; border: none}
.ranef .ranef-title {font-weight: bold}
.ranef .ranef-wide {overflow-x: auto}
.ranef table {border-collapse: collapse; border: none; margin: 0.6em 0; font-size: inherit}
.ranef table, .ranef caption {color: inherit}
.ranef caption {caption-side: top; text-align: left; font-weight: bold; padding: 0}
.ranef th, .ranef td {border: none; padding: 0.1em 0.7em; text-align: left; font-weight: normal}
.ranef thead th {border-bottom: 1px solid; vertical-align: bottom}
.ranef .ranef-n {text-align: right; white-space: pre; font-family: monospace}
.ranef tr, .ranef tbody tr:nth-child(odd) {background: none; color: inherit}
.ranef tbody tr:hover {background: rgba(128, 128, 128, 0.2)}
.ranef code {background: rgba(128, 128, 128, 0.15); color: inherit; padding: 0 0.2em}
"""
"""Colours are those of the place where a page is shown, light or dark."""

_CODE = re.compile(r"`([^`]+)`")
_MARKS = re.compile(r"([\\`*~|]|(?<![^\W_])_|_(?![^\W_]))")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
} | {character: f"\\{character}" for character in "{}$&#_%"}
_NUMBER = re.compile(r"-?[\d,]*\.?\d+(e[-+]\d+)?")


# ------------------------------------------------------------------------------------- HTML


def as_html(page: Page) -> str:
    """Return a page as HTML with styles of its own, which touch nothing else."""
    parts = [f'<div class="ranef"><style>{STYLE}</style>']
    if page.title:
        parts.append(f'<p class="ranef-title">{_html(page.title)}</p>')
    parts += [f"<p>{_html(fact)}</p>" for fact in page.facts]
    for heading, body in page.sections:
        if isinstance(body, str):
            title = f'<p class="ranef-title">{_html(heading)}</p>' if heading else ""
            parts.append(f"{title}<pre>{_html(body)}</pre>")
        else:
            parts.append(_html_table(heading, body))
    parts += [f"<p>{_html(note)}</p>" for note in page.notes]
    return "\n".join([*parts, "</div>"])


def _html_table(heading: str, cells: TextTable) -> str:
    caption = f"<caption>{_html(heading)}</caption>" if heading else ""
    head = "".join(_html_cell(cells, i, h, "col") for i, h in enumerate(cells.heads))
    rows = "\n".join(
        f"<tr>{''.join(_html_cell(cells, i, text) for i, text in enumerate(row))}</tr>"
        for row in cells.rows
    )
    return (
        f'<div class="ranef-wide"><table>{caption}\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _html_cell(cells: TextTable, place: int, text: str, scope: str = "") -> str:
    scope = scope or ("row" if place < cells.n_labels else "")
    tag, of = ("th", f' scope="{scope}"') if scope else ("td", "")
    kind = ' class="ranef-n"' if cells.are_numbers[place] else ""
    return f"<{tag}{of}{kind}>{_html(text.lstrip())}</{tag}>"


def _html(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", html.escape(text, quote=False))


# --------------------------------------------------------------------------------- Markdown


def as_markdown(page: Page) -> str:
    r"""Return a page as Markdown, tables with pipes.

    Examples
    --------
    >>> print(as_markdown(Page("Title", (), (), ("A note on y ~ (x | g).",))))
    **Title**
    <BLANKLINE>
    A note on y \~ (x \| g).
    """
    parts = [f"**{_markdown(page.title)}**"] if page.title else []
    if page.facts:
        parts.append("  \n".join(map(_markdown, page.facts)))
    for heading, body in page.sections:
        parts += [f"**{_markdown(heading)}**"] if heading else []
        parts.append(f"```\n{body}\n```" if isinstance(body, str) else _markdown_table(body))
    return "\n\n".join([*parts, *map(_markdown, page.notes)])


def _markdown_table(cells: TextTable) -> str:
    columns = [
        [_markdown(text.replace("\n", " "), in_table=True) for text in (head, *texts)]
        for head, texts in zip(cells.heads, cells.columns, strict=True)
    ]
    widths = [max(3, *map(len, column)) for column in columns]
    sides = [">" if is_number else "<" for is_number in cells.are_numbers]
    rules = [
        "-" * (w - 1) + ":" if s == ">" else "-" * w for w, s in zip(widths, sides, strict=True)
    ]
    head, *rows = [
        [f"{text:{s}{w}}" for text, s, w in zip(row, sides, widths, strict=True)]
        for row in zip(*columns, strict=True)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *rows))


def _markdown(text: str, *, in_table: bool = False) -> str:
    """Escape what Markdown would take for markup, but not in `code`: pipes only, in tables."""
    parts = re.split(r"(`[^`]+`)", text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = _MARKS.sub(r"\\\1", part).replace("<", "&lt;")
        elif in_table:
            parts[i] = part.replace("|", "\\|")
    return "".join(parts)


# ------------------------------------------------------------------------------------ LaTeX


def as_latex(page: Page, caption: str | None = None, label: str | None = None) -> str:
    r"""Return a page as a LaTeX table, for a document with `\usepackage{booktabs}`.

    Parameters
    ----------
    page : Page
    caption : str, optional
        LaTeX; by default the title.
    label : str, optional
        For `\ref`.
    """
    caption = _latex(page.title) if caption is None else caption
    lines = [r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{caption}}}"] if caption else []
    lines += [rf"\label{{{label}}}"] if label else []
    for heading, body in page.sections:
        lines += [rf"\par\medskip\textbf{{{_latex(heading)}}}\par\smallskip"] if heading else []
        lines += _latex_lines(body) if isinstance(body, str) else _latex_table(body)
    said = [rf"\par\smallskip {_latex(text)}" for text in (*page.facts, *page.notes)]
    if said:
        lines += [r"\begin{minipage}{\linewidth}\footnotesize", *said, r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"])


def _latex_lines(text: str) -> list[str]:
    return [rf"\par\noindent {_latex(line)}" for line in text.split("\n")]


def _latex_table(cells: TextTable) -> list[str]:
    sides = "".join("r" if is_number else "l" for is_number in cells.are_numbers)
    head, *rows = [_latex_row(row) for row in (cells.heads, *cells.rows)]
    begin = [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule"]
    return [*begin, *rows, r"\bottomrule", r"\end{tabular}"]


def _latex_row(texts: Sequence[str]) -> str:
    """Return a row; an opening bracket would be an option of the line before."""
    row = " & ".join(map(_latex_cell, texts)) + r" \\"
    return f"{{}}{row}" if row.startswith("[") else row


def _latex_cell(text: str) -> str:
    """Return a cell; the spaces that line up points are as wide as digits."""
    number = text.strip()
    if not _NUMBER.fullmatch(number):
        return _latex(number)
    mantissa, _, power = number.partition("e")
    number = mantissa if not power else rf"{mantissa} \times 10^{{{int(power)}}}"
    missing = len(text) - len(text.rstrip())
    has_point = "." not in text and missing > 0
    phantom = "." * has_point + "0" * (missing - has_point)
    return f"${number}$" + (rf"\phantom{{{phantom}}}" if phantom else "")


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    return _CODE.sub(r"\\texttt{\1}", escaped)
