"""`python -m tests.faults.large_bodies`: many requests of 30 MB at once to `crackseg serve`.

It prints what the clients got, and how much memory the server took.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter

import numpy as np
import psutil
from PIL import Image

from tests.faults.tracking_server import choose_port, wait_for_server

_ANSWER_S = 900
_SLICE = 2**18  # bytes that a client sends at a time


def make_body(num_bytes: int) -> bytes:
    """Write a request with one photograph of noise, which PNG cannot make smaller."""
    side = int((num_bytes * 0.75 / 3) ** 0.5)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG", compress_level=1)
    return json.dumps({"dataframe_records": [{"image": base64.b64encode(stream.getvalue()).decode()}]}).encode()


async def send(port: int, body: bytes) -> str:
    """Send a request; returns the status, or how the connection ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    try:
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        for first in range(0, len(body), _SLICE):
            writer.write(body[first : first + _SLICE])
            await writer.drain()
        line = await asyncio.wait_for(reader.readline(), _ANSWER_S)
        return line.decode().partition(" ")[2][:3] or "closed without an answer"
    except ConnectionError as error:
        return type(error).__name__
    except TimeoutError:
        return f"no answer within {_ANSWER_S} s"
    finally:
        writer.close()


async def send_all(port: int, body: bytes, number: int) -> Counter[str]:
    """Send the same request so many times at once."""
    return Counter(await asyncio.gather(*[send(port, body) for _ in range(number)]))


class MemoryWatch:
    """The most memory that a process takes while the block runs, in bytes beyond what it had."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self._process.memory_info().rss
        self.most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.most = max(self.most, self._process.memory_info().rss - self._before)


def main() -> int:
    """Send them, and print the figures; 1 if the server does not answer afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.large_bodies", description=__doc__)
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--megabytes", type=float, default=30.0)
    options = parser.parse_args()
    body, small = make_body(int(options.megabytes * 1e6)), make_body(10_000)
    port = choose_port()
    command = [sys.executable, "-m", "crackseg", "serve", "--model", "scenes", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command, cwd=folder)
        try:
            wait_for_server(f"http://127.0.0.1:{port}/ping", process)
            asyncio.run(send_all(port, small, 1))  # the first answer takes the model's memory
            started = time.monotonic()
            with MemoryWatch(process.pid) as watch:
                answers = asyncio.run(send_all(port, body, options.number))
            print(
                f"{options.number} requests of {len(body) / 1e6:.0f} MB at once: {dict(answers.most_common())} in "
                f"{time.monotonic() - started:.0f} s; the server took at most {watch.most / 1e9:.1f} GB more memory"
            )
            after = asyncio.run(send_all(port, small, 1))
            print(f"the next request: {', '.join(after)}")
        finally:
            process.terminate()
            process.wait(60)
    return int("200" not in after)


if __name__ == "__main__":
    sys.exit(main())
