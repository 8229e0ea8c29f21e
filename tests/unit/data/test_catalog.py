"""Listing a dataset: its splits from one reading of the manifest, and a few of many images."""

from pathlib import Path

import pandas as pd
import pytest

from crackseg.data.catalog import MANIFEST_COLUMNS, list_samples, list_splits, read_manifest, spread_evenly
from crackseg.errors import CracksegError
from crackseg.types import CrackSample


def write_manifest(data_dir: Path, splits: list[str]) -> Path:
    rows = [
        {"stem": f"{i}", "image": f"images/{i}.png", "mask": f"masks/{i}.png", "split": split}
        for i, split in enumerate(splits)
    ]
    lines = [",".join(MANIFEST_COLUMNS), *(",".join(row.get(c, "") for c in MANIFEST_COLUMNS) for row in rows)]
    (data_dir / "D").mkdir(exist_ok=True)
    path = data_dir / "D" / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_process_parses_a_manifest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path, ["val", "train", "train", "val", "train"])
    readings = []
    read = pd.read_csv
    monkeypatch.setattr(pd, "read_csv", lambda *of, **how: readings.append(of) or read(*of, **how))
    expected = {split: list_samples(tmp_path, "D", split) for split in ("train", "val", "test")}
    assert list_splits(tmp_path, "D") == expected
    assert [len(samples) for samples in expected.values()] == [3, 2, 0]
    table = read_manifest(tmp_path, "D")
    table["split"] = "test"  # the caller's own: nothing that others get
    assert list_splits(tmp_path, "D") == expected
    assert len(readings) == 1


def test_a_manifest_that_changed_is_read_again(tmp_path: Path) -> None:
    write_manifest(tmp_path, ["val", "train"])
    assert len(list_splits(tmp_path, "D")["train"]) == 1
    write_manifest(tmp_path, ["train", "train"])
    assert len(list_splits(tmp_path, "D")["train"]) == 2


@pytest.mark.parametrize(
    ("number", "most", "taken"),
    [(9, 3, [0, 4, 8]), (9, 1, [0]), (2, 5, [0, 1]), (3, None, [0, 1, 2]), (0, 4, []), (0, None, [])],
)
def test_a_few_images_stand_for_all_from_first_to_last(number: int, most: int | None, taken: list[int]) -> None:
    samples = [CrackSample("D", str(i), "val", Path("image"), Path("mask")) for i in range(number)]
    assert [int(sample.stem) for sample in spread_evenly(samples, most)] == taken


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b'stem,image\n"a,b\nc,d,e,f\n'])
def test_a_damaged_manifest_is_named_with_what_brings_it_back(tmp_path: Path, content: bytes) -> None:
    write_manifest(tmp_path, ["train"]).write_bytes(content)
    (dataset,) = tmp_path.iterdir()
    with pytest.raises(CracksegError) as caught:
        read_manifest(tmp_path, dataset.name)
    assert str(dataset / "manifest.csv") in str(caught.value)
    assert "import the dataset again" in str(caught.value)
