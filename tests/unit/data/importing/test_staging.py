from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from crackseg.data.catalog import read_manifest
from crackseg.data.importing.importer import import_datasets
from crackseg.data.importing.staging import finish_interrupted_import, open_staging_area
from crackseg.errors import CracksegError
from tests.unit.data.importing.raw_sources import add_masks, add_photos


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs, as the test sees to."""


def write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text(text)


def contents(data_dir: Path) -> dict[str, str]:
    return {p.parent.name: p.read_text() for p in sorted(data_dir.glob("*/manifest.csv"))}


def swap_two(data_dir: Path) -> None:
    with open_staging_area(data_dir) as (staging, _):
        write(staging.new("A"), "new A")
        write(staging.new("B"), "new B")
        staging.swap_in(["A", "B"])


def count_file_operations(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None], stop_at: int) -> int:
    """Run an action that dies at its ``stop_at``-th rename, deletion or write; return how many it did."""
    done = 0

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def operation(*args: object, **kwargs: object) -> object:
            nonlocal done
            if done >= stop_at:
                raise Killed  # and again, should a clean-up try to go on: a killed process does nothing more
            done += 1
            return real(*args, **kwargs)

        return operation

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "rmdir", "mkdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        patch.setattr(Path, "write_bytes", dying(Path.write_bytes))
        patch.setattr(Path, "write_text", dying(Path.write_text))
        with contextlib.suppress(Killed):
            action()
    return done


def test_killed_at_any_moment_the_data_are_the_old_or_become_the_new(tmp_path: Path, monkeypatch) -> None:
    old, new = {"A": "old A", "C": "old C"}, {"A": "new A", "B": "new B", "C": "old C"}
    endings = []
    for stop_at in range(100):
        data_dir = tmp_path / str(stop_at) / "data"
        write(data_dir / "A", "old A")
        write(data_dir / "C", "old C")
        done = count_file_operations(monkeypatch, lambda folder=data_dir: swap_two(folder), stop_at)
        finish_interrupted_import(data_dir)
        assert contents(data_dir) in (old, new), stop_at
        assert not (data_dir.parent / ".import-data").exists()
        endings.append(contents(data_dir))
        if done < stop_at:
            break
    assert endings[0] == old
    assert endings[-1] == new
    assert len(endings) > 10


def test_recovery_that_is_killed_too_is_finished_by_the_next(tmp_path: Path, monkeypatch) -> None:
    swaps_under_way = 0
    for first_stop, second_stop in itertools.product(range(20), range(15)):
        data_dir = tmp_path / f"{first_stop}-{second_stop}" / "data"
        write(data_dir / "A", "old A")
        count_file_operations(monkeypatch, lambda folder=data_dir: swap_two(folder), first_stop)
        swapping = (data_dir.parent / ".import-data" / "commit.json").exists()
        swaps_under_way += swapping
        count_file_operations(monkeypatch, lambda folder=data_dir: finish_interrupted_import(folder), second_stop)
        finish_interrupted_import(data_dir)
        if swapping:
            assert contents(data_dir) == {"A": "new A", "B": "new B"}, (first_stop, second_stop)
    assert swaps_under_way > 50


def test_next_import_clears_what_a_killed_one_wrote(tmp_path: Path) -> None:
    write(tmp_path / ".import-data" / "new" / "HALF", "half")
    swap_two(tmp_path / "data")
    assert contents(tmp_path / "data") == {"A": "new A", "B": "new B"}
    assert not (tmp_path / ".import-data").exists()


def test_nothing_to_mend_takes_no_lock(tmp_path: Path) -> None:
    assert finish_interrupted_import(tmp_path / "data") == []
    assert list(tmp_path.iterdir()) == []


def test_second_import_waits_for_the_first(tmp_path: Path, capfd) -> None:
    data_dir = tmp_path / "data"
    order: list[str] = []

    def second() -> None:
        with open_staging_area(data_dir):
            order.append("second")

    with open_staging_area(data_dir):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert "another import" in capfd.readouterr().err


def test_refusing_disk_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(CracksegError, match="the import stopped at"),
        open_staging_area(tmp_path / "file" / "data"),
    ):
        pass


def test_import_killed_while_writing_leaves_the_earlier_data(tmp_path: Path) -> None:
    source, data_dir = tmp_path / "source", tmp_path / "data"
    add_photos(source / "img", ["a", "b", "c"])
    add_masks(source / "gt", ["a", "b", "c"])
    import_datasets(source, data_dir, name="BRIDGE")
    before = (data_dir / "BRIDGE" / "manifest.csv").read_bytes()
    add_photos(source / "img", ["d"])
    add_masks(source / "gt", ["d"])
    code = (
        "import os, sys; from pathlib import Path; from crackseg.data.importing import importer\n"
        "def die(path, mask): os._exit(9) if path.stem == 'c' else real(path, mask)\n"
        "real, importer.write_mask = importer.write_mask, die\n"
        f"importer.import_datasets(Path({str(source)!r}), Path({str(data_dir)!r}), name='BRIDGE')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (data_dir / "BRIDGE" / "manifest.csv").read_bytes() == before
    import_datasets(source, data_dir, name="BRIDGE")
    assert len(read_manifest(data_dir, "BRIDGE")) == 4
    assert not (tmp_path / ".import-data").exists()
