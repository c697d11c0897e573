"""What the data cannot tell apart: against the rank of dense derivatives of V."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from fits import dense_Z
from ranef.errors import DataError, DataWarning
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.expected_information import inner_products
from ranef.likelihood.linear.flat_directions import flat_directions

A = np.repeat(list("abcdefgh"), 6)
PLACE = np.arange(48) % 6


def frame(seed=0):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"a": A, "b": np.char.add(A, "1"), "x": rng.normal(size=48), "op": "Q"})
    data["c"] = data["a"].map(dict(zip("abcdefgh", range(8, 0, -1), strict=True)))
    data["f"] = np.where(PLACE % 2, "v", "u")
    data["t"] = np.where(A < "e", "A", "B")
    data["z"] = np.where(A < "e", 0.0, 1.0)
    data["year"] = np.where(A < "e", 1990, 2010)
    data["dose"] = data["c"].astype(float)
    data["never"] = np.where(A < "d", np.where(PLACE % 2, "v", "u"), np.where(PLACE % 2, "w", "u"))
    data["h"] = rng.choice(list("pqr"), 48)
    data["w"] = rng.choice([0.5, 1.0, 4.0], 48)
    level = rng.normal(size=8)[data["c"] - 1]
    data["y"] = level + rng.normal(size=48)
    data["k"] = rng.poisson(np.exp(1 + 0.3 * level))
    data["yes"] = rng.integers(0, 2, 48)
    return data


DATA = frame()
ONE = [  # of two terms that are one: the term to be left out
    ("(1 | a/b)", "(1 | b:a)"),
    ("(1 | a) + (1 | a:op)", "(1 | a:op)"),
    ("(1 | a) + (1 | c)", "(1 | c)"),
    ("(1 | c) + (1 | a) + (1 | h)", "(1 | a)"),
    ("(x | a) + (x | c)", "(1 + x | c)"),
    ("(x | a) + (1 | c)", "(1 | c)"),
    ("(1 | a) + (0 + f | a)", "(1 | a)"),
    ("(0 + x | b) + (x || a)", "(0 + x | b)"),
    ("(f | a) + (0 + f | c)", "(0 + f | c)"),
    ("(1 | a:t) + (1 | a)", "(1 | a)"),
]
FLAT = [  # parameters that cannot be told apart, and what to write
    (
        "(x + t | a)",
        ["sd_a[t[T.B]]", "corr_a[Intercept, t[T.B]]"],
        "write (1 + x | a) in place of (1 + x + t | a)",
    ),
    ("(t | a)", ["sd_a[t[T.B]]", "corr_a[Intercept, t[T.B]]"], "write (0 + t || a) in place"),
    ("(0 + t | a)", ["corr_a[t[A], t[B]]"], "write (0 + t || a) in place of (0 + t | a)"),
    ("(z | a)", ["sd_a[z]", "corr_a[Intercept, z]"], "write (1 + z || a) in place of (1 + z | a)"),
    (
        "(year | a)",
        ["sd_a[Intercept]", "sd_a[year]", "corr_a[Intercept, year]"],
        "write (1 + year || a)",
    ),
    ("(0 + never | a)", ["corr_a[never[v], never[w]]"], "write (0 + never || a)"),
    (
        "(f | a) + (1 | a:f)",
        ["sd_a:f[Intercept]", "sd_a[Intercept]", "sd_a[f[T.v]]", "corr_a[Intercept, f[T.v]]"],
        "leave out (1 | a:f), whose covariances (1 + f | a) can have",
    ),
    (
        "(0 + f || a) + (1 | a:f)",
        ["sd_a:f[Intercept]", "sd_a[f[u]]", "sd_a[f[v]]"],
        "leave out (1 | a:f)",
    ),
    ("(t | a) + (1 | h)", ["sd_a[t[T.B]]", "corr_a[Intercept, t[T.B]]"], "write (0 + t || a)"),
]
HEALTHY = [
    "(1 | a)",
    "(x | a)",
    "(f | a)",
    "(x || a) + (1 | h)",
    "(1 | a) + (1 | a:f)",
    "(1 | a) + (0 + f || a)",
    "(dose | a)",
    "(z || a)",
    "(0 + t || a)",
    "(1 | a) + (0 + x | c)",
    "(f | a) + (f | h)",
    "(1 | h) + (1 | a) + (1 | a:h)",
]


def model(random, fixed="x", data=DATA, **options):
    return rf.Model(f"y ~ {fixed} + {random}", data, **options)


def flats(built, *, reml=True):
    design = built.engine.data.estimable
    cross = cross_products(design)
    return flat_directions(inner_products(cross), cross, design, reml=reml)


def dense_nullity(built, *, reml):
    """Return how many combinations of the derivatives of V vanish, from n x n matrices."""
    design = built.engine.data.estimable
    root, parts = np.sqrt(design.rows.weights), [np.eye(design.n_obs)]
    for term in design.terms:
        Z = root[:, None] * dense_Z(design.rows.term(term.label))
        for i in range(k := term.n_coefs):
            for j in range(i + 1) if term.covariance.has_correlations else [i]:
                unit = np.zeros((k, k))
                unit[i, j] = unit[j, i] = 1
                parts.append(Z @ np.kron(np.eye(term.n_levels), unit) @ Z.T)
    Q = np.linalg.qr(design.rows.X * root[:, None])[0]
    M = np.eye(design.n_obs) - Q @ Q.T if reml else np.eye(design.n_obs)
    seen = [(M @ part @ M).ravel() / (np.linalg.norm(part) or 1) for part in parts]
    return len(parts) - np.linalg.matrix_rank(np.array(seen), tol=1e-7)


@pytest.mark.parametrize("random", [*HEALTHY, *(one[0] for one in (*ONE, *FLAT))])
@pytest.mark.parametrize(("fixed", "weights"), [("x", None), ("a", "w"), ("t + f", None)])
@pytest.mark.parametrize("reml", [False, True])
def test_there_are_flat_directions_where_dense_derivatives_are_dependent(
    random, weights, fixed, reml
):
    built = model(random, fixed, weights=weights)
    assert bool(flats(built, reml=reml)) == bool(dense_nullity(built, reml=reml))


@pytest.mark.parametrize(("random", "out"), ONE)
def test_two_terms_that_are_one_are_refused(random, out):
    for method in ("reml", "ml"):
        with pytest.raises(DataError, match=re.escape(f"cannot be told apart: leave out {out};")):
            model(random).fit(method)


@pytest.mark.parametrize(("random", "parameters", "remedy"), FLAT)
def test_a_flat_direction_is_named_with_what_to_write(random, parameters, remedy):
    built = model(random)
    (found,) = flats(built)
    assert sorted(found.parameters) == sorted(parameters)
    assert found.remedy.startswith(remedy)
    with pytest.warns(DataWarning, match=re.escape(remedy)):
        fit = built.fit()
    assert remedy in re.sub(r"\s+", " ", str(fit))


@pytest.mark.parametrize(("random", "remedy"), [(r, w) for r, _, w in FLAT if "write" in w])
def test_what_to_write_is_identified(random, remedy):
    (found,) = flats(model(random))
    new, old = re.match(r"write (.*) in place of (.*)", found.remedy).groups()
    assert old in str(model(random).formula.random[0]), remedy
    assert flats(model(new)) == []


@pytest.mark.parametrize("random", HEALTHY)
def test_nothing_is_said_of_a_healthy_model(random):
    assert flats(model(random)) == []


@pytest.mark.parametrize(
    ("formula", "data"),
    [
        ("Yield ~ 1 + (1 | Batch)", "Dyestuff"),
        ("Yield ~ 1 + (1 | Batch)", "Dyestuff2"),
        ("strength ~ 1 + (1 | batch/cask)", "Pastes"),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
        ("angle ~ recipe * temperature + (1 | recipe:replicate)", "cake"),
    ],
)
def test_nothing_is_said_of_the_classics(formula, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        rf.fit(formula, rf.load_dataset(data))


def test_units_and_origins_do_not_matter():
    far = DATA.assign(z=1e6 * DATA["z"] + 1e7, dose=1e-5 * DATA["dose"] + 3, w=1e6 * DATA["w"])
    for random in ("(z | a)", "(dose | a)"):
        (here, there) = (flats(model(random, data=d, weights="w")) for d in (DATA, far))
        assert len(here) == len(there) == (random == "(z | a)")


def test_what_the_fixed_effects_explain_is_open_by_reml_only():
    built = model("(x | a)", fixed="a")
    (found,) = flats(built)
    assert found.parameters == ("sd_a[Intercept]", "corr_a[Intercept, x]")
    assert found.remedy == "write (0 + x | a) in place of (1 + x | a)"
    assert flats(built, reml=False) == []


@pytest.mark.parametrize("family", ["poisson", "binomial"])
def test_generalised_models(family):
    response = "k" if family == "poisson" else "yes"
    with pytest.raises(DataError, match=r"cannot be told apart: leave out \(1 \| c\)"):
        rf.fit(f"{response} ~ x + (1 | a) + (1 | c)", DATA, family=family)
    with pytest.warns(DataWarning, match=re.escape("cannot tell apart `sd_a[t[T.B]]`")):
        rf.fit(f"{response} ~ x + (t | a)", DATA, family=family)


def test_a_gamma_response_has_a_scale_that_a_row_cannot_be_told_from():
    built = rf.Model("I(exp(y)) ~ x + (1 | a) + (1 | b:x)", DATA, family="gamma", link="log")
    (said,) = built.engine.undetermined("posterior")
    assert said == (
        "the data cannot tell apart `sigma` and `sd_b:x[Intercept]`; the priors decide. Without "
        "them, leave out (1 | b:x)."
    )


def test_priors_decide_and_the_fit_says_so():
    built = model("(1 | a) + (1 | c)")
    words = "the data cannot tell apart `sd_a[Intercept]` and `sd_c[Intercept]`; the priors decide"
    for method, options in (("map", {}), ("quadrature", {})):
        with pytest.warns(DataWarning, match=re.escape(words)):
            fit = built.fit(method, **options)
        assert words[1:] in re.sub(r"\s+", " ", str(fit))
    with pytest.raises(DataError, match="told apart"):
        built.fit("map", priors="flat")


def test_what_a_prior_knows_need_not_be_told_apart():
    constant = rf.priors.Constant
    known = {"sd_c": constant(0.5)}
    assert model("(1 | a) + (1 | c)", priors=known).engine.undetermined("quadrature") == []
    rows = DATA.assign(row=np.arange(48))
    for sigma, said in ((None, 1), (constant(1.0), 0)):
        priors = {} if sigma is None else {"sigma": sigma}
        built = model("(1 | row)", data=rows, priors=priors)
        assert len(built.engine.undetermined("quadrature")) == said


@pytest.mark.parametrize("random", ["(t | a)", "(0 + t | a)"])
def test_degrees_of_freedom_do_not_depend_on_what_is_open(random):
    """The model with independent cells has the same covariances of y, and all are identified."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        data = frame(seed).assign(y=lambda d, rng=rng: 3 * rng.normal(size=9)[d["c"]] + d["y"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = rf.fit(f"y ~ t + {random}", data)
            right = rf.fit("y ~ t + (0 + t || a)", data)
        for kind in ("kenward-roger", "satterthwaite"):
            found, expected = (f.summary(df=kind).to_frame() for f in (fit, right))
            np.testing.assert_allclose(found["df"], expected["df"], rtol=1e-4)
            np.testing.assert_allclose(found["se"], expected["se"], rtol=1e-5)
