"""Prior distributions as frozen, validated records: names and numbers, no computation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import ClassVar, Self

from ranef.arguments import answering
from ranef.errors import FitError, suggestion

_LOCATIONS = ("mu", "lower", "upper", "value")  # numbers that need not be positive


@dataclass(frozen=True)
class Prior(ABC):
    """A prior distribution. `str` writes it with four significant digits."""

    scales: ClassVar[tuple[str, ...]] = ()  # the numbers that are multiplied with the parameter

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_number(type(self).__name__, field.name, getattr(self, field.name))

    def __str__(self) -> str:
        """Return the prior as it is written."""
        numbers = (f"{float(getattr(self, field.name)):.4g}" for field in fields(self))
        return f"{type(self).__name__}({', '.join(numbers)})"

    @property
    @abstractmethod
    def positive(self) -> bool:
        """Whether the prior is one of a positive number."""

    @property
    def proper(self) -> bool:
        """Whether the prior is a distribution: whether its density has a finite integral."""
        return True

    @property
    def moments(self) -> float:
        """The order below which the prior has moments."""
        return math.inf

    @property
    def has_mean(self) -> bool:
        """Whether the prior has a finite mean."""
        return self.moments > 1

    def times(self, s: float) -> Self:
        """Return the prior with its scale multiplied by s; the same prior where it has none.

        It is the one of s times a positive number, and else s times as wide around its location.

        Examples
        --------
        >>> print(HalfStudentT(3, 10).times(2), Normal(5, 1).times(2), Gamma(2, 0.1).times(2))
        HalfStudentT(3, 20) Normal(5, 2) Gamma(2, 0.05)
        """
        return replace(self, **{name: getattr(self, name) * s for name in self.scales})


@dataclass(frozen=True)
class Normal(Prior):
    """Normal distribution with mean `mu` and standard deviation `sigma`.

    Raises
    ------
    FitError
        Here and for all priors: if a number is not finite, or a scale or shape not positive.

    Examples
    --------
    >>> print(Normal(250, 100))
    Normal(250, 100)
    """

    mu: float
    sigma: float
    scales = ("sigma",)
    positive = False


@dataclass(frozen=True)
class StudentT(Prior):
    """Student's t distribution with `nu` degrees of freedom, location `mu` and scale `sigma`."""

    nu: float
    mu: float
    sigma: float
    scales = ("sigma",)
    positive = False

    @property
    def moments(self) -> float:
        """Its degrees of freedom."""
        return self.nu


@dataclass(frozen=True)
class HalfNormal(Prior):
    """Normal(0, `sigma`), restricted to positive values."""

    sigma: float
    scales = ("sigma",)
    positive = True


@dataclass(frozen=True)
class HalfStudentT(Prior):
    """StudentT(`nu`, 0, `sigma`), restricted to positive values."""

    nu: float
    sigma: float
    scales = ("sigma",)
    positive = True

    @property
    def moments(self) -> float:
        """Its degrees of freedom."""
        return self.nu


@dataclass(frozen=True)
class HalfCauchy(Prior):
    """Cauchy distribution around 0 with scale `beta`, restricted to positive values."""

    beta: float
    scales = ("beta",)
    positive = True
    moments = 1.0


@dataclass(frozen=True)
class Exponential(Prior):
    """Exponential distribution with mean `scale`, which is 1 / rate.

    Examples
    --------
    What brms writes as exponential(0.1), by its rate:

    >>> print(Exponential(scale=10))
    Exponential(10)
    """

    scale: float
    scales = ("scale",)
    positive = True


@dataclass(frozen=True)
class Gamma(Prior):
    """Gamma distribution with shape `alpha` and rate `beta`; its mean is alpha / beta."""

    alpha: float
    beta: float
    positive = True

    def times(self, s: float) -> Self:
        """Return the prior of s times the number: its rate is divided."""
        return replace(self, beta=self.beta / s)


@dataclass(frozen=True)
class InverseGamma(Prior):
    """Distribution of 1 / x where x ~ Gamma(`alpha`, `beta`); its mean is beta / (alpha - 1)."""

    alpha: float
    beta: float
    scales = ("beta",)
    positive = True

    @property
    def moments(self) -> float:
        """Its `alpha`."""
        return self.alpha


@dataclass(frozen=True)
class LogNormal(Prior):
    """Distribution of exp(x) where x ~ Normal(`mu`, `sigma`)."""

    mu: float
    sigma: float
    positive = True

    def times(self, s: float) -> Self:
        """Return the prior of s times the number: its logarithm is moved."""
        return replace(self, mu=self.mu + math.log(s))


@dataclass(frozen=True)
class Uniform(Prior):
    """Uniform distribution between `lower` and `upper`."""

    lower: float
    upper: float
    scales = ("lower", "upper")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lower >= self.upper:
            raise FitError(
                f"Uniform: lower must be below upper, got lower={self.lower}, upper={self.upper}"
            )

    @property
    def positive(self) -> bool:
        """Whether no value below zero is allowed."""
        return self.lower >= 0


@dataclass(frozen=True)
class LKJ(Prior):
    """Density of a correlation matrix R proportional to det(R)^(`eta` - 1).

    `eta` = 1 is uniform over correlation matrices, larger values favour small correlations.
    Source: Lewandowski, Kurowicka & Joe (2009), J. Multivariate Analysis 100, 1989-2001.
    """

    eta: float
    positive = False


@dataclass(frozen=True)
class Flat(Prior):
    """The improper prior with density 1: on the real line, for a standard deviation above 0.

    Examples
    --------
    >>> print(Flat())
    Flat()
    """

    positive = True  # where its parameter is
    proper = False
    moments = 0.0


@dataclass(frozen=True)
class Constant(Prior):
    """A parameter that is known to be `value`.

    Examples
    --------
    The residual standard deviation where the weights are known precisions, 1 / s^2:

    >>> precisions = {"sigma": Constant(1)}
    """

    value: float

    @property
    def positive(self) -> bool:
        """Whether the value is above zero."""
        return self.value > 0


@dataclass(frozen=True)
class Relative(Prior):
    """A prior of sd / sigma, for the standard deviation of random effects relative to sigma.

    Raises
    ------
    FitError
        If `prior` is not one of a positive number.

    Examples
    --------
    >>> print(Relative(HalfNormal(1)))
    sigma * HalfNormal(1)
    """

    prior: Prior
    positive = True

    def __post_init__(self) -> None:
        prior: object = self.prior
        if isinstance(prior, Relative) or not (isinstance(prior, Prior) and prior.positive):
            shown = prior if isinstance(prior, Prior) else repr(prior)
            raise FitError(
                "Relative: prior must be one of a positive number, such as HalfNormal(1), "
                f"got {shown}"
            )

    def __str__(self) -> str:
        return f"sigma * {self.prior}"

    @property
    def proper(self) -> bool:
        """Whether the prior of the ratio is proper."""
        return self.prior.proper

    def times(self, s: float) -> Self:
        """Return the prior of a ratio s times as large."""
        return replace(self, prior=self.prior.times(s))


def _check_number(record: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise FitError(f"{record}: {name} must be a finite number, got {value!r}")
    if name not in _LOCATIONS and value <= 0:
        raise FitError(f"{record}: {name} must be positive, got {value}")


for kind in Prior.__subclasses__():
    answering(kind)


def prior_of(form: tuple[str, tuple[float, ...]], *scale: float) -> Prior:
    """Return a prior by its name and numbers, as a family writes the priors of its parameters.

    Parameters
    ----------
    form : tuple of (str, tuple of float)
        The name and the numbers.
    scale : float, optional
        One more number, which comes from the data.

    Examples
    --------
    >>> print(prior_of(("Gamma", (2, 0.1))), prior_of(("HalfStudentT", (3,)), 8.5))
    Gamma(2, 0.1) HalfStudentT(3, 8.5)
    """
    name, numbers = form
    classes = {prior.__name__: prior for prior in Prior.__subclasses__()}
    if name not in classes:
        raise FitError(f"a family has a prior called {name!r}. {suggestion(name, classes)}")
    return classes[name](*numbers, *scale)
