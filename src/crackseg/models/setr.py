"""SETR with its progressive-upsampling head (PUP; Zheng et al., CVPR 2021) on a vision transformer by name.

Shape legend: B images, C channels, K maps, H and W full size, h and w the grid of patches.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from crackseg.models.encoders import EncoderBody, VisionTransformer
from crackseg.models.parts import conv_block, initialize_kaiming

CHANNELS = 256
NUM_CONVS = 4


class SETR(EncoderBody):
    """SETR: the transformer's last features pass four 3×3 convolutions that each double the size.

    The paper's three auxiliary heads on earlier layers are left out: every system here is trained by its maps only.

    Args:
        num_classes: maps to return.
        encoder: name of a plain vision transformer in timm.
    """

    def __init__(self, num_classes: int, encoder: str) -> None:
        source = VisionTransformer(encoder)
        transformer = source.build(pretrained=False)
        super().__init__(source, transformer, stride=transformer.feature_info.reduction()[-1])
        self.classifier = PupHead(transformer.feature_info.channels()[-1], num_classes)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        maps_BKhw = self.classifier(self.encoder(images_B3HW)[-1])
        # With patches of 16 pixels this is the last doubling; with others the remaining factor.
        size = images_B3HW.shape[-2:]
        return (F.interpolate(maps_BKhw, size=size, mode="bilinear", align_corners=False),)

    def head_modules(self) -> list[nn.Module]:
        return [self.classifier]


class PupHead(nn.Module):
    """Head of layer normalisation, four convolution blocks with a doubling between each two, a 1×1 convolution.

    Args:
        in_channels: the transformer's.
        num_classes: maps to return.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels, eps=1e-6)
        self.convs = nn.ModuleList(
            conv_block(CHANNELS if index else in_channels, CHANNELS, batch_norm=True) for index in range(NUM_CONVS)
        )
        self.output = nn.Conv2d(CHANNELS, num_classes, kernel_size=1)
        initialize_kaiming(self)

    def forward(self, features_BChw: Tensor) -> Tensor:
        x_BChw = self.norm(features_BChw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        first, *further = self.convs
        x_BChw = first(x_BChw)
        for conv in further:
            x_BChw = conv(F.interpolate(x_BChw, scale_factor=2, mode="bilinear", align_corners=False))
        return self.output(x_BChw)
