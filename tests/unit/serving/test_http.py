"""The scoring server's answers: warnings in their headers, and requests that are named as what they are."""

from __future__ import annotations

import asyncio
import base64
import tracemalloc
from collections.abc import Iterator
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


def test_an_answer_names_no_files_of_the_servers_machine(sample: TestClient) -> None:
    answer = sample.post("/invocations", content=b"", headers={"content-type": "text/csv"})
    assert answer.status_code == 400
    assert "Failed to parse input" in answer.json()["message"]
    assert "Traceback" not in answer.text


def call(server: TestClient, messages: Iterator[Any], **headers: str) -> tuple[int, bytes]:
    """Post to the server as uvicorn does, without a client; returns status and body."""
    scope = {
        "type": "http", "method": "POST", "path": "/invocations", "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    answers: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        answers.append(message)

    asyncio.run(server.app(scope, receive, send))  # type: ignore[arg-type]
    return answers[0]["status"], b"".join(answer.get("body", b"") for answer in answers)


@pytest.mark.parametrize("headers", [{}, {"content_length": "50000000"}])
def test_a_body_over_the_limit_is_read_to_its_end_without_being_held(
    sample: TestClient, headers: dict[str, str]
) -> None:
    messages = ({"type": "http.request", "body": bytes(10**6), "more_body": i < 49} for i in range(50))
    tracemalloc.start()
    status, body = call(sample, messages, **headers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status == 413
    assert b"over the limit of 1 megabytes" in body
    assert next(messages, None) is None  # a client whose sending is broken off sees no answer
    assert peak < 10 * 10**6


def test_a_body_without_a_length_that_is_within_the_limit_is_answered(sample: TestClient) -> None:
    body = b'{"dataframe_records": [{"image": "' + encode(PHOTOGRAPH).encode() + b'"}]}'
    halves = iter([body[:100], body[100:]])
    answer = sample.post("/invocations", content=halves, headers={"content-type": "application/json"})
    assert answer.status_code == 200


def test_a_client_that_waits_for_permission_to_send_too_much_is_refused_at_once(sample: TestClient) -> None:
    def give_permission() -> Iterator[Any]:
        raise AssertionError("permission was given")
        yield

    assert call(sample, give_permission(), content_length="2000000", expect="100-continue")[0] == 413


def test_a_client_that_leaves_in_the_middle_is_no_error_of_the_server(sample: TestClient) -> None:
    begun = {"type": "http.request", "body": b"{", "more_body": True}
    assert call(sample, iter([begun, {"type": "http.disconnect"}]))[0] == 400


def test_what_mlflow_cannot_read_is_refused_and_names_the_model(sample: TestClient) -> None:
    for headers, body, status, said in (
        ({}, b"{}", 415, "no header Content-Type"),
        ({"content-type": "application/json"}, b"[" * 200_000, 400, "cannot be understood"),
    ):
        answer = sample.post("/invocations", content=body, headers=headers)
        assert answer.status_code == status
        assert said in answer.json()["message"]
        assert answer.headers["x-crackseg-model"] == "models:/cracks/1"


def test_a_misspelt_param_is_refused_rather_than_answered_with_other_settings(sample: TestClient) -> None:
    records = [{"image": encode(PHOTOGRAPH)}]
    known = sample.post("/invocations", json={"dataframe_records": records, "params": {"threshold": 0.3}})
    assert known.status_code == 200
    answer = sample.post("/invocations", json={"dataframe_records": records, "params": {"treshold": 0.3}})
    assert answer.status_code == 400
    assert "params: the model has no 'treshold'; expected threshold" in answer.text


@pytest.mark.parametrize("image", [None, 5])
def test_a_row_that_is_no_text_is_named(sample: TestClient, image: object) -> None:
    answer = sample.post("/invocations", json={"dataframe_records": [{"image": image}]})
    assert answer.status_code == 400
    assert "row 0 of column image:" in answer.text
    assert "is no text; expected the base64 text" in answer.text
