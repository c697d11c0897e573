"""Comparisons against predictions by hand, their errors by small changes, posteriors by draws."""

import warnings

import numpy as np
import pandas as pd
import pytest
from effect_cases import data, fit_of

import ranef as rf
from ranef.errors import DataError, DataWarning, FitError


def expit(eta):
    return 1 / (1 + np.exp(-eta))


@pytest.fixture(scope="module")
def fit():
    formula = "use ~ age * urban + (1 | district)"
    return rf.fit(formula, data("Contraception"), family="binomial")


def matrices(frame, age=0.0, urban=None):
    """Return the fixed columns of all rows after a change."""
    x = frame["age"].to_numpy() + age
    u = (frame["urban"] == "Y").to_numpy(dtype=float) if urban is None else np.full(len(x), urban)
    return np.column_stack([np.ones_like(x), x, u, x * u])


def delta(function, fit):
    """Return a function of the fixed effects, and its errors by central differences."""
    beta, V = fit.fixef().to_numpy(), fit.vcov().to_numpy()
    steps = 1e-5 * np.eye(len(beta))
    J = np.array([(function(beta + e) - function(beta - e)) / 2e-5 for e in steps]).T
    return function(beta), np.sqrt(np.diag(np.atleast_2d(J @ V @ J.T)))


COMPARED = {
    "difference": lambda a, b: a - b,
    "ratio": lambda a, b: a / b,
    "lnratio": lambda a, b: np.log(a / b),
    "lnor": lambda a, b: np.log(a / (1 - a) / (b / (1 - b))),
}


@pytest.mark.parametrize("name", COMPARED)
def test_averages_over_rows_by_group(fit, name):
    frame = data("Contraception")
    table = rf.comparisons(fit, "age", contrast=4, by="urban", comparison=name)
    ends = [matrices(frame, age=2.0), matrices(frame, age=-2.0)]
    places = [np.flatnonzero(frame["urban"] == level) for level in "NY"]

    def averages(beta):
        high, low = (expit(X @ beta) for X in ends)
        return np.array([COMPARED[name](high[i].mean(), low[i].mean()) for i in places])

    estimate, se = delta(averages, fit)
    np.testing.assert_allclose(table["estimate"], estimate, rtol=1e-9)
    np.testing.assert_allclose(table["se"], se, rtol=1e-6)
    assert table["urban"].tolist() == ["N", "Y"]
    assert table["contrast"].tolist() == ["+4", "+4"]


def test_each_row_by_itself(fit):
    frame = data("Contraception")
    table = rf.comparisons(fit, "urban", average=False)

    def changes(beta):
        return expit(matrices(frame, urban=1.0) @ beta) - expit(matrices(frame, urban=0.0) @ beta)

    estimate, se = delta(changes, fit)
    np.testing.assert_allclose(table["estimate"], estimate, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(table["se"], se, rtol=1e-6)
    assert table["row"].tolist() == frame.index.tolist()
    assert set(table["contrast"]) == {"Y - N"}


def test_the_interval_of_a_ratio_is_that_of_its_logarithm(fit):
    ratio, log = (
        rf.comparisons(fit, "urban", comparison=name, prob=0.9) for name in ("ratio", "lnratio")
    )
    for name in ("estimate", "lower", "upper"):
        np.testing.assert_allclose(np.log(ratio[name]), log[name], rtol=1e-12)
    assert ratio["p_value"][0] == log["p_value"][0]
    assert ratio["contrast"][0] == "Y / N"


def test_the_mean_over_groups(fit):
    frame = data("Contraception").iloc[:40]
    table = rf.comparisons(fit, "age", contrast=(-5, 8), groups="average", new_data=frame)
    ends = [np.asarray(fit.predict(frame.assign(age=age), "average")).mean() for age in (8.0, -5.0)]
    assert table["estimate"][0] == pytest.approx(ends[0] - ends[1], rel=1e-9)
    assert table["contrast"][0] == "8 - -5"
    typical = rf.comparisons(fit, "age", contrast=(-5, 8), new_data=frame)
    assert table["estimate"][0] != pytest.approx(typical["estimate"][0], rel=1e-2)


def dense_errors(fit, parts, V, G_of, gradient):
    """Return the error of g(beta, b), by the mixed-model equations as dense matrices."""
    (X, Z), (of_beta, of_b) = parts, gradient
    G = np.linalg.inv(Z.T @ (V[:, None] * Z) + np.linalg.inv(G_of))
    A = G @ Z.T @ (V[:, None] * X)
    slopes = of_beta - of_b @ A
    return np.sqrt(of_b @ G @ of_b + slopes @ fit.vcov().to_numpy() @ slopes)


def test_known_groups_against_dense_equations():
    sleep = data("sleepstudy")
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", sleep)
    x, subjects = sleep["Days"].to_numpy(dtype=float), sleep["Subject"].astype(str)
    X = np.column_stack([np.ones_like(x), x])
    Z = np.zeros((180, 36))
    for i, code in enumerate(pd.factorize(subjects)[0]):
        Z[i, 2 * code : 2 * code + 2] = X[i]
    G_of = np.kron(np.eye(18), fit.varcorr().cov["Subject"].to_numpy())
    chosen = sleep[subjects.isin(["308", "335", "372"])].iloc[5:]
    some = [list(pd.unique(subjects)).index(s) for s in chosen["Subject"].astype(str)]
    of_b = np.zeros(36)
    np.add.at(of_b, 2 * np.array(some) + 1, 3 / len(some))
    V = np.full(180, fit.sigma**-2)
    table = rf.comparisons(fit, "Days", contrast=3, groups="known", new_data=chosen)
    expected = dense_errors(fit, (X, Z), V, G_of, (np.array([0.0, 3.0]), of_b))
    assert table["se"][0] == pytest.approx(expected, rel=1e-8)
    slopes = fit.coef_table().query("coef == 'Days'").set_index("level")
    by = rf.comparisons(fit, "Days", groups="known", by="Subject").set_index("Subject")
    for one, other in [("estimate", "estimate"), ("se", "sd"), ("lower", "lower")]:
        np.testing.assert_allclose(by[one], slopes[other].loc[by.index], rtol=1e-8)


def test_known_groups_of_a_generalised_model(fit):
    frame = data("Contraception")
    table = rf.comparisons(fit, "urban", groups="known", comparison="lnor")
    ends = [fit.predict(frame.assign(urban=u), "known").mean() for u in "YN"]
    logits = [np.log(p / (1 - p)) for p in ends]
    assert table["estimate"][0] == pytest.approx(logits[0] - logits[1], rel=1e-9)
    codes, levels = pd.factorize(frame["district"])
    Z, X = (codes[:, None] == np.arange(len(levels))).astype(float), matrices(frame)
    b = fit.ranef()["district"]["Intercept"].loc[levels].to_numpy()
    mu = expit(X @ fit.fixef() + Z @ b)

    def change(values):
        beta, effects = values[:4], values[4:]
        means = [expit(matrices(frame, urban=u) @ beta + effects[codes]).mean() for u in (1, 0)]
        return np.log(means[0] / (1 - means[0])) - np.log(means[1] / (1 - means[1]))

    at = np.concatenate([fit.fixef(), b])
    steps = 1e-5 * np.eye(len(at))
    gradient = np.array([(change(at + e) - change(at - e)) / 2e-5 for e in steps])
    G_of = fit.varcorr().cov["district"].iloc[0, 0] * np.eye(len(b))
    expected = dense_errors(fit, (X, Z), mu * (1 - mu), G_of, (gradient[:4], gradient[4:]))
    assert table["se"][0] == pytest.approx(expected, rel=1e-5)


def test_new_groups_have_effects_of_their_own():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", data("sleepstudy"))
    V, cov = fit.vcov().loc["Days", "Days"], fit.varcorr().cov["Subject"].loc["Days", "Days"]
    rows = pd.DataFrame({"Days": [0, 3, 5, 8]})
    one = rf.comparisons(fit, "Days", groups="new", new_data=rows)
    assert one["estimate"][0] == pytest.approx(fit.fixef()["Days"], rel=1e-12)
    assert one["se"][0] == pytest.approx(np.sqrt(V + cov), rel=1e-12)
    three = rf.comparisons(
        fit, "Days", groups="new", new_data=rows.assign(Subject=["x", "y", "y", "308"])
    )
    slope = fit.coef()["Subject"].loc["308", "Days"]
    assert three["estimate"][0] == pytest.approx(0.75 * fit.fixef()["Days"] + 0.25 * slope)
    own = rf.comparisons(fit, "Days", groups="new")
    pd.testing.assert_frame_equal(own, one, rtol=1e-10)


def test_new_groups_that_the_change_moves_are_different_ones():
    frame = data("Contraception")
    fit = rf.fit("use ~ age + urban + (1 | urban:district)", frame, family="binomial")
    rows = frame.iloc[:20].assign(district="another")
    table = rf.comparisons(fit, "urban", groups="new", new_data=rows, kind="link")
    between = fit.varcorr().cov["urban:district"].iloc[0, 0]
    expected = np.sqrt(fit.vcov().loc["urban[T.Y]", "urban[T.Y]"] + 2 * between)
    assert table["se"][0] == pytest.approx(expected, rel=1e-10)


def test_means_of_new_groups_are_those_of_draws(fit):
    rows = data("Contraception").iloc[:30].drop(columns="district")
    table = rf.comparisons(fit, "urban", groups="new", new_data=rows)
    average = rf.comparisons(fit, "urban", groups="average", new_data=rows)
    assert table["estimate"][0] == pytest.approx(average["estimate"][0], rel=1e-12)
    rng, n = np.random.default_rng(5), 20_000
    beta = rng.multivariate_normal(fit.fixef(), fit.vcov(), n)
    b = fit.varcorr().sd["district"].iloc[0] * rng.standard_normal((n, 1))
    high, low = (expit(beta @ matrices(rows, urban=u).T + b).mean(axis=1) for u in (1, 0))
    ends = np.quantile(high - low, [0.025, 0.975])
    assert table["se"][0] == pytest.approx((high - low).std(), rel=0.04)
    np.testing.assert_allclose(table[["lower", "upper"]].iloc[0], ends, atol=0.006)


def test_posteriors_of_known_and_new_groups():
    sleep = data("sleepstudy")
    fit = rf.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(
        "quadrature", draws=1000, seed=1
    )
    rows = sleep.iloc[[0, 14, 25]]
    table = rf.comparisons(fit, "Days", contrast=(0, 9), groups="known", new_data=rows)
    ends = [rows.assign(Days=x) for x in (9, 0)]
    means = [fit.predict(end).mean() for end in ends]
    assert table["estimate"][0] == pytest.approx(means[0] - means[1], rel=1e-10)
    draws = [fit.draws_of(end).mean(axis=0) for end in ends]
    assert table["sd"][0] == pytest.approx((draws[0] - draws[1]).std(), rel=1e-9)
    own = rf.comparisons(fit, "Days", groups="known", by="Subject").set_index("Subject")
    slopes = fit.coef_table().query("coef == 'Days'").set_index("level").loc[own.index]
    np.testing.assert_allclose(own["estimate"], slopes["estimate"], rtol=1e-10)
    np.testing.assert_allclose(own["sd"], slopes["sd"], rtol=0.1)
    new = rf.comparisons(fit, "Days", groups="new", new_data={"Days": [1, 2]})
    spread = fit.draws_of({"Days": [1, 2]}, "new", seed=1).diff().iloc[1].std()
    assert new["sd"][0] == pytest.approx(spread, rel=0.08)


def test_changes_of_numbers():
    sleep = data("sleepstudy")
    fit = rf.fit("Reaction ~ poly(Days, 2) + (1 | Subject)", sleep)
    days = sleep["Days"].astype(float)
    sd, (q1, q3) = days.std(), days.quantile([0.25, 0.75])
    spans = {
        "sd": (days + sd / 2, days - sd / 2),
        "2sd": (days + sd, days - sd),
        "iqr": (q3, q1),
        "minmax": (9.0, 0.0),
        3: (days + 1.5, days - 1.5),
        (2, 7): (7.0, 2.0),
    }
    for contrast, ends in spans.items():
        mean = [fit.predict(sleep.assign(Days=x), groups="population").mean() for x in ends]
        found = rf.comparisons(fit, "Days", contrast=contrast)["estimate"][0]
        assert found == pytest.approx(mean[0] - mean[1], rel=1e-8), contrast
    default, one = rf.comparisons(fit, "Days"), rf.comparisons(fit, "Days", contrast=1.0)
    pd.testing.assert_frame_equal(default, one)


def test_a_number_with_two_values_changes_from_one_to_the_other():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": np.repeat([0, 1], 30), "g": list("abcdef") * 10})
    frame["y"] = frame["x"] + rng.normal(size=60)
    table = rf.comparisons(rf.fit("y ~ x + (1 | g)", frame), "x")
    assert table["contrast"][0] == "1 - 0"


def test_changes_of_factors_are_contrasts_of_means_where_nothing_interacts():
    fit = fit_of("Machines")
    settings = {"df": "kenward-roger", "prob": 0.9}
    for contrast, method, sign in [
        ("reference", "reference", 1),
        ("sequential", "sequential", 1),
        ("pairwise", "pairs", -1),
    ]:
        table = rf.comparisons(fit, "Machine", contrast=contrast, **settings)
        means = rf.contrasts(fit, "Machine", method=method, adjust="none", **settings)
        np.testing.assert_allclose(table["estimate"], sign * means["estimate"], rtol=1e-9)
        for name in ("se", "df", "p_value"):
            np.testing.assert_allclose(table[name], means[name], rtol=1e-8)
    table = rf.comparisons(fit, "Machine", contrast=["C", "B"])
    assert table["contrast"].tolist() == ["B - C"]
    assert table.attrs["interval"] == "95 % Wald interval"


def test_values_of_other_predictors(fit):
    table = rf.comparisons(fit, "urban", at={"age": [-10, 10]})
    beta = fit.fixef().to_numpy()
    expected = [expit(beta @ [1, x, 1, x]) - expit(beta @ [1, x, 0, 0]) for x in (-10, 10)]
    np.testing.assert_allclose(table["estimate"], expected, rtol=1e-9)
    assert table["age"].tolist() == [-10, 10]
    linked = rf.comparisons(fit, "urban", at={"age": 10}, kind="link")
    assert linked["estimate"][0] == pytest.approx(beta[2] + 10 * beta[3], rel=1e-9)


def test_posteriors_are_those_of_their_draws():
    frame = data("cbpp").assign(time=lambda d: d["period"].astype(float))
    formula = "cbind(incidence, size - incidence) ~ time + (1 | herd)"
    fit = rf.Model(formula, frame, family="binomial").fit("laplace", draws=400, seed=1)
    beta = fit.draws_at().beta
    high, low = (
        expit(beta[:, :1] + beta[:, 1:] * (frame["time"] + s).to_numpy()) for s in (0.5, -0.5)
    )
    ratio = high.mean(axis=1) / low.mean(axis=1)
    table = rf.comparisons(fit, "time", comparison="ratio")
    assert table["estimate"][0] == pytest.approx(ratio.mean(), rel=1e-9)
    assert table["sd"][0] == pytest.approx(ratio.std(ddof=1), rel=1e-9)
    assert table["probability"][0] == pytest.approx((ratio > 1).mean(), abs=1e-12)
    by = rf.comparisons(fit, "time", by="herd")
    herd = (frame["herd"].astype(str) == "3").to_numpy()
    expected = (high - low)[:, herd].mean()
    assert by.set_index(by["herd"].astype(str)).loc["3", "estimate"] == pytest.approx(expected)
    each = rf.comparisons(fit, "time", average=False)
    np.testing.assert_allclose(each["estimate"], (high - low).mean(axis=0), rtol=1e-9)
    assert table.attrs["interval"] == "95 % HPD interval"


def test_a_linear_posterior_needs_no_draws():
    fit = rf.Model("Yield ~ x + (1 | Batch)", data("Dyestuff").assign(x=range(30))).fit(
        "quadrature"
    )
    table = rf.comparisons(fit, "x", contrast=10)
    assert table["estimate"][0] == pytest.approx(10 * fit.fixef()["x"], rel=1e-9)
    assert table["sd"][0] == pytest.approx(10 * fit.se()["x"], rel=1e-6)


def test_what_the_data_do_not_determine_is_nan():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"f": list("aab") * 20, "h": list("uvu") * 20})
    frame["g"], frame["y"] = np.repeat(range(12), 5), rng.normal(size=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = rf.fit("y ~ f * h + (1 | g)", frame)
    with pytest.warns(DataWarning, match="f = b, h = v"):
        table = rf.comparisons(fit, "f", by="h")
    assert table["estimate"].isna().tolist() == [False, True]


def test_incomplete_rows_are_counted(fit):
    frame = data("Contraception").iloc[:10].copy()
    frame.loc[frame.index[:3], "age"] = np.nan
    with pytest.warns(DataWarning, match="3 of 10 rows left out for missing values in `age`"):
        table = rf.comparisons(fit, "urban", new_data=frame, average=False)
    assert table["row"].tolist() == frame.index[3:].tolist()
    with pytest.warns(DataWarning), pytest.raises(DataError, match="no complete row to compare"):
        rf.comparisons(fit, "urban", new_data=frame.iloc[:3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: rf.comparisons(f, "ag"), "`ag` is not a predictor of the fixed effects."),
        (lambda f: rf.comparisons(f, ["age"]), "`['age']` is not a predictor"),
        (lambda f: rf.comparisons(f, "age", at=3), "at= is a dict from predictors to values"),
        (lambda f: rf.comparisons(f, "age", by=3), "by= takes the name of a column, or several"),
        (lambda f: rf.comparisons(f, "age", at={"x": 1}), "`x` is not a predictor"),
        (lambda f: rf.comparisons(f, "age", at={"age": 1}), "`age` is what changes:"),
        (lambda f: rf.comparisons(f, "age", at={"urban": []}), "at={'urban': ...} has no value"),
        (lambda f: rf.comparisons(f, "age", by="x"), "by= has `x`, which the model does not use."),
        (lambda f: rf.comparisons(f, "age", contrast="reference"), "change of the number `age`"),
        (lambda f: rf.comparisons(f, "urban", contrast="sd"), "change of the factor `urban`"),
        (lambda f: rf.comparisons(f, "urban", contrast=1), "contrast= is a number, a pair of"),
        (
            lambda f: rf.comparisons(f, "urban", contrast=("N", "X")),
            "'X' is not a level of `urban`",
        ),
        (lambda f: rf.comparisons(f, "age", contrast=(1, 1)), "a pair of different values"),
        (lambda f: rf.comparisons(f, "age", contrast=(1, "b")), "'b', which is not a finite"),
        (lambda f: rf.comparisons(f, "age", contrast=0), "contrast=0 changes nothing"),
        (lambda f: rf.comparisons(f, "age", comparison="odds"), "is not a comparison"),
        (
            lambda f: rf.comparisons(f, "age", comparison="ratio", kind="link"),
            "is of means: kind='response', not 'link'",
        ),
        (lambda f: rf.comparisons(f, "age", groups="none"), "groups='none' is not an option"),
        (lambda f: rf.comparisons(f, "age", df="satterthwaite"), "is for linear models"),
        (lambda _: rf.comparisons(3, "age"), "expected a fit, got int"),
    ],
)
def test_what_has_no_answer(fit, call, message):
    with pytest.raises(FitError) as caught:
        call(fit)
    assert message in str(caught.value)


def test_ratios_are_of_positive_means():
    fit = rf.fit(
        "y ~ x + (1 | g)",
        pd.DataFrame(
            {"y": np.arange(20.0) % 7 - 3, "x": np.arange(20.0) % 3, "g": list("abcde") * 4}
        ),
    )
    with pytest.raises(FitError, match="is of means above 0, and there are others: from"):
        rf.comparisons(fit, "x", comparison="ratio", at={}, average=False)
    with pytest.raises(FitError, match="is of means between 0 and 1"):
        rf.comparisons(fit, "x", comparison="lnor", contrast=(-100, 100))


def test_own_rows_are_of_one_new_group_as_means_are(fit):
    own = rf.comparisons(fit, "urban", groups="new")
    rows = data("Contraception").drop(columns="district")
    pd.testing.assert_frame_equal(own, rf.comparisons(fit, "urban", groups="new", new_data=rows))
    assert own.attrs["interval"] == "95 % interval, quantiles of draws"
    known = rf.comparisons(fit, "urban", groups="known")
    assert known.attrs["interval"] == "95 % Wald interval"
    on_link = rf.comparisons(fit, "urban", groups="new", kind="link")
    assert on_link.attrs["interval"] == "95 % Wald interval"
    typical = rf.comparisons(fit, "urban", kind="link")
    assert on_link["se"][0] == pytest.approx(typical["se"][0], rel=1e-10)


@pytest.mark.parametrize("function", ["bs(x, 4)", "log(x)", "sqrt(x)"])
def test_a_step_stays_where_functions_have_values(function):
    frame = data("sleepstudy").assign(x=lambda rows: rows["Days"] + 0.2)
    fit = rf.fit(f"Reaction ~ {function} + (1 | Subject)", frame)

    def rise(low, step=1.0):
        ends = {"x": [low, low + step]}
        return np.diff(fit.predict(ends, groups="population"))[0]

    found = rf.comparisons(fit, "x", average=False)["estimate"]
    expected = [rise(low) for low in (0.2, 0.7, 7.7, 8.2)]
    np.testing.assert_allclose(found[[0, 1, 8, 9]], expected, rtol=1e-8)
    down = rf.comparisons(fit, "x", average=False, contrast=-2.0)
    assert (down["contrast"] == "-2").all()
    assert down["estimate"][0] == pytest.approx(-rise(0.2, 2.0), rel=1e-8)
    for contrast in (20, (0.2, -5.0)):
        with pytest.raises(rf.DataError, match=r"leaves the range|infinite or not a number"):
            rf.comparisons(fit, "x", contrast=contrast)
