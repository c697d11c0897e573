"""The basis of a lazy model's measured columns against the columns of the same rows in memory."""

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from ranef.design.evaluate import Interpreter, Memory
from ranef.design.lazy.lazy_table import complete_table
from ranef.design.model_matrix import code
from ranef.formula.terms import read_formula
from ranef.model.summaries.lazy_basis import LazyBasis, basis_of, root_of
from ranef.model.summaries.lazy_pairs import less_fixed

TEXT = "y ~ f * x + I(x > 0):z + (1 + f | g)"


def _frame(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    f, x = rng.integers(3, size=n), rng.normal(100, 3, size=n) * rng.choice([-1, 1], size=n)
    return pd.DataFrame(
        {
            "y": 1e4 * f + x + rng.normal(size=n),
            "x": x,
            "z": rng.normal(size=n),
            "f": np.array(list("abc"))[f],
            "g": rng.integers(4, size=n),
        }
    )


FRAME = _frame()


def _basis() -> LazyBasis:
    formula = read_formula(TEXT)
    lazy = nw.from_native(pl.from_pandas(FRAME).lazy())
    table = complete_table(formula, lazy, None, None, "drop")
    rows = Interpreter(FRAME, TEXT, Memory({}, {"f": pd.Index(list("abc"))}), {})
    X, Z = code(rows, formula.fixed), code(rows, formula.random[0].terms)
    return basis_of(formula, table, rows, X, [Z])


def _columns(basis: LazyBasis) -> np.ndarray:
    found = basis.rows.collect()
    Q = np.column_stack([found.get_column(name).to_numpy() for name in basis.names])
    values = {name: found.get_column(name).to_numpy() for name in basis.keys.values()}
    shares = basis.shares(values | {"ranef_rows": Q[:, 0]}, np.arange(basis.back.shape[1]))
    return basis.whole((Q @ basis.back) * shares.toarray())


@pytest.mark.parametrize("is_less_fixed", [False, True])
def test_columns_are_shares_of_those_of_an_orthonormal_basis(*, is_less_fixed: bool) -> None:
    basis = less_fixed(_basis()) if is_less_fixed else _basis()
    found = basis.rows.collect()
    Q = np.column_stack([found.get_column(name).to_numpy() for name in basis.names])
    if not is_less_fixed:
        np.testing.assert_allclose(Q.T @ Q, np.eye(Q.shape[1]), atol=1e-10)
    model = rf.Model(TEXT, FRAME)
    rows, zeros = model.design.rows, np.zeros(len(FRAME))
    expected = np.column_stack(
        [zeros + 1, rows.X, rows.terms[0].columns, zeros, FRAME["y"].to_numpy()]
    )
    np.testing.assert_allclose(_columns(basis), expected, atol=1e-7)


def test_the_response_less_what_fixed_columns_explain_is_small() -> None:
    basis = less_fixed(_basis())
    (left,) = (basis.rows.collect().get_column(basis.names[-1]).to_numpy(),)
    rows = rf.Model(TEXT, FRAME).design.rows
    residual = rows.y - rows.X @ np.linalg.lstsq(rows.X, rows.y, rcond=None)[0]
    np.testing.assert_allclose(left, residual / np.linalg.norm(residual), atol=1e-6)


def test_parts_are_the_different_products_of_shares_and_basis() -> None:
    basis = _basis()
    columns, of_basis, coefs = basis.parts
    assert len({*zip(columns.tolist(), of_basis.tolist(), strict=True)}) == len(columns)
    shares = np.random.default_rng(0).normal(size=len(basis.depends_on))
    named = [(), *(o.coded for one in basis.coded for o in one.columns.origins), (), ()]
    shares = np.array([shares[named.index(one)] for one in named])
    q = np.random.default_rng(1).normal(size=len(basis.names))
    np.testing.assert_allclose((shares[columns] * q[of_basis]) @ coefs, shares * (q @ basis.back))


def test_roots_have_the_cross_products() -> None:
    A = np.random.default_rng(2).normal(size=(9, 4)) * [1, 1e6, 0, 1e-3]
    R = root_of(A.T @ A)
    np.testing.assert_allclose(R.T @ R, A.T @ A, rtol=1e-9, atol=1e-12)
