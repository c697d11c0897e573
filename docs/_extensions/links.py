"""Links of the built pages: files and places in them are there; addresses elsewhere are listed."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ELSEWHERE = "elsewhere.txt"


class _Links(HTMLParser):
    """What a page links to, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.places: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name == "id" or (name, tag) == ("name", "a"):
                self.places.add(value or "")


@cache
def _read(page: Path) -> _Links:
    return _Links(page.read_text(encoding="utf-8"))


def broken(page: Path, target: str) -> str:
    """Return what is not there of a link of a page to this site, if anything."""
    parts = urlsplit(target)
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    file = file / "index.html" if file.is_dir() else file
    if not file.is_file():
        return "no such file"
    if file.suffix == ".html" and unquote(parts.fragment) not in _read(file).places:
        return "no such place in the page"
    return ""


def check(app: Sphinx, error: Exception | None) -> None:
    """Refuse links to what is not there; write a list of all addresses elsewhere, unvisited.

    Sphinx has looked at its own references; this is of what a browser gets, raw HTML included.
    """
    if error or app.builder.name != "html":
        return
    _read.cache_clear()
    root, wrong, elsewhere = Path(app.outdir), [], {}
    for page in sorted(set(root.rglob("*.html")) - set(root.glob("_static/**/*.html"))):
        for target in sorted(_read(page).targets):
            if urlsplit(target).scheme or target.startswith("//"):
                elsewhere.setdefault(target, page.relative_to(root).as_posix())
            elif said := broken(page, target):
                wrong.append(f"{page.relative_to(root)}: {target}: {said}")
    (root.parent / ELSEWHERE).write_text(
        "".join(f"{address}  {page}\n" for address, page in sorted(elsewhere.items())),
        encoding="utf-8",
    )
    if wrong:
        raise ExtensionError("links to what is not there:\n" + "\n".join(wrong))


def setup(app: Sphinx) -> dict[str, Any]:
    """Take part in a build, after everything is written."""
    app.connect("build-finished", check, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
