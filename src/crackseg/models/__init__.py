"""The networks: `build_model` turns the `model` section of params.yaml into one."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from crackseg.errors import CracksegError
from crackseg.models import deeplabv3
from crackseg.models.deepcrack import DeepCrack
from crackseg.models.initialization import initialize
from crackseg.models.network import TRAIN_LAYERS, CrackNetwork, NetworkBody
from crackseg.models.unet import UNet

__all__ = ["ARCHITECTURES", "CrackNetwork", "build_model"]


@dataclass(frozen=True, slots=True)
class BodyOptions:
    """What an architecture may read; each reads `num_classes`, and the rest as the table below says."""

    num_classes: int
    width: int
    batch_norm: bool


ARCHITECTURES: dict[str, Callable[[BodyOptions], NetworkBody]] = {
    "deeplabv3_resnet101": lambda options: deeplabv3.deeplabv3_resnet101(options.num_classes),
    "deeplabv3_resnet50": lambda options: deeplabv3.deeplabv3_resnet50(options.num_classes),
    "deeplabv3_mobilenet_v3_large": lambda options: deeplabv3.deeplabv3_mobilenet_v3_large(options.num_classes),
    "unet": lambda options: UNet(options.num_classes, options.width),
    # The paper's [6] in its own words: symmetric, skip connections, one loss at the end. Ronneberger's width,
    # and everything else in UNet, are our choice.
    "modified_unet": lambda options: UNet(options.num_classes, width=64),
    "deepcrack": lambda options: DeepCrack(options.num_classes, batch_norm=options.batch_norm),
}


def build_model(
    architecture: str,
    *,
    init: str = "random",
    num_classes: int = 1,
    normalize: bool = False,
    train_layers: str = "all",
    width: int = 16,
    batch_norm: bool = True,
) -> CrackNetwork:
    """Build a network with its initial weights; the arguments are those of params.yaml's ``model`` section.

    Random weights come from torch's global generator, so seed it before.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        init: ``random``, ``imagenet``, ``coco`` or a path; see :func:`crackseg.models.initialization.initialize`.
        num_classes: 1 map (crack), or 2 (background and crack, which `CrackNetwork` brings to one).
        normalize: subtract ImageNet's mean and divide by its deviation, inside the model.
        train_layers: ``all``, or ``classifier``: only the head is trained, i.e. DeepLabV3's classifier, U-Net's
            last 1×1 convolution, DeepCrack's side outputs and their fusion.
        width: channels of the first level; read by ``unet`` alone.
        batch_norm: normalise after each convolution; only ``deepcrack`` can do without.
    Returns:
        The network on the CPU, in training mode.
    Raises:
        CracksegError: an unknown architecture (the nearest names are shown) or a value out of range, or the
            initial weights cannot be had.
    """
    _check_choice("model.architecture", architecture, tuple(ARCHITECTURES))
    _check_choice("model.num_classes", num_classes, (1, 2))
    _check_choice("model.train_layers", train_layers, TRAIN_LAYERS)
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise CracksegError(f"model.width = {width!r}: expected a whole number of channels, at least 1")
    if not batch_norm and architecture != "deepcrack":
        raise CracksegError(
            f"model.batch_norm = {batch_norm!r}: {architecture} always normalises, only deepcrack can do without; "
            "set model.batch_norm: true"
        )
    body = ARCHITECTURES[architecture](BodyOptions(num_classes, width, batch_norm))
    initialize(body, architecture, init)
    return CrackNetwork(
        body,
        num_classes=num_classes,
        normalize=normalize,
        train_layers=train_layers,
        pretrained=init != "random",
    )


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is not among the choices, naming the nearest; True is not taken for 1."""
    if value in choices and not isinstance(value, bool):
        return
    names = [choice for choice in choices if isinstance(choice, str)]
    close = difflib.get_close_matches(str(value), names, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise CracksegError(f"{name} = {value!r}: expected one of {', '.join(map(str, choices))}{hint}")
