"""How long power takes, from cross-products and by fits one by one: `uv run benchmarks/power.py`.

Seconds of processor time, with one BLAS thread: ten sizes of 1,000 studies each, and 40 studies of
one size that are simulated, fitted and tested one by one, scaled up to as many.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time

import ranef as rf
from ranef.planning.planned_rows import extended

GROUPS = range(4, 24, 2)
BRUTE = 40
PILOTS = (
    ("Reaction ~ Days + (Days | Subject)", "sleepstudy", "Subject", "Days"),
    ("Reaction ~ Days + (1 | Subject)", "sleepstudy", "Subject", "Days"),
    ("distance ~ age * Sex + (age | Subject)", "Orthodont", "Subject", "age"),
)


def seconds(call, *arguments, **options):
    start = time.process_time()
    call(*arguments, **options)
    return time.process_time() - start


def brute(fit, frame, effect):
    for y in fit.simulate(BRUTE, seed=1, new_data=frame).T:
        table = rf.fit(fit.design.formula.text, frame.assign(**{fit.design.response: y}))
        float(table.summary(df="satterthwaite").to_frame().loc[effect, "p_value"])


def main():
    print(f"{'formula':44}{'10 x 1000':>12}{'one by one':>12}{'ratio':>8}")
    for formula, data, factor, effect in PILOTS:
        pilot = rf.fit(formula, rf.load_dataset(data))
        together = seconds(rf.power, pilot, effect, groups=GROUPS, seed=1)
        frame = extended(rf.load_dataset(data), factor, 12)
        alone = seconds(brute, pilot, frame, effect) / BRUTE * 1000 * len(GROUPS)
        print(f"{formula:44}{together:12.1f}{alone:12.1f}{alone / together:8.0f}")


if __name__ == "__main__":
    main()
