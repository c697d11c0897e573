"""The tables behind pictures of residuals: a row of the table is a mark."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtri

from ranef._typing import Array, Axes, Panels, Places, Seed, Style
from ranef.arguments import check_choice, check_counts, check_seed
from ranef.errors import DataError, FitError, probability, suggestion
from ranef.fits.checks.envelopes import envelope
from ranef.fits.checks.point_values import values_at
from ranef.fits.checks.residual_kinds import KINDS, freed, ranked, whitened
from ranef.fits.fitted import Fitted
from ranef.likelihood.predictions import linear_predictor
from ranef.plots import residuals as pictures

PICTURES = ("fitted", "predictor", "scale", "group", "qq", "effects")
SIMULATIONS = 199  # data sets of an envelope
MOST_NUMBERS = 20_000_000  # responses of all of them
FEWEST = 39  # data sets, of which an envelope of 95 % can be made
LEAST_SHARE = 1e-3  # of an effect's variance, that its estimate has
WORDS = {
    "response": "residual",
    "pearson": "Pearson residual",
    "deviance": "deviance residual",
    "standardized": "standardised residual",
    "whitened": "whitened marginal residual",
    "quantile": "randomised quantile residual, normal scale",
}


class Residuals(Fitted):
    """Residuals of a fit as tables and pictures."""

    def residual_table(
        self,
        kind: str = "fitted",
        *,
        by: str | ArrayLike | None = None,
        residuals: str | None = None,
        groups: str | None = None,
        term: str | None = None,
        prob: float = 0.95,
        n: int | None = None,
        seed: Seed = None,
    ) -> pd.DataFrame:
        """Return what `plot_residuals` draws.

        Parameters
        ----------
        kind, by, residuals, groups, term, prob, n, seed
            As of `plot_residuals`.

        Returns
        -------
        DataFrame
            Columns `x, residual`; of "group" `level, residual`; of "qq" `theoretical, residual,
            lower, upper`, of "effects" also `term, level, coef`. Quantile residuals are on the
            scale of a normal distribution. `.attrs` has names for the axes, and of an envelope its
            `prob` and the `p_value` that the curve is one of the model's.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> fit.residual_table("qq", seed=1).columns.tolist()
        ['theoretical', 'residual', 'lower', 'upper']
        """
        fit, seed = self, check_seed(seed)
        if n is not None:
            check_counts(n=n)
        check_choice("kind", kind, PICTURES, "is not a picture of residuals")
        if kind == "effects":
            return effects_table(fit, term, probability(prob), n, seed)
        if residuals is None:
            residuals = _usual(fit, kind)
        check_choice("residuals", residuals, KINDS, "is not a kind of residual")
        if kind == "qq":
            return quantile_table(fit, residuals, groups, prob=probability(prob), n=n, seed=seed)
        values, words = shown_residuals(fit, residuals, groups, seed), WORDS[residuals]
        if groups in ("population", "average") and residuals != "whitened":
            words = f"marginal {words}"
        if kind == "group":
            table, name = _by_group(fit, by, values)
        else:
            x, name = _against(fit, by, kind, groups)
            table = pd.DataFrame({"x": x, "residual": values})
        if kind == "scale":
            table["residual"] = np.sqrt(np.abs(table["residual"]))
            words = f"root of |{words}|"
        table.attrs |= {"x": name, "residual": words, "kind": kind}
        return table

    def plot_residuals(
        self,
        kind: str = "fitted",
        *,
        by: str | ArrayLike | None = None,
        residuals: str | None = None,
        groups: str | None = None,
        term: str | None = None,
        prob: float = 0.95,
        n: int | None = None,
        seed: Seed = None,
        **style: Unpack[Style],
    ) -> Axes | Panels:
        """Draw residuals: against what is fitted or measured, by group, or against quantiles.

        Parameters
        ----------
        kind : {"fitted", "predictor", "scale", "group", "qq", "effects"}
            "fitted": against the fitted values; "predictor": against a predictor; "scale": the root
            of their size against the fitted values; "group": group by group; "qq": against normal
            quantiles; "effects": the random effects of a term against normal quantiles.
        by : str or array of shape (n_obs,), optional
            Of "predictor" the column, by default the first that the fixed effects use; of "group"
            the factor, by default that with most levels; of "fitted" and "scale" what else they
            are drawn against.
        residuals : str, optional
            A kind of `fit.residuals`: by default "response", for "scale" and "qq" "standardized",
            of models that are not linear "quantile".
        groups : str, optional
            As of `fit.residuals`: "population" for marginal residuals.
        term : str, optional
            Of "effects", the label of the term; the first by default.
        prob : float
            Of the envelope: the probability that the whole curve of a model that holds is in it.
        n : int, optional
            Data sets that the envelope is made of; by default 199, fewer of many rows.
        seed : int, numpy Generator or SeedSequence, optional
            For what is simulated.
        ax : Axes, or for "effects" a sequence with one for each coefficient, optional
            A new figure is made by default.
        figsize : tuple of float, optional
            Width and height of the new figure, in inches.

        Returns
        -------
        Axes, or for "effects" an ndarray of Axes

        Notes
        -----
        The line is the mean of the residuals in slices of the axis, with two standard errors. Given
        the groups, residuals of a model that holds rise with fitted values, the more the groups are
        shrunken; marginal ones (`groups="population"`) do not.
        Envelopes hold whole curves, not places one by one, by directional quantiles of curves from
        simulated responses, variances as they are: of 1,000 simulated data sets of 18 groups of 10
        rows, intercepts and slopes varying, the residuals of the refits lay within the envelope of
        95 % in 94 %, the random effects in 94 %.

        Source: Myllymäki, Mrkvička, Grabarnik, Seijo & Hahn (2017), *J. Royal Statistical Society
        B* 79, 381-404.
        """
        table = self.residual_table(
            kind, by=by, residuals=residuals, groups=groups, term=term, prob=prob, n=n, seed=seed
        )
        return pictures.residuals(table, **style)


def _usual(fit: Any, kind: str) -> str:
    """Return the kind of residual that a picture is of, if none is asked for."""
    if not fit.family.is_linear:
        return "quantile"
    return "standardized" if kind in ("scale", "qq") else "response"


def shown_residuals(fit: Any, kind: str, groups: str | None, seed: int | None) -> Array:
    """Return residuals as they are drawn: quantiles as those of a normal distribution."""
    if kind == "quantile" and groups not in KINDS["quantile"]:
        groups = None
    values = fit.residuals(kind, groups, seed=seed)
    return np.asarray(ndtri(values) if kind == "quantile" else values)


def _against(
    fit: Any, by: str | ArrayLike | None, kind: str, groups: str | None
) -> tuple[Any, str]:
    """Return what residuals are drawn against, and its name."""
    if kind != "predictor" and by is None:
        if groups in ("population", "average"):
            return fit.predict(groups=groups), "fitted value of a typical group"
        return fit.fitted(), "fitted value"
    columns = fit.design.rows.data.columns
    if by is None:
        fixed = {name for origin in fit.design.origins for name in origin.variables}
        used = [name for name in columns if name in fixed]
        if not used:
            raise FitError(
                "the model has no predictor to draw residuals against: name a column of the data, "
                "or give an array with a number for each row, `by=`."
            )
        by = used[0]
    if isinstance(by, str):
        if by not in columns:
            raise FitError(
                f"the model uses no column {by!r}. {suggestion(by, map(str, columns))} Values of "
                "the rows may be given as an array."
            )
        return columns[by].to_numpy() if columns[by].dtype.kind in "fiub" else columns[by], by
    values = by if isinstance(by, pd.Series) else pd.Series(np.asarray(by))
    if len(values) != fit.n_obs:
        raise DataError(
            f"`by` has {len(values)} values, expected one for each of {fit.n_obs} rows."
        )
    return values.to_numpy(), "given values" if values.name is None else str(values.name)


def _by_group(fit: Any, by: Any, values: Array) -> tuple[pd.DataFrame, str]:
    """Return residuals with the level of each row, groups ordered by their mean."""
    factors = {term.factor: term.grouping for term in fit.design.rows.terms}
    if not factors and by is None:
        raise FitError("the model has no groups: name a column of the data, `by=`.")
    if by is None or (isinstance(by, str) and by in factors):
        factor = factors[by or next(iter(factors))]
        levels, name = factor.levels.to_numpy()[factor.codes], factor.name
    else:
        found, name = _against(fit, by, "predictor", None)
        levels = np.asarray(found, dtype=object)
    return pd.DataFrame({"level": levels, "residual": values}), name


# ---------------------------------------------------------------------------- against quantiles


def quantile_table(
    fit: Any, kind: str, groups: str | None, *, prob: float, n: int | None, seed: int | None
) -> pd.DataFrame:
    """Return residuals in order beside normal quantiles, with an envelope by simulation."""
    count = _simulations(n, fit.n_obs)
    if kind == "quantile":
        given = groups if groups in KINDS["quantile"] else KINDS["quantile"][0]
        simulated = fit.simulate(count, seed, groups=given)
        both = ndtri(ranked(np.column_stack([fit.design.rows.y, simulated]), seed)).T
        observed, others = both[0], both[1:]
    else:
        observed = fit.residuals(kind, groups)
        others = _simulated_residuals(fit, kind, groups, count, seed)
        is_seen = np.isfinite(observed)
        observed = observed[is_seen]
        others = _of_size(others[:, is_seen], observed)
    table, _, p = _in_envelope(observed, others, prob)
    table.attrs |= _words("qq", WORDS[kind], prob) | {"p_value": p, "simulations": count}
    return table


def _in_envelope(
    observed: Array, simulated: Array, prob: float
) -> tuple[pd.DataFrame, Places, float]:
    """Return a curve in order beside normal quantiles, with its envelope; the order; p."""
    order, m = np.argsort(observed, kind="stable"), len(observed)
    found = envelope(observed[order], np.sort(simulated, axis=1), prob)
    columns = {"theoretical": ndtri((np.arange(m) + 0.5) / m), "residual": observed[order]}
    table = pd.DataFrame(columns | {"lower": found.lower, "upper": found.upper})
    return table, order, found.p_value


def _words(kind: str, residual: str, prob: float) -> dict[str, Any]:
    return {"kind": kind, "x": "standard normal quantile", "residual": residual, "prob": prob}


def _of_size(curves: Array, observed: Array) -> Array:
    """Return curves that have the root mean square of the observed one."""
    size, own = (np.sqrt(np.mean(values**2, axis=-1)) for values in (observed, curves))
    return np.asarray(curves * (size / own)[:, None])


def _simulations(n: int | None, n_obs: int) -> int:
    return max(FEWEST, min(SIMULATIONS, MOST_NUMBERS // max(1, n_obs))) if n is None else n


def _simulated_residuals(
    fit: Any, kind: str, groups: str | None, n: int, seed: int | None
) -> Array:
    """Return residuals of simulated responses of a linear model, shape (n, rows)."""
    if not fit.family.is_linear:
        raise FitError(
            f"an envelope of {kind} residuals is of linear models; of a {fit.family.name} model "
            'take residuals="quantile", the default.'
        )
    rows, Y = fit.design.rows, fit.simulate(n, seed)
    terms = () if groups in ("population", "average") or kind == "whitened" else rows.terms
    labels, left = [term.label for term in rows.terms], np.empty(Y.shape)
    for i, (beta, b) in enumerate(fit.asked.effects_of(values_at(fit), Y)):
        effects = dict(zip(labels, b, strict=True))
        left[:, i] = Y[:, i] - linear_predictor(rows, terms, beta, effects)
    if kind == "whitened":
        return whitened(fit, left).T
    found = left.T if kind == "response" else left.T * np.sqrt(rows.weights)
    return found * freed(fit.leverage()) if kind == "standardized" else found


def effects_table(
    fit: Any, term: str | None, prob: float, n: int | None, seed: int | None
) -> pd.DataFrame:
    """Return standardised random effects beside normal quantiles, with envelopes by simulation."""
    chosen = fit._term(term)  # noqa: SLF001 -- as all answers of fits choose one
    place = [one.label for one in fit.design.terms].index(chosen.label)
    scales = _scales(fit, chosen)
    count = _simulations(n, fit.n_obs)
    sims = fit.asked.effects_of(values_at(fit), fit.simulate(count, seed))
    others = np.array([b[place] for _, b in sims]) / scales
    observed = fit.ranef()[chosen.label].to_numpy() / scales
    tables, p_values, zero = [], {}, []
    for j, coef in enumerate(chosen.coefs):
        if not np.isfinite(scales[:, j]).all():
            zero.append(coef)
            continue
        drawn = _of_size(others[:, :, j], observed[:, j])
        table, order, p_values[coef] = _in_envelope(observed[:, j], drawn, prob)
        levels = chosen.levels.to_numpy()[order]
        labels = pd.DataFrame({"term": chosen.label, "level": levels, "coef": coef})
        tables.append(labels.join(table))
    if not tables:
        raise FitError(
            f"{chosen.text}: the estimated sd of {', '.join(zero)} is zero, so that there are no "
            "random effects to draw."
        )
    table = pd.concat(tables, ignore_index=True)
    table.attrs |= _words("effects", "standardised random effect", prob)
    table.attrs |= {"p_value": p_values, "simulations": count, "zero": zero}
    return table


def _scales(fit: Any, term: Any) -> Array:
    """Return the sd of estimated effects, shape (m, k): that of the effects less their error's."""
    variances = np.diag(fit.varcorr().cov[term.label].to_numpy())
    own = fit.ranef_table()
    errors = own.loc[own["term"] == term.label, "sd"].to_numpy().reshape(term.n_levels, -1)
    of_estimates = np.maximum(variances - errors**2, LEAST_SHARE * variances)
    return np.where(variances > 0, np.sqrt(of_estimates), np.nan)
