"""Tokens, precedence, limits, and the full text of every error with its carets."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranef.errors import FormulaError
from ranef.formula.syntax import (
    MAX_CHAIN,
    MAX_DEPTH,
    MAX_HEIGHT,
    MAX_LENGTH,
    Binary,
    Call,
    Column,
    Literal,
    Paren,
    Unary,
    contains_bar,
    height,
    is_bar,
    parse,
    summands,
    tokens,
    walk,
)

NO_LISTS = (
    "subscripts and lists are not allowed in a formula: levels have the order of the column, "
    "pd.Categorical(f, ['b', 'a'])."
)


def grouped(node):
    """Return an expression with brackets around all that an operator binds."""
    match node:
        case Binary():
            return f"[{grouped(node.left)} {node.op} {grouped(node.right)}]"
        case Unary():
            return f"[{node.op}{grouped(node.operand)}]"
        case Paren():
            return f"({grouped(node.inner)})"
        case Call():
            words = [grouped(a) for a in node.args]
            words += [f"{k}={grouped(v)}" for k, v in node.kwargs]
            return f"{node.function}({', '.join(words)})"
    return str(node)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y ~ a + b - c", "[y ~ [[a + b] - c]]"),
        ("y ~ a + b * c", "[y ~ [a + [b * c]]]"),
        ("y ~ a * b : c", "[y ~ [a * [b : c]]]"),
        ("y ~ a * b / c", "[y ~ [[a * b] / c]]"),
        ("y ~ a / b : c", "[y ~ [a / [b : c]]]"),
        ("y ~ a %in% b / c", "[y ~ [[a %in% b] / c]]"),
        ("y ~ a %in% b : c", "[y ~ [a %in% [b : c]]]"),
        ("y ~ a : b ^ 2", "[y ~ [a : [b ^ 2]]]"),
        ("y ~ a ^ b ^ c", "[y ~ [a ^ [b ^ c]]]"),
        ("y ~ a ** -b", "[y ~ [a ** [-b]]]"),
        ("y ~ -a ^ 2", "[y ~ [-[a ^ 2]]]"),
        ("y ~ -a : b", "[y ~ [[-a] : b]]"),
        ("y ~ - + a", "[y ~ [-[+a]]]"),
        ("y ~ a < b + c", "[y ~ [a < [b + c]]]"),
        ("y ~ (a == b | g)", "[y ~ ([[a == b] | g])]"),
        ("y ~ (a + b || g / h)", "[y ~ ([[a + b] || [g / h]])]"),
        ("a | b ~ c | d", "[[a | b] ~ [c | d]]"),
        ("y ~ a ~ b", "[[y ~ a] ~ b]"),
        ("y ~ (a + b) * c", "[y ~ [([a + b]) * c]]"),
        ("y ~ f(a, b = c + 1)", "[y ~ f(a, b=[c + 1])]"),
        ("y ~ np.log(a)", "[y ~ np.log(a)]"),
    ],
)
def test_operators_bind_as_in_r(text, expected):
    assert grouped(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("12", Literal(12.0, "12", (0, 2))),
        (".5e-3", Literal(0.0005, ".5e-3", (0, 5))),
        ("1.", Literal(1.0, "1.", (0, 2))),
        ("TRUE", Literal(value=True, text="TRUE", span=(0, 4))),
        ("False", Literal(value=False, text="False", span=(0, 5))),
        ("None", Literal(None, "None", (0, 4))),
        ("'a\"b'", Literal('a"b', "'a\"b'", (0, 5))),
        ('""', Literal("", '""', (0, 2))),
        ("x.y_1", Column("x.y_1", (0, 5))),
        (".x", Column(".x", (0, 2))),
        ("größe", Column("größe", (0, 5))),
        ("日本", Column("日本", (0, 2))),
        ("`my col`", Column("my col", (0, 8))),
        ("`TRUE`", Column("TRUE", (0, 6))),
        ("`1`", Column("1", (0, 3))),
        ("`a\nb`", Column("a\nb", (0, 5))),
    ],
)
def test_a_token_alone(text, node):
    found = parse(text)
    assert found == node
    assert found.span == node.span


def test_white_space_is_free():
    assert parse("y~x+(1|g)") == parse("\ty  ~\n x +\r\n( 1 | g )\n")


def test_equal_trees_are_equal_wherever_they_stand():
    left, right = parse("x + log(x)"), parse("x    +   log( x )")
    assert left == right
    assert left.span != right.span
    assert parse("log(x)") != parse("`log(x)`")
    assert str(parse("log(x)")) == str(parse("`log(x)`"))


def test_walk_goes_outside_in_and_left_to_right():
    words = [str(node) for node in walk(parse("y ~ f(a, k = b) + -c"))]
    assert words == ["y ~ f(a, k=b) + -c", "y", "f(a, k=b) + -c", "f(a, k=b)", "a", "b", "-c", "c"]


def test_spans_cover_the_text_of_a_node():
    text = "y ~ a:b + (x  | g) - log( z )"
    words = [text[slice(*node.span)] for node in walk(parse(text))]
    assert words[1:] == [
        "y",
        "a:b + (x  | g) - log( z )",
        "a:b + (x  | g)",
        *("a:b", "a", "b"),
        *("(x  | g)", "x  | g", "x", "g"),
        *("log( z )", "z"),
    ]


def test_summands_carry_their_signs():
    parts = summands(parse("-a + b - -c - (d + e)"))
    assert [(sign, str(part)) for sign, part in parts] == [
        ("-", "a"),
        ("+", "b"),
        ("+", "c"),
        ("-", "(d + e)"),
    ]


def test_bars_and_heights():
    assert is_bar(parse("(1 | g)"))
    assert is_bar(parse("(1 || g)"))
    assert not is_bar(parse("1 | g"))
    assert not is_bar(parse("(1 + g)"))
    assert contains_bar(parse("f(a + (1 | g))"))
    assert not contains_bar(parse("f(a + g)"))
    assert height(parse("x")) == 1
    assert height(parse("f(x, (a + b))")) == 4


@pytest.mark.parametrize(
    ("text", "carets", "message"),
    [
        (
            "y ~ x z",
            "      ^",
            (
                "`z` is left over: an operator such as `+` is missing before it. A column `x z` is "
                "written in backticks."
            ),
        ),
        ("y ~ x 2", "      ^", "`2` is left over: an operator such as `+` is missing before it."),
        ("y ~ 1.x", "      ^", "`x` is left over: an operator such as `+` is missing before it."),
        (
            "y ~ 1_000",
            "     ^^^^",
            "`_000` is left over: an operator such as `+` is missing before it.",
        ),
        (
            "y ~ (1 | g) (1 | h)",
            "            ^",
            "`(` is left over: an operator such as `+` is missing before it.",
        ),
        (
            "y ~ f'{x}'",
            "     ^^^^^",
            "`'{x}'` is left over: an operator such as `+` is missing before it.",
        ),
        (
            "y ~ lambda x: x",
            "           ^",
            (
                "`x` is left over: an operator such as `+` is missing before it. A column `lambda "
                "x` is written in backticks."
            ),
        ),
        ("y ~ x, z", "     ^", "a comma can only stand between the arguments of a function."),
        (
            "y ~ f(x).y",
            "        ^^",
            "`.y` is left over: an operator such as `+` is missing before it.",
        ),
        ("y ~ x)", "     ^", "this parenthesis closes nothing."),
        ("y ~ (1 | g", "    ^", "this parenthesis is never closed."),
        ("y ~ log(x", "       ^", "this parenthesis is never closed."),
        (
            "y ~ (x z)",
            "       ^",
            "expected `)` or an operator, found `z`. A column `x z` is written in backticks.",
        ),
        ("(y ~ x)", "   ^", "expected `)` or an operator, found `~`."),
        (
            "y ~ f(x y)",
            "        ^",
            "expected `)` or an operator, found `y`. A column `x y` is written in backticks.",
        ),
        (
            "y ~ f(x if x else z)",
            "        ^^",
            "expected `)` or an operator, found `if`. A column `x if` is written in backticks.",
        ),
        ("y = x", "  ^", "`=` has no meaning here; a formula has `~` between its sides."),
        ("~ x", "^", "the left-hand side is empty: name the response before `~`."),
        ("y ~", "   ^", "expected a column, a number or `(`, found the end of the formula."),
        ("", "^", "expected a column, a number or `(`, found the end of the formula."),
        ("   ", "   ^", "expected a column, a number or `(`, found the end of the formula."),
        (
            "y ~ x +",
            "       ^",
            "expected a column, a number or `(`, found the end of the formula.",
        ),
        ("y ~ * x", "    ^", "expected a column, a number or `(`, found `*`."),
        ("y ~ x := z", "       ^", "expected a column, a number or `(`, found `=`."),
        ("y ~ f(, x)", "      ^", "expected a column, a number or `(`, found `,`."),
        ("y ~ ()", "     ^", "expected a column, a number or `(`, found `)`."),
        ("y ~ f(a = 1, b)", "             ^", "a positional argument cannot follow a named one."),
        ("y ~ x[0]", "     ^", NO_LISTS),
        ("y ~ x]", "     ^", NO_LISTS),
        ("y ~ C(f, levels=['b', 'a'])", "                ^", NO_LISTS),
        ("y ~ {x}", "    ^", "braces are not allowed in a formula."),
        ("y ~ x}", "     ^", "braces are not allowed in a formula."),
        (
            "y ~ .",
            "    ^",
            (
                "attributes are not allowed in a formula, nor is `.` for all other columns: name "
                "them, say by `' + '.join(names)`."
            ),
        ),
        ("y ~ `x", "    ^", "this backtick is never closed, or has no name after it."),
        ("y ~ ``", "    ^", "this backtick is never closed, or has no name after it."),
        ("y ~ 'x", "    ^", "this quote is never closed (backslashes are not allowed)."),
        ('y ~ "x\\n"', "    ^", "this quote is never closed (backslashes are not allowed)."),
        ("y ~ a @ b", "      ^", "decorators and matrix products are not allowed in a formula."),
        ("y ~ a; b", "     ^", "a formula is one expression."),
        ("y ~ a & b", "      ^", "logical operators are not allowed in a formula."),
        ("y ~ !a", "    ^", "logical operators are not allowed in a formula."),
        ("y ~ a %% b", "      ^", "the only operator of this kind is `%in%`."),
        ("y ~ a %in b", "      ^", "the only operator of this kind is `%in%`."),
        ("y ~ a $ b", "      ^", "`$` has no meaning in a formula."),
        ("y ~ a # b", "      ^", "`#` has no meaning in a formula."),
        ("y ~ a \\ b", "      ^", "`\\` has no meaning in a formula."),
        ("y ~ x?", "     ^", "`?` has no meaning in a formula."),
        ("y ~ ٣", "    ^", "`٣` has no meaning in a formula."),
        ("y ~ \uff11", "    ^^", "`\uff11` has no meaning in a formula."),
    ],
)
def test_what_has_no_meaning_is_refused_in_its_place(text, carets, message):
    with pytest.raises(FormulaError) as error:
        parse(text)
    assert str(error.value) == f"{message}\n    {text}\n    {carets}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("y ~\n x 2", "y ~  x 2\n           ^"),  # one line, or the carets would be lost
        ("y ~ 日本 2", "y ~ 日本 2\n             ^"),  # wide letters take two places
    ],
)
def test_carets_stand_under_the_place(text, shown):
    with pytest.raises(FormulaError) as error:
        parse(text)
    assert str(error.value) == (
        f"`{text[-1]}` is left over: an operator such as `+` is missing before it.\n    {shown}"
    )


@pytest.mark.parametrize("code", [0x00, 0x07, 0x1B, 0x200B, 0x202E, 0xFEFF])
def test_invisible_characters_are_named(code):
    with pytest.raises(FormulaError) as error:
        parse(f"y ~ x{chr(code)}")
    message = f"the character U+{code:04X} has no meaning in a formula."
    assert str(error.value) == f"{message}\n    y ~ x \n         ^"


@pytest.mark.parametrize("given", [None, 3, b"y ~ x", ["y ~ x"], parse("y ~ x")])
def test_a_formula_is_text(given):
    with pytest.raises(FormulaError) as error:
        parse(given)
    assert str(error.value) == f"a formula is text, got {type(given).__name__}."


# ------------------------------------------------------------------------------------ limits


def nested(depth):
    return f"y ~ {'(' * depth}x{')' * depth}"


def test_length():
    spaces = " " * (MAX_LENGTH - 5)
    assert parse(f"y ~ x{spaces}") == parse("y ~ x")
    with pytest.raises(FormulaError) as error:
        parse(f"y ~ x{spaces} ")
    assert str(error.value) == "the formula has 4097 characters; at most 4096 are read."


@pytest.mark.parametrize("open_", ["(", "f(", "-", "a^", "f(a, k="])
def test_depth(open_):
    close = ")" if "(" in open_ else ""
    parse(f"y ~ {open_ * MAX_DEPTH}x{close * MAX_DEPTH}")
    with pytest.raises(FormulaError) as error:
        parse(f"y ~ {open_ * (MAX_DEPTH + 1)}x{close * (MAX_DEPTH + 1)}")
    assert str(error.value).startswith("the formula is nested more than 50 levels deep.\n    y ~ ")


@pytest.mark.parametrize("op", ["*", "/", ":", "%in%", "<", "|"])
def test_chains(op):
    parse("y ~ x" + f"{op}x" * MAX_CHAIN)
    text = "y ~ x" + f"{op}x" * (MAX_CHAIN + 1)
    with pytest.raises(FormulaError) as error:
        parse(text)
    carets = " " * text.rindex(op) + "^" * len(op)
    message = "more than 100 operators in a row."
    assert str(error.value) == f"{message}\n    {text}\n    {carets}"


def test_only_the_sum_of_terms_may_be_long():
    text = "y ~ " + "+".join(["x"] * 2000)
    assert len(summands(parse(text).right)) == 2000
    with pytest.raises(FormulaError, match="more than 100 operators in a row"):
        parse(f"y ~ I({'x+' * 101}x)")


def left_heavy(times):
    text = "x"
    for _ in range(times):
        text = f"({text}{'+x' * 9})"
    return text


@pytest.mark.parametrize(
    "text", [f"y ~ {left_heavy(16)}", f"{left_heavy(16)} ~ x", "y" + "+y" * MAX_HEIGHT + " ~ x"]
)
def test_height(text):
    with pytest.raises(FormulaError) as error:
        parse(text)
    assert str(error.value).startswith("this has too many operators inside one another.\n    ")


def test_the_limits_keep_clear_of_the_limit_of_python():
    """The deepest formula is read even where the caller stands deep already."""
    text = f"y ~ I({left_heavy(13)}) + {nested(49)[4:]}"
    depth = 0

    def go(n):
        return go(n - 1) if n else str(parse(text))

    frame = sys._getframe()
    while frame := frame.f_back:
        depth += 1
    assert go(sys.getrecursionlimit() - depth - 650)


# -------------------------------------------------------------------------------------- fuzz

ATOMS = st.sampled_from(["x", "`a b`", "1", "2.5", "'u'", "TRUE", "np.log(x)", "f(x, k=2)"])
OPERATORS = st.sampled_from(["+", "-", "*", "/", ":", "%in%", "^", "**", "<", "==", "|", "||"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, OPERATORS, inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("f({}, {})".format, inner, inner),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS)
def test_what_is_printed_is_read_as_the_same(text):
    tree = parse(text)
    assert grouped(parse(str(tree).replace("a b", "`a b`"))) == grouped(tree)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="xy~+-*/:^|()[]{}<>=!&%@;,.`'\"\\ 01e\n\x00é²\u0661", max_size=40))
def test_any_text_is_read_whole_or_refused(text):
    try:
        tree = parse(text)
    except FormulaError:
        return
    kept = [token.text for token in tokens(text) if token.kind != "end"]
    assert tree.span[0] == text.index(kept[0])
    assert text[tree.span[1] :].strip() == ""
