"""`crackseg serve` answers over HTTP, refuses what it cannot use, and stays up."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pytest

from crackseg.data.images.files import decode_image
from crackseg.inference.detector import CrackAnalyzer
from tests.pipeline.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MEGABYTE = 1_000_000
CANDIDATE = "models:/crackseg@candidate"


class Server:
    """`crackseg serve` of a project, and requests to it."""

    def __init__(self, project: Project, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            ["crackseg", "serve", "--port", str(self.port), *options],
            cwd=project.folder, env=project.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        deadline = time.monotonic() + 200
        while not self.answers_ping():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.5)

    def answers_ping(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def post(
        self, body: bytes, content_type: str | None = "application/json"
    ) -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/invocations", body, {"Content-Type": content_type} if content_type else {})
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)


def make_photograph(width: int = 90, height: int = 70, extension: str = ".jpg") -> bytes:
    image_HW3 = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(extension, image_HW3)[1].tobytes()


def ask(*photographs: bytes, **more: object) -> bytes:
    records = [{"image": base64.b64encode(content).decode()} for content in photographs]
    return json.dumps({"dataframe_records": records, **more}).encode()


def make_bomb(width: int, height: int) -> bytes:
    """A small PNG whose header claims, and whose zeros would fill, gigabytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def server(finished: Project) -> Iterator[Server]:
    running = Server(finished, "--model", CANDIDATE, "--max-megabytes", "2", "--max-megapixels", "1")
    yield running
    running.stop()


def test_answer_is_that_of_the_version_in_its_folder(server: Server, finished: Project) -> None:
    jpeg = make_photograph()
    status, text, headers = server.post(ask(jpeg))
    assert status == 200, text
    assert headers["x-crackseg-model"] == "models:/crackseg/1"
    (answer,) = json.loads(text)["predictions"]
    (weights,) = (finished.folder / "mlruns").rglob("artifacts/weights.pt")
    (settings,) = (finished.folder / "mlruns").rglob("artifacts/settings.json")
    expected = CrackAnalyzer.load(weights, settings, device="cpu").analyze(decode_image(jpeg))
    assert answer["score"] == pytest.approx(expected.score, abs=0.02)  # processors with bfloat16 use it
    assert answer["crack_fraction"] == pytest.approx(expected.crack_fraction, abs=0.05)
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(answer["mask"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (70, 90)
    assert (mask > 0).mean() == pytest.approx(answer["crack_fraction"])


JPEG = make_photograph()
GARBAGE = [
    ("no image", ask(b"these are words"), 400, "not an image"),
    ("empty image", ask(b""), 400, "empty"),
    ("cut short", ask(JPEG[: len(JPEG) // 2]), 400, "cut short"),
    ("one of two", ask(JPEG, b"words"), 400, "row 1"),
    ("too small", ask(make_photograph(3, 3)), 400, "too small"),
    ("over the pixels", ask(make_photograph(1200, 900, ".png")[:100_000]), 400, "megapixels"),
    ("over the pixels together", ask(*[make_photograph(700, 500)] * 3), 400, "to 1.05 megapixels"),
    ("no images", ask(), 400, "at least one"),
    ("no body", b"", 400, "JSON"),
    ("no JSON", b'{"dataframe_records": [', 400, "JSON"),
    ("not an object", b"[1]", 400, "dictionary"),
    ("brackets", b"[" * 200_000, 400, "cannot be understood"),
    ("another column", b'{"dataframe_records": [{"photo": "AAAA"}]}', 400, "dataframe_records"),
    ("inputs", b'{"inputs": {"image": ["AAAA"]}}', 400, "dataframe_records"),
    ("no base64", b'{"dataframe_records": [{"image": "AAAAA"}]}', 400, "base64"),
    ("null", b'{"dataframe_records": [{"image": null}]}', 400, "image"),
    ("threshold", ask(JPEG, params={"threshold": 7}), 400, "threshold"),
    ("over the bytes", b"x" * 3 * MEGABYTE, 413, "2 megabytes"),
    ("far over the bytes", b"x" * 40 * MEGABYTE, 413, "2 megabytes"),
]


@pytest.mark.parametrize(("body", "expected", "word"), [g[1:] for g in GARBAGE], ids=[g[0] for g in GARBAGE])
def test_garbage_is_refused_with_its_reason_and_the_next_request_is_answered(
    server: Server, body: bytes, expected: int, word: str
) -> None:
    status, text, _ = server.post(body)
    assert (status, word in text) == (expected, True), text
    assert len(text) < 3000  # the request is not sent back
    assert server.post(ask(JPEG))[0] == 200


def test_decompression_bomb_is_refused_before_it_is_decoded(server: Server) -> None:
    bomb = make_bomb(30_000, 30_000)
    assert len(bomb) < MEGABYTE
    start = time.monotonic()
    status, text, _ = server.post(ask(bomb))
    assert status == 400
    assert "30000 x 30000" in text
    assert time.monotonic() - start < 10
    assert server.post(ask(JPEG))[0] == 200


def test_missing_and_foreign_content_types_are_refused(server: Server) -> None:
    assert server.post(ask(JPEG), None)[0] == 415
    assert server.post(JPEG, "image/jpeg")[0] == 415


def test_body_without_a_length_is_limited_too(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    pieces = (b"x" * 65536 for _ in range(100))
    connection.request("POST", "/invocations", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 413


def test_client_that_leaves_in_the_middle_disturbs_nobody(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as leaver:
        leaver.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    assert server.post(ask(JPEG))[0] == 200


def test_eight_clients_lose_no_request(server: Server) -> None:
    assert drive(server, num_clients=8, seconds=10) >= 8


def drive(server: Server, *, num_clients: int, seconds: float) -> int:
    """Let clients ask one request after the other; returns how many were answered, and fails if one was not."""
    bodies = [ask(make_photograph(60 + 8 * i, 70)) for i in range(num_clients)]
    sizes = [(70, 60 + 8 * i) for i in range(num_clients)]
    end = time.monotonic() + seconds
    counts = [0] * num_clients
    lost: list[str] = []

    def work(client: int) -> None:
        while time.monotonic() < end:
            try:
                status, text, _ = server.post(bodies[client])
                assert status == 200, text
                mask = base64.b64decode(json.loads(text)["predictions"][0]["mask"])
                assert decode_image(mask).shape[:2] == sizes[client]  # its own answer, not another client's
                counts[client] += 1
            except Exception as error:
                lost.append(repr(error))

    run_together([threading.Thread(target=work, args=(i,)) for i in range(num_clients)])
    assert lost == []
    assert min(counts) > 0
    return sum(counts)


def run_together(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_starting_on_a_taken_port_or_without_such_a_version_says_so(server: Server, finished: Project) -> None:
    message = finished.run("crackseg", "serve", "--model", CANDIDATE, "--port", str(server.port), fails=True)
    assert f"port {server.port}" in message
    assert "has no version 99" in finished.run("crackseg", "serve", "--model", "models:/crackseg/99", fails=True)


def test_terminated_server_leaves_no_process(finished: Project) -> None:
    server = Server(finished, "--model", CANDIDATE)
    pid = server.process.pid
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not server.answers_ping()
