"""The command line: one subcommand for each job, no logic. Heavy imports happen inside the commands."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from crackseg import __version__
from crackseg.errors import CracksegError

# On a busy machine OpenMP's threads spin at barriers for each other's cores: a training step measured beside one other
# busy process took 4.4 s instead of 0.18 s, and 1.7 s with short spinning, which costs a tenth on an idle machine. Read
# once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_EXISTING_DIR = click.Path(exists=True, file_okay=False, path_type=Path)


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1, without a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("crackseg").setLevel(logging.INFO)
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CracksegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt as error:
        click.echo(f"\n{str(error) or 'interrupted'}", err=True)
        sys.exit(130)
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        click.echo(f"error: {error.filename or 'system'}: {error.strerror}", err=True)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="crackseg")
def cli() -> None:
    """Find hair-thin cracks in photographs, and keep the whole experiment honest.

    \b
    The day:  dvc repro                     train, predict, score, report, register
              dvc exp run -S loss.gamma=4   one change, one run
              crackseg ui                   compare the runs
    """


@cli.command()
def demo() -> None:
    """Run the whole pipeline on the sample data, in minutes on a CPU."""
    from crackseg.demo import run_demo
    from crackseg.tracking import find_root

    click.echo(run_demo(find_root()))


@cli.command()
@click.option("--port", default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui(port: int) -> None:
    """Show all runs and models in the MLflow UI."""
    import subprocess

    from crackseg.tracking import Store, find_root

    store = Store(find_root())
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri, "--port", str(port)]
    sys.exit(subprocess.run(command, check=False).returncode)


@cli.command()
@click.option("--predictions", required=True, type=_EXISTING_DIR, help="Maps: 8/16-bit PNG or float .npy.")
@click.option("--masks", required=True, type=_EXISTING_DIR, help="Truth, with the same stems.")
@click.option("--tolerance-px", default=2, show_default=True, type=click.IntRange(0, 100))
@click.option("--num-thresholds", default=256, show_default=True, type=click.IntRange(2, 16384))
@click.option("--crack-value", "crack_values", type=int, multiple=True, help="Mask value that means crack.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def score(
    predictions: Path,
    masks: Path,
    tolerance_px: int,
    num_thresholds: int,
    crack_values: tuple[int, ...],
    as_json: bool,
) -> None:
    """Score anybody's probability maps: ODS, OIS and AP under three protocols."""
    import json

    from crackseg.evaluation import format_scores, score_folder

    scores = score_folder(
        predictions,
        masks,
        tolerance_px=tolerance_px,
        num_thresholds=num_thresholds,
        crack_values=crack_values or None,
    )
    click.echo(json.dumps(scores.to_dict(), indent=2) if as_json else format_scores(scores))


@cli.group()
def data() -> None:
    """Bring, make and check datasets."""


@data.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the dataset; known ones are recognised by their folders.")
@click.option("--crack-value", "crack_values", type=int, multiple=True, help="Mask value that means crack.")
@click.option("--split-seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--split-counts", nargs=3, type=click.IntRange(0), help="Shares of train, val, test.")
@click.option("--train-list", type=click.Path(path_type=Path), help="Stems of the training images, a line each.")
@click.option("--val-list", type=click.Path(path_type=Path), help="Stems of the validation images.")
@click.option("--test-list", type=click.Path(path_type=Path), help="Stems of the test images.")
@click.option("--allow-unpaired", is_flag=True, help="Leave out images without mask and masks without image.")
def data_import(
    source: Path,
    name: str | None,
    crack_values: tuple[int, ...],
    split_seed: int,
    split_counts: tuple[int, int, int] | None,
    train_list: Path | None,
    val_list: Path | None,
    test_list: Path | None,
    allow_unpaired: bool,
) -> None:
    """Import what you downloaded or photographed from SOURCE, whatever its layout, as versioned data.

    \b
    crackseg data import DeepCrack-datasets
    crackseg data import photographs --name BRIDGE7 --crack-value 255
    """
    from crackseg.data.importers import import_datasets
    from crackseg.data.staging import finish_interrupted_import
    from crackseg.data.versioning import check_data_is_committed, fetch_data, version_data
    from crackseg.tracking import find_root

    root = find_root()
    fetch_data(root)
    if finish_interrupted_import(root / "data"):
        version_data(root)
    if (root / "data").is_dir():
        check_data_is_committed(root, root)
    lists = {"train": train_list, "val": val_list, "test": test_list}
    summaries = import_datasets(
        source,
        root / "data",
        name=name,
        crack_values=crack_values or None,
        split_seed=split_seed,
        split_counts=split_counts,
        split_lists={split: path for split, path in lists.items() if path} or None,
        allow_unpaired=allow_unpaired,
    )
    version_data(root)
    for summary in summaries:
        click.echo(str(summary))
    names = ", ".join(summary.dataset for summary in summaries)
    click.echo(f'data.dvc is updated and staged; keep it with: git commit -m "Import {names}" data.dvc')


@data.command("synth")
@click.option("--out", "out_dir", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def data_synth(out_dir: Path, seed: int) -> None:
    """Make the sample: four datasets of procedural crack scenes in the looks of the paper's."""
    from crackseg.data.synthetic import write_sample

    write_sample(out_dir, seed=seed, progress=True)
    click.echo(f"wrote the sample to {out_dir}")


@data.command("validate")
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report as Markdown to this file.")
def data_validate(names: tuple[str, ...], out: Path | None) -> None:
    """Check datasets (all by default): pairs, sizes, mask values, damaged files, leakage across splits."""
    from crackseg.data.image_io import write_bytes
    from crackseg.data.validation import validate_datasets
    from crackseg.tracking import find_root

    data_dir = find_root() / "data"
    chosen = list(names) or sorted(path.parent.name for path in data_dir.glob("*/manifest.csv"))
    if not chosen:
        raise CracksegError(f"{data_dir} holds no datasets; fetch them with `dvc pull data.dvc`")
    reports = validate_datasets(data_dir, chosen)
    text = "\n".join(report.to_markdown() for report in reports)
    if out:
        write_bytes(out, text.encode())
    click.echo(text)
    if any(report.errors for report in reports):
        sys.exit(1)


@cli.group()
def store() -> None:
    """Look after the local tracking store."""


@store.command("deliver")
def store_deliver() -> None:
    """Deliver records that the tracking store could not take when they were made."""
    from crackseg.outbox import deliver_left_over
    from crackseg.tracking import Store, find_root

    opened = Store(find_root())  # opening delivers what waits
    _, waiting = deliver_left_over(opened.outbox_dir, opened.client)
    click.echo(f"{waiting} runs still wait in {opened.outbox_dir}" if waiting else "everything is delivered")
    sys.exit(1 if waiting else 0)


@cli.group()
def stage() -> None:
    """The pipeline's stages, as dvc.yaml calls them; use `dvc repro`."""
    from crackseg.stages.own_code import run_own_code
    from crackseg.tracking import find_root

    run_own_code(find_root())


@stage.command("prepare")
def stage_prepare() -> None:
    """Check and resize the data."""
    from crackseg.stages import prepare
    from crackseg.tracking import find_root

    prepare.run(find_root())


@stage.command("train")
def stage_train() -> None:
    """Train, or go on with a training that was killed."""
    from crackseg.stages import train
    from crackseg.tracking import find_root

    train.run(find_root())


@stage.command("predict")
@click.argument("dataset")
def stage_predict(dataset: str) -> None:
    """Predict the probability maps of DATASET."""
    from crackseg.stages import predict
    from crackseg.tracking import find_root

    predict.run(find_root(), dataset)


@stage.command("evaluate")
@click.argument("dataset")
def stage_evaluate(dataset: str) -> None:
    """Score the maps of DATASET."""
    from crackseg.stages import evaluate
    from crackseg.tracking import find_root

    evaluate.run(find_root(), dataset)


@stage.command("report")
def stage_report() -> None:
    """Draw the figures and write the report."""
    from crackseg.stages import report
    from crackseg.tracking import find_root

    report.run(find_root())


@stage.command("register")
def stage_register() -> None:
    """Register the model."""
    from crackseg.stages import register
    from crackseg.tracking import find_root

    register.run(find_root())
