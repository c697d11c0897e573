"""Which predictions of lazy rows are expressions."""

import polars as pl
import pytest

import ranef as rf
from ranef.errors import FitError


def test_the_average_over_groups_is_that_of_a_typical_one_on_the_identity_link() -> None:
    sleep = rf.load_dataset("sleepstudy")
    fit, lazy = rf.fit("Reaction ~ Days + (Days | Subject)", sleep), pl.from_pandas(sleep).lazy()
    found = fit.predict(lazy, groups="average").collect()["mean"].to_numpy()
    assert found == pytest.approx(fit.predict(sleep, groups="average"))


def test_the_average_over_groups_is_no_expression_on_others() -> None:
    cbpp = rf.load_dataset("cbpp").assign(p=lambda rows: rows["incidence"] / rows["size"])
    formula = "p ~ period + (1 | herd)"
    fit = rf.fit(formula, cbpp, family="binomial", weights="size")
    with pytest.raises(FitError, match="means of 'average' groups of a binomial model with logit"):
        fit.predict(pl.from_pandas(cbpp).lazy(), groups="average")
