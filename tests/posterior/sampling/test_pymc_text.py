"""Tests of the text of PyMC models."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest

import ranef as rf

SLEEP = "Reaction ~ Days + (Days | Subject)"
HIERARCHICAL = """\
            Intercept ~ Normal(298.5, 140.8), at the mean of the predictors
                 Days ~ Normal(0, 48.89)
                sigma ~ HalfStudentT(3, 56.33)
sd_Subject[Intercept] ~ HalfStudentT(3, 56.33)
     sd_Subject[Days] ~ HalfStudentT(3, 19.56)
         corr_Subject ~ LKJ(2)
            b_Subject ~ Normal(0, f(sd_Subject, corr_Subject))
                    y ~ Normal(f(beta, b_Subject), sigma)"""
MARGINAL = """\
                sigma ~ HalfStudentT(3, 56.33)
sd_Subject[Intercept] ~ HalfStudentT(3, 56.33)
     sd_Subject[Days] ~ HalfStudentT(3, 19.56)
         corr_Subject ~ LKJ(2)
               values = Deterministic(f(sd_Subject, sigma, corr_Subject))
         log_marginal ~ Potential(f(sd_Subject, sigma, corr_Subject))"""
FAR = """\
            Intercept ~ Normal(298.5, 140.8), at the mean of the predictors
                 Year ~ Normal(0, 48.89)
                sigma ~ HalfStudentT(3, 56.33)
sd_Subject[Intercept] ~ sigma * HalfNormal(2)
     sd_Subject[Year] ~ HalfStudentT(3, 19.56)
         corr_Subject ~ LKJ(2)
            b_Subject ~ Normal(0, f(sd_Subject, corr_Subject))
                    y ~ Normal(f(beta, b_Subject), sigma)"""


def sleep(formula=SLEEP, **options):
    data = rf.load_dataset("sleepstudy")
    data["Year"] = data["Days"] + 1990.0
    return rf.Model(formula, data, **options)


@pytest.mark.parametrize(("form", "text"), [("hierarchical", HIERARCHICAL), ("marginal", MARGINAL)])
def test_a_model_reads_as_in_a_textbook(form, text):
    model = sleep().to_pymc(form)
    assert model.str_repr() == text
    assert str(model) == text
    assert model.str_repr("latex").startswith("$$")


def test_helper_variables_are_called_what_they_stand_for():
    ratio = {"sd_Subject": {"Intercept": rf.priors.Relative(rf.priors.HalfNormal(2))}}
    model = sleep("Reaction ~ Year + (Year | Subject)", priors=ratio).to_pymc()
    assert str(model) == FAR


def test_what_was_added_to_a_model_stands_in_its_text():
    model = sleep().to_pymc()
    with model:
        pm.Normal("my_choice", 0, 1)
        pm.Deterministic("twice", 2 * model["sigma"])
    lines = [line.strip() for line in str(model).split("\n")]
    assert "my_choice ~ Normal(0, 1)" in lines
    assert "twice = Deterministic(f(sigma))" in lines
    assert sum("Normal(298.5" in line for line in lines) == 1


def test_rows_of_a_model_can_be_set():
    model = sleep()
    posterior = model.fit("quadrature", draws=200, seed=1)
    subjects = posterior.design.terms[0].levels
    X, index = np.array([[1.0, 12.0], [1.0, 15.0]]), np.array([0, 3])
    new = {"X": X, "Z_Subject": X, "index_Subject": index}
    with model.to_pymc():
        pm.set_data(new, coords={"obs": ["first", "second"]})
        drawn = pm.sample_posterior_predictive(
            posterior.posterior,
            predictions=True,
            random_seed=1,
            progressbar=False,
            compile_kwargs={"mode": "FAST_COMPILE"},
        )
    y = drawn["predictions"]["y"]
    expected = posterior.predict({"Days": X[:, 1], "Subject": subjects[index]})
    error = y.std(("chain", "draw")) / np.sqrt(200)
    assert (abs(y.mean(("chain", "draw")) - expected) < 5 * error).all()
