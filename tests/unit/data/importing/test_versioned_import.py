"""An import must never be refused by its own advice, lose what was staged, or leave what stops the next."""

import io
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crackseg.cli.doctor.project import check_pipeline_files
from crackseg.data.guard import check_data_is_committed
from crackseg.data.importing import versioned_import
from crackseg.data.importing.staging import open_staging_area
from crackseg.data.importing.versioned_import import import_versioned
from crackseg.data.versioning import run_dvc as run_dvc_of_the_product
from crackseg.errors import CracksegError
from tests.dvc_in_process import run_dvc
from tests.unit.data.importing.raw_sources import add_masks, add_photos, make_mask, save


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with git and DVC and the committed dataset FIRST; tests get copies."""
    root = tmp_path_factory.mktemp("committed") / "project"
    root.mkdir()
    git(root, "init", "-q", ".")
    run_dvc(root, "init")
    add(root, "FIRST")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "begin")
    return root


@pytest.fixture
def root(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the test's own: a copy of the committed one."""
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    return shutil.copytree(committed.parent, tmp_path / "all", symlinks=True) / "project"


def add(root: Path, name: str) -> None:
    source = root.parent / name
    stems = [f"{name}-{letter}" for letter in "abc"]
    add_photos(source / "images", stems)
    add_masks(source / "masks", stems)
    import_versioned(root, source, name=name)


def correct_mask(root: Path, name: str) -> None:
    save(root / "data" / name / "masks" / f"{name}-a.png", make_mask(99) * 255)


def test_a_dataset_with_a_corrected_mask_is_renewed_and_no_other_change_slips_in(root: Path) -> None:
    add(root, "OTHER")
    correct_mask(root, "FIRST")
    import_versioned(root, root / "data" / "FIRST", name="FIRST")
    check_data_is_committed(root, root)
    correct_mask(root, "OTHER")
    with pytest.raises(CracksegError, match=r"1 changed: data/OTHER/masks/OTHER-a\.png") as refused:
        import_versioned(root, root / "data" / "FIRST", name="FIRST")
    assert "crackseg data import data/OTHER --name OTHER" in str(refused.value)  # and that is no circle:
    import_versioned(root, root / "data" / "OTHER", name="OTHER")
    check_data_is_committed(root, root)


def test_advice_on_a_changed_mask_keeps_a_staged_import_and_says_what_it_overwrites(root: Path) -> None:
    add(root, "STAGED")
    correct_mask(root, "STAGED")
    (root / "data" / "STAGED" / "masks" / "extra.png").write_bytes(b"mine")
    with pytest.raises(CracksegError) as refused:
        check_data_is_committed(root, root)
    said = str(refused.value)
    assert "1 added: data/STAGED/masks/extra.png; 1 changed: data/STAGED/masks/STAGED-a.png" in said
    assert "git checkout -- data.dvc && dvc checkout data.dvc --force" in said  # the staged one, not HEAD's
    assert "HEAD" not in said
    assert "overwrites 1 changed file and deletes 1 added file" in said


def test_missing_files_are_fetched_again_and_nothing_is_forced(root: Path) -> None:
    (root / "data" / "FIRST" / "masks" / "FIRST-a.png").unlink()
    with pytest.raises(CracksegError, match="1 missing") as refused:
        check_data_is_committed(root, root)
    assert "--force" not in str(refused.value)
    assert "dvc pull data.dvc" in str(refused.value)


def test_what_differs_is_named_wherever_the_settings_put_the_cache(root: Path) -> None:
    (root / ".dvc" / "cache").rename(root.parent / "cache-of-all")
    correct_mask(root, "FIRST")
    with pytest.raises(CracksegError, match="no list of any known version"):
        check_data_is_committed(root, root)
    (root / ".dvc" / "config.local").write_text("[cache]\n    dir = ../../cache-of-all\n")
    with pytest.raises(CracksegError, match=r"1 changed: data/FIRST/masks/FIRST-a\.png"):
        check_data_is_committed(root, root)
    (root / ".dvc").rename(root / "dvc")
    with pytest.raises(CracksegError, match="no list of any known version"):
        check_data_is_committed(root, root)


def test_data_on_another_place_behind_a_link_takes_imports(root: Path) -> None:
    elsewhere = root.parent / "disk" / "data"
    elsewhere.parent.mkdir()
    (root / "data").rename(elsewhere)
    (root / "data").symlink_to(elsewhere)
    add(root, "SECOND")
    assert (root / "data").is_symlink()
    assert (elsewhere / "SECOND" / "manifest.csv").is_file()
    check_data_is_committed(root, root)


def test_a_swap_that_the_disk_refuses_leaves_the_former_data_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "B").mkdir(parents=True)
    (tmp_path / "data" / "B" / "former").touch()

    def refuse(source: Path, target: Path) -> None:
        if source.name == "B" and source.parent.name == "new":
            raise OSError(28, "No space left on device")
        source.rename(target)

    def swap() -> None:
        with open_staging_area(tmp_path / "data") as (area, _):
            for name in ("A", "B"):
                (area.new(name) / "manifest.csv").touch()
            monkeypatch.setattr("crackseg.data.importing.staging.os.replace", refuse)
            area.swap_in(["A", "B"])

    with pytest.raises(CracksegError, match="the import stopped"):
        swap()
    assert (tmp_path / "data" / "B" / "former").exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["B"]
    assert not (tmp_path / ".import-data").exists()


def test_an_import_that_could_not_be_versioned_is_versioned_by_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_root: Path) -> None:
        raise CracksegError("the cache is read-only")

    with monkeypatch.context() as patch:
        patch.setattr(versioned_import, "version_data", refuse)
        with pytest.raises(CracksegError, match="not versioned yet: the next"):
            add(root, "SECOND")
    add(root, "THIRD")
    listing, _ = check_data_is_committed(root, root)
    assert {path.split("/")[0] for path in listing} == {"FIRST", "SECOND", "THIRD"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / ".git").rename(root / "git"), "in no git repository"),
        (lambda root: (root / ".dvc").rename(root / "dvc"), "no DVC project"),
        (lambda root: (root / "data.dvc").write_text("<<<<<<< a\nouts:\n=======\n>>>>>>> b\n"), "in conflict"),
        (lambda root: ((root / "data").rename(root / "d"), (root / "data").touch()), "is a file"),
        (
            lambda root: ((root / "data").rename(root / "d"), (root / "data").symlink_to("gone")),
            "is the disk mounted",
        ),
    ],
)
def test_a_project_that_takes_no_import_is_named_before_anything_is_written(root: Path, spoil, said: str) -> None:
    spoil(root)
    before = sorted(root.rglob("*"))
    with pytest.raises(CracksegError, match=said):
        add(root, "SECOND")
    assert sorted(root.rglob("*")) == before


def test_an_import_waits_until_another_has_recorded_its_version(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the swap and the record of one import, another would see data that git does not know."""
    record, swapped, waits = versioned_import.version_data, threading.Event(), threading.Event()

    def wait_and_record(folder: Path) -> None:
        swapped.set()
        waits.wait(60)
        record(folder)

    monkeypatch.setattr(versioned_import, "version_data", wait_and_record)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(add, root, "SECOND")
        assert swapped.wait(60)
        second = pool.submit(add, root, "THIRD")
        while "another import" not in said.getvalue() and not second.done():
            time.sleep(0.01)
        waits.set()
        first.result(60)
        second.result(60)
    assert "is running: waiting for it" in said.getvalue()
    check_data_is_committed(root, root)
    assert {path.name for path in (root / "data").iterdir()} >= {"FIRST", "SECOND", "THIRD"}


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock"])
def test_a_pipeline_that_dvc_cannot_read_stops_an_import_before_it_writes_and_the_doctor_says_it(
    root: Path, name: str
) -> None:
    (root / "dvc.yaml").write_text("stages:\n  prepare:\n    cmd: echo\n", encoding="utf-8")
    (root / name).write_text("<<<<<<< HEAD\nstages:\n=======\n", encoding="utf-8")
    before = sorted(path.name for path in (root / "data").iterdir())
    with pytest.raises(CracksegError, match=name.replace(".", r"\.")):
        add(root, "SECOND")
    assert sorted(path.name for path in (root / "data").iterdir()) == before
    finding = check_pipeline_files(root)
    assert finding.status == "failed"
    assert name in finding.message


def test_what_dvc_says_of_a_failure_is_in_the_message(root: Path) -> None:
    with pytest.raises(CracksegError, match=r"`dvc add absent` failed in .*exit code 1\): .*absent"):
        run_dvc_of_the_product(root, "add", "absent")


def test_an_import_that_was_killed_is_named_by_the_next_which_versions_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(versioned_import, "version_data", lambda _: sys.exit(9))
        with pytest.raises(SystemExit):
            add(root, "KILLED")
    add(root, "SECOND")
    assert "data.dvc also has an earlier import, which was interrupted: KILLED" in caplog.text
