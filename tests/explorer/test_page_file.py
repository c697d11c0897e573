"""The page is one file, complete and short."""

import re

import numpy as np
from explorer_pages import held, page

import ranef as rf
from ranef.explorer.page_file import MAX_SIZE, html_page


def test_the_page_needs_nothing_else():
    text = page("sleepstudy").read_text(encoding="utf-8")
    outside = text.split('id="data">')[0] + text.split("</script>", 1)[1]
    assert not re.findall(r"https?://|src=|<link|@import|fetch\(|XMLHttp|import\(", outside)
    assert not re.search(r"^(import|export) ", text, re.MULTILINE)
    assert text.count("</script>") == 2
    assert "default-src 'none'" in text
    assert len(text.encode()) < MAX_SIZE


def test_no_text_of_the_data_ends_the_page(tmp_path):
    evil = "</script><script>alert(1)</script>"
    data = {"g": [evil, "b", "c"] * 4, "y": np.random.default_rng(1).normal(size=12)}
    fit = rf.fit("y ~ 1 + (1 | g)", data)
    path = fit.explore_shrinkage(tmp_path / "p.html", title="<b>&", noun=("<i>", "<u>", "<s>"))
    text = path.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert text.count("&lt;b&gt;&amp;") == 2
    assert "first &lt;s&gt;:" in text
    assert held(path)["groups"]["labels"][0] == evil
    assert held(path)["title"] == "<b>&"


def test_a_page_that_would_be_long_does_without_rows():
    data = held(page("schools"))
    long = {**data, "rows": {"y": [0.123456789012] * 9000, "X": []}}
    text = html_page(long)
    assert '"rows":{}' in text
    assert len(text.encode()) < MAX_SIZE
    assert '"rows":{"y"' in html_page(data)
