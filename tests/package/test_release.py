"""What is released: version, addresses, the Pythons it is tested on, and what it can do without."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import ranef

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
IN_README = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
KINDS = {".md", ".py", ".toml", ".yml", ".cff", ".rst"}
NOT_OURS = {"_build", "reference", "__pycache__"}

WITHOUT = """
import importlib.abc, sys
import numpy as np

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(name, name=name)

MISSING = set(sys.argv[1:])
sys.meta_path.insert(0, Missing())
for name in MISSING:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)

import ranef as rf

yields = rf.load_dataset("Dyestuff")
model = rf.Model("Yield ~ 1 + (1 | Batch)", yields)
for method in ("reml", "ml", "map", "laplace", "quadrature"):
    fit = model.fit(method, **({"seed": 1} if method in ("laplace", "quadrature") else {}))
    print(fit, fit.ranef_table(), fit.predict({"Batch": ["A", "new"]}, "new", prob=0.9))
fit.plot_caterpillar()
alike = rf.fit("Yield ~ 1", yields)
print(rf.anova(alike, model.fit()), rf.compare({"alike": alike, "batches": model.fit()}))
print(rf.compare_structures(model, seed=1, progressbar=False))
herds = rf.load_dataset("cbpp")
formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
print(rf.fit(formula, herds, family="binomial"), rf.fit(formula, herds, "map", family="binomial"))
assert not MISSING & {name.split(".")[0] for name in sys.modules}
"""


def test_the_version_stands_in_one_place():
    assert ranef.__version__ == PROJECT["version"]


def texts():
    """Return the texts of the project, without what is built."""
    tops = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"]
    places = [ROOT / top for top in tops]
    for folder in (".github", "docs", "examples", "src"):
        places += [p for p in (ROOT / folder).rglob("*") if p.suffix in KINDS]
    return [path for path in places if not NOT_OURS & set(path.relative_to(ROOT).parts)]


def test_every_address_of_the_project_is_the_one_that_pyproject_has():
    assert len(texts()) > 300
    addresses = {
        (path.relative_to(ROOT).as_posix(), address)
        for path in texts()
        for address in re.findall(r"https?://[^\s/]+/[^\s/]+/ranef\b", path.read_text("utf-8"))
    }
    assert {address for _, address in addresses} == {REPOSITORY}
    assert {path for path, _ in addresses} <= {"README.md", "pyproject.toml"}


def test_the_readme_links_to_what_is_there_wherever_it_is_shown():
    targets = ["".join(found) for found in IN_README.findall((ROOT / "README.md").read_text())]
    assert len(targets) >= 5
    ours = [target for target in targets if target.startswith(REPOSITORY)]
    assert [t for t in targets if not t.startswith("https://")] == []
    for target in ours:
        kind, branch, path = target.removeprefix(f"{REPOSITORY}/").split("/", 2)
        assert kind == ("raw" if path.endswith(".png") else "blob")
        assert branch == "main"
        assert (ROOT / path).is_file()


def test_the_pythons_that_are_promised_are_tested():
    classified = [
        name.rsplit(" ", 1)[1]
        for name in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", name)
    ]
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    (tested,) = re.findall(r"python: \[(.*)\]", workflow)
    assert [version.strip('" ') for version in tested.split(",")] == classified
    assert PROJECT["requires-python"] == f">={classified[0]}"
    assert "run: .ci/run" in workflow
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def marked():
    """Return the dependencies that there are no wheels of for a browser."""
    lines = [line for line in PROJECT["dependencies"] if "emscripten" in line]
    assert all(line.endswith("; sys_platform != 'emscripten'") for line in lines)
    return [re.match(r"\w+", line)[0] for line in lines]


def test_all_but_sampling_runs_where_the_samplers_are_not_installed():
    missing = [*marked(), "pytensor", "llvmlite"]
    assert {"pymc", "nutpie", "numba"} <= set(missing)
    arviz = ["arviz", "arviz_base", "arviz_plots", "arviz_stats"]
    command = [sys.executable, "-c", WITHOUT, *missing, *arviz]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "converged" in done.stdout


def test_what_is_cited_has_no_version_of_its_own():
    citation = (ROOT / "CITATION.cff").read_text()
    assert "cff-version: 1.2.0" in citation
    assert not re.search(r"^version:|^repository", citation, re.MULTILINE)
    assert PROJECT["authors"] == [{"name": "the ranef developers"}]
    assert "name: The ranef developers" in citation
