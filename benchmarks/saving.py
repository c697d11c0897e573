"""How large files of fits are, and how long they take: `uv run benchmarks/saving.py`.

Each fit is pickled, pickled after it was looked at (printed, drawn from), saved, and loaded.
"""

import pathlib
import pickle
import tempfile
import time

import ranef as rf

FITS = (
    ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
    ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
    ("attain ~ sex + (1 | primary) + (1 | second)", "ScotsSec"),
    ("distance ~ age * Sex + (age | Subject)", "Orthodont"),
    ("angle ~ recipe * temperature + (1 | replicate)", "cake"),
)


def main():
    heads = ("formula", "method", "pickle", "used", "file MB", "save", "load s")
    print("{:48}{:12}{:>9}{:>9}{:>9}{:>8}{:>8}".format(*heads))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "fit.zip")
        for formula, data in FITS:
            for method in ("reml", "quadrature", "laplace"):
                fit = rf.fit(formula, rf.load_dataset(data), method)
                sizes = [len(pickle.dumps(fit))]
                fit.summary(), fit.simulate(2, seed=1)
                sizes.append(len(pickle.dumps(fit)))
                start = time.process_time()
                fit.save(path)
                saved = time.process_time()
                rf.load(path)
                loaded = time.process_time()
                sizes.append(path.stat().st_size)
                row = "".join(f"{size / 1e6:9.2f}" for size in sizes)
                print(f"{formula:48}{method:12}{row}{saved - start:8.2f}{loaded - saved:8.2f}")


if __name__ == "__main__":
    main()
