"""What the data say of the differences between models, in words.

A model is a set of parts: fixed effects, standard deviations of random effects, correlations. The
parts that some models have and others have not are the questions of a comparison. Each is answered
by the best model with them and the best model without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ranef.comparison.bayes_factors import EFFECTS
from ranef.design.design import Design
from ranef.errors import listed, phrase
from ranef.families.family import Family
from ranef.leave_one_out.elpd import Scores
from ranef.printing.digits import LN10, MAX_SPELLED, spelled

FIXED, SD, CORRELATION, FAMILY = "fixed", "sd", "correlation", "family"
MAX_LOG_BF_ERROR = 0.1  # of a log Bayes factor that is printed as a number
MAX_RELATIVE_ERROR = 0.05  # ... of a large one, of which the order of magnitude is printed
MIN_BAYES_FACTOR = 3.0  # below which nothing is decided
LEVEL = 0.05  # of a test
MIN_ELPD_DIFFERENCE = 4.0  # below which its standard error is not to be trusted
MAX_EQUAL_ELPD = 0.005  # a difference in elpd that is none
MAX_EQUAL_LOG_BF = 0.005  # a logarithm of a Bayes factor that is none
MIN_STANDARD_ERRORS = 2.0  # of a difference in elpd that is decided


@dataclass(frozen=True)
class Feature:
    """What one model may have and another not.

    Attributes
    ----------
    kind : {"fixed", "sd", "correlation", "family"}
        A fixed effect; coefficients that differ between groups; coefficients that go together; the
        distribution of the response with its link.
    factor : str
        The grouping factor, if there is one.
    words : tuple of str
        The coefficients: `intercept`, `slope of Days`, `effect of use[T.Y]`; or the family.
    """

    kind: str
    factor: str
    words: tuple[str, ...]


def features_of(design: Design, family: Family | None = None) -> frozenset[Feature]:
    """Return the parts of a model."""
    parts = [Feature(FIXED, "", (name,)) for name in design.fixed]
    if family is not None:
        parts.append(Feature(FAMILY, "", (str(family),)))
    for term in design.terms:
        words = [_coefficient(*pair) for pair in zip(term.coefs, term.numeric, strict=True)]
        parts += [Feature(SD, term.factor, (word,)) for word in words]
        if term.covariance.has_correlations:
            pairs = combinations(words, 2)
            parts += [Feature(CORRELATION, term.factor, pair) for pair in pairs]
    return frozenset(parts)


def _coefficient(name: str, is_measured: bool) -> str:
    if name == "Intercept":
        return "intercept"
    return f"slope of {name}" if is_measured else f"effect of {name}"


def is_known(log_bf: float, error: float) -> bool:
    """Whether the logarithm of a Bayes factor is exact enough to be said."""
    return bool(error <= max(MAX_LOG_BF_ERROR, MAX_RELATIVE_ERROR * abs(log_bf)))


@dataclass(frozen=True)
class Odds:
    """How many times more probable the data are under one model than under another.

    Attributes
    ----------
    log : float
        The logarithm of the Bayes factor.
    low, high : float
        Its range over scales of priors.
    """

    log: float
    low: float
    high: float

    @property
    def is_decided(self) -> bool:
        """Whether one model is favoured enough, whatever the scale of the priors."""
        return min(abs(self.low), abs(self.high)) >= np.log(MIN_BAYES_FACTOR) and (
            self.low * self.high > 0
        )

    @property
    def turned(self) -> Odds:
        """The odds of the other model against the first."""
        return Odds(-self.log, -self.high, -self.low)


@dataclass(frozen=True)
class Gain:
    """By how much one model predicts what was left out better than another.

    Attributes
    ----------
    elpd, se : float
        The difference in elpd, and its standard error over the units.
    unit : str
        What was left out: "a new Subject".
    """

    elpd: float
    se: float
    unit: str

    @property
    def is_decided(self) -> bool:
        """Whether the difference is more than the units that happen to be there."""
        least = max(MIN_ELPD_DIFFERENCE, MIN_STANDARD_ERRORS * self.se)
        return abs(self.elpd) >= least

    def words(self, other: str = "") -> str:
        """Say how the other model predicts, by its name where it has one."""
        if max(abs(self.elpd), self.se) < MAX_EQUAL_ELPD:
            return f"{self.unit} is predicted alike"
        if abs(self.elpd) < MIN_ELPD_DIFFERENCE:
            size = f"{abs(self.elpd):.1f} apart, se {self.se:.1f}"
            return f"{self.unit} is predicted equally well ({size})"
        how = "worse" if self.elpd > 0 else "better"
        how += f" by `{other}`," if other else ""
        return f"{self.unit} is predicted {how} by {abs(self.elpd):.1f} (se {self.se:.1f})"


@dataclass(frozen=True, eq=False)
class Score:
    """Log predictive densities by unit and model.

    Attributes
    ----------
    factor : str or None
        The grouping factor whose levels were left out.
    elpd : DataFrame, shape (units, models)
    repaired : int
        The number of elpds that were computed anew, as importance weights could not be trusted.
    is_known : bool
        Whether rows are in groups that are known.
    """

    factor: str | None
    elpd: pd.DataFrame
    repaired: int
    is_known: bool = True

    @property
    def suffix(self) -> str:
        """The ending of its columns in the table."""
        return "row" if self.factor is None else "group"

    @property
    def unit(self) -> str:
        """What is predicted, in words."""
        if self.factor is not None:
            return f"a new {self.factor}"
        return "a new row of a known group" if self.is_known else "a new row"

    @property
    def heading(self) -> str:
        """The heading of its column, in lines."""
        unit = self.unit.replace(" known", "\nknown") if self.factor is None else self.unit
        return f"{unit}\n({len(self.elpd)} left out)"

    @staticmethod
    def of(scores: Mapping[str, Scores], *, is_known: bool = True) -> Score | None:
        """Gather the scores of several models."""
        if not scores:
            return None
        first = next(iter(scores.values()))
        elpd = pd.DataFrame({name: s.elpd for name, s in scores.items()}, index=first.labels)
        repaired = sum(int(s.repaired.sum()) for s in scores.values())
        return Score(first.factor, elpd, repaired, is_known)


@dataclass(frozen=True, eq=False)
class Findings:
    """What is known of several models.

    Attributes
    ----------
    parts : mapping of str to frozenset of Feature
        By the name of the model.
    score : Score or None
        Of new groups, or else of rows.
    marginal : DataFrame or None
        One row a model: `log_ml, log_ml_error`.
    sensitivity : DataFrame or None
        See `Comparison`.
    moved : str
        The parameters whose priors are scaled, in words.
    """

    parts: Mapping[str, frozenset[Feature]]
    score: Score | None
    marginal: pd.DataFrame | None
    sensitivity: pd.DataFrame | None
    moved: str

    @property
    def ranked(self) -> list[str]:
        """The models that have been asked, the best first."""
        if self.marginal is not None:
            found = self.marginal["log_ml"].dropna()
        elif self.score is not None:
            found = self.score.elpd.sum()
        else:
            return []
        return [str(name) for name in found.sort_values(ascending=False, kind="stable").index]

    def odds(self, first: str, second: str) -> Odds | None:
        """Return the odds of one model against another, None where they are not known."""
        if self.marginal is None or self.sensitivity is None:
            return None
        pair = self.marginal.loc[[first, second]]
        value = float(pair["log_ml"].iloc[0] - pair["log_ml"].iloc[1])
        if not is_known(value, float(np.hypot(*pair["log_ml_error"]))):
            return None
        scaled = [value, *self._scaled(first, second)["log_bf"]]
        return Odds(value, min(scaled), max(scaled))

    def _scaled(self, first: str, second: str) -> pd.DataFrame:
        """Return the logarithm of a Bayes factor by the priors that are scaled."""
        assert self.sensitivity is not None
        lines = self.sensitivity[["model", "priors", "scale", "log_bf"]]
        one, other = (lines[lines["model"] == name] for name in (first, second))
        pairs = one.merge(other, on=["priors", "scale"], suffixes=("", "_other"))
        return pairs.assign(log_bf=pairs["log_bf"] - pairs["log_bf_other"])

    def depends_on_effects(self, first: str, second: str) -> bool:
        """Whether priors of fixed effects decide which of two models is favoured."""
        scaled = self._scaled(first, second)
        by_effects = scaled.loc[scaled["priors"] == EFFECTS, "log_bf"]
        return bool(by_effects.min() < 0 < by_effects.max())

    def gain(self, first: str, second: str) -> Gain | None:
        """Return by how much one model predicts better than another, None if not asked."""
        if self.score is None:
            return None
        differences = self.score.elpd[first] - self.score.elpd[second]
        se = float(np.sqrt(len(differences)) * differences.std())
        return Gain(float(differences.sum()), se, self.score.unit)


# ------------------------------------------------------------------------------ the questions


@dataclass(frozen=True)
class Answer:
    """Whether some parts belong to the model.

    Attributes
    ----------
    models : frozenset of str
        Those that have the parts.
    sign : int
        1 if the data are for the parts, -1 if they are against, 0 where nothing is decided.
    sentence : str
    """

    models: frozenset[str]
    sign: int
    sentence: str


def verdict(findings: Findings) -> list[str]:
    """Return sentences on what the models differ by: what is decided first, then what is open.

    Parts that come together are one question. What follows from something that the data are for is
    not said again: that slopes differ between groups says that groups differ. Models that are not
    one within the other are called by their names.
    """
    ranked = findings.ranked
    if len(ranked) < 2:
        return []
    answers, is_complete = [], True
    parts = {name: findings.parts[name] for name in ranked}
    for models, differing in _questions(parts).items():
        pair = _pair(parts, models)
        if pair is None:
            is_complete = False
        else:
            answers.append(_answer(findings, models, differing, pair))
    supported = [answer.models for answer in answers if answer.sign > 0]
    told = [a for a in answers if not (a.sign > 0 and any(s < a.models for s in supported))]
    sentences = [a.sentence for a in sorted(told, key=lambda answer: -abs(answer.sign))]
    is_complete = is_complete and bool(sentences)
    return sentences if is_complete else [*sentences, _ranking(findings, *ranked[:2])]


def _questions(parts: Mapping[str, frozenset[Feature]]) -> dict[frozenset[str], list[Feature]]:
    """Return the parts that not all models have, by the models that have them."""
    questions: dict[frozenset[str], list[Feature]] = {}
    every = dict.fromkeys(part for of_model in parts.values() for part in sorted(of_model, key=str))
    for part in every:
        models = frozenset(name for name, of_model in parts.items() if part in of_model)
        if len(models) < len(parts):
            questions.setdefault(models, []).append(part)
    return questions


def _pair(
    parts: Mapping[str, frozenset[Feature]], models: frozenset[str]
) -> tuple[str, str] | None:
    """Return the best model of some, and the best of the others, one within the other.

    If the best two of all are not, it is the best that contains the best of the others, or else the
    best within the best.

    Parameters
    ----------
    parts : mapping of str to frozenset of Feature
        The best model first.
    models : frozenset of str
    """
    inside = [name for name in parts if name in models]
    outside = [name for name in parts if name not in models]
    pairs = [*((name, outside[0]) for name in inside), *((inside[0], name) for name in outside)]
    return next((pair for pair in pairs if parts[pair[1]] < parts[pair[0]]), None)


def _answer(
    findings: Findings, models: frozenset[str], parts: list[Feature], pair: tuple[str, str]
) -> Answer:
    """Say whether parts belong to the model, from the best model with and without them."""
    odds, gain = findings.odds(*pair), findings.gain(*pair)
    decided = odds or gain
    assert decided is not None
    value = odds.log if odds is not None else gain.elpd if gain is not None else 0.0
    claim = claim_of(parts)
    if decided.is_decided and value > 0:
        less = f"the data are {_times(odds.log)} times less probable" if odds else ""
        less += _reach(findings, odds) if odds else ""
        then = _joined(less, gain.words() if gain else "")
        return Answer(models, 1, f"{claim}: without that {then}.")
    evidence = _evidence(findings, pair, odds, gain)
    claim = claim[0].lower() + claim[1:]
    if decided.is_decided:
        return Answer(models, -1, f"The data speak against it that {claim}: {evidence}.")
    is_weak = odds is not None and value > 0
    how = "is supported weakly" if is_weak else "is not supported, and not ruled out"
    lindley = _lindley(findings, pair, parts) if odds else ""
    return Answer(models, 0, f"That {claim} {how}: {evidence}.{lindley}")


def _evidence(
    findings: Findings, pair: tuple[str, str], odds: Odds | None, gain: Gain | None
) -> str:
    """Say which of two models the data favour, and how both predict."""
    first, second = pair
    favoured = first if (odds.log if odds else 0.0) > 0 else second
    turned = odds if odds is None or favoured == first else odds.turned
    says = ""
    if turned is not None:
        says = f"the data favour `{favoured}` {spelled(turned.log)} to 1"
        says += _reach(findings, turned)
    return _joined(says, gain.words(second) if gain else "")


def _ranking(findings: Findings, first: str, second: str) -> str:
    """Compare the best model with the next, by their names."""
    odds, gain = findings.odds(first, second), findings.gain(first, second)
    if odds is not None and abs(odds.log) < MAX_EQUAL_LOG_BF:
        equal = f"The data are as probable under `{first}` as under `{second}`"
        return f"{_joined(equal, gain.words(second) if gain else '')}."
    decided = odds or gain
    ending = "" if decided is not None and decided.is_decided else ": not decided"
    sentence = _evidence(findings, (first, second), odds, gain)
    return f"{sentence[0].upper()}{sentence[1:]}{ending}."


# ------------------------------------------------------------------------------ the words


def said_by_test(small: Design, large: Design, p_value: float) -> str:
    """Return what a test says of that by which a model is larger; empty if it has no words.

    Parameters
    ----------
    small, large : Design
    p_value : float
        Of the smaller model against the larger.
    """
    inside, outside = features_of(large), features_of(small)
    if not outside < inside:
        return ""
    claim, p = claim_of(sorted(inside - outside, key=str)), f"p = {p_value:.2g}"
    if p_value < LEVEL:
        return f"{claim} ({p})."
    return f"That {claim[0].lower()}{claim[1:]} is not supported, and not ruled out ({p})."


def claim_of(parts: Sequence[Feature]) -> str:
    """Return what parts say of the data."""
    fixed = [part.words[0] for part in parts if part.kind == FIXED]
    claims = [f"the mean depends on {phrase(fixed)}"] if fixed else []
    if fixed == ["Intercept"]:
        claims = ["the mean has an intercept"]
    differing = _by_factor(part for part in parts if part.kind == SD)
    claims += [
        f"{_plurals(words)} differ from {factor} to {factor}" for factor, words in differing.items()
    ]
    together = _by_factor(p for p in parts if p.kind == CORRELATION and p.factor not in differing)
    claims += [_together(factor, words) for factor, words in together.items()]
    claim = " and ".join(claims)
    return claim[0].upper() + claim[1:]


def _by_factor(parts: Iterable[Feature]) -> dict[str, list[str]]:
    """Return the coefficients of parts by their grouping factor."""
    found: dict[str, list[str]] = {}
    for part in parts:
        found.setdefault(part.factor, []).extend(part.words)
    return {factor: list(dict.fromkeys(words)) for factor, words in found.items()}


def _together(factor: str, words: Sequence[str]) -> str:
    first, second, *more = sorted(words, key=lambda word: word != "intercept")
    if more:
        return f"{_plurals(words)} of the same {factor} go together"
    return f"the {second} of each {factor} goes with its {first}"


def _plurals(words: Sequence[str]) -> str:
    """Return coefficients by their nouns: `intercepts and slopes of x and z`."""
    names: dict[str, list[str]] = {}
    for word in sorted(words, key=lambda word: word != "intercept"):
        noun, _, name = word.partition(" of ")
        names.setdefault(noun, []).append(name)
    return phrase(
        [
            f"{noun}s of {phrase(of)}" if noun != "intercept" else "intercepts"
            for noun, of in names.items()
        ]
    )


def _joined(*clauses: str) -> str:
    return ", and ".join(filter(None, clauses))


def _times(log_odds: float) -> str:
    """Return how many times, for large ones as a power of ten."""
    is_large = log_odds > np.log(MAX_SPELLED)
    return f"10^{log_odds / LN10:.0f}" if is_large else spelled(log_odds)


def _reach(findings: Findings, odds: Odds) -> str:
    """Return the range of odds over scales of priors; of overwhelming odds it is of no interest."""
    if not findings.moved or odds.low > np.log(MAX_SPELLED):
        return ""
    low, value, high = (spelled(log) for log in (odds.low, odds.log, odds.high))
    if low == value == high:
        return f" (also with priors of {findings.moved} scaled by 1/4 to 4)"
    return f" ({low} to {high} as the priors of {findings.moved} are scaled by 1/4 to 4)"


def _lindley(findings: Findings, pair: tuple[str, str], parts: Sequence[Feature]) -> str:
    """Say what decides where the sign hangs on the priors of fixed effects."""
    names = [part.words[0] for part in parts if part.kind == FIXED]
    if not names or not findings.depends_on_effects(*pair):
        return ""
    return (
        f" Which of the two they favour depends on how wide the prior of {listed(names)} is: the "
        "wider, the more the model without (Lindley's paradox)."
    )
