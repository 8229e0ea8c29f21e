"""Convolutions: the block of our own architectures and its initialisation, and a fixed padding for timm's encoders."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_block(in_channels: int, out_channels: int, *, kernel_size: int = 3, batch_norm: bool) -> nn.Sequential:
    """Build a convolution that keeps the size, batch normalisation (or a bias instead), ReLU."""
    layers: list[nn.Module] = [
        # A bias before batch normalisation would be subtracted with the mean at once.
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=not batch_norm)
    ]
    if batch_norm:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def initialize_kaiming(body: nn.Module) -> None:
    """Draw all convolution weights from N(0, 2 / fan-in), biases zero, from torch's global generator.

    This is Caffe's ``msra`` filler, which DeepCrack names, and the rule of the U-Net paper (section 3).
    """
    for module in body.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # torch takes a transposed convolution's fan-in from the wrong axis; with stride = kernel size, as
            # here, each output pixel sums over its input channels only.
            fan_in = module.in_channels if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class SamePaddedConv2d(nn.Conv2d):
    """Convolution with TensorFlow's ``same`` padding, for sides that are multiples of the stride.

    The padding is then the same for all sizes. timm computes it from the size, and torch.export does not finish with
    such a network if height and width are free.
    """

    def forward(self, images_BCHW: Tensor) -> Tensor:
        pads: list[int] = []
        for kernel, stride, dilation in zip(
            reversed(self.kernel_size), reversed(self.stride), reversed(self.dilation), strict=True
        ):
            total = max(dilation * (kernel - 1) + 1 - stride, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(images_BCHW, pads))


def fix_same_padding(encoder: nn.Module) -> None:
    """Replace timm's convolutions with ``same`` padding, in place; they keep their weights."""
    from timm.layers import Conv2dSame

    for name, conv in list(encoder.named_modules()):
        if not isinstance(conv, Conv2dSame):
            continue
        fixed = SamePaddedConv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
            dilation=conv.dilation, groups=conv.groups, bias=conv.bias is not None,
            device="meta",  # draws no random numbers
        )  # fmt: skip
        fixed.weight, fixed.bias = conv.weight, conv.bias
        parent, _, attribute = name.rpartition(".")
        setattr(encoder.get_submodule(parent), attribute, fixed)
