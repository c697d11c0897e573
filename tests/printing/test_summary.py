"""Records that print themselves, in each form."""

from __future__ import annotations

import pandas as pd

from ranef.printing.summary import InNotebook, Printed, Summary

TABLE = pd.DataFrame({"sd": [1.5]}, index=["x"])


class Record(Printed):
    def summary(self):
        return Summary("Title", ("fact",), (("Head", TABLE), ("Words", "a\nb")), ("Note.",), TABLE)


class Sentence(InNotebook):
    def __str__(self):
        return "One `x` < 2\n  and\n\nanother."


def test_a_record_prints_as_its_summary():
    record, summary = Record(), Record().summary()
    text = "Title\n  fact\n\nHead\n        sd\n  x  1.500\n\nWords\n  a\n  b\n\nNote."
    assert str(record) == repr(record) == str(summary) == repr(summary) == text
    assert record._repr_html_() == summary._repr_html_()
    assert record._repr_html_().count("<table") == 1
    assert record.to_markdown() == summary.to_markdown()
    assert "| x   | 1.500 |" in record.to_markdown()
    assert record.to_latex(label="a") == summary.to_latex(label="a")
    assert r"x & $1.500$ \\" in record.to_latex("caption")
    pd.testing.assert_frame_equal(record.to_frame(), TABLE)


def test_the_frame_of_a_summary_is_a_copy():
    summary = Record().summary()
    copy = summary.to_frame()
    copy.loc["x", "sd"] = 0
    pd.testing.assert_frame_equal(summary.to_frame(), pd.DataFrame({"sd": [1.5]}, index=["x"]))


def test_sentences_in_a_notebook():
    text = Sentence()._repr_html_()
    assert "<p>One <code>x</code> &lt; 2</p>" in text
    assert text.endswith("<p>another.</p>\n</div>")
