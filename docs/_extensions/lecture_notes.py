"""What lecture notes print, beside what the package finds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

import ranef as rf

DATA = Path(__file__).parents[1] / "_data" / "lectures.json"
Record = Mapping[str, Any]


def records(source: str | None = None) -> list[dict[str, Any]]:
    """Return the fits that are printed, of one source or of all; numbers keep their digits."""
    printed = json.loads(DATA.read_text(), parse_float=Decimal, parse_int=Decimal)["fits"]
    return [one for one in printed if source in {None, one["source"]}]


def record_of(fit: rf.PointFit) -> dict[str, Any]:
    """Return what is printed of a fit: the record of its formula and its method."""
    wanted = (_squeezed(fit.design.formula.text), fit.method)
    for one in records():
        if (_squeezed(one["formula"]), one["method"]) == wanted:
            return one
    raise LookupError(f"no lecture notes print {wanted[0]} by {wanted[1]}")


def beside(
    fit: rf.PointFit, model: rf.Model | None = None, record: Record | None = None
) -> pd.DataFrame:
    """Return the estimates that notes print of a fit beside the fit's own.

    Parameters
    ----------
    fit : PointFit
    model : Model, optional
        Of a linear fit: for the deviance of a REML fit, and the REML criterion of an ML fit.
    record : mapping, optional
        One of `records()`; by default that of the formula and the method of the fit.

    Returns
    -------
    DataFrame
        As of `comparison`, a row for each number.
    """
    notes = dict(_printed_estimates(record or record_of(fit)))
    own = _criteria(fit, model) | dict(_variances(fit)) | dict(_fixed_effects(fit))
    return comparison({name: (value, own[name]) for name, value in notes.items() if name in own})


def effects_beside(fit: rf.PointFit, record: Record | None = None) -> pd.DataFrame:
    """Return the random effects that notes print of a fit beside the fit's own."""
    tables: dict[str, list[pd.DataFrame]] = {}
    for table in fit.ranef().values():
        tables.setdefault(str(table.index.name), []).append(table)
    pairs = {}
    for factor, printed in (record or record_of(fit)).get("ranef", {}).items():
        table = pd.concat(tables[factor], axis=1)
        rows = printed.values() if isinstance(printed, dict) else printed
        for (level, own), row in zip(table.iterrows(), rows, strict=True):
            values = row if isinstance(row, list) else [row]
            for coefficient, value in zip(table.columns, values, strict=True):
                pairs[f"{factor} {level} {coefficient}"] = value, float(own[coefficient])
    return comparison(pairs)


def comparison(pairs: Mapping[str, tuple[Decimal | str, float]]) -> pd.DataFrame:
    """Return a table of printed numbers and our own.

    Parameters
    ----------
    pairs : mapping of str to (printed, own)
        What is printed as `Decimal` or text, which keep the digits.

    Returns
    -------
    DataFrame
        `notes`, as it is printed; `ours`, with two more digits; their `difference`; and whether
        ours rounds to the digits that are printed.
    """
    rows = {}
    for name, (printed, own) in pairs.items():
        exact = Decimal(printed)
        places = max(0, -int(exact.as_tuple().exponent))
        half = Decimal(10) ** -places / 2
        rows[name] = {
            "notes": str(printed),
            "ours": f"{own:.{places + 2}f}",
            "difference": f"{own - float(exact):.1g}",
            "same digits": "yes"
            if abs(Decimal(float(own)) - exact) <= half * Decimal("1.0001")
            else "no",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _squeezed(formula: str) -> str:
    return "".join(formula.split())


def _name(coefficient: str) -> str:
    """Return the name of a coefficient, R's and ours being made equal."""
    return coefficient.replace("[T.", "").replace("]", "").replace("(Intercept)", "Intercept")


def _printed_estimates(record: Record) -> Iterator[tuple[str, Decimal]]:
    for name in ("AIC", "BIC", "logLik", "deviance", "REMLdev", "corr_fixef"):
        if name in record:
            yield name, record[name]
    for what in ("variance", "sd", "corr"):
        for factor, values in record.get(what, {}).items():
            named = values if isinstance(values, dict) else {"": values}
            for coefficient, value in named.items():
                yield f"{what} {factor} {_name(coefficient)}".strip(), value
    for what in ("fixef", "se", "t"):
        for coefficient, value in record.get(what, {}).items():
            yield f"{what} {_name(coefficient)}", value


def _criteria(fit: rf.PointFit, model: rf.Model | None) -> dict[str, float]:
    own = {"AIC": fit.aic, "BIC": fit.bic, "logLik": fit.loglik}
    if model is None:
        own["REMLdev" if fit.method == "reml" else "deviance"] = fit.objective
    else:
        own["deviance"] = model.criterion(fit.theta, "ml")
        own["REMLdev"] = model.criterion(fit.theta, "reml")
    return own


def _variances(fit: rf.PointFit) -> Iterator[tuple[str, float]]:
    for row in fit.varcorr().table.to_dict("records"):
        factor = re.sub(r"_\d+$", "", row["grp"])  # a second term of a factor has a number
        factor = factor if factor in fit.n_groups else row["grp"]
        if isinstance(row["var2"], str):
            yield f"corr {factor}", row["sdcor"]
        else:
            name = f"{factor} {_name(row['var1'])}" if isinstance(row["var1"], str) else factor
            yield f"variance {name}", row["vcov"]
            yield f"sd {name}", row["sdcor"]


def _fixed_effects(fit: rf.PointFit) -> Iterator[tuple[str, float]]:
    errors, covariance = fit.se(), fit.vcov().to_numpy()
    for name, estimate in fit.fixef().items():
        yield f"fixef {_name(str(name))}", estimate
        yield f"se {_name(str(name))}", errors[name]
        yield f"t {_name(str(name))}", estimate / errors[name]
    if len(covariance) > 1:
        yield "corr_fixef", covariance[1, 0] / (covariance[0, 0] * covariance[1, 1]) ** 0.5
