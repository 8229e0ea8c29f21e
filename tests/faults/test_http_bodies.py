"""Bodies that come slowly, in chunks, in a wrong length or all at once: each is answered, and memory is bounded."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
import uvicorn

from crackseg.serving import http
from tests.odd_pictures import READABLE
from tests.tiny_model import make_model
from tests.unit.serving.test_http import open_server

LIMIT = 10**6  # bytes of a body, in open_server
GOOD = json.dumps({"dataframe_records": [{"image": base64.b64encode(READABLE["plain.png"]()).decode()}]}).encode()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real server for a tiny model."""
    folder = tmp_path_factory.mktemp("server")
    make_model(folder / "model")
    (folder / "settings").mkdir()
    app = open_server(folder / "model", folder / "settings").app
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def _head(length: object, **headers: str) -> bytes:
    lines = {"Host": "x", "Content-Type": "application/json", "Connection": "close"} | headers
    if length is not None:
        lines["Content-Length"] = str(length)
    return (
        "POST /invocations HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    ).encode()


async def _send(port: int, parts: Sequence[bytes], *, end: bool = False) -> str:
    """Send the parts; returns the answer's status, "" if the server only closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(OSError):  # the server may refuse and close before all is sent
        for part in parts:
            writer.write(part)
            await writer.drain()
        if end:
            writer.write_eof()
    try:
        line = await asyncio.wait_for(reader.readline(), 60)
    except ConnectionError:
        line = b""
    status = line.decode().partition(" ")[2][:3]
    writer.close()
    return status


def _chunks(body: bytes, size: int) -> list[bytes]:
    cut = [body[i : i + size] for i in range(0, len(body), size)]
    return [f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in cut] + [b"0\r\n\r\n"]


def test_a_body_in_chunks_is_answered_like_a_whole_one(port: int) -> None:
    chunked = [_head(None, **{"Transfer-Encoding": "chunked"}), *_chunks(GOOD, 50)]
    assert asyncio.run(_send(port, chunked)) == "200"
    assert asyncio.run(_send(port, [_head(len(GOOD)), GOOD])) == "200"


@pytest.mark.parametrize(
    ("parts", "statuses"),
    [
        ([_head(len(GOOD) - 10), GOOD], {"400"}),
        ([_head(-5), GOOD], {"400"}),
        ([_head("many"), GOOD], {"400"}),
        ([_head(10**15), GOOD], {"", "400", "413"}),
        ([_head(len(GOOD) + 10), GOOD], {"", "400"}),
        ([_head(None), GOOD], {"400"}),
        ([_head(None, **{"Transfer-Encoding": "chunked"}), b"zz\r\n", GOOD], {"", "400"}),
    ],
    ids=["short", "negative", "no number", "a petabyte", "long", "none", "no chunk size"],
)
def test_a_wrong_length_is_refused(port: int, parts: list[bytes], statuses: set[str]) -> None:
    # A client that has announced more than it sends must end its side: the server waits for the rest.
    assert asyncio.run(_send(port, parts, end="" in statuses)) in statuses
    assert asyncio.run(_send(port, [_head(len(GOOD)), GOOD])) == "200"


def test_a_client_that_stalls_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_READ_S", 0.5)
    assert asyncio.run(_send(port, [_head(len(GOOD)), GOOD[:20]])) == "408"


@pytest.mark.slow
def test_two_hundred_large_requests_at_once_are_held_a_few_at_a_time(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most = 0, 0
    read, judge = http._read_body, http._find_fault_of_text

    async def read_watched(*arguments: object) -> bytes | None:
        nonlocal held, most
        held += 1
        most = max(most, held)
        return await read(*arguments)  # type: ignore[arg-type]

    def judge_watched(body: bytes) -> str:
        """The last work on a body that was refused, after the model has seen it."""
        nonlocal held
        try:
            return judge(body)
        finally:
            held -= 1

    monkeypatch.setattr(http, "_read_body", read_watched)
    monkeypatch.setattr(http, "_find_fault_of_text", judge_watched)
    junk = b'{"dataframe_records": [{"image": "' + b"A" * (LIMIT - 100) + b'"}]}'

    async def send_all() -> Counter[str]:
        return Counter(await asyncio.gather(*[_send(port, [_head(len(junk)), junk]) for _ in range(200)]))

    answers = asyncio.run(send_all())
    assert answers.keys() <= {"400", "503"}
    assert answers["400"] >= 1
    assert most <= http._HELD_FACTOR
    assert asyncio.run(_send(port, [_head(len(GOOD)), GOOD])) == "200"


def test_who_waited_in_vain_is_told_to_come_again(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_WAIT_S", 0.5)

    async def busy() -> str:
        stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(http._HELD_FACTOR)]
        for _, writer in stalled:
            writer.write(_head(LIMIT))
            await writer.drain()
        await asyncio.sleep(0.2)
        status = await _send(port, [_head(len(GOOD)), GOOD])
        for _, writer in stalled:
            writer.close()
        return status

    assert asyncio.run(busy()) == "503"
    assert asyncio.run(_send(port, [_head(len(GOOD)), GOOD])) == "200"
