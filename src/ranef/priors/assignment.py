"""Who gets which prior: a named set, and what the user gave instead.

The defaults are proper and follow the data: rescaling the response or a predictor, or shifting the
response, rescales or shifts them with it. Those of the fixed effects hold at centred predictors; a
product or power (`a:b`, `I(x^2)`) is centred at what its predictors leave of it. Those of a
random-effects term hold at the user's own origin, so that `(x || g)` is nested in `(x | g)`; where
zero is outside the observed range of a predictor, at the observed value nearest to it.
A prior that the user gives holds for the coefficient as the user sees it, uncentred and unscaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ranef._typing import Array
from ranef.covariances.covariance import Bases, Covariance
from ranef.design.design import Design, RandomTerm
from ranef.design.model_matrix import NearestPlace
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN
from ranef.numerics.matrices import threads_for
from ranef.priors.distributions import LKJ, Constant, Prior
from ranef.priors.named_sets import PriorSet
from ranef.priors.scales import Change, centring, column_scale, moved_coefs, with_known_errors
from ranef.priors.user_priors import PriorSetting, read_user_priors

AT_MEAN = "at the mean of the predictors"


@dataclass(frozen=True)
class PriorRow:
    """One line of the table of priors: a parameter, its prior, and where the prior holds."""

    parameter: str
    coef: str
    prior: Prior
    note: str

    @property
    def name(self) -> str:
        """Name of the parameter, with its coefficient if it has several."""
        return f"{self.parameter}[{self.coef}]" if self.coef else self.parameter


@dataclass(frozen=True)
class TermPriors:
    """The priors of one random-effects term with k coefficients.

    Attributes
    ----------
    label : str
        Label of the term.
    coefs : tuple of str
        Names of the k coefficients.
    covariance : Covariance
        Structure of the covariance matrix that `sd` and `corr` make up.
    sd : tuple of Prior
        Prior of each free standard deviation: one a coefficient, or one that they share.
    corr : LKJ or None
        Prior of the correlation matrix; None for a diagonal or scalar term. With other structures
        it is the one of each free parameter: Beta(eta, eta) on (-1, 1).
    place : NearestPlace or None
        Where `sd` and `corr` hold, if not at the origin of the predictors.
    """

    label: str
    coefs: tuple[str, ...]
    covariance: Covariance
    sd: tuple[Prior, ...]
    corr: LKJ | None
    place: NearestPlace | None = field(default=None, compare=False)

    @property
    def change(self) -> Change:
        """The matrix (k, k) that turns coefficients there into the user's; None at the origin."""
        return None if self.place is None else self.place.change

    @property
    def note(self) -> str:
        """Where the priors hold; empty for the origin of the predictors."""
        return "" if self.place is None else f"at {self.place}"

    @property
    def prefix(self) -> str:
        """What stands before the names of variables that are not the user's."""
        return "" if self.change is None else "nearest_"

    @property
    def free_sds(self) -> str:
        """The variable of the free sds: the one of the coefficients' sds, or of what they share."""
        name, covariance = f"{self.prefix}sd_{self.label}", self.covariance
        return name if covariance.n_sds == covariance.k else f"free_{name}"

    def rows(self) -> tuple[PriorRow, ...]:
        """Return the rows of the table of priors."""
        moved = moved_coefs(self.coefs, self.change)
        coefs = self.covariance.sd_coefs(self.coefs)
        notes = [self.note if coef in moved else "" for coef in coefs]
        sds = zip(coefs, self.sd, notes, strict=True)
        rows = [PriorRow(f"sd_{self.label}", coef, sd, note) for coef, sd, note in sds]
        if self.corr is not None:
            rows.append(PriorRow(f"corr_{self.label}", "", self.corr, self.note))
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
        Where the priors hold for coefficients at centred predictors: the matrix that turns such
        coefficients into the fixed effects that the user sees.
    sigma : Prior
        Prior of the residual standard deviation; `Constant(1.0)` for a family without one.
    terms : tuple of TermPriors
        The priors of the random-effects terms, in the order of the design.
    parameters : tuple of (str, Prior)
        The family's own parameters besides sigma, and their priors.
    real_parameters : tuple of str
        Those of them that can be any number; the others are positive.
    has_sigma : bool
        Whether sigma is a parameter of the family.
    """

    fixed: tuple[str, ...]
    beta: tuple[Prior, ...]
    sigma: Prior
    terms: tuple[TermPriors, ...]
    change: Change = field(default=None, compare=False)
    parameters: tuple[tuple[str, Prior], ...] = ()
    real_parameters: tuple[str, ...] = ()
    has_sigma: bool = True

    @property
    def centred(self) -> bool:
        """Whether the priors hold for coefficients at centred predictors."""
        return self.change is not None

    @property
    def n_known(self) -> int:
        """The number of fixed effects and own parameters of the family that are constants."""
        own = [prior for _, prior in self.parameters] + [self.sigma] * self.has_sigma
        return sum(isinstance(prior, Constant) for prior in [*self.beta, *own])

    @property
    def known_sigma(self) -> float | None:
        """Sigma, where the model says what it is: that is no matter of priors."""
        is_known = self.has_sigma and isinstance(self.sigma, Constant)
        return float(self.sigma.value) if is_known and isinstance(self.sigma, Constant) else None

    def check_free_sigma(self, what: str, other: str) -> None:
        """Refuse what is known only for models whose residual sd is estimated.

        Raises
        ------
        FitError
        """
        if self.known_sigma is not None:
            raise FitError(f"{what} is for models whose sigma is estimated; see {other}.")

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
        """Return the rows of the table of priors: fixed effects, parameters, then the terms."""
        moved = moved_coefs(self.fixed, self.change)
        rows = [
            PriorRow("beta", coef, prior, AT_MEAN if coef in moved else "")
            for coef, prior in zip(self.fixed, self.beta, strict=True)
        ]
        if self.has_sigma:
            rows.append(PriorRow("sigma", "", self.sigma, ""))
        rows += [PriorRow(name, "", prior, "") for name, prior in self.parameters]
        return tuple(rows + [row for term in self.terms for row in term.rows()])


def resolve(design: Design, priors: PriorSetting = "default", family: Family = GAUSSIAN) -> Priors:
    """Give every parameter of a design its prior.

    With z = y - offset, s_z its standard deviation, s_j the one of a numeric column (1 for an
    intercept or indicator) and w the weights, the defaults on an identity link are

    =====================  ================================================
    intercept              Normal(mean z, 2.5 s_z), at centred predictors
    other fixed effects    Normal(0, 2.5 s_z / s_j)
    sigma                  HalfStudentT(3, s_z sqrt(mean w))
    sd of a coefficient    HalfStudentT(3, s_z / s_j)
    correlations           LKJ(2)
    =====================  ================================================

    For a t response median and 1.4826 times the median absolute deviation take the place of mean
    and standard deviation. On other links the predictor has its own scale:

    ===================  ==============================  ===================================
    parameter            logit, probit, cloglog,         log (u = 1), and others, with
                         cauchit                         u = abs(d eta / d log mu) at mean y
    ===================  ==============================  ===================================
    intercept            Normal(0, 1.5)                  Normal(a, 2.5 u)
    other fixed effects  Normal(0, 1 / s_j)              Normal(0, u / s_j)
    sd of a coefficient  HalfNormal(1 / s_j)             Exponential(u / s_j)
    ===================  ==============================  ===================================

    with a = log(sum w y / sum w exp(offset)) for the log, the link at mean y otherwise, less the
    mean offset as on the left. Without any event in the data mean y is as of half an event. The
    unit u makes priors follow y in its units: 1/2 sqrt(mean y) for the square root, 1 / mean y for
    the inverse link. For a probability on another link u is abs(d eta / d logit mu), with
    Normal(a, 1.5 u) and HalfNormal for the sds. The parameters of the families:

    ===========================  ====================================================
    sigma, gaussian              HalfStudentT(3, s_y sqrt(mean w))
    sigma, gamma                 Exponential(sqrt(mean w)), a coefficient of variation
    sigma, inverse Gaussian      HalfStudentT(3, sqrt(mean w / mean y)): sd = mean at 1
    shape (negative binomial)    InverseGamma(0.4, 0.3), as in brms
    phi (beta)                   LogNormal(log 10, 2): sds from 0.02 to 0.46 at a mean of 1/2
    nu (t)                       Gamma(2, 0.1): Juarez & Steel (2010)
    others                       LogNormal(0, 2.5)
    ===========================  ====================================================

    The defaults of a random-effects term hold for its coefficients as they are: at zero predictors.
    Where the observed range of a predictor does not include zero, those of a correlated term hold
    at its observed value nearest to zero, and s_j is the standard deviation of a column (a product,
    a power) of predictors counted from there. Independent effects (`||`) are so at zero predictors
    only, wherever that is: another origin makes another model.

    The other sets, with s_y, mean y and median y of the response as it is, and MAD its median
    absolute deviation times 1.4826:

    ============  ===================  ===================  ============  ======================
    set           intercept            other fixed effects  sigma         sds; correlations
    ============  ===================  ===================  ============  ======================
    "flat"        Flat                 Flat                 Flat          Flat; LKJ(1)
    "boundary"    Flat                 Flat                 Flat          see below
    "brms"        StudentT(3, median   Flat                 HalfStudentT  HalfStudentT(3, m);
                  y, m), m = max(2.5,                       (3, m)        LKJ(1)
                  MAD), both rounded
                  to one digit
    "rstanarm"    Normal(mean y,       Normal(0, 2.5 s_y /  Exponential   sigma Exponential(1),
                  2.5 s_y)             sd of the column)    (s_y)         not in correlated terms
    ============  ===================  ===================  ============  ======================

    The sets "brms" and "rstanarm" (`stan_lmer`, from 2.21 on) are the defaults of these packages.
    Their intercept is at the mean of the columns as they are, products included; without an
    intercept in the model nothing is centred. On other links brms takes median and MAD of
    link(y), with 0.1 for a zero, less the mean offset; 0 and 2.5 for a probability. rstanarm has
    Normal(0, 2.5), Normal(0, 2.5 / sd of the column) and Exponential(1) there. Their shape,
    phi and nu are InverseGamma(0.4, 0.3), Gamma(0.01, 0.01) and Gamma(2, 0.1), not cut off at 1, in
    brms; Exponential(1), Exponential(1) and none in rstanarm.

    "boundary" keeps a mode away from zero variances and perfect correlations: Gamma(2, rate) on the
    sds, in a correlated term Gamma(2.5, rate) and LKJ(1.75), which is a Wishart prior with k + 2.5
    degrees of freedom and no scale, det(Sigma)^(3/4); the rate is 1e-4 over the scale of the
    default. Source: Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), Psychometrika 78, 685-709.

    Parameters
    ----------
    design : Design
        The model's matrices and names.
    priors : str or dict
        The name of a set, or a dict whose keys are "Intercept", "beta" (all other fixed effects),
        "sigma" or another parameter of the family, "sd", "corr", the name of a fixed effect,
        "sd_<term>" or "corr_<term>". The more specific key wins; what is not named keeps its
        default, or with `{"base": "brms", ...}` the prior of that set. A key may also be as the
        model prints it, "sd_Subject[Days]". The values are prior records; those of "beta", "sd"
        and "sd_<term>" may also be dicts from coefficient to record.
        A prior given for the intercept holds at zero predictors, as do all priors of a term of
        which the sds or correlations were given one; a default sd of such a term is then as wide
        as the defaults at the nearest observed predictors make it at zero. A prior for the classes
        "beta", "sd" and "corr" may stand where a model has no such parameter.
    family : Family
        Family of the response: its parameters, and the units of the linear predictor.

    Returns
    -------
    Priors
        The complete set.

    Raises
    ------
    FitError
        A name that the model does not have, or a prior that does not fit its parameter.
        Or a set without a prior for a parameter: "rstanarm" for a correlated term, as its prior
        has dependent sds.
    DataError
        A default is needed, but the response is constant and gives no scale.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.Model("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy")).design
    >>> setting = {"Days": rf.priors.Normal(0, 20), "sd": rf.priors.HalfNormal(50)}
    >>> for row in resolve(sleep, setting).rows():
    ...     print(f"{row.parameter:11}{row.coef:10}{row.prior} {row.note}".rstrip())
    beta       Intercept Normal(298.5, 140.8) at the mean of the predictors
    beta       Days      Normal(0, 20)
    sigma                HalfStudentT(3, 56.33)
    sd_Subject Intercept HalfNormal(50)
    """
    with threads_for(len(design.fixed)):
        return _resolved(design, priors, family)


def _resolved(design: Design, priors: PriorSetting, family: Family) -> Priors:
    user = read_user_priors(design, priors, family)
    base, X = user.base, design.unweighted.X
    beta = {name: user.of_effect(name) for name in design.fixed}
    sigma = user.first("sigma")
    if isinstance(sigma, Constant):
        design = with_known_errors(design, family, sigma.value)
    parameters = {name: user.first(name) for name in family.parameters if name != "sigma"}
    sds = [user.of_sds(term) for term in design.terms]
    corr = [user.first(f"corr_{term.label}", "corr") for term in design.terms]
    centres = _centres(design, base, beta)
    change = None if centres is None else centring(X, centres)

    def centred(j: int) -> Array:
        if change is None:
            return X[:, j]
        parts = np.flatnonzero(change[:, j])
        return np.asarray(X[:, parts] @ change[parts, j])

    return Priors(
        fixed=design.fixed,
        beta=tuple(
            prior or _base_prior(design, family, base, centred, j)
            for j, prior in enumerate(beta.values())
        ),
        change=change,
        sigma=(sigma or base.sigma(design, family)) if family.has_sigma else Constant(1.0),
        terms=tuple(
            _term_priors(design, family, base, term, sds=sds_of_user, corr=corr_of_user)
            for term, sds_of_user, corr_of_user in zip(design.terms, sds, corr, strict=True)
        ),
        parameters=tuple(
            (name, prior or base.parameter(family, name)) for name, prior in parameters.items()
        ),
        real_parameters=tuple(own.name for own in family.records if own.is_real),
        has_sigma=family.has_sigma,
    )


# Who gets which prior


def _centres(
    design: Design, base: PriorSet, beta: Mapping[str, Prior | None]
) -> list[tuple[int, ...]] | None:
    """Return the columns that each fixed column is centred at; None if none is centred."""
    has_slopes = "Intercept" in beta and len(beta) > 1
    if base.centres is None or not has_slopes or beta["Intercept"] is not None:
        return None
    # Nothing is centred at a column whose coefficient has a prior of the user's: that would move it
    fixed_by_user = {j for j, prior in enumerate(beta.values()) if prior is not None}
    centres = base.centres(design)
    if not fixed_by_user:
        return list(centres)
    return [tuple(i for i in centre if i not in fixed_by_user) for centre in centres]


def _base_prior(
    design: Design, family: Family, base: PriorSet, centred: Callable[[int], Array], j: int
) -> Prior:
    """Return the prior of a fixed effect in a named set."""
    if design.fixed[j] == "Intercept":
        return base.intercept(design, family)
    return base.slope(design, family, centred, j)


def _term_priors(
    design: Design,
    family: Family,
    base: PriorSet,
    term: RandomTerm,
    *,
    sds: Sequence[Prior | None],
    corr: Prior | None,
) -> TermPriors:
    """Return the priors of a term, of which the user gave some."""
    has_corr = term.covariance.n_correlations > 0
    corr = corr if has_corr else None
    nearest = term.nearest if term.covariance.kept_by is Bases.TRIANGULAR else None
    columns, change = design.unweighted.term(term.label).columns, np.eye(term.n_coefs)
    if nearest is not None:
        columns, change = columns @ nearest.change, nearest.change
    units = np.array(
        [
            1 / column_scale(design.unweighted, column) if numeric else 1.0
            for column, numeric in zip(columns.T, term.numeric, strict=True)
        ]
    )
    if not base.follows_data or any([*sds, corr]):
        units, nearest = np.linalg.norm(change * units, axis=1), None
    return TermPriors(
        label=term.label,
        coefs=term.coefs,
        covariance=term.covariance,
        sd=tuple(
            sd or base.sd(design, family, term, float(units[list(group)].mean()))
            for sd, group in zip(sds, term.covariance.sd_groups, strict=True)
        ),
        corr=(corr if isinstance(corr, LKJ) else base.corr) if has_corr else None,
        place=nearest,
    )
