"""What a model is, in words: the expansion of its formula as `print(model)` shows it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from ranef.crossproducts import is_nested
from ranef.design import Design, Factor, RandomTerm
from ranef.families import Family
from ranef.priors import PriorRow
from ranef.tables import indented, wrapped


def describe(design: Design, family: Family, priors: tuple[PriorRow, ...]) -> str:
    """Return the expansion of a formula: columns, terms, how factors are related, priors."""
    parts = [
        f"{design.formula.text}\n"
        f"  {family.name} family with {family.link.name} link, {design.n_obs} rows"
        + _extras(design),
        "Fixed effects\n" + indented(_fixed(design)),
    ]
    if design.terms:
        parts.append("Random effects\n" + indented("\n".join(map(_random, design.terms))))
    related = relations(design)
    if related:
        parts.append("Grouping factors\n" + indented("\n".join(related)))
    parts.append(f"Priors of a Bayesian fit, in units of {design.response}\n" + indented(_table(priors)))
    parts += [wrapped(f"Note: {note}") for note in notes(design)]
    return "\n\n".join(parts)


def relations(design: Design) -> list[str]:
    """Say of each pair of grouping factors whether one is nested in the other or they cross."""
    return [_relation(a, b) for a, b in combinations(_factors(design), 2)]


def notes(design: Design) -> list[str]:
    """Return what a user may have overlooked."""
    found = []
    factors = _factors(design)
    for a, b in combinations(factors, 2):
        for inner, outer in ((a, b), (b, a)):
            if _looks_implicitly_nested(inner, outer):
                found.append(_nesting_note(inner, outer))
                break
    for factor in factors:
        if len(factor.levels) < 5:
            found.append(
                f"{factor.name} has {len(factor.levels)} levels: the data say little about how "
                "such levels vary, and a prior says much."
            )
    for term in design.terms:
        alone = [c for c in term.coefs if c not in design.fixed and c != "Intercept"]
        if alone and not _spanned(design, term):
            found.append(
                f"{', '.join(alone)} varies by {term.factor} around a mean of zero, as it is not "
                "among the fixed effects."
            )
    return found


def _extras(design: Design) -> str:
    used = []
    if (design.weights != 1).any():
        used.append("weights")
    if design.offset.any():
        used.append("an offset")
    return f", with {' and '.join(used)}" if used else ""


def _fixed(design: Design) -> str:
    if not design.fixed:
        return "none"
    lines = [wrapped(", ".join(design.fixed), 90)]
    lines += [f"{name}: {coding}" for name, coding in design.recipe.X.codings.items()]
    return "\n".join(lines)


def _random(term: RandomTerm) -> str:
    k = term.n_coefs
    n_corr = k * (k - 1) // 2 if term.correlated else 0
    counts = f"{k} {_plural('sd', k)}"
    if n_corr:
        counts += f" and {n_corr} {_plural('correlation', n_corr)}"
    lines = [
        f"{term.text}",
        f"  {term.n_levels} levels of {term.factor}, {k} {_plural('coefficient', k)} each "
        f"({', '.join(term.coefs)}): {counts}",
    ]
    return "\n".join(lines)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _factors(design: Design) -> list[Factor]:
    return list({t.factor: t.grouping for t in design.terms}.values())


def _relation(a: Factor, b: Factor) -> str:
    if is_nested(a.codes, b.codes):
        return f"{a.name} is nested in {b.name}"
    if is_nested(b.codes, a.codes):
        return f"{b.name} is nested in {a.name}"
    cells, possible = len(_cells(a, b)), len(a.levels) * len(b.levels)
    if cells == possible:
        return f"{a.name} and {b.name} are crossed: every combination occurs"
    return f"{a.name} and {b.name} are partially crossed: {cells} of {possible} combinations occur"


def _cells(a: Factor, b: Factor) -> pd.Index:  # type: ignore[type-arg]
    return pd.Index(np.unique(a.codes * len(b.levels) + b.codes))


def _looks_implicitly_nested(inner: Factor, outer: Factor) -> bool:
    """Whether the labels of `inner` start anew within every level of `outer`, as a, b, c do.

    Genuinely crossed factors can look the same; but they rarely come with replicates in every
    cell, and with fewer levels than the factor they cross.
    """
    if inner.parts or outer.parts or len(inner.levels) >= len(outer.levels):
        return False
    cells = np.zeros((len(outer.levels), len(inner.levels)), dtype=np.int64)
    np.add.at(cells, (outer.codes, inner.codes), 1)
    counts = (cells > 0).sum(axis=1)
    first = np.arange(len(inner.levels)) < counts[:, None]
    return bool((first == (cells > 0)).all() and (counts >= 2).all() and (cells[cells > 0] > 1).all())


def _nesting_note(inner: Factor, outer: Factor) -> str:
    labels = ", ".join(map(str, inner.levels[:3]))
    return (
        f"the same labels of {inner.name} ({labels}, ...) occur within every level of {outer.name}. "
        f"If {inner.name} {inner.levels[0]} of one {outer.name} is not that of another, write "
        f"(1 | {outer.name}/{inner.name}) or (1 | {outer.name}:{inner.name}): as it stands, the "
        f"model has {len(inner.levels)} levels of {inner.name} that are shared by all."
    )


def _spanned(design: Design, term: RandomTerm) -> bool:
    """Whether the fixed columns contain the term's, perhaps in another coding."""
    both = np.column_stack([design.X, term.columns])
    return bool(np.linalg.matrix_rank(both) == np.linalg.matrix_rank(design.X))


def _table(rows: tuple[PriorRow, ...]) -> str:
    names = [f"{r.parameter}[{r.coef}]" if r.coef else r.parameter for r in rows]
    width = max(map(len, names))
    prior = max(len(str(r.prior)) for r in rows)
    return "\n".join(
        f"{name:<{width}}  {r.prior!s:<{prior}}  {r.note}".rstrip()
        for name, r in zip(names, rows, strict=True)
    )
