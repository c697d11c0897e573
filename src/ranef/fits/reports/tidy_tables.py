"""The numbers of a fit as tidy tables, one row a number; and a fit as one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from ranef.arguments import check_choice
from ranef.errors import FitError
from ranef.posterior.draws import hdi, quantities
from ranef.printing.digits import shown
from ranef.printing.frames import Table, captioned
from ranef.printing.summary import Printed

KINDS = ("fixed", "random", "levels", "coefs")
"""Fixed effects; sds, correlations and sigma; random effects and coefficients of levels."""
ALL = ("fixed", "random")
COLUMNS = [
    *("effect", "group", "level", "term", "estimate", "se", "lower", "upper"),
    *("statistic", "df", "p_value"),
]
MOST_WIDTH = 60  # of names as heads; with longer ones coefficients are numbered


class Reports(Printed):
    """A fit as tables to go on with; it prints as its summary."""

    def tidy(
        self,
        effects: str | Sequence[str] = "all",
        *,
        prob: float = 0.95,
        method: str | None = None,
        df: str | None = None,
        exponentiate: bool = False,
    ) -> Table:
        """Return the numbers of the fit as a tidy table, one row each.

        Parameters
        ----------
        effects : {"all", "fixed", "random", "levels", "coefs"} or sequence of these
            "fixed": the fixed effects. "random": standard deviations and correlations of the random
            effects, sigma, and what else the family has. "levels": the random effects of each
            level, as `ranef_table`. "coefs": the coefficients of each, as `coef_table`. "all":
            the first two.
        prob : float
            Probability of the intervals.
        method : {"wald", "profile", "bootstrap"}, optional
            Of the intervals of a point fit; "wald", the default, gives none of variances.
        df : {"satterthwaite", "kenward-roger"}, optional
            Degrees of freedom of the tests of the fixed effects of a linear point fit.
        exponentiate : bool
            Whether fixed effects are shown as ratios, exp(beta): of odds with the logit link, of
            means with the log link. Bounds of a point fit are those of beta, exponentiated,
            and its errors are by the delta method; a posterior has the moments and the highest
            density interval of the ratio. Statistics and p-values stay those of beta.

        Returns
        -------
        DataFrame
            Columns `effect, group, term, estimate, se, lower, upper`, with names of parameters as
            in `estimates()`, `level` where there are some, and of a point fit `statistic`, and
            `df` and `p_value` where there is a test. Of a posterior `estimate` is the mean and
            `se` the standard deviation. Where a number has no error or interval, it is nan.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.tidy("fixed")
        95 % Wald intervals
        <BLANKLINE>
        effect  group  term       estimate  se  lower  upper  statistic
        fixed          Intercept      1528  19   1490   1565      78.80
        """
        fit: Any = self
        wanted, parts = _kinds(effects), []
        if {"fixed", "random"} & set(wanted):
            parameters = _parameters(fit, prob, method, df)
            if exponentiate:
                parameters = _ratios(fit, parameters, prob)
            parts = [parameters[parameters["effect"] == kind] for kind in ALL if kind in wanted]
        elif exponentiate:
            raise FitError("exponentiate=True is of fixed effects, which `effects` does not name.")
        if "levels" in wanted:
            parts.append(_of_levels("levels", fit.ranef_table(prob)))
        if "coefs" in wanted:
            parts.append(_of_levels("coefs", fit.coef_table(prob)))
        words = dict.fromkeys(part.attrs["interval"] for part in parts)
        table = pd.concat(parts, ignore_index=True)
        return captioned(table[[c for c in COLUMNS if c in table]], interval="; ".join(words))

    def glance(self, *, loo: bool = False) -> Table:
        """Return the fit as one row, to be put below those of others.

        Parameters
        ----------
        loo : bool
            Whether a posterior's expected log predictive density of rows left out is computed.

        Returns
        -------
        DataFrame
            Columns `method, n_obs, n_groups` (a dict, as `fit.n_groups`), `sigma` and `converged`;
            of a point fit `df, loglik, objective, aic, bic, is_singular`; of a posterior
            `log_marginal_likelihood` (nan where the method does not give it; see the method of this
            name) and, where it was asked for, `elpd` and `elpd_se`.

        Examples
        --------
        >>> import pandas as pd
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> both = pd.concat([model.fit().glance(), model.fit("ml").glance()])
        >>> both[["method", "n_obs", "df", "loglik"]].round(2)
          method  n_obs  df  loglik
        0   reml     30   3 -159.83
        0     ml     30   3 -163.66
        """
        fit: Any = self
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
            row |= {
                name: getattr(fit, name) for name in ("df", "loglik", "objective", "aic", "bic")
            }
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


def _ratios(fit: Any, table: pd.DataFrame, prob: float) -> pd.DataFrame:
    """Return a table of parameters with exp(beta) in the place of the fixed effects."""
    link = fit.family.link
    if not link.multiplies:
        raise FitError(
            "exponentiate=True is of links with which effects multiply odds, hazards or means, as "
            f"logit, cloglog and log; this model has the {link.name} link."
        )
    fixed, table = table["effect"] == "fixed", table.copy()
    if _is_posterior(fit):
        draws = quantities(fit.posterior, include_b=False)
        ratios = np.exp(np.stack([draws[name] for name in table["term"][fixed]], axis=-1))
        moments, bounds = (ratios.mean((0, 1)), ratios.std((0, 1), ddof=1)), hdi(ratios, prob)
        table.loc[fixed, ["estimate", "se", "lower", "upper"]] = np.column_stack(
            [*moments, *bounds]
        )
    else:
        ends = ["estimate", "lower", "upper"]
        table.loc[fixed, ends] = np.exp(table.loc[fixed, ends])
        table.loc[fixed, "se"] *= table["estimate"][fixed]
    table.attrs["interval"] += f", fixed effects as ratios of {link.multiplies}"
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
