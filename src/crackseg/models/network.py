"""Wrapper of every model: a network body that takes images and returns ModelOutput.

Shape legend: B images, K maps (1, or background and crack), H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crackseg.errors import CracksegError
from crackseg.types import ModelOutput

MIN_SIDE_PX = 32
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; the values that torchvision's weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
TRAIN_LAYERS = ("all", "classifier")


class NetworkBody(nn.Module, ABC):
    """Interface that each architecture provides to the wrapper.

    Attributes:
        size_multiple: height and width that ``forward`` gets are multiples of this.
        local: a pixel's result depends on its surroundings only, up to a distance that does not depend on the input's
            size: no pooling or attention over the whole input, no position embeddings.
    """

    size_multiple = 1
    local = False

    @abstractmethod
    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Return (B, K, H, W) of the output, then of each side output, all at the input's size."""

    @abstractmethod
    def head_modules(self) -> list[nn.Module]:
        """Return the modules that ``train_layers: classifier`` trains."""


class CrackNetwork(nn.Module):
    """Network of any architecture, from images to log-odds of crack at the same size.

    Two classes are reduced to one map here: with maps ``b`` (background) and ``c`` (crack),
    softmax(b, c)[crack] = sigmoid(c - b), and the cross-entropy of the pair is the binary cross-entropy of
    c - b. So losses, metrics, export and serving know a single kind of output.

    With ``train_layers="classifier"`` everything but the head is frozen. Frozen pretrained layers stay in
    evaluation mode also under ``train()``: batch normalisation would otherwise go on adapting its running
    statistics, and the "frozen" features would change from step to step and between training and validation.
    Frozen random layers do adapt them: untouched statistics (mean 0, variance 1) normalise nothing, and the
    features of a random ResNet-101 then reach 70,000, over float16's range, and those of a random MobileNetV3
    1e-8 (measured).

    Args:
        body: the architecture.
        num_classes: maps that the body returns, 1 or 2.
        normalize: subtract ImageNet's mean and divide by its standard deviation, inside the model, so that
            training, serving and export cannot differ in it.
        train_layers: ``all`` or ``classifier``.
        pretrained: True if the body's weights are pretrained.
        contiguous_on_cpu: True if a CPU trains it faster with channels first than with channels last.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: NetworkBody,
        *,
        num_classes: int,
        normalize: bool,
        train_layers: str,
        pretrained: bool,
        contiguous_on_cpu: bool = False,
    ) -> None:
        super().__init__()
        self.body = body
        self.num_classes = num_classes
        self.normalize = normalize
        self.train_layers = train_layers
        self.pretrained = pretrained
        self.contiguous_on_cpu = contiguous_on_cpu
        if normalize:
            # Not persistent: they are constants, and weights keep one key layout with and without them.
            self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
            self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        if train_layers == "classifier":
            body.requires_grad_(False)
            for module in body.head_modules():
                module.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> CrackNetwork:
        super().train(mode)
        if mode and self.pretrained and self.train_layers == "classifier":
            self.body.eval()
            for module in self.body.head_modules():
                module.train()
        return self

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        """Predict the log-odds of crack at every pixel.

        Images whose sides are no multiple of the architecture's are padded at the bottom and the right by repeating
        their edge, and the result is cropped: zeros would add a dark step, which looks like a crack, and reflection
        needs an image larger than its padding.

        Args:
            images_B3HW: float (B, 3, H, W) in [0, 1], RGB, H and W at least 32.
        Returns:
            ModelOutput with logits (B, 1, H, W), and side_logits of the same shape for ``deepcrack``.
        Raises:
            CracksegError: not a float tensor of that shape.
        """
        _check_images(images_B3HW)
        height, width = images_B3HW.shape[-2:]
        if self.normalize:
            images_B3HW = (images_B3HW - self.mean) / self.std
        multiple = self.body.size_multiple
        # Rounded up so, rather than by a remainder, torch.export can prove bounds of the padded size; and without
        # negative numbers, which ONNX divides towards zero.
        bottom = (height + multiple - 1) // multiple * multiple - height
        right = (width + multiple - 1) // multiple * multiple - width
        if multiple > 1:
            images_B3HW = F.pad(images_B3HW, (0, right, 0, bottom), mode="replicate")
        maps = [self._to_log_odds(maps_BKHW) for maps_BKHW in self.body(images_B3HW)]
        if multiple > 1:
            # Negative padding crops. A slice would tie torch.export to the example's size: it asks whether the
            # slice is the whole.
            maps = [F.pad(maps_B1HW, (0, -right, 0, -bottom)) for maps_B1HW in maps]
        return ModelOutput(maps[0], tuple(maps[1:]))

    def _to_log_odds(self, maps_BKHW: Tensor) -> Tensor:
        if self.num_classes == 1:
            return maps_BKHW
        return maps_BKHW[:, 1:] - maps_BKHW[:, :1]


def is_local(network: nn.Module) -> TypeGuard[CrackNetwork]:
    """Return True if a pixel's result depends on its surroundings only, so that tiles may have any side."""
    return isinstance(network, CrackNetwork) and network.body.local


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise CracksegError(
            f"images: expected float (B, 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}; "
            "put the channels first and divide 8-bit values by 255"
        )
    height, width = images.shape[-2:]
    if height < MIN_SIDE_PX or width < MIN_SIDE_PX:
        raise CracksegError(
            f"images: {width} x {height} pixels are too small; the models need at least "
            f"{MIN_SIDE_PX} x {MIN_SIDE_PX}, so pad the image first"
        )
