"""The random-effects structures up to the one that a formula asks for, and which is within which.

A structure keeps some of the coefficients of each random-effects term, correlated or independent.
Terms are sets of factors here, the intercept the empty set. A term with categorical factors spans
its margins too: `0 + f` holds the intercept, `f:x` holds `x`. Two correlated sets of coefficients
are nested where what they span is.
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
from ranef.formula.functions import FUNCTIONS
from ranef.formula.syntax import Binary, Call, Literal, Node, Paren, is_bar, parse, summands
from ranef.formula.terms import Formula, RandomPart, Term

NONE = "no random effects"
LIMIT = 64
MAX_COUNTED = 10_000

type Key = frozenset[str]  # a term: the labels of its factors

_SPACES = re.compile(r"""(`[^`]*`|"[^"]*"|'[^']*')|\s+""")


class Coded(Protocol):
    """What is asked of the coded columns of a random-effects term, as a design holds them."""

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
        Its random terms as they stand in the formula, `(1 | g) + (0 + x | h)`.
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
        What the data say of each random part, `recipe.random` of a design: which factors are
        categorical, and how many columns a term has. Without it every factor is taken for one
        measured column, but for `factor()` and `C()`.
    marginality : bool
        Whether a slope is kept only with its intercept, and an interaction only with the terms
        within it (Nelder 1977). Otherwise each can go by itself, as in `(0 + x | g)`, where the
        rest is not the same model in another coding.
    limit : int
        The largest number of structures that are made.

    Returns
    -------
    list of Structure
        None first, the formula's own last, every structure after all that are nested in it.

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
    >>> found = structures(read_formula("y ~ x + (x | g) + (1 | h)"))
    >>> [s.label for s in found[:4]]
    ['no random effects', '(1 | g)', '(1 | h)', '(x || g)']
    >>> found[-1].formula
    'y ~ x + (x | g) + (1 | h)'
    """
    check_counts(limit=limit)
    groups: dict[Key, list[_Source]] = {}
    for source in _sources(formula, dict(coded)):
        groups.setdefault(source.group, []).append(source)
    cap = max(limit, MAX_COUNTED)
    lattices = [_Lattice(tuple(own), marginality, cap) for own in groups.values()]
    options = [lattice.options() for lattice in lattices]
    _check_count([len(found) for found in options], limit, cap)
    return _ordered(formula, [_distinct(found) for found in options])


def _check_count(counts: Sequence[int], limit: int, cap: int) -> None:
    if prod(counts) <= limit:
        return
    found = f"more than {cap}" if max(counts) > cap else prod(counts)
    raise FitError(
        f"the formula has {found} random-effects structures up to its own, more than limit={limit}:"
        " write those that matter as formulas of their own, or raise the limit."
    )


# ----------------------------------------------------------------------- terms and their spans


@dataclass(frozen=True, eq=False)
class _Source:
    """A random part of the formula: what its choices are made from.

    Attributes
    ----------
    place : int
        Its place among the random parts.
    part : RandomPart
    left, grouping : str
        The text on either side of the bar.
    texts : mapping of frozenset to str
        The text of each term, and of each without its categorical factors, in R's order.
    own : tuple of frozenset
        The terms that the formula names.
    categorical : frozenset of str
        The labels of the categorical factors.
    wide : frozenset of frozenset
        The terms with more than one column.
    written : bool
        Whether the formula writes the intercept, as `1`.
    """

    place: int
    part: RandomPart
    left: str
    grouping: str
    texts: Mapping[Key, str]
    own: tuple[Key, ...]
    categorical: frozenset[str]
    wide: frozenset[Key]
    written: bool

    @property
    def group(self) -> Key:
        """The grouping factors as a set."""
        return frozenset(map(str, self.part.group))

    def span(self, terms: Iterable[Key]) -> set[Key]:
        """Return the terms with all margins that their columns span."""
        return {margin for term in terms for margin in _margins(term, self.categorical)}

    def adds(self, terms: Sequence[Key]) -> dict[Key, set[Key]]:
        """Return what each term spans beyond those before it, which settles its coding."""
        return {term: self.span([term]) - self.span(terms[:i]) for i, term in enumerate(terms)}


def _margins(term: Key, categorical: frozenset[str]) -> list[Key]:
    """Return a term without any of its categorical factors, in all ways; itself too."""
    inside = sorted(term & categorical)
    left_out = (c for n in range(len(inside) + 1) for c in combinations(inside, n))
    return [term - set(factors) for factors in left_out]


def _sources(formula: Formula, coded: Mapping[RandomPart, Coded]) -> list[_Source]:
    bars = {node.span: node.inner for _, node in _summands(formula) if isinstance(node, Paren)}
    return [
        _source(formula, i, bars[part.span], coded.get(part))
        for i, part in enumerate(formula.random)
    ]


def _source(formula: Formula, place: int, bar: Node, coded: Coded | None) -> _Source:
    assert isinstance(bar, Binary)
    part = formula.random[place]
    categorical = _categorical(part.terms, coded)
    measured = (
        Term(tuple(f for f in term.factors if str(f) not in categorical)) for term in part.terms
    )
    by_size = sorted([*part.terms, *measured], key=lambda term: len(term.factors))
    own = tuple(term.key for term in part.terms)
    return _Source(
        place=place,
        part=part,
        left=_text(formula, bar.left),
        grouping=":".join(_text(formula, node) for node in part.group),
        texts={t.key: ":".join(_text(formula, f) for f in t.factors) for t in by_size},
        own=own,
        categorical=categorical,
        wide=_wide(own, coded),
        written=("+", "1") in [(sign, str(node)) for sign, node in summands(bar.left)],
    )


def _categorical(terms: Iterable[Term], coded: Coded | None) -> frozenset[str]:
    known = coded.codings if coded else ()
    factors = [f for term in terms for f in term.factors]
    return frozenset(str(f) for f in factors if str(f) in known or _makes_factor(f))


def _makes_factor(node: Node) -> bool:
    return isinstance(node, Call) and FUNCTIONS.get(node.function) == "categorical"


def _wide(own: Sequence[Key], coded: Coded | None) -> frozenset[Key]:
    places = [origin.term for origin in coded.origins] if coded else []
    return frozenset(term for i, term in enumerate(own) if places.count(i) > 1)


# ------------------------------------------------------------------ the choices in one grouping


@dataclass(frozen=True, eq=False)
class _Choice:
    """What is kept of a source: some of its terms, correlated or independent; maybe none."""

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
        whole = self.terms == self.source.own
        words = self.source.left if whole else " + ".join(self.words())
        as_one = self.single and (self.source.part.correlated or not whole)
        bar = "|" if self.correlated or as_one else "||"
        return f"({words} {bar} {self.source.grouping})"

    def words(self) -> list[str]:
        slopes = [self.source.texts[term] for term in self.terms if term]
        if frozenset() not in self.terms:
            return ["0", *slopes]
        return ["1", *slopes] if self.source.written or not slopes else slopes

    def within(self, others: Sequence[_Choice]) -> bool:
        """Whether these effects are a special case of others' of the same grouping factor."""
        if self.correlated:
            return any(other.correlated and self.span <= other.span for other in others)
        return all(any(self.fits(term, other) for other in others) for term in self.terms)

    def fits(self, term: Key, other: _Choice) -> bool:
        """Whether another's effects can be the independent ones of a term."""
        if other.correlated:
            return self.source.span([term]) <= other.span
        return other.adds.get(term) == self.adds[term]


type _Option = tuple[_Choice, ...]  # one of every source of a grouping factor


@dataclass(frozen=True, eq=False)
class _Lattice:
    """The choices from the sources of one grouping factor together, at most `cap` or a few more."""

    sources: tuple[_Source, ...]
    marginality: bool
    cap: int

    def options(self) -> list[_Option]:
        """Return every choice from the sources."""
        found: list[_Option] = []
        for kept in self.subsets():
            found += product(*(_versions(s, kept[s]) for s in self.sources))
        return found

    def subsets(self) -> list[dict[_Source, frozenset[Key]]]:
        """Return the sets of terms that can be kept, by source.

        Terms join one after the other, what they stand on first, so that nothing is made that
        would be thrown away: a long formula stops at the cap, not after all its subsets.
        """
        nothing = dict.fromkeys(self.sources, frozenset[Key]())
        found = [(nothing, frozenset[Key]())]  # what is kept, and what it spans
        for source, term in self.candidates():
            spans = frozenset(source.span([term]))
            same = (spans - {term}) & set(self.named(source))  # else another coding of one model
            below = self.margins(term) - spans
            found += [
                (kept | {source: kept[source] | {term}}, held | spans)
                for kept, held in found
                if same <= kept[source] and below <= held
            ]
            if len(found) > self.cap:
                break
        return [kept for kept, _ in found]

    def candidates(self) -> list[tuple[_Source, Key]]:
        """Return the terms of each source, with their places, in the order in which they join."""
        found = [(source, term) for source in self.sources for term in self.named(source)]
        return sorted(found, key=lambda candidate: _rank(*candidate))

    def named(self, source: _Source) -> Iterable[Key]:
        """Return the terms of a source; where they are correlated, those they can shrink to."""
        alone = len(self.sources) == 1 and source.part.correlated
        return source.texts if alone else source.own

    def margins(self, term: Key) -> set[Key]:
        """Return the terms that have to be kept with a term."""
        spanned = {m for s in self.sources for m in s.span(s.own) if m < term}
        return spanned if self.marginality else set()


def _rank(source: _Source, term: Key) -> tuple[int, int]:
    return len(term - source.categorical), len(term)


def _versions(source: _Source, terms: frozenset[Key]) -> list[_Choice]:
    """Return the choices of these terms: correlated, independent or, where they differ, both."""
    kept = tuple(
        term
        for term in source.texts
        if term in terms and (term in source.own or term not in source.span(terms - {term}))
    )
    apart, joint = _Choice(source, kept, correlated=False), _Choice(source, kept, correlated=True)
    if source.part.correlated:
        return [apart] if apart.single or not kept else [apart, joint]
    return [apart] if apart.within([_Choice(source, source.own, correlated=False)]) else []


# --------------------------------------------------------------------- all groupings together

type _Structure = tuple[_Option, ...]  # of every grouping factor


def _nested(a: _Option, b: _Option) -> bool:
    return all(choice.within(b) for choice in a)


def _distinct(found: Sequence[_Option]) -> list[_Option]:
    """Leave out what is the same model as a later one: `(0 + f | g)`, as `(1 | g)` adds nothing."""
    return [
        a
        for i, a in enumerate(found)
        if not any(_nested(a, b) and _nested(b, a) for b in found[i + 1 :])
    ]


def _ordered(formula: Formula, options: Sequence[Sequence[_Option]]) -> list[Structure]:
    """Combine the options, and sort by the steps from none."""
    pairs = {(a, b) for found in options for a in found for b in found if _nested(a, b)}
    whole: list[_Structure] = list(product(*options))
    larger = {
        a: [b for b in whole if a is not b and pairs.issuperset(zip(a, b, strict=True))]
        for a in whole
    }
    steps = dict.fromkeys(whole, 0)
    for a in sorted(whole, key=lambda s: -len(larger[s])):  # after all that are nested in it
        steps |= {b: max(steps[b], steps[a] + 1) for b in larger[a]}
    in_order = sorted(whole, key=lambda s: (steps[s], *(-len(c.terms) for c in _choices(s))))
    return [Structure(_label(a), _written(formula, a)) for a in in_order]


def _choices(structure: _Structure) -> list[_Choice]:
    """Return what is kept of each source, in the formula's order; nothing where none is."""
    found = [choice for option in structure for choice in option]
    return sorted(found, key=lambda choice: choice.source.place)


def _label(structure: _Structure) -> str:
    words = " + ".join(choice.text for choice in _choices(structure) if choice.terms)
    return _SPACES.sub(lambda found: found[1] or " ", words) or NONE


def _written(formula: Formula, structure: _Structure) -> str:
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
