"""After a power loss at any moment there is the old state or the new one, and what was promised is there."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crackseg.data.image_files import find_photographs
from crackseg.data.importing.importer import import_datasets
from crackseg.data.importing.staging import finish_interrupted_import
from crackseg.files import sync_tree, write_bytes
from crackseg.inference.files import predict_files
from crackseg.inference.table import TABLE_NAME
from crackseg.tracking.outbox import Outbox
from crackseg.training.checkpoint import BEST_NAME, load_newest, load_state
from crackseg.training.loop import fit
from tests.faults.crash_replay import logged, replay
from tests.registry_store import make_registry, open_production, promote
from tests.tiny_model import make_model
from tests.tiny_training import make_network, make_recipe, make_samples
from tests.unit.data.importing.raw_sources import add_masks, add_photos


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_twice(root: Path, *, durable: bool) -> None:
    with logged(root) as log:
        for number, text in enumerate((b"first text", b"second"), start=1):
            write_bytes(root / "a" / "b" / "file", text, durable=durable)
            log.mark(number)

    def check(state: Path, promised: int) -> None:
        file = state / "a" / "b" / "file"
        found = file.read_bytes() if file.exists() else None
        assert found in (
            [None, b"first text", b"second"][promised],
            [b"first text", b"second", b"second"][promised],
        )

    assert replay(log, root.with_name("state"), check) > 5


def test_a_durable_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    write_twice(tmp_path / "root", durable=True)


def test_the_replay_finds_a_file_that_was_renamed_without_syncing(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(AssertionError, match=r"after \d+ operations"):
        write_twice(tmp_path / "root", durable=False)


def test_a_training_resumes_from_an_epoch_that_it_had_saved(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples")
    folder = tmp_path / "root" / "checkpoint"
    folder.mkdir(parents=True)
    with logged(tmp_path / "root") as log:
        # Called before the checkpoint of this epoch is written: those of the epochs before it are promised.
        fit(
            make_network(0), *samples, make_recipe(train={"epochs": 3}), checkpoint_dir=folder,
            on_epoch=lambda epoch, _: log.mark(epoch),
        )  # fmt: skip
        log.mark(3)

    def check(state: Path, promised: int) -> None:
        found = load_newest(state / "checkpoint")
        epoch = json.loads(found["progress"])["epoch"] if found else 0
        assert promised <= epoch <= promised + 1
        if promised:
            load_state(state / "checkpoint" / BEST_NAME)

    assert replay(log, tmp_path / "state", check) > 10


def test_records_for_mlflow_are_kept_once_they_are_taken(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"0123456789" * 10)
    (tmp_path / "root" / "outbox").mkdir(parents=True)
    with logged(tmp_path / "root") as log:
        outbox = Outbox(tmp_path / "root" / "outbox" / "run", None, uri="sqlite:///somewhere")
        for number in range(1, 4):
            if number == 2:
                outbox.put_file(picture, "report")
            else:
                outbox.put("metrics", values={"loss": 1.0 / number}, step=number)
            log.mark(number)
        outbox.release()

    def check(state: Path, promised: int) -> None:
        if not (state / "outbox").exists():
            assert not promised
            return
        outbox = Outbox(state / "outbox" / "run", None, uri="sqlite:///somewhere")
        records = list(outbox._read(0))
        outbox.release()
        assert promised <= len(records)
        assert [record["kind"] for record in records] == ["metrics", "artifact", "metrics"][: len(records)]
        for record in records[1:2]:
            assert (state / "outbox" / "run" / record["path"]).read_bytes() == picture.read_bytes()

    assert replay(log, tmp_path / "state", check) > 10


@pytest.mark.slow
def test_a_dataset_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    for name, stems in (("old", ["1", "2"]), ("new", ["3", "4"])):
        add_photos(tmp_path / name / "images", stems)
        add_masks(tmp_path / name / "masks", stems)
    data = tmp_path / "root" / "data"
    import_datasets(tmp_path / "old", data, name="wall")
    old = read_tree(data)
    with logged(tmp_path / "root") as log:
        import_datasets(tmp_path / "new", data, name="wall")
        log.mark(1)
    new = read_tree(data)
    assert old != new

    def check(state: Path, promised: int) -> None:
        finish_interrupted_import(state / "data")
        assert read_tree(state / "data") in ([new] if promised else [old, new])

    assert replay(log, tmp_path / "state", check) > 10


def test_a_prediction_resumes_to_the_same_files(tmp_path: Path) -> None:
    analyzer = make_model(tmp_path / "model")
    for i in range(2):
        image = np.random.default_rng(i).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")

    def predict(out: Path) -> None:
        predict_files(analyzer, find_photographs([str(tmp_path / "photos")], out), out, model="m", overlays=False)

    (tmp_path / "root").mkdir()
    with logged(tmp_path / "root") as log:
        predict(tmp_path / "root" / "out")
    whole = read_tree(tmp_path / "root" / "out")

    def check(state: Path, _promised: int) -> None:
        predict(state / "out")
        found = read_tree(state / "out")
        rows = {
            name: sorted(tree.pop(TABLE_NAME).splitlines()) for name, tree in (("is", found), ("be", dict(whole)))
        }
        assert rows["is"] == rows["be"]
        beside = {name for name in found if "/" not in name}  # of the table, a kilobyte, and of the lock
        assert {n: c for n, c in found.items() if n not in beside} == {
            n: c for n, c in whole.items() if n not in (TABLE_NAME, ".predictions.lock")
        }

    assert replay(log, tmp_path / "state", check) > 10


@pytest.mark.slow
def test_a_promotion_is_made_or_not_and_the_next_command_makes_it_whole(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    production = make_registry(root, 2)
    promote(production, "1")
    with logged(root, "mlruns/mlflow.db") as log:
        promote(production, "2")
        log.mark(1)
        production.rollback(to=None, reason="worse")
        log.mark(2)
    chain = [(None, "1"), ("1", "2"), ("2", "1")]
    numbers = itertools.count()

    def check(state: Path, promised: int) -> None:
        # MLflow keeps a database open whose file has been replaced.
        copy = shutil.copytree(state, tmp_path / "states" / str(next(numbers)))
        after = open_production(copy)
        after.repair()
        now = after.read()
        assert after.find_fault(now) is None
        assert all(record.intact for record in now.records)
        found = [(record.from_version, record.to_version) for record in now.records]
        assert found in (chain[: promised + 1], chain[: promised + 2])
        assert now.aliases["production"] == now.in_production == found[-1][1]

    assert replay(log, tmp_path / "state", check) > 10


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_leads_to_the_same_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples, recipe = make_samples(tmp_path / "samples"), make_recipe()
    straight = make_network(0)
    fit(straight, *samples, recipe, checkpoint_dir=tmp_path / "straight", on_epoch=lambda *_: None)

    def stop(epoch: int, _metrics: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_network(0), *samples, recipe, checkpoint_dir=tmp_path / "damaged", on_epoch=stop)
    last = tmp_path / "damaged" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    resumed, epochs = make_network(0), []
    fit(
        resumed,
        *samples,
        recipe,
        checkpoint_dir=tmp_path / "damaged",
        on_epoch=lambda epoch, _: epochs.append(epoch),
    )
    assert "last.pt is damaged" in caplog.text
    assert "using the one before it, previous.pt" in caplog.text
    assert epochs == [1, 2, 3]
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_thousands_of_files_are_synced_where_the_system_cannot_do_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.sync")
    (tmp_path / "root" / "a").mkdir(parents=True)
    with logged(tmp_path / "root") as log:
        (tmp_path / "root" / "a" / "file").write_bytes(b"text")
        sync_tree(tmp_path / "root")
        log.mark(1)
    replay(log, tmp_path / "state", lambda state, promised: _has_text(state) if promised else None)


def _has_text(state: Path) -> None:
    assert (state / "a" / "file").read_bytes() == b"text"
