"""Check DVC's queue of experiments: nothing runs there unless a worker does."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import psutil

from crackseg.cli.doctor.findings import Finding

# In a process of its own: loading DVC takes seconds, in which other checks run.
_ASK_QUEUE = """
import json, logging
logging.getLogger("kombu").setLevel(logging.ERROR)
from dvc.repo import Repo
queue = Repo().experiments.celery_queue
waiting = [entry.name or entry.stash_rev[:7] for entry in queue.iter_queued()]
print(json.dumps([waiting, [entry.name or entry.stash_rev[:7] for entry in queue.iter_active()]]))
"""


def check_queue(root: Path, *, timeout_s: float) -> Finding:
    """Check that what is queued will run: DVC starts no worker by itself, and says nothing of one that died."""
    celery = root / ".dvc" / "tmp" / "exps" / "celery"
    if not any(path.suffix == ".msg" for path in (celery / "broker").rglob("*")):
        return Finding("queue", "ok", "empty")
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_QUEUE],
            cwd=root,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            check=True,
        )
        waiting, started = json.loads(asked.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        said = (str(getattr(error, "stderr", "") or error).strip().splitlines() or [""])[-1]
        return Finding("queue", "warning", f"cannot be read: {said[:200]}", "see `dvc queue status`")
    workers = count_workers(celery)
    if (waiting or started) and not workers:
        parts = [f"{len(waiting)} queued"] if waiting else []
        advice = ["dvc queue start    (with -j 2, two at once)"] if waiting else []
        if started:
            parts.append(f"{len(started)} stopped when the worker ended ({', '.join(started)})")
            advice.append(
                f"dvc queue kill {' '.join(started)}, then queue the same again: a training run resumes after its last "
                "epoch"
            )
        return Finding("queue", "warning", f"{', '.join(parts)}, no worker running", "\n".join(advice))
    running = f"{len(waiting)} queued, {len(started)} running, workers: {workers}"
    return Finding("queue", "ok", running if waiting or started else "empty")


def count_workers(celery: Path) -> int:
    """Count the running processes of `dvc queue start` for a queue.

    Args:
        celery: DVC's folder of the queue, whose digest is in the name of its workers.
    """
    # Asking the workers, as `dvc queue status` does, misses a busy one: they look for questions once a second.
    node = f"dvc-exp-{hashlib.sha256(str(celery).encode()).hexdigest()[:6]}-"
    return sum(
        "queue-worker" in words and any(word.startswith(node) for word in words)
        for process in psutil.process_iter(["cmdline"])
        if (words := process.info["cmdline"] or [])
    )
