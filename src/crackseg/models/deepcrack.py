"""DeepCrack (Zou et al., IEEE TIP 28(3), 2019), in the paper's reading rather than its repository's.

Shape legend: B images, C channels, K maps, H and W full size, h and w the rows and columns of a stage.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crackseg.models.network import NetworkBody
from crackseg.models.parts import conv_block, initialize_kaiming
from crackseg.models.state_dicts import StateDict, keys_below

CONVS_PER_STAGE = (2, 2, 3, 3, 3)  # VGG-16's thirteen
WIDTH_FACTORS = (1, 2, 4, 8, 8)


class DeepCrack(NetworkBody):
    """SegNet whose encoder and decoder are fused at each of five scales into a side output.

    The encoder is VGG-16's; max-pooling keeps its indices and the mirrored decoder unpools with them. The last
    convolution of a decoder stage narrows to the width of the stage above, as the indices to unpool with have
    that width (SegNet does so too). At each scale the encoder's features before pooling and the decoder's are
    concatenated, brought to ``width`` channels by a 1×1 convolution and reduced to a side output; a 1×1
    convolution over the five side outputs gives the output. The loss is meant to be taken on all six.

    Args:
        num_classes: maps to return, in each of the six outputs.
        width: channels of the first stage; 64 in the paper.
        batch_norm: after each convolution but the last two of an output; the paper has it, the authors'
            published code does not.
    """

    size_multiple = 2 ** len(CONVS_PER_STAGE)
    local = True

    def __init__(self, num_classes: int, *, width: int = 64, batch_norm: bool = True) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        widths = [width * factor for factor in WIDTH_FACTORS]
        narrower = [width, *widths[:-1]]
        self.encoder = nn.ModuleList(
            _stage([in_channels] + [channels] * num_convs, batch_norm)
            for in_channels, channels, num_convs in zip([3, *widths[:-1]], widths, CONVS_PER_STAGE, strict=True)
        )
        self.decoder = nn.ModuleList(  # like the encoder, from the finest stage to the coarsest
            _stage([channels] * num_convs + [out_channels], batch_norm)
            for channels, out_channels, num_convs in zip(widths, narrower, CONVS_PER_STAGE, strict=True)
        )
        self.fusion = nn.ModuleList(
            conv_block(channels + out_channels, width, kernel_size=1, batch_norm=batch_norm)
            for channels, out_channels in zip(widths, narrower, strict=True)
        )
        self.side_output = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for _ in widths)
        self.output = nn.Conv2d(len(widths) * num_classes, num_classes, 1)
        initialize_kaiming(self)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        size = images_B3HW.shape[-2:]
        x_BChw = images_B3HW
        encoded, pool_indices = [], []
        for stage in self.encoder:
            encoded.append(stage(x_BChw))
            x_BChw, indices = F.max_pool2d(encoded[-1], 2, return_indices=True)
            pool_indices.append(indices)
        side_maps: list[Tensor] = []
        for level in reversed(range(len(self.encoder))):
            x_BChw = self.decoder[level](_unpool(x_BChw, pool_indices[level], encoded[level]))
            fused_BChw = self.fusion[level](torch.cat([encoded[level], x_BChw], dim=1))
            # The paper upsamples all channels and then reduces them. Both steps are linear and bilinear weights
            # sum to one, so this order gives the same map with a 64th of the memory.
            side_BKhw = self.side_output[level](fused_BChw)
            side_maps.insert(0, F.interpolate(side_BKhw, size=size, mode="bilinear", align_corners=False))
        return (self.output(torch.cat(side_maps, dim=1)), *side_maps)

    def head_modules(self) -> list[nn.Module]:
        return [*self.side_output, self.output]


def name_vgg16_weights(body: DeepCrack) -> str:
    """Return the name of torchvision's weights for the body's encoder, a VGG-16."""
    return f"{'VGG16_BN' if body.batch_norm else 'VGG16'}_Weights.IMAGENET1K_V1"


def vgg16_as_encoder(state: StateDict) -> dict[str, Tensor]:
    """Rename torchvision's VGG-16 (``features.N.*``, in order) to DeepCrack's encoder (stage, block, layer).

    With batch normalisation our convolutions have no bias, but torchvision's have one: it is subtracted from the
    running mean, which gives the same function.
    """
    features = keys_below(state, "features.")
    conv_positions = [key.split(".")[0] for key, value in features.items() if value.ndim == 4]
    places = [f"{stage}.{block}" for stage, blocks in enumerate(CONVS_PER_STAGE) for block in range(blocks)]
    encoder: dict[str, Tensor] = {}
    for place, position in zip(places, conv_positions, strict=True):
        encoder[f"{place}.0.weight"] = features[f"{position}.weight"]
        bias = features[f"{position}.bias"]
        norm = keys_below(features, f"{int(position) + 1}.")
        if norm:
            norm["running_mean"] = norm["running_mean"] - bias
            encoder.update({f"{place}.1.{key}": value for key, value in norm.items()})
        else:
            encoder[f"{place}.0.bias"] = bias
    return encoder


def _stage(channels: list[int], batch_norm: bool) -> nn.Sequential:
    """Chain 3×3 convolution blocks through the given numbers of channels."""
    return nn.Sequential(*(conv_block(a, b, batch_norm=batch_norm) for a, b in itertools.pairwise(channels)))


def _unpool(pooled_BChw: Tensor, indices_BChw: Tensor, before_pooling: Tensor) -> Tensor:
    """Put each maximum back where it was before pooling; zeros elsewhere.

    It scatters instead of calling ``max_unpool2d``, which torch refuses under deterministic algorithms, although
    windows that do not overlap never write to one place twice. ONNX exporters support scatter.
    """
    flat = pooled_BChw.new_zeros(before_pooling.shape).flatten(2)
    return flat.scatter(2, indices_BChw.flatten(2), pooled_BChw.flatten(2)).view(before_pooling.shape)
