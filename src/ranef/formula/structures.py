"""The random-effects structures up to the one that a formula asks for, and which is within which.

A structure keeps some of the coefficients of each random-effects term, correlated or independent.
Terms are sets of factors here, the intercept the empty set. A term with categorical factors spans
its margins too: `0 + f` holds the intercept, `f:x` holds `x`. Two correlated sets of coefficients
are nested where their spans are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import prod
from typing import Any, Protocol

from ranef.arguments import check_counts
from ranef.errors import FitError
from ranef.formula.functions import makes_factor
from ranef.formula.syntax import Binary, Literal, Node, Paren, is_bar, parse, summands
from ranef.formula.terms import Formula, RandomPart, Term

NONE = "no random effects"
LIMIT = 64  # of structures, by default
MAX_COUNTED = 10_000  # structures of one grouping factor that an error message counts

type Key = frozenset[str]  # a term: the labels of its factors

_SPACES = re.compile(r"""(`[^`]*`|"[^"]*"|'[^']*')|\s+""")


class Coded(Protocol):
    """The coded columns of a random-effects term, as a design holds them."""

    @property
    def origins(self) -> Sequence[Any]:
        """Per column, a record whose `term` is the place of its term."""

    @property
    def codings(self) -> Mapping[str, Any]:
        """The categorical factors, by their labels."""


@dataclass(frozen=True)
class Structure:
    """One random-effects structure of a lattice.

    Attributes
    ----------
    label : str
        The random terms as they stand in the formula, `(1 | g) + (0 + x | h)`.
    formula : str
        The whole formula; response, fixed terms and offsets as they were given.
    """

    label: str
    formula: str


def structures(
    formula: Formula,
    coded: Iterable[tuple[RandomPart, Coded]] = (),
    *,
    marginality: bool = True,
    limit: int = LIMIT,
) -> list[Structure]:
    """Return the random-effects structures of a formula, from none up to its own.

    Parameters
    ----------
    formula : Formula
    coded : iterable of (RandomPart, coded columns), optional
        The coded columns of each random part, `recipe.random` of a design, which tell which factors
        are categorical and how many columns a term has. Without them every factor is taken for one
        measured column, except `factor()` and `C()`.
    marginality : bool
        Whether a slope is kept only with its intercept, and an interaction only with the terms
        within it (Nelder 1977). Otherwise each can go by itself, as in `(0 + x | g)`, unless this
        is the same model in another coding.
    limit : int
        The largest number of structures that are made.

    Returns
    -------
    list of Structure
        No random effects first, the formula's own last, every structure after all that are nested
        in it.

    Raises
    ------
    FitError
        If there are more structures than the limit.

    References
    ----------
    Nelder (1977), "A reformulation of linear models", Journal of the Royal Statistical Society A
    140: 48-77.

    Examples
    --------
    >>> from ranef.formula.terms import read_formula
    >>> lattice = structures(read_formula("y ~ x + (x | g) + (1 | h)"))
    >>> [s.label for s in lattice[:4]]
    ['no random effects', '(1 | g)', '(1 | h)', '(x || g)']
    >>> lattice[-1].formula
    'y ~ x + (x | g) + (1 | h)'
    """
    check_counts(limit=limit)
    groups: dict[Key, list[_Source]] = {}
    for source in _sources(formula, dict(coded)):
        groups.setdefault(source.group, []).append(source)
    cap = max(limit, MAX_COUNTED)
    options = [_Lattice(tuple(group), marginality, cap).options() for group in groups.values()]
    _check_count([len(choices) for choices in options], limit, cap)
    return _ordered(formula, [_distinct(choices) for choices in options])


def _check_count(counts: Sequence[int], limit: int, cap: int) -> None:
    if prod(counts) <= limit:
        return
    count = f"more than {cap}" if max(counts) > cap else prod(counts)
    raise FitError(
        f"the formula has {count} random-effects structures up to its own, more than limit={limit}:"
        " write those that matter as formulas of their own, or raise the limit."
    )


# ----------------------------------------------------------------------- terms and their spans


@dataclass(frozen=True, eq=False)
class _Source:
    """A random part of the formula, whose terms are chosen from.

    Attributes
    ----------
    index : int
        The number of the part among the random parts, from 0.
    part : RandomPart
    left, grouping : str
        The text on either side of the bar.
    texts : mapping of frozenset to str
        The text of each term, and of each without its categorical factors, in R's order.
    terms : tuple of frozenset
        The terms that the formula names.
    categorical : frozenset of str
        The labels of the categorical factors.
    wide : frozenset of frozenset
        The terms with more than one column.
    writes_intercept : bool
        Whether the formula writes the intercept, as `1`.
    """

    index: int
    part: RandomPart
    left: str
    grouping: str
    texts: Mapping[Key, str]
    terms: tuple[Key, ...]
    categorical: frozenset[str]
    wide: frozenset[Key]
    writes_intercept: bool

    @property
    def group(self) -> Key:
        """The grouping factors as a set."""
        return frozenset(map(str, self.part.group))

    def span(self, terms: Iterable[Key]) -> set[Key]:
        """Return the terms with all margins that their columns span."""
        return {margin for term in terms for margin in _margins(term, self.categorical)}

    def adds(self, terms: Sequence[Key]) -> dict[Key, set[Key]]:
        """Return the margins that each term adds to the span of the terms before it.

        They settle how the term is coded.
        """
        return {term: self.span([term]) - self.span(terms[:i]) for i, term in enumerate(terms)}


def _margins(term: Key, categorical: frozenset[str]) -> list[Key]:
    """Return a term without some of its categorical factors, in all ways, and the term itself."""
    factors = sorted(term & categorical)
    omitted = (c for n in range(len(factors) + 1) for c in combinations(factors, n))
    return [term - set(some) for some in omitted]


def _sources(formula: Formula, coded: Mapping[RandomPart, Coded]) -> list[_Source]:
    bars = {node.span: node.inner for _, node in _summands(formula) if isinstance(node, Paren)}
    return [
        _source(formula, i, bars[part.span], coded.get(part))
        for i, part in enumerate(formula.random)
    ]


def _source(formula: Formula, index: int, bar: Node, coded: Coded | None) -> _Source:
    assert isinstance(bar, Binary)
    part = formula.random[index]
    categorical = _categorical(part.terms, coded)
    measured = (
        Term(tuple(f for f in term.factors if str(f) not in categorical)) for term in part.terms
    )
    by_size = sorted([*part.terms, *measured], key=lambda term: len(term.factors))
    terms = tuple(term.key for term in part.terms)
    numbers = [origin.term for origin in coded.origins] if coded else []
    return _Source(
        index=index,
        part=part,
        left=_text(formula, bar.left),
        grouping=":".join(_text(formula, node) for node in part.group),
        texts={t.key: ":".join(_text(formula, f) for f in t.factors) for t in by_size},
        terms=terms,
        categorical=categorical,
        wide=frozenset(term for i, term in enumerate(terms) if numbers.count(i) > 1),
        writes_intercept=("+", "1") in [(sign, str(node)) for sign, node in summands(bar.left)],
    )


def _categorical(terms: Iterable[Term], coded: Coded | None) -> frozenset[str]:
    """Return the labels of the factors that the data or the formula say are categorical."""
    codings = coded.codings if coded else ()
    factors = [f for term in terms for f in term.factors]
    return frozenset(str(f) for f in factors if str(f) in codings or makes_factor(f))


# ------------------------------------------------------------------ the choices in one grouping


@dataclass(frozen=True, eq=False)
class _Choice:
    """The terms of a source that a structure keeps, maybe none, correlated or independent."""

    source: _Source
    terms: tuple[Key, ...]
    correlated: bool

    @cached_property
    def span(self) -> set[Key]:
        return self.source.span(self.terms)

    @cached_property
    def adds(self) -> dict[Key, set[Key]]:
        return self.source.adds(self.terms)

    @property
    def single(self) -> bool:
        """Whether there is one coefficient, which has nothing to be correlated with."""
        return len(self.span) == 1 and not self.span & self.source.wide

    @property
    def text(self) -> str:
        keeps_all = self.terms == self.source.terms
        left = self.source.left if keeps_all else " + ".join(self.summands())
        is_single = self.single and (self.source.part.correlated or not keeps_all)
        bar = "|" if self.correlated or is_single else "||"
        return f"({left} {bar} {self.source.grouping})"

    def summands(self) -> list[str]:
        slopes = [self.source.texts[term] for term in self.terms if term]
        if frozenset() not in self.terms:
            return ["0", *slopes]
        return ["1", *slopes] if self.source.writes_intercept or not slopes else slopes

    def within(self, others: Sequence[_Choice]) -> bool:
        """Whether these effects are a special case of other ones of the same grouping factor."""
        if self.correlated:
            return any(other.correlated and self.span <= other.span for other in others)
        return all(any(self.fits(term, other) for other in others) for term in self.terms)

    def fits(self, term: Key, other: _Choice) -> bool:
        """Whether another choice can have the effects of a term independent of all others."""
        if other.correlated:
            return self.source.span([term]) <= other.span
        return other.adds.get(term) == self.adds[term]


type _Option = tuple[_Choice, ...]  # for every source of a grouping factor


@dataclass(frozen=True, eq=False)
class _Lattice:
    """The choices from the sources of one grouping factor together, at most `cap` or a few more."""

    sources: tuple[_Source, ...]
    marginality: bool
    cap: int

    def options(self) -> list[_Option]:
        """Return every choice from the sources."""
        return [
            option
            for kept in self.subsets()
            for option in product(*(_versions(s, kept[s]) for s in self.sources))
        ]

    def subsets(self) -> list[dict[_Source, frozenset[Key]]]:
        """Return the sets of terms that can be kept, by source.

        Terms join one after the other, each after its margins, so that no set is made that would
        be thrown away: a long formula stops at the cap, not after all its subsets.
        """
        no_terms = dict.fromkeys(self.sources, frozenset[Key]())
        subsets = [(no_terms, frozenset[Key]())]  # the terms kept, and their span
        for source, term in self.candidates():
            spans = frozenset(source.span([term]))
            same = (spans - {term}) & set(self.names(source))  # else another coding of one model
            margins = self.margins(term) - spans
            subsets += [
                (kept | {source: kept[source] | {term}}, spanned | spans)
                for kept, spanned in subsets
                if same <= kept[source] and margins <= spanned
            ]
            if len(subsets) > self.cap:
                break
        return [kept for kept, _ in subsets]

    def candidates(self) -> list[tuple[_Source, Key]]:
        """Return the terms of each source in the order in which they join."""

        def size(candidate: tuple[_Source, Key]) -> tuple[int, int]:
            source, term = candidate
            return len(term - source.categorical), len(term)

        return sorted(((s, term) for s in self.sources for term in self.names(s)), key=size)

    def names(self, source: _Source) -> Iterable[Key]:
        """Return the terms of a source; where they are correlated, also without factors."""
        can_shrink = len(self.sources) == 1 and source.part.correlated
        return source.texts if can_shrink else source.terms

    def margins(self, term: Key) -> set[Key]:
        """Return the terms that have to be kept with a term."""
        if not self.marginality:
            return set()
        return {m for s in self.sources for m in s.span(s.terms) if m < term}


def _versions(source: _Source, terms: frozenset[Key]) -> list[_Choice]:
    """Return the choices of these terms: correlated, independent or, where they differ, both."""
    kept = tuple(
        term
        for term in source.texts
        if term in terms and (term in source.terms or term not in source.span(terms - {term}))
    )
    independent = _Choice(source, kept, correlated=False)
    if source.part.correlated:
        if independent.single or not kept:
            return [independent]
        return [independent, _Choice(source, kept, correlated=True)]
    all_terms = _Choice(source, source.terms, correlated=False)
    return [independent] if independent.within([all_terms]) else []


# --------------------------------------------------------------------- all groupings together

type _Structure = tuple[_Option, ...]  # of every grouping factor


def _nested(a: _Option, b: _Option) -> bool:
    return all(choice.within(b) for choice in a)


def _distinct(options: Sequence[_Option]) -> list[_Option]:
    """Leave out an option that is the same model as a later one.

    Beside `(0 + f | g)` a term `(1 | g)` adds nothing.
    """
    return [
        a
        for i, a in enumerate(options)
        if not any(_nested(a, b) and _nested(b, a) for b in options[i + 1 :])
    ]


def _ordered(formula: Formula, options: Sequence[Sequence[_Option]]) -> list[Structure]:
    """Combine the options, and sort by the number of steps from no random effects."""
    pairs = {(a, b) for group in options for a in group for b in group if _nested(a, b)}
    combined: list[_Structure] = list(product(*options))
    larger = {
        a: [b for b in combined if a is not b and pairs.issuperset(zip(a, b, strict=True))]
        for a in combined
    }
    steps = dict.fromkeys(combined, 0)
    for a in sorted(combined, key=lambda s: -len(larger[s])):  # after all nested structures
        steps |= {b: max(steps[b], steps[a] + 1) for b in larger[a]}
    in_order = sorted(combined, key=lambda s: (steps[s], *(-len(c.terms) for c in _choices(s))))
    return [Structure(_label(a), _formula_text(formula, a)) for a in in_order]


def _choices(structure: _Structure) -> list[_Choice]:
    """Return the choices from all sources, in the formula's order."""
    choices = [choice for option in structure for choice in option]
    return sorted(choices, key=lambda choice: choice.source.index)


def _label(structure: _Structure) -> str:
    text = " + ".join(choice.text for choice in _choices(structure) if choice.terms)
    return _SPACES.sub(lambda match: match[1] or " ", text) or NONE


def _formula_text(formula: Formula, structure: _Structure) -> str:
    """Return a formula with other random effects."""
    tree = _tree(formula)
    fixed = [(sign, node) for sign, node in _summands(formula) if not is_bar(node)]
    right = "".join(f" {sign} {_text(formula, node)}" for sign, node in fixed)
    if fixed and fixed[0][0] == "-":  # `- a:b` cannot stand first
        right = f" + 1{right}" if not isinstance(fixed[0][1], Literal) else f" + -{right[3:]}"
    right += "".join(f" + {choice.text}" for choice in _choices(structure) if choice.terms)
    return f"{_text(formula, tree.left)} ~ {right.removeprefix(' + ') or '1'}"


def _tree(formula: Formula) -> Binary:
    tree = parse(formula.text)
    assert isinstance(tree, Binary)
    return tree


def _summands(formula: Formula) -> list[tuple[str, Node]]:
    return summands(_tree(formula).right)


def _text(formula: Formula, node: Node) -> str:
    return formula.text[slice(*node.span)]
