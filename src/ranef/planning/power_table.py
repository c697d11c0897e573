"""`Power`: in how many simulated studies something is found, by the size of the study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Axes, Style
from ranef.arguments import check_choice
from ranef.errors import FitError, listed, probability
from ranef.plots.curves import power_curves
from ranef.printing.summary import Printed, Summary


@dataclass(frozen=True, eq=False, repr=False)
class Power(Printed):
    """What planned studies find.

    Attributes
    ----------
    table : DataFrame
        A row for each size and each effect: the sizes (one column a grouping factor, `rows` of a
        group), `n_obs`, what is to be `found`, the `test`, `power` with the ends `lower` and
        `upper` of its 95 % interval, `studies` that were simulated, and `failed` ones, which count
        as finding nothing.
    sizes : tuple of str
        The columns that say how large a study is.
    formula : str
    truth : tuple of str
        The parameters of the simulated studies, in words.
    alpha : float
        The level of the tests.
    seed : int
        What makes the same studies again.
    """

    table: pd.DataFrame
    sizes: tuple[str, ...]
    formula: str
    truth: tuple[str, ...]
    alpha: float
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Return the table."""
        return self.table.copy()

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        n = int(self.table["studies"].max())
        columns = [*self.sizes, "n_obs", "found", "test", "power", "lower", "upper"]
        shown = self.table[columns].set_index(columns[: len(self.sizes) + 2])
        meaning = (
            f"Power is the share of {n} simulated studies in which the test has p < {self.alpha:g}"
            "; lower and upper are the ends of its 95 % interval (Clopper and Pearson). It is that "
            "of the parameters above: what a pilot study estimates is itself uncertain."
        )
        notes = [meaning]
        failed = int(self.table["failed"].sum())
        if failed:
            notes.append(f"{failed} studies could not be fitted, and count as finding nothing.")
        return Summary(
            title="Power of a planned study",
            facts=(self.formula, "true values: " + ", ".join(self.truth), f"seed={self.seed}"),
            sections=(("By size of the study", shown),),
            notes=tuple(notes),
            frame=self.table,
        )

    def plot(
        self, *, x: str | None = None, target: float | None = 0.8, **style: Unpack[Style]
    ) -> Axes:
        """Draw power against the size of the study, with its intervals.

        Parameters
        ----------
        x : str, optional
            The size on the axis, a column of the table: by default the first that varies.
        target : float, optional
            Where a line is drawn.
        ax : matplotlib Axes, optional
            A new figure is made by default.
        figsize : tuple of float, optional
            Of a new figure, in inches.

        Returns
        -------
        matplotlib Axes
            One line for each effect, and each of the other sizes.
        """
        sizes = [*self.sizes, "n_obs"]
        varied = [name for name in sizes if len(set(self.table[name])) > 1]
        if target is not None:
            probability(target, "target")
        if x is not None:
            check_choice("x", x, sizes, "is no size of a study")
        axis = x or next(iter(varied), sizes[0])
        others = [name for name in self.sizes if name != axis and name in varied]
        label = self.table["found"]
        for name in others:
            label = label + f", {name} " + self.table[name].astype(str)
        lines = self.table.assign(size=self.table[axis], line=label)
        name = {"rows": "rows of each group", "n_obs": "rows"}.get(axis, f"number of {axis} groups")
        return power_curves.power_curves(lines, size=name, target=target, alpha=self.alpha, **style)

    def smallest(self, power: float = 0.8) -> pd.DataFrame:
        """Return, for each effect, the smallest simulated study that finds it with some power.

        Parameters
        ----------
        power : float
            That the estimated power has at least.

        Raises
        ------
        FitError
            If no study does.
        """
        enough = self.table[self.table["power"] >= probability(power, "power")]
        if enough.empty:
            best = float(np.max(self.table["power"]))
            raise FitError(
                f"no study of these sizes has a power of {power:g}: the largest is {best:.2f}, "
                f"among {listed(self.sizes) or 'one size'}. Try larger ones."
            )
        return enough.loc[enough.groupby("found", sort=False)["n_obs"].idxmin()].reset_index(
            drop=True
        )
