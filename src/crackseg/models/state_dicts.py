"""Read weights from a file of unknown origin, and copy them into a network.

Two kinds of file are supported: crackseg's own (see weights_file.py), which also describes its network,
and a plain state dict, ``torch.save(model.state_dict(), path)``. No code in a file is ever executed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crackseg.errors import CracksegError

StateDict = Mapping[str, Tensor]

FORMAT = "crackseg-weights"
VERSION = 1

# What torch.load raises for a file that is cut short, overwritten, or no torch file at all.
DAMAGED_FILE_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
)


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """Content of a weights file.

    Attributes:
        state_dict: tensors by key, in the layout of a network's body (torchvision's for DeepLabV3).
        model: the arguments of ``build_model``; None for a bare state dict.
        extra: further plain values of the file.
    """

    state_dict: dict[str, Tensor]
    model: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def read_weights(path: Path) -> StoredWeights:
    """Read a weights file of either kind, onto the CPU.

    Raises:
        CracksegError: the file is missing, unreadable, damaged, or holds something else.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CracksegError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except DAMAGED_FILE_ERRORS as error:
        raise CracksegError(
            f"{path}: not a weights file, or damaged or cut short; expected a file written by crackseg or by "
            "torch.save(model.state_dict(), path); fetch or write it again"
        ) from error
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return _read_own_format(path, content)
    if not isinstance(content, Mapping) or not content or not all(_is_entry(*item) for item in content.items()):
        keys = f" with keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise CracksegError(
            f"{path}: expected a state dict (tensors by name), got a {type(content).__name__}{keys}; "
            "save the weights alone, with torch.save(model.state_dict(), path)"
        )
    return StoredWeights(dict(content))


def _is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _read_own_format(path: Path, content: dict[str, Any]) -> StoredWeights:
    if content.get("version") != VERSION:
        raise CracksegError(
            f"{path}: weights format version {content.get('version')!r}; this crackseg reads version {VERSION}, "
            "so use the version of crackseg that wrote the file"
        )
    state_dict, model, extra = (content.get(key) for key in ("state_dict", "model", "extra"))
    complete = (
        isinstance(model, dict)
        and isinstance(extra, dict)
        and isinstance(state_dict, dict)
        and all(_is_entry(*item) for item in state_dict.items())
    )
    if not complete:
        raise CracksegError(f"{path}: a crackseg weights file with parts missing; fetch or write it again")
    return StoredWeights(dict(state_dict), dict(model), dict(extra))  # type: ignore[arg-type]


def load_state(module: nn.Module, state_dict: Mapping[str, Tensor], *, source: str, target: str) -> None:
    """Copy a state dict into a module, completely or not at all.

    Counters of batches may be missing: torchvision's older files have none, and they are not used here.

    Args:
        module: whose ``state_dict()`` gives the expected keys and shapes.
        state_dict: tensors by key.
        source, target: names for error messages, e.g. a path and an architecture.
    Raises:
        CracksegError: a key is missing or unknown, or a shape differs; the first few are named.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state_dict and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state_dict if key not in own]
    misshapen = [
        f"{key}: {tuple(state_dict[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state_dict and state_dict[key].shape != own[key].shape
    ]
    if missing or unknown or misshapen:
        problems = "".join(
            f"\n  {len(keys)} {kind}: {', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}"
            for kind, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
            if keys
        )
        raise CracksegError(f"{source}: these are not the weights of {target}:{problems}")
    # A plain dict, without the version mark of torch's own: then missing counters are filled in.
    module.load_state_dict(dict(state_dict))


def keys_below(state: StateDict, prefix: str) -> dict[str, Tensor]:
    """Keep the keys under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def keys_without(state: StateDict, prefix: str) -> dict[str, Tensor]:
    """Leave out the keys under a prefix."""
    return {key: value for key, value in state.items() if not key.startswith(prefix)}
