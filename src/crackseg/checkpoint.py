"""What a killed training needs to go on: where it lies, how it is written and read.

Checkpoints live in the real project folder, ``mlruns/checkpoints/KEY``, also for experiments in DVC's temporary
clones. KEY is a hash of everything that the weights follow from (settings, data, first weights, code), so a
checkpoint can only ever continue the training that it is of.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from crackseg.data.image_io import write_bytes
from crackseg.errors import CracksegError

LAST_NAME = "last.pt"
BEST_NAME = "best.pt"
RUN_NAME = "run.json"

# Modules whose text the weights follow from; training.py imports them, directly or not.
_CODE = ("devices.py", "records.py", "losses.py", "metrics.py", "inference.py", "training.py", "checkpoint.py")
_CODE_FOLDERS = ("data", "models")


def checkpoint_key(settings: dict[str, Any], data_digest: str) -> str:
    """Hash the settings of a training, its data and the code into a folder's name.

    Args:
        settings: flat params, anything JSON can hold.
        data_digest: changes when any training or validation pair does.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256(json.dumps([settings, data_digest], sort_keys=True, default=str).encode())
    folders = [path for folder in _CODE_FOLDERS for path in (package / folder).glob("*.py")]
    for path in sorted([package / name for name in _CODE] + folders):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:32]


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
            f"checkpoint {path} is damaged ({str(e).splitlines()[0][:120] if str(e) else type(e).__name__}); "
            f"delete the folder {path.parent} to train from the beginning"
        ) from e
