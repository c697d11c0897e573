"""`PosteriorFit`: draws from a posterior, with the answers and names of every other fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef._typing import Array
from ranef.design.design import Design, NewRows, RandomTerm
from ranef.errors import Convergence, FitError, suggestion
from ranef.families.family import Family
from ranef.fits.diagnostics import MARGINAL, OTHER_FORM, Reliability, diagnose, hdi, summarise
from ranef.fits.engine import Engine
from ranef.fits.scored import Scored
from ranef.fits.tables import Summary, VarCorr, tidy_effects
from ranef.likelihood.predictions import Draws, mean_response
from ranef.posterior.marginal_likelihood import MarginalLikelihood

if TYPE_CHECKING:
    import xarray as xr


ROUNDING = 1e-12
_NAMES = {
    "mcmc": "MCMC (NUTS)",
    "laplace": "Laplace approximation, corrected by importance weights",
    "quadrature": "quadrature",
}


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorFit(Scored):
    """A fit by draws from the posterior.

    Attributes
    ----------
    design : Design
        Data and matrices.
    family : Family
    method : {"mcmc", "laplace", "quadrature"}
    tree : xarray.DataTree or callable
        The draws, or what makes them when they are first asked for.
    checks : Reliability, optional
        How far to trust the draws; by default what the draws of a sampler say themselves.
    evidence : MarginalLikelihood, optional
        log p(y), where the method gives it.
    engine : Engine, optional
        What answers for the model that the fit comes from.
    """

    design: Design
    family: Family
    method: str
    tree: xr.DataTree | Callable[[], xr.DataTree]
    checks: Reliability | None = None
    evidence: MarginalLikelihood | None = None
    engine: Engine | None = None

    @cached_property
    def posterior(self) -> xr.DataTree:
        """Groups `posterior`, `observed_data` and, by MCMC, `sample_stats`.

        Variables `beta`, `sigma`, other parameters of the family, `b_<term>`, `sd_<term>`,
        `corr_<term>`; ArviZ takes it as it is.
        """
        return self.tree() if callable(self.tree) else self.tree

    # -------------------------------------------------------------------------- estimates

    def fixef(self) -> pd.Series[float]:
        beta = self.draws("beta").mean(axis=0) if self.design.fixed else np.empty(0)
        return pd.Series(beta, index=pd.Index(self.design.fixed), name="estimate")

    def vcov(self) -> pd.DataFrame:
        names = pd.Index(self.design.fixed)
        p = len(names)
        cov = np.cov(self.draws("beta"), rowvar=False).reshape(p, p) if p else np.empty((0, 0))
        return pd.DataFrame(cov, index=names, columns=names)

    def varcorr(self) -> VarCorr:
        """Return posterior means of the standard deviations, correlations and covariances."""
        sd, corr, cov = {}, {}, {}
        for term in self.design.terms:
            names = pd.Index(term.coefs)
            sds, corrs = self.draws(f"sd_{term.label}"), self._correlations(term)
            covs = corrs * sds[:, :, None] * sds[:, None, :]
            sd[term.label] = pd.Series(sds.mean(axis=0), index=names, name="sd")
            corr[term.label] = pd.DataFrame(corrs.mean(axis=0), index=names, columns=names)
            cov[term.label] = pd.DataFrame(covs.mean(axis=0), index=names, columns=names)
        correlated = frozenset(t.label for t in self.design.terms if t.correlated)
        sigma2 = float(np.mean(self._sigmas() ** 2))
        has_sigma = self.family.has_sigma
        return VarCorr(sd, corr, cov, self.sigma, sigma2, correlated, has_sigma)

    def ranef_table(self, prob: float = 0.95) -> pd.DataFrame:
        """Return posterior means, sds and HPD intervals of the random effects.

        Parameters
        ----------
        prob : float
            Probability of the intervals.

        Returns
        -------
        DataFrame
            Columns `term, level, coef, estimate, sd, lower, upper`.
        """
        posterior = self.posterior["posterior"]
        draws = [posterior[f"b_{t.label}"].to_numpy() for t in self.design.terms]
        return tidy_effects(
            self.design.terms,
            [(b.mean((0, 1)), b.std((0, 1), ddof=1), *hdi(b, prob)) for b in draws],
        )

    def hdi(self, prob: float = 0.95) -> pd.DataFrame:
        """Return highest posterior density intervals of all parameters.

        Parameters
        ----------
        prob : float
            Their probability.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`; rows named as in `estimates()`.
        """
        return self._table(prob)[["lower", "upper"]]

    def confint(self, method: str | None = None, prob: float = 0.95) -> pd.DataFrame:
        """Return highest posterior density intervals, as `hdi`.

        Parameters
        ----------
        method : {"hpd"}, optional
        prob : float
        """
        if method not in (None, "hpd"):
            known = suggestion(str(method), ["hpd"])
            raise FitError(f"method={method!r} is not available for a posterior. {known}")
        return self.hdi(prob)

    @property
    def sigma(self) -> float:
        return float(self._sigmas().mean())

    @property
    def parameters(self) -> dict[str, float]:
        return {
            name: self.sigma if name == "sigma" else float(self.draws(name).mean())
            for name in self.family.parameters
        }

    @property
    def theta(self) -> Array:
        """Posterior means of the relative covariance parameters, in lme4's order."""
        parts = []
        sigma = self._sigmas()[:, None]
        for term in self.design.terms:
            sds = self.draws(f"sd_{term.label}") / sigma
            if term.correlated:
                Lambda = sds[:, :, None] * self._unit_factors(term)
                columns, rows = np.triu_indices(term.n_coefs)
                sds = Lambda[:, rows, columns]
            parts.append(sds.mean(axis=0))
        return np.concatenate(parts) if parts else np.empty(0)

    def draws(self, name: str) -> Array:
        """Return the draws of one variable, all chains together, shape (draws, ...).

        Parameters
        ----------
        name : str
            `beta`, `sigma` or another parameter of the family, `sd_<term>`, `corr_<term>` or
            `b_<term>`.
        """
        group = self.posterior["posterior"]
        if name not in group.data_vars:
            known = suggestion(name, map(str, group.data_vars))
            raise FitError(f"the posterior has no variable {name!r}. {known}")
        values = group[name].to_numpy()
        chains, draws, *shape = values.shape
        return np.asarray(values.reshape(chains * draws, *shape))

    # ------------------------------------------------------------------------- diagnostics

    @cached_property
    def diagnostics(self) -> Reliability:
        """What speaks for and against the numbers; `.ok` and `.messages()` in short."""
        if self.checks is not None:
            return self.checks
        remedy = MARGINAL if self.family.is_normal else OTHER_FORM if self.design.terms else ""
        return diagnose(self.posterior, remedy)

    @property
    def convergence(self) -> Convergence:
        if not self.diagnostics.ok:
            return Convergence.NOT_MIXED
        return Convergence.MIXED if self.checks is None else Convergence.CHECKED

    @property
    def is_singular(self) -> bool:
        """False: a posterior does not sit on the boundary."""
        return False

    # ---------------------------------------------------------------------------- printing

    def summary(self, prob: float = 0.95) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`.

        Parameters
        ----------
        prob : float
            Probability of the highest posterior density intervals.
        """
        table = self._table(prob)
        return Summary(
            title=f"{self._kind}, posterior by {_NAMES[self.method]}",
            facts=(*self._facts(), *self._how()),
            sections=((f"Posterior, with {100 * prob:g} % HPD intervals", table),),
            notes=self.diagnostics.messages(),
            frame=table,
        )

    # ------------------------------------------------------------------------------ inside

    def _table(self, prob: float) -> pd.DataFrame:
        table = summarise(self.posterior, prob)
        return table if self.checks is None else table[["mean", "sd", "lower", "upper"]]

    def _how(self) -> list[str]:
        sizes = self.posterior["posterior"].sizes
        chains, draws = sizes["chain"], sizes["draw"]
        if self.checks is None:
            return [f"{chains} chains of {draws} draws"]
        return [f"{chains * draws} draws", *([] if self.evidence is None else [str(self.evidence)])]

    def _sigmas(self) -> Array:
        """Return the draws of sigma: ones where the family has none."""
        return self.draws("sigma") if self.family.has_sigma else np.ones(self._n_draws)

    def _drawn(self, n: int, rng: np.random.Generator) -> Draws:
        return self.draws_at(rng.choice(self._n_draws, n, replace=n > self._n_draws))

    def draws_at(self, chosen: NDArray[np.intp] | slice = slice(None)) -> Draws:
        """Return some draws of all parameters, by default all of them, chain after chain."""
        own = {name: self.draws(name)[chosen] for name in self.family.parameters}
        beta = self.draws("beta") if self.design.fixed else np.empty((self._n_draws, 0))
        terms = self.design.terms
        return Draws(
            beta=beta[chosen],
            sigma=own.pop("sigma", None),
            factors=[
                (self.draws(f"sd_{t.label}")[:, :, None] * self._unit_factors(t))[chosen]
                for t in terms
            ],
            b=[self.draws(f"b_{t.label}")[chosen] for t in terms],
            parameters=own,
        )

    def _unit_factors(self, term: RandomTerm) -> Array:
        """Return Cholesky factors of the drawn correlations, shape (draws, k, k).

        A drawn correlation can round to 1, which has no Cholesky factor.
        """
        corr = self._correlations(term) + ROUNDING * np.eye(term.n_coefs)
        factors = np.linalg.cholesky(corr)
        return np.broadcast_to(factors, (self._n_draws, *factors.shape[1:]))

    @property
    def _n_draws(self) -> int:
        sizes = self.posterior["posterior"].sizes
        return int(sizes["chain"] * sizes["draw"])

    def _predicted(self, rows: Design | NewRows, terms: Sequence[RandomTerm], kind: str) -> Array:
        """Return posterior means of eta, or of mu: not mu at the posterior mean."""
        if kind == "link" or self.family.mean_is_eta:
            return super()._predicted(rows, terms, kind)
        beta = self.draws("beta") if self.design.fixed else np.empty((self._n_draws, 0))
        b = {term.label: self.draws(f"b_{term.label}") for term in terms}
        psi = [self.draws(name) for name in self.family.parameters]
        return mean_response(self.family, rows, terms, beta, b, psi=psi)

    def _b(self) -> dict[str, Array]:
        return {t.label: self.draws(f"b_{t.label}").mean(axis=0) for t in self.design.terms}

    @property
    def _interval_label(self) -> str:
        return "posterior mean with {percent} HPD interval"

    def _correlations(self, term: RandomTerm) -> Array:
        if term.correlated and term.n_coefs > 1:
            return self.draws(f"corr_{term.label}")
        return np.broadcast_to(np.eye(term.n_coefs), (1, term.n_coefs, term.n_coefs))
