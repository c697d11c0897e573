"""How tables are printed: decimals, alignment, wrapping, HTML; and the record of variances."""

from __future__ import annotations

import html.parser
import re

import numpy as np
import pandas as pd
import pytest
from generalized_fits import made_up, point_fit, simulated

import ranef as rf
from fits import fit_of, known_posterior, model_of
from ranef.families.names import find_family
from ranef.fits.tables import (
    Summary,
    VarCorr,
    as_html,
    as_strings,
    as_text,
    extras,
    indented,
    wrapped,
)


def printed(**columns):
    table = as_strings(pd.DataFrame(columns, dtype=float))
    return {name: list(table[name]) for name in table.columns}


# ------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([251.4051, 10.46729], ["251.405", "10.467"]),
        ([1.0], ["1.00000"]),
        ([0.25], ["0.25000"]),
        ([0.0625], ["0.062500"]),
        ([-1234567.8, 1.0], ["-1234568", "1.000"]),
        ([123456789.0, 1.0], ["1.23457e+08", "1.000"]),
        ([2e-7, 1e-7], ["2.000e-07", "1.000e-07"]),
        ([np.nan, 2.5], ["", "2.50000"]),
        ([np.inf, 2.5], ["inf", "2.50000"]),
        ([0.0, 2.5], ["0", "2.50000"]),
        ([0.0, 0.0], ["0", "0"]),
        ([np.nan], [""]),
        ([], []),
    ],
)
def test_six_digits_of_the_largest_number(numbers, expected):
    assert printed(estimate=numbers) == {"estimate": expected}


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [
        ([4.243357, 0.000040436], ["4.243357", "0.000040"]),
        ([4.243357, 4e-10], ["4.24336", "4.000e-10"]),
        ([4.243357, 0.0], ["4.24336", "0"]),
        ([4e6, 0.05], ["4000000.000", "0.050"]),
        ([4e7, 0.5], ["40000000.00", "0.50"]),
        ([4e7, 1.1], ["40000000.0", "1.1"]),
    ],
)
def test_two_digits_of_the_smallest_spread(spreads, expected):
    for name in ("variance", "sd", "se"):
        assert printed(**{name: spreads}) == {name: expected}


def test_columns_of_one_unit_share_their_decimals():
    assert printed(estimate=[251.4051], se=[0.012345], t=[36.8399], lower=[1.0]) == {
        "estimate": ["251.405"],
        "se": ["0.012"],
        "t": ["36.84"],
        "lower": ["1.000"],
    }


def test_draws_have_four_digits_or_two_of_their_sd():
    table = printed(mean=[251.4051], sd=[6.8], mcse_mean=[0.1], r_hat=[1.00149], ess_bulk=[812.7])
    assert table == {
        "mean": ["251.4"],
        "sd": ["6.8"],
        "mcse_mean": ["0.1"],
        "r_hat": ["1.001"],
        "ess_bulk": ["813"],
    }
    assert printed(mean=[251.4051], sd=[0.081], mcse_mean=[0.001])["mean"] == ["251.405"]


@pytest.mark.parametrize("unit", 10.0 ** np.arange(-14, 13, 3))
@pytest.mark.parametrize("columns", [("estimate", "se"), ("mean", "sd", "mcse_mean")])
def test_no_number_is_printed_as_zero_in_any_unit(columns, unit):
    """A row of a predictor in other units than the rest: two digits of its error are seen."""
    rng = np.random.default_rng(8)
    value, error = unit * rng.normal(size=40), unit * rng.uniform(0.02, 3, 40)
    bounds = {"lower": value - 2 * error, "upper": value + 2 * error}
    frame = pd.DataFrame(dict(zip(columns, (value, error, error / 50), strict=False)) | bounds)
    frame["t"] = value / error
    table = as_strings(pd.concat([pd.DataFrame({name: [1.25] for name in frame}), frame]))
    texts = table[list(frame)].to_numpy()[1:]
    assert (texts.astype(float) != 0).all()
    digits = [str(text).split("e")[0].replace(".", "").lstrip("0") for text in table[columns[1]]]
    assert min(map(len, digits)) >= 2
    for name in (columns[0], "lower", "upper"):
        off = np.abs(table[name].to_numpy()[1:].astype(float) - frame[name]) / error
        assert off.max() <= 0.05


def test_what_rounding_leaves_beside_its_error_is_no_number():
    assert printed(estimate=[-1e-16, 2.0], se=[0.5, 0.5])["estimate"] == ["0.00000", "2.00000"]


def test_a_small_correlation_is_not_printed_as_zero():
    assert varcorr(2, correlated=True, corr=0.00021).printed()["corr"].tolist()[1] == "0.00021"


def test_other_columns_are_left_as_they_are():
    table = pd.DataFrame({"n": [3, 4], "corr": ["0.1", ""], "what": ["a", "b"]})
    assert as_strings(table).to_numpy().tolist() == [["3", "0.1", "a"], ["4", "", "b"]]


# ------------------------------------------------------------------------------ the layout


def test_text_is_aligned_without_trailing_spaces():
    table = pd.DataFrame({"sd": [24.7405, np.nan], "corr": ["0.066", ""]}, index=["Intercept", "x"])
    assert as_text(table) == "                sd   corr\nIntercept  24.7405  0.066\nx"


def test_a_wide_or_long_table_is_printed_whole():
    long = pd.DataFrame({"sd": np.ones(200)}, index=[f"x{i}" for i in range(200)])
    wide = pd.DataFrame({f"c{i}" * 20: [1.0] for i in range(40)}, index=["x" * 90])
    with pd.option_context("display.max_rows", 5, "display.max_columns", 2, "display.width", 20):
        assert len(as_text(long).split("\n")) == 201
        assert len(as_text(wide).split("\n")) == 2
        assert "..." not in as_text(wide) + as_html(wide) + as_html(long)
    assert "x" * 90 in as_html(wide)


def test_sentences_are_wrapped_at_spaces():
    text = wrapped("one two-three " + "x" * 30 + " four", 10)
    assert text == f"one\ntwo-three\n{'x' * 30}\nfour"
    assert all(len(line) <= 100 for line in wrapped("word " * 99).split("\n"))
    assert indented("a\n\nb") == "  a\n\n  b"


class Cells(html.parser.HTMLParser):
    """The texts of all elements, by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 -- the parser's signature
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.found.append((self.open[-1], data))


def test_html_says_what_the_text_says_and_escapes_it():
    table = pd.DataFrame({"sd": [1.5]}, index=["<x>"])
    texts = ("A <b> & B", ("y ~ x < 2 <i>",), (("Numbers <b>", table),), ("Note <p>",))
    summary = Summary(*texts, table)
    cells = Cells(summary._repr_html_())
    assert cells.open == []
    assert cells.found == [
        ("b", "A <b> & B"),
        ("div", "y ~ x < 2 <i>"),
        ("b", "Numbers <b>"),
        ("th", "sd"),
        ("th", "<x>"),
        ("td", "1.50000"),
        ("p", "Note <p>"),
    ]


def test_a_summary_in_text():
    table = pd.DataFrame({"sd": [1.5]}, index=["x"])
    summary = Summary(
        "Title", ("a fact " * 20, "b"), (("Head", table),), ("Note 1.", "Note 2."), table
    )
    assert str(summary) == repr(summary)
    assert str(summary) == (
        "Title\n"
        f"  {' '.join(['a fact'] * 14)}\n"
        f"  {' '.join(['a fact'] * 6)}\n"
        "  b\n"
        "\n"
        "Head\n"
        "          sd\n"
        "  x  1.50000\n"
        "\n"
        "Note 1.\n"
        "Note 2."
    )
    assert str(Summary("Title", (), (), (), table)) == "Title"


def test_the_frame_of_a_summary_is_a_copy():
    table = pd.DataFrame({"sd": [1.5]}, index=["x"])
    summary = Summary("Title", (), (), (), table)
    copy = summary.to_frame()
    copy.loc["x", "sd"] = 0
    pd.testing.assert_frame_equal(summary.to_frame(), pd.DataFrame({"sd": [1.5]}, index=["x"]))


# ----------------------------------------------------------------------- variance components


def varcorr(k, *, correlated, corr=0.5):
    names = pd.Index([f"c{i}" for i in range(k)])
    corr = np.where(np.eye(k) == 1, 1, corr)
    cov, corr = (pd.DataFrame(m, names, names) for m in (4 * corr, corr))
    sd = pd.Series(2.0, names)
    labels = frozenset({"g"} if correlated else ())
    return VarCorr({"g": sd}, {"g": corr}, {"g": cov}, 3.0, 9.0, labels)


def test_variance_components_as_text():
    assert repr(varcorr(3, correlated=True)) == (
        "            variance       sd   corr\n"
        "g        c0  4.00000  2.00000\n"
        "         c1  4.00000  2.00000  0.500\n"
        "         c2  4.00000  2.00000  0.500  0.500\n"
        "Residual     9.00000  3.00000"
    )
    assert "corr" not in repr(varcorr(3, correlated=False))
    assert repr(varcorr(2, correlated=True, corr=np.nan)).split("\n")[2].split() == [
        "c1",
        "4.00000",
        "2.00000",
    ]


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_a_term_of_any_size_is_printed(k):
    found = varcorr(k, correlated=True)
    assert repr(found).count("0.500") == k * (k - 1) / 2
    assert found._repr_html_().count("0.500") == k * (k - 1) / 2
    assert found.printed().columns.is_unique
    assert len(found.table) == k * (k + 1) / 2 + 1


def test_the_variance_of_a_posterior_is_the_mean_of_the_squares():
    fit = known_posterior(model_of("correlated slopes"))
    found = fit.varcorr()
    squares = fit.draws("sd_g") ** 2
    variances = [*squares.mean(axis=0), found.sigma2]
    np.testing.assert_allclose(found.printed()["variance"], variances)
    assert found.sigma2 == pytest.approx(np.mean(fit.draws("sigma") ** 2)) != found.sigma**2
    assert fit_of("correlated slopes", "ml").varcorr().sigma2 == pytest.approx(
        fit_of("correlated slopes", "ml").sigma ** 2
    )


def test_every_number_of_a_fit_is_printed_in_its_column():
    text = str(rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy")))
    for block in re.split(r"\n\n", text)[1:3]:
        lines = block.split("\n")[1:]
        ends = [match.end() for match in re.finditer(r"\S+", lines[0])]
        for line in lines[1:]:
            assert all(m.end() in ends for m in re.finditer(r"-?\d+\.\d+", line)), block


# ------------------------------------------------------------------------ generalised models


def test_without_a_sigma_there_is_no_residual():
    text = repr(made_up("poisson", "correlated slopes").varcorr())
    assert [line.split()[0] for line in text.split("\n")] == ["variance", "g", "x"]
    table = made_up("poisson", "crossed").varcorr().table
    assert list(table["grp"]) == ["g", "h", "h"]
    assert list(made_up("gamma", "crossed").varcorr().table["grp"]) == ["g", "h", "h", "Residual"]


def test_no_variances_at_all():
    found = made_up("poisson", "no random terms").varcorr()
    assert repr(found) == "no variance components"
    assert found._repr_html_() == "<p>no variance components</p>"
    assert found.table.shape == (0, 5)
    assert found.printed().shape == (0, 2)
    assert "Residual" in repr(made_up("gamma", "no random terms").varcorr())


def test_z_has_the_decimals_of_t():
    assert printed(z=[36.8399, -0.123], t=[36.8399, -0.123]) == {
        "z": ["36.84", "-0.12"],
        "t": ["36.84", "-0.12"],
    }


def test_long_titles_are_wrapped():
    table = pd.DataFrame({"n": [1]})
    summary = Summary("long " * 30, ("fact",), (("Heading", table),), (), table)
    lines = str(summary).split("\n")
    assert max(map(len, lines)) <= 100
    assert lines[2] == "  fact"
    assert f"<b>{'long ' * 30}</b>" in summary._repr_html_()


def test_extras_are_trials_weights_and_offsets():
    trials = made_up("binomial", "offset")
    assert extras(trials.design, trials.family) == [
        f"{simulated('binomial')['trials'].sum()} trials",
        "an offset",
    ]
    poisson = find_family("poisson")
    fit = point_fit("y ~ x", simulated("poisson"), poisson)
    assert extras(fit.design, poisson) == []
    weighted = fit.design.with_rows(weights=np.full(200, 2.0))
    assert extras(weighted, poisson) == ["prior weights"]
