"""The page of a check: its words, its width, and the ways to write it."""

from __future__ import annotations

from ranef.fits.checks.check_page import Check, Finding

LONG = "The quick brown fox jumps over the lazy dog " * 4
PAGE = Check(
    "Check of `y ~ x`, REML",
    (Finding("fine", "a", LONG), Finding("look", "b", LONG, 0.3, ".plot_influence()")),
    ("influence: .influence(levels=)",),
)


def test_a_page_has_lines_with_verdict_text_and_call():
    lines = str(PAGE).split("\n")
    assert lines[0] == "Check of `y ~ x`, REML"
    assert lines[2].startswith("  fine       The quick")
    assert any(line.endswith("  .plot_influence()") for line in lines)
    assert all(len(line) <= 100 for line in lines)
    assert lines[-3] == "  trouble    -"
    assert lines[-1] == "Not computed: influence: .influence(levels=)."


def test_trouble_is_not_denied():
    page = Check("t", (Finding("trouble", "a", "bad."),))
    assert page.worst == "trouble"
    assert str(page).endswith("  trouble    bad.")
    assert PAGE.worst == "look"
    assert Check("t", (Finding("fine", "a", "good."),)).worst == "fine"


def test_the_same_is_written_in_other_ways():
    frame = PAGE.to_frame()
    assert list(frame) == ["verdict", "topic", "text", "figure", "call"]
    assert len(frame) == 2
    for text in (PAGE._repr_html_(), PAGE.to_markdown(), PAGE.to_latex()):
        assert "look" in text
        assert "brown fox" in text
