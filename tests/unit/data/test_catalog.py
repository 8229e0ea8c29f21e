"""Listing a dataset: its splits from one reading of the manifest, and a few of many images."""

from pathlib import Path

import pytest

from crackseg.data import catalog
from crackseg.data.catalog import MANIFEST_COLUMNS, list_samples, list_splits, spread_evenly
from crackseg.types import CrackSample


def test_splits_are_listed_with_one_reading_of_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = ["val", "train", "train", "val", "train"]
    rows = [
        {"stem": f"{i}", "image": f"images/{i}.png", "mask": f"masks/{i}.png", "split": split}
        for i, split in enumerate(splits)
    ]
    lines = [",".join(MANIFEST_COLUMNS), *(",".join(row.get(c, "") for c in MANIFEST_COLUMNS) for row in rows)]
    (tmp_path / "D").mkdir()
    (tmp_path / "D" / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = {split: list_samples(tmp_path, "D", split) for split in ("train", "val", "test")}
    readings = []
    read = catalog.read_manifest
    monkeypatch.setattr(catalog, "read_manifest", lambda *of: readings.append(of) or read(*of))
    assert list_splits(tmp_path, "D") == expected
    assert [len(samples) for samples in expected.values()] == [3, 2, 0]
    assert len(readings) == 1


@pytest.mark.parametrize(
    ("number", "most", "taken"),
    [(9, 3, [0, 4, 8]), (9, 1, [0]), (2, 5, [0, 1]), (3, None, [0, 1, 2]), (0, 4, []), (0, None, [])],
)
def test_a_few_images_stand_for_all_from_first_to_last(number: int, most: int | None, taken: list[int]) -> None:
    samples = [CrackSample("D", str(i), "val", Path("image"), Path("mask")) for i in range(number)]
    assert [int(sample.stem) for sample in spread_evenly(samples, most)] == taken
