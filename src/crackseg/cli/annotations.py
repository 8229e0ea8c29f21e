"""`crackseg annotations`: predictions for annotation tools."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("annotations")
def annotation_forms() -> None:
    """Correct predictions in an annotation tool; `crackseg data import` reads the corrections.

    \b
    crackseg annotations export found --format coco --out to-correct
    """


@annotation_forms.command("export")
@click.argument("predicted_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["coco", "labelme", "cvat"]), required=True, help="Of the tool."
)
@click.option(
    "--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="New folder."
)
def annotations_export(predicted_dir: Path, form: str, out_dir: Path) -> None:
    """Write the cracks in PREDICTED_DIR, made by `crackseg predict --out`, as polygons, with copies of the photographs.

    \b
    crackseg annotations export found --format labelme --out to-correct
    """
    from crackseg.inference.annotation_export import export_annotations

    num_images, num_cracks = export_annotations(predicted_dir, out_dir, form)
    click.echo(f"{num_images} photographs with {num_cracks} polygons in {out_dir}")
