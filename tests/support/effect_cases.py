"""The fits whose marginal means and contrasts emmeans has, and its numbers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import ranef as rf

PATH = Path(__file__).parents[1] / "reference" / "effects.json"
TABLES = json.loads(PATH.read_text(encoding="utf-8"))
CASES = {case["id"]: case for case in TABLES["tables"]}
DF = {"asymptotic": None, "satterthwaite": "satterthwaite", "kenward-roger": "kenward-roger"}
BOTH = [(name, df) for name, case in CASES.items() for df in case["results"]]


@cache
def data(name):
    """Return a data set with the types that R's script reads."""
    return rf.load_dataset(name)


@cache
def fit_of(name):
    """Return the fit of a case."""
    case = CASES[name]
    return rf.fit(case["formula"], data(case["data"]), family=case["family"])
