"""The reference cases from lme4 as data frames and keyword arguments."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd

REFERENCE = Path(__file__).parent / "reference"


def read_cases(name: str) -> list[dict]:
    """Return the linear cases of one JSON file, each with the folder of its data."""
    content = json.loads((REFERENCE / name).read_text())
    cases = [case for case in content["cases"] if case["family"] == "gaussian"]
    for case in cases:
        case["folder"] = REFERENCE / case.get("data_dir", content["meta"]["data_dir"])
    return cases


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
