"""The README's session prints what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_session_prints_what_it_says():
    failures, attempts = doctest.testfile(
        str(README),
        module_relative=False,
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert attempts >= 5
    assert failures == 0


def test_its_pictures_are_there():
    text = README.read_text()
    pictures = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line[:2] == "!["]
    assert len(pictures) >= 2
    assert all((README.parent / picture).is_file() for picture in pictures)
