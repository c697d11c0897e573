"""Simulation-based calibration: where the posterior is right, it knows how wrong it may be.

Parameters are drawn from their priors and a response from the model, again and again. The posterior
probability of values below those drawn (their PIT value) is then uniform, whatever the design.

Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv 1804.06788; Modrak, Moon, Kim,
Buerkner, Huurre, Faltejskova, Gelman & Vehtari (2023), *Bayesian Analysis* (quantities that depend
on the data); Saeilynoja, Buerkner & Vehtari (2022), *Statistics and Computing* 32 (bands).
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

import ranef as rf
from ranef.priors.distributions import (
    LKJ,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Relative,
    StudentT,
)
from ranef.priors.prior_predictive import prior_draws

DRAWS = 99  # a rank has 100 places
LIKELIHOODS = ("log p(y | b)", "log p(y | variances)")
LARGEST = 40  # of a Poisson number with mean 1, for all that floating point sees


# ------------------------------------------------------------------------------- the structures


@dataclass(frozen=True)
class Structure:
    """A model whose design is fixed, and the way to its posterior.

    Attributes
    ----------
    formula : str
    data : callable
        Makes the data, but for the response.
    priors : dict or str
        Fixed records for all parameters. The name of a set stands for what it gives at one
        response, the column `reference` of the data, not at those simulated.
    assumed : dict
        What the fit takes instead for some of them: a mistake.
    weights : str, optional
    method : str
    options : dict
        Of the fit.
    thin : int
        Every how many of the draws are ranked.
    curves : int
        How many densities are computed in each simulation, chosen at random; quadrature only.
    """

    formula: str
    data: Callable[[], pd.DataFrame]
    priors: Mapping | str
    assumed: Mapping = field(default_factory=dict)
    weights: str | None = None
    method: str = "quadrature"
    options: Mapping = field(default_factory=lambda: {"draws": DRAWS})
    thin: int = 1
    curves: int = 99

    @cached_property
    def truth(self):
        """The model that responses are simulated from."""
        return self._model(self.data()["reference"], {})

    def model(self, y):
        """Return the model of a response as the fit takes it."""
        return self._model(y, self.assumed)

    def _model(self, y, assumed):
        frame = self.data().assign(y=np.asarray(y))
        if not isinstance(self.priors, str):
            priors = {**self.priors, **assumed}
            return rf.Model(self.formula, frame, weights=self.weights, priors=priors)
        model = rf.Model(self.formula, frame, weights=self.weights)
        reference = frame.assign(y=frame["reference"])
        model.priors = rf.Model(self.formula, reference, priors=self.priors).priors
        return model


def _frame(sizes, seed):
    """Return groups of given sizes with two predictors far from zero."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    frame = pd.DataFrame({"g": np.repeat(np.arange(len(sizes)), sizes)})
    frame["x"], frame["z"] = rng.normal(2, 1, n), rng.uniform(-1, 2, n)
    frame["o"], frame["w"] = rng.normal(size=n), rng.uniform(0.2, 4, n)
    frame["reference"] = 1 + frame["x"] * rng.normal(1, 1, len(sizes))[frame["g"]]
    frame["reference"] += rng.normal(size=n)
    return frame


def unbalanced():
    return _frame((1, 14, 2, 3, 2, 6, 4), 1)


def few_groups():
    """Return data that hardly say what the variances are, so that mistakes in a prior show."""
    return _frame((1, 3, 4), 5)


def slopes():
    return _frame((2, 8, 3, 4, 5, 4, 6, 3), 2)


def far_slopes():
    return slopes().assign(x=lambda frame: 20 + frame["x"])


def crossed():
    frame, rng = _frame((2, 12, 4, 6, 5, 7), 3), np.random.default_rng(3)
    frame["h"] = rng.choice(5, len(frame), p=[0.4, 0.2, 0.2, 0.15, 0.05])
    return frame


def nested():
    frame = _frame((1, 5, 3, 3, 2, 4, 2, 6, 1, 3, 4, 2), 4)
    return frame.assign(s=np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4, 4])[frame["g"]])


BETA = {"Intercept": Normal(1, 2), "x": Normal(-0.5, 1)}

THREE = Structure(
    "y ~ x + z + (x + z | g)",
    slopes,
    BETA | {"z": Normal(0, 1), "sigma": HalfNormal(1), "sd": HalfStudentT(4, 0.7), "corr": LKJ(1)},
    method="laplace",
    options={"draws": 1000},
)

STRUCTURES = {
    "one factor": Structure(
        "y ~ x + (1 | g)",
        unbalanced,
        BETA | {"sigma": InverseGamma(3, 2), "sd": Gamma(2, 2)},
    ),
    "few groups": Structure(
        "y ~ x + (1 | g)",
        few_groups,
        BETA | {"sigma": InverseGamma(3, 2), "sd": Gamma(2, 2)},
    ),
    "correlated slopes": Structure(
        "y ~ x + (x | g)",
        slopes,
        BETA
        | {"sigma": HalfNormal(1), "corr": LKJ(1.5)}
        | {"sd": {"Intercept": Exponential(1), "x": HalfStudentT(3, 0.5)}},
        curves=1,
    ),
    "independent slopes": Structure(
        "y ~ x + (x || g)",
        slopes,
        BETA
        | {"sigma": LogNormal(0, 0.5)}
        | {"sd": {"Intercept": HalfCauchy(0.5), "x": Gamma(3, 6)}},
    ),
    "crossed": Structure(
        "y ~ x + (1 | g) + (1 | h)",
        crossed,
        BETA | {"sigma": HalfStudentT(4, 1), "sd_g": HalfNormal(1), "sd_h": Exponential(0.7)},
    ),
    "nested": Structure(
        "y ~ x + (1 | s/g)",
        nested,
        BETA
        | {"sigma": Exponential(1), "sd_s": HalfStudentT(3, 1), "sd_g:s": LogNormal(-0.5, 0.8)},
        curves=1,
    ),
    "relative and weighted": Structure(
        "y ~ x + offset(o) + (x || g)",
        slopes,
        {"Intercept": StudentT(3, 1, 0.7), "x": Normal(-0.5, 1), "sigma": HalfNormal(2)}
        | {"sd": {"Intercept": Relative(HalfNormal(1)), "x": HalfStudentT(3, 0.5)}},
        weights="w",
        curves=1,
    ),
    "defaults at zero": Structure("y ~ x + (x | g)", slopes, "default", curves=1),
    "defaults elsewhere": Structure("y ~ x + (x | g)", far_slopes, "default", curves=1),
    "three coefficients": THREE,
    "three coefficients by NUTS": replace(
        THREE,
        method="mcmc",
        options={"tune": 500, "cores": 1, "progressbar": False},
        thin=20,
    ),
}


# ------------------------------------------------------------------------------- one simulation


@dataclass(frozen=True, eq=False)
class Simulation:
    """Parameters from their priors, one draw of each, and a response, shape (rows,)."""

    parameters: dict[str, np.ndarray]
    y: np.ndarray


def simulate(structure, rng):
    """Draw parameters and a response."""
    model = structure.truth
    own, design = prior_draws(model.design, model.priors, 1, rng), model.design
    mean, sd = _conditional(design, own)
    return Simulation(own, rng.normal(mean[0], sd[0]))


def pit(structure, simulation, seed):
    """Return the PIT value of every quantity; nan where the fit does not vouch for itself.

    Parameters
    ----------
    structure : Structure
    simulation : Simulation
    seed : int
        Of the draws, and of where a rank is in its interval.

    Returns
    -------
    dict of str to float
        By rank among the draws under the name of the quantity, by its density under
        "density of <name>".
    """
    model = structure.model(simulation.y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.errors.ConvergenceWarning)
        options = {"seed": seed, **structure.options}
        fit = model.fit(structure.method, **options)
    truth = quantities(fit.design, simulation.parameters, simulation.y)
    if not fit.converged:
        return dict.fromkeys(truth, np.nan)
    rng = np.random.default_rng(seed)
    drawn = quantities(fit.design, drawn_parameters(fit, structure.thin), simulation.y)
    found = {name: _rank(drawn[name], value[0], rng) for name, value in truth.items()}
    curves = _curves(fit, truth) if structure.method == "quadrature" else {}
    for name in rng.permutation(list(curves))[: structure.curves]:
        found[f"density of {name}"] = float(curves[name]().cdf(truth[name][0]))
    return found


def quantities(design, own, y):
    """Return every quantity by its name, shape (draws,).

    All parameters; the effects of the smallest and of the largest group of each term; the
    log-likelihood given the effects, and that with the random effects integrated out, which
    depend on everything at once.

    Parameters
    ----------
    design : Design
    own : dict of str to ndarray
        As `prior_draws` has them.
    y : ndarray, shape (rows,)
    """
    found = dict(zip(design.fixed, own["beta"].T, strict=True)) | {"sigma": own["sigma"]}
    for term in design.terms:
        label = term.label
        for j, coef in enumerate(term.coefs):
            found[f"sd_{label}[{coef}]"] = own[f"sd_{label}"][:, j]
        for i, j in (
            combinations(range(term.n_coefs), 2) if term.covariance.has_correlations else ()
        ):
            found[f"corr_{label}[{term.coefs[i]}, {term.coefs[j]}]"] = own[f"corr_{label}"][:, i, j]
        for name, level, j in _effects(design, term):
            found[name] = own[f"b_{label}"][:, level, j]
    mean, sd = _conditional(design, own)
    both = stats.norm.logpdf(y, mean, sd).sum(axis=1), _log_integrated(design, own, y)
    return found | dict(zip(LIKELIHOODS, both, strict=True))


def drawn_parameters(fit, thin):
    """Return the draws of a posterior as those of a prior."""
    kinds = [kind for term in fit.design.terms for kind in (f"b_{term.label}", f"sd_{term.label}")]
    drawn = {name: fit.draws(name)[::thin] for name in ("beta", "sigma", *kinds)}
    for term in fit.design.terms:
        name, independent = f"corr_{term.label}", np.eye(term.n_coefs)
        has_corr = term.covariance.has_correlations
        corr = fit.draws(name)[::thin] if has_corr else independent
        drawn[name] = np.broadcast_to(corr, (len(drawn["sigma"]), *independent.shape))
    return drawn


def _curves(fit, names) -> dict[str, Callable]:
    """Return what makes the density of every quantity that has one."""
    effects = {
        name: partial(fit.effect_curve, term.label, term.levels[level], term.coefs[j])
        for term in fit.design.terms
        for name, level, j in _effects(fit.design, term)
    }
    others = set(names) - set(effects) - set(LIKELIHOODS)
    return effects | {name: partial(fit.curve, name) for name in sorted(others)}


def _effects(design, term) -> Iterator[tuple[str, int, int]]:
    """Yield name, level and coefficient of the effects of the smallest and the largest group."""
    rows = np.bincount(design.rows.term(term.label).codes)
    for size, level in (("small", rows.argmin()), ("large", rows.argmax())):
        for j, coef in enumerate(term.coefs):
            yield f"b_{term.label}[{size}, {coef}]", int(level), j


def _rank(drawn, value, rng):
    """Return a uniform number within the interval of a rank."""
    below, ties = np.sum(drawn < value), np.sum(drawn == value)
    return float((below + rng.integers(ties + 1) + rng.uniform()) / (len(drawn) + 1))


def _conditional(design, own):
    """Return mean and sd of the response given all effects, shape (draws, rows)."""
    mean = own["beta"] @ design.rows.X.T + design.rows.offset
    for term in design.rows.terms:
        mean = mean + np.einsum("drk,rk->dr", own[f"b_{term.label}"][:, term.codes], term.columns)
    return mean, own["sigma"][:, None] / np.sqrt(design.rows.weights)


def _log_integrated(design, own, y):
    """Return the log density of the response given fixed effects and variances, (draws,)."""
    V = own["sigma"][:, None, None] ** 2 * np.diag(1 / design.rows.weights)
    for term in design.rows.terms:
        scaled = term.columns * own[f"sd_{term.label}"][:, None]
        same = term.codes[:, None] == term.codes
        V = V + same * (scaled @ own[f"corr_{term.label}"] @ scaled.swapaxes(1, 2))
    left = y - own["beta"] @ design.rows.X.T - design.rows.offset
    root = np.linalg.cholesky(V)
    z = np.linalg.solve(root, left[:, :, None])[:, :, 0]
    logdet = 2 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return -(len(y) * np.log(2 * np.pi) + logdet + (z**2).sum(axis=1)) / 2


# --------------------------------------------------------------------------------- many of them


def calibrate(structure, n, seed, *, workers=1, flaw=None):
    """Return the PIT values of n simulations.

    Parameters
    ----------
    structure : Structure
    n : int
    seed : int
        The same seed gives the same values, whatever the number of workers.
    workers : int
        Processes.
    flaw : callable, optional
        Changes a simulation behind the back of the fit: a mistake.

    Returns
    -------
    DataFrame, shape (n, quantities)
    """
    once = partial(_once, structure, flaw)
    seeds = np.random.SeedSequence(seed).spawn(n)
    if workers == 1:
        return pd.DataFrame([once(own) for own in seeds])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, threadpool_limits, (1,)) as pool:
        return pd.DataFrame(list(pool.map(once, seeds, chunksize=5)))


def _once(structure, flaw, seed):
    of_data, of_fit = seed.spawn(2)
    simulation = simulate(structure, np.random.default_rng(of_data))
    simulation = simulation if flaw is None else flaw(simulation)
    return pit(structure, simulation, int(of_fit.generate_state(1)[0]))


# ------------------------------------------------------------------------------- are they uniform


def p_value(u):
    """Return the p-value of uniformity: that of the simultaneous band which the ECDF just leaves.

    Parameters
    ----------
    u : array, shape (n,)
        Uniform under the null hypothesis.

    Notes
    -----
    At each of n - 1 points between 0 and 1 the number of values below is binomial. The band has
    the same two-sided pointwise level at all of them; its simultaneous level is exact.
    """
    n = len(u)
    below = np.searchsorted(np.sort(u), np.arange(1, n) / n, side="right")
    pointwise = _two_sided(n)[np.arange(n - 1), below].min()
    return 1.0 - _inside(n, float(pointwise))


def _inside(n, level):
    """Return the probability that all pointwise p-values of n uniform numbers are above a level.

    The counts between points are independent Poisson numbers, given that their sum is n.
    Source: Moscovich & Nadler (2017), *Statistics & Probability Letters* 123.
    """
    step = stats.poisson.pmf(np.arange(min(n, LARGEST) + 1), 1.0)
    chance = (np.arange(n + 1) == 0).astype(float)
    for allowed in _two_sided(n) > level:
        chance = np.convolve(chance, step)[: n + 1] * allowed
    last = np.convolve(chance, step)[n]
    return float(min(1.0, last / stats.poisson.pmf(n, n)))


@cache
def _two_sided(n):
    """Return the pointwise p-value of every count 0 .. n at n - 1 points, shape (n - 1, n + 1)."""
    law, counts = stats.binom(n, np.arange(1, n)[:, None] / n), np.arange(n + 1)
    return np.minimum(1.0, 2 * np.minimum(law.cdf(counts), law.sf(counts - 1)))


def holm(p):
    """Return p-values that hold for all of a family at once, increasing (Holm 1979)."""
    ordered = p.sort_values()
    return (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0)


def judge(found):
    """Return the p-value of every quantity of a table of PIT values, corrected for their number.

    Parameters
    ----------
    found : mapping of str to DataFrame
        The PIT values of each structure.

    Returns
    -------
    Series
        Increasing; the labels are structure and quantity.
    """
    p = {
        (structure, name): p_value(values.dropna())
        for structure, table in found.items()
        for name, values in table.items()
    }
    return holm(pd.Series(p))
