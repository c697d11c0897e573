"""What a page holds is what the fit has."""

import json

import numpy as np
import pytest
from explorer_pages import fitted, held, page

import ranef as rf
from ranef.explorer.content import own_rows


def test_the_marks_are_those_of_reml():
    data, fit = held(page("sleepstudy")), fitted("sleepstudy")
    reml = data["reml"]
    np.testing.assert_allclose(reml["beta"], fit.fixef(), rtol=1e-11)
    np.testing.assert_allclose(reml["sd"], fit.varcorr().sd["Subject"], rtol=1e-11)
    np.testing.assert_allclose(
        [reml["sigma"], reml["corr"], reml["criterion"]],
        [fit.sigma, fit.varcorr().corr["Subject"].iloc[0, 1], fit.objective],
        rtol=1e-11,
    )
    assert data["scale"] == {"sigma": reml["sigma"], "sd": reml["sd"]}
    assert (data["format"], data["n"], data["logWeights"], data["missing"]) == (1, 180, 0, "")
    assert (data["place"], data["among"], data["correlated"]) == ([0, 1], [1, 0, 0, 1], True)
    assert data["noun"] == ["subject", "subjects", "rows"]
    assert data["units"] == {"response": "ms", "coefs": ["ms", "ms per day"]}


def test_the_densities_are_those_of_the_quadrature():
    data, post = held(page("sleepstudy")), fitted("sleepstudy").asked.refit("quadrature")
    t, scale = np.linspace(0, 1, 121)[:-1], data["scale"]
    values = {
        "sigma": (data["posterior"]["sigma"], scale["sigma"] * 2 ** (4 * t - 2)),
        "sd_Subject[Days]": (data["posterior"]["sd"][1], scale["sd"][1] * t / (1 - t)),
        "corr_Subject[Intercept, Days]": (data["posterior"]["corr"], 2 * t - 1),
    }
    for name, (found, at) in values.items():
        curve = post.curve(name)
        np.testing.assert_allclose(found["pdf"][:-1], curve.pdf(at), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose((found["lower"], found["upper"]), curve.hdi(), rtol=1e-6)
        assert found["mean"] == pytest.approx(curve.mean)
        assert found["median"] == pytest.approx(float(curve.quantile(0.5)))
    assert data["posterior"]["sd"][1]["pdf"][-1] == 0


def test_a_posterior_and_a_point_fit_have_one_page(tmp_path):
    formula, data = "Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")
    texts = [
        rf.fit(formula, data, method).explore_shrinkage(tmp_path / "page.html").read_text()
        for method in ("reml", "ml", "quadrature")
    ]
    assert len(set(texts)) == 1


def test_a_reml_sd_of_zero_has_the_posterior_as_scale():
    data = held(page("zero"))
    assert data["reml"]["sd"] == [0]
    assert data["scale"]["sd"] == [data["posterior"]["sd"][0]["median"]]


def test_rows_stand_by_group_with_weights_and_less_the_offset(tmp_path):
    rng = np.random.default_rng(1)
    table = {
        "g": rng.permutation(np.repeat(list("abcdef"), 6)),
        "x": rng.normal(size=36),
        "z": rng.normal(size=36),
        "o": rng.normal(size=36),
        "y": rng.normal(size=36),
        "w": rng.uniform(0.5, 2, 36),
    }
    model = rf.Model("y ~ x + z + offset(o) + (0 + x | g)", table, weights="w")
    data = held(model.fit("ml").explore_shrinkage(tmp_path / "page.html"))
    order = np.argsort(table["g"], kind="stable")
    rows = {name: np.array(values) for name, values in data["rows"].items()}
    np.testing.assert_allclose(rows["y"], (table["y"] - table["o"])[order], rtol=1e-11)
    np.testing.assert_allclose(rows["w"], table["w"][order], rtol=1e-11)
    np.testing.assert_allclose(rows["x"], table["x"][order], rtol=1e-11)
    others = np.column_stack([np.ones(36), table["z"]])[order]
    np.testing.assert_allclose(rows["X"].reshape(-1, 2), others, rtol=1e-11)
    assert data["weighted"]
    assert data["logWeights"] == pytest.approx(np.log(table["w"]).sum())


def test_coefficients_by_level_are_sums_of_fixed_effects(tmp_path):
    """(0 + Sex | Subject) has two coefficients: the second is Intercept + Sex[T.Male] of beta."""
    data = rf.load_dataset("cake")
    data = data[data["recipe"].isin(["A", "B"])]
    data["recipe"] = data["recipe"].astype(str)
    fit = rf.fit("angle ~ recipe + (0 + recipe | replicate)", data)
    found = held(fit.explore_shrinkage(tmp_path / "page.html"))
    assert found["among"] == [1, 0, 1, 1]
    assert found["place"] == [0, -1]
    assert found["rows"] == {}


def test_nothing_is_not_a_number():
    for name in ("sleepstudy", "zero", "children"):
        text = page(name).read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0]
        json.loads(text, parse_constant=pytest.fail)


RNG = np.random.default_rng(3)
N = 40
DATA = {
    "g": list("a" * 13 + "b" * 13 + "c" * 13 + "d"),  # one row cannot have two coefficients
    "x": RNG.normal(size=N) + 50,
    "z": RNG.normal(size=N),
    "y": RNG.normal(size=N),
    "w": RNG.uniform(0.5, 3, N),
    "o": RNG.normal(size=N),
}


@pytest.mark.parametrize("formula", ["y ~ x + z + (x | g)", "y ~ z + (1 | g)", "y ~ (0 + x | g)"])
def test_least_squares_of_each_group(formula):
    design = rf.Model(formula, DATA, weights="w", offset="o").design
    found, rows = own_rows(design), design.rows
    (term,) = rows.terms
    root = np.sqrt(rows.weights)[:, None]
    Z = term.columns @ np.linalg.inv(found.basis) * root
    both = np.column_stack([rows.X, rows.y - rows.offset]) * root
    left = np.zeros_like(both)
    for level in range(term.n_levels):
        mine = term.codes == level
        coefs = np.linalg.pinv(Z[mine]) @ both[mine]
        left[mine] = both[mine] - Z[mine] @ coefs
        np.testing.assert_allclose(found.products[level], Z[mine].T @ Z[mine], atol=1e-12)
        np.testing.assert_allclose(found.fixed[level], coefs[:, :-1], atol=1e-9)
        np.testing.assert_allclose(found.own[level], coefs[:, -1], atol=1e-9)
        assert found.rank[level] == np.linalg.matrix_rank(Z[mine])
    np.testing.assert_allclose(found.within, left.T @ left, atol=1e-9)
    assert (np.sort(found.order) == np.arange(N)).all()
    assert (np.diff(term.codes[found.order]) >= 0).all()
    assert found.n.tolist() == np.bincount(term.codes).tolist()
