"""How far to trust draws, Laplace's approximation, and estimates on the boundary.

What is said of draws works on the `xarray.DataTree` of a sampled model with chains and draws,
whoever sampled it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ranef._typing import Array, DataTree
from ranef.covariances.covariance import sd_and_corr
from ranef.design.design import Design, RandomTerm
from ranef.errors import phrase
from ranef.families.family import Family
from ranef.numerics import markov_chains
from ranef.posterior.draws import TAILS, quantities, statistic
from ranef.printing.summary import InNotebook

MAX_RHAT, MIN_ESS, MIN_BFMI = 1.01, 400.0, 0.3
MAX_KHAT = 0.7
MAX_ERROR = 1e-3
SMALL_SD = 1e-4  # a relative sd that counts as zero
LITTLE = 2.0  # information of a level, below which Laplace's approximation is poor
NO_ERRORS = (
    "There are no standard errors: the log-likelihood is flat about these estimates, or rises. "
    "Where a few events or an exact fit let coefficients and variances grow together, it has no "
    'maximum; with proper priors model.fit("map") has one.'
)
RARE = 0.15  # a share of events, below which sds by it are mostly too large
NODES = {1: 25, 2: 11, 3: 7}  # points of a quadrature, by its dimensions
MARGINAL = "sample the marginal form (the default) if this is the hierarchical one"
STRONGER = "give stronger priors"
OTHER_FORM = "sample the random effects in the other form (`centered=`)"


class Reliability(InNotebook, ABC):
    """How far to trust a posterior."""

    def __str__(self) -> str:
        return "\n".join(self.messages())

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not any(self._problems())

    def messages(self) -> tuple[str, ...]:
        """Return what is wrong and what to do about it, or one sentence that all is well."""
        return tuple(self._problems()) or (self._all_well(),)

    @abstractmethod
    def _problems(self) -> Iterator[str]:
        """Yield what is wrong, with the remedy."""

    @abstractmethod
    def _all_well(self) -> str:
        """Return the sentence for a posterior that has no problems."""


@dataclass(frozen=True, repr=False)
class ImportanceDiagnostics(Reliability):
    """What importance weights say of the approximation that they correct.

    Attributes
    ----------
    draws : int
        Number of draws.
    khat : float
        Shape of the tail of the importance ratios; nan where there was nothing to correct.
    ess : float
        How many independent draws the weighted proposals are worth.
    converged : bool
        Whether the mode was found.
    linear : bool
        Whether the model is linear, so that there is `method="quadrature"`.

    Notes
    -----
    Thresholds: k-hat 0.7 (Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25(72)).
    """

    draws: int
    khat: float
    ess: float
    converged: bool
    linear: bool = True

    def _all_well(self) -> str:
        size = f"effective sample size {self.ess:.0f} before resampling."
        if math.isnan(self.khat):
            return size.capitalize()
        return f"Pareto k-hat {self.khat:.2f} (reliable up to {MAX_KHAT}), {size}"

    def _problems(self) -> Iterator[str]:
        exact = 'Use method="mcmc"' + ' or "quadrature"' * self.linear
        if not self.converged:
            yield (
                "The mode of the posterior was not found, so that the approximation may be of "
                f"another place. {_any_of(exact, STRONGER)}."
            )
        if self.khat > MAX_KHAT:
            yield (
                f"Pareto k-hat is {self.khat:.2f}, above {MAX_KHAT}: the normal approximation is "
                "too far from the posterior for importance weights to correct it. "
                f"Use method={'"quadrature" (up to 4 variance parameters) or ' * self.linear}"
                '"mcmc".'
            )
        if not self.ess >= MIN_ESS:
            yield (
                f"The effective sample size is {self.ess:.0f}, below {MIN_ESS:.0f}: the numbers "
                'are noisy. Raise `draws`, or use method="mcmc".'
            )


@dataclass(frozen=True, repr=False)
class QuadratureDiagnostics(Reliability):
    """How exact a posterior by quadrature is.

    Attributes
    ----------
    nodes : int
        Points at which the density was computed.
    error : float
        Estimate of the relative error of the integral over all parameters.
    """

    nodes: int
    error: float

    def _all_well(self) -> str:
        if self.error == 0:
            return "Every variance parameter is known, so that nothing is approximated."
        return f"{self.nodes} nodes; relative error of the integral about {self.error:.0e}."

    def _problems(self) -> Iterator[str]:
        if not self.error < MAX_ERROR:
            yield (
                f"The relative error of the integral is about {self.error:.1g}, above "
                f"{MAX_ERROR:g}: the posterior has an edge or several modes, as under a uniform "
                'prior. Use method="mcmc".'
            )


@dataclass(frozen=True, repr=False)
class Diagnostics(Reliability):
    """What the draws say about the sampler.

    Attributes
    ----------
    draws : int
        Number of draws of all chains together.
    divergences : int
        Number of draws after which the simulated trajectory diverged.
    max_treedepth : float
        Share of draws whose trajectory was cut off at its greatest length.
    rhat, rhat_of : float, str
        The largest R-hat, and of what.
    ess_bulk, ess_bulk_of : float, str
        The smallest effective sample size in the bulk, and of what.
    ess_tail, ess_tail_of : float, str
        The smallest effective sample size in the tails, and of what.
    bfmi : float
        The smallest energy Bayesian fraction of missing information of a chain.
    remedy : str
        What else can help than settings and priors.

    Notes
    -----
    Thresholds: R-hat 1.01 and effective sample size 400 (Vehtari, Gelman, Simpson, Carpenter &
    Bürkner 2021, Bayesian Analysis 16, 667-718), E-BFMI 0.3 (Betancourt 2016, arXiv:1604.00695).
    """

    draws: int
    divergences: int
    max_treedepth: float
    rhat: float
    rhat_of: str
    ess_bulk: float
    ess_bulk_of: str
    ess_tail: float
    ess_tail_of: str
    bfmi: float
    remedy: str = MARGINAL

    def _all_well(self) -> str:
        return (
            f"No divergences in {self.draws} draws; R-hat at most {self.rhat:.3f}, effective "
            f"sample size at least {min(self.ess_bulk, self.ess_tail):.0f}, "
            f"E-BFMI at least {self.bfmi:.2f}."
        )

    def _problems(self) -> Iterator[str]:
        higher = "Raise `target_accept` (to 0.99, say)"
        if self.divergences:
            yield (
                f"{self.divergences} of {self.draws} draws diverged, so a part of the posterior "
                f"may be missing. {_any_of(higher, self.remedy, STRONGER)}."
            )
        if math.isnan(self.rhat):
            yield (
                f"R-hat of `{self.rhat_of}` cannot be computed: sample two chains or more, of at "
                "least four draws, and check that they agree."
            )
        elif not self.rhat <= MAX_RHAT:
            yield (
                f"R-hat of `{self.rhat_of}` is {self.rhat:.4f}, above {MAX_RHAT}: the chains do "
                "not agree. Raise `tune` and `draws`; if that does not help, "
                f"{_any_of(self.remedy, STRONGER)}."
            )
        for part, ess, name in (
            ("bulk", self.ess_bulk, self.ess_bulk_of),
            ("tails", self.ess_tail, self.ess_tail_of),
        ):
            if not ess >= MIN_ESS:
                yield (
                    f"The effective sample size of `{name}` is {ess:.0f} in the {part}, below "
                    f"{MIN_ESS:.0f}: the numbers are noisy. Raise `draws`."
                )
        if not self.bfmi >= MIN_BFMI:
            yield (
                f"E-BFMI is {self.bfmi:.2f}, below {MIN_BFMI}: the chains hardly reach the tails. "
                f"{_any_of('Raise `tune`', self.remedy, STRONGER)}."
            )


def _any_of(*advice: str) -> str:
    """Return pieces of advice as one sentence; empty ones are none."""
    *others, last = filter(None, advice)
    return f"{', '.join(others)}, or {last}" if others else last


def diagnose(tree: DataTree, remedy: str = MARGINAL) -> Diagnostics:
    """Check the draws of a posterior.

    Parameters
    ----------
    tree : xarray.DataTree
        With groups `posterior` and `sample_stats` (`diverging`, `energy`, `maxdepth_reached`).
    remedy : str
        What to advise besides settings and priors.

    Returns
    -------
    Diagnostics
        The worst of every check; what never varies is left out.
    """
    stats = tree["sample_stats"].to_dataset()
    every = quantities(tree, include_b=True)
    draws = {k: v for k, v in every.items() if np.ptp(v) != 0} or every
    names, values = list(draws), np.stack(list(draws.values()), axis=-1)
    rhat = statistic(markov_chains.rhat, values)
    bulk = statistic(markov_chains.ess_bulk, values)
    tail = statistic(partial(markov_chains.ess_tail, tails=TAILS), values)
    high, low, low_tail = _worst(rhat), _worst(-bulk), _worst(-tail)
    return Diagnostics(
        draws=int(values.shape[0] * values.shape[1]),
        divergences=int(stats["diverging"].sum()),
        max_treedepth=float(stats["maxdepth_reached"].mean()),
        rhat=float(rhat[high]),
        rhat_of=names[high],
        ess_bulk=float(bulk[low]),
        ess_bulk_of=names[low],
        ess_tail=float(tail[low_tail]),
        ess_tail_of=names[low_tail],
        bfmi=float(_bfmi(stats["energy"].to_numpy()).min()),
        remedy=remedy,
    )


def _worst(values: Array) -> int:
    """Return the position of the greatest value; what could not be computed counts as worst."""
    return int(np.argmax(np.where(np.isnan(values), math.inf, values)))


def _bfmi(energy: Array) -> Array:
    """Return E-BFMI of each chain (chain, draw): Betancourt (2016), equation 3."""
    with np.errstate(invalid="ignore"):  # nan of a single draw
        ratio: Array = np.square(np.diff(energy)).sum(-1) / (energy.shape[-1] * energy.var(-1))
    return ratio


# ----------------------------------------------------------------------- Laplace's approximation


def laplace_notes(
    design: Design, family: Family, mu: Array, parameters: Mapping[str, float]
) -> list[str]:
    """Say where the Laplace approximation cannot be relied on, in at most one note.

    Parameters
    ----------
    design : Design
    family : Family
    mu : ndarray, shape (n,)
        Fitted means of the rows that the likelihood has.
    parameters : mapping of str to float
        The family's own.

    Notes
    -----
    Classes and counts that say little about a level make the conditional distribution of its
    effects skewed. With one random intercept and many levels the estimated sd tends to 0.70 times
    the true one for 2 coin tosses a level, 0.93 for 7, 0.96 for 10; to 1.42 times for 10 trials
    of probability 0.05, 1.17 times for one expected event of a Poisson count, if the true sd is
    0.3; for 2 trials of probability 0.03 to 9 times an sd of 0.5, 1.9 times one of 2. Where events
    or their absence are `RARE` it is too large, else too small. It is within 6 % where a level has
    `LITTLE` information or more about its log odds or log mean, over sds of 0.3 to 3, as computed
    from the exact distribution of its total.
    """
    if not family.is_discrete:
        return []
    spread = mu * (1 - mu) if family.is_bounded else mu  # of mu with its log (odds)
    variance = family.variance(mu, *parameters.values())
    rows = design.distinct
    information = rows.weights * np.divide(spread**2, variance, where=variance > 0, out=0 * mu)
    poor = [
        f"{np.median(per_level):.2g} in {term.text}"
        for term, own in zip(design.terms, rows.terms, strict=True)
        if np.median(per_level := np.bincount(own.codes, information) / term.n_coefs) < LITTLE
    ]
    if not poor:
        return []
    what, unit = "log mean", "a count has at most its mean of it"
    if family.is_bounded:
        what, unit = "log odds", "a yes or no has at most 0.25 of it"
    share = np.average(mu, weights=rows.weights)
    is_rare = not family.is_bounded or min(share, 1 - share) < RARE
    how = "large, severalfold where events are rare" if is_rare else "small"
    note = (
        f"The sds of the random effects may be well off, mostly too {how}: the rows of a level are "
        "too few for the Laplace approximation. For each coefficient they should have an "
        f"information of {LITTLE:g} about its {what} ({unit}); half of the levels have less than "
        f"{phrase(poor)}. Compare {_better(design)}."
    )
    return [note]


def nodes_of(design: Design) -> int | None:
    """Return the points of a good quadrature over the random effects, where there is one."""
    if len({term.factor for term in design.terms}) != 1:
        return None
    return NODES.get(sum(term.n_coefs for term in design.terms))


def _better(design: Design) -> str:
    """Return the methods that do not need the Laplace approximation."""
    nodes = nodes_of(design)
    if nodes is None:
        return 'model.fit("mcmc")'
    return f'model.fit(n_agq={nodes}) or model.fit("mcmc")'


def singular_note(term: RandomTerm, Lambda: Array) -> str:
    """Say which coefficients of a singular term are on the boundary."""
    rows = Lambda * term.lengths[:, None]  # so that units do not matter
    zero = [c for c, row in zip(term.coefs, rows, strict=True) if np.linalg.norm(row) < SMALL_SD]
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
    rank = min(np.linalg.matrix_rank(rows, tol=SMALL_SD), term.n_coefs - 1)
    return (
        f"{term.text}: the estimated covariance of the {term.n_coefs} coefficients has rank {rank}."
    )
