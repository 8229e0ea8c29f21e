"""Table of architectures, and `build_model`, which builds a network from the `model` section of params.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from crackseg.errors import CracksegError
from crackseg.models import deepcrack, deeplabv3, smp_models
from crackseg.models.encnet import EncNet
from crackseg.models.encoders import EncoderBody, explained_errors, try_out
from crackseg.models.initialization import Loader, from_torchvision, initialize, load_encoder, load_shipped
from crackseg.models.network import TRAIN_LAYERS, CrackNetwork, NetworkBody
from crackseg.models.segmenter import Segmenter
from crackseg.models.setr import SETR
from crackseg.models.shipped import SHIPPED_NAME
from crackseg.models.unet import UNet
from crackseg.params.choices import explain_choice

__all__ = ["ARCHITECTURES", "Architecture", "BodyOptions", "CrackNetwork", "build_model"]

_ENCODER_PACKAGES = ("segmentation-models-pytorch", "timm")


@dataclass(frozen=True, slots=True)
class BodyOptions:
    """Options of `build_model` for a body; an architecture reads those that its row names."""

    num_classes: int
    width: int
    batch_norm: bool
    encoder: str


@dataclass(frozen=True, slots=True)
class Architecture:
    """Properties of an architecture that other modules need.

    Attributes:
        build: builds the body, with random weights.
        width: default number of channels of the first level; None: the width cannot be chosen.
        encoder: default encoder by name; empty: the encoder cannot be chosen.
        optional_batch_norm: it can be built without batch normalisation.
        pretrained: by value of ``model.init``, the loader of its weights; see ``initialization``.
        num_side_outputs: maps besides the output, for which the loss is also computed.
        exports_one_size: its pooling to a fixed grid is exported for the size of the example only; measured, the file
            fails or gives wrong results at any other size.
        contiguous_on_cpu: a CPU trains it faster with channels first than with channels last (docs/training-recipe.md).
    """

    build: Callable[[BodyOptions], NetworkBody]
    width: int | None = None
    encoder: str = ""
    optional_batch_norm: bool = False
    pretrained: Mapping[str, Loader] = field(default_factory=dict)
    num_side_outputs: int = 0
    exports_one_size: bool = False
    contiguous_on_cpu: bool = False

    @property
    def extra_packages(self) -> tuple[str, ...]:
        """Packages of the extra ``crackseg[models]`` that this architecture needs."""
        return _ENCODER_PACKAGES if self.encoder else ()


def _backbone_weights(
    imagenet: str, coco: str, convert: Callable[[Mapping], dict] = deeplabv3.resnet_as_backbone
) -> dict[str, Loader]:
    return {
        "imagenet": from_torchvision(imagenet, part="backbone", convert=convert),
        "coco": from_torchvision(coco, part="backbone", convert=deeplabv3.keep_backbone),
    }


_ENCODER_WEIGHTS: Mapping[str, Loader] = {"imagenet": load_encoder}

# Names are read from this literal, without importing it, by crackseg.params.choices.
ARCHITECTURES: dict[str, Architecture] = {
    "deeplabv3_resnet101": Architecture(
        lambda options: deeplabv3.deeplabv3_resnet101(options.num_classes),
        pretrained=_backbone_weights(
            "ResNet101_Weights.IMAGENET1K_V1", "DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1"
        ),
    ),
    "deeplabv3_resnet50": Architecture(
        lambda options: deeplabv3.deeplabv3_resnet50(options.num_classes),
        pretrained=_backbone_weights(
            "ResNet50_Weights.IMAGENET1K_V1", "DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1"
        ),
    ),
    "deeplabv3_mobilenet_v3_large": Architecture(
        lambda options: deeplabv3.deeplabv3_mobilenet_v3_large(options.num_classes),
        pretrained=_backbone_weights(
            "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
            "DeepLabV3_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1",
            deeplabv3.mobilenet_as_backbone,
        ),
    ),
    "unet": Architecture(
        lambda options: UNet(options.num_classes, options.width), width=16, pretrained={SHIPPED_NAME: load_shipped}
    ),
    # The paper's [6] in its own words: symmetric, skip connections, one loss at the end. Ronneberger's width,
    # and everything else in UNet, are our choice.
    "modified_unet": Architecture(
        lambda options: UNet(options.num_classes, options.width), width=64, contiguous_on_cpu=True
    ),
    "deepcrack": Architecture(
        lambda options: deepcrack.DeepCrack(
            options.num_classes, width=options.width, batch_norm=options.batch_norm
        ),
        width=64,
        optional_batch_norm=True,
        pretrained={
            "imagenet": from_torchvision(
                deepcrack.name_vgg16_weights, part="encoder", convert=deepcrack.vgg16_as_encoder
            )
        },
        num_side_outputs=len(deepcrack.CONVS_PER_STAGE),
        contiguous_on_cpu=True,
    ),
    # Not from the paper: a U-Net that is pretrained on photographs. Small, for training without a GPU.
    "unet_encoder": Architecture(
        lambda options: smp_models.unet_encoder(options.num_classes, options.encoder, options.width),
        width=8,
        encoder="tf_efficientnet_lite0",
        pretrained=_ENCODER_WEIGHTS,
    ),
    # The other systems of the paper's Table 1. Encoders are of the size of ResNet-101, or the nearest to it, as the
    # paper's DeepLabV3.
    "pspnet": Architecture(
        lambda options: smp_models.pspnet(options.num_classes, options.encoder),
        encoder="resnet101",
        pretrained=_ENCODER_WEIGHTS,
        exports_one_size=True,
    ),
    "deeplabv3plus": Architecture(
        lambda options: smp_models.deeplabv3plus(options.num_classes, options.encoder),
        encoder="resnet101",
        pretrained=_ENCODER_WEIGHTS,
    ),
    "segformer": Architecture(
        lambda options: smp_models.segformer(options.num_classes, options.encoder),
        encoder="mit_b3",
        pretrained=_ENCODER_WEIGHTS,
    ),
    "upernet": Architecture(
        lambda options: smp_models.upernet(options.num_classes, options.encoder),
        encoder="swin_small_patch4_window7_224",
        pretrained=_ENCODER_WEIGHTS,
        exports_one_size=True,
    ),
    "encnet": Architecture(
        lambda options: EncNet(options.num_classes, options.encoder),
        encoder="resnet101",
        pretrained=_ENCODER_WEIGHTS,
    ),
    # DeiT rather than ViT: its weights were trained with the mean and deviation that `normalize` uses.
    "setr": Architecture(
        lambda options: SETR(options.num_classes, options.encoder),
        encoder="deit_base_patch16_384",
        pretrained=_ENCODER_WEIGHTS,
    ),
    "segmenter": Architecture(
        lambda options: Segmenter(options.num_classes, options.encoder),
        encoder="deit_base_patch16_384",
        pretrained=_ENCODER_WEIGHTS,
    ),
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
        init: ``random``, ``scenes``, ``imagenet``, ``coco`` or a path; see
            :func:`crackseg.models.initialization.initialize`.
        num_classes: 1 map (crack), or 2 (background and crack, which `CrackNetwork` brings to one).
        normalize: subtract ImageNet's mean and divide by its deviation, inside the model.
        train_layers: ``all``, or ``classifier``: only the head is trained, i.e. all but the backbone or encoder;
            of U-Net the last 1×1 convolution, of DeepCrack the side outputs and their fusion.
        width: channels of the first level, for architectures with a width; None is the architecture's default.
        batch_norm: normalise after each convolution; optional for a few architectures only.
        encoder: name of an encoder in smp or timm, for the architectures that have one; "" takes the
            architecture's own.
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
    _check_options(architecture, width=width, batch_norm=batch_norm, encoder=encoder)
    row = ARCHITECTURES[architecture]
    options = BodyOptions(
        num_classes, width=width or row.width or 0, batch_norm=batch_norm, encoder=encoder or row.encoder
    )
    if init == SHIPPED_NAME and init in row.pretrained and (normalize or num_classes != 1):
        raise CracksegError(
            f"model.init = {init!r}: these weights were trained without normalisation and give one map; set "
            "model.normalize: false and model.num_classes: 1"
        )
    body = _build_body(architecture, options)
    offers = {name: other.pretrained for name, other in ARCHITECTURES.items()}
    initialize(body, architecture, init, offers=offers, num_classes=num_classes)
    return CrackNetwork(
        body,
        num_classes=num_classes,
        normalize=normalize,
        train_layers=train_layers,
        pretrained=init != "random",
        contiguous_on_cpu=row.contiguous_on_cpu,
    )


def _build_body(architecture: str, options: BodyOptions) -> NetworkBody:
    row = ARCHITECTURES[architecture]
    if not row.encoder:
        return row.build(options)
    with explained_errors(architecture, options.encoder, usual=row.encoder):
        body = row.build(options)
        assert isinstance(body, EncoderBody), architecture
        if (architecture, options.encoder) not in _tried_out:
            try_out(body)
            _tried_out.add((architecture, options.encoder))
    return body


_tried_out: set[tuple[str, str]] = set()  # architecture and encoder; a fifth of a second each time


def _check_options(architecture: str, *, width: object, batch_norm: bool, encoder: str) -> None:
    """Refuse an option that the architecture does not have, naming those that have it."""
    row = ARCHITECTURES[architecture]
    if width is not None and row.width is None:
        raise CracksegError(
            f"model.width = {width!r}: {architecture} has no width to choose, only "
            f"{_names(lambda other: other.width is not None)} have; set model.width: null"
        )
    if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
        raise CracksegError(f"model.width = {width!r}: expected a whole number of channels, at least 1, or null")
    if not batch_norm and not row.optional_batch_norm:
        raise CracksegError(
            f"model.batch_norm = {batch_norm!r}: {architecture} always normalises, only "
            f"{_names(lambda other: other.optional_batch_norm)} can do without; set model.batch_norm: true"
        )
    if encoder and not row.encoder:
        raise CracksegError(
            f"model.encoder = {encoder!r}: {architecture} has no encoder to choose, only "
            f'{_names(lambda other: bool(other.encoder))} have; set model.encoder: ""'
        )


def _names(has: Callable[[Architecture], bool]) -> str:
    return ", ".join(name for name, row in ARCHITECTURES.items() if has(row))


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is not among the choices, naming the nearest; True is not taken for 1."""
    if value not in choices or isinstance(value, bool):
        raise CracksegError(f"{name} = {value!r}: {explain_choice(value, choices)}")
