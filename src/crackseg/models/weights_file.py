"""Save and load a trained network as one file with its architecture; written by training, read by prediction.

The file is torch's zip format with ``{"format", "version", "model", "state_dict", "extra"}``, tensors and plain
values only, so it loads with ``weights_only=True``. The state dict is the body's: for DeepLabV3 torchvision's
own keys.
"""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.models import build_model
from crackseg.models.network import CrackNetwork
from crackseg.models.state_dicts import FORMAT, VERSION, load_state, read_weights


def save_weights(
    path: Path, network: CrackNetwork, *, spec: dict[str, Any], extra: dict[str, Any], half: bool = False
) -> None:
    """Write a network's weights next to their final path and rename the file.

    Args:
        path: the file.
        network: on any device; its weights are stored as CPU tensors.
        spec: the arguments of ``build_model`` that made it, ``architecture`` included.
        extra: plain values to keep with it (numbers, strings, lists, dicts), e.g. ``operating_threshold``.
        half: store float16, half the size; it is float32 again when it is loaded.
    Raises:
        TypeError: a value in ``spec`` or ``extra`` is not plain.
    """
    # Through JSON, because a NumPy number would be saved without an error and then refused by every reader.
    spec, extra = json.loads(json.dumps([spec, extra]))
    state_dict = {key: value.detach().cpu().contiguous() for key, value in network.body.state_dict().items()}
    if half:
        state_dict = {
            key: value.half() if value.is_floating_point() else value for key, value in state_dict.items()
        }
    content = {"format": FORMAT, "version": VERSION, "model": spec, "state_dict": state_dict, "extra": extra}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue(), durable=True)  # the checkpoints are removed next


def load_network(
    path: Path, *, map_location: str | torch.device = "cpu", expected_architecture: str | None = None
) -> tuple[CrackNetwork, dict[str, Any]]:
    """Rebuild the network of a file written by :func:`save_weights`.

    torch's global random state is left as it was.

    Args:
        path: the file.
        map_location: device to put the network on.
        expected_architecture: refuse a file of any other.
    Returns:
        The network, in evaluation mode, and the file's ``extra``.
    Raises:
        CracksegError: missing, damaged, not written by crackseg, of another architecture than expected, or of
            an architecture or option that this version does not know.
    """
    stored = read_weights(path)
    if stored.model is None:
        raise CracksegError(
            f"{path}: a bare state dict, which does not say what network it belongs to; expected a file written "
            "by crackseg. To train on from it, give it as model.init"
        )
    architecture = stored.model.get("architecture")
    if expected_architecture is not None and architecture != expected_architecture:
        raise CracksegError(
            f"{path}: holds weights of {architecture}, expected {expected_architecture}; "
            "choose the file or model.architecture accordingly"
        )
    options = inspect.signature(build_model).parameters
    unknown = [key for key in stored.model if key not in options]
    if architecture is None or unknown:
        raise CracksegError(
            f"{path}: describes its model by {stored.model}, which this crackseg cannot build; use the version "
            "of crackseg that wrote the file"
        )
    with torch.random.fork_rng(devices=[]), ZerosForRandomNumbers():
        network = build_model(**{**stored.model, "init": "random"})
    load_state(network.body, stored.state_dict, source=str(path), target=f"the {architecture} that it describes")
    network.pretrained = True
    return network.to(map_location).eval(), stored.extra


class ZerosForRandomNumbers(TorchFunctionMode):
    """Fill with zeros what would be filled at random: weights that a file overwrites need not be drawn.

    Drawing them took half of the time to load a large network: a third of a second of DeepLabV3-ResNet101's two thirds.
    torch.nn.init's functions are named too, because a mode does not see what they call.
    """

    _DRAWING = (
        Tensor.normal_, Tensor.uniform_, torch.nn.init.normal_, torch.nn.init.uniform_,
        torch.nn.init.kaiming_normal_, torch.nn.init.kaiming_uniform_,
    )  # fmt: skip

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function not in self._DRAWING:
            return function(*args, **kwargs)
        tensor = args[0] if args else kwargs["tensor"]
        with torch.no_grad():
            return tensor.zero_()
