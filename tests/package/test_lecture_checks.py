"""The page on lecture notes: what it counts, what it runs, and where its links lead."""

import importlib.util
import re
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ranef as rf

DOCS = Path(__file__).parents[2] / "docs"
COUNTS = {"A": 26, "B": 78, "C": 15, "D": 10, "E": 7}


def loaded(name):
    pytest.importorskip("IPython", reason="the group `docs` is not installed")
    spec = importlib.util.spec_from_file_location(name, DOCS / "_extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def module():
    return loaded("lecture_items")


@pytest.fixture(scope="module")
def items(module):
    return module.items()


@pytest.fixture(scope="module")
def checks():
    loaded("lecture_notes")
    return loaded("lecture_checks")


def test_every_item_is_there_once_and_in_order(items):
    numbered = [[f"{deck}{i + 1}" for i in range(count)] for deck, count in COUNTS.items()]
    assert [item.number for item in items] == list(chain(*numbered))


def test_verdicts_have_what_they_need(items):
    assert sum(item.verdict == "yes" for item in items) >= 125
    for item in items:
        assert item.verdict in {"yes", "partly", "no"}
        assert (item.verdict == "yes") == (not item.remark), item.number
        assert bool(item.code) == (item.verdict != "no"), item.number
        assert len(item.code.splitlines()) <= 3, item.number


def places(path):
    """Return the places of a page: its labels, and its headings as they are in addresses."""
    text = re.sub(r"(?s)^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))
    for heading in re.findall(r"^#{1,3} (.*)$", text, re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(kept.replace(" ", "-"))
    return found


def test_links_lead_to_places(items):
    known = {}
    for item in items:
        page, _, place = item.target.partition("#")
        if item.target == "-" or not item.is_written():
            continue
        path = DOCS / f"{page or 'lecture-notes'}.md"
        assert place in known.setdefault(path, places(path)), f"{item.number}: {item.target}"


def test_what_is_not_true_is_no_yes(module):
    item = module.Item("A1", "yes", "-", "what", "x = 1", "x == 1", "")
    item.run({})
    for code, holds, said in (("x = 2", "x == 1", "is not true"), ("1 / 0", "", "does not run")):
        with pytest.raises(RuntimeError, match=said):
            module.Item("A1", "yes", "-", "what", code, holds, "").run({})


def test_rows_escape_what_they_say(module):
    item = module.Item("A1", "no", "-", "x < y & z", "", "", "no `a < b`")
    assert "x &lt; y &amp; z" in item.html()
    assert "<b>No.</b> no <code>a &lt; b</code>" in item.html()


def test_music_data_are_checked_where_they_are(checks, tmp_path, monkeypatch):
    record = next(one for one in checks.records() if one["data"] == "musicdata")
    monkeypatch.setattr(checks, "MUSIC", tmp_path / "none.csv")
    assert checks.check(record).why_not == "the data are not ours to give"
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"id": np.repeat(np.arange(1, 38), 9)})
    rows["perform_type"] = rng.choice(["Large Ensemble", "Small Ensemble", "Solo"], len(rows))
    rows["na"] = 15 + rng.normal(0, 2, 37)[rows["id"] - 1] + rng.normal(0, 4.6, len(rows))
    rows.to_csv(tmp_path / "here.csv", index=False)
    monkeypatch.setattr(checks, "MUSIC", tmp_path / "here.csv")
    with pytest.raises(RuntimeError, match="which early stop does not explain"):
        checks.check(record)
    monkeypatch.setattr(checks, "_is_explained", lambda _: True)
    table = checks.check(record).table
    assert len(table) == 31
    fit = rf.fit(record["formula"], rows)
    assert float(table.loc["coef 2 Intercept", "ours"]) == pytest.approx(
        fit.coef()["id"].loc[2, "Intercept"]
    )
    assert float(table.loc["rows", "ours"]) == len(rows)


def test_reasons_can_be_tried_out(checks):
    """One linear fit, one generalised one: done in the way of the notes, ours are theirs."""
    records = {one["formula"]: one for one in checks.records()}
    for formula in (
        "Yield ~ 1 + (1 | Batch)",
        "use ~ age + I(age^2) + urban + ch + (1 | district)",
    ):
        one = checks.check(next(r for r in checks.records() if r["formula"] == formula))
        known = one.table[one.table["ours their way"] != ""]
        assert len(known) >= 5
        assert 0 < one.excess < 1e-6
        for _, row in known.iterrows():
            assert float(row["ours their way"]) == pytest.approx(float(row["notes"]), rel=5e-6)
            assert float(row["ours"]) != pytest.approx(float(row["notes"]), rel=5e-6)
    assert checks.check(records["gr.pt ~ (1 | id) + (1 | instr) + (1 | dept)"]).n_printed == 15


def test_a_number_that_no_reason_explains_is_refused(checks, monkeypatch):
    record = dict(checks.records()[0])
    monkeypatch.setitem(record, "se", {"(Intercept)": "19.98"})
    with pytest.raises(RuntimeError, match=r"19\.98 is printed, se Intercept is 19\.3834"):
        checks.check(record)
