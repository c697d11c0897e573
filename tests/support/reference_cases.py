"""The reference cases from R as data frames and models."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd

import ranef as rf

REFERENCE = Path(__file__).parents[1] / "reference"


def read_cases(name: str) -> list[dict]:
    """Return the linear cases of one JSON file, each with the folder of its data."""
    return [case for case in _all_cases(name) if _is_linear(case)]


def read_generalized(name: str) -> list[dict]:
    """Return the generalised cases of one JSON file, each with the folder of its data."""
    return [case for case in _all_cases(name) if not _is_linear(case)]


def _all_cases(name: str) -> list[dict]:
    content = json.loads((REFERENCE / name).read_text())
    for case in content["cases"]:
        case["folder"] = REFERENCE / case.get("data_dir", content["meta"]["data_dir"])
    return content["cases"]


def _is_linear(case: dict) -> bool:
    return case["family"] == "gaussian" and case["link"] == "identity"


def music_cases() -> list[dict]:
    """Return the cases on the music data, which is not ours to ship; none if it is not there."""
    folder = os.environ.get("RANEF_MUSICDATA")
    if not folder:
        return []
    return [case | {"folder": Path(folder)} for case in read_cases("lme4_music.json")]


def read_frame(case: dict) -> pd.DataFrame:
    """Read a case's data with the factor levels that R used."""
    levels = {k: v if isinstance(v, list) else [v] for k, v in case["levels"].items()}
    frame = pd.read_csv(case["folder"] / case["data"], dtype=dict.fromkeys(levels, str))
    for column, labels in levels.items():
        if column in frame:
            ordered = column in case.get("ordered", [])
            frame[column] = pd.Categorical(frame[column], labels, ordered=ordered)
    return frame


def python_formula(case: dict) -> str:
    """Return the case's formula in this package's language."""
    return case.get("python") or case["formula"]


def generalized_model(case: dict) -> rf.Model:
    """Return the model of a generalised case."""
    frame = read_frame(case)
    if "derived" in case:
        frame["ch"] = pd.Categorical(frame["livch"].map(lambda n: "NY"[n != "0"]), ["N", "Y"])
    return rf.Model(
        case["formula"],
        frame,
        family=case["family"],
        link=case["link"],
        weights=case.get("weights"),
        offset=case.get("offset"),
    )
