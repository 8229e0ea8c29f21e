"""From a registered version to production and back, with real models in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from crackseg.data.catalog import list_samples
from crackseg.data.images.files import read_image, read_mask
from crackseg.errors import CracksegError
from crackseg.inference.detector import SETTINGS_NAME
from crackseg.models.weights_file import load_network, save_weights
from crackseg.params import load_params
from crackseg.project import Layout, read_output
from crackseg.registry.listing import list_versions
from crackseg.registry.package import build_analyzer, write_probe
from crackseg.registry.production import Production, open_production
from crackseg.registry.promotion import promote
from crackseg.registry.register import register_model
from crackseg.types import CrackSample
from tests.pipeline.conftest import Project

NAME = "crackseg"


def teach(network: torch.nn.Module, samples: list[CrackSample]) -> None:
    """Show a network the very images that it will be scored on, until it knows them."""
    torch.manual_seed(0)
    images = torch.from_numpy(np.stack([read_image(s.image_path) for s in samples])).permute(0, 3, 1, 2) / 255
    masks = np.stack([cv2.dilate(read_mask(s.mask_path), np.ones((3, 3), np.uint8)) for s in samples])
    truth = torch.from_numpy(masks).float()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(100):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images).logits[:, 0], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def register_taught(folder: Path) -> str:
    """Register a version that beats the trained one, as if of other data. Returns its number."""
    layout, params = Layout(folder), load_params(folder / "params.yaml")
    scratch = folder.parent / "taught"
    scratch.mkdir()
    network, extra = load_network(layout.weights)
    network.train()
    teach(network, [s for name in params.data.test_datasets for s in list_samples(layout.prepared, name, "test")])
    save_weights(scratch / "weights.pt", network, spec=dict(params.model) | {"init": "random"}, extra=extra)
    dataset = params.data.train_dataset
    val_samples = list_samples(layout.prepared, dataset, "val")
    train_samples = list_samples(layout.prepared, dataset, "train")
    analyzer = build_analyzer(
        scratch / "weights.pt", train_samples, val_samples, params.postprocess, dataset=dataset, device="cpu"
    )
    (scratch / SETTINGS_NAME).write_text(analyzer.settings.to_json(), encoding="utf-8")
    write_probe(scratch / "probe", analyzer, val_samples)
    tags = {
        "val/ods": "0.9900", "mean/ods": "0.0100", "data.md5": "another.dir", "data.source": "imported",
        "CRKWH100/ods": "0.0100",
    }  # fmt: skip
    production = open_production(folder)
    version = register_model(
        production.store,
        run_id=read_output(layout.run)["run_id"],
        weights_path=scratch / "weights.pt",
        settings_path=scratch / SETTINGS_NAME,
        probe_dir=scratch / "probe",
        name=NAME,
        tags=tags,
    )
    return str(version.version)


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished project with the versions 1 (trained) and 2 (better), nothing in production."""
    folder = tmp_path_factory.mktemp("promotion") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    copied = Project(folder)
    copied.set_params({"registry": {"max_slowdown": 20.0}})  # tests run beside others
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    assert register_taught(folder) == "2"
    return copied


@pytest.fixture
def production(project: Project, monkeypatch: pytest.MonkeyPatch) -> Production:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return open_production(project.folder)


def forget_history(production: Production) -> None:
    """Back to nothing in production."""
    client = production.client
    for key in client.get_registered_model(NAME).tags:
        client.delete_registered_model_tag(NAME, key)
    for alias in ("production", "previous"):
        client.delete_registered_model_alias(NAME, alias)
    for version in production.read().versions:
        production._set_stage(version, "None")


@pytest.mark.slow
def test_a_better_version_replaces_the_first(project: Project, production: Production, tmp_path: Path) -> None:
    forget_history(production)
    best = ("crackseg", "promote", "--best")  # 2 has a better score, of other data
    said = project.run(*best, "--json", "--force", "--reason", "two epochs, worse than the shipped model")
    decision = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert (decision["record"]["from_version"], decision["record"]["to_version"]) == (None, "1")
    assert (decision["champion"], decision["against"]) == (None, "scenes (shipped with crackseg)")
    by_name = {check["name"]: check["status"] for check in decision["checks"]}
    assert by_name["loads alone"] == by_name["probe"] == by_name["signature"] == "passed"
    assert by_name["better"] == "failed"
    assert by_name["training data"] == "warning"
    (alarms,) = (check for check in decision["checks"] if check["name"] == "false alarms")
    assert alarms["status"] in ("passed", "warning")
    assert alarms["figures"]["images"] == 2  # each dataset has one
    assert "TRAINED ON THE EMBEDDED SYNTHETIC SAMPLE" in said

    before = production.read()
    said = project.run("crackseg", "promote", "2", "--dry-run")
    assert "gate for version 2 of crackseg, against version 1" in said
    assert "version 2 was recorded on data another with mean/ods 0.0100: computed again" in said
    assert "--dry-run: nothing was changed" in said
    assert production.read() == before

    said = project.run("crackseg", "promote", "--reason", "it sees something")  # the alias candidate: 2
    assert "FAIL" not in said
    assert "version 2 is in production; record 2 of the history" in said
    assert "FutureWarning" not in said
    client = MlflowClient(f"sqlite:///{project.folder / 'mlruns' / 'mlflow.db'}")
    assert str(client.get_model_version_by_alias(NAME, "production").version) == "2"
    assert client.get_model_version(NAME, "1").current_stage == "Archived"
    assert str(client.get_model_version_by_alias(NAME, "previous").version) == "1"
    check_both_addresses_load(project, tmp_path)
    last = production.read().records[-1]
    assert last.data_md5 in (project.folder / "data.dvc").read_text(encoding="utf-8")
    assert "95 % interval" in next(c.message for c in last.checks if c.name == "better")


def check_version_1_is_refused(project: Project, production: Production) -> str:
    """Check that version 1 fails the gate and nothing is changed; return what was printed."""
    before = production.read()
    said = project.run("crackseg", "promote", "1", fails=True)
    assert "the gate FAILED; nothing was changed" in said
    assert production.read() == before
    return said


@pytest.mark.slow
def test_a_first_own_version_is_compared_with_the_shipped_model(project: Project, production: Production) -> None:
    forget_history(production)
    said = check_version_1_is_refused(project, production)
    assert "gate for version 1 of crackseg, against scenes (shipped with crackseg)" in said
    assert "scenes (shipped with crackseg) and version 1 scored on data" in said
    said = project.run("crackseg", "promote", "2")  # it has learnt the very images
    assert "version 2 is in production; record 1 of the history" in said
    assert "on mean/ods against scenes (shipped with crackseg)" in project.run("crackseg", "history")
    assert "not used: a version is in production" in project.run("crackseg", "models")


@pytest.mark.slow
def test_a_worse_version_needs_force_and_can_be_rolled_back(project: Project, production: Production) -> None:
    forget_history(production)
    for version in ("1", "2"):
        production.promote(version, production.read(), reason="as it was", checks=(), data_md5="", forced=False)

    said = check_version_1_is_refused(project, production)
    assert "it is worse" in said
    assert "worse on " in said
    assert "--force needs --reason" in project.run("crackseg", "promote", "1", "--force", fails=True)
    said = project.run("crackseg", "promote", "1", "--force", "--reason", "a rehearsal", "--max-images", "1")
    assert "although the gate FAILED (--force)" in said
    assert "2 of 4 images were left out (--max-images)" in said

    said = project.run("crackseg", "models", "delete", "1", fails=True)
    assert "version 1 is in production and cannot be deleted" in said
    said = project.run("crackseg", "rollback", "--to", "2", "--reason", "the rehearsal is over")
    assert "version 2 is in production again instead of 1" in said
    records = project.run_json("crackseg", "history", "--json")["records"]
    assert [(r["action"], r["from_version"], r["to_version"], r["forced"]) for r in records] == [
        ("promotion", None, "1", False),
        ("promotion", "1", "2", False),
        ("promotion", "2", "1", True),
        ("rollback", "1", "2", False),
    ]
    assert {c["name"] for c in records[2]["checks"] if c["status"] == "failed"} == {"better", "no dataset worse"}
    shown = project.run("crackseg", "history")
    for fact in ("as it was", "FORCED", "a rehearsal", "the rehearsal is over", "95 % interval"):
        assert fact in shown
    shown = project.run("crackseg", "models")
    assert "Production" in shown
    assert "(sample)" in shown


def check_both_addresses_load(project: Project, folder: Path) -> None:
    """Whoever loads by alias or by stage gets the same version; nothing but MLflow is asked."""
    code = (
        "import sys, mlflow\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "for uri in ('models:/crackseg@production', 'models:/crackseg/Production'):\n"
        "    print(mlflow.pyfunc.load_model(uri).metadata.model_id)"
    )
    uri = f"sqlite:///{project.folder / 'mlruns' / 'mlflow.db'}"
    environment = {k: v for k, v in project.environment.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", code, uri], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    ids = result.stdout.split()
    assert len(ids) == 2
    assert ids[0] == ids[1]


@pytest.mark.slow
def test_a_version_that_changed_since_does_not_pass_its_probe(project: Project, production: Production) -> None:
    forget_history(production)
    source = production.client.get_model_version_download_uri(NAME, "2").removeprefix("file://")
    (probe,) = Path(source).rglob("probe.json")
    content = probe.read_text(encoding="utf-8")
    changed = json.loads(content)
    changed["ods"] = 0.9
    try:
        probe.write_text(json.dumps(changed), encoding="utf-8")
        decision = promote(production, version="2")
    finally:
        probe.write_text(content, encoding="utf-8")
    assert not decision.passed
    assert decision.record is None
    (check,) = [c for c in decision.checks if c.name == "probe"]
    assert "ODS over the probe was 0.9 and is" in check.message
    assert production.read().records == []


def test_versions_are_listed_with_scores_and_origin(production: Production) -> None:
    forget_history(production)
    trained, taught = list_versions(production)
    assert (trained["version"], trained["stage"], trained["data_source"]) == ("1", "None", "sample")
    assert trained["datasets"].keys() == {"CrackTree260", "CRKWH100"}
    assert trained["datasets"]["CRKWH100"].keys() == {"ods", "ois", "ap"}
    assert trained["registered_by"]
    assert len(trained["git_commit"]) == 40
    assert (taught["aliases"], taught["mean_ods"], taught["promoted"]) == (["candidate"], 0.01, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"version": "9"}, "'crackseg' has no version 9; there are: 1, 2"),
        ({"version": "one"}, "has no version one"),
        ({"version": "1"}, "version 1 is in production already"),
        ({"best": True}, "version 1 is in production already"),
        ({"version": "2", "best": True}, "either VERSION or --best"),
        ({"version": "2", "metric": "ods"}, "expected .*mean/ods; datasets: CrackTree260, CRKWH100"),
        ({"version": "2", "metric": "Stone331/ods"}, "datasets: CrackTree260, CRKWH100"),
        ({"version": "2", "force": True}, "--reason has 0 characters"),
    ],
)
def test_a_wrong_promotion_is_named_and_changes_nothing(
    production: Production, arguments: dict, said: str
) -> None:
    forget_history(production)
    production.promote("1", production.read(), reason="first", checks=(), data_md5="", forced=False)
    before = production.read()
    with pytest.raises(CracksegError, match=said):
        promote(production, **arguments)
    assert production.read() == before


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("crackseg", "version 2 of 'crackseg' is not a model of crackseg"),
        ("mean/ods", r"version 2 of 'crackseg' has no scores \(mean/ods\)"),
    ],
)
def test_a_version_that_crackseg_did_not_register_is_refused(production: Production, tag: str, said: str) -> None:
    forget_history(production)
    kept = production.client.get_model_version(NAME, "2").tags[tag]
    production.client.delete_model_version_tag(NAME, "2", tag)
    try:
        with pytest.raises(CracksegError, match=said):
            promote(production, version="2", force=True, reason="no matter what")
    finally:
        production.client.set_model_version_tag(NAME, "2", tag, kept)
    assert production.read().records == []


def test_scoring_needs_the_data_that_git_names(project: Project, production: Production) -> None:
    forget_history(production)
    production.promote("1", production.read(), reason="first", checks=(), data_md5="", forced=False)
    path = Layout(project.folder).data_versions
    content = path.read_text(encoding="utf-8")
    path.unlink()
    try:
        with pytest.raises(CracksegError, match="`dvc repro prepare`"):
            promote(production, version="2")
        path.write_text(content.replace(read_json_md5(content), "0ther.dir"), encoding="utf-8")
        with pytest.raises(CracksegError, match=r"was made of data 0ther and data\.dvc says"):
            promote(production, version="2")
    finally:
        path.unlink(missing_ok=True)
        path.write_text(content, encoding="utf-8")
    assert len(production.read().records) == 1


def read_json_md5(content: str) -> str:
    return json.loads(content)["md5"]


def test_a_registry_that_cannot_be_reached_is_named(project: Project) -> None:
    project.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    try:
        said = project.run("crackseg", "promote", "1", fails=True)
    finally:
        del project.environment["MLFLOW_TRACKING_URI"]
    assert "error: the tracking server at http://127.0.0.1:9 does not answer" in said
    assert "Traceback" not in said
