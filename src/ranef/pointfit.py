"""`PointFit`: REML, ML and MAP fits, with lme4's answers under lme4's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, special

from ranef import matrices
from ranef.covariance import sd_and_corr
from ranef.design import Design, RandomTerm
from ranef.draws import Draws
from ranef.errors import Convergence, FitError, probability, suggestion
from ranef.estimates import Estimate
from ranef.families import Family
from ranef.results import Fit
from ranef.tables import Summary, VarCorr, tidy_effects

Array = NDArray[np.float64]

FEW_LEVELS = 5
SMALL = 1e-4  # a relative sd that counts as zero
LITTLE = 2.0  # information of a level, below which Laplace's approximation is poor
NODES = {1: 25, 2: 11, 3: 7}  # points of a quadrature, by its dimensions
_NAMES = {"reml": "REML", "ml": "maximum likelihood", "map": "maximum a posteriori"}
_CRITERIA = {"reml": "REML criterion", "ml": "deviance", "map": "-2 log posterior"}
_DISCRETE = ("proportions", "binary", "counts")


@dataclass(frozen=True, eq=False, repr=False)
class PointFit(Fit):
    """A fit by REML, maximum likelihood or maximum a posteriori, of any family.

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
        sigma, has_sigma = self.sigma, self.family.has_sigma
        return VarCorr(sd, corr, cov, sigma, sigma**2, correlated, has_sigma)

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
    def parameters(self) -> dict[str, float]:
        own = [name for name in self.family.parameters if name != "sigma"]
        found = {"sigma": self.sigma, **dict(zip(own, self.estimate.parameters, strict=True))}
        return {name: found[name] for name in self.family.parameters}

    @property
    def theta(self) -> Array:
        return self.estimate.theta

    def _b(self) -> dict[str, Array]:
        return dict(zip((t.label for t in self.design.terms), self.estimate.b, strict=True))

    def _drawn(self, n: int, rng: np.random.Generator) -> Draws:  # noqa: ARG002 -- nothing random
        def repeated(values: object) -> Array:
            array = np.asarray(values, dtype=np.float64)
            return np.broadcast_to(array, (n, *array.shape))

        own = {name: repeated(value) for name, value in self.parameters.items()}
        return Draws(
            beta=repeated(self.estimate.beta),
            sigma=own.pop("sigma", None),
            factors=[repeated(self.sigma * Lambda) for Lambda in self.estimate.Lambdas],
            b=[repeated(b) for b in self.estimate.b],
            parameters=own,
        )

    @property
    def _interval_label(self) -> str:
        return "conditional mode with {percent} interval"

    # ------------------------------------------------------------------------- likelihood

    @property
    def objective(self) -> float:
        """-2 times the maximised (restricted) log-likelihood, with all constants.

        By "map" what was minimised: -2 times the log posterior density, of the variance parameters
        of a linear model, of all parameters of any other. Of a generalised model the likelihood
        is the Laplace approximation, or its quadrature.
        """
        return self.estimate.objective

    @property
    def loglik(self) -> float:
        """The log-likelihood; for REML the restricted one.

        By "map" that of the estimates; of a linear model with beta integrated out.
        """
        return self.estimate.loglik

    @property
    def df(self) -> int:
        """The number of parameters: fixed effects, theta, and the family's own, such as sigma."""
        return len(self.estimate.beta) + len(self.theta) + len(self.family.parameters)

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
        """Return L with L L' = Lambda' Z' W Z Lambda + I, q x q, dense lower triangular.

        W has the prior weights; for a generalised model the observed information of each row's
        linear predictor, at the conditional modes and times sigma^2.
        """
        working = self.estimate.working_weights
        weights = self.design.weights if working is None else self.sigma**2 * working
        return matrices.cholesky_factor(self.design, self.estimate.Lambdas, weights)

    # ---------------------------------------------------------------------------- printing

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()` (fixed effects)."""
        fixed = pd.DataFrame({"estimate": self.fixef(), "se": self.se()})
        fixed["t" if self.family.is_normal else "z"] = fixed["estimate"] / fixed["se"]
        fixed = fixed.join(self.confint())
        sections = []
        if self.design.terms:
            sections.append(("Random effects", self.varcorr().printed()))
        if len(fixed):
            sections.append(("Fixed effects, with 95 % Wald intervals", fixed))
        return Summary(
            title=f"{self._kind} fitted by {_NAMES[self.method]}{self._approximation}",
            facts=(*self._facts(), self._figures(), *self._own()),
            sections=tuple(sections),
            notes=tuple(self._notes()),
            frame=fixed,
        )

    @property
    def _approximation(self) -> str:
        """How the random effects of a generalised model were integrated out."""
        n_agq = self.estimate.n_agq
        if self.family.is_normal or not self.design.terms:
            return ""
        if n_agq > 1:
            return f" (adaptive Gauss-Hermite quadrature, {n_agq} points)"
        return f" (Laplace approximation{', n_agq=0' * (n_agq == 0)})"

    def _figures(self) -> str:
        is_plain = self.method == "ml" and not self.family.is_normal
        criterion = "-2 log-likelihood" if is_plain else _CRITERIA[self.method]
        return (
            f"{criterion} {self.objective:.4f}, log-likelihood {self.loglik:.4f}, "
            f"AIC {self.aic:.2f}, BIC {self.bic:.2f}, {self.df} parameters"
        )

    def _own(self) -> list[str]:
        """Say the family's own parameters, but for a sigma that has a row in a table."""
        own = self.parameters
        if self.family.has_sigma and self.design.terms:
            del own["sigma"]
        words = {"sigma": "residual sd"} if self.family.is_normal else {}
        said = [f"{words.get(name, name)} {value:.6g}" for name, value in own.items()]
        return [", ".join(said)] * bool(said)

    def _notes(self) -> list[str]:
        if not self.design.terms:
            return [] if self.family.is_normal else [self.convergence.value]
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
        if self._approximation.startswith(" (Laplace"):
            notes += laplace_notes(self.design, self.family, self.fitted(), self.parameters)
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


def laplace_notes(
    design: Design, family: Family, mu: Array, parameters: Mapping[str, float]
) -> list[str]:
    """Say where the Laplace approximation cannot be relied on, in at most one note.

    Parameters
    ----------
    design : Design
    family : Family
    mu : ndarray, shape (n,)
        Fitted means.
    parameters : mapping of str to float
        The family's own.

    Notes
    -----
    Classes and counts that say little about a level make the conditional distribution of its
    effects skewed. With one random intercept and many levels the estimated sd tends to 0.70 times
    the true one for 2 coin tosses a level, 0.93 for 7, 0.96 for 10; to 1.42 times for 10 trials
    of probability 0.05, 1.17 times for one expected event of a Poisson count, if the true sd is
    0.3. It is within 6 % where a level has `LITTLE` information or more about its log odds or
    log mean, over sds of 0.3 to 3, as computed from the exact distribution of its total.
    """
    if family.support not in _DISCRETE:
        return []
    spread = mu if family.support == "counts" else mu * (1 - mu)  # of mu with its log (odds)
    variance = family.variance(mu, *parameters.values())
    information = design.weights * np.divide(spread**2, variance, where=variance > 0, out=0 * mu)
    poor = [
        f"{term.text} {np.median(per_level):.2g}"
        for term in design.terms
        if np.median(per_level := np.bincount(term.codes, information) / term.n_coefs) < LITTLE
    ]
    if not poor:
        return []
    what = "log mean" if family.support == "counts" else "log odds"
    note = (
        f"The Laplace approximation is poor here: at the median, the data of a level have little "
        f"information about its {what}, {', '.join(poor)}, where {LITTLE:g} for each coefficient "
        "is enough. The standard deviation may be well off, mostly too small; compare "
        f"{_better(design)}."
    )
    return [note]


def _better(design: Design) -> str:
    """Return the methods that do not need the Laplace approximation."""
    nodes = NODES.get(sum(term.n_coefs for term in design.terms))
    if nodes is None or len({term.factor for term in design.terms}) > 1:
        return 'model.fit("mcmc")'
    return f'model.fit(n_agq={nodes}) or model.fit("mcmc")'
