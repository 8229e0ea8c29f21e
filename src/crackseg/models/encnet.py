"""EncNet (Zhang et al., CVPR 2018): context encoding on a dilated backbone by name.

Shape legend: B images, C channels, K maps, H and W full size, h and w the feature map, N = h·w its cells,
M codewords.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crackseg.models.encoders import EncoderBody, PyramidEncoder
from crackseg.models.parts import conv_block, initialize_kaiming

CHANNELS = 512
NUM_CODEWORDS = 32


class EncNet(EncoderBody):
    """A backbone of output stride 8, 512 channels weighted by an encoding of the whole image, a 1×1 convolution.

    The two further losses of the paper (presence of each class in the image, and an auxiliary classifier) are left
    out: every system here is trained by its maps only.

    Args:
        num_classes: maps to return.
        encoder: name of the backbone, one that can be dilated.
    """

    def __init__(self, num_classes: int, encoder: str) -> None:
        source = PyramidEncoder(encoder, output_stride=8)
        backbone = source.build(pretrained=False)
        super().__init__(source, backbone, stride=source.output_stride)
        self.classifier = nn.Sequential(
            conv_block(backbone.out_channels[-1], CHANNELS, batch_norm=True),
            ContextEncoding(CHANNELS, NUM_CODEWORDS),
            nn.Dropout2d(0.1),
            nn.Conv2d(CHANNELS, num_classes, kernel_size=1),
        )
        initialize_kaiming(self.classifier)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        maps_BKhw = self.classifier(self.encoder(images_B3HW)[-1])
        size = images_B3HW.shape[-2:]
        return (F.interpolate(maps_BKhw, size=size, mode="bilinear", align_corners=False),)

    def head_modules(self) -> list[nn.Module]:
        return [self.classifier]


class ContextEncoding(nn.Module):
    """Describe the image by its features' residuals to learned codewords, and weight the channels by that.

    Each feature vector is softly assigned to each codeword, by a softmax over ``smoothing`` times the squared
    distance; the residuals are averaged with these weights, normalised, passed through ReLU and averaged over
    the codewords; a linear layer and a sigmoid give a weight between 0 and 1 for each channel.

    The authors sum residuals over the image. We take the mean, so that the encoding does not grow with the
    image: its batch normalisation is trained on crops of one size and also used for larger images.

    Args:
        channels: C.
        num_codewords: M.
    """

    def __init__(self, channels: int, num_codewords: int) -> None:
        super().__init__()
        self.project = conv_block(channels, channels, kernel_size=1, batch_norm=True)
        bound = (num_codewords * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(num_codewords, channels).uniform_(-bound, bound))
        self.smoothing = nn.Parameter(torch.empty(num_codewords).uniform_(-1, 0))
        self.norm = nn.BatchNorm1d(num_codewords)
        self.weight = nn.Linear(channels, channels)

    def forward(self, x_BChw: Tensor) -> Tensor:
        features_BNC = self.project(x_BChw).flatten(2).transpose(1, 2)
        encoding_BMC = F.relu(self.norm(self._encode(features_BNC)))
        weight_BC = self.weight(encoding_BMC.mean(dim=1)).sigmoid()
        return F.relu(x_BChw * (1 + weight_BC[:, :, None, None]))

    def _encode(self, features_BNC: Tensor) -> Tensor:
        # |x - c|² = |x|² - 2 x·c + |c|²: the residuals themselves would take M times the features' memory.
        squared_BNM = (
            features_BNC.square().sum(dim=2, keepdim=True)
            - 2 * features_BNC @ self.codewords.T
            + self.codewords.square().sum(dim=1)
        )
        share_BNM = (self.smoothing * squared_BNM).softmax(dim=2)
        weighted_BMC = share_BNM.transpose(1, 2) @ features_BNC / features_BNC.shape[1]
        return weighted_BMC - share_BNM.mean(dim=1)[:, :, None] * self.codewords
