"""A project with studies; the training itself is played by a function."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from crackseg.data.synthetic.sample import write_sample
from crackseg.experiments.search import worker
from crackseg.experiments.search.storage import open_storage
from crackseg.experiments.search.study import Search, create_or_join
from crackseg.experiments.search.worker import Job, work
from crackseg.params import Params, change_params, load_params
from crackseg.tracking.store import Store
from crackseg.training.run import TrialStopped

ROOT = Path(__file__).parents[4]


SPACE = {
    "optimizer": {"lr": {"low": 1e-4, "high": 0.1, "log": True}},
    "loss": {"gamma": {"low": 0, "high": 5}},
}


Training = Callable[[int, Params, Callable[[int, dict[str, float]], None]], dict[str, float]]


class Bench:
    """A project folder, and studies made and worked in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(ROOT / name, folder / name)
        write_sample(folder / "data", seed=1, counts={"CrackTree260": (2, 1, 0)}, size=(64, 64))
        self.prepared_dir = folder / "data"  # nothing reads the images here
        self.store = Store(folder)
        base = load_params(folder / "params.yaml")
        self.params = change_params(
            base, {"search.space": SPACE, "search.paper": "none", "search.pruner": "none"}, source="test"
        )
        self.training: Training = lambda number, params, on_epoch: {"ods": 0.5}

    def open(self, name: str, num_trials: int | None = 4, **changes: Any) -> Search:
        params = change_params(self.params, {k.replace("__", "."): v for k, v in changes.items()}, source="test")
        storage = open_storage(self.address)
        return create_or_join(self.store, storage, name, params, {}, self.prepared_dir, num_trials=num_trials)

    @property
    def address(self) -> str:
        return str(self.folder / "studies.db")

    def work(self, search: Search, deadline: float | None = None) -> list[optuna.trial.FrozenTrial]:
        job = Job(
            self.folder, self.address, search.name, search.params, {}, search.run_id, search.folder,
            self.prepared_dir, deadline, 1, os.getppid(),
        )  # fmt: skip
        work(job)
        return search.study.get_trials()

    def run_of(self, trial: optuna.trial.FrozenTrial) -> Any:
        return self.store.get_run(trial.user_attrs["run_id"])


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(shared_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    def play(
        store: Store,
        params: Params,
        prepared_dir: Path,
        folder: Path,
        *,
        name: str,
        parent: str,
        tags: Mapping[str, str],
        on_epoch: Callable[[int, dict[str, float]], None],
        weights_path: Path | None,
        **_unused: object,
    ) -> dict[str, float]:
        """run_trial without a training; ends its run as run_trial does."""
        run_id, _ = store.continue_run(folder / "run.json", name=name, parent=parent)
        with store.record(run_id) as recorder:
            try:
                figures = shared_bench.training(int(tags["search.trial"]), params, on_epoch)
            except TrialStopped as stopped:
                recorder.set_tags({stopped.tag: "true"})
                recorder.end("KILLED")
                raise
            recorder.end("FINISHED")
        if weights_path:
            weights_path.parent.mkdir(exist_ok=True)
            weights_path.write_bytes(b"weights")
        return figures

    monkeypatch.setattr(worker, "run_trial", play)
    return shared_bench
