"""The page's own computations, in Node, against fits of the package and closed forms."""

import numpy as np
import pytest
from explorer_pages import fitted, held, in_node, page

import ranef as rf
from ranef.priors import Constant

AT = """
const {prepared, fitAt, criterionAt} = await use("model");
const q = prepared(given.data), f = fitAt(q, given.at), j = given.data.groups.labels.indexOf(given.group);
const g = f.groups[j], p = q.p, C = q.C.slice(2 * j * p, 2 * (j + 1) * p), spread = [0, 1].map(r => {
  const R = f.beta.map((_, a) => g.B[2 * r] * C[a] + g.B[2 * r + 1] * C[p + a]);
  return R.reduce((s, v, a) => s + R.reduce((t, w, b) => t + v * f.V[a * p + b] * w, 0), 0);
});
return {criterion: f.criterion, alone: criterionAt(q, given.at), beta: f.beta, se: Math.sqrt(f.ofMean[0]), b: g.b,
        model: g.model, modelSe: g.se, own: g.own && g.own.value, ownSe: g.own && g.own.se,
        sd: Math.sqrt((g.M[0] + spread[0])) / q.T[0], ofNew: f.ofNew, share: g.share};
"""


def at(name, sigma, sd, corr=0.0, group=None):
    setting = {"sigma": sigma, "sd": sd, "corr": corr}
    return in_node(AT, data=held(page(name)), at=setting, group=group)


SETTINGS = [
    ("sleepstudy", 25.5918, [24.74, 5.922], 0.0656, 6.824464, [2.259284, 9.198839], 1743.628272),
    ("sleepstudy", 40, [5, 12], -0.6, 5.665330, [-2.494961, 10.152931], 1800.250587),
    ("sleepstudy", 12, [60, 1], 0.9, 14.239510, [37.573449, 1.564443], 2325.286393),
    ("sleepstudy", 25.59, [2000, 600], 0.3, 471.417851, [-7.209983, 11.296945], 2005.905475),
    ("schools", 2.86428363, [0.2], 0, 0.052795, [0.370685], 17398.554920),
    ("schools", 6, [0.5], 0, 0.113790, [0.476477], 19514.643477),
    ("schools", 1.5, [3], 0, 0.250350, [1.546752], 21729.957994),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_table_of_numbers(setting):
    name, sigma, sd, corr, se, b, criterion = setting
    found = at(name, sigma, sd, corr, "308" if name == "sleepstudy" else "61")
    mean = {0.2: 5.670586, 0.5: 5.667791, 3: 5.545099}.get(sd[0], 251.405105)
    np.testing.assert_allclose(found["b"][: len(sd)], b, atol=1.5e-6)
    assert found["criterion"] == pytest.approx(criterion, abs=1e-6)
    assert found["alone"] == found["criterion"]
    assert found["beta"][0] == pytest.approx(mean, abs=1e-6)
    assert found["se"] == pytest.approx(se, abs=1e-6)
    deviation = {0.2: 0.172612, 0.5: 0.410007, 3: 0.305588}.get(sd[0])
    if deviation is not None:
        assert found["sd"] == pytest.approx(deviation, abs=1e-6)


def test_the_page_is_at_reml_where_the_fit_is():
    fit = fitted("children")
    varcorr = fit.varcorr()
    sd, corr = varcorr.sd["Subject"], varcorr.corr["Subject"].iloc[0, 1]
    found = at("children", fit.sigma, [*sd], corr, "M13")
    assert found["criterion"] == pytest.approx(fit.objective, abs=1e-6)
    np.testing.assert_allclose(found["beta"], fit.fixef(), rtol=1e-8)
    np.testing.assert_allclose(found["b"], fit.ranef()["Subject"].loc["M13"], rtol=1e-6)
    table = fit.coef_table().set_index(["level", "coef"]).loc["M13"]
    np.testing.assert_allclose(found["model"], table["estimate"], rtol=1e-6)
    np.testing.assert_allclose(found["modelSe"], table["sd"], rtol=1e-5)
    data = rf.load_dataset("Orthodont").query("Subject == 'M13'")
    age = np.column_stack([np.ones(len(data)), data["age"]])
    own = np.linalg.lstsq(age, data["distance"] - fit.fixef()["Sex[T.Male]"])[0]
    np.testing.assert_allclose(found["own"], own, rtol=1e-6)


@pytest.mark.parametrize(("formula", "sigma", "sd"), [("y ~ x + z + (x || g)", 0.7, [2.0, 0.03])])
def test_other_settings_are_fits_with_constant_priors(formula, sigma, sd, tmp_path):
    """Years as they are, another fixed effect, weights, an offset, a group with one row."""
    rng = np.random.default_rng(2)
    n = 61
    data = {
        "g": ["one", *np.repeat(list("abcdef"), 10)],
        "x": np.r_[2003, np.tile(np.arange(2000, 2010), 6)],
        "z": rng.normal(size=n),
        "o": rng.normal(size=n),
        "w": rng.uniform(0.5, 2.0, n),
        "y": rng.normal(size=n) + 40,
    }
    model = rf.Model(formula, data, weights="w", offset="o")
    priors = {"beta": "flat", "sigma": Constant(sigma)}
    priors["sd"] = {"Intercept": Constant(sd[0]), "x": Constant(sd[1])}
    known = {"base": "flat", **{k: v for k, v in priors.items() if k != "beta"}}
    post = rf.Model(formula, data, weights="w", offset="o", priors=known).fit("quadrature")
    page_data = held(model.fit().explore_shrinkage(tmp_path / "p.html"))
    setting = {"sigma": sigma, "sd": sd, "corr": 0}
    for group in ("one", "c"):
        found = in_node(AT, data=page_data, at=setting, group=group)
        table = post.coef_table().set_index(["level", "coef"]).loc[group]
        np.testing.assert_allclose(found["beta"], post.fixef(), rtol=1e-6)
        np.testing.assert_allclose(found["model"], table["estimate"], rtol=1e-6)
        np.testing.assert_allclose(found["modelSe"], table["sd"], rtol=1e-5)
        assert (found["own"] is None) == (group == "one")


def test_the_ends_are_complete_and_no_pooling():
    ends = in_node(
        """
        const {prepared, fitAt} = await use("model"), {completePooling, noPooling, remlSetting} = await use("sliders");
        const q = prepared(given.data), at = remlSetting(given.data), {scale} = given.data;
        return [completePooling, noPooling].map(end => {
          const f = fitAt(q, end(at, scale));
          return {groups: f.groups.map(g => [g.model, g.own.value, g.se]), population: f.population,
                  ofNew: f.ofNew};
        });""",
        data=held(page("sleepstudy")),
    )
    complete, none = ends
    scale = np.array(held(page("sleepstudy"))["scale"]["sd"])
    for model, own, se in none["groups"]:
        assert (np.abs(np.subtract(model, own)) < 1e-5 * scale).all()
        assert np.isfinite(se).all()
    ols = rf.fit("Reaction ~ Days", rf.load_dataset("sleepstudy"), "reml")
    sigma = held(page("sleepstudy"))["reml"]["sigma"]
    error = np.sqrt(np.diag(ols.vcov())) * sigma / ols.sigma
    for model, _, se in complete["groups"]:
        assert model == complete["population"]
        np.testing.assert_allclose(model, ols.fixef(), rtol=1e-8)
        np.testing.assert_allclose(se, error, rtol=1e-7)
    np.testing.assert_allclose(np.sqrt(np.array(complete["ofNew"])[[0, 2]]), error, rtol=1e-7)


@pytest.mark.parametrize(("name", "group", "count"), [("sleepstudy", 0, 3), ("sleepstudy", 0, 1),
                                                      ("children", 4, 2), ("schools", 7, 4)])  # fmt: skip
def test_first_rows_are_the_data_without_the_others(name, group, count, tmp_path):
    fit, data = fitted(name), held(page(name))
    term, rows = (
        fit.design.terms[0],
        rf.load_dataset(
            {"sleepstudy": "sleepstudy", "children": "Orthodont", "schools": "ScotsSec"}[name]
        ),
    )
    column = rows[term.factor].astype(str)
    mine = np.flatnonzero(column == data["groups"]["labels"][group])
    less = rf.fit(fit.design.formula.text, rows.drop(index=rows.index[mine[count:]]))
    fewer = held(less.explore_shrinkage(tmp_path / "p.html"))
    reml = data["reml"]
    setting = {"sigma": reml["sigma"], "sd": reml["sd"], "corr": reml["corr"] or 0}
    body = """
        const {prepared, fitAt} = await use("model"), {withFirstRows} = await use("first_rows");
        const q = prepared(given.data), p = given.count ? withFirstRows(given.data, q, given.group, given.count) : q;
        const f = fitAt(p, given.at), g = f.groups[given.group];
        return [f.criterion, [...f.beta], g.model, g.se, g.own && g.own.value];"""
    cut = in_node(body, data=data, at=setting, group=group, count=count)
    made = in_node(body, data=fewer, at=setting, group=group, count=0)
    assert cut[0] == pytest.approx(made[0], rel=1e-9)
    for a, b in zip(cut[1:4], made[1:4], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    assert (cut[4] is None) == (made[4] is None)


def test_subject_308_from_three_rows():
    found = in_node(
        """
        const {prepared, fitAt} = await use("model"), {withFirstRows} = await use("first_rows");
        const {remlSetting} = await use("sliders"), q = prepared(given.data);
        return fitAt(withFirstRows(given.data, q, 0, 3), remlSetting(given.data)).groups[0];""",
        data=held(page("sleepstudy")),
    )
    assert round(found["own"]["value"][1], 1) == 0.6
    assert round(found["model"][1], 1) == 8.5


def weighted():
    rng = np.random.default_rng(2)
    data = {"g": ["one", *np.repeat(list("abcdef"), 10)], "w": rng.uniform(0.5, 2.0, 61)}
    data |= {"x": np.r_[2003.0, np.tile(np.arange(2000.0, 2010), 6)], "y": rng.normal(size=61)}
    return data


CUT = """
const {prepared, fitAt} = await use("model"), {withFirstRows} = await use("first_rows");
const {noPooling} = await use("sliders"), q = prepared(given.data), j = given.data.groups.labels.indexOf(given.group);
const at = given.endless ? noPooling(given.at, given.data.scale) : given.at;
const f = fitAt(given.count ? withFirstRows(given.data, q, j, given.count) : q, at);
return {criterion: f.criterion, share: f.groups[j].share};
"""


def test_first_rows_with_weights(tmp_path):
    data, formula = weighted(), "y ~ x + (1 | g)"
    whole = held(rf.fit(formula, data, weights="w").explore_shrinkage(tmp_path / "a.html"))
    kept = np.r_[0, np.arange(4), np.arange(10, 60)] + np.r_[0, np.ones(54, dtype=int)]
    less = {name: np.asarray(values)[kept] for name, values in data.items()}
    cut = held(rf.fit(formula, less, weights="w").explore_shrinkage(tmp_path / "b.html"))
    at = {"sigma": 0.8, "sd": [0.5], "corr": 0}
    one = in_node(CUT, data=whole, at=at, group="a", count=4)
    two = in_node(CUT, data=cut, at=at, group="a", count=0)
    assert one["criterion"] == pytest.approx(two["criterion"], rel=1e-9)


def test_a_row_by_itself_determines_one_combination_at_no_pooling(tmp_path):
    """The weight of its data is a projection: its trace is its rank."""
    fit = rf.fit("y ~ x + (x | g)", weighted(), weights="w", method="ml")
    data = held(fit.explore_shrinkage(tmp_path / "p.html"))
    at = {"sigma": 1, "sd": [1, 1], "corr": 0}
    share = in_node(CUT, data=data, at=at, group="one", count=0, endless=True)["share"]
    assert share[0] + share[3] == pytest.approx(1, rel=1e-8)
