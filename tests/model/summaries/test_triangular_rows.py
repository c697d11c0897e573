"""Triangular rows against the cross-products of all rows, cell by cell."""

import numpy as np
import pytest

from ranef.model.summaries.triangular_rows import triangular_rows


@pytest.mark.parametrize("n_cells", [1, 3, 40])
def test_rows_have_the_cross_products_of_every_cell(n_cells: int) -> None:
    rng = np.random.default_rng(1)
    columns, cells = rng.normal(size=(500, 4)), rng.integers(n_cells, size=500)
    cells[:n_cells] = np.arange(n_cells)
    rows, of = triangular_rows(columns, cells)
    for cell in range(n_cells):
        full, few = columns[cells == cell], rows[of == cell]
        assert len(few) <= min(4, len(full))
        np.testing.assert_allclose(few.T @ few, full.T @ full, atol=1e-12 * len(full))


def test_short_cells_and_cells_of_zeros_keep_a_row() -> None:
    columns = np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    rows, cells = triangular_rows(columns, np.array([0, 1, 2]))
    assert cells.tolist() == [0, 1, 2]
    assert np.abs(rows).tolist() == np.abs(columns).tolist()


def test_cells_of_very_different_sizes_go_together() -> None:
    rng = np.random.default_rng(2)
    cells = np.repeat(np.arange(60), rng.integers(1, 300, size=60))
    columns = rng.normal(size=(len(cells), 3))
    rows, of = triangular_rows(columns, cells)
    total = sum(rows[of == cell].T @ rows[of == cell] for cell in range(60))
    np.testing.assert_allclose(total, columns.T @ columns, rtol=1e-12)
    assert (np.diff(of) >= 0).all()
