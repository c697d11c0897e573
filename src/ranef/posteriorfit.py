"""`PosteriorFit`: draws from a posterior, with the answers and names of every other fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef.design import Design, RandomTerm
from ranef.diagnostics import Diagnostics, diagnose, hdi, summarise
from ranef.errors import Convergence, FitError, suggestion
from ranef.families import Family
from ranef.results import Fit
from ranef.tables import Summary, VarCorr, tidy_effects

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorFit(Fit):
    """A fit by draws from the posterior.

    Attributes
    ----------
    design : Design
        Data and matrices.
    family : Family
    method : {"mcmc"}
    posterior : xarray.DataTree
        Groups `posterior` (variables `beta`, `sigma`, `sd_<term>`, `corr_<term>`, `b_<term>`),
        `sample_stats`, `observed_data`: ArviZ takes it as it is.
    """

    design: Design
    family: Family
    method: str
    posterior: xr.DataTree

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
        sigma2 = float(np.mean(self.draws("sigma") ** 2))
        return VarCorr(sd, corr, cov, self.sigma, sigma2, correlated)

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
        return summarise(self.posterior, prob)[["lower", "upper"]]

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
        return float(self.draws("sigma").mean())

    @property
    def theta(self) -> Array:
        """Posterior means of the relative covariance parameters, in lme4's order."""
        parts = []
        sigma = self.draws("sigma")[:, None]
        for term in self.design.terms:
            sds = self.draws(f"sd_{term.label}") / sigma
            if term.correlated:
                # a drawn correlation can round to 1, which has no Cholesky factor
                corr = self._correlations(term) + ROUNDING * np.eye(term.n_coefs)
                Lambda = sds[:, :, None] * np.linalg.cholesky(corr)
                columns, rows = np.triu_indices(term.n_coefs)
                sds = Lambda[:, rows, columns]
            parts.append(sds.mean(axis=0))
        return np.concatenate(parts) if parts else np.empty(0)

    def draws(self, name: str) -> Array:
        """Return the draws of one variable, all chains together, shape (draws, ...).

        Parameters
        ----------
        name : str
            `beta`, `sigma`, `sd_<term>`, `corr_<term>` or `b_<term>`.
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
    def diagnostics(self) -> Diagnostics:
        """What the draws say about the sampler; `.ok` and `.messages()` in short."""
        return diagnose(self.posterior)

    @property
    def convergence(self) -> Convergence:
        return Convergence.MIXED if self.diagnostics.ok else Convergence.NOT_MIXED

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
        table = summarise(self.posterior, prob)
        sizes = self.posterior["posterior"].sizes
        kind = "Linear mixed model" if self.design.terms else "Linear model"
        return Summary(
            title=f"{kind}, posterior by MCMC (NUTS)",
            facts=(*self._facts(), f"{sizes['chain']} chains of {sizes['draw']} draws"),
            sections=((f"Posterior, with {100 * prob:g} % HPD intervals", table),),
            notes=self.diagnostics.messages(),
            frame=table,
        )

    # ------------------------------------------------------------------------------ inside

    def _b(self) -> dict[str, Array]:
        return {t.label: self.draws(f"b_{t.label}").mean(axis=0) for t in self.design.terms}

    @property
    def _interval_label(self) -> str:
        return "posterior mean with {percent} HPD interval"

    def _correlations(self, term: RandomTerm) -> Array:
        if term.correlated and term.n_coefs > 1:
            return self.draws(f"corr_{term.label}")
        return np.broadcast_to(np.eye(term.n_coefs), (1, term.n_coefs, term.n_coefs))
