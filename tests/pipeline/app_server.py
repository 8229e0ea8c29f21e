"""`crackseg app` on a registered model, and a browser of this machine that watches whom it talks to."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright
from torchvision.transforms.functional import gaussian_blur

from crackseg.data.images.files import read_image, read_mask
from crackseg.inference.detector import CrackAnalyzer, ReferenceStatistics
from crackseg.inference.drift import FIGURES
from crackseg.models import build_model
from crackseg.models.weights_file import save_weights
from crackseg.registry.package import write_probe
from crackseg.registry.production import Production
from crackseg.registry.register import register_model
from crackseg.tracking.store import Store
from tests.pipeline.conftest import ROOT, Project
from tests.registry_store import promote
from tests.tiny_model import EXTRA, make_model
from tests.tiny_training import list_samples

NAME = "crackseg"
_PATIENCE_MS = 120_000  # on a machine that does much else
_CHROMIUM_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def make_registered(folder: Path) -> tuple[Project, Production, CrackAnalyzer]:
    """A project with two equal versions of a small trained model, the first in production."""
    project = Project(folder)
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    files = folder / "model"
    settings = make_model(files).settings
    _teach(files)
    # Of many photographs, so that it can be said whether one is unlike them.
    reference = {name: tuple(np.linspace(0.2, 0.8, 20)) for name in FIGURES}
    reference["sharpness"] = tuple(np.linspace(0, 1, 20))
    settings = settings.model_copy(update={"reference": ReferenceStatistics(num_images=20, **reference)})
    settings = settings.model_copy(update={"operating_threshold": 0.4567})
    (files / "settings.json").write_text(settings.to_json(), encoding="utf-8")
    analyzer = CrackAnalyzer.load(files / "weights.pt", files / "settings.json", device="cpu")
    write_probe(files / "probe", analyzer, list_samples(files / "samples")[1])
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    store = Store(folder)
    for _ in range(2):
        run_id = store.create_run("train")
        register_model(
            store, run_id=run_id, weights_path=files / "weights.pt", settings_path=files / "settings.json",
            probe_dir=files / "probe", name=NAME, tags={"architecture": "unet"},
        )  # fmt: skip
    production = Production(store, NAME)
    promote(production, "1")
    return project, production, analyzer


def _teach(files: Path) -> None:
    """Show the network its few images until it finds their lines."""
    torch.manual_seed(0)
    network = build_model("unet", width=4)
    samples = [*list_samples(files / "samples")[0], *list_samples(files / "samples")[1]]
    images = torch.from_numpy(np.stack([read_image(s.image_path) for s in samples])).permute(0, 3, 1, 2) / 255
    truth = torch.from_numpy(np.stack([read_mask(s.mask_path) for s in samples])).float()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    # About 1 in the middle of a line and less at its sides, so that thresholds differ.
    truth = (gaussian_blur(truth, 5, 1.0) * 2.6).clamp(max=1)
    for _ in range(120):
        logits = network(images).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_weights(files / "weights.pt", network, spec={"architecture": "unet", "width": 4}, extra=EXTRA)


@contextmanager
def serve(project: Project) -> Iterator[str]:
    """Run `crackseg app` as a user would; yields the page's address.

    Checks in the end that it stops when told to, complained of nothing and left no photograph behind.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch = project.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = project.environment | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(scratch)}
    log_path = project.folder / "app.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            ["crackseg", "app", "--port", str(port)], cwd=project.folder, env=environment, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 900
        while not _answers(port):
            assert process.poll() is None, log_path.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 0, log_path.read_text()
    assert "Traceback" not in log_path.read_text(), log_path.read_text()
    assert not list(scratch.glob("crackseg-app-*"))


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False


@contextmanager
def browse() -> Iterator[BrowserContext]:
    """A browser that is on this machine; checks in the end that it talked to this machine alone."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("these tests need a browser: install one with `apt-get install chromium`", pytrace=False)
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(_CHROMIUM_FLAGS))
        context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        context.set_default_timeout(_PATIENCE_MS)
        expect.set_options(timeout=_PATIENCE_MS)
        context.on("request", lambda request: asked.append(request.url))
        yield context
        browser.close()
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}, sorted(url for url in asked if urlsplit(url).hostname != "127.0.0.1")


def open_page(context: BrowserContext, address: str) -> Page:
    """A visit of its own, ready for photographs."""
    page = context.new_page()
    page.goto(address)
    page.locator("#files input[type=file]").wait_for(state="attached")
    return page
