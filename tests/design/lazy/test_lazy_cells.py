"""Generalised models of lazy data, which are counted, against those of the same rows in memory."""

from typing import Any

import dask.dataframe as dask
import duckdb
import ibis
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ranef as rf
from ranef.design.lazy import lazy_cells
from ranef.design.lazy.lazy_cells import counted_rows
from ranef.design.lazy.lazy_table import open_lazy
from ranef.errors import DataError, FitError
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.leave_one_out.elpd import units_of

ENGINES = {
    "polars": lambda frame: pl.from_pandas(frame).lazy(),
    "duckdb": duckdb.from_df,
    "ibis": lambda frame: ibis.memtable(pa.Table.from_pandas(frame)),
    "dask": lambda frame: dask.from_pandas(frame, npartitions=3),
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bernoulli": ("one ~ a + arm + (1 | g)", {"family": "bernoulli"}),
    "counts": ("cbind(won, size - won) ~ I(a^2) + C(arm, contr.sum) + (1 | g)", {}),
    "proportions": ("share ~ a + (a || g)", {"weights": "size"}),
    "poisson": (
        "count ~ a + factor(e) + (1 | g) + (1 | arm)",
        {"family": "poisson", "weights": "w", "offset": "e"},
    ),
    "no mean": ("count ~ arm + offset(e) + (1 | g)", {"family": "negative_binomial"}),
    "no random effects": ("one ~ a * arm", {"link": "probit"}),
}


def _frame(n: int = 1200) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    a, g, e = rng.integers(0, 3, n), rng.integers(0, 8, n), 0.1 * rng.integers(0, 2, n)
    arm, size = rng.choice(["u", "v", "ü w"], n), rng.integers(1, 4, n)
    eta = -0.5 + 0.3 * a + 0.4 * (arm == "v") + 0.5 * rng.normal(size=8)[g]
    won = rng.binomial(size, 1 / (1 + np.exp(-eta)))
    one, count = (
        rng.binomial(1, 1 / (1 + np.exp(-eta))),
        rng.negative_binomial(2, 2 / (2 + np.exp(eta))),
    )
    return pd.DataFrame(
        {"a": a, "g": [f"g{i}" for i in g], "e": e, "arm": arm, "size": size, "won": won}
        | {"share": won / size, "one": one, "count": count, "w": rng.choice([0.5, 2.0], n)}
    )


FRAME = _frame()


def _model(name: str, data: object) -> rf.Model:
    formula, options = CASES[name]
    return rf.Model(formula, data, **{"family": "binomial", **options})


PAIRS = [*((name, "polars") for name in CASES), *(("poisson", engine) for engine in ENGINES)]


@pytest.mark.parametrize(("name", "engine"), [*PAIRS, ("counts", "duckdb")])
def test_a_lazy_model_is_that_of_the_rows(name: str, engine: str) -> None:
    model, lazy = _model(name, FRAME), _model(name, ENGINES[engine](FRAME))
    assert str(lazy) == str(model)
    assert len(lazy.design.distinct.y) < len(FRAME)
    one, other = model.fit(), lazy.fit()
    assert str(other) == str(one)
    assert other.bic == pytest.approx(one.bic, rel=1e-12)
    for values in ("fixef", "se"):
        np.testing.assert_allclose(getattr(other, values)(), getattr(one, values)(), rtol=1e-10)
    np.testing.assert_allclose(other.theta, one.theta, rtol=1e-10, atol=1e-12)
    for label, effects in one.ranef().items():
        np.testing.assert_allclose(other.ranef()[label].loc[effects.index], effects, rtol=1e-9)


def test_the_different_rows_are_counted() -> None:
    names = ["count", "a", "arm", "w"]
    expected = FRAME.groupby(names).size()
    formula = read_formula("count ~ a + (1 | arm)")
    for make in ENGINES.values():
        lazy = open_lazy(make(FRAME))
        assert lazy is not None
        found = counted_rows(formula, lazy, find_family("poisson"), weights="w")
        frame = pd.DataFrame({n: np.asarray(found.frame[n]) for n in names})
        counts = frame.assign(n=found.counts).set_index(names)["n"]
        pd.testing.assert_series_equal(counts.loc[expected.index], expected, check_names=False)


@pytest.mark.parametrize("priors", ["default", "brms", "rstanarm"])
def test_priors_have_the_scales_of_all_rows(priors: str) -> None:
    model, lazy = (_model("no mean", data).with_priors(priors) for data in (FRAME, _lazy()))
    assert str(lazy) == str(model)


def _lazy(frame: pd.DataFrame = FRAME) -> Any:
    return pl.from_pandas(frame).lazy()


@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
def test_what_takes_no_single_row_is_there(tmp_path: Any) -> None:
    model, lazy = (_model("bernoulli", data) for data in (FRAME, _lazy()))
    one, other = model.fit(), lazy.fit()

    def numbers(model: rf.Model, fit: Any) -> list[float]:
        laplace = model.fit("laplace", draws=100, seed=1)
        return [
            *fit.confint("profile").to_numpy().ravel(),
            *rf.means(fit, "arm").to_frame()["estimate"],
            *fit.influence(group="g").to_frame().select_dtypes("number").to_numpy().ravel(),
            *rf.joint_tests(fit).to_frame()["p_value"],
            *[simpler.fit().loglik for simpler in model.structures().values()],
            *laplace.loo("group", seed=1).elpd_i.to_numpy(),
            laplace.log_marginal_likelihood(seed=1).value,
            model.fit("map", n_agq=5).loglik,
            fit.update(". ~ . - a").loglik,
            fit.r2().to_frame().iloc[0, 0],
        ]

    np.testing.assert_allclose(numbers(lazy, other), numbers(model, one), rtol=1e-7)
    means = other.fitted()
    assert isinstance(means, pl.LazyFrame)
    np.testing.assert_allclose(means.collect()["mean"], one.fitted(), rtol=1e-10)
    other.save(tmp_path / "fit")
    assert rf.load(tmp_path / "fit").loglik == pytest.approx(other.loglik, rel=1e-13)
    assert "y" in lazy.to_pymc().named_vars


def test_incomplete_rows_are_counted() -> None:
    frame = FRAME.assign(e=FRAME["e"].where(FRAME.index > 9))
    formula = "count ~ a + e + (1 | g)"
    for make in ENGINES.values():
        with pytest.warns(rf.DataWarning, match=r"10 of 1,200 rows left out for .* `e` \(10\)"):
            model = rf.Model(formula, make(frame), family="poisson")
        assert model.fit().loglik == pytest.approx(
            rf.Model(formula, FRAME[10:], family="poisson").fit().loglik, rel=1e-12
        )


def test_what_needs_the_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).normal(size=len(FRAME))
    different = _lazy(FRAME.assign(x=x))
    with pytest.raises(FitError) as error:
        rf.Model("one ~ x + arm + (1 | g)", different, family="bernoulli")
    assert str(error.value) == (
        "a bernoulli model needs the rows, or how often each occurs, and no two of the 1,200 rows "
        "of the lazy data are equal in `arm`, `g`, `one` and `x`: collect them, or round `x`."
    )
    monkeypatch.setattr(lazy_cells, "MAX_CELLS", 5)
    with pytest.raises(FitError) as error:
        rf.Model("count ~ a + (1 | arm)", _lazy(), family="poisson")
    assert str(error.value) == (
        "a poisson model needs the rows, or how often each occurs, and 70 of the 1,200 rows of the "
        "lazy data are different, more than the 5 that are brought here: draw a sample."
    )
    monkeypatch.undo()
    with pytest.raises(FitError, match=r"a gamma model needs the rows, which lazy data .* collect"):
        rf.Model("size ~ a + (1 | g)", _lazy(), family="gamma")
    with pytest.raises(DataError, match=r"`scale\(a\)` needs the rows, which lazy data do not bri"):
        rf.Model("one ~ scale(a) + (1 | g)", _lazy(), family="bernoulli")
    with pytest.raises(DataError, match="functions= needs the rows"):
        rf.Model("one ~ f(a) + (1 | g)", _lazy(), family="bernoulli", functions={"f": np.exp})
    fit = _model("bernoulli", _lazy()).fit()
    for ask in (fit.residuals, lambda: fit.bootstrap(2, seed=1), fit.leverage, fit.simulate):
        with pytest.raises(FitError, match="no rows: it was made from counts of equal rows alone"):
            ask()
    with pytest.raises(FitError, match="could be left out one at a time: leave out groups, unit="):
        units_of(fit.design, "observation", None)


def test_models_of_the_same_counts_are_compared() -> None:
    formula = "one ~ a + arm + (1 | g)"
    one = _model("bernoulli", _lazy()).fit()
    other = rf.Model("one ~ a * arm + (1 | g)", _lazy(), family="bernoulli").fit()
    memory = [
        rf.Model(text, FRAME, family="bernoulli").fit()
        for text in (formula, "one ~ a * arm + (1 | g)")
    ]
    structures = [one.fit() for one in _model("bernoulli", _lazy()).structures().values()]
    assert rf.anova(*structures, test="mixture").to_frame().shape[0] == len(structures)
    p_values = [rf.anova(*fits).to_frame()["p_value"].iloc[-1] for fits in ((one, other), memory)]
    assert p_values[0] == pytest.approx(p_values[1], rel=1e-9)
    simpler = rf.Model("one ~ a + (1 | g)", _lazy(), family="bernoulli").fit()
    with pytest.raises(DataError, match="of counts that each model took of its data, which cannot"):
        rf.anova(simpler, one)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("lost ~ a + (1 | g)", {"family": "poisson"}),
        ("cbind(won, lost) ~ a + (1 | g)", {}),
        ("count ~ log(a) + (1 | g)", {"family": "poisson"}),
        ("count ~ arm + (1 | g)", {"family": "poisson", "weights": "a"}),
    ],
)
def test_errors_count_the_rows_of_the_data(formula: str, options: dict[str, Any]) -> None:
    frame = FRAME.assign(lost=FRAME["count"] - 1)
    said = []
    for data in (frame, pl.from_pandas(frame).lazy()):
        with pytest.raises(DataError) as error:
            rf.Model(formula, data, **{"family": "binomial", **options})
        said.append(str(error.value))
    places = said[0].index("rows: ") + 4
    assert said[1] == said[0][:places] + said[0][said[0].index(".", places) :]
