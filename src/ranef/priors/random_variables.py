"""Which random variables have the priors of a vector of parameters.

A vector is one variable where its priors are of one kind. Otherwise each kind has a variable of its
own, as PyMC has them, and so have ratios to sigma: the vector is put together from these.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ranef.priors.distributions import Prior, Relative

KINDS_OF_PRIOR = "|".join(k.__name__.lower() for k in Prior.__subclasses__() if k is not Relative)
_HELPER = re.compile(
    rf"(?:(?:{KINDS_OF_PRIOR})_)?(?:relative_)?(?:at_mean|nearest|free)_.*|relative_sd_.*"
    rf"|partial_corr_.*|(?:{KINDS_OF_PRIOR})_(?:relative_)?(?:beta|sd_.*)"
)


@dataclass(frozen=True)
class PriorPart:
    """The elements of a vector of parameters that are one random variable.

    Attributes
    ----------
    name, dim : str
        Of the variable, and of its dimension.
    whole : str
        The dimension of the vector.
    places : tuple of int
        Of its elements in the vector.
    priors : tuple of Prior
        Of these elements, all of one kind.
    relative : bool
        Whether it is a vector of ratios to sigma.
    """

    name: str
    dim: str
    whole: str
    places: tuple[int, ...]
    priors: tuple[Prior, ...]
    relative: bool = False


def parts(name: str, dim: str, priors: Sequence[Prior]) -> list[PriorPart]:
    """Return the random variables that a vector of parameters is made of.

    Parameters
    ----------
    name, dim : str
        Of the vector, and of its dimension.
    priors : sequence of Prior
        One an element.

    Examples
    --------
    >>> from ranef.priors.distributions import Flat, Normal
    >>> [(p.name, p.places) for p in parts("beta", "fixed", [Flat(), Normal(0, 1), Flat()])]
    [('flat_beta', (0, 2)), ('normal_beta', (1,))]
    """
    kinds, found = dict.fromkeys(map(type, priors)), []
    for kind in kinds:
        prefix = "relative" if kind is Relative else kind.__name__.lower()
        is_whole = len(kinds) == 1
        own = name if is_whole and kind is not Relative else f"{prefix}_{name}"
        places = tuple(i for i, prior in enumerate(priors) if type(prior) is kind)
        own_dim = dim if is_whole else f"{own}_dim"
        part = PriorPart(own, own_dim, dim, places, tuple(priors[i] for i in places))
        found += _ratios(part) if kind is Relative else [part]
    return found


def _ratios(part: PriorPart) -> list[PriorPart]:
    """Return the random variables of a vector of ratios to sigma."""
    inner = [prior.prior for prior in part.priors if isinstance(prior, Relative)]
    return [
        replace(
            one, whole=part.whole, places=tuple(part.places[i] for i in one.places), relative=True
        )
        for one in parts(part.name, part.dim, inner)
    ]


def is_helper(name: str) -> bool:
    """Whether a variable is one that others of the posterior are computed from, and not of these.

    Examples
    --------
    >>> [is_helper(name) for name in ("at_mean_beta", "partial_corr_Subject", "sd_Subject")]
    [True, True, False]
    """
    return _HELPER.fullmatch(name) is not None
