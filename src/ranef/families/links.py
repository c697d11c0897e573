"""Link functions eta = g(mu), their inverses and derivatives, stable far out in the tails.

Densities of positive responses are written in log mu and those of proportions in log mu and
log(1 - mu). A link says how these change with eta: each as a curve, the value and its first three
derivatives. So nothing is lost where mu itself is 1 to rounding, or 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval
from scipy import special

from ranef._typing import Array
from ranef.families.derivatives import ETA_STEP, MAX_EXPONENT, differenced

type Curve = tuple[Array, Array, Array, Array]

MAX_SQUARED_EXPONENT = 300.0  # of e: the square of exp of it is a number, too
MAX_CUBED_EXPONENT = 200.0  # of e: the third power of exp of it is a number, too, and some more
MIN_PROBIT_TAIL = 20.0  # x from which on log Phi(-x) comes from its series
MILLS_SERIES = np.array([1.0, -2.0, 10.0, -74.0, 706.0, -8162.0, 110410.0, -1708394.0, 29752066.0])
LOG_OF_ZERO = np.finfo(np.float64).min  # finite: times no trials it is 0
ONE, ZERO = np.ones(()), np.zeros(())


@dataclass(frozen=True)
class Link:
    """A link function g with eta = g(mu), elementwise on arrays.

    Attributes
    ----------
    name : str
    link : callable
        eta of mu.
    inverse : callable
        mu of eta.
    positive : bool
        Whether eta has to be positive, as for the inverse link.
    pymc : callable, optional
        `inverse` for a PyTensor variable: takes PyMC's `math` module and eta. If it is not given,
        `inverse` itself is used, which then must do with arithmetic.
    curve : callable, optional
        mu of eta and its first three derivatives; by differences of `inverse` if not given.
    logs : callable, optional
        log mu and its first three derivatives and, for a mean between 0 and 1, log(1 - mu) and
        its derivatives: a tuple of one or two curves. From `curve` if not given, which loses
        digits in the tails.
    log_value, log_slopes : callable, optional
        Of a link with mu(-eta) = 1 - mu(eta): log mu alone, and log mu with its first two
        derivatives, where that is quicker than `logs`.
    latent_variance : float, optional
        Of a probability: the variance of the variable whose distribution function it is.
    normal_mean : callable (eta, variance), optional
        The mean of mu where the linear predictor is normal around eta, if it has a closed form.
    is_sigmoid : bool
        Whether the inverse is the distribution function of a variable on a scale like that of
        log odds: default priors of a probability are then the ones of the logit.
    multiplies : str
        What exp(b) of a coefficient b multiplies, such as "odds"; empty where it has no meaning.

    Examples
    --------
    >>> gompit = Link("loglog", lambda mu: -np.log(-np.log(mu)), lambda eta: np.exp(-np.exp(-eta)))
    >>> gompit.at(np.array([0.0]))[0].round(3)
    array([0.368])
    """

    name: str
    link: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    positive: bool = False
    pymc: Callable[[Any, Any], Any] | None = None
    curve: Callable[[Array], Curve] | None = None
    logs: Callable[[Array], tuple[Curve, ...]] | None = None
    log_value: Callable[[Array], Array] | None = None
    log_slopes: Callable[[Array], tuple[Array, Array, Array]] | None = None
    latent_variance: float | None = None
    normal_mean: Callable[[Array, Array], Array] | None = None
    is_sigmoid: bool = False
    multiplies: str = ""

    @property
    def is_identity(self) -> bool:
        """Whether eta is mu, in the units of the response."""
        return self.name == "identity"

    @property
    def is_log(self) -> bool:
        """Whether eta is log mu, so that effects multiply the mean."""
        return self.name == "log"

    def step(self, eta: Array) -> Array:
        """Return the step of differences at eta, which stay where eta is possible."""
        return np.asarray(ETA_STEP * np.minimum(1.0, np.abs(eta)) if self.positive else ETA_STEP)

    def at(self, eta: Array) -> Curve:
        """Return mu and its first three derivatives in eta."""
        if self.curve is not None:
            return self.curve(eta)
        mu, first, second, third = differenced(self.inverse, eta, self.step(eta))
        return mu, first, second, third

    def log_mean(self, eta: Array) -> Curve:
        """Return log mu and its first three derivatives in eta."""
        return _log(self.at(eta)) if self.logs is None else self.logs(eta)[0]

    def log_chances(self, eta: Array) -> tuple[Curve, Curve]:
        """Return log mu and log(1 - mu), each with its first three derivatives in eta.

        Where mu is no probability both logarithms are as low as numbers go.
        """
        logs = () if self.logs is None else self.logs(eta)
        if len(logs) == 2:
            return logs[0], logs[1]
        mu, first, second, third = self.at(eta)
        possible = (mu > 0) & (mu < 1)
        mu = np.where(possible, mu, 0.5)
        A = _log((mu, first, second, third))
        B = _log((1 - mu, -first, -second, -third))
        log_mu, log_rest = (np.where(possible, curve[0], LOG_OF_ZERO) for curve in (A, B))
        return (log_mu, *A[1:]), (log_rest, *B[1:])

    def log_probabilities(self, eta: Array) -> tuple[Array, Array]:
        """Return log mu and log(1 - mu)."""
        if self.log_value is not None:
            return self.log_value(eta), self.log_value(-eta)
        A, B = self.log_chances(eta)
        return A[0], B[0]

    def graph(self, pm: Any, eta: Any) -> Any:
        """Return mu of a PyTensor variable; `pm` is the PyMC module."""
        return self.inverse(eta) if self.pymc is None else self.pymc(pm.math, eta)


def _log(curve: Curve) -> Curve:
    """Return the curve of the logarithm of a curve."""
    mu, *slopes = curve
    first, second, third = (slope / mu for slope in slopes)
    return (
        np.log(mu),
        first,
        second - first * first,
        third - 3 * first * second + 2 * first * first * first,
    )


def _itself(x: Array) -> Array:
    return x


def _exp(eta: Array) -> Array:
    return np.exp(np.minimum(eta, MAX_EXPONENT))


def _power(eta: Any, c: float) -> Any:
    return eta**c


def _power_curve(eta: Array, c: float) -> Curve:
    mu = eta**c
    first = c * mu / eta
    second = (c - 1) * first / eta
    return mu, first, second, (c - 2) * second / eta


def _power_logs(eta: Array, c: float) -> tuple[Curve]:
    first = c / eta
    second = -first / eta
    return ((c * np.log(np.abs(eta)), first, second, -2 * second / eta),)


def _identity_curve(eta: Array) -> Curve:
    return eta, ONE, ZERO, ZERO


def _log_curve(eta: Array) -> Curve:
    """Return exp; from e^200 on it stays as it is, so that its powers do not overflow."""
    mu = np.exp(np.minimum(eta, MAX_CUBED_EXPONENT))
    return mu, mu, mu, mu


def _log_logs(eta: Array) -> tuple[Curve]:
    return ((eta, ONE, ZERO, ZERO),)


def _log_graph(math: Any, eta: Any) -> Any:
    return math.exp(eta)


def _logit_curve(eta: Array) -> Curve:
    p, q = special.expit(eta), special.expit(-eta)
    pq = p * q
    return p, pq, pq * (q - p), pq * (1 - 6 * pq)


def _logit_logs(eta: Array) -> tuple[Curve, Curve]:
    e = np.exp(-np.abs(eta))
    large = 1 / (1 + e)
    small = e * large
    p, q = np.where(eta < 0, small, large), np.where(eta < 0, large, small)
    log_large = np.log1p(e)
    second = -small * large
    third = second * (q - p)
    return (
        (np.minimum(eta, 0) - log_large, q, second, third),
        (-np.maximum(eta, 0) - log_large, -p, second, third),
    )


def _logit_log_value(eta: Array) -> Array:
    odds = _logit_odds_against(eta)
    log_p = np.log1p(odds, out=odds)
    return np.minimum(eta, np.negative(log_p, out=log_p), out=log_p)


def _logit_log_slopes(eta: Array) -> tuple[Array, Array, Array]:
    odds = _logit_odds_against(eta)
    p = 1 + odds
    np.divide(1, p, out=p)
    first = odds * p
    second = np.multiply(first, p, out=p)
    log_p = np.log1p(odds, out=odds)
    log_p = np.minimum(eta, np.negative(log_p, out=log_p), out=log_p)
    return log_p, first, np.negative(second, out=second)


def _logit_odds_against(eta: Array) -> Array:
    """Return (1 - mu) / mu, in a new array: of large ones each takes longer than its numbers."""
    odds = np.negative(eta)
    return np.exp(np.minimum(odds, MAX_EXPONENT, out=odds), out=odds)


def _logit_graph(math: Any, eta: Any) -> Any:
    return math.sigmoid(eta)


def _probit_curve(eta: Array) -> Curve:
    first = np.exp(-0.5 * eta * eta) / np.sqrt(2 * np.pi)
    return special.ndtr(eta), first, -eta * first, (eta * eta - 1) * first


def _probit_logs(eta: Array) -> tuple[Curve, Curve]:
    low, high = _log_ndtr(np.abs(eta))
    up = eta > 0
    A = [np.where(up, h, l) for l, h in zip(low, high, strict=True)]
    B = [np.where(up, l, h) for l, h in zip(low, high, strict=True)]
    return (A[0], A[1], A[2], A[3]), (B[0], -B[1], B[2], -B[3])


def _log_ndtr(x: Array) -> tuple[Curve, Curve]:
    """Return the curves of log Phi at -x and at x, for x >= 0."""
    mills = special.erfcx(x / np.sqrt(2))
    density = np.exp(-0.5 * x * x)
    lower_tail = 0.5 * mills * density
    ratio = np.sqrt(2 / np.pi) / mills
    of_low = (ratio, *_ratio_slopes(-x, ratio))
    far = x > MIN_PROBIT_TAIL
    if far.any():
        tail = _log_ndtr_tail(np.where(far, -x, -MIN_PROBIT_TAIL))
        first, second, third = (np.where(far, a, b) for a, b in zip(tail, of_low, strict=True))
    else:
        first, second, third = of_low
    high = density / (np.sqrt(2 * np.pi) * (1 - lower_tail))
    second_high, third_high = _ratio_slopes(x, high)
    return (
        (np.log(0.5 * mills) - 0.5 * x * x, first, second, third),
        (np.log1p(-lower_tail), high, second_high, third_high),
    )


def _ratio_slopes(x: Array, ratio: Array) -> tuple[Array, Array]:
    """Return the first two derivatives of phi(x) / Phi(x)."""
    pull = x + ratio
    first = -ratio * pull
    return first, ratio * (pull * pull - 1 - first)


def _log_ndtr_tail(x: Array) -> tuple[Array, Array, Array]:
    """Return the first three derivatives of log Phi far below zero.

    Source: the asymptotic series of Mills' ratio (Abramowitz & Stegun 26.2.12); the coefficients
    of its logarithm's derivative are those of OEIS A000698.
    """
    t, odd = 1 / (x * x), 2 * np.arange(len(MILLS_SERIES)) + 1
    first = -x - polyval(t, MILLS_SERIES) / x
    second = -1 + t * polyval(t, MILLS_SERIES * odd)
    third = -t / x * polyval(t, MILLS_SERIES * odd * (odd + 1))
    return first, second, third


def _probit_graph(math: Any, eta: Any) -> Any:
    return 0.5 * math.erfc(-eta / np.sqrt(2))  # PyMC's own has eight digits


def _cloglog(mu: Array) -> Array:
    return np.asarray(np.log(-np.log1p(-mu)))


def _cloglog_inverse(eta: Array) -> Array:
    return np.asarray(-np.expm1(-_exp(eta)))


def _cloglog_curve(eta: Array) -> Curve:
    t = _exp(eta)
    first = np.exp(np.minimum(eta, MAX_EXPONENT) - t)
    second = (1 - t) * first
    return _cloglog_inverse(eta), first, second, (1 - t) * second - t * first


def _cloglog_logs(eta: Array) -> tuple[Curve, Curve]:
    t = np.exp(np.clip(eta, -MAX_EXPONENT, MAX_SQUARED_EXPONENT))
    mu = -np.expm1(-t)
    h = t * np.exp(-t) / mu
    s = np.minimum(t, 0.1)
    series = s * (-1 / 2 + s * (-1 / 12 + s * s * (1 / 720 - s * s / 30240)))
    u = np.where(t < 0.1, series, 1 - t - h)  # which loses digits where t is small
    second = h * u
    third = second * u - h * (t + second)
    low, high = eta + np.log(mu / t), np.log1p(-np.exp(-np.maximum(t, 0.5)))
    A = np.where(t < 0.5, low, high)
    return (A, h, second, third), (-t, -t, -t, -t)


def _cloglog_graph(math: Any, eta: Any) -> Any:
    return -math.expm1(-math.exp(eta))


def _cauchit(mu: Array) -> Array:
    return np.asarray(-1 / np.tan(np.pi * mu))


def _cauchit_inverse(eta: Array) -> Array:
    return np.asarray(np.arctan2(1.0, -eta) / np.pi)  # 1/2 + arctan(eta)/pi loses the lower tail


def _cauchit_curve(eta: Array) -> Curve:
    length = 1 + eta * eta
    first, bend = 1 / (np.pi * length), eta / length
    third = (8 * bend * bend - 2 / length) * first
    return _cauchit_inverse(eta), first, -2 * bend * first, third


def _cauchit_logs(eta: Array) -> tuple[Curve, Curve]:
    B, first, second, third = _log(_cauchit_curve(-eta))
    return _log(_cauchit_curve(eta)), (B, -first, second, -third)


def _cauchit_graph(math: Any, eta: Any) -> Any:
    return 0.5 + math.arctan(eta) / np.pi


@dataclass(frozen=True)
class _OfPower:
    """A function of a power with its exponent. Unlike a `partial` it is equal to its copies."""

    function: Callable[..., Any]
    c: float

    def __call__(self, *args: Any) -> Any:
        return self.function(*args, self.c)


def _of_power(name: str, c: float) -> Link:
    """Return the link whose inverse is a power of eta."""
    return Link(
        name,
        link=_OfPower(_power, 1 / c),
        inverse=_OfPower(_power, c),
        positive=True,
        curve=_OfPower(_power_curve, c),
        logs=_OfPower(_power_logs, c),
    )


def _itself_on_average(eta: Array, variance: Array) -> Array:  # noqa: ARG001 -- whatever it is
    return eta


def _mean_of_lognormal(eta: Array, variance: Array) -> Array:
    return _exp(eta + variance / 2)


def _mean_of_ndtr(eta: Array, variance: Array) -> Array:
    return np.asarray(special.ndtr(eta / np.sqrt(1 + variance)))


IDENTITY = Link(
    "identity",
    link=_itself,
    inverse=_itself,
    curve=_identity_curve,
    logs=_OfPower(_power_logs, 1.0),
    normal_mean=_itself_on_average,
)
POSITIVE_IDENTITY = replace(IDENTITY, positive=True)
LOG = Link(
    "log",
    np.log,
    _exp,
    pymc=_log_graph,
    curve=_log_curve,
    logs=_log_logs,
    normal_mean=_mean_of_lognormal,
    multiplies="means",
)
SQRT = replace(_of_power("sqrt", 2.0), positive=False)  # eta and -eta have the same mean
INVERSE = _of_power("inverse", -1.0)
INVERSE_SQUARED = _of_power("inverse_squared", -0.5)
LOGIT = Link(
    "logit",
    link=special.logit,
    inverse=special.expit,
    pymc=_logit_graph,
    curve=_logit_curve,
    logs=_logit_logs,
    log_value=_logit_log_value,
    log_slopes=_logit_log_slopes,
    latent_variance=np.pi**2 / 3,
    is_sigmoid=True,
    multiplies="odds",
)
PROBIT = Link(
    "probit",
    link=special.ndtri,
    inverse=special.ndtr,
    pymc=_probit_graph,
    curve=_probit_curve,
    logs=_probit_logs,
    latent_variance=1.0,
    normal_mean=_mean_of_ndtr,
    is_sigmoid=True,
)
CLOGLOG = Link(
    "cloglog",
    link=_cloglog,
    inverse=_cloglog_inverse,
    pymc=_cloglog_graph,
    curve=_cloglog_curve,
    logs=_cloglog_logs,
    latent_variance=np.pi**2 / 6,
    is_sigmoid=True,
    multiplies="hazards",
)
CAUCHIT = Link(
    "cauchit",
    link=_cauchit,
    inverse=_cauchit_inverse,
    pymc=_cauchit_graph,
    curve=_cauchit_curve,
    logs=_cauchit_logs,
    is_sigmoid=True,
)
LINKS = {
    link.name: link
    for link in (IDENTITY, LOG, LOGIT, PROBIT, CLOGLOG, CAUCHIT, INVERSE, INVERSE_SQUARED, SQRT)
}
