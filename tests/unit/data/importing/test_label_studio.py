"""Label Studio's JSON: polygons and brush masks become masks, and what is unclear or damaged is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crackseg.data.images.files import encode_png, read_mask
from crackseg.data.importing.annotations.brush_runs import decode_brush, encode_brush
from crackseg.data.importing.annotations.drawn import Shape
from crackseg.data.importing.importer import ImportSummary, import_datasets
from crackseg.data.importing.shapes import draw_shapes
from crackseg.errors import CracksegError
from crackseg.files import write_bytes

# Of `label_studio_sdk.converter.brush.mask2rle`, version 2.1.2, for this mask times 255.
MASK = np.array(
    [[0] * 7, [0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0]], np.uint8
)
RLE = [0, 0, 0, 140, 57, 27, 254, 35, 0, 183, 255, 133, 192, 35, 255, 195, 96, 22, 255, 240, 184, 0]
# Columns 10 to 19, rows 5 to 8 of 60 x 40 pixels, in percent.
SQUARE = [[100 / 6, 12.5], [100 / 3, 12.5], [100 / 3, 22.5], [100 / 6, 22.5]]


def region(kind: str = "polygonlabels", label: str = "crack", **changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"points": SQUARE, "closed": True}
    if kind == "brushlabels":
        value = {"format": "rle", "rle": encode_brush(square())}
    value[kind] = [label]
    common = {"id": "aB3", "type": kind, "from_name": "label", "to_name": "image", "image_rotation": 0}
    return common | {"original_width": 60, "original_height": 40, "value": value} | changes


def task(*regions: dict[str, Any], image: str = "/data/upload/3/1a2b3c4d-7.png", **changes: Any) -> dict[str, Any]:
    return {"id": 5, "data": {"image": image}, "annotations": [{"id": 1, "result": list(regions)}]} | changes


def square() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9, 10:20] = 1
    return mask


def run(tmp_path: Path, content: object, **options: Any) -> ImportSummary:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    write_bytes(tmp_path / "in" / "7.png", encode_png(picture))
    write_bytes(tmp_path / "in" / "project-3.json", json.dumps(content).encode())
    (summary,) = import_datasets(
        tmp_path / "in", tmp_path / "data", name="BRIDGE", split_counts=(1, 0, 0), **options
    )
    return summary


def imported(tmp_path: Path) -> np.ndarray:
    return read_mask(tmp_path / "data" / "BRIDGE" / "masks" / "7.png")


def decode(code: list[int], width: int, height: int) -> np.ndarray:
    runs, box = decode_brush(code, width, height)
    return draw_shapes([Shape("crack", "mask", runs=runs, box=box)], (width, height), 1).mask


def test_the_code_of_masks_is_the_converters() -> None:
    assert encode_brush(MASK) == RLE
    np.testing.assert_array_equal(decode(RLE, 7, 5), MASK)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 1)))
@settings(deadline=None, max_examples=60)
def test_masks_come_back_from_their_code(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(encode_brush(mask), mask.shape[1], mask.shape[0]), mask)


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)),
    st.tuples(*[st.integers(0, 3)] * 4),
)
@settings(deadline=None, max_examples=60)
def test_a_part_cut_out_has_the_code_of_the_whole_mask(own: np.ndarray, around: tuple[int, int, int, int]) -> None:
    left, right, top, bottom = around
    whole = np.pad(own, ((top, bottom), (left, right)))
    assert encode_brush(own, (left, top), whole.shape[::-1]) == encode_brush(whole)


def test_long_runs_and_soft_edges_of_strokes_are_read() -> None:
    mask = np.zeros((300, 500), np.uint8)
    mask[200] = 1  # 400,000 values off before it: longer than the longest run
    np.testing.assert_array_equal(decode(encode_brush(mask), 500, 300), mask)
    values = [0, 0, 0, 60, 0, 0, 0, 200, 0, 0, 0, 255, 0, 0, 0, 0]  # four pixels with alpha 60, 200, 255, 0
    sizes = "".join(f"{bits - 1:04b}" for bits in (3, 4, 8, 16))
    bits = f"{16:032b}{7:05b}{sizes}" + "001" + f"{15:04b}" + "".join(f"{v:08b}" for v in values)
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    code = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode(code, 4, 1).tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("kind", ["polygonlabels", "brushlabels"])
@pytest.mark.parametrize(
    "image", ["/data/upload/3/1a2b3c4d-7.png", "/data/local-files/?d=bridge%2F7.png", "s3://b/x/7.png", "7.png"]
)
def test_regions_become_the_mask_of_the_photograph_that_the_address_names(
    tmp_path: Path, kind: str, image: str
) -> None:
    run(tmp_path, [task(region(kind), image=image)])
    np.testing.assert_array_equal(imported(tmp_path), square())


def test_one_annotation_from_a_storage_and_labels_of_their_own_tag_are_read(tmp_path: Path) -> None:
    brush = region("brushlabels")
    del brush["value"]["brushlabels"]
    labels = {"id": "aB3", "type": "labels", "from_name": "kind", "value": {"labels": ["crack"]}}
    whole = task(brush | {"type": "brush"}, labels)
    run(tmp_path, {"id": 1, "result": whole["annotations"][0]["result"], "task": {"id": 5, "data": whole["data"]}})
    np.testing.assert_array_equal(imported(tmp_path), square())


def test_a_submitted_task_without_regions_has_no_crack_and_skipped_ones_do_not_count(tmp_path: Path) -> None:
    skipped = {"id": 2, "result": [region()], "was_cancelled": True}
    assert run(tmp_path, [task(annotations=[skipped, {"id": 1, "result": []}])]).num_crack_free == 1


def test_a_prediction_counts_only_without_an_annotation_and_is_said(tmp_path: Path) -> None:
    predicted = [{"result": [region()]}]
    lines = run(tmp_path, [task(annotations=[], predictions=predicted)]).account.to_lines()
    assert any("1 shape predicted, and not submitted by a person" in line for line in lines)
    np.testing.assert_array_equal(imported(tmp_path), square())
    assert run(tmp_path, [task(predictions=predicted)]).num_crack_free == 1


def test_of_several_annotations_the_one_marked_as_ground_truth_counts(tmp_path: Path) -> None:
    two = [{"id": 1, "result": []}, {"id": 2, "result": [region()]}]
    with pytest.raises(CracksegError, match="task 5 has 2 annotations, and it is not said which one counts"):
        run(tmp_path, [task(annotations=two)])
    two[1]["ground_truth"] = True
    run(tmp_path, [task(annotations=two)])
    np.testing.assert_array_equal(imported(tmp_path), square())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([task(region(label="rust"))], "no label says crack: rust"),
        ([task(region(image_rotation=90))], "rotated by 90 degrees"),
        ([task(region(original_width=61))], "says 61 x 40 pixels, but 7.png has 60 x 40"),
        ([task(region(original_width=None))], "task 5: region aB3 .* has no original_width"),
        ([task(region(), region(original_height=41))], "photographs of different sizes"),
        ([task(region("rectanglelabels"))], "a rectangle with the label 'crack' does not say which pixels"),
        (
            [task(region(), image="/data/upload/3/9.png")],
            "annotated, but not one image of that name is there: .*9.png",
        ),
        (
            [task(region(value={"points": [[1, "x"]], "polygonlabels": ["crack"]}))],
            r"region aB3 .* cannot be read",
        ),
        ([task(region(), data={"text": "none"})], "task 5 does not say its image: expected data.image, got text"),
        ([{"image": "7.png", "label": [], "annotation_id": 3}], "JSON-MIN, which is not read"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CracksegError, match=message):
        run(tmp_path, content)
    assert not (tmp_path / "data" / "BRIDGE").exists()


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (encode_brush(square())[:-8], "its rle ends early: cut short"),
        (encode_brush(square()[:39]), "makes 9360 values; expected 60 x 40 pixels with 4 values each"),
        ([0, 1], "its rle ends early: cut short"),
        ([300], "no list of numbers from 0 to 255"),
        ("abc", "no list of numbers from 0 to 255"),
        ([0, 0, 37, 128, 57, 27, 255, 255, 255, 0, 0], "its rle has a run that ends after the last pixel"),
    ],
)
def test_a_damaged_mask_is_named(tmp_path: Path, rle: object, message: str) -> None:
    damaged = region("brushlabels")
    damaged["value"]["rle"] = rle
    with pytest.raises(CracksegError, match=f"task 5: region aB3 .*({message})"):
        run(tmp_path, [task(damaged)])
