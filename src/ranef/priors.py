"""Who gets which prior: a named set, and what the user gave instead.

The defaults are proper and follow the data: shifting or rescaling the response or a predictor
shifts or rescales them with it. To that end they hold for the coefficients at centred predictors.
A product or power (`a:b`, `I(x^2)`) is centred at what its predictors leave of it.
A prior that the user gives holds for the coefficient as the user sees it, uncentred and unscaled.
"""

from __future__ import annotations

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
    Constant,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Prior,
    Relative,
    StudentT,
    Uniform,
)
from ranef.errors import FitError, suggestion
from ranef.naming import has_corr
from ranef.priorsets import SETS, PriorSet

__all__ = [
    "LKJ",
    "Constant",
    "Exponential",
    "Flat",
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
    "Relative",
    "StudentT",
    "TermPriors",
    "Uniform",
    "resolve",
]

_PRINTED = re.compile(r"(?P<parameter>[^\[]+)\[(?P<coef>.+)\]")  # as in print(model)
AT_MEAN = "at the mean of the predictors"

type PriorSetting = str | Mapping[str, str | Prior | Mapping[str, Prior]]


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

    The other sets, with s_y, mean y and median y those of the response as it is, and MAD its
    median absolute deviation times 1.4826:

    ============  ==================  ===================  ============  ======================
    set           intercept           other fixed effects  sigma         sds; correlations
    ============  ==================  ===================  ============  ======================
    "flat"        Flat                Flat                 Flat          Flat; LKJ(1)
    "boundary"    Flat                Flat                 Flat          see below
    "brms"        StudentT(3, median  Flat                 HalfStudentT  HalfStudentT(3, m);
                  y, m), m = max(2.5,                      (3, m)        LKJ(1)
                  MAD), both rounded
                  to one digit
    "rstanarm"    Normal(mean y,      Normal(0, 2.5 s_y /  Exponential   sigma Exponential(1),
                  2.5 s_y)            sd of the column)    (s_y)         not in correlated terms
    ============  ==================  ===================  ============  ======================

    Those of brms and of rstanarm (`stan_lmer`, from 2.21 on) are the defaults of these packages.
    Their intercept is at the mean of the columns as they are, products included; without an
    intercept in the model nothing is centred. "boundary" keeps a mode away from zero variances
    and perfect correlations: Gamma(2, rate) on the sds, in a correlated term Gamma(2.5, rate) and
    LKJ(1.75), which is a Wishart prior with k + 2.5 degrees of freedom and no scale,
    det(Sigma)^(3/4); the rate is 1e-4 over the scale of the default. Source: Chung, Rabe-Hesketh,
    Dorie, Gelman & Liu (2013), Psychometrika 78, 685-709.

    Parameters
    ----------
    design : Design
        The model's matrices and names.
    priors : str or dict
        The name of a set, or a dict whose keys are "Intercept", "beta" (all other fixed effects),
        "sigma", "sd", "corr", the name of a fixed effect, "sd_<term>" or "corr_<term>". The more
        specific key wins; what is not named keeps its default, or with `{"base": "brms", ...}`
        the prior of that set. A key may also be as the model
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
        Or "rstanarm" for a correlated term: its prior has dependent sds.
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
    below = _below(design, given)
    change = None if below is None else centring(design.X, below)
    columns = design.X if change is None else design.X @ change
    return Priors(
        fixed=design.fixed,
        beta=tuple(_beta_prior(design, given, columns, j) for j in range(len(design.fixed))),
        change=change,
        sigma=given.first("sigma") or given.base.sigma(design),
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
    """The user's records by place: a key, or a key and a coefficient; and the set for the rest."""

    base: PriorSet
    records: Mapping[tuple[str, ...], Prior]
    targets: Mapping[str, _Target]

    def first(self, *places: str | tuple[str, ...]) -> Prior | None:
        keys = ((place,) if isinstance(place, str) else place for place in places)
        return next((self.records[key] for key in keys if key in self.records), None)


def _given(design: Design, priors: PriorSetting) -> _Given:
    targets = _targets(design)
    if isinstance(priors, str):
        return _Given(_named(priors), {}, targets)
    if not isinstance(priors, Mapping):
        raise FitError(f"`priors` is a name or a dict from parameter to prior, got {priors!r}.")
    own, base = dict(priors), "default"
    if isinstance(own.get("base"), str):  # a record is the prior of a coefficient of that name
        base = str(own.pop("base"))
    pairs = (_flat(key, value, targets) for key, value in own.items())
    records = {place: prior for part in pairs for place, prior in part}
    return _Given(_named(base), records, targets)


def _named(name: str) -> PriorSet:
    if name not in SETS:
        raise FitError(f"There are no priors named `{name}`. {suggestion(name, SETS)}")
    return SETS[name]


def _targets(design: Design) -> dict[str, _Target]:
    slopes = tuple(name for name in design.fixed if name != "Intercept")
    coefs = tuple(dict.fromkeys(coef for term in design.terms for coef in term.coefs))
    targets = {name: _Target("coefficient") for name in design.fixed}
    if slopes:
        targets["beta"] = _Target("coefficient", slopes)
    targets["sigma"] = _Target("standard deviation")
    if design.terms:
        targets["sd"] = _Target("standard deviation", coefs)
    if any(has_corr(term) for term in design.terms):
        targets["corr"] = _Target("correlation matrix")
    for term in design.terms:
        targets[f"sd_{term.label}"] = _Target("standard deviation", term.coefs)
        if has_corr(term):
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
    is_sd = target.kind == "standard deviation"
    if isinstance(prior, LKJ) != (target.kind == "correlation matrix") or (
        not prior.positive if is_sd else isinstance(prior, Relative)
    ):
        raise FitError(
            f"priors: {prior} does not fit `{place}`, which is a {target.kind}; "
            f"give a prior such as {_FOR[target.kind]}."
        )
    if isinstance(prior, Relative) and place == "sigma":
        raise FitError(
            f"priors: {prior} does not fit `sigma`, which is not relative to itself; "
            f"give a prior such as {_FOR[target.kind]}."
        )
    return prior


_FOR = {
    "coefficient": "Normal or StudentT",
    "standard deviation": "HalfNormal, HalfStudentT, Exponential or Gamma",
    "correlation matrix": "LKJ",
}


# Who gets which prior


def _below(design: Design, given: _Given) -> list[tuple[int, ...]] | None:
    """Return what the fixed columns are centred at; None if they are not."""
    has_slopes = "Intercept" in design.fixed and len(design.fixed) > 1
    if given.base.below is None or not has_slopes or given.first("Intercept") is not None:
        return None
    # Nothing is centred at a column whose coefficient has a prior of the user's: that would move it
    theirs = {j for j, name in enumerate(design.fixed) if _given_beta(given, name) is not None}
    return [tuple(i for i in lower if i not in theirs) for lower in given.base.below(design)]


def _given_beta(given: _Given, name: str) -> Prior | None:
    own = () if given.targets[name] != _Target("coefficient") else (name,)
    general: tuple[str | tuple[str, ...], ...] = (("beta", name), "beta")
    return given.first(*(own if name == "Intercept" else (*own, *general)))


def _beta_prior(design: Design, given: _Given, columns: NDArray[np.float64], j: int) -> Prior:
    name = design.fixed[j]
    if (prior := _given_beta(given, name)) is not None:
        return prior
    is_intercept = name == "Intercept"
    return given.base.intercept(design) if is_intercept else given.base.slope(design, columns, j)


def _term_priors(design: Design, given: _Given, term: RandomTerm) -> TermPriors:
    label, base = term.label, given.base
    sds = [
        given.first((f"sd_{label}", coef), f"sd_{label}", ("sd", coef), "sd") for coef in term.coefs
    ]
    corr = given.first(f"corr_{label}", "corr") if has_corr(term) else None
    centred = base.centres_terms and _can_centre(term) and not any([*sds, corr])
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
        sd=tuple(sd or base.sd(design, term, columns, j, far) for j, sd in enumerate(sds)),
        corr=(corr if isinstance(corr, LKJ) else base.corr) if has_corr(term) else None,
        change=change,
    )


def _can_centre(term: RandomTerm) -> bool:
    return has_corr(term) and "Intercept" in term.coefs and any(term.numeric)
