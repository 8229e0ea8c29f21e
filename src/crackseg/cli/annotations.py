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
    "--format",
    "form",
    type=click.Choice(["coco", "labelme", "cvat", "labelstudio"]),
    required=True,
    help="Of the tool.",
)
@click.option(
    "--shapes",
    type=click.Choice(["polygons", "lines", "masks"]),
    default="polygons",
    show_default=True,
    help="Outlines, centre lines with their width (not labelstudio), or brush masks (labelstudio).",
)
@click.option(
    "--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="New folder."
)
def annotations_export(predicted_dir: Path, form: str, shapes: str, out_dir: Path) -> None:
    """Write the cracks in PREDICTED_DIR, made by `crackseg predict --out`, as shapes, with copies of the photographs.

    \b
    crackseg annotations export found --format labelme --out to-correct
    crackseg annotations export found --format cvat --shapes lines --out lines-to-correct
    """
    from crackseg.inference.annotation_export import export_annotations

    num_images, num_shapes = export_annotations(predicted_dir, out_dir, form, shapes)
    click.echo(f"{num_images} photographs with {num_shapes} {shapes} in {out_dir}")
