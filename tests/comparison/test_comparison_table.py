"""The table of several models: what it prints, decides and draws."""

import re
from dataclasses import replace

import pytest
from comparison_cases import structures, two, yields

import ranef as rf

PRINTED = """\
Comparison of 2 models
  batches: (1 | Batch)
  none: no random effects

A new `Batch`, all its rows together (6 groups left out one at a time)
           theta     elpd   diff  se diff  p worse  flags    error             weight
  batches      1  -166.79   0                                0e-00  0.95 [0.04, 1.00]
  none         0  -169.42  -2.63     2.91     0.82  N < 100  0e-00  0.05 [0.00, 0.96]

A new row of a known group (30 rows left out one at a time)
           theta     elpd   diff  se diff  p worse  flags    error
  batches      1  -163.99   0                                0e-00
  none         0  -168.11  -4.12     2.92     0.92  N < 100  0e-00

Marginal likelihood, and Bayes factor against the best
           theta  log p(y)  error  probability  Bayes factor  priors x 1/4 to x 4
  batches      1  -168.700  0e-00       0.909            1
  none         0  -170.996  0e-00       0.0915           0.1        0.094 to 0.27

A new `Batch` is predicted best by `batches`, by 2.63 (se 2.91) more than by `none`: not decided by
6 groups. The data are the most probable under `batches` (posterior probability 0.909). Against
`none` its Bayes factor is 9.9 (3.7 to 11 over scales of the priors of the sds).
New group: quadrature. New row: quadrature. log p(y): quadrature.
diff, se diff: from the best model, over the units left out; p worse: the probability that a model
predicts worse, by a normal approximation that flags speak against; error: of the numbers
themselves.
Bayes factors hold for the priors of these models: `sd_Batch[Intercept] ~ HalfStudentT(3, 63.02)`."""  # noqa: E501


def test_what_is_printed():
    text = re.sub(r"\de-\d\d", "0e-00", str(two()))  # errors of quadrature are those of rounding
    assert text == PRINTED


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


def test_undecided_bayes_factors_are_not_numbers():
    moved = two().table.assign(log_bayes_factor_upper=[0.0, 0.2])
    assert "not decided" in str(replace(two(), table=moved))
    noisy = two().table.assign(log_bayes_factor_error=[0.0, 0.2])
    found = str(replace(two(), table=noisy))
    assert "not decided" in found
    assert "depends on the priors" in found


def test_improbable_models_stay_improbable():
    fits = {"batches": yields(), "none": yields("Yield ~ 1")}
    found = rf.compare(fits, prior={"batches": 0, "none": 1}, seed=1)
    assert found.to_frame()["probability"].to_dict() == {"batches": 0.0, "none": 1.0}
    assert "With the prior probabilities given `none` is the most probable model." in found.verdict
    with pytest.raises(rf.FitError, match="prior must be numbers"):
        rf.compare(fits, prior={"batches": "x", "none": 1})
