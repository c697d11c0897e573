"""A formula from another one and what is changed: `. ~ . - x + (1 | g)`, as R's `update` has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ranef.errors import FormulaError, listed
from ranef.formula.syntax import Binary, Call, Column, Node, is_bar, parse, summands
from ranef.formula.terms import Formula, RandomPart, Term, read_formula

_DOT = re.compile(r"""(`[^`]*`|"[^"]*"|'[^']*')|(?<![\w.])\.(?![\w.])""")
_PLACE = "`.`"  # of what the formula has: no column is called so


@dataclass(frozen=True)
class _Summand:
    """A summand of the right side, with its sign and its text."""

    sign: str
    node: Node
    text: str


def updated(formula: Formula, change: str, functions: Iterable[str] = ()) -> str:
    """Return the text of a formula that has been changed.

    Parameters
    ----------
    formula : Formula
    change : str
        A formula, in which `.` stands for that side of the old one. On the right `.` alone is all
        of it, random-effects terms and offsets too, and any of them may be taken away; within
        another term (`.:x`, `(.)^2`) it is the sum of the fixed terms. Without a left side the
        response is kept.
    functions : iterable of str, optional
        Names of functions that are allowed besides the built-in ones.

    Raises
    ------
    FormulaError
        If the change cannot be read, or takes away what is not there.

    Examples
    --------
    >>> old = read_formula("y ~ x + z + (x | g)")
    >>> updated(old, ". ~ . - z - (x | g) + (1 | g)")
    'y ~ x + (1 | g)'
    >>> updated(old, "log(.) ~ .")
    'log(y) ~ x + z + (x | g)'
    """
    if not isinstance(change, str):
        raise FormulaError(f"a formula is text, got {type(change).__name__}.")
    text = _DOT.sub(lambda found: found[1] or _PLACE, change)
    text = f"{_PLACE} {text}" if text.lstrip().startswith("~") else text
    tree = parse(text)
    if not isinstance(tree, Binary) or tree.op != "~":
        message = "a change of a formula has `~` between its sides, as in `. ~ . + x`."
        raise FormulaError(message, text, tree.span)
    return _Change(formula, text, tuple(functions)).applied(tree)


@dataclass(frozen=True)
class _Change:
    """A formula, and the text of a change in which `.` is a column of that name."""

    formula: Formula
    text: str
    functions: tuple[str, ...]

    def applied(self, tree: Binary) -> str:
        old = parse(self.formula.text)
        assert isinstance(old, Binary)
        response = _slice(self.formula.text, old.left)
        is_alone = tree.left == _column() or not isinstance(old.left, Binary)
        left = self.filled(tree.left, response if is_alone else f"({response})")
        right: list[_Summand] = []
        for sign, node in summands(tree.right):
            if node == _column() and sign == "+":
                right += [
                    _Summand(sign, one, _slice(self.formula.text, one))
                    for sign, one in summands(old.right)
                ]
            elif node == _column():
                raise self.error("the whole of a formula cannot be taken away.", node)
            else:
                right = self.with_summand(right, sign, node)
        return f"{left} ~ {_joined(right)}"

    def error(self, message: str, node: Node) -> FormulaError:
        return FormulaError(message, self.text, node.span)

    def filled(self, node: Node, text: str) -> str:
        """Return the text of an expression, with another one in the place of each dot."""
        return _slice(self.text, node).replace(_PLACE, text)

    def with_summand(self, right: list[_Summand], sign: str, node: Node) -> list[_Summand]:
        fixed = " + ".join(str(term) for term in self.formula.fixed if term.factors)
        summand = _Summand(sign, node, self.filled(node, f"({fixed or '1'})"))
        if sign == "+":
            return [*right, summand]
        if is_bar(node):
            return self.without_random(right, summand)
        if isinstance(node, Call) and node.function == "offset":
            kept = [one for one in right if str(one.node) != str(node)]
            if len(kept) == len(right):
                raise self.error(f"`{node}` is not in the formula.", node)
            return kept
        return self.without_fixed(right, summand)

    def without_random(self, right: list[_Summand], summand: _Summand) -> list[_Summand]:
        """Take random-effects terms away; of `(1 | a/b)`, which is two, also one of them."""
        gone = {_key(part) for part in self.random_parts(summand.text)}
        kept, present = list[_Summand](), list[RandomPart]()
        for one in right:
            parts = self.random_parts(one.text) if is_bar(one.node) else ()
            present += parts
            left_over = [part for part in parts if _key(part) not in gone]
            if len(left_over) == len(parts):
                kept.append(one)
            else:
                kept += [_Summand("+", one.node, str(part)) for part in left_over]
        if not gone <= {_key(part) for part in present}:
            there = listed(present) or "no random effects"
            raise self.error(
                f"`{summand.text}` is not in the formula, which has {there}.", summand.node
            )
        return kept

    def random_parts(self, text: str) -> tuple[RandomPart, ...]:
        return read_formula(f"{_PLACE} ~ {text}", self.functions).random

    def without_fixed(self, right: list[_Summand], summand: _Summand) -> list[_Summand]:
        """Take fixed terms away: the summand itself, or from what others expand to."""
        present = self.terms(_joined(right))
        gone = self.terms(summand.text, intercept="0")
        missing = [str(term) for key, term in gone.items() if term.factors and key not in present]
        if missing:
            there = listed(term for term in present.values() if term.factors) or "no fixed terms"
            raise self.error(
                f"{listed(missing)} is not in the formula, which has {there}.", summand.node
            )
        same = [
            one
            for one in right
            if one.sign == "+"
            and gone
            and not is_bar(one.node)
            and self.terms(one.text, intercept="0").keys() == gone.keys()
        ]
        if not same:
            return [*right, summand]
        return [one for one in right if one not in same]

    def terms(self, text: str, intercept: str = "1") -> dict[frozenset[str], Term]:
        found = read_formula(f"{_PLACE} ~ {intercept} + {text}", self.functions).fixed
        return {term.key: term for term in found if term.factors}


def _column() -> Column:
    return Column(".", (0, 0))


def _slice(text: str, node: Node) -> str:
    return text[node.span[0] : node.span[1]]


def _key(part: RandomPart) -> tuple[frozenset[str], frozenset[frozenset[str]], bool]:
    """Return what a random-effects term is, whatever the order of its parts."""
    terms = frozenset(term.key for term in part.terms)
    return frozenset(map(str, part.group)), terms, part.correlated and terms != {frozenset()}


def _joined(right: list[_Summand]) -> str:
    """Return summands as a sum, which is an intercept if there is none."""
    words = [f"{one.sign} {one.text}" for one in right]
    return " ".join(words).removeprefix("+ ") or "1"
