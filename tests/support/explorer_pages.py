"""Pages of the shrinkage explorer, the modules that they are made of in Node, and a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

import ranef as rf

FOLDER = Path(tempfile.mkdtemp())
CASES = {
    "sleepstudy": (
        "Reaction ~ Days + (Days | Subject)",
        "sleepstudy",
        {"title": "Reaction times", "units": ("ms", "ms per day")},
    ),
    "schools": (
        "attain ~ 1 + (1 | primary)",
        "ScotsSec",
        {"noun": ("school", "schools", "pupils"), "units": "points"},
    ),
    "zero": ("Yield ~ 1 + (1 | Batch)", "Dyestuff2", {}),
    "equal": ("Yield ~ 1 + (1 | Batch)", "Dyestuff", {"units": "g"}),
    "children": ("distance ~ age + Sex + (age | Subject)", "Orthodont", {"noun": "child"}),
    "diagonal": ("Reaction ~ Days + (Days || Subject)", "sleepstudy", {}),
}


@cache
def fitted(name):
    formula, data, _ = CASES[name]
    return rf.fit(formula, rf.load_dataset(data))


@cache
def page(name):
    """Return the file of a page."""
    return fitted(name).explore_shrinkage(FOLDER / f"{name}.html", **CASES[name][2])


def held(path):
    """Return the numbers that a page holds."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


@cache
def node():
    """Return Node, the system's or that of Playwright."""
    found = shutil.which("node")
    if found:
        return found
    playwright = pytest.importorskip("playwright")
    inner = Path(playwright.__file__).parent / "driver" / "node"
    if not inner.exists():
        pytest.skip("there is no Node to run the modules of the page in")
    return str(inner)


@cache
def modules():
    """Return a folder with the page's modules, which any Node takes as such."""
    folder = FOLDER / "modules"
    with_files = files("ranef.explorer") / "page"
    folder.mkdir()
    for one in with_files.iterdir():
        (folder / one.name).write_text(one.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def in_node(body, **given):
    """Run JavaScript with `given`, and return what it returns; `use(file)` imports a module."""
    script = f"""
        import {{readFileSync}} from "fs";
        const given = JSON.parse(readFileSync(0, "utf8"));
        const use = name => import("file://{modules()}/" + name + ".js");
        const run = async () => {{ {body} }};
        console.log(JSON.stringify(await run(), (_, v) => ArrayBuffer.isView(v) ? [...v] : v));
    """
    done = subprocess.run(
        [node(), "--input-type=module", "-e", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@cache
def chromium():
    """Return the distribution's browser."""
    names = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("there is no Chromium to look at the page in")
    return found
