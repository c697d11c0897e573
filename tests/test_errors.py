"""Helpers of the messages, and the line that a warning points at."""

from types import SimpleNamespace

import pytest

import ranef as rf
from ranef.errors import Convergence, ConvergenceWarning, FormulaError, listed, suggestion


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("subject", ["Reaction", "Subject"], "Did you mean `Subject`?"),
        ("gr", ["grp", "gra", "x"], "Did you mean `grp` or `gra`?"),
        ("zzz", ["x", "y"], "Known names: `x`, `y`."),
        (None, ["x"], "Known names: `x`."),
        ("x", [], "There are none."),
        (
            "zzz",
            [f"c{i}" for i in range(50)],
            f"Known names: {', '.join(f'`c{i}`' for i in range(40))} and 10 more.",
        ),
    ],
)
def test_suggestions(name, known, expected):
    assert suggestion(name, iter(known)) == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], ""),
        (["a"], "`a`"),
        (range(5), "`0`, `1`, `2`, `3` and `4`"),
        ("abcdefg", "`a`, `b`, `c`, `d`, `e` and 2 more"),
    ],
)
def test_lists(items, expected):
    assert listed(items) == expected


def test_carets_need_a_place():
    assert str(FormulaError("wrong.")) == "wrong."
    assert str(FormulaError("wrong.", "y ~ x")) == "wrong."
    assert str(FormulaError("wrong.", "y ~ x", (4, 4))) == "wrong.\n    y ~ x\n        ^"
    assert str(FormulaError("wrong.", "é ~ x\ty", (4, 7))) == "wrong.\n    é ~ x y\n        ^^^"


@pytest.mark.parametrize("call", [lambda m: m.fit("ml"), lambda m: m.fit("reml")])
def test_a_warning_points_at_the_line_of_the_user(call, monkeypatch):
    estimate = SimpleNamespace(convergence=Convergence.STALLED, sigma=1.0)
    monkeypatch.setattr("ranef.model.linear_engine.reml.estimate", lambda *_, **__: estimate)
    monkeypatch.setattr("ranef.model.shared_engine.PointFit", lambda *_: None)
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    with pytest.warns(ConvergenceWarning) as caught:
        call(model)
    (warning,) = caught
    assert (warning.filename, str(warning.message)) == (__file__, Convergence.STALLED.value)


def test_the_package_is_told_from_others_that_begin_like_it():
    """The prefix ends with a separator: `ranef_tools` is the user's code, not ours."""
    from ranef import errors

    assert errors.__file__.startswith(errors._PACKAGE)
    assert not errors.__file__.replace("/ranef/", "/ranef_tools/").startswith(errors._PACKAGE)
