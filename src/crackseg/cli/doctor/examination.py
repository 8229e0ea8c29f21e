"""Run all checks in order; those that wait for a server run in parallel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from crackseg.cli.doctor.experiment_queue import check_queue
from crackseg.cli.doctor.findings import Finding
from crackseg.cli.doctor.machine import (
    check_disk,
    check_gpu,
    check_opencv,
    check_packages,
    check_python,
    check_torch,
    check_weights_cache,
)
from crackseg.cli.doctor.project import (
    check_data,
    check_pipeline_files,
    check_remote,
    check_settings,
    check_store,
)
from crackseg.data.versioning import can_run_copies
from crackseg.errors import first_line

ANSWER_S = 10.0  # seconds that a server or remote may take


class _InThread:
    """A check that runs in its own thread."""

    def __init__(self, check: Callable[[], Finding]) -> None:
        self._check = check
        self._finding: Finding | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._finding = self._check()
        except Exception as error:  # a check that fails is also a finding
            self._finding = Finding(self._check.__name__, "failed", first_line(error), "please report this")

    def wait(self) -> Finding:
        self._thread.join()
        assert self._finding is not None
        return self._finding


def examine(root: Path | None, *, answer_s: float = ANSWER_S) -> Iterator[Finding]:
    """Run all checks and yield their findings.

    Args:
        root: the project; None if there is none, which is a finding.
        answer_s: seconds that a tracking server and a remote may each take to answer.
    """
    waiting: list[_InThread] = []
    params = None
    settings = Finding(
        "project", "failed", "no crackseg project here or above", "go to the folder with params.yaml and dvc.yaml"
    )
    if root is not None:
        settings, params = check_settings(root)

        def store() -> Finding:
            return check_store(root, timeout_s=answer_s)

        def remote() -> Finding:
            return check_remote(root, timeout_s=answer_s)

        def queue() -> Finding:
            return check_queue(root, timeout_s=6 * answer_s)

        waiting = [_InThread(store), _InThread(remote), _InThread(queue)]
    yield check_python()
    yield from check_packages(params)
    yield check_torch()
    yield check_gpu(params)
    yield check_opencv()
    yield check_weights_cache(params)
    places = {"the project": root, "DVC's cache": root / ".dvc", "the store": root / "mlruns"} if root else {}
    yield check_disk(places or {"this folder": Path.cwd()})
    yield settings
    if root is not None:
        yield check_data(root, params)
        yield check_pipeline_files(root)
        if not can_run_copies(root):
            yield Finding(
                "folder", "warning", f"DVC finds no temporary copies below {root}: `dvc exp run --temp`, the queue and "
                "`crackseg demo` fail", "use a path of ASCII letters without # and ? for them; all else works here",
            )  # fmt: skip
    for beside in waiting:
        yield beside.wait()
