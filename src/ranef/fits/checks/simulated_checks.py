"""What simulated responses say of a fit: patterns of residuals, overdispersion, too many zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy

from ranef._typing import Array
from ranef.fits.checks.check_page import LOOK, TROUBLE, Finding, graded
from ranef.fits.checks.envelopes import p_value
from ranef.fits.checks.residual_kinds import ranked

SIMULATIONS = 199
MOST_NUMBERS = 8_000_000  # responses of all simulations
DOUBTFUL, IMPOSSIBLE = 0.05, 0.01  # p-values
MIN_RATIO = 1.5  # of the observed to the simulated, that is trouble and not a curiosity


def residual_patterns(fit: Any, skipped: list[str]) -> Iterator[Finding]:
    """Yield whether residuals are as the model says: their distribution and their size."""
    if fit.n_obs * SIMULATIONS > MOST_NUMBERS:
        skipped.append("residuals and simulations of many rows: .plot_residuals('qq')")
        return
    if fit.family.is_linear:
        yield from _linear(fit)
    else:
        yield from _generalised(fit)


def _linear(fit: Any) -> Iterator[Finding]:
    p = fit.residual_table("qq", seed=1).attrs["p_value"]
    words = "within" if p > DOUBTFUL else "not within"
    said = f"Residuals against normal quantiles: {words} the envelope (p = {p:.2g})."
    yield _finding("distribution", said, p, ".plot_residuals('qq')")
    fitted, size = fit.fitted(), np.abs(fit.residuals("standardized"))
    is_seen = np.isfinite(size)
    if np.ptp(fitted) > 0:
        found = scipy.stats.spearmanr(fitted[is_seen], size[is_seen])
        said = f"Size of residuals against fitted values: rank correlation {found.statistic:.2f} "
        said += f"(p = {found.pvalue:.2g})."
        yield _finding("spread", said, float(found.pvalue), ".plot_residuals('scale')")


def _generalised(fit: Any) -> Iterator[Finding]:
    rows = fit.design.rows
    both = np.column_stack([rows.y, fit.simulate(SIMULATIONS, 1)])
    places = np.sort(ranked(both, 1), axis=0)
    n = len(places)
    distance = ((places - ((np.arange(n) + 0.5) / n)[:, None]) ** 2).sum(axis=0)
    p = (1 + int((distance[1:] >= distance[0]).sum())) / len(distance)
    said = f"Randomised quantile residuals: {'uniform' if p > DOUBTFUL else 'not uniform'} "
    yield _finding("distribution", f"{said}(p = {p:.2g}).", p, ".plot_residuals('qq')")
    if _has_spread(fit):
        yield _dispersion(fit)
    if fit.family.is_discrete and not fit.family.is_bounded:
        yield _zeros(rows.y, both[:, 1:])


def _has_spread(fit: Any) -> bool:
    """Whether rows could be overdispersed: counts, and proportions of several trials."""
    rows = fit.design.rows
    is_class = fit.family.is_bounded and bool((rows.weights == 1).all())
    return bool(fit.family.is_discrete and not is_class)


def _dispersion(fit: Any) -> Finding:
    """Return the squared Pearson residuals over what simulated responses have."""
    mu, w = fit.fitted(), fit.design.rows.weights
    variance = fit.family.variance(mu, *fit.parameters.values()) / w
    simulated = fit.simulate(SIMULATIONS, 1, groups="known")
    squares = ((simulated - mu[:, None]) ** 2 / variance[:, None]).sum(axis=0)
    left = max(fit.n_obs - float(fit.leverage().sum()), 1.0)
    observed = float((fit.residuals("pearson") ** 2).sum()) * fit.n_obs / left
    p, ratio = p_value(observed, squares), observed / float(squares.mean())
    said = f"Dispersion {ratio:.2f} times that of the model (p = {p:.2g})"
    call = ""
    if p <= DOUBTFUL:
        call = "add (1 | row)" if ratio > 1 else ".plot_residuals()"
        said += ": overdispersed, so that standard errors are too small" if ratio > 1 else ""
    return _finding("dispersion", f"{said}.", p, call, ratio)


def _zeros(y: Array, simulated: Array) -> Finding:
    """Return the number of zeros beside that of simulated responses."""
    observed, others = int((y == 0).sum()), (simulated == 0).sum(axis=0)
    p, mean = p_value(observed, others), float(others.mean())
    said = f"{observed} zeros, {mean:.0f} in simulations (p = {p:.2g})."
    return _finding("zeros", said, p, ".plot_ppc()", observed / max(mean, 1.0))


def _finding(topic: str, said: str, p: float, call: str, ratio: float = 1.0) -> Finding:
    """Return a finding by its p-value; with a ratio that matters it is trouble."""
    is_trouble = p <= IMPOSSIBLE and max(ratio, 1 / max(ratio, 1e-9)) > MIN_RATIO
    verdict = TROUBLE if is_trouble else LOOK
    return graded(p > DOUBTFUL, topic, said, p, call, otherwise=verdict)
