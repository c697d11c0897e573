"""Predictions with errors and intervals against dense closed forms, integrals and simulation."""

import numpy as np
import pandas as pd
import pytest
from generalized_fits import made_up, simulated
from scipy import integrate, special, stats

import ranef as rf
from fits import fit_of, frame
from ranef.errors import FitError

SLEEP = "Reaction ~ Days + (Days | Subject)"
Z = stats.norm.ppf(0.975)
COLUMNS = ["mean", "sd", "lower", "upper"]


@pytest.fixture(scope="module")
def sleep():
    return rf.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def reml(sleep):
    return rf.fit(SLEEP, sleep)


@pytest.fixture(scope="module")
def quadrature(sleep):
    return rf.fit(SLEEP, sleep, "quadrature")


@pytest.fixture(scope="module")
def cbpp():
    return rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        rf.load_dataset("cbpp"),
        family="binomial",
    )


PERIODS = pd.DataFrame({"period": ["1", "4"]}, index=["first", "last"])


def by_hand(fit, rows):
    """Return eta and the variance of its error by V = Z Sigma Z' + sigma^2 I, for one factor."""
    data, term = fit.design.rows, fit.design.rows.terms[0]
    Sigma = fit.varcorr().cov[term.label].to_numpy()
    same = term.codes[:, None] == term.codes
    V = (term.columns @ Sigma @ term.columns.T) * same + fit.sigma**2 * np.eye(len(data.y))
    inverse = np.linalg.inv(V)
    cov_beta = np.linalg.inv(data.X.T @ inverse @ data.X)
    beta = cov_beta @ data.X.T @ inverse @ data.y
    found = []
    for x, level in rows:
        c = (term.codes == level) * (term.columns @ Sigma @ x)
        rest = x - data.X.T @ inverse @ c
        variance = x @ Sigma @ x - c @ inverse @ c + rest @ cov_beta @ rest
        found.append((x @ beta + c @ inverse @ (data.y - data.X @ beta), variance))
    return np.array(found).T


def test_known_and_new_groups_are_kriging_by_the_dense_covariance(reml):
    levels = list(reml.design.terms[0].levels)
    asked = [(0.0, levels[0]), (4.0, levels[5]), (12.0, levels[5]), (3.0, "n")]
    rows = pd.DataFrame(asked, columns=["Days", "Subject"])
    at = [(np.array([1, d]), levels.index(s) if s in levels else -1) for d, s in asked]
    eta, variance = by_hand(reml, at)
    found = reml.predict(rows, "new", prob=0.95)
    assert list(found.columns) == COLUMNS
    np.testing.assert_allclose(found["mean"], eta, rtol=1e-8)
    np.testing.assert_allclose(found["sd"], np.sqrt(variance), rtol=1e-7)
    np.testing.assert_allclose(found["upper"], eta + Z * np.sqrt(variance), rtol=1e-8)
    single = reml.predict(rows, "new", prob=0.95, interval="prediction")
    np.testing.assert_allclose(single["sd"], np.sqrt(variance + reml.sigma**2), rtol=1e-7)
    observed = reml.predict(rows, "new", kind="observation", prob=0.95)
    pd.testing.assert_frame_equal(single, observed)


def test_a_new_group_needs_no_column_and_has_the_error_of_a_stranger(reml):
    days = pd.DataFrame({"Days": [0.0, 9.0]}, index=["a", "b"])
    without = reml.predict(days, "new", prob=0.95)
    pd.testing.assert_frame_equal(without, reml.predict(days.assign(Subject="n"), "new", prob=0.95))
    x = np.array([[1.0, 0.0], [1.0, 9.0]])
    cov = reml.vcov().to_numpy()
    typical = reml.predict(days, "population", prob=0.95)
    np.testing.assert_allclose(typical["sd"], np.sqrt(np.sum(x @ cov * x, axis=1)), rtol=1e-12)
    Sigma = reml.varcorr().cov["Subject"].to_numpy()
    total = np.sum(x @ (cov + Sigma) * x, axis=1)
    np.testing.assert_allclose(without["sd"], np.sqrt(total), rtol=1e-12)
    assert without.index.tolist() == ["a", "b"]
    assert without.attrs["predicted"] == "Reaction: mean of new groups of `Subject`"
    assert without.attrs["interval"] == "95 % interval of the mean, variances as if known"
    np.testing.assert_allclose(reml.predict(days, "average"), reml.predict(days, "population"))


def test_terms_are_lme4s_re_form():
    fit = fit_of("crossed", "reml")
    whole, typical = fit.predict(kind="link"), fit.predict(groups="population", kind="link")
    parts = [fit.predict(kind="link", terms=label) - typical for label in ("g", "h")]
    np.testing.assert_allclose(typical + sum(parts), whole, rtol=1e-12)
    np.testing.assert_array_equal(fit.predict(terms=[]), fit.predict(groups="population"))
    rows = frame().drop(columns="h").head(4)
    np.testing.assert_allclose(fit.predict(rows, terms=["g"]), fit.predict(terms=["g"])[:4])
    with pytest.raises(FitError, match="there is no random-effects term 'G'"):
        fit.predict(terms="G")


# --------------------------------------------------------------------------- nonlinear links


@pytest.mark.parametrize("family", ["binomial", "poisson", "beta"])
def test_means_over_groups_are_integrals(family):
    fit = made_up(family, "correlated slopes")
    data = simulated(family).head(3)
    eta = fit.predict(data, "population", "link")
    average = fit.predict(data, "average")
    new = fit.predict(data.assign(g="new"), "new")
    np.testing.assert_array_equal(average, new)
    (term,) = fit.design.rows.terms
    Sigma = fit.varcorr().cov[term.label].to_numpy()
    for i, one in enumerate(average):
        sd = float(np.sqrt(term.columns[i] @ Sigma @ term.columns[i]))

        def weighted(s, i=i, sd=sd):
            mu = fit.family.mean(np.array([eta[i] + sd * s]), list(fit.parameters.values()))
            return float(mu[0]) * stats.norm.pdf(s)

        assert one == pytest.approx(integrate.quad(weighted, -12, 12, epsabs=1e-12)[0], rel=1e-8)


def test_errors_of_typical_groups_are_the_delta_method(cbpp):
    x = np.array([[1, 0, 0, 0], [1, 0, 0, 1.0]])
    eta, se = x @ cbpp.fixef(), np.sqrt(np.sum(x @ cbpp.vcov().to_numpy() * x, axis=1))
    mu = special.expit(eta)
    found = cbpp.predict(PERIODS, "population", prob=0.95)
    np.testing.assert_allclose(found["mean"], mu, rtol=1e-12)
    np.testing.assert_allclose(found["sd"], mu * (1 - mu) * se, rtol=1e-8)
    np.testing.assert_allclose(found["lower"], special.expit(eta - Z * se), rtol=1e-10)
    np.testing.assert_allclose(found["upper"], special.expit(eta + Z * se), rtol=1e-10)
    link = cbpp.predict(PERIODS, "population", "link", prob=0.95)
    assert list(link.columns) == ["link", *COLUMNS[1:]]
    np.testing.assert_allclose(link["sd"], se, rtol=1e-12)


def test_a_new_herd_and_the_average_of_herds_by_simulation(cbpp):
    rng = np.random.default_rng(2)
    beta = rng.multivariate_normal(cbpp.fixef(), cbpp.vcov(), size=200_000)
    sd = cbpp.varcorr().sd["herd"].iloc[0]
    eta = beta @ np.array([1, 0, 0, 1.0])
    mu = special.expit(eta + sd * rng.standard_normal(len(eta)))
    new = cbpp.predict(PERIODS, "new", prob=0.9).loc["last"]
    np.testing.assert_allclose([new["lower"], new["upper"]], np.quantile(mu, [0.05, 0.95]), 0.01)
    assert new["sd"] == pytest.approx(mu.std(), rel=0.12)  # in part by the delta method
    average = cbpp.predict(PERIODS, "average", prob=0.9).loc["last"]
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    means = special.expit(eta[:20_000, None] + sd * nodes) @ weights / weights.sum()
    np.testing.assert_allclose(
        [average["lower"], average["upper"]], np.quantile(means, [0.05, 0.95]), rtol=0.02
    )
    assert average["sd"] == pytest.approx(means.std(), rel=0.12)


def test_single_observations_of_counts_have_quantiles():
    fit = made_up("poisson", "one factor")
    data = simulated("poisson").head(4)
    found = fit.predict(data, "population", prob=0.9, interval="prediction", seed=1)
    mu = fit.predict(data, "population")
    for (_, row), mean in zip(found.iterrows(), mu, strict=True):
        lower, upper = stats.poisson(mean).ppf([0.05, 0.95])
        assert abs(row["lower"] - lower) <= 1
        assert abs(row["upper"] - upper) <= 2
        assert row["sd"] >= 0.9 * np.sqrt(mean)


# -------------------------------------------------------------------------------- posteriors


@pytest.mark.parametrize("groups", ["known", "new", "population", "average"])
def test_a_lattice_and_its_draws_agree(quadrature, groups):
    rows = pd.DataFrame({"Days": [0.0, 5.0], "Subject": ["308", "335"]})
    rows = rows.assign(Subject=["308", "stranger"]) if groups == "new" else rows
    table = quadrature.predict(rows, groups, prob=0.9)
    np.testing.assert_allclose(table["mean"], quadrature.predict(rows, groups), rtol=1e-12)
    drawn = quadrature.draws_of(rows, groups, seed=1)
    np.testing.assert_allclose(table["sd"], drawn.std(axis=1), rtol=0.06)
    inside = drawn.ge(table["lower"], axis=0) & drawn.le(table["upper"], axis=0)
    np.testing.assert_allclose(inside.mean(axis=1), 0.9, atol=0.02)
    assert table.attrs["interval"] == "90 % HPD interval of the mean"


def test_a_lattice_has_the_moments_of_its_fixed_and_random_effects(quadrature):
    at_zero = quadrature.predict({"Days": [0.0, 1.0]}, "population", prob=0.95)
    vcov = quadrature.vcov().to_numpy()
    assert at_zero["sd"].iloc[0] == pytest.approx(np.sqrt(vcov[0, 0]), rel=1e-5)
    assert at_zero["sd"].iloc[1] == pytest.approx(np.sqrt(vcov.sum()), rel=1e-5)
    lower, upper = quadrature.hdi(0.95).loc["Intercept"]
    np.testing.assert_allclose(at_zero.iloc[0, 2:], [lower, upper], rtol=1e-4)


def test_single_observations_of_a_posterior(quadrature):
    single = quadrature.predict({"Days": [3.0]}, "new", prob=0.9, interval="prediction")
    drawn = quadrature.draws_of({"Days": [3.0]}, "new", "observation", seed=2)
    assert single["sd"].iloc[0] == pytest.approx(drawn.iloc[0].std(), rel=0.05)


def test_known_levels_of_two_terms_go_by_draws():
    fit = rf.fit("y ~ x + (1 | g) + (1 | h)", frame(), "quadrature", seed=1)
    rows = frame().head(3)
    table = fit.predict(rows, prob=0.9)
    np.testing.assert_allclose(table["sd"], fit.draws_of(rows).std(axis=1), rtol=1e-9)


def test_a_generalised_posterior_integrates_new_groups_draw_by_draw():
    model = rf.Model(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        rf.load_dataset("cbpp"),
        family="binomial",
    )
    fit = model.fit("laplace", draws=1000, seed=1)
    eta = fit.draws("beta") @ np.array([[1, 0, 0, 0], [1, 0, 0, 1.0]]).T
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    at = eta[:, :, None] + fit.draws("sd_herd")[:, :, None] * nodes
    means = special.expit(at) @ weights / weights.sum()
    for groups in ("new", "average"):
        np.testing.assert_allclose(fit.predict(PERIODS, groups), means.mean(axis=0), rtol=1e-7)
    average = fit.predict(PERIODS, "average", prob=0.9)
    np.testing.assert_allclose(average["sd"], means.std(axis=0, ddof=1), rtol=1e-6)
    typical = fit.predict(PERIODS, "population", prob=0.9)
    mu = special.expit(eta)
    np.testing.assert_allclose(typical["mean"], mu.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(typical["sd"], mu.std(axis=0, ddof=1), rtol=1e-10)
    new = fit.predict(PERIODS, "new", prob=0.9, seed=3)
    assert (new["upper"] - new["lower"] > average["upper"] - average["lower"]).all()
    pd.testing.assert_frame_equal(new, fit.predict(PERIODS, "new", prob=0.9, seed=3))


# --------------------------------------------------------------------------------------- draws


def test_rows_of_one_new_group_are_drawn_together(reml):
    rows = pd.DataFrame({"Days": [9.0, 9.0, 9.0, 9.0], "Subject": ["n", "n", "m", "308"]})
    drawn = reml.draws_of(rows, "new", n=3000, seed=1)
    assert drawn.shape == (4, 3000)
    np.testing.assert_allclose(drawn.loc[0], drawn.loc[1])
    corr = drawn.T.corr().to_numpy()
    assert 0.0 < corr[0, 2] < 0.2  # the fixed effects alone
    table = reml.predict(rows, "new", prob=0.95)
    np.testing.assert_allclose(drawn.std(axis=1), table["sd"], rtol=0.06)
    np.testing.assert_allclose(drawn.mean(axis=1), table["mean"], atol=5)
    observed = reml.draws_of(rows, "new", "observation", n=3000, seed=1)
    assert observed.std(axis=1).iloc[3] > 1.2 * drawn.std(axis=1).iloc[3]


def test_incomplete_rows_are_nan_in_every_form(reml):
    rows = pd.DataFrame({"Days": [1.0, None], "Subject": ["308", "308"]}, index=["u", "v"])
    with pytest.warns(rf.DataWarning, match="nan is predicted for 1 of 2 rows"):
        table = reml.predict(rows, prob=0.95)
    assert table.index.tolist() == ["u", "v"]
    assert table.isna().all(axis=1).tolist() == [False, True]
    with pytest.warns(rf.DataWarning):
        drawn = reml.draws_of(rows, n=5, seed=1)
    assert drawn.isna().all(axis=1).tolist() == [False, True]
    for groups in ("known", "new", "average"):
        assert reml.predict(rows.iloc[:0], groups, prob=0.95).shape == (0, 4)


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prob": 1.0}, "`prob` must lie between 0 and 1, got 1.0."),
        (
            {"interval": "prediction"},
            "interval='prediction' needs the probability of the interval: prob=0.95.",
        ),
        (
            {"interval": "predict", "prob": 0.9},
            "interval='predict' is not an option. Did you mean `prediction`?",
        ),
        (
            {"kind": "link", "prob": 0.9, "interval": "prediction"},
            (
                "kind='link' has no interval='prediction': a single observation is on the scale of "
                "the response (kind='response')."
            ),
        ),
        (
            {"kind": "observation", "prob": 0.9, "interval": "confidence"},
            (
                "kind='observation' has no interval='confidence': its interval is that of a single "
                "observation. The mean has one: kind='response'."
            ),
        ),
        (
            {"kind": "mean"},
            (
                "kind='mean' is not a kind of prediction. Known names: `response`, `link`, "
                "`observation`."
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_refused(reml, options, message):
    with pytest.raises(FitError) as caught:
        reml.predict(**options)
    assert str(caught.value) == message


def test_a_mean_over_groups_that_does_not_exist_is_refused():
    data = simulated("gamma")
    fit = rf.fit("y ~ 1 + (1 | g)", data.assign(y=data["y"] + 5), family="gamma", link="inverse")
    if fit.varcorr().sd["g"].iloc[0] == 0:
        pytest.skip("no variance between groups")
    with pytest.raises(FitError, match="with the inverse link, which needs a positive linear"):
        fit.predict(groups="average")
    assert np.isfinite(fit.predict(groups="population")).all()


@pytest.mark.parametrize("interval", ["confidence", "prediction"])
def test_known_groups_beside_new_ones_are_as_they_are_alone(interval):
    data = rf.load_dataset("Dyestuff")
    drawn = rf.fit("Yield ~ 1 + (1 | Batch)", data, "laplace", seed=1)
    asked = {"groups": "new", "prob": 0.9, "interval": interval, "seed": 1}
    both = drawn.predict({"Batch": ["A", "Z"]}, **asked)
    alone = [drawn.predict({"Batch": [level]}, **asked) for level in ("A", "Z")]
    assert np.isfinite(both.to_numpy()).all()
    np.testing.assert_allclose(both, pd.concat(alone), rtol=2e-4)  # variances over n, and n - 1


@pytest.mark.filterwarnings("ignore:the fixed effects are linearly dependent")
@pytest.mark.filterwarnings("ignore:nan is predicted for")
@pytest.mark.parametrize("method", ["laplace", "quadrature"])
def test_rows_without_any_estimate_are_nan(method):
    options = {"seed": 1} if method == "laplace" else {}
    fit = rf.fit("y ~ x + v + (1 | g)", frame().assign(v=lambda d: 2 * d["x"]), method, **options)
    table = fit.predict({"x": [0.0], "v": [9.0]}, groups="population", prob=0.9)
    assert table.shape == (1, 4)
    assert table.isna().all(axis=None)
    with pytest.warns(rf.DataWarning, match="1 of 1 slopes of `x`"):
        assert rf.slopes(fit, "x")["estimate"].isna().all()
