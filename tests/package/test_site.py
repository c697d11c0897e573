"""The site needs no network to be read, and its links lead somewhere."""

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def extension(name):
    pytest.importorskip("sphinx", reason="the group `docs` is not installed")
    pytest.importorskip("latex2mathml", reason="the group `docs` is not installed")
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/_extensions/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def offline():
    return extension("offline")


@pytest.fixture
def site(tmp_path):
    """Return where a site of two pages is written, and the build that has just ended."""
    out = tmp_path / "html"
    (out / "more").mkdir(parents=True)
    (out / "a picture.png").write_bytes(b"")
    (out / "more" / "page.html").write_text('<h1 id="top-of-it">A</h1><a name="old"></a>')
    return out, SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=out)


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


def test_a_picture_is_drawn_again_dark_and_with_the_fonts_of_a_slide():
    pytest.importorskip("IPython", reason="the group `docs` is not installed")
    names = {"plt": plt, "figsize": []}
    code = """size = 1
figsize.append(plt.figure(layout="constrained").get_facecolor() + (plt.rcParams["font.size"],));"""
    pictures = extension("picture_sizes").pictures(code, names)
    assert [picture[:4] for picture in pictures] == [b"\x89PNG"] * 3
    dark = (20 / 255, 24 / 255, 30 / 255, 1.0)
    assert names["figsize"] == [(*dark, 10.0), (1.0, 1.0, 1.0, 1.0, 16.0), (*dark, 16.0)]
    assert "size" not in names  # the last statement alone
    assert plt.get_fignums() == []


def test_pictures_are_light_or_dark_and_those_of_slides_folded_away():
    gallery = extension("gallery")
    nodes = gallery.nodes
    document, section = gallery.nodes.document(None, None), nodes.section(ids=["dots"])
    section += nodes.title("", "Dots")
    cell, output = nodes.container(), nodes.container(classes=["cell_output"])
    output += [nodes.container("", nodes.image(uri=f"{i}.png")) for i in range(4)]
    cell += output
    section += cell
    document += section
    app = SimpleNamespace(env=SimpleNamespace(docname="gallery/page"))
    gallery.show_each_where_it_belongs(app, document)
    images = list(document.findall(nodes.image))
    assert [one["classes"] for one in images] == [["only-light"], ["only-dark"]] * 2
    assert [one["alt"] for one in images] == ["Dots"] * 2 + ["Dots, with the fonts of a slide"] * 2
    kinds = [type(one).__name__ for one in output.children]
    assert kinds == ["container"] * 2 + ["raw"] + ["container"] * 2 + ["raw"]
    ((anchor, title, small),) = gallery._sections(document)
    assert (anchor, title, [one["uri"] for one in small]) == ("dots", "Dots", ["0.png", "1.png"])


GOOD = [
    "more/page.html",
    "more/page.html#top-of-it",
    "./more/../more/page.html#old",
    "#here",
    "#",
    "a%20picture.png",
    "more/page.html?highlight=a#top-of-it",
]
BAD = {
    "more/pages.html": "no such file",
    "more": "no such file",
    "/more/page.html": "no such file",
    "more/page.html#nowhere": "no such place in the page",
    "#there": "no such place in the page",
    "a picture.jpg": "no such file",
}


def test_links_to_what_is_there_are_taken_and_addresses_elsewhere_listed(site):
    out, app = site
    links = "".join(f'<a href="{target}">x</a>' for target in GOOD)
    away = '<a href="https://b.example/x#y">b</a><a href="//a.example">a</a>'
    (out / "index.html").write_text(f'<p id="here">{links}{away}<a href="mailto:a@b.c">m</a>')
    extension("links").check(app, None)
    listed = (out.parent / "elsewhere.txt").read_text().splitlines()
    assert listed == [
        "//a.example  index.html",
        "https://b.example/x#y  index.html",
        "mailto:a@b.c  index.html",
    ]


@pytest.mark.parametrize("target", BAD)
@pytest.mark.parametrize("written", ['<a href="{}">x</a>', '<iframe src="{}"></iframe>'])
def test_a_link_to_what_is_not_there_is_refused(target, written, site):
    out, app = site
    (out / "index.html").write_text('<p id="here">' + written.format(target))
    links = extension("links")
    with pytest.raises(links.ExtensionError) as caught:
        links.check(app, None)
    said = f"links to what is not there:\nindex.html: {target}: {BAD[target]}"
    assert caught.value.message == said


def test_only_whole_html_sites_are_looked_at(site):
    out, app = site
    (out / "index.html").write_text('<a href="gone.html">x</a>')
    extension("links").check(app, ValueError("the build failed"))
    app.builder.name = "latex"
    extension("links").check(app, None)


OF_LME4 = [
    "fixef",
    "ranef",
    "VarCorr",
    "coef",
    "confint",
    "anova",
    "predict",
    "simulate",
    "bootMer",
    "profile",
    "isSingular",
    "rePCA",
    "dotplot",
    "qqmath",
    "plot",
    "nAGQ",
    "offset",
    "weights",
    "REML",
    "control",
    "refit",
    "update",
    "getME",
    "drop1",
    "ranova",
]


@pytest.mark.parametrize("name", [*OF_LME4, "(Days || Subject)", "(1 | batch/cask)"])
def test_the_page_for_users_of_lme4_has_its_names(name):
    """In what is run for the left side of its tables, and not in prose alone."""
    page = (ROOT / "docs/how-to/lme4.md").read_text()
    tables = "".join(re.findall(r'equivalents\("lme4", """(.*?)"""', page, re.DOTALL))
    theirs = [entry.split("\n")[0] for entry in tables.strip().split("\n\n")]
    pattern = re.escape(name) if "(" in name else rf"\b{name}\b"
    assert any(re.search(pattern, line) for line in theirs)


def test_the_search_of_the_site_finds_the_names_of_lme4():
    search = pytest.importorskip("sphinx.search.en", reason="the group `docs` is not installed")
    index = ROOT / "docs/_build/html/searchindex.js"
    if not index.exists():
        pytest.skip("the site has not been built")
    found = json.loads(index.read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    page = found["docnames"].index("how-to/lme4")
    stem = search.SearchEnglish({}).stem
    for name in OF_LME4:
        found_in = [found[terms].get(stem(name.lower()), []) for terms in ("terms", "titleterms")]
        assert page in np.hstack(found_in), name
