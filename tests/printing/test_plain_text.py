"""The layout of text: alignment, wrapping, tables wider than a page."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ranef.printing.pages import Page, TextTable
from ranef.printing.plain_text import as_text, indented, table_as_text, wrapped


def text_of(table, **options):
    return table_as_text(TextTable.of(table), **options)


def test_text_is_aligned_without_trailing_spaces():
    table = pd.DataFrame({"sd": [24.7405, np.nan], "corr": ["0.066", ""]}, index=["Intercept", "x"])
    assert text_of(table) == "              sd   corr\nIntercept  24.74  0.066\nx"


def test_no_line_is_longer_than_a_page_and_nothing_is_lost():
    """Twelve columns in parts, and a label of 130 characters in three lines."""
    rng, name = np.random.default_rng(1), "a:" * 65
    columns = {f"coefficient {i}": 10.0**i * rng.normal(size=3) for i in range(12)}
    table = pd.DataFrame(columns, ["x", name, "y"])
    text = text_of(table)
    parts = text.split("\n\n")
    assert max(map(len, text.split("\n"))) <= 100
    assert len(parts) > 1
    for part in parts:
        lines = part.split("\n")
        assert [line[0] for line in lines[1:]] == ["x", "a", "a", "a", "y"]
        assert "".join(line.split()[0] for line in lines[2:5]) == name
    found = [word for part in parts for word in part.split() if word[-1].isdigit()]
    numbers = np.concatenate([table[f"coefficient {i}"] for i in range(12)])
    shown = sorted(float(word) for word in found if "." in word or len(word) > 2)
    np.testing.assert_allclose(shown, sorted(numbers), rtol=6e-4)


def test_a_long_table_is_printed_whole():
    long = pd.DataFrame({"sd": np.ones(200)}, index=[f"x{i}" for i in range(200)])
    with pd.option_context("display.max_rows", 5, "display.max_columns", 2, "display.width", 20):
        assert len(text_of(long).split("\n")) == 201


def test_sentences_are_wrapped_at_spaces():
    text = wrapped("one two-three " + "x" * 30 + " four", 10)
    assert text == f"one\ntwo-three\n{'x' * 30}\nfour"
    assert all(len(line) <= 100 for line in wrapped("word " * 99).split("\n"))
    assert indented("a\n\nb") == "  a\n\n  b"


def test_a_page_in_text():
    cells = TextTable.of(pd.DataFrame({"sd": [1.5]}, index=["x"]))
    page = Page("Title", ("a fact " * 20, "b"), (("Head", cells), ("", "text")), ("1.", "2."))
    assert as_text(page) == (
        "Title\n"
        f"  {' '.join(['a fact'] * 14)}\n"
        f"  {' '.join(['a fact'] * 6)}\n"
        "  b\n"
        "\n"
        "Head\n"
        "        sd\n"
        "  x  1.500\n"
        "\n"
        "text\n"
        "\n"
        "1.\n"
        "2."
    )
    assert as_text(Page("Title")) == "Title"
    assert as_text(Page(facts=("a", "b"), sections=(("", cells),))) == "a\nb\n\n      sd\nx  1.500"
    assert as_text(Page("long " * 30)).split("\n")[0] == " ".join(["long"] * 20)


def test_a_cell_that_is_too_long_is_broken_between_words():
    cells = ("one two three", "incomprehensible")
    table = TextTable(heads=("what",), columns=(cells,), n_labels=0, are_numbers=(False,))
    lines = table_as_text(table, width=9).split("\n")
    assert [line.strip() for line in lines] == ["what", "one two", "three", "incompreh", "ensible"]
