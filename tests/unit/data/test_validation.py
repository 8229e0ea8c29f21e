from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crackseg.data.catalog import read_manifest
from crackseg.data.images import files
from crackseg.data.importing.importer import import_datasets
from crackseg.data.validation import ValidationReport, validate_datasets
from crackseg.errors import CracksegError
from tests.unit.data.importing.raw_sources import add_masks, add_photos, make_mask, make_photo, save

STEMS = [f"s{n}" for n in range(8)]


def add_dataset(data_dir: Path, name: str, stems: list[str]) -> Path:
    source = data_dir.parent / f"raw-{name}"
    add_photos(source / "img", stems)
    add_masks(source / "gt", stems)
    import_datasets(source, data_dir, name=name)
    return data_dir / name


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A sound dataset, ``data/BRIDGE``: s0 … s7 in train, val and test."""
    return add_dataset(tmp_path / "data", "BRIDGE", STEMS)


def validate(dataset: Path) -> ValidationReport:
    return validate_datasets(dataset.parent, [dataset.name])[0]


def only_error(dataset: Path, stem: str) -> str:
    """The message of the one error that a dataset has."""
    (error,) = validate(dataset).errors
    assert error.stem == stem
    return error.message


def edit_manifest(dataset: Path, **changes: object) -> None:
    """Set columns in the first row, s0, and keep its checksums right."""
    table = pd.read_csv(dataset / "manifest.csv", dtype=str, keep_default_na=False)
    for column, value in changes.items():
        table.loc[0, column] = str(value)
    table.to_csv(dataset / "manifest.csv", index=False)


def replace_file(dataset: Path, name: str, content: bytes) -> None:
    """Put other bytes in place of a file of s0, as if they had been imported."""
    (dataset / name).write_bytes(content)
    kind = "image" if name.startswith("images") else "mask"
    edit_manifest(dataset, **{f"{kind}_sha256": hashlib.sha256(content).hexdigest()})


def mask_content(mask: np.ndarray) -> bytes:
    return files.encode_png(mask.astype(np.uint8) * np.uint8(255))


def test_sound_dataset_has_nothing_to_report(dataset: Path) -> None:
    report = validate(dataset)
    assert (report.errors, report.warnings, report.notes) == ([], [], [])
    assert sum(report.split_counts.values()) == 8


@pytest.mark.parametrize("name", ["images/s0.jpg", "masks/s0.png"])
def test_missing_file_is_an_error(dataset: Path, name: str) -> None:
    (dataset / name).unlink()
    assert "dvc pull" in only_error(dataset, "s0")


@pytest.mark.parametrize("name", ["images/s0.jpg", "masks/s0.png"])
def test_truncated_file_is_an_error(dataset: Path, name: str) -> None:
    replace_file(dataset, name, (dataset / name).read_bytes()[:-80])
    assert name in only_error(dataset, "s0")


def test_file_changed_after_the_import_is_an_error(dataset: Path) -> None:
    files.write_bytes(dataset / "images" / "s0.jpg", (dataset / "images" / "s0.jpg").read_bytes() + b"\0")
    assert "sha256" in only_error(dataset, "s0")


def test_mask_with_grey_values_is_an_error(dataset: Path) -> None:
    values = make_mask(1) * np.uint8(255)
    values[0, :3] = 128
    replace_file(dataset, "masks/s0.png", files.encode_png(values))
    assert "0, 128, 255" in only_error(dataset, "s0")


def test_colour_mask_is_an_error(dataset: Path) -> None:
    replace_file(dataset, "masks/s0.png", files.encode_png(np.dstack([make_mask(1) * np.uint8(255)] * 3)))
    assert "one channel" in only_error(dataset, "s0")


def test_white_mask_is_an_error_and_a_mostly_white_one_a_warning(dataset: Path) -> None:
    replace_file(dataset, "masks/s0.png", mask_content(np.ones((32, 48))))
    edit_manifest(dataset, crack_fraction=1)
    assert "white all over" in only_error(dataset, "s0")
    inverted = 1 - make_mask(1)
    replace_file(dataset, "masks/s0.png", mask_content(inverted))
    edit_manifest(dataset, crack_fraction=inverted.mean())
    report = validate(dataset)
    assert report.errors == []
    assert "inverted" in report.warnings[0].message


def test_stale_crack_fraction_is_an_error(dataset: Path) -> None:
    edit_manifest(dataset, crack_fraction=0.25)
    assert "the manifest says 0.25" in only_error(dataset, "s0")
    edit_manifest(dataset, crack_fraction="?")
    assert "the manifest says ?" in only_error(dataset, "s0")


def test_sizes_must_be_those_of_the_manifest(dataset: Path) -> None:
    edit_manifest(dataset, mask_width=47)
    assert "48 x 32 pixels, the manifest says 47 x 32" in only_error(dataset, "s0")


def test_mask_of_another_shape_is_an_error(dataset: Path) -> None:
    turned = make_mask(1, (32, 48))
    replace_file(dataset, "masks/s0.png", mask_content(turned))
    edit_manifest(dataset, mask_width=32, mask_height=48, crack_fraction=turned.mean())
    assert "mask of 32 x 48 pixels for an image of 48 x 32" in only_error(dataset, "s0")


def test_validation_masks_without_a_crack_stop_a_training_on_them(dataset: Path) -> None:
    table = pd.read_csv(dataset / "manifest.csv", dtype=str, keep_default_na=False)
    for row in table[table["split"] == "val"].itertuples():
        files.write_mask(dataset / row.mask, make_mask(0) * 0)
    import_datasets(dataset, dataset.parent)
    said = [f"none of the {(table['split'] == 'val').sum()} val masks has a crack pixel"]
    (trained_on,) = validate_datasets(dataset.parent, [dataset.name], train_dataset=dataset.name)
    assert [error.message for error in trained_on.errors] == said
    (tested_on,) = validate_datasets(dataset.parent, [dataset.name], train_dataset="ANOTHER")
    assert (tested_on.errors, [warning.message for warning in tested_on.warnings]) == ([], said)


def test_images_without_cracks_are_a_note_and_a_whole_train_split_an_error(dataset: Path) -> None:
    table = pd.read_csv(dataset / "manifest.csv", dtype=str, keep_default_na=False)
    train = table["split"] == "train"
    for row in table[train].itertuples():
        files.write_mask(dataset / row.mask, make_mask(0) * 0)
    first = table[train].iloc[0]
    import_datasets(dataset, dataset.parent)  # renews the manifest
    report = validate(dataset)
    assert [e.message for e in report.errors] == [f"none of the {train.sum()} train masks has a crack pixel"]
    files.write_mask(dataset / first["mask"], make_mask(1))
    import_datasets(dataset, dataset.parent)
    report = validate(dataset)
    assert report.errors == []
    assert f"{train.sum() - 1} images without cracks" in report.notes[0].message


def test_path_that_leads_out_of_the_dataset_is_an_error(dataset: Path) -> None:
    edit_manifest(dataset, image="../../raw-BRIDGE/img/s0.jpg")
    report = validate(dataset)
    assert "leads out of" in report.errors[0].message


def test_unknown_split_and_repeated_stem_are_errors(dataset: Path) -> None:
    edit_manifest(dataset, split="training")
    assert "'training'" in only_error(dataset, "s0")
    edit_manifest(dataset, split="train", stem="s1")
    assert any("more than once" in e.message for e in validate(dataset).errors)


def test_file_that_the_manifest_does_not_list_is_a_warning(dataset: Path) -> None:
    save(dataset / "images" / "stray.png", make_photo(77))
    assert "images/stray.png" in validate(dataset).warnings[0].message


def copy_photo(dataset: Path, of: str, to: str) -> None:
    """Make two images of a dataset, or of two, the same photograph."""
    (dataset / "images" / to).write_bytes((dataset / "images" / of).read_bytes())
    import_datasets(dataset, dataset.parent)


def stems_of(dataset: Path, split: str) -> list[str]:
    table = read_manifest(dataset.parent, dataset.name)
    return list(table["stem"][table["split"] == split])


def test_same_photograph_in_two_splits_is_an_error(dataset: Path) -> None:
    (train, *_), (test, *_) = stems_of(dataset, "train"), stems_of(dataset, "test")
    copy_photo(dataset, f"{train}.jpg", f"{test}.jpg")
    (error,) = validate(dataset).errors
    assert {train, test} <= set(str(error).replace("/", " ").replace(":", " ").split())
    assert "same photograph" in error.message


def test_same_photograph_in_one_split_is_a_warning(dataset: Path) -> None:
    first, second = stems_of(dataset, "train")[:2]
    copy_photo(dataset, f"{first}.jpg", f"{second}.jpg")
    report = validate(dataset)
    assert report.errors == []
    assert "same photograph" in report.warnings[0].message


def test_compressed_and_turned_copy_in_another_split_is_a_warning(dataset: Path) -> None:
    (train, *_), (test, *_) = stems_of(dataset, "train"), stems_of(dataset, "test")
    image = files.read_image(dataset / "images" / f"{train}.jpg")
    save(dataset / "images" / f"{test}.jpg", np.ascontiguousarray(image[::-1, ::-1]), quality=70)
    import_datasets(dataset, dataset.parent)
    report = validate(dataset)
    assert report.errors == []
    assert "nearly the same photograph" in report.warnings[0].message


def test_training_photograph_in_the_test_split_of_another_dataset_is_an_error(dataset: Path) -> None:
    data_dir = dataset.parent
    other = add_dataset(data_dir, "OTHER", ["x0", "x1", "x2", "x3", "x4"])
    train, test = stems_of(dataset, "train")[0], stems_of(other, "test")[0]
    (other / "images" / f"{test}.jpg").write_bytes((dataset / "images" / f"{train}.jpg").read_bytes())
    import_datasets(other, data_dir)
    for names in (["BRIDGE", "OTHER"], ["OTHER", "BRIDGE"]):
        reports = {r.dataset: r for r in validate_datasets(data_dir, names, train_dataset="BRIDGE")}
        assert list(reports) == names
        assert f"OTHER/{test}" in str(reports["BRIDGE"].errors[0])
        assert reports["OTHER"].errors == []
    # With OTHER as the training dataset nothing leaks: BRIDGE's image is no test image.
    reports = {r.dataset: r for r in validate_datasets(data_dir, names, train_dataset="OTHER")}
    assert not any(r.errors for r in reports.values())


def test_training_dataset_without_training_images_is_an_error(tmp_path: Path) -> None:
    folder = add_dataset(tmp_path / "data", "CRKWH100", STEMS[:3])
    assert validate(folder).errors == []
    (report,) = validate_datasets(folder.parent, ["CRKWH100"], train_dataset="CRKWH100")
    assert "no training images" in report.errors[0].message


def test_region_of_interest_must_be_there_and_fit(tmp_path: Path) -> None:
    source, data_dir = tmp_path / "raw", tmp_path / "data"
    add_photos(source / "img", STEMS)
    add_masks(source / "gt", STEMS)
    for stem in STEMS:
        save(source / "roi" / f"{stem}.png", np.full((16, 24), 255, np.uint8))
    import_datasets(source, data_dir, name="STONE")
    folder = data_dir / "STONE"
    assert validate(folder).errors == []
    save(folder / "roi" / "s0.png", np.full((16, 16), 255, np.uint8))
    assert "not the image's shape" in only_error(folder, "s0")
    save(folder / "roi" / "s0.png", np.zeros((16, 24), np.uint8))
    assert "no pixel would count" in only_error(folder, "s0")
    (folder / "roi" / "s0.png").unlink()
    assert "missing" in only_error(folder, "s0")


def test_report_names_dataset_image_and_file(dataset: Path) -> None:
    (dataset / "images" / "s0.jpg").unlink()
    text = validate(dataset).to_markdown()
    assert text.startswith("## BRIDGE\n\n8 images (")
    assert "1 error, 0 warnings" in text
    assert "- s0: image" in text
    assert validate(dataset).to_markdown() == text


def test_dataset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match="NOWHERE"):
        validate_datasets(tmp_path, ["NOWHERE"])
