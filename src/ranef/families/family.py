"""A response distribution with its link, and everything that other rooms ask of it.

Notation: mu is the mean, eta = g(mu) the linear predictor, w the prior weight of a row (for a
binomial response its number of trials, y being the proportion of successes), psi the parameters
that a distribution has besides its mean, such as sigma; L the log density, with derivatives L1, L2
and L3.

A distribution is written where it is simplest: in mu (normal, t), in lambda = log mu (counts and
positive responses), or in log mu and log(1 - mu) (proportions). There it has three derivatives, and
the link's curve carries them to eta by the chain rule. For counts and positive responses with the
log link, eta is lambda itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ranef._typing import Array, Flags
from ranef.errors import FitError, listed
from ranef.families.derivatives import (
    Apart,
    Distribution,
    Expansion,
    Further,
    differenced,
    slopes_of,
    with_constant,
)
from ranef.families.links import IDENTITY, LOG, LOGIT, Link

__all__ = ["Family", "Link"]

type PriorForm = tuple[str, tuple[float, ...]]  # the name of a prior in `ranef.priors`, its numbers

MAX_DRAWN_MEAN = 1e12  # of a count that is drawn as such; NumPy draws none beyond 1e18
MIN_POSITIVE = np.finfo(np.float64).tiny  # of responses above 0
MAX_PROPORTION = 1 - 2.0**-53  # of responses below 1


@dataclass(frozen=True)
class Support:
    """The range of responses and of their means.

    Attributes
    ----------
    lowest, highest : float
        The ends of the range of a mean.
    least, most : float
        The ends of the means that responses can be drawn with, where rounding and overflow do not
        move responses out of the range.
    is_discrete : bool
        Whether responses are counts or classes; they can then be at the ends of the range.
    """

    lowest: float = -math.inf
    highest: float = math.inf
    is_discrete: bool = False
    least: float = -math.inf
    most: float = math.inf


SUPPORTS = {
    "real": Support(),
    "positive": Support(0.0, least=1e-300, most=1e300),
    "counts": Support(0.0, is_discrete=True, least=0.0, most=MAX_DRAWN_MEAN),
    "proportions": Support(0.0, 1.0, is_discrete=True),
    "binary": Support(0.0, 1.0, is_discrete=True),
    "unit": Support(0.0, 1.0, least=1e-300, most=MAX_PROPORTION),
    "ordered": Support(0.0, is_discrete=True),
}

# The links that own parameters can have: where a search starts, a prior for want of another, and
# what the parameter is
_OWN_LINKS: dict[Link, tuple[float, PriorForm, str]] = {
    IDENTITY: (0.0, ("Normal", (0, 2.5)), "number"),
    LOG: (5.0, ("LogNormal", (0, 2.5)), "positive number"),
    LOGIT: (0.5, ("Uniform", (0, 1)), "number between 0 and 1"),
}


@dataclass(frozen=True)
class OwnParameter:
    """A parameter that a distribution has besides its mean, and its priors in the named sets.

    Attributes
    ----------
    name : str
    default : tuple of (str, tuple of float), optional
        Its prior by default: the name of a prior, and its numbers. For "sigma" the prior has a
        scale that comes from the data, as one more number. If it is not given: Normal(0, 2.5),
        LogNormal(0, 2.5), or uniform between 0 and 1, as the link has it.
    brms, rstanarm : tuple of (str, tuple of float), optional
        Its prior in these packages, where they have one.
    elsewhere : str
        Why these packages have no prior: the parameter that they have instead.
    spread : {"response", "mean"}
        For "sigma": how spread responses are at its scale, as the response is or as its mean.
    link : Link
        From the parameter to the real line, on which it is searched for: `links.LOG` of a positive
        number, `links.LOGIT` of one between 0 and 1, `links.IDENTITY` of any number.
    limit : str, optional
        The simpler distribution that ever larger values lead to. The likelihood then does not
        vanish there, and the parameter has a posterior mean only where its prior has one.
    start : float, optional
        Where the search starts. If it is not given: 5, 1/2 or 0, as the link has it.

    Raises
    ------
    FitError
        If the link is another one, or does not take the start.
    """

    name: str
    default: PriorForm = ("", ())
    brms: PriorForm | None = None
    rstanarm: PriorForm | None = None
    elsewhere: str = ""
    spread: Literal["response", "mean"] = "response"
    link: Link = LOG
    start: float = math.nan
    limit: str = ""

    def __post_init__(self) -> None:
        if self.link not in _OWN_LINKS:
            names = listed([link.name for link in _OWN_LINKS], "or")
            message = f"the parameter {self.name!r} has link={self.link!r}, expected a Link: "
            raise FitError(message + names + ".")
        start, default, _ = _OWN_LINKS[self.link]
        object.__setattr__(self, "default", self.default if self.default[0] else default)
        object.__setattr__(self, "start", start if math.isnan(self.start) else self.start)
        if not self.takes(self.start):
            message = f"the parameter {self.name!r} is a {self.kind}, and cannot start at "
            raise FitError(f"{message}{self.start!r}.")

    @property
    def is_real(self) -> bool:
        """Whether the parameter can be any number."""
        return self.link.is_identity

    @property
    def kind(self) -> str:
        """What numbers the parameter can be, in words."""
        return _OWN_LINKS[self.link][2]

    def takes(self, value: object) -> bool:
        """Whether the parameter can have a value, which is a number to calculate with."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            return False
        number = float(value)
        with np.errstate(all="ignore"):
            is_inside = bool(np.isfinite(self.link.link(np.array(number))))
        return is_inside and (number == 0 or 1e-100 < abs(number) < 1e100)


SIGMA = OwnParameter("sigma", default=("HalfStudentT", (3,)), start=1.0)


@dataclass(frozen=True)
class Missing:
    """A function that a family does not have; it says so where it is needed."""

    field: str
    arguments: str
    family: str = ""

    def __call__(self, *_: object) -> Any:
        """Refuse."""
        raise FitError(
            f"this needs `{self.field}`, which the {self.family} family does not have: make it "
            f"with a function {self.field}({self.arguments})."
        )


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
    deviance : callable (y, mu, *psi), optional
        The unit deviance, 2 sigma^2 (log f(y | y) - log f(y | mu)) for w = 1, with sigma = 1 for a
        distribution without it. Without it there are no deviance residuals.
    draw : callable (rng, mu, w, *psi), optional
        Responses drawn with a `numpy.random.Generator`. Weights that multiply a log density are no
        part of a distribution to draw from. Without it nothing can be simulated.
    support : str
        The range of responses: "real", "positive", "counts", "proportions" (of a number of
        trials), "binary", "unit" (strictly between 0 and 1), "ordered" (classes, numbered from 0).
    parameters : tuple of str
        The parameters psi besides the mean: "sigma" is a scale, with the variance proportional to
        its square; any other name is the distribution's own.
    pymc : callable (pm, name, link, eta, w, *psi, observed=, dims=), optional
        Adds the likelihood to the PyMC model in whose context it is called; `pm` is the module and
        eta the linear predictor. Without it the family cannot be sampled.
    expand : callable (link, y, eta, w, psi), optional
        log f and its derivatives in eta in closed form, an `Expansion`; by differences of
        `log_density` if it is not given.
    further : callable (link, y, eta, w, psi), optional
        The higher derivatives, a `Further`.
    expected : callable (link, eta, w, psi), optional
        The expected information of eta; (d E(y) / d eta)^2 / Var(y) if it is not given.
    response_mean : callable (mu, *psi), optional
        The mean of the response, if it is not mu: mu may be a location, or the mean of a part.
    latent_variance : float, optional
        Where a response says which interval a latent variable with location eta falls in: the
        variance of that variable, given eta. Default priors are then the ones of a logit link.
    own_parameters : tuple of OwnParameter, optional
        Facts about `parameters`: their links to the real line (they are positive by default), where
        a search starts, and their default priors.
    parameters_of : callable (y), optional
        Where the number of own parameters depends on the responses, as with ordered classes: the
        records of all parameters, a tuple of OwnParameter.
    links : tuple of Link, optional
        The links that can be asked for by name; all if not given.
    aliases : tuple of str, optional
        Names in other packages, small letters and digits only.
    pins : tuple of str, optional
        The names of links with which each row pins its linear predictor down, but where there is
        separation: its likelihood falls to zero fast enough that fixed effects may have flat
        priors. A family made from another by `replace`, with another log density, has its own.
    heavy_tailed : bool, optional
        Whether outliers are to be expected, so that default priors have their location and scale
        from median and median absolute deviation of the response.

    Notes
    -----
    The weight w divides the variance of a distribution with a "sigma", is the number of trials of
    a binomial response, and otherwise multiplies the log density: w rows in one.

    Raises
    ------
    FitError
        If the support is none of these, or a field has another type than it should.

    Examples
    --------
    >>> from ranef.families.links import LOG
    >>> geometric = Family(
    ...     "geometric",
    ...     LOG,
    ...     variance=lambda mu: mu + mu**2,
    ...     log_density=lambda y, mu, w: w * (y * np.log(mu) - (y + 1) * np.log1p(mu)),
    ...     draw=lambda rng, mu, w: rng.geometric(1 / (1 + mu)) - 1.0,
    ...     support="counts",
    ... )
    >>> geometric.mean(np.log([0.5, 2.0])).round(6), geometric.is_discrete
    (array([0.5, 2. ]), True)
    """

    name: str
    link: Link
    variance: Callable[..., Array]
    log_density: Callable[..., Array]
    deviance: Callable[..., Array] = Missing("deviance", "y, mu, *psi")
    draw: Callable[..., Array] = Missing("draw", "rng, mu, w, *psi")
    support: str = "real"
    parameters: tuple[str, ...] = ()
    pymc: Callable[..., Any] | None = None
    expand: Callable[..., Expansion] | None = None
    further: Callable[..., Further] | None = None
    expected: Callable[..., Array] | None = None
    response_mean: Callable[..., Array] | None = None
    latent_variance: float | None = None
    own_parameters: tuple[OwnParameter, ...] = ()
    parameters_of: Callable[[Array], tuple[OwnParameter, ...]] | None = None
    links: tuple[Link, ...] = ()
    aliases: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    heavy_tailed: bool = False

    def __str__(self) -> str:
        return f"{self.name} family with {self.link.name} link"

    def __repr__(self) -> str:
        return f"<{self}>"

    def __post_init__(self) -> None:
        self._check_fields()
        for field, function in (("deviance", self.deviance), ("draw", self.draw)):
            if isinstance(function, Missing):  # which is to say whose it is
                object.__setattr__(self, field, replace(function, family=self.name))
        if self.support not in SUPPORTS:
            message = f"the {self.name} family has support={self.support!r}, expected one of "
            raise FitError(f"{message}{listed(SUPPORTS, 'or', limit=len(SUPPORTS))}.")

    def _check_fields(self) -> None:
        """Refuse fields that are not a link, a function or a name as their annotations say."""
        given: Any = self  # whatever the annotations say
        if not isinstance(given.name, str):
            raise FitError(f"the name of a family is text, got {self.name!r}.")
        if not isinstance(given.link, Link):
            message = f"the {self.name} family has link={self.link!r}, expected a Link: one of "
            raise FitError(f"{message}`ranef.links`, such as `rf.links.LOG`, or your own.")
        optional = ("pymc", "expand", "further", "expected", "response_mean", "parameters_of")
        for field in ("variance", "log_density", "deviance", "draw", *optional):
            function = getattr(self, field)
            if not callable(function) and (function is not None or field not in optional):
                raise FitError(f"the {self.name} family has {field}={function!r}, not a function.")
        names: object = self.parameters
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            message = f"the {self.name} family has parameters={names!r}, expected a tuple of names."
            raise FitError(message)
        reserved = [n for n in names if n == "beta" or n.startswith(("b_", "sd_", "corr_"))]
        if reserved:
            message = (
                f"the {self.name} family cannot call a parameter {listed(reserved)}: a variable "
            )
            raise FitError(message + "of every posterior has such a name.")

    @property
    def has_sigma(self) -> bool:
        """Whether there is a scale parameter sigma."""
        return "sigma" in self.parameters

    @property
    def is_linear(self) -> bool:
        """Whether the model is a linear one: a normal response with identity link."""
        distribution = getattr(self.expand, "__self__", None)
        is_normal = isinstance(distribution, Distribution) and distribution.is_normal
        return is_normal and self.link.is_identity

    @property
    def range(self) -> Support:
        """The range of responses, in numbers."""
        return SUPPORTS[self.support]

    @property
    def range_of_mu(self) -> Support:
        """The range of mu: the real line, if mu is not the mean."""
        return self.range if self.response_mean is None else SUPPORTS["real"]

    @property
    def is_discrete(self) -> bool:
        """Whether responses are counts or classes."""
        return self.range.is_discrete

    @property
    def is_real(self) -> bool:
        """Whether responses can be any number."""
        return not math.isfinite(self.range.lowest)

    @property
    def is_bounded(self) -> bool:
        """Whether the mean of a response is a probability, or like one between 0 and 1."""
        return math.isfinite(self.range.highest)

    @property
    def has_classes(self) -> bool:
        """Whether a response is a success or a failure, or several of them."""
        return self.is_discrete and self.is_bounded

    @property
    def has_order(self) -> bool:
        """Whether a response is one of several ordered classes, numbered from 0."""
        return self.support == "ordered"

    @property
    def has_trials(self) -> bool:
        """Whether a response is a proportion of successes, with a number of trials for weight."""
        return self.support == "proportions"

    @property
    def reachable_ends(self) -> tuple[float, ...]:
        """The ends of the range of mu that responses can be at."""
        ends = self.range.lowest, self.range.highest
        return tuple(filter(math.isfinite, ends)) if self.is_discrete else ()

    def parameter(self, name: str) -> OwnParameter:
        """Return the record of one of `parameters`."""
        records = {parameter.name: parameter for parameter in (SIGMA, *self.own_parameters)}
        return records.get(name) or OwnParameter(name)

    @cached_property
    def records(self) -> tuple[OwnParameter, ...]:
        """The record of each of `parameters`."""
        return tuple(map(self.parameter, self.parameters))

    def fitted_to(self, y: Array) -> Family:
        """Return the family with the own parameters that it has for these responses."""
        if self.parameters_of is None:
            return self
        records = self.parameters_of(y)
        names = tuple(record.name for record in records)
        return replace(self, parameters=names, own_parameters=records)

    @property
    def mean_suffices(self) -> bool:
        """Whether of responses with one linear predictor the weighted mean says all about it."""
        return isinstance(self.expand, Apart) and self.expand.of_means

    @property
    def rows_add_up(self) -> bool:
        """Whether a row with the weights of equal rows says all that they say of the parameters.

        A weight that is a number of trials, or multiplies a log density, adds up; one that divides
        a variance does not.
        """
        return self.mean_suffices or not (self.has_sigma or self.has_trials)

    def linked(self, psi: Sequence[Any] | Array) -> Array:
        """Return own parameters through their links, on the real line, shape (r, ...)."""
        return np.array([own.link.link(x) for own, x in zip(self.records, psi, strict=True)])

    def unlinked(self, linked: Sequence[Any] | Array) -> Array:
        """Return the own parameters of numbers on the real line, shape (r, ...)."""
        pairs = zip(self.records, linked, strict=True)
        return np.array([own.link.inverse(x) for own, x in pairs]).reshape(np.shape(linked))

    def link_slopes(self, psi: Sequence[Any] | Array) -> Array:
        """Return the derivatives of own parameters by themselves on the real line, shape (r,)."""
        at = zip(self.records, self.linked(psi), strict=True)
        return np.array([own.link.at(x)[1] for own, x in at])

    def mean(self, eta: Array, psi: Sequence[Any] | Array = ()) -> Array:
        """Return the mean of responses.

        Parameters
        ----------
        eta : ndarray
        psi : sequence, of the length of `parameters`
            Not needed where mu is the mean.
        """
        mu = self.link.inverse(eta)
        return mu if self.response_mean is None else self.response_mean(mu, *psi)

    @property
    def mean_is_eta(self) -> bool:
        """Whether the mean of a response is its linear predictor."""
        return self.response_mean is None and self.link.is_identity

    def unit_variance(self, mu: Array, psi: Sequence[Any] | Array) -> Array:
        """Return the variance of a response of prior weight one, or of one trial."""
        parameters = dict(zip(self.parameters, psi, strict=True))
        return np.asarray(self.variance(mu, *psi) * parameters.get("sigma", 1.0) ** 2)

    def response_variance(self, mu: Array, w: Array, psi: Sequence[Any] | Array) -> Array:
        """Return the variance of responses; weights that multiply a log density change none."""
        variance = self.unit_variance(mu, psi)
        return variance / w if self.has_sigma or self.has_trials else variance

    def constant(self, y: Array, w: Array) -> Array:
        """Return the part of log f that `expansion` can be given; zero where none is apart."""
        return self.expand.constant(y, w) if isinstance(self.expand, Apart) else np.zeros(())

    def expansion(
        self, y: Array, eta: Array, w: Array, psi: Array, constant: Array | None = None
    ) -> Expansion:
        """Return log f and its first two derivatives in eta.

        Where eta is not positive although the link needs it to be, log f is -inf and the
        derivatives are numbers without a meaning.

        Parameters
        ----------
        y, w : ndarray, shape (n,)
        eta : ndarray, shape (n,) or (..., n)
        psi : ndarray, shape (r,)
        constant : ndarray, shape (n,), optional
            What `constant` returns, where it is at hand.
        """
        inside, eta = self._domain(eta)
        if constant is not None and isinstance(self.expand, Apart):
            expansion = self.expand.kernel(self.link, y, eta, w, psi).plus(constant)
        elif self.expand is not None:
            expansion = self.expand(self.link, y, eta, w, psi)
        else:
            step = self._step(eta, w, psi)
            value, first, second, _ = self._differenced(y, eta, w, psi, step)
            expansion = Expansion(value, first, -second)
        if inside.all():
            return expansion
        return replace(expansion, value=np.where(inside, expansion.value, -np.inf))

    def log_density_at(
        self, y: Array, eta: Array, w: Array, psi: Array, constant: Array | None = None
    ) -> Array:
        """Return log f at linear predictors: the value of `expansion`."""
        if not isinstance(self.expand, Apart) or self.expand.value is None:
            return self.expansion(y, eta, w, psi, constant).value
        inside, eta = self._domain(eta)
        constant = self.constant(y, w) if constant is None else constant
        value = with_constant(self.expand.value(self.link, y, eta, w, psi), constant)
        return np.where(inside, value, -np.inf) if not inside.all() else value

    def further_expansion(self, y: Array, eta: Array, w: Array, psi: Array) -> Further:
        """Return the third derivative in eta, and the derivatives in the links of psi."""
        _, eta = self._domain(eta)
        if self.further is not None:
            return self.further(self.link, y, eta, w, psi)
        step = self._step(eta, w, psi)
        third = -self._differenced(y, eta, w, psi, step)[3]

        def at(linked: Array) -> Array:
            return np.array(self._differenced(y, eta, w, self.unlinked(linked), step)[:3])

        by_psi = slopes_of(at, self.linked(psi)).reshape(len(psi), 3, *eta.shape)
        value, score, curvature = by_psi.swapaxes(0, 1)
        return Further(third, value, score, -curvature)

    def information(self, eta: Array, w: Array, psi: Array) -> Array:
        """Return the expected information of eta, of its shape."""
        _, eta = self._domain(eta)
        if self.expected is not None:
            return self.expected(self.link, eta, w, psi)
        mu, slope, _, _ = self.link.at(eta)
        if self.response_mean is not None:
            slope = differenced(lambda at: self.mean(at, psi), eta, self.link.step(eta))[1]
        return np.asarray(w * slope**2 / self.unit_variance(mu, psi))

    def _domain(self, eta: Array) -> tuple[Flags, Array]:
        """Return where eta is possible, and eta with 1 where it is not."""
        if not self.link.positive:
            return np.ones((), dtype=np.bool_), eta
        inside = eta > 0
        return inside, np.where(inside, eta, 1.0)

    def _step(self, eta: Array, w: Array, psi: Array) -> Array:
        """Return the step of differences in eta."""
        step = self.link.step(eta)
        if not self.link.is_identity:
            return step
        with np.errstate(all="ignore"):  # eta has the unit of the response
            spread = 1 / np.sqrt(self.information(eta, w, psi))
        return np.where(np.isfinite(spread) & (spread > 0), step * spread, step)

    def _differenced(self, y: Array, eta: Array, w: Array, psi: Array, step: Array) -> list[Array]:
        def log_density(eta: Array) -> Array:
            return self.log_density(y, self.link.inverse(eta), w, *psi)

        return differenced(log_density, eta, step)


@dataclass(frozen=True)
class PymcForm:
    """The likelihood of a distribution in PyMC.

    Attributes
    ----------
    kind : str
        The distribution's name in PyMC.
    parameters : callable (pm, link, eta, w, *psi)
        Its parameters there, by name.
    is_count : bool
        Whether responses have to be integers.
    multiplies : bool
        Whether weights multiply the log density. PyMC has no weights; a potential with them counts
        in all that uses the density, but PyMC itself cannot draw new observations from it.
    of_means : callable (pm, y, **parameters), optional
        The log density with weights, where it takes means of responses too: then up to a constant.
    """

    kind: str
    parameters: Callable[..., dict[str, Any]]
    is_count: bool = False
    multiplies: bool = False
    of_means: Callable[..., Any] | None = None

    def __call__(
        self,
        pm: Any,
        name: str,
        link: Link,
        eta: Any,
        w: Array,
        *psi: Any,
        observed: Any,
        dims: Any,
    ) -> Any:
        """Add the likelihood to the PyMC model in whose context this is called."""
        y = np.round(observed).astype(np.int64) if self.is_count else observed
        kind, parameters = getattr(pm, self.kind), self.parameters(pm, link, eta, w, *psi)
        if self.multiplies and (w != 1).any():
            if self.of_means is None:
                return pm.Potential(name, w * pm.logp(kind.dist(**parameters), y), dims=dims)
            return pm.Potential(name, w * self.of_means(pm, observed, **parameters), dims=dims)
        return kind(name, observed=y, dims=dims, **parameters)


def over_root(sigma: Any, w: Array) -> Any:
    """Return the scale of rows with prior weights in a PyMC model."""
    return sigma if (w == 1).all() else sigma * (1 / np.sqrt(w))


def inside(pm: Any, mu: Any) -> Any:
    """Keep a mean off 0 and 1, where a gradient would not be a number."""
    return pm.math.clip(mu, MIN_POSITIVE, MAX_PROPORTION)
