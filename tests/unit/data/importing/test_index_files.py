from __future__ import annotations

from pathlib import Path

import pytest

from crackseg.data.catalog import read_manifest
from crackseg.data.importing.importer import ImportSummary, import_datasets
from crackseg.errors import CracksegError
from tests.unit.data.importing.raw_sources import add_masks, add_photos


def make_source(tmp_path: Path, stems: list[str]) -> Path:
    source = tmp_path / "download"
    add_photos(source / "a folder", stems)
    add_masks(source / "a folder", stems)
    return source


def import_listed(source: Path, tmp_path: Path, name: str = "BRIDGE") -> ImportSummary:
    (summary,) = import_datasets(source, tmp_path / "data", name=name)
    return summary


def test_index_files_give_pairs_and_splits(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a1", "b2", "c 3", "unlisted"])
    (source / "train.txt").write_text("a folder/a1.jpg a folder/a1.png\n", encoding="utf-8")
    (source / "val.txt").write_text("# mine\n\na folder\\b2.jpg\ta folder\\b2.png\n", encoding="utf-8")
    (source / "lists").mkdir()
    (source / "lists" / "test.lst").write_text("../a folder/c 3.jpg ../a folder/c 3.png\n", encoding="utf-8")
    summary = import_listed(source, tmp_path)
    table = read_manifest(tmp_path / "data", "BRIDGE")
    assert dict(zip(table["stem"], table["split"], strict=True)) == {"a1": "train", "b2": "val", "c 3": "test"}
    assert any("1 image in no index file" in line for line in summary.account.to_lines())


def test_mask_need_not_have_the_name_of_its_image(tmp_path: Path) -> None:
    source = tmp_path / "download"
    add_photos(source, ["photo"])
    add_masks(source, ["drawn"])
    (source / "pairs.txt").write_text("photo.jpg drawn.png\n")
    import_listed(source, tmp_path)
    assert list(read_manifest(tmp_path / "data", "BRIDGE")["mask"]) == ["masks/photo.png"]


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname.png", "a folder/../../outside.png"])
def test_path_outside_the_source_is_refused(tmp_path: Path, path: str) -> None:
    source = make_source(tmp_path, ["a1"])
    add_masks(tmp_path, ["outside"])
    (source / "train.txt").write_text(f"a folder/a1.jpg,{path}\n")
    with pytest.raises(CracksegError, match=r"train\.txt, line 1: .*outside") as error:
        import_listed(source, tmp_path)
    assert path in str(error.value)
    assert not (tmp_path / "data").exists()


def test_missing_files_and_broken_lines_are_named_together(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a1"])
    (source / "train.txt").write_text("a folder/a1.jpg,a folder/a1.png\nnone.jpg gone.png\nnonsense\n")
    with pytest.raises(CracksegError) as error:
        import_listed(source, tmp_path)
    assert "line 2: none.jpg and gone.png" in str(error.value)
    assert "line 3: expected 'image mask', got 'nonsense'" in str(error.value)


def test_image_in_two_index_files_is_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a1", "b2"])
    (source / "train.txt").write_text("a folder/a1.jpg,a folder/a1.png\na folder/b2.jpg,a folder/b2.png\n")
    (source / "test.txt").write_text("a folder/a1.jpg,a folder/a1.png\n")
    with pytest.raises(CracksegError, match=r"test\.txt says test, but train\.txt says train, of 1 image: a1"):
        import_listed(source, tmp_path)


def test_augmented_crops_are_left_out_beside_their_photographs(tmp_path: Path) -> None:
    source = tmp_path / "CrackTree260"
    crops = [f"{n}_rot0_crop{c}_mirror0" for n in (6192, 6193) for c in (1, 2)]
    add_photos(source / "img", ["6192", "6193", "6194"])
    add_masks(source / "gt", ["6192", "6193", "6194"])
    add_photos(source / "aug" / "img", crops)
    add_masks(source / "aug" / "gt", crops)
    lines = [f"aug/img/{c}.jpg aug/gt/{c}.png" for c in crops]
    (source / "train.txt").write_text("\n".join(lines))
    summary = import_listed(source, tmp_path, "CrackTree260")
    assert summary.num_images == 3
    assert any("8 augmented crops" in line for line in summary.account.to_lines())


def test_crops_of_one_photograph_stay_in_one_split_and_out_of_test(tmp_path: Path) -> None:
    source = tmp_path / "CrackTree260"
    crops = [f"{n}_rot0_crop{c}_mirror0" for n in range(8) for c in range(3)]
    add_photos(source / "img", crops)
    add_masks(source / "gt", crops)
    import_listed(source, tmp_path, "CrackTree260")
    table = read_manifest(tmp_path / "data", "CrackTree260")
    assert set(table["split"]) == {"train", "val"}
    assert table.groupby(table["stem"].str.split("_").str[0])["split"].nunique().max() == 1
    with pytest.raises(CracksegError, match="only augmented crops"):
        import_listed(source, tmp_path, "CRKWH100")


def test_list_that_names_only_part_of_the_images_stops_the_import(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a1", "b2", "c3"])
    (source / "train.txt").write_text("a1\nb2\n")
    with pytest.raises(CracksegError, match=r"1 image without split.*train\.txt.*c3.*--train-list"):
        import_listed(source, tmp_path)
