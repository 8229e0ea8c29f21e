"""Make the screenshots in docs/images again: `make screenshots`.

Trains a few very small models in a clone of the repository (see small_project.py), starts `crackseg ui` there, and
photographs its pages with an installed Chromium. Takes some minutes on an idle machine. The pictures of
`crackseg app` and of docs/inspecting.md come from inspection_pictures.py.
With a folder as its argument, it works there and leaves it, so that a second time nothing is trained:

    .venv/bin/python tools/screenshots.py ~/small-project
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from mlflow import MlflowClient  # noqa: E402
from tools.small_project import environment_of, make_small_project  # noqa: E402

from crackseg.tracking.ui_view import save_view  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1400, "height": 760}
SETTLE_MS = 4000  # MLflow asks for news all the time, so the network is never idle
BESIDE_ASSISTANT = {
    "x": 0,
    "y": 0,
    "width": 1036,
    "height": 760,
}  # MLflow opens a panel for questions on the right
MOST_BYTES = 200_000
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def main(folder: Path) -> None:
    """Make the project in ``folder`` and write every picture."""
    make_small_project(folder)
    with start_server(folder, "ui") as address, open_page() as page:
        for name, path, wait_for in list_pages(address):
            page.goto(f"{address}/#{path}")
            page.locator(wait_for).first.wait_for()
            page.wait_for_timeout(SETTLE_MS)
            if name == "compare":  # the chart with the lines of all runs stands below the bars
                page.mouse.move(BESIDE_ASSISTANT["width"] - 200, BESIDE_ASSISTANT["height"] // 2)
                page.mouse.wheel(0, 480)
                page.wait_for_timeout(SETTLE_MS)
            write_picture(page.screenshot(clip=BESIDE_ASSISTANT), IMAGES / f"screenshot_{name}.png")
    report = folder / "outputs" / "report" / "pr_all.png"
    write_picture(report.read_bytes(), IMAGES / "report_pr.png")


def list_pages(address: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, path and what to wait for, as a selector, of each page to photograph."""
    experiment = ask(f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name=crackseg")["experiment"]
    number = experiment["experiment_id"]
    client = MlflowClient(address)
    metrics = {name for run in client.search_runs([number]) for name in run.data.metrics}
    alias = f"{address}/api/2.0/mlflow/registered-models/alias?name=crackseg&alias=production"
    production = ask(alias)["model_version"]["version"]
    yield "version", f"/models/crackseg/versions/{production}", "text=Intended use"
    yield "runs", save_view(client, number, metrics).removeprefix("/#"), "text=/gamma-2|γ2/"
    compared = save_view(client, number, metrics, run_ids=()).removeprefix("/#")
    yield "charts", compared, ".js-plotly-plot .main-svg"
    yield "compare", compared, ".js-plotly-plot .main-svg"


def ask(url: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask MLflow's REST API."""
    data = json.dumps(content).encode() if content else None
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


@contextmanager
def start_server(folder: Path, name: str) -> Iterator[str]:
    """Run `crackseg ui` or `crackseg app` in ``folder`` on a free port; gives its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = ["crackseg", name, "--port", str(port)]
    # On a busy machine, MLflow's several workers are taken for dead while they start.
    environment = environment_of(folder) | {"MLFLOW_WORKERS": "1"}
    server = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    try:
        while True:
            if server.poll() is not None:
                sys.exit(f"{' '.join(command)} ended with {server.returncode}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["kill", "--", f"-{server.pid}"], check=False)  # with the workers that it started
        server.wait()


@contextmanager
def open_page() -> Iterator[Any]:
    """A page of an installed Chromium."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        sys.exit("no Chromium on the PATH; on Debian: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(300_000)  # on a busy machine
        yield page
        browser.close()


def write_picture(png: bytes, path: Path) -> None:
    """Write a PNG in a palette of 256 colours, smaller until it fits into 200 KB."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    while True:
        content = io.BytesIO()
        image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            content, "PNG", optimize=True
        )
        if len(content.getvalue()) < MOST_BYTES:
            break
        image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)
    path.write_bytes(content.getvalue())
    print(f"{path.relative_to(ROOT)}: {image.width} x {image.height}, {len(content.getvalue()) // 1000} KB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch) / "project")
