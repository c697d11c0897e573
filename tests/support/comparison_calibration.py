"""Calibration of comparisons: probabilities of models that come true, tests that have their size.

A model is drawn from its prior probability, parameters from their priors and a response from the
model, again and again. Among all responses for which one of the models has probability p it is then
the true one in a share p of the cases. Responses that are drawn under a null hypothesis, on the
other hand, are rejected at level alpha in a share alpha of the cases.

Source: Schad, Nicenboim, Buerkner, Betancourt & Vasishth (2022), *Psychological Methods* 28 (Bayes
factors); Modrak et al. (2023), *Bayesian Analysis*; Dimitriadis, Gneiting & Jordan (2021), *PNAS*
118 (calibration of binary forecasts by isotonic regression); Spiegelhalter (1986), *Statistics in
Medicine* 5; Hosmer & Lemeshow (1980), *Communications in Statistics* A9.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from unittest import mock

import numpy as np
import pandas as pd
from calibration import Structure, simulate, slopes, unbalanced
from scipy import optimize, stats
from threadpoolctl import threadpool_limits

import ranef as rf
from ranef.comparison.f_test import f_test
from ranef.comparison.null_distributions import (
    chi_bar_squared,
    exact_null_statistics,
    monte_carlo,
    spectrum,
)
from ranef.likelihood.bootstrap import refits
from ranef.likelihood.bootstrap.bootstrap import parameters
from ranef.likelihood.bootstrap.simulated_responses import (
    Null,
    Sums,
    responses,
    seeds_of_replicates,
    simulated,
    sums_of,
)
from ranef.model.shared_engine import Data
from ranef.posterior.quadrature import lattice
from ranef.priors.distributions import Exponential, HalfNormal, LogNormal, Normal

BINS = 10
REPLICATES = 199
TOGETHER = 2400  # responses that are refitted together
DRAWS = 100_000  # of an exact null distribution


# ------------------------------------------------------------------------- models and their prior


@dataclass(frozen=True)
class Rivals:
    """Two models of the same rows, each with prior probability 1/2."""

    first: Structure
    second: Structure


FIXED = {"Intercept": Normal(0, 1), "x": Normal(0, 1), "sigma": LogNormal(0, 0.3)}


def _rivals(data, first, second):
    """Return two models that share the priors of what they share."""
    own = FIXED | {"sd": HalfNormal(1)}
    one, other = (
        Structure(f"y ~ x + {terms}", data, FIXED | priors if terms == "1" else own | priors)
        for terms, priors in (first, second)
    )
    return Rivals(one, other)


def small_crossed():
    """Return data with two crossed factors, one of which has many more rows in some levels."""
    frame = unbalanced()
    h = np.random.default_rng(8).choice(5, len(frame), p=[0.4, 0.3, 0.1, 0.1, 0.1])
    return frame.assign(h=h)


RIVALS = {
    "no groups or intercepts": _rivals(unbalanced, ("1", {}), ("(1 | g)", {})),
    "intercepts or slopes": _rivals(slopes, ("(1 | g)", {}), ("(x || g)", {})),
    "one factor or two": _rivals(
        small_crossed, ("(1 | g)", {}), ("(1 | g) + (1 | h)", {"sd_h": Exponential(1)})
    ),
}


def log_evidence(structure, y):
    """Return log p(y) as a fit of the model says it, and its error."""
    found = refitted(structure.truth, y, "quadrature").log_marginal_likelihood()
    return found.value, found.mcse


def refitted(model, y, method):
    """Fit a model to another response."""
    engine = replace(model.engine, data=Data(model.design.with_rows(y=y), model.family))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.errors.ConvergenceWarning)  # the error is looked at
        return engine.refit(method)


def forecasts(rivals, n, seed, *, tolerance=lattice.MAX_ERROR):
    """Return which model n responses are from, and the probabilities of the models.

    Parameters
    ----------
    rivals : Rivals
    n : int
    seed : int
    tolerance : float
        Of the quadrature: a coarser lattice takes less time.

    Returns
    -------
    DataFrame
        Columns `second` (whether the second model is the true one), `p` (its probability) and
        `error` (of the logarithm of the Bayes factor).
    """
    with mock.patch.object(lattice, "MAX_ERROR", tolerance):
        rows = [_forecast(rivals, own) for own in np.random.SeedSequence(seed).spawn(n)]
    return pd.DataFrame(rows, columns=["second", "p", "error"])


def _forecast(rivals, seed):
    rng = np.random.default_rng(seed)
    second = bool(rng.integers(2))
    y = simulate(rivals.second if second else rivals.first, rng).y
    (one, its_error), (other, error) = (log_evidence(m, y) for m in (rivals.first, rivals.second))
    return second, float(1 / (1 + np.exp(one - other))), its_error + error


# --------------------------------------------------------------------- do probabilities come true


def calibration_tests(p, happened, rng, n=999):
    """Return p-values of several tests that events happen as often as they are said to.

    Parameters
    ----------
    p : array, shape (n,)
        The probabilities.
    happened : array of bool, shape (n,)
    rng : Generator
        Of the null distributions that are simulated: of events with these probabilities.
    n : int
        How often.

    Returns
    -------
    Series
        "prior": of the mean probability, 1/2. "mean": of the number of events. "spiegelhalter": of
        the Brier score against what it is expected to be. "isotonic": of the part of that score
        which calibration by isotonic regression would take away. "groups": Hosmer and Lemeshow's,
        ten groups by p.
    """
    x = np.sort(p)
    happened = np.asarray(happened, dtype=np.float64)[np.argsort(p)]
    null = (rng.uniform(size=(n, len(x))) < x).astype(np.float64)
    variance = x * (1 - x)
    twist = 1 - 2 * x
    z = {
        "prior": (x.mean() - 0.5) / (x.std(ddof=1) / np.sqrt(len(x))),
        "mean": (happened - x).sum() / np.sqrt(variance.sum()),
        "spiegelhalter": ((happened - x) * twist).sum() / np.sqrt((twist**2 * variance).sum()),
    }
    found = {name: float(2 * stats.norm.sf(abs(own))) for name, own in z.items()}
    for name, statistic in (("isotonic", miscalibration), ("groups", hosmer_lemeshow)):
        drawn = np.array([statistic(x, one) for one in null])
        found[name] = float((1 + (drawn >= statistic(x, happened)).sum()) / (1 + n))
    return pd.Series(found)


def miscalibration(x, happened):
    """Return how much lower the Brier score of increasing probabilities gets by calibration."""
    fitted = optimize.isotonic_regression(happened).x
    return float(((happened - x) ** 2 - (happened - fitted) ** 2).mean())


def hosmer_lemeshow(x, happened):
    """Return chi-squared of observed and expected events in groups of increasing probabilities."""
    starts = np.arange(BINS) * len(x) // BINS
    excess, variance = (np.add.reduceat(v, starts) for v in (happened - x, x * (1 - x)))
    return float((excess**2 / np.maximum(variance, 1e-9)).sum())


# ------------------------------------------------------------------------------ the null hypothesis


@dataclass(frozen=True)
class Hypothesis:
    """A model, one that it is nested in, and what responses are drawn from.

    Attributes
    ----------
    small, large : str
        Formulas.
    data : callable
    sds : dict of str to float
        Of the random intercepts by factor, sigma being 1.
    """

    small: str
    large: str
    data: Callable[[], pd.DataFrame]
    sds: dict

    @cached_property
    def designs(self):
        frame = self.data()
        return tuple(rf.Model(formula, frame).design for formula in (self.small, self.large))

    def simulate(self, n, rng):
        """Return responses of the small model, shape (n, rows)."""
        frame = self.data()
        y = 1 + frame["x"].to_numpy() + rng.normal(size=(n, len(frame)))
        for factor, sd in self.sds.items():
            codes = frame[factor].to_numpy()
            y += sd * rng.normal(size=(n, codes.max() + 1))[:, codes]
        return y

    def rivals(self, *, reml=True):
        """Return what both models are refitted with."""
        small, large = self.designs
        estimate = refits.engine.estimate(refits.cross_products(small), reml=reml)
        return refits.rivals(small, large, estimate, reml=reml)


def one_way():
    """Return 40 rows in 7 groups."""
    return _with_rows((2, 3, 4, 5, 6, 8, 12), 11)


def varying_slopes():
    return _with_rows((3, 4, 5, 6, 7, 8, 4, 5), 12)


def casks():
    """Return batches with different numbers of casks, all of which have two rows."""
    frame = _with_rows((2,) * 24, 13)
    batch = np.repeat(np.arange(8), (2, 4, 3, 3, 2, 5, 3, 2))
    return frame.assign(c=frame["g"], b=batch[frame["g"]])


def _with_rows(sizes, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"g": np.repeat(np.arange(len(sizes)), sizes)})
    return frame.assign(x=rng.normal(2, 1, len(frame)), y=rng.normal(size=len(frame)))


HYPOTHESES = {
    "intercepts": Hypothesis("y ~ x", "y ~ x + (1 | g)", one_way, {}),
    "slopes": Hypothesis("y ~ x + (1 | g)", "y ~ x + (x || g)", varying_slopes, {"g": 0.8}),
    "batches": Hypothesis("y ~ x + (1 | c)", "y ~ x + (1 | b) + (1 | c)", casks, {"c": 0.8}),
}


def p_values(hypothesis, n, seed, *, replicates=REPLICATES, reml=True):
    """Return p-values of all tests of n responses drawn under the null hypothesis.

    Parameters
    ----------
    hypothesis : Hypothesis
    n : int
    seed : int
    replicates : int
        Of each bootstrap.
    reml : bool

    Returns
    -------
    DataFrame
        One column for each test, and `statistic`, `above`, `ties` and `failed`: the likelihood
        ratio, and how many replicates are larger, are equal and could not be fitted.
    """
    of_data, of_boot, of_exact = np.random.SeedSequence(seed).spawn(3)
    y = hypothesis.simulate(n, np.random.default_rng(of_data))
    models = hypothesis.rivals(reml=reml)
    statistic, estimates = likelihood_ratios(models, sums_of(models.columns, y))
    found = pd.DataFrame({"statistic": statistic})
    if reml:
        found["f"] = [_f_of(hypothesis, own) for own in y]
    small, large = hypothesis.designs
    if not small.terms:
        form = spectrum(small, large, reml=reml)
        drawn = np.sort(exact_null_statistics(form, DRAWS, int(of_exact.generate_state(1)[0])))
        found["exact"] = [monte_carlo(one, drawn).p_value for one in statistic]
    nulls = _nulls(models, estimates)
    boot = bootstrapped(models, nulls, replicates, int(of_boot.generate_state(1)[0]))
    found["bootstrap"] = [monte_carlo(*pair).p_value for pair in zip(statistic, boot, strict=True)]
    found["above"] = (boot > statistic[:, None] + refits.RATIO_ROUNDING).sum(axis=1)
    found["failed"] = np.isnan(boot).sum(axis=1)
    found["ties"] = (np.abs(boot - statistic[:, None]) <= refits.RATIO_ROUNDING).sum(axis=1)
    found["mixture"] = [chi_bar_squared(one, 0, 1) for one in statistic]
    found["chi2"] = [chi_bar_squared(one, 1, 0) for one in statistic]
    return found


def _f_of(hypothesis, y):
    small, large = (design.with_rows(y=y) for design in hypothesis.designs)
    return f_test(small, large).p_value


def _nulls(models, estimates):
    """Return the small model as it is fitted to each response; its terms are intercepts."""
    found, p = parameters(models.small, estimates), models.small.cross.p
    return [Null(tuple(own[p + 1 :, None, None]), own[p]) for own in found]


def likelihood_ratios(models, sums):
    """Return the statistics of given responses, and the estimates of the small model."""
    both = models.small, models.large
    drawn = [responses(models.columns, sums, one.cross, i) for i, one in enumerate(both)]
    found = [one.refit(own) for one, own in zip(both, drawn, strict=True)]
    statistic = refits._contrast(models, found)
    worse = np.flatnonzero(statistic < -refits.RATIO_ROUNDING)
    if len(worse):
        found = [
            refits.replaced(old, worse, one.again(own, worse))
            for one, own, old in zip(both, drawn, found, strict=True)
        ]
        statistic = refits._contrast(models, found)
    return np.where(statistic < refits.RATIO_ROUNDING, 0.0, statistic), found[0]


def bootstrapped(models, nulls, replicates, seed):
    """Return statistics of responses drawn from each of several nulls, shape (nulls, replicates).

    Those of several nulls are refitted together.
    """
    at_once = max(1, TOGETHER // replicates)
    found = []
    for start in range(0, len(nulls), at_once):
        own = range(start, min(start + at_once, len(nulls)))
        seeds = seeds_of_replicates(seed, replicates * len(own), replicates * start)
        sums = [
            simulated(models.columns, nulls[i], seeds[j * replicates : (j + 1) * replicates])
            for j, i in enumerate(own)
        ]
        found.append(likelihood_ratios(models, _joined(sums))[0])
    return np.concatenate(found).reshape(len(nulls), replicates)


def _joined(sums):
    blocks = [np.concatenate(parts) for parts in zip(*(one.blocks for one in sums), strict=True)]
    fixed = np.concatenate([one.fixed for one in sums])
    return Sums(blocks, fixed, np.concatenate([one.squares for one in sums]))


def uniform(found, rng, replicates=REPLICATES):
    """Return what is uniform under the null hypothesis, by test: ties are broken at random."""
    own = {"f": found["f"]} if "f" in found else {}
    u = rng.uniform(size=len(found))
    if "exact" in found:
        at_zero = found["exact"] == 1
        positive = found.loc[~at_zero, "exact"].max()
        own["exact"] = found["exact"].where(~at_zero, positive + (1 - positive) * u)
    own["bootstrap"] = (found["above"] + u * (found["ties"] + 1)) / (1 + replicates)
    return pd.DataFrame(own)


def rejections(found, level=0.05):
    """Return the share of p-values that are at most `level` for each test, and its p-value.

    That is the binomial probability of a share as far from `level`, on two sides.
    """
    tests = [name for name in ("f", "exact", "bootstrap", "mixture", "chi2") if name in found]
    counts = (found[tests] <= level + 1e-12).sum()
    sides = np.array(
        [stats.binom.cdf(counts, len(found), level), stats.binom.sf(counts - 1, len(found), level)]
    )
    p = np.minimum(1.0, 2 * sides.min(axis=0))
    return pd.DataFrame({"rate": counts / len(found), "p_value": p}, index=tests)


# --------------------------------------------------------------------------------- intervals


def intervals(hypothesis, sd, n, seed, *, replicates=499):
    """Return 95 % intervals of the sd of the groups, by profile and by bootstrap of REML fits.

    Parameters
    ----------
    hypothesis : Hypothesis
        Of which the large model, with the intercepts of `g` and no others, is the true one.
    sd : float
        That the responses are drawn with.
    n : int
    seed : int
    replicates : int

    Returns
    -------
    DataFrame, shape (n, 4)
        The column index is method and limit.
    """
    of_data, of_boot = np.random.SeedSequence(seed).spawn(2)
    true = replace(hypothesis, sds={"g": sd})
    model, name = rf.Model(true.large, true.data()), "sd_g[Intercept]"
    rows = []
    for y, own in zip(
        true.simulate(n, np.random.default_rng(of_data)), of_boot.spawn(n), strict=True
    ):
        fit = refitted(model, y, "reml")
        boot = fit.bootstrap(replicates, seed=int(own.generate_state(1)[0])).confint().loc[name]
        rows.append([*fit.profile(name, prob=0.95).confint(0.95).loc[name], *boot])
    columns = pd.MultiIndex.from_product([["profile", "bootstrap"], ["lower", "upper"]])
    return pd.DataFrame(rows, columns=columns)


def covered(found, sd):
    """Return how often intervals lie below, around and above the true sd, by method."""
    rows = {}
    for method in ("profile", "bootstrap"):
        lower, upper = (found[method, end] for end in ("lower", "upper"))
        below, above = (upper < sd).mean(), (lower > sd).mean()
        rows[method] = {"below": below, "around": 1 - below - above, "above": above}
    return pd.DataFrame(rows).T


# ------------------------------------------------------------------------------- many of them


def in_parts(study, n, seed, *, workers=1, size=100):
    """Return the tables of a study as one.

    Parameters
    ----------
    study : callable (n, seed)
        Returns a table of n responses.
    n : int
    seed : int
        The same seed gives the same table, whatever the number of workers.
    workers : int
        Processes.
    size : int
        Responses in a part.
    """
    sizes = [min(size, n - start) for start in range(0, n, size)]
    seeds = [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(len(sizes))]
    if workers == 1:
        tables = list(map(study, sizes, seeds))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, threadpool_limits, (1,)) as pool:
            tables = list(pool.map(study, sizes, seeds))
    return pd.concat(tables, ignore_index=True)
