"""The normal distribution."""

from __future__ import annotations

from family_cases import check_unit_deviances, family_cases


@family_cases("gaussian", ("identity", "log", "inverse"), tails=("log",))
def test_gaussian(check, name, link):
    check(name, link)


def test_unit_deviances_of_gaussian_are_those_of_r():
    check_unit_deviances("gaussian", (0.5,), ([0.2, 3.0, 7.0], [0.5, 2.2, 9.1]), [0.09, 0.64, 4.41])
