"""The terms of a model formula: the response, the fixed terms, the random terms.

The tree of `formula.syntax` is read with the rules of R's formulas (Wilkinson & Rogers 1973) and
lme4's random-effects terms (Bates et al. 2015, section 2.2). Nothing is evaluated here; every
function is held against the allow-list of `ranef.formula.functions`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from ranef.errors import FormulaError, suggestion
from ranef.formula.functions import ELSEWHERE, FUNCTIONS, is_contrast, makes_factor, with_our_coding
from ranef.formula.syntax import (
    Binary,
    Call,
    Column,
    Literal,
    Node,
    Paren,
    Span,
    Unary,
    contains_bar,
    is_bar,
    parse,
    summands,
    walk,
)

MAX_TERMS = 2000
MAX_POWER = 10
INTERCEPT = "Intercept"

_ARITHMETIC_ONLY = {"==", "!=", "<=", ">=", "<", ">"}


@dataclass(frozen=True)
class Term:
    """A product of factors, `()` for the intercept. Terms are equal whatever the order."""

    factors: tuple[Node, ...]

    @property
    def key(self) -> frozenset[str]:
        """The labels of the factors as a set; two terms with the same set are the same."""
        return frozenset(map(str, self.factors))

    def __str__(self) -> str:
        return ":".join(map(str, self.factors)) or "1"


@dataclass(frozen=True)
class RandomPart:
    """One random-effects term `(terms | group)` after expansion of `/`.

    Attributes
    ----------
    terms : tuple of Term
        The terms whose coefficients vary between levels; the intercept has no factors.
    group : tuple of Node
        The factors whose combinations are the levels.
    correlated : bool
        False for `||`.
    span : tuple of int
        The place of the term in the formula.
    """

    terms: tuple[Term, ...]
    group: tuple[Node, ...]
    correlated: bool
    span: Span

    @property
    def factor(self) -> str:
        """The grouping factor as lme4 names it, `cask:batch` for `batch/cask`."""
        return ":".join(map(str, self.group))

    def __str__(self) -> str:
        words = [str(t) for t in self.terms]
        if Term(()).key not in [t.key for t in self.terms]:
            words = ["0", *words]
        bar = "|" if self.correlated else "||"
        return f"({' + '.join(words)} {bar} {self.factor})"


@dataclass(frozen=True)
class Formula:
    """A formula that has been read.

    Attributes
    ----------
    text : str
        The formula as it was given.
    response : Node
        The expression on the left.
    fixed : tuple of Term
        The fixed terms in R's order, the intercept first where there is one.
    random : tuple of RandomPart
        The random terms in the formula's order.
    offsets : tuple of Node
        The arguments of `offset()`.

    Examples
    --------
    >>> f = read_formula("y ~ a*x + (x | g/h) - 1")
    >>> [str(t) for t in f.fixed]
    ['a', 'x', 'a:x']
    >>> [str(r) for r in f.random]
    ['(1 + x | g)', '(1 + x | h:g)']
    """

    text: str
    response: Node
    fixed: tuple[Term, ...]
    random: tuple[RandomPart, ...]
    offsets: tuple[Node, ...]

    def columns(self) -> dict[str, Span]:
        """Return the names of all columns used, with the place of their first use."""
        return columns_of([self.response]) | self.predictors()

    def factors(self, *, random: bool = True) -> list[Node]:
        """Return the factors of the fixed terms, and of the random ones with their groups."""
        factors = [factor for term in self.fixed for factor in term.factors]
        for part in self.random if random else ():
            factors += [factor for term in part.terms for factor in term.factors]
            factors += part.group
        return factors

    def predictors(self) -> dict[str, Span]:
        """Return the columns used on the right, also in random terms."""
        return columns_of([*self.factors(), *self.offsets])


def columns_of(nodes: Iterable[Node]) -> dict[str, Span]:
    """Return the columns of the data that expressions use, with the place of their first use."""
    spans: dict[str, Span] = {}
    for leaf in (below for node in nodes for below in walk(node)):
        if isinstance(leaf, Column) and not is_contrast(leaf.name):
            spans.setdefault(leaf.name, leaf.span)
    return spans


def read_formula(text: str, functions: Iterable[str] = ()) -> Formula:
    """Read a formula.

    Parameters
    ----------
    text : str
        As in lme4: `y ~ x + (x | g)`.
    functions : iterable of str, optional
        Names of functions that are allowed besides the built-in ones.

    Raises
    ------
    FormulaError
        With the place marked, where the text is not a formula or uses what is not allowed.
    """
    return _Reader(text, frozenset(FUNCTIONS) | frozenset(functions)).read()


class _Reader:
    """Turns the tree of one formula into terms."""

    def __init__(self, text: str, functions: frozenset[str]) -> None:
        self.text = text
        self.functions = functions

    def error(self, message: str, span: Span) -> FormulaError:
        return FormulaError(message, self.text, span)

    def read(self) -> Formula:
        tree = parse(self.text, with_our_coding)
        if not isinstance(tree, Binary) or tree.op != "~":
            raise self.error("a formula needs `~` between response and predictors.", tree.span)
        if isinstance(tree.left, Binary) and tree.left.op == "~":
            raise self.error("a formula has one `~` only.", tree.op_span)
        self.check_labels(tree)
        for node in walk(tree):
            self.check_call(node, tree.left)
        self.check_arithmetic(tree.left)
        return self.assemble(tree.left, tree.right)

    def assemble(self, response: Node, right: Node) -> Formula:
        fixed: dict[frozenset[str], Term] = {frozenset(): Term(())}
        random: list[RandomPart] = []
        offsets: list[Node] = []
        for sign, summand in summands(right):
            if is_bar(summand):
                self.check_added(sign, summand, "a random-effects term")
                random.extend(self.random_parts(summand))
            elif isinstance(summand, Call) and summand.function == "offset":
                self.check_added(sign, summand, "an offset")
                offsets.append(self.offset(summand))
            else:
                self.accumulate(fixed, sign, summand, top=True)
        self.check_random(random)
        formula = Formula(self.text, response, _ordered(fixed), tuple(random), tuple(offsets))
        self.check_response(formula)
        return formula

    def check_added(self, sign: str, summand: Node, noun: str) -> None:
        if sign != "+":
            raise self.error(f"{noun} can only be added with `+`.", summand.span)

    def offset(self, call: Call) -> Node:
        if len(call.args) != 1 or call.kwargs:
            raise self.error("`offset` takes one expression.", call.span)
        self.check_arithmetic(call.args[0])
        return call.args[0]

    # ------------------------------------------------------------------ terms

    def accumulate(
        self, terms: dict[frozenset[str], Term], sign: str, summand: Node, *, top: bool
    ) -> None:
        """Add the terms of one summand to a set of terms, or take them away."""
        if top and isinstance(summand, Literal) and _is_intercept(summand):
            expanded, adding = [Term(())], (sign == "+") == (summand.value == 1.0)
        else:
            expanded, adding = self.expand(summand), sign == "+"
        for term in expanded:
            if adding:
                terms.setdefault(term.key, term)
            else:
                terms.pop(term.key, None)
        self.check_count(len(terms), summand)

    def expand(self, node: Node) -> list[Term]:
        """Return the terms that an expression of formula operators stands for."""
        match node:
            case Paren() | Binary(op="+" | "-") if not is_bar(node):
                return self.sum(node.inner if isinstance(node, Paren) else node)
            case Binary(op="*"):
                left, right = self.expand(node.left), self.expand(node.right)
                return [*left, *right, *self.crossed(left, right, node)]
            case Binary(op=":" | "%in%"):
                return self.crossed(self.expand(node.left), self.expand(node.right), node)
            case Binary(op="/"):
                left = self.expand(node.left)
                outer = [Term(_unique(f for term in left for f in term.factors))]
                return [*left, *self.crossed(outer, self.expand(node.right), node)]
            case Binary(op="^" | "**"):
                return self.power(node)
        return [self.single(node)]

    def sum(self, node: Node) -> list[Term]:
        terms: dict[frozenset[str], Term] = {}
        for sign, summand in summands(node):
            self.accumulate(terms, sign, summand, top=False)
        return list(terms.values())

    def crossed(self, left: list[Term], right: list[Term], node: Node) -> list[Term]:
        self.check_count(len(left) * len(right), node)
        return [Term(_unique((*a.factors, *b.factors))) for a, b in product(left, right)]

    def power(self, node: Binary) -> list[Term]:
        exponent = node.right.value if isinstance(node.right, Literal) else None
        if not isinstance(exponent, float) or exponent not in range(1, MAX_POWER + 1):
            message = (
                f"between terms, `{node.op}` means interactions up to a whole order from 1 to "
                f"{MAX_POWER}; for a power of a number write `I({node})`."
            )
            raise self.error(message, node.right.span)
        base = self.expand(node.left)
        if len(base) == 1 and exponent > 1:
            message = f"between terms, `{node}` means no more than `{node.left}`; "
            raise self.error(message + f"for a power of a number write `I({node})`.", node.span)
        terms = {term.key: term for term in base}
        for _ in range(int(exponent) - 1):
            for term in self.crossed(list(terms.values()), base, node):
                terms.setdefault(term.key, term)
        return list(terms.values())

    def single(self, node: Node) -> Term:
        """Return the term of one expression that is not made of formula operators."""
        if is_bar(node):
            message = "a random-effects term can only be added with `+`, at the top of the formula."
            raise self.error(message, node.span)
        match node:
            case Binary(op="|" | "||"):
                message = (
                    f"random effects stand in parentheses, beside the fixed ones: `({node})` for "
                    f"what varies by `{node.right}`."
                )
                raise self.error(message, node.op_span)
            case Binary(op=op) if op in _ARITHMETIC_ONLY:
                raise self.error(f"write a comparison between terms as `I({node})`.", node.span)
            case Literal() if _is_intercept(node):
                message = (
                    f"`{node}` stands for the intercept: add it or take it away at the top of "
                )
                raise self.error(message + "the formula, not inside another term.", node.span)
            case Literal():
                message = f"`{node}` cannot be a term: only 0 and 1, for the intercept, can."
                raise self.error(message, node.span)
            case Unary():
                raise self.error(f"write arithmetic between terms as `I({node})`.", node.span)
            case Call(function="offset"):
                raise self.error("`offset` can only stand at the top of a formula.", node.span)
        self.check_arithmetic(node)
        return Term((node,))

    # ----------------------------------------------------------- random terms

    def random_parts(self, node: Node) -> list[RandomPart]:
        """Return the random-effects terms of one in parentheses, several where it has `/`."""
        assert isinstance(node, Paren)
        bar = node.inner
        assert isinstance(bar, Binary)
        if contains_bar(bar.left) or contains_bar(bar.right):
            message = "there can be one `|` or `||` in a random-effects term."
            raise self.error(message, bar.op_span)
        terms: dict[frozenset[str], Term] = {frozenset(): Term(())}
        for sign, summand in summands(bar.left):
            self.accumulate(terms, sign, summand, top=True)
        if not terms:
            message = f"`{node}` has no coefficients: name what varies between the groups, as in "
            raise self.error(message + f"`(1 | {bar.right})`.", node.span)
        ordered, correlated = _ordered(terms), bar.op == "|"
        groups = self.groups(bar.right)
        return [RandomPart(ordered, group, correlated, node.span) for group in groups]

    def groups(self, node: Node) -> list[tuple[Node, ...]]:
        """Return the grouping factors, `a/b` being `a` and then `b:a` as lme4 names it."""
        match node:
            case Paren():
                return self.groups(node.inner)
            case Binary(op="/"):
                outer = self.groups(node.left)
                return [*outer, *(_unique((*g, *outer[-1])) for g in self.groups(node.right))]
            case Binary(op=":"):
                left, right = self.groups(node.left), self.groups(node.right)
                if len(left) == len(right) == 1:
                    return [_unique((*left[0], *right[0]))]
            case Column() | Call() if isinstance(node, Column) or makes_factor(node):
                self.check_arithmetic(node)
                return [(node,)]
        message = (
            f"`{node}` is not a grouping factor: expected a column, or columns joined with `:` "
            "(their combinations) or `/` (nested)."
        )
        raise self.error(message, node.span)

    def check_random(self, random: list[RandomPart]) -> None:
        """Refuse a coefficient that two terms give to the same grouping factor."""
        seen: set[tuple[frozenset[str], frozenset[str]]] = set()
        for part in random:
            group = frozenset(map(str, part.group))
            for term in part.terms:
                if (group, term.key) in seen:
                    name = "the intercept" if not term.factors else f"`{term}`"
                    message = (
                        f"{name} varies by `{part.factor}` in two random-effects terms, and the "
                        "data cannot tell their variances apart: keep it in one of them."
                    )
                    raise self.error(message, part.span)
                seen.add((group, term.key))

    # ----------------------------------------------------------------- checks

    def check_count(self, n_terms: int, node: Node) -> None:
        if n_terms > MAX_TERMS:
            raise self.error(f"this expands to more than {MAX_TERMS} terms.", node.span)

    def check_call(self, node: Node, response: Node) -> None:
        if not isinstance(node, Call):
            return
        if node.function not in self.functions and not is_contrast(node.function):
            message = f"the function `{node.function}` is not available in a formula"
            if node.function in ELSEWHERE:
                raise self.error(f"{message}: {ELSEWHERE[node.function]}.", node.span)
            message += ". "
            similar = (
                f for f in sorted(self.functions) if node.function[:3] == f[:3] or "." not in f
            )
            remedy = " Functions of your own can be given as `functions={'name': function}`."
            raise self.error(message + suggestion(node.function, similar) + remedy, node.span)
        if node.function == "cbind" and node is not response:
            raise self.error("`cbind` can only be the whole left side of a formula.", node.span)

    def check_labels(self, tree: Node) -> None:
        """Refuse two different things that read the same, as `log(x)` and a column of that name."""
        seen: dict[str, Node] = {}
        for node in walk(tree):
            if isinstance(node, (Column, Call)) and seen.setdefault(str(node), node) != node:
                message = f"`{node}` is used as the name of a column and as an expression: "
                raise self.error(message + "rename the column.", node.span)

    def check_arithmetic(self, node: Node) -> None:
        """Refuse the operators that mean something between terms only."""
        for below in walk(node):
            if isinstance(below, Binary) and below.op in ("|", "||", ":", "%in%", "~"):
                message = f"`{below.op}` has no meaning inside `{node}`."
                if isinstance(node, Call) and "|" in below.op:
                    message += " Random effects are `(x | g)`, or `(x || g)` without correlations."
                raise self.error(message, below.op_span)

    def check_response(self, formula: Formula) -> None:
        """Refuse a response without a column, or one that is among the predictors.

        A response of one column, `log(y)`, allows for no other use of it; one of several,
        `y - base` or `cbind(y, n - y)`, may have one of them as a predictor.
        """
        response = formula.response
        columns = columns_of([response])
        if not columns:
            raise self.error("the response uses no column.", response.span)
        counts = (
            response.args if isinstance(response, Call) and response.function == "cbind" else ()
        )
        responses = {str(one) for node in (response, *counts) for one in (node, _bare(node))}
        for node in (*formula.factors(), *formula.offsets):
            used = columns.keys() & columns_of([node]).keys()
            if {str(node), str(_bare(node))} & responses or (len(columns) == 1 and used):
                same = next((one for one in (node, _bare(node)) if str(one) in responses), None)
                name = str(same or next(iter(used)))
                message = f"the response `{name}` is also on the right-hand side."
                raise self.error(message, node.span)


def _bare(node: Node) -> Node:
    """Return what is inside of parentheses and `I()`."""
    match node:
        case Paren():
            return _bare(node.inner)
        case Call(function="I", args=(inner,)):
            return _bare(inner)
    return node


def _is_intercept(node: Node) -> bool:
    return isinstance(node, Literal) and isinstance(node.value, float) and node.value in (0.0, 1.0)


def _unique(factors: Iterable[Node]) -> tuple[Node, ...]:
    return tuple({str(f): f for f in factors}.values())


def _ordered(terms: dict[frozenset[str], Term]) -> tuple[Term, ...]:
    """Sort as R does: factors by their first use, terms by their order of interaction."""
    first: dict[str, int] = {}
    for factor in (f for term in terms.values() for f in term.factors):
        first[str(factor)] = min(factor.span[0], first.get(str(factor), factor.span[0]))
    sorted_factors = [
        Term(tuple(sorted(term.factors, key=lambda f: first[str(f)]))) for term in terms.values()
    ]
    return tuple(sorted(sorted_factors, key=lambda term: len(term.factors)))
