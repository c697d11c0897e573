"""Tests of the table of priors."""

from __future__ import annotations

from dataclasses import replace

import ranef as rf
from ranef.families.names import find_family

SLEEP = "Reaction ~ Days + (Days | Subject)"


def test_the_table_of_priors_prints_whole():
    table = rf.Model(SLEEP, rf.load_dataset("sleepstudy")).prior_table()
    lines = str(table).split("\n")
    assert lines[1].split() == [
        "0",
        "beta",
        "Intercept",
        "Normal(298.5,",
        "140.8)",
        "at",
        "the",
        "mean",
        "of",
        "the",
        "predictors",
    ]
    assert len(lines) == 7
    assert "..." not in str(table)
    assert list(table.columns) == ["parameter", "coef", "prior", "note"]


def test_no_sampler_is_needed_for_the_table():
    family = replace(find_family("poisson"), pymc=None)
    data = {"y": [0, 1, 2, 3, 1, 0], "g": list("aabbcc")}
    table = rf.Model("y ~ 1 + (1 | g)", data, family=family).prior_table()
    assert list(table["parameter"]) == ["beta", "sd_g"]
