"""The pyfunc: what a cell may hold, what params do, and errors that name the row."""

import base64
import io
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from crackseg.data.images.files import encode_png
from crackseg.models import ARCHITECTURES
from crackseg.registry.pyfunc import SIGNATURE, CrackModel
from crackseg.registry.register import _REQUIREMENTS
from tests.imports import all_imports, direct_imports, list_modules
from tests.tiny_model import make_model

PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PyFuncModel:
    """A model as MLflow loads it, with its schema enforced."""
    folder = tmp_path_factory.mktemp("model")
    make_model(folder / "files")
    mlflow.pyfunc.save_model(
        folder / "saved",
        python_model=CrackModel(),
        artifacts={name: str(folder / "files" / file) for name, file in FILES.items()},
        signature=SIGNATURE,
        pip_requirements=[],
    )
    return mlflow.pyfunc.load_model(str(folder / "saved"))


FILES = {"weights": "weights.pt", "settings": "settings.json"}


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_bytes_arrays_and_npy_are_the_same_photograph(model: PyFuncModel) -> None:
    cells = [encode_png(PHOTOGRAPH), PHOTOGRAPH, npy(PHOTOGRAPH), bytearray(encode_png(PHOTOGRAPH))]
    answers = model.predict(pd.DataFrame({"image": cells}))
    assert list(answers.columns) == ["mask", "crack_fraction", "crack_length_px", "score"]
    assert (answers.nunique() == 1).all()
    assert model.predict({"image": [PHOTOGRAPH]}).equals(answers.iloc[:1])


def test_params_choose_threshold_and_probability_map(model: PyFuncModel) -> None:
    frame = pd.DataFrame({"image": [encode_png(PHOTOGRAPH)]})
    assert model.predict(frame, params={"threshold": 0.0})["crack_fraction"][0] == 1
    row = model.predict(frame, params={"return_probability": True}).iloc[0]
    prob = cv2.imdecode(np.frombuffer(base64.b64decode(row["probability"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (prob.dtype, prob.shape) == (np.uint16, (90, 130))
    assert prob.max() / 65535 == pytest.approx(row["score"], abs=1e-5)
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(row["mask"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (mask > 0).mean() == pytest.approx(row["crack_fraction"])


def bomb_png() -> bytes:
    """A small file whose header claims 30,000 x 30,000 pixels."""
    content = bytearray(encode_png(PHOTOGRAPH))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


BAD_CELLS: dict[str, tuple[Any, str]] = {
    "no image": (b"hello", "not an image"),
    "empty": (b"", "empty"),
    "nothing": (None, "NoneType"),
    "text": ("aGVsbG8=", "got str"),
    "cut short": (encode_png(PHOTOGRAPH)[:5000], "damaged or cut short"),
    "bomb": (bomb_png(), "over the limit"),
    "grey": (np.zeros((9, 9), np.uint8), r"\(9, 9\)"),
    "float array": (np.zeros((9, 9, 3)), "float64"),
    "npy of floats": (npy(np.zeros((9, 9, 3))), "float64"),
    "npy cut short": (npy(PHOTOGRAPH)[:-1], "not a .npy file"),
    "npy bomb": (npy(PHOTOGRAPH).replace(b"(90, 130, 3), }   ", b"(90000, 90000, 3)}"), "over the limit"),
    "npy of objects": (npy(np.array([{}])), "object"),
}


@pytest.mark.parametrize("kind", BAD_CELLS)
def test_a_bad_row_is_a_bad_request_that_names_it(model: PyFuncModel, kind: str) -> None:
    cell, message = BAD_CELLS[kind]
    frame = pd.DataFrame({"image": pd.Series([encode_png(PHOTOGRAPH), cell], dtype=object)})
    with pytest.raises(MlflowException, match=f"row 1 of column image.*{message}") as caught:
        model.predict(frame)
    assert caught.value.get_http_status_code() == 400


def test_notes_say_how_each_photograph_was_read_and_a_bad_row_costs_no_other_its_answer(
    model: PyFuncModel,
) -> None:
    deep = cv2.imencode(".tif", PHOTOGRAPH[..., 0].astype(np.uint16) * 16)[1].tobytes()
    frame = pd.DataFrame({"image": pd.Series([encode_png(PHOTOGRAPH), b"hello", deep], dtype=object)})
    answers = model.predict(frame, params={"return_notes": True})
    assert [bool(error) for error in answers["error"]] == [False, True, False]
    assert "not an image" in answers["error"][1]
    assert answers.loc[1, "mask"] == ""
    assert np.isnan(answers.loc[1, "crack_fraction"])
    assert answers["remark"].tolist() == ["", "", "16-bit values up to 4080 read with full scale 4095"]
    assert "must not inspect anything" in answers["warning"][0]
    alone = model.predict(frame.iloc[:1])
    assert answers.loc[[0], alone.columns].equals(alone)
    assert answers["brightness"][0] == pytest.approx(PHOTOGRAPH.mean() / 255, abs=0.02)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "high"])
def test_bad_threshold_is_a_bad_request(model: PyFuncModel, threshold: Any) -> None:
    with pytest.raises(MlflowException, match="threshold") as caught:
        model.predict(pd.DataFrame({"image": [encode_png(PHOTOGRAPH)]}), params={"threshold": threshold})
    assert caught.value.get_http_status_code() == 400


def test_signature_survives_being_written() -> None:
    assert type(SIGNATURE).from_dict(SIGNATURE.to_dict()) == SIGNATURE


def test_every_library_that_the_model_needs_is_among_its_requirements() -> None:
    modules = list_modules()
    names = {
        n.split(".")[0]
        for m in all_imports("crackseg.registry.pyfunc")
        for n in direct_imports(m)
        if n not in modules
    }
    distributions = {
        "cv2": "opencv-python-headless", "PIL": "pillow", "ruamel": "ruamel.yaml", "skimage": "scikit-image",
        "segmentation_models_pytorch": "segmentation-models-pytorch",
    }  # fmt: skip
    # Only weights to begin a training from are fetched from the hub, by what comes with timm; a registered model
    # computes by torch, wherever OpenVINO is. HEIC is read where its plug-in is, and refused by name elsewhere.
    names -= {"huggingface_hub", "safetensors", "openvino", "pillow_heif"}
    needed = {distributions.get(n, n) for n in names if n not in sys.stdlib_module_names and n != "crackseg"}
    extra = {name for architecture in ARCHITECTURES.values() for name in architecture.extra_packages}
    assert needed <= {*_REQUIREMENTS, *extra}


def test_context_without_settings_says_so(tmp_path: Path) -> None:
    make_model(tmp_path)
    context = SimpleNamespace(artifacts={"weights": str(tmp_path / "weights.pt"), "settings": "nowhere.json"})
    with pytest.raises(Exception, match=r"nowhere\.json"):
        CrackModel().load_context(context)
