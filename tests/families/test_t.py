"""Student's t distribution."""

from __future__ import annotations

import numpy as np
import pytest
from family_cases import check_unit_deviances, family_cases, single

from ranef.families.names import find_family
from ranef.families.t import t_variance


@family_cases("t", ("identity", "log"), tails=("log",))
def test_t(check, name, link):
    check(name, link)


def test_unit_deviances_of_t_are_those_of_r():
    check_unit_deviances(
        "t",
        (0.8, 4.5),
        ([0.2, 3.0, 7.0], [0.5, 2.2, 9.1]),
        [0.108316238506973, 0.706360848026772, 3.269070646591946],
    )


@pytest.mark.parametrize("nu", [1e4, 1e6, 1e9])
def test_many_degrees_of_freedom_are_a_normal_distribution(nu):
    normal = single("gaussian", 1.3, 0.4, (0.8,))
    np.testing.assert_allclose(
        single("t", 1.3, 0.4, (0.8, nu)), normal, rtol=1e-12 + 3 / nu, atol=1e-12 + 20 / nu
    )
    further = find_family("t").further_expansion(
        np.array([1.3]), np.array([0.4]), np.ones(1), np.array([0.8, nu])
    )
    assert (np.abs(further.value[1]) < 2 / nu + 1e-15).all()


def test_a_t_distribution_of_two_degrees_of_freedom_has_no_variance():
    mu = np.zeros(2)
    np.testing.assert_array_equal(t_variance(mu, 1.0, 2.0), np.inf)
    np.testing.assert_array_equal(t_variance(mu, 1.0, 1.0), np.inf)
    np.testing.assert_array_equal(t_variance(mu, 1.0, 4.0), 2)
