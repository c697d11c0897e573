"""The line that says how far a job is: when it comes, what it says, and that it goes."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import ranef as rf
from ranef import progress
from ranef.progress import running, silent, tracked


@pytest.fixture
def lines(monkeypatch, capsys):
    """Look at a terminal whose clock moves by some seconds at every look."""

    def look(seconds=5):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr(progress, "clock", count(0, seconds).__next__)
        return lambda: [line.strip() for line in capsys.readouterr().err.split("\r")[1::2]]

    return look


def test_a_long_job_is_one_line_that_goes_away(lines):
    seen = lines()
    assert list(tracked("Refitting", "abc")) == ["a", "b", "c"]
    assert seen() == [
        "Refitting: 1 of 3 (5 s)",
        "Refitting: 2 of 3 (10 s)",
        "Refitting: 3 of 3 (15 s)",
        "",
    ]


def test_a_short_job_is_not_seen(lines):
    seen = lines(0.3)
    assert list(tracked("Refitting", "abc")) == ["a", "b", "c"]
    assert seen() == []


def test_the_line_is_not_written_more_often_than_one_can_look(lines):
    seen = lines(0.04)
    list(tracked("Refitting", range(100)))
    assert len(seen()) == 1 + (100 - 25) // 3 + 1


def test_a_job_within_another_stands_behind_it(lines):
    seen = lines()
    with running("Comparing", 2) as step:
        step(0, "Comparing a")
        list(tracked("Integrating", iter("xy")))
        step(doing="Comparing b")
    assert seen() == [
        "Comparing a: 0 of 2 (5 s)",
        "Comparing a: 0 of 2 > Integrating: 1 (10 s)",
        "Comparing a: 0 of 2 > Integrating: 2 (15 s)",
        "Comparing b: 1 of 2 (20 s)",
        "",
    ]


def test_two_jobs_of_the_same_name_are_two_jobs(lines):
    seen = lines()
    with running("Evaluating") as step:
        with running("Evaluating"):
            pass
        step()
    assert seen() == ["Evaluating: 1 (5 s)", ""]


def test_a_job_that_fails_leaves_no_line(lines):
    seen = lines()

    def divided():
        for number in tracked("Dividing", iter([1, 0])):
            yield 1 / number

    with pytest.raises(ZeroDivisionError):
        list(divided())
    gc.collect()
    assert seen() == ["Dividing: 1 (5 s)", ""]
    list(tracked("Adding", [1]))
    assert seen() == ["Adding: 1 of 1 (5 s)", ""]


def test_a_line_that_is_too_long_is_cut(lines, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    seen = lines()
    list(tracked("A job with a very long name", [1]))
    assert seen() == ["A job with a very l", ""]


def test_nothing_is_shown_where_nobody_looks(lines, monkeypatch):
    seen = lines()
    with silent():
        list(tracked("Refitting", "abc"))
    with silent(when=False), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: list(tracked("Refitting", "abc"))).result() == ["a", "b", "c"]
    monkeypatch.setattr(progress, "_is_worker", lambda: True)
    list(tracked("Refitting", "abc"))
    monkeypatch.setattr(progress, "_is_worker", lambda: False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    list(tracked("Refitting", "abc"))
    assert seen() == []


def test_a_line_is_away_while_something_else_is_printed(lines):
    seen = lines()
    with running("Fitting") as advance:
        advance()
        progress.clear()
        advance()
    assert seen() == ["Fitting: 1 (5 s)", "", "Fitting: 2 (10 s)", ""]


@cache
def yields(formula="Yield ~ 1 + (1 | Batch)"):
    return rf.Model(formula, rf.load_dataset("Dyestuff"))


@cache
def herds():
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    return rf.Model(formula, rf.load_dataset("cbpp"), "binomial")


JOBS = {
    "Fitting, evaluations": lambda: yields().fit("ml").theta,
    "Profiling": lambda: yields().fit("ml").profile().confint(),
    "Refitting simulated responses": lambda: yields().fit().confint("bootstrap", n=20, seed=1),
    "Simulating likelihood ratios": lambda: rf.anova(
        yields("Yield ~ 1").fit("ml"), yields().fit("ml"), test="bootstrap", n=20, seed=1
    ).to_frame()["p_value"],
    "Minimising": lambda: herds().fit().confint("bootstrap", n=5, seed=1),
    "Integrating, nodes": lambda: yields().fit("quadrature").fixef(),
    "Leaving out, parts": lambda: yields().fit("laplace", draws=200, seed=1).loo("group").elpd,
    "Finding conditional modes": lambda: herds().fit("laplace", draws=50, seed=1).fixef(),
}


@pytest.mark.filterwarnings("ignore::ranef.errors.RanefWarning")
@pytest.mark.parametrize("doing", JOBS)
def test_long_jobs_say_how_far_they_are_with_the_same_result(doing, lines):
    alone = JOBS[doing]()
    seen = lines()
    found = JOBS[doing]()
    assert any(doing in line for line in seen())
    assert np.array_equal(found, alone, equal_nan=True)


def test_a_notebook_has_one_output_that_is_written_over(monkeypatch):
    written = []

    def display(data, **_):
        written.append(data["text/html"])
        return SimpleNamespace(update=lambda data, **_: written.append(data["text/html"]))

    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    shown = ModuleType("IPython.display")
    shown.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.setattr(progress, "clock", count(0, 5).__next__)
    list(tracked("x < y", [1, 2]))
    assert written == ["", "x &lt; y: 1 of 2 (5 s)", "x &lt; y: 2 of 2 (10 s)", ""]
