"""Demo: the whole pipeline on the sample data, as a DVC experiment with small settings for a CPU."""

from __future__ import annotations

import json
import time
from pathlib import Path

from crackseg.child_processes import describe_exit, find_reason
from crackseg.data.catalog import read_manifest
from crackseg.data.versioning import fetch_data, read_dvc, run_dvc, run_dvc_guarded
from crackseg.errors import CracksegError
from crackseg.params import load_params
from crackseg.project import find_real_root

EXPERIMENT_NAME = "demo"
SETTINGS = {
    "model.architecture": "unet",
    "optimizer.name": "adamw",
    "optimizer.lr": "0.001",
    "scheduler.name": "cosine",
    "augment.crop_px": "256",
    "train.batch_size": "4",
    "train.patches_per_image": "4",
    "train.epochs": "60",
    "train.validate_every": "5",
    "train.num_workers": "0",
}
_AGAIN = "`crackseg demo` again keeps the stages that are done, and resumes training from its last checkpoint"


def run_demo(root: Path) -> str:
    """Fetch the data, run the experiment ``demo`` outside the workspace, and describe its results.

    ``--temp`` leaves the workspace, and so `git status`, unchanged; the run, its figures and the registered model
    are in the store, and `dvc exp apply demo` brings the files.

    Returns:
        Text for the user: the table of scores and next steps.
    Raises:
        CracksegError: a stage failed, or was killed.
        KeyboardInterrupt: it was stopped, and its processes have ended.
    """
    started = time.monotonic()
    root = find_real_root(root)
    fetch_data(root)
    overrides = [word for key, value in SETTINGS.items() for word in ("--set-param", f"{key}={value}")]
    if _read_metrics(root) is not None:
        run_dvc(root, "exp", "remove", "--quiet", EXPERIMENT_NAME)
    # Quiet: DVC's own lines would hide the output of the stages, which is still shown.
    try:
        code = run_dvc_guarded(root, "exp", "run", "--quiet", "--temp", "--name", EXPERIMENT_NAME, *overrides)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the demo was stopped; {_AGAIN}") from None
    if code:
        reason = f": {found}" if (found := find_reason(code)) else "; why is said above"
        raise CracksegError(f"the demo ended early, DVC {describe_exit(code)}{reason}. {_AGAIN}")
    # Imported only now: while it waits, this process should leave the memory to training.
    from crackseg.evaluation.score_files import describe_source, format_score_table
    from crackseg.training.loop import format_duration

    datasets = load_params(root / "params.yaml").data.test_datasets
    scores = _read_metrics(root)
    if scores is None:
        raise CracksegError(f"DVC has no experiment {EXPERIMENT_NAME!r} although it ran; see `dvc exp show`")
    source = describe_source([s for name in datasets for s in set(read_manifest(root / "data", name)["source"])])
    return (
        f"\n{format_score_table({name: scores[name] for name in datasets}, source=source)}\n"
        f"All of it took {format_duration(time.monotonic() - started)}. What to try next "
        "(after `source .venv/bin/activate`):\n"
        "  crackseg ui                                 look at the run, its curves and its pictures\n"
        "  crackseg data import PHOTOGRAPHS --name MY  your own images and masks\n"
        "  dvc exp run -S loss.gamma=4                 one change against the paper's best model (needs a GPU)\n"
    )


def _read_metrics(root: Path) -> dict[str, dict] | None:
    """Read the metrics of the experiment by their first key, e.g. a dataset's name; None if there is no experiment."""
    for baseline in json.loads(read_dvc(root, "exp", "show", "--json")):
        for experiment in baseline.get("experiments") or []:
            if experiment["name"] == EXPERIMENT_NAME:
                files = experiment["revs"][-1]["data"]["metrics"].values()
                return {key: value for file in files for key, value in file.get("data", {}).items()}
    return None
