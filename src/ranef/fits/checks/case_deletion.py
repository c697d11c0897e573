"""By how much estimates change when a group, or a row, is left out: exact refits.

Cook's distance of a group is the squared change of the fixed effects in the metric of their
covariance. That of a row here is the approximation from its leverage, variances as they are, as
lme4 and MixedModels.jl have it.

Source: Cook (1977), *Technometrics* 19, 15-18; Christensen, Pearson & Johnson (1992),
*Technometrics* 34, 38-45; Demidenko & Stukel (2005), *Statistics in Medicine* 24, 893-909.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Codes, Places
from ranef.design.design import Design
from ranef.errors import FitError, RanefError, suggestion
from ranef.fits.checks.point_values import Refitted, values_at
from ranef.leave_one_out.elpd import Units, units_of
from ranef.numerics.matrices import summed_by
from ranef.printing.frames import captioned

MAX_FITS = 1_000  # of units that are left out in one call
MAX_ROWS_OF_FITS = 20_000_000  # rows of all these fits together


def units_to_leave_out(
    design: Design, unit: str, group: str | ArrayLike | None, levels: Iterable[Any] | None
) -> tuple[Units, Places]:
    """Return the units that may be left out, and the places of those that are to be.

    Raises
    ------
    FitError
        If a level is none of them, or there are too many for one call.
    """
    units = units_of(design, unit, group)
    if levels is None:
        return units, check_affordable(units, np.arange(units.size), design.n_obs)
    asked = [levels] if isinstance(levels, str) or not isinstance(levels, Iterable) else [*levels]
    texts = [str(label) for label in units.labels]
    what = "row" if units.factor is None else f"level of `{units.factor}`"
    for level in asked:
        if str(level) not in texts:
            raise FitError(f"there is no {what} {level!r}. {suggestion(str(level), texts)}")
    places = np.array([texts.index(str(level)) for level in asked], dtype=np.intp)
    return units, check_affordable(units, places, design.n_obs)


def check_affordable(units: Units, places: Places, n_obs: int) -> Places:
    """Return the places, or refuse what would take as many fits as minutes or hours hold.

    Raises
    ------
    FitError
    """
    if is_affordable(len(places), n_obs):
        return places
    what = "rows" if units.factor is None else f"levels of `{units.factor}`"
    raise FitError(
        f"to leave each of {len(places):,} {what} out takes as many fits of {n_obs:,} rows: name "
        "those that are to be left out, `levels=[...]`; fit.leverage() and fit.cooks_distance() "
        "need no fit."
    )


def is_affordable(fits: int, n_obs: int, share: float = 1.0) -> bool:
    """Whether so many fits of so many rows are made in one call, or in a share of its time."""
    return fits <= share * MAX_FITS and fits * n_obs <= share * MAX_ROWS_OF_FITS


def influence_table(made: Refitted, units: Units, places: Places) -> pd.DataFrame:
    """Return the changes of all estimates as units are left out, one row a unit.

    Parameters
    ----------
    made : Refitted
        What the changes are from, and how it is made again.
    units : Units
    places : ndarray of int
        Of the units that are left out.

    Returns
    -------
    DataFrame
        Columns `level, n, cook`, and one for each parameter: its estimate without the unit less
        that of all data, nan where it has none. `.attrs["failed"]` says why a model could not be
        fitted, by level.

    Raises
    ------
    FitError
        If no model could be fitted.
    """
    fit = made.fit
    whole, fixed = fit.estimates(), list(fit.fixef().index)
    changes, failed = np.full((len(places), len(whole)), np.nan), {}
    for i, place in enumerate(places):
        try:
            rows = units.rows(place)
            left = fit.asked.without(rows, made.method, **made.options).estimates()
        except (RanefError, np.linalg.LinAlgError) as error:
            failed[str(units.labels[place])] = str(error)
        else:
            changes[i] = left.reindex(whole.index) - whole
    if failed and len(failed) == len(places):
        reason = next(iter(failed.values()))
        raise FitError(f"the model cannot be fitted without {units.name(places[0])}: {reason}")
    codes = np.arange(fit.n_obs) if units.codes is None else units.codes
    counts = fit.design.sufficient.counts(codes, units.size)
    table = pd.DataFrame(
        {
            "level": [units.labels[place] for place in places],
            "n": counts[places],
            "cook": group_distances(changes[:, : len(fixed)], fit.vcov().to_numpy(), units.size),
        }
    ).join(pd.DataFrame(changes, columns=whole.index))
    unit = units.factor or "row"
    table.attrs |= {"unit": unit, "failed": failed}
    return captioned(table, shown=f"estimates without each {unit}, less those of all data")


def group_distances(changes: Array, vcov: Array, m: int) -> Array:
    """Return Cook's distances of m units from changes of the fixed effects, shape (units, p).

    These are d'V^-1 d (m - p) / (m p), as of lme4's `influence`.
    """
    p = changes.shape[1]
    if not p:
        return np.full(len(changes), np.nan)
    squared = np.einsum("up,pq,uq->u", changes, np.linalg.pinv(vcov, hermitian=True), changes)
    return np.asarray(squared * (m - p) / (m * p))


def one_step_distances(fit: Any, codes: Codes, m: int) -> Array:
    """Return about Cook's distances of m groups, variances as they are, shape (m,).

    Exact at these variances if the groups are independent; of others, a guess at which matter.
    """
    rows = fit.design.rows
    psi = np.array([*fit.parameters.values()])
    found = fit.family.expansion(rows.y, fit.predict(kind="link"), rows.weights, psi)
    slopes = fit.asked.equations(values_at(fit)).fitted_by_fixed
    X = rows.X
    of_rows = found.weight[:, None, None] * X[:, :, None] * slopes[:, None, :]
    shares, scores = summed_by(codes, of_rows), summed_by(codes, found.score[:, None] * X)
    total = shares.sum(axis=0)
    left = np.linalg.pinv(total - shares)
    change = np.einsum("mpq,mq->mp", left, scores)
    distances = np.einsum("mp,pq,mq->m", change, total, change)
    return np.asarray(distances / max(1, X.shape[1]))[:m]


def row_distances(pearson: Array, leverages: Array, sigma: float, p: int) -> Array:
    """Return Cook's distances of rows from their residuals and leverages, shape (n,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = (pearson / (1 - leverages)) ** 2 * leverages / (sigma**2 * p)
    return np.asarray(np.where(np.isfinite(distances), distances, np.nan))
