"""Demo: the whole pipeline on the sample data, as a DVC experiment with the settings of the preset ``quick``."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from crackseg.child_processes import describe_exit, find_reason
from crackseg.data.catalog import read_manifest
from crackseg.data.versioning import fetch_data, read_dvc, run_dvc, run_dvc_guarded
from crackseg.errors import CracksegError
from crackseg.params import Params, flatten_params, load_params
from crackseg.params.presets import find_preset
from crackseg.pipeline.headings import SINCE, list_stages
from crackseg.project import find_real_root

EXPERIMENT_NAME = "demo"
PRESET = "quick"
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
    params = load_params(root / "params.yaml")
    overrides = [word for setting in list_settings(params) for word in ("--set-param", setting)]
    if _has_experiment(root):
        run_dvc(root, "exp", "remove", "--quiet", EXPERIMENT_NAME)
    print(
        f"The whole pipeline on the sample data: {len(list_stages(params.data.test_datasets))} stages. "
        "Ctrl-C stops it; the same command resumes.",
        flush=True,
    )
    os.environ[SINCE] = str(time.time())  # the stages print headings
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

    datasets = params.data.test_datasets
    scores = _read_metrics(root)
    if scores is None:
        raise CracksegError(f"DVC has no experiment {EXPERIMENT_NAME!r} although it ran; see `dvc exp show`")
    source = describe_source([s for name in datasets for s in set(read_manifest(root / "data", name)["source"])])
    picture = _find_picture(root, datasets[0])
    return (
        f"\n{format_score_table({name: scores[name] for name in datasets}, source=source)}\n"
        f"All of it took {format_duration(time.monotonic() - started)}. "
        + (f"Test images with their crack maps: {picture}\n" if picture else "\n")
        + "What to try next (after `source .venv/bin/activate`):\n"
        "  crackseg ui                                 look at the run, its curves and its pictures\n"
        "  crackseg predict PHOTOGRAPHS --out found    find the cracks in your own photographs\n"
        "  crackseg data import PHOTOGRAPHS --name MY  your own images and masks; then `crackseg preset laptop`\n"
    )


def list_settings(params: Params) -> list[str]:
    """List what the preset changes in params.yaml, as DVC takes it: ``section.key=value``."""
    flat = flatten_params(params)
    wanted = {key: value for key, value in find_preset(PRESET).settings.items() if flat[key] != value}
    return [f"{key}={json.dumps(value)}" for key, value in wanted.items()]


def _has_experiment(root: Path) -> bool:
    """Look for the experiment in git, where DVC keeps it; DVC itself takes seconds to list its experiments."""
    command = ["git", "for-each-ref", "--format=%(refname)", f"refs/exps/**/{EXPERIMENT_NAME}"]
    return bool(subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip())


def _find_picture(root: Path, dataset: str) -> Path | None:
    """Find the report's newest panels among the runs' files; None if a server has them."""
    found = (root / "mlruns" / "artifacts").glob(f"*/artifacts/report/{dataset}_panels.png")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _read_metrics(root: Path) -> dict[str, dict] | None:
    """Read the metrics of the experiment by their first key, e.g. a dataset's name; None if there is no experiment."""
    for baseline in json.loads(read_dvc(root, "exp", "show", "--json")):
        for experiment in baseline.get("experiments") or []:
            if experiment["name"] == EXPERIMENT_NAME:
                files = experiment["revs"][-1]["data"]["metrics"].values()
                return {key: value for file in files for key, value in file.get("data", {}).items()}
    return None
