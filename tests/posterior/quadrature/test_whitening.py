"""Whitened coordinates: the way to the values and back, and the density that goes with it."""

from __future__ import annotations

import numpy as np
import pytest
from density_cases import density, schools, sleep
from lattice_cases import slopes_frame
from scipy import stats

from ranef.posterior.laplace import find_mode
from ranef.posterior.quadrature import lattice
from ranef.posterior.quadrature.whitening import (
    _from_half_line,
    frame,
    half_line,
    log_prior,
    values_at,
)
from ranef.posterior.transforms import coordinate
from ranef.priors.distributions import HalfNormal, HalfStudentT, Normal, Relative, StudentT

GIVEN = {"x": StudentT(3, 0, 2), "sd": Relative(HalfNormal(1)), "sigma": HalfNormal(3)}


def without_zero(least):
    return slopes_frame().assign(x=lambda t: t["x"] - t["x"].min() + least)


TARGETS = {
    "linear model": lambda: sleep(""),
    "one sd": lambda: sleep(" + (1 | Subject)"),
    "two sds": lambda: sleep(" + (Days || Subject)"),
    "correlated": lambda: sleep(" + (Days | Subject)"),
    "near": lambda: density("y ~ x + (x | g)", without_zero(0.1), "default"),
    "far": lambda: density("y ~ x + (x | g)", without_zero(1000.0), "default"),
    "given effect, relative sd": lambda: density("y ~ x + (1 | g)", slopes_frame(), GIVEN),
    "known sigma": schools,
}


def places_of(target):
    """Return all values that an axis can follow, and None."""
    return [None, *map(int, target.space.free)]


@pytest.mark.parametrize("name", TARGETS)
def test_density_is_that_of_the_target_times_the_jacobian(name):
    """In (xi, log sigma), by differences of the point that they stand for."""
    target = TARGETS[name]()
    space, mode = target.space, find_mode(target)
    for first in places_of(target):
        own = frame(target, mode, first)
        heavy, g = own.heavy, space.n_given

        def point(xi, own=own, heavy=heavy, g=g):
            values, _ = values_at(own, xi[None, :heavy])
            values = values[0]
            if own.has_sigma:
                values[g] = np.exp(xi[-1])
            values[own.is_sd] *= values[g]
            return space.point(values)

        for z in 0.7 * np.random.default_rng(1).normal(size=(3, space.d)):
            xi = own.center + own.root @ z
            steps = 1e-4 * np.eye(space.d)
            near, wide = (
                np.array([(point(xi + k * h) - point(xi - k * h)) / (2e-4 * k) for h in steps])
                for k in (1, 2)
            )
            jacobian = (4 * near - wide) / 3
            expected = target.log_density(point(xi)[None])[0]
            expected += np.linalg.slogdet(jacobian)[1]
            nodes = lattice.nodes_at(own, xi[None, :heavy])
            log_sigma = xi[-1] if own.has_sigma else own.log_sigma
            found = lattice.log_joint(own, nodes, np.array([log_sigma]), np.zeros(1))[0, 0]
            assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", TARGETS)
def test_the_mode_is_the_centre_and_its_curvature_the_unit(name):
    target = TARGETS[name]()
    mode = find_mode(target)
    for first in places_of(target):
        own = frame(target, mode, first)
        values, _ = values_at(own, own.center[None, : own.heavy])
        sigma = np.exp(own.log_sigma)
        expected, _ = target.space.values(mode.x)
        values[0, target.space.n_given] = sigma
        values[0, own.is_sd] *= sigma
        np.testing.assert_allclose(values[0], expected, rtol=1e-7)
        assert (np.triu(own.root, 1) == 0).all()
        if first is not None and first != target.space.n_given:
            assert own.order[0] == first
        if own.has_sigma:
            assert own.order[-1] == target.space.n_given
        assert sorted(own.order) == sorted(target.space.free)
        assert 0 <= own.share_of_sigma < 1


def test_coordinates_follow_the_users_columns_only_where_they_are_asked_for():
    """Far off, the intercept at zero goes with that of the priors: it is the slope on a lever."""
    for name in ("near", "far"):
        target = TARGETS[name]()
        mode, users, priors = find_mode(target), target.cross.bases[0], target.bases[0]
        assert target.space.names == ("sigma", "sd_g[Intercept]", "sd_g[x]", "corr_g[Intercept, x]")
        lever = np.linalg.solve(users, priors)[0, 1]
        both = priors @ np.linalg.inv([[1, lever], [0, 1] if name == "near" else [1, 0]])
        expected = {None: priors, 0: priors, 1: both, 2: priors, 3: users}
        for first, basis in expected.items():
            found = frame(target, mode, first).bases[0]
            np.testing.assert_allclose(found, basis, rtol=1e-12, atol=1e-12 * abs(basis).max())
    near = TARGETS["near"]()
    np.testing.assert_allclose(frame(near, find_mode(near), 1).bases[0], near.cross.bases[0])


def test_half_line_and_its_way_back():
    t = np.array([-6.0, -2.0, 0.0, 1.5, 20.0])
    log_y, log_slope = half_line(t)
    np.testing.assert_allclose(log_y, t - np.exp(-t))
    h = 1e-6
    slope = (half_line(t + h)[0] - half_line(t - h)[0]) / (2 * h)
    np.testing.assert_allclose(np.exp(log_slope), slope, rtol=1e-7)
    np.testing.assert_allclose(_from_half_line(log_y), t, atol=1e-12)
    assert np.isfinite(half_line(np.array([-1e4, 1e4]))).all()


def test_log_prior_is_that_of_the_logarithm():
    log_value = np.array([-2.0, 0.3, 1.2])
    found = log_prior(coordinate(HalfStudentT(3, 2), positive=True), log_value)
    expected = np.log(2) + stats.t(3, 0, 2).logpdf(np.exp(log_value)) + log_value
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_priors_are_kept_apart():
    """A normal prior of the intercept is integrated out, that of the sd is not."""
    target = density("y ~ x + (1 | g)", slopes_frame(), {"Intercept": Normal(5, 1)})
    assert frame(target, find_mode(target)).order.tolist() == [1, 0]


@pytest.mark.parametrize("name", TARGETS)
def test_an_aligned_lattice_has_rows_of_nodes_along_every_coordinate(name):
    """And is as fine as the one in z: no wave that it cannot tell from a constant is longer."""
    target = TARGETS[name]()
    own = frame(target, find_mode(target))
    steps, heavy = np.linspace(0.5, 0.8, target.space.d), own.heavy
    aligned = own.aligned(steps)
    np.testing.assert_allclose(np.diag(aligned.root), np.diag(own.root), rtol=1e-12)
    counts = aligned.counts(steps)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    if heavy:
        of_log_sigma = [
            np.linalg.solve(f.root[:heavy, :heavy].T, f.root[-1, :heavy]) for f in (own, aligned)
        ]
        np.testing.assert_allclose(*of_log_sigma, rtol=1e-7, atol=1e-12)
        unit = np.diag(own.root)[:heavy] * steps[:heavy]
        waves = np.stack(np.meshgrid(*[np.arange(-3, 4)] * heavy), axis=-1).reshape(-1, heavy)
        lengths = np.linalg.norm(
            (waves[waves.any(axis=1)] / unit) @ own.root[:heavy, :heavy], axis=1
        )
        assert lengths.min() >= 1 / steps.max() - 1e-9


def test_a_frame_that_is_far_from_aligned_stays_as_it_is():
    target = TARGETS["far"]()
    mode, steps = find_mode(target), np.full(target.space.d, 0.6)
    of_correlation = frame(target, mode, first=3)
    assert np.abs(of_correlation.counts(steps)).max() > 50
    assert of_correlation.aligned(steps) is of_correlation
