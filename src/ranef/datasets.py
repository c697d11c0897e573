"""The teaching data sets of the field, with their sources.

Small published data sets that the books on hierarchical models work with, as CSV files inside the
package; nothing is downloaded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from ranef.errors import DataError, suggestion
from ranef.printing.frames import Table

FOLDER = files("ranef") / "data"
NUMBER, ORDERED = "number", "ordered"  # kinds of columns; others are factors


@cache
def _descriptions() -> Mapping[str, Mapping[str, Any]]:
    """Return what is written of every data set: what, source, groups, columns."""
    with (FOLDER / "datasets.toml").open("rb") as file:
        return tomllib.load(file)


def list_datasets() -> Table:
    """Return the teaching data sets, one line each; `describe_dataset` has their columns.

    Returns
    -------
    DataFrame
        `name`; the number of `rows`; `what` it is about; `groups`, the grouping factors with
        their numbers of levels; the number of `columns`; the `source`.

    Examples
    --------
    >>> table = list_datasets()
    >>> table.loc[table["name"] == "Penicillin", "groups"].item()
    'plate (24), sample (6)'
    >>> list(table["name"])[:3]
    ['Dyestuff', 'Dyestuff2', 'Penicillin']
    """
    return Table([_line(name, about) for name, about in _descriptions().items()])


def _line(name: str, about: Mapping[str, Any]) -> dict[str, object]:
    frame = load_dataset(name)
    groups = [f"{group} ({frame[group].nunique()})" for group in about["groups"]]
    said = {"name": name, "rows": len(frame), "what": about["what"], "groups": ", ".join(groups)}
    return {**said, "columns": frame.shape[1], "source": about["source"]}


def describe_dataset(name: str) -> Table:
    """Return what the columns of a data set are.

    Parameters
    ----------
    name : str
        As in `list_datasets`, in capitals or not.

    Returns
    -------
    DataFrame
        One row a column of the data: `kind` (a number, or a factor with its number of levels),
        `unit` (empty where there is none) and `what` it is. Its `attrs` say `what` the data are
        and their `source`.

    Raises
    ------
    DataError
        If there is no data set of this name.

    Examples
    --------
    >>> describe_dataset("sleepstudy")
              kind               unit  what
    Reaction  number             ms    mean reaction time of the day
    Days      number             days  0, 1 training, 2 baseline, then 3 h in bed
    Subject   factor, 18 levels        subject
    """
    frame = load_dataset(name)
    columns = _descriptions()[frame.attrs["name"]]["columns"]
    rows = [
        {"kind": _kind(about["kind"], frame[column]), "unit": about["unit"], "what": about["what"]}
        for column, about in columns.items()
    ]
    table = Table(rows, index=list(columns))
    table.attrs = {key: frame.attrs[key] for key in ("name", "what", "source")}
    return table


def _kind(kind: str, values: pd.Series[Any]) -> str:
    """Return what a column is: a number, or a factor with its number of levels."""
    if kind == NUMBER:
        return kind
    return f"{'ordered ' * (kind == ORDERED)}factor, {values.nunique()} levels"


def load_dataset(name: str) -> pd.DataFrame:
    """Load a data set by its name, in capitals or not.

    Factors are categorical with text labels, also those that look like numbers (`Subject`,
    `herd`). Labels that are numbers are in numeric order, others sorted, `sex` as M, F; the first
    level is the reference. Only `livch` and `temperature` are ordered categories. Every call
    reads a new frame.

    ============= ==== =============================================================== =========
    name          rows source                                                          taken from
    ============= ==== =============================================================== =========
    Dyestuff        30 Davies & Goldsmith (1972), sec. 6.4                             R's lme4
    Dyestuff2       30 Box & Tiao (1973), sec. 5.1.2                                   R's lme4
    Penicillin     144 Davies & Goldsmith (1972), sec. 6.6                             R's lme4
    Pastes          60 Davies & Goldsmith (1972), sec. 6.5                             R's lme4
    sleepstudy     180 Belenky et al. (2003), J. Sleep Research 12, 1-12               R's lme4
    cbpp            56 Lesnoff et al. (2004), Prev. Vet. Medicine 64, 27-40            R's lme4
    cake           270 Cook (1938), MSc thesis, Iowa State College                     R's lme4
    ScotsSec      3435 Paterson (1991), Evaluation Res. Education 5, 97-121            R's mlmRev
    Contraception 1934 Steele, Diamond & Amin (1996), J. R. Stat. Soc. A 159, 289-299  R's mlmRev
    Orthodont      108 Potthoff & Roy (1964), Biometrika 51, 313-326                   R's nlme
    Machines        54 Milliken & Johnson (1992), p. 285                               R's nlme
    Oats            72 Yates (1935), Suppl. J. R. Stat. Soc. 2, 181-247                R's nlme
    ============= ==== =============================================================== =========

    Parameters
    ----------
    name : str
        One of the names above.

    Returns
    -------
    pandas.DataFrame
        Its `attrs` say `what` it is, its `source`, and what its `columns` are, with `units`, which
        plots write on their axes; `describe_dataset` has these as a table.

    Raises
    ------
    DataError
        If there is no data set of this name.

    References
    ----------
    Davies, O. L. & Goldsmith, P. L., eds (1972). *Statistical Methods in Research and
    Production*, 4th ed. Oliver & Boyd.
    Box, G. E. P. & Tiao, G. C. (1973). *Bayesian Inference in Statistical Analysis*.
    Addison-Wesley.
    Milliken, G. A. & Johnson, D. E. (1992). *Analysis of Messy Data*, vol. I. Chapman & Hall.

    Examples
    --------
    >>> sleep = load_dataset("sleepstudy")
    >>> sleep.head(3)
       Reaction  Days Subject
    0  249.5600     0     308
    1  258.7047     1     308
    2  250.8006     2     308
    >>> list(sleep["Subject"].cat.categories[:3])
    ['308', '309', '310']
    >>> sleep.attrs["source"], sleep.attrs["columns"]["Reaction"]
    ('Belenky et al. (2003)', 'mean reaction time of the day, ms')
    """
    known = _known(name)
    about = _descriptions()[known]
    columns = about["columns"]
    factors = [column for column, facts in columns.items() if facts["kind"] != NUMBER]
    with (FOLDER / f"{known}.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file, dtype=dict.fromkeys(factors, str))
    frame = frame.astype({column: _dtype(columns[column], frame[column]) for column in factors})
    said = {
        column: ", ".join(filter(None, [facts["what"], facts["unit"]]))
        for column, facts in columns.items()
    }
    units = {column: facts["unit"] for column, facts in columns.items() if facts["unit"]}
    frame.attrs = {"name": known, "what": about["what"], "source": about["source"]}
    frame.attrs |= {"columns": said, "units": units}
    return frame


def _known(name: object) -> str:
    """Return the name of a data set as it is written."""
    by_name = {known.lower(): known for known in _descriptions()}
    wanted = str(name)  # whatever it may really be
    if wanted.lower() not in by_name:
        raise DataError(f"there is no data set `{wanted}`. {suggestion(wanted, _descriptions())}")
    return by_name[wanted.lower()]


def _dtype(facts: Mapping[str, Any], values: pd.Series[Any]) -> pd.CategoricalDtype:
    levels = facts.get("levels") or _in_order(values.unique().tolist())
    return pd.CategoricalDtype(list(levels), ordered=facts["kind"] == ORDERED)


def _in_order(labels: list[str]) -> list[str]:
    """Sort labels: numbers by value, anything else by code point, as R in the C locale."""
    are_numbers = all(label.isdecimal() for label in labels)
    return sorted(labels, key=int) if are_numbers else sorted(labels)
