"""HTML, Markdown and LaTeX say what the text says, and escape it."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from ranef.printing.markup import STYLE, as_html, as_latex, as_markdown
from ranef.printing.pages import Page, TextTable
from ranef.printing.plain_text import as_text

HOSTILE = ["<b>", "a|b", "`x", "x_1 & 2%", "$y$ #{~^\\}", "[T.1]", "*a*"]
TABLE = pd.DataFrame(
    {"estimate": [251.405, -5.023e-9, 1e9], "se": [6.825, 0.996e-9, 2e7], "note": ["", "a", "b"]},
    index=["x", "y", "z"],
)
PAGE = Page(
    "A <b> & `B`",
    ("y ~ x < 2 <i> + (1 | g)",),
    (("Numbers <b>", TextTable.of(TABLE)), ("Text", "one\n  two <u>")),
    ("Note <p> of `sd_g[x]`.",),
)


class Elements(html.parser.HTMLParser):
    """The texts of all elements, by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 -- the parser's signature
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.found.append((self.open[-1], data))


# ------------------------------------------------------------------------------------- HTML


def test_html_says_what_the_text_says_and_escapes_it():
    elements = Elements(as_html(PAGE))
    assert elements.open == []
    assert [(tag, text.rstrip()) for tag, text in elements.found] == [
        ("p", "A <b> &"),
        ("code", "B"),
        ("p", "y ~ x < 2 <i> + (1 | g)"),
        ("caption", "Numbers <b>"),
        *(("th", head) for head in ("estimate", "se", "note")),
        *(("th", "x"), ("td", "251.4"), ("td", "6.8")),
        *(("th", "y"), ("td", "-5.02e-09"), ("td", "1.0e-09"), ("td", "a")),
        *(("th", "z"), ("td", "1.000e+09"), ("td", "2.0e+07"), ("td", "b")),
        ("p", "Text"),
        ("pre", "one\n  two <u>"),
        ("p", "Note <p> of"),
        ("code", "sd_g[x]"),
        ("p", "."),
    ]


def test_styles_touch_nothing_else_and_come_from_nowhere_else():
    assert as_html(PAGE).count("<style>") == 1
    rules = re.findall(r"^(.*?) \{", STYLE, re.MULTILINE)
    assert len(rules) == STYLE.strip().count("\n") + 1
    assert all(one.strip().startswith(".ranef") for rule in rules for one in rule.split(","))
    assert "url" not in STYLE
    assert "@import" not in STYLE
    colours = re.findall(r"(?:color|background): ([^;}]+)", STYLE)
    assert set(colours) == {"inherit", "none"} | {c for c in colours if c.startswith("rgba(128")}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are(name):
    page = Page(
        name, (name,), ((name, TextTable.of(pd.DataFrame({name: [name]}, [name]))),), (name,)
    )
    elements = Elements(as_html(page))
    assert [text for _, text in elements.found] == [name] * 7
    assert name in as_text(page)


# --------------------------------------------------------------------------------- Markdown


def rows_of_markdown(text):
    lines = [line for line in text.split("\n") if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for row in cells]


def test_markdown_has_the_numbers_of_the_text():
    head, rule, *rows = rows_of_markdown(as_markdown(PAGE))
    assert head == ["", "estimate", "se", "note"]
    assert [r[-1] for r in rule] == ["-", ":", ":", "-"]
    assert [[float(cell) for cell in row[1:3]] for row in rows] == [
        [251.4, 6.8],
        [-5.02e-9, 1e-9],
        [1e9, 2e7],
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_escapes_names(name):
    _, _, row = rows_of_markdown(
        as_markdown(Page(sections=(("", TextTable.of(pd.DataFrame({"x": [1.5]}, [name]))),)))
    )
    assert len(row) == 2
    plain = re.sub(r"\\([\\`*~|_])", r"\1", row[0]).replace("&lt;", "<")
    assert plain == name
    assert "<" not in row[0]


def test_code_in_markdown_stays_code():
    text = as_markdown(Page("`y ~ (x | g)`, x_1 and _x_", notes=("2 * 3",)))
    assert text == "**`y ~ (x | g)`, x_1 and \\_x\\_**\n\n2 \\* 3"
    cells = TextTable.of(pd.DataFrame({"x": ["`a|b`"]}, ["u"]))
    assert "`a\\|b`" in as_markdown(Page(sections=(("", cells),)))
    assert as_markdown(PAGE).endswith("```\none\n  two <u>\n```\n\nNote &lt;p> of `sd_g[x]`.")


# ------------------------------------------------------------------------------------ LaTeX


def number(cell):
    found = re.fullmatch(r"\$(.*?)(?: \\times 10\^\{(-?\d+)\})?\$(?:\\phantom\{[.0]*\})?", cell)
    return float(found[1]) * 10.0 ** int(found[2] or 0)


def test_latex_has_the_numbers_of_the_text():
    text = as_latex(PAGE, label="t:x")
    rows = re.search(r"\\midrule\n(.*)\n\\bottomrule", text, re.DOTALL)[1].split("\n")
    found = [[cell.strip() for cell in row.removesuffix(r"\\").split("&")] for row in rows]
    assert [row[0] for row in found] == ["x", "y", "z"]
    np.testing.assert_allclose(
        [[number(cell) for cell in row[1:3]] for row in found],
        [[251.4, 6.8], [-5.02e-9, 1e-9], [1e9, 2e7]],
    )
    assert r"\caption{A \textless{}b\textgreater{} \& \texttt{B}}" in text
    assert r"\label{t:x}" in text
    assert r"\begin{tabular}{lrrl}" in text
    assert "_" not in re.sub(r"\\_", "", text)


def test_points_line_up_in_latex():
    cells = TextTable.of(pd.DataFrame({"estimate": [251.4, 10.0], "se": [6.8, 100.0]}, ["x", "y"]))
    text = as_latex(Page(sections=(("", cells),)))
    assert r"x & $251.4$ & $6.8$ \\" in text
    assert r"y & $10$\phantom{.0} & $100$\phantom{.0} \\" in text


def test_a_name_of_several_lines_is_one_in_tables():
    page = Page(sections=(("", TextTable.of(pd.DataFrame({"x": [1.5]}, ["a\n\nb"]))),))
    assert r"a b & $1.500$ \\" in as_latex(page)
    assert "| a  b |" in as_markdown(page)


def test_a_caption_of_ones_own():
    assert r"\caption{$\beta$}" in as_latex(PAGE, r"$\beta$")
    assert r"\caption" not in as_latex(PAGE, "")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX")
def test_latex_compiles(tmp_path):
    hostile = pd.DataFrame({name: [-1.5e-9, 2.0] for name in HOSTILE}, HOSTILE[:2])
    pages = [PAGE, Page(HOSTILE[4], tuple(HOSTILE), (("<h>", TextTable.of(hostile)),), ("[a]",))]
    pages.append(Page(sections=(("", TextTable.of(pd.DataFrame({"x": [1.0]}, ["[T.1]"]))),)))
    body = "\n".join(map(as_latex, pages))
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}"
    path = tmp_path / "page.tex"
    path.write_text(f"{head}\n\\begin{{document}}\n{body}\n\\end{{document}}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", path.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()[-2000:]
