"""Joint tests of the terms of a model: F tests of type I, II and III, and Wald's chi-squared.

A term is tested by contrasts that do not depend on how factors are coded. With indicators of all
levels the columns of the terms, D, are more than the data determine; beta is A b, where X A = D,
and c'beta is a function of the parameters b with the coefficients A'c.

- Type I: the term after those before it in the formula.
- Type II: the term after all that do not contain it. Both are the rows of D_t'M X, where M takes
  out what the columns of the terms before, or of those that do not contain it, explain. Of
  generalised models a root of the information, R'R = cov(beta)^-1, takes the place of X, as in car.
- Type III: of the functions that are of the term's parameters and of those of terms that contain
  it, the ones whose coefficients are orthogonal to those of functions of the latter alone. With
  all cells filled the means that are compared have equal weights.

A term contains another if it has all its factors, more factors, and the same numbers.

Sources: Goodnight (1980), *Tests of Hypotheses in Fixed Effects Linear Models*; SAS Institute,
*The Four Types of Estimable Functions*; Kuznetsova et al. (2017), *Journal of Statistical
Software* 82(13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import linalg, special

from ranef._typing import Array, Flags
from ranef.design.design import Design
from ranef.design.evaluate import Interpreter
from ranef.design.model_matrix import independent_columns, indicator_columns
from ranef.design.new_data.new_rows import new_rows
from ranef.effects.linear_functions import wanted_of
from ranef.errors import DataWarning, FitError, listed, warn
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.fits.posterior import PosteriorFit
from ranef.formula.terms import Term
from ranef.numerics.matrices import threads_for
from ranef.printing.frames import captioned

ASYMPTOTIC = "asymptotic"
TESTS = {
    "satterthwaite": "F tests with Satterthwaite's degrees of freedom",
    "kenward-roger": "F tests with Kenward and Roger's degrees of freedom",
    ASYMPTOTIC: "chi-squared tests",
}
TOLERANCE = 1e-8  # of a combination of columns of unit length: below is rounding


@dataclass(frozen=True, eq=False)
class _Block:
    """The columns D of a term with indicators of all levels, as far as the data have these.

    Attributes
    ----------
    term : Term
    numbers : frozenset of str
        The factors of the term that are numbers.
    has_first : ndarray of bool, shape (k,)
        Whether a column is of the first level of a factor.
    A : ndarray, shape (p, k)
        D as combinations of the fixed columns of unit length.
    n_empty : int
        The number of combinations of levels that are not in the data.
    """

    term: Term
    numbers: frozenset[str]
    has_first: Flags
    A: Array
    n_empty: int

    def contains(self, other: _Block) -> bool:
        """Whether this term contains another."""
        return other.term.key < self.term.key and other.numbers == self.numbers


def joint_tests(
    fit: Fit,
    *,
    type: int = 3,  # noqa: A002
    df: str | None = None,
) -> pd.DataFrame:
    """Test the terms of the fixed effects, each as a whole.

    This is `anova(model)` of R's lmerTest and `Anova(model)` of car: for a factor of several levels
    one test that all its means are the same.

    Parameters
    ----------
    fit : PointFit
    type : {1, 2, 3}
        Which hypothesis a term stands for where there are others. 3: means with equal weights,
        also of a term that is a part of an interaction. 2: the term after all others but those that
        contain it, which has more power where there is no interaction. 1: after those before it in
        the formula. Without interactions 2 and 3 are the same, in balanced data all three.
    df : {"satterthwaite", "kenward-roger", "asymptotic"}, optional
        Denominator degrees of freedom of F tests of a linear model, the first by default; or
        chi-squared tests as of large samples, which generalised models have, fits by "map", and
        models whose sigma is known.

    Returns
    -------
    DataFrame
        One row a term: `F`, `df_num`, `df_den` and `p_value`, or `chi2`, `df` and `p_value`;
        `.attrs["test"]` says what the tests are. A term that others explain in full has no degrees
        of freedom, and nan.

    Raises
    ------
    FitError
        If the fit is a posterior, or has no such degrees of freedom.

    Warns
    -----
    DataWarning
        With `type=3`, if combinations of levels are empty: what is tested then depends on which.

    Notes
    -----
    Variances are tested by `rf.anova` of two fits; `rf.anova` also compares fits with and without a
    term by their likelihoods.

    Source: Kuznetsova et al. (2017), *Journal of Statistical Software* 82(13).

    Examples
    --------
    >>> import ranef as rf
    >>> data = rf.load_dataset("cake")
    >>> fit = rf.fit("angle ~ recipe * factor(temp) + (1 | recipe:replicate)", data)
    >>> rf.joint_tests(fit).round(3)
                             F  df_num  df_den  p_value
    term
    recipe               0.249       2    42.0    0.781
    factor(temp)        20.520       5   210.0    0.000
    recipe:factor(temp)  1.006      10   210.0    0.439
    """
    if type not in (1, 2, 3) or isinstance(type, bool):
        raise FitError(f"type={type!r} is not a type of test: 1, 2 or 3.")
    if isinstance(fit, PosteriorFit):
        raise FitError(
            "joint_tests are of point fits: a posterior has no tests. The probability of a "
            "direction is in rf.contrasts() and rf.hypothesis(), and rf.compare() says how much "
            "the data favour the model with a term over the one without."
        )
    wanted_of(fit, "link", 0.95, None if df == ASYMPTOTIC else df)
    assert isinstance(fit, PointFit)
    has_f = fit.family.is_linear and fit.method in ("reml", "ml") and not fit.knows_sigma
    kind = df or ("satterthwaite" if has_f else ASYMPTOTIC)
    with threads_for(len(fit.design.fixed)):
        contrasts = term_contrasts(fit.design, type, None if fit.family.is_linear else fit.vcov())
    rows = [_chi2(fit, L) if kind == ASYMPTOTIC else _f(fit, L, kind) for L in contrasts.values()]
    table = pd.DataFrame(rows, index=pd.Index(contrasts, name="term"))
    return captioned(table, test=f"Type {'I' * type} {TESTS[kind]}")


def term_contrasts(design: Design, kind: int, vcov: pd.DataFrame | None = None) -> dict[str, Array]:
    """Return the contrasts L, shape (r, p), of every term but the intercept, L beta = 0.

    Parameters
    ----------
    design : Design
    kind : {1, 2, 3}
        The type of the tests.
    vcov : DataFrame, optional
        The covariance of the fixed effects, whose information is what terms are taken after each
        other by in types I and II; by default that of X'X.
    """
    if not design.has_rows and design.dropped:
        raise FitError(
            f"{listed(design.dropped)} left out of this model, and without rows it is not known "
            "which combinations of levels there are: joint_tests need a model of the data "
            "themselves."
        )
    lengths = np.linalg.norm(design.unweighted.X, axis=0)
    X = design.unweighted.X / lengths
    blocks = _blocks(design, lengths)
    tested = [block for block in blocks if block.term.factors]
    if not tested:
        raise FitError("the model has no fixed effect but its intercept, and nothing to test.")
    empty = [str(block.term) for block in tested if block.n_empty]
    if empty and kind == 3:
        warn(
            f"there are combinations of levels without rows in {listed(empty)}: type III tests "
            "compare means over the cells that are there. type=2 does not weight cells.",
            DataWarning,
        )
    root = X if vcov is None else np.linalg.inv(np.linalg.cholesky(vcov)) / lengths
    found = {}
    for i, block in enumerate(blocks):
        if block in tested:
            others = _others(block, blocks[:i] if kind == 1 else blocks)
            above = [one for one in blocks if one.contains(block)]
            if kind == 3:
                L = _type_3(block, others, above)
            else:
                L = _after(root, block, others, triangular=kind == 1 or bool(above))
            found[str(block.term)] = L * lengths
    return found


def _others(block: _Block, blocks: Sequence[_Block]) -> list[_Block]:
    """Return the other blocks, without those that contain one."""
    return [one for one in blocks if one is not block and not one.contains(block)]


def _blocks(design: Design, lengths: Array) -> list[_Block]:
    """Return the columns of all terms with indicators of all levels.

    Without rows of the data, by rows that stand in for them: they are coded alike.
    """
    formula, recipe = design.formula, design.recipe
    memory = replace(recipe.memory, levels=dict(recipe.memory.levels))
    rows = design.sufficient.data
    frame = rows.columns
    known = design.has_rows
    X = design.rows.X if known else new_rows(design, rows.frame(), grouping="ignored").X
    interpreter = Interpreter(frame, formula.text, memory, recipe.functions)
    blocks = []
    for term in formula.fixed:
        found = indicator_columns(interpreter, term)
        there = found.values.any(axis=0)
        A = np.linalg.lstsq(X / lengths, found.values[:, there], rcond=None)[0]
        n_empty = int((~there).sum())
        blocks.append(_Block(term, found.numbers, found.has_first[there], A, n_empty))
    return blocks


def _after(X: Array, block: _Block, others: Sequence[_Block], *, triangular: bool) -> Array:
    """Return contrasts of a term after others, shape (r, p).

    Each has one own parameter, or they are the rows of a triangular factor of the term's products
    after the others: the choices of lmerTest, on which Satterthwaite's approximation of several
    contrasts depends.
    """
    D = np.column_stack([np.empty((len(X), 0)), *(_of_unit_length(X @ o.A) for o in others)])
    own = X @ block.A / np.linalg.norm(X @ block.A, axis=0)
    rest = own - D @ np.linalg.lstsq(D, own, rcond=TOLERANCE)[0]
    axes, sizes, _ = np.linalg.svd(rest, full_matrices=False)
    axes = axes[:, sizes > TOLERANCE]
    L, kept = _with_ones(axes.T @ X, block)
    if not triangular:
        return L
    R = np.linalg.qr(axes.T @ (X @ block.A[:, kept]), mode="r")
    return np.asarray(R / np.diag(R)[:, None] @ L)


def _type_3(block: _Block, others: Sequence[_Block], above: Sequence[_Block]) -> Array:
    """Return the contrasts of type III of a term, given those that do and do not contain it."""
    none = np.empty((len(block.A), 0))
    rest, within = (np.column_stack([none, *(one.A for one in part)]) for part in (others, above))
    either = _null_space(rest)  # functions of the term's parameters and of those above
    alone = _null_space(np.column_stack([rest, block.A]))  # of those above alone
    across = (within.T @ either).T @ (within.T @ alone)
    return _with_ones((either @ _null_space(across)).T, block)[0]


def _with_ones(L: Array, block: _Block) -> tuple[Array, list[int]]:
    """Return contrasts of which each has one own parameter of a term, and which these are.

    As with treatment coding those of first levels are the last to be taken.
    """
    own, order = L @ block.A, np.argsort(block.has_first, kind="stable")
    lengths = np.linalg.norm(own, axis=0)
    found = independent_columns((own / np.where(lengths > 0, lengths, 1.0))[:, order])
    kept = sorted(order[found].tolist())
    return np.linalg.solve(own[:, kept], L), kept


def _null_space(M: Array) -> Array:
    """Return an orthonormal basis of all c with M'c = 0, shape (p, r)."""
    M = _of_unit_length(M)
    axes, sizes, _ = np.linalg.svd(M, full_matrices=True)
    return np.asarray(axes[:, int((sizes > TOLERANCE).sum()) :])


def _of_unit_length(M: Array) -> Array:
    """Return the columns of a matrix that are not zero, of unit length."""
    lengths = np.linalg.norm(M, axis=0)
    kept = lengths > TOLERANCE * lengths.max(initial=0.0)
    return np.asarray(M[:, kept] / lengths[kept])


def _f(fit: PointFit, L: Array, kind: str) -> dict[str, float]:
    """Return the F test of contrasts."""
    if not len(L):
        return {"F": np.nan, "df_num": 0, "df_den": np.nan, "p_value": np.nan}
    return fit.asked.joint_test(fit.fitted_model, kind, L)


def _chi2(fit: PointFit, L: Array) -> dict[str, float]:
    """Return Wald's test of contrasts."""
    if not len(L):
        return {"chi2": np.nan, "df": 0, "p_value": np.nan}
    values, V = L @ fit.fixef().to_numpy(), L @ fit.vcov().to_numpy() @ L.T
    chi2 = float(values @ linalg.solve(V, values, assume_a="pos"))
    return {"chi2": chi2, "df": len(L), "p_value": float(special.chdtrc(len(L), chi2))}
