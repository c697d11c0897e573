"""`PointFit`: REML, ML and MAP fits, with lme4's answers under lme4's names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, special

from ranef import matrices
from ranef.covariance import sd_and_corr
from ranef.design import Design, RandomTerm
from ranef.errors import Convergence, FitError, probability, suggestion
from ranef.estimates import Estimate
from ranef.families import Family
from ranef.results import Fit
from ranef.tables import Summary, VarCorr, tidy_effects

Array = NDArray[np.float64]

FEW_LEVELS = 5
SMALL = 1e-4  # a relative sd that counts as zero
_NAMES = {"reml": "REML", "ml": "maximum likelihood", "map": "maximum a posteriori"}
_CRITERIA = {"reml": "REML criterion", "ml": "deviance", "map": "-2 log posterior"}


@dataclass(frozen=True, eq=False, repr=False)
class PointFit(Fit):
    """A fit by REML, maximum likelihood or maximum a posteriori.

    Attributes
    ----------
    design : Design
        Data and matrices; columns of X that are combinations of others are left out.
    family : Family
    method : {"reml", "ml", "map"}
    estimate : Estimate
        The numbers, as the engine handed them over.

    Examples
    --------
    >>> import ranef as rf
    >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> round(fit.objective, 4), round(fit.sigma, 4)
    (319.6543, 49.5101)
    """

    design: Design
    family: Family
    method: str
    estimate: Estimate

    # -------------------------------------------------------------------------- estimates

    def fixef(self) -> pd.Series[float]:
        return pd.Series(self.estimate.beta, index=pd.Index(self.design.fixed), name="estimate")

    def vcov(self) -> pd.DataFrame:
        names = pd.Index(self.design.fixed)
        return pd.DataFrame(self.estimate.vcov, index=names, columns=names)

    def varcorr(self) -> VarCorr:
        sd, corr, cov = {}, {}, {}
        for term, Lambda in zip(self.design.terms, self.estimate.Lambdas, strict=True):
            names = pd.Index(term.coefs)
            covariance = self.sigma**2 * Lambda @ Lambda.T
            sds, corrs = sd_and_corr(covariance)
            sd[term.label] = pd.Series(sds, index=names, name="sd")
            corr[term.label] = pd.DataFrame(corrs, index=names, columns=names)
            cov[term.label] = pd.DataFrame(covariance, index=names, columns=names)
        correlated = frozenset(t.label for t in self.design.terms if t.correlated)
        return VarCorr(sd, corr, cov, self.sigma, self.sigma**2, correlated)

    def ranef_table(self, prob: float = 0.95) -> pd.DataFrame:
        """Return the conditional modes with their conditional standard deviations.

        Parameters
        ----------
        prob : float
            Probability of the normal intervals.

        Returns
        -------
        DataFrame
            Columns `term, level, coef, estimate, sd, lower, upper`; `sd` is given theta, sigma
            and beta, as lme4's `ranef(condVar = TRUE)`.
        """
        z = normal_quantile(prob)
        sds = [np.sqrt(np.diagonal(cov, axis1=1, axis2=2)) for cov in self.estimate.b_cov]
        found = zip(self.estimate.b, sds, strict=True)
        return tidy_effects(self.design.terms, [(b, sd, b - z * sd, b + z * sd) for b, sd in found])

    def confint(self, method: str | None = None, prob: float = 0.95) -> pd.DataFrame:
        """Return Wald intervals of the fixed effects.

        Parameters
        ----------
        method : {"wald"}, optional
        prob : float
            Their probability.

        Notes
        -----
        There is no useful Wald interval of a variance: its estimator is skewed and its space has
        a boundary. The posterior (`model.fit("mcmc")`) has intervals for it.
        """
        if method not in (None, "wald"):
            known = suggestion(str(method), ["wald"])
            raise FitError(f"method={method!r} is not available for a {self.method} fit. {known}")
        fixef, half = self.fixef(), normal_quantile(prob) * self.se()
        return pd.DataFrame({"lower": fixef - half, "upper": fixef + half})

    @property
    def sigma(self) -> float:
        return self.estimate.sigma

    @property
    def theta(self) -> Array:
        return self.estimate.theta

    def _b(self) -> dict[str, Array]:
        return dict(zip((t.label for t in self.design.terms), self.estimate.b, strict=True))

    @property
    def _interval_label(self) -> str:
        return "conditional mode with {percent} interval"

    # ------------------------------------------------------------------------- likelihood

    @property
    def objective(self) -> float:
        """-2 times the maximised (restricted) log-likelihood, with all constants.

        By "map" what was minimised: -2 times the log posterior density of the variance parameters.
        """
        return self.estimate.objective

    @property
    def loglik(self) -> float:
        """The log-likelihood; for REML the restricted one, for "map" with the priors of beta."""
        return self.estimate.loglik

    @property
    def df(self) -> int:
        """The number of parameters: fixed effects, theta, and one for sigma."""
        return len(self.estimate.beta) + len(self.theta) + 1

    @property
    def aic(self) -> float:
        """-2 log-likelihood + 2 df."""
        return -2 * self.loglik + 2 * self.df

    @property
    def bic(self) -> float:
        """-2 log-likelihood + log(n) df, n all rows, as lme4."""
        return float(-2 * self.loglik + np.log(self.n_obs) * self.df)

    @property
    def convergence(self) -> Convergence:
        return self.estimate.convergence

    @property
    def is_singular(self) -> bool:
        return any(self.estimate.singular)

    @property
    def trace(self) -> pd.DataFrame:
        """The objective and theta at each step of the optimiser."""
        rows = [[value, *theta] for value, theta in self.estimate.trace]
        return pd.DataFrame(rows, columns=pd.Index(["objective", *self.theta_names]))

    # ------------------------------------------------------------------------ for teaching

    def lambda_blocks(self) -> dict[str, pd.DataFrame]:
        """Return each term's relative covariance factor, k x k, by label."""
        return {
            t.label: pd.DataFrame(Lambda, index=pd.Index(t.coefs), columns=pd.Index(t.coefs))
            for t, Lambda in zip(self.design.terms, self.estimate.Lambdas, strict=True)
        }

    def Z(self) -> sparse.csc_array:
        """Return the random-effects model matrix, n x q, sparse."""
        return matrices.random_effects_matrix(self.design)

    def Lambda(self) -> sparse.csc_array:
        """Return the relative covariance factor of all random effects, q x q, sparse."""
        return matrices.relative_factor(self.design, self.estimate.Lambdas)

    def cholesky(self) -> Array:
        """Return L with L L' = Lambda' Z' W Z Lambda + I, q x q, dense lower triangular."""
        return matrices.cholesky_factor(self.design, self.estimate.Lambdas)

    # ---------------------------------------------------------------------------- printing

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()` (fixed effects)."""
        fixed = pd.DataFrame({"estimate": self.fixef(), "se": self.se()})
        fixed["t"] = fixed["estimate"] / fixed["se"]
        fixed = fixed.join(self.confint())
        sections = []
        if self.design.terms:
            sections.append(("Random effects", self.varcorr().printed()))
        if len(fixed):
            sections.append(("Fixed effects, with 95 % Wald intervals", fixed))
        kind = "Linear mixed model" if self.design.terms else "Linear model"
        figures = (
            f"{_CRITERIA[self.method]} {self.objective:.4f}, log-likelihood {self.loglik:.4f}, "
            f"AIC {self.aic:.2f}, BIC {self.bic:.2f}, {self.df} parameters"
        )
        sd = [] if self.design.terms else [f"residual sd {self.sigma:.6g}"]
        return Summary(
            title=f"{kind} fitted by {_NAMES[self.method]}",
            facts=(*self._facts(), figures, *sd),
            sections=tuple(sections),
            notes=tuple(self._notes()),
            frame=fixed,
        )

    def _notes(self) -> list[str]:
        if not self.design.terms:
            return []
        notes = [self.convergence.value]
        notes += [
            singular_note(t, Lambda)
            for t, Lambda, singular in zip(
                self.design.terms, self.estimate.Lambdas, self.estimate.singular, strict=True
            )
            if singular
        ]
        if self.is_singular:
            notes.append(
                "This is an estimate, not a failure. To keep it off the boundary use "
                'model.fit("map", priors="boundary"); a posterior, model.fit("mcmc"), does not '
                "sit there; or simplify the term."
            )
        few = [f"{f} has {m}" for f, m in self.n_groups.items() if m < FEW_LEVELS]
        if few:
            notes.append(
                f"Few levels ({', '.join(few)}): their standard deviation is hardly determined by "
                "the data; its posterior shows how little."
            )
        return notes


def normal_quantile(prob: float) -> float:
    """Return z such that a standard normal is within z of zero with probability `prob`."""
    return float(special.ndtri((1 + probability(prob)) / 2))


def singular_note(term: RandomTerm, Lambda: Array) -> str:
    """Say which coefficients of a singular term are on the boundary."""
    lengths = np.sqrt(np.mean(term.columns**2, axis=0))  # so that units do not matter
    rows = Lambda * lengths[:, None]
    zero = [c for c, row in zip(term.coefs, rows, strict=True) if np.linalg.norm(row) < SMALL]
    if zero:
        return f"{term.text}: the estimated sd of {', '.join(zero)} is zero."
    _, corr = sd_and_corr(rows @ rows.T)
    pairs = [
        f"{term.coefs[j]} and {term.coefs[i]} {corr[i, j]:+.3f}"
        for i, j in zip(*np.tril_indices(term.n_coefs, -1), strict=True)
        if abs(corr[i, j]) > 0.999
    ]
    if pairs:
        return f"{term.text}: estimated correlation of {', '.join(pairs)}."
    rank = min(np.linalg.matrix_rank(rows, tol=SMALL), term.n_coefs - 1)
    return (
        f"{term.text}: the estimated covariance of the {term.n_coefs} coefficients has rank {rank}."
    )
