"""outputs/model -> a version of the registered model, alias ``candidate``."""

from __future__ import annotations

from pathlib import Path

from crackseg.errors import CracksegError
from crackseg.evaluation.score_files import mean_ods, read_scores
from crackseg.files import write_json
from crackseg.params import load_params
from crackseg.pipeline.result_run import find_result_run
from crackseg.progress import name_step
from crackseg.project import Layout, read_output
from crackseg.registry.card import write_card
from crackseg.registry.register import CANDIDATE_ALIAS, complete_and_register
from crackseg.tracking.connection import StoreAwayError
from crackseg.tracking.store import Store


def run(root: Path) -> None:
    """Register the trained weights as a finished model, with scores, data version and git commit.

    Raises:
        CracksegError: the registry refuses it, or does not answer.
    """
    try:
        store = Store(root)
        with store.answering():
            _register(root, store)
    except StoreAwayError as error:
        raise CracksegError(
            f"{error}. The model is trained and scored, and only registering it is left: when the server answers "
            "again, `dvc repro` (or the same `dvc exp run`) registers it and trains nothing again"
        ) from error


def _register(root: Path, store: Store) -> None:
    layout = Layout(root)
    params = load_params(layout.params)
    run_id = read_output(layout.run)["run_id"]
    scores = read_scores(layout.scores, params.data.test_datasets)
    headline = ("ods", "ois", "ap")
    tags: dict[str, object] = {
        f"{name}/{figure}": f"{s[figure]:.4f}" for name, s in scores.items() for figure in headline
    }
    tags |= {
        "mean/ods": f"{mean_ods(scores):.4f}",
        "val/ods": f"{read_output(layout.training)['train']['best_val_ods']:.4f}",
        "data.md5": read_output(layout.data_versions)["md5"],
    }
    version = complete_and_register(
        store,
        layout.weights,
        layout.prepared,
        params,
        tags,
        operating_threshold=read_output(layout.threshold)["operating_threshold"],
    )
    result_run = find_result_run(store, layout, params)
    with store.record(result_run) as recorder:
        lock = root / "dvc.lock"
        if lock.exists():
            recorder.log_file(lock)
    name_step("write the model card")
    write_card(store, version, result_run)
    write_json(layout.registered, {"name": version.name, "version": str(version.version), "run_id": run_id})
    print(f"registered: models:/{version.name}/{version.version} (alias {CANDIDATE_ALIAS})", flush=True)
