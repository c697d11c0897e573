"""What is said of the numbers of a comparison."""

import pandas as pd
from comparison_cases import structures, yields

import ranef as rf
from ranef.comparison.words.legend import caveats, failures, legend, title
from ranef.comparison.words.verdict import Score

YIELDS = rf.load_dataset("Dyestuff")


def test_the_title_asks_what_the_models_differ_by():
    designs = {
        text: rf.Model(f"Reaction ~ {text}", rf.load_dataset("sleepstudy")).design
        for text in ("1 + (1 | Subject)", "Days + (1 | Subject)", "Days + (Days | Subject)")
    }
    a, b, c = designs.values()
    counts = "models of Reaction, 180 rows, 18 levels of Subject"
    assert title([a, b]) == f"Which fixed effects?   2 {counts}"
    assert title([b, c]) == f"Which random effects?   2 {counts}"
    assert title([a, b, c]) == f"Which model?   3 {counts}"
    assert title([c, b], "y ~ x").startswith(
        "Which random effects?   y ~ x and 1 simpler structure,"
    )
    assert "Reaction ~ Days + (Days | Subject) and 3 simpler structures" in str(structures())


def scored(**columns):
    """Return a table of two models whose rows were left out."""
    table = {"diag_diff_row": ["", ""], "diag_elpd_row": ["", ""], "how_row": ["quadrature"] * 2}
    return pd.DataFrame({**table, "error_row": [0.0, 0.0], **columns}, index=["a", "b"])


def rows(n):
    return Score(None, pd.DataFrame({"a": [0.0] * n, "b": [0.0] * n}), 0)


def test_standard_errors_have_their_warnings():
    few = scored(diag_diff_row=["", "N < 100"])
    assert "30 rows are few for such a standard error." in legend(few, [rows(30)])[0]
    close = scored(diag_diff_row=["", "|elpd_diff| < 4"])
    said = legend(close, [rows(200)])[0]
    assert said.endswith("That of a difference below 4 is often too small.")
    heavy = scored(diag_elpd_row=["", "3 k̂ > 0.70"])
    assert "`b`: 3 k̂ > 0.70 (Pareto's," in legend(heavy, [rows(200)])[0]
    assert "few" not in legend(scored(), [rows(200)])[0]


def test_every_method_is_named_with_its_models():
    assert legend(scored(), [rows(200)])[-1] == (
        "All by quadrature; errors of the numbers are below 0.001."
    )
    mixed = scored(how_row=["quadrature", "sampling"], error_row=[0.0, 0.034])
    assert legend(mixed, [rows(200)])[-1] == (
        "Scores of new rows: quadrature (`a`); sampling (`b`). Errors of the numbers are up to "
        "0.03."
    )


def test_a_model_that_failed_has_a_why():
    assert failures(scored(), {"c": "the lattice is too large."}) == [
        "`c` failed: the lattice is too large."
    ]


def test_caveats_are_about_the_kind_of_fit():
    reml = {"a": yields(method="reml"), "b": yields("Yield ~ 1", method="reml")}
    said = " ".join(caveats(reml, {}))
    assert "rf.anova tests that" in said
    assert "restricted log-likelihoods compare only with each other" in said
