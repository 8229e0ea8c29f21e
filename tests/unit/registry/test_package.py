"""Completing trained weights to a finished model."""

from pathlib import Path

import numpy as np
import pytest

from crackseg.data.images.files import read_image
from crackseg.inference.predictor import Predictor
from crackseg.registry.package import build_analyzer
from tests.tiny_model import EXTRA, NO_POSTPROCESSING, make_model
from tests.tiny_training import make_samples


@pytest.mark.parametrize(("method", "threshold"), [("none", None), ("thin", 0.4)])
def test_validation_images_are_predicted_once_and_described_as_the_model_finds_them(
    tmp_path: Path, method: str, threshold: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    postprocessing = NO_POSTPROCESSING.model_copy(update={"method": method})
    make_model(tmp_path)
    train, val = make_samples(tmp_path / "samples")
    predict, predicted = Predictor.predict_logits_of, []

    def count(self: Predictor, images: object) -> object:
        for image in images:
            predicted.append(image)
            yield from predict(self, [image])

    monkeypatch.setattr(Predictor, "predict_logits_of", count)
    analyzer = build_analyzer(
        tmp_path / "weights.pt", train, val, postprocessing, dataset="tiny", device="cpu", precision="float32",
        operating_threshold=threshold,
    )  # fmt: skip
    assert analyzer.settings.operating_threshold == (threshold or EXTRA["operating_threshold"])
    assert len(predicted) == len(val)
    found = [analyzer.analyze(read_image(sample.image_path)) for sample in val]
    assert analyzer.settings.reference.crack_fraction == pytest.approx([p.crack_fraction for p in found], abs=1e-3)
    assert np.array_equal(analyzer.settings.reference.confidence, [p.confidence for p in found])
