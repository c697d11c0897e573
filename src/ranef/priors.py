"""Who gets which prior: default scales taken from a design, and what the user gave instead.

The defaults are proper and follow the data: shifting or rescaling the response or a predictor
shifts or rescales them with it. To that end they hold for the coefficients at centred predictors.
A product or power (`a:b`, `I(x^2)`) is centred at what its predictors leave of it.
A prior that the user gives holds for the coefficient as the user sees it, uncentred and unscaled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ranef.centring import Change, centring, lower_columns, moved_coefs
from ranef.design import Design, RandomTerm
from ranef.distributions import (
    LKJ,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Prior,
    StudentT,
    Uniform,
)
from ranef.errors import DataError, FitError, suggestion

__all__ = [
    "LKJ",
    "Exponential",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "HalfStudentT",
    "InverseGamma",
    "LogNormal",
    "Normal",
    "Prior",
    "PriorRow",
    "PriorSetting",
    "Priors",
    "StudentT",
    "TermPriors",
    "Uniform",
    "resolve",
]

_PRINTED = re.compile(r"(?P<parameter>[^\[]+)\[(?P<coef>.+)\]")  # as in print(model)
AT_MEAN = "at the mean of the predictors"

type PriorSetting = str | Mapping[str, Prior | Mapping[str, Prior]]


@dataclass(frozen=True)
class PriorRow:
    """One line of the table of priors: whose prior it is, the prior, and where it holds."""

    parameter: str
    coef: str
    prior: Prior
    note: str


@dataclass(frozen=True)
class TermPriors:
    """The priors of one random-effects term with k coefficients.

    Attributes
    ----------
    label : str
        Label of the term.
    coefs : tuple of str
        Names of the k coefficients.
    sd : tuple of Prior
        Prior of the standard deviation of each coefficient.
    corr : LKJ or None
        Prior of the correlation matrix; None for a diagonal or scalar term.
    change : ndarray, shape (k, k), or None
        Where `sd` and `corr` hold for coefficients at centred columns: the matrix that turns
        those into the coefficients as the user sees them.
    """

    label: str
    coefs: tuple[str, ...]
    sd: tuple[Prior, ...]
    corr: LKJ | None
    change: Change = field(default=None, compare=False)

    @property
    def centred(self) -> bool:
        """Whether the priors hold for coefficients at centred columns."""
        return self.change is not None

    def rows(self) -> tuple[PriorRow, ...]:
        """Return the rows of the table of priors."""
        moved = moved_coefs(self.coefs, self.change)
        notes = [AT_MEAN if coef in moved else "" for coef in self.coefs]
        sds = zip(self.coefs, self.sd, notes, strict=True)
        rows = [PriorRow(f"sd_{self.label}", coef, sd, note) for coef, sd, note in sds]
        if self.corr is not None:
            note = AT_MEAN if self.centred else ""
            rows.append(PriorRow(f"corr_{self.label}", "", self.corr, note))
        return tuple(rows)


@dataclass(frozen=True)
class Priors:
    """A prior for every parameter of one design.

    Attributes
    ----------
    fixed : tuple of str
        Names of the p fixed effects.
    beta : tuple of Prior
        Prior of each fixed effect.
    change : ndarray, shape (p, p), or None
        Where the priors hold for coefficients at centred predictors: the matrix that turns those
        into the fixed effects as the user sees them.
    sigma : Prior
        Prior of the residual standard deviation.
    terms : tuple of TermPriors
        The priors of the random-effects terms, in the order of the design.
    """

    fixed: tuple[str, ...]
    beta: tuple[Prior, ...]
    sigma: Prior
    terms: tuple[TermPriors, ...]
    change: Change = field(default=None, compare=False)

    @property
    def centred(self) -> bool:
        """Whether the priors hold for coefficients at centred predictors."""
        return self.change is not None

    @property
    def intercept(self) -> Prior | None:
        """Prior of the intercept; None if there is no intercept."""
        return dict(zip(self.fixed, self.beta, strict=True)).get("Intercept")

    @property
    def slopes(self) -> dict[str, Prior]:
        """Priors of the other fixed effects, by name."""
        named = zip(self.fixed, self.beta, strict=True)
        return {name: prior for name, prior in named if name != "Intercept"}

    def rows(self) -> tuple[PriorRow, ...]:
        """Return the rows of the table of priors: fixed effects, sigma, then term by term."""
        moved = moved_coefs(self.fixed, self.change)
        rows = [
            PriorRow("beta", coef, prior, AT_MEAN if coef in moved else "")
            for coef, prior in zip(self.fixed, self.beta, strict=True)
        ]
        rows.append(PriorRow("sigma", "", self.sigma, ""))
        return tuple(rows + [row for term in self.terms for row in term.rows()])


def resolve(design: Design, priors: PriorSetting = "default") -> Priors:
    """Give every parameter of a design its prior.

    With z = y - offset, s_z its standard deviation, s_j that of a numeric column (1 for an
    intercept or indicator) and w the weights, the defaults are

    =====================  ================================================
    intercept              Normal(mean z, 2.5 s_z), at centred predictors
    other fixed effects    Normal(0, 2.5 s_z / s_j)
    sigma                  HalfStudentT(3, s_z sqrt(mean w))
    sd of a coefficient    HalfStudentT(3, s_z / s_j)
    correlations           LKJ(2)
    =====================  ================================================

    In a correlated term with an intercept and numeric slopes the defaults hold for the
    coefficients at centred numeric columns.

    Parameters
    ----------
    design : Design
        The model's matrices and names.
    priors : str or dict
        "default", or a dict whose keys are "Intercept", "beta" (all other fixed effects),
        "sigma", "sd", "corr", the name of a fixed effect, "sd_<term>" or "corr_<term>". The more
        specific key wins; what is not named keeps its default. A key may also be as the model
        prints it, "sd_Subject[Days]". The values are prior records;
        those of "beta", "sd" and "sd_<term>" may also be dicts from coefficient to record.
        A prior given for the intercept holds at zero predictors, as do all priors of a term of
        which the sds or correlations were given one; the default sd of such a term's intercept
        is then as much wider as the slopes make it there.

    Returns
    -------
    Priors
        The complete set.

    Raises
    ------
    FitError
        A name that the model does not have, or a prior that does not fit its parameter.
    DataError
        A default is needed, but the response is constant and gives no scale.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.Model("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy")).design
    >>> for row in resolve(sleep, {"Days": Normal(0, 20), "sd": HalfNormal(50)}).rows():
    ...     print(f"{row.parameter:11}{row.coef:10}{row.prior} {row.note}".rstrip())
    beta       Intercept Normal(298.5, 140.8) at the mean of the predictors
    beta       Days      Normal(0, 20)
    sigma                HalfStudentT(3, 56.33)
    sd_Subject Intercept HalfNormal(50)
    """
    given = _given(design, priors)
    has_slopes = "Intercept" in design.fixed and len(design.fixed) > 1
    centred = has_slopes and given.first("Intercept") is None
    below = lower_columns(design.origins)
    change = centring(design.X, below) if centred else None
    columns = design.X if change is None else design.X @ change
    return Priors(
        fixed=design.fixed,
        beta=tuple(_beta_prior(design, given, columns, j) for j in range(len(design.fixed))),
        change=change,
        sigma=given.first("sigma") or _default_sigma(design),
        terms=tuple(_term_priors(design, given, term) for term in design.terms),
    )


# The user's dict: what its keys can be, whether its values fit, and which of them is nearest


@dataclass(frozen=True)
class _Target:
    """What a key of the user's dict stands for; its value may be a dict over `coefs`."""

    kind: Literal["coefficient", "standard deviation", "correlation matrix"]
    coefs: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Given:
    """The user's records by place: a key, or a key and a coefficient."""

    records: Mapping[tuple[str, ...], Prior]
    targets: Mapping[str, _Target]

    def first(self, *places: str | tuple[str, ...]) -> Prior | None:
        keys = ((place,) if isinstance(place, str) else place for place in places)
        return next((self.records[key] for key in keys if key in self.records), None)


def _given(design: Design, priors: PriorSetting) -> _Given:
    targets = _targets(design)
    if isinstance(priors, Mapping):
        pairs = (_flat(key, value, targets) for key, value in priors.items())
        return _Given({place: prior for part in pairs for place, prior in part}, targets)
    if not isinstance(priors, str):
        raise FitError(f"`priors` is a name or a dict from parameter to prior, got {priors!r}.")
    if priors != "default":
        raise FitError(f"There are no priors named `{priors}`. {suggestion(priors, ['default'])}")
    return _Given({}, targets)


def _targets(design: Design) -> dict[str, _Target]:
    slopes = tuple(name for name in design.fixed if name != "Intercept")
    coefs = tuple(dict.fromkeys(coef for term in design.terms for coef in term.coefs))
    targets = {name: _Target("coefficient") for name in design.fixed}
    if slopes:
        targets["beta"] = _Target("coefficient", slopes)
    targets["sigma"] = _Target("standard deviation")
    if design.terms:
        targets["sd"] = _Target("standard deviation", coefs)
    if any(_has_corr(term) for term in design.terms):
        targets["corr"] = _Target("correlation matrix")
    for term in design.terms:
        targets[f"sd_{term.label}"] = _Target("standard deviation", term.coefs)
        if _has_corr(term):
            targets[f"corr_{term.label}"] = _Target("correlation matrix")
    return targets


def _flat(
    key: str, value: object, targets: Mapping[str, _Target]
) -> list[tuple[tuple[str, ...], Prior]]:
    printed = _PRINTED.fullmatch(str(key))
    if key not in targets and printed and printed["parameter"] in targets:
        key, value = printed["parameter"], {printed["coef"]: value}
    if key not in targets:
        hint = suggestion(str(key), targets)
        raise FitError(f"priors: `{key}` is no parameter of this model. {hint}")
    target = targets[key]
    if not (isinstance(value, Mapping) and target.coefs):
        return [((key,), _fitting(key, value, target))]
    unknown = [coef for coef in value if coef not in target.coefs]
    if unknown:
        hint = suggestion(str(unknown[0]), target.coefs)
        raise FitError(f"priors: `{key}` has no coefficient `{unknown[0]}`. {hint}")
    return [((key, c), _fitting(f"{key}[{c}]", prior, target)) for c, prior in value.items()]


def _fitting(place: str, prior: object, target: _Target) -> Prior:
    if not isinstance(prior, Prior):
        raise FitError(
            f"priors: `{place}` needs a prior such as {_FOR[target.kind]}, not {prior!r}."
        )
    if isinstance(prior, LKJ) != (target.kind == "correlation matrix") or (
        target.kind == "standard deviation" and not prior.positive
    ):
        raise FitError(
            f"priors: {prior} does not fit `{place}`, which is a {target.kind}; "
            f"give a prior such as {_FOR[target.kind]}."
        )
    return prior


_FOR = {
    "coefficient": "Normal or StudentT",
    "standard deviation": "HalfNormal, HalfStudentT, Exponential or Gamma",
    "correlation matrix": "LKJ",
}


# Who gets which prior


def _beta_prior(design: Design, given: _Given, columns: NDArray[np.float64], j: int) -> Prior:
    name = design.fixed[j]
    own = () if given.targets[name] != _Target("coefficient") else (name,)
    general: tuple[str | tuple[str, ...], ...] = (("beta", name), "beta")
    places = own if name == "Intercept" else (*own, *general)
    return given.first(*places) or _default_beta(design, columns, j)


def _term_priors(design: Design, given: _Given, term: RandomTerm) -> TermPriors:
    label = term.label
    sds = [
        given.first((f"sd_{label}", coef), f"sd_{label}", ("sd", coef), "sd") for coef in term.coefs
    ]
    corr = given.first(f"corr_{label}", "corr") if _has_corr(term) else None
    centred = _can_centre(term) and not any([*sds, corr])
    far = _can_centre(term) and not centred
    below = [
        lower if numeric else ()
        for lower, numeric in zip(lower_columns(term.origins), term.numeric, strict=True)
    ]
    change = centring(term.columns, below) if centred else None
    columns = term.columns if change is None else term.columns @ change
    return TermPriors(
        label=label,
        coefs=term.coefs,
        sd=tuple(sd or _default_sd(design, term, columns, j, far=far) for j, sd in enumerate(sds)),
        corr=_lkj(corr) if _has_corr(term) else None,
        change=change,
    )


def _lkj(prior: Prior | None) -> LKJ:
    return prior if isinstance(prior, LKJ) else LKJ(2)


def _has_corr(term: RandomTerm) -> bool:
    return term.correlated and len(term.coefs) > 1


def _can_centre(term: RandomTerm) -> bool:
    return _has_corr(term) and "Intercept" in term.coefs and any(term.numeric)


# The default scales


def _default_beta(design: Design, columns: NDArray[np.float64], j: int) -> Normal:
    scale = 2.5 * _response_scale(design)
    if design.fixed[j] == "Intercept":
        return Normal(float(np.mean(design.y - design.offset)), scale)
    return Normal(0, scale / _column_scale(columns[:, j], numeric=design.numeric[j]))


def _default_sigma(design: Design) -> HalfStudentT:
    return HalfStudentT(3, _response_scale(design) * math.sqrt(design.weights.mean()))


def _default_sd(
    design: Design, term: RandomTerm, columns: NDArray[np.float64], j: int, *, far: bool
) -> HalfStudentT:
    """Return the default, for an intercept at zero predictors as wide as slopes make it there."""
    column_scale = _column_scale(columns[:, j], numeric=term.numeric[j])
    scale = _response_scale(design) / column_scale
    if far and term.coefs[j] == "Intercept":
        measured = term.columns[:, list(term.numeric)]
        scale *= math.sqrt(1 + float(np.sum((measured.mean(0) / measured.std(0, ddof=1)) ** 2)))
    return HalfStudentT(3, scale)


def _response_scale(design: Design) -> float:
    scale = _sd(design.y - design.offset)
    if scale == 0.0:
        raise DataError(
            f"The response `{design.response}` does not vary, so the default priors have no scale; "
            "give priors for all parameters."
        )
    return scale


def _column_scale(column: NDArray[np.float64], *, numeric: bool) -> float:
    """Return the standard deviation; for a constant column the size of its values."""
    if not numeric:
        return 1.0
    return _sd(column) or abs(float(column[0])) or 1.0


def _sd(values: NDArray[np.float64]) -> float:
    return float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0
