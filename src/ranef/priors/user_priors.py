"""The user's priors: what the keys of the dict can be, whether its values fit, which is nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ranef.design.design import Design
from ranef.errors import FitError, suggestion
from ranef.families.family import Family
from ranef.priors.distributions import LKJ, Prior, Relative
from ranef.priors.named_sets import SETS, PriorSet

type PriorSetting = str | Mapping[str, str | Prior | Mapping[str, Prior]]
type Place = tuple[str, ...]  # a key, or a key and a coefficient

_PRINTED = re.compile(r"(?P<parameter>[^\[]+)\[(?P<coef>.+)\]")  # as in print(model)


@dataclass(frozen=True)
class Target:
    """What a key of the user's dict stands for.

    Attributes
    ----------
    kind : str
    coefs : tuple of str
        Where the value may be a dict from coefficient to prior: the coefficients.
    """

    kind: Literal["coefficient", "standard deviation", "positive parameter", "correlation matrix"]
    coefs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """The user's records by place, and the set for the rest.

    Attributes
    ----------
    base : PriorSet
    records : mapping
    targets : mapping of str to Target
        What the keys of the dict can be in this model.
    """

    base: PriorSet
    records: Mapping[Place, Prior]
    targets: Mapping[str, Target]

    def first(self, *places: str | Place) -> Prior | None:
        """Return the prior of the first of some places that has one."""
        keys = ((place,) if isinstance(place, str) else place for place in places)
        return next((self.records[key] for key in keys if key in self.records), None)

    def of_effect(self, name: str) -> Prior | None:
        """Return the prior of a fixed effect, under its own name or `beta`."""
        # What another parameter is called only `beta` can name
        own = () if self.targets[name] != Target("coefficient") else (name,)
        general: tuple[str | Place, ...] = (("beta", name), "beta")
        return self.first(*(own if name == "Intercept" else (*own, *general)))


def read_given(design: Design, priors: PriorSetting, family: Family) -> Given:
    """Read what a user gave as `priors=`.

    Raises
    ------
    FitError
        A name that the model does not have, or a prior that does not fit its parameter.
    """
    targets = _targets(design, family)
    if isinstance(priors, str):
        return Given(_named(priors), {}, targets)
    if not isinstance(priors, Mapping):
        raise FitError(f"`priors` is a name or a dict from parameter to prior, got {priors!r}.")
    own, base = dict(priors), "default"
    if isinstance(own.get("base"), str):  # a record is the prior of a coefficient of that name
        base = str(own.pop("base"))
    pairs = [pair for key, value in own.items() for pair in _flat(key, value, targets)]
    if not family.has_sigma:
        for place, prior in pairs:
            _check_absolute("".join((place[0], *(f"[{coef}]" for coef in place[1:]))), prior)
    return Given(_named(base), dict(pairs), targets)


def restricted(priors: PriorSetting, design: Design, family: Family) -> PriorSetting:
    """Return a setting without what is said of parameters that a simpler model does not have.

    Parameters
    ----------
    priors : str or dict
        Of a larger model, which it fits.
    design : Design
        Of the simpler model.
    family : Family
    """
    if isinstance(priors, str):
        return priors
    targets = _targets(design, family)
    kept: dict[str, str | Prior | Mapping[str, Prior]] = {}
    for key, value in priors.items():
        printed = _PRINTED.fullmatch(str(key))
        own = targets.get(printed["parameter"] if printed and key not in targets else key)
        if key == "base" and isinstance(value, str):
            kept[key] = value
        elif own is None or (printed and key not in targets and printed["coef"] not in own.coefs):
            continue
        elif isinstance(value, Mapping):
            kept[key] = {coef: prior for coef, prior in value.items() if coef in own.coefs}
        else:
            kept[key] = value
    return kept


def _named(name: str) -> PriorSet:
    if name not in SETS:
        raise FitError(f"There are no priors named `{name}`. {suggestion(name, SETS)}")
    return SETS[name]


def _targets(design: Design, family: Family) -> dict[str, Target]:
    slopes = tuple(name for name in design.fixed if name != "Intercept")
    coefs = tuple(dict.fromkeys(coef for term in design.terms for coef in term.coefs))
    targets = {name: Target("coefficient") for name in design.fixed}
    if slopes:
        targets["beta"] = Target("coefficient", slopes)
    for name in family.parameters:
        targets[name] = Target("standard deviation" if name == "sigma" else "positive parameter")
    if design.terms:
        targets["sd"] = Target("standard deviation", coefs)
    if any(term.covariance.has_correlations for term in design.terms):
        targets["corr"] = Target("correlation matrix")
    for term in design.terms:
        targets[f"sd_{term.label}"] = Target("standard deviation", term.coefs)
        if term.covariance.has_correlations:
            targets[f"corr_{term.label}"] = Target("correlation matrix")
    return targets


def _flat(key: str, value: object, targets: Mapping[str, Target]) -> list[tuple[Place, Prior]]:
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


def _fitting(place: str, prior: object, target: Target) -> Prior:
    if not isinstance(prior, Prior):
        raise FitError(
            f"priors: `{place}` needs a prior such as {_FOR[target.kind]}, not {prior!r}."
        )
    is_positive = target.kind in {"standard deviation", "positive parameter"}
    is_sd = target.kind == "standard deviation"
    if (
        isinstance(prior, LKJ) != (target.kind == "correlation matrix")
        or (is_positive and not prior.positive)
        or (not is_sd and isinstance(prior, Relative))
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


def _check_absolute(place: str, prior: Prior) -> None:
    if isinstance(prior, Relative):
        raise FitError(
            f"priors: {prior} does not fit `{place}`, as this model has no sigma for it to be "
            f"relative to; give {prior.prior}."
        )


_FOR = {
    "coefficient": "Normal or StudentT",
    "standard deviation": "HalfNormal, HalfStudentT, Exponential or Gamma",
    "positive parameter": "Gamma, LogNormal, HalfNormal or Exponential",
    "correlation matrix": "LKJ",
}
