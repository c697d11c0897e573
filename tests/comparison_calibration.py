"""Calibration of comparisons: probabilities of models that come true, tests that have their size.

A model is drawn from its prior probability, parameters from their priors and a response from the
model, again and again. Among all responses for which one of the models has probability p it is then
the true one in a share p of the cases. Responses that are drawn under a null hypothesis, on the
other hand, are rejected at level alpha in a share alpha of the cases.

Source: Schad, Nicenboim, Buerkner, Betancourt & Vasishth (2022), *Psychological Methods* 28 (Bayes
factors); Modrak et al. (2023), *Bayesian Analysis*; Dimitriadis, Gneiting & Jordan (2021), *PNAS*
118 (calibration of binary forecasts by isotonic regression); Spiegelhalter (1986), *Statistics in
Medicine* 5; Hosmer & Lemeshow (1980), *Communications in Statistics* A9.

Run as a program it does the whole of it: `python comparison_calibration.py models 2000`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from unittest import mock

import numpy as np
import pandas as pd
from scipy import optimize, stats

import ranef as rf
from calibration import Structure, few_groups, p_value, simulate, slopes, unbalanced
from ranef import quadrature, refits
from ranef.bootstrap import parameters
from ranef.exacttests import chi_bar_squared, monte_carlo, null_statistics, spectrum
from ranef.ftests import f_test
from ranef.prepared import Data
from ranef.priors import LKJ, Exponential, HalfNormal, LogNormal, Normal
from ranef.replicates import Null, Sums, children, responses, simulated, sums_of

BINS = 10
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
    return frame.assign(h=np.random.default_rng(8).choice(5, len(frame), p=[0.4, 0.3, 0.1, 0.1, 0.1]))


RIVALS = {
    "no groups or intercepts": _rivals(unbalanced, ("1", {}), ("(1 | g)", {})),
    "intercepts or slopes": _rivals(slopes, ("(1 | g)", {}), ("(x || g)", {})),
    "one factor or two": _rivals(
        small_crossed, ("(1 | g)", {}), ("(1 | g) + (1 | h)", {"sd_h": Exponential(1)})
    ),
    "correlated or not": _rivals(few_groups, ("(x || g)", {}), ("(x | g)", {"corr": LKJ(1)})),
}


def log_evidence(structure, y):
    """Return log p(y) as a fit of the model says it, and its error; nan if there is no fit."""
    model = structure.truth
    route = replace(model.route, data=Data(replace(model.design, y=y), model.family))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.errors.ConvergenceWarning)
        found = route.run("quadrature").log_marginal_likelihood()
    return found.value, found.mcse


def forecasts(rivals, n, seed, *, tolerance=quadrature.TOLERANCE):
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
    with mock.patch.object(quadrature, "TOLERANCE", tolerance):
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
        "mean": of the number of events. "spiegelhalter": of the Brier score against what it is
        expected to be. "isotonic": of the part of that score which calibration by isotonic
        regression would take away. "groups": Hosmer and Lemeshow's, ten groups by p.
    """
    x = np.sort(p)
    happened = np.asarray(happened, dtype=np.float64)[np.argsort(p)]
    null = (rng.uniform(size=(n, len(x))) < x).astype(np.float64)
    variance = x * (1 - x)
    twist = 1 - 2 * x
    z = {
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
    groups = np.array_split(np.arange(len(x)), BINS)
    return float(
        sum((happened[g] - x[g]).sum() ** 2 / max((x[g] * (1 - x[g])).sum(), 1e-9) for g in groups)
    )


def with_factor(p, factor):
    """Return probabilities by Bayes factors that are wrong by a factor: a mistake."""
    return factor * p / (1 - p + factor * p)


def report(found, rng):
    """Return what is to be said of one pair of models, as a Series."""
    p, happened = found["p"].to_numpy(), found["second"].to_numpy()
    numbers = {
        "n": len(p),
        "share": happened.mean(),
        "mean p": p.mean(),
        "Brier": ((p - happened) ** 2).mean(),
        "expected": (p * (1 - p)).mean(),
        "largest error": found["error"].max(),
    }
    return pd.concat([pd.Series(numbers), calibration_tests(p, happened, rng)])


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
    return _with_response((2, 3, 4, 5, 6, 8, 12), 11)


def varying_slopes():
    return _with_response((3, 4, 5, 6, 7, 8, 4, 5), 12)


def casks():
    """Return batches with different numbers of casks, all of which have two rows."""
    frame = _with_response((2,) * 24, 13)
    batch = np.repeat(np.arange(8), (2, 4, 3, 3, 2, 5, 3, 2))
    return frame.assign(c=frame["g"], b=batch[frame["g"]])


def _with_response(sizes, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"g": np.repeat(np.arange(len(sizes)), sizes)})
    return frame.assign(x=rng.normal(2, 1, len(frame)), y=rng.normal(size=len(frame)))


HYPOTHESES = {
    "intercepts": Hypothesis("y ~ x", "y ~ x + (1 | g)", one_way, {}),
    "slopes": Hypothesis("y ~ x + (1 | g)", "y ~ x + (x || g)", varying_slopes, {"g": 0.8}),
    "batches": Hypothesis("y ~ x + (1 | c)", "y ~ x + (1 | b) + (1 | c)", casks, {"c": 0.8}),
}


def p_values(hypothesis, n, seed, *, replicates=199, reml=True):
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
        One column for each test, and `statistic`, `below` and `ties`: the likelihood ratio, and how
        many replicates are smaller and equal.
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
        drawn = np.sort(null_statistics(form, DRAWS, int(of_exact.generate_state(1)[0])))
        found["exact"] = [monte_carlo(one, drawn).p_value for one in statistic]
    own = [Null(0, tuple(np.atleast_3d(sd).T), s) for s, sd in zip(*_scales(models, estimates), strict=True)]
    boot = bootstrapped(models, own, replicates, int(of_boot.generate_state(1)[0]))
    found["bootstrap"] = [monte_carlo(*pair).p_value for pair in zip(statistic, boot, strict=True)]
    found["below"] = (boot < statistic[:, None] - refits.ROUNDING).sum(axis=1)
    found["ties"] = (np.abs(boot - statistic[:, None]) <= refits.ROUNDING).sum(axis=1)
    found["mixture"] = [chi_bar_squared(one, 0, 1) for one in statistic]
    found["chi2"] = [chi_bar_squared(one, 1, 0) for one in statistic]
    return found


def _f_of(hypothesis, y):
    small, large = (replace(design, y=y) for design in hypothesis.designs)
    return f_test(small, large).p_value


def _scales(models, estimates):
    """Return sigma, shape (n,), and the sds of the intercepts of the small model, (n, terms)."""
    p = models.small.cross.p
    found = parameters(models.small, estimates)
    return found[:, p], found[:, p + 1 :]


def likelihood_ratios(models, sums):
    """Return the statistics of given responses, and the estimates of the small model."""
    both = models.small, models.large
    drawn = [responses(models.columns, sums, one.cross, i) for i, one in enumerate(both)]
    found = [one.refit(own) for one, own in zip(both, drawn, strict=True)]
    statistic = refits._contrast(models, found)
    worse = np.flatnonzero(statistic < -refits.ROUNDING)
    if len(worse):
        found = [
            refits.replaced(old, worse, one.again(own, worse))
            for one, own, old in zip(both, drawn, found, strict=True)
        ]
        statistic = refits._contrast(models, found)
    return np.where(statistic < refits.ROUNDING, 0.0, statistic), found[0]


def bootstrapped(models, nulls, replicates, seed):
    """Return statistics of responses drawn from each of several nulls, shape (nulls, replicates).

    Those of several nulls are refitted together.
    """
    at_once = max(1, TOGETHER // replicates)
    found = []
    for start in range(0, len(nulls), at_once):
        own = range(start, min(start + at_once, len(nulls)))
        seeds = children(seed, replicates * len(own), replicates * start)
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


def uniform(found, rng):
    """Return what is uniform under the null hypothesis for each test: ties are broken at random."""
    own = {"f": found["f"]} if "f" in found else {}
    if "exact" in found:
        at_zero = found["statistic"] == 0
        positive = found.loc[~at_zero, "exact"].max()
        share = positive + (1 - positive) * rng.uniform(size=len(found))
        own["exact"] = found["exact"].where(~at_zero, share)
    return pd.DataFrame(own)
