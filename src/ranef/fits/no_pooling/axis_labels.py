"""What stands at the axes of coefficients: what is drawn, of which coefficient, in which units."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ranef.design.design import Design
from ranef.families.family import Family

WORDS = {"": "", "own": "own ", "deviation": "deviation of ", "total": "total of "}


@dataclass(frozen=True, eq=False)
class AxisLabels:
    """The axes of a model's coefficients.

    Units are those of the data frame, where its `attrs` have them, as those of the package's data
    sets do: `frame.attrs["units"] = {"Reaction": "ms", "Days": "days"}`.

    Attributes
    ----------
    design : Design
    family : Family
    """

    design: Design
    family: Family

    def of(self, coef: str, what: str) -> str:
        """Return the label of an axis.

        Parameters
        ----------
        coef : str
        what : {"", "own", "deviation", "total"}

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
        >>> AxisLabels(fit.design, fit.family).of("Days", "deviation")
        'deviation of Days, ms per day'
        """
        unit = self.unit(coef)
        return f"{WORDS[what]}{coef}{', ' if unit else ''}{unit}"

    def of_all(self, coefs: Iterable[str], what: str) -> dict[str, str]:
        """Return the labels by coefficient."""
        return {coef: self.of(coef, what) for coef in coefs}

    def unit(self, coef: str) -> str:
        """Return the units of a coefficient, or the scale of the link; empty if not known."""
        link = self.family.link
        if not link.is_identity:
            return f"{link.name} scale"
        units = self.units
        if (response := units.get(self.design.response)) is None:
            return ""
        powers = self._powers(coef)
        if powers is None:
            return ""
        if not powers:
            return response
        (name, power), *others = powers.items()
        if others or power != 1 or name not in units:
            return ""
        return f"{response} per {_one(units[name])}"

    @property
    def units(self) -> Mapping[str, str]:
        """The units of the columns of the data, as far as they are known."""
        units = self.design.recipe.no_rows.attrs.get("units", {})
        return units if isinstance(units, Mapping) else {}

    def _powers(self, coef: str) -> dict[str, int] | None:
        """Return the predictors that a coefficient is of, with their powers."""
        recipe = self.design.recipe
        for columns in (recipe.X, *(columns for _, columns in recipe.random)):
            if coef in columns.names:
                powers = columns.origins[columns.names.index(coef)].powers
                return {str(node): power for (node, _), power in powers.items()}
        return None

    def titles(self) -> dict[str, str]:
        """Return what terms are called: by their factor, and what they hold if it has several."""
        counts = Counter(term.factor for term in self.design.terms)
        return {
            term.label: f"{term.factor} ({', '.join(term.coefs)})"
            if counts[term.factor] > 1
            else term.factor
            for term in self.design.terms
        }


def _one(units: str) -> str:
    """Return a unit in the singular: day of days, degree F of degrees F."""
    return re.sub(r"^([a-z]{2,}[^\Wsu])s\b", r"\1", units)
