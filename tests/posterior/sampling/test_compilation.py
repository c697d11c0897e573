"""Compiled functions and where they are kept."""

import ast
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import caching, config

from ranef.posterior import transforms
from ranef.posterior.sampling import compilation, compiled_density

OUTER = """
from ranef.posterior.sampling.compilation import inner
import {part}
step = inner({part}.step)
def function(x):
    return step(x) + 1.0
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a function that writes two modules and compiles what one has of the other."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = "outer_of_test", "part_of_test"

    def write(factor):
        for name in names:
            sys.modules.pop(name, None)
        (tmp_path / f"{names[0]}.py").write_text(OUTER.format(part=names[1]))
        (tmp_path / f"{names[1]}.py").write_text(f"def step(x):\n    return {factor} * x\n")
        importlib.invalidate_caches()
        outer, part = map(importlib.import_module, names)
        return compilation.compiled(outer.function, [outer, part])

    yield write
    for name in names:
        sys.modules.pop(name, None)


def hits(function):
    return sum(function.stats.cache_hits.values())


def test_it_is_kept_until_a_source_changes(written):
    first = written(2.0)
    assert (first(3.0), hits(first)) == (7.0, 0)
    again = written(2.0)
    assert (again(3.0), hits(again)) == (7.0, 1)
    changed = written(5.0)  # in the other module
    assert (changed(3.0), hits(changed)) == (16.0, 0)
    again = written(5.0)
    assert (again(3.0), hits(again)) == (16.0, 1)


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
def test_a_damaged_file_is_written_anew(written, tmp_path, pattern, share):
    assert written(2.0)(3.0) == 7.0
    (path,) = tmp_path.rglob(pattern)
    text = path.read_bytes()
    path.write_bytes(text[: int(share * len(text))])
    function = written(2.0)
    assert (function(3.0), hits(function)) == (7.0, 0)
    again = written(2.0)
    assert (again(3.0), hits(again)) == (7.0, 1)


def test_without_a_place_to_write_to_it_is_compiled(written, monkeypatch, tmp_path):
    def refuse(_):
        raise PermissionError

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    function = written(2.0)
    assert (function(3.0), hits(function)) == (7.0, 0)
    assert not list(tmp_path.rglob("*.nb?"))


def test_without_room_it_is_compiled(written, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", refuse)
    assert written(2.0)(3.0) == 7.0
    assert written(2.0)(3.0) == 7.0


def test_the_density_names_all_its_sources():
    """Every name that compiled code takes from the package comes from a listed module."""
    listed = {module.__name__ for module in compiled_density.SOURCES}
    used = {name for module in (compiled_density, transforms) for name in imported(module)}
    names = set(transforms.evaluate.__code__.co_names)
    for node in ast.walk(ast.parse(Path(compiled_density.__file__).read_text(encoding="utf-8"))):
        names |= {node.id} if isinstance(node, ast.Name) else set()
    numbers = {name for name, value, _ in used if isinstance(value, int | float | np.ndarray)}
    assert numbers & names
    for name, value, home in used:
        if name in names and isinstance(value, int | float | np.ndarray):
            assert home in listed, name


def imported(module):
    for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ranef"):
            yield from (
                (alias.name, getattr(module, alias.asname or alias.name), node.module)
                for alias in node.names
            )
