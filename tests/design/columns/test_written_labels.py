"""Text that is written as numbers or dates, against the remedies that are named, run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.design.columns.written_labels import kinds_of, readings, typed

WRITTEN = {
    "iso": (lambda i: f"2024-{1 + i % 3:02d}-{1 + i % 28:02d}", "dates"),
    "american": (lambda i: f"{1 + i % 12}/{1 + i % 28}/2024", "dates"),
    "german": (lambda i: f"{1 + i % 28:02d}.03.2024", "dates"),
    "thousands": (lambda i: f"{50.25 * i:,.2f}", "numbers with commas"),
    "comma": (lambda i: f"{i / 4}".replace(".", ","), "numbers with decimal commas"),
    "percent": (lambda i: f"{i / 4}%", "numbers with a sign"),
    "euro": (lambda i: f"€ {i / 4}", "numbers with a sign"),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_measurements_that_are_written_as_text_are_said_to_be(kind):
    """The remedy of the note, run on the column, gives numbers."""
    write, what = WRITTEN[kind]
    x = pd.Series([write(i) for i in range(60)])
    frame = pd.DataFrame({"x": x, "g": np.arange(60) % 6})
    frame["y"] = np.random.default_rng(1).normal(size=60)
    said = " ".join(str(rf.Model("y ~ x + (1 | g)", frame)).split())
    note = f"x is taken for a factor of {x.nunique()} levels. `x` is text that reads as {what}: "
    assert note in said
    remedy = said.split(note)[1].split(" makes numbers of it")[0]
    numbers = {
        "dates": lambda: (
            (pd.to_datetime(x, dayfirst=kind == "german") - pd.Timestamp("2000-01-01")).dt.days
        ),
        "numbers with commas": lambda: pd.to_numeric(x.str.replace(",", "")),
        "numbers with decimal commas": lambda: pd.to_numeric(x.str.replace(",", ".")),
        "numbers with a sign": lambda: pd.to_numeric(x.str.strip("%$€£ ")),
    }[what]()
    assert ("dayfirst" in remedy) == (kind in ("american", "german"))
    assert pd.api.types.is_numeric_dtype(numbers)
    assert numbers.nunique() == x.nunique()
    assert "reads as" not in str(rf.Model("y ~ (1 | x)", frame.assign(x=x.str[:4])))


@pytest.mark.parametrize(
    "labels", [["s01", "s02"], ["1.2.3", "1.2.4"], ["a-1", "b-2"], ["1-2", "3"]]
)
def test_labels_with_digits_are_labels(labels):
    frame = pd.DataFrame({"x": np.tile(labels, 15), "y": np.arange(30) % 7})
    assert "is text" not in str(rf.Model("y ~ x", frame))


def test_what_is_read_of_labels():
    assert readings("1.50") == (1.5,) == readings(1.5)
    assert readings("2024-01-03 00:00:00") == readings("2024-01-03")
    assert readings(np.True_) == ("true", 1)
    assert kinds_of([1, 2.5, "a", True, pd.Timestamp(0)]) == {
        "number",
        "text",
        "truth value",
        "time",
    }
    assert (typed("1"), typed(1)) == ("the text `'1'`", "the number `1`")
