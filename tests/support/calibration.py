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
from scipy import special, stats
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
from ranef.priors.prior_predictive import prior_draws, response

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
    family : str
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
    family: str = "gaussian"
    method: str = "quadrature"
    options: Mapping = field(default_factory=lambda: {"draws": DRAWS})
    thin: int = 1
    curves: int = 99

    @cached_property
    def truth(self):
        """The model that responses are simulated from."""
        return self._model(self._reference, {})

    @cached_property
    def _reference(self):
        """A response of the family, at which the scale of default priors is told."""
        frame = self.data()
        return REFERENCES[self.family](frame["reference"], frame["trials"])

    def model(self, y):
        """Return the model of a response as the fit takes it."""
        return self._model(y, self.assumed)

    def posterior(self, y, seed):
        """Return draws of all quantities, and what makes their densities.

        None where the fit does not vouch for itself.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rf.errors.ConvergenceWarning)
            warnings.simplefilter("ignore", rf.errors.DataWarning)
            try:
                model = self.model(y)
                fit = model.fit(self.method, **{"seed": seed, **self.options})
            except rf.errors.RanefError:
                return None
        if not fit.converged:
            return None
        drawn = quantities(model, drawn_parameters(fit, self.thin), y)
        return drawn, _curves(fit, drawn) if self.method == "quadrature" else {}

    def _model(self, y, assumed):
        frame = self.data().assign(y=np.asarray(y))
        of = partial(rf.Model, self.formula, family=self.family, weights=self.weights)
        if not isinstance(self.priors, str):
            return of(frame, priors={**self.priors, **assumed})
        model = of(frame)
        model.priors = of(frame.assign(y=self._reference), priors=self.priors).priors
        return model


def _frame(sizes, seed):
    """Return groups of given sizes with two predictors far from zero."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    frame = pd.DataFrame({"g": np.repeat(np.arange(len(sizes)), sizes)})
    frame["x"], frame["z"] = rng.normal(2, 1, n), rng.uniform(-1, 2, n)
    frame["o"], frame["w"] = rng.normal(size=n), rng.uniform(0.2, 4, n)
    frame["trials"] = np.resize([1.0, 5.0, 12.0], n)
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


REFERENCES = {
    "gaussian": lambda eta, _: eta,
    "t": lambda eta, _: eta,
    "bernoulli": lambda eta, _: (eta > eta.mean()).astype(float),
    "binomial": lambda eta, trials: np.round(trials * special.expit(eta / 4)) / trials,
    "poisson": lambda eta, _: np.floor(np.exp(eta / 2)),
    "negative_binomial": lambda eta, _: np.floor(np.exp(eta / 2)),
    "gamma": lambda eta, _: np.exp(eta / 2),
    "inverse_gaussian": lambda eta, _: np.exp(eta / 2),
    "beta": lambda eta, _: special.expit(eta / 4),
}
BETA = {"Intercept": Normal(1, 2), "x": Normal(-0.5, 1)}
SMALL_BETA = {"Intercept": Normal(0.5, 0.7), "x": Normal(-0.3, 0.4)}

THREE = Structure(
    "y ~ x + z + (x + z | g)",
    slopes,
    BETA | {"z": Normal(0, 1), "sigma": HalfNormal(1), "sd": HalfStudentT(4, 0.7), "corr": LKJ(1)},
    method="laplace",
    options={"draws": 1000},
)


def generalized(family, formula, data, *, n_agq=1, **priors):
    """Return a generalised structure, by draws of Laplace's approximation that are weighted."""
    return Structure(
        formula,
        data,
        SMALL_BETA | priors if priors else "default",
        weights="trials" if family == "binomial" else None,
        family=family,
        method="laplace",
        options={"draws": 1000, "n_agq": n_agq},
        thin=10,
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
    "bernoulli": generalized("bernoulli", "y ~ x + (1 | g)", unbalanced, n_agq=9, sd=Gamma(2, 3)),
    "bernoulli, defaults": generalized("bernoulli", "y ~ x + (1 | g)", unbalanced, n_agq=9),
    "binomial, slopes": generalized(
        "binomial", "y ~ x + (x | g)", slopes, sd=HalfNormal(0.6), corr=LKJ(1.5)
    ),
    "binomial, defaults": generalized("binomial", "y ~ x + (x || g)", slopes),
    "poisson": generalized("poisson", "y ~ x + (1 | g)", unbalanced, n_agq=7, sd=HalfNormal(0.7)),
    "poisson, crossed": generalized(
        "poisson", "y ~ x + (1 | g) + (1 | h)", crossed, sd=Gamma(2, 4)
    ),
    "poisson, defaults": generalized("poisson", "y ~ x + (x | g)", slopes),
    "negative binomial": generalized(
        "negative_binomial", "y ~ x + (1 | s/g)", nested, sd=HalfNormal(0.5), shape=Gamma(4, 1)
    ),
    "negative binomial, defaults": generalized("negative_binomial", "y ~ x + (1 | g)", unbalanced),
    "gamma, defaults": generalized("gamma", "y ~ x + (1 | g)", unbalanced),
    "inverse Gaussian, defaults": generalized("inverse_gaussian", "y ~ x + (1 | g)", unbalanced),
    "beta, defaults": generalized("beta", "y ~ x + (1 | g)", unbalanced),
    "t, defaults": generalized("t", "y ~ x + (1 | g)", unbalanced),
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
    own, design, family = (
        prior_draws(model.design, model.priors, 1, rng),
        model.design,
        model.family,
    )
    y = response(family, _predictor(design, own), design.rows.weights, _own(family, own), rng)
    return Simulation(own, y[0])


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
    truth = quantities(structure.truth, simulation.parameters, simulation.y)
    posterior = structure.posterior(simulation.y, seed)
    if posterior is None:
        return dict.fromkeys(truth, np.nan)
    drawn, curves = posterior
    rng = np.random.default_rng(seed)
    found = {name: _rank(drawn[name], value[0], rng) for name, value in truth.items()}
    for name in rng.permutation(list(curves))[: structure.curves]:
        found[f"density of {name}"] = float(curves[name]().cdf(truth[name][0]))
    return found


def quantities(model, own, y):
    """Return every quantity by its name, shape (draws,).

    All parameters; the effects of the smallest and of the largest group of each term; the
    log-likelihood given the effects, and of a linear model that with the random effects
    integrated out, which depend on everything at once.

    Parameters
    ----------
    model : Model
    own : dict of str to ndarray
        As `prior_draws` has them.
    y : ndarray, shape (rows,)
    """
    design, family = model.design, model.family
    found = dict(zip(design.fixed, own["beta"].T, strict=True))
    found |= {name: own[name] for name in family.parameters}
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
    eta, psi = _predictor(design, own), _own(family, own)
    given_effects = family.log_density_at(y, eta, design.rows.weights, psi).sum(axis=1)
    found |= {LIKELIHOODS[0]: given_effects}
    return found | ({LIKELIHOODS[1]: _log_integrated(design, own, y)} if family.is_linear else {})


def drawn_parameters(fit, thin):
    """Return the draws of a posterior as those of a prior."""
    kinds = [kind for term in fit.design.terms for kind in (f"b_{term.label}", f"sd_{term.label}")]
    names = ("beta", *fit.family.parameters, *kinds)
    drawn = {name: fit.draws(name)[::thin] for name in names}
    for term in fit.design.terms:
        name, independent = f"corr_{term.label}", np.eye(term.n_coefs)
        has_corr = term.covariance.has_correlations
        corr = fit.draws(name)[::thin] if has_corr else independent
        drawn[name] = np.broadcast_to(corr, (len(drawn["beta"]), *independent.shape))
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


def _predictor(design, own):
    """Return the linear predictor given all effects, shape (draws, rows)."""
    eta = own["beta"] @ design.rows.X.T + design.rows.offset
    for term in design.rows.terms:
        eta = eta + np.einsum("drk,rk->dr", own[f"b_{term.label}"][:, term.codes], term.columns)
    return eta


def _own(family, own):
    """Return the family's own parameters, shape (parameters, draws, 1)."""
    return np.array([own[name][:, None] for name in family.parameters])


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


def levels_mixed_up(simulation):
    """Return a simulation whose effects are those of other levels: a flaw."""
    own = simulation.parameters
    mixed = {name: np.roll(b, 1, axis=1) for name, b in own.items() if name.startswith("b_")}
    return Simulation(own | mixed, simulation.y)


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
