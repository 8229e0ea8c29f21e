"""A finished model answers the same wherever it is loaded, and its package says what it was made with."""

import json
from pathlib import Path

import numpy as np
import pytest

from crackseg.data.images.files import read_image
from crackseg.errors import CracksegError
from crackseg.inference.detector import CrackAnalyzer, ModelSettings, measure_confidence
from crackseg.registry.package import compare_answers
from tests.tiny_model import NO_POSTPROCESSING, make_model


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory: pytest.TempPathFactory) -> CrackAnalyzer:
    return make_model(tmp_path_factory.mktemp("model"))


def load(folder: Path) -> CrackAnalyzer:
    return CrackAnalyzer.load(folder / "weights.pt", folder / "settings.json", device="cpu", precision="float32")


def answer(analyzer: CrackAnalyzer, probe_dir: Path, stem: str) -> dict[str, float]:
    prediction = analyzer.analyze(read_image(probe_dir / "images" / f"{stem}.png"))
    return {name: getattr(prediction, name) for name in ("crack_fraction", "crack_length_px", "score")}


def test_loaded_model_answers_its_probe_as_recorded(tmp_path: Path) -> None:
    make_model(tmp_path)
    probe = json.loads((tmp_path / "probe" / "probe.json").read_text())
    analyzer = load(tmp_path)
    answers = {stem: answer(analyzer, tmp_path / "probe", stem) for stem in probe["images"]}
    assert sorted(answers) == ["4", "5"]  # the validation images
    assert answers == {stem: pytest.approx(figures) for stem, figures in probe["images"].items()}
    assert compare_answers(probe, answers, probe["ods"]) == []
    assert (tmp_path / "probe" / "masks" / "4.png").is_file()


def test_another_models_answers_are_told_apart(tmp_path: Path) -> None:
    make_model(tmp_path)
    probe = json.loads((tmp_path / "probe" / "probe.json").read_text())
    changed = {stem: figures | {"score": figures["score"] - 0.2} for stem, figures in probe["images"].items()}
    (first, _) = differences = compare_answers(probe, changed, probe["ods"])
    assert len(differences) == 2
    assert first.startswith("score of 4 was")
    not_a_number = {stem: figures | {"crack_fraction": np.nan} for stem, figures in probe["images"].items()}
    assert compare_answers(probe, not_a_number, probe["ods"])


def test_settings_hold_one_reference_value_for_each_image(tmp_path: Path) -> None:
    make_model(tmp_path)
    content = json.loads((tmp_path / "settings.json").read_text())
    reference = content["reference"]
    assert reference.pop("num_images") == 4
    lengths = {name: len(values) for name, values in reference.items()}
    assert lengths == {"brightness": 4, "contrast": 4, "sharpness": 4, "crack_fraction": 2, "confidence": 2}
    assert content["operating_threshold"] == 0.5
    assert content["postprocess"]["method"] == "none"
    assert (content["dataset"], content["data_source"], content["run_id"]) == ("tiny", "sample", "0" * 32)


def test_threshold_is_chosen_on_what_it_is_applied_to(tmp_path: Path) -> None:
    hysteresis = NO_POSTPROCESSING.model_copy(update={"method": "hysteresis", "low_ratio": 0.5})
    analyzer = make_model(tmp_path, hysteresis)
    assert analyzer.settings.operating_threshold != 0.5  # training's, of the maps before post-processing
    prediction = analyzer.analyze(read_image(tmp_path / "samples" / "4.png"))
    assert prediction.threshold == analyzer.settings.operating_threshold


def test_mask_and_figures_belong_together(analyzer: CrackAnalyzer) -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 97, 3), dtype=np.uint8)  # larger than a tile
    prediction = analyzer.analyze(image, threshold=0.4)
    assert prediction.crack_prob.shape == prediction.crack_mask.shape == (150, 97)
    np.testing.assert_array_equal(prediction.crack_mask, prediction.crack_prob >= 0.4)
    assert prediction.crack_fraction == pytest.approx(prediction.crack_mask.mean())
    assert prediction.score == prediction.crack_prob.max()
    p = prediction.crack_prob.astype(np.float64)
    assert prediction.confidence == pytest.approx(np.maximum(p, 1 - p).mean())


def test_confidence_is_measured_over_all_rows() -> None:
    prob = np.full((1300, 3), 0.5, np.float32)
    prob[1200:] = 1
    assert measure_confidence(prob) == pytest.approx((1200 * 0.5 + 100) / 1300)


@pytest.mark.parametrize(
    ("image", "threshold", "message"),
    [
        (np.zeros((8, 8), np.uint8), None, r"uint8 \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), None, r"\(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.float32), None, "float32"),
        (np.zeros((0, 8, 3), np.uint8), None, r"\(0, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), 1.5, "threshold is 1.5"),
        (np.zeros((8, 8, 3), np.uint8), float("nan"), "threshold is nan"),
    ],
)
def test_wrong_input_is_named(
    analyzer: CrackAnalyzer, image: np.ndarray, threshold: float | None, message: str
) -> None:
    with pytest.raises(CracksegError, match=message):
        analyzer.analyze(image, threshold=threshold)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 2}', b'{"operating_threshold": 7}'])
def test_damaged_settings_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(CracksegError, match=r"settings\.json"):
        ModelSettings.read(tmp_path / "settings.json")
    with pytest.raises(CracksegError, match="cannot be read"):
        ModelSettings.read(tmp_path / "none.json")
