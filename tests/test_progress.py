"""The line that says how far a job is: when it comes, what it says, and that it goes."""

import gc
import multiprocessing
import pickle
import sys
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from itertools import count
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import ranef as rf
from ranef import progress
from ranef.errors import FormulaError
from ranef.leave_one_out import gaussian_loo, glmm_loo
from ranef.progress import mapped, running, silent, tracked
from support.executors import Pool, Sending


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


# ---------------------------------------------------------------------------------- executors


def test_work_is_done_wherever_there_is_a_submit_or_a_map():
    expected = [8, 9, 1]
    assert list(mapped(None, pow, [2, 3, 1], [3, 2, 5])) == expected
    assert list(mapped(Sending(), pow, [2, 3, 1], [3, 2, 5])) == expected
    assert list(mapped(Pool(), pow, [2, 3, 1], [3, 2, 5])) == expected
    with ThreadPoolExecutor(2) as threads:
        assert list(mapped(threads, pow, [2, 3, 1], [3, 2, 5])) == expected


def test_what_does_no_work_is_refused():
    message = (
        r"executor=3 has no `submit` and no `map`: give one of concurrent.futures, loky or Das"
    )
    with pytest.raises(rf.FitError, match=message):
        mapped(3, pow, [2], [3])


def test_what_is_left_is_cancelled_where_one_fails():
    futures = []

    class Waiting:
        def submit(self, *_):
            futures.append(Future())
            if len(futures) == 1:
                futures[0].set_exception(ZeroDivisionError())
            return futures[-1]

    with pytest.raises(ZeroDivisionError):
        list(mapped(Waiting(), abs, [1, 2]))
    assert futures[1].cancelled()


@cache
def fitted_herds(method="ml"):
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    model = rf.Model(formula, rf.load_dataset("cbpp"), family="binomial")
    return model.fit(method) if method == "ml" else model.fit(method, draws=400, seed=1)


def _without_herds():
    formula = "cbind(incidence, size - incidence) ~ period"
    return rf.fit(formula, rf.load_dataset("cbpp"), family="binomial")


def _anova(executor):
    options = {"test": "bootstrap", "n": 150, "seed": 1, "stop": False, "executor": executor}
    table = rf.anova(_without_herds(), fitted_herds(), **options)
    return table.comparisons[0].simulated.statistics


def _ratios(executor, patch):
    patch.setattr(glmm_loo, "good_khat", lambda _: -9.0)
    few = rf.load_dataset("cbpp").query("herd in ['1', '2']")
    fit = rf.fit("incidence ~ 1 + (1 | herd)", few, "laplace", family="poisson", seed=1)
    return fit.scores("group", seed=1, executor=executor).elpd


def _bridges(executor, patch):
    patch.setattr(gaussian_loo, "good_khat", lambda draws: -9.0 if draws == 400 else 9.0)
    patch.setattr(gaussian_loo.lattices, "is_feasible", lambda _: False)
    fit = yields().fit("laplace", draws=400, seed=1)
    return fit.scores("group", seed=1, executor=executor).elpd


def _own_nodes(executor, patch):
    patch.setattr(gaussian_loo, "_lattices", lambda _: iter(()))
    fit = yields().fit("quadrature")
    return fit.scores("group", executor=executor).elpd


BY_EXECUTOR = {
    "bootstrap": lambda executor, _: (
        fitted_herds().bootstrap(120, seed=1, executor=executor).estimates
    ),
    "anova": lambda executor, _: _anova(executor),
    "profile": lambda executor, _: fitted_herds().profile(executor=executor).table,
    "confint": lambda executor, _: yields().fit("ml").confint("profile", executor=executor),
    "ratios": _ratios,
    "bridges": _bridges,
    "own nodes": _own_nodes,
}


@pytest.mark.parametrize("name", BY_EXECUTOR)
@pytest.mark.filterwarnings("ignore::ranef.errors.RanefWarning")
def test_an_executor_gives_the_same_bits(name, monkeypatch):
    executor = Sending()
    found, alone = (BY_EXECUTOR[name](where, monkeypatch) for where in (executor, None))
    assert executor.tasks > 1
    np.testing.assert_array_equal(np.asarray(found)[..., 1:], np.asarray(alone)[..., 1:])


def test_fits_leave_their_caches_behind():
    sleep = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    fit = sleep.fit("quadrature")
    str(fit)
    fit.loo("group")
    for one in (
        fit,
        sleep.fit("laplace", seed=1),
        fitted_herds(),
        fitted_herds("laplace"),
        sleep.fit(),
    ):
        assert len(pickle.dumps(one)) < 5e6


def _refused(n):
    raise FormulaError(f"no formula has {n} sides", "y ~ x ~ z", (6, 7))


def test_another_process_gives_the_same_bits_and_its_errors():
    data = rf.load_dataset("cbpp")
    model = rf.Model(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial"
    )
    fit = model.fit()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = fit.bootstrap(3, seed=1, executor=pool)
        with pytest.raises(FormulaError, match=r"no formula has 3 sides\n") as caught:
            list(mapped(pool, _refused, [3]))
    np.testing.assert_array_equal(there.estimates, fit.bootstrap(3, seed=1).estimates)
    assert caught.value.span == (6, 7)
