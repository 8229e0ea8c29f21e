"""Many photographs on many machines: a registered version over a folder, by Spark."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from crackseg.data.image_io import IMAGE_EXTENSIONS, MAX_PIXELS, encode_png
from crackseg.errors import CracksegError
from crackseg.models.network import MIN_SIDE_PX

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

RESULT_TYPE = "mask string, crack_fraction double, crack_length_px double, score double"
_IMAGES_IN_A_PASS = 8  # decoded at once by a worker


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What a batch did.

    Attributes:
        num_images: found.
        failed: path and reason of each that could not be read.
    """

    num_images: int
    failed: list[tuple[str, str]]


def score_folder(
    model_uri: str,
    tracking_uri: str | None,
    source: str,
    target: str,
    *,
    master: str,
    file_format: str = "parquet",
    warning: str = "",
) -> BatchSummary:
    """Predict all photographs below a folder and write a table: path, the model's columns, ``error`` and ``warning``.

    Args:
        model_uri: ``models:/NAME/VERSION``, or the folder of a version.
        tracking_uri: the store that knows it; None for a folder.
        source: a folder, or what Spark takes for one (``hdfs://…``, ``s3a://…``).
        target: a folder that does not exist yet; likewise.
        master: ``local[N]``, or a cluster's, e.g. ``spark://HOST:7077``.
        file_format: ``parquet`` or ``csv``.
        warning: of the model, for the column ``warning`` of every row; "" leaves it empty.
    Raises:
        CracksegError: pyspark or Java is missing, there is no photograph, the target exists, or the job failed.
    """
    _check_paths(source, target)
    spark = start_spark(master)
    try:
        return _score(spark, model_uri, tracking_uri, source, target, file_format, warning)
    except CracksegError:
        raise
    except Exception as error:  # Java's exceptions come in a dozen classes
        raise CracksegError(f"Spark could not finish: {str(error).strip().splitlines()[0][:300]}") from error
    finally:
        spark.stop()


def start_spark(master: str) -> SparkSession:
    """Start Spark for Python of this environment.

    Raises:
        CracksegError: pyspark or Java is missing, or the master does not answer.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise CracksegError(f"batch scoring needs pyspark ({error}): pip install 'crackseg[spark]'") from error
    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin", "java").is_file() if home else shutil.which("java")):
        raise CracksegError(
            "Spark needs Java 17 or newer, and there is no "
            + (f"bin/java in JAVA_HOME, {home}" if home else "java on the PATH")
            + "; install e.g. openjdk-17-jre-headless"
        )
    # Without them workers run the python3 of the PATH. One thread each: the workers are what is parallel.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    builder = (
        SparkSession.builder.master(master)
        .appName("crackseg batch")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", _IMAGES_IN_A_PASS)
        .config("spark.executorEnv.OMP_NUM_THREADS", "1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
    )
    if master.startswith("local"):
        builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    try:
        spark = builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        raise CracksegError(f"Spark does not start with master {master}: {str(error)[:300]}") from error
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _score(
    spark: SparkSession,
    model_uri: str,
    tracking_uri: str | None,
    source: str,
    target: str,
    file_format: str,
    warning: str,
) -> BatchSummary:
    import mlflow
    from pyspark.sql import functions as sql

    if tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)
    endings = "|".join(extension.removeprefix(".") for extension in IMAGE_EXTENSIONS)
    files = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", "true")
        .load(source)
        .filter(sql.col("path").rlike(rf"(?i)\.({endings})$"))
    )
    predict = mlflow.pyfunc.spark_udf(spark, model_uri, env_manager="local", result_type=RESULT_TYPE)
    checked = files.select("path", "content", _make_check()("content").alias("error"))
    # Scored in the place of what cannot be read: Spark gives every row to the model, and one that fails ends the job.
    blank = encode_png(np.zeros((MIN_SIDE_PX, MIN_SIDE_PX), np.uint8))
    usable = sql.when(sql.col("error").isNull(), sql.col("content")).otherwise(sql.lit(blank))
    scored = checked.select("path", "error", predict(sql.struct(usable.alias("image"))).alias("answer"))
    names = [column.split()[0] for column in RESULT_TYPE.split(", ")]
    answers = [sql.when(sql.col("error").isNull(), sql.col(f"answer.{name}")).alias(name) for name in names]
    table = scored.select("path", *answers, "error")
    if empty := _list_empty_files(files, endings):
        rows = [(path, "the file is empty (0 bytes)") for path in empty]
        table = table.unionByName(
            spark.createDataFrame(rows, "path string, error string"), allowMissingColumns=True
        )
    table = table.withColumn("warning", sql.lit(warning or None).cast("string"))
    writer = table.write.mode("error")
    if file_format == "csv":
        writer.option("header", "true").csv(target)
        written = spark.read.option("header", "true").csv(target)
    else:
        writer.parquet(target)
        written = spark.read.parquet(target)
    failed = written.filter(sql.col("error").isNotNull()).select("path", "error").orderBy("path").collect()
    return BatchSummary(written.count(), [(row["path"], row["error"]) for row in failed])


def _list_empty_files(files: DataFrame, endings: str) -> list[str]:
    """The photographs of 0 bytes: Spark's reader passes them over without a word."""
    read = {row["path"] for row in files.select("path").toLocalIterator()}  # names alone; no content is read
    named = (unquote(path).replace("file:///", "file:/") for path in files.inputFiles())  # as the column has them
    return sorted(path for path in named if re.search(rf"(?i)\.({endings})$", path) and path not in read)


def _make_check() -> Any:
    """A Spark function that says what is wrong with a file's content; null where nothing is.

    It is made here, inside a function, so that Spark sends it whole: by name, it would have the workers import the
    crackseg that is installed there, and the model must run on its own.
    """
    from pyspark.sql.functions import pandas_udf

    max_pixels, min_side_px = MAX_PIXELS, MIN_SIDE_PX

    def find_fault(contents: pd.Series) -> pd.Series:
        import io

        import pandas
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None

        def check(content: bytes) -> str | None:
            try:
                with Image.open(io.BytesIO(content)) as image:
                    width, height = image.size
                    if width * height > max_pixels:
                        return f"{width} x {height} pixels are over the limit of {max_pixels / 1e6:g} megapixels"
                    if min(width, height) < min_side_px:
                        return f"{width} x {height} pixels are too small; at least {min_side_px} x {min_side_px}"
                    image.load()
            except Exception as error:
                return f"not an image that can be read, or damaged ({type(error).__name__})"
            return None

        return pandas.Series([check(content) for content in contents], dtype=object)

    # Spark reads the types from the hints, which are only text here.
    find_fault.__annotations__ = {}
    return pandas_udf(find_fault, "string", 200)  # 200: a scalar function, series to series


def _check_paths(source: str, target: str) -> None:
    if "://" not in target and Path(target).exists():
        raise CracksegError(f"{target}: exists already; name a folder that does not")
    if "://" in source:
        return
    folder = Path(source)
    if not folder.is_dir():
        raise CracksegError(f"{source}: no such folder")
    if not any(path.suffix.lower() in IMAGE_EXTENSIONS for path in folder.rglob("*")):
        raise CracksegError(f"{source}: no file in it or below ends in {', '.join(IMAGE_EXTENSIONS)}")
