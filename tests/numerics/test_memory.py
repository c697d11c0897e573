"""What is free, and what is refused before it is made; figures against a limit that is set here."""

import copy
import pickle
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.numerics import memory
from ranef.numerics.memory import WithoutCaches, available, check_memory, within_memory

N = 600
RNG = np.random.default_rng(3)
FRAME = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "b": RNG.integers(0, 2, N),
        "g": RNG.integers(0, 60, N),
        "h": RNG.integers(0, 50, N),
        **{f"x{i}": RNG.normal(size=N) for i in range(1, 9)},
        "u": np.tile(list("abcdef"), N // 6),
        "v": np.tile(list("klmnopqrst"), N // 10),
    }
)
CROSSED = "y ~ 1 + (1 | g) + (1 | h)"


@pytest.fixture
def free(monkeypatch):
    monkeypatch.setattr(memory, "ALWAYS_FREE", 0)
    return lambda n_bytes: monkeypatch.setattr(memory, "available", lambda: float(n_bytes))


def test_what_is_free_is_less_than_what_there_is():
    assert 0 < available() < 1e14


def test_each_limit_counts(monkeypatch):
    files = {
        "/proc/meminfo": ["MemTotal: 9 kB", "MemAvailable: 5000 kB"],
        "/sys/fs/cgroup/memory.max": ["4000000"],
        "/sys/fs/cgroup/memory.stat": ["anon 1000000", "file 900", "kernel 500000"],
    }
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(path, []))
    assert available() == 2.5e6
    files["/sys/fs/cgroup/memory.max"] = ["max"]
    assert available() == 5000 * 1024
    files.clear()
    assert available() == np.inf


def test_the_limit_of_the_process_counts():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30));"
        "from ranef.numerics.memory import available; print(available())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(found.stdout) < 2 << 30


def test_the_figure_and_the_way_out(free):
    free(3e9)
    check_memory(3e8, "a table", "Take less.")
    with pytest.raises(rf.FitError) as error:
        check_memory(1e9, "a table", "Take less.")
    assert str(error.value) == ("a table needs 8.0 GB of memory, and 3.0 GB are free. Take less.")


def test_memory_that_runs_out_after_all():
    with (
        pytest.raises(rf.FitError, match=r"^this has run out of memory .*Take less.$"),
        within_memory("this", "Take less."),
    ):
        np.empty((1 << 40, 1 << 12))


@pytest.mark.parametrize("method", ["reml", "ml", "map", "laplace", "quadrature", "mcmc"])
@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_crossed_factors_are_refused_by_every_fit(free, method, family):
    formula = CROSSED if family == "gaussian" else CROSSED.replace("y", "b")
    model = rf.Model(formula, FRAME, family=family)
    if method not in model.engine.methods:
        return
    free(50_000)  # 3 x 52 x 52 x 8 are 65 kB
    with pytest.raises(rf.FitError, match=r"`g` .60 levels. and `h` .50 levels. are crossed"):
        model.fit(method)


def test_products_most_of_which_are_not_zero_are_refused_by_name(free):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.normal(size=6000), "g": np.arange(6000) // 3})
    frame["h"] = np.arange(6000) % 3
    model = rf.Model("y ~ 1 + (1 | g) + (1 | h)", frame)
    free(70_000)
    message = r"^the cross-products of `g` with `h`, 6,000 and most not zero, needs 0.1 MB"
    with pytest.raises(rf.FitError, match=message):
        model.fit()


def test_nested_factors_and_one_factor_need_no_such_matrix(free):
    frame = FRAME.assign(outer=FRAME["g"] // 6)
    models = [rf.Model(f"y ~ 1 + {t}", frame) for t in ("(1 | g)", "(1 | outer/g)")]
    free(50_000)
    for model in models:
        assert model.fit().converged


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ u*v*x1*x2*x3*x4*x5*x6*x7*x8",
        "y ~ " + "*".join(f"poly(x{i}, 3)" for i in range(1, 8)),
        "y ~ " + " + ".join(f"factor(x{i}):factor(x{i + 1})" for i in range(1, 5)),
        "y ~ " + " + ".join(f"u:v:poly(x{i}, 25):x{j}" for i in range(1, 9) for j in range(1, i)),
        "y ~ 1 + (u*v*x1*x2*x3*x4*x5*x6*x7*x8 | g)",
    ],
)
def test_many_columns_are_counted_over_all_terms(formula):
    with pytest.raises(rf.DataError, match="columns, more than 10000"):
        rf.Model(formula, FRAME)


def test_a_model_matrix_that_does_not_fit(free):
    free(1e6)
    with pytest.raises(rf.DataError, match="a model matrix of 600 rows and about 157 columns"):
        rf.Model("y ~ u*v*x1 + x2*x3", FRAME)


def test_draws_responses_and_log_likelihoods_that_do_not_fit(free):
    model = rf.Model("y ~ x1 + (1 | g)", FRAME)
    fit, quadrature = model.fit(), model.fit("quadrature", draws=2000)
    laplace = model.fit("laplace", draws=1000, seed=1)
    free(2e5)
    for draw in (
        lambda: model.fit("laplace", draws=10_000),
        lambda: model.fit("mcmc", draws=10_000),
        lambda: quadrature.posterior,
        lambda: fit.simulate(1000),
        lambda: laplace.simulate(1000),
    ):
        with pytest.raises(rf.FitError, match=r"MB of memory, and 0.2 MB are free. Take fewer"):
            draw()


def test_many_columns_are_centred_in_no_time():
    formula = "y ~ " + "*".join(f"poly(x{i}, 3)" for i in range(1, 6))
    assert len(rf.Model(formula, FRAME.iloc[:60]).design.fixed) == 4**5


@dataclass(frozen=True)
class Squared(WithoutCaches):
    x: int

    @cached_property
    def square(self):
        return self.x**2


def test_what_was_computed_stays_behind():
    one = Squared(3)
    assert one.square == 9
    for other in (copy.copy(one), pickle.loads(pickle.dumps(one))):
        assert other == one
        assert other.__dict__ == {"x": 3}
        assert other.square == 9


FAULTS = """
import resource
import numpy as np
{keep}

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        x = np.ones(40_000)
        y = np.exp(x) + x
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep what is freed")
def test_freed_memory_is_kept_for_the_next_array():
    def run(keep):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS.format(keep=keep)],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert run("") > 100
    assert run("from ranef.numerics.matrices import gram") < 10
