"""Whether data can carry a model: refused, warned of, or fine."""

from __future__ import annotations

import numpy as np

from ranef.crossproducts import CrossProducts, spanned_terms
from ranef.design import Design, RandomTerm, full_rank, independent_columns
from ranef.errors import DataError, DataWarning, listed, warn

EXACT = 1e-4  # share of the response's sd below which a residual sd is on its way to zero


def check_response(design: Design) -> None:
    """Refuse a constant response, which has no residual variance to speak of.

    Raises
    ------
    DataError
    """
    y = design.y - design.offset
    if np.ptp(design.y) == 0:
        value = f"{design.y[0]:g}"
        raise DataError(f"the response `{design.response}` is constant ({value} in every row).")
    if np.ptp(y) == 0:
        raise DataError(f"the response `{design.response}` minus its offset is constant.")


def check_identified(design: Design) -> None:
    """Refuse what leaves sigma or a covariance without an estimate by REML or ML.

    Raises
    ------
    DataError
        If a factor has one level, a term dependent coefficients or as many random effects as
        there are rows, or X as many columns as rows or a perfect fit.
    """
    n, p = design.X.shape
    remedy = 'a Bayesian fit, model.fit("mcmc"), can go on with proper priors.'
    for term in design.terms:
        _check_columns(term)
        if term.n_levels == 1:
            message = f"the grouping factor `{term.factor}` has one level only, "
            message += f"{listed(term.levels)}: no variance between levels can be estimated; "
            raise DataError(message + remedy)
        effects = term.n_levels * term.n_coefs
        if effects >= n:
            message = (
                f"{term.text} has {effects} random effects ({term.n_levels} levels of "
                f"`{term.factor}` x {term.n_coefs}) for {n} rows, so that their variance and the "
                f"residual variance cannot be told apart; {remedy}"
            )
            raise DataError(message)
    if p >= n:
        raise DataError(f"{p} fixed effects for {n} rows leave nothing to estimate sigma from.")
    check_varies(design)


def check_varies(design: Design, *, knows_sigma: bool = False) -> None:
    """Refuse what leaves nothing for an sd, or for sigma: a column of zeros, an exact fit.

    Raises
    ------
    DataError
    """
    for term in design.terms:
        zero = [c for c, column in zip(term.coefs, term.columns.T, strict=True) if not column.any()]
        if zero:
            message = f"{term.text}: {listed(zero)} is zero in every row: leave it out."
            raise DataError(message)
    if knows_sigma or design.X.shape[1] >= design.n_obs:
        return
    root = np.sqrt(design.weights)
    y = (design.y - design.offset) * root
    left = y - (design.X * root[:, None]) @ _least_squares(design.X * root[:, None], y)
    rounding = 8 * np.finfo(np.float64).eps * np.linalg.norm(y)
    if np.linalg.norm(left) <= max(rounding, 1e-12 * np.linalg.norm(y - y.mean())):
        message = f"the fixed effects fit the response `{design.response}` exactly: there is no "
        raise DataError(message + "residual variation to model.")


def check_not_spanned(design: Design, cross: CrossProducts) -> None:
    """Refuse a random term that the fixed effects contain, of which REML knows nothing.

    Raises
    ------
    DataError
    """
    for term in (design.terms[i] for i in spanned_terms(cross)):
        message = (
            f"{term.text}: the fixed effects contain every effect of `{term.factor}` already, so "
            "that REML has nothing to estimate its variance from: leave one of the two out."
        )
        raise DataError(message)


def check_residual(design: Design, sigma: float) -> None:
    """Refuse a model that fits the response exactly, given that no optimum was found.

    Raises
    ------
    DataError
    """
    if not sigma > EXACT * np.std((design.y - design.offset) * np.sqrt(design.weights)):
        message = f"the model fits the response `{design.response}` exactly: there is no residual "
        raise DataError(message + "variation to estimate sigma from.")


def _check_columns(term: RandomTerm) -> None:
    """Refuse coefficients whose variances the data cannot tell apart."""
    kept = independent_columns(term.columns)
    dependent = [c for j, c in enumerate(term.coefs) if j not in kept]
    if dependent:
        message = (
            f"{term.text}: {listed(dependent)} is zero or a combination of the coefficients before "
            "it, so that their variances cannot be told apart: leave it out."
        )
        raise DataError(message)


def warn_dropped(design: Design) -> None:
    """Warn of fixed columns that were left out as combinations of others."""
    if design.dropped:
        message = (
            f"the fixed effects are linearly dependent: {listed(design.dropped)} left out as a "
            "combination of the columns before it."
        )
        warn(message, DataWarning)


def warn_posterior(design: Design, *, knows_sigma: bool = False) -> None:
    """Warn of parameters that only a prior informs; of fewer, where sigma is known."""
    dependent = full_rank(design).dropped
    if dependent:
        message = (
            f"the fixed effects are linearly dependent ({listed(dependent)} is a combination of "
            "the columns before it): the data say something about their sums only, the priors "
            "tell them apart."
        )
        warn(message, DataWarning)
    for term in design.terms:
        if term.n_levels == 1:
            message = f"`{term.factor}` has one level only: its sd is informed by the prior alone."
            warn(message, DataWarning)
        elif term.n_levels * term.n_coefs >= design.n_obs and not knows_sigma:
            message = (
                f"{term.text} has as many random effects as there are rows: the data cannot tell "
                "their sd from sigma, the priors do."
            )
            warn(message, DataWarning)


def _least_squares(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.lstsq(X, y, rcond=None)[0])
