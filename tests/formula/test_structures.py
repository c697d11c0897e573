from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import FitError
from ranef.formula.structures import NONE, Structure, structures
from ranef.formula.terms import Formula, read_formula


def labels(text: str, **options: object) -> list[str]:
    return [s.label for s in structures(read_formula(text), **options)]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 60
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "e": rng.uniform(1, 2, size=n),
            "a b": rng.normal(size=n),
            "f": rng.permutation(np.resize(list("uvw"), n)),
            "h": rng.random(n) < 0.5,
            "g": np.repeat(np.arange(6), n // 6),
            "k": rng.integers(0, 5, size=n).astype(str),
        }
    )


def found(text: str, data: pd.DataFrame, **options: object) -> list[Structure]:
    model = rf.Model(text, data)
    return structures(model.formula, model.design.recipe.random, **options)


# ----------------------------------------------------------------------------- what is offered

LATTICES = {
    "y ~ x": [NONE],
    "y ~ (1 | g)": [NONE, "(1 | g)"],
    "y ~ Days + (Days | g)": [NONE, "(1 | g)", "(Days || g)", "(Days | g)"],
    "y ~ Days + (Days || g)": [NONE, "(1 | g)", "(Days || g)"],
    "y ~ (1 + x | g)": [NONE, "(1 | g)", "(1 + x || g)", "(1 + x | g)"],
    "y ~ (1 + x + z || g)": [
        NONE,
        "(1 | g)",
        "(1 + x || g)",
        "(1 + z || g)",
        "(1 + x + z || g)",
    ],
    "y ~ (0 + x | g)": [NONE, "(0 + x | g)"],
    "y ~ (1 || g)": [NONE, "(1 || g)"],
    "y ~ (0 + x + z | g)": [
        NONE,
        "(0 + x | g)",
        "(0 + z | g)",
        "(0 + x + z || g)",
        "(0 + x + z | g)",
    ],
    "y ~ (1 | a) + (1 | b)": [NONE, "(1 | a)", "(1 | b)", "(1 | a) + (1 | b)"],
    "y ~ (1 | a/b)": [NONE, "(1 | a)", "(1 | b:a)", "(1 | a) + (1 | b:a)"],
    "y ~ (x | a:b) + (1 | a)": [
        NONE,
        "(1 | a:b)",
        "(1 | a)",
        "(x || a:b)",
        "(1 | a:b) + (1 | a)",
        "(x || a:b) + (1 | a)",
        "(x | a:b)",
        "(x | a:b) + (1 | a)",
    ],
    "y ~ (x * z | g)": [
        NONE,
        "(1 | g)",
        "(x || g)",
        "(z || g)",
        "(x + z || g)",
        "(x | g)",
        "(z | g)",
        "(x * z || g)",
        "(x + z | g)",
        "(x * z | g)",
    ],
    "y ~ (x | g) + (0 + z | g)": [
        NONE,
        "(1 | g)",
        "(x || g)",
        "(1 | g) + (0 + z | g)",
        "(x || g) + (0 + z | g)",
        "(x | g)",
        "(x | g) + (0 + z | g)",
    ],
    "y ~ (factor(f) | g)": [NONE, "(1 | g)", "(factor(f) || g)", "(factor(f) | g)"],
    "y ~ (0 + C(f, contr.sum) | g)": [
        NONE,
        "(1 | g)",
        "(0 + C(f, contr.sum) || g)",
        "(0 + C(f, contr.sum) | g)",
    ],
    # the indicators of f hold the intercept, but independent ones hold no common one
    "y ~ (0 + factor(f) || g)": [NONE, "(0 + factor(f) || g)"],
    # without f, h would be coded by other columns
    "y ~ (0 + factor(f) + factor(h) || g)": [
        NONE,
        "(0 + factor(f) || g)",
        "(0 + factor(f) + factor(h) || g)",
    ],
    # without the intercept, the correlated effects of f are the same model as with it
    "y ~ (1 | g) + (0 + factor(f) | g)": [
        NONE,
        "(1 | g)",
        "(0 + factor(f) || g)",
        "(1 | g) + (0 + factor(f) || g)",
        "(1 | g) + (0 + factor(f) | g)",
    ],
    "y ~ (0 + factor(f):x | g)": [
        NONE,
        "(0 + x | g)",
        "(0 + factor(f):x || g)",
        "(0 + factor(f):x | g)",
    ],
    "y ~ (poly(x, 2) + I(z^2) | g)": [
        NONE,
        "(1 | g)",
        "(poly(x, 2) || g)",
        "(I(z^2) || g)",
        "(poly(x, 2) + I(z^2) || g)",
        "(poly(x, 2) | g)",
        "(I(z^2) | g)",
        "(poly(x, 2) + I(z^2) | g)",
    ],
    "y ~ (`a b` + z | `g h`:k)": [
        NONE,
        "(1 | `g h`:k)",
        "(`a b` || `g h`:k)",
        "(z || `g h`:k)",
        "(`a b` + z || `g h`:k)",
        "(`a b` | `g h`:k)",
        "(z | `g h`:k)",
        "(`a b` + z | `g h`:k)",
    ],
}


@pytest.mark.parametrize(("text", "expected"), LATTICES.items(), ids=LATTICES)
def test_the_structures_of_a_formula(text: str, expected: list[str]) -> None:
    assert labels(text) == expected


def test_slopes_go_by_themselves_where_that_is_asked_for() -> None:
    text = "y ~ (x * z | g)"
    by_default, free = labels(text), labels(text, marginality=False)
    assert set(by_default) < set(free)
    # 15 sets of the four coefficients, 11 of them of two or more, which can be independent
    assert len(free) == 1 + 15 + 11
    assert {"(0 + x | g)", "(0 + x:z | g)", "(z + x:z || g)"} < set(free)


def test_a_factor_without_its_intercept_is_another_coding_of_one_model() -> None:
    expected = [NONE, "(1 | g)", "(factor(f) || g)", "(factor(f) | g)"]
    assert labels("y ~ (factor(f) | g)", marginality=False) == expected


def test_which_factors_are_categorical_comes_from_the_data(data: pd.DataFrame) -> None:
    def of(text: str) -> list[str]:
        return [s.label for s in found(text, data)]

    assert of("y ~ (0 + x | g)") == [NONE, "(0 + x | g)"]
    for f in ("f", "h"):  # labels, and truth values
        expected = [NONE, "(1 | g)", f"(0 + {f} || g)", f"(0 + {f} | g)"]
        assert of(f"y ~ (0 + {f} | g)") == expected


def test_a_term_of_several_columns_can_be_correlated_by_itself(data: pd.DataFrame) -> None:
    expected = [NONE, "(0 + poly(x, 2) || g)", "(0 + poly(x, 2) | g)"]
    assert [s.label for s in found("y ~ (0 + poly(x, 2) | g)", data)] == expected


# ------------------------------------------------------------------ the formulas that are made

WRITTEN = [
    "y ~ x + (x | g) + z",
    "y ~ (x | g) + (1 | g:k) - 1 + x",
    "y ~ -1 + x + (1 | g/k)",
    "y ~ 0 + f + (0 + f | g)",
    "y ~ (1 | g) - x:z + x*z",
    "y ~ x + offset(log(e)) + (x * z | g) + (f || k)",
    "log(y^2 + 1) ~ poly(x, 2) + (poly(x, 2) | g)",
    "y ~ `a b` + (`a b` + I(x^2 + 1) | factor(g))",
    "y ~ x + (1 | k) + (0 + f + x | g)",
    "y ~ (x - 1 | g) + (h | k)",
    "y ~ f*h + (0 + f:h | g)",
    "(y > 0) ~ x + (\n  C(f, contr.treatment('v'))  |  g)",
    "y ~ (z + z:x || g)",
]


def fixed_part(formula: Formula) -> tuple[object, ...]:
    return str(formula.response), list(map(str, formula.fixed)), list(map(str, formula.offsets))


@pytest.mark.parametrize("text", WRITTEN)
def test_only_the_random_terms_change(text: str, data: pd.DataFrame) -> None:
    model = rf.Model(text, data)
    for structure in structures(model.formula, model.design.recipe.random):
        other = rf.Model(structure.formula, data)
        assert fixed_part(other.formula) == fixed_part(model.formula)
        np.testing.assert_array_equal(other.design.rows.X, model.design.rows.X)
        np.testing.assert_array_equal(other.design.rows.y, model.design.rows.y)
        np.testing.assert_array_equal(other.design.rows.offset, model.design.rows.offset)


@pytest.mark.parametrize("text", WRITTEN)
def test_the_last_structure_is_the_one_of_the_formula(text: str, data: pd.DataFrame) -> None:
    model = rf.Model(text, data)
    last = rf.Model(structures(model.formula, model.design.recipe.random)[-1].formula, data)
    assert [term.coefs for term in last.design.terms] == [t.coefs for t in model.design.terms]
    for here, there in zip(last.design.terms, model.design.terms, strict=True):
        assert (here.label, here.covariance) == (there.label, there.covariance)
    for mine, other in zip(last.design.rows.terms, model.design.rows.terms, strict=True):
        np.testing.assert_array_equal(mine.columns, other.columns)
        np.testing.assert_array_equal(mine.codes, other.codes)


@pytest.mark.parametrize("text", WRITTEN)
def test_labels_are_what_the_formula_holds(text: str) -> None:
    formula = read_formula(text)
    for structure in structures(formula):
        alone = f"y ~ {'1' if structure.label == NONE else structure.label}"
        found = read_formula(structure.formula).random
        assert list(map(str, read_formula(alone).random)) == list(map(str, found))
        assert "\n" not in structure.label


def test_the_fixed_part_stays_as_it_was_written() -> None:
    made = structures(read_formula("log( y )~ (x|g)+ a *b - 1+offset( log(e))"))
    assert made[0].formula == "log( y ) ~ a *b - 1 + offset( log(e))"
    assert made[-1].formula == "log( y ) ~ a *b - 1 + offset( log(e)) + (x | g)"
    assert structures(read_formula("y ~ -1 + x + (1 | g)"))[0].formula == "y ~ -1 + x"
    assert structures(read_formula("y ~ (1 | g)"))[0].formula == "y ~ 1"


# ------------------------------------------------------------------------------- what is nested


def covariances(formula: str, data: pd.DataFrame) -> np.ndarray:
    """A basis of the covariances of y that the random effects can give, shape (any, n * n)."""
    design = rf.Model(formula, data).design
    basis = [np.zeros((design.n_obs, design.n_obs))]
    for term in design.terms:
        same = (
            design.rows.term(term.label).codes[:, None]
            == design.rows.term(term.label).codes[None, :]
        )
        for i, j in itertools.combinations_with_replacement(range(term.n_coefs), 2):
            if i == j or term.covariance.has_correlations:
                product = np.outer(
                    design.rows.term(term.label).columns[:, i],
                    design.rows.term(term.label).columns[:, j],
                )
                basis.append(same * (product + product.T))
    return np.reshape(basis, (len(basis), -1))


def holds(larger: np.ndarray, smaller: np.ndarray) -> bool:
    """Whether every covariance of one basis is a combination of those of another."""
    fitted = np.linalg.lstsq(larger.T, smaller.T, rcond=None)[0]
    return bool(np.abs(larger.T @ fitted - smaller.T).max() < 1e-8)


NESTED = [
    "y ~ (x + z | g)",
    "y ~ (x | g) + (0 + z | g)",
    "y ~ (x | g) + (z || k)",
    "y ~ (1 | g/k) + (0 + x | g)",
    "y ~ (f | g)",
    "y ~ (f || g) + (1 | k)",
    "y ~ (0 + f + x | g)",
    "y ~ (0 + f + h || g)",
    "y ~ (0 + f + x || g)",
    "y ~ (f * x | g)",
    "y ~ (0 + f:x | g)",
    "y ~ (f:h | g)",
    "y ~ (0 + f | g) + (x | g:k)",
    "y ~ (0 + poly(x, 2) | g)",
    "y ~ (1 | g) + (0 + f | g)",
    "y ~ (1 | g:k) + (0 + f | k:g)",
]


@pytest.mark.parametrize("marginality", [True, False])
@pytest.mark.parametrize("text", NESTED)
def test_structures_differ_and_follow_those_that_are_nested_in_them(
    text: str, marginality: bool, data: pd.DataFrame
) -> None:
    made = found(text, data, marginality=marginality)
    basis = [covariances(s.formula, data) for s in made]
    for a, b in itertools.combinations(range(len(made)), 2):
        assert not holds(basis[a], basis[b]), (made[a].label, made[b].label)
        assert holds(basis[b], basis[0])
        assert holds(basis[-1], basis[a])


@pytest.mark.parametrize("text", [*LATTICES, *NESTED])
def test_the_first_has_no_random_effects(text: str) -> None:
    made = structures(read_formula(text))
    assert len({s.label for s in made}) == len(made)
    assert made[0].label == NONE


def test_a_larger_structure_fits_no_worse() -> None:
    model = rf.Model("score ~ Machine + (Machine | Worker)", rf.load_dataset("Machines"))
    made = structures(model.formula, model.design.recipe.random)
    data = rf.load_dataset("Machines")
    fits = {s.label: rf.fit(s.formula, data, method="ml").loglik for s in made}
    values = list(fits.values())
    assert values == sorted(values)  # a chain
    # lme4 1.1-31: logLik(lmer(score ~ Machine + (1 | Worker), Machines, REML = FALSE))
    assert fits["(1 | Worker)"] == pytest.approx(-146.851627901, abs=1e-6)


# ------------------------------------------------------------------------------------- too many


def test_too_many_structures_are_refused() -> None:
    formula = read_formula(f"y ~ ({' + '.join('abcdefg')} | u) + (1 | v)")
    with pytest.raises(FitError) as error:
        structures(formula)
    # none; an intercept; and each of 2^7 - 1 sets of slopes with it, in two ways; twice all that
    assert str(error.value) == (
        "the formula has 512 random-effects structures up to its own, more than limit=64: write "
        "those that matter as formulas of their own, or raise the limit."
    )
    assert len(structures(read_formula(f"y ~ ({' + '.join('abcde')} | u)"), limit=64)) == 64
    assert len(structures(formula, limit=512)) == 512


def test_a_long_formula_is_refused_without_making_all_its_structures() -> None:
    formula = read_formula(f"y ~ ({' + '.join(f'x{i}' for i in range(60))} | u)")
    with pytest.raises(FitError, match=r"^the formula has more than 10000 random-effects "):
        structures(formula)


@pytest.mark.parametrize("limit", [0, 1.5, "many"])
def test_the_limit_is_a_positive_whole_number(limit: object) -> None:
    with pytest.raises(FitError) as error:
        structures(read_formula("y ~ x"), limit=limit)
    assert str(error.value) == f"`limit` must be a positive whole number, got {limit!r}."
