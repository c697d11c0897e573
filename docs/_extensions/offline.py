"""A site that needs no network: formulas as MathML, and a look for what would be loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*\ssrc=["'](?:https?:)?//[^"']+"""
    r"""|<link\b(?=[^>]*\srel=["']?(?:stylesheet|preload|icon))[^>]*\shref=["'](?:https?:)?//[^"']+"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//[^"')]+"""
)


def inline(visitor: Any, node: nodes.math) -> None:
    """Write a formula in a line."""
    visitor.body.append(convert(node.astext()))
    raise nodes.SkipNode


def displayed(visitor: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own, with its number if it has one."""
    visitor.body.append(visitor.starttag(node, "div", CLASS="math"))
    if number := node.get("number"):
        visitor.body.append(f'<span class="eqno">({number})</span>')
    visitor.body.append(f"{convert(node.astext(), display='block')}</div>\n")
    raise nodes.SkipNode


def check(app: Sphinx, error: Exception | None) -> None:
    """Refuse a page that loads something from elsewhere."""
    if error or app.builder.name != "html":
        return
    found = [
        f"{page.relative_to(app.outdir)}: {match[0]}"
        for page in sorted(Path(app.outdir).rglob("*.html"))
        for match in LOADED.finditer(page.read_text(encoding="utf-8"))
    ]
    if found:
        raise ExtensionError("pages that need the network:\n" + "\n".join(found))


def setup(app: Sphinx) -> dict[str, bool]:
    """Take part in a build."""
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
