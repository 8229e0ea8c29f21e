"""A proxy for HTTP between a client and a server, which misbehaves as networks and load balancers do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Literal

Fault = Literal["none", "slow", "half-open", "reset", "503"]
LATENCY_S = 0.5
_ANSWER_503 = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"


class Proxy:
    """A proxy to a port of this machine, in a thread of its own.

    Attributes:
        fault: how it treats requests from now on. ``reset``: the server gets the request, and its answer is cut in the
            middle; ``half-open``: the connection stays open, and no one answers.
        counts: requests by fault.
    """

    def __init__(self, target_port: int) -> None:
        self.fault: Fault = "none"
        self.counts: dict[str, int] = {}
        self._target = target_port
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; connections that are open are dropped."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def play(self, *faults: tuple[Fault, float]) -> None:
        """Set one fault after the other, each for so many seconds, then none."""
        for fault, seconds in faults:
            self.fault = fault
            time.sleep(seconds)
        self.fault = "none"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            while request := await _read_message(reader):
                fault = self.fault
                self.counts[fault] = self.counts.get(fault, 0) + 1
                if fault == "half-open":
                    await asyncio.sleep(3600)
                if fault == "slow":
                    await asyncio.sleep(LATENCY_S)
                answer = _ANSWER_503 if fault == "503" else await self._ask(request)
                if fault == "reset":
                    writer.write(answer[: len(answer) // 2])
                    await writer.drain()
                    writer.transport.abort()
                    return
                writer.write(answer)
                await writer.drain()
                if fault == "503":
                    break
        writer.close()

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            writer.write(request)
            await writer.drain()
            return await _read_message(reader)
        finally:
            writer.close()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """Read a request or an answer; empty at the end of the stream."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if headers.get(b"transfer-encoding") == b"chunked":
        body = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(line.split(b";")[0], 16) + 2)
            body += line + chunk
            if len(chunk) == 2:
                return head + body
    return head + await reader.readexactly(int(headers.get(b"content-length", 0)))
