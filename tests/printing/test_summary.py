"""Records that print themselves, in each form."""

from __future__ import annotations

import re

import pandas as pd
import pytest

import ranef as rf
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


@pytest.fixture(scope="module")
def shown():
    """Everything that a fit of sleepstudy leads to, by its name."""
    data = rf.load_dataset("sleepstudy").rename(columns={"Subject": "the subject"})
    model = rf.Model("Reaction ~ Days + (Days | `the subject`)", data)
    reml, exact = model.fit(), rf.fit("Reaction ~ 1 + (1 | `the subject`)", data, "quadrature")
    return {
        "model": model,
        "reml": reml,
        "quadrature": exact,
        "varcorr": reml.varcorr(),
        "summary": reml.summary(correlation=True),
        "tidy": reml.tidy(),
        "ranef": reml.ranef_table(),
        "means": rf.means(reml, "Days"),
        "predictions": reml.predict(prob=0.9),
        "side by side": rf.side_by_side({"a": reml, "b": exact}),
        "icc": reml.icc(),
        "components": reml.re_pca(),
        "bootstrap": reml.bootstrap(50, seed=1),
        "profile": reml.profile("Days"),
        "anova": rf.anova(
            rf.fit("Reaction ~ Days + (1 | `the subject`)", data), reml, test="mixture"
        ),
        "check": reml.check(),
        "diagnostics": exact.diagnostics,
        "evidence": exact.log_marginal_likelihood(),
        "curve": exact.curve("sigma"),
        "density ratio": exact.savage_dickey("Intercept"),
    }


NAMES = [
    *("model", "reml", "quadrature", "varcorr", "summary", "tidy", "ranef", "means"),
    *("predictions", "side by side", "icc", "components", "bootstrap", "profile", "anova"),
    *("check", "diagnostics", "evidence", "curve", "density ratio"),
]


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_at_the_end_of_a_cell(shown, name):
    """One look, no backticks, all numbers of the text; and no text wider than a page."""
    record = shown[name]
    page = record._repr_html_()
    assert page.startswith('<div class="ranef"><style>')
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert "`" not in body
    said = re.sub(r"<[^>]+>", " ", body)
    assert set(re.findall(r"\d+\.\d+", str(record))) <= set(re.findall(r"\d+\.\d+", said))
    assert repr(record) == str(record)
    assert max(map(len, str(record).split("\n"))) <= 100


def test_sentences_in_a_notebook():
    text = Sentence()._repr_html_()
    assert "<p>One <code>x</code> &lt; 2</p>" in text
    assert text.endswith("<p>another.</p>\n</div>")
