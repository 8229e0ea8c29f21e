"""PSPNet, DeepLabV3+, SegFormer, UPerNet and U-Net from segmentation-models-pytorch (smp), on any encoder by name.

If smp's defaults differ from the systems' papers, the papers' choices are set here; docs/models.md lists
the remaining differences.
"""

from __future__ import annotations

from torch import Tensor, nn

from crackseg.models.deeplabv3 import PooledBatchNorm2d
from crackseg.models.encoders import PYRAMID_DEPTH, EncoderBody, PyramidEncoder


class SmpModel(EncoderBody):
    """Model of smp. Keys of the state dict are smp's.

    Args:
        source: its encoder.
        model: smp's model, without an auxiliary classifier.
    """

    def __init__(self, source: PyramidEncoder, model: nn.Module) -> None:
        super().__init__(source, model.get_submodule("encoder"), stride=source.output_stride)
        self.decoder = model.get_submodule("decoder")
        self.segmentation_head = model.get_submodule("segmentation_head")

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        return (self.segmentation_head(self.decoder(self.encoder(images_B3HW))),)

    def head_modules(self) -> list[nn.Module]:
        return [self.decoder, self.segmentation_head]


def pspnet(num_classes: int, encoder: str) -> SmpModel:
    """Build PSPNet (Zhao et al., CVPR 2017): features pooled to grids of side 1, 2, 3 and 6, at output stride 8.

    smp's default encoder ends at its third level, with a tenth of ResNet's weights; here it is complete and
    dilated, as in the paper.
    """
    import segmentation_models_pytorch as smp

    source = PyramidEncoder(encoder, output_stride=8)
    model = smp.PSPNet(
        source.smp_name(),
        encoder_weights=None,
        encoder_depth=PYRAMID_DEPTH,
        output_stride=source.output_stride,
        classes=num_classes,
        upsampling=source.output_stride,
        psp_dropout=0.1,
        **source.options(),
    )
    return SmpModel(source, model)


def deeplabv3plus(num_classes: int, encoder: str) -> SmpModel:
    """Build DeepLabV3+ (Chen et al., ECCV 2018): DeepLabV3 with a decoder of features at stride 4; output stride 16.

    At this stride the paper dilates by 6, 12 and 18; smp's default rates are those for stride 8.
    """
    import segmentation_models_pytorch as smp

    source = PyramidEncoder(encoder, output_stride=16)
    model = smp.DeepLabV3Plus(
        source.smp_name(),
        encoder_weights=None,
        encoder_depth=PYRAMID_DEPTH,
        encoder_output_stride=source.output_stride,
        decoder_atrous_rates=(6, 12, 18),
        classes=num_classes,
        **source.options(),
    )
    _train_pooled_norm_on_one(model.decoder.aspp[0].convs[-1], 2)
    return SmpModel(source, model)


def segformer(num_classes: int, encoder: str) -> SmpModel:
    """Build SegFormer (Xie et al., NeurIPS 2021): Mix Transformer and a decoder of linear layers, in two widths."""
    import segmentation_models_pytorch as smp

    source = PyramidEncoder(encoder)
    model = smp.Segformer(
        source.smp_name(),
        encoder_weights=None,
        encoder_depth=PYRAMID_DEPTH,
        decoder_segmentation_channels=256 if encoder in ("mit_b0", "mit_b1") else 768,
        classes=num_classes,
        **source.options(),
    )
    return SmpModel(source, model)


def upernet(num_classes: int, encoder: str) -> SmpModel:
    """Build UPerNet (Xiao et al., ECCV 2018) as used for segmentation with Swin Transformer (512 channels)."""
    import segmentation_models_pytorch as smp

    source = PyramidEncoder(encoder)
    model = smp.UPerNet(
        source.smp_name(),
        encoder_weights=None,
        encoder_depth=PYRAMID_DEPTH,
        decoder_channels=512,
        classes=num_classes,
        **source.options(),
    )
    _train_pooled_norm_on_one(model.decoder.psp.blocks[0][1], 1)
    return SmpModel(source, model)


def unet_encoder(num_classes: int, encoder: str, width: int) -> SmpModel:
    """Build a U-Net on an encoder: smp's decoder with ``width`` channels at full size, doubled at each level below."""
    import segmentation_models_pytorch as smp

    source = PyramidEncoder(encoder)
    model = smp.Unet(
        source.smp_name(),
        encoder_weights=None,
        encoder_depth=PYRAMID_DEPTH,
        decoder_channels=tuple(width * 2**level for level in reversed(range(PYRAMID_DEPTH))),
        classes=num_classes,
        **source.options(),
    )
    return SmpModel(source, model)


def _train_pooled_norm_on_one(layers: nn.Sequential, position: int) -> None:
    """Let the batch normalisation after global pooling train with a batch of one, as DeepLabV3's does."""
    norm = layers[position]
    assert type(norm) is nn.BatchNorm2d, norm
    layers[position] = PooledBatchNorm2d(norm.num_features)
