"""The names of a posterior: its variables, their dimensions and the labels on these.

All posteriors, however computed, and the draws from the prior have these names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from ranef._typing import Array, Dataset
from ranef.design.design import Design, RandomTerm
from ranef.design.rows.rows import Rows
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN

type Dims = tuple[str, str, str]  # of a term: levels, coefficients, coefficients again

# Names of dimensions that PyMC, nutpie and ArviZ keep for themselves
_RESERVED = ("chain", "draw", "sample", "__sample__", "unconstrained_parameter")

# The order of the variables, by the first part of the name. b goes before sd because ArviZ 1.3
# mixes up the rows of `az.summary` where variables do not have their dimensions in one order.
KINDS = ("beta", "sigma", "b", "sd", "corr")


def coordinates(
    design: Design, family: Family = GAUSSIAN
) -> tuple[dict[str, Dims], dict[str, Sequence[Any]]]:
    """Return the dimensions of a design's posterior, and the labels on them.

    Parameters
    ----------
    design : Design
    family : Family
        The family of the model; its parameters' names are not used for dimensions.

    Returns
    -------
    dims : dict
        From the label of a term to the names of its dimensions: levels, coefficients, and
        coefficients again. Where a name is taken, underscores are appended.
    coords : dict
        From the name of a dimension to its labels: `fixed` (p; none without fixed
        effects), and those of the terms.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    >>> dims, coords = coordinates(model.design)
    >>> dims
    {'Subject': ('Subject', 'Subject_coef', 'Subject_coef_bis')}
    >>> coords["Subject_coef"]
    ('Intercept', 'Days')
    """
    dims = _term_dims(design, family)
    coords: dict[str, Sequence[Any]] = {"fixed": design.fixed}
    for term in design.terms:
        term_labels = (labels(term.levels), term.coefs, term.coefs)
        coords |= dict(zip(dims[term.label], term_labels, strict=True))
    return dims, coords


def variables(design: Design, family: Family = GAUSSIAN) -> dict[str, tuple[str, ...]]:
    """Return the variables of a design's posterior in their order, and the dimensions of each.

    There is a sigma where the family has one; then come the family's own parameters.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy"))
    >>> list(variables(model.design))
    ['beta', 'sigma', 'b_Subject', 'sd_Subject']
    """
    dims = _term_dims(design, family)
    fixed: dict[str, tuple[str, ...]] = {"beta": ("fixed",)} if design.fixed else {}
    return (
        fixed
        | ({"sigma": ()} if family.has_sigma else {})
        | {name: () for name in family.parameters if name != "sigma"}
        | {f"b_{label}": term_dims[:2] for label, term_dims in dims.items()}
        | {f"sd_{label}": term_dims[1:2] for label, term_dims in dims.items()}
        | {
            f"corr_{t.label}": dims[t.label][1:]
            for t in design.terms
            if t.covariance.has_correlations
        }
    )


def parameter_names(design: Design, family: Family = GAUSSIAN) -> list[str]:
    """Return the names of all numbers that are estimated, each correlation once.

    Fixed effects are called by their columns, or `beta[sigma]` where that is a variable's name.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Reaction ~ 1 + (Days | Subject)", rf.load_dataset("sleepstudy"))
    >>> parameter_names(model.design)[:3]
    ['Intercept', 'sigma', 'sd_Subject[Intercept]']
    """
    taken = {"beta", *family.parameters}
    taken |= {f"{kind}_{t.label}" for kind in ("b", "sd", "corr") for t in design.terms}
    names = [f"beta[{name}]" if name in taken else name for name in design.fixed]
    names += family.parameters
    for t in design.terms:
        names += [sd_name(t, j) for j in range(t.n_coefs)]
        names += [corr_name(t, i, j) for i, j in t.covariance.pairs]
    return names


def theta_names(design: Design) -> list[str]:
    """Return the names of the elements of theta, as in lme4: `Subject.Days.Intercept`."""
    return [n for t in design.terms for n in t.covariance.theta_names(t.label, t.coefs)]


def sd_name(term: RandomTerm, j: int) -> str:
    """Return the name of the standard deviation of a coefficient."""
    return f"sd_{term.label}[{term.coefs[j]}]"


def corr_name(term: RandomTerm, i: int, j: int) -> str:
    """Return the name of the correlation of two coefficients."""
    return f"corr_{term.label}[{term.coefs[i]}, {term.coefs[j]}]"


def named(design: Design, draws: Mapping[str, Array], family: Family = GAUSSIAN) -> Dataset:
    """Return draws as a data set, with the dimensions and labels of a posterior.

    Parameters
    ----------
    design : Design
    draws : mapping of str to array, shape (chains, draws, ...)
        One array for each name in `variables(design, family)`, or some of these.
    family : Family
    """
    import xarray as xr

    _, coords = coordinates(design, family)
    chains, n = next(iter(draws.values())).shape[:2]
    data = {
        name: (("chain", "draw", *dims), draws[name])
        for name, dims in variables(design, family).items()
        if name in draws
    }
    used = {dim for dims, _ in data.values() for dim in dims}
    indices: dict[str, Sequence[Any]] = {"chain": range(chains), "draw": range(n)}
    coords = {dim: list(values) for dim, values in (indices | coords).items() if dim in used}
    return xr.Dataset(data, coords)


def observed(rows: Rows) -> Dataset:
    """Return the response as the design has it: the group `observed_data` of a posterior.

    PyMC has the successes of a binomial response, the design has their proportion.
    """
    import xarray as xr

    return xr.Dataset({"y": ("obs", rows.y)}, {"obs": list(labels(rows.index))})


def by_row(rows: Rows, values: Array) -> Dataset:
    """Return a number of each row and draw as the variable `y` of a group of a posterior.

    Parameters
    ----------
    rows : Rows
    values : ndarray, shape (chains, draws, n)
    """
    import xarray as xr

    coords = {"chain": range(values.shape[0]), "draw": range(values.shape[1])}
    return xr.Dataset(
        {"y": (("chain", "draw", "obs"), values)}, coords | {"obs": list(labels(rows.index))}
    )


def predictors(design: Design) -> Dataset:
    """Return what is known of each row besides the response: the group `constant_data`.

    It holds the columns of the data that the model uses, measured ones as numbers and labels as
    text, and `weights` and `offset` where there are any.
    """
    import xarray as xr

    rows = design.rows
    columns: dict[str, Any] = {
        str(name): column.to_numpy(float) if is_numeric_dtype(column) else column.astype(str)
        for name, column in rows.data.columns.items()
        if name != design.response
    }
    columns |= {"weights": rows.weights} if design.has_weights else {}
    columns |= {"offset": rows.offset} if design.has_offset else {}
    data = {name: ("obs", np.asarray(column)) for name, column in columns.items() if name != "obs"}
    return xr.Dataset(data, {"obs": list(labels(rows.index))})


def labels(index: pd.Index[Any]) -> Sequence[Any]:
    """Return an index as numbers, dates or else text, which every container can carry."""
    if isinstance(index, pd.MultiIndex) or not index.is_unique:
        return range(len(index))
    plain = pd.Index(index.tolist())
    is_plain = isinstance(plain.dtype, np.dtype) and plain.dtype.kind in "biufmM"
    return plain.tolist() if is_plain else [str(label) for label in plain]


def _term_dims(design: Design, family: Family) -> dict[str, Dims]:
    """Return the names of the dimensions of each term: levels, coefficients, these again."""
    terms = [term.label for term in design.terms]
    taken = {"obs", "fixed", "beta", "y", *family.parameters, *_RESERVED}
    taken |= {f"{kind}_{label}" for kind in ("sd", "corr", "b", "z") for label in terms}
    dims = {}
    for label in terms:
        names = [_unused(name, taken) for name in (label, f"{label}_coef", f"{label}_coef_bis")]
        dims[label] = (names[0], names[1], names[2])
        taken |= set(names)
    return dims


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
