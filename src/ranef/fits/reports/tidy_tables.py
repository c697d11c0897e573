"""The numbers of a fit as tidy tables, one row a number; and a fit as one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from ranef.arguments import check_choice
from ranef.errors import FitError
from ranef.printing.digits import shown
from ranef.printing.frames import Table, captioned

KINDS = ("fixed", "random", "levels", "coefs")
"""Fixed effects; sds, correlations and sigma; random effects and coefficients of levels."""
ALL = ("fixed", "random")
COLUMNS = [
    *("effect", "group", "level", "term", "estimate", "se", "lower", "upper"),
    *("statistic", "df", "p_value"),
]
MOST_WIDTH = 60  # of names as heads; with longer ones coefficients are numbered


def tidy_table(
    fit: Any, effects: str | Sequence[str], prob: float, method: str | None, df: str | None
) -> Table:
    """Return the numbers of a fit, one row each: see `Fit.tidy`."""
    wanted, parts = _kinds(effects), []
    if {"fixed", "random"} & set(wanted):
        parameters = _parameters(fit, prob, method, df)
        parts = [parameters[parameters["effect"] == kind] for kind in ALL if kind in wanted]
    if "levels" in wanted:
        parts.append(_of_levels("levels", fit.ranef_table(prob)))
    if "coefs" in wanted:
        parts.append(_of_levels("coefs", fit.coef_table(prob)))
    words = dict.fromkeys(part.attrs["interval"] for part in parts)
    table = pd.concat(parts, ignore_index=True)
    return captioned(table[[c for c in COLUMNS if c in table]], interval="; ".join(words))


def glance_row(fit: Any, *, loo: bool) -> Table:
    """Return a fit as one row: see `Fit.glance`."""
    row: dict[str, Any] = {
        "method": fit.method,
        "n_obs": fit.n_obs,
        "n_groups": [fit.n_groups],
        "sigma": fit.sigma,
    }
    if _is_posterior(fit):
        evidence = fit.evidence
        row["log_marginal_likelihood"] = np.nan if evidence is None else evidence.value
        if loo:
            found = fit.loo()
            row |= {"elpd": float(found.elpd), "elpd_se": float(found.se)}
    elif loo:
        raise FitError(
            "loo=True is of a posterior: fit the model by method='quadrature' or 'mcmc'."
        )
    else:
        row |= {name: getattr(fit, name) for name in ("df", "loglik", "objective", "aic", "bic")}
        row["is_singular"] = fit.is_singular
    return Table(row | {"converged": fit.converged}, index=[0])


def correlation_of_fixed(vcov: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Return the correlations of the fixed effects below the diagonal, with their heading."""
    sd = np.sqrt(np.diag(vcov))
    with np.errstate(invalid="ignore", divide="ignore"):  # none of what is known
        corr = vcov.to_numpy() / np.outer(sd, sd)
    k, names = len(sd), [str(name) for name in vcov.index]
    texts = [[shown(corr[i, j], 3) if j < i else "" for j in range(k)] for i in range(k)]
    table, heading = pd.DataFrame(texts, pd.Index(names)), "Correlation of fixed effects"
    if sum(map(len, names)) > MOST_WIDTH:
        rows = pd.Index([f"{i} {name}" for i, name in enumerate(names, 1)])
        return heading, table.set_axis(range(1, k + 1), axis=1).set_axis(rows).iloc[:, :-1]
    return heading, table.set_axis(names, axis=1).iloc[1:, :-1]


def _kinds(effects: str | Sequence[str]) -> tuple[str, ...]:
    kinds = (effects,) if isinstance(effects, str) else tuple(effects)
    for kind in kinds:
        check_choice("effects", kind, (*KINDS, "all"), "are not what a fit has")
    if not kinds:
        raise FitError("`effects` names nothing: one or several of 'fixed', 'random', 'levels'.")
    return (*kinds, *ALL) if "all" in kinds else kinds


def _is_posterior(fit: Any) -> bool:
    return hasattr(fit, "marginals")


def _parameters(fit: Any, prob: float, method: str | None, df: str | None) -> pd.DataFrame:
    """Return estimates, errors and bounds of all parameters, in the order of `estimates()`."""
    estimates = fit.estimates()
    table = pd.DataFrame({"term": estimates.index, "estimate": estimates.to_numpy()})
    table["effect"] = np.where(np.arange(len(table)) < len(fit.fixef()), "fixed", "random")
    table["group"] = [_group(fit, name) for name in estimates.index]
    if _is_posterior(fit):
        if df is not None:
            raise FitError("`df` is of tests of a point fit; a posterior has none.")
        bounds = fit.hdi(prob)
        numbers = fit.summary(prob).to_frame()[["sd"]].set_axis(["se"], axis=1).join(bounds)
    else:
        effects = fit.summary(df).to_frame()
        bounds = _bounds(fit, prob, method, effects if df is not None else None)
        numbers = _tests(fit, effects).join(bounds, how="outer")
    table = table.join(numbers.reindex(estimates.index).reset_index(drop=True))
    table.attrs["interval"] = bounds.attrs["interval"]
    return table


def _tests(fit: Any, effects: pd.DataFrame) -> pd.DataFrame:
    """Return errors of the fixed effects and what they are tested by."""
    frame = effects.rename(columns={"t": "statistic", "z": "statistic"})
    if "p_value" not in frame and not fit.family.is_linear:
        frame["p_value"] = 2 * special.ndtr(-np.abs(frame["statistic"]))
    names = ("se", "statistic", "df", "p_value")
    return frame[[name for name in names if name in frame]].set_axis(
        fit.estimates().index[: len(frame)]
    )


def _bounds(fit: Any, prob: float, method: str | None, tested: pd.DataFrame | None) -> pd.DataFrame:
    """Return intervals; Wald's are by the t distribution where that is what the tests are by."""
    bounds: pd.DataFrame = fit.confint(method, prob)
    if method not in (None, "wald"):
        return bounds
    if tested is not None:
        half = special.stdtrit(tested["df"], 0.5 + prob / 2) * tested["se"]
        ends = {"lower": tested["estimate"] - half, "upper": tested["estimate"] + half}
        bounds = captioned(pd.DataFrame(ends), interval=f"{100 * prob:g} % t intervals")
    return bounds.set_axis(fit.estimates().index[: len(bounds)])


def _group(fit: Any, name: str) -> str:
    """Return the term that a standard deviation or correlation is of, by its name."""
    for term in fit.design.terms:
        if name.startswith((f"sd_{term.label}[", f"corr_{term.label}[")):
            return str(term.label)
    return ""


def _of_levels(kind: str, table: pd.DataFrame) -> pd.DataFrame:
    renamed = table.rename(columns={"term": "group", "coef": "term", "sd": "se"})
    return renamed.assign(effect=kind)
