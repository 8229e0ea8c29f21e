"""The card says what was recorded, warns where it must, and fits where MLflow puts it."""

import pandas as pd
import pytest

from crackseg.registry.card import (
    CARD_NAME,
    MAX_DESCRIPTION_CHARACTERS,
    Section,
    find_failures,
    shorten,
    write_card,
)
from crackseg.registry.version_tags import THRESHOLD_TAG, pack_tags
from crackseg.tracking.store import Store

PROTOCOLS = ("", "symmetric/", "strict/")
PARAMS = {
    "data.train_dataset": "CrackTree260", "data.test_datasets": "['CrackTree260', 'MyWalls']", "data.size_px": "512",
    "data.resize": "square", "data.evaluate_split": "test", "augment.crop_px": "448", "model.architecture": "unet",
    "model.init": "random", "loss.name": "focal", "loss.gamma": "2.0", "loss.alpha": "3.0", "train.epochs": "300",
    "train.seed": "7", "predict.tile_size_px": "512", "evaluate.tolerance_px": "2",
}  # fmt: skip


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store(tmp_path)


def make_version(store, tmp_path, *, source="imported", parent=None, datasets=("CrackTree260", "MyWalls")):
    run_id = store.create_run("trained", parent=parent)
    with store.record(run_id) as recorder:
        recorder.log_params(PARAMS)
        tags = {f"data.{name}.source": source for name in datasets}
        recorder.set_tags(
            tags | {"data.source": source, "data.md5": "abc.dir", "git.commit": "c0ffee", "git.state": "clean"}
        )
        for i, dataset in enumerate(datasets):
            figures = {
                f"{dataset}/{p}{f}": 0.1 * (i + 1) + 0.01 * j
                for j, p in enumerate(PROTOCOLS)
                for f in ("ods", "ois", "ap")
            }
            recorder.log_metrics(figures | {f"{dataset}/num_images": 40.0})
            recorder.log_dataset(
                f"{dataset}-test", f"digest{i}", context="evaluation", num_images=40, source=source
            )
        recorder.log_metrics(
            {
                "MyWalls/num_crack_free": 4,
                "MyWalls/false_alarm_rate": 0.25,
                "MyWalls/false_alarm_px_per_megapixel": 8,
            }
        )
        table = pd.DataFrame(
            {
                "stem": ["0001", "0002", "0003", "0004"],
                "crack_pixels": [50, 60, 0, 0],
                "paper_f": [0.9, 0.2, None, None],
                "false_crack_pixels": [None, None, 0, 12],
            }
        )
        table.to_csv(tmp_path / "MyWalls_images.csv", index=False)
        recorder.log_file(tmp_path / "MyWalls_images.csv", "per_image")
    client = store.client
    if not client.search_registered_models("name = 'crackseg'"):
        client.create_registered_model("crackseg")
    return client.create_model_version("crackseg", source=f"runs:/{run_id}/model", run_id=run_id), run_id


def test_card_shows_each_protocol_on_each_dataset_and_the_worst_images(store, tmp_path):
    version, run_id = make_version(store, tmp_path)
    card = write_card(store, version)
    for dataset, ods in (
        ("CrackTree260", ("0.1000", "0.1100", "0.1200")),
        ("MyWalls", ("0.2000", "0.2100", "0.2200")),
    ):
        for protocol, figure in zip(("paper", "symmetric", "strict"), ods, strict=True):
            assert f"| {dataset} | 40 | {protocol} | {figure} |" in card
    assert (
        "MyWalls: `0002` (F 0.200, 60 crack pixels), `0001` (F 0.900, 50 crack pixels), `0004` (crack-free, 12"
        in card
    )
    assert "`0003`" not in card  # no crack, and none marked
    assert (
        "False alarms there: CrackTree260 not recorded; MyWalls on 1 of 4 crack-free photographs, 8.0 px" in card
    )
    assert "CrackTree260: no scored images recorded" in card
    assert f"/runs/{run_id}/artifacts/report/MyWalls_panels.png" in card
    for recorded in ("c0ffee", "abc.dir", "digest1", "γ = 2.0", "512 × 512 px", "one seed (7)", "not on CRKWH100"):
        assert recorded in card


def test_card_shows_the_threshold_of_the_version_not_the_one_of_its_training(store, tmp_path):
    version, run_id = make_version(store, tmp_path)
    with store.record(run_id) as recorder:
        recorder.log_metrics({"operating_threshold": 0.5})
    assert "Operating threshold: 0.5000" in write_card(store, version)
    for key, value in pack_tags({THRESHOLD_TAG: "0.2700"}).items():
        store.client.set_model_version_tag(version.name, version.version, key, value)
    assert "Operating threshold: 0.2700" in write_card(
        store, store.client.get_model_version(version.name, version.version)
    )


def test_card_is_the_versions_description_and_an_artifact_of_its_run(store, tmp_path):
    version, run_id = make_version(store, tmp_path)
    card = write_card(store, version)
    description = store.client.get_model_version("crackseg", version.version).description
    assert description.startswith("# crackseg version 1")
    assert "| MyWalls | 40 | strict |" in description
    assert len(description) <= MAX_DESCRIPTION_CHARACTERS
    path = store.client.download_artifacts(run_id, CARD_NAME, str(tmp_path))
    with open(path, encoding="utf-8") as file:
        assert file.read() == card


def test_only_the_sample_is_warned_of_and_only_the_owners_data_have_owners(store, tmp_path):
    real, _ = make_version(store, tmp_path)
    card = write_card(store, real)
    assert "synthetic" not in card
    assert "CrackTree260: collected by the authors of DeepCrack" in card
    assert "MyWalls: the owner's terms hold" in card
    sample, _ = make_version(store, tmp_path, source="sample")
    card = write_card(store, sample)
    assert "**Trained on the embedded synthetic sample" in card
    assert "authors of DeepCrack" not in card


def test_scores_come_from_the_child_run_and_a_later_card_remembers_it(store, tmp_path):
    version, run_id = make_version(store, tmp_path)
    _, child_id = make_version(store, tmp_path, parent=run_id, datasets=("MyWalls",))
    card = write_card(store, version, child_id)
    assert "| MyWalls | 40 | paper | 0.1000 |" in card
    assert write_card(store, store.client.get_model_version("crackseg", version.version)) == card


def test_description_without_room_drops_whole_sections_by_rank_and_says_which():
    sections = [Section("First", "a" * 300, 0), Section("Second", "b" * 300, 2), Section("Third", "c" * 300, 1)]
    text = shorten("# m", sections, "r1", limit=800)
    assert len(text) <= 800
    assert "## First" in text
    assert "## Third" in text
    assert "b" * 300 not in text
    assert text.endswith("Shortened; whole, with Second: artifact model_card.md of run r1.\n")
    assert "Shortened" not in shorten("# m", sections, "r1", limit=2000)


def test_worst_images_are_those_of_lowest_f_among_those_with_a_crack():
    table = pd.DataFrame({"stem": list("abcde"), "crack_pixels": [1] * 5, "paper_f": [0.5, 0.1, None, 0.9, 0.3]})
    assert list(find_failures(table, 3)["stem"]) == ["b", "e", "a"]
