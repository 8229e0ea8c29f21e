"""`crackseg app` that cannot start says why, and requests that no page sends get a short answer."""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from crackseg.errors import CracksegError
from crackseg.geometry.severity import OF_CONCRETE
from crackseg.serving.page.server import build_server, run_app


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets for its process is not left to the other tests."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(CracksegError, match=r"pip install 'crackseg\[app\]'"):
        run_app(7860, print)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A page without models that takes files of a kilobyte."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    from crackseg.serving.page.layout import build_page

    offered = SimpleNamespace(choices=[("shipped", "scenes")], in_production=None, warning="")
    page, looks = build_page(SimpleNamespace(list_choices=lambda: offered), tmp_path, OF_CONCRETE)  # type: ignore[arg-type]
    with TestClient(
        build_server(page, looks, port=7860, max_megabytes=2**-10), base_url="http://127.0.0.1:7860"
    ) as client:
        yield client


def test_a_request_for_what_the_page_does_not_have_is_no_server_error(client: TestClient) -> None:
    unknown = {"data": [], "session_hash": "a"}
    for path, body in (
        ("queue/join", unknown | {"fn_index": 9999}),
        ("call/nothing", unknown),
        ("call/v2/nothing", unknown),
        ("component_server", unknown | {"component_id": 9999, "fn_name": "x"}),
    ):
        answer = client.post(f"/gradio_api/{path}", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (
            404,
            "the page has no such function; load it again",
        )


def test_a_file_over_the_limit_is_refused_and_not_kept(client: TestClient, tmp_path: Path) -> None:
    def upload(num_bytes: int) -> tuple[int, str]:
        answer = client.post("/gradio_api/upload", files=[("files", ("a.png", b"x" * num_bytes))])
        return answer.status_code, answer.text

    status, said = upload(1025)
    assert (status, said) == (413, "File size exceeded maximum allowed size of 1024 bytes.")
    assert upload(1024)[0] == 200
    assert [path.stat().st_size for path in (tmp_path / "uploads").rglob("*.png")] == [1024]
    assert client.get("/config").json()["max_file_size"] == 1024  # the browser refuses before it sends


def test_an_upload_to_a_full_disk_is_said(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gradio.route_utils.GradioUploadFile.write", refuse)
    answer = client.post("/gradio_api/upload", files=[("files", ("a.png", b"x"))])
    assert (answer.status_code, "uploads: No space left" in answer.text) == (507, True)
    assert list((tmp_path / "uploads").glob("tmp*")) == []  # what had come of it would keep the disk full
