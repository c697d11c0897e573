"""Data frames of PySpark, where it and a Java are there."""

import shutil
import tempfile
from functools import cache
from typing import Any

import pandas as pd
import pytest


@cache
def session() -> Any:
    """Return a session of this machine, or skip the test and say what is missing."""
    if shutil.which("java") is None:
        pytest.skip("PySpark needs a Java, and there is none")
    sql = pytest.importorskip("pyspark.sql", reason="uv run --extra pyspark pytest -m spark")
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.shuffle.partitions", "2")
    return builder.config("spark.driver.host", "127.0.0.1").getOrCreate()


def spark_frame(frame: pd.DataFrame) -> Any:
    """Return the rows as a data frame of PySpark, from a file."""
    path = f"{tempfile.mkdtemp()}/rows.parquet"
    frame.to_parquet(path)
    return session().read.parquet(path)
