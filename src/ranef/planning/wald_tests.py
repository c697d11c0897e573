"""In how many simulated studies estimates over their standard errors find what is there.

The responses of a linear model are cross-products, and all studies of a size are fitted together,
as in the parametric bootstrap. One or several fixed effects are tested by an F statistic, which of
one is the square of its t value, with Satterthwaite's degrees of freedom, or with infinitely many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ranef._typing import Array
from ranef.covariances.covariance import factors
from ranef.design.design import Design
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.likelihood.bootstrap.bootstrap import BATCH_GENERALIZED, refitted
from ranef.likelihood.bootstrap.generalized_refits import generalized_refitter
from ranef.likelihood.bootstrap.refits import Refits, refitter
from ranef.likelihood.bootstrap.simulated_responses import (
    Null,
    Responses,
    responses,
    seeds_of_replicates,
    simulated,
    span,
    with_response,
)
from ranef.likelihood.estimate import FittedModel
from ranef.likelihood.linear.crossproducts import CrossProducts, cross_products
from ranef.likelihood.linear.degrees_of_freedom import satterthwaite
from ranef.likelihood.linear.many_thetas import reduced
from ranef.planning.rejections import Found, Replications, drawn_response, fitted_to, true_theta
from ranef.planning.stated_parameters import Truth

SOME = 9  # studies that say how many degrees of freedom there are about
LEAST_SHARE = 0.75  # of the fewest of these, which no study has fewer than

type Hypotheses = Sequence[tuple[int, ...]]  # the places of the fixed effects that are all zero


def wald_tests(
    design: Design,
    family: Family,
    truth: Truth,
    studies: Replications,
    which: Hypotheses,
    *,
    alpha: float,
    t: bool,
) -> list[Found]:
    """Test fixed effects in every study; those of linear models fitted by REML.

    Parameters
    ----------
    design : Design
    family : Family
    truth : Truth
    studies : Replications
    which : sequence of tuple of int
        The places of the fixed effects of each hypothesis: that they are zero.
    alpha : float
    t : bool
        Against t or F distributions with Satterthwaite's degrees of freedom, which linear models
        have, rather than the normal and chi-squared ones.
    """
    seeds = seeds_of_replicates(studies.entropy, studies.n, studies.first)
    y = drawn_response(design, family, truth, seeds[0])
    if not family.is_linear:
        others = [drawn_response(design, family, truth, seed) for seed in seeds[1:]]
        beta, vcov = _estimates(fitted_to(design, family, y), np.array([y, *others]))
        failed = ~np.isfinite(beta).all(axis=1) | ~np.isfinite(vcov).all(axis=(1, 2))
        found = _statistics(beta, vcov, which) >= _quantiles(np.inf, which, alpha)
        return [Found(one & ~failed, failed) for one in found.T]
    example = design.with_rows(y=y)
    cross, columns = cross_products(example), span(example)
    model = refitter(example, cross, true_theta(design, truth), reml=True)
    sums = simulated(columns, Null(truth.roots, truth.sigma), seeds)
    drawn = responses(columns, sums, cross, beta=truth.beta)
    refits = model.refit(drawn)
    size = _statistics(refits.beta, _covariances(cross, refits), which)
    limit = np.tile(_quantiles(np.inf, which, alpha), (len(size), 1))
    if t:
        limit = _limits(_DegreesOfFreedom(cross, drawn, refits, which), size, alpha)
    found = ~refits.failed[:, None] & (size >= limit)
    return [Found(one, refits.failed) for one in found.T]


def _statistics(beta: Array, vcov: Array, which: Hypotheses) -> Array:
    """Return the F statistics of every study, shape (B, hypotheses)."""
    columns = []
    for places in which:
        chosen, q = list(places), len(places)
        V, b = vcov[:, chosen][:, :, chosen], beta[:, chosen]
        usable = np.isfinite(V).all(axis=(1, 2)) & np.isfinite(b).all(axis=1)
        V, b = np.where(usable[:, None, None], V, np.eye(q)), np.where(usable[:, None], b, 0.0)
        columns.append((b[:, None] @ np.linalg.pinv(V, hermitian=True) @ b[..., None]).ravel() / q)
    return np.column_stack(columns)


def _quantiles(df: Array | float, which: Hypotheses, alpha: float) -> Array:
    """Return what F statistics exceed with probability alpha, by degrees of freedom."""
    q = np.array([len(places) for places in which], dtype=float)
    with np.errstate(invalid="ignore"):
        f = special.fdtri(q, np.where(np.isinf(df), 1.0, df), 1 - alpha)
    return np.where(np.isinf(df), special.chdtri(q, alpha) / q, f)


# ----------------------------------------------------------------------------- linear models


def _limits(df: _DegreesOfFreedom, size: Array, alpha: float) -> Array:
    """Return what the statistics of every study have to exceed, shape (B, hypotheses).

    The degrees of freedom are found where the limit for infinitely many and that for few disagree.
    """
    fitted = np.flatnonzero(~df.refits.failed)
    some = [df.of(int(i)) for i in fitted[:SOME]]
    few = LEAST_SHARE * np.min(some, axis=0, initial=np.inf)
    limit = np.tile(_quantiles(few, df.which, alpha), (len(size), 1))
    is_open = (size >= _quantiles(np.inf, df.which, alpha)) & (size < limit)
    for i in np.flatnonzero(is_open.any(axis=1) & ~df.refits.failed):
        limit[i] = _quantiles(df.of(int(i)), df.which, alpha)
    return limit


@dataclass(frozen=True, eq=False)
class _DegreesOfFreedom:
    """Satterthwaite's degrees of freedom of some hypotheses, study by study."""

    cross: CrossProducts
    drawn: Responses
    refits: Refits
    which: Hypotheses

    def of(self, i: int) -> Array:
        """Return those of a study; infinite where its criterion has no minimum."""
        cross = with_response(self.cross, self.drawn, i)
        Lambdas = [f[0] for f in factors(self.refits.x[[i]], cross.covariances)]
        unit, beta = np.eye(cross.p), self.refits.beta[i]
        try:
            found = satterthwaite(cross, Lambdas, float(self.refits.sigma[i]), reml=True)
            return np.array([found.test(beta, unit[[*places]]).df_den for places in self.which])
        except (FitError, np.linalg.LinAlgError):
            return np.full(len(self.which), np.inf)


def _covariances(cross: CrossProducts, refits: Refits) -> Array:
    """Return the covariance of the fixed effects of every refit, shape (B, p, p)."""
    Lambdas = factors(np.nan_to_num(refits.x), cross.covariances)
    _, products = reduced(cross, Lambdas)
    p, to_users = cross.p, np.linalg.inv(cross.R)
    information = np.broadcast_to(products[:, :p, :p], (len(refits.sigma), p, p))
    with np.errstate(invalid="ignore"):
        inverse = np.linalg.inv(np.where(np.isfinite(information), information, np.eye(p)))
        return np.asarray(refits.sigma[:, None, None] ** 2 * (to_users @ inverse @ to_users.T))


# ------------------------------------------------------------------------ generalised models


def _estimates(model: FittedModel, y: Array) -> tuple[Array, Array]:
    """Return fixed effects and their covariances by study, nan where one could not be fitted."""
    B, p = len(y), len(model.design.fixed)
    beta, vcov, open_ = np.full((B, p), np.nan), np.full((B, p, p), np.nan), np.arange(B)
    together = generalized_refitter(model)
    if together is not None:
        parts = [y[a : a + BATCH_GENERALIZED] for a in range(0, B, BATCH_GENERALIZED)]
        refits = [together.refit(part, errors=True) for part in parts]
        beta[:] = np.concatenate([one.beta for one in refits])
        vcov[:] = np.concatenate([one.vcov for one in refits])
        open_ = np.flatnonzero(~np.concatenate([one.settled for one in refits]))
    for i in open_:
        refit = refitted(model, model.design.with_rows(y=y[i]))
        beta[i] = np.nan if refit is None else refit.estimate.beta
        vcov[i] = np.nan if refit is None else refit.estimate.vcov
    return beta, vcov
