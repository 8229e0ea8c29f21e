"""Predict a folder of photographs with a registered version, on many machines, with Spark."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from crackseg.data.images.files import IMAGE_EXTENSIONS, MAX_PIXELS, encode_png
from crackseg.data.images.kinds import has_image_ending, why_unread
from crackseg.data.importing.folder_walk import walk_folder
from crackseg.errors import CracksegError, first_line
from crackseg.inference.detector import SETTINGS_NAME, ModelSettings, ReferenceStatistics
from crackseg.inference.drift import FIGURES, compare, count_reference, warn_of_drift, warn_of_reference
from crackseg.models.network import MIN_SIDE_PX
from crackseg.serving.spark_check import require_spark

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

ANSWERS = "mask string, crack_fraction double, crack_length_px double, score double"
NOTES = (
    "confidence double, brightness double, contrast double, sharpness double, remark string, warning string, "
    "error string"
)
_NOTES_PARAM = "return_notes"  # of versions that return remarks and errors for each photograph
_IMAGES_IN_A_PASS = 8  # decoded at once by a worker
_MOST_BYTES = 2**31 - 64  # Spark holds a file in one array; a larger one would end the job


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """Result of a batch.

    Attributes:
        num_images: found.
        failed: path and reason of each photograph that could not be read.
        remarks: path and remark of each photograph that was converted when it was read.
        num_unusual: photographs with a warning: unlike the training photographs.
        warnings: about all photographs together, and about checks that were not possible; a sentence each.
        passed_over: files that are no photographs, by extension.
    """

    num_images: int
    failed: list[tuple[str, str]]
    remarks: list[tuple[str, str]] = field(default_factory=list)
    num_unusual: int = 0
    warnings: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


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
    """Predict all photographs below a folder and write a table, a row for each: path, :data:`ANSWERS`, :data:`NOTES`.

    A photograph that cannot be read, or that the model refuses, is a row with the reason in ``error``. Versions that
    were registered before notes existed give only answers and errors.

    Args:
        model_uri: ``models:/NAME/VERSION``, or the folder of a version.
        tracking_uri: the store it is registered in; None for a folder.
        source: a folder, or an address that Spark can read (``hdfs://…``, ``s3a://…``).
        target: a folder that does not exist yet; likewise.
        master: ``local[N]``, or a cluster's, e.g. ``spark://HOST:7077``.
        file_format: ``parquet`` or ``csv``.
        warning: that the model must not be used, for the column ``warning`` of every row; "" for none.
    Raises:
        CracksegError: pyspark or Java is missing, there is no photograph, the target exists, or the job failed.
    """
    _check_paths(source, target)
    spark = start_spark(master)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            model = _fetch(model_uri, tracking_uri, Path(scratch))
            table, passed_over = _score(spark, model, source, warning)
            written = _write(spark, table, target, file_format)
            return _sum_up(written, _read_reference(model), warning, passed_over)
    except CracksegError:
        raise
    except Exception as error:  # Java's exceptions have many classes
        raise CracksegError(f"Spark could not finish: {first_line(error)}") from error
    finally:
        spark.stop()


def start_spark(master: str) -> SparkSession:
    """Start Spark for Python of this environment.

    Raises:
        CracksegError: pyspark or Java is missing, or the master does not answer.
    """
    require_spark()
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    # Without them workers run the python3 of the PATH. One thread each: the workers run in parallel.
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


def _fetch(model_uri: str, tracking_uri: str | None, scratch: Path) -> Path:
    """Fetch a version's folder, once for the settings and for the workers, to which Spark sends it."""
    import mlflow

    if not tracking_uri:
        return Path(model_uri)
    mlflow.set_tracking_uri(tracking_uri)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=str(scratch)))


def _read_reference(model: Path) -> ReferenceStatistics | None:
    found = sorted(model.rglob(SETTINGS_NAME))
    return ModelSettings.read(found[0]).reference if found else None


def _score(spark: SparkSession, model: Path, source: str, warning: str) -> tuple[DataFrame, Counter[str]]:
    """Describe the table to Spark, which computes it when it is written; and count files that are no photographs."""
    import mlflow
    from mlflow.models import Model
    from pyspark.sql import functions as sql

    listed = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(source)
    endings = "|".join(extension.removeprefix(".") for extension in IMAGE_EXTENSIONS)
    usual = sql.col("path").rlike(rf"(?i)\.({endings})$") & (sql.col("length") <= _MOST_BYTES)
    files = listed.filter(usual)
    signature = Model.load(str(model)).signature
    noted = any(param.name == _NOTES_PARAM for param in getattr(signature, "params", None) or ())
    if noted:
        predict = mlflow.pyfunc.spark_udf(
            spark,
            str(model),
            env_manager="local",
            result_type=f"{ANSWERS}, {NOTES}",
            params={_NOTES_PARAM: True},
        )
        scored = files.select(
            "path", predict(sql.struct(sql.col("content").alias("image"))).alias("answer")
        ).select("path", "answer.*")
    else:
        scored = _score_without_notes(spark, model, files, warning)
    texts = [name for name, kind in _columns(f"{ANSWERS}, {NOTES}") if kind == "string"]
    table = scored.withColumns({name: sql.when(sql.col(name) != "", sql.col(name)) for name in texts})
    left_out, passed_over = _list_unread(listed, {row["path"] for row in files.select("path").toLocalIterator()})
    if left_out:
        rows = spark.createDataFrame(left_out, "path string, error string")
        table = table.unionByName(rows, allowMissingColumns=True)
    return table, passed_over


def _columns(result_type: str) -> list[tuple[str, str]]:
    """Return name and type of each column of a Spark type."""
    return [(name, kind) for name, kind in (column.split() for column in result_type.split(", "))]


def _score_without_notes(spark: SparkSession, model: Path, files: DataFrame, warning: str) -> DataFrame:
    """Score with a version that refuses a whole batch for one bad photograph; clearly bad files are left out."""
    import mlflow
    from pyspark.sql import functions as sql

    predict = mlflow.pyfunc.spark_udf(spark, str(model), env_manager="local", result_type=ANSWERS)
    checked = files.select("path", "content", _make_check()("content").alias("error"))
    blank = encode_png(np.zeros((MIN_SIDE_PX, MIN_SIDE_PX), np.uint8))
    usable = sql.when(sql.col("error").isNull(), sql.col("content")).otherwise(sql.lit(blank))
    scored = checked.select("path", "error", predict(sql.struct(usable.alias("image"))).alias("answer"))
    answers = [
        sql.when(sql.col("error").isNull(), sql.col(f"answer.{name}")).alias(name) for name, _ in _columns(ANSWERS)
    ]
    missing = [
        sql.lit(warning if name == "warning" else None).cast(kind).alias(name)
        for name, kind in _columns(NOTES)
        if name != "error"
    ]
    return scored.select("path", *answers, *missing, "error")


def _list_unread(listed: DataFrame, read: set[str]) -> tuple[list[tuple[str, str]], Counter[str]]:
    """List files that are not given to the model: photographs with the reason, and other files, counted by extension.

    Spark's reader skips files of 0 bytes silently; only ``inputFiles`` lists them.
    """
    unread, passed_over = [], Counter[str]()
    lengths = {row["path"]: row["length"] for row in listed.select("path", "length").toLocalIterator()}
    for address in listed.inputFiles():
        path = unquote(address).replace("file:///", "file:/")  # as the column has it
        if path in read:
            continue
        if not has_image_ending(path):
            passed_over[PurePosixPath(path).suffix.lower() or "no extension"] += 1
        elif path not in lengths:
            unread.append((path, "the file is empty (0 bytes)"))
        elif reason := why_unread(path, b""):
            unread.append((path, reason))
        else:
            unread.append((path, f"a file of {lengths[path] / 1e9:.1f} gigabytes; Spark reads files of up to 2"))
    return sorted(unread), passed_over


def _write(spark: SparkSession, table: DataFrame, target: str, file_format: str) -> DataFrame:
    """Compute and write the table; return it as it was written."""
    writer = table.write.mode("error")
    if file_format == "csv":
        writer.option("header", "true").option("escape", '"').csv(target)
        return spark.read.option("header", "true").option("escape", '"').csv(target, schema=table.schema)
    writer.parquet(target)
    return spark.read.parquet(target)


def _sum_up(
    written: DataFrame, reference: ReferenceStatistics | None, warning: str, passed_over: Counter[str]
) -> BatchSummary:
    """Summarize the table, without its masks, and compare all photographs together with the training photographs."""
    rows = written.select("path", *FIGURES, "remark", "warning", "error").orderBy("path").collect()
    good = [row for row in rows if row["error"] is None]
    figures = [
        {name: row[name] for name in FIGURES} for row in good if all(row[name] is not None for name in FIGURES)
    ]
    warnings = []
    if reference is None or len(figures) < len(good):
        warnings.append(
            "This version does not measure photographs, so whether they are like its own is not known."
        )
    else:
        warnings = [warn_of_drift(compare(reference, figures)), warn_of_reference(count_reference(reference))]
    return BatchSummary(
        num_images=len(rows),
        failed=[(row["path"], row["error"]) for row in rows if row["error"] is not None],
        remarks=[(row["path"], row["remark"]) for row in good if row["remark"]],
        num_unusual=sum(bool((row["warning"] or "").replace(warning, "").strip()) for row in good),
        warnings=[sentence for sentence in warnings if sentence],
        passed_over=passed_over,
    )


def _make_check() -> Any:
    """Make a Spark function that returns what is wrong with a file's content; null if nothing is.

    It is defined inside a function so that Spark sends its code: by name, the workers would import the
    installed crackseg, and the model must run on its own code.
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
    if not any(has_image_ending(path) for path in walk_folder(folder).files):
        raise CracksegError(f"{source}: no file in it or below ends in {', '.join(IMAGE_EXTENSIONS)}")
