"""Start training in several processes with torch's elastic launcher, as ``torchrun`` does."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from crackseg.child_processes import cores_each, describe_exit, find_reason
from crackseg.errors import CracksegError

_GRACE_S = 30  # time for the others to end by themselves after one has died


def run_in_processes(num_processes: int, arguments: Sequence[str]) -> None:
    """Run ``crackseg ARGUMENTS`` in several processes of this machine, and wait for their end.

    When one of them ends early, the launcher ends the others.

    Raises:
        CracksegError: one of them failed.
        KeyboardInterrupt: this process was asked to stop, and has stopped them.
    """
    # The launcher's own messages are logs with time stamps and tables; the failure is reported below.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Each would start a thread for every core.
    os.environ.setdefault("OMP_NUM_THREADS", str(cores_each(num_processes)))
    with tempfile.TemporaryDirectory() as scratch:
        _launch(num_processes, arguments, DefaultLogsSpecs(log_dir=scratch))


def _launch(num_processes: int, arguments: Sequence[str], logs: DefaultLogsSpecs) -> None:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,  # the same command restarts training from the checkpoint
        shutdown_timeout=_GRACE_S,
        logs_specs=logs,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "crackseg", *arguments)
    except ChildFailedError as error:
        rank, failure = min(
            error.failures.items(), key=lambda item: (_rank_cause(item[1].exitcode), item[1].timestamp)
        )
        reason = f". {found[0].upper()}{found[1:]}" if (found := find_reason(failure.exitcode)) else ""
        raise CracksegError(
            f"process {rank} of {num_processes} ended {describe_exit(failure.exitcode)}, so the training ended; its "
            "messages are above. The same command resumes from the last checkpoint" + reason
        ) from error
    except SignalException as stopped:
        raise KeyboardInterrupt("training stopped; the same command resumes from the last checkpoint") from stopped


def _rank_cause(exit_code: int) -> int:
    """Rank causes: of several processes that ended at about the same time, the lowest rank is the cause."""
    if exit_code == -signal.SIGTERM:
        return 2  # the launcher ended it
    # A killed process comes before those that failed because of it.
    return 0 if exit_code < 0 else 1
