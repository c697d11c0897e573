"""Formulas from others and what is changed, against R's `update.formula` where it has an answer."""

from __future__ import annotations

import pytest

from ranef.errors import FormulaError
from ranef.formula.terms import read_formula
from ranef.formula.updates import updated


def model(text):
    """Return what a formula says, whatever its text."""
    formula = read_formula(text)
    random = sorted(map(str, formula.random))
    offsets = sorted(map(str, formula.offsets))
    return str(formula.response), {t.key for t in formula.fixed}, random, offsets


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        # what R answers, by formula(update(old, change))
        ("y ~ x", ". ~ . + z", "y ~ x + z"),
        ("y ~ x + z", ". ~ . - z", "y ~ x"),
        ("y ~ x", ". ~ . - x", "y ~ 1"),
        ("y ~ x", ". ~ . - 1", "y ~ x - 1"),
        ("y ~ x - 1", ". ~ . + 1", "y ~ x"),
        ("y ~ a*b", ". ~ . - a:b", "y ~ a + b"),
        ("y ~ a*b", ". ~ . - a", "y ~ b + a:b"),
        ("y ~ (a + b)^2", ". ~ . - b", "y ~ a + a:b"),
        ("y ~ x + z", ". ~ .:w", "y ~ x:w + z:w"),
        ("y ~ x + z", ". ~ .*w", "y ~ x + z + w + x:w + z:w"),
        ("y ~ x + z", ". ~ (.)^2", "y ~ x + z + x:z"),
        ("y ~ x + z", ". ~ (. - z) + w", "y ~ x + w"),
        ("y ~ x", "log(.) ~ .", "log(y) ~ x"),
        ("y ~ x", "z ~ .", "z ~ x"),
        ("y ~ x", "~ . + z", "y ~ x + z"),
        ("y ~ x", "z ~ w", "z ~ w"),
        ("y ~ x + offset(log(e))", ". ~ . - offset(log(e))", "y ~ x"),
        # random-effects terms
        ("y ~ x + (x | g)", ". ~ . - (x | g) + (1 | g)", "y ~ x + (1 | g)"),
        ("y ~ x + (x | g)", ".~.-(1+x|g)", "y ~ x"),
        ("y ~ (1 | g)", ". ~ . - (1 || g) + x", "y ~ x"),
        ("y ~ x + (1 | g)", ". ~ . - x", "y ~ 1 + (1 | g)"),
        ("y ~ (1 | a/b)", ". ~ . - (1 | a:b)", "y ~ (1 | a)"),
        ("y ~ (1 | a/b)", ". ~ . - (1 | a/b)", "y ~ 1"),
        ("y ~ (1 | a) + (1 | b:a)", ". ~ . - (1 | a/b)", "y ~ 1"),
        ("y ~ x + (1 | g)", ". ~ . + (1 | h)", "y ~ x + (1 | g) + (1 | h)"),
        ("y ~ x + (1 | g)", ". ~ .:z + (1 | h)", "y ~ x:z + (1 | h)"),
        # points that are no dots of a change
        ("`a.b` ~ x.y + I(x.y * 0.5)", ". ~ . - x.y", "`a.b` ~ I(x.y * 0.5)"),
        ("y ~ `odd . name` + x", ". ~ . - `odd . name`", "y ~ x"),
    ],
)
def test_a_change_means_what_it_means_in_r(old, change, new):
    assert model(updated(read_formula(old), change)) == model(new)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (". ~ . - w", "`w` is not in the formula, which has `x` and `z`."),
        (". ~ . - (1 | h)", "`(1 | h)` is not in the formula, which has `(1 + x | g)`."),
        (". ~ . - (1 | g)", "`(1 | g)` is not in the formula, which has `(1 + x | g)`."),
        (". ~ . - offset(w)", "`offset(w)` is not in the formula."),
        (". ~ x - .", "the whole of a formula cannot be taken away."),
        (". + x", "a change of a formula has `~` between its sides, as in `. ~ . + x`."),
        (3, "a formula is text, got int."),
    ],
)
def test_what_is_not_there_cannot_be_taken_away(change, said):
    with pytest.raises(FormulaError) as caught:
        updated(read_formula("y ~ x + z + (x | g)"), change)
    assert str(caught.value).splitlines()[0] == said


def test_an_own_function_stays_allowed():
    old = read_formula("y ~ cube(x)", ["cube"])
    assert updated(old, ". ~ . - cube(x) + z", ["cube"]) == "y ~ z"
