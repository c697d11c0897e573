"""The map of the code, `docs/house.md`, is true: against the tree and the import contracts."""

from __future__ import annotations

import ast
import doctest
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ranef"
TESTS = ROOT / "tests"
PAGE = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]

ROOMS = sorted(path.parent for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE)
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def modules(room):
    return sorted(path.stem for path in room.glob("*.py") if path.name != "__init__.py")


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title):
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[1:]]


def tree():
    """Return the names below each room as the page draws them."""
    found, path = {}, []
    for line in section("The tree").split("```")[1].strip("\n").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        head, *names = line.split()
        if head.endswith("/"):
            path = [*path[:depth], head.strip("/")]
            found["/".join(path)] = sorted(names)
        else:
            found[""] = sorted([head, *names])
    return found


def test_the_tree_is_that_of_the_files():
    actual = {str(room.relative_to(SOURCE)): modules(room) for room in ROOMS}
    assert tree() == actual | {"": modules(SOURCE)}


def test_the_floors_are_those_of_the_contract():
    layers = next(one for one in CONTRACTS if one["type"] == "layers")["layers"]
    floors = [set(layer.split(" | ")) for layer in layers]
    drawn = {}
    for floor, room, *_ in rows("The way of the data"):
        drawn.setdefault(int(floor), set()).add(room.strip("`"))
    assert [drawn[floor] for floor in sorted(drawn, reverse=True)] == floors
    assert sorted(drawn) == list(range(1, len(floors) + 1))


def test_no_arrow_runs_up():
    layers = next(one for one in CONTRACTS if one["type"] == "layers")
    assert layers["exhaustive"]
    assert "ignore_imports" not in layers


@pytest.mark.parametrize("row", rows("Find your room"), ids=lambda row: row[0])
def test_each_way_leads_to_a_file(row):
    places = re.findall(r"`([a-z_]+/[a-z_/]*)`", row[1])
    assert places
    for place in places:
        path = SOURCE / place
        assert path.is_dir() if place.endswith("/") else path.with_suffix(".py").is_file(), place


def test_every_public_name_of_the_page_exists():
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    for name in ("LogPosterior", "LinearEngine", "GeneralizedEngine", "PosteriorFit", "Engine"):
        assert f"`{name}`" in PAGE
        assert re.search(rf"^class {name}\b", text, re.MULTILINE), name


def test_a_reader_meets_few_names_at_each_step():
    assert len([room for room in ROOMS if room.parent == SOURCE]) == 17
    assert len(modules(SOURCE)) == 5
    assert all(len(modules(room)) <= 10 for room in ROOMS), max(
        ROOMS, key=lambda r: len(modules(r))
    )


def test_a_file_name_stands_once():
    assert [name for name, n in Counter(path.stem for path in FILES).items() if n > 1] == []


def test_a_public_name_has_one_owner():
    owners = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, n in owners.items() if n > 1] == []


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(SOURCE)))
def test_a_room_says_what_it_is_for(room):
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_each_file_has_its_tests_in_the_same_room(path):
    if path.stem in ("_typing", "constants"):
        pytest.skip("nothing but names")
    assert (TESTS / path.relative_to(SOURCE).parent / f"test_{path.name}").is_file()


def code_lines(path):
    """Return the numbers of the lines that are code: no docstrings, comments or blank lines."""
    text = path.read_text(encoding="utf-8")
    documented = set()
    for node in ast.walk(ast.parse(text)):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            documented.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return [
        i for i, x in lines if x.strip() and not x.strip().startswith("#") and i not in documented
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_are_short(path):
    """But for the one compilation unit; a file of up to a tenth more is about 300 lines."""
    lines = code_lines(path)
    assert len(lines) <= 330 or path.stem == "compiled_density"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            length = sum(node.lineno <= i <= node.end_lineno for i in lines)
            assert length <= 55, node.name


WALK = ROOT / "docs" / "how-a-fit-comes-about.md"
MATHEMATICS = (ROOT / "docs" / "mathematics.md").read_text(encoding="utf-8")
DOORS = re.findall(
    r"`((?:[a-z_]+/)+[a-z_]+)\.(\w+)`", WALK.read_text(encoding="utf-8") + MATHEMATICS
)


@pytest.mark.parametrize(("place", "name"), sorted(set(DOORS)))
def test_each_door_of_the_walk_and_of_the_mathematics_has_its_name(place, name):
    text = (SOURCE / place).with_suffix(".py").read_text(encoding="utf-8")
    assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE)


def test_the_walk_prints_what_it_says():
    failed, tried = doctest.testfile(
        str(WALK), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert (failed, tried > 10) == (0, True)


def test_each_equation_that_a_docstring_cites_is_in_the_mathematics():
    cited = [
        name
        for path in FILES
        for names in re.findall(
            r"Equations? ([^.]*) in docs/mathematics\.", path.read_text(encoding="utf-8")
        )
        for name in re.findall(r"`(.+?)`", names)
    ]
    assert len(cited) > 10
    assert set(cited) <= set(re.findall(r"^\$\$ \((.+)\)$", MATHEMATICS, re.MULTILINE))


WORDS = re.findall(
    r"^\*\*.+?\*\* \((.+?)\)\.",
    (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize("places", WORDS)
def test_each_word_of_the_glossary_lives_where_it_says(places):
    for place in re.findall(r"`([a-z_/]+)", places):
        path = SOURCE / place
        assert path.is_dir() or path.with_suffix(".py").is_file(), place
