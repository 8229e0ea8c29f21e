"""What a killed training needs to go on: where it lies, how it is written and read.

Checkpoints live in the real project folder, ``mlruns/checkpoints/KEY``, also for experiments in DVC's temporary
clones. KEY is a hash of everything that the weights follow from (settings, data, first weights, code), so a
checkpoint can only ever continue the training that it is of.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
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
BEST_NAME = "best.pt"
RUN_NAME = "run.json"


@dataclass(slots=True)
class Progress:
    """How far a training is and what was best; saved in the checkpoint."""

    epoch: int = 0  # epochs done
    step: int = 0  # optimiser steps done
    val_loss: float = math.inf
    best_epoch: int = -1
    best_ods: float = -1.0
    best_val_loss: float = math.inf
    operating_threshold: float = 0.5  # of the best weights: raw probability, chosen on validation images
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def checkpoint_key(settings: dict[str, Any], data_digest: str, code_digest: str) -> str:
    """Hash everything that a training follows from into a folder's name.

    Args:
        settings: flat params, anything JSON can hold.
        data_digest: changes when any training or validation pair does.
        code_digest: see :func:`crackseg.lineage.hash_code`.
    """
    text = json.dumps([settings, data_digest, code_digest], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state beside its place and rename it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


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


def resume(checkpoint_dir: Path, stateful: dict[str, Any], processes: Processes = ALONE) -> Progress:
    """Take up what was saved in the folder; a fresh Progress if nothing was.

    Args:
        checkpoint_dir: the training's own.
        stateful: what has a state_dict, by name, as it was saved.
        processes: the first of them reads, and all take up the same.
    Raises:
        CracksegError: the checkpoint is damaged or of another training.
    """
    path = checkpoint_dir / LAST_NAME
    # Only the first one's machine need have the file.
    state = processes.broadcast(load_state(path) if processes.is_first and path.exists() else None)
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
    _log.info("going on after epoch %d, from %s", progress.epoch, path)
    return progress


def save_progress(
    checkpoint_dir: Path, stateful: dict[str, Any], progress: Progress, processes: Processes = ALONE
) -> None:
    """Save all that :func:`resume` needs."""
    state = {name: holder.state_dict() for name, holder in stateful.items()}
    state["rng"] = torch.get_rng_state()  # dropout draws from it
    # Of several processes each has seeded its own for the epoch, and must not touch the others' GPUs.
    alone = processes.size == 1
    state["cuda_rng"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and alone else []
    state["progress"] = json.dumps(asdict(progress))
    save_unless_full(checkpoint_dir / LAST_NAME, state)


def save_unless_full(path: Path, state: dict[str, Any]) -> None:
    """Save; a full disk costs the newest checkpoint, not the training."""
    try:
        save_state(path, state)
    except OSError as error:
        if not path.exists() and path.name == BEST_NAME:
            raise CracksegError(
                f"{path} cannot be written ({error}); free some disk space and start again"
            ) from error
        _log.warning("checkpoint %s cannot be written (%s); going on with the one before", path, error)
