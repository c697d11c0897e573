"""Each group's rows by themselves, against least squares by pseudo-inverses."""

import numpy as np
import pytest

import ranef as rf
from ranef.explorer.own_rows import own_rows

RNG = np.random.default_rng(3)
N = 40
DATA = {
    "g": list("a" * 13 + "b" * 13 + "c" * 13 + "d"),  # one row cannot have two coefficients
    "x": RNG.normal(size=N) + 50,
    "z": RNG.normal(size=N),
    "y": RNG.normal(size=N),
    "w": RNG.uniform(0.5, 3, N),
    "o": RNG.normal(size=N),
}


@pytest.mark.parametrize("formula", ["y ~ x + z + (x | g)", "y ~ z + (1 | g)", "y ~ (0 + x | g)"])
def test_least_squares_of_each_group(formula):
    design = rf.Model(formula, DATA, weights="w", offset="o").design
    found, rows = own_rows(design), design.rows
    (term,) = rows.terms
    root = np.sqrt(rows.weights)[:, None]
    Z = term.columns @ np.linalg.inv(found.basis) * root
    both = np.column_stack([rows.X, rows.y - rows.offset]) * root
    left = np.zeros_like(both)
    for level in range(term.n_levels):
        mine = term.codes == level
        coefs = np.linalg.pinv(Z[mine]) @ both[mine]
        left[mine] = both[mine] - Z[mine] @ coefs
        np.testing.assert_allclose(found.products[level], Z[mine].T @ Z[mine], atol=1e-12)
        np.testing.assert_allclose(found.fixed[level], coefs[:, :-1], atol=1e-9)
        np.testing.assert_allclose(found.own[level], coefs[:, -1], atol=1e-9)
        assert found.rank[level] == np.linalg.matrix_rank(Z[mine])
    np.testing.assert_allclose(found.within, left.T @ left, atol=1e-9)
    assert (np.sort(found.order) == np.arange(N)).all()
    assert (np.diff(term.codes[found.order]) >= 0).all()
    assert found.n.tolist() == np.bincount(term.codes).tolist()
