"""The gallery: each picture for light and dark pages and for slides, and an index of thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util import logging

FOLDER, INDEX = "gallery/", "gallery/index"
CLASSES = ("only-light", "only-dark")
LOGGER = logging.getLogger(__name__)


class thumbnails(nodes.General, nodes.Element):  # noqa: N801 -- as docutils names its nodes
    """Where the thumbnails of a page stand."""


class Thumbnails(Directive):
    """`{thumbnails} page`: a small picture of each section of a page, which leads there."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the place of the thumbnails."""
        return [thumbnails(page=FOLDER + self.arguments[0])]


def images_of(cell: nodes.Element) -> list[nodes.image]:
    """Return the pictures of a cell's outputs, one each."""
    return [one for one in cell.findall(nodes.image) if str(one["uri"]).endswith(".png")]


def show_each_where_it_belongs(app: Sphinx, doctree: nodes.document) -> None:
    """Mark pictures as light or dark, and fold away those of slides."""
    if not app.env.docname.startswith(FOLDER):
        return
    for cell in list(doctree.findall(nodes.container)):
        images = images_of(cell) if "cell_output" in cell["classes"] else []
        if not images:
            continue
        if len(images) != 2 * len(CLASSES):
            LOGGER.warning("%d pictures of a cell, not %d", len(images), 2 * len(CLASSES))
            continue
        title = next(iter(cell.parent.parent.findall(nodes.title))).astext()
        for i, image in enumerate(images):
            image["classes"].append(CLASSES[i % 2])
            image["alt"] = title + ("" if i < 2 else ", with the fonts of a slide")
        outputs = list(cell.children)
        cell.insert(cell.index(outputs[2]), _raw("<details><summary>on a slide</summary>"))
        cell.append(_raw("</details>"))


def _raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def _sections(doctree: nodes.document) -> Iterator[tuple[str, str, list[nodes.image]]]:
    for section in doctree.findall(nodes.section):
        cells = [one for one in section.children if isinstance(one, nodes.container)]
        images = [image for cell in cells for image in images_of(cell)][: len(CLASSES)]
        if images:
            yield section["ids"][0], section[0].astext(), images


def fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the thumbnails in their place."""
    for place in list(doctree.findall(thumbnails)):
        page = place["page"]
        address = app.builder.get_relative_uri(docname, page)
        grid: Any = nodes.container(classes=["thumbnails"])
        for section, title, images in _sections(app.env.get_doctree(page)):
            link = nodes.reference("", "", refuri=f"{address}#{section}", internal=True)
            for image in images:
                small = image.deepcopy()
                small["candidates"] = {"*": small["uri"]}
                link += small
            link += nodes.inline("", title)
            grid += nodes.paragraph("", "", link)
        place.replace_self(grid)


def read_last(_app: Sphinx, _env: Any, names: list[str]) -> None:
    """Read the index after the pages, whose pictures it shows."""
    names.sort(key=lambda name: name == INDEX)


def index_too(_app: Sphinx, _env: Any, *changed: Any) -> list[str]:
    """Write the index anew with any page of the gallery."""
    names = {name for one in changed for name in one}
    return [INDEX] if any(name.startswith(FOLDER) for name in names) else []


def setup(app: Sphinx) -> dict[str, bool]:
    """Take part in a build."""
    app.add_node(thumbnails)
    app.add_directive("thumbnails", Thumbnails)
    app.connect("doctree-read", show_each_where_it_belongs)
    app.connect("doctree-resolved", fill)
    app.connect("env-before-read-docs", read_last)
    app.connect("env-get-outdated", index_too)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
