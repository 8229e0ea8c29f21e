"""Segmenter with its mask transformer (Strudel et al., ICCV 2021) on a vision transformer by name.

Shape legend: B images, C channels, K maps, H and W full size, h and w the grid of patches, N = h·w patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crackseg.models.encoders import EncoderBody, VisionTransformer

NUM_BLOCKS = 2
CHANNELS_PER_HEAD = 64
DROPOUT = 0.1


class Segmenter(EncoderBody):
    """Segmenter: patch features and one learned token per map pass two more blocks; maps are their products.

    Args:
        num_classes: maps to return.
        encoder: name of a plain vision transformer in timm.
    """

    def __init__(self, num_classes: int, encoder: str) -> None:
        source = VisionTransformer(encoder, drop_path_rate=0.1)
        transformer = source.build(pretrained=False)
        super().__init__(source, transformer, stride=transformer.feature_info.reduction()[-1])
        self.classifier = MaskTransformer(transformer.feature_info.channels()[-1], num_classes)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        maps_BKhw = self.classifier(self.encoder(images_B3HW)[-1])
        size = images_B3HW.shape[-2:]
        return (F.interpolate(maps_BKhw, size=size, mode="bilinear", align_corners=False),)

    def head_modules(self) -> list[nn.Module]:
        return [self.classifier]


class MaskTransformer(nn.Module):
    """Decoder in which each map is the cosine between the patches and its own token, with a learned scale and offset.

    The authors normalise the K cosines of a patch instead (``LayerNorm(K)``). That suits their 150 classes; with one
    map the result would be constant, with two it would only tell which is larger. The scale is initialised to the
    square root of C: cosines of random vectors then have standard deviation 1, as after their normalisation.

    Args:
        channels: C, the transformer's; the decoder's blocks have as many.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.num_classes = num_classes
        self.encoder_norm = nn.LayerNorm(channels, eps=1e-6)
        self.project = nn.Linear(channels, channels)
        self.class_tokens = nn.Parameter(torch.empty(1, num_classes, channels))
        self.blocks = nn.Sequential(
            *(
                Block(
                    channels,
                    num_heads=max(1, channels // CHANNELS_PER_HEAD),
                    qkv_bias=True,
                    proj_drop=DROPOUT,
                    attn_drop=DROPOUT,
                )
                for _ in range(NUM_BLOCKS)
            )
        )
        self.norm = nn.LayerNorm(channels)
        self.project_patches = nn.Linear(channels, channels, bias=False)
        self.project_classes = nn.Linear(channels, channels, bias=False)
        self.scale = nn.Parameter(torch.full((num_classes,), channels**0.5))
        self.offset = nn.Parameter(torch.zeros(num_classes))
        self._initialize(channels)

    def forward(self, features_BChw: Tensor) -> Tensor:
        height, width = features_BChw.shape[-2:]
        patches_BNC = self.project(self.encoder_norm(features_BChw.flatten(2).transpose(1, 2)))
        tokens = torch.cat([patches_BNC, self.class_tokens.expand(patches_BNC.shape[0], -1, -1)], dim=1)
        tokens = self.norm(self.blocks(tokens))
        patches_BNC, classes_BKC = tokens[:, : -self.num_classes], tokens[:, -self.num_classes :]
        patches_BNC = F.normalize(self.project_patches(patches_BNC), dim=2)
        classes_BKC = F.normalize(self.project_classes(classes_BKC), dim=2)
        maps_BNK = patches_BNC @ classes_BKC.transpose(1, 2) * self.scale + self.offset
        return maps_BNK.transpose(1, 2).unflatten(2, (height, width))

    def _initialize(self, channels: int) -> None:
        """Initialise weights as the authors do, from torch's global generator."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_tokens, std=0.02)
        for projection in (self.project_patches, self.project_classes):
            nn.init.normal_(projection.weight, std=channels**-0.5)
