"""Patterns of matrices as they are drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ranef.plots.curves.sparsity import MAX_CELLS, draw_matrix, sparsity


def test_signs_and_sizes():
    table = pd.DataFrame(
        {"matrix": "L", "row": [0, 1, 1], "column": [0, 0, 1], "value": [4.0, -1.0, 1.0]}
    )
    table.attrs |= {"shapes": {"L": (2, 2), "M": (2, 3)}, "permutation": np.array([1, 0])}
    first, second = sparsity(table)
    image = first.images[0].get_array()
    np.testing.assert_allclose(image, [[1, 0], [-0.5, 0.5]])
    assert first.get_title(loc="left") == "L, permuted\n2 x 2, 3 entries"
    assert not second.images[0].get_array().any()


def test_large_matrices_are_drawn_in_cells():
    import matplotlib.pyplot as plt

    n = 100_000
    entries = pd.DataFrame({"row": np.arange(n), "column": np.arange(n), "value": 1.0})
    axes = plt.figure().add_subplot()
    draw_matrix(axes, entries, (n, n))
    image = axes.images[0].get_array()
    assert image.shape == (MAX_CELLS, MAX_CELLS)
    assert (np.diag(image) > 0.99).all()
    assert (image - np.diag(np.diag(image)) == 0).all()
    assert axes.get_xlim() == (-0.5, n - 0.5)
