"""Tables of frames as cells: labels, numbers in line, long tables cut."""

from __future__ import annotations

import pandas as pd

from ranef.printing.markup import as_html, as_markdown
from ranef.printing.pages import Page, TextTable
from ranef.printing.plain_text import table_as_text


def test_points_line_up_and_words_do_not():
    table = pd.DataFrame(
        {"estimate": [251.405, -5.023e-9], "se": [6.825, 0.996e-9], "what": ["a", "long"]},
        ["x", "y"],
    )
    cells = TextTable.of(table)
    assert cells.heads == ("", "estimate", "se", "what")
    assert cells.columns == (
        ("x", "y"),
        ("251.4     ", " -5.02e-09"),
        ("6.8    ", "1.0e-09"),
        ("a", "long"),
    )
    assert cells.are_numbers == (False, True, True, False)
    assert (cells.n_labels, cells.rows[0]) == (1, ("x", "251.4     ", "6.8    ", "a"))


def test_texts_that_begin_with_a_number_line_up_too():
    column = ["-885.0   best", "-1.2 ± 0.6", "1/3.0", "not decided", "inf", ""]
    (found,) = TextTable.of(pd.DataFrame({"score": column})).columns
    assert found == (
        "-885.0   best",
        "  -1.2 ± 0.6 ",
        "   1/3.0     ",
        "  not decided",
        " inf         ",
        " " * 13,
    )


def test_sentences_are_words_although_one_begins_with_a_number():
    texts = ["It converged.", "37 levels of id.", "Residuals are fine.", "-"]
    cells = TextTable.of(pd.DataFrame({"verdict": list("abcd"), "finding": texts}))
    assert cells.are_numbers == (False, False)
    assert list(cells.columns[1]) == texts


def test_row_numbers_are_labels_of_tables_that_have_no_others():
    words = pd.DataFrame({"level": ["a", "b"], "estimate": [1.0, 2.0]})
    assert TextTable.of(words).heads == ("level", "estimate")
    assert TextTable.of(words).n_labels == 1
    assert TextTable.of(words.rename_axis("row")).heads == ("row", "level", "estimate")
    assert TextTable.of(words.set_axis([3, 4])).columns[0] == ("3", "4")
    assert TextTable.of(words[["estimate"]]).columns[0] == ("0", "1")
    pairs = pd.DataFrame({"x": [1.0]}, pd.MultiIndex.from_tuples([("g", 2)], names=["term", None]))
    assert TextTable.of(pairs).heads == ("term", "", "x")
    assert TextTable.of(pairs).n_labels == 2


def test_a_long_table_is_cut_in_the_middle():
    cells = TextTable.of(pd.DataFrame({"x": range(60)})).cut()
    assert len(cells.rows) == 60
    cut = TextTable.of(pd.DataFrame({"x": range(148)})).cut()
    assert [row[0].strip() for row in cut.rows] == [*"01234", "...", *map(str, range(143, 148))]
    assert TextTable.of(pd.DataFrame()).cut().rows == []


def test_heads_may_have_several_lines():
    cells = TextTable.of(pd.DataFrame({"a long\nhead": ["x"], "n": [1]}, index=["row"]))
    assert table_as_text(cells).splitlines() == ["     a long  n", "     head", "row  x       1"]
    page = Page(sections=(("", cells),))
    assert "| a long head |" in as_markdown(page)
    assert "a long\nhead" in as_html(page)
