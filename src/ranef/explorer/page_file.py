"""The page itself: its parts, which stand in `page/`, and the numbers of a model in one file.

The page's modules import each other as files, so that they run by themselves. In the page they
stand one after the other in one module: their names are theirs together, and none is global.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

START = "page.js"  # the module that draws the page; it imports the others
MAX_SIZE = 150_000  # bytes; above it a page does without the rows
_IMPORT = re.compile(r'^import .*? from "\./(\w+\.js)";\n', re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^\s*//.*\n", re.MULTILINE)
_INDENT = re.compile(r"^\s+", re.MULTILINE)


def html_page(held: Mapping[str, Any]) -> str:
    """Return the page of what `content` holds, in one text that needs nothing else."""
    page = _html(held)
    if len(page.encode()) > MAX_SIZE and held["rows"]:
        page = _html({**held, "rows": {}})
    return page


def _html(held: Mapping[str, Any]) -> str:
    text = json.dumps(held, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    parts = {
        "title": escape(held["title"]),
        "rows": escape(held["noun"][2]),
        "style": _INDENT.sub("", _source("page.css")),
        "data": text.replace("<", "\\u003c"),
        "script": _INDENT.sub("", _COMMENT.sub("", _bundled())),
    }
    page = _source("page.html")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)


def _bundled() -> str:
    """Return the modules in one, each after those that it imports."""
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        source = _source(name)
        for needed in _IMPORT.findall(source):
            if needed not in texts:
                add(needed)
        texts[name] = re.sub(r"^export ", "", _IMPORT.sub("", source), flags=re.MULTILINE)

    add(START)
    return "\n".join(texts.values())


def _source(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")
