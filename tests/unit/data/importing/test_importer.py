from __future__ import annotations

import hashlib
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crackseg.data.catalog import MANIFEST_COLUMNS, data_source, read_manifest
from crackseg.data.images import files
from crackseg.data.importing.importer import ImportSummary, import_datasets
from crackseg.errors import CracksegError
from tests.unit.data.importing.raw_sources import add_masks, add_photos, make_mask, make_photo, save, seed_of

STEMS = ["a1", "b2", "c3", "d4"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four sound pairs in ``download/img`` and ``download/gt``."""
    folder = tmp_path / "download"
    add_photos(folder / "img", STEMS)
    add_masks(folder / "gt", STEMS)
    return folder


def run(source: Path, **options: object) -> ImportSummary:
    options = {"name": "BRIDGE"} | options
    (summary,) = import_datasets(source, source.parent / "data", **options)
    return summary


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refuse(source: Path, **options: object) -> str:
    """The message of an import that fails and changes nothing."""
    data_dir = source.parent / "data"
    before = snapshot(data_dir)
    with pytest.raises(CracksegError) as error:
        run(source, **options)
    assert snapshot(data_dir) == before
    assert not (source.parent / ".import-data").exists()
    return str(error.value)


def test_manifest_describes_every_file(source: Path) -> None:
    run(source)
    folder = source.parent / "data" / "BRIDGE"
    table = read_manifest(source.parent / "data", "BRIDGE")
    assert tuple(table.columns) == MANIFEST_COLUMNS
    assert list(table["stem"]) == sorted(STEMS)
    for row in table.itertuples():
        assert (row.image, row.mask, row.roi) == (f"images/{row.stem}.jpg", f"masks/{row.stem}.png", "")
        assert (row.width, row.height, row.mask_width, row.mask_height) == (48, 32, 48, 32)
        assert row.crack_fraction == pytest.approx(make_mask(seed_of(row.stem)).mean(), rel=1e-7)
        assert row.image_sha256 == hashlib.sha256((folder / row.image).read_bytes()).hexdigest()
        assert row.mask_sha256 == hashlib.sha256((folder / row.mask).read_bytes()).hexdigest()
        assert row.source == "imported:download"
    assert data_source(source.parent / "data", "BRIDGE") == "imported"
    assert b"\r" not in (folder / "manifest.csv").read_bytes()


def test_second_import_gives_the_same_bytes(source: Path) -> None:
    run(source)
    first = snapshot(source.parent / "data")
    run(source)
    assert snapshot(source.parent / "data") == first


def test_import_replaces_a_dataset_of_the_same_name_and_no_other(source: Path) -> None:
    run(source)
    run(source, name="OTHER")
    (source / "img" / "a1.jpg").unlink()
    (source / "gt" / "a1.png").unlink()
    run(source)
    data_dir = source.parent / "data"
    assert {p.name for p in (data_dir / "BRIDGE" / "images").iterdir()} == {"b2.jpg", "c3.jpg", "d4.jpg"}
    assert len(read_manifest(data_dir, "OTHER")) == 4
    assert not (source.parent / ".import-data").exists()


def test_plain_images_are_copied_byte_by_byte(source: Path) -> None:
    save(source / "img" / "e.PNG", make_photo(1))
    save(source / "img" / "f.Bmp", make_photo(2))
    save(source / "img" / "g.png", make_photo(3)[..., 0])
    (source / "img" / "h.png").write_bytes((source / "img" / "a1.jpg").read_bytes())  # a JPEG by content
    add_masks(source / "gt", ["e", "f", "g", "h"])
    run(source)
    images = source.parent / "data" / "BRIDGE" / "images"
    for before, after in (("a1.jpg", "a1.jpg"), ("e.PNG", "e.png"), ("f.Bmp", "f.bmp"), ("g.png", "g.png"),
                          ("h.png", "h.jpg")):  # fmt: skip
        assert (images / after).read_bytes() == (source / "img" / before).read_bytes()


def test_images_that_readers_show_differently_become_upright_rgb(source: Path) -> None:
    upright = make_photo(5, (32, 48))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    save(source / "img" / "e.png", np.ascontiguousarray(np.rot90(upright)), exif=turned)
    save(source / "img" / "f.png", (make_photo(6)[..., 0].astype(np.uint16) << 8))
    Image.fromarray(make_photo(7)).convert("CMYK").save(source / "img" / "g.jpg")
    Image.fromarray(make_photo(8)).convert("P").save(source / "img" / "h.png")
    Image.fromarray(make_photo(9)).convert("RGBA").save(source / "img" / "i.png")
    save(source / "img" / "j.tif", make_photo(10))
    add_masks(source / "gt", list("fghij"))
    add_masks(source / "gt", ["e"], size=(32, 48))
    summary = run(source)
    for stem in "efghij":
        with Image.open(source.parent / "data" / "BRIDGE" / "images" / f"{stem}.png") as image:
            assert (image.mode, image.getexif().get(0x0112)) == ("RGB", None)
    assert (files.read_image(source.parent / "data" / "BRIDGE" / "images" / "e.png") == upright).all()
    notes = "\n".join(summary.account.to_lines())
    for why in ("turned by EXIF): e.png", "16 bits): f.png", "CMYK): g.jpg", "palette): h.png", "transparent): i.png",
                "TIFF file): j.tif"):  # fmt: skip
        assert why in notes


def test_images_without_cracks_are_counted(source: Path) -> None:
    save(source / "gt" / "a1.png", make_mask(0) * 0)
    assert run(source).num_crack_free == 1


def test_unpaired_files_are_named_or_left_out(source: Path) -> None:
    add_photos(source / "img", ["lonely"])
    add_masks(source / "gt", [f"m{n:02}" for n in range(12)])
    message = refuse(source)
    assert "1 image without ground truth: img/lonely.jpg" in message
    assert "12 ground truths without image: gt/m00.png" in message
    assert "gt/m09.png and 2 more" in message
    summary = run(source, allow_unpaired=True)
    assert summary.num_images == 4
    assert {"1 image without ground truth", "12 ground truths without image"} <= {
        entry.text for entry in summary.account.passed_over
    }


@pytest.mark.parametrize("twin", ["a1.png", "A1.jpg", "more/a1.jpg"])
def test_two_images_with_one_stem_are_named(source: Path, twin: str) -> None:
    save(source / "img" / twin, make_photo(99))
    if len(list((source / "img").rglob("*.*"))) == 4:
        return  # a file system that takes A1.jpg for a1.jpg has no such trap
    message = refuse(source)
    assert f"img/{twin}" in message
    assert "img/a1.jpg" in message


def test_copy_of_an_image_is_taken_once(source: Path) -> None:
    (source / "backup_img").mkdir()
    for folder, name in (("img", "a1.jpg"), ("gt", "a1.png")):
        (source / f"backup_{folder}").mkdir(exist_ok=True)
        (source / f"backup_{folder}" / name).write_bytes((source / folder / name).read_bytes())
    assert run(source).num_images == 4


def test_all_damaged_files_are_named_at_once(source: Path) -> None:
    image, mask = source / "img" / "a1.jpg", source / "gt" / "b2.png"
    image.write_bytes(image.read_bytes()[:-200])
    mask.write_bytes(mask.read_bytes()[:60])
    (source / "img" / "c3.jpg").write_bytes(b"")
    save(source / "gt" / "d4.png", make_mask(1, (32, 48)))
    message = refuse(source)
    assert "a1.jpg" in message
    assert "b2.png" in message
    assert "c3.jpg: the file is empty" in message
    assert "d4.png: 32 x 48 pixels, but d4.jpg has 48 x 32 (turned by 90 degrees?)" in message


def test_no_more_than_twenty_problems_are_listed(source: Path) -> None:
    stems = [f"p{n:02}" for n in range(25)]
    add_photos(source / "img", stems)
    add_masks(source / "gt", stems, size=(48, 31))
    message = refuse(source)
    assert message.count("\n- p") + message.count("x 31 pixels") == 20
    assert "and 5 more" in message


def test_image_of_30000_by_30000_pixels_is_refused(source: Path) -> None:
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (source / "img" / "a1.jpg").unlink()
    (source / "img" / "a1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert "a1.png: 30000 x 30000" in refuse(source)


def test_scaled_mask_keeps_its_own_size(source: Path) -> None:
    save(source / "gt" / "a1.png", make_mask(1, (24, 16)) * np.uint8(255))
    run(source)
    row = read_manifest(source.parent / "data", "BRIDGE").iloc[0]
    assert (row["mask_width"], row["mask_height"]) == (24, 16)


def test_wrong_regions_of_interest_are_refused(source: Path) -> None:
    for stem in STEMS:
        save(source / "roi" / f"{stem}.png", (1 - make_mask(seed_of(stem))) * np.uint8(255))
    assert "regions of interest" in refuse(source)


def test_masks_that_need_a_crack_value_leave_the_earlier_data(source: Path) -> None:
    run(source)
    values = make_mask(1) * np.uint8(255)
    values[20:26] = 204
    save(source / "gt" / "a1.png", values)
    assert "--crack-value 255" in refuse(source)
    run(source, crack_values=(255,))


def test_missing_empty_and_packed_sources_say_what_to_do(tmp_path: Path) -> None:
    assert "no such folder" in refuse(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refuse(tmp_path / "empty")
    (tmp_path / "empty" / "CrackTree260.zip").write_bytes(b"PK")
    assert "CrackTree260.zip; unpack" in refuse(tmp_path / "empty")
    assert "expected a folder" in refuse(tmp_path / "empty" / "CrackTree260.zip")


def test_images_alone_are_no_dataset(source: Path) -> None:
    for path in (source / "gt").iterdir():
        path.unlink()
    assert "4 images without ground truth" in refuse(source)
    assert "no image has a ground truth" in refuse(source, allow_unpaired=True)


def test_folder_that_is_no_dataset_is_never_replaced(source: Path) -> None:
    target = source.parent / "data" / "BRIDGE"
    save(target / "raw" / "only_copy.jpg", make_photo(1))
    assert "was not made by an import" in refuse(source)
    with pytest.raises(CracksegError, match="holds the data folder"):
        import_datasets(source.parent, source.parent / "data", name="BRIDGE")


def test_names_that_differ_by_case_only_are_refused(source: Path) -> None:
    run(source, name="bridge")
    if not (source.parent / "data" / "BRIDGE").exists():
        assert "only by case" in refuse(source, name="BRIDGE")


def test_dataset_can_be_imported_from_its_own_place_after_a_mask_was_mended(source: Path) -> None:
    run(source)
    data_dir = source.parent / "data"
    files.write_mask(data_dir / "BRIDGE" / "masks" / "a1.png", make_mask(5))
    import_datasets(data_dir / "BRIDGE", data_dir)
    table = read_manifest(data_dir, "BRIDGE")
    assert table["crack_fraction"][0] == pytest.approx(make_mask(5).mean())
    assert set(table["source"]) == {"imported:download"}


def test_lists_of_the_user_win_over_folders_and_counts(source: Path) -> None:
    lists = {"train": source.parent / "mine.txt", "test": source.parent / "theirs.txt"}
    lists["train"].write_text("a1\nb2.jpg\n")
    lists["test"].write_text("c3\nd4\n")
    assert run(source, split_lists=lists, split_counts=(0, 4, 0)).split_counts == {"train": 2, "val": 0, "test": 2}
    lists["test"].write_text("c3\n")
    assert "1 image in no list: d4" in refuse(source, split_lists=lists)


def test_counts_of_the_user_win_over_what_is_known(source: Path) -> None:
    assert run(source, name="CRKWH100").split_counts == {"train": 0, "val": 0, "test": 4}
    assert run(source, name="CRKWH100", split_counts=(2, 1, 1)).split_counts == {"train": 2, "val": 1, "test": 1}


def test_seed_decides_the_split(source: Path) -> None:
    add_photos(source / "img", [f"n{n}" for n in range(20)])
    add_masks(source / "gt", [f"n{n}" for n in range(20)])
    data_dir = source.parent / "data"
    splits = []
    for seed in (0, 1, 0):
        run(source, split_seed=seed)
        splits.append(list(read_manifest(data_dir, "BRIDGE")["split"]))
    assert splits[0] == splits[2] != splits[1]


def test_summary_says_what_was_imported(source: Path) -> None:
    text = str(run(source))
    assert text.startswith("BRIDGE: 4 images (2 train, 1 val, 1 test), 0 without cracks")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_another_system_are_named_and_only_those_of_photographs_stop_an_import(source: Path) -> None:
    (source / os.fsdecode(b"notiz_\xe4.doc")).write_bytes(b"-")
    summary = run(source)
    assert any("notiz_\\udce4.doc" in line for line in summary.account.to_lines())
    (source / "img" / "a1.jpg").rename(source / "img" / os.fsdecode(b"a\xe4.jpg"))
    assert "img/a\\udce4.jpg: the name is not UTF-8" in refuse(source)


def test_a_seed_that_draws_nothing_is_said(source: Path) -> None:
    run(source)
    again = import_datasets(source.parent / "data" / "BRIDGE", source.parent / "data", name="BRIDGE", split_seed=9)
    assert any("--split-seed 9, since nothing is drawn" in line for line in again[0].account.to_lines())
