"""Each check of the gate says what it must, and a version that does not load, or lies, does not pass."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pytest

from crackseg.data.images.files import write_mask, write_probability_map
from crackseg.evaluation.bootstrap import Difference, Metric
from crackseg.evaluation.false_alarms import FalseAlarms
from crackseg.evaluation.metrics import ScoreAccumulator
from crackseg.evaluation.scoring import score_split
from crackseg.evaluation.stored_maps import read_scored_map
from crackseg.params import EvaluateParams, PostprocessParams, load_params
from crackseg.registry.checks import (
    GateData,
    check_better,
    check_drops,
    check_false_alarms,
    check_recorded,
    check_signature,
    check_source,
    check_speed,
)
from crackseg.registry.version_process import Contender, VersionFailure, VersionProcess
from crackseg.types import CrackSample

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
METRIC = Metric("mean", "paper", "ods")


@pytest.mark.parametrize(
    ("low", "high", "status", "said"),
    [
        (0.01, 0.05, "passed", "+0.0300, 95 % interval +0.0100 to +0.0500"),
        (0.0, 0.05, "failed", "not shown to be better"),
        (-0.01, 0.05, "failed", "not shown to be better"),
        (-0.05, -0.01, "failed", "it is worse"),
    ],
)
def test_better_means_that_the_whole_interval_is(low: float, high: float, status: str, said: str) -> None:
    check = check_better(Difference(0.70, 0.73, low, high), METRIC, 40)
    assert (check.status, said in check.message) == (status, True)
    assert check.figures["low"] == low


def test_a_gain_elsewhere_does_not_pay_for_a_dataset() -> None:
    gain, loss, little = (Difference(0.5, 0.5 + d, 0, 0) for d in (0.3, -0.021, -0.02 + 1e-9))
    assert check_drops({"A": gain, "B": little}, METRIC, 0.02).status == "passed"
    check = check_drops({"A": gain, "B": loss}, METRIC, 0.02)
    assert check.status == "failed"
    assert "worse on B" in check.message


def test_speed_is_a_ratio_to_the_champion() -> None:
    assert check_speed(0.02, 0.03, 1.5).status == "passed"
    assert check_speed(0.02, 0.031, 1.5).status == "failed"


def test_a_first_own_model_may_be_slower_than_the_shipped_one_and_that_is_said() -> None:
    check = check_speed(0.06, 1.7, 1.5, binding=False)
    assert check.status == "warning"
    assert "x 28.33 (allowed: x 1.5); no failure, the shipped model was not chosen for its speed" in check.message
    assert check_speed(0.06, 0.08, 1.5, binding=False).status == "passed"


@pytest.mark.parametrize(
    ("champion", "challenger", "limit", "status"),
    [
        (2, 2, None, "passed"),
        (
            2,
            3,
            None,
            "warning",
        ),  # with twelve photographs one more is chance: it fails only where a team asks for it
        (2, 3, 0.25, "warning"),
        (2, 4, 0.25, "failed"),
        (9, 4, 0.25, "failed"),  # the limit holds also for a better one
        (9, 3, 0.25, "passed"),
    ],
)
def test_false_alarms_fail_only_above_a_limit_that_was_set(
    champion: int, challenger: int, limit: float | None, status: str
) -> None:
    def alarms(count: int) -> dict[str, FalseAlarms]:
        first = FalseAlarms(4, min(count, 4), 9 * count, 5.0 * count, 4 * 10**6)
        return {"A": first, "B": FalseAlarms(8, max(0, count - 4), 0, 0.0, 8 * 10**6), "C": FalseAlarms()}

    check = check_false_alarms(alarms(champion), alarms(challenger), limit)
    assert check.status == status
    assert f"cracks marked on {champion} -> {challenger} of 12 crack-free photographs" in check.message
    assert f"-> {5 * challenger / 12:.1f} px per megapixel" in check.message


def test_without_a_crack_free_photograph_a_limit_cannot_be_checked_and_nothing_passes() -> None:
    none = {"A": FalseAlarms()}
    assert check_false_alarms(none, none, None).status == "skipped"
    check = check_false_alarms(none, none, 0.2)
    assert check.status == "warning"
    assert "registry.max_false_alarms 0.2 cannot be checked" in check.message


def test_callers_must_not_notice_another_model() -> None:
    schema = {"inputs": "[image]", "outputs": "[mask]"}
    assert check_signature(schema, dict(schema)).status == "passed"
    check = check_signature(schema, schema | {"outputs": "[mask, score]"})
    assert check.status == "failed"
    assert "[mask] -> [mask, score]" in check.message
    assert check_signature({}, {}).status == "failed"


def test_a_model_of_the_sample_warns_loudly_and_fails_nothing() -> None:
    check = check_source("sample")
    assert check.status == "warning"
    assert "SYNTHETIC SAMPLE" in check.message
    assert check_source("imported").status == "passed"


def test_recorded_scores_of_other_data_are_named_and_not_compared() -> None:
    sample = CrackSample("A", "1", "test", Path("1.png"), Path("1.png"))
    data = GateData({"A": [sample]}, "aaaa.dir", PARAMS.evaluate)

    def version(number: int, md5: str, ods: str) -> Contender:
        return Contender(f"version {number}", lambda folder: folder, {"data.md5": md5, "mean/ods": ods})

    same, other = version(1, "aaaa.dir", "0.7000"), version(2, "bbbb.dir", "0.9000")
    check = check_recorded([(same, 0.7), (other, 0.6)], data, METRIC)
    assert check.status == "passed"
    assert "version 2 was recorded on data bbbb with mean/ods 0.9000: computed again, 0.6000" in check.message
    assert "version 1 was" not in check.message
    assert check_recorded([(Contender.of_shipped(), 0.6), (same, 0.7)], data, METRIC).message == (
        "scenes (shipped with crackseg) and version 1 scored on data aaaa, 1 images of A"
    )
    check = check_recorded([(same, 0.5), (other, 0.6)], data, METRIC)
    assert check.status == "warning"
    assert "scored with other settings or other code" in check.message


@pytest.mark.parametrize("method", ["none", "hysteresis"])
@pytest.mark.parametrize("use_roi", [True, False])
def test_the_gate_counts_as_the_pipeline_scores(tmp_path: Path, method: str, use_roi: bool) -> None:
    rng = np.random.default_rng(0)
    params = EvaluateParams(**PARAMS.evaluate.model_dump() | {"use_roi": use_roi})
    postprocessing = PostprocessParams(**PARAMS.postprocess.model_dump() | {"method": method})
    scores, samples = ScoreAccumulator(params.num_thresholds), []
    for i in range(3):
        mask, roi = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
        cv2.line(mask, (3 * i, 0), (39, 30 + i), 1)
        roi[:, 5:35] = 1
        write_mask(tmp_path / f"{i}_mask.png", mask)
        write_mask(tmp_path / f"{i}_roi.png", roi)
        prob = 0.1 + 0.5 * mask + 0.3 * rng.random((40, 40))
        write_probability_map(tmp_path / f"{i}.png", prob.astype(np.float32))
        roi_path = tmp_path / f"{i}_roi.png"
        sample = CrackSample("A", str(i), "test", tmp_path / "none", tmp_path / f"{i}_mask.png", roi_path)
        scored = read_scored_map(sample, tmp_path / f"{i}.png", use_roi=use_roi)
        scores.add(scored.count(postprocessing, num_thresholds=params.num_thresholds), sample.stem)
        samples.append(sample)
    expected, *_ = score_split(samples, tmp_path, params, postprocessing, operating_threshold=0.5)
    assert scores.result().to_dict() == expected.to_dict()


def write_model(folder: Path, code: str, *, package: bool = True) -> Path:
    """A version as MLflow lays it out: models from code, with a package `crackseg` of its own beside it."""
    (folder / "code" / "crackseg").mkdir(parents=True)
    if package:
        (folder / "code" / "crackseg" / "__init__.py").write_text("WHOSE = 'its own'\n", encoding="utf-8")
    (folder / "model.py").write_text(textwrap.dedent(code), encoding="utf-8")
    content = {
        "flavors": {
            "python_function": {
                "loader_module": "mlflow.pyfunc.model", "code": "code", "model_code_path": "model.py",
                "python_model": "model.py", "env": {"virtualenv": "python_env.yaml"}, "artifacts": {},
            }
        },
        "mlflow_version": "3.0.0", "model_uuid": "m-1", "utc_time_created": "2026-01-01 00:00:00",
    }  # fmt: skip
    (folder / "MLmodel").write_text(json.dumps(content), encoding="utf-8")
    return folder


GOOD = """
    import pandas as pd
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel
    import crackseg
    print("models may print")
    class Model(PythonModel):
        def predict(self, context, model_input, params=None):
            if not len(model_input["image"].iloc[0]):
                raise ValueError("an empty photograph\\nsecond line")
            return pd.DataFrame({"score": [float(len(i)) for i in model_input["image"]], "probability": "AAAA"})
    set_model(Model())
"""


def test_a_version_runs_on_its_own_code_and_answers(tmp_path: Path) -> None:
    process = VersionProcess(write_model(tmp_path / "model", GOOD), tmp_path / "scratch")
    try:
        (tmp_path / "a.png").write_bytes(b"12345")
        (tmp_path / "empty.png").write_bytes(b"")
        assert process.predict([tmp_path / "a.png"], [tmp_path / "map.png"]) == [{"score": 5.0}]
        assert (tmp_path / "map.png").read_bytes() == b"\0\0\0"
        assert process.time([tmp_path / "a.png"]) > 0
        with pytest.raises(VersionFailure, match=r"ValueError: an empty photograph$"):
            process.time([tmp_path / "empty.png"])
        assert process.time([tmp_path / "a.png"]) > 0  # an error is an answer, and not the end
    finally:
        process.close()


@pytest.mark.parametrize(
    ("code", "package", "said"),
    [
        (GOOD, False, "No module named 'crackseg'"),  # the repository's is hidden
        ("import os\nos._exit(7)", True, "its process ended with code 7"),
        (
            "import sys\nsys.modules['crackseg.x'] = sys.modules['json']\n" + textwrap.dedent(GOOD),
            True,
            "own code",
        ),
    ],
    ids=["needs the repository", "crashes", "borrows code"],
)
def test_a_version_that_does_not_load_alone_is_told(tmp_path: Path, code: str, package: bool, said: str) -> None:
    model_dir = write_model(tmp_path / "model", code, package=package)
    if not package:
        (model_dir / "code" / "crackseg").rmdir()
    with pytest.raises(VersionFailure, match=said):
        VersionProcess(model_dir, tmp_path / "scratch")


class Pickled(mlflow.pyfunc.PythonModel):
    """A model as people log it who do not know better."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return model_input


@pytest.mark.filterwarnings("ignore")
def test_a_pickle_does_not_load(tmp_path: Path) -> None:
    mlflow.pyfunc.save_model(str(tmp_path / "model"), python_model=Pickled(), pip_requirements=[])
    with pytest.raises(VersionFailure, match=r"(?i)pickle"):
        VersionProcess(tmp_path / "model", tmp_path / "scratch")
