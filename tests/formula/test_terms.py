"""Formulas to terms, held against R's own expansion, and the full text of every error."""

import pytest

from ranef.errors import FormulaError
from ranef.formula.terms import MAX_TERMS, read_formula


def joined(parts):
    return " + ".join(map(str, parts))


# R expands all that it can read to the same fixed terms in the same order, by its
# attr(terms(f), "term.labels") and attr(terms(f), "intercept").
@pytest.mark.parametrize(
    ("text", "fixed", "random", "offsets"),
    [
        ("Reaction ~ Days + (Days | Subject)", "1 + Days", "(1 + Days | Subject)", ""),
        ("log(y) ~ x", "1 + x", "", ""),
        ("(r2 == 'Y') ~ x", "1 + x", "", ""),
        (
            "cbind(incidence, size - incidence) ~ period + (1 | herd)",
            "1 + period",
            "(1 | herd)",
            "",
        ),
        ("y ~ I(age^2)", "1 + I(age^2)", "", ""),
        ("y ~ log(x)", "1 + log(x)", "", ""),
        ("y ~ poly(x, 2)", "1 + poly(x, 2)", "", ""),
        ("y ~ factor(f)", "1 + factor(f)", "", ""),
        ("y ~ scale(x)", "1 + scale(x)", "", ""),
        ("y ~ a*b", "1 + a + b + a:b", "", ""),
        ("y ~ a:b", "1 + a:b", "", ""),
        ("y ~ (a + b)^2", "1 + a + b + a:b", "", ""),
        ("y ~ (a + b + c)^2", "1 + a + b + c + a:b + a:c + b:c", "", ""),
        ("y ~ 0 + x", "x", "", ""),
        ("y ~ x - 1", "x", "", ""),
        ("y ~ -1 + x", "x", "", ""),
        ("y ~ 1", "1", "", ""),
        ("y ~ 0", "", "", ""),
        ("y ~ -1", "", "", ""),
        ("y ~ x + offset(log(e))", "1 + x", "", "log(e)"),
        ("y ~ offset(a) + x + offset(b)", "1 + x", "", "a + b"),
        ("y ~ (1 | g)", "1", "(1 | g)", ""),
        ("y ~ (x | g)", "1", "(1 + x | g)", ""),
        ("y ~ (x || g)", "1", "(1 + x || g)", ""),
        ("y ~ (f || g)", "1", "(1 + f || g)", ""),
        ("y ~ (0 + x | g)", "1", "(0 + x | g)", ""),
        ("y ~ (x - 1 | g)", "1", "(0 + x | g)", ""),
        ("y ~ (1 | a/b)", "1", "(1 | a) + (1 | b:a)", ""),
        ("y ~ (1 | a:b)", "1", "(1 | a:b)", ""),
        ("y ~ (1 | a/b/c)", "1", "(1 | a) + (1 | b:a) + (1 | c:b:a)", ""),
        ("y ~ (x | a/b)", "1", "(1 + x | a) + (1 + x | b:a)", ""),
        ("y ~ (1 | (a/b))", "1", "(1 | a) + (1 | b:a)", ""),
        ("y ~ (1 | a/b:c)", "1", "(1 | a) + (1 | b:c:a)", ""),
        ("y ~ (1 | a/(b:c))", "1", "(1 | a) + (1 | b:c:a)", ""),
        ("y ~ (1 | factor(k))", "1", "(1 | factor(k))", ""),
        ("y ~ (a*x | g)", "1", "(1 + a + x + a:x | g)", ""),
        ("y ~ (1 | g) + (0 + x | g)", "1", "(1 | g) + (0 + x | g)", ""),
        ("y ~ (a + b)**2", "1 + a + b + a:b", "", ""),
        ("y ~ C(f)", "1 + C(f)", "", ""),
        ("y ~ C(f, contr.sum)", "1 + C(f, contr.sum)", "", ""),
        ("y ~ np.log(x)", "1 + np.log(x)", "", ""),
        ("y ~ `my col` + (1 | `my group`)", "1 + my col", "(1 | my group)", ""),
        ("`my y` ~ x", "1 + x", "", ""),
        ("y ~ x + x", "1 + x", "", ""),
        ("y ~ a:b + b:a", "1 + a:b", "", ""),
        ("y ~ b:a + a", "1 + a + b:a", "", ""),
        ("y ~ a + b:a", "1 + a + a:b", "", ""),
        ("y ~ a + b - a", "1 + b", "", ""),
        ("y ~ x - 1 + 1", "1 + x", "", ""),
        ("y ~ a*b - a", "1 + b + a:b", "", ""),
        ("y ~ a/b", "1 + a + a:b", "", ""),
        ("y ~ (a + b)/c", "1 + a + b + a:b:c", "", ""),
        ("y ~ a/(b + c)", "1 + a + a:b + a:c", "", ""),
        ("y ~ a/b/c", "1 + a + a:b + a:b:c", "", ""),
        ("y ~ b %in% a + a", "1 + a + b:a", "", ""),
        ("y ~ a:a", "1 + a", "", ""),
        ("y ~ (a + b)*(a + c)", "1 + a + b + c + a:c + a:b + b:c", "", ""),
        ("y ~ (a:b + c)^2", "1 + c + a:b + a:b:c", "", ""),
        ("y ~ a*b*c - a:b:c", "1 + a + b + c + a:b + a:c + b:c", "", ""),
        ("y ~ ((a)) + b", "1 + a + b", "", ""),
        ("y ~ - a + b", "1 + b", "", ""),
        ("y ~ x - (a - b) + a", "1 + x + a", "", ""),
        ("y ~ a:b + c + (b:a + c | g)", "1 + c + a:b", "(1 + c + b:a | g)", ""),
    ],
)
def test_terms(text, fixed, random, offsets):
    formula = read_formula(text)
    assert formula.text == text
    assert joined(formula.fixed) == fixed
    assert joined(formula.random) == random
    assert joined(formula.offsets) == offsets


BOTH_SIDES = "is also on the right-hand side."
NO_COEFFICIENTS = "has no coefficients: name what varies between the groups, as in `(1 | g)`."
ONLY_ADDED = "a random-effects term can only be added with `+`, at the top of the formula."
TWICE = (
    "in two random-effects terms, and the data cannot tell their variances apart: keep it in "
    "one of them."
)
NO_FACTOR = (
    "is not a grouping factor: expected a column, or columns joined with `:` (their "
    "combinations) or `/` (nested)."
)
ORDER = "means interactions up to a whole order from 1 to 10; for a power of a number write"
NOT_A_TERM = "cannot be a term: only 0 and 1, for the intercept, can."
ONLY_LEFT = "`cbind` can only be the whole left side of a formula."
INTERCEPT_INSIDE = (
    "stands for the intercept: add it or take it away at the top of the formula, not inside "
    "another term."
)
UNKNOWN = "is not available in a formula."
OWN = "Functions of your own can be given as `functions={'name': function}`."
KNOWN = (
    "Known names: `C`, `I`, `abs`, `bs`, `cbind`, `cc`, `ceil`, `ceiling`, `center`, `cos`, "
    "`cr`, `cs`, `exp`, `expm1`, `factor`, `floor`, `log`, `log10`, `log1p`, `log2`, `logit`, "
    "`offset`, `plogis`, `poly`, `qlogis`, `round`, `scale`, `sign`, `sin`, `sqrt`, "
    "`standardize`, `tan`, `tanh`."
)
RENAME = "is used as the name of a column and as an expression: rename the column."


BARE = "random effects stand in parentheses, beside the fixed ones:"
BARS = "Random effects are `(x | g)`, or `(x || g)` without correlations."


@pytest.mark.parametrize(
    ("text", "carets", "message"),
    [
        ("y", "^", "a formula needs `~` between response and predictors."),
        ("y + x", "^^^^^", "a formula needs `~` between response and predictors."),
        ("y ~ x ~ z", "      ^", "a formula has one `~` only."),
        ("y ~ a ~ b ~ c", "          ^", "a formula has one `~` only."),
        ("1 ~ x", "^", "the response uses no column."),
        ("log(2) ~ x", "^^^^^^", "the response uses no column."),
        ("(x | g) ~ y", "   ^", "`|` has no meaning inside `(x | g)`."),
        ("a:b ~ y", " ^", "`:` has no meaning inside `a:b`."),
        ("y ~ y", "    ^", f"the response `y` {BOTH_SIDES}"),
        ("y ~ x + y:x", "        ^", f"the response `y` {BOTH_SIDES}"),
        ("y ~ (y | g)", "     ^", f"the response `y` {BOTH_SIDES}"),
        ("y ~ (1 | y)", "         ^", f"the response `y` {BOTH_SIDES}"),
        ("y ~ (1 | g/y)", "           ^", f"the response `y` {BOTH_SIDES}"),
        ("log(y) ~ log(y)", "         ^^^^^^", f"the response `log(y)` {BOTH_SIDES}"),
        (
            "y ~ x + 1 | g",
            "          ^",
            f"{BARE} `(x + 1 | g)` for what varies by `g`.",
        ),
        ("y ~ x | g", "      ^", f"{BARE} `(x | g)` for what varies by `g`."),
        (
            "y ~ (1 | g | h)",
            "           ^",
            "there can be one `|` or `||` in a random-effects term.",
        ),
        (
            "y ~ (1 || g | h)",
            "            ^",
            "there can be one `|` or `||` in a random-effects term.",
        ),
        (
            "y ~ ((1 | g) | h)",
            "             ^",
            "there can be one `|` or `||` in a random-effects term.",
        ),
        ("y ~ (0 | g)", "    ^^^^^^^", f"`(0 | g)` {NO_COEFFICIENTS}"),
        ("y ~ (-1 | g)", "    ^^^^^^^^", f"`(-1 | g)` {NO_COEFFICIENTS}"),
        ("y ~ (x - x - 1 || g)", "    ^^^^^^^^^^^^^^^^", f"`(x - x - 1 || g)` {NO_COEFFICIENTS}"),
        ("y ~ (1 | g)*x", "    ^^^^^^^", f"{ONLY_ADDED}"),
        ("y ~ x - (1 | g)", "        ^^^^^^^", "a random-effects term can only be added with `+`."),
        ("y ~ ((1 | g))", "     ^^^^^^^", f"{ONLY_ADDED}"),
        ("y ~ ((1 | g) + x)", "     ^^^^^^^", f"{ONLY_ADDED}"),
        ("y ~ -(1 | g)", "     ^^^^^^^", "a random-effects term can only be added with `+`."),
        ("y ~ x - offset(z)", "        ^^^^^^^^^", "an offset can only be added with `+`."),
        ("y ~ x:offset(z)", "      ^^^^^^^^^", "`offset` can only stand at the top of a formula."),
        (
            "y ~ (offset(z) | g)",
            "     ^^^^^^^^^",
            "`offset` can only stand at the top of a formula.",
        ),
        ("y ~ offset()", "    ^^^^^^^^", "`offset` takes one expression."),
        ("y ~ offset(a, b)", "    ^^^^^^^^^^^^", "`offset` takes one expression."),
        ("y ~ offset(x = a)", "    ^^^^^^^^^^^^^", "`offset` takes one expression."),
        ("y ~ offset(a:b)", "            ^", "`:` has no meaning inside `a:b`."),
        ("y ~ (1 | g) + (1 | g)", "              ^^^^^^^", f"the intercept varies by `g` {TWICE}"),
        ("y ~ (1 | g) + (x | g)", "              ^^^^^^^", f"the intercept varies by `g` {TWICE}"),
        ("y ~ (x | g) + (0 + x | g)", "              ^^^^^^^^^^^", f"`x` varies by `g` {TWICE}"),
        (
            "y ~ (1 | g:h) + (1 | h:g)",
            "                ^^^^^^^^^",
            f"the intercept varies by `h:g` {TWICE}",
        ),
        (
            "y ~ (1 | g/h) + (1 | g)",
            "                ^^^^^^^",
            f"the intercept varies by `g` {TWICE}",
        ),
        ("y ~ (1 | g/g)", "    ^^^^^^^^^", f"the intercept varies by `g` {TWICE}"),
        ("y ~ (1 | 3)", "         ^", f"`3` {NO_FACTOR}"),
        ("y ~ (1 | 'g')", "         ^^^", f"`'g'` {NO_FACTOR}"),
        ("y ~ (1 | g + h)", "         ^^^^^", f"`g + h` {NO_FACTOR}"),
        ("y ~ (1 | g*h)", "         ^^^", f"`g * h` {NO_FACTOR}"),
        ("y ~ (1 | log(x))", "         ^^^^^^", f"`log(x)` {NO_FACTOR}"),
        ("y ~ (1 | -g)", "         ^^", f"`-g` {NO_FACTOR}"),
        ("y ~ (1 | (g/h):k)", "         ^^^^^^^", f"`(g/h):k` {NO_FACTOR}"),
        (
            "y ~ x^2",
            "    ^^^",
            "between terms, `x^2` means no more than `x`; for a power of a number write `I(x^2)`.",
        ),
        ("y ~ (a + b)^2.5", "            ^^^", f"between terms, `^` {ORDER} `I((a + b)^2.5)`."),
        ("y ~ (a + b)^x", "            ^", f"between terms, `^` {ORDER} `I((a + b)^x)`."),
        ("y ~ (a + b)^0", "            ^", f"between terms, `^` {ORDER} `I((a + b)^0)`."),
        ("y ~ (a + b)**11", "             ^^", f"between terms, `**` {ORDER} `I((a + b)**11)`."),
        ("y ~ x == 2", "    ^^^^^^", "write a comparison between terms as `I(x == 2)`."),
        ("y ~ x*(z > 1)", "       ^^^^^", "write a comparison between terms as `I(z > 1)`."),
        ("y ~ 2", "    ^", f"`2` {NOT_A_TERM}"),
        ("y ~ 'a'", "    ^^^", f"`'a'` {NOT_A_TERM}"),
        ("y ~ TRUE", "    ^^^^", f"`TRUE` {NOT_A_TERM}"),
        ("y ~ None", "    ^^^^", f"`None` {NOT_A_TERM}"),
        ("y ~ (0 + x)", "     ^", f"`0` {INTERCEPT_INSIDE}"),
        ("y ~ (1 + x)*z", "     ^", f"`1` {INTERCEPT_INSIDE}"),
        ("y ~ 1:x", "    ^", f"`1` {INTERCEPT_INSIDE}"),
        ("y ~ 0*x", "    ^", f"`0` {INTERCEPT_INSIDE}"),
        ("y ~ -x:z", "    ^^", "write arithmetic between terms as `I(-x)`."),
        ("y ~ x:-z", "      ^^", "write arithmetic between terms as `I(-z)`."),
        ("y ~ cbind(x, z)", "    ^^^^^^^^^^^", ONLY_LEFT),
        ("y ~ log(cbind(x, z))", "        ^^^^^^^^^^^", ONLY_LEFT),
        ("y ~ (cbind(x, z) | g)", "     ^^^^^^^^^^^", ONLY_LEFT),
        ("log(cbind(x, z)) ~ y", "    ^^^^^^^^^^^", ONLY_LEFT),
        ("cbind(x, cbind(y, z)) ~ 1", "         ^^^^^^^^^^^", ONLY_LEFT),
        ("(cbind(x, z)) ~ y", " ^^^^^^^^^^^", ONLY_LEFT),
        (
            "cbind(x, n - x) ~ z + x",
            "                      ^",
            "the response `x` is also on the right-hand side.",
        ),
        (
            "cbind(x, n - x) ~ z + (1 | x)",
            "                           ^",
            "the response `x` is also on the right-hand side.",
        ),
        ("y ~ log(a:b)", "         ^", "`:` has no meaning inside `log(a:b)`."),
        ("y ~ I(a %in% b)", "        ^^^^", "`%in%` has no meaning inside `I(a %in% b)`."),
        ("y ~ log(a | b)", "          ^", f"`|` has no meaning inside `log(a | b)`. {BARS}"),
        ("y ~ C(a:b)", "       ^", "`:` has no meaning inside `C(a:b)`."),
        ("y ~ (1 | factor(a:b))", "                 ^", "`:` has no meaning inside `factor(a:b)`."),
        (
            "y ~ nope(x)",
            "    ^^^^^^^",
            f"the function `nope` {UNKNOWN} {KNOWN} {OWN}",
        ),
        (
            "y ~ Log(x)",
            "    ^^^^^^",
            f"the function `Log` {UNKNOWN} Did you mean `log`, `log2` or `logit`? {OWN}",
        ),
        (
            "y ~ np.sin2(x)",
            "    ^^^^^^^^^^",
            f"the function `np.sin2` {UNKNOWN} Did you mean `np.sin`, `np.sign` or `np.tan`? {OWN}",
        ),
        (
            "y ~ np.save(x)",
            "    ^^^^^^^^^^",
            f"the function `np.save` {UNKNOWN} Did you mean `np.tan`, `np.sin` or `np.exp`? {OWN}",
        ),
        ("y ~ log(x) + `log(x)`", "             ^^^^^^^^", f"`log(x)` {RENAME}"),
        ("`log(y)` ~ log(y)", "           ^^^^^^", f"`log(y)` {RENAME}"),
        ("y ~ (log(x) | `log(x)`)", "              ^^^^^^^^", f"`log(x)` {RENAME}"),
        (
            "y ~ scale(log(x)) + scale(`log(x)`)",
            "                    ^^^^^^^^^^^^^^^",
            f"`scale(log(x))` {RENAME}",
        ),
        (
            "y ~ a*b*c*d*e*f*g*h*i*j*k*l",
            "    ^^^^^^^^^^^^^^^^^^^^^^^",
            "this expands to more than 2000 terms.",
        ),
    ],
)
def test_what_a_formula_cannot_mean_is_refused_in_its_place(text, carets, message):
    with pytest.raises(FormulaError) as error:
        read_formula(text)
    assert str(error.value) == f"{message}\n    {text}\n    {carets}"


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ("log(y) ~ x", "log(y)"),
        ("(r2 == 'Y') ~ x", "(r2 == 'Y')"),
        ("y/n ~ x", "y/n"),
        ("I(y-1) ~ x", "I(y - 1)"),
        ("cbind(y, n-y) ~ x", "cbind(y, n - y)"),
        ("`my y` ~ x", "my y"),
    ],
)
def test_the_response_is_an_expression(text, response):
    assert str(read_formula(text).response) == response


def test_columns_are_those_used_in_the_order_of_their_use():
    text = "log(y) ~ a*x + C(f, contr.sum) + (z || g/h) + offset(log(e)) + poly(x, 2)"
    formula = read_formula(text)
    found = formula.columns()
    assert list(found) == ["y", "a", "x", "f", "z", "g", "h", "e"]
    assert all(text[slice(*span)] == name for name, span in found.items())
    assert list(formula.predictors()) == ["a", "x", "f", "z", "g", "h", "e"]


def test_a_removed_term_uses_no_column():
    assert list(read_formula("y ~ a + b - b").columns()) == ["y", "a"]


@pytest.mark.parametrize(
    ("text", "factor"),
    [("(1 | g)", "g"), ("(1 | g:h)", "g:h"), ("(1 | `my g`:h)", "my g:h"), ("(1 | C(g))", "C(g)")],
)
def test_a_grouping_factor_is_named_as_in_lme4(text, factor):
    (part,) = read_formula(f"y ~ {text}").random
    assert part.factor == factor
    assert part.correlated
    assert part.span == (4, 4 + len(text))


def test_only_one_bar_means_correlated():
    assert [part.correlated for part in read_formula("y ~ (x | g) + (x || h)").random] == [
        True,
        False,
    ]


def test_own_functions_are_known_by_name():
    assert joined(read_formula("y ~ f(x) + np.f(z)", ["f", "np.f"]).fixed) == "1 + f(x) + np.f(z)"
    with pytest.raises(FormulaError, match="the function `g` is not available"):
        read_formula("y ~ g(x)", ["f"])


def test_a_formula_may_have_hundreds_of_terms():
    names = [f"x{i}" for i in range(500)]
    assert joined(read_formula(f"y ~ {' + '.join(names)}").fixed) == joined(["1", *names])


def test_the_number_of_terms_is_limited():
    sum_of_11 = " + ".join("abcdefghijk")
    assert len(read_formula("y ~ " + "*".join("abcdefghij")).fixed) == 2**10
    for text in (f"({sum_of_11})^5", "*".join("abcdefghijk")):
        with pytest.raises(FormulaError) as error:
            read_formula(f"y ~ {text}")
        message = f"this expands to more than {MAX_TERMS} terms."
        assert str(error.value) == f"{message}\n    y ~ {text}\n    " + " " * 4 + "^" * len(text)
