"""The table of several models: what it prints, decides and draws."""

from dataclasses import replace

import pytest
from comparison_cases import structures, two, yields

import ranef as rf

PRINTED = """\
Which random effects?   2 models of Yield, 30 rows, 6 levels of Batch
  Intercepts differ from Batch to Batch: without that the data are 9.9 times less probable (3.7 to
  11 as the priors of the sds are scaled by 1/4 to 4), and a new Batch is predicted equally well
  (2.6 apart, se 2.9).

          a new Batch  a new row of a  log p(y)   Bayes    posterior
         (6 left out)     known group            factor  probability
                        (30 left out)
batches  -166.8 best     -164.0 best    -168.70   1            0.91
none       -2.6 ± 2.9      -4.1 ± 2.9   -171.00   1/9.9        0.091

batches: Yield ~ 1 + (1 | Batch)
none: Yield ~ 1
Scores are expected log predictive densities (elpd): the best in full, the others as the difference
from it ± its standard error over the units left out. 6 levels of Batch and 30 rows are few for such
a standard error.
log p(y): the logarithm of the probability density of the data, averaged over the priors. Bayes
factor: how probable the data are, relative to the best model. Posterior probability: of the model,
from its Bayes factor and its prior probability.
All by quadrature; errors of the numbers are below 0.001.
Bayes factors hold for the priors of these models: `sd_Batch[Intercept] ~ HalfStudentT(3, 63.02)`.
More: .to_frame(), .weights(), .plot_groups(), .plot_scores(), .plot_prior_sensitivity()."""


YIELD = "Yield ~ 1 + (1 | Batch)"


def test_what_is_printed():
    assert str(two()) == PRINTED


def test_pictures(tmp_path):
    for i, ax in enumerate(
        (
            structures().plot_sensitivity(),
            structures().plot_groups("(Days || Subject)", "(1 | Subject)"),
            structures().plot_elpd(),
        )
    ):
        ax.figure.savefig(tmp_path / f"{i}.png")
    with pytest.raises(rf.FitError, match="there is no model 'x'"):
        structures().plot_groups("x", "(1 | Subject)")


def test_differences_by_group_add_up():
    table = structures().group_differences("(Days || Subject)", "(1 | Subject)")
    assert table["difference"].is_monotonic_increasing
    found = structures().to_frame()["elpd_group"]
    total = found["(Days || Subject)"] - found["(1 | Subject)"]
    assert table["difference"].sum() == pytest.approx(total)


def test_bayes_factors_that_are_not_known_have_failed():
    noisy = two().table.assign(log_bayes_factor_error=[0.0, 0.3], log_ml_error=[0.0, 0.3])
    found = replace(two(), table=noisy)
    text = str(found)
    row = next(line for line in text.splitlines() if line.startswith("none  "))
    assert row.split()[-2:] == ["failed", "0.091"]
    assert "`none` has no Bayes factor: its logarithm has an error of 0.3." in text
    assert "not supported, and not ruled out: a new Batch" in found.verdict


def test_a_line_is_no_wider_than_a_page():
    long = {
        f"{'a long name ' * 6}{i}": fit for i, fit in enumerate((yields(), yields("Yield ~ 1")))
    }
    found = rf.compare(long, seed=1)
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if "-16" in line or "1/9" in line] == ["1", "2"]
    assert any(line.startswith("1: a long name a long name") for line in lines)


def test_points_beside_posteriors_have_a_table_of_their_own():
    fits = {"exact": yields(), "none": yields("Yield ~ 1"), "reml": yields(method="reml")}
    text = str(rf.compare(fits, seed=1))
    assert max(map(len, text.splitlines())) <= 100
    assert [line.split()[0] for line in text.splitlines() if line.startswith("reml  ")] == ["reml"]
    criteria = rf.compare({n: yields(f, "ml") for n, f in (("a", YIELD), ("b", "Yield ~ 1"))})
    assert criteria.verdict == "AIC is lowest for `a`, by 3.4, and BIC for `a`, by 2.0."


def test_restricted_likelihoods_rank_random_effects_alone():
    sleep = rf.load_dataset("sleepstudy")
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", sleep)
    other = rf.compare({"a": fit, "b": fit.update(". ~ . - Days")})
    assert other.verdict == (
        "AIC and BIC of REML fits do not compare models whose fixed effects differ: fit them by "
        '"ml".'
    )
    same = rf.compare({"a": fit, "b": fit.update(". ~ Days + (1 | Subject)")})
    assert same.verdict.startswith("AIC is lowest for `a`")


def test_weights_are_those_of_the_frame():
    weights = structures().weights()
    frame = structures().to_frame().loc[weights.index]
    assert weights["weight"].sum() == pytest.approx(1)
    assert weights["weight"].tolist() == frame["weight_group"].tolist()
    assert weights["lower"].tolist() == frame["weight_lower_group"].tolist()
    fits = {"batches": yields(), "none": yields("Yield ~ 1")}
    with pytest.raises(rf.FitError, match="no groups were left out"):
        rf.compare(fits, seed=1, units="observation").weights()


def test_the_two_best_are_drawn_by_default():
    best, second = structures().weights().index[:2]
    chosen = structures().group_differences(best, second)
    assert structures().group_differences().equals(chosen)
    other = structures().group_differences(second=best)
    assert other["difference"].abs().max() == 0.0


def test_improbable_models_stay_improbable():
    fits = {"batches": yields(), "none": yields("Yield ~ 1")}
    found = rf.compare(fits, prior={"batches": 0, "none": 1}, seed=1)
    assert found.to_frame()["probability"].to_dict() == {"batches": 0.0, "none": 1.0}
    assert "With the prior probabilities given `none` is the most probable model." in found.verdict
    with pytest.raises(rf.FitError, match="prior must be numbers"):
        rf.compare(fits, prior={"batches": "x", "none": 1})
