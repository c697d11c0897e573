"""`anova`: R's numbers, a bootstrap by hand, the words of notes and refusals."""

import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from ranef.comparison.anova import anova
from ranef.comparison.nested_tests import TESTS
from ranef.comparison.null_distributions import chi_bar_squared
from ranef.errors import Convergence, DataError, FitError
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.reml import estimate

SLEEP = rf.load_dataset("sleepstudy").assign(
    x=np.random.default_rng(3).normal(size=180), half=np.arange(180) % 2
)
PASTES = rf.load_dataset("Pastes")
DYESTUFF = rf.load_dataset("Dyestuff")
CBPP = rf.load_dataset("cbpp")
USE = rf.load_dataset("Contraception").assign(ch=lambda d: d["livch"] != "0")
DATA = {"Reaction": SLEEP, "strength": PASTES, "Yield": DYESTUFF, "use": USE, "cbind": CBPP}

N, O, S, D, C = (
    "Reaction ~ Days",
    "Reaction ~ Days + (1 | Subject)",
    "Reaction ~ Days + (0 + Days | Subject)",
    "Reaction ~ Days + (Days || Subject)",
    "Reaction ~ Days + (Days | Subject)",
)
BATCH = "strength ~ 1 + (1 | batch) + (1 | sample)"
SAMPLE = "strength ~ 1 + (1 | sample)"
HERD = "cbind(incidence, size - incidence) ~ {} + (1 | herd)"
CM1 = "use ~ age + I(age^2) + urban + {} + (1 | district)"
CM3 = "use ~ age * ch + I(age^2) + urban + ({} | district)"


@cache
def fitted(text, method="ml", **options):
    data = next(frame for name, frame in DATA.items() if text.startswith((name, f"log({name}")))
    family = "binomial" if text.startswith(("use", "cbind")) else "gaussian"
    return rf.Model(text, data, family=family).fit(method, **options)


def frame_of(*texts, method="ml", **options):
    return anova(*(fitted(text, method) for text in texts), **options).to_frame()


def refusal(*fits, error=FitError, **options):
    with pytest.raises(error) as caught:
        anova(*fits, **options)
    return str(caught.value)


@dataclass(frozen=True)
class Stub:
    """An engine whose simulated statistics are given, of a model that estimates sigma."""

    statistics: np.ndarray
    failed: np.ndarray | None = None
    calls: list = field(default_factory=list)
    priors = SimpleNamespace(known_sigma=None)

    def null_statistics(self, null, n, *, seed, first, executor):  # noqa: ARG002
        self.calls.append((null, n, seed, first))
        failed = np.zeros(len(self.statistics), bool) if self.failed is None else self.failed
        return self.statistics[first : first + n], failed[first : first + n]


def with_statistics(text, statistics, failed=None, method="ml"):
    return replace(fitted(text, method), engine=Stub(np.asarray(statistics), failed))


# ------------------------------------------------------------------------------- against R

REFERENCE = [  # lme4 1.1-31: anova() of fits at tight tolerances
    (SAMPLE, BATCH, (3, -124.200849902159), (4, -123.997232931213), 0.407233941893935, 1),
    (D, C, (5, -876.001627569941), (6, -875.969672231599), 0.0639106766852819, 1),
    (O, D, (4, -897.039321502613), (5, -876.001627569941), 42.0753878653429, 1),
    (
        CM1.format("ch"),
        CM1.format("livch"),
        (6, -1186.59284819728),
        (8, -1186.3642911819),
        0.45711403075893,
        2,
    ),
    (
        CM1.format("ch"),
        CM3.format("1"),
        (6, -1186.59284819728),
        (7, -1182.59059297114),
        8.00451045227692,
        1,
    ),
    (
        CM3.format("1"),
        CM3.format("urban"),
        (7, -1182.59059297114),
        (9, -1176.76497774318),
        11.6512304559119,
        2,
    ),
]


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: case[1])
def test_likelihood_ratios_of_lme4(case):
    small, large, before, after, statistic, df = case
    found = frame_of(small, large, test="chi2")
    assert list(found["npar"]) == [before[0], after[0]]
    assert found["loglik"].to_numpy() == pytest.approx([before[1], after[1]], abs=1e-6)
    assert found.loc[2, "statistic"] == pytest.approx(statistic, abs=1e-6)
    assert found.loc[2, "df"] == df
    assert found.loc[2, "p_value"] == pytest.approx(stats.chi2.sf(statistic, df), rel=1e-6)
    fits = fitted(small), fitted(large)
    for column in ("aic", "bic"):
        wanted = [fit.aic if column == "aic" else fit.bic for fit in fits]
        assert list(found[column]) == wanted
    assert list(found["deviance"]) == [-2 * fit.loglik for fit in fits]


def test_half_chi_squared_for_one_variance():
    found = frame_of(SAMPLE, BATCH, test="mixture")
    assert found.loc[2, "p_value"] == pytest.approx(0.261688398230609, abs=1e-8)
    assert frame_of(O, D, test="mixture").loc[2, "p_value"] == pytest.approx(
        4.39107924264446e-11, rel=1e-5
    )


def test_mixtures_of_slopes_with_covariances_and_of_several_variances():
    found = frame_of(O, C, test="mixture").loc[2]
    assert found["p_value"] == pytest.approx(
        chi_bar_squared(found["statistic"], 1, 1), rel=1e-12, abs=0
    )
    found = frame_of(N, D, test="mixture").loc[2]
    assert found["p_value"] == pytest.approx(
        chi_bar_squared(found["statistic"], 0, 2), rel=1e-12, abs=0
    )
    found = frame_of("Reaction ~ 1 + (1 | Subject)", C, test="mixture").loc[2]
    assert found["p_value"] == pytest.approx(
        chi_bar_squared(found["statistic"], 2, 1), rel=1e-12, abs=0
    )


@pytest.mark.parametrize(("method", "kind"), [("reml", "RLRT"), ("ml", "LRT")])
def test_the_exact_test_of_dyestuff(method, kind):
    texts = "Yield ~ 1", "Yield ~ 1 + (1 | Batch)"
    found = frame_of(*texts, method=method)  # no test asked for: the exact one exists
    assert found.loc[2, "p_value"] == pytest.approx(0.00439753126830609, rel=1e-6)
    assert (found.loc[2, "test"], found.loc[2, "kind"], found.loc[2, "df"]) == ("exact", kind, 1)
    statistic = {"reml": 6.36895531362114, "ml": 5.40282609364596}[method]  # RLRsim 3.1.8
    assert found.loc[2, "statistic"] == pytest.approx(statistic, abs=1e-6)
    assert "n" not in found


def test_the_exact_test_by_simulation():
    data = DYESTUFF.assign(z=np.arange(30) % 2)[3:]
    small = rf.fit("Yield ~ 1", data, "ml")
    for large, free in (("Yield ~ 1 + (1 | Batch)", 0), ("Yield ~ z + (1 | Batch)", 1)):
        fit = rf.fit(large, data, "ml")
        found = anova(small, fit, seed=1, n=20_000).to_frame().loc[2]
        assert (found["test"], found["kind"], found["df"]) == ("exact", "LRT", 1 + free)
        assert (found["n"], found["n_failed"]) == (20_000, 0)
        assert found["p_lower"] < found["p_value"] < found["p_upper"]
        other = anova(small, fit, seed=2).to_frame().loc[2]
        assert other["n"] == 100_000
        assert found["p_lower"] < other["p_value"] < found["p_upper"]
        rough = chi_bar_squared(found["statistic"], free, 1)
        assert 0.4 * rough < found["p_value"] < 1.5 * rough


def test_f_of_slopes_of_intercepts_and_of_batches():
    found = frame_of(O, C, test="f").loc[2]
    assert found["statistic"] == pytest.approx(5.4178, abs=5e-5)
    assert (found["df"], found["df_residual"], found["kind"]) == (17, 144, "F")
    assert found["p_value"] == pytest.approx(3.27e-9, rel=0.01)
    found = frame_of(S, C, test="f", method="reml").loc[2]
    assert found["statistic"] == pytest.approx(3.7053, abs=5e-5)
    assert found["p_value"] == pytest.approx(7.2e-6, rel=0.02)
    found = frame_of(SAMPLE, BATCH, test="f").loc[2]
    assert found["p_value"] == pytest.approx(0.19255, abs=1e-5)


# ---------------------------------------------------------------------------------- bootstrap


def by_hand(small, large, n):
    """Simulate responses row by row, fit both models to each."""
    responses = small.simulate(n, seed=5).T
    found = []
    for y in responses:
        fits = [
            estimate(cross_products(fit.design.with_rows(y=y)), reml=fit.method == "reml")
            for fit in (small, large)
        ]
        found.append(max(2 * (fits[1].loglik - fits[0].loglik), 0.0))
    return np.array(found)


def test_the_bootstrap_of_refits_by_hand():
    # of 2000 responses simulated in R 407 reach the observed statistic, 57.7 % have one of zero
    small, large = fitted(SAMPLE), fitted(BATCH)
    T = by_hand(small, large, 24)
    observed = 0.407233941893935
    found = (
        anova(small, with_statistics(BATCH, T), test="bootstrap", n=24, seed=8).to_frame().loc[2]
    )
    hits = int((observed - 1e-6 <= T).sum())
    assert (found["n"], found["p_value"]) == (24, (1 + hits) / 25)
    assert found["n_zero"] == (T < 1e-6).sum()
    assert found["p_lower"] < 407 / 2000 < found["p_upper"]


def test_the_bootstrap_of_the_engine():
    found = frame_of(SAMPLE, BATCH, method="reml", test="bootstrap", seed=3).loc[2]
    assert found["p_value"] == 50 / found["n"]
    assert found["p_lower"] < 0.2044 < found["p_upper"]  # 408 of 2000 in a loop of R's
    again = [frame_of(SAMPLE, BATCH, test="bootstrap", seed=4, n=20) for _ in range(2)]
    pd.testing.assert_frame_equal(*again)


def test_the_bootstrap_of_a_generalised_model():
    small = fitted("cbind(incidence, size - incidence) ~ period")
    found = anova(small, fitted(HERD.format("period")), test="bootstrap", n=2, seed=1).to_frame()
    assert (found.loc[2, "n"], found.loc[2, "p_value"]) == (2, pytest.approx(1 / 3))


def test_replicates_come_from_the_larger_model_with_one_seed_in_sequence():
    large = with_statistics(BATCH, np.zeros(5000))
    anova(fitted(SAMPLE), large, test="bootstrap", n=900, seed=7)
    assert [call[1:] for call in large.engine.calls] == [
        (100, 7, 0),
        (100, 7, 100),
        (200, 7, 200),
        (400, 7, 400),
        (100, 7, 800),
    ]
    assert all(call[0].estimate is fitted(SAMPLE).estimate for call in large.engine.calls)


def test_the_words_of_a_bootstrap():
    T = np.tile([0.0, 3.0, 0.1, 0.0], 50)
    failed = np.arange(200) % 10 == 0
    found = anova(fitted(SAMPLE), with_statistics(BATCH, T, failed), test="bootstrap", n=200)
    row = found.to_frame().loc[2]
    assert (row["n"], row["n_zero"], row["n_failed"]) == (178, 89, 20)
    assert row["n_zero"] == (T[:198][~failed[:198]] == 0).sum()
    assert row["p_value"] == 50 / 178
    assert found.comparisons[0].note == (
        "Model 2 against 1: the likelihood ratio against those of 178 responses simulated from "
        "model 1, both models fitted to each: p lies in (0.216, 0.349) with 95 % confidence, 89 "
        "statistics of zero. Stopped when 50 had reached the observed one. 20 more could not be "
        "fitted and are left out."
    )


def test_all_statistics_of_a_bootstrap():
    T = np.tile([0.0, 3.0, 0.1, 0.0], 50)
    models = fitted(SAMPLE), with_statistics(BATCH, T)
    found = anova(*models, test="bootstrap", n=200, stop=False).comparisons[0]
    np.testing.assert_array_equal(found.simulated.statistics, T)
    assert "Stopped" not in found.note
    assert found.p_value == 51 / 201
    stopped = anova(*models, test="bootstrap", n=200).comparisons[0].simulated
    np.testing.assert_array_equal(stopped.statistics, T[: stopped.n])


def test_without_a_seed_replicates_differ_from_call_to_call():
    large = with_statistics(BATCH, np.zeros(200))
    for _ in range(2):
        anova(fitted(SAMPLE), large, test="bootstrap", n=100)
    seeds = {call[2] for call in large.engine.calls}
    assert len(seeds) == 2


# ------------------------------------------------------------------------- what is compared


@pytest.mark.parametrize(
    ("small", "large", "test"),
    [
        (N, O, "exact"),
        (N, "Reaction ~ Days + x", "chi2"),
        (O, "Reaction ~ Days + x + (1 | Subject)", "chi2"),
        ("Reaction ~ 1", "Reaction ~ Days + (0 + x | Subject)", "exact"),
        (D, C, "bootstrap"),
        (N, D, "bootstrap"),
        (HERD.format("1"), HERD.format("period"), "chi2"),
        ("cbind(incidence, size - incidence) ~ period", HERD.format("period"), "mixture"),
        (CM3.format("1"), CM3.format("urban"), "mixture"),
        (CM3.format("1").replace("(1 | district)", "1"), CM3.format("urban"), "chi2"),
    ],
)
def test_the_test_that_is_taken_by_default(small, large, test):
    larger = fitted(large)
    if test == "bootstrap":
        larger = with_statistics(large, np.full(9999, 99.0))
    found = anova(fitted(small), larger, seed=1).to_frame()
    assert found.loc[2, "test"] == test


def test_restricted_likelihoods_if_the_fixed_effects_are_the_same():
    found = anova(fitted(N, "reml"), fitted(O, "reml"), fitted(D, "reml"), test="chi2")
    table = found.to_frame()
    assert list(table["method"]) == ["reml"] * 3
    assert list(table["kind"]) == ["", "RLRT", "RLRT"]
    assert table.loc[3, "statistic"] == pytest.approx(42.79579181344, abs=1e-6)  # RLRsim 3.1.8
    note = (
        "The fixed effects being the same, restricted likelihoods are compared (RLRT), where "
        "lme4's anova() would refit by maximum likelihood."
    )
    assert note in found.notes


@pytest.mark.parametrize(
    ("fits", "reason"),
    [
        ([("Reaction ~ 1 + (Days | Subject)", "reml"), (C, "reml")], "their fixed effects differ"),
        ([(D, "ml"), (C, "reml")], "both methods were used"),
        ([(D, "reml"), (C, "ml")], "both methods were used"),
        ([("Reaction ~ 1", "reml"), (N, "ml"), (O, "reml")], "their fixed effects differ"),
    ],
)
def test_refits_by_maximum_likelihood(fits, reason):
    found = anova(*(fitted(*fit) for fit in fits), test="chi2")
    wanted = anova(*(fitted(text, "ml") for text, _ in fits), test="chi2")
    pd.testing.assert_frame_equal(found.to_frame(), wanted.to_frame())
    note = f"Fits by REML were refitted by maximum likelihood, as {reason}."
    assert note in found.notes
    assert note not in wanted.notes


def test_refits_do_not_repeat_warnings_of_dropped_columns():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = [
            rf.fit(f"Reaction ~ {x} + I(2 * {x}) + (1 | Subject)", SLEEP, "reml")
            for x in ("Days", "(Days + x)")
        ]
        small = rf.fit("Reaction ~ 1 + (1 | Subject)", SLEEP, "reml")
    found = anova(small, fits[0]).to_frame()
    assert found.loc[2, "df"] == 1


def test_another_coding_of_the_fixed_effects_changes_nothing():
    texts = "Reaction ~ x", "Reaction ~ I(10 * x - 7) + (1 | Subject)"
    found = anova(*(fitted(text, "reml") for text in texts), test="chi2")
    alike = anova(
        fitted(texts[0], "reml"), fitted(texts[0] + " + (1 | Subject)", "reml"), test="chi2"
    )
    statistic = found.to_frame().loc[2, "statistic"]
    assert statistic == pytest.approx(alike.to_frame().loc[2, "statistic"], abs=1e-6)
    gain = np.diff([fit.loglik for fit in found.fits])[0]
    assert abs(2 * gain - statistic) > 1
    note = (
        "The fixed effects are coded in different ways, which changes restricted likelihoods, AIC "
        "and BIC, but not the test."
    )
    assert note in found.notes
    assert note not in alike.notes


def test_models_in_another_order():
    in_order = anova(fitted(N), fitted(O), fitted(C), test="chi2")
    found = anova(fitted(C), fitted(N), fitted(O), test="chi2")
    pd.testing.assert_frame_equal(found.to_frame(), in_order.to_frame())
    note = "The models are in the order of their numbers of parameters, not in the one given."
    assert note in found.notes
    assert note not in in_order.notes


def test_other_covariances_of_machines():
    data = rf.load_dataset("Machines")
    fits = [
        rf.fit(f"score ~ Machine + {random}", data)
        for random in (
            "(1 | Worker)",
            "(1 | Worker) + (1 | Worker:Machine)",
            "(0 + Machine | Worker)",
        )
    ]
    found = anova(*fits, test="chi2").to_frame()
    assert list(found["df"][1:]) == [1, 4]
    # Pinheiro & Bates (2000), page 29: 71.19 and 17.6 (as printed by lme's anova)
    assert found["statistic"].to_numpy()[1] == pytest.approx(71.19, abs=0.01)


def test_weights_offsets_and_rows_that_are_left_out():
    frame = SLEEP.assign(w=np.tile([0.5, 1.0, 2.0], 60), o=SLEEP["x"] * 3)
    frame.loc[[4, 17], "Days"] = np.nan
    frame.index = [f"row {i}" for i in range(180)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small, large = (
            rf.fit(f"Reaction ~ Days{more}", frame, weights="w", offset="o")
            for more in ("", " + (1 | Subject)")
        )
        other = rf.fit("Reaction ~ x + Days", frame.fillna(0), weights="w", offset="o")
    found = anova(small, large, test="f").to_frame().loc[2]
    again = anova(small, large, test="exact", seed=1, n=2000).to_frame().loc[2]
    assert found["p_value"] < 1e-15
    assert again["p_value"] == pytest.approx(1 / 2001)
    assert refusal(small, other, error=DataError) == (
        "fit 1 and fit 2 are fits of different rows (178 and 180: 2 only in fit 2 (`row 4` and "
        "`row 17`)): fit both to the rows that are complete in all columns that either uses."
    )


# ------------------------------------------------------------------------------------ the record


def test_columns():
    columns = ["formula", "method", "npar", "loglik", "deviance", "aic", "bic"]
    columns += ["statistic", "df", "p_value", "test", "kind"]
    found = frame_of(N, O, C, test="chi2")
    assert list(found.columns) == columns
    assert list(found.index) == [1, 2, 3]
    assert found.loc[1, ["statistic", "df", "p_value"]].isna().all()
    assert list(found["formula"]) == [N, O, C]
    assert list(found["test"]) == ["", "chi2", "chi2"]
    simulated = ["n", "n_zero", "n_failed", "p_lower", "p_upper"]
    assert list(frame_of(N, S, seed=1, n=10).columns) == columns
    unequal = frame_of("Reaction ~ x", "Reaction ~ x + (0 + x | Subject)", seed=1, n=10)
    assert list(unequal.columns) == columns + simulated
    assert list(frame_of(N, O, test="f").columns) == [*columns, "df_residual"]


def test_the_table_in_print():
    found = anova(fitted(SAMPLE, "reml"), fitted(BATCH, "reml"), test="mixture")
    assert str(found) == (
        "Tests of nested models\n"
        "  That intercepts differ from batch to batch is not supported, and not ruled out "
        "(p = 0.21).\n"
        "  1: strength ~ 1 + (1 | sample)\n"
        "  2: strength ~ 1 + (1 | batch) + (1 | sample)\n"
        "  60 rows; fits by REML\n"
        "\n"
        "Each model against the one above it\n"
        "  model  npar   loglik  deviance     AIC     BIC  statistic  df  p_value  test\n"
        "      1     3  -123.82    247.65  253.65  259.93\n"
        "      2     4  -123.50    246.99  254.99  263.37       0.66   1    0.209  RLRT, mixture\n"
        "\n"
        "Model 2 against 1: the restricted likelihood ratio against half chi-squared with 0 and "
        "half with 1\ndegree of freedom, as one variance of model 1 is zero (Stram & Lee 1994): "
        'its distribution with many\nlevels, which test="bootstrap" simulates for those at hand.\n'
        "The fixed effects being the same, restricted likelihoods are compared (RLRT), where "
        "lme4's anova()\nwould refit by maximum likelihood.\n"
        "AIC and BIC count a variance like any other parameter, although it cannot be negative: "
        "they are too\nfavourable to models without it."
    )
    assert repr(found) == str(found)
    assert "<td>RLRT, mixture</td>" in found._repr_html_()
    pd.testing.assert_frame_equal(found.summary().to_frame(), found.to_frame())


NOTES = [
    (
        (O, "Reaction ~ Days + x + (1 | Subject)"),
        "chi2",
        (
            "Model 2 against 1: the likelihood ratio against chi-squared with 1 degree of freedom, "
            "its distribution in large samples. In small ones p is mostly too small: Wald tests "
            'with Kenward-Roger degrees of freedom are better, and test="bootstrap" simulates the '
            "distribution."
        ),
    ),
    (
        (HERD.format("1"), HERD.format("period")),
        "chi2",
        (
            "Model 2 against 1: the likelihood ratio against chi-squared with 3 degrees of freedom,"
            " its distribution in large samples. In small ones p is mostly too small: "
            'test="bootstrap" simulates the distribution.'
        ),
    ),
    (
        (D, C),
        "chi2",
        (
            "Model 2 against 1: the likelihood ratio against chi-squared with 1 degree of freedom, "
            "its distribution in large samples if no variance of model 1 is zero."
        ),
    ),
    (
        (O, C),
        "chi2",
        (
            "Model 2 against 1: the likelihood ratio against chi-squared with 2 degrees of freedom."
            " Not valid at the boundary, but conservative: with variances of zero in model 1 p is "
            'too large. test="bootstrap" simulates the distribution.'
        ),
    ),
    (
        (D, C),
        "mixture",
        (
            "Model 2 against 1: the likelihood ratio against chi-squared with 1 degree of freedom: "
            "no variance of model 1 is zero."
        ),
    ),
    (
        (N, D),
        "mixture",
        (
            "Model 2 against 1: the likelihood ratio against chi-squared with 0 to 2 degrees of "
            "freedom, mixed with binomial weights, as 2 variances of model 1 are zero: approximate,"
            ' as if their estimates were independent, and for many levels; test="bootstrap" '
            "simulates the distribution."
        ),
    ),
    (
        (SAMPLE, BATCH),
        "f",
        (
            "Model 2 against 1: F test of the new random effects as fixed ones. Exact for normal "
            "data, whatever the other variances. The error are the levels of `sample`, by their "
            "totals."
        ),
    ),
    (
        ("Yield ~ 1", "Yield ~ 1 + (1 | Batch)"),
        "exact",
        (
            "Model 2 against 1: the levels having one size, the likelihood ratio is a function of "
            "F = 4.59827 with 5 and 24 degrees of freedom. Exact for normal data."
        ),
    ),
]


@pytest.mark.parametrize(("pair", "test", "note"), NOTES)
def test_what_is_said_of_a_test(pair, test, note):
    found = anova(*(fitted(text) for text in pair), test=test)
    assert found.comparisons[0].note == note


def test_what_is_said_of_draws_of_the_exact_distribution():
    pair = fitted("Reaction ~ x", "reml"), fitted("Reaction ~ x + (0 + x | Subject)", "reml")
    found = anova(*pair, seed=1, n=400).comparisons[0]
    assert found.note == (
        "Model 2 against 1: the restricted likelihood ratio against 400 draws of its distribution "
        "in samples of this size (Crainiceanu & Ruppert 2004). Exact for normal data but for "
        f"simulation: p lies in ({found.simulated.lower:.3g}, {found.simulated.upper:.3g}) with 95 "
        "% confidence."
    )


def test_notes_on_singular_models_approximations_and_criteria():
    data = rf.load_dataset("Dyestuff2").assign(u=np.arange(30) % 5)
    fits = [rf.fit(f"Yield ~ 1 + (1 | Batch){more}", data) for more in ("", " + (1 | u)")]
    notes = anova(*fits, test="chi2").notes
    assert (
        "Model 1 is singular itself: chi-squared distributions and mixtures of them are not to be "
        "relied on."
    ) in notes
    aic = (
        "AIC and BIC count a variance like any other parameter, although it cannot be negative: "
        "they are too favourable to models without it."
    )
    assert aic in notes
    assert anova(fitted(D), fitted(C), test="chi2").notes == ()
    pair = [fitted(HERD.format(x)) for x in ("1", "period")]
    assert anova(*pair).notes == ("The likelihoods are Laplace approximations.",)
    pair = [fitted(HERD.format(x), n_agq=5) for x in ("1", "period")]
    assert anova(*pair).notes == ("The likelihoods are quadratures with 5 points.",)


# ------------------------------------------------------------------------------------- refusals


def test_fewer_than_two_fits():
    assert refusal().startswith("anova compares two fits or more, got 0.")
    assert refusal(fitted(N)) == (
        "anova compares two fits or more, got 1. The fixed effects of one are tested by "
        "rf.joint_tests(fit)."
    )


@pytest.mark.parametrize(
    ("thing", "name"),
    [(rf.Model(O, SLEEP), "Model"), ([1], "list"), ("fit", "str"), (None, "NoneType")],
)
def test_what_is_no_fit(thing, name):
    assert refusal(fitted(N), thing) == (
        f"anova takes fits, got '{name}' in place 2: fit every model first, model.fit(\"ml\"), and "
        "give the fits one by one."
    )


def test_fits_without_a_maximised_likelihood():
    message = (
        'fit {} is by method="{}", which has no maximised likelihood: fit the model with '
        'model.fit("ml"), or compare posteriors with rf.compare().'
    )
    assert refusal(fitted(N), fitted(O, "map")) == message.format(2, "map")
    post = rf.Model(O, SLEEP).fit("laplace", draws=400, seed=1)
    assert refusal(post, fitted(C)) == message.format(1, "laplace")


def test_options():
    pair = fitted(N), fitted(O)
    assert refusal(*pair, test="boot") == "test='boot' does not exist. Did you mean `bootstrap`?"
    assert refusal(*pair, test=1).startswith(
        "test=1 does not exist. Known names: `chi2`, `mixture`"
    )
    assert refusal(*pair, n=0) == "`n` must be a positive whole number, got 0."
    assert refusal(*pair, n=2.5) == "`n` must be a positive whole number, got 2.5."
    assert (
        refusal(*pair, seed=-1)
        == "`seed` must be None, a whole number from 0 on or a numpy Generator, got -1."
    )
    for test in ("chi2", "mixture", "f"):
        assert refusal(*pair, test=test, n=10) == (
            f'test="{test}" simulates nothing, so that it has no `n`.'
        )
    assert anova(*pair, seed=np.int64(3), n=np.int64(7)).comparisons[0].p_value < 1


def test_models_that_are_not_nested():
    assert refusal(fitted(S), fitted(O)) == (
        f"`{S}` is not nested in `{O}`: the random effects (0 + Days | Subject) of the first are "
        "not among those of the second. AIC and BIC, or rf.compare() of posteriors, compare models "
        "that are not nested."
    )
    assert refusal(fitted("Reaction ~ x"), fitted(N)).startswith(
        f"`Reaction ~ x` is not nested in `{N}`: the fixed effects `x` of the first are no "
        "combination of those of the second. "
    )


def test_the_same_model_twice():
    same = "Reaction ~ 1 + Days + (1 + Days | Subject)"
    message = "`{}` and `{}` are the same model: there is nothing to test."
    assert refusal(fitted(O), fitted(O)) == message.format(O, O)
    assert refusal(fitted(C), fitted(same)) == message.format(C, same)
    assert refusal(fitted(N), fitted(O), fitted(O), test="chi2") == message.format(O, O)


def test_other_data():
    assert refusal(fitted(N), fitted("log(Reaction) ~ Days"), error=DataError) == (
        "fit 1 is a model of `Reaction` and fit 2 one of `log(Reaction)`: densities of a response "
        "and of its transform are in different units and cannot be compared. Fit both to the same "
        "response; a link function transforms its mean instead."
    )


def test_other_weights_and_offsets():
    weighted = rf.fit("Reaction ~ Days", SLEEP, weights=np.tile([1.0, 2.0], 90))
    assert refusal(rf.fit("Reaction ~ 1", SLEEP), weighted, error=DataError) == (
        "fit 1 and fit 2 are not fits of the same data: the weights or numbers of trials differ in "
        "90 rows (`1`, `3`, `5`, `7`, `9` and 85 more)."
    )
    shifted = rf.fit("Reaction ~ Days", SLEEP, offset=np.arange(180) / 9)
    assert refusal(rf.fit("Reaction ~ 1", SLEEP), shifted, error=DataError) == (
        "fit 1 and fit 2 are not fits of the same data: the offset differs in 179 rows (`1`, `2`, "
        "`3`, `4`, `5` and 174 more)."
    )


def test_other_families():
    counts = SLEEP.assign(Reaction=SLEEP["Reaction"].round())
    poisson = rf.fit("Reaction ~ Days", counts, family="poisson")
    assert refusal(rf.fit("Reaction ~ 1", counts, "ml"), poisson) == (
        "fits 1 and 2 are not nested: one has the gaussian family with identity link, the other "
        "the poisson family with log link."
    )
    overdispersed = rf.fit("Reaction ~ Days", counts, family="negative_binomial")
    assert refusal(poisson, overdispersed) == (
        "fits 1 and 2 are not nested: one has the poisson family with log link, the other the "
        "negative_binomial family with log link. AIC and BIC, or rf.compare() of posteriors, "
        "compare models that are not nested."
    )


def test_fits_that_did_not_converge():
    lost = replace(fitted(O).estimate, convergence=Convergence.MAX_ITERATIONS)
    assert refusal(fitted(N), replace(fitted(O), estimate=lost)) == (
        f"the fit of `{O}` by maximum likelihood is not at a maximum of its likelihood: The "
        "optimiser stopped at its limit of iterations before the gradient vanished; the estimates "
        "are not at the optimum."
    )


def test_a_larger_model_with_a_lower_likelihood():
    low = fitted(C).estimate
    low = replace(fitted(C), estimate=replace(low, loglik=fitted(O).loglik - 0.5))
    assert refusal(fitted(O), low, test="chi2") == (
        f"the log-likelihood of `{C}` is 0.5 below that of `{O}`, which is nested in it: its "
        "optimiser ended in a lower maximum. Rescale the predictors, or simplify the model."
    )
    nearly = replace(low, estimate=replace(low.estimate, loglik=fitted(O).loglik - 1e-6))
    assert anova(fitted(O), nearly, test="chi2").comparisons[0].p_value == 1.0


def test_fits_without_their_model():
    alone = replace(fitted(C, "reml"), engine=None)
    message = (
        f"the fit of `{C}` comes without its model, so that nothing can be refitted: fit the model "
        "again."
    )
    assert refusal(fitted("Reaction ~ 1", "reml"), alone) == message
    assert refusal(fitted(D, "reml"), alone, test="bootstrap") == message
    assert anova(fitted(D, "reml"), alone, test="chi2").comparisons[0].test == "chi2"


def test_likelihoods_that_are_approximated_in_different_ways():
    pair = fitted(HERD.format("1")), fitted(HERD.format("period"), n_agq=5)
    assert refusal(*pair) == (
        "the fits have n_agq=`1` and `5`: likelihoods can be compared if they are approximated in "
        "the same way."
    )


ONE = (
    "it is for one variance against a linear model without random effects, where sigma is estimated"
)
RANDOM = "it tests random effects, with the same fixed effects in both"
MISSING = [
    ((D, C), "f", "with random effects as fixed ones there are no new columns, or no residuals"),
    ((N, "Reaction ~ Days + x + (1 | Subject)"), "f", RANDOM),
    ((N, "Reaction ~ Days + x"), "f", RANDOM),
    ((O, D), "exact", ONE),
    ((N, D), "exact", ONE),
    ((N, "Reaction ~ Days + x"), "exact", ONE),
    ((HERD.format("1"), HERD.format("period")), "f", "it is for linear models"),
    ((HERD.format("1"), HERD.format("period")), "exact", ONE),
]
OTHERS = '"chi2", "mixture" and "bootstrap" do.'


@pytest.mark.parametrize(("pair", "test", "reason"), MISSING)
def test_tests_that_do_not_exist(pair, test, reason):
    small, large = pair
    assert refusal(fitted(small), fitted(large), test=test) == (
        f'test="{test}" does not exist for `{large}` against `{small}`: {reason}. {OTHERS}'
    )


def test_mixtures_that_do_not_exist():
    assert refusal(fitted(N), fitted(C), test="mixture") == (
        f'test="mixture" does not exist for `{C}` against `{N}`: two or more correlated effects '
        'are new, whose mixture has no simple weights. "chi2" and "bootstrap" do.'
    )


def test_a_factor_that_the_fixed_effects_contain():
    fits = [rf.fit(f"Yield ~ Batch{more}", DYESTUFF, "ml") for more in ("", " + (1 | Batch)")]
    assert refusal(*fits).endswith(
        f": the fixed effects contain all levels of the factor. {OTHERS}"
    )


def test_every_test_has_a_name():
    assert list(TESTS) == ["chi2", "mixture", "f", "exact", "bootstrap"]


def test_the_simulated_statistics_are_drawn():
    pastes = rf.load_dataset("Pastes")
    small = rf.fit("strength ~ 1 + (1 | batch:cask)", pastes)
    table = rf.anova(small, small.update(". ~ . + (1 | batch)"), test="bootstrap", n=100, seed=1)
    drawn = table.null_table()
    row = table.to_frame().iloc[-1]
    assert len(drawn) == row["n"]
    (observed,) = drawn.attrs["observed"].values()
    assert observed == (row["statistic"], row["p_value"])
    (axes,) = table.plot()
    assert axes.get_xlabel() == "restricted likelihood ratio"
    plain = rf.anova(small, small.update(". ~ . + (1 | batch)"), test="chi2")
    with pytest.raises(rf.FitError, match="no statistics were simulated for these tests"):
        plain.plot()
