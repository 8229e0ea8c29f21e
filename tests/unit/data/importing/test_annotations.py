"""Annotations of four tools become masks, and what is exported comes back as it was."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from crackseg.data.images.files import encode_png, read_mask, write_mask
from crackseg.data.importing.annotations.drawn import Shape
from crackseg.data.importing.annotations.files import read_annotations
from crackseg.data.importing.annotations.labels import Meaning, judge_label
from crackseg.data.importing.importer import ImportSummary, import_datasets
from crackseg.data.importing.shapes import draw_shapes, find_outlines
from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.inference.annotation_export import export_annotations
from crackseg.inference.table import COLUMNS, write_table

SQUARE = [[10, 5], [20, 5], [20, 9], [10, 9]]  # columns 10 to 19, rows 5 to 8


def photograph(path: Path, seed: int = 0) -> None:
    write_bytes(path, encode_png(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)))


def labelme(**changes: Any) -> dict[str, Any]:
    shape = {"label": "crack", "points": SQUARE, "shape_type": "polygon"}
    return {"imagePath": "7.png", "imageWidth": 60, "imageHeight": 40, "shapes": [shape]} | changes


def coco(segmentation: object, name: str = "crack") -> dict[str, Any]:
    return {
        "images": [{"id": 3, "file_name": "site/7.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": name}],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 1, "segmentation": segmentation}],
    }


def cvat(shapes: str) -> str:
    return f'<annotations><image id="0" name="7.png" width="60" height="40">{shapes}</image></annotations>'


def run(tmp_path: Path, name: str, content: object, **options: Any) -> ImportSummary:
    photograph(tmp_path / "in" / "7.png")
    text = content if isinstance(content, str) else json.dumps(content)
    write_bytes(tmp_path / "in" / name, text.encode())
    (summary,) = import_datasets(
        tmp_path / "in", tmp_path / "data", name="BRIDGE", split_counts=(1, 0, 0), **options
    )
    return summary


def imported(tmp_path: Path) -> np.ndarray:
    return read_mask(tmp_path / "data" / "BRIDGE" / "masks" / "7.png")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("7.json", labelme()),
        ("7.json", labelme(imagePath="..\\photos\\7.png")),
        ("all.json", coco([[10, 5, 20, 5, 20, 9, 10, 9]])),
        ("all.json", coco({"size": [40, 60], "counts": [405] + [4, 36] * 9 + [4, 1631]})),
        ("a.xml", cvat('<polygon label="Cracks" points="10.00,5.00;20,5;20,9;10,9"/>')),
        ("a.xml", cvat('<mask label="crack" rle="0,40" left="10" top="5" width="10" height="4"/>')),
    ],
)
def test_the_same_area_from_each_tool(tmp_path: Path, name: str, content: object) -> None:
    run(tmp_path, name, content)
    expected = np.zeros((40, 60), np.uint8)
    expected[5:9, 10:20] = 1
    np.testing.assert_array_equal(imported(tmp_path), expected)


def test_compressed_runs_of_coco_are_read(tmp_path: Path) -> None:
    # As pycocotools writes them: 5 bits a letter from "0" on, from the third run on the difference to the last but one.
    def compress(runs: list[int]) -> str:
        letters = []
        for i, run in enumerate(runs):
            value = run - (runs[i - 2] if i > 2 else 0)
            more = True
            while more:
                code, value = value & 31, value >> 5
                more = value != (-1 if code & 16 else 0)
                letters.append(chr((code | (32 if more else 0)) + 48))
        return "".join(letters)

    runs = [405, 4, 36, 700, 2, 1, 1252]
    path = tmp_path / "all.json"
    path.write_text(json.dumps(coco({"size": [40, 60], "counts": compress(runs)})))
    file = read_annotations(path)
    assert file is not None
    (image,) = file.images
    assert list(image.shapes[0].runs) == runs


def test_lines_have_the_width_that_the_file_or_the_user_says(tmp_path: Path) -> None:
    line = {"label": "crack", "points": [[10, 20.5], [50, 20.5]], "shape_type": "linestrip"}
    run(tmp_path, "7.json", labelme(shapes=[line]), line_width_px=5)
    assert imported(tmp_path)[:, 30].sum() == 5
    (tmp_path / "in" / "7.json").unlink()
    width = '<attribute name="width">3</attribute>'
    run(tmp_path, "a.xml", cvat(f'<polyline label="crack" points="10,20.5;50,20.5">{width}</polyline>'))
    assert imported(tmp_path)[:, 30].sum() == 3


def test_lines_without_a_width_are_counted(tmp_path: Path) -> None:
    line = {"label": "crack", "points": [[10, 20.5], [50, 20.5]], "shape_type": "linestrip"}
    lines = run(tmp_path, "7.json", labelme(shapes=[line, line | {"width_px": 3}])).account.to_lines()
    assert any("1 polyline without a width: as wide as --line-width-px says" in text for text in lines)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"width_px": -3}, r"shape 1 is damaged \(a width of -3; expected a number of pixels over 0"),
        ({"width_px": "thin"}, "a width of 'thin'"),
        ({"width_profile": [[10, 20.5]]}, "not made of x, y and width"),
        ({"width_profile": [[10, 20.5, 0]]}, "a width of 0"),
    ],
)
def test_a_width_that_is_none_is_named(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    line = {"label": "crack", "points": [[10, 20.5], [50, 20.5]], "shape_type": "linestrip"}
    with pytest.raises(CracksegError, match=message):
        run(tmp_path, "7.json", labelme(shapes=[line | said]))


def test_a_rotated_shape_of_cvat_is_named(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match=r"polygon number 1 is damaged \(rotated by 45"):
        run(tmp_path, "a.xml", cvat('<polygon label="crack" points="10,5;20,5;20,9" rotation="45"/>'))


def test_image_with_nothing_drawn_has_no_crack(tmp_path: Path) -> None:
    assert run(tmp_path, "7.json", labelme(shapes=[])).num_crack_free == 1


def test_other_labels_are_left_out_where_one_says_crack(tmp_path: Path) -> None:
    other = {"label": "rust", "points": [[0, 0], [5, 0], [5, 5]], "shape_type": "polygon"}
    summary = run(tmp_path, "7.json", labelme(shapes=[*labelme()["shapes"], other]))
    assert any("rust" in line for line in summary.account.to_lines())
    assert imported(tmp_path)[:5, :5].sum() == 0


def test_which_label_is_crack_can_be_said(tmp_path: Path) -> None:
    ring = [[10, 5, 20, 5, 20, 9, 10, 9]]
    with pytest.raises(CracksegError, match=r'Riss.*--crack-label "Riss"'):
        run(tmp_path, "all.json", coco(ring, name="Riss"))
    run(tmp_path, "all.json", coco(ring, name="Riss"), crack_labels=("Riss",))
    assert imported(tmp_path).sum() == 40
    with pytest.raises(
        CracksegError, match=r"no shape has the label Ris \(the nearest is Riss\); labels seen: Riss"
    ):
        run(tmp_path, "all.json", coco(ring, name="Riss"), crack_labels=("Ris",))


def test_names_that_say_crack() -> None:
    assert {judge_label(label) for label in ("crack", "Cracks", "CRACK 2", "fine_crack")} == {Meaning.CRACK}
    assert Meaning.CRACK not in map(judge_label, ("no crack", "non-crack", "spalling", "crackle"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "package", "version": 1}, "not COCO JSON, LabelMe JSON, Label Studio's JSON or CVAT"),
        ("no json", r"7\.json: is no JSON"),
        (labelme(shapes=[{"label": "crack", "points": [[0.1, 0.2], [0.5, 0.2], [0.5, 0.6]]}]), "as fractions"),
        (labelme(shapes=[{"label": "crack", "points": [[900, 5], [950, 5], [950, 9]]}]), r"shape 1"),
        ('{"shapes": [], "imagePa', r"7\.json: is cut short"),
        (labelme(imageWidth=61), "says 61 x 40 pixels"),
        (labelme(shapes=[{"label": "crack", "points": [["x", 1]]}]), "is damaged"),
        (labelme(shapes=[{"label": "crack", "points": SQUARE, "shape_type": "rectangle"}]), "rectangle"),
        (coco({"size": [40, 60], "counts": [0, 99999]}), "does not fit"),
        (coco([]), "a box with the label 'crack'"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CracksegError, match=message):
        run(tmp_path, "7.json", content)
    assert not (tmp_path / "data" / "BRIDGE").exists()


def test_an_image_that_nobody_annotated_is_named(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "8.png", 1)
    with pytest.raises(CracksegError, match=r"in no annotation file: 8\.png"):
        run(tmp_path, "7.json", labelme())
    assert run(tmp_path, "7.json", labelme(), allow_unpaired=True).num_images == 1


def test_other_json_beside_masks_does_no_harm(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[20, 5:50] = 1
    write_mask(tmp_path / "in" / "masks" / "7.png", mask)
    run(tmp_path, "info.json", {"year": 2024})
    np.testing.assert_array_equal(imported(tmp_path), mask)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 16), st.integers(1, 16)), elements=st.integers(0, 1)))
@settings(deadline=None, max_examples=60)
def test_outlines_drawn_again_are_the_mask(mask: np.ndarray) -> None:
    shapes = [Shape("crack", "polygon", outline.round(2)) for outline in find_outlines(mask)]
    np.testing.assert_array_equal(draw_shapes(shapes, (mask.shape[1], mask.shape[0]), 1).mask, mask)


def test_a_photograph_with_a_damaged_block_of_exif_is_exported_unchanged(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    source = tmp_path / "7.webp"
    Image.fromarray(picture).save(source, lossless=True, exif=b"Exif\0\0 garbage, no TIFF")
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9, 10:20] = 1
    write_mask(tmp_path / "found" / "masks" / "7.png", mask)
    row = dict.fromkeys(COLUMNS, "0") | {"image": str(source), "mask": "masks/7.png", "error": ""}
    write_table(tmp_path / "found" / "predictions.csv", [row])
    assert export_annotations(tmp_path / "found", tmp_path / "out", "coco") == (1, 1)
    assert (tmp_path / "out" / "images" / "7.webp").read_bytes() == source.read_bytes()


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match="crackseg predict --out"):
        export_annotations(tmp_path, tmp_path / "out", "coco")


def test_a_renamed_photograph_is_found_by_the_annotation_files_own_name_and_said(tmp_path: Path) -> None:
    summary = run(tmp_path, "7.json", labelme(imagePath="8.png"))
    assert any("8.png" in line for line in summary.account.to_lines())
    assert imported(tmp_path).sum() == 40


def test_masks_of_labelme_are_read_as_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((4, 10), np.uint8)
    pixels[1, 2:9] = 255
    mask = base64.b64encode(encode_png(pixels)).decode()
    shape = {"label": "crack", "points": [[10, 5], [19, 8]], "shape_type": "mask", "mask": mask}
    run(tmp_path, "7.json", labelme(shapes=[shape]))
    assert imported(tmp_path).sum() == 7
    assert imported(tmp_path)[6, 12:19].all()


@pytest.mark.parametrize(
    "label", ["sealed crack", "crack-free", "crack repair", "uncracked", "no_crack", "rissfrei"]
)
def test_labels_of_sound_or_repaired_places_are_no_cracks(label: str) -> None:
    assert judge_label(label) is not Meaning.CRACK


def test_labels_taken_and_left_out_are_listed_with_their_counts(tmp_path: Path) -> None:
    sealed = labelme()["shapes"][0] | {"label": "sealed crack"}
    lines = run(tmp_path, "7.json", labelme(shapes=[*labelme()["shapes"], sealed])).account.to_lines()
    assert any("taken as crack: crack (1 shape)" in line for line in lines)
    assert any("not taken as crack: sealed crack (1 shape)" in line for line in lines)


def test_an_annotation_file_without_annotations_hides_no_mask(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[20, 5:50] = 1
    write_mask(tmp_path / "in" / "masks" / "7.png", mask)
    run(tmp_path, "all.json", coco([]) | {"annotations": []})
    np.testing.assert_array_equal(imported(tmp_path), mask)
