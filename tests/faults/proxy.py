"""Proxies between a client and a server, which misbehave as networks and load balancers do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Literal

Fault = Literal["none", "slow", "half-open", "reset", "lost", "503"]
LATENCY_S = 0.5
_ANSWER_503 = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"


class Proxy:
    """A proxy to a port of this machine, in a thread of its own.

    Attributes:
        fault: how it treats requests from now on. ``reset``: the server gets the request, and its answer is cut in the
            middle; ``lost``: the same, before its first byte; ``half-open``: the connection stays open, and no one
            answers.
        plan: faults of single requests by their number, from 1.
        counts: requests by fault.
    """

    def __init__(self, target_port: int) -> None:
        self.plan: Mapping[int, Fault] = {}
        self.fault: Fault = "none"
        self.counts = Counter[str]()
        self._target = target_port
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
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
        self._loop.set_exception_handler(lambda *_: None)  # the open connections are dropped
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def _choose(self) -> Fault:
        fault = self.plan.get(self.counts.total() + 1, self.fault)
        self.counts[fault] += 1
        return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            while request := await _read_message(reader):
                fault = self._choose()
                if fault == "half-open":
                    await asyncio.sleep(3600)
                if fault == "slow":
                    await asyncio.sleep(LATENCY_S)
                answer = _ANSWER_503 if fault == "503" else await self._ask(request)
                if fault in ("reset", "lost"):
                    writer.write(answer[: len(answer) // 2] if fault == "reset" else b"")
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


class RelayProxy(Proxy):
    """A proxy that passes on bytes without reading them, for a database; it knows no 503.

    A request is a piece of data from a client. A connection that was silent once stays so: neither side hears of the
    other again.
    """

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        fault: Fault = "none"

        async def ask() -> None:
            nonlocal fault
            while data := await reader.read(2**16):
                fault = self._choose()
                await asyncio.sleep({"half-open": 3600, "slow": LATENCY_S}.get(fault, 0))
                server_writer.write(data)
                await server_writer.drain()

        async def answer() -> None:
            while (data := await server_reader.read(2**16)) and fault != "half-open":
                if fault in ("reset", "lost"):
                    writer.write(data[: len(data) // 2] if fault == "reset" else b"")
                    return
                writer.write(data)
                await writer.drain()
            if fault == "half-open":
                await asyncio.sleep(3600)

        tasks = [asyncio.ensure_future(ask()), asyncio.ensure_future(answer())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for side in (writer, server_writer):
            side.transport.abort()


def plan_faults(seed: int, numbers: Mapping[Fault, int], among: range) -> dict[int, Fault]:
    """Draw which of the requests have a fault, each fault so many times."""
    faults = [fault for fault, number in numbers.items() for _ in range(number)]
    return dict(zip(random.Random(seed).sample(among, len(faults)), faults, strict=True))


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
