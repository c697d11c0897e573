"""What is looked at in a fit: its convergence, boundary, groups, and what the data leave open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ranef._typing import Array, Places
from ranef.design.labels import named
from ranef.design.rows.rows import TermRows
from ranef.errors import Convergence, RanefError, listed
from ranef.fits.checks.case_deletion import influence_table, is_affordable, one_step_distances
from ranef.fits.checks.check_page import FINE, LOOK, TROUBLE, Check, Finding, graded
from ranef.fits.checks.point_values import refitted
from ranef.fits.checks.simulated_checks import residual_patterns
from ranef.fits.diagnostics import NO_ERRORS, laplace_notes, nodes_of, singular_note
from ranef.fits.predictions.estimated_rows import means_of_likelihood
from ranef.leave_one_out.elpd import Units, units_of
from ranef.posterior.draws import quantities
from ranef.priors.prior_predictive import prior_draws

SMALLEST = 1e-9  # of a criterion, that is told from rounding
FEW_LEVELS = 5  # Gelman & Hill (2007), section 12.9
LEAST_RELIABILITY = 0.1  # Raudenbush & Bryk (2002), page 125
MAX_COOK, LARGE_COOK = 0.5, 1.0  # Cook & Weisberg (1999), section 15.2
MAX_CHANGE_OF_SD = 0.2  # of an sd, when a group is left out
MAX_CHANGE_BY_NODES = 0.05  # of an sd, from Laplace's approximation to quadrature
MOST_NODES = 1_000_000  # rows times nodes of a quadrature that is made in passing
ALL = 0.05  # of what may be asked for in one call: all groups of a linear model are left out
TRIED = 6  # of more groups
MOST_ROWS = {True: 100_000, False: 10_000}  # of a linear model, of others, that are fitted again
PRIOR_DRAWS = 2_000
CONFLICT = 0.01  # tail probability under the prior: Evans & Moshonov (2006)
MIDDLE = (0.16, 0.84)  # quantiles, two standard deviations apart
WIDER = 1.5  # of the posterior's sd over that of the prior, which the data then speak against
LITTLE_LEARNT = 0.9  # sd of the posterior over that of the prior


def check(fit: Any) -> Check:
    """Return the findings about a fit, in the order of the page; see `Checks.check`."""
    skipped: list[str] = []
    findings = [*convergence(fit), *boundary(fit), *identifiability(fit)]
    findings += [*groups(fit), *reliability(fit)]
    if fit.engine is None:
        skipped.append("influence, residuals and priors, as this fit has no model to ask")
    else:
        by_rows = (influential, residual_patterns, laplace) if fit.design.has_rows else ()
        findings += [finding for ask in (*by_rows, prior_and_data) for finding in ask(fit, skipped)]
        if not by_rows:
            known = fit.design.sufficient.made_from
            skipped.append(
                f"influence and residuals, as this model was made from {known} alone and they need "
                "the rows: check a model of the data themselves, or of some groups of them"
            )
    method = {"reml": "REML", "ml": "ML", "map": "MAP", "mcmc": "MCMC"}.get(fit.method, fit.method)
    how = "" if hasattr(fit, "marginals") else fit.approximation
    text = fit.design.formula.text
    formula = text if "`" in text else f"`{text}`"
    title = f"Check of {formula}, {method}{f', {how}' if how else ''}"
    return Check(title, tuple(findings), tuple(skipped))


def convergence(fit: Any) -> Iterator[Finding]:
    """Yield how the optimiser or the sampler ended."""
    if hasattr(fit, "marginals"):
        verdict = FINE if fit.diagnostics.ok else TROUBLE
        for message in fit.diagnostics.messages():
            yield Finding(
                verdict, "convergence", message, call="" if fit.converged else ".diagnostics"
            )
        return
    found, how = fit.estimate, fit.convergence
    if not how.ok:
        yield Finding(TROUBLE, "convergence", how.value, found.decrement, ".trace")
        return
    if np.isnan(found.vcov).any():
        yield Finding(TROUBLE, "convergence", NO_ERRORS, found.decrement, '.fit("map")')
        return
    said = "The estimates are in closed form."
    if len(fit.theta) or not fit.family.is_linear:
        gain = max(abs(found.decrement), SMALLEST)
        said = f"The optimiser converged: another step would lower the criterion by {gain:.0e}"
        said += " at most." if gain == SMALLEST else "."
    if not np.isfinite(found.decrement):
        said = Convergence.CONVERGED.value
    yield Finding(FINE, "convergence", said, found.decrement)


def boundary(fit: Any) -> Iterator[Finding]:
    """Yield whether estimated covariances are on the boundary of their space."""
    if hasattr(fit, "marginals") or not fit.design.terms:
        return
    found, smallest = fit.estimate, np.inf
    for term, factor, singular in zip(fit.design.terms, found.Lambdas, found.singular, strict=True):
        rows = factor * term.lengths[:, None]
        smallest = min(smallest, float(np.linalg.svd(rows, compute_uv=False)[-1]))
        if singular:
            note, call = singular_note(term, factor), '.fit("map", priors="boundary")'
            yield Finding(LOOK, "boundary", note, 0.0, call)
    if not any(found.singular):
        scale = " times that of a row" if fit.family.has_sigma else ", on the scale of the link"
        said = f"All variances are inside: the smallest sd of any effect is {smallest:.2g}{scale}."
        yield Finding(FINE, "boundary", said, smallest)


def identifiability(fit: Any) -> Iterator[Finding]:
    """Yield what the data cannot tell apart."""
    for text in fit._undetermined():  # noqa: SLF001 -- as summaries of fits say it
        yield Finding(TROUBLE, "identifiability", text)
    if fit.design.dropped:
        names = listed(fit.design.dropped)
        yield Finding(
            LOOK, "identifiability", f"Left out as combinations of other columns: {names}.",
            float(len(fit.design.dropped)),
        )  # fmt: skip


def groups(fit: Any) -> Iterator[Finding]:
    """Yield how many groups there are, and how much they say."""
    rows = fit.design.sufficient
    for term in rows.terms:
        said = f"{term.n_levels} levels of {term.factor}"
        if not rows.is_paired:
            said += f", {_range(rows.counts(term.codes, term.n_levels))} each"
            said += "".join(_undetermined(term, fit.design.term(term.label).coefs))
        said += "."
        are_enough = term.n_levels >= FEW_LEVELS
        said += "" if are_enough else " So few hardly determine a standard deviation."
        has_no_other = are_enough or hasattr(fit, "marginals") or fit.engine is None
        call = "" if has_no_other else f'.fit("{fit.asked.posterior_method}")'
        yield graded(are_enough, "groups", said, float(term.n_levels), call)


def _range(counts: Any) -> str:
    low, high = int(counts.min()), int(counts.max())
    rows = "row" if high == 1 else "rows"
    return f"{low} {rows}" if low == high else f"{low} to {high} {rows}"


def _undetermined(term: TermRows, coefs: tuple[str, ...]) -> Iterator[str]:
    """Yield how many levels tell nothing of their own about a coefficient."""
    if term.n_coefs < 2:
        return
    lengths = np.sqrt((term.columns**2).sum(axis=0))
    Z = term.columns / np.where(lengths > 0, lengths, 1.0)
    ends = np.cumsum(np.bincount(term.codes, minlength=term.n_levels))
    of_levels = np.split(np.argsort(term.codes, kind="stable"), ends[:-1])
    for j, coef in enumerate(coefs):
        others = np.delete(Z, j, axis=1)
        silent = 0
        for rows in of_levels:
            left, own = others[rows], Z[rows, j]
            fitted = left @ np.linalg.lstsq(left, own, rcond=None)[0]
            silent += bool(np.linalg.norm(own - fitted) < 1e-8)
        if silent:
            yield f"; {silent} tell nothing of their own about `{coef}`"


def reliability(fit: Any) -> Iterator[Finding]:
    """Yield how much of the variance of effects their estimates have: weak information."""
    table = fit.ranef_table()
    for term in fit.design.terms:
        variances = np.diag(fit.varcorr().cov[term.label])
        for coef, variance in zip(term.coefs, variances, strict=True):
            own = table[(table["term"] == term.label) & (table["coef"] == coef)]
            if variance <= 0:
                continue
            share = float(np.clip(1 - own["sd"] ** 2 / variance, 0, 1).mean())
            name = f"{coef} of {term.factor}"
            is_reliable = not share < LEAST_RELIABILITY
            said = f"Groups say little of {name}: its estimates have {share:.0%} of its variance."
            if is_reliable:
                said = f"Estimates of {name} have {share:.0%} of its variance (reliability)."
            yield graded(is_reliable, "information", said, share, ".plot_caterpillar()")


# ------------------------------------------------------------------------------- influence


def influential(fit: Any, skipped: list[str]) -> Iterator[Finding]:
    """Yield whether the groups that stand out move the estimates when they are left out."""
    factors = list(dict.fromkeys(term.factor for term in fit.design.terms))
    if not factors:
        return
    if fit.n_obs > MOST_ROWS[fit.family.is_linear]:
        skipped.append(
            f"influence of groups, a fit each: .influence(group={factors[-1]!r}, levels=)"
        )
        return
    try:
        made = refitted(fit)
    except RanefError:
        skipped.append("influence of groups, as the mode of this posterior cannot be found")
        return
    for factor in factors:
        units = units_of(fit.design, "group", factor) if fit.n_groups[factor] > 1 else None
        if units is None or units.codes is None:
            continue
        standing = _standing_out(fit, units)
        try:
            table = influence_table(made, units, standing)
        except (RanefError, np.linalg.LinAlgError):
            continue
        yield _of_influence(made.fit, table, factor, units.size)


def _standing_out(fit: Any, units: Units) -> Places:
    """Return the groups that are left out: all if they are few, or those that promise most."""
    is_quick = fit.family.is_linear and not hasattr(fit, "marginals")
    if is_affordable(units.size, fit.n_obs, ALL if is_quick else ALL / 100):
        return np.arange(units.size)
    assert units.codes is not None
    distances, sizes = one_step_distances(fit, units.codes, units.size), np.zeros(units.size)
    for term in fit.design.terms:
        if term.factor == units.factor:
            b = fit.ranef()[term.label].to_numpy()
            sizes += (b**2 / np.maximum((b**2).mean(axis=0), 1e-300)).sum(axis=1)
    first = [np.argsort(-one, kind="stable")[: TRIED // 2] for one in (distances, sizes)]
    return np.unique(np.concatenate(first))


def _of_influence(fit: Any, table: Any, factor: str, m: int) -> Finding:
    """Return what leaving groups out changes most."""
    sds = [name for name in table.columns if name.startswith("sd_")]
    whole = fit.estimates()
    relative = (table[sds] / whole[sds].where(whole[sds] > 0)).stack()
    cook = float(np.nan_to_num(table["cook"].max()))  # of no fixed effects nan
    tried = f"the {len(table)} that stand out" if len(table) < m else f"all {m}"
    call = f".plot_influence(group={factor!r})"
    change, where = 0.0, None
    relative = relative.dropna()
    if len(relative):
        place, name = relative.abs().idxmax()
        change, where = float(relative.loc[(place, name)]), (table["level"][place], name)
    said = f"Largest Cook's distance of {factor} {cook:.2g}" if len(fit.fixef()) else factor
    if cook > MAX_COOK:
        said += f", `{table['level'][table['cook'].idxmax()]}`"
    if where is not None:
        said += f"; `{where[1]}` changes by {change:+.0%} without `{where[0]}`"
    is_fine = cook <= MAX_COOK and abs(change) <= MAX_CHANGE_OF_SD
    verdict = TROUBLE if cook > LARGE_COOK else LOOK
    return graded(is_fine, "influence", f"{said} (of {tried}).", cook, call, otherwise=verdict)


# ----------------------------------------------------------------- approximations and priors


def laplace(fit: Any, skipped: list[str]) -> Iterator[Finding]:
    """Yield by how much Laplace's approximation is off, where there is a quadrature."""
    if hasattr(fit, "marginals") or not fit.approximation.startswith("Laplace"):
        return
    nodes, k = nodes_of(fit.design), sum(term.n_coefs for term in fit.design.terms)
    mu = means_of_likelihood(fit.fitted_model)
    notes = laplace_notes(fit.design, fit.family, mu, fit.parameters)
    if nodes is None or fit.n_obs * nodes**k > MOST_NODES or fit.method != "ml":
        yield from (Finding(LOOK, "Laplace", note) for note in notes)
        if nodes is not None:
            skipped.append(f"the error of Laplace's approximation: model.fit(n_agq={nodes})")
        elif not notes:
            said = "Levels have enough rows for Laplace: an information of 2 or more."
            yield Finding(FINE, "Laplace", said)
        return
    better = fit.asked.refit("ml", n_agq=nodes).estimates()
    sds = [name for name in better.index if name.startswith("sd_")]
    own = fit.estimates()[sds]
    change = ((better[sds] - own) / own.where(own > 0)).dropna()
    if not len(change):
        return
    name = str(change.abs().idxmax())
    off = float(change[name])
    said = f"Laplace: with n_agq={nodes} `{name}` is {better[name]:.3g}, {off:+.1%}."
    yield graded(abs(off) <= MAX_CHANGE_BY_NODES, "Laplace", said, off, f".fit(n_agq={nodes})")


def prior_and_data(fit: Any, skipped: list[str]) -> Iterator[Finding]:
    """Yield where the posterior lies in the tail of its prior, or is hardly narrower."""
    if not hasattr(fit, "marginals"):
        return
    try:
        draws = prior_draws(fit.design, fit.asked.priors, PRIOR_DRAWS, np.random.default_rng(1))
    except RanefError:
        skipped.append("prior against posterior, as a prior is improper")
        return
    drawn = named(fit.design, {name: one[None] for name, one in draws.items()}, fit.family)
    prior, posterior = _numbers(drawn), _numbers(fit.posterior["posterior"].to_dataset())
    conflicts, unlearnt = {}, {}
    for name in [one for one in posterior if one in prior and np.ptp(prior[one]) > 0]:
        share = float(np.mean(prior[name] <= posterior[name].mean()))
        tail = 2 * min(share, 1 - share)
        spreads = [np.ptp(np.quantile(one[name], MIDDLE)) for one in (posterior, prior)]
        ratio = float(spreads[0] / spreads[1])
        if tail < CONFLICT or ratio > WIDER:
            conflicts[name] = tail
        elif ratio > LITTLE_LEARNT:
            unlearnt[name] = ratio
    if conflicts:
        worst = min(conflicts.values())
        said = f"Prior and data are in conflict about {listed(conflicts)}: in the tail of "
        said += f"the prior, or wider than it (smallest p = {worst:.2g})."
        yield Finding(LOOK, "priors", said, worst, ".prior_sensitivity()")
    if unlearnt:
        most = max(unlearnt.values())
        said = f"The data say little of {listed(unlearnt)}: as wide as the prior ({most:.0%})."
        yield Finding(LOOK, "priors", said, most, ".prior_sensitivity()")
    if not conflicts and not unlearnt:
        said = "Posterior means lie within their priors, and each is narrower than its prior."
        yield Finding(FINE, "priors", said)


def _numbers(group: Any) -> dict[str, Array]:
    """Return the draws of every number of a group of a posterior's tree, by name."""
    import xarray as xr

    tree = xr.DataTree.from_dict({"posterior": group})
    return {name: np.ravel(draws) for name, draws in quantities(tree, include_b=False).items()}
