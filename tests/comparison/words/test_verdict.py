"""The verdict on several models, from numbers that are put in by hand."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.comparison.bayes_factors import EFFECTS, SDS
from ranef.comparison.words.verdict import (
    CORRELATION,
    FIXED,
    SD,
    Feature,
    Findings,
    Odds,
    Score,
    features_of,
    said_by_test,
    verdict,
)

INTERCEPT = Feature(SD, "g", ("intercept",))
SLOPE = Feature(SD, "g", ("slope of x",))
TOGETHER = Feature(CORRELATION, "g", ("intercept", "slope of x"))
NESTED = {"0": (), "1": (INTERCEPT,), "||": (INTERCEPT, SLOPE), "|": (INTERCEPT, SLOPE, TOGETHER)}


def findings(parts, log_ml=None, elpd=None, *, error=0.0, moved=(0.0, 0.0), of=SDS):
    """Return what is known of models, with Bayes factors that priors move by some amounts."""
    names = list(parts)
    marginal = sensitivity = score = None
    if log_ml is not None:
        marginal = pd.DataFrame({"log_ml": log_ml, "log_ml_error": error}, names, dtype=float)
        lines = [
            (name, scale, log - max(log_ml) + by * (log < max(log_ml)), of)
            for name, log in zip(names, log_ml, strict=True)
            for scale, by in zip((0.25, 4.0), moved, strict=True)
        ]
        sensitivity = pd.DataFrame(lines, columns=["model", "scale", "log_bf", "priors"])
    if elpd is not None:
        score = Score("g", pd.DataFrame(elpd), 0)
    kept = {name: frozenset(of_model) for name, of_model in parts.items()}
    return Findings(kept, score, marginal, sensitivity, "the sds")


def test_what_is_supported_is_said_once_and_what_is_open_last():
    found = verdict(findings(NESTED, [-100, -50, -20, -21]))
    assert found == [
        "Slopes of x differ from g to g: without that the data are 10^13 times less probable.",
        (
            "That the slope of x of each g goes with its intercept is not supported, and not ruled "
            "out: the data favour `||` 2.7 to 1 (also with priors of the sds scaled by 1/4 to 4)."
        ),
    ]


@pytest.mark.parametrize(
    ("log_bf", "moved", "begins"),
    [
        (np.log(20), (0.0, 0.0), "Intercepts differ from g to g: without that the data are 20"),
        (np.log(2), (0.0, 0.0), "That intercepts differ from g to g is supported weakly: the"),
        (-np.log(2), (0.0, 0.0), "That intercepts differ from g to g is not supported, and not"),
        (-np.log(20), (0.0, 0.0), "The data speak against it that intercepts differ from g to g:"),
        (np.log(20), (2.5, 0.0), "That intercepts differ from g to g is supported weakly: the"),
        (-np.log(20), (0.0, 4.0), "That intercepts differ from g to g is not supported, and not"),
    ],
)
def test_what_is_decided_is_so_for_every_scale_of_the_priors(log_bf, moved, begins):
    parts = {"0": (), "1": (INTERCEPT,)}
    assert verdict(findings(parts, [0.0, log_bf], moved=moved))[0].startswith(begins)


def test_the_range_is_that_of_the_models_that_are_named():
    parts = {"0": (), "1": (INTERCEPT,)}
    (said,) = verdict(findings(parts, [np.log(1 / 12), 0.0], moved=(np.log(2), -np.log(2))))
    assert "12 times less probable (6.0 to 24 as the priors of the sds are scaled" in said


def test_predictions_decide_where_there_are_no_bayes_factors():
    parts = {"0": (), "1": (INTERCEPT,)}
    differences = np.array([4.0, 5.0, 6.0, 5.0])
    (said,) = verdict(findings(parts, elpd={"0": -differences, "1": 0 * differences}))
    se = np.sqrt(4 * np.var(differences, ddof=1))
    assert said == (
        f"Intercepts differ from g to g: without that a new g is predicted worse by 20.0 "
        f"(se {se:.1f})."
    )
    (said,) = verdict(findings(parts, elpd={"0": [0.2, -0.9], "1": [0.0, 0.0]}))
    assert said == (
        "That intercepts differ from g to g is not supported, and not ruled out: a new g is "
        "predicted equally well (0.7 apart, se 1.1)."
    )


def test_a_noisy_bayes_factor_is_none():
    parts = {"0": (), "1": (INTERCEPT,)}
    elpd = {"0": [0.0, 0.0], "1": [0.5, 0.5]}
    (said,) = verdict(findings(parts, [0.0, np.log(20)], elpd, error=0.2))
    assert "favour" not in said
    assert "probable" not in said
    (said,) = verdict(findings(parts, [0.0, 30.0], elpd, error=0.2))
    assert "10^13 times less probable, and a new g is predicted equally well" in said


def test_models_that_are_not_nested_have_names():
    parts = {"a": (INTERCEPT,), "b": (Feature(SD, "h", ("intercept",)),)}
    (said,) = verdict(findings(parts, [0.0, -3.0], elpd={"a": [0.0, 0.0], "b": [-4.0, -5.0]}))
    assert said == (
        "The data favour `a` 20 to 1 (also with priors of the sds scaled by 1/4 to 4), and a new "
        "g is predicted worse by `b`, by 9.0 (se 1.0)."
    )
    (said,) = verdict(findings(parts, [0.0, -0.5]))
    assert said.endswith(": not decided.")


def test_crossed_factors_are_asked_with_the_best_that_contains_the_other():
    other = Feature(SD, "h", ("intercept",))
    parts = {"0": (), "g": (INTERCEPT,), "h": (other,), "g + h": (INTERCEPT, other)}
    found = verdict(findings(parts, [-60, -1, -50, -2]))
    assert [sentence.split(":")[0] for sentence in found] == [
        "Intercepts differ from g to g",
        "That intercepts differ from h to h is not supported, and not ruled out",
    ]
    assert "10^21 times" in found[0]  # from `h` to `g + h`, 48 on the log scale


def test_what_fixed_effects_say_hangs_on_their_priors():
    parts = {"without": (), "with": (Feature(FIXED, "", ("x",)),)}
    (said,) = verdict(findings(parts, [0.0, -0.5], moved=(1.0, -1.0), of=EFFECTS))
    assert said.startswith("That the mean depends on x is not supported, and not ruled out")
    assert said.endswith("the wider, the more the model without (Lindley's paradox).")
    (said,) = verdict(findings(parts, [0.0, -0.5], of=EFFECTS))
    assert "Lindley" not in said


@pytest.mark.parametrize(
    ("formula", "claim"),
    [
        ("score ~ 1 + (1 + Machine || Worker)", "Effects of Machine[T.B] and Machine[T.C] differ"),
        ("score ~ 1 + (1 | Worker)", "Intercepts differ from Worker to Worker"),
    ],
)
def test_parts_are_those_of_the_design(formula, claim):
    model = rf.Model(formula, rf.load_dataset("Machines"))
    models = {name: features_of(one.design) for name, one in model.structures().items()}
    by_size = sorted(models, key=lambda name: len(models[name]))
    said = verdict(
        findings({n: models[n] for n in by_size}, [10.0 * i for i in range(len(models))])
    )
    assert said[0].startswith(claim)


def test_a_correlated_term_has_its_correlations():
    data = rf.load_dataset("sleepstudy")
    both, none = (
        features_of(rf.Model(f"Reaction ~ Days + (Days {bar} Subject)", data).design)
        for bar in ("|", "||")
    )
    assert both - none == {Feature(CORRELATION, "Subject", ("intercept", "slope of Days"))}
    assert none < both


def test_odds_beyond_floating_point_are_spelled():
    (said,) = verdict(findings({"0": (), "1": (INTERCEPT,)}, [-5000.0, 0.0]))
    assert "10^2171 times less probable" in said


def test_what_a_test_says_is_said_in_words():
    data = rf.load_dataset("sleepstudy")
    small, large, other = (
        rf.Model(f"Reaction ~ {text}", data).design
        for text in ("Days + (1 | Subject)", "Days + (Days | Subject)", "1 + (Days | Subject)")
    )
    assert said_by_test(small, large, 1e-10) == (
        "Slopes of Days differ from Subject to Subject (p = 1e-10)."
    )
    assert said_by_test(small, large, 0.0).endswith("(p = 0).")
    assert said_by_test(other, large, 0.2) == (
        "That the mean depends on Days is not supported, and not ruled out (p = 0.2)."
    )
    assert said_by_test(large, small, 0.2) == said_by_test(small, small, 0.2) == ""


def test_odds_whose_sign_hangs_on_the_priors_are_not_decided():
    assert not Odds(0.5, -2.0, 3.0).is_decided
    assert Odds(2.5, 2.0, 3.0).is_decided
    assert Odds(2.5, 2.0, 3.0).turned == Odds(-2.5, -3.0, -2.0)
    assert Odds(2.5, 2.0, 3.0).turned.is_decided
