from __future__ import annotations

from pathlib import Path

import pytest

from crackseg.data.catalog import list_samples, read_manifest
from crackseg.data.images.files import read_mask
from crackseg.data.importing.folder_words import Role, known_name, read_folders, split_of_name
from crackseg.data.importing.importer import import_datasets
from crackseg.errors import CracksegError
from tests.unit.data.importing.raw_sources import add_masks, add_photos, make_mask, save, seed_of

STEMS = ["a1", "b2", "c3", "d4"]


@pytest.mark.parametrize(
    ("path", "role", "split", "dataset"),
    [
        ("DeepCrack-datasets/CRKWH100", None, None, "CRKWH100"),
        ("CrackTree260_gt/gt", Role.TRUTH, None, "CrackTree260"),
        ("crkwh100_GT", Role.TRUTH, None, "CRKWH100"),
        ("CrackTree260/CrackTree260_img", Role.IMAGE, None, "CrackTree260"),
        ("Stone331_mask", Role.ROI, None, "Stone331"),
        ("Stone331 Mask", Role.ROI, None, "Stone331"),
        ("Stone331/masks", Role.MASK, None, "Stone331"),
        ("train_lab", Role.TRUTH, "train", None),
        ("valid/Valid_image", Role.IMAGE, "val", None),
        ("valid/Lable_image", Role.TRUTH, "val", None),
        ("groundTruthPng", Role.TRUTH, None, None),
        ("ground_truth", Role.TRUTH, None, None),
        ("masks/train", Role.MASK, "train", None),
        ("gt_2/images", Role.IMAGE, None, None),
        ("bridge_test_2023", None, None, None),
        ("CrackTree260_enhanced", None, None, None),
    ],
)
def test_folder_names_are_understood(path: str, role: Role, split: str, dataset: str) -> None:
    meaning = read_folders(tuple(path.split("/")))
    assert (meaning.role, meaning.split, meaning.dataset) == (role, split, dataset)


def test_known_names_and_splits_are_read_from_single_names() -> None:
    assert known_name("CRACKTREE260-master") == "CrackTree260"
    assert known_name("CrackTree2600") is None
    assert split_of_name("CrackLS315_valid") == "val"


def import_one(source: Path, tmp_path: Path, **options: object) -> Path:
    """Import a single dataset and return its folder, after checking that each pair belongs together."""
    (summary,) = import_datasets(source, tmp_path / "data", **options)
    for sample in list_samples(tmp_path / "data", summary.dataset):
        assert (read_mask(sample.mask_path) == make_mask(seed_of(sample.stem))).all()
    return summary.folder


def splits_of(folder: Path) -> dict[str, str]:
    table = read_manifest(folder.parent, folder.name)
    return dict(zip(table["stem"], table["split"], strict=True))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("img", "lab"),
        ("image", "ground_truth"),
        ("images", "masks"),
        ("Images", "GT"),
        ("BRIDGE/BRIDGE_img", "BRIDGE/BRIDGE_gt"),
        ("BRIDGE_image", "BRIDGE_label"),
        ("", "gt"),
        ("JPEGImages", "SegmentationClass"),
        ("photos/2023", "annotations/2023"),
    ],
)
def test_images_and_masks_in_two_folders(tmp_path: Path, images: str, masks: str) -> None:
    source = tmp_path / "download"
    add_photos(source / images, STEMS)
    add_masks(source / masks, STEMS)
    assert set(splits_of(import_one(source, tmp_path, name="BRIDGE"))) == set(STEMS)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (("train_img", "val_img", "test_img"), ("train_lab", "val_lab", "test_lab")),
        (("train/img", "valid/Valid_image", "test/img"), ("train/gt", "valid/Lable_image", "test/gt")),
        (("images/train", "images/val", "images/test"), ("masks/train", "masks/val", "masks/test")),
    ],
)
def test_split_is_that_of_the_folders(tmp_path: Path, images: tuple[str, ...], masks: tuple[str, ...]) -> None:
    source = tmp_path / "download"
    for stem, image_dir, mask_dir in zip(STEMS, (*images, images[0]), (*masks, masks[0]), strict=True):
        add_photos(source / image_dir, [stem])
        add_masks(source / mask_dir, [stem])
    expected = {"a1": "train", "b2": "val", "c3": "test", "d4": "train"}
    assert splits_of(import_one(source, tmp_path, name="BRIDGE")) == expected


def test_folders_with_train_and_test_alone_give_validation_images_too(tmp_path: Path) -> None:
    source = tmp_path / "download"
    train, test = [f"t{n}" for n in range(12)], ["x", "y"]
    for split, stems in (("train", train), ("test", test)):
        add_photos(source / f"{split}_img", stems)
        add_masks(source / f"{split}_lab", stems)
    splits = splits_of(import_one(source, tmp_path, name="BRIDGE"))
    assert [s for s in splits if splits[s] == "test"] == test
    assert list(splits.values()).count("val") == 1


def test_mask_beside_its_image(tmp_path: Path) -> None:
    source = tmp_path / "download"
    add_photos(source, STEMS)
    for stem in STEMS:
        save(source / f"{stem}_mask.png", make_mask(seed_of(stem)) * 255)
    assert set(splits_of(import_one(source, tmp_path, name="BRIDGE"))) == set(STEMS)


def test_mask_beside_its_image_with_the_same_stem(tmp_path: Path) -> None:
    source = tmp_path / "download"
    add_photos(source, STEMS)
    add_masks(source, STEMS)
    assert set(splits_of(import_one(source, tmp_path, name="BRIDGE"))) == set(STEMS)


def test_photograph_is_not_taken_for_the_mask_beside_it(tmp_path: Path) -> None:
    source = tmp_path / "download"
    add_photos(source, STEMS, ".jpg")
    add_photos(source, STEMS, ".png")
    with pytest.raises(CracksegError, match="looks like photographs"):
        import_one(source, tmp_path, name="BRIDGE")


def test_cases_and_extensions_may_be_mixed(tmp_path: Path) -> None:
    source = tmp_path / "CrackTree260"
    add_photos(source / "Image", ["IMG_1", "img_2"], ".JPG")
    add_photos(source / "Image", ["img_3"], ".Png")
    add_masks(source / "GT", ["IMG_1", "img_2", "img_3"], ".BMP")
    for stem in ("IMG_1", "img_2"):  # a mask may differ from its image by case
        (source / "GT" / f"{stem}.BMP").rename(source / "GT" / f"{stem.swapcase()}.bmp")
    folder = import_one(source, tmp_path)
    assert sorted(p.name for p in (folder / "images").iterdir()) == ["IMG_1.jpg", "img_2.jpg", "img_3.png"]


def test_hidden_files_and_what_systems_leave_are_ignored(tmp_path: Path) -> None:
    source = tmp_path / "download"
    add_photos(source / "img", STEMS)
    add_masks(source / "gt", STEMS)
    for name in ("img/._a1.jpg", "img/Thumbs.db", "__MACOSX/img/a1.jpg", "README.txt", "LICENSE", ".git/x.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"no image")
    assert set(splits_of(import_one(source, tmp_path, name="BRIDGE"))) == set(STEMS)


def test_figure_beside_the_folders_is_left_out_with_a_note(tmp_path: Path) -> None:
    source = tmp_path / "download"
    add_photos(source / "img", STEMS)
    add_masks(source / "gt", STEMS)
    add_photos(source, ["overview"])
    (summary,) = import_datasets(source, tmp_path / "data", name="BRIDGE")
    assert summary.num_images == 4
    assert any("overview.jpg" in line for line in summary.account.to_lines())


def make_bundle(root: Path) -> Path:
    """The DeepCrack authors' downloads, two images each, in the folders in which they come."""
    folders = {
        "CrackTree260": (
            "DeepCrack-datasets/CrackTree260",
            "CrackTree260_gt/gt",
            ".jpg",
            ".bmp",
            (80, 60),
            (80, 60),
        ),
        "CRKWH100": ("DeepCrack-datasets/CRKWH100", "CRKWH100_GT", ".png", ".bmp", (48, 48), (48, 48)),
        "CrackLS315": ("DeepCrack-datasets/CrackLS315", "CrackLS315_gt", ".jpg", ".bmp", (48, 48), (48, 48)),
        "Stone331": ("Stone331/Stone331_image", "Stone331_gt", ".jpg", ".bmp", (96, 96), (48, 48)),
    }
    for name, (images, masks, image_ext, mask_ext, size, mask_size) in folders.items():
        stems = [f"{name[-3:]}{n}" for n in range(6)]
        add_photos(root / images, stems, image_ext, size)
        add_masks(root / masks, stems, mask_ext, mask_size)
    for n in range(6):
        roi = make_mask(0, (48, 48)) * 0 + 255
        roi[:3] = 0
        save(root / "Stone331_mask" / f"331{n}.bmp", roi)
    return root


def test_whole_bundle_is_imported_at_once(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "downloads")
    summaries = {s.dataset: s for s in import_datasets(source, tmp_path / "data")}
    assert set(summaries) == {"CrackTree260", "CRKWH100", "CrackLS315", "Stone331"}
    assert summaries["CrackTree260"].split_counts == {"train": 4, "val": 1, "test": 1}
    for name in ("CRKWH100", "CrackLS315", "Stone331"):
        assert summaries[name].split_counts == {"train": 0, "val": 0, "test": 6}


def test_stones_mask_is_the_region_of_interest_not_the_truth(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "downloads")
    import_datasets(source, tmp_path / "data")
    table = read_manifest(tmp_path / "data", "Stone331")
    assert list(table["roi"]) == [f"roi/331{n}.png" for n in range(6)]
    assert (table["crack_fraction"] < 0.2).all()
    assert list(table["mask_width"]) == [48] * 6  # as published: half the photograph's
    sample = list_samples(tmp_path / "data", "Stone331")[0]
    assert (read_mask(sample.mask_path) == make_mask(seed_of("3310"), (48, 48))).all()
    assert sample.roi_path is not None
    assert read_mask(sample.roi_path)[3:].all()


def test_stones_mask_alone_is_refused_as_truth(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "downloads")
    (source / "Stone331_gt").rename(tmp_path / "elsewhere")
    with pytest.raises(CracksegError, match=r"Stone331: .*without ground truth"):
        import_datasets(source, tmp_path / "data")


def test_name_takes_one_dataset_out_of_the_bundle(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "downloads")
    (summary,) = import_datasets(source, tmp_path / "data", name="crkwh100")
    assert summary.dataset == "CRKWH100"
    assert any("of no dataset taken here" in line for line in summary.account.to_lines())
    with pytest.raises(CracksegError, match="but the name given is BRIDGE"):
        import_datasets(source, tmp_path / "data", name="BRIDGE")


def test_known_dataset_is_not_imported_under_another_known_name(tmp_path: Path) -> None:
    add_photos(tmp_path / "download" / "CrackTree260", STEMS)
    add_masks(tmp_path / "download" / "CrackTree260_gt", STEMS)
    with pytest.raises(CracksegError, match="holds CrackTree260, but the name given is CRKWH100"):
        import_datasets(tmp_path / "download", tmp_path / "data", name="CRKWH100")


def test_unknown_dataset_needs_a_name(tmp_path: Path) -> None:
    add_photos(tmp_path / "my bridge" / "img", STEMS)
    add_masks(tmp_path / "my bridge" / "gt", STEMS)
    with pytest.raises(CracksegError, match=r"--name my-bridge"):
        import_datasets(tmp_path / "my bridge", tmp_path / "data")
    with pytest.raises(CracksegError, match="dataset name"):
        import_datasets(tmp_path / "my bridge", tmp_path / "data", name="../up")


def test_another_dataset_beside_a_known_one_is_not_mixed_in(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "downloads")
    for name in ("CRKWH100_GT", "CrackLS315_gt", "Stone331_gt", "Stone331_mask", "Stone331"):
        (source / name).rename(tmp_path / name)
    for name in ("CRKWH100", "CrackLS315"):
        (source / "DeepCrack-datasets" / name).rename(tmp_path / f"{name}_images")
    add_photos(source / "bridge" / "img", STEMS)
    add_masks(source / "bridge" / "gt", STEMS)
    (summary,) = import_datasets(source, tmp_path / "data")
    assert (summary.dataset, summary.num_images) == ("CrackTree260", 6)
    assert any("bridge/img/" in line for line in summary.account.to_lines())


def test_images_alone_name_the_folder_beside_them_that_has_the_truth(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "downloads")
    (source / "DeepCrack-datasets" / "CRKWH100").rename(source / "CRKWH100")
    with pytest.raises(CracksegError, match="CRKWH100_GT lies next to"):
        import_datasets(source / "CRKWH100", tmp_path / "data")


def test_canonical_folder_is_imported_with_its_splits_and_source(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "downloads")
    import_datasets(source, tmp_path / "data", split_seed=3)
    for name in ("CrackTree260", "Stone331"):
        import_datasets(tmp_path / "data" / name, tmp_path / "copy")
        copy, original = (tmp_path / d / name / "manifest.csv" for d in ("copy", "data"))
        assert copy.read_bytes() == original.read_bytes()


def test_imported_sample_still_says_that_it_is_the_sample(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "downloads")
    import_datasets(source, tmp_path / "data", name="CRKWH100")
    manifest = tmp_path / "data" / "CRKWH100" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("imported:downloads", "sample"))
    import_datasets(tmp_path / "data" / "CRKWH100", tmp_path / "copy", name="OTHER")
    assert set(read_manifest(tmp_path / "copy", "OTHER")["source"]) == {"sample"}
