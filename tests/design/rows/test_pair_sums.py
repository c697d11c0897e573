"""Sums by pairs of levels: their order and their bases."""

import numpy as np

from ranef.design.rows.pair_sums import PairSums, PairTable


def _sums() -> PairSums:
    rng = np.random.default_rng(1)
    sizes = {0: (3, 2), 1: (2, 1), 2: (2, 2)}
    own = tuple(rng.normal(size=(m, k, k)) for m, k in sizes.values())
    fixed = tuple(rng.normal(size=(m, k, 3)) for m, k in sizes.values())
    pairs = {
        (i, j): PairTable(
            np.array([0, 1]), np.array([1, 0]), rng.normal(size=(2, sizes[i][1], sizes[j][1]))
        )
        for i, j in [(0, 1), (0, 2), (1, 2)]
    }
    return PairSums(own, fixed, tuple(np.eye(k) for _, k in sizes.values()), pairs)


def test_terms_in_another_order_have_the_same_tables() -> None:
    sums = _sums()
    turned = sums.reordered([2, 0, 1])
    for new, old in enumerate([2, 0, 1]):
        np.testing.assert_array_equal(turned.own[new], sums.own[old])
        np.testing.assert_array_equal(turned.fixed[new], sums.fixed[old])
    found = turned.table(0, 1)
    np.testing.assert_array_equal(found.first, sums.pairs[0, 2].second)
    np.testing.assert_array_equal(found.products, sums.pairs[0, 2].products.transpose(0, 2, 1))


def test_sums_in_another_basis_are_those_of_its_columns() -> None:
    sums, T = _sums(), np.array([[2.0, 1.0], [0.0, 3.0]])
    bases = (T, np.eye(1), np.eye(2))
    found = sums.of_bases(bases)
    np.testing.assert_allclose(T.T @ found.own[0] @ T, sums.own[0])
    np.testing.assert_allclose(T.T @ found.fixed[0], sums.fixed[0])
    np.testing.assert_allclose(T.T @ found.table(0, 1).products, sums.table(0, 1).products)
