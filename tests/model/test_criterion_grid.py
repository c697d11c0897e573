"""The criterion over elements of theta."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from ranef.errors import FitError, RanefError


@pytest.fixture(scope="module")
def model():
    return rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))


def test_one_parameter_is_a_slice_through_the_optimum(model):
    table = model.criterion_table("Subject.Days", "ml")
    fit = model.fit("ml")
    assert table.attrs["optimum"]["criterion"] == pytest.approx(fit.objective, abs=1e-8)
    assert table["criterion"].min() == table.attrs["optimum"]["criterion"]
    for value, criterion in table.iloc[[0, 50, -1]].to_numpy():
        theta = fit.theta
        theta[2] = value
        assert model.criterion(theta, "ml") == criterion
    assert (table["criterion"].iloc[[0, -1]] > fit.objective + 9).all()


def test_two_parameters_are_a_grid(model):
    table = model.criterion_table(["Subject.Days.Intercept", "Subject.Days"])
    names = list(table.columns[:2])
    assert len(table) == np.prod([len(set(table[name])) for name in names])
    assert table["Subject.Days.Intercept"].min() < 0 < table["Subject.Days"].min()
    assert model.criterion_table().columns[1] == "Subject.Days.Intercept"


def test_sigma_is_an_axis_like_theta(model):
    """By maximum likelihood -2 log density of the response; profiled where it is no axis."""
    table, fit = model.criterion_table(["Subject.Days", "sigma"], "ml"), model.fit("ml")
    assert table.attrs["optimum"]["criterion"] == pytest.approx(fit.objective, abs=1e-8)
    assert table.attrs["optimum"]["sigma"] == fit.sigma
    for value, sigma, criterion in table.iloc[[0, 700, -1]].to_numpy():
        theta = fit.theta
        theta[2] = value
        V = sigma**2 * (np.eye(180) + zz(model, theta))
        X, y = model.design.rows.X, model.design.rows.y
        inner = np.linalg.solve(V, np.column_stack([X, y]))
        left = y - X @ np.linalg.solve(X.T @ inner[:, :2], X.T @ inner[:, 2])
        deviance = 180 * np.log(2 * np.pi) + np.linalg.slogdet(V)[1]
        assert criterion == pytest.approx(deviance + left @ np.linalg.solve(V, left), abs=1e-7)
    axes = model.plot_criterion("sigma")
    assert axes.get_xlabel() == "sigma"
    assert model.criterion_table("sigma")["sigma"].min() > 0


def zz(model, theta):
    days, subject = model.design.rows.X[:, 1], model.design.rows.terms[0].codes
    Lambda = np.array([[theta[0], 0], [theta[1], theta[2]]])
    own = np.column_stack([np.ones(180), days]) @ Lambda
    return (own @ own.T) * (subject[:, None] == subject)


def test_zero_is_in_reach_of_a_small_variance():
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
    table = model.criterion_table()
    assert table.iloc[0, 0] == 0 == table.attrs["optimum"]["Batch.Intercept"]
    axes = model.plot_criterion(figsize=(4, 3))
    assert axes.get_ylabel() == "REML criterion"
    assert model.plot_criterion(method="ml", ax=axes) is axes


@pytest.mark.parametrize(
    ("parameters", "method", "said"),
    [
        ("Subject.Dys", "reml", "theta has no element 'Subject.Dys'. Did you mean `Subject.Days`"),
        ([], "reml", "one or two elements of theta can be drawn, got none."),
        (["Subject.Days"] * 2, "reml", "one or two elements of theta can be drawn, got"),
        (None, "map", "method='map' has no criterion"),
    ],
)
def test_what_cannot_be_drawn_is_said(model, parameters, method, said):
    with pytest.raises(FitError) as caught:
        model.plot_criterion(parameters, method)
    assert said in str(caught.value)


def test_other_models_have_none(model):
    data = rf.load_dataset("sleepstudy")
    with pytest.raises(FitError, match="the model has no random effects, and so no theta"):
        rf.Model("Reaction ~ Days", data).plot_criterion()
    counts = data.assign(n=data["Days"].round())
    with pytest.raises(FitError, match="criterion_table is for linear models; see log_likelihood"):
        rf.Model("n ~ 1 + (1 | Subject)", counts, family="poisson").plot_criterion()
    axes = rf.Model("Reaction ~ Days + (1 | Subject)", data).plot_criterion()
    with pytest.raises(RanefError, match="`ax` must hold one axes"):
        model.plot_criterion(ax=[axes, axes])
