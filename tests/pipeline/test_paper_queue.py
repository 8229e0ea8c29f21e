"""Cells of the paper through DVC's queue: queued once, run once, and the workspace stays as it was."""

import time

import pytest

from tests.pipeline.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# The baselines are real configurations that a narrow network makes affordable; the project's params.yaml has width 4.
CONFIGURATIONS = ("--cell", "table3-modified-unet", "--cell", "table3-deepcrack")
QUICK = ("-S", "train.epochs=1", "-S", "data.test_datasets=[CRKWH100]")


def queue_configurations(project: Project, *arguments: str, fails: bool = False) -> str:
    return project.run("crackseg", "paper", "queue", *arguments, fails=fails)


def workspace_of(project: Project) -> tuple[str, ...]:
    """What a user would miss: tracked, staged and untracked changes, the branch, the stash."""
    commands = (["git", "status", "--porcelain", "--branch"], ["git", "diff"], ["git", "diff", "--cached"],
                ["git", "stash", "list"])  # fmt: skip
    return tuple(project.run(*command) for command in commands)


def run_queue(project: Project, number: int) -> str:
    # Into a file: the worker inherits a pipe, and whoever reads it would wait for the worker's end.
    project.run("sh", "-c", "dvc queue start > ../queue.log 2>&1")
    deadline = time.monotonic() + 500
    status = ""
    while time.monotonic() < deadline and status.count("Success") + status.count("Failed") < number:
        time.sleep(2)
        status = project.run("dvc", "queue", "status")
    project.run("dvc", "queue", "stop", "--kill")
    return status


def test_cells_are_queued_and_run_once(fresh: Project) -> None:
    (fresh.folder / "notes.txt").write_text("untracked")
    with (fresh.folder / "params.yaml").open("a") as file:
        file.write("# an uncommitted note\n")
    with (fresh.folder / "dvc.yaml").open("a") as file:
        file.write("# a staged note\n")
    fresh.run("git", "add", "dvc.yaml")
    before = workspace_of(fresh)

    first = queue_configurations(fresh, *CONFIGURATIONS, *QUICK)
    assert "0 finished, 0 waiting or running in the queue, 2 to queue" in first
    assert "train.epochs 1 (paper: 300)" in first
    assert "RTX 2080" in first
    assert workspace_of(fresh) == before

    assert "2 waiting or running in the queue, 0 to queue" in queue_configurations(fresh, *CONFIGURATIONS, *QUICK)
    # Other settings are other experiments, also of the same configuration.
    other = queue_configurations(fresh, *CONFIGURATIONS[:2], "-S", "train.epochs=2", "--dry-run")
    assert "table3-modified-unet-2" in other

    status = run_queue(fresh, 2)
    assert status.count("Success") == 2, status + fresh.run("dvc", "queue", "logs", "table3-deepcrack")
    assert {"table3-modified-unet", "table3-deepcrack"} <= set(
        fresh.run("dvc", "exp", "list", "--name-only").split()
    )

    after = queue_configurations(fresh, *CONFIGURATIONS, *QUICK)
    assert "2 finished, 0 waiting or running in the queue, 0 to queue" in after
    assert "Table 4" not in queue_configurations(
        fresh, *CONFIGURATIONS, *QUICK[2:], "-S", "train.epochs=2", "--dry-run"
    )
    assert "2 finished" in queue_configurations(
        fresh, *CONFIGURATIONS, *QUICK, "-S", "train.num_workers=1", "--dry-run"
    )
    assert workspace_of(fresh) == before


def test_nothing_is_queued_by_mistake(fresh: Project) -> None:
    before = workspace_of(fresh)
    assert "unknown key train.epoch; did you mean train.epochs?" in queue_configurations(
        fresh, *CONFIGURATIONS, "-S", "train.epoch=1", fails=True
    )
    assert "add --yes" in queue_configurations(fresh, "--grid", "-S", "model.width=null", fails=True)
    assert "0 finished, 0 waiting or running in the queue, 10 to queue" in queue_configurations(
        fresh, "--table3", "-S", "model.width=null", "--dry-run"
    )
    assert "table3-" not in fresh.run("dvc", "queue", "status")
    assert workspace_of(fresh) == before
