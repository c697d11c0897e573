"""The site: `uv run --group docs sphinx-build -W -b html docs docs/_build/html`."""

from __future__ import annotations

import os
import re
import sys
from hashlib import sha256
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from sphinx.application import Sphinx

import ranef as rf

HERE = Path(__file__).parent
MADE = HERE / "_build" / "made"
sys.path.insert(0, str(HERE / "_extensions"))
os.environ.pop("MPLBACKEND", None)  # one that shows nothing in a page
os.environ["PYTHONPATH"] = str(HERE / "_extensions")  # of the kernels: `running_tables`, ...


def _state_of_the_package() -> str:
    """Return a digest of the package's files, and of what pages import and read."""
    state = sha256()
    for folder in (Path(rf.__file__).parent, HERE / "_extensions", HERE / "_data"):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            if "__pycache__" not in path.parts:  # Numba too keeps there what it has compiled
                state.update(path.read_bytes())
    return state.hexdigest()[:16]


project = "ranef"
author = copyright = "the ranef developers"  # noqa: A001 -- its name in Sphinx
version = release = rf.__version__
extensions = [
    "myst_nb",
    "gallery",
    "offline",
    "links",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "_templates", "images"]
templates_path = ["_templates"]
nitpicky = False  # types in docstrings are words for readers
suppress_warnings = ["ref.python"]  # a method that several kinds of fit have
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "cache"  # a page is executed again when its code, or the package's, has changed
nb_execution_cache_path = str(HERE / "_build" / "executed" / _state_of_the_package())
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # of one cell, on a busy machine
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # from the network, and not used
nb_merge_streams = True

autosummary_generate = True
autosummary_imported_members = False
autodoc_typehints = "none"  # docstrings say them in words
autodoc_member_order = "groupwise"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "ranef"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = [str(MADE)]
html_sidebars = {page: [] for page in ("index", "explorer", "glossary", "lecture-notes")}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_nav_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 4,
}


def _explorers() -> None:
    """Write the pages on which shrinkage is explored; the site shows them in frames."""
    MADE.mkdir(parents=True, exist_ok=True)
    sleep = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    sleep.explore_shrinkage(
        MADE / "explorer-sleepstudy.html",
        title="Reaction times of 18 people kept from sleep",
        units=("ms", "ms per day"),
    )
    schools = rf.fit("attain ~ 1 + (1 | primary)", rf.load_dataset("ScotsSec"))
    schools.explore_shrinkage(
        MADE / "explorer-schools.html",
        title="Attainment of 3435 pupils from 148 primary schools",
        noun=("school", "schools", "pupils"),
        units="points",
    )


REFERENCE = """Reference
=========

Every public name is an attribute of ``ranef``, which is imported as ``rf``. All fits answer the
same calls, whatever the method.

.. currentmodule:: ranef
"""
GROUP = """
{title}
{line}

.. autosummary::
   :toctree: generated

{names}
"""


def _reference() -> None:
    """Write the page of all public names, in groups."""
    values = {name: getattr(rf, name) for name in rf.__all__}
    modules = [name for name, one in values.items() if isinstance(one, ModuleType)]
    functions = [name for name, one in values.items() if isinstance(one, FunctionType)]
    classes = [name for name in values if name not in {*modules, *functions}]
    fits = [name for name in classes if name == "Model" or name.endswith("Fit")]
    said = [name for name in classes if issubclass(values[name], Exception | Warning)]
    others = [name for name in classes if name not in {*fits, *said}]
    groups = {"Models and fits": fits, "Functions": functions, "Records": others}
    groups["Errors and warnings"] = said
    groups["Modules"] = [values[name].__name__.removeprefix("ranef.") for name in modules]
    page = REFERENCE
    for title, names in groups.items():
        listed = "\n".join(f"   {name}" for name in names)
        page += GROUP.format(title=title, line="-" * len(title), names=listed)
    path = HERE / "reference" / "index.rst"
    if not path.exists() or path.read_text() != page:  # or every page would be read again
        path.parent.mkdir(exist_ok=True)
        path.write_text(page)


def plain_stars(*event: Any) -> None:
    """Let the star of arguments stand for itself: `*psi` begins no emphasis."""
    lines: list[str] = event[-1]
    lines[:] = [re.sub(r"(?<![\\*\w`])\*(?=psi)", r"\\*", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Take part in a build, after napoleon."""
    app.connect("autodoc-process-docstring", plain_stars, priority=900)


_explorers()
_reference()
