"""Simulation-based calibration of generalised models by NUTS: compiled once, refitted with data.

See `calibration` for what it is and for the test of uniformity.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import arviz as az
import calibration
import numpy as np

KEPT = 99  # draws that a parameter is ranked among
FEWEST = 120  # effective draws, below which a fit is left out
CHAINS = 2


@dataclass(frozen=True)
class Structure(calibration.Structure):
    """A generalised structure whose posterior comes from one compiled PyMC model."""

    @cached_property
    def compiled(self):
        """The compiled model with a response that can be replaced, and the type of that."""
        import nutpie
        import pymc as pm

        model = self.model(self._reference).to_pymc()
        y, fixed = model["y"], model.rvs_to_values[model["y"]]
        with model:
            response = pm.Data("response", fixed.data)
        model.rvs_to_values[y], model.values_to_rvs[response] = response, y
        del model.values_to_rvs[fixed]
        kept = [name for name in model.named_vars if name.split("_")[0] in ("beta", "b", "sd")]
        return nutpie.compile_pymc_model(model, var_names=kept), fixed.dtype

    def posterior(self, y, seed):
        import nutpie

        compiled, dtype = self.compiled
        tree = nutpie.sample(
            compiled.with_data(response=np.asarray(y, dtype)),
            draws=1000, tune=500, chains=CHAINS, cores=2, seed=seed, target_accept=0.9,
            progress_bar=False, save_warmup=False, adaptation="low_rank",
        )  # fmt: skip
        draws = tree["posterior"].to_dataset()
        own = {name: v.to_numpy().reshape(-1, *v.shape[2:]) for name, v in draws.items()}
        found = calibration.quantities(self.truth, own, np.asarray(y, float))
        every = np.stack(list(found.values()), axis=-1)
        if az.ess(every.reshape(CHAINS, -1, len(found))).min() < FEWEST:
            return None
        kept = np.linspace(0, len(every) - 1, KEPT).astype(int)
        return {name: values[kept] for name, values in found.items()}, {}


def _compiled(own):
    return Structure(**{field.name: getattr(own, field.name) for field in fields(own)})


STRUCTURES = {
    name: _compiled(calibration.STRUCTURES[name])
    for name in ("bernoulli", "poisson", "poisson, crossed")
}
