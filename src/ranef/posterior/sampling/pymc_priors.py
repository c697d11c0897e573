"""Priors in PyMC: read back from the random variables of a model, and the model as a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ranef.priors import distributions
from ranef.priors.assignment import PriorRow
from ranef.priors.distributions import (
    LKJ,
    Constant,
    Flat,
    Gamma,
    HalfNormal,
    InverseGamma,
    Prior,
    Relative,
)
from ranef.priors.random_variables import KINDS_OF_PRIOR, is_helper

if TYPE_CHECKING:
    import pymc as pm

type Variable = Any  # a PyTensor variable; PyMC's functions carry no types

_PARAMETER = re.compile(
    rf"(?:(?:{KINDS_OF_PRIOR})_)?(?P<relative>relative_)?(?P<moved>at_mean_|nearest_)?"
    r"(?:free_)?(?P<parameter>beta|sigma|sd_.*|partial_corr_.*)"
)
_PREFIX = re.compile(rf"\b(?:(?:{KINDS_OF_PRIOR}|relative|at_mean|nearest|free|partial)_)+")
_LINE = re.compile(r"^ *(\S+) ([~=]) (.*)$", re.MULTILINE)  # of PyMC's text
_ARGUMENTS = re.compile(r"\bf\(([^()]*)\)")  # of a function, in PyMC's text
FAMILY_PARAMETERS = "family_parameters"  # the coordinate that names the variables of a family


class PriorTable(pd.DataFrame):
    """A table of priors, which prints with all of its rows and columns."""

    def __repr__(self) -> str:
        return self.to_string()


@cache
def model_class() -> type[pm.Model]:
    """Return the class of models that print as a textbook writes them."""
    import pymc as pm

    class TextbookModel(pm.Model):  # type: ignore[misc]
        """A PyMC model whose text names every coefficient with its prior."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            of_pymc: Callable[..., str] = self.str_repr  # type: ignore[has-type]

            def textbook(_: pm.Model, formatting: str = "plain", **include: bool) -> str:
                text: str = of_pymc(formatting, **include)
                return _textbook(self, text) if formatting == "plain" else text

            self.str_repr = MethodType(textbook, self)

        def __str__(self) -> str:
            text: str = self.str_repr()
            return text

    return TextbookModel


def _textbook(model: pm.Model, text: str) -> str:
    """Return PyMC's text of a model with a line for each prior, as `prior_table` has them."""
    rows = _rows(model)
    names = [row.coef if row.parameter == "beta" else row.name for row in rows]
    priors = [", ".join(filter(None, (str(row.prior), row.note))) for row in rows]
    lines = [(name, "~", prior) for name, prior in zip(names, priors, strict=True)]
    said = {row.parameter for row in rows} | {variable.name for variable in model.data_vars}
    for name, sign, distribution in _LINE.findall(text):
        if (parameter := _parameter(name)) not in said:
            said.add(parameter)
            arguments = _ARGUMENTS.sub(lambda found: _named(found[1], model), distribution)
            lines.append((parameter, sign, arguments.replace("MvNormal(", "Normal(0, ")))
    width = max((len(name) for name, *_ in lines), default=0)
    return "\n".join(f"{name:>{width}} {sign} {of}" for name, sign, of in lines)


def _parameter(name: str) -> str:
    """Return the parameter that a helper variable stands for."""
    return _PREFIX.sub("", name) if is_helper(name) else name


def _named(arguments: str, model: pm.Model) -> str:
    """Return the arguments of a function: parameters once each, without the data."""
    data = {variable.name for variable in model.data_vars}
    names = [name for name in arguments.split(", ") if name not in data]
    return f"f({', '.join(dict.fromkeys(map(_parameter, names)))})"


def prior_table(model: pm.Model) -> pd.DataFrame:
    """Tabulate the priors of a model, read back from its variables.

    Parameters
    ----------
    model : pymc.Model
        A model from `hierarchical`. Variables that were added to it are left out.

    Returns
    -------
    DataFrame
        Columns `parameter` (`beta`, `sigma`, `sd_<term>`, `corr_<term>`), `coef`, `prior` (text)
        and `note`, which says where the prior holds if not at zero predictors.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy")).to_pymc()
    >>> print(prior_table(model)[["parameter", "coef", "prior"]].to_string(index=False))
     parameter      coef                prior
          beta Intercept Normal(298.5, 140.8)
          beta      Days     Normal(0, 48.89)
         sigma           HalfStudentT(3, 56.33)
    sd_Subject Intercept HalfStudentT(3, 56.33)
    """
    return PriorTable(
        [(row.parameter, row.coef, str(row.prior), row.note) for row in _rows(model)],
        columns=["parameter", "coef", "prior", "note"],
    )


def _rows(model: pm.Model) -> list[PriorRow]:
    names = {v.name for v in (*model.free_RVs, *filter(_is_constant, model.deterministics))}
    variables = (variable for name, variable in model.named_vars.items() if name in names)
    rows = [row for variable in variables for row in _prior_rows(model, variable)]
    parameters = list(dict.fromkeys(row.parameter for row in rows))
    return sorted(rows, key=lambda row: (parameters.index(row.parameter), _position(model, row)))


# From random variables back to their priors


def _prior_rows(model: pm.Model, rv: Variable) -> list[PriorRow]:
    if rv.name in model.coords.get(FAMILY_PARAMETERS, ()):
        return [PriorRow(rv.name, "", _records(rv)[-1], "")]
    match = _PARAMETER.fullmatch(rv.name)
    if match is None:
        return []
    parameter = match["parameter"]
    if parameter.startswith("partial_"):
        parameter = parameter.removeprefix("partial_")
        (note,) = model.coords.get(f"nearest_sd_{parameter.removeprefix('corr_')}_place", ("",))
        return [PriorRow(parameter, "", _records(rv)[-1], note)]
    dims = model.named_vars_to_dims.get(rv.name)
    coefs = model.coords[dims[0]] if dims else ("",)
    name = f"{match['moved'] or ''}{parameter}"
    moved, (note,) = (
        model.coords.get(f"{name}_{of_kind}", default)
        for of_kind, default in (("moved", ()), ("place", ("",)))
    )
    notes = (note if coef in moved else "" for coef in coefs)
    priors = _records(rv, len(coefs))
    rows = zip(coefs, map(Relative, priors) if match["relative"] else priors, notes, strict=True)
    return [PriorRow(parameter, coef, prior, note) for coef, prior, note in rows]


def _is_constant(variable: Variable) -> bool:
    """Whether a deterministic variable is a constant, and no function of others."""
    from pytensor.graph.basic import Constant as Number

    inputs = variable.owner.inputs if variable.owner else [variable]
    return len(inputs) == 1 and isinstance(inputs[0], Number)


def _records(rv: Variable, n: int = 1) -> list[Prior]:
    """Return the prior record of each element of a variable, from its distribution or value."""
    from pymc.pytensorf import constant_fold

    name = type(rv.owner.op).__name__.removesuffix("RV") if rv.owner else ""
    if name in ("Flat", "HalfFlat"):
        return [Flat()] * n
    is_constant = not hasattr(rv.owner and rv.owner.op, "dist_params")
    parameters = (rv,) if is_constant else rv.owner.op.dist_params(rv.owner)
    numbers = [np.atleast_1d(x) for x in constant_fold(tuple(parameters))]
    rows = zip(*(np.broadcast_to(x, max(n, x.size)).tolist() for x in numbers), strict=True)
    make = Constant if is_constant else _FROM_PYMC.get(name) or getattr(distributions, name)
    return [make(*row) for row in rows]


# Where PyMC's names and numbers are not those of the record; a Beta variable stands for an LKJ
_FROM_PYMC: Mapping[str, Callable[..., Prior]] = {
    "HalfNormal": lambda _, sigma: HalfNormal(sigma),
    "Gamma": lambda alpha, scale: Gamma(alpha, 1 / scale),
    "InvGamma": InverseGamma,
    "Beta": lambda alpha, _: LKJ(alpha),
}


def _position(model: pm.Model, row: PriorRow) -> int:
    """Return the position of a coefficient in its parameter: mixed priors are split by kind."""
    dims = model.named_vars_to_dims.get(row.parameter)
    return list(model.coords[dims[0]]).index(row.coef) if dims and row.coef else 0
