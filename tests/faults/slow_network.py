"""`python -m tests.faults.slow_network`: a training run next to a network that is slow, or says 503 for two minutes.

It prints what an epoch costs with and without the slow network, and what arrived after the two minutes.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from mlflow import MlflowClient

from crackseg.errors import CracksegError
from crackseg.params import Params, change_params, load_params
from crackseg.registry.production import Production
from crackseg.tracking.store import Store
from crackseg.training.run import build_first_network, record_training
from tests.faults.proxy import LATENCY_S, Fault, Proxy
from tests.faults.tracking_server import serve_tracking
from tests.registry_store import NAME, promote
from tests.tiny_training import make_samples

_PARAMS = Path(__file__).parents[2] / "params.yaml"
_AWAY_S = 120.0


def make_params(epochs: int) -> Params:
    """Settings of a training run with epochs of about a second."""
    changes = {
        "data.size_px": 64, "augment.crop_px": 48, "model.architecture": "unet", "model.width": 8,
        "model.init": "random", "optimizer.name": "adamw", "train.epochs": epochs, "train.batch_size": 2,
        "train.patches_per_image": 8, "train.num_workers": 0, "train.device": "cpu", "train.precision": "float32",
    }  # fmt: skip
    return change_params(load_params(_PARAMS), changes, source="slow_network")


class Epochs:
    """Clock and processor time between the ends of epochs, with the recording of their metrics."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s
        self._ends: list[tuple[float, float]] = []

    def end(self, _epoch: int, _metrics: object) -> None:
        """Note the end of an epoch."""
        self._ends.append((time.perf_counter(), time.process_time()))
        time.sleep(self._pause_s)

    def list_seconds(self, which: int) -> list[float]:
        """Return the seconds of each epoch but the first; 0: clock, 1: processor."""
        return [after[which] - before[which] for before, after in zip(self._ends, self._ends[1:], strict=False)]


def train(folder: Path, proxy: Proxy, name: str, epochs: int, pause_s: float = 0.0) -> tuple[str, Epochs]:
    """Train behind the proxy; returns the run's id, and the epochs' times."""
    root = folder / "project"
    root.mkdir(exist_ok=True)
    for required in ("params.yaml", "dvc.yaml"):
        (root / required).touch()
    os.environ["MLFLOW_TRACKING_URI"] = proxy.uri
    store, params, ended = Store(root, may_be_away=True), make_params(epochs), Epochs(pause_s)
    checkpoint_dir = folder / "checkpoints" / name
    checkpoint_dir.mkdir(parents=True)
    with record_training(
        store, params, build_first_network(params, store), make_samples(folder / "samples"), checkpoint_dir,
        tags={}, name=name, on_epoch=ended.end,
    ) as trained:  # fmt: skip
        run_id = trained.run_id
    proxy.fault = "none"
    assert store.deliver().waiting == 0
    return run_id, ended


def compare_latency(folder: Path, proxy: Proxy, rounds: int, epochs: int) -> None:
    """Print an epoch's times with and without latency, in turns."""
    names: tuple[Fault, ...] = ("none", "slow")
    found: dict[str, list[list[float]]] = {name: [[], []] for name in names}
    for number in range(rounds):
        for name in names:
            proxy.fault = name
            _, ended = train(folder, proxy, f"{name}-{number}", epochs)
            for which in (0, 1):
                found[name][which] += ended.list_seconds(which)
    for which, word in enumerate(("clock", "processor")):
        without, slow = (statistics.median(found[name][which]) for name in names)
        print(
            f"an epoch, {word}: {without:.3f} s without and {slow:.3f} s with {LATENCY_S:g} s of latency for each "
            f"request, {slow / without - 1:+.1%} (medians of {len(found['slow'][which])} epochs)"
        )


def be_away(folder: Path, proxy: Proxy, port: int) -> None:
    """Say 503 for two minutes in the middle of a training run and in a promotion; print what came of it."""
    epochs, pause_s = 80, 2.0
    faults = threading.Thread(target=proxy.play, args=(("none", 15.0), ("503", _AWAY_S)))
    faults.start()
    run_id, ended = train(folder, proxy, "away", epochs, pause_s)
    faults.join()
    client = MlflowClient(f"http://127.0.0.1:{port}")
    steps = [metric.step for metric in client.get_metric_history(run_id, "train/loss")]
    longest = max(ended.list_seconds(0)) - pause_s
    whole = steps == list(range(1, epochs + 1)) and client.get_run(run_id).info.status == "FINISHED"
    print(
        f"503 for {_AWAY_S:g} s in a training run: {proxy.counts['503']} requests refused, the longest epoch "
        f"{longest:.2f} s, "
        f"{'each epoch arrived once' if whole else f'LOST OR TWICE: {steps}'}"
    )
    production = make_versions(folder, port)
    proxy.fault = "503"
    started = time.monotonic()
    try:
        promote(production, "2")
        said = "it was made"
    except CracksegError as error:
        said = str(error)
    print(f"503 in a promotion: after {time.monotonic() - started:.0f} s: {said}")
    time.sleep(max(0.0, _AWAY_S - (time.monotonic() - started)))
    proxy.fault = "none"
    production.repair()
    if production.read().in_production != "2":
        promote(production, "2")
    chain = [(record.from_version, record.to_version) for record in production.read().records]
    print(
        f"the same command after {_AWAY_S:g} s: {chain}, {production.find_fault(production.read()) or 'all agree'}"
    )


def make_versions(folder: Path, port: int) -> Production:
    """Register two versions, the first in production."""
    client = MlflowClient(f"http://127.0.0.1:{port}")
    client.create_registered_model(NAME)
    run = client.create_run("0").info
    for _ in range(2):
        client.create_model_version(NAME, f"{run.artifact_uri}/model", run_id=run.run_id)
    production = Production(Store(folder / "project"), NAME)
    promote(production, "1")
    return production


def main() -> int:
    """Measure both; print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.slow_network", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="crackseg-network-") as scratch:
        folder = Path(scratch)
        (folder / "server").mkdir()
        with serve_tracking(folder / "server") as port:
            proxy = Proxy(port)
            compare_latency(folder, proxy, options.rounds, options.epochs)
            be_away(folder, proxy, port)
            proxy.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
