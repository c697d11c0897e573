"""The density as C calls it against the density as Python calls it."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from marginal_cases import everything

from ranef.posterior.sampling import density_for_nutpie
from ranef.posterior.sampling.density_arrays import pack

STRUCTURES = ("y ~ x + (x | c)", "y ~ x + (x | c) + (1 | i)", "y ~ x * f + (1 | c) + (0 + x | c)")


def called(function, *arguments):
    """Call a C function with arrays as pointers to what they hold."""
    return function.ctypes(
        *(
            a.ctypes.data_as(
                ctypes.c_void_p if a.dtype == np.int64 else ctypes.POINTER(ctypes.c_double)
            )
            if isinstance(a, np.ndarray)
            else a
            for a in arguments
        )
    )


def in_c(packed, x):
    """Return what C is told: a code, the value, its gradient."""
    model = density_for_nutpie.nutpie_model(packed, None)
    value, gradient = np.empty(1), np.empty(packed.d)
    posterior = model.compiled_logp_func
    code = called(posterior, packed.d, x, gradient, value, model.user_data)
    return code, value[0], gradient


@pytest.mark.parametrize("formula", STRUCTURES)
def test_c_gets_what_python_gets(formula):
    _, _, target = everything(formula, 1)
    packed = pack(target)
    x = 0.3 * np.random.default_rng(1).normal(size=packed.d)
    code, value, gradient = in_c(packed, x)
    expected, slopes = density_for_nutpie.density(packed)(x)
    assert (code, value) == (0, expected)
    np.testing.assert_array_equal(gradient, slopes)
    np.testing.assert_allclose(value, target(x)[0], rtol=1e-11)


def test_nutpie_is_told_where_the_density_is_zero():
    _, _, target = everything("y ~ x + (x | c)", 1)
    code, value, _ = in_c(pack(target), np.array([0.0, 400.0, 400.0, 0.0]))
    assert (code, value) == (density_for_nutpie.NOT_FINITE, -np.inf)


def test_a_draw_is_kept_whole():
    x, drawn = np.arange(3.0), np.zeros(3)
    assert called(density_for_nutpie.c_copy, 3, 3, x, drawn, np.zeros(1, np.int64)) == 0
    np.testing.assert_array_equal(drawn, x)
