"""The families and links that have a name, and their names in other packages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ranef.errors import FitError, listed, suggestion
from ranef.families.beta import BETA
from ranef.families.binomial import BERNOULLI, BINOMIAL
from ranef.families.family import Family
from ranef.families.gamma import GAMMA, INVERSE_GAUSSIAN
from ranef.families.gaussian import GAUSSIAN
from ranef.families.links import LINKS, Link
from ranef.families.poisson import NEGATIVE_BINOMIAL, POISSON
from ranef.families.t import T

__all__ = ["FAMILIES", "find_family"]

FAMILIES = {
    family.name: family
    for family in (
        GAUSSIAN,
        BINOMIAL,
        BERNOULLI,
        POISSON,
        NEGATIVE_BINOMIAL,
        GAMMA,
        INVERSE_GAUSSIAN,
        BETA,
        T,
    )
}
_FAMILY_ALIASES = {alias: name for name, family in FAMILIES.items() for alias in family.aliases}
_LINK_ALIASES = {
    "1mu2": "inverse_squared",
    "inversepower": "inverse",
    "reciprocal": "inverse",
    "cll": "cloglog",
    "logistic": "logit",
    "ln": "log",
}


def find_family(family: str | Family, link: str | Link | None = None) -> Family:
    """Return the family of a name, with a link.

    The names of R, brms, bambi and statsmodels are known as well, in any spelling:
    "inverse.gaussian" and "InverseGaussian" are "inverse_gaussian".

    Parameters
    ----------
    family : str or Family
    link : str or Link, optional
        The family's own link by default.

    Raises
    ------
    FitError
        If there is no such family, or the family has no such link.

    Examples
    --------
    >>> find_family("gaussian").link.name
    'identity'
    >>> find_family("Gamma", "inverse").link.name
    'inverse'
    >>> find_family("nbinom2").name
    'negative_binomial'
    """
    if isinstance(family, str):
        name = _canonical(family, FAMILIES, _FAMILY_ALIASES)
        if name is None:
            hint = suggestion(family, FAMILIES)
            if _canonical(family, LINKS, _LINK_ALIASES) is not None:
                hint = f"It is a link: family='binomial', link={family!r}, for one."
            raise FitError(f"family={family!r} is not available. {hint}")
        family = FAMILIES[name]
    if not isinstance(family, Family):
        raise FitError(f"family= takes a name or a Family, got {type(family).__name__}.")
    if link is None:
        return family
    if isinstance(link, str):
        link = _find_link(family, link)
    if not isinstance(link, Link):
        raise FitError(f"link= takes a name or a Link, got {type(link).__name__}.")
    return family if link == family.link else replace(family, link=link)


def _find_link(family: Family, name: str) -> Link:
    links = {link.name: link for link in family.links} or LINKS
    canonical = _canonical(name, links, _LINK_ALIASES)
    if canonical is None:
        message = f"link={name!r} is not available for the {family.name} family, which has "
        raise FitError(f"{message}{listed(links, limit=len(links))}.")
    return links[canonical]


def _canonical(name: str, names: dict[str, Any], aliases: dict[str, str]) -> str | None:
    """Return the name or alias that is spelled like this one but for case and punctuation."""
    spelling = _plain(name)
    spellings = {_plain(canonical): canonical for canonical in names}
    canonical = spellings.get(spelling, aliases.get(spelling, ""))
    return canonical if canonical in names else None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
