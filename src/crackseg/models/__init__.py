"""The networks: `build_model` turns the `model` section of params.yaml into one."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from crackseg.errors import CracksegError
from crackseg.models import deeplabv3, smp_models
from crackseg.models.deepcrack import DeepCrack
from crackseg.models.encnet import EncNet
from crackseg.models.encoders import EncoderBody, explained_errors, try_out
from crackseg.models.initialization import initialize
from crackseg.models.network import TRAIN_LAYERS, CrackNetwork, NetworkBody
from crackseg.models.segmenter import Segmenter
from crackseg.models.setr import SETR
from crackseg.models.unet import UNet

__all__ = ["ARCHITECTURES", "ENCODERS", "WIDTHS", "CrackNetwork", "build_model"]


@dataclass(frozen=True, slots=True)
class BodyOptions:
    """What an architecture may read; each reads `num_classes`, and the rest as the tables below say."""

    num_classes: int
    width: int
    batch_norm: bool
    encoder: str


ARCHITECTURES: dict[str, Callable[[BodyOptions], NetworkBody]] = {
    "deeplabv3_resnet101": lambda options: deeplabv3.deeplabv3_resnet101(options.num_classes),
    "deeplabv3_resnet50": lambda options: deeplabv3.deeplabv3_resnet50(options.num_classes),
    "deeplabv3_mobilenet_v3_large": lambda options: deeplabv3.deeplabv3_mobilenet_v3_large(options.num_classes),
    "unet": lambda options: UNet(options.num_classes, options.width),
    # The paper's [6] in its own words: symmetric, skip connections, one loss at the end. Ronneberger's width,
    # and everything else in UNet, are our choice.
    "modified_unet": lambda options: UNet(options.num_classes, options.width),
    "deepcrack": lambda options: DeepCrack(
        options.num_classes, width=options.width, batch_norm=options.batch_norm
    ),
    # The other systems of the paper's Table 1.
    "pspnet": lambda options: smp_models.pspnet(options.num_classes, options.encoder),
    "deeplabv3plus": lambda options: smp_models.deeplabv3plus(options.num_classes, options.encoder),
    "segformer": lambda options: smp_models.segformer(options.num_classes, options.encoder),
    "upernet": lambda options: smp_models.upernet(options.num_classes, options.encoder),
    "encnet": lambda options: EncNet(options.num_classes, options.encoder),
    "setr": lambda options: SETR(options.num_classes, options.encoder),
    "segmenter": lambda options: Segmenter(options.num_classes, options.encoder),
}

# The architectures with a width to choose, and with an encoder, each with what it has if none is chosen.
WIDTHS = {"unet": 16, "modified_unet": 64, "deepcrack": 64}
ENCODERS = {
    # Of the size of ResNet-101, or the nearest to it, as the paper's DeepLabV3.
    "pspnet": "resnet101",
    "deeplabv3plus": "resnet101",
    "encnet": "resnet101",
    "segformer": "mit_b3",
    "upernet": "swin_small_patch4_window7_224",
    # DeiT rather than ViT: its weights were trained with the mean and deviation that `normalize` uses.
    "setr": "deit_base_patch16_384",
    "segmenter": "deit_base_patch16_384",
}


def build_model(
    architecture: str,
    *,
    init: str = "random",
    num_classes: int = 1,
    normalize: bool = False,
    train_layers: str = "all",
    width: int | None = None,
    batch_norm: bool = True,
    encoder: str = "",
) -> CrackNetwork:
    """Build a network with its initial weights; the arguments are those of params.yaml's ``model`` section.

    Random weights come from torch's global generator, so seed it before.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        init: ``random``, ``imagenet``, ``coco`` or a path; see :func:`crackseg.models.initialization.initialize`.
        num_classes: 1 map (crack), or 2 (background and crack, which `CrackNetwork` brings to one).
        normalize: subtract ImageNet's mean and divide by its deviation, inside the model.
        train_layers: ``all``, or ``classifier``: only the head is trained, i.e. all but the backbone or encoder;
            of U-Net the last 1×1 convolution, of DeepCrack the side outputs and their fusion.
        width: channels of the first level, for the architectures in ``WIDTHS``; None takes the one there.
        batch_norm: normalise after each convolution; only ``deepcrack`` can do without.
        encoder: name of an encoder in smp or timm, for the architectures in ``ENCODERS``; "" takes the one there.
    Returns:
        The network on the CPU, in training mode.
    Raises:
        CracksegError: an unknown architecture or encoder (the nearest names are shown), an encoder that the
            architecture cannot use, a value out of range or without effect, the extra ``crackseg[models]`` is
            needed and not installed, or the initial weights cannot be had.
    """
    _check_choice("model.architecture", architecture, tuple(ARCHITECTURES))
    _check_choice("model.num_classes", num_classes, (1, 2))
    _check_choice("model.train_layers", train_layers, TRAIN_LAYERS)
    if width is not None:
        _check_width(architecture, width)
    if not batch_norm and architecture != "deepcrack":
        raise CracksegError(
            f"model.batch_norm = {batch_norm!r}: {architecture} always normalises, only deepcrack can do without; "
            "set model.batch_norm: true"
        )
    if encoder and architecture not in ENCODERS:
        raise CracksegError(
            f"model.encoder = {encoder!r}: {architecture} has no encoder to choose, only {', '.join(ENCODERS)} "
            'have; set model.encoder: ""'
        )
    options = BodyOptions(
        num_classes,
        width=width or WIDTHS.get(architecture, 0),
        batch_norm=batch_norm,
        encoder=encoder or ENCODERS.get(architecture, ""),
    )
    body = _build_body(architecture, options)
    initialize(body, architecture, init, num_classes=num_classes)
    return CrackNetwork(
        body,
        num_classes=num_classes,
        normalize=normalize,
        train_layers=train_layers,
        pretrained=init != "random",
    )


def _build_body(architecture: str, options: BodyOptions) -> NetworkBody:
    if architecture not in ENCODERS:
        return ARCHITECTURES[architecture](options)
    with explained_errors(architecture, options.encoder, usual=ENCODERS[architecture]):
        body = ARCHITECTURES[architecture](options)
        assert isinstance(body, EncoderBody), architecture
        try_out(body)
    return body


def _check_width(architecture: str, width: object) -> None:
    if architecture not in WIDTHS:
        raise CracksegError(
            f"model.width = {width!r}: {architecture} has no width to choose, only {', '.join(WIDTHS)} have; "
            "set model.width: null"
        )
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise CracksegError(f"model.width = {width!r}: expected a whole number of channels, at least 1, or null")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is not among the choices, naming the nearest; True is not taken for 1."""
    if value in choices and not isinstance(value, bool):
        return
    names = [choice for choice in choices if isinstance(choice, str)]
    close = difflib.get_close_matches(str(value), names, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise CracksegError(f"{name} = {value!r}: expected one of {', '.join(map(str, choices))}{hint}")
