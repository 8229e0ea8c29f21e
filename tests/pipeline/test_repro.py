"""`dvc repro` from photographs to a registered model, with real DVC, MLflow and git."""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from crackseg.files import write_json
from crackseg.pipeline import evaluate
from crackseg.project import read_output
from crackseg.registry.version_tags import read_tags
from tests.pipeline.conftest import Project


def client_of(project: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project.folder / 'mlruns' / 'mlflow.db'}")


def runs_of(project: Project) -> list[Run]:
    client = client_of(project)
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def run_id_of(project: Project) -> str:
    return json.loads((project.folder / "outputs" / "model" / "run.json").read_text())["run_id"]


def test_run_shows_settings_data_code_and_scores(finished: Project) -> None:
    (run,) = runs_of(finished)
    assert run.info.status == "FINISHED"
    assert run.info.run_id == run_id_of(finished)
    assert run.data.params["loss.gamma"] == "2.0"
    assert run.data.params["model.architecture"] == "unet"
    headline = ("ods", "ois", "ois_std", "ap", "precision", "recall", "threshold")
    expected = {
        f"{dataset}/{protocol}{figure}"
        for dataset in ("CrackTree260", "CRKWH100")
        for protocol in ("", "symmetric/", "strict/")
        for figure in headline
    }
    assert expected | {"mean/ods", "train/loss", "val/loss", "val/ods", "lr"} <= run.data.metrics.keys()
    tags = run.data.tags
    assert tags["data.source"] == "sample"
    assert tags["git.state"] == "clean"
    assert len(tags["git.commit"]) == 40
    assert tags["data.md5"] in (finished.folder / "data.dvc").read_text()
    assert tags["data.CRKWH100.md5"].endswith(".dir")
    assert tags["device"].startswith("cpu")
    assert tags["predict.CRKWH100.engine"] == "torch"
    names = {d.dataset.name for d in run.inputs.dataset_inputs}
    assert names == {"CrackTree260-train", "CrackTree260-val", "CrackTree260-test", "CRKWH100-test"}


def test_run_holds_the_figures_and_files(finished: Project) -> None:
    client, run_id = client_of(finished), run_id_of(finished)
    paths = {
        f.path
        for folder in ("", "report", "pr_curves", "per_image")
        for f in client.list_artifacts(run_id, folder)
    }
    assert {
        "params.yaml", "dvc.lock", "report/pr_all.png", "report/CRKWH100_panels.png", "report/CRKWH100_pr.png",
        "report/report.md", "pr_curves/CrackTree260_pr.csv", "per_image/CRKWH100_images.csv",
        "per_image/CRKWH100_counts.npz",
    } <= paths  # fmt: skip
    page = (finished.folder / "outputs" / "report" / "report.md").read_text(encoding="utf-8")
    assert "embedded synthetic sample" in page


def test_metrics_by_epoch_are_recorded_once(finished: Project) -> None:
    history = client_of(finished).get_metric_history(run_id_of(finished), "train/loss")
    assert [m.step for m in history] == [1, 2]


def test_registered_version_works_without_the_repository(finished: Project, tmp_path: Path) -> None:
    client = client_of(finished)
    version = client.get_model_version_by_alias("crackseg", "candidate")
    assert version.run_id == run_id_of(finished)
    scores = json.loads((finished.folder / "outputs" / "scores" / "CRKWH100.json").read_text())["CRKWH100"]
    assert read_tags(version)["CRKWH100/ods"] == f"{scores['ods']:.4f}"
    assert read_tags(version)["data.source"] == "sample"
    photograph = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.jpg"), photograph)
    code = (
        "import base64, json, sys, mlflow, pandas as pd\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/crackseg@candidate')\n"
        "import crackseg; print(crackseg.__file__, file=sys.stderr)\n"
        "row = model.predict(pd.DataFrame({'image': [open('photo.jpg', 'rb').read()]})).iloc[0]\n"
        "print(json.dumps(row.to_dict()))"
    )
    environment = {k: v for k, v in finished.environment.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{finished.folder / 'mlruns' / 'mlflow.db'}"],
        cwd=tmp_path, env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "artifacts" in result.stderr.splitlines()[-1]  # the code beside the weights, not the one installed
    row = json.loads(result.stdout)
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(row["mask"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 130)
    assert set(np.unique(mask)) <= {0, 255}
    assert row["crack_fraction"] == pytest.approx((mask > 0).mean())
    assert 0 <= row["score"] <= 1
    assert row["crack_length_px"] > 0
    found = (finished.folder / "mlruns" / "artifacts").rglob("probe.json")
    (probe_path,) = (path for path in found if version.source.rpartition("/")[2] in path.parts)
    settings = json.loads((probe_path.parents[1] / "settings.json").read_text())
    assert settings["run_id"] == version.run_id
    counts = {name: len(values) for name, values in settings["reference"].items() if name != "num_images"}
    train, val = 4, 2
    assert counts == {
        "brightness": train, "contrast": train, "sharpness": train, "crack_fraction": val, "confidence": val,
    }  # fmt: skip
    assert len(json.loads(probe_path.read_text())["images"]) == val


def test_predict_uses_the_shipped_model_until_one_is_in_production_and_a_version_by_name(
    finished: Project, tmp_path: Path
) -> None:
    photographs = str(finished.folder / "data" / "CRKWH100" / "images")
    said = finished.run("crackseg", "predict", photographs, "--out", str(tmp_path / "shipped"))
    assert "no version of crackseg is in production (`crackseg promote`): using scenes" in said
    tmp_path /= "version"
    command = ("predict", photographs, "--out", str(tmp_path), "--model", "models:/crackseg@candidate")
    finished.call(*command)
    said, _ = finished.call(*command, "--json", "--report-drift")
    summary = json.loads(said)
    assert summary["model"] == "models:/crackseg/1"
    assert (summary["num_kept"], summary["failed"]) == (2, [])
    assert {d["drifted"] for d in summary["drift"]} == {None}
    assert len(list((tmp_path / "masks").iterdir())) == 2
    run = client_of(finished).get_run(summary["monitoring_run"])
    assert run.data.tags["kind"] == "monitoring"
    assert run.data.metrics["num_images"] == 2
    client_of(finished).delete_run(run.info.run_id)


def test_dvc_shows_every_dataset(finished: Project, tmp_path: Path) -> None:
    shown = json.loads(finished.run("dvc", "metrics", "show", "--json"))
    summary = shown[""]["data"]["outputs/report/summary.json"]["data"]
    assert set(summary) == {"mean", "CrackTree260", "CRKWH100", "train"}
    assert all(0 <= summary[name]["ods"] <= 1 for name in ("mean", "CrackTree260", "CRKWH100"))
    finished.run("dvc", "plots", "diff", "HEAD", "-o", str(tmp_path))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(f"{dataset}_pr_csv" in page for dataset in ("CrackTree260", "CRKWH100"))


def test_nothing_changed_means_nothing_run(finished: Project) -> None:
    before = len(runs_of(finished))
    assert "Data and pipelines are up to date" in finished.run("dvc", "repro")
    assert len(runs_of(finished)) == before
    assert finished.run("git", "status", "--porcelain") == ""


def test_a_paper_report_without_a_finished_cell_fails_with_a_reason(finished: Project) -> None:
    _, said = finished.call("paper", "report", "--no-timing", fails=True)
    assert "error: no finished configuration: of" in said
    assert "crackseg paper queue --table3" in said
    assert "Traceback" not in said
    assert not (finished.folder / "outputs" / "paper").exists()


def test_rescoring_trains_nothing_and_spoils_no_run(finished: Project) -> None:
    changes = ("-S", "evaluate.tolerance_px=4", "-S", "postprocess.min_length_px=2")
    log = finished.run("dvc", "exp", "run", "--temp", "-n", "wider", *changes, "report")
    assert "Running stage 'evaluate@CRKWH100'" in log
    assert re.search(r"operating threshold 0\.\d+, after post-processing", log)
    assert "Running stage 'train'" not in log
    trained = client_of(finished).get_run(run_id_of(finished))
    (child,) = [r for r in runs_of(finished) if r.data.tags.get("mlflow.parentRunId") == trained.info.run_id]
    assert trained.data.params["evaluate.tolerance_px"] == "2"
    assert child.data.params["evaluate.tolerance_px"] == "4"
    assert child.data.metrics["CrackTree260/ods"] >= trained.data.metrics["CrackTree260/ods"]
    assert {"mean/ods", "CRKWH100/ods"} <= child.data.metrics.keys()
    assert finished.run("git", "status", "--porcelain") == ""


def test_false_alarms_are_counted_at_the_threshold_of_the_finished_model(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(finished.folder, tmp_path / "project", symlinks=True)
    outputs = tmp_path / "project" / "outputs"
    for threshold, rate in ((0.999, 0.0), (0.001, 1.0)):
        write_json(outputs / "threshold.json", {"operating_threshold": threshold})
        evaluate.run(tmp_path / "project", "CRKWH100")
        assert read_output(outputs / "scores" / "CRKWH100.json")["CRKWH100"]["false_alarm_rate"] == rate


def test_an_edited_image_stops_the_pipeline(finished: Project) -> None:
    image = next((finished.folder / "data" / "CRKWH100" / "images").iterdir())
    content = image.read_bytes()
    image.write_bytes(content + b"edited")
    said = finished.run("dvc", "repro", fails=True)
    assert "data/ differs from data.dvc as committed or staged" in said
    assert f"1 changed: data/CRKWH100/images/{image.name}" in said
    assert "Traceback" not in said
    assert "overwrites 1 changed file" in said
    for command in ("git checkout -- data.dvc", "dvc checkout data.dvc --force"):
        assert command in said
        finished.run(*command.split())
    assert image.read_bytes() == content
    finished.run("dvc", "repro")
    assert finished.run("git", "status", "--porcelain") == ""


def test_an_edited_split_does_not_slip_in_through_an_experiment(finished: Project) -> None:
    manifest = finished.folder / "data" / "CrackTree260" / "manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace(",val,", ",train,", 1), encoding="utf-8")
    said = finished.run("dvc", "exp", "run", "--temp", "prepare", fails=True)
    assert "1 changed: data/CrackTree260/manifest.csv" in said
    assert "Traceback" not in said
    finished.run("git", "checkout", "HEAD", "--", "data.dvc")
    finished.run("dvc", "checkout", "--force", "data.dvc")
    assert manifest.read_text(encoding="utf-8") == text
    assert finished.run("git", "status", "--porcelain") == ""
