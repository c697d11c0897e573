"""PyMC models as a text: every coefficient with its prior, as a textbook writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any

from ranef.priors.assignment import PriorRow
from ranef.priors.random_variables import KINDS_OF_PRIOR, is_helper

if TYPE_CHECKING:
    import pymc as pm

_PREFIX = re.compile(rf"\b(?:(?:{KINDS_OF_PRIOR}|relative|at_mean|nearest|free|partial)_)+")
_LINE = re.compile(r"^ *(\S+) ([~=]) (.*)$", re.MULTILINE)  # of PyMC's text
_ARGUMENTS = re.compile(r"\bf\(([^()]*)\)")  # of a function, in PyMC's text


@cache
def model_class() -> Callable[..., pm.Model]:
    """Return the class of models that print as a textbook writes them, made of rows of priors."""
    import pymc as pm

    class TextbookModel(pm.Model):  # type: ignore[misc]
        """A PyMC model whose text names every coefficient with its prior."""

        def __init__(self, rows: Sequence[PriorRow], **options: Any) -> None:
            super().__init__(**options)
            of_pymc: Callable[..., str] = self.str_repr  # type: ignore[has-type]

            def textbook(_: pm.Model, formatting: str = "plain", **include: bool) -> str:
                text: str = of_pymc(formatting, **include)
                return _textbook(self, rows, text) if formatting == "plain" else text

            self.str_repr = MethodType(textbook, self)

        def __str__(self) -> str:
            text: str = self.str_repr()
            return text

    return TextbookModel


def _textbook(model: pm.Model, rows: Sequence[PriorRow], text: str) -> str:
    """Return PyMC's text of a model with a line for each prior."""
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
