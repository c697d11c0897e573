"""Linear functions of the fixed effects, and means that follow from them, with their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array, Places
from ranef.arguments import check_choice
from ranef.design.new_data.new_rows import NewRows
from ranef.effects.multiple_tests import p_values, quantiles
from ranef.effects.reference_grid import rows_of
from ranef.errors import FitError, probability
from ranef.families.derivatives import differenced
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.fits.posterior import PosteriorFit
from ranef.fits.predictions.prediction_table import (
    Question,
    parts,
    posterior_intervals,
    posterior_means,
)
from ranef.likelihood.predictions import drawn_rows
from ranef.posterior.draws import hdi

SCALES = ("link", "response")


@dataclass(frozen=True)
class Wanted:
    """What is wanted of linear functions.

    Attributes
    ----------
    kind : {"link", "response"}
    prob : float
        Probability of the intervals.
    df : str or None
        The kind of degrees of freedom of a linear point fit; None is a normal distribution.
    """

    kind: str = "link"
    prob: float = 0.95
    df: str | None = None


def wanted_of(fit: object, kind: str, prob: float, df: str | None) -> Wanted:
    """Return what is wanted, or refuse what is no fit or has no answer.

    Raises
    ------
    FitError
    """
    if not isinstance(fit, PointFit | PosteriorFit):
        raise FitError(f"expected a fit, got {type(fit).__name__}: model.fit() makes one.")
    if df is not None and isinstance(fit, PosteriorFit):
        raise FitError(
            f"df={df!r} is for point fits: a posterior has the uncertainty of the variances "
            "in it, and no tests."
        )
    if df is not None and not fit.family.is_linear and isinstance(fit, PointFit):
        fit.asked.degrees_of_freedom(fit.fitted_model, df)  # says why there are none
    check_choice("kind", kind, SCALES, "is not a scale")
    is_same = fit.family.mean_is_eta
    return Wanted("link" if is_same else kind, probability(prob), df)


def of_means(fit: Fit, rows: NewRows, wanted: Wanted) -> pd.DataFrame:
    """Return means, each a row, with errors and intervals; nan in the places of rows left out."""
    if isinstance(fit, PosteriorFit):
        estimate, spread = _posterior(fit, rows, wanted)
        return _spread(rows, dict(zip(_COLUMNS, (estimate, *spread), strict=True)))
    assert isinstance(fit, PointFit)
    eta = rows.offset + rows.X @ fit.fixef().to_numpy()
    se, df = _errors(fit, rows.X, wanted.df)
    half = quantiles(wanted.prob, df, "none", 1) * se
    if wanted.kind == "link":
        numbers = {"estimate": eta, "se": se, "lower": eta - half, "upper": eta + half}
    else:
        mean, slope = _mean_and_slope(fit, eta)
        ends = np.sort([_mean_and_slope(fit, eta + way * half)[0] for way in (-1, 1)], axis=0)
        numbers = {"estimate": mean, "se": np.abs(slope) * se, "lower": ends[0], "upper": ends[1]}
    return _spread(rows, _with_df(numbers, df, wanted))


def of_differences(
    fit: Fit,
    one: NewRows,
    other: NewRows,
    wanted: Wanted,
    *,
    adjust: str = "none",
    n_means: int = 2,
) -> pd.DataFrame:
    """Return differences of two means each, as one family of tests.

    Parameters
    ----------
    fit : Fit
    one, other : NewRows
        Rows of one length, as `rows_of` makes them.
    wanted : Wanted
    adjust, n_means
        As of `multiple_tests.p_values`; a posterior needs no adjustment.
    """
    X = one.spread(one.X) - other.spread(other.X)
    rows = rows_of(X, one.spread(one.offset) - other.spread(other.offset))
    if wanted.kind == "link":
        return of_tests(fit, rows, wanted, adjust=adjust, n_means=n_means)
    pair = [_kept(each, rows.places) for each in (one, other)]
    if isinstance(fit, PosteriorFit):
        draws = np.subtract(*(_means_drawn(fit, each) for each in pair))
        return _of_draws(rows, draws, wanted)
    assert isinstance(fit, PointFit)
    beta = fit.fixef().to_numpy()
    (mean, slope), (base, slope_of_base) = (
        _mean_and_slope(fit, each.offset + each.X @ beta) for each in pair
    )
    X = slope[:, None] * pair[0].X - slope_of_base[:, None] * pair[1].X
    return _tested(fit, rows, mean - base, X, wanted, adjust=adjust, n_means=n_means)


def of_tests(
    fit: Fit, rows: NewRows, wanted: Wanted, *, adjust: str = "none", n_means: int = 2
) -> pd.DataFrame:
    """Return linear functions with tests of zero, or with posterior probabilities of being above.

    Parameters are those of `of_differences`.
    """
    if isinstance(fit, PosteriorFit):
        estimate, spread = _posterior(fit, rows, wanted)
        above = [_probability_above(fit, part) for part in parts(rows, fit.marginals.n_points)]
        columns = (estimate, *spread, np.concatenate(above))
        return _spread(rows, dict(zip((*_COLUMNS, "probability"), columns, strict=True)))
    assert isinstance(fit, PointFit)
    estimate = rows.offset + rows.X @ fit.fixef().to_numpy()
    return _tested(fit, rows, estimate, rows.X, wanted, adjust=adjust, n_means=n_means)


def of_slopes(fit: Fit, here: NewRows, slope: NewRows, wanted: Wanted) -> pd.DataFrame:
    """Return slopes of means, by the chain rule: of the inverse link times those of eta.

    Parameters
    ----------
    fit : Fit
    here, slope : NewRows
        The means, and their derivatives, in the same places.
    wanted : Wanted
    """
    if wanted.kind == "link":
        return of_tests(fit, slope, wanted)
    if isinstance(fit, PosteriorFit):
        draws = fit.draws_at()
        eta, rise = (draws.beta @ rows.X.T + rows.offset for rows in (here, slope))
        psi = [fit.marginals.drawn.parameter(name)[:, None] for name in fit.family.parameters]
        return _of_draws(slope, _derivatives(fit, eta, psi)[1] * rise, wanted)
    assert isinstance(fit, PointFit)
    eta, rise = (rows.X @ fit.fixef().to_numpy() + rows.offset for rows in (here, slope))
    _, first, second = _derivatives(fit, eta, list(fit.parameters.values()))[:3]
    X = first[:, None] * slope.X + (second * rise)[:, None] * here.X
    return _tested(fit, slope, first * rise, X, wanted, adjust="none", n_means=2)


_COLUMNS = ("estimate", "sd", "lower", "upper")


def interval_words(fit: Fit, wanted: Wanted, adjust: str = "none") -> str:
    """Return what the intervals are."""
    if isinstance(fit, PosteriorFit):
        return f"{100 * wanted.prob:g} % HPD interval"
    together = {"tukey": ", simultaneous (Tukey)", "holm": ", simultaneous (Bonferroni)"}
    which = f"t interval, {wanted.df}" if wanted.df else "Wald interval"
    return f"{100 * wanted.prob:g} % {which}{together.get(adjust, '')}"


def _tested(
    fit: PointFit,
    rows: NewRows,
    estimate: Array,
    X: Array,
    wanted: Wanted,
    *,
    adjust: str,
    n_means: int,
) -> pd.DataFrame:
    """Return estimates of a point fit whose errors are those of X beta."""
    se, df = _errors(fit, X, wanted.df)
    half = quantiles(wanted.prob, df, adjust, n_means) * se
    ratio = np.divide(estimate, se, out=np.full_like(se, np.nan), where=se > 0)
    numbers = {"estimate": estimate, "se": se, "lower": estimate - half, "upper": estimate + half}
    tests = {
        "t" if wanted.df else "z": ratio,
        "p_value": p_values(ratio, df, adjust, n_means),
    }
    return _spread(rows, _with_df(numbers, df, wanted) | tests)


def _errors(fit: PointFit, X: Array, df: str | None) -> tuple[Array, Array]:
    """Return standard errors of X beta and their degrees of freedom, shape (r,)."""
    if df is None:
        se = np.sqrt(np.einsum("np,pq,nq->n", X, fit.vcov().to_numpy(), X))
        return se, np.full(len(X), np.inf)
    table = fit.asked.degrees_of_freedom(fit.fitted_model, df, X)
    return table["se"].to_numpy(), table["df"].to_numpy()


def _mean_and_slope(fit: PointFit, eta: Array) -> tuple[Array, Array]:
    """Return the mean of a typical group at a linear predictor, and its derivative there."""
    mean, slope = _derivatives(fit, eta, list(fit.parameters.values()))[:2]
    return mean, slope


def _derivatives(fit: Fit, eta: Array, psi: Sequence[Any]) -> list[Array]:
    """Return the mean of a typical group and its derivatives in the linear predictor."""
    return differenced(lambda at: fit.family.mean(at, psi), eta, fit.family.link.step(eta))


def _of_draws(rows: NewRows, draws: Array, wanted: Wanted) -> pd.DataFrame:
    """Return a table of draws, shape (draws, n)."""
    numbers = (draws.mean(axis=0), draws.std(axis=0, ddof=1), *hdi(draws[None], wanted.prob))
    columns = (*numbers, (draws > 0).mean(axis=0))
    return _spread(rows, dict(zip((*_COLUMNS, "probability"), columns, strict=True)))


def _posterior(
    fit: PosteriorFit, rows: NewRows, wanted: Wanted
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Return posterior means, and standard deviations and intervals, of rows."""
    asked = Question(groups="population", kind=wanted.kind, prob=wanted.prob)
    intervals = posterior_intervals(
        fit.family, fit.marginals, asked, lambda part: _means_drawn(fit, part)
    )
    if wanted.kind == "link":
        expected = rows.offset + rows.X @ fit.fixef().to_numpy()
    else:
        expected = posterior_means(fit.family, fit.marginals, rows)
    return expected, intervals.of(rows)


def _means_drawn(fit: PosteriorFit, rows: NewRows) -> Array:
    """Return draws of the means of typical groups, shape (draws, n)."""
    rng = np.random.default_rng(0)  # no group is new, and nothing is drawn by it
    return drawn_rows(fit.design, fit.family, rows, fit.draws_at(), rng, kind="response")


def _probability_above(fit: PosteriorFit, rows: NewRows) -> Array:
    """Return the posterior probability that each linear function is above zero, shape (n,)."""
    normal = fit.marginals.normal_rows(rows)
    mean, sd = np.broadcast_arrays(normal.mean, np.sqrt(normal.variance))
    z = np.divide(mean, sd, out=np.where(mean == 0, 0.0, np.inf * np.sign(mean)), where=sd > 0)
    return np.asarray(normal.weights @ special.ndtr(z))


def _kept(rows: NewRows, places: Places) -> NewRows:
    """Return rows in some places of all that were asked."""
    return rows_of(rows.spread(rows.X)[places], rows.spread(rows.offset)[places])


def _with_df(numbers: dict[str, Array], df: Array, wanted: Wanted) -> dict[str, Array]:
    return numbers | ({"df": df} if wanted.df else {})


def _spread(rows: NewRows, numbers: dict[str, Array]) -> pd.DataFrame:
    return pd.DataFrame({name: rows.spread(values) for name, values in numbers.items()})
