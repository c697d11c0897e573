"""The rows and groups that a prediction is asked of, and refusals of what cannot be answered."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from ranef.design.design import Design
from ranef.design.new_data.new_rows import (
    OF_NO_KNOWN_GROUP,
    NewRows,
    in_one_new_group,
    new_rows,
    own_rows,
)
from ranef.design.rows.rows import TermRows
from ranef.errors import DataError, DataWarning, listed, warn

GROUPS = {"known": "needed", "population": "ignored", "new": "optional", "average": "ignored"}
"""Of which groups, and whether grouping columns have to be there."""


def asked_rows(
    design: Design, new_data: object, groups: str, terms: Collection[str] | None = None
) -> NewRows:
    """Return the rows of new data, or a design's own, with the random terms that take part.

    Parameters
    ----------
    design : Design
    new_data : DataFrame, optional
    groups : {"known", "population", "new", "average"}
        Of a typical group no term takes part, and of the average of groups no level is known.
    terms : collection of str, optional
        Labels of the terms that take part; all by default.

    Raises
    ------
    DataError
        If a level is new and `groups="known"`.
    """
    wanted = () if groups == "population" else terms
    if new_data is None:
        rows = own_rows(design, wanted)
        return in_one_new_group(rows) if groups == "average" else rows
    rows = new_rows(design, new_data, terms=wanted, grouping=GROUPS[groups])
    for term in rows.terms:
        _check_unseen(term, rows.index, known=groups == "known")
    return rows


def _check_unseen(term: TermRows, rows: pd.Index[Any], *, known: bool) -> None:
    """Refuse levels that the model has not seen, or warn if they are known ones in another type."""
    unseen, doubt = rows[term.is_new], term.grouping.doubt
    if doubt and not known:
        warn(f"{doubt} As they are, they are taken for new groups.", DataWarning)
    elif doubt:
        raise DataError(doubt)
    elif len(unseen) and known:
        who = "1 row has a level" if len(unseen) == 1 else f"{len(unseen)} rows have levels"
        raise DataError(
            f"{who} of `{term.factor}` that the model has not seen, {listed(term.grouping.unseen)} "
            f"(row{'s' * (len(unseen) > 1)} {listed(unseen)}): {OF_NO_KNOWN_GROUP}"
        )
