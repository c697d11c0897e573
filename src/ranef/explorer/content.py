"""What the page of the shrinkage explorer holds: the numbers of a model as JSON.

Arrays are flat, row by row. `among` is P (k x p): P beta are the population's coefficients of the
term. `basis` is T (k x k), Z = (Z in the basis) T; `ZtZ` (upper triangle), `C` (k x p) and `own`
(k) stand by group and in the basis; `within` is a lower triangle. `rows` are by group: `x` the last
column of the term, `y` less the offset, `X` the fixed columns that are not the term's, `w` the
weights. Densities of `posterior` are at t = 0, 1/120, ..., 1 along the sliders, as
`page/sliders.js` has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import linalg

from ranef._typing import Array, Codes, Flags
from ranef.covariances.covariance import Unstructured
from ranef.design.design import Design
from ranef.likelihood.linear.crossproducts import basis
from ranef.posterior.quadrature.marginal_densities import Curve

FORMAT = 1
DIGITS = 12  # of a number; with 6 a group's first rows would change the criterion by 1e-4
MAX_ROWS = 10_000  # that a page holds
POINTS = 121  # of a density
SMALL = 0.05  # of the posterior median: a REML sd below it is no scale for a slider


@dataclass(frozen=True)
class Names:
    """The words of the page.

    Attributes
    ----------
    title : str
    noun : tuple of str
        A group, groups, and rows.
    response : str
        The unit of the response; empty if it has none.
    coefs : tuple of str
        The units of the coefficients of the term.
    """

    title: str
    noun: tuple[str, str, str]
    response: str
    coefs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Marks:
    """Where REML and the posterior put the parameters, on the user's scale.

    Attributes
    ----------
    beta : ndarray, shape (p,)
    sigma, criterion : float
    sd : ndarray, shape (k,)
    corr : float or None
        None where the correlation is not a parameter, or not determined.
    curves : dict of str to Curve or None
        Posterior densities of `sigma`, `sd0`, `sd1`, `corr`: None for what is known.
    missing : str
        Why there is no posterior; else empty.
    """

    beta: Array
    sigma: float
    criterion: float
    sd: Array
    corr: float | None
    curves: dict[str, Curve | None]
    missing: str = ""


def content(design: Design, marks: Marks, names: Names) -> dict[str, Any]:
    """Return what the page holds, rows included if there are not too many."""
    (term,) = design.terms
    found, own = design.fixed_among_term(term.label), own_rows(design)
    among = np.where(found.exact, found.coefs, 0.0)
    scale = _scale(marks, own)
    upper = np.triu_indices(term.n_coefs)
    return {
        "format": FORMAT,
        "title": names.title,
        "formula": design.formula.text,
        "response": design.response,
        "factor": term.factor,
        "noun": list(names.noun),
        "units": {"response": names.response, "coefs": list(names.coefs)},
        "coefs": list(term.coefs),
        "fixed": list(design.fixed),
        "place": [_place(row) for row in among],
        "among": _flat(among),
        "correlated": bool(term.covariance.pairs),
        "n": design.n_obs,
        "weighted": design.has_weights,
        "logWeights": _short(np.log(design.rows.weights).sum()),
        "basis": _flat(own.basis),
        "groups": {
            "labels": [str(level) for level in term.levels],
            "n": own.n.tolist(),
            "rank": own.rank.tolist(),
            "ZtZ": _flat(own.products[:, upper[0], upper[1]]),
            "C": _flat(own.fixed),
            "own": _flat(own.own),
        },
        "within": _flat(own.within[np.tril_indices(len(own.within))]),
        "rows": _rows(design, own, ~found.exact),
        "reml": {
            "beta": _flat(marks.beta),
            "sigma": _short(marks.sigma),
            "sd": _flat(marks.sd),
            "corr": None if marks.corr is None else _short(marks.corr),
            "criterion": _short(marks.criterion),
        },
        "scale": {"sigma": _short(marks.sigma), "sd": _flat(scale)},
        "posterior": _posterior(marks, scale),
        "knownSigma": "sigma" in marks.curves and marks.curves["sigma"] is None,
        "missing": marks.missing,
    }


def _place(row: Array) -> int:
    """Return which fixed effect a coefficient of the population is; -1 for none or several."""
    taking_part = np.flatnonzero(~np.isclose(row, 0))
    return (
        int(taking_part[0]) if len(taking_part) == 1 and np.isclose(row[taking_part[0]], 1) else -1
    )


def _scale(marks: Marks, own: OwnRows) -> Array:
    """Return the sd in the middle of each slider."""
    size = np.sqrt(own.products.trace(axis1=1, axis2=2).mean() / len(marks.sd))
    scale = np.array(marks.sd, dtype=np.float64)
    for i in range(len(scale)):
        curve = marks.curves.get(f"sd{i}")
        typical = marks.sigma / (size * np.abs(own.basis[i, i]))
        least = SMALL * typical if curve is None else SMALL * float(curve.quantile(0.5))
        if scale[i] < least:
            scale[i] = typical if curve is None else least / SMALL
    return scale


def _rows(design: Design, own: OwnRows, is_other: Flags) -> dict[str, list[float]]:
    """Return the rows by group; none if there are many, or if they are no lines of one variable."""
    rows, columns = design.rows, design.rows.terms[0].columns[own.order]
    if design.n_obs > MAX_ROWS or (columns.shape[1] == 2 and (columns[:, 0] != 1).any()):
        return {}
    found = {"y": (rows.y - rows.offset)[own.order], "X": rows.X[:, is_other][own.order]}
    if (columns[:, -1] != 1).any():
        found["x"] = columns[:, -1]
    if design.has_weights:
        found["w"] = rows.weights[own.order]
    return {name: _flat(values) for name, values in found.items()}


def _posterior(marks: Marks, scale: Array) -> dict[str, Any]:
    """Return each density along its slider; None for what is known, or where there is none."""
    t = np.linspace(0, 1, POINTS)
    sds = [
        _density(marks.curves.get(f"sd{i}"), s * t[:-1] / (1 - t[:-1])) for i, s in enumerate(scale)
    ]
    sigma = _density(marks.curves.get("sigma"), marks.sigma * 2.0 ** (4 * t - 2))
    return {"sigma": sigma, "sd": sds, "corr": _density(marks.curves.get("corr"), 2 * t - 1)}


def _density(curve: Curve | None, values: Array) -> dict[str, Any] | None:
    """Return a density at the positions of a slider, none at an end without end."""
    if curve is None:
        return None
    pdf = np.zeros(POINTS)
    pdf[: len(values)] = curve.pdf(values)
    lower, upper = curve.hdi(0.95)
    figures = {"mean": curve.mean, "median": float(curve.quantile(0.5))}
    figures |= {"lower": lower, "upper": upper}
    return {"pdf": _flat(pdf)} | {name: _short(value) for name, value in figures.items()}


def _flat(values: Array | Sequence[float]) -> list[float]:
    return [_short(x) for x in np.ravel(values)]


def _short(x: float) -> float:
    """Return a number of some digits, which JSON writes shortly."""
    value = float(f"{x:.{DIGITS}g}")
    return int(value) if value == int(value) and abs(value) < 10**DIGITS else value


RANK = 1e-9  # of a singular value, relative to the largest


@dataclass(frozen=True, eq=False)
class OwnRows:
    """The rows of each group by themselves; weighted, and less the offset.

    Attributes
    ----------
    basis : ndarray, shape (k, k)
        T: columns = (columns in the basis) @ T.
    n, rank : ndarray of int, shape (m,)
        Rows, and how many coefficients they determine.
    products : ndarray, shape (m, k, k)
        G.
    fixed : ndarray, shape (m, k, p)
        Least-squares coefficients of the fixed columns, those of least length.
    own : ndarray, shape (m, k)
        ... and of the response.
    within : ndarray, shape (p + 1, p + 1)
        Cross-products of what these leave of [X y], summed over groups.
    order : ndarray of int, shape (n,)
        The rows by group.
    """

    basis: Array
    n: Codes
    rank: Codes
    products: Array
    fixed: Array
    own: Array
    within: Array
    order: Codes


def own_rows(design: Design) -> OwnRows:
    """Return what the rows of each group of the only term say by themselves."""
    rows, (term,), (grouped,) = design.rows, design.terms, design.rows.terms
    root = np.sqrt(rows.weights)[:, None]
    T = basis(grouped.columns * root, replace(term, covariance=Unstructured(term.n_coefs)))
    Z = linalg.solve_triangular(T, (grouped.columns * root).T, trans="T").T
    both = np.column_stack([rows.X, rows.y - rows.offset]) * root
    order = np.argsort(grouped.codes, kind="stable")
    n = np.bincount(grouped.codes, minlength=grouped.n_levels)
    ranks, products, coefs = [], [], []
    within = np.zeros((both.shape[1], both.shape[1]))
    for these in np.split(order, np.cumsum(n)[:-1]):
        z, f = Z[these], both[these]
        on_z, _, rank, _ = np.linalg.lstsq(z, f, rcond=RANK)
        left = f - z @ on_z
        within += left.T @ left
        ranks.append(int(rank))
        products.append(z.T @ z)
        coefs.append(on_z)
    found = np.array(coefs)
    own = (np.array(products), found[:, :, :-1], found[:, :, -1])
    return OwnRows(T, n, np.array(ranks), *own, within, order)
