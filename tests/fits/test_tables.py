"""The records of variances, and what a fit uses besides its columns."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from generalized_fits import made_up, point_fit, simulated

import ranef as rf
from fits import fit_of, known_posterior, model_of
from ranef.families.names import find_family
from ranef.fits.tables import VarCorr, rows_in_words

# ----------------------------------------------------------------------- variance components


def varcorr(k, *, correlated, corr=0.5):
    names = pd.Index([f"c{i}" for i in range(k)])
    corr = np.where(np.eye(k) == 1, 1, corr)
    cov, corr = (pd.DataFrame(m, names, names) for m in (4 * corr, corr))
    sd = pd.Series(2.0, names)
    labels = frozenset({"g"} if correlated else ())
    return VarCorr({"g": sd}, {"g": corr}, {"g": cov}, 3.0, 9.0, labels)


def test_variance_components_as_text():
    assert repr(varcorr(3, correlated=True)) == (
        "              variance     sd   corr\n"
        "g         c0     4.000  2.000\n"
        "          c1     4.000  2.000  0.500\n"
        "          c2     4.000  2.000  0.500  0.500\n"
        "Residual         9.000  3.000"
    )
    assert "corr" not in repr(varcorr(3, correlated=False))
    assert repr(varcorr(2, correlated=True, corr=np.nan)).split("\n")[2].split() == [
        "c1",
        "4.000",
        "2.000",
    ]


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_a_term_of_any_size_is_printed(k):
    found = varcorr(k, correlated=True)
    assert repr(found).count("0.500") == k * (k - 1) / 2
    assert found._repr_html_().count("0.500") == k * (k - 1) / 2
    assert found.printed().columns.is_unique
    assert len(found.table) == k * (k + 1) / 2 + 1


def test_the_variance_of_a_posterior_is_the_mean_of_the_squares():
    fit = known_posterior(model_of("correlated slopes"))
    found = fit.varcorr()
    squares = fit.draws("sd_g") ** 2
    variances = [*squares.mean(axis=0), found.sigma2]
    np.testing.assert_allclose(found.printed()["variance"], variances)
    assert found.sigma2 == pytest.approx(np.mean(fit.draws("sigma") ** 2)) != found.sigma**2
    assert fit_of("correlated slopes", "ml").varcorr().sigma2 == pytest.approx(
        fit_of("correlated slopes", "ml").sigma ** 2
    )


def test_points_of_a_fit_line_up_in_each_column():
    text = str(rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy")))
    for block, n in zip(re.split(r"\n\n", text)[1:3], (3, 5), strict=True):
        lines = block.split("\n")[2:]
        points = {i for line in lines for i, character in enumerate(line) if character == "."}
        assert len(points) == n, block


# ------------------------------------------------------------------------ generalised models


def test_without_a_sigma_there_is_no_residual():
    text = repr(made_up("poisson", "correlated slopes").varcorr())
    assert [line.split()[0] for line in text.split("\n")] == ["variance", "g", "x"]
    table = made_up("poisson", "crossed").varcorr().table
    assert list(table["grp"]) == ["g", "h", "h"]
    assert list(made_up("gamma", "crossed").varcorr().table["grp"]) == ["g", "h", "h", "Residual"]


def test_no_variances_at_all():
    found = made_up("poisson", "no random terms").varcorr()
    assert repr(found) == "no variance components"
    assert "<p>no variance components</p>" in found._repr_html_()
    assert found.table.shape == (0, 5)
    assert found.printed().shape == (0, 2)
    assert "Residual" in repr(made_up("gamma", "no random terms").varcorr())


def test_rows_have_trials_weights_and_offsets():
    trials = made_up("binomial", "offset")
    assert rows_in_words(trials.design, trials.family) == (
        f"200 rows with {simulated('binomial')['trials'].sum()} trials and an offset"
    )
    poisson = find_family("poisson")
    fit = point_fit("y ~ x", simulated("poisson"), poisson)
    assert rows_in_words(fit.design, poisson) == "200 rows"
    weighted = fit.design.with_rows(weights=np.full(200, 2.0))
    assert rows_in_words(weighted, poisson) == "200 rows with prior weights"
    fewer = replace(weighted, left_out=3)
    assert rows_in_words(fewer, poisson, knows_sigma=True) == (
        "200 rows with known standard errors (3 more left out for missing values)"
    )
