"""What nutpie draws from the compiled density, against the density in NumPy."""

from __future__ import annotations

import numpy as np
import nutpie
import pytest
from marginal_cases import everything

from ranef.posterior.sampling import density_for_nutpie
from ranef.posterior.sampling.density_arrays import pack


@pytest.mark.parametrize("formula", ["y ~ x + (x | c)", "y ~ x * f + (1 | c) + (0 + x | i)"])
def test_draws_have_the_density_that_nutpie_was_told(formula):
    _, _, target = everything(formula, 1)
    model = density_for_nutpie.nutpie_model(pack(target), lambda _: np.zeros(target.space.d))
    tree = nutpie.sample(model, draws=20, tune=50, chains=2, seed=1, progress_bar=False)
    x, told = tree["posterior"]["x"].to_numpy(), tree["sample_stats"]["logp"].to_numpy()
    expected = [[target(point)[0] for point in chain] for chain in x]
    np.testing.assert_allclose(told, expected, rtol=1e-10)
    assert len(np.unique(x)) > x.size / 2


def test_nutpie_is_told_where_the_density_is_zero():
    _, _, target = everything("y ~ x + (x | c)", 1)
    value, _ = density_for_nutpie.density(pack(target))(np.array([0.0, 400.0, 400.0, 0.0]))
    assert value == -np.inf
    starts = iter([np.array([0.0, 400.0, 400.0, 0.0])] * 1000)
    model = density_for_nutpie.nutpie_model(pack(target), lambda _: next(starts))
    with pytest.raises(RuntimeError, match="initialization"):
        nutpie.sample(model, draws=5, tune=5, chains=1, seed=1, progress_bar=False)
