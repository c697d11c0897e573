"""How long fits of generalised models take: `uv run benchmarks/generalized.py`.

Point estimates: the data of Contraception (1,934 binary rows, 60 districts) and simulated answers
of 316 people to 24 items (7,584 binary rows, two crossed factors), medians of several fits in one
process. `--r` runs lme4 on the same data, where R and lme4 are installed.

`--bootstrap` refits 1,000 simulated responses of Contraception, a likelihood-ratio test's too.
`--structures` compares its four structures of random effects. `--cells` fits 100,000 binary rows of
which 3,600 are different in their predictors, one by one, together and counted by DuckDB.

`--mcmc` samples Contraception with an intercept and a slope in each district, in a process of its
own, from its start to the fit in hand; `--bambi PYTHON` adds bambi, whose effects are independent,
from an interpreter that has it.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from bootstrap import once
from point_estimates import report, seconds

import ranef as rf
from posterior import measure, row
from ranef.likelihood.bootstrap.bootstrap import null_statistics
from ranef.likelihood.generalized import cells as row_cells
from ranef.posterior.sampling import pymc_hierarchical

CONTRACEPTION = "use ~ age + I(age^2) + urban + livch + {random}"
ANSWERS = "correct ~ ability + kind + (1 | person) + (1 | item)"
BAYESIAN = "use ~ age*ch + I(age^2) + urban + (urban | district)"

RANEF = """
import ranef as rf
data = rf.load_dataset("Contraception")
data["ch"] = data["livch"] != "0"
fit = rf.Model({formula!r}, data, family="binomial").fit("mcmc", seed={seed}, progressbar=False)
posterior = fit.posterior["posterior"].to_dataset()
print("ready", flush=True)
own = ["beta", "sd_district", "corr_district"], ["b_district"]
limit = float("inf")
"""
BAMBI = """
import logging, warnings
warnings.simplefilter("ignore")
import bambi, pandas
logging.disable()
data = pandas.read_csv({path!r}, dtype={{"district": str, "livch": str}})
data["use"] = (data["use"] == "Y").astype(int)
data["age2"] = data["age"] ** 2
data["ch"] = (data["livch"] != "0").astype(int)
model = bambi.Model("use ~ age*ch + age2 + urban + (urban | district)", data, family="bernoulli")
fit = model.fit(
    random_seed={seed}, draws=1000, tune=1000, chains=4, cores=2, progressbar=False, **{options!r}
)
posterior = fit["posterior"].to_dataset()
print("ready", flush=True)
effects = [name for name in posterior if "|" in name and not name.endswith("_sigma")]
own = [name for name in posterior if name not in effects], effects
limit = float("inf")
"""
R = """
suppressMessages(library(lme4))
contraception <- read.csv("{folder}/contraception.csv", stringsAsFactors = TRUE)
answers <- read.csv("{folder}/answers.csv", stringsAsFactors = TRUE)
for (name in c("district", "livch")) contraception[[name]] <- factor(contraception[[name]])
time <- function(...) median(sapply(1:3, function(i)
  system.time(suppressWarnings(glmer(..., family = binomial)))[["elapsed"]]))
base <- "use ~ age + I(age^2) + urban + livch + "
cat(time(as.formula(paste(base, "(1 | district)")), contraception),
    time(as.formula(paste(base, "(1 | district)")), contraception, nAGQ = 10),
    time(as.formula(paste(base, "(urban | district)")), contraception),
    time(correct ~ ability + kind + (1 | person) + (1 | item), answers))
"""


def answers(seed: int = 1) -> pd.DataFrame:
    """Simulate binary answers of 316 people to 24 items."""
    rng = np.random.default_rng(seed)
    people, items = 316, 24
    person, item = np.repeat(np.arange(people), items), np.tile(np.arange(items), people)
    ability, kind = rng.normal(size=people), np.arange(items) % 3
    eta = 0.3 * ability[person] - 0.5 * kind[item]
    eta += rng.normal(0, 1.1, people)[person] + rng.normal(0, 0.5, items)[item]
    return pd.DataFrame(
        {
            "correct": rng.binomial(1, 1 / (1 + np.exp(-eta))),
            "ability": ability[person],
            "kind": np.array(list("abc"))[kind][item],
            "person": [f"p{i}" for i in person],
            "item": [f"i{i}" for i in item],
        }
    )


def point_estimates(*, with_r: bool) -> None:
    """Time the whole way from formula and data to the estimates."""
    contraception, simulated = rf.load_dataset("Contraception"), answers()
    one, two = (CONTRACEPTION.format(random=r) for r in ("(1 | district)", "(urban | district)"))
    cases = {
        "(1 | district), Laplace": (one, contraception, 1),
        "(1 | district), 10 points": (one, contraception, 10),
        "(urban | district), Laplace": (two, contraception, 1),
        "(1 | person) + (1 | item), Laplace": (ANSWERS, simulated, 1),
    }
    theirs = lme4(contraception, simulated) if with_r else [None] * len(cases)
    for (name, (formula, data, points)), other in zip(cases.items(), theirs, strict=True):

        def fit(formula=formula, data=data, points=points):
            return rf.fit(formula, data, family="binomial", n_agq=points)

        report(name, seconds(fit))
        if other is not None:
            report("    lme4", other)


def posteriors(bambi: str | None, runs: int = 3) -> None:
    """Time the way from the start of a process to the posterior."""
    print(f"\n{BAYESIAN}: median of {runs} runs")
    codes = [RANEF.format(formula=BAYESIAN, seed=seed) for seed in range(runs)]
    measure(codes[0])  # fills the caches
    row("mcmc, 4 x (1000 + 1000)", [measure(code) for code in codes])
    if not bambi:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "contraception.csv")
        rf.load_dataset("Contraception").to_csv(path, index=False)
        for name, options in {
            "bambi, independent effects": {},
            "bambi, with nutpie": {"inference_method": "nutpie"},
        }.items():
            own = [BAMBI.format(path=str(path), seed=s, options=options) for s in range(runs)]
            measure(own[0], bambi)
            row(name, [measure(code, bambi) for code in own])


def lme4(contraception: pd.DataFrame, simulated: pd.DataFrame) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        contraception.to_csv(Path(folder) / "contraception.csv", index=False)
        simulated.to_csv(Path(folder) / "answers.csv", index=False)
        done = subprocess.run(
            ["Rscript", "-e", R.format(folder=folder)], capture_output=True, text=True, check=True
        )
    return [float(word) for word in done.stdout.split()]


def structures() -> None:
    """Time the comparison of four structures of random effects, and a posterior by Laplace."""
    print("\nprocessor seconds")
    formula = CONTRACEPTION.format(random="(urban | district)")
    model = rf.Model(formula, rf.load_dataset("Contraception"), family="binomial")
    compared = once(lambda: rf.compare_structures(model, seed=1, progressbar=False))
    report("comparison of the structures of (urban | district)", compared[1])
    crossed = rf.Model(ANSWERS, answers(), family="binomial")
    report('fit("laplace") of the answers', once(lambda: crossed.fit("laplace", seed=1))[1])


def cells(n: int = 100_000) -> None:
    """Time fits of rows that repeat, read one by one or together: processor seconds."""
    import duckdb

    print(f"\n{n:,} binary rows, 3,600 of them different in their predictors: processor seconds")
    rng = np.random.default_rng(1)
    sizes = {"a": 3, "b": 4, "t": 3, "g": 100}
    data = pd.DataFrame({name: rng.integers(0, size, n) for name, size in sizes.items()})
    eta = 0.2 * data["a"] - 0.4 + 0.5 * rng.normal(size=100)[data["g"]]
    data["y"] = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    kinds = {"one by one": (data, np.inf), "together": (data, row_cells.FEWEST)}
    kinds["counted by DuckDB"] = duckdb.from_df(data), row_cells.FEWEST
    for name, (rows, fewest) in kinds.items():
        row_cells.FEWEST = fewest
        model = rf.Model("y ~ a + b + t + (1 | g)", rows, family="bernoulli")
        model.fit()
        fits = [once(lambda m=model, k=k: m.engine.ml(n_agq=k)) for k in (1, 10)]
        report(f"{name}, Laplace", fits[0][1])
        report(f"{name}, 10 points", fits[1][1])
        sampled = pymc_hierarchical.hierarchical(
            model.design,
            model.priors,
            model.family,
            rows=row_cells.cells_of(model.design.distinct, model.family).rows,
        )
        gradient, point = sampled.compile_dlogp(), sampled.initial_point()
        gradient(point)
        report(
            f"{name}, 100 gradients of NUTS",
            once(lambda g=gradient, p=point: [g(p) for _ in range(100)])[1],
        )


def bootstraps(n: int = 1000) -> None:
    """Time refits of simulated responses: processor seconds."""
    print(f"\n{n} refits of simulated responses: processor seconds")
    data, small = rf.load_dataset("Contraception"), "use ~ age + I(age^2) + livch + (1 | district)"
    one, two = (CONTRACEPTION.format(random=r) for r in ("(1 | district)", "(urban | district)"))
    for formula in (one, two):
        fit = rf.fit(formula, data, family="binomial")
        fit.bootstrap(2, seed=1)
        report(formula, once(lambda fit=fit: fit.bootstrap(n, seed=1))[1])
    null, large = rf.fit(small, data, family="binomial"), rf.Model(one, data, family="binomial")
    statistics = once(lambda: null_statistics(null.fitted_model, large.design, n, seed=1))
    report("statistics of two models, without and with urban", statistics[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--r", action="store_true", help="run lme4 too")
    parser.add_argument("--bootstrap", action="store_true", help="refit simulated responses")
    parser.add_argument("--structures", action="store_true", help="compare structures")
    parser.add_argument("--cells", action="store_true", help="rows that repeat")
    parser.add_argument("--mcmc", action="store_true", help="sample the posterior")
    parser.add_argument("--bambi", metavar="PYTHON", help="an interpreter that has bambi")
    arguments = parser.parse_args()
    point_estimates(with_r=arguments.r)
    if arguments.bootstrap:
        bootstraps()
    if arguments.structures:
        structures()
    if arguments.cells:
        cells()
    if arguments.mcmc or arguments.bambi:
        posteriors(arguments.bambi)


if __name__ == "__main__":
    main()
