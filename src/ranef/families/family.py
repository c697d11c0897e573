"""Response distributions and their links, as frozen records of functions.

Notation: mu is the mean, eta = g(mu) the linear predictor, w the prior weight of a row (for a
binomial response its number of trials, y being the proportion of successes), psi the parameters
that a distribution has besides its mean, such as sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Array
from ranef.errors import FitError, listed, suggestion
from ranef.families import likelihoods, observations
from ranef.families.derivatives import PSI_STEP, Expansion, Further, differenced
from ranef.families.likelihoods import Distribution
from ranef.families.link import (
    CAUCHIT,
    CLOGLOG,
    IDENTITY,
    INVERSE,
    INVERSE_SQUARED,
    LINKS,
    LOG,
    LOGIT,
    POSITIVE_IDENTITY,
    PROBIT,
    SQRT,
    Link,
)

__all__ = ["FAMILIES", "Family", "Link", "find_family"]


SUPPORTS = ("real", "positive", "counts", "proportions", "binary", "unit")


@dataclass(frozen=True)
class Family:
    """A response distribution with its link.

    All functions work elementwise on arrays; `*psi` stands for the values of `parameters`, in
    their order.

    Attributes
    ----------
    name : str
    link : Link
    variance : callable (mu, *psi)
        The variance function: Var(y) = sigma^2 variance(mu, *psi) / w for a distribution with a
        parameter "sigma", otherwise variance(mu, *psi), divided by w for proportions of trials.
    log_density : callable (y, mu, w, *psi)
        log f(y | mu), with all constants; -inf outside of the support.
    deviance : callable (y, mu, *psi)
        The unit deviance, 2 sigma^2 (log f(y | y) - log f(y | mu)) for w = 1, with sigma = 1 for a
        distribution without it.
    draw : callable (rng, mu, w, *psi)
        Responses drawn with a `numpy.random.Generator`. Weights that multiply a log density are no
        part of a distribution to draw from.
    support : str
        What a response can be: "real", "positive", "counts", "proportions" (of a number of
        trials), "binary", "unit" (strictly between 0 and 1).
    parameters : tuple of str
        The parameters psi besides the mean, all positive: "sigma" is a scale, with the variance
        proportional to its square; any other name is the distribution's own.
    pymc : callable (pm, name, link, eta, w, *psi, observed=, dims=), optional
        Adds the likelihood to the PyMC model in whose context it is called; `pm` is the module and
        eta the linear predictor. Without it the family cannot be sampled.
    expand : callable (link, y, eta, w, psi), optional
        log f and its derivatives in eta in closed form, an `Expansion`; by differences of
        `log_density` if it is not given.
    further : callable (link, y, eta, w, psi), optional
        The higher derivatives, a `Further`.
    expected : callable (link, eta, w, psi), optional
        The expected information of eta; (d mu / d eta)^2 / Var(y) if it is not given.

    Notes
    -----
    The weight w divides the variance of a distribution with a "sigma", is the number of trials of
    a binomial response, and otherwise multiplies the log density: w rows in one.

    Raises
    ------
    FitError
        If the support is none of these.
    """

    name: str
    link: Link
    variance: Callable[..., Array]
    log_density: Callable[..., Array]
    deviance: Callable[..., Array]
    draw: Callable[..., Array]
    support: str = "real"
    parameters: tuple[str, ...] = ()
    pymc: Callable[..., Any] | None = None
    expand: Callable[..., Expansion] | None = None
    further: Callable[..., Further] | None = None
    expected: Callable[..., Array] | None = None

    def __post_init__(self) -> None:
        self._check_fields()
        if self.support not in SUPPORTS:
            message = f"the {self.name} family has support={self.support!r}, expected one of "
            raise FitError(f"{message}{listed(SUPPORTS, 'or', limit=len(SUPPORTS))}.")

    def _check_fields(self) -> None:
        """Refuse what is not a link, a function or a name, whatever the annotations say."""
        given: dict[str, object] = {"name": self.name, "link": self.link}
        if not isinstance(given["name"], str):
            raise FitError(f"the name of a family is text, got {self.name!r}.")
        if not isinstance(given["link"], Link):
            message = f"the {self.name} family has link={self.link!r}, expected a Link: one of "
            raise FitError(f"{message}`ranef.links`, such as `rf.links.LOG`, or your own.")
        functions = {
            "variance": self.variance,
            "log_density": self.log_density,
            "deviance": self.deviance,
            "draw": self.draw,
        }
        for field, function in functions.items():
            if not callable(function):
                raise FitError(f"the {self.name} family has {field}={function!r}, not a function.")
        names: object = self.parameters
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            message = f"the {self.name} family has parameters={names!r}, expected a tuple of names."
            raise FitError(message)
        taken = [n for n in names if n == "beta" or n.startswith(("b_", "sd_", "corr_"))]
        if taken:
            message = f"the {self.name} family cannot call a parameter {listed(taken)}: a variable "
            raise FitError(message + "of every posterior has such a name.")

    @property
    def has_sigma(self) -> bool:
        """Whether there is a scale parameter sigma."""
        return "sigma" in self.parameters

    @property
    def is_normal(self) -> bool:
        """Whether all is closed form: a normal response with identity link."""
        return self.expand == GAUSSIAN.expand and self.link.name == "identity"

    def expansion(self, y: Array, eta: Array, w: Array, psi: Array) -> Expansion:
        """Return log f and its first two derivatives in eta.

        Where eta is not positive although the link needs it to be, log f is -inf and the
        derivatives are numbers without a meaning.

        Parameters
        ----------
        y, w : ndarray, shape (n,)
        eta : ndarray, shape (n,) or (..., n)
        psi : ndarray, shape (r,)
        """
        inside, eta = self._domain(eta)
        if self.expand is not None:
            found = self.expand(self.link, y, eta, w, psi)
        else:
            value, first, second, _ = self._differenced(y, eta, w, psi)
            found = Expansion(value, first, -second)
        if inside.all():
            return found
        return replace(found, value=np.where(inside, found.value, -np.inf))

    def further_expansion(self, y: Array, eta: Array, w: Array, psi: Array) -> Further:
        """Return the third derivative in eta, and those with respect to log psi."""
        _, eta = self._domain(eta)
        if self.further is not None:
            return self.further(self.link, y, eta, w, psi)
        third = -self._differenced(y, eta, w, psi)[3]
        parts = np.empty((3, len(psi), *eta.shape))
        for j in range(len(psi)):
            step = np.exp(PSI_STEP * (np.arange(len(psi)) == j))
            up, up2 = (self._differenced(y, eta, w, psi * step**k) for k in (1, 2))
            down, down2 = (self._differenced(y, eta, w, psi / step**k) for k in (1, 2))
            for part, sign in enumerate((1, 1, -1)):
                near, far = up[part] - down[part], up2[part] - down2[part]
                parts[part, j] = sign * (8 * near - far) / (12 * PSI_STEP)
        return Further(third, *parts)

    def information(self, eta: Array, w: Array, psi: Array) -> Array:
        """Return the expected information of eta, of its shape."""
        _, eta = self._domain(eta)
        if self.expected is not None:
            return self.expected(self.link, eta, w, psi)
        own = dict(zip(self.parameters, psi, strict=True))
        mu, slope, _, _ = self.link.at(eta)
        variance = self.variance(mu, *psi) * own.get("sigma", 1.0) ** 2
        return np.asarray(w * slope**2 / variance)

    def _domain(self, eta: Array) -> tuple[NDArray[np.bool_], Array]:
        """Return where eta is possible, and eta with 1 where it is not."""
        if not self.link.positive:
            return np.ones((), dtype=np.bool_), eta
        inside = eta > 0
        return inside, np.where(inside, eta, 1.0)

    def _differenced(self, y: Array, eta: Array, w: Array, psi: Array) -> list[Array]:
        def log_density(eta: Array) -> Array:
            return self.log_density(y, self.link.inverse(eta), w, *psi)

        step = self.link.step(eta)
        if self.link.name == "identity":  # eta has a unit: that of the response
            with np.errstate(all="ignore"):
                spread = 1 / np.sqrt(self.information(eta, w, psi))
            step = np.where(np.isfinite(spread) & (spread > 0), step * spread, step)
        return differenced(log_density, eta, step)


def _closed_form(distribution: Distribution) -> dict[str, Any]:
    return {
        "log_density": distribution.density,
        "expand": distribution.expand,
        "further": distribution.further,
        "expected": distribution.expected,
    }


GAUSSIAN = Family(
    "gaussian",
    IDENTITY,
    parameters=("sigma",),
    variance=observations.constant_variance,
    deviance=observations.gaussian_deviance,
    draw=observations.gaussian_draw,
    pymc=observations.gaussian_pymc,
    **_closed_form(likelihoods.GAUSSIAN),
)
"""The normal distribution; sigma is its standard deviation."""

T = Family(
    "t",
    IDENTITY,
    parameters=("sigma", "nu"),
    variance=observations.t_variance,
    deviance=observations.t_deviance,
    draw=observations.t_draw,
    pymc=observations.t_pymc,
    **_closed_form(likelihoods.T),
)
"""Student's t distribution around mu, with scale sigma and nu degrees of freedom."""

BINOMIAL = Family(
    "binomial",
    LOGIT,
    variance=observations.binomial_variance,
    log_density=likelihoods.binomial_density,
    deviance=observations.binomial_deviance,
    draw=observations.binomial_draw,
    support="proportions",
    pymc=observations.binomial_pymc,
    expand=likelihoods.binomial_expand,
    further=likelihoods.binomial_further,
    expected=likelihoods.binomial_expected,
)
"""The proportion of successes in w trials."""

BERNOULLI = replace(
    BINOMIAL,
    name="bernoulli",
    support="binary",
    draw=observations.bernoulli_draw,
    pymc=observations.bernoulli_pymc,
)
"""0 or 1; weights are not trials but multiply the log density."""

POISSON = Family(
    "poisson",
    LOG,
    support="counts",
    variance=observations.poisson_variance,
    deviance=observations.poisson_deviance,
    draw=observations.poisson_draw,
    pymc=observations.poisson_pymc,
    **_closed_form(likelihoods.POISSON),
)
"""Counts whose variance is their mean."""

NEGATIVE_BINOMIAL = Family(
    "negative_binomial",
    LOG,
    support="counts",
    parameters=("shape",),
    variance=observations.negative_binomial_variance,
    deviance=observations.negative_binomial_deviance,
    draw=observations.negative_binomial_draw,
    pymc=observations.negative_binomial_pymc,
    **_closed_form(likelihoods.NEGATIVE_BINOMIAL),
)
"""Counts with variance mu + mu^2 / shape (NB2); a large shape is the Poisson distribution."""

GAMMA = Family(
    "gamma",
    LOG,
    support="positive",
    parameters=("sigma",),
    variance=observations.gamma_variance,
    deviance=observations.gamma_deviance,
    draw=observations.gamma_draw,
    pymc=observations.gamma_pymc,
    **_closed_form(likelihoods.GAMMA),
)
"""Positive numbers with coefficient of variation sigma; the shape is w / sigma^2.

The link is the log and not, as in R, the canonical inverse: any eta then has a mean, which random
effects that are normal require, and coefficients are ratios of means.
"""

INVERSE_GAUSSIAN = Family(
    "inverse_gaussian",
    LOG,
    support="positive",
    parameters=("sigma",),
    variance=observations.inverse_gaussian_variance,
    deviance=observations.inverse_gaussian_deviance,
    draw=observations.inverse_gaussian_draw,
    pymc=observations.inverse_gaussian_pymc,
    **_closed_form(likelihoods.INVERSE_GAUSSIAN),
)
"""Positive numbers with variance sigma^2 mu^3 / w. The link is the log, as for `GAMMA`."""

BETA = Family(
    "beta",
    LOGIT,
    variance=observations.beta_variance,
    log_density=likelihoods.beta_density,
    deviance=observations.beta_deviance,
    draw=observations.beta_draw,
    support="unit",
    parameters=("phi",),
    pymc=observations.beta_pymc,
    expand=likelihoods.beta_expand,
    further=likelihoods.beta_further,
    expected=likelihoods.beta_expected,
)
"""Numbers between 0 and 1, with variance mu (1 - mu) / (1 + phi)."""

OF_REAL = (IDENTITY, LOG, INVERSE)
OF_CHANCE = (LOGIT, PROBIT, CLOGLOG, CAUCHIT)
_AVAILABLE: tuple[tuple[Family, tuple[Link, ...]], ...] = (
    (GAUSSIAN, OF_REAL),
    (BINOMIAL, OF_CHANCE),
    (BERNOULLI, OF_CHANCE),
    (POISSON, (LOG, SQRT, POSITIVE_IDENTITY)),
    (NEGATIVE_BINOMIAL, (LOG,)),
    (GAMMA, (LOG, INVERSE, POSITIVE_IDENTITY)),
    (INVERSE_GAUSSIAN, (LOG, INVERSE_SQUARED, INVERSE)),
    (BETA, (LOGIT, PROBIT, CLOGLOG)),
    (T, (IDENTITY, LOG)),
)
FAMILIES = {family.name: family for family, _ in _AVAILABLE}
_LINKS_OF = {
    family.name: {link.name: link for link in (family.link, *links)} for family, links in _AVAILABLE
}
_FAMILY_ALIASES = {
    "normal": "gaussian",
    "binary": "bernoulli",
    "negbinomial": "negative_binomial",
    "negbin": "negative_binomial",
    "negbinomial2": "negative_binomial",
    "nbinom": "negative_binomial",
    "nbinom2": "negative_binomial",
    "nb": "negative_binomial",
    "nb2": "negative_binomial",
    "wald": "inverse_gaussian",
    "betafamily": "beta",
    "betaregression": "beta",
    "student": "t",
    "studentt": "t",
    "tfamily": "t",
}
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

    Names are those of R, brms, bambi and statsmodels as well, however they are written:
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
        name = _known(family, FAMILIES, _FAMILY_ALIASES)
        if name is None:
            message = f"family={family!r} is not available. {suggestion(family, FAMILIES)}"
            raise FitError(message)
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
    own = FAMILIES.get(family.name)
    is_ours = own is not None and own.draw == family.draw
    links = _LINKS_OF[family.name] if is_ours else LINKS
    found = _known(name, links, _LINK_ALIASES)
    if found is None:
        message = f"link={name!r} is not available for the {family.name} family, which has "
        raise FitError(f"{message}{listed(links, limit=len(links))}.")
    return links[found]


def _known(name: str, names: dict[str, Any], aliases: dict[str, str]) -> str | None:
    """Return the name by which we know what is called so, however it is written."""
    plain = _plain(name)
    spellings = {_plain(known): known for known in names}
    found = spellings.get(plain, aliases.get(plain))
    return found if found in names else None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
