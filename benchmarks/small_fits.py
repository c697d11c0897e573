"""How long small jobs take: `uv run benchmarks/small_fits.py`.

Processor seconds, the least of several runs: models of the teaching data sets from formula to
matrices, their fits, and what follows a fit of `sleepstudy` by quadrature. Last, whole processes
from their start, with the bytecode that an installation has: a REML fit, and a posterior by NUTS.
`--source DIR` measures another copy of the package beside this one, in turns. BLAS has one thread;
with `OPENBLAS_NUM_THREADS=2` before the command it is seen whether a second one spins.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
SLEEP = "Reaction ~ Days + (Days | Subject)"
FORMULAS = {
    "sleepstudy": (SLEEP, "gaussian"),
    "Penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "gaussian"),
    "cake": ("angle ~ recipe * temperature + (1 | recipe:replicate)", "gaussian"),
    "cbpp": ("cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial"),
    "Contraception": ("use ~ age * urban + livch + (1 | district)", "bernoulli"),
}
PROCESS = """
import ranef as rf
fit = rf.Model({formula!r}, rf.load_dataset("sleepstudy")).fit({options})
print(float(fit.sigma))
"""
PROCESSES = {"reml": "", "mcmc": '"mcmc", seed=1, progressbar=False'}


def least(job, runs):
    taken = []
    for _ in range(runs + 1):
        begin = time.process_time()
        job()
        taken.append(time.process_time() - begin)
    return min(taken[1:])


def measured():
    import ranef as rf

    found = {}
    for name, (formula, family) in FORMULAS.items():
        data = rf.load_dataset(name)
        model = rf.Model(formula, data, family)
        found[f"{name}: model"] = least(lambda f=formula, d=data, k=family: rf.Model(f, d, k), 30)
        found[f"{name}: {'REML' if family == 'gaussian' else 'ML'}"] = least(model.fit, 10)
    data = rf.load_dataset("sleepstudy")
    found["sleepstudy: formula to REML"] = least(lambda: rf.fit(SLEEP, data), 20)
    models = rf.Model(SLEEP, rf.load_dataset("sleepstudy")).structures()
    model = models["(Days | Subject)"]
    fits = {name: one.fit("quadrature", seed=1) for name, one in models.items()}
    found["quadrature"] = least(lambda: model.fit("quadrature", seed=1), 3)
    found["quadrature, printed"] = least(lambda: str(model.fit("quadrature", seed=1)), 3)
    found["comparison of four structures"] = least(lambda: str(rf.compare(fits, seed=1)), 2)
    return found


def of_processes():
    found = {}
    for name, options in PROCESSES.items():
        code, taken = PROCESS.format(formula=SLEEP, options=options), []
        for _ in range(4):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        found[f"fresh process, {name}"] = min(taken)
    return found


def of_source(source):
    environment = os.environ | ({"PYTHONPATH": source} if source else {})
    run = [sys.executable, __file__, "--measure"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="", help="another copy of the package")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        warnings.simplefilter("ignore")
        print(json.dumps(measured() | of_processes()))
        return
    here = of_source("")
    other = of_source(asked.source) if asked.source else {}
    for name, seconds in here.items():
        line = f"{name:32}{1e3 * seconds:10.2f} ms"
        print(line + (f"{1e3 * other[name]:10.2f} ms there" if name in other else ""))


if __name__ == "__main__":
    main()
