"""Convolution block of our own architectures, 3×3 or 1×1, and its initialisation."""

from __future__ import annotations

from torch import nn


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
