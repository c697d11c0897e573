"""The site needs no network to be read."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def offline():
    pytest.importorskip("sphinx", reason="the group `docs` is not installed")
    pytest.importorskip("latex2mathml", reason="the group `docs` is not installed")
    spec = importlib.util.spec_from_file_location("offline", ROOT / "docs/_extensions/offline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "loads",
    [
        '<script async src="https://cdn.example/x.js">',
        '<img alt="a" src="//example/x.png">',
        '<link href="http://example/x.css" rel="stylesheet">',
        "<style>@import url('https://example/font.css');</style>",
    ],
)
def test_a_page_that_loads_from_elsewhere_is_refused(loads, offline, tmp_path):
    (tmp_path / "page.html").write_text(f"<html>{loads}</html>")
    app = SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path)
    with pytest.raises(offline.ExtensionError, match=r"^pages that need the network:"):
        offline.check(app, None)


def test_links_are_no_loads(offline, tmp_path):
    text = '<a href="https://example.org">there</a><link rel="canonical" href="https://e.org">'
    (tmp_path / "page.html").write_text(text + '<script src="_static/x.js"></script>')
    app = SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path)
    offline.check(app, None)


def test_formulas_are_mathml(offline):
    visitor = SimpleNamespace(body=[], starttag=lambda *_, **__: "<div>")
    node = offline.nodes.math_block("", "b = \\Lambda u", number=3)
    with pytest.raises(offline.nodes.SkipNode):
        offline.displayed(visitor, node)
    page = "".join(visitor.body)
    assert "<math" in page
    assert "(3)" in page
    assert "&#x0039B;" in page or "Λ" in page
