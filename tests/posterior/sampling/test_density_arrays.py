"""A model as two flat arrays: what they hold, and which models they suit."""

from __future__ import annotations

import numpy as np
from designs import STRUCTURES, repeated_frame
from marginal_cases import everything

from ranef import Model
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.sampling import density_arrays
from ranef.posterior.sampling.density_arrays import pack, suits
from ranef.priors.assignment import resolve


def test_sparse_cross_products_are_unpacked(monkeypatch):
    design, priors, dense = everything("y ~ x + (1 | c) + (x | i)", 1)
    monkeypatch.setattr("ranef.likelihood.linear.crossproducts.SPARSE_SIZE", 0)
    monkeypatch.setattr("ranef.likelihood.linear.crossproducts.SPARSE_SHARE", 2.0)
    sparse = target_of(design, cross_products(design), [0, 1], priors)
    assert not sparse.cross.chain[0].rest.is_dense
    np.testing.assert_array_equal(pack(sparse).numbers, pack(dense).numbers)


def test_size_does_not_grow_with_the_rows():
    sizes = [len(pack(everything("y ~ x + (x | c)", 1, n=n)[2]).numbers) for n in (150, 900)]
    assert sizes[0] == sizes[1]


def test_levels_of_one_kind_are_written_once():
    design = Model("y ~ x + (x | c)", repeated_frame(), weights="w").design
    model = pack(target_of(design, cross_products(design), [0, 1], resolve(design)))
    assert model.counts[0] == 9  # of 60: of each of three designs a mean, and two sums with y


def test_balanced_nesting_is_small_whatever_its_size():
    school, pupil, x = (codes.ravel() for codes in np.mgrid[:150, :2, :3])
    y = np.random.default_rng(1).normal(size=len(x))
    data = {"y": y, "x": x, "school": school, "pupil": school * 2 + pupil}
    design = Model("y ~ x + (x | school/pupil)", data).design
    target = target_of(design, cross_products(design), [0, 1], resolve(design))
    assert target.cross.n_levels == (300, 150)
    assert suits(target)
    model = pack(target)
    assert model.counts[0] <= 6
    assert model.counts[2] <= 6


def test_large_rests_are_left_to_linear_algebra(monkeypatch):
    crossed, nested = (everything(STRUCTURES[name], 1)[2] for name in ("crossed", "nested"))
    assert suits(crossed)
    assert suits(nested)
    monkeypatch.setattr(density_arrays, "MAX_REST", 6)
    monkeypatch.setattr(density_arrays, "MAX_NESTED", 3)
    assert not suits(crossed)
    assert not suits(nested)
