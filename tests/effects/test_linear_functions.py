"""Linear functions of the fixed effects, by their covariance and by simulation."""

import numpy as np
import pytest
from effect_cases import fit_of

from ranef.design.new_data.new_rows import rows_of
from ranef.effects.linear_functions import Wanted, of_changes, of_means, of_tests, wanted_of
from ranef.errors import FitError

X = np.array([[1.0, 0, 0, 0], [1.0, 1, 0, 0], [np.nan, 0, 0, 0]])


def test_errors_of_means_are_those_of_the_inverse_link():
    fit = fit_of("cbpp")
    rows, wanted = rows_of(X, np.zeros(3)), Wanted("response", 0.9)
    table = of_means(fit, rows, wanted)
    eta, V = X[:2] @ fit.fixef(), fit.vcov().to_numpy()
    mu = 1 / (1 + np.exp(-eta))
    J = (mu * (1 - mu))[:, None] * X[:2]
    np.testing.assert_allclose(table["estimate"][:2], mu, rtol=1e-12)
    np.testing.assert_allclose(table["se"][:2], np.sqrt(np.diag(J @ V @ J.T)), rtol=1e-8)
    assert table.iloc[2].isna().all()
    both = rows_of(X[[1, 2, 0, 1]], np.zeros(4))
    difference = of_changes(fit, both, wanted)
    assert difference["estimate"][0] == pytest.approx(mu[1] - mu[0], rel=1e-12)
    assert difference["se"][0] == pytest.approx(
        np.sqrt((J[1] - J[0]) @ V @ (J[1] - J[0])), rel=1e-8
    )
    assert difference.iloc[1].isna().all()


def test_a_known_number_has_no_test():
    table = of_tests(fit_of("cbpp"), rows_of(np.zeros((1, 4)), np.ones(1)), Wanted())
    assert table["estimate"].tolist() == [1.0]
    assert table["se"].tolist() == [0.0]
    assert table[["z", "p_value"]].isna().all(axis=None)


def test_what_is_wanted():
    assert wanted_of(fit_of("cake"), "response", 0.9, None) == Wanted("link", 0.9)
    assert wanted_of(fit_of("cbpp"), "response", 0.9, None) == Wanted("response", 0.9)
    with pytest.raises(FitError, match="expected a fit, got str"):
        wanted_of("fit", "link", 0.9, None)
