"""The matrices of the textbook: their entries, and what the permutation saves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import ranef as rf
from ranef.errors import FitError
from ranef.fits.pictures.matrix_patterns import fill_reduced, patterns

FORMULAS = {
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
    "Penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
    "Pastes": "strength ~ 1 + (1 | batch/cask)",
}


def dense(table, name):
    entries, shape = table[table["matrix"] == name], table.attrs["shapes"][name]
    places = entries["row"], entries["column"]
    return sparse.coo_array((entries["value"], places), shape).toarray()


@pytest.mark.parametrize("data", FORMULAS)
def test_the_matrices_are_those_of_the_fit(data):
    fit = rf.fit(FORMULAS[data], rf.load_dataset(data))
    table = fit.matrix_table()
    Z, Lambda = fit.Z().toarray(), fit.Lambda().toarray()
    np.testing.assert_allclose(dense(table, "Z'"), Z.T)
    np.testing.assert_allclose(dense(table, "Lambda"), Lambda, atol=1e-12)
    np.testing.assert_allclose(dense(table, "A = Lambda'Z'"), Lambda.T @ Z.T, atol=1e-12)
    system = Lambda.T @ Z.T @ Z @ Lambda + np.eye(Z.shape[1])
    np.testing.assert_allclose(dense(table, "A W A' + I"), system, atol=1e-10)
    L, P = dense(table, "L"), table.attrs["permutation"]
    np.testing.assert_allclose(L @ L.T, system[np.ix_(P, P)], atol=1e-10)
    assert not np.triu(L, 1).any()


def test_the_counts_of_bates():
    """Crossed factors fill in: 189 entries of L for Penicillin, as on his slides; nested do not."""
    counts = {}
    for data in ("Penicillin", "Pastes"):
        table = rf.fit(FORMULAS[data], rf.load_dataset(data)).matrix_table()
        counts[data] = table.groupby("matrix").size()
    assert counts["Penicillin"]["L"] == 189
    pastes = counts["Pastes"]
    assert pastes["L"] == (pastes["A W A' + I"] + 40) // 2


def test_a_permutation_saves_fill_in():
    """An arrow that points the wrong way fills its factor; the other way round nothing fills."""
    arrow = np.eye(30) * 40
    arrow[0] = arrow[:, 0] = 1.0
    arrow[0, 0] = 40.0
    order, L = fill_reduced(sparse.csc_array(arrow))
    assert np.count_nonzero(L) == 59
    np.testing.assert_allclose(L @ L.T, arrow[np.ix_(order, order)], atol=1e-12)


def test_minimum_degree_is_among_the_orders():
    """A grid of 12 x 12: its factor has 1,739 entries row by row, fewer by minimum degree."""
    line = sparse.diags_array([-1.0, -1.0], offsets=[-1, 1], shape=(12, 12))
    grid = sparse.kron(line, sparse.eye_array(12)) + sparse.kron(sparse.eye_array(12), line)
    system = sparse.csc_array(grid + 5 * sparse.eye_array(144))
    _, L = fill_reduced(system)
    assert np.count_nonzero(np.linalg.cholesky(system.toarray())) == 1739
    assert np.count_nonzero(L) < 1200


def test_weights_and_working_weights():
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = rf.fit(formula, data, family="binomial")
    L = dense(fit.matrix_table(), "L")
    np.testing.assert_allclose(L, fit.cholesky(), atol=1e-10)
    post = rf.fit(formula, data, "laplace", family="binomial", draws=1000, seed=1)
    assert list(post.matrix_table().attrs["shapes"]) == list(fit.matrix_table().attrs["shapes"])


def test_without_random_effects_there_are_none():
    fit = rf.fit("Yield ~ Batch", rf.load_dataset("Dyestuff"))
    with pytest.raises(FitError, match="the model has no random effects, and so none of these"):
        fit.plot_matrices()


def test_the_factor_of_many_effects_is_left_out(monkeypatch):
    monkeypatch.setattr("ranef.fits.pictures.matrix_patterns.MAX_EFFECTS", 10)
    fit = rf.fit(FORMULAS["sleepstudy"], rf.load_dataset("sleepstudy"))
    table = patterns(fit.design, fit.estimate.Lambdas, np.ones(180))
    assert "L" not in table.attrs["shapes"]
    assert len(fit.plot_matrices()) == 4
