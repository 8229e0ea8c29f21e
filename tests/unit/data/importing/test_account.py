from __future__ import annotations

import json
from pathlib import Path

import pytest

from crackseg.data.importing.account import ImportAccount, read_account
from crackseg.data.importing.importer import ImportSummary, import_datasets
from crackseg.data.validation import validate_datasets
from crackseg.errors import CracksegError
from tests.unit.data.importing.raw_sources import add_masks, add_photos


def import_into(tmp_path: Path, source: Path, **options: object) -> ImportSummary:
    (summary,) = import_datasets(source, tmp_path / "data", **{"name": "BRIDGE", **options})
    return summary


@pytest.fixture
def source(tmp_path: Path) -> Path:
    add_photos(tmp_path / "src" / "img", ["a1", "b2", "c3", *(f"lonely{n}" for n in range(9))])
    add_masks(tmp_path / "src" / "gt", ["a1", "b2", "c3"])
    return tmp_path / "src"


def test_terminal_shows_the_first_names_and_the_file_holds_all(tmp_path: Path, source: Path) -> None:
    summary = import_into(tmp_path, source, allow_unpaired=True)
    (line,) = [line for line in str(summary).splitlines() if "9 images without ground truth" in line]
    assert "lonely4.jpg and 4 more" in line
    stored = json.loads((tmp_path / "data" / "BRIDGE" / "import.json").read_text(encoding="utf-8"))
    (entry,) = [e for e in stored["passed_over"] if e["text"] == "9 images without ground truth"]
    assert entry["names"] == [f"img/lonely{n}.jpg" for n in range(9)]
    assert summary.to_dict()["passed_over"] == stored["passed_over"]


def test_importing_the_written_folder_again_keeps_its_account(tmp_path: Path, source: Path) -> None:
    import_into(tmp_path, source, allow_unpaired=True)
    folder = tmp_path / "data" / "BRIDGE"
    first = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    summary = import_into(tmp_path, folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == first
    assert "at its first import" in str(summary)


def test_account_is_no_unlisted_file(tmp_path: Path, source: Path) -> None:
    import_into(tmp_path, source, allow_unpaired=True)
    (report,) = validate_datasets(tmp_path / "data", ["BRIDGE"])
    assert not any("import.json" in str(f) for f in (*report.errors, *report.warnings, *report.notes))


def test_same_thing_is_said_once() -> None:
    account = ImportAccount()
    for _ in range(2):
        account.pass_over("files", "2 videos", ["a.mp4", "b.mp4"])
    assert account.to_lines() == ["  passed over:", "    files: 2 videos: a.mp4, b.mp4"]


def test_damaged_account_is_named(tmp_path: Path) -> None:
    path = tmp_path / "import.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(CracksegError, match=r"import\.json: not the account of an import"):
        read_account(path)
