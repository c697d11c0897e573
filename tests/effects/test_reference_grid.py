"""The values that predictors have in the reference grid."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.effects.reference_grid import cells, reference_values, rows_of
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
