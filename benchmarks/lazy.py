"""Lazy data: how long scans and fit take, and how near they are to the rows in memory.

`uv run benchmarks/lazy.py [rows]` writes Parquet of that many rows (1,000,000) with 100,000 levels
into a temporary directory, and fits `y ~ arm * x + (x | g)` through DuckDB in a process of its own.
`uv run benchmarks/lazy.py grades` does so for 1,685,394 grades in a CSV file, by pairs of levels;
`uv run benchmarks/lazy.py engines` compares engines with a frame in memory, on 1,000,000 rows;
`uv run benchmarks/lazy.py factors` times fixed factors of many levels on them, in CPU seconds.
"""

import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from crossed import grades

import ranef as rf

LEVELS, CHUNK = 100_000, 5_000_000
FORMULAS = {
    "rows": "y ~ arm * x + (x | g)",
    "grades": "y ~ 1 + (1 | id) + (1 | instr) + (1 | dept)",
}
NORMAL = "(sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()))"
CASES = {
    "crossed": ("y ~ arm * x + (x | g) + (1 | h)", {}),
    "chain": ("y ~ arm * x + (x | h / u)", {}),
    "weights": ("y ~ arm * x + (x | g)", {"weights": "w"}),
    "offset": ("y ~ arm * x + (x | g)", {"offset": "o"}),
    "codings": ("y ~ C(arm, contr.sum) * x + C(year, contr.helmert) + (arm || h)", {}),
}
FACTORS = (
    "y ~ f5 * x + (x | g)",
    "y ~ f100 + x + (1 | h)",
    "y ~ f100 * x + (1 | g)",
    "y ~ f1000 + x + (1 | h)",
    "y ~ f20 * f30 + x + (1 | h)",
    "y ~ f1000 + x + (1 | g) + (1 | h)",
    "y ~ f100 + f1000 + x + (1 | g) + (1 | h)",
)


def write_rows(folder: Path, n: int) -> str:
    """Write Parquet in chunks; only the effects of the levels are here."""
    import duckdb

    rng, con = np.random.default_rng(1), duckdb.connect()
    effects = rng.multivariate_normal([0, 0], [[4, 0.3], [0.3, 0.25]], LEVELS)
    con.register("levels", pd.DataFrame(effects, columns=["b0", "b1"]).assign(g=range(LEVELS)))
    con.execute("set threads = 2; select setseed(0.5)")
    for i, start in enumerate(range(0, n, CHUNK)):
        con.execute(
            f"""copy (
            with drawn as (
                select (i * 7919 % {LEVELS})::integer as g, 100 + 3 * {NORMAL} as x,
                    if(random() < 0.5, 'control', 'treated') as arm, {NORMAL} as e
                from range({start}, {min(start + CHUNK, n)}) rows(i)
            )
            select 5000 + b0 + (2 + b1) * (x - 100) + if(arm = 'treated', 1, 0) + 3 * e as y,
                arm, x, g from drawn join levels using (g)
            ) to '{folder / f"rows{i:03}.parquet"}' (format parquet)"""  # noqa: S608 -- numbers and a path of our own
        )
    return f"from '{folder}/*.parquet'"


def timed(formula: str, source: str) -> None:
    """Print how long scans and fit of what SQL reads take, and the largest memory."""
    import duckdb

    start, con = time.perf_counter(), duckdb.connect()
    con.execute("set memory_limit = '3GB'; set threads = 2")
    con.execute("set temp_directory = ''")
    model = rf.Model(formula, con.sql(source))
    scanned = time.perf_counter()
    _ = model.engine.data.cross
    crossed = time.perf_counter()
    fit = model.fit()
    took = time.perf_counter() - start
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{fit.n_obs:>13,} rows: scans {scanned - start:.1f} s, cross-products of these "
          f"{crossed - scanned:.1f} s, fit {start + took - crossed:.1f} s; "
          f"CPU {time.process_time():.0f} s, {size:.1f} GB; REML {fit.objective:.4f}")  # fmt: skip


def engines() -> None:
    """Print by how much the fit of each engine differs from that of the frame in memory."""
    frame = thousand_thousand()
    opened = {"polars": polars, "duckdb": duckdb_, "ibis": ibis_, "dask": dask_, "pyspark": spark}
    for name, (formula, options) in CASES.items():
        fit = rf.Model(formula, frame, **options).fit()
        print(f"{name:9} REML {fit.objective:.4f}   {formula}", flush=True)
        for engine, of in opened.items():
            if importlib.util.find_spec(engine) is None:
                continue
            found = rf.Model(formula, of(frame), **options).fit()
            theta = np.abs(found.theta / fit.theta - 1).max()
            beta = np.abs(found.fixef() / fit.fixef() - 1).max()
            change = found.objective - fit.objective
            print(
                f"  {engine:8} REML {change:+.0e}, theta {theta:.0e}, beta {beta:.0e}", flush=True
            )


def factors() -> None:
    """Print how long scans and fit take where fixed factors have many levels."""
    rng, frame = np.random.default_rng(5), thousand_thousand()
    for m in (5, 20, 30, 100, 1000):
        level = rng.integers(0, m, len(frame))
        frame[f"f{m}"] = np.char.add("l", level.astype(str))
        frame["y"] += rng.normal(size=m)[level]
    for formula in FACTORS:
        for engine, of in {"polars": polars, "duckdb": duckdb_}.items():
            data, start = of(frame), time.process_time()
            model = rf.Model(formula, data)
            scanned = time.process_time()
            fit = model.fit()
            took = time.process_time() - scanned
            print(f"{engine:7} {formula:42} {len(fit.fixef()):5,} coefficients: scans "
                  f"{scanned - start:.1f} s, fit {took:.1f} s", flush=True)  # fmt: skip


def thousand_thousand() -> pd.DataFrame:
    """Simulate rows with y near 5000 and nearly collinear columns."""
    rng, n = np.random.default_rng(3), 1_000_000
    h, g = rng.integers(0, 100, n), rng.integers(0, 5_000, n)
    u, x = h * 20 + rng.integers(0, 20, n), 100 + 3 * rng.normal(size=n)
    slopes = 2 + rng.normal(0, 0.5, 5_000)[g] + rng.normal(0, 0.3, 2_000)[u]
    y = 5000 + slopes * (x - 100) + rng.normal(0, 2, 5_000)[g] + rng.normal(0, 1, 100)[h]
    arm = rng.integers(0, 3, n)
    y += rng.normal(0, 0.7, (100, 3))[h, arm]
    return pd.DataFrame(
        {
            "y": y + rng.normal(0, 1, 2_000)[u] + rng.normal(0, 3, n),
            "x": x,
            "arm": np.array(["a", "b", "c"])[arm],
            "year": rng.choice(["1990", "1991", "1992", "1993"], n),
            "g": g,
            "h": h,
            "u": u,
            "w": rng.uniform(0.5, 2, n),
            "o": rng.normal(size=n),
        }
    )


def polars(frame: pd.DataFrame) -> object:
    """Open a frame by Polars."""
    import polars as pl

    return pl.from_pandas(frame).lazy()


def duckdb_(frame: pd.DataFrame) -> object:
    """Open a frame by DuckDB."""
    import duckdb

    return duckdb.from_df(frame)


def ibis_(frame: pd.DataFrame) -> object:
    """Open a frame by Ibis."""
    import ibis
    import pyarrow as pa

    return ibis.memtable(pa.Table.from_pandas(frame))


def dask_(frame: pd.DataFrame) -> object:
    """Open a frame by Dask."""
    import dask.dataframe

    return dask.dataframe.from_pandas(frame, npartitions=8)


def spark(frame: pd.DataFrame) -> object:
    """Open a frame by PySpark."""
    from pyspark.sql import SparkSession

    folder = tempfile.mkdtemp()
    frame.to_parquet(f"{folder}/rows.parquet")
    return SparkSession.builder.getOrCreate().read.parquet(f"{folder}/rows.parquet")


def main(asked: str) -> None:
    """Write what is asked for, and time it in a process of its own."""
    if asked == "engines":
        warnings.simplefilter("ignore")
        engines()
        return
    if asked == "factors":
        factors()
        return
    name = "grades" if asked == "grades" else "rows"
    with tempfile.TemporaryDirectory() as folder:
        source = f"from '{folder}/grades.csv'"
        if name == "grades":
            grades().to_csv(f"{folder}/grades.csv", index=False)
        else:
            source = write_rows(Path(folder), int(asked.replace("_", "").replace(",", "")))
        known = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "timed", FORMULAS[name], source]
        subprocess.run(command, check=True, env=known)


if __name__ == "__main__":
    if sys.argv[1:2] == ["timed"]:
        timed(*sys.argv[2:])
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "1_000_000")
