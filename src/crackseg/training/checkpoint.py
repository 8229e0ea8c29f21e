"""Save and load checkpoints, from which an interrupted training run resumes.

Checkpoints live in the real project folder, ``mlruns/checkpoints/KEY``, also for experiments in DVC's temporary
clones. KEY is a hash of everything that the weights depend on (settings, data, first weights, code), so a
checkpoint can only resume the training run that wrote it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from crackseg.errors import CracksegError, first_line
from crackseg.files import write_bytes
from crackseg.training.distributed.processes import ALONE, Processes

_log = logging.getLogger("crackseg")
LAST_NAME = "last.pt"
PREVIOUS_NAME = "previous.pt"  # the last but one, for a disk that loses the last
BEST_NAME = "best.pt"
RUN_NAME = "run.json"


@dataclass(slots=True)
class Progress:
    """Progress of a training run and its best scores; saved in the checkpoint."""

    epoch: int = 0  # epochs done
    step: int = 0  # optimiser steps done
    val_loss: float = math.inf
    best_epoch: int = 0
    best_ods: float = -1.0
    best_val_loss: float = math.inf
    operating_threshold: float = 0.5  # of the best weights: raw probability, chosen on validation images
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process, over all cores
    history: list[dict[str, float]] = field(default_factory=list)


def checkpoint_key(settings: dict[str, Any], data_digest: str, code_digest: str) -> str:
    """Hash everything that a training run depends on into a folder's name.

    Args:
        settings: flat params, anything JSON can hold.
        data_digest: changes with any training or validation pair.
        code_digest: see :func:`crackseg.lineage.hash_code`.
    """
    text = json.dumps([settings, data_digest, code_digest], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state under another name and rename it; it is on the disk then."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue(), durable=True)


def load_state(path: Path) -> dict[str, Any]:
    """Read a state; no code in the file is run.

    Raises:
        CracksegError: the file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as e:
        raise CracksegError(
            f"checkpoint {path} is damaged ({first_line(e)}); "
            f"delete the folder {path.parent} to train from the beginning"
        ) from e


def has_checkpoint(checkpoint_dir: Path) -> bool:
    """Return whether a training run can be resumed from this folder."""
    return any((checkpoint_dir / name).exists() for name in (LAST_NAME, PREVIOUS_NAME))


def load_newest(checkpoint_dir: Path) -> dict[str, Any] | None:
    """Load the last checkpoint or, if that is damaged or missing, the one before it; None if there is neither.

    Raises:
        CracksegError: what there is, is damaged.
    """
    last, previous = checkpoint_dir / LAST_NAME, checkpoint_dir / PREVIOUS_NAME
    try:
        if last.exists():
            return load_state(last)
    except CracksegError as error:
        if not previous.exists():
            raise
        damage = str(error.__cause__ and first_line(error.__cause__))
        state = load_state(previous)
        _log.warning("checkpoint %s is damaged (%s); using the one before it, %s", last, damage, previous.name)
    else:
        if not previous.exists():
            return None
        state = load_state(previous)
    os.replace(previous, last)  # else the next checkpoint would put the damaged one in place of the good one
    return state


def resume(checkpoint_dir: Path, stateful: dict[str, Any], processes: Processes = ALONE) -> Progress:
    """Load the state saved in the folder; return a new Progress if there is none.

    Args:
        checkpoint_dir: of the training run.
        stateful: objects with a state_dict, by the name they were saved under.
        processes: the first one reads, and all load the same state.
    Raises:
        CracksegError: the checkpoint is damaged or of another training run.
    """
    path = checkpoint_dir / LAST_NAME
    # Only the machine of the first process needs the file.
    state = processes.broadcast(load_newest(checkpoint_dir) if processes.is_first else None)
    if state is None:
        return Progress()
    try:
        for name, holder in stateful.items():
            holder.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        progress = Progress(**json.loads(state["progress"]))
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise CracksegError(
            f"checkpoint {path} is of another training ({first_line(error)}); delete the folder "
            f"{checkpoint_dir} to train from the beginning"
        ) from error
    _log.info("resuming after epoch %d, from %s", progress.epoch, path)
    return progress


def save_progress(
    checkpoint_dir: Path, stateful: dict[str, Any], progress: Progress, processes: Processes = ALONE
) -> None:
    """Save the state that :func:`resume` loads."""
    state = {name: holder.state_dict() for name, holder in stateful.items()}
    state["rng"] = torch.get_rng_state()  # used by dropout
    # Of several processes each has its own seed for the epoch, and must not use the others' GPUs.
    alone = processes.size == 1
    state["cuda_rng"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and alone else []
    state["progress"] = json.dumps(asdict(progress))
    with contextlib.suppress(OSError):  # no checkpoint yet, or a disk without links: there is none before it then
        _keep_previous(checkpoint_dir)
    save_unless_full(checkpoint_dir / LAST_NAME, state)


def _keep_previous(checkpoint_dir: Path) -> None:
    """Give the last checkpoint a second name, under which it stays when the next one takes its place."""
    link = checkpoint_dir / f".{PREVIOUS_NAME}.tmp"
    link.unlink(missing_ok=True)  # left by a kill
    os.link(checkpoint_dir / LAST_NAME, link)
    os.replace(link, checkpoint_dir / PREVIOUS_NAME)


def save_unless_full(path: Path, state: dict[str, Any]) -> None:
    """Save a checkpoint; on a full disk, warn and keep the previous one."""
    try:
        save_state(path, state)
    except OSError as error:
        if not path.exists() and path.name == BEST_NAME:
            raise CracksegError(
                f"{path} cannot be written ({error}); free some disk space and start again"
            ) from error
        _log.warning("checkpoint %s cannot be written (%s); continuing with the one before", path, error)
