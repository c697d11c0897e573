"""The data sets against what is printed about them and against their files."""

import csv
import json
import re
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from ranef.datasets import describe_dataset, list_datasets, load_dataset
from ranef.errors import DataError

NAMES = list(list_datasets()["name"])
FOLDER = files("ranef") / "data"
REFERENCE = Path(__file__).parent / "reference"
NUMERIC = {
    "Dyestuff": ["Yield"],
    "Dyestuff2": ["Yield"],
    "Penicillin": ["diameter"],
    "Pastes": ["strength"],
    "sleepstudy": ["Reaction", "Days"],
    "cbpp": ["incidence", "size"],
    "cake": ["angle", "temp"],
    "ScotsSec": ["verbal", "attain", "social"],
    "Contraception": ["age"],
    "Orthodont": ["distance", "age"],
    "Machines": ["score"],
    "Oats": ["nitro", "yield"],
}


def test_the_list_names_every_file_and_no_other() -> None:
    assert sorted(f"{name}.csv" for name in NAMES) == sorted(
        entry.name for entry in FOLDER.iterdir() if entry.name.endswith(".csv")
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_its_file(name: str) -> None:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    frame = load_dataset(name)
    assert len(frame) == len(rows)
    assert list(frame.columns) == list(rows[0])
    assert not frame.isna().any(axis=None)
    for column in frame:
        raw = [row[column] for row in rows]
        if column in NUMERIC[name]:
            assert frame[column].tolist() == [float(value) for value in raw]
        else:
            assert frame[column].tolist() == raw
            assert set(frame[column].cat.categories) == set(raw)


@pytest.mark.parametrize("name", NAMES)
def test_columns_that_are_not_measured_are_categories_with_text_labels(name: str) -> None:
    frame = load_dataset(name)
    factors = frame.columns.difference(NUMERIC[name])
    assert all(pd.api.types.is_numeric_dtype(frame[column]) for column in NUMERIC[name])
    assert all(isinstance(frame[column].dtype, pd.CategoricalDtype) for column in factors)
    assert all(type(x) is str for column in factors for x in frame[column].cat.categories)


def test_levels_are_those_of_the_fits_in_r() -> None:
    cases = json.loads((REFERENCE / "lme4.json").read_text())["cases"]
    compared = {
        (case["data"], column): (
            levels,
            list(load_dataset(case["data"][:-4])[column].dtype.categories),
        )
        for case in cases
        for column, levels in case["levels"].items()
        if column not in case.get("derived", {})
    }
    assert len(compared) == 17
    assert all(expected == found for expected, found in compared.values())


@pytest.mark.parametrize(
    ("name", "column", "levels"),
    [
        ("Machines", "Worker", ["1", "2", "3", "4", "5", "6"]),
        ("Oats", "Variety", ["Golden Rain", "Marvellous", "Victory"]),
        ("Orthodont", "Sex", ["Female", "Male"]),
        ("cake", "temperature", ["175", "185", "195", "205", "215", "225"]),
        ("cake", "replicate", [str(k) for k in range(1, 16)]),
    ],
)
def test_other_levels(name: str, column: str, levels: list[str]) -> None:
    assert list(load_dataset(name)[column].cat.categories) == levels


def test_only_temperature_and_livch_are_ordered() -> None:
    ordered = {
        (name, column)
        for name in NAMES
        for column, dtype in load_dataset(name).dtypes.items()
        if getattr(dtype, "ordered", False)
    }
    assert ordered == {("cake", "temperature"), ("Contraception", "livch")}


def test_every_call_reads_a_new_frame() -> None:
    frame = load_dataset("Dyestuff")
    frame.loc[:, "Yield"] = 0
    assert load_dataset("Dyestuff")["Yield"].iloc[0] == 1545


def test_capitals_do_not_matter() -> None:
    pd.testing.assert_frame_equal(load_dataset("SleepStudy"), load_dataset("sleepstudy"))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(DataError) as error:
        load_dataset("sleepstudi")
    assert str(error.value) == "there is no data set `sleepstudi`. Did you mean `sleepstudy`?"


def test_a_name_like_no_other_is_answered_with_the_list() -> None:
    with pytest.raises(DataError) as error:
        load_dataset("iris")
    names = ", ".join(f"`{name}`" for name in NAMES)
    assert str(error.value) == f"there is no data set `iris`. Known names: {names}."


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_tables_say_the_same(name: str) -> None:
    frame = load_dataset(name)
    source = frame.attrs["source"]
    pattern = rf"^ *{name} +{len(frame)} {re.escape(source)}"
    assert re.search(pattern, str(load_dataset.__doc__), re.MULTILINE)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    line = next(x for x in readme if x.startswith(f"| `{name}.csv` | {len(frame)} |"))
    author, year = re.match(r"(\w+).*\((\d{4})\)", source).groups()
    assert author in line
    assert year in line


def test_the_list_has_a_line_for_each_that_its_file_bears_out() -> None:
    table = list_datasets().set_index("name")
    for name, line in table.iterrows():
        with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert (line["rows"], line["columns"]) == (len(rows), len(rows[0]))
        for group in line["groups"].split(", "):
            factor, number = re.fullmatch(r"(\w+) \((\d+)\)", group).groups()
            assert len({row[factor] for row in rows}) == int(number)
    assert table.loc["sleepstudy", "source"] == "Belenky et al. (2003)"
    assert not (table == "").any(axis=None)


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_described_as_it_is(name: str) -> None:
    frame, table = load_dataset(name), describe_dataset(name.upper())
    assert list(table.index) == list(frame.columns) == list(frame.attrs["columns"])
    assert (table["what"] != "").all()
    assert table.attrs["source"] == frame.attrs["source"]
    for column, line in table.iterrows():
        levels = getattr(frame[column].dtype, "categories", None)
        kind = "number" if levels is None else f"factor, {len(levels)} levels"
        assert line["kind"].removeprefix("ordered ") == kind
        assert frame.attrs["columns"][column].startswith(line["what"])
        assert frame.attrs["columns"][column].endswith(line["unit"])


def test_a_description_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="there is no data set `sleep`"):
        describe_dataset("sleep")


def test_the_list_is_printed_with_one_line_each() -> None:
    lines = str(list_datasets()).split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == ["name", *NAMES]
    assert max(map(len, lines)) <= 100
