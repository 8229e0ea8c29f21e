"""A photograph on the page: seen once by the model, answered like `crackseg predict` at every threshold, upright."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crackseg.data.images.files import decode_image, encode_png
from crackseg.errors import CracksegError
from crackseg.inference.detector import CrackAnalyzer
from crackseg.params import PostprocessParams
from crackseg.serving.page.html import write_notes
from crackseg.serving.page.inspection import THRESHOLD_STEP, Inspection, inspect_photograph
from tests.odd_pictures import BROKEN, HEIGHT, READABLE, WIDTH, make_scene
from tests.tiny_model import make_model

METHODS = ("none", "thin", "hysteresis", "link")


@pytest.fixture(scope="module")
def analyzers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CrackAnalyzer]:
    """The tiny model, once for each post-processing; it counts what it is asked."""
    plain = make_model(tmp_path_factory.mktemp("model"))
    return {
        method: CrackAnalyzer(
            plain.predictor,
            plain.settings.model_copy(
                update={
                    "postprocess": PostprocessParams(
                        method=method, low_ratio=0.6, max_gap_px=5, min_length_px=4, floor=0.25
                    )
                }
            ),
        )
        for method in METHODS
    }


@pytest.fixture(scope="module")
def inspections(
    analyzers: dict[str, CrackAnalyzer], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Inspection]:
    folder = tmp_path_factory.mktemp("inspections")
    (folder / "scene.png").write_bytes(encode_png(make_scene()))
    return {
        method: inspect_photograph(analyzer, folder / "scene.png", folder / f"{method}.npy")
        for method, analyzer in analyzers.items()
    }


@pytest.fixture(scope="module")
def crack_prob(analyzers: dict[str, CrackAnalyzer]) -> np.ndarray:
    return analyzers["none"].predictor.predict_prob(make_scene())


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, deadline=None)
@given(share=st.floats(-0.1, 1.1))
def test_every_threshold_shows_what_predict_would_write(
    method: str,
    share: float,
    analyzers: dict[str, CrackAnalyzer],
    inspections: dict[str, Inspection],
    crack_prob: np.ndarray,
) -> None:
    inspection = inspections[method]
    low, high = float(crack_prob.min()), float(crack_prob.max())
    threshold = float(np.clip(low + share * (high - low), 0, 1))  # an untrained model fills a small part of [0, 1]
    expected = analyzers[method].describe_map(crack_prob, threshold=threshold)
    assert np.array_equal(inspection.find_cracks(threshold), expected.crack_mask)


def test_the_sliders_first_place_is_exactly_the_models_threshold(inspections: dict[str, Inspection]) -> None:
    own = 0.71554
    inspection = Inspection(
        **{name: getattr(inspections["none"], name) for name in Inspection.__slots__}
        | {"operating_threshold": own}
    )
    steps = np.round(np.arange(0, 1 + THRESHOLD_STEP / 2, THRESHOLD_STEP), 3)
    exact = {step: inspection.exact_threshold(step) for step in steps}
    assert exact.pop(0.716) == own
    assert all(value == step for step, value in exact.items())


@pytest.mark.parametrize("name", READABLE)
def test_what_cameras_write_comes_out_upright_and_in_its_colours(
    name: str, analyzers: dict[str, CrackAnalyzer], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(READABLE[name]())
    inspection = inspect_photograph(analyzers["none"], tmp_path / name, tmp_path / "map.npy")
    shown = decode_image(inspection.view_path.read_bytes()).astype(int)
    assert shown.shape == (HEIGHT, WIDTH, 3)
    expected = make_scene().astype(int)
    if name == "transparent.png":
        expected[-10:] = 255
    assert np.abs(shown - expected).mean() < 6
    assert inspection.find_cracks(0.5).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_photograph_is_refused_by_its_name(
    name: str, analyzers: dict[str, CrackAnalyzer], tmp_path: Path
) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CracksegError) as caught:
        inspect_photograph(analyzers["none"], tmp_path / name, tmp_path / "map.npy")
    assert str(caught.value).startswith(message)


def test_how_a_photograph_was_read_stands_next_to_it(analyzers: dict[str, CrackAnalyzer], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep<b>.tif"), make_scene()[..., 0].astype(np.uint16) * 16)
    seen = inspect_photograph(analyzers["none"], tmp_path / "deep<b>.tif", tmp_path / "map.npy")
    notes = write_notes(seen)
    assert "deep&lt;b&gt;.tif: 16-bit values up to 3040 read with full scale 4095." in notes
    assert "notice remark" in notes
    (tmp_path / "plain.png").write_bytes(encode_png(make_scene()))
    plain = inspect_photograph(analyzers["none"], tmp_path / "plain.png", tmp_path / "map.npy")
    assert "remark" not in write_notes(plain)
