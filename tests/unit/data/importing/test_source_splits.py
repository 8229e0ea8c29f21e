from __future__ import annotations

import json
from pathlib import Path

import pytest

from crackseg.data.catalog import read_manifest
from crackseg.data.importing.folder_words import resembles_split, split_of_name
from crackseg.data.importing.importer import ImportSummary, import_datasets
from crackseg.errors import CracksegError
from tests.unit.data.importing.raw_sources import add_masks, add_photos

STEMS = [f"c{n}" for n in range(8)]
SPLITS = {"train": STEMS[:5], "val": STEMS[5:6], "test": STEMS[6:]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight pairs that say no split."""
    add_photos(tmp_path / "src" / "images", STEMS)
    add_masks(tmp_path / "src" / "masks", STEMS)
    return tmp_path / "src"


def bring(source: Path, **options: object) -> ImportSummary:
    options = {"name": "X1"} | options
    (summary,) = import_datasets(source, source.parent / "data", **options)
    return summary


def splits_of(source: Path) -> dict[str, list[str]]:
    table = read_manifest(source.parent / "data", "X1")
    return {split: sorted(table["stem"][table["split"] == split]) for split in ("train", "val", "test")}


def write_coco(path: Path, stems: list[str]) -> None:
    images = [{"id": n, "file_name": f"{stem}.jpg", "width": 48, "height": 32} for n, stem in enumerate(stems)]
    ring = [2.0, 10.0, 40.0, 10.0, 40.0, 13.0, 2.0, 13.0]
    annotations = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [ring]} for n in range(len(stems))]
    categories = [{"id": 1, "name": "crack"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("traincrop", "train"),
        ("testdata", "test"),
        ("val2017", "val"),
        ("VOC2012_test", "test"),
        ("01_train", "train"),
        ("TrainingSet", "train"),
        ("training_set", "train"),
        ("validation", "val"),
        ("holdout", "eval"),
        ("trainval", "trainval"),
        ("train_val", "trainval"),
        ("imagesTs", "test"),
        ("instances_train2017", "train"),
        ("crack_train", "train"),
        ("train_ids", "train"),
        ("train_station", None),
        ("testa", None),
        ("trains", None),
        ("contest", None),
        ("value", None),
    ],
)
def test_names_say_a_split_only_if_they_say_nothing_else(name: str, split: str | None) -> None:
    assert split_of_name(name) == split
    assert resembles_split(name) == (split is None and name.startswith(("train", "test")))


def test_own_name_of_a_dataset_says_no_split(tmp_path: Path) -> None:
    source = tmp_path / "train_station"
    add_photos(source / "train_station_img", STEMS)
    add_masks(source / "train_station_gt", STEMS)
    bring(source)
    assert all(splits_of(source).values())


@pytest.mark.parametrize("form", ["{}2017", "{}crop", "{}data", "0_{}_set", "{}_img", "data/{}/photos"])
def test_split_of_folders_is_kept(tmp_path: Path, form: str) -> None:
    source = tmp_path / "src"
    for split, stems in SPLITS.items():
        folder = form.format(split)
        add_photos(source / folder, stems)
        add_masks(source / folder.replace("_img", "_gt").replace("photos", "masks"), stems)
    summary = bring(source)
    assert splits_of(source) == SPLITS
    assert form.format("train") in str(summary)


def test_split_of_coco_files_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "src"
    add_photos(source / "images", STEMS)
    for split, stems in SPLITS.items():
        write_coco(source / "annotations" / f"instances_{split}.json", stems)
    summary = bring(source)
    assert splits_of(source) == SPLITS
    assert "instances_test.json" in str(summary)


def test_split_of_roboflows_folders_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for split, stems in SPLITS.items():
        folder = source / {"val": "valid"}.get(split, split)
        add_photos(folder, stems)
        write_coco(folder / "_annotations.coco.json", stems)
    bring(source)
    assert splits_of(source) == SPLITS


def write_lists(source: Path, form: str) -> None:
    """Write the split of ``SPLITS`` in one of the forms that people write."""
    pairs = [(split, stem) for split, stems in SPLITS.items() for stem in stems]
    if form == "table":
        (source / "meta.csv").write_bytes("".join(f"images/{s}.jpg;{split}\r\n" for split, s in pairs).encode())
    elif form == "table with header":
        text = "".join(f"{s}.jpg\tfoo\t{split}\n" for split, s in pairs)
        (source / "dataset.tsv").write_text("filename\tnote\tsubset\n" + text, encoding="utf-8-sig")
    elif form == "latin-1":
        text = "".join(f"{n},{s}.jpg,Brücke,{split}\n" for n, (split, s) in enumerate(pairs))
        (source / "all.csv").write_text("id,image,place,Split\n" + text, encoding="latin-1")
    elif form == "json by split":
        (source / "split.json").write_text(json.dumps({"splits": SPLITS}))
    elif form == "json by name":
        (source / "x.json").write_text(json.dumps({f"{s}.jpg": split for split, s in pairs}))
    elif form == "json records":
        records = [{"image": f"{s}.jpg", "mask": f"{s}.png", "split": split} for split, s in pairs]
        (source / "dataset.json").write_text(json.dumps(records))
    elif form == "columns":
        rows = [",".join(s[n] if n < len(s) else "" for s in SPLITS.values()) for n in range(5)]
        (source / "splits.csv").write_text("train,val,test\n" + "\n".join(rows))
    else:
        for split, stems in SPLITS.items():
            path = source / form.format(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".csv":
                path.write_text("image,mask\n" + "".join(f"images/{s}.jpg,masks/{s}.png\n" for s in stems))
            elif path.suffix == ".json":
                path.write_text(json.dumps([f"{s}.jpg" for s in stems]))
            else:
                path.write_text("".join(f"{s}\n" for s in stems))
        if "ImageSets" in form:
            (source / form.format("trainval")).write_text("\n".join(SPLITS["train"] + SPLITS["val"]))


@pytest.mark.parametrize(
    "form",
    [
        "{}.csv", "{}.txt", "{}.lst", "{}", "{}_list.txt", "splits/{}.json", "ImageSets/Segmentation/{}.txt",
        "table", "table with header", "latin-1", "json by split", "json by name", "json records", "columns",
    ],
)  # fmt: skip
def test_split_of_lists_is_kept(source: Path, form: str) -> None:
    write_lists(source, form)
    summary = bring(source)
    assert splits_of(source) == SPLITS
    assert "its lists say" in str(summary)


def test_split_of_yolos_yaml_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for number, stems in enumerate(SPLITS.values()):
        add_photos(source / f"images/day{number}", stems)
        add_masks(source / f"masks/day{number}", stems)
    (source / "data.yaml").write_text(
        "train: ../images/day0\nval: images/day1\ntest: images/day2/\nnc: 1\nnames: [crack]\n"
    )
    bring(source)
    assert splits_of(source) == SPLITS


def test_lists_that_disagree_with_folders_stop_the_import(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for split, stems in SPLITS.items():
        add_photos(source / split / "img", stems)
        add_masks(source / split / "gt", stems)
    (source / "test.txt").write_text("c0\n")
    with pytest.raises(CracksegError, match=r"train/img/ says train, but test\.txt says test, of 1 image: c0"):
        bring(source)
    summary = bring(source, split_counts=(4, 2, 2))
    assert "the source's own, since another one was asked for" in str(summary)


def test_images_in_no_test_list_are_trained_on_where_nothing_else_is_listed(source: Path) -> None:
    (source / "test.txt").write_text("c6.jpg\nc7.jpg\n")
    summary = bring(source)
    assert splits_of(source)["test"] == ["c6", "c7"]
    assert "images in no list became train" in str(summary)


def test_table_that_names_images_without_a_split_is_named(source: Path) -> None:
    (source / "folds.csv").write_text("image,fold\n" + "".join(f"{s}.jpg,{n % 5}\n" for n, s in enumerate(STEMS)))
    summary = bring(source)
    assert "folds.csv" in str(summary)
    assert "not of which split" in str(summary)


def test_scene_with_a_splits_word_in_its_name_is_named(tmp_path: Path) -> None:
    source = tmp_path / "src"
    add_photos(source / "train_station" / "img", STEMS)
    add_masks(source / "train_station" / "gt", STEMS)
    summary = bring(source)
    assert all(splits_of(source).values())
    assert "train_station/img/" in str(summary)


def test_lists_given_by_the_user_may_have_a_header(source: Path) -> None:
    write_lists(source, "{}.csv")
    bring(source, split_lists={split: source / f"{split}.csv" for split in SPLITS})
    assert splits_of(source) == SPLITS


def test_dataset_without_test_images_says_so(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for split in ("train", "val"):
        add_photos(source / split / "img", SPLITS[split])
        add_masks(source / split / "gt", SPLITS[split])
    assert "no test images" in str(bring(source))


def test_list_that_is_used_is_not_passed_over(source: Path) -> None:
    write_lists(source, "json by split")
    assert bring(source).account.passed_over == []


def test_source_whose_name_says_a_split_is_named(tmp_path: Path) -> None:
    source = tmp_path / "testcrop"
    add_photos(source / "img", STEMS)
    add_masks(source / "gt", STEMS)
    assert "testcrop says test" in str(bring(source))


def test_subset_of_cvats_images_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "src"
    add_photos(source / "images", STEMS)
    shape = '<polygon label="crack" points="2,10;40,10;40,13;2,13" occluded="0"/>'
    images = "".join(
        f'<image id="{stem[1:]}" name="{stem}.jpg" subset="{split.title()}" width="48" height="32">{shape}</image>'
        for split, stems in SPLITS.items()
        for stem in stems
    )
    (source / "annotations.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    bring(source)
    assert splits_of(source) == SPLITS


def test_figures_of_a_repository_name_the_folder_that_would_do(tmp_path: Path) -> None:
    source = tmp_path / "repo"
    add_photos(source / "dataset" / "crack", STEMS)
    add_masks(source / "dataset" / "crack_gt", STEMS)
    add_photos(source / "docs" / "images", ["figure1"])
    with pytest.raises(CracksegError, match=r"data import \S*repo/dataset --name X1`; or --allow-unpaired"):
        bring(source)
    bring(source / "dataset")


def test_links_are_followed_or_named(tmp_path: Path) -> None:
    source = tmp_path / "src"
    add_photos(tmp_path / "nas" / "photos", STEMS)
    add_masks(tmp_path / "nas" / "drawn", STEMS)
    source.mkdir()
    (source / "images").symlink_to(tmp_path / "nas" / "photos")
    (source / "masks").symlink_to(tmp_path / "nas" / "drawn")
    (source / "again").symlink_to(source)
    (source / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    summary = bring(source)
    assert summary.num_images == len(STEMS)
    passed = {entry.text: entry.names for entry in summary.account.passed_over}
    assert passed == {"lead back to a folder that holds them": ("again",), "lead to nothing": ("gone.jpg",)}


def test_files_that_no_import_reads_are_named_by_their_ending(source: Path) -> None:
    for name in ("images/a.cr2", "images/b.cr2", "notes.docx", "old.zip", "@eaDir/c0.jpg", "Thumbs.db"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")
    text = str(bring(source))
    for expected in ("2 .cr2 files: a camera's raw file", "1 .docx file", "1 archive", "@eaDir/, Thumbs.db"):
        assert expected in text
