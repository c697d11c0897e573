"""Frames that print themselves, and are frames like any other for all else."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd

import ranef as rf
from ranef.printing.frames import Table

FRAME = pd.DataFrame(
    {"level": ["a", "<b>"], "estimate": [251.405, 5.023e-9], "sd": [6.825, 1.04e-9]}
)


def test_a_table_prints_its_caption_and_its_digits():
    table = Table(FRAME)
    table.attrs |= {"predicted": "mean", "interval": "95 % interval", "other": 1}
    text = (
        "mean; 95 % interval\n"
        "\n"
        "level   estimate       sd\n"
        "a      251.4      6.8\n"
        "<b>      5.0e-09  1.0e-09"
    )
    assert str(table) == repr(table) == text
    assert "&lt;b&gt;" in table._repr_html_()
    assert "| a      | 251.4     | 6.8     |" in table.to_markdown()
    assert r"\textless{}b\textgreater{} & $5.0 \times 10^{-9}$" in table.to_latex("caption")


def test_what_is_made_of_it_is_a_frame():
    table = Table(FRAME)
    table.attrs["interval"] = "x"
    made = [table.round(1), table.iloc[:1], table.copy(), table.to_frame()]
    made += [pd.concat([table, table]), table.assign(a=1), table.groupby("level").mean()]
    assert {type(one) for one in made} == {pd.DataFrame}
    assert table.to_frame().attrs == {"interval": "x"}
    pd.testing.assert_frame_equal(table, FRAME)
    again = pickle.loads(pickle.dumps(table))
    assert isinstance(again, Table)
    assert str(again) == str(table)
    assert table.to_csv() == FRAME.to_csv()


def test_chosen_columns_and_rows_are_a_table():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    table = fit.coef_table()
    some = table[["level", "estimate", "lower"]][table["level"] != "A"][1:3]
    assert str(some).startswith(table.attrs["interval"])
    assert some["level"].tolist() == ["C", "D"]
    assert str(table[["level", "estimate"]]).startswith("level  estimate\n")
    named = rf.list_datasets()[["name", "rows"]]
    assert isinstance(named, Table)
    assert str(named).splitlines()[1].split() == ["Dyestuff", "30"]


def test_a_long_table_is_cut_with_a_count_but_whole_in_a_file():
    table = Table({"estimate": np.arange(148.0)})
    assert str(table).count("\n") == 13
    assert str(table).endswith("148 rows, of which the first and the last are shown.")
    assert table._repr_html_().count("<tr>") == 12
    assert table.to_markdown().count("\n") == 149
    assert table.to_latex().count(r"\\") == 149


def test_tables_of_fits_print_themselves():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    tables = [fit.ranef_table(), fit.coef_table(), fit.predict({"Batch": ["A"]}, prob=0.9)]
    tables.append(rf.side_by_side({"a": fit, "b": fit}))
    assert {type(one) for one in tables} == {Table}
    assert str(tables[0]).startswith(
        "conditional mode with 95 % interval, variances as if known\n\n"
    )
    assert str(tables[2]).startswith("Yield: mean of known groups of `Batch`; 90 % interval")
    assert tables[3].to_markdown().split("\n")[2] == "| Intercept           | 1528    | 1528    |"
    assert fit.ranef_table().to_frame().equals(fit.ranef_table())


def test_tables_of_a_fit_say_what_they_show():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    boots = fit.bootstrap(60, seed=1)
    captions = {
        "95 % Wald intervals": fit.confint(),
        "90 % profile likelihood intervals": fit.profile("sigma").confint(0.9),
        "80 % bootstrap percentile intervals": boots.confint(0.8),
        "80 % bootstrap basic intervals": boots.confint(0.8, kind="basic"),
        "no pooling (own), partial pooling (model) and complete pooling": fit.shrinkage_table(),
        "estimates without each Batch, less those of all data": fit.influence(),
    }
    for caption, table in captions.items():
        assert isinstance(table, pd.DataFrame)
        assert str(table).split("\n\n")[0] == caption
    assert fit.influence().attrs["failed"] == {}
