"""The README's session prints what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_session_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it saves a picture
    failures, attempts = doctest.testfile(
        str(README),
        module_relative=False,
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert attempts >= 5
    assert failures == 0
