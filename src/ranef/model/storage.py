"""A fit in a file: what is said of its model, its numbers, and how both become a fit again.

The model is said as its user said it: formula, columns of the data, family, priors. It is built
again from these by the way of every model, so that the matrices need no format of their own; a few
numbers of them say whether the same came out. Of the fit there are the estimate, the draws, or the
nodes of a quadrature; what is computed of these when it is asked for is not in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ranef._typing import Dataset, FilePath
from ranef.arguments import file_path
from ranef.design.design import Design
from ranef.design.labels import coordinates, labels
from ranef.design.lazy.lazy_cells import CountedRows
from ranef.errors import FitError, RanefError
from ranef.families.family import Family
from ranef.families.names import find_family
from ranef.fits.diagnostics import Diagnostics, ImportanceDiagnostics, QuadratureDiagnostics
from ranef.fits.engine import records_of
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.fits.posterior import PosteriorFit, QuadratureFit
from ranef.likelihood.estimate import Estimate
from ranef.model.archive import Archive, damage, pack, place_of, read, same, write
from ranef.model.stored_columns import column_of, index_of, stored_column, stored_index
from ranef.model.summaries import stored_summary
from ranef.model.summaries.stored_summary import SUMMARY
from ranef.posterior.draws import DrawnMarginals
from ranef.posterior.laplace import Mode
from ranef.posterior.marginal_likelihood import MarginalLikelihood
from ranef.posterior.quadrature.lattice import Lattice, nodes_again, places
from ranef.posterior.quadrature.moments import Exact, LatticeMarginals
from ranef.posterior.quadrature.whitening import Frame
from ranef.priors.distributions import Prior

if TYPE_CHECKING:
    from ranef.model.shared_engine import SharedEngine

KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Estimate,
        Mode,
        MarginalLikelihood,
        Diagnostics,
        ImportanceDiagnostics,
        QuadratureDiagnostics,
        *Prior.__subclasses__(),
    )
}
SILENT = ("verbose", "progressbar", "cores")  # options that do not change a fit
COUNTS, LEFT_OUT = "counts", "left_out"  # of equal rows, and of those that miss a value
CLOSE = 1e-6  # relative change of a mean of a column that is rounding
GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclass(frozen=True, eq=False)
class Stored:
    """A fit and its model, as a file has them.

    Attributes
    ----------
    path : path
    model, matrices, fit : dict
        What was asked for, a few numbers of the matrices that were made of it, and the fit.
    request : dict or None
        The method and options of `Model.fit`.
    groups : dict of str to xarray.Dataset
        Of a posterior of draws.
    """

    path: FilePath
    model: dict[str, Any]
    matrices: dict[str, Any]
    fit: dict[str, Any]
    request: dict[str, Any] | None
    groups: dict[str, Dataset]


def save(
    path: FilePath,
    engine: SharedEngine,
    fit: Mapping[str, Any],
    request: Mapping[str, Any] | None = None,
) -> None:
    """Write a fit into a file.

    Parameters
    ----------
    path : path
    engine : SharedEngine
        Of the model.
    fit : mapping of str to object
        The records of the fit, as `records_of` has them.
    request : mapping of str to object, optional
        What `Model.fit` was asked for.
    """
    numbers, groups = _of_fit(fit)
    record = {
        "model": said(engine),
        "matrices": matrices(engine.design),
        "fit": numbers,
        "request": request,
    }
    about = {
        "inference_library": "ranef",
        "formula": engine.design.formula.text,
        "family": engine.family.name,
        "method": fit["method"],
    }
    write(path, Archive(record, groups), KINDS, about)


def open_file(path: FilePath) -> Stored:
    """Read a file, without making a fit of it."""
    return of_archive(path, read(path, KINDS))


def of_archive(path: FilePath, archive: Archive) -> Stored:
    """Return the fit in a file that was read."""
    with damage(path):
        return Stored(path, **archive.record, groups=archive.groups)


def kept(
    path: FilePath,
    engine: SharedEngine,
    method: str,
    options: Mapping[str, Any],
    make: Callable[[], Fit],
) -> Fit:
    """Return the fit in a file, if it is of this model, method and options; else make and save it.

    Parameters
    ----------
    path : path
    engine : SharedEngine
    method : str
    options : mapping of str to object
        Of the method.
    make : callable
        Fits the model.
    """
    by_name = {name: value for name, value in options.items() if name not in SILENT}
    request = {"method": method, "options": by_name}
    model = said(engine)
    pack((model, request), {}, KINDS)  # or it is said before the work that this cannot be kept
    place_of(path)
    if file_path(path).exists():
        stored = open_file(path)
        is_same = same(stored.request, request) and _is_said(stored.model, model)
        if is_same and same(stored.matrices, matrices(engine.design), rounding=CLOSE):
            return restored(stored, engine)
    fit = make()
    save(path, engine, records_of(fit), request)
    return fit


# ----------------------------------------------------------------------------------- the model


def said(engine: SharedEngine) -> dict[str, Any]:
    """Return what a model was made of."""
    design, setting, made_of = engine.design, engine.setting, engine.ingredients
    asked = {
        "formula": design.formula.text,
        "family": _said_of_family(engine.family, design.sufficient.y),
        "priors": setting if isinstance(setting, str) else _by_name(setting),
    }
    if made_of is not None and made_of.summary is not None:
        return asked | {SUMMARY: stored_summary.record_of(made_of.summary)}
    data, repeats = design.sufficient.data, design.sufficient.repeats
    counts = ({} if repeats is None else {COUNTS: repeats}) | (
        {LEFT_OUT: data.left_out} if data.left_out else {}
    )
    columns = {str(name): stored_column(column) for name, column in data.columns.items()}
    return (
        asked
        | counts
        | {
            "columns": columns,
            "index": stored_index(data.columns.index),
            "weights": data.weights,
            "offset": data.offset,
            "offset_name": design.recipe.offset,
            "y": design.sufficient.y,
        }
    )


def _is_said(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a model is that of a file; an engine's sums may differ in their last bits."""
    if not {SUMMARY} & stored.keys() & now.keys():
        return same(stored, now)
    one, other = ({**model, SUMMARY: None} for model in (stored, now))
    moments = (stored_summary.moments_of(model[SUMMARY]) for model in (stored, now))
    return same(one, other) and same(*moments, rounding=CLOSE)


def _by_name(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return priors as dicts in the order of their names, which does not matter."""
    return {
        key: _by_name(value) if isinstance(value, Mapping) else value
        for key, value in sorted(setting.items())
    }


def _said_of_family(family: Family, y: np.ndarray) -> dict[str, Any]:
    try:
        is_named = find_family(family.name, family.link.name).fitted_to(y) == family
    except RanefError:
        is_named = False
    return {"name": family.name, "link": family.link.name, "is_named": is_named}


def family_of(stored: Stored, given: Family | str | None) -> Family:
    """Return the family of a fit in a file; refuse that of another.

    Raises
    ------
    FitError
        If it is the user's own and was not given.
    """
    name, link = stored.model["family"]["name"], stored.model["family"]["link"]
    if given is None:
        if not stored.model["family"]["is_named"]:
            raise FitError(
                f"the fit in `{stored.path}` has a family of your own, `{name}` with the link "
                f"`{link}`, which no file can hold: give it to rf.load as family=."
            )
        return find_family(name, link)
    family = find_family(given)
    if (family.name, family.link.name) != (name, link):
        raise FitError(
            f"the fit in `{stored.path}` has the family `{name}` with the link `{link}`, got "
            f"family= with `{family.name}` and `{family.link.name}`."
        )
    return family


def arguments_of(stored: Stored) -> dict[str, Any]:
    """Return the arguments of the model in a file, but for its family and its functions."""
    model = stored.model
    index = index_of(model["index"])
    columns = {name: column_of(column) for name, column in model["columns"].items()}
    frame = pd.DataFrame({n: column.set_axis(index) for n, column in columns.items()}, index)
    offset, name = model["offset"], model["offset_name"]
    if name and name not in frame:
        frame[name] = offset
    return {
        "formula": model["formula"],
        "data": CountedRows(frame, model.get(COUNTS), model.get(LEFT_OUT, 0)),
        "weights": model["weights"],
        "offset": name or offset,
        "priors": model["priors"],
    }


def matrices(design: Design) -> dict[str, Any]:
    """Return names of the columns of a design, and three numbers of each.

    They are in the column's own units, so that rounding is relative to them: the mean, a sum in
    which each row of data has another share, and the root of the mean square.
    """
    rows, n = design.unweighted, design.n_obs
    shares = rows.ones if rows.condensed else np.modf(np.arange(n) * GOLDEN_RATIO)[0]
    blocks = (rows.X, rows.offset[:, None], *(term.columns for term in rows.terms))
    moments = [
        np.column_stack(
            [rows.ones @ block / n, shares @ block / n, np.sqrt((block**2).sum(axis=0) / n)]
        )
        for block in blocks
    ]
    return {
        "fixed": design.fixed,
        "columns": tuple(np.concatenate(moments)),
        "terms": tuple((t.label, t.coefs, t.n_levels, t.lengths) for t in design.terms),
    }


# ------------------------------------------------------------------------------------- the fit


def _of_fit(fit: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Dataset]]:
    """Return the numbers of a fit by name, and its tables of draws."""
    numbers, marginals = dict(fit), fit.get("marginals")
    if isinstance(marginals, LatticeMarginals):
        return numbers | {"marginals": _of_lattice(marginals)}, {}
    if isinstance(marginals, DrawnMarginals):
        tables = {name: child.to_dataset() for name, child in marginals.tree.children.items()}
        return numbers | {"marginals": {"independent": marginals.independent}}, tables
    return numbers, {}


def _of_lattice(marginals: LatticeMarginals) -> dict[str, Any]:
    exact = marginals.exact
    frame, lattice = exact.frame, exact.lattice
    of_frame = ("order", "bases", "scales", "center", "root")
    of_lattice = ("steps", "z", "axis", "slope", "spread", "is_edge")
    return {
        "draws": marginals.n_draws,
        "seed": marginals.seed,
        "mode": exact.mode,
        "frame": {name: getattr(frame, name) for name in of_frame},
        "lattice": {name: getattr(lattice, name) for name in of_lattice},
        "nodes": {"logdet": lattice.nodes.logdet, "products": lattice.nodes.products},
    }


def restored(stored: Stored, engine: SharedEngine) -> Fit:
    """Return the fit in a file.

    Parameters
    ----------
    stored : Stored
    engine : SharedEngine
        Of the model in the file.

    Raises
    ------
    FitError
        If the model has other matrices than when the fit was saved.
    """
    if not same(stored.matrices, matrices(engine.design), rounding=CLOSE):
        raise FitError(
            f"the fit in `{stored.path}` was saved with other model matrices than its formula and "
            "data give here: functions= that compute something else, or another version of ranef."
        )
    fit, fixed = dict(stored.fit), stored.fit["fixed"]
    del fit["fixed"]
    design = engine.design if engine.design.fixed == fixed else engine.data.estimable
    fit |= {"design": design, "family": engine.family, "engine": engine}
    if "estimate" in fit:
        return PointFit(**fit)
    marginals = fit["marginals"]
    if "nodes" in marginals:
        return QuadratureFit(**fit | {"marginals": _lattice_of(marginals, engine)})
    drawn = _drawn(stored.groups, design, engine.family, **marginals)
    return PosteriorFit(**fit | {"marginals": drawn})


def _lattice_of(stored: Mapping[str, Any], engine: SharedEngine) -> LatticeMarginals:
    target: Any = engine.density
    frame, of_lattice = Frame(target, **stored["frame"]), stored["lattice"]
    xi = places(frame, of_lattice["steps"], of_lattice["z"])
    lattice = Lattice(frame, nodes=nodes_again(frame, xi, **stored["nodes"]), **of_lattice)
    exact = Exact(target, stored["mode"], frame, lattice)
    return LatticeMarginals(engine.design, engine.priors, exact, stored["draws"], stored["seed"])


def _drawn(
    groups: Mapping[str, Dataset], design: Design, family: Family, *, independent: bool
) -> DrawnMarginals:
    """Return the marginals of draws, with the labels that the design has."""
    import xarray as xr

    known = coordinates(design, family)[1] | {"obs": labels(design.sufficient.index)}
    by_dim = {dim: list(values) for dim, values in known.items()}
    tables = {}
    for name, table in groups.items():
        own = {
            dim: by_dim[str(dim)]
            for dim, values in table.coords.items()
            if list(map(str, by_dim.get(str(dim), ()))) == list(map(str, values.to_numpy()))
        }
        tables[name] = table.assign_coords(own)
    return DrawnMarginals(design, family, xr.DataTree.from_dict(tables), independent)
