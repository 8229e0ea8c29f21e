"""outputs/model -> a version of the registered model, alias ``candidate``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from crackseg.data.catalog import list_splits
from crackseg.errors import CracksegError
from crackseg.evaluation.report import mean_ods, read_scores
from crackseg.files import write_bytes, write_json
from crackseg.inference.detector import SETTINGS_NAME
from crackseg.params import Params, load_params
from crackseg.pipeline.result_run import find_result_run
from crackseg.project import Layout, read_output
from crackseg.registry.card import write_card
from crackseg.registry.package import PROBE_NAME, build_analyzer, write_probe
from crackseg.registry.register import CANDIDATE_ALIAS, register_model
from crackseg.tracking.connection import StoreAwayError
from crackseg.tracking.store import Store, describe_code


def run(root: Path) -> None:
    """Register the trained weights, completed to a finished model, with scores, data version and git commit.

    Raises:
        CracksegError: the registry does not take it, or does not answer.
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
    versions = read_output(layout.data_versions)
    headline = ("ods", "ois", "ap")
    tags: dict[str, object] = {
        f"{name}/{figure}": f"{s[figure]:.4f}" for name, s in scores.items() for figure in headline
    }
    tags |= {
        "mean/ods": f"{mean_ods(scores):.4f}",
        "val/ods": f"{read_output(layout.training)['train']['best_val_ods']:.4f}",
        "data.md5": versions["md5"],
        "data.source": versions["datasets"][params.data.train_dataset]["source"],
        "git.commit": describe_code(root)["git.commit"],
        "architecture": params.model.architecture,
    }
    name = params.registry.model_name
    with tempfile.TemporaryDirectory() as scratch:
        settings_path, probe_dir = _complete_model(layout, params, Path(scratch))
        version = register_model(
            store,
            run_id=run_id,
            weights_path=layout.weights,
            settings_path=settings_path,
            probe_dir=probe_dir,
            name=name,
            tags=tags,
        )
    result_run = find_result_run(store, layout, params)
    with store.record(result_run) as recorder:
        lock = root / "dvc.lock"
        if lock.exists():
            recorder.log_file(lock)
    write_card(store, version, result_run)
    write_json(layout.registered, {"name": name, "version": str(version.version), "run_id": run_id})
    print(f"registered: models:/{name}/{version.version} (alias {CANDIDATE_ALIAS})", flush=True)


def _complete_model(layout: Layout, params: Params, folder: Path) -> tuple[Path, Path]:
    """Write what a version carries beside its weights; returns the paths of its settings and its probe."""
    dataset = params.data.train_dataset
    splits = list_splits(layout.prepared, dataset)
    analyzer = build_analyzer(
        layout.weights,
        splits["train"],
        splits["val"],
        params.postprocess,
        dataset=dataset,
        device=params.train.device,
        precision=params.train.precision,
    )
    write_bytes(folder / SETTINGS_NAME, analyzer.settings.to_json().encode())
    write_probe(folder / PROBE_NAME, analyzer, splits["val"])
    return folder / SETTINGS_NAME, folder / PROBE_NAME
