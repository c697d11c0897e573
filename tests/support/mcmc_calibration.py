"""Simulation-based calibration of generalised models by NUTS: compiled once, refitted with data.

See `calibration` for what it is and for the test of uniformity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import arviz as az
import numpy as np
import pandas as pd

from ranef.design.design import build_design
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.likelihood.predictions import log_likelihood
from ranef.posterior.sampling import pymc_hierarchical
from ranef.priors.assignment import resolve
from ranef.priors.distributions import Gamma, HalfNormal, Normal

KEPT = 99  # draws that a parameter is ranked among
FEWEST = 120  # effective draws, below which a fit is left out


@dataclass(frozen=True)
class Structure:
    """A generalised model whose design is fixed; terms are intercepts.

    Attributes
    ----------
    formula : str
    data : callable
        Makes the data, but for the response.
    family : str
    priors : dict
        A record for every parameter: Normal, and HalfNormal or Gamma.
    assumed : dict
        What the fit takes instead for some of them: a mistake.
    """

    formula: str
    data: Callable[[], pd.DataFrame]
    family: str
    priors: Mapping
    assumed: Mapping = field(default_factory=dict)

    @cached_property
    def design(self):
        frame = self.data()
        return build_design(read_formula(self.formula), frame.assign(y=np.arange(len(frame)) % 2.0))

    @cached_property
    def compiled(self):
        """The compiled model with a response that can be replaced, and the type of that."""
        import nutpie
        import pymc as pm

        family = find_family(self.family)
        priors = resolve(self.design, {**self.priors, **self.assumed}, family)
        model = pymc_hierarchical.hierarchical(self.design, priors, family)
        y, fixed = model["y"], model.rvs_to_values[model["y"]]
        with model:
            response = pm.Data("response", fixed.data)
        model.rvs_to_values[y], model.values_to_rvs[response] = response, y
        del model.values_to_rvs[fixed]
        kept = [name for name in model.named_vars if name.split("_")[0] in ("beta", "b", "sd")]
        return nutpie.compile_pymc_model(model, var_names=kept), fixed.dtype

    def posterior(self, y, seed):
        """Return draws, two chains, given a response."""
        import nutpie

        compiled, dtype = self.compiled
        tree = nutpie.sample(
            compiled.with_data(response=np.asarray(y, dtype)),
            draws=1000, tune=500, chains=2, cores=2, seed=seed, target_accept=0.9,
            progress_bar=False, save_warmup=False, adaptation="low_rank",
        )  # fmt: skip
        return tree["posterior"].to_dataset()


def simulate(structure, rng):
    """Draw parameters from their priors, and a response; the former as a posterior of one draw."""
    design, family, priors = structure.design, find_family(structure.family), structure.priors
    beta = np.array([_draw(priors[name], rng) for name in design.fixed])
    eta, own = design.rows.X @ beta, {"beta": beta}
    for term in design.rows.terms:
        sd = _draw(priors[f"sd_{term.label}"], rng)
        b = sd * rng.normal(size=(term.n_levels, 1))
        eta = eta + b[term.codes, 0]
        own |= {f"sd_{term.label}": np.array([sd]), f"b_{term.label}": b}
    return own, family.draw(rng, family.link.inverse(eta), design.rows.weights)


def _draw(prior, rng):
    if isinstance(prior, Normal):
        return rng.normal(prior.mu, prior.sigma)
    if isinstance(prior, Gamma):
        return rng.gamma(prior.alpha, 1 / prior.beta)
    assert isinstance(prior, HalfNormal)
    return abs(rng.normal(0, prior.sigma))


def quantities(structure, posterior, y):
    """Return every quantity by its name, shape (chains, draws).

    All parameters, the effects of the smallest and of the largest group of each term, and the
    log-likelihood given the effects, which depends on everything at once.

    Parameters
    ----------
    structure : Structure
    posterior : mapping of str to array, shape (chains, draws, ...)
    y : array, shape (n,)
    """
    design = structure.design.with_rows(y=np.asarray(y, float))
    found = {name: posterior["beta"][..., j] for j, name in enumerate(design.fixed)}
    for term in design.terms:
        label, rows = term.label, np.bincount(design.rows.term(term.label).codes)
        found[f"sd_{label}"] = posterior[f"sd_{label}"][..., 0]
        for size, level in (("small", rows.argmin()), ("large", rows.argmax())):
            found[f"b_{label}[{size}]"] = posterior[f"b_{label}"][..., level, 0]
    dims = {"beta": ("fixed",)} | {f"b_{t.label}": (t.label, "coef") for t in design.terms}
    data = {name: (("chain", "draw", *own), posterior[name]) for name, own in dims.items()}
    chains, draws = posterior["beta"].shape[:2]
    indices = {"chain": range(chains), "draw": range(draws)}
    density = log_likelihood(design, find_family(structure.family), _dataset(data, indices))
    return found | {"log p(y | b)": density["y"].to_numpy().sum(axis=-1)}


def _dataset(data, indices):
    import xarray as xr

    return xr.Dataset(data, coords=indices)


def pit(structure, own, y, seed):
    """Return the PIT value of every quantity; nan where there are too few effective draws."""
    posterior = structure.posterior(y, seed)
    drawn = {name: posterior[name].to_numpy() for name in posterior.data_vars}
    truth = quantities(structure, {k: v[None, None] for k, v in own.items()}, y)
    ranked = quantities(structure, drawn, y)
    every = np.stack(list(ranked.values()), axis=-1)
    if az.ess(every).min() < FEWEST:
        return dict.fromkeys(truth, np.nan)
    rng = np.random.default_rng(seed)
    kept = np.linspace(0, every[..., 0].size - 1, KEPT).astype(int)
    ranks = {
        name: (values.ravel()[kept] < truth[name].item()).sum() for name, values in ranked.items()
    }
    return {name: (rank + rng.uniform()) / (KEPT + 1) for name, rank in ranks.items()}


def calibrate(structure, n, seed, flaw=None):
    """Return the PIT values of n simulations, a DataFrame of shape (n, quantities).

    Parameters
    ----------
    structure : Structure
    n, seed : int
    flaw : callable, optional
        Changes the parameters behind the back of the fit: a mistake.
    """
    seeds = np.random.SeedSequence(seed).spawn(n)
    rows = []
    for of_data, of_fit in (own.spawn(2) for own in seeds):
        own, y = simulate(structure, np.random.default_rng(of_data))
        own = own if flaw is None else flaw(own)
        rows.append(pit(structure, own, y, int(of_fit.generate_state(1)[0])))
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------- the structures


def _groups(sizes, seed):
    rng, n = np.random.default_rng(seed), sum(sizes)
    frame = pd.DataFrame({"g": np.repeat(np.arange(len(sizes)), sizes)})
    return frame.assign(x=rng.normal(size=n), h=rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1]))


def one_factor():
    return _groups((1, 14, 2, 3, 5, 8, 4), 1)


def crossed():
    return _groups((2, 12, 4, 6, 5, 7), 2)


BETA = {"Intercept": Normal(0.5, 1), "x": Normal(-0.5, 0.7)}
ONE = {**BETA, "sd_g": Gamma(2, 3)}
TWO = {**BETA, "sd_g": HalfNormal(0.8), "sd_h": Gamma(2, 4)}

STRUCTURES = {
    f"{family}, {terms}": Structure(
        "y ~ x + (1 | g)" + " + (1 | h)" * (terms == "crossed"),
        crossed if terms == "crossed" else one_factor,
        family,
        TWO if terms == "crossed" else ONE,
    )
    for family in ("bernoulli", "poisson")
    for terms in ("one factor", "crossed")
}
