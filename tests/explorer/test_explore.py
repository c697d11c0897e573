"""Which fits have a page, and what the others are told."""

import numpy as np
import pytest
from explorer_pages import fitted, held, page

import ranef as rf
from ranef.errors import FitError
from ranef.explorer.explore import _units

SLEEP = rf.load_dataset("sleepstudy")
NO_NOUN = (
    '`noun` is a word, "school", or up to three: a group, groups, rows, such as ("school", '
    '"schools", "pupils"); got {}.'
)
NO_UNITS = (
    "`units` is a unit for each of `Intercept` and `Days`, so 2, or that of `Reaction` alone; got "
    "('ms',)."
)


def refused(formula, data, match, **options):
    fit = rf.fit(formula, data, **options)
    with pytest.raises(FitError, match=match):
        fit.explore_shrinkage("page.html")


def test_other_models_are_refused_with_a_way_out():
    cbpp = rf.load_dataset("cbpp")
    refused(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        cbpp,
        r"^the page of explore_shrinkage recomputes a Gaussian model with the identity link in the "
        r"browser; this one is binomial with the logit link\. fit\.plot_shrinkage\(\) draws the "
        r"shrinkage of any fit\.$",
        family="binomial",
    )
    refused(
        "Reaction ~ Days",
        SLEEP,
        "^the model has no random effects, and so no shrinkage to explore.$",
        method="ml",
    )
    refused(
        "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
        SLEEP,
        r"shows one term of random effects, and the model has 2: .*Write uncorrelated coefficients "
        r"of one factor as one term, `\(x \|\| g\)`\.$",
    )
    refused(
        "strength ~ 1 + (1 | batch/cask)",
        rf.load_dataset("Pastes"),
        r"the model has 2: .*Fit a model with one of them; fit\.plot_shrinkage\(\) draws the "
        r"shrinkage of any fit, a term at a time \(`term=`\)\.$",
    )
    refused(
        "Reaction ~ Days + I(Days^2) + (Days + I(Days^2) || Subject)",
        SLEEP,
        r"one or two coefficients of each group, and `.*` has 3: `Intercept`, `Days` and .*two "
        r"coefficients at a time \(`coefs=`\)\.$",
    )


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no folder `.*nowhere` to write `p"):
        fitted("sleepstudy").explore_shrinkage(tmp_path / "nowhere" / "p.html")


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        (None, ["batch", "batches", "rows"]),
        ("city", ["city", "cities", "rows"]),
        (("child", "children"), ["child", "children", "rows"]),
        (("boy", "boys", "visits"), ["boy", "boys", "visits"]),
    ],
)
def test_nouns(noun, expected, tmp_path):
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    found = held(fit.explore_shrinkage(tmp_path / "p.html", noun=noun))
    assert found["noun"] == expected
    assert found["title"] == f"Yield of 30 {expected[2]} from 6 {expected[1]}"


@pytest.mark.parametrize(
    ("units", "response", "coefs"),
    [
        (None, "", ("", "")),
        ("ms", "ms", ("ms", "ms per Days")),
        (("ms", "ms per day"), "ms", ("ms", "ms per day")),
        ({"Reaction": "ms", "Days": "ms/d"}, "ms", ("ms", "ms/d")),
    ],
)
def test_units(units, response, coefs):
    assert _units(units, "Reaction", ("Intercept", "Days")) == (response, coefs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noun": ()}, NO_NOUN.format("()")),
        ({"noun": ("a", "")}, NO_NOUN.format("('a', '')")),
        ({"units": {"Dayz": "ms"}}, "`units` names 'Dayz'. Did you mean `Days`?"),
        ({"units": ("ms",)}, NO_UNITS),
    ],
)
def test_words_that_are_no_words(options, message, tmp_path):
    with pytest.raises(FitError) as caught:
        fitted("sleepstudy").explore_shrinkage(tmp_path / "p.html", **options)
    assert str(caught.value) == message


def test_a_factor_that_is_no_word_is_a_group(tmp_path):
    data = {"g1": list("abc") * 4, "y": np.random.default_rng(1).normal(size=12)}
    found = held(rf.fit("y ~ 1 + (1 | g1)", data).explore_shrinkage(tmp_path / "p.html"))
    assert found["noun"] == ["group", "groups", "rows"]


def test_known_standard_errors_leave_sigma_without_a_density(tmp_path):
    data = {"school": list("ABCDEFGH"), "y": [28, 8, -3, 7, -1, 1, 18, 12]}
    data["s"] = [15, 10, 16, 11, 9, 11, 10, 18]
    found = held(
        rf.fit("y ~ 1 + (1 | school)", data, se="s").explore_shrinkage(tmp_path / "p.html")
    )
    assert found["knownSigma"]
    assert found["posterior"]["sigma"] is None
    assert found["reml"]["sigma"] == 1


def test_without_a_posterior_the_page_says_why(tmp_path, monkeypatch):
    def improper(*_, **__):
        raise FitError("the posterior is improper.")

    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    monkeypatch.setattr("ranef.model.linear_engine.LinearEngine.quadrature", improper)
    found = held(fit.explore_shrinkage(tmp_path / "p.html"))
    assert found["posterior"] == {"sigma": None, "sd": [None], "corr": None}
    assert found["missing"] == "the posterior is improper."


def test_the_page_comes_from_the_path_that_is_returned():
    assert page("sleepstudy").name == "sleepstudy.html"
