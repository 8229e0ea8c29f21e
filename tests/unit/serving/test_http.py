"""The scoring server's answers: warnings in their headers, and requests that are named as what they are."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pytest
from starlette.testclient import TestClient

from crackseg.data.images.files import encode_png
from crackseg.files import write_bytes
from crackseg.inference.detector import SETTINGS_NAME, WEIGHTS_NAME, ModelSettings
from crackseg.registry.pyfunc import SIGNATURE, CrackModel
from crackseg.serving.http import build_app
from tests.tiny_model import make_model

PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model(folder)
    return folder


def open_server(files: Path, folder: Path, **settings: Any) -> TestClient:
    changed = ModelSettings.read(files / SETTINGS_NAME).model_copy(update=settings)
    write_bytes(folder / SETTINGS_NAME, changed.to_json().encode())
    mlflow.pyfunc.save_model(
        folder / "saved",
        python_model=CrackModel(),
        artifacts={"weights": str(files / WEIGHTS_NAME), "settings": str(folder / SETTINGS_NAME)},
        signature=SIGNATURE,
        pip_requirements=[],
    )
    model = mlflow.pyfunc.load_model(str(folder / "saved"))
    return TestClient(build_app(model, name="models:/cracks/1", max_bytes=10**6, max_pixels=10**6))


@pytest.fixture(scope="module")
def sample(files: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return open_server(files, tmp_path_factory.mktemp("sample"))


def ask(server: TestClient, *images: str) -> Any:
    return server.post("/invocations", json={"dataframe_records": [{"image": image} for image in images]})


def encode(image: np.ndarray) -> str:
    return base64.b64encode(encode_png(image)).decode()


def test_an_answer_of_a_model_of_the_sample_warns_in_its_header(sample: TestClient) -> None:
    answer = ask(sample, encode(PHOTOGRAPH))
    assert answer.status_code == 200
    assert answer.headers["x-crackseg-model"] == "models:/cracks/1"
    assert "must not inspect anything" in answer.headers["x-crackseg-warning"]
    assert "too few to judge" in answer.headers["x-crackseg-warning"]  # the tiny model has a handful of images


def test_how_a_photograph_was_read_is_in_the_header_of_its_own_answer(sample: TestClient) -> None:
    deep = cv2.imencode(".tif", PHOTOGRAPH[..., 0].astype(np.uint16) * 16)[1].tobytes()
    answer = ask(sample, encode(PHOTOGRAPH), base64.b64encode(deep).decode())
    assert answer.headers["x-crackseg-remark"] == "row 1: 16-bit values up to 4080 read with full scale 4095"
    assert "x-crackseg-remark" not in ask(sample, encode(PHOTOGRAPH)).headers


def test_a_photograph_unlike_the_models_own_warns_in_the_header_of_its_own_answer(
    files: Path, tmp_path: Path
) -> None:
    reference = ModelSettings.read(files / SETTINGS_NAME).reference
    wide = tuple(np.linspace(0, 1, 40))
    known = dict.fromkeys(("contrast", "crack_fraction", "confidence"), wide) | {
        "brightness": tuple(np.linspace(0.4, 0.6, 40)), "sharpness": tuple(np.linspace(0, 100, 40)),
    }  # fmt: skip
    server = open_server(files, tmp_path, data_source="imported", reference=reference.model_copy(update=known))
    assert "x-crackseg-warning" not in ask(server, encode(PHOTOGRAPH)).headers
    dark = ask(server, encode(PHOTOGRAPH), encode(PHOTOGRAPH // 8)).headers["x-crackseg-warning"]
    assert "This photograph is unlike" in dark
    assert "brightness" in dark
    assert "contrast" not in dark
    assert "x-crackseg-warning" not in ask(server, encode(PHOTOGRAPH)).headers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("?!?", r"row 1 of column image: '?!?' is not base64"),
        ("", "the text is empty"),
        ("  ", "the text is empty"),
        ("aGVsbG8", "cut short"),
        ("aGVsbG8=", "not an image"),
    ],
)
def test_what_is_no_photograph_is_named_as_what_it_is(sample: TestClient, text: str, said: str) -> None:
    answer = ask(sample, encode(PHOTOGRAPH), text)
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    table = {"dataframe_split": {"columns": ["image"], "data": [[encode(PHOTOGRAPH)], [text]]}}
    assert said in sample.post("/invocations", json=table).json()["message"]
