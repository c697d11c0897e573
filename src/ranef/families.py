"""Response distributions and their links, as frozen records of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranef.errors import FitError, listed, suggestion

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Link:
    """A link function g with eta = g(mu), and its inverse, elementwise on arrays."""

    name: str
    link: Callable[[Array], Array]
    inverse: Callable[[Array], Array]


@dataclass(frozen=True)
class Family:
    """A response distribution with its link.

    Attributes
    ----------
    name : str
    link : Link
    variance : callable
        The variance function of the mean: Var(y) = sigma^2 variance(mu) / weight.
    """

    name: str
    link: Link
    variance: Callable[[Array], Array]


def _identity(x: Array) -> Array:
    return x


IDENTITY = Link("identity", _identity, _identity)
GAUSSIAN = Family("gaussian", IDENTITY, np.ones_like)

FAMILIES = {"gaussian": GAUSSIAN}


def find_family(family: str | Family, link: str | None = None) -> Family:
    """Return the family of a name.

    Raises
    ------
    FitError
        If there is no such family, or the family has no such link.

    Examples
    --------
    >>> find_family("gaussian").link.name
    'identity'
    """
    if isinstance(family, str):
        if family not in FAMILIES:
            message = f"family={family!r} is not available. {suggestion(family, FAMILIES)}"
            raise FitError(message)
        family = FAMILIES[family]
    if not isinstance(family, Family):
        raise FitError(f"family= takes a name or a Family, got {type(family).__name__}.")
    if family not in FAMILIES.values():
        message = (
            f"the {family.name} family with {family.link.name} link as given is not available: "
        )
        raise FitError(message + f"there is {listed(FAMILIES)}.")
    if link is not None and link != family.link.name:
        message = f"link={link!r} is not available for the {family.name} family: "
        raise FitError(message + f"there is {family.link.name!r}.")
    return family
