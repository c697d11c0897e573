"""What a model is, in words: the expansion of its formula as `print(model)` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, compress
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Codes
from ranef.covariances.covariance import Bases
from ranef.design.columns.written_labels import is_spoilt, numbers_hint
from ranef.design.design import Design, RandomTerm
from ranef.design.groups import Factor, is_nested
from ranef.design.model_matrix import NearestPlace
from ranef.errors import listed, phrase
from ranef.families.family import Family
from ranef.fits.tables import rows_in_words
from ranef.printing.plain_text import indented, wrapped
from ranef.printing.summary import Summary
from ranef.priors.assignment import PriorRow
from ranef.priors.distributions import Constant

FEW_LEVELS = 5


def describe(
    design: Design, family: Family, priors: tuple[PriorRow, ...], sampled: Sequence[str] = ()
) -> Summary:
    """Return the expansion of a formula: columns, terms, how factors are related, priors.

    Parameters
    ----------
    design : Design
    family : Family
    priors : tuple of PriorRow
    sampled : sequence of str
        How MCMC samples the random effects of each term, where that is chosen by the data.

    Returns
    -------
    Summary
        Its frame has the priors, one row a parameter: columns `prior` and `note`.
    """
    knows_sigma = any(r.name == "sigma" and isinstance(r.prior, Constant) for r in priors)
    response = _response(design, family, knows_sigma=knows_sigma)
    sections = [("Fixed effects", _fixed(design))]
    if design.terms:
        sections.append(("Random effects", "\n".join(map(_random, design.terms))))
    related = relations(design)
    if related:
        sections.append(("Grouping factors", "\n".join(related)))
    sections.append((_prior_heading(design, family), _table(priors)))
    if sampled:
        reasons = "\n".join(wrapped(reason, 98) for reason in sampled)
        sections.append(("Random effects as MCMC samples them", reasons))
    table = pd.DataFrame(
        {"prior": [str(r.prior) for r in priors], "note": [r.note for r in priors]},
        index=pd.Index([row.name for row in priors]),
    )
    said = tuple(f"Note: {note}" for note in notes(design))
    return Summary(design.formula.text, tuple(response), tuple(sections), said, table)


def relations(design: Design) -> list[str]:
    """Say of each pair of grouping factors whether one is nested in the other or they cross."""
    return [_relation(a, b) for a, b in combinations(_factors(design), 2)]


def notes(design: Design) -> list[str]:
    """Return what a user may have overlooked."""
    factors = _factors(design)
    codings = [design.recipe.X.codings, *(columns.codings for _, columns in design.recipe.random)]
    found = design.recipe.memory.levels
    coded = {label: found[label] for coding in codings for label in coding if label in found}
    grouped = {factor.name: factor.levels for factor in factors}
    return [
        *(
            f"{label} is taken for a factor of {len(levels)} levels.{numbers_hint(label, levels)}"
            for label, levels in coded.items()
            if is_spoilt(levels)
        ),
        *(
            f"{label} has levels that differ in capitals or spaces only: {phrase(alike)}."
            for label, levels in (coded | grouped).items()
            if (alike := _alike(levels))
        ),
        *(note for a, b in combinations(factors, 2) for note in _nesting_notes(a, b)),
        *(_few_levels_note(factor) for factor in factors if len(factor.levels) < FEW_LEVELS),
        *(
            _origin_note(term, term.nearest)
            for term in design.terms
            if term.nearest and term.covariance.kept_by is not Bases.TRIANGULAR
        ),
        *(_mean_zero_note(term, alone) for term in design.terms if (alone := _alone(design, term))),
    ]


def _alike(levels: pd.Index[Any]) -> list[str]:
    """Return the levels that differ in capitals or spaces only, those that read alike together."""
    read: dict[str, list[str]] = {}
    for level in map(str, levels):
        read.setdefault(" ".join(level.split()).casefold(), []).append(level)
    return [listed(alike) for alike in read.values() if len(alike) > 1]


def _response(design: Design, family: Family, *, knows_sigma: bool) -> list[str]:
    lines = [f"{family}, {rows_in_words(design, family, knows_sigma=knows_sigma)}"]
    if design.success:
        lines.append(f"success: {design.success}")
    return lines


def _prior_heading(design: Design, family: Family) -> str:
    if family.link.is_identity:
        return f"Priors of a Bayesian fit, in units of {design.response}"
    return f"Priors of a Bayesian fit, on the {family.link.name} scale"


def _fixed(design: Design) -> str:
    if not design.fixed:
        return "none"
    lines = [wrapped(", ".join(design.fixed), 90)]
    lines += [f"{name}: {coding}" for name, coding in design.recipe.X.codings.items()]
    return "\n".join(lines)


def _random(term: RandomTerm) -> str:
    k = term.n_coefs
    n_sds, n_corr = term.covariance.n_sds, term.covariance.n_correlations
    counts = f"{n_sds} standard {_plural('deviation', n_sds)}"
    if k > 1:
        counts += f" and {n_corr or 'no'} {_plural('correlation', n_corr or k - 1)}"
    levels = f"{term.n_levels} {_plural('level', term.n_levels)} of {term.factor}"
    effects = wrapped(
        f"{levels}, each with its own {phrase(term.coefs, limit=len(term.coefs))}", 92
    )
    return f"{term.text}\n{indented(effects)}\n  {counts}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _factors(design: Design) -> list[Factor]:
    return list({t.factor: t.grouping for t in design.sufficient.terms}.values())


def _relation(a: Factor, b: Factor) -> str:
    of_a, of_b = a.meets(b)
    if is_nested(of_a, of_b):
        return f"{a.name} is nested in {b.name}"
    if is_nested(of_b, of_a):
        return f"{b.name} is nested in {a.name}"
    cells, possible = len(np.unique(_cell_of(a, b))), len(a.levels) * len(b.levels)
    if cells == possible:
        return f"{a.name} and {b.name} are crossed: every combination occurs"
    return f"{a.name} and {b.name} are partially crossed: {cells} of {possible} combinations occur"


def _cell_of(a: Factor, b: Factor) -> Codes:
    """Return the combination of two factors' levels of each row, as a number."""
    of_a, of_b = a.meets(b)
    return of_a * len(b.levels) + of_b


def _nesting_notes(a: Factor, b: Factor) -> list[str]:
    """Return a note on two factors one of which may be nested in the other, if the data say so.

    Where the labels of both start anew within the other, as with every label of one in every
    level of the other, the data do not say which way round: the note shows both.
    """
    pairs = [(a, b), (b, a)]
    found = [(inner, outer) for inner, outer in pairs if _starts_anew(inner, outer)]
    if not found or a.parts or b.parts:
        return []
    inner, outer = found[0]
    if len(found) == 2:
        ways = "; ".join(map(_nested_if, *zip(*found, strict=True)))
        note = (
            f"the labels of {a.name} start anew within the levels of {b.name}, and the other way "
            f"round. As it stands, the two are crossed; {ways}."
        )
        return [note]
    labels = ", ".join(map(str, inner.levels[:3])) + ", ..." * (len(inner.levels) > 3)
    note = (
        f"the labels of {inner.name} ({labels}) start anew within every level of {outer.name}. As "
        f"it stands, {inner.name} {inner.levels[0]} is one and the same in every {outer.name}; "
        f"{_nested_if(inner, outer)} or (1 | {outer.name}:{inner.name})."
    )
    return [note]


def _nested_if(inner: Factor, outer: Factor) -> str:
    example = f"{inner.name} {inner.levels[0]}"
    return (
        f"if {example} of one {outer.name} has nothing to do with {example} of another, write "
        f"(1 | {outer.name}/{inner.name})"
    )


def _starts_anew(inner: Factor, outer: Factor) -> bool:
    """Whether each level of `outer` has the first few labels of `inner`, as a, b, c.

    Genuinely crossed factors can look the same; but they rarely come with replicates in every
    cell.
    """
    cells, counts = np.unique(_cell_of(outer, inner), return_counts=True)
    rows, labels = np.divmod(cells, len(inner.levels))
    within = np.bincount(rows, minlength=len(outer.levels))
    last = np.zeros_like(within)
    np.maximum.at(last, rows, labels)
    return bool((within >= 2).all() and (last + 1 == within).all() and (counts > 1).all())


def _few_levels_note(factor: Factor) -> str:
    return (
        f"{factor.name} has {len(factor.levels)} {_plural('level', len(factor.levels))}: the data "
        "say little about how much such levels vary, so the prior of a Bayesian fit says much."
    )


def _origin_note(term: RandomTerm, nearest: NearestPlace) -> str:
    names = listed(nearest.predictors)
    are = "is" if len(nearest.predictors) == 1 else "are"
    return (
        f"{term.text} takes the effects to be independent where {names} {are} 0, which was not "
        f"observed: `||` is another model for every origin. With {nearest.counted} they are "
        "independent at the nearest observed value; `|` fits the same from any origin."
    )


def _mean_zero_note(term: RandomTerm, alone: list[str]) -> str:
    names = phrase(alone, limit=len(alone))
    vary, they, is_are = ("varies", "it", "is") if len(alone) == 1 else ("vary", "they", "are")
    return (
        f"{names} {vary} by {term.factor} around a mean of zero, as {they} {is_are} not among the "
        "fixed effects."
    )


def _alone(design: Design, term: RandomTerm) -> list[str]:
    """Coefficients whose mean is no fixed effect, nor a combination of these."""
    return list(compress(term.coefs, ~design.term_among_fixed(term.label).exact))


def _table(rows: tuple[PriorRow, ...]) -> str:
    names = [row.name for row in rows]
    width = max(map(len, names))
    prior = max(len(str(r.prior)) for r in rows)
    return "\n".join(
        f"{name:<{width}}  {r.prior!s:<{prior}}  {r.note}".rstrip()
        for name, r in zip(names, rows, strict=True)
    )
