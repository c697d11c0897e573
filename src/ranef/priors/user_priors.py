"""The user's priors: the keys that the dict can have, and which prior fits each parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ranef.design.design import Design, RandomTerm
from ranef.errors import FitError, suggestion
from ranef.families.family import Family
from ranef.priors.distributions import LKJ, Constant, Prior, Relative, Uniform
from ranef.priors.named_sets import SETS, PriorSet

type PriorSetting = str | Mapping[str, str | Prior | Mapping[str, Prior]]
type Key = tuple[str, ...]  # a key of the dict, or a key and a coefficient

_PRINTED = re.compile(r"(?P<parameter>[^\[]+)\[(?P<coef>.+)\]")  # as in print(model)


@dataclass(frozen=True)
class Target:
    """The parameters that a key of the user's dict stands for.

    Attributes
    ----------
    kind : str
        Kind of the parameters: a key of `_EXAMPLES`.
    coefs : tuple of str, or None
        Where the value may be a dict from coefficient to prior: the coefficients.
    """

    kind: str
    coefs: tuple[str, ...] | None = None

    def has(self, coef: str) -> bool:
        """Whether the value may be a dict in which a coefficient stands."""
        return coef in (self.coefs or ())


_CORR = Target("correlation matrix")


@dataclass(frozen=True)
class UserPriors:
    """The priors that a user gave, by key, and the named set for all other parameters.

    Attributes
    ----------
    base : PriorSet
        The named set.
    records : mapping of tuple of str to Prior
        The user's priors by key, or by key and coefficient.
    targets : mapping of str to Target
        The keys that the dict can have in this model.
    """

    base: PriorSet
    records: Mapping[Key, Prior]
    targets: Mapping[str, Target]

    def first(self, *keys: str | Key) -> Prior | None:
        """Return the prior of the first of some keys that has one."""
        full = ((key,) if isinstance(key, str) else key for key in keys)
        return next((self.records[key] for key in full if key in self.records), None)

    def of_effect(self, name: str) -> Prior | None:
        """Return the prior of a fixed effect, under its own name or `beta`."""
        # What another parameter is called only `beta` can name
        keys: list[str | Key] = [name] if self.targets[name] == Target("coefficient") else []
        if name != "Intercept":
            keys += [("beta", name), "beta"]
        return self.first(*keys)

    def of_sds(self, term: RandomTerm) -> list[Prior | None]:
        """Return the priors of the standard deviations of a term, by coefficient."""
        name = f"sd_{term.label}"
        coefs = term.covariance.sd_coefs(term.coefs)
        return [self.first((name, coef), name, ("sd", coef), "sd") for coef in coefs]


def read_user_priors(design: Design, priors: PriorSetting, family: Family) -> UserPriors:
    """Read what a user gave as `priors=`.

    Raises
    ------
    FitError
        A name that the model does not have, or a prior that does not fit its parameter.
    """
    if not isinstance(priors, str | Mapping):
        raise FitError(f"`priors` is a name or a dict from parameter to prior, got {priors!r}.")
    setting, base = ({}, priors) if isinstance(priors, str) else (dict(priors), "default")
    targets = _targets(design, family)
    if isinstance(setting.get("base"), str):  # a record is the prior of a coefficient of that name
        base = str(setting.pop("base"))
    pairs = [pair for key, value in setting.items() for pair in _records(key, value, targets)]
    if not family.has_sigma:
        for key, prior in pairs:
            _check_absolute("".join((key[0], *(f"[{coef}]" for coef in key[1:]))), prior)
    if base not in SETS:
        raise FitError(f"There are no priors named `{base}`. {suggestion(base, SETS)}")
    return UserPriors(SETS[base], dict(pairs), targets)


def restricted(priors: PriorSetting, design: Design, family: Family) -> PriorSetting:
    """Return a setting without the priors of parameters that a simpler model does not have.

    Parameters
    ----------
    priors : str or dict
        The setting of a larger model, all of whose keys are known there.
    design : Design
        Of the simpler model.
    family : Family
    """
    if isinstance(priors, str):
        return priors
    targets = _targets(design, family)
    kept: dict[str, str | Prior | Mapping[str, Prior]] = {}
    for key, value in priors.items():
        printed = None if key in targets else _PRINTED.fullmatch(str(key))
        target = targets.get(printed["parameter"] if printed else key)
        if key == "base" and isinstance(value, str):
            kept[key] = value
        elif target is None or (printed and not target.has(printed["coef"])):
            continue
        elif isinstance(value, Mapping):
            kept[key] = {coef: prior for coef, prior in value.items() if target.has(coef)}
        else:
            kept[key] = value
    return kept


def with_known(priors: PriorSetting, known: Mapping[str, Prior]) -> PriorSetting:
    """Return a setting with the parameters that the model itself says are known.

    Raises
    ------
    FitError
        If one of these has a prior in the setting.

    Examples
    --------
    >>> with_known("flat", {"sigma": Constant(1)})
    {'base': 'flat', 'sigma': Constant(value=1)}
    """
    if not known or not isinstance(priors, str | Mapping):
        return priors
    if isinstance(priors, str):
        return {"base": priors} | dict(known)
    for name, constant in known.items():
        if priors.get(name, constant) != constant:
            raise FitError(
                f"priors: `{name}` is known here, as se= has the standard errors of the rows; "
                f"leave out {priors[name]}."
            )
    return dict(priors) | dict(known)


def _targets(design: Design, family: Family) -> dict[str, Target]:
    """Return the keys that the dict can have.

    The same priors may be given to a set of models: the classes "beta", "sd" and "corr" are known
    to every one of them, and the correlations of a term also where it has none.
    """
    slopes = tuple(name for name in design.fixed if name != "Intercept")
    coefs = tuple(dict.fromkeys(coef for term in design.terms for coef in term.coefs))
    has_corr = any(term.covariance.has_correlations for term in design.terms)
    targets = {name: Target("coefficient") for name in design.fixed}

    def add_class(name: str, target: Target, *, has_any: bool) -> None:
        if has_any or name not in targets:  # else it is the name of a coefficient
            targets[name] = target

    add_class("beta", Target("coefficient", slopes), has_any=bool(slopes))
    for own in family.records:
        targets[own.name] = Target("standard deviation" if own.name == "sigma" else own.kind)
    add_class("sd", Target("standard deviation", coefs), has_any=bool(coefs))
    add_class("corr", _CORR, has_any=has_corr)
    for term in design.terms:
        with_sd = tuple(filter(None, term.covariance.sd_coefs(term.coefs)))
        targets[f"sd_{term.label}"] = Target("standard deviation", with_sd or None)
        targets[f"corr_{term.label}"] = _CORR
    return targets


def _records(key: str, value: object, targets: Mapping[str, Target]) -> list[tuple[Key, Prior]]:
    """Return the prior of one item of the dict, or one prior a coefficient, checked."""
    printed = _PRINTED.fullmatch(str(key))
    if key not in targets and printed and printed["parameter"] in targets:
        key, value = printed["parameter"], {printed["coef"]: value}
    if key not in targets:
        hint = suggestion(str(key), targets)
        raise FitError(f"priors: `{key}` is no parameter of this model. {hint}")
    target = targets[key]
    if target.coefs is None or not isinstance(value, Mapping):
        return [((key,), _fitting(key, value, target))]
    unknown = [coef for coef in value if not target.has(coef)]
    if unknown:
        hint = suggestion(str(unknown[0]), target.coefs)
        raise FitError(f"priors: `{key}` has no coefficient `{unknown[0]}`. {hint}")
    return [((key, c), _fitting(f"{key}[{c}]", prior, target)) for c, prior in value.items()]


def _fitting(name: str, prior: object, target: Target) -> Prior:
    """Return a prior; refuse one that does not fit the parameter of this name."""
    if not isinstance(prior, Prior):
        raise FitError(
            f"priors: `{name}` needs a prior such as {_EXAMPLES[target.kind]}, not {prior!r}."
        )
    is_sd = target.kind == "standard deviation"
    if (
        isinstance(prior, LKJ) != (target.kind == "correlation matrix")
        or ((is_sd or target.kind == "positive number") and not prior.positive)
        or (target.kind == "number between 0 and 1" and not _is_within(prior, 0.0, 1.0))
        or (not is_sd and isinstance(prior, Relative))
    ):
        raise FitError(
            f"priors: {prior} does not fit `{name}`, which is a {target.kind}; "
            f"give a prior such as {_EXAMPLES[target.kind]}."
        )
    if isinstance(prior, Relative) and name == "sigma":
        raise FitError(
            f"priors: {prior} does not fit `sigma`, which is not relative to itself; "
            f"give a prior such as {_EXAMPLES[target.kind]}."
        )
    return prior


def _is_within(prior: Prior, lowest: float, highest: float) -> bool:
    """Whether a prior has no mass outside of a range with two ends."""
    if isinstance(prior, Constant):
        return lowest < prior.value < highest
    return isinstance(prior, Uniform) and lowest <= prior.lower and prior.upper <= highest


def _check_absolute(name: str, prior: Prior) -> None:
    if isinstance(prior, Relative):
        raise FitError(
            f"priors: {prior} does not fit `{name}`, as this model has no sigma for it to be "
            f"relative to; give {prior.prior}."
        )


_EXAMPLES = {
    "coefficient": "Normal or StudentT",
    "standard deviation": "HalfNormal, HalfStudentT, Exponential or Gamma",
    "positive number": "Gamma, LogNormal, HalfNormal or Exponential",
    "number": "Normal or StudentT",
    "number between 0 and 1": "Uniform",
    "correlation matrix": "LKJ",
}
