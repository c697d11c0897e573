"""What a model was made of, and another model made of it: other rows, another formula."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from ranef._typing import Array, Places
from ranef.arguments import check_known, option_names
from ranef.design import identifiability
from ranef.design.design import Design, leaving_out
from ranef.design.lazy.lazy_table import has_values, open_lazy
from ranef.errors import FitError, RanefWarning
from ranef.fits.fit import Fit
from ranef.formula import updates
from ranef.formula.syntax import Call, Column
from ranef.formula.terms import read_formula
from ranef.model.summaries.data_summary import DataSummary
from ranef.model.summaries.summarize import updated_summary
from ranef.numerics.memory import WithoutCaches
from ranef.priors.assignment import Priors, resolve
from ranef.priors.user_priors import PriorSetting, restricted

if TYPE_CHECKING:
    from ranef.model.model import Model

OF_ROWS = ("weights", "offset", "se")  # arguments with one value a row


@dataclass(frozen=True, eq=False)
class Ingredients(WithoutCaches):
    """The arguments that a model was made with.

    Attributes
    ----------
    make : callable
        `Model`.
    data : DataFrame or DataSummary
        As it was given: the columns that the formula does not use are there too.
    arguments : mapping of str to object
        All others by name, but for the formula and the priors.
    summary : DataSummary, optional
        What the model has of its data, where it has no rows.
    """

    make: Callable[..., Model]
    data: object
    arguments: Mapping[str, Any]
    summary: DataSummary | None = None

    @property
    def options(self) -> list[str]:
        """The names of the arguments of a model but formula and data."""
        return list(signature(self.make).parameters)[2:]

    def __getstate__(self) -> dict[str, Any]:
        """Leave lazy data behind: they are of an engine of this process."""
        lazy = {} if open_lazy(self.data) is None else {"data": None}
        return super().__getstate__() | lazy

    def with_rows(self, design: Design) -> Ingredients:
        """Return the ingredients of a model of the rows of a design, which are its data."""
        rows, known = design.rows.data, self.arguments["se"] is not None
        weights = rows.weights if rows.weights is None or not known else 1 / np.sqrt(rows.weights)
        values = {"se" if known else "weights": weights, "offset": rows.offset}
        named = {k: v for k, v in self.arguments.items() if k in OF_ROWS and isinstance(v, str)}
        frame = rows.frame(**{k: v for k, v in named.items() if k != "se"})
        arrays = {k: v for k, v in values.items() if k == "se" or k not in named}
        return replace(self, data=frame, arguments=dict(self.arguments) | arrays)


def updated_model(
    made_of: Ingredients,
    design: Design,
    setting: PriorSetting,
    *,
    formula: object,
    data: object,
    changes: Mapping[str, Any],
) -> Model:
    """Return a model with another formula, other data or other options.

    A model of a summary gets the data besides those that it has; they may stand first.

    Parameters
    ----------
    made_of : Ingredients
        Of the model.
    design : Design
    setting : str or dict
        The priors of the model. Where the formula changes, those of parameters that there are no
        more are left out.
    formula : str, optional
        In which `.` stands for that side of the model's own.
    data : DataFrame, optional
        The model's own by default.
    changes : mapping of str to object
        Other arguments of `Model`.

    Raises
    ------
    FitError
        If there is no such argument, or values of rows do not come along with new data.
    """
    check_known(changes, made_of.options, lambda name: f"a model has no option `{name}`.")
    if isinstance(made_of.data, DataSummary):
        of_rows = {name: value for name, value in changes.items() if name != "priors"}
        summary = updated_summary(made_of.data, formula, data, **of_rows)
        return _with_priors(made_of.make(summary), changes.get("priors"), setting)
    if formula is not None and not isinstance(formula, str):
        raise FitError("`formula` is text, as '. ~ . + x'; other data are given as data=.")
    arguments = _changed(made_of.arguments, changes)
    if data is not None:
        _check_rows(arguments, changes)
    functions = design.recipe.functions
    text = (
        design.formula.text
        if formula is None
        else updates.updated(design.formula, formula, functions)
    )
    data = made_of.data if data is None else data
    if data is None:
        raise FitError("the lazy data of this model were left behind: give them as data=.")
    if "priors" in arguments:
        return made_of.make(text, data, **arguments)
    if formula is None and not {"family", "se", "weights"} & changes.keys():
        return made_of.make(text, data, priors=setting, **arguments)
    was_known = made_of.arguments["se"] is not None
    if was_known and arguments["se"] is None and not isinstance(setting, str):
        setting = {key: prior for key, prior in dict(setting).items() if key != "sigma"}
    return _with_priors(made_of.make(text, data, **arguments), None, setting)


def _changed(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with changes, without those that a change takes the place of."""
    changed = dict(arguments)
    if "family" in changes:
        changed["link"] = None
    for one, other in (("se", "weights"), ("weights", "se")):
        if changes.get(one) is not None:
            changed[other] = None
    return changed | dict(changes)


def _with_priors(model: Model, priors: PriorSetting | None, setting: PriorSetting) -> Model:
    """Return a model with priors, or with those of a setting that it has the parameters of."""
    if priors is None:
        priors = restricted(setting, model.design, model.family)
    return model.with_priors(priors)


def _check_rows(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Refuse arrays with a value for each row of the old data."""
    for name in OF_ROWS:
        value = arguments.get(name)
        if value is not None and not isinstance(value, str) and name not in changes:
            raise FitError(
                f"{name}= of this model is an array with a value for each row of its own data: "
                f"give {name}= for the new data too."
            )


def fit_options(
    options: Mapping[str, Any], changes: Mapping[str, Any], run: Callable[..., object]
) -> dict[str, Any]:
    """Return the options of a fit that a method has too, with those that are changed."""
    known = option_names(run)
    return {name: value for name, value in options.items() if name in known} | dict(changes)


def with_plain_response(design: Design, y: Array) -> Design:
    """Return a design with other values of the response, as a column of their own.

    A response that is computed, `log(y)` or `cbind(a, b)`, becomes a column that is called so.
    """
    rows, formula = design.rows, design.formula
    if not isinstance(formula.response, Column):
        named = updates.updated(formula, f"`{design.response}` ~ .", design.recipe.functions)
        is_counted = isinstance(formula.response, Call) and formula.response.function == "cbind"
        formula = read_formula(named, design.recipe.functions)
        if is_counted:
            rows = replace(rows, data=replace(rows.data, weights=rows.weights))
    columns = rows.data.columns.assign(**{design.response: y})
    data = replace(rows.data, columns=columns)
    return replace(design.with_rows(y=y, data=data), formula=formula, success="")


class Updates(ABC):
    """The answers of an engine that are models of other responses, other formulas, other data."""

    data: Any  # a record of design and family
    priors: Priors
    setting: PriorSetting
    ingredients: Ingredients | None

    @property
    @abstractmethod
    def methods(self) -> Mapping[str, Callable[..., Fit]]:
        """What `Model.fit` can do."""

    @property
    def lazy_data(self) -> object:
        """The complete rows of the lazy data that the model was made of; None for others."""
        made_of = self.ingredients
        lazy = None if made_of is None else open_lazy(made_of.data)
        if made_of is None or lazy is None:
            return None
        given = [made_of.arguments[name] for name in ("weights", "offset")]
        used = [*self.data.design.formula.columns(), *(name for name in given if name is not None)]
        return lazy.filter(has_values(lazy, used)).to_native()

    def refit(self, method: str, **options: Any) -> Fit:
        """Fit the same model by another method."""
        return self.methods[method](**options)

    def without(self, rows: Places, method: str, **options: Any) -> Fit:
        """Fit the model without some rows: same codings, same priors, and no warning."""
        engine = cast("Any", self)
        design = leaving_out(self.data.design, rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RanefWarning)
            left = replace(engine, data=replace(self.data, design=design), ingredients=None)
            fit: Fit = left.methods[method](**options)
            return fit

    def with_response(self, y: Array) -> Self:
        """Return the engine of the same model of another response, shape (n,)."""
        design = with_plain_response(self.data.design, y)
        family, made_of, engine = self.data.family.fitted_to(y), self.ingredients, cast("Any", self)
        if self.priors.known_sigma is None:
            identifiability.check_response(design, family)
        changed: Self = replace(
            engine,
            data=replace(self.data, design=design, family=family),
            priors=resolve(design, self.setting, family),
            ingredients=None if made_of is None else made_of.with_rows(design),
        )
        return changed

    def update(
        self,
        method: str | None,
        options: Mapping[str, Any],
        formula: object,
        data: object,
        changes: Mapping[str, Any],
    ) -> Fit:
        """Fit a model with another formula, other data or other options."""
        made_of = self.ingredients
        if made_of is None:
            raise FitError("this fit comes without its model, which cannot be changed.")
        of_model = {name: changes[name] for name in changes if name in made_of.options}
        of_fit = {name: changes[name] for name in changes if name not in of_model}
        model = updated_model(
            made_of, self.data.design, self.setting, formula=formula, data=data, changes=of_model
        )
        name = model.engine.method(method)
        return model.fit(name, **fit_options(options, of_fit, model.engine.methods[name]))
