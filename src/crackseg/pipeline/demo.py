"""Demo: the whole pipeline on the sample data, as a DVC experiment with the settings of the preset ``quick``."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from crackseg.child_processes import describe_exit, find_reason
from crackseg.data.catalog import read_manifest
from crackseg.data.guard import check_git
from crackseg.data.versioning import (
    can_run_copies,
    check_pipeline,
    fetch_data,
    find_experiment,
    read_of_experiment,
    run_dvc,
    run_dvc_guarded,
)
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
    check_git(root)
    if not can_run_copies(root):
        raise CracksegError(
            f"{root}: DVC finds no temporary copies below such a path, in which the demo runs; move the project to a "
            "path of ASCII letters without # and ?"
        )
    check_pipeline(root)
    fetch_data(root)
    params = load_params(root / "params.yaml")
    overrides = [word for setting in list_settings(params) for word in ("--set-param", setting)]
    if find_experiment(root, EXPERIMENT_NAME):
        run_dvc(root, "exp", "remove", EXPERIMENT_NAME)
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

    datasets = params.data.test_datasets
    reference = find_experiment(root, EXPERIMENT_NAME)
    if not reference:
        raise CracksegError(f"DVC has no experiment {EXPERIMENT_NAME!r} although it ran; see `dvc exp show`")
    paths = ["outputs/model/run.json", *(f"outputs/scores/{name}.json" for name in datasets)]
    run, *files = map(json.loads, read_of_experiment(root, reference, paths))
    scores = {name: file[name] for name, file in zip(datasets, files, strict=True)}
    source = describe_source([s for name in datasets for s in set(read_manifest(root / "data", name)["source"])])
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    report = root / "mlruns" / "artifacts" / run["run_id"] / "artifacts" / "report"  # none with a tracking server
    picture = report / f"{datasets[0]}_panels.png"
    return (
        f"\n{format_score_table(scores, source=source)}\n"
        f"All of it took {minutes} min {seconds} s. "
        + (f"Test images with their crack maps: {picture}\n" if picture.is_file() else "\n")
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
