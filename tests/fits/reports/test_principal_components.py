"""Principal components of random effects against lme4's rePCA and known covariances."""

import json

import numpy as np
import pandas as pd
import pytest
from reference_cases import REFERENCE
from scipy import linalg

import ranef as rf
from fits import fit_of
from ranef.fits.reports.principal_components import re_pca

CASES = [
    case
    for case in json.loads((REFERENCE / "explained.json").read_text())["cases"]
    if case["family"] == "gaussian"
]


def table_of(matrix, lengths=None):
    names = [f"x{i}" for i in range(len(matrix))]
    return re_pca(pd.DataFrame(matrix, names, names), lengths)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_as_lme4(case):
    """Terms of one factor together, in the order of the model."""
    covs = [np.array(cov, dtype=float) / case["sigma"] ** 2 for cov in case["covs"]]
    groups = [covs] if len(case["pca"]) == 1 else [[cov] for cov in covs]
    for matrices, expected in zip(groups, case["pca"].values(), strict=True):
        found = table_of(linalg.block_diag(*matrices))
        np.testing.assert_allclose(found.sd, expected["sdev"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            np.abs(found.loadings), np.abs(expected["rotation"]), rtol=1e-7, atol=1e-9
        )


def test_table_and_loadings():
    axes = np.array([[0.6, 0.8], [0.8, -0.6]]).T
    found = table_of(axes @ np.diag([9.0, 1.0]) @ axes.T)
    np.testing.assert_allclose(found.sd, [3, 1])
    np.testing.assert_allclose(found.table["proportion"], [0.9, 0.1])
    np.testing.assert_allclose(found.table["cumulative"], [0.9, 1.0])
    np.testing.assert_allclose(found.loadings, axes)
    assert list(found.loadings.columns) == ["PC1", "PC2"]


def test_the_largest_loading_is_positive():
    found = table_of(np.array([[1.0, -1.9], [-1.9, 4.0]]))
    assert (found.loadings.to_numpy()[[1, 0], [0, 1]] > 0).all()


def test_units_do_not_decide_what_is_supported():
    tiny = np.diag([1.0, 1e-12])
    assert table_of(tiny).supported == 1
    assert table_of(tiny, np.array([1.0, 1e5])).supported == 2
    assert table_of(np.diag([1.0, 1e-4]), np.array([1.0, 1e-5])).supported == 1


def test_no_variance_at_all():
    found = table_of(np.zeros((2, 2)))
    assert found.supported == 0
    assert found.table["proportion"].isna().all()


def test_of_a_fit():
    """Two terms of one factor are done together, those of another factor apart."""
    fit = rf.Model(
        "angle ~ temp + (1 | recipe) + (0 + temp | recipe) + (1 | replicate)",
        rf.load_dataset("cake"),
    ).fit()
    found = fit.re_pca()
    assert set(found.factors) == {"recipe", "replicate"}
    assert set(found.factors["recipe"].loadings.index) == {"Intercept", "temp"}
    sd = fit.varcorr().sd["replicate"].iloc[0] / fit.sigma
    assert found.factors["replicate"].sd == pytest.approx([sd], rel=1e-9)
    frame = found.to_frame()
    assert frame.index.names == ["factor", "component"]
    assert frame.loc[("replicate", "PC1"), "cumulative"] == 1


def test_overfitted_model():
    frame = pd.read_csv(REFERENCE / "data" / "singular.csv")
    fit = rf.Model("plane ~ x + z + (x + z | g)", frame).fit()
    text = str(fit.re_pca())
    assert text.endswith(
        "g: 2 of 3 dimensions of the random effects have variance. The model has more random "
        "effects than the\ndata support: leave out correlations or coefficients."
    )
    assert fit.re_pca().factors["g"].table["cumulative"].iloc[1] == pytest.approx(1, abs=1e-7)


def test_printed():
    fit = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).fit()
    found = fit.re_pca()
    assert (
        str(found)
        == repr(found)
        == (
            "Principal components of the random effects, relative to sigma\n"
            "\n"
            "Batch, with loadings\n"
            "           sd  proportion  cumulative  Intercept\n"
            "  PC1  0.8483       1.000       1.000      1.000\n"
            "\n"
            "Batch: 1 of 1 dimension of the random effects has variance."
        )
    )
    assert "<table" in found._repr_html_()


def test_of_a_posterior():
    fit = fit_of("correlated slopes", "posterior")
    expected = np.linalg.eigvalsh(fit.varcorr().cov["g"] / fit.varcorr().sigma2)[::-1]
    np.testing.assert_allclose(fit.re_pca().factors["g"].sd ** 2, expected)


def test_without_random_effects():
    with pytest.raises(rf.FitError) as caught:
        fit_of("no random terms", "reml").re_pca()
    assert str(caught.value) == (
        "the model has no random effects: there are no principal components."
    )
