"""What a person sees first in MLflow: the runs with γ and ODS, the comparison, a report with pictures."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, expect

from crackseg.data.images.files import write_png
from crackseg.evaluation.html import render_html
from crackseg.tracking.store import Store
from tests.pipeline.app_server import browse
from tests.scored_runs import make_root, make_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WAIT_MS = 120_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, str]]:
    store = make_root(tmp_path_factory.mktemp("ui") / "project")
    made = {
        f"gamma-{gamma}": make_run(store, f"gamma-{gamma}", noise, settings={"loss.gamma": gamma})
        for gamma, noise in ((0, 0.5), (2, 0.2), (4, 0.35))
    }
    for run_id in made.values():
        scores = store.get_run(run_id).data.metrics
        store.client.log_metric(run_id, "mean/ods", (scores["A/ods"] + scores["B/ods"]) / 2)
    return store, made


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    with browse() as context:
        context.set_default_timeout(WAIT_MS)
        yield context


@contextmanager
def serving(root: Path, *arguments: str) -> Iterator[str]:
    """Run `crackseg ui` until the block ends; gives the address that it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "crackseg", "ui", "--port", str(port), *arguments]
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if line.startswith("runs: "))
        yield line.removeprefix("runs: ").strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_the_first_page_holds_the_runs_with_gamma_and_ods(
    runs: tuple[Store, dict[str, str]], context: BrowserContext
) -> None:
    store, made = runs
    with serving(store.root) as address:
        page = context.new_page()
        page.goto(address)
        for name in made:
            expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=WAIT_MS)
        for column in ("loss.gamma", "mean/ods", "A/ods"):
            expect(page.get_by_text(column, exact=True).first).to_be_visible(timeout=WAIT_MS)
        names = [text for text in page.locator("[role=row]").all_inner_texts() if "gamma-" in text]
        assert re.search(r"gamma-\d", names[0])[0] == "gamma-2"  # type: ignore[index]
        page.close()

        folder = store.root / "report"
        write_png(folder / "pr.png", np.full((20, 30, 3), 90, np.uint8))
        (folder / "report.html").write_text(render_html("![curve](pr.png)", title="report", folder=folder))
        store.client.log_artifact(made["gamma-2"], str(folder / "report.html"), "report")
        page = context.new_page()
        server = address.split("/#")[0]
        number = store.experiment_id
        page.goto(f"{server}/#/experiments/{number}/runs/{made['gamma-2']}/artifacts/report/report.html")
        picture = page.frame_locator("iframe").locator("img")
        expect(picture).to_be_visible(timeout=WAIT_MS)
        assert picture.evaluate("image => image.naturalWidth") == 30
        page.close()


def test_the_comparison_shows_the_settings_against_the_ods(
    runs: tuple[Store, dict[str, str]], context: BrowserContext
) -> None:
    store, _ = runs
    with serving(store.root, "--compare", "gamma-0", "gamma-2") as address:
        page = context.new_page()
        page.goto(address)
        expect(page.get_by_text("Settings and ODS").first).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_text("gamma-2", exact=True).first).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_text("gamma-4", exact=True)).to_have_count(0)
        expect(page.get_by_text("Parallel Coordinates").first).to_be_visible(timeout=WAIT_MS)
        page.close()


def test_a_tracking_server_shows_the_runs_on_its_own_pages(runs: tuple[Store, dict[str, str]]) -> None:
    store, _ = runs
    with serving(store.root) as address:
        server = address.split("/#")[0]
        done = subprocess.run(
            [sys.executable, "-m", "crackseg", "ui"], cwd=store.root, env=os.environ | {"MLFLOW_TRACKING_URI": server},
            capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        assert done.stdout == f"runs: {address}\n"
