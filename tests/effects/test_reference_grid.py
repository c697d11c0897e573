"""The values that predictors have in the reference grid."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.design.new_data.new_rows import rows_of
from ranef.effects.reference_grid import cells, reference_values
from ranef.errors import FitError


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": rng.normal(size=60), "k": np.tile([3, 1, 2], 20)})
    data["b"] = rng.uniform(size=60) > 0.5
    data["c"] = pd.Categorical(np.tile(["lo", "hi"], 30), ["lo", "hi", "never"])
    data["g"] = np.repeat(range(12), 5)
    data["e"] = rng.uniform(1, 2, 60)
    data["y"] = rng.normal(size=60)
    return rf.fit("y ~ poly(x, 2) * c + factor(k) + b + offset(log(e)) + (1 | g)", data, "ml")


def test_factors_have_their_levels_and_numbers_their_mean(fit):
    values = reference_values(fit.design)
    frame = fit.design.rows.data.columns
    assert {name: list(value) for name, value in values.items()} == {
        "x": [frame["x"].mean()],
        "c": ["lo", "hi"],
        "k": [1, 2, 3],
        "b": [False, True],
        "e": [frame["e"].mean()],
    }


def test_cells_are_averages_of_predictions(fit):
    found = cells(fit.design, ["c", "k"], {"x": 0.3})
    assert found.labels.to_numpy().tolist() == [[c, k] for c in ("lo", "hi") for k in (1, 2, 3)]
    grid = pd.DataFrame([(c, k, b) for c in ("lo", "hi") for k in (1, 2, 3) for b in (False, True)])
    grid.columns = ["c", "k", "b"]
    grid["x"], grid["e"] = 0.3, fit.design.rows.data.columns["e"].mean()
    predicted = fit.predict(grid, groups="population").reshape(6, 2).mean(axis=1)
    np.testing.assert_allclose(found.X @ fit.fixef() + found.offset, predicted, rtol=1e-12)


def test_what_is_nan_keeps_its_place():
    rows = rows_of(np.array([[1.0], [np.nan], [3.0]]), np.zeros(3))
    assert rows.X.tolist() == [[1.0], [3.0]]
    assert np.isnan(rows.spread(rows.X)[:, 0]).tolist() == [False, True, False]


def test_a_grid_that_is_too_large_is_refused(fit):
    with pytest.raises(FitError, match=r"a reference grid of .* combinations of 5 predictors"):
        cells(fit.design, ["x", "e"], {"x": range(10**5), "e": np.arange(1, 10**5)})


CAKE = "angle ~ recipe * temp + (1 | recipe:replicate)"


@pytest.fixture(scope="module")
def with_and_without_rows():
    data = rf.load_dataset("cake").assign(w=lambda frame: 1.0 + frame["temp"] % 3)
    with_rows = rf.Model(CAKE, data, weights="w").fit()
    return with_rows, rf.Model(rf.summarize(CAKE, data, weights="w", min_rows=0)).fit()


@pytest.mark.parametrize(
    "effects",
    [
        lambda fit: rf.means(fit, "recipe"),
        lambda fit: rf.means(fit, ["recipe", "temp"], at={"temp": [180, 220]}, df="satterthwaite"),
        lambda fit: rf.contrasts(fit, "recipe"),
        lambda fit: rf.slopes(fit, "temp", by="recipe"),
        lambda fit: rf.joint_tests(fit, type=1),
        lambda fit: rf.joint_tests(fit, type=2),
        lambda fit: rf.joint_tests(fit, df="kenward-roger"),
    ],
)
def test_effects_need_no_rows(effects, with_and_without_rows):
    expected, found = map(effects, with_and_without_rows)
    pd.testing.assert_frame_equal(found.to_frame(), expected.to_frame(), rtol=1e-6)


def test_curves_need_no_rows(with_and_without_rows):
    lines = [rf.plot_effects(fit, "temp", by="recipe")[0].lines for fit in with_and_without_rows]
    for expected, found in zip(*lines, strict=True):
        np.testing.assert_allclose(found.get_xydata(), expected.get_xydata(), rtol=1e-8)
    plt.close("all")


def test_what_needs_rows_is_said(with_and_without_rows):
    _, fit = with_and_without_rows
    with pytest.raises(FitError, match="has no rows: it was made from cross-products alone"):
        rf.comparisons(fit, "recipe")
    with pytest.raises(FitError, match=r"sd of `temp` is not known: at=\{'temp': \[...\]\} says"):
        rf.plot_effects(fit, "recipe", by="temp")
    data = rf.load_dataset("Orthodont")
    formula = "distance ~ log(age) + Sex + (1 | Subject)"
    other = rf.Model(rf.summarize(formula, data, min_rows=0)).fit()
    with pytest.raises(FitError, match=r"the mean of `age` is not known: at=\{'age': ...\} says"):
        rf.means(other, "Sex")
    found = rf.means(other, "Sex", at={"age": 11})
    expected = rf.means(rf.fit(formula, data), "Sex", at={"age": 11})
    pd.testing.assert_frame_equal(found.to_frame(), expected.to_frame(), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:the fixed effects are linearly dependent")
def test_joint_tests_of_empty_cells_need_rows():
    data = rf.load_dataset("cake").query("not (recipe == 'C' and temp > 200)")
    data = data.assign(hot=data["temp"] > 200)
    formula = "angle ~ recipe * hot + (1 | replicate)"
    fit = rf.Model(rf.summarize(formula, data, min_rows=0)).fit()
    said = (
        r"^`recipe\[T.C\]:hot\[T.True\]` left out of this model, and without rows it is not known"
    )
    with pytest.raises(FitError, match=said):
        rf.joint_tests(fit)
