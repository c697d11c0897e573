"""The teaching data sets of the field, with their sources.

Small published data sets that the books on hierarchical models work with, as CSV files inside the
package; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

import pandas as pd

from ranef.errors import DataError, suggestion


@dataclass(frozen=True)
class _Dataset:
    """Name, content, source and factors of a data set; levels of factors that are not sorted."""

    name: str
    what: str
    source: str
    factors: tuple[str, ...]
    ordered: tuple[str, ...] = ()
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_DATASETS = (
    _Dataset(
        name="Dyestuff",
        what="yield of dyestuff, five preparations of six batches",
        source="Davies & Goldsmith (1972), sec. 6.4",
        factors=("Batch",),
    ),
    _Dataset(
        name="Dyestuff2",
        what="as Dyestuff, constructed to have no variance between batches",
        source="Box & Tiao (1973), sec. 5.1.2",
        factors=("Batch",),
    ),
    _Dataset(
        name="Penicillin",
        what="zones of growth inhibition, 24 plates crossed with 6 samples",
        source="Davies & Goldsmith (1972), sec. 6.6",
        factors=("plate", "sample"),
    ),
    _Dataset(
        name="Pastes",
        what="strength of a paste, casks nested in batches",
        source="Davies & Goldsmith (1972), sec. 6.5",
        factors=("batch", "cask", "sample"),
    ),
    _Dataset(
        name="sleepstudy",
        what="reaction times of 18 subjects over ten days with little sleep",
        source="Belenky et al. (2003)",
        factors=("Subject",),
    ),
    _Dataset(
        name="cbpp",
        what="new cases of bovine pleuropneumonia in 15 herds and 4 quarters",
        source="Lesnoff et al. (2004)",
        factors=("herd", "period"),
    ),
    _Dataset(
        name="cake",
        what="breaking angle of cakes, split plot: 3 recipes, 6 temperatures",
        source="Cook (1938)",
        factors=("replicate", "recipe", "temperature"),
        ordered=("temperature",),
    ),
    _Dataset(
        name="ScotsSec",
        what="attainment of pupils, primary crossed with secondary schools",
        source="Paterson (1991)",
        factors=("primary", "sex", "second"),
        levels={"sex": ("M", "F")},
    ),
    _Dataset(
        name="Contraception",
        what="use of contraception by women in 60 districts of Bangladesh",
        source="Steele, Diamond & Amin (1996)",
        factors=("woman", "district", "use", "livch", "urban"),
        ordered=("livch",),
    ),
    _Dataset(
        name="Orthodont",
        what="a facial distance of 27 children at ages 8, 10, 12 and 14",
        source="Potthoff & Roy (1964)",
        factors=("Subject", "Sex"),
    ),
    _Dataset(
        name="Machines",
        what="productivity of six workers, three times on each of three machines",
        source="Milliken & Johnson (1992), p. 285",
        factors=("Worker", "Machine"),
    ),
    _Dataset(
        name="Oats",
        what="yield of oats, split plot: 3 varieties, 4 amounts of nitrogen",
        source="Yates (1935)",
        factors=("Block", "Variety"),
    ),
)


def list_datasets() -> list[str]:
    """Return the names of the data sets; `load_dataset` has their sources.

    Examples
    --------
    >>> list_datasets()[:3]
    ['Dyestuff', 'Dyestuff2', 'Penicillin']
    """
    return [dataset.name for dataset in _DATASETS]


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
        Its `attrs` say `what` it is and its `source`.

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
    >>> sleep.attrs["source"]
    'Belenky et al. (2003)'
    """
    record = _record(name)
    with (files("ranef") / "data" / f"{record.name}.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file, dtype=dict.fromkeys(record.factors, str))
    frame = frame.astype({column: _dtype(record, column, frame) for column in record.factors})
    frame.attrs = {"name": record.name, "what": record.what, "source": record.source}
    return frame


def _record(name: str) -> _Dataset:
    by_name = {dataset.name.lower(): dataset for dataset in _DATASETS}
    wanted = str(name)  # whatever it may really be
    if wanted.lower() not in by_name:
        raise DataError(f"there is no data set `{wanted}`. {suggestion(wanted, list_datasets())}")
    return by_name[wanted.lower()]


def _dtype(record: _Dataset, column: str, frame: pd.DataFrame) -> pd.CategoricalDtype:
    levels = record.levels.get(column) or _in_order(frame[column].unique().tolist())
    return pd.CategoricalDtype(list(levels), ordered=column in record.ordered)


def _in_order(labels: list[str]) -> list[str]:
    """Sort labels: numbers by value, anything else by code point, as R in the C locale."""
    are_numbers = all(label.isdecimal() for label in labels)
    return sorted(labels, key=int) if are_numbers else sorted(labels)
