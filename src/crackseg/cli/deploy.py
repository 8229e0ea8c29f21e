"""`crackseg serve`, `batch`, `export` and `card`: use a registered version."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.model_option import model_option
from crackseg.cli.output import warn

_MOST_LINES = 20  # about single photographs


@click.command()
@model_option
@click.option("--port", default=5001, show_default=True, type=click.IntRange(1, 65535), help="Port on 127.0.0.1.")
@click.option(
    "--max-megabytes", default=32.0, show_default=True, type=FiniteRange(min=0, min_open=True),
    help="Largest request; base64 makes photographs a third larger.",
)  # fmt: skip
@click.option(
    "--max-megapixels", default=50.0, show_default=True, type=FiniteRange(min=0, min_open=True),
    help="Most pixels in a request, all photographs together.",
)  # fmt: skip
@click.option("--timeout", "timeout_s", default=60, show_default=True, type=click.IntRange(1), help="Seconds.")
def serve(uri: str | None, port: int, max_megabytes: float, max_megapixels: float, timeout_s: int) -> None:
    """Answer HTTP requests with MLflow's scoring server: the version that is in production now.

    docs/serving.md shows how to send requests. Start it again after a new promotion.

    \b
    crackseg serve --port 5001
    """
    from crackseg.serving.deployment import find_model, find_warning, run_scoring_server

    model_uri, model_store = find_model(uri)
    warning = find_warning(model_uri, model_store)
    warn(warning)
    run_scoring_server(
        model_uri,
        model_store,
        warning=warning,
        port=port,
        max_bytes=round(max_megabytes * 1e6),
        max_pixels=round(max_megapixels * 1e6),
        timeout_s=timeout_s,
    )


@click.command()
@click.argument("source")
@click.argument("target")
@model_option
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Processes on this machine.")
@click.option("--master", help="A Spark cluster instead, e.g. spark://HOST:7077.")
@click.option(
    "--format", "file_format", default="parquet", show_default=True, type=click.Choice(["parquet", "csv"])
)
def batch(source: str, target: str, uri: str | None, workers: int, master: str | None, file_format: str) -> None:
    """Predict all photographs below SOURCE with Spark, and write a table into the new folder TARGET.

    Ends with 3 if a photograph could not be read; all others are predicted.

    \b
    crackseg batch photographs found.parquet --workers 4
    """
    import sys

    from crackseg.serving.spark_check import require_spark

    require_spark()
    from crackseg.errors import count_of
    from crackseg.inference.table import describe_remarks
    from crackseg.serving.deployment import find_model, find_warning
    from crackseg.serving.spark import score_folder

    master = master or f"local[{workers}]"
    model_uri, model_store = find_model(uri)
    tracking_uri = model_store.uri if model_store else None
    warning = find_warning(model_uri, model_store)
    warn(warning)
    summary = score_folder(
        model_uri, tracking_uri, source, target, master=master, file_format=file_format, warning=warning
    )
    for path, error in summary.failed[:_MOST_LINES]:
        click.echo(f"left out: {path}: {error}", err=True)
    if (rest := len(summary.failed) - _MOST_LINES) > 0:
        click.echo(f"left out: {rest} more (column error)", err=True)
    done = summary.num_images - len(summary.failed)
    click.echo(f"{done} of {summary.num_images} photographs predicted: {target}")
    if summary.remarks:
        path, remark = summary.remarks[0]
        click.echo(describe_remarks(len(summary.remarks), f"{path}: {remark}"))
    if summary.passed_over:
        kinds = ", ".join(f"{count} {ending}" for ending, count in summary.passed_over.most_common(6))
        click.echo(f"skipped, no photographs: {kinds}")
    if summary.num_unusual:
        click.echo(
            f"unlike the training photographs: {count_of(summary.num_unusual, 'photograph')} (column warning)",
            err=True,
        )
    warn(*summary.warnings)
    sys.exit(3 if summary.failed else 0)


@click.command()
@click.option("--format", "file_format", required=True, type=click.Choice(["onnx", "openvino"]))
@model_option
@click.option("--out", "out_path", type=click.Path(dir_okay=False, path_type=Path), help="File (.onnx or .xml).")
@click.option(
    "--images", "images_dir", type=click.Path(file_okay=False, path_type=Path),
    help="Photographs to compare on. [default: those of the version]",
)  # fmt: skip
@click.option(
    "--tolerance", default=1e-3, show_default=True, type=FiniteRange(0, 1),
    help="Largest difference of probability that is accepted.",
)  # fmt: skip
def export(
    file_format: str, uri: str | None, out_path: Path | None, images_dir: Path | None, tolerance: float
) -> None:
    """Export the network, check it on photographs, and log it with its version (docs/exporting.md).

    \b
    crackseg export --format onnx
    crackseg export --format openvino --model models:/crackseg/3 --out cracks.xml
    """
    from crackseg.serving.deployment import find_model
    from crackseg.serving.export import export_model

    done = export_model(
        *find_model(uri),
        file_format=file_format,
        out_path=out_path,
        images_dir=images_dir,
        tolerance=tolerance,
    )
    parity = done.parity
    click.echo(
        f"{done.model}: {', '.join(map(str, done.paths))}\nlargest difference of probability to torch: "
        f"{parity.max_difference:.2g}, on {parity.num_images} photographs at two sizes each "
        f"({parity.num_pixels / 1e6:.1f} megapixels)" + ("\nlogged with the version" if done.logged else "")
    )
    warn(done.warning)


@click.command()
@click.option(
    "--model", "uri",
    help="models:/NAME@ALIAS, models:/NAME/VERSION or scenes (shipped). [default: @production, or scenes]",
)  # fmt: skip
def card(uri: str | None) -> None:
    """Make the model card of a version again, and print it; that of the shipped model is only printed.

    \b
    crackseg card
    crackseg card --model models:/crackseg/3
    """
    from crackseg.serving.deployment import renew_card

    click.echo(renew_card(uri), nl=False)
