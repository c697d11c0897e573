"""Every number that lecture notes print, checked: ours beside it, and why it is another one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from lecture_notes import Record, beside, comparison, effects_beside, records

import ranef as rf
from ranef.priors import Constant, Flat

TUTORIALS = Path(__file__).parents[1] / "tutorials"
MUSIC = Path(os.environ.get("MUSICDATA", TUTORIALS / "musicdata.csv"))
EARLY = "early stop"
GIVEN_THETA = "given theta"
OF_ROUNDED = "sum of rounded"
REASONS = {
    EARLY: "differ because the notes' optimiser stopped before the minimum",
    GIVEN_THETA: "are standard errors of generalised models, taken as if theta were known",
    OF_ROUNDED: "is a sum of rounded numbers",
}
NOT_HERE = {"grades": "the data are not public", "musicdata": "the data are not ours to give"}
NO_TABLE = pd.DataFrame(columns=["notes", "ours", "difference", "same digits"])


@dataclass(frozen=True)
class Checked:
    """The numbers that are printed of one fit, beside ours.

    Attributes
    ----------
    record : mapping
        Of `lectures.json`.
    table : DataFrame
        As of `lecture_notes.comparison`, and why a number is another one: `because`.
    excess : float
        By how much the criterion is above its minimum at the variances that are printed.
    why_not : str
        Why the fit cannot be checked, or empty.
    """

    record: Record
    table: pd.DataFrame
    excess: float = np.nan
    why_not: str = ""

    @property
    def n_printed(self) -> int:
        """How many numbers are printed."""
        return sum(1 for _ in _leaves(self.record)) if self.why_not else len(self.table)

    def html(self) -> str:
        """Return a table that opens at a click."""
        what = f"{self.record['data']}, <code>{escape(self.record['formula'])}</code>"
        what += f", {self.record['method'].upper()}"
        if self.why_not:
            return f"<p>{what}: {self.n_printed} numbers, not checked: {self.why_not}.</p>"
        same = int((self.table["same digits"] == "yes").sum())
        head = f"{what}: {same} of {len(self.table)} the same"
        above = f"At the printed estimates the criterion is {self.excess:.1g} above its minimum."
        words = f"<p>{above}</p>" * (self.excess > 0 and same < len(self.table))
        body = scrolled(self.table.drop(columns="same digits").to_html(border=0, classes="table"))
        return f"<details class=checked><summary>{head}</summary>{words}{body}</details>"


def scrolled(table: str) -> str:
    """Return a table that a narrow screen can move."""
    return f'<div class="pst-scrollable-table-container">{table}</div>'


def every_number() -> list[Checked]:
    """Fit every model of which the notes print numbers, and compare them all."""
    return [check(record) for record in records()]


def check(record: Record) -> Checked:
    """Compare all numbers that are printed of one fit."""
    name = record["data"].split()[0]
    if name in NOT_HERE and not (name == "musicdata" and MUSIC.is_file()):
        return Checked(record, NO_TABLE, why_not=NOT_HERE[name])
    record, data = _with_our_names(record), data_of(name)
    model = rf.Model(record["formula"], data, family=record.get("family", "gaussian"))
    fit = model.fit(record["method"])
    tables = [
        beside(fit, model if model.family.is_linear else None, record),
        effects_beside(fit, record),
        comparison(dict(_steps(record, fit, model)) | dict(_musicians(record, fit))),
    ]
    table = pd.concat([one for one in tables if len(one)])
    theirs = dict(_given_theirs(record, fit, model))
    differs = table["same digits"] == "no"
    table["because"] = [_because(name, fit) if differs[name] else "" for name in table.index]
    table["ours their way"] = [
        f"{theirs[name]:.{_decimals(notes)}f}" if differs[name] and name in theirs else ""
        for name, notes in table["notes"].items()
    ]
    for name, row in table[differs].iterrows():
        if not _is_explained(row):
            words = f"{name} is {row['ours']}, which {row['because']} does not explain"
            raise RuntimeError(f"{record['formula']}: {row['notes']} is printed, {words}")
    return Checked(record, table, excess=_excess(record, fit, model))


def summary(checked: list[Checked]) -> HTML:
    """Count: how many numbers are printed, how many are ours, and why others are not."""
    table = pd.concat([one.table for one in checked])
    left = [one for one in checked if one.why_not]
    other = table[table["same digits"] == "no"]
    same = len(table) - len(other)
    lines = [f"<b>{len(table)}</b> numbers are checked; <b>{same}</b> agree to all printed digits."]
    counts = other["because"].value_counts().items()
    lines += [f"<b>{n}</b> {REASONS[reason]} (<i>{reason}</i>)." for reason, n in counts]
    known = other[other["ours their way"] != ""]
    printed = known["notes"].astype(float)
    off = {x: (known[x].astype(float) / printed - 1).abs() for x in ("ours", "ours their way")}
    ours, theirs = off.values()
    lines.append(
        f"Of <b>{len(known)}</b> of these the reason can be tried out: done in the notes' way, "
        f"<b>{(theirs < ours).sum()}</b> come nearer to what is printed; the median relative "
        f"difference falls from {ours.median():.1g} to {theirs.median():.1g}."
    )
    for one in left:
        data = escape(one.record["data"].split(" (")[0])
        lines.append(f"<b>{one.n_printed}</b> of {data} are not checked: {one.why_not}.")
    return HTML('<ul class="counts">' + "".join(f"<li>{line}</li>" for line in lines) + "</ul>")


def data_of(name: str) -> pd.DataFrame:
    """Return a data set; of Contraception with `ch`, whether there are children."""
    if name == "musicdata":
        return pd.read_csv(MUSIC)
    data = rf.load_dataset(name)
    if name == "Contraception":
        data["ch"] = np.where(data["livch"] == "0", "N", "Y")
    return data


def _with_our_names(record: Record) -> dict[str, Any]:
    """Return the record with levels called by their factor too, where they are not."""

    def renamed(one: Any) -> Any:
        if not isinstance(one, dict):
            return one
        new = {"Small Ensemble": "perform_typeSmall Ensemble", "Solo": "perform_typeSolo"}
        return {new.get(key, key): renamed(value) for key, value in one.items()}

    found: dict[str, Any] = renamed(dict(record))
    return found


def _steps(
    record: Record, fit: rf.PointFit, model: rf.Model
) -> Iterator[tuple[str, tuple[Any, float]]]:
    """Yield what is printed of theta and of the optimiser's way to it, and fitted values."""
    for name, value, own in zip(fit.theta_names, record.get("theta", ()), fit.theta, strict=False):
        yield f"theta {name}", (value, own)
    for value, theta in record.get("verbose_trace", ()):
        yield f"criterion at theta = {theta}", (value, model.criterion([float(theta)]))
    if "Sigma_diagonal" in record:
        yield "diagonal of Lambda Lambda'", (record["Sigma_diagonal"], fit.theta[0] ** 2)
    for place, value in enumerate(record.get("fitted_first_of_each_batch", ())):
        own = fit.coef()["Batch"]["Intercept"]
        yield f"fitted {own.index[place]}", (value, own.iloc[place])


def _musicians(record: Record, fit: rf.PointFit) -> Iterator[tuple[str, tuple[Any, float]]]:
    """Yield what is printed of one fit alone: counts, coefficients, a prediction."""
    if "coef_first_three" not in record:
        return
    yield "rows", (record["n_obs"], fit.n_obs)
    yield "levels of id", (record["n_groups"]["id"], fit.n_groups["id"])
    corr = fit.varcorr().corr["id"].to_numpy()
    for place, value in enumerate(record["corr_printed"], 1):
        yield f"corr id {place}", (value, corr[0, place])
    for level, values in record["coef_first_three"].items():
        own = fit.coef()["id"].set_axis(map(str, fit.coef()["id"].index)).loc[level]
        for name, value in zip(own.index, values, strict=True):
            yield f"coef {level} {name}", (value, own[name])
    new = pd.DataFrame({"id": [1], "perform_type": ["Solo"]})
    yield "musician 1 before a solo", (record["prediction"]["answer"], fit.predict(new)[0])


def _because(name: str, fit: rf.PointFit) -> str:
    if name.startswith("musician"):
        return OF_ROUNDED
    return GIVEN_THETA if name.startswith("se ") and not fit.family.is_linear else EARLY


def _is_explained(row: pd.Series[Any]) -> bool:
    """Whether a number is another one by no more than its reason allows.

    The optimiser stopped up to a quarter of a per cent early; standard errors given theta are those
    that are printed.
    """
    printed = float(row["notes"])
    last = 10.0 ** -_decimals(row["notes"])
    if row["because"] == GIVEN_THETA:
        return abs(float(row["ours their way"]) - printed) <= 5e-6 * abs(printed) + last
    return abs(float(row["ours"]) - printed) <= 2.5e-3 * abs(printed) + last


def _decimals(printed: str) -> int:
    return len(printed.partition(".")[2])


def _plain(name: str) -> str:
    return re.sub(r"\[T\.(.*?)\]", r"\1", name)


def _excess(record: Record, fit: rf.PointFit, model: rf.Model) -> float:
    """Return by how much the criterion is above ours at the printed estimates."""
    residual = float(record["variance"].get("Residual", 1))
    theta: list[float] = []
    for term in fit.design.terms:
        printed = record["variance"][term.factor]
        sds = np.sqrt([float(printed[_printed_name(coef)]) for coef in term.coefs])
        k = len(sds)
        corr = np.eye(k)
        if k == 2:
            corr[0, 1] = corr[1, 0] = float(record["corr"][term.factor])
        elif k > 2:
            return np.nan
        Lambda = np.linalg.cholesky(np.outer(sds, sds) * corr) / residual**0.5
        theta += [Lambda[i, j] for j in range(k) for i in range(j, k)]
    if model.family.is_linear:
        return model.criterion(theta, record["method"]) - fit.objective
    beta = [float(value) for value in record["fixef"].values()]
    return -2 * model.log_likelihood(theta, beta) - fit.objective


def _given_theirs(record: Record, fit: rf.PointFit, model: rf.Model) -> Iterator[tuple[str, float]]:
    """Yield what we find in the way of the notes.

    Of linear models, whose terms are not correlated, effects and errors if the printed variances
    are known; of generalised ones the standard errors as if theta were known.
    """
    terms = model.design.terms
    if not model.family.is_linear:
        q = fit.Z().shape[1]
        R_X = fit.cholesky(fixed=True)[q:, q:].T
        errors = np.sqrt(np.diag(np.linalg.inv(R_X.T @ R_X)))
        yield from zip([f"se {_plain(str(one))}" for one in fit.fixef().index], errors, strict=True)
        return
    if any(term.n_coefs > 1 for term in terms):
        return
    known = {"sigma": Constant(float(record["variance"]["Residual"]) ** 0.5)}
    for term in terms:
        printed = record["variance"][term.factor][_printed_name(term.coefs[0])]
        known[f"sd_{term.label}"] = Constant(float(printed) ** 0.5)
    flat = dict.fromkeys(model.design.fixed, Flat())
    given = model.with_priors(known | flat).fit("quadrature")
    for name, estimate in given.fixef().items():
        yield f"fixef {_plain(str(name))}", estimate
        yield f"se {_plain(str(name))}", given.se()[name]
        yield f"t {_plain(str(name))}", estimate / given.se()[name]
    for row in given.ranef_table().to_dict("records"):
        factor = row["term"].removesuffix("_1")
        yield f"{factor} {row['level']} {row['coef']}", row["estimate"]


def _printed_name(coef: str) -> str:
    return {"Intercept": "(Intercept)"}.get(coef, _plain(coef))


def _leaves(one: Any) -> Iterator[object]:
    """Yield the numbers of a record."""
    if isinstance(one, Mapping | list):
        for part in one.values() if isinstance(one, Mapping) else one:
            yield from _leaves(part)
    elif not isinstance(one, str):
        yield one
