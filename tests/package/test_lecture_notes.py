"""What lecture notes print is found again, by the helper of the site's pages."""

import importlib.util
from pathlib import Path

import pytest

import ranef as rf

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def notes():
    path = ROOT / "docs/_extensions/lecture_notes.py"
    spec = importlib.util.spec_from_file_location("lecture_notes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_linear_models_of_the_lme4_workshop(notes):
    checked = 0
    for record in notes.records("imps2008"):
        if "grades" in record["data"] or "family" in record:
            continue
        model = rf.Model(record["formula"], rf.load_dataset(record["data"]))
        fit = model.fit(record["method"])
        for table in (notes.beside(fit, model), notes.effects_beside(fit)):
            printed, ours = table.get("notes", ()), table.get("ours", ())
            for one, own in zip(printed, ours, strict=True):
                digit = 10.0 ** -(len(str(one)) - str(one).find(".") - 1) if "." in str(one) else 1
                # the notes' optimiser stopped up to 0.24 % early
                assert float(own) == pytest.approx(float(one), rel=2.5e-3, abs=digit)
                checked += 1
    assert checked > 150


def test_digits_are_those_of_the_notes(notes):
    table = notes.comparison({"a": ("1527.50", 1527.504), "b": ("0.1", 0.151), "c": ("255", 254.6)})
    assert list(table["ours"]) == ["1527.5040", "0.151", "254.60"]
    assert list(table["same digits"]) == ["yes", "no", "yes"]
    assert list(table["notes"]) == ["1527.50", "0.1", "255"]


def test_a_model_that_no_notes_print(notes):
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
    assert notes.record_of(fit)["data"] == "Dyestuff"  # formulas, not data, are looked up
    other = rf.fit("Reaction ~ 1 + (1 | Subject)", rf.load_dataset("sleepstudy"))
    with pytest.raises(LookupError, match=r"Reaction~1\+\(1\|Subject\) by reml"):
        notes.record_of(other)
