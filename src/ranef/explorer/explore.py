"""`explore_shrinkage` of a fit: which models have a page, and what it takes from them."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranef._typing import FilePath
from ranef.arguments import check_known, file_path
from ranef.design.design import Design, RandomTerm
from ranef.design.labels import corr_name, sd_name
from ranef.errors import FitError, RanefError, listed
from ranef.explorer import content, page_file
from ranef.families.family import Family
from ranef.posterior.quadrature import marginal_densities

INSTEAD = "fit.plot_shrinkage() draws the shrinkage of any fit"


class Explorable(ABC):
    """A fit whose shrinkage can be explored on a page, if it has one term of random effects."""

    design: Design
    family: Family
    method: str

    def explore_shrinkage(
        self,
        path: FilePath,
        *,
        title: str | None = None,
        noun: str | Sequence[str] | None = None,
        units: str | Sequence[str] | Mapping[str, str] | None = None,
    ) -> Path:
        """Write a page on which the variance parameters are moved, from complete to no pooling.

        Parameters
        ----------
        path : path
            The file of the page, such as "sleepstudy.html". One that is there is replaced.
        title : str, optional
            The heading of the page.
        noun : str or sequence of str, optional
            What a group is called, "school"; or also several of them, and rows: ("child",
            "children", "visits"). By default the grouping factor's name.
        units : str, sequence of str or mapping of str to str, optional
            The unit of the response, "ms"; or that of each coefficient, ("ms", "ms per day"); or
            both by the names of the response and of coefficients.

        Returns
        -------
        Path
            Of the file. It needs no network and nothing else: to show it, open it in a browser.

        Raises
        ------
        FitError
            If the model is not Gaussian with the identity link, or has not one term with one or two
            coefficients, or if the fit has no model.
        FileNotFoundError
            If there is no folder for the file.

        Notes
        -----
        Sliders move the standard deviations of the random effects, their correlation and sigma;
        their ends are complete and no pooling. REML's estimates and the posterior, under the priors
        of the model and by quadrature, are marked on them, whatever the method of this fit: a fit
        by another method is made for what is missing. The page has the data in it: the rows of each
        group, if that leaves it below 150 kB, and their cross-products.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = fit.explore_shrinkage(pathlib.Path(folder, "dyestuff.html"), units="g")
        ...     "own estimate (no pooling)" in page.read_text(encoding="utf-8")
        True
        """
        path = file_path(path)
        term = _only_term(self.design, self.family)
        if not path.parent.is_dir():
            raise FileNotFoundError(
                f"there is no folder `{path.parent}` to write `{path.name}` in."
            )
        nouns = _nouns(noun, term.factor)
        response, coefs = _units(units, self.design.response, term.coefs)
        reml = self._by("reml")
        default = (
            f"{self.design.response} of {reml.n_obs} {nouns[2]} from {term.n_levels} {nouns[1]}"
        )
        names = content.Names(str(title or default), nouns, response, coefs)
        page = page_file.html_page(
            content.content(reml.design, _marks(reml, *self._curves()), names)
        )
        path.write_text(page, encoding="utf-8")
        return path

    def _by(self, method: str) -> Any:
        """Return this fit, or one of the same model by another method."""
        fit: Any = self
        return fit if self.method == method else fit.asked.refit(method)

    def _curves(self) -> tuple[dict[str, marginal_densities.Curve | None], str]:
        """Return the posterior densities of the variance parameters, or why there are none."""
        term, names = self.design.terms[0], {"sigma": "sigma"}
        names |= {f"sd{i}": sd_name(term, i) for i in range(term.n_coefs)}
        if term.covariance.pairs:
            names["corr"] = corr_name(term, 0, 1)
        try:
            marginals = self._by("quadrature").marginals
        except RanefError as error:
            return {}, str(error)
        found = {short: marginals.curve(name) for short, name in names.items()}
        return {s: None if isinstance(c, float) else c for s, c in found.items()}, ""


def _only_term(design: Design, family: Family) -> RandomTerm:
    """Return the term whose shrinkage the page shows, and refuse models that it cannot show."""
    if not family.is_linear:
        raise FitError(
            "the page of explore_shrinkage recomputes a Gaussian model with the identity link in "
            f"the browser; this one is {family.name} with the {family.link.name} link. {INSTEAD}."
        )
    if not design.terms:
        raise FitError("the model has no random effects, and so no shrinkage to explore.")
    if len(design.terms) > 1:
        raise FitError(_of_several(design))
    (term,) = design.terms
    if term.n_coefs > 2:
        raise FitError(
            "the page of explore_shrinkage shows one or two coefficients of each group, and "
            f"`{term.text}` has {term.n_coefs}: {listed(term.coefs)}. Fit a model with two of them "
            f"at most; {INSTEAD}, two coefficients at a time (`coefs=`)."
        )
    term.covariance.check_free("explore_shrinkage")
    return term


def _of_several(design: Design) -> str:
    texts, factors = [t.text for t in design.terms], {t.factor for t in design.terms}
    message = (
        f"the page of explore_shrinkage shows one term of random effects, and the model has "
        f"{len(texts)}: {listed(texts)}. "
    )
    if len(factors) == 1:
        return f"{message}Write uncorrelated coefficients of one factor as one term, `(x || g)`."
    return f"{message}Fit a model with one of them; {INSTEAD}, a term at a time (`term=`)."


def _marks(
    reml: Any, curves: dict[str, marginal_densities.Curve | None], missing: str
) -> content.Marks:
    (term,) = reml.design.terms
    varcorr = reml.varcorr()
    corr = varcorr.corr[term.label].to_numpy()[0, -1] if term.covariance.pairs else np.nan
    return content.Marks(
        beta=reml.fixef().to_numpy(),
        sigma=reml.sigma,
        criterion=reml.objective,
        sd=varcorr.sd[term.label].to_numpy(),
        corr=float(corr) if np.isfinite(corr) else None,
        curves=curves,
        missing=missing,
    )


# ------------------------------------------------------------------------------------- words


def _nouns(noun: str | Sequence[str] | None, factor: str) -> tuple[str, str, str]:
    """Return what a group, groups and rows are called."""
    if noun is None:
        is_word = re.fullmatch(r"[^\W\d_]{3,}", factor)
        noun = factor.lower() if is_word else "group"
    words = _texts(noun)
    if not 1 <= len(words) <= 3 or not all(words):
        raise FitError(
            '`noun` is a word, "school", or up to three: a group, groups, rows, such as '
            f'("school", "schools", "pupils"); got {noun!r}.'
        )
    one, many, rows = (*words, *(_plural(words[0]), "rows")[len(words) - 1 :])
    return one, many, rows


def _texts(given: object) -> tuple[str, ...]:
    return tuple(str(one).strip() for one in np.atleast_1d(np.array(given, dtype=object)))


def _plural(word: str) -> str:
    """Return the regular plural of an English noun.

    Examples
    --------
    >>> [_plural(word) for word in ("school", "batch", "city", "day")]
    ['schools', 'batches', 'cities', 'days']
    """
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}{'es' if re.search(r'(s|x|z|ch|sh)$', word) else 's'}"


def _units(
    units: str | Sequence[str] | Mapping[str, str] | None, response: str, coefs: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """Return the unit of the response, and those of the coefficients."""
    if units is None or isinstance(units, str):
        return _derived(units or "", coefs, {})
    if isinstance(units, Mapping):
        check_known(units, [response, *coefs], lambda name: f"`units` names {name!r}.")
        return _derived(str(units.get(response, "")), coefs, units)
    each = _texts(units)
    if len(each) != len(coefs):
        raise FitError(
            f"`units` is a unit for each of {listed(coefs)}, so {len(coefs)}, or that of "
            f"`{response}` alone; got {units!r}."
        )
    return each[0], each


def _derived(
    response: str, coefs: tuple[str, ...], given: Mapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """Return units of coefficients: that of the response, or of it per what they multiply."""
    per = {c: f"{response} per {c}" if c != "Intercept" and response else response for c in coefs}
    return response, tuple(str(given.get(c, per[c])) for c in coefs)
