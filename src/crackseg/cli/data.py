"""`crackseg data`: import, make and check datasets."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crackseg.cli.crack_value import crack_value_option
from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.project import Project, with_project
from crackseg.errors import CracksegError


@click.group()
def data() -> None:
    """Import, make and check datasets.

    \b
    crackseg data import photographs --name BRIDGE7
    crackseg data validate
    """


@data.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the dataset; known ones are recognised by their folders.")
@crack_value_option
@click.option("--crack-label", "crack_labels", multiple=True, help="Label that means crack, in annotation files.")
@click.option(
    "--line-width-px",
    type=FiniteRange(1),
    default=1.0,
    show_default=True,
    help="Of annotated lines without one.",
)
@click.option("--split-seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--split-counts", nargs=3, type=click.IntRange(0), help="Proportions of train, val, test.")
@click.option("--train-list", type=click.Path(path_type=Path), help="Stems of the training images, a line each.")
@click.option("--val-list", type=click.Path(path_type=Path), help="Stems of the validation images.")
@click.option("--test-list", type=click.Path(path_type=Path), help="Stems of the test images.")
@click.option("--allow-unpaired", is_flag=True, help="Leave out images without mask and masks without image.")
@click.option("--json", "as_json", is_flag=True, help="Print the report of the import as JSON.")
@with_project
def data_import(
    project: Project,
    source: Path,
    name: str | None,
    crack_values: tuple[int | str, ...],
    crack_labels: tuple[str, ...],
    line_width_px: float,
    split_seed: int,
    split_counts: tuple[int, int, int] | None,
    train_list: Path | None,
    val_list: Path | None,
    test_list: Path | None,
    allow_unpaired: bool,
    as_json: bool,
) -> None:
    """Import what you downloaded or photographed from SOURCE, whatever its layout, as versioned data.

    \b
    crackseg data import DeepCrack-datasets
    crackseg data import photographs --name BRIDGE7 --crack-value 255
    """
    import json

    from crackseg.data.importing.versioned_import import import_versioned

    lists = {"train": train_list, "val": val_list, "test": test_list}
    if split_counts and any(lists.values()):
        raise click.UsageError(
            "--train-list, --val-list and --test-list say all of the split; leave out --split-counts"
        )
    summaries = import_versioned(
        project.root,
        source,
        name=name,
        crack_values=crack_values or None,
        split_seed=split_seed,
        split_counts=split_counts,
        split_lists={split: path for split, path in lists.items() if path} or None,
        allow_unpaired=allow_unpaired,
        crack_labels=crack_labels or None,
        line_width_px=line_width_px,
    )
    if as_json:
        click.echo(json.dumps([summary.to_dict() for summary in summaries], indent=2, ensure_ascii=False))
        return
    for summary in summaries:
        click.echo(str(summary))
    names = ", ".join(summary.dataset for summary in summaries)
    click.echo(f'data.dvc is updated and staged; keep it with: git commit -m "Import {names}" data.dvc')


@data.command("synth")
@click.option("--out", "out_dir", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def data_synth(out_dir: Path, seed: int) -> None:
    """Make the sample: four datasets of procedural crack scenes that look like the paper's.

    \b
    crackseg data synth --out sample --seed 1
    """
    from crackseg.data.synthetic.sample import write_sample

    write_sample(out_dir, seed=seed)
    click.echo(f"wrote the sample to {out_dir}")


@data.command("validate")
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report as Markdown to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of Markdown.")
@with_project
def data_validate(project: Project, names: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Check datasets (all by default): pairs, sizes, mask values, damaged files, leakage across splits.

    Ends with 1 if a dataset has errors.

    \b
    crackseg data validate
    crackseg data validate BRIDGE7 --json
    """
    import json
    from dataclasses import asdict

    from crackseg.data.validation import validate_datasets
    from crackseg.files import write_bytes

    data_dir = project.root / "data"
    chosen = list(names) or sorted(path.parent.name for path in data_dir.glob("*/manifest.csv"))
    if not chosen:
        raise CracksegError(f"{data_dir} holds no datasets; fetch them with `dvc pull data.dvc`")
    reports = validate_datasets(data_dir, chosen)
    text = "\n".join(report.to_markdown() for report in reports)
    if out:
        write_bytes(out, text.encode())
    click.echo(json.dumps([asdict(report) for report in reports], indent=2) if as_json else text)
    if any(report.errors for report in reports):
        sys.exit(1)
