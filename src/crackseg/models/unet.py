"""Plain U-Net (Ronneberger et al., MICCAI 2015): the model for CPUs, and at width 64 ``modified_unet``.

Shape legend: B images, C channels, h and w the rows and columns of a level.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crackseg.models.network import NetworkBody
from crackseg.models.parts import conv_block, initialize_kaiming

NUM_DOWNSAMPLINGS = 4


class UNet(NetworkBody):
    """U-Net: symmetric encoder and decoder, joined by concatenation between equal levels; one output at the end.

    Ronneberger's layout: two 3×3 convolutions a level, 2×2 max-pooling, transposed 2×2 convolutions up, a 1×1
    convolution last. Unlike his, the convolutions are padded (the map has the image's size) and batch
    normalised.

    Args:
        num_classes: maps to return.
        width: channels of the first level; each level down has twice as many, the fifth 16 × width.
    """

    size_multiple = 2**NUM_DOWNSAMPLINGS
    local = True

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.width = width
        widths = [width * 2**level for level in range(NUM_DOWNSAMPLINGS + 1)]
        self.encoder = nn.ModuleList(
            _double_conv(in_channels, out_channels)
            for in_channels, out_channels in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(2 * channels, channels, kernel_size=2, stride=2) for channels in widths[-2::-1]
        )
        self.decoder = nn.ModuleList(_double_conv(2 * channels, channels) for channels in widths[-2::-1])
        self.output = nn.Conv2d(width, num_classes, kernel_size=1)
        initialize_kaiming(self)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        first, *deeper = self.encoder
        x_BChw = first(images_B3HW)
        skips = []
        for level in deeper:
            skips.append(x_BChw)
            x_BChw = level(F.max_pool2d(x_BChw, 2))
        for upsample, level in zip(self.upsample, self.decoder, strict=True):
            x_BChw = level(torch.cat([skips.pop(), upsample(x_BChw)], dim=1))
        return (self.output(x_BChw),)

    def head_modules(self) -> list[nn.Module]:
        return [self.output]


def _double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_block(in_channels, out_channels, batch_norm=True),
        conv_block(out_channels, out_channels, batch_norm=True),
    )
