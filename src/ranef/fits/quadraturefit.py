"""`QuadratureFit`: a posterior without Monte Carlo noise."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.errors import FitError, probability, suggestion
from ranef.fits.posterior import PosteriorFit
from ranef.fits.tables import VarCorr, tidy_effects
from ranef.posterior.quadrature.marginal_densities import Curve
from ranef.posterior.transforms import correlations

if TYPE_CHECKING:
    from ranef.posterior.quadrature.moments import Exact


@dataclass(frozen=True, eq=False, repr=False)
class QuadratureFit(PosteriorFit):
    """A posterior by deterministic integration over the variance parameters.

    Means, standard deviations, densities and intervals have no Monte Carlo noise; draws are made
    when they are asked for.

    Attributes
    ----------
    exact : Exact
        What is computed when it is asked for.

    Examples
    --------
    >>> import ranef as rf
    >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
    >>> batch = fit.curve("sd_Batch[Intercept]")
    >>> round(batch.mean, 1), [round(x, 1) for x in batch.hdi(0.9)]
    (47.3, [14.9, 80.6])
    """

    exact: Exact | None = None

    def curve(self, name: str) -> Curve:
        """Return the posterior density of one parameter.

        Parameters
        ----------
        name : str
            As in `estimates()`: `Days`, `sigma`, `sd_Subject[Days]`,
            `corr_Subject[Intercept, Days]`.

        Returns
        -------
        Curve
            With `pdf`, `cdf`, `quantile`, `hdi(prob)`, `mean` and `sd`.
        """
        if name not in self._known_names():
            raise FitError(
                f"the posterior has no parameter {name!r}. {suggestion(name, self._known_names())}"
            )
        found = self._curve(name)
        if isinstance(found, float):
            raise FitError(f"`{name}` is known to be {found:g} and has no density.")
        return found

    def effect_curve(self, term: str, level: object, coef: str) -> Curve:
        """Return the posterior density of one random effect.

        Parameters
        ----------
        term : str
            Label of the term.
        level : label
            Of the group.
        coef : str
        """
        own = self._term(term)
        levels = own.levels.tolist()
        if level not in levels:
            raise FitError(
                f"`{own.factor}` has no level {level!r}. {suggestion(str(level), map(str, levels))}"
            )
        if coef not in own.coefs:
            raise FitError(
                f"{own.text} has no coefficient {coef!r}. {suggestion(str(coef), own.coefs)}"
            )
        place = [t.label for t in self.design.terms].index(own.label)
        return self._exact.effect_curve(place, levels.index(level), own.coefs.index(coef))

    # ---------------------------------------------------------------- what every fit answers

    def fixef(self) -> pd.Series[float]:
        mean = self._exact.beta_moments[0]
        return pd.Series(mean, index=pd.Index(self.design.fixed), name="estimate")

    def vcov(self) -> pd.DataFrame:
        names = pd.Index(self.design.fixed)
        return pd.DataFrame(self._exact.beta_moments[1], index=names, columns=names)

    def varcorr(self) -> VarCorr:
        """Return posterior means of the standard deviations, correlations and covariances."""
        sd, corr, cov = {}, {}, {}
        for t, term in enumerate(self.design.terms):
            names = pd.Index(term.coefs)
            covs = self._exact.factors[t] @ self._exact.factors[t].swapaxes(1, 2)
            sds = np.sqrt(np.diagonal(covs, axis1=1, axis2=2))
            corrs = correlations(self._exact.factors[t] / sds[:, :, None])
            sd[term.label] = pd.Series(self._mean(sds), index=names, name="sd")
            corr[term.label] = pd.DataFrame(self._mean(corrs), index=names, columns=names)
            cov[term.label] = pd.DataFrame(self._mean(covs), index=names, columns=names)
        correlated = frozenset(t.label for t in self.design.terms if t.correlated)
        sigma2 = float(self._mean(self._exact.mixture.sigma**2))
        return VarCorr(sd, corr, cov, self.sigma, sigma2, correlated)

    def ranef_table(self, prob: float = 0.95) -> pd.DataFrame:
        """Return posterior means, sds and HPD intervals of the random effects."""
        prob = probability(prob)
        values = []
        for t, (mean, sd) in enumerate(self._exact.effect_moments):
            bounds = np.array(
                [self._exact.effect_curve(t, *place).hdi(prob) for place in np.ndindex(mean.shape)]
            ).reshape(*mean.shape, 2)
            values.append((mean, sd, bounds[..., 0], bounds[..., 1]))
        return tidy_effects(self.design.terms, values)

    @property
    def sigma(self) -> float:
        return float(self._mean(self._exact.mixture.sigma))

    @property
    def theta(self) -> Array:
        """Posterior means of the relative covariance parameters, in lme4's order."""
        parts = []
        for t, term in enumerate(self.design.terms):
            k = term.n_coefs
            F = self._exact.factors[t] / self._exact.mixture.sigma[:, None, None]
            cov = F @ F.swapaxes(1, 2)
            Lambda = np.linalg.cholesky(cov) if term.correlated else np.sqrt(cov)
            columns, rows = np.triu_indices(k) if term.correlated else (np.arange(k), np.arange(k))
            parts.append(self._mean(Lambda[:, rows, columns]))
        return np.concatenate(parts) if parts else np.empty(0)

    # ------------------------------------------------------------------------------ inside

    @property
    def _exact(self) -> Exact:
        assert self.exact is not None
        return self.exact

    def _mean(self, values: Array) -> Array:
        return self._exact.expected(values)

    def _b(self) -> dict[str, Array]:
        moments = self._exact.effect_moments
        return {t.label: mean for t, (mean, _) in zip(self.design.terms, moments, strict=True)}

    def _known_names(self) -> list[str]:
        return list(self.estimates().index)

    def _curve(self, name: str) -> Curve | float:
        """Return a curve, or the value of what is known."""
        space, fixed = self._exact.target.space, list(self.design.fixed)
        plain = name.removeprefix("beta[").removesuffix("]") if name.startswith("beta[") else name
        variances = space.names[space.n_given :]  # a given effect may be called `sigma`
        if name in variances:
            return self._curve_of_variance(space.n_given + variances.index(name))
        return self._exact.beta_curve(fixed.index(plain))

    def _curve_of_variance(self, place: int) -> Curve | float:
        space = self._exact.target.space
        if place in space.free:
            return self._exact.curve(place)
        value = float(space.known[place])
        sigma = self._curve_of_variance(space.n_given) if space.relative[place] else 1.0
        if isinstance(sigma, float):
            return value * sigma
        return Curve(value * sigma.values, sigma.density / value, sigma.t, value * sigma.slope)

    def _table(self, prob: float) -> pd.DataFrame:
        mean, sd = self.estimates(), self._sds()
        rows = {}
        for name in mean.index:
            found = self._curve(name)
            if isinstance(found, float):
                rows[name] = (found, 0.0, found, found)
            else:
                rows[name] = (mean[name], sd[name], *found.hdi(prob))
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=["mean", "sd", "lower", "upper"]
        )

    def _sds(self) -> dict[str, float]:
        """Return the posterior standard deviation of every parameter."""
        sds = list(self.se())
        sigma = self._exact.mixture.sigma
        sds.append(self._spread(sigma))
        for t, term in enumerate(self.design.terms):
            F = self._exact.factors[t]
            lengths = np.linalg.norm(F, axis=2)
            sds += [self._spread(lengths[:, j]) for j in range(term.n_coefs)]
            if term.correlated and term.n_coefs > 1:
                corr = correlations(F / lengths[:, :, None])
                sds += [
                    self._spread(corr[:, i, j]) for i, j in combinations(range(term.n_coefs), 2)
                ]
        return dict(zip(self.estimates().index, sds, strict=True))

    def _spread(self, values: Array) -> float:
        return float(np.sqrt(max(0.0, float(self._mean((values - self._mean(values)) ** 2)))))

    def _how(self) -> list[str]:
        return [] if self.evidence is None else [str(self.evidence)]
