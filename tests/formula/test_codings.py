"""Contrasts against formulaic's, products of factors against the rank of all indicators."""

import itertools

import numpy as np
import pytest
from formulaic.transforms import contrasts
from hypothesis import given, settings
from hypothesis import strategies as st

from ranef.formula.codings import Coding, independent_products, indicators

LEVELS = ["a", "b", "c", "d", "e"]
CODINGS = [
    (Coding(), contrasts.TreatmentContrasts()),
    (Coding("treatment", {"base": 2}), contrasts.TreatmentContrasts("c")),
    (Coding("SAS"), contrasts.SASContrasts()),
    (Coding("SAS", {"base": 0}), contrasts.SASContrasts("a")),
    (Coding("sum"), contrasts.SumContrasts()),
    (Coding("poly"), contrasts.PolyContrasts()),
    (Coding("diff"), contrasts.DiffContrasts()),
    (Coding("diff", {"backward": False}), contrasts.DiffContrasts(backward=False)),
    *(
        (
            Coding("helmert", {"reverse": reverse, "scale": scale}),
            contrasts.HelmertContrasts(reverse=reverse, scale=scale),
        )
        for reverse in (True, False)
        for scale in (True, False)
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), CODINGS, ids=str)
@pytest.mark.parametrize("m", [2, 3, 5])
def test_contrasts_are_those_of_formulaic(ours, theirs, m):
    if ours.settings.get("base", 0) >= m:
        pytest.skip("there is no such level")
    levels = LEVELS[:m]
    np.testing.assert_allclose(ours.matrix(m), theirs.get_coding_matrix(levels), atol=1e-14)
    names = [f"f[{name}]" for name in ours.names(levels)]
    form = theirs.get_factor_format(levels)
    fields = theirs.get_coding_column_names(levels)
    assert names == [form.format(name="f", field=field) for field in fields]


@pytest.mark.parametrize(("coding", "_"), CODINGS, ids=str)
def test_columns_are_the_contrasts_of_the_level_of_each_row(coding, _):
    codes = np.array([3, 0, 4, 4, 1, 2])
    np.testing.assert_array_equal(coding.columns(codes, 5), coding.matrix(5)[codes])


def test_polynomial_contrasts_of_many_levels_are_orthogonal():
    contrasts_of_60 = Coding("poly").matrix(60)
    np.testing.assert_allclose(contrasts_of_60.T @ contrasts_of_60, np.eye(59), atol=1e-13)
    np.testing.assert_allclose(contrasts_of_60.sum(axis=0), 0, atol=1e-13)


# --------------------------------------------------------------------- which factors by contrasts

SIZES = {"a": 2, "b": 3, "c": 2, "x": None, "z": None}


def columns_of(product, values):
    """The columns of a product of factors, coded as it says."""
    blocks = [np.ones((len(values["x"]), 1))]
    for label, by_contrasts in product:
        if SIZES[label] is None:
            blocks.append(values[label][:, None])
        else:
            start = int(by_contrasts)
            blocks.append(indicators(values[label], np.arange(start, SIZES[label])))
    made = itertools.product(*(block.T for block in blocks))
    return [np.prod(columns, axis=0) for columns in made]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(sorted(SIZES)), max_size=3, unique=True),
        min_size=1,
        max_size=5,
        unique_by=frozenset,
    )
)
def test_products_are_independent_and_span_what_all_indicators_span(terms):
    rng = np.random.default_rng(1)
    values = {
        k: rng.normal(size=200) if m is None else rng.integers(m, size=200)
        for k, m in SIZES.items()
    }
    found = list(independent_products([{f: SIZES[f] is not None for f in term} for term in terms]))
    columns = [c for products in found for one in products for c in columns_of(one, values)]
    every = [c for term in terms for c in columns_of([(f, False) for f in term], values)]
    rank = np.linalg.matrix_rank(np.column_stack(every))
    assert len(columns) == rank
    assert np.linalg.matrix_rank(np.column_stack([*columns, *every])) == rank
