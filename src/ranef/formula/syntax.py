"""Formula text to a closed syntax tree.

Every character becomes a token, every token is used or refused with its place: attributes,
subscripts, lambdas and assignments have no node in this tree and cannot reach any later step.
Operators bind as in R: ``^`` ``**``, unary sign, ``:``, ``%in%``, ``*`` ``/``, ``+`` ``-``,
comparisons, ``|`` ``||``, ``~``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ranef.errors import FormulaError

MAX_LENGTH = 4096  # characters of a formula
MAX_DEPTH = 50  # of nesting
MAX_CHAIN = 100  # operators in a row, except the `+` and `-` between terms
MAX_HEIGHT = 150  # of one term's tree, which bounds the recursion of later steps

Span = tuple[int, int]


@dataclass(frozen=True)
class Column:
    """A name that stands for a column of the data."""

    name: str
    span: Span = field(compare=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Literal:
    """A number, a string, or one of TRUE, FALSE and None."""

    value: float | str | bool | None
    text: str
    span: Span = field(compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Call:
    """A function of the allow-list with its arguments."""

    function: str
    args: tuple[Node, ...]
    kwargs: tuple[tuple[str, Node], ...]
    span: Span = field(compare=False)

    def __str__(self) -> str:
        words = [str(a) for a in self.args] + [f"{k}={v}" for k, v in self.kwargs]
        return f"{self.function}({', '.join(words)})"


@dataclass(frozen=True)
class Unary:
    """A signed expression."""

    op: str
    operand: Node
    span: Span = field(compare=False)

    def __str__(self) -> str:
        return f"{self.op}{self.operand}"


@dataclass(frozen=True)
class Binary:
    """Two expressions and the operator between them; ``|`` and ``||`` too."""

    op: str
    left: Node
    right: Node
    span: Span = field(compare=False)
    op_span: Span = field(compare=False)

    def __str__(self) -> str:
        space = "" if self.op in _TIGHT else " "
        return f"{self.left}{space}{self.op}{space}{self.right}"


@dataclass(frozen=True)
class Paren:
    """An expression in parentheses."""

    inner: Node
    span: Span = field(compare=False)

    def __str__(self) -> str:
        return f"({self.inner})"


Node = Column | Literal | Call | Unary | Binary | Paren

_TIGHT = {"^", "**", ":", "/"}
_PRECEDENCE = (
    ("~",),
    ("||", "|"),
    ("==", "!=", "<=", ">=", "<", ">"),
    ("+", "-"),
    ("*", "/"),
    ("%in%",),
    (":",),
)
_CONSTANTS = {"TRUE": True, "True": True, "FALSE": False, "False": False, "None": None}
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>(?:[^\W\d]|\.(?=[^\W\d]))[\w.]*)
      | (?P<backtick>`[^`]+`)
      | (?P<string>"[^"\\]*"|'[^'\\]*')
      | (?P<op>%in%|\*\*|\|\||==|!=|<=|>=|[~|<>+\-*/:^(),=])
    """,
    re.VERBOSE,
)
_REFUSED = {
    **dict.fromkeys(
        "[]",
        "subscripts and lists are not allowed in a formula: levels have the order of the column, "
        "pd.Categorical(f, ['b', 'a'])",
    ),
    "{": "braces are not allowed in a formula",
    "}": "braces are not allowed in a formula",
    ".": (
        "attributes are not allowed in a formula, nor is `.` for all other columns: name them, "
        "say by `' + '.join(names)`"
    ),
    "`": "this backtick is never closed, or has no name after it",
    '"': "this quote is never closed (backslashes are not allowed)",
    "'": "this quote is never closed (backslashes are not allowed)",
    "@": "decorators and matrix products are not allowed in a formula",
    ";": "a formula is one expression",
    "&": "logical operators are not allowed in a formula",
    "!": "logical operators are not allowed in a formula",
    "%": "the only operator of this kind is `%in%`",
}
_LEFT_OVER = {
    ")": "this parenthesis closes nothing.",
    ",": "a comma can only stand between the arguments of a function.",
    "=": "`=` has no meaning here; a formula has `~` between its sides.",
}


@dataclass(frozen=True)
class Token:
    """A token of the formula's text: a name, a number, a string or an operator."""

    kind: str
    text: str
    span: Span


def parse(text: str, rewrite: Callable[[Call], Call] = lambda call: call) -> Node:
    """Return the syntax tree of a formula.

    Parameters
    ----------
    text : str
    rewrite : callable, optional
        Puts another call in the place of each, from the innermost outwards.

    Raises
    ------
    FormulaError
        If a character or a token has no meaning where it stands; the place is marked.

    Examples
    --------
    >>> print(parse("y~I(x ^2)+ (1|g)"))
    y ~ I(x^2) + (1 | g)
    """
    if not isinstance(text, str):
        raise FormulaError(f"a formula is text, got {type(text).__name__}.")
    if len(text) > MAX_LENGTH:
        message = f"the formula has {len(text)} characters; at most {MAX_LENGTH} are read."
        raise FormulaError(message)
    tree = _Parser(text, rewrite).formula()
    left, right = (tree.left, tree.right) if isinstance(tree, Binary) else (tree, tree)
    for term in (left, *(summand for _, summand in summands(right))):
        if height(term) > MAX_HEIGHT:
            raise FormulaError("this has too many operators inside one another.", text, term.span)
    return tree


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all nodes below it, outside in, left to right."""
    stack = [node]  # a sum of many terms is deeper than Python recurses
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below a node."""
    match node:
        case Call():
            return (*node.args, *(value for _, value in node.kwargs))
        case Unary():
            return (node.operand,)
        case Binary():
            return (node.left, node.right)
        case Paren():
            return (node.inner,)
        case _:
            return ()


def height(node: Node) -> int:
    """Return the number of nodes from a node down to its deepest leaf."""
    heights: dict[int, int] = {}
    for below in reversed(list(walk(node))):  # children before their parents
        heights[id(below)] = 1 + max((heights[id(c)] for c in children(below)), default=0)
    return heights[id(node)]


def summands(node: Node) -> list[tuple[str, Node]]:
    """Return the summands of a sum with their signs; iterative, as a sum may be long."""
    signed: list[tuple[str, Node]] = []
    while isinstance(node, Binary) and node.op in "+-":
        signed.append(_signed(node.op, node.right))
        node = node.left
    return [_signed("+", node), *reversed(signed)]


def _signed(sign: str, node: Node) -> tuple[str, Node]:
    """Return the product of the signs before an expression, and the expression without them."""
    while isinstance(node, Unary):
        sign = "+" if sign == node.op else "-"
        node = node.operand
    return sign, node


def is_bar(node: Node) -> bool:
    """Whether a node is a random-effects term, `(x | g)`."""
    inner = node.inner if isinstance(node, Paren) else None
    return isinstance(inner, Binary) and inner.op in ("|", "||")


def contains_bar(node: Node) -> bool:
    """Whether there is a `|` or `||` at or below a node."""
    return any(isinstance(below, Binary) and below.op in ("|", "||") for below in walk(node))


def tokens(text: str) -> list[Token]:
    """Return the tokens of a formula, without the white space, with an end mark."""
    read: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            letter = text[position]
            reason = _REFUSED.get(letter, f"{_shown_letter(letter)} has no meaning in a formula")
            raise FormulaError(f"{reason}.", text, (position, position + 1))
        position = match.end()
        if match.lastgroup not in (None, "space"):
            read.append(Token(str(match.lastgroup), match.group(), match.span()))
    return [*read, Token("end", "the end of the formula", (len(text), len(text) + 1))]


class _Parser:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str, rewrite: Callable[[Call], Call]) -> None:
        self.text, self.rewrite = text, rewrite
        self.tokens = tokens(text)
        self.position = 0
        self.depth = 0

    def formula(self) -> Node:
        node = self.level(0)
        if self.here.kind != "end":
            text = self.here.text
            missing = f"`{text}` is left over: an operator such as `+` is missing before it."
            raise self.error(_LEFT_OVER.get(text, missing + self.in_two_words()))
        return node

    @property
    def here(self) -> Token:
        return self.tokens[self.position]

    def error(self, message: str, token: Token | None = None) -> FormulaError:
        return FormulaError(message, self.text, (token or self.here).span)

    def advance(self) -> Token:
        self.position += 1
        return self.tokens[self.position - 1]

    def accept(self, *texts: str) -> Token | None:
        return self.advance() if self.here.kind == "op" and self.here.text in texts else None

    def level(self, n: int) -> Node:
        """Read left-associative operators of the n-th precedence and all that bind tighter."""
        if n == len(_PRECEDENCE):
            return self.signed()
        if n == 0 and self.here.text == "~":
            raise self.error("the left-hand side is empty: name the response before `~`.")
        node = self.level(n + 1)
        unlimited = self.depth == 0 and "+" in _PRECEDENCE[n]
        n_operators = 0
        while op := self.accept(*_PRECEDENCE[n]):
            n_operators += 1
            if n_operators > MAX_CHAIN and not unlimited:
                raise self.error(f"more than {MAX_CHAIN} operators in a row.", op)
            right = self.level(n + 1)
            node = Binary(op.text, node, right, (node.span[0], right.span[1]), op.span)
        return node

    def signed(self) -> Node:
        if op := self.accept("+", "-"):
            operand = self.nested(self.signed)
            return Unary(op.text, operand, (op.span[0], operand.span[1]))
        return self.power()

    def power(self) -> Node:
        base = self.atom()
        if op := self.accept("^", "**"):
            exponent = self.nested(self.signed)
            return Binary(op.text, base, exponent, (base.span[0], exponent.span[1]), op.span)
        return base

    def nested(self, rule: Callable[[], Node]) -> Node:
        """Apply a rule one level deeper, within the limit that keeps recursion bounded."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"the formula is nested more than {MAX_DEPTH} levels deep.")
        node = rule()
        self.depth -= 1
        return node

    def atom(self) -> Node:
        token = self.advance()
        match token.kind:
            case "number":
                return Literal(float(token.text), token.text, token.span)
            case "string":
                return Literal(token.text[1:-1], token.text, token.span)
            case "backtick":
                return Column(token.text[1:-1], token.span)
            case "name":
                return self.named(token)
        if token.text == "(":
            inner = self.nested(lambda: self.level(1))
            return Paren(inner, (token.span[0], self.close(token)))
        raise self.error(f"expected a column, a number or `(`, found {_shown(token)}.", token)

    def named(self, token: Token) -> Node:
        if self.here.text == "(" and self.here.kind == "op":
            return self.nested(lambda: self.call(token))
        if token.text in _CONSTANTS:
            return Literal(_CONSTANTS[token.text], token.text, token.span)
        return Column(token.text, token.span)

    def call(self, name: Token) -> Node:
        opening = self.advance()
        args: list[Node] = []
        kwargs: list[tuple[str, Node]] = []
        while self.here.text != ")":
            keyword = self.keyword()
            value = self.level(1)
            if keyword:
                kwargs.append((keyword, value))
            elif kwargs:
                raise FormulaError(
                    "a positional argument cannot follow a named one.", self.text, value.span
                )
            else:
                args.append(value)
            if not self.accept(","):
                break
        end = self.close(opening)
        return self.rewrite(Call(name.text, tuple(args), tuple(kwargs), (name.span[0], end)))

    def keyword(self) -> str | None:
        """Read a name and `=`, if they come next."""
        name = self.here
        if name.kind != "name" or self.tokens[self.position + 1].text != "=":
            return None
        self.position += 2
        return name.text

    def close(self, opening: Token) -> int:
        if closing := self.accept(")"):
            return closing.span[1]
        if self.here.kind == "end":
            raise self.error("this parenthesis is never closed.", opening)
        expected = f"expected `)` or an operator, found {_shown(self.here)}."
        raise self.error(expected + self.in_two_words())

    def in_two_words(self) -> str:
        """Say how a name with a space is written, where two names follow each other."""
        here, before = self.here, self.tokens[self.position - 1]
        if not here.kind == before.kind == "name":
            return ""
        return f" A column `{before.text} {here.text}` is written in backticks."


def _shown_letter(letter: str) -> str:
    return f"`{letter}`" if letter.isprintable() else f"the character U+{ord(letter):04X}"


def _shown(token: Token) -> str:
    return token.text if token.kind == "end" else f"`{token.text}`"
