"""Rows to predict: whose levels are numbered also where they are new, with or without columns."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.design.new_data.new_rows import in_one_new_group, new_rows, own_rows, with_strangers


def frame():
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "y": rng.normal(size=40),
            "x": rng.normal(size=40),
            "g": np.repeat(list("abcd"), 10),
            "k": np.tile(["s", "t"], 20),
        }
    )


@pytest.fixture
def design():
    return rf.Model("y ~ x + (x | g) + (1 | g:k)", frame()).design


def test_new_levels_are_numbered_in_the_order_of_their_first_row(design):
    new = pd.DataFrame({"x": 0.0, "g": ["q", "a", "p", "q", "p"], "k": ["s", "s", "s", "t", "s"]})
    combined, plain = new_rows(design, new).terms
    assert (combined.label, plain.label) == ("g:k", "g")
    assert plain.codes.tolist() == [-1, 0, -1, -1, -1]
    assert plain.grouping.numbers.tolist() == [4, 0, 5, 4, 5]
    assert combined.codes.tolist() == [-1, 0, -1, -1, -1]
    q_s, a_s, p_s, q_t, p_again = combined.grouping.numbers
    assert a_s == 0
    assert p_s == p_again
    assert sorted({q_s, p_s, q_t}) == [8, 9, 10]


def test_columns_of_groups_are_needed_or_not(design):
    new = frame()[["x"]].head(3)
    with pytest.raises(rf.FormulaError, match=r"column `g` is not in .*groups='population'"):
        new_rows(design, new)
    for grouping in ("optional", "ignored"):
        for term in new_rows(design, new, grouping=grouping).terms:
            assert term.codes.tolist() == [-1] * 3
            assert set(term.grouping.numbers) == {term.n_levels}
    some = new_rows(design, new.assign(g="b"), grouping="optional")
    assert [term.is_new.all() for term in some.terms] == [True, False]
    ignored = new_rows(design, frame().head(3), grouping="ignored")
    assert all(term.is_new.all() for term in ignored.terms)


def test_some_terms_need_their_own_columns_only(design):
    rows = new_rows(design, frame()[["x", "g"]], terms=["g"])
    assert [term.label for term in rows.terms] == ["g"]
    np.testing.assert_array_equal(rows.X, design.rows.X)
    assert rows.weights.tolist() == [1.0] * 40


def test_own_rows_and_their_parts(design):
    rows = own_rows(design)
    part = rows.part(slice(5, 12))
    np.testing.assert_array_equal(part.X, design.rows.X[5:12])
    assert part.places.tolist() == list(range(5, 12))
    assert [t.codes.tolist() for t in part.terms] == [
        t.codes[5:12].tolist() for t in design.rows.terms
    ]
    spread = part.spread(np.ones((7, 2)))
    assert spread.shape == (40, 2)
    assert np.isfinite(spread).all(axis=1).nonzero()[0].tolist() == list(range(5, 12))
    assert [t.label for t in own_rows(design, ["g"]).terms] == ["g"]


def test_rows_of_no_known_group(design):
    for old, alike, one in zip(
        design.rows.terms,
        with_strangers(own_rows(design)).terms,
        in_one_new_group(own_rows(design)).terms,
        strict=True,
    ):
        assert alike.is_new.all()
        assert one.is_new.all()
        np.testing.assert_array_equal(alike.grouping.numbers, old.n_levels + old.codes)
        assert set(one.grouping.numbers) == {old.n_levels}


def test_factors_are_coded_anew_where_rows_have_no_mean():
    """A factor of the fixed effects has random ones, too: of the rows that are left."""
    data = pd.DataFrame(
        {
            "g": np.repeat(list("abcdef"), 10),
            "f": np.tile(list("uuvvw"), 12),
            "e": np.tile(list("pqpqp"), 12),  # no w with q
            "y": np.random.default_rng(1).normal(size=60),
        }
    )
    with pytest.warns(rf.DataWarning, match="linearly dependent"):
        fit = rf.Model("y ~ f * e + (0 + f | g)", data).fit("reml")
    new = pd.DataFrame({"g": list("aabc"), "f": list("wuvu"), "e": list("qpqq")})
    with pytest.warns(rf.DataWarning, match="nan is predicted for 1 of 4 rows"):
        found = fit.predict(new)
    assert np.isnan(found[0])
    np.testing.assert_array_equal(found[1:], fit.predict(new.iloc[1:]))
