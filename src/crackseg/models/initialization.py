"""Where a network's weights come from before training: chance, ImageNet, COCO, or a file.

``random`` needs nothing here: all models draw their weights when they are built.
"""

from __future__ import annotations

import contextlib
import difflib
import http.client
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from crackseg.errors import CracksegError
from crackseg.models.deepcrack import CONVS_PER_STAGE, DeepCrack
from crackseg.models.encoders import EncoderBody
from crackseg.models.network import NetworkBody
from crackseg.models.state_dicts import DAMAGED_FILE_ERRORS, load_state, read_weights

NAMED_INITS = ("random", "imagenet", "coco")
DOWNLOAD_TIMEOUT_S = 30  # of silence on the line; torch.hub itself would wait for ever

StateDict = Mapping[str, Tensor]

# Weights by torchvision's names, and for a backbone what to keep of them.
_IMAGENET: dict[str, tuple[str, Callable[[StateDict], dict[str, Tensor]]]] = {
    "deeplabv3_resnet101": ("ResNet101_Weights.IMAGENET1K_V1", lambda state: _without(state, "fc.")),
    "deeplabv3_resnet50": ("ResNet50_Weights.IMAGENET1K_V1", lambda state: _without(state, "fc.")),
    "deeplabv3_mobilenet_v3_large": (
        "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
        lambda state: _below(state, "features."),
    ),
}
_COCO = {
    "deeplabv3_resnet101": "DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1",
    "deeplabv3_resnet50": "DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1",
    "deeplabv3_mobilenet_v3_large": "DeepLabV3_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1",
}


def initialize(body: NetworkBody, architecture: str, init: str, *, num_classes: int = 1) -> None:
    """Give a freshly built body its initial weights.

    Args:
        body: as its constructor left it, with random weights.
        architecture: its name.
        init: ``random``: left as it is. ``imagenet``: the backbone (DeepLabV3), or the encoder (``deepcrack``:
            VGG-16), from torchvision's ImageNet weights; an encoder by name from smp's or timm's. ``coco``: the
            backbone from torchvision's DeepLabV3 weights, trained on COCO with VOC's labels; the classifier stays
            new and random, since the paper replaces all of it (section 3.1), and the auxiliary classifier is
            dropped. Anything else: path of a weights file (crackseg's, or a bare state dict in torchvision's key
            layout), taken over whole.
            A ``models:/…`` or ``runs:/…`` URI has to be resolved to such a path by the caller.
        num_classes: maps that the body returns; a weights file has to be of as many.
    Raises:
        CracksegError: no such weights for this architecture, no such file, a file of another architecture, or
            a download that failed.
    """
    if init == "random":
        return
    if init == "imagenet":
        _initialize_from_imagenet(body, architecture)
    elif init == "coco":
        if architecture not in _COCO:
            raise _no_weights(architecture, init, [*_COCO])
        weights = _get_weights(_COCO[architecture])
        _load_part(body, "backbone", _below(fetch(weights), "backbone."), weights, architecture)
    else:
        _initialize_from_file(body, architecture, init, num_classes)


def fetch(weights: Any) -> dict[str, Tensor]:
    """Take torchvision weights from torch.hub's cache, or download them into it.

    The content is checked against the hash in the file's name when it is downloaded, not when it was in the
    cache already.

    Raises:
        CracksegError: not in the cache and cannot be downloaded, or the cached file is damaged.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(weights)
    try:
        with _network_timeout(), contextlib.redirect_stdout(sys.stderr):  # torch.hub announces on stdout
            return weights.get_state_dict(progress=True, check_hash=True, weights_only=True, map_location="cpu")
    except (http.client.HTTPException, *DAMAGED_FILE_ERRORS) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        if cached.exists():  # torch.hub keeps only what arrived whole, so this file was cut or put there
            raise CracksegError(
                f"{cached}: the weights in the cache are damaged or cannot be read ({reason}); delete this file, "
                f"and it is downloaded again from {weights.url}"
            ) from error
        raise CracksegError(
            f"{cached.name}: the pretrained weights are not in the cache and cannot be downloaded ({reason})\n"
            f"  either fetch {weights.url} elsewhere and put it, under this name, into\n"
            f"  {cached.parent}\n"
            "  or start without pretrained weights: model.init: random"
        ) from error


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _initialize_from_imagenet(body: NetworkBody, architecture: str) -> None:
    if isinstance(body, EncoderBody):
        body.load_pretrained_encoder()
        return
    if isinstance(body, DeepCrack):
        weights = _get_weights(f"{'VGG16_BN' if body.batch_norm else 'VGG16'}_Weights.IMAGENET1K_V1")
        part, state = "encoder", _vgg16_as_encoder(fetch(weights))
    elif architecture in _IMAGENET:
        name, convert = _IMAGENET[architecture]
        weights = _get_weights(name)
        part, state = "backbone", convert(fetch(weights))
    else:
        raise _no_weights(architecture, "imagenet", [*_IMAGENET, "deepcrack", "the architectures with an encoder"])
    _load_part(body, part, state, weights, architecture)


def _get_weights(name: str) -> Any:
    from torchvision.models import get_weight  # takes seconds to import, and most networks need none of it

    return get_weight(name)


def _load_part(body: NetworkBody, part: str, state: StateDict, weights: Any, architecture: str) -> None:
    load_state(body.get_submodule(part), state, source=_file_name(weights), target=f"{architecture}'s {part}")


def _vgg16_as_encoder(state: StateDict) -> dict[str, Tensor]:
    """Rename torchvision's VGG-16 (``features.N.*``, in order) to DeepCrack's encoder (stage, block, layer).

    With batch normalisation our convolutions have no bias and torchvision's have one: it is taken off the
    running mean, which gives the same function.
    """
    features = _below(state, "features.")
    conv_positions = [key.split(".")[0] for key, value in features.items() if value.ndim == 4]
    places = [f"{stage}.{block}" for stage, blocks in enumerate(CONVS_PER_STAGE) for block in range(blocks)]
    encoder: dict[str, Tensor] = {}
    for place, position in zip(places, conv_positions, strict=True):
        encoder[f"{place}.0.weight"] = features[f"{position}.weight"]
        bias = features[f"{position}.bias"]
        norm = _below(features, f"{int(position) + 1}.")
        if norm:
            norm["running_mean"] = norm["running_mean"] - bias
            encoder.update({f"{place}.1.{key}": value for key, value in norm.items()})
        else:
            encoder[f"{place}.0.bias"] = bias
    return encoder


def _initialize_from_file(body: NetworkBody, architecture: str, init: str, num_classes: int) -> None:
    if re.match(r"(models|runs):/", init):
        raise CracksegError(f"model.init = {init!r}: this URI has to be resolved to a local weights file first")
    path = Path(init).expanduser()
    if not path.is_file():
        close = difflib.get_close_matches(init, NAMED_INITS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "check the path"
        raise CracksegError(
            f"model.init = {init!r}: neither one of {', '.join(NAMED_INITS)} nor a file that exists; {hint}"
        )
    stored = read_weights(path)
    if stored.model is not None and stored.model.get("architecture") != architecture:
        raise CracksegError(
            f"{path}: holds weights of {stored.model.get('architecture')}, but model.architecture is "
            f"{architecture}; set the one or the other"
        )
    if stored.model is not None and stored.model.get("num_classes", 1) != num_classes:
        raise CracksegError(
            f"{path}: holds weights of a model with num_classes {stored.model.get('num_classes', 1)}, but "
            f"model.num_classes is {num_classes}; set the one or the other"
        )
    # torchvision's own files bring an auxiliary classifier, which no model here has.
    state = _without(stored.state_dict, "aux_classifier.")
    load_state(body, state, source=str(path), target=f"{architecture} as model: describes it")


def _no_weights(architecture: str, init: str, available: list[str]) -> CracksegError:
    return CracksegError(
        f"model.init = {init!r}: there are no such weights for {architecture}, only for {', '.join(available)}; "
        "set model.init: random, or a path of your own weights"
    )


def _file_name(weights: Any) -> str:
    return Path(urlparse(weights.url).path).name


def _below(state: StateDict, prefix: str) -> dict[str, Tensor]:
    """Keep the keys under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _without(state: StateDict, prefix: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(prefix)}
