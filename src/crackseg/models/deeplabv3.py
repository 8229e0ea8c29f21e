"""torchvision's DeepLabV3 with the paper's one change: a new classifier, ``DeepLabHead(in_channels, K)``.

Paper section 3.1. torchvision's auxiliary classifier is left out, as the paper has a single loss.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from crackseg.models.network import NetworkBody
from crackseg.models.state_dicts import StateDict, keys_below, keys_without


class DeepLabV3(NetworkBody):
    """DeepLabV3 (Chen et al., arXiv 1706.05587) on a dilated torchvision backbone.

    Inputs of any size are taken. The classifier's map, at 1/8 (ResNet) or 1/16 (MobileNetV3) of the input's
    size, is upsampled bilinearly, as torchvision does. Keys of the state dict are torchvision's.

    Args:
        builder: name of the function in ``torchvision.models.segmentation``.
        num_classes: maps to return.
    """

    def __init__(self, builder: str, num_classes: int) -> None:
        from torchvision.models import segmentation  # takes seconds to import; the other networks do without
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead

        super().__init__()
        # With num_classes, the builder adds the same DeepLabHead that the paper puts in afterwards.
        build = getattr(segmentation, builder)
        model = build(weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False)
        self.backbone: nn.Module = model.backbone
        self.classifier: nn.Module = model.classifier
        assert isinstance(model.classifier, DeepLabHead), type(model.classifier)
        pooling = model.classifier[0].convs[-1]
        pooling[2] = PooledBatchNorm2d(pooling[2].num_features)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        maps_BKhw = self.classifier(self.backbone(images_B3HW)["out"])
        size = images_B3HW.shape[-2:]
        return (F.interpolate(maps_BKhw, size=size, mode="bilinear", align_corners=False),)

    def head_modules(self) -> list[nn.Module]:
        return [self.classifier]


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation after global pooling that can also be trained with a batch of one.

    The head's pooling branch has one value per channel and image. In a batch of one its variance is 0 and
    torch raises an error. Such a batch is normalised by the running statistics, as in evaluation, and does not
    change them; larger batches are normalised as usual.
    """

    def forward(self, pooled_BC11: Tensor) -> Tensor:
        if self.training and pooled_BC11.shape[0] == 1:
            return F.batch_norm(
                pooled_BC11, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(pooled_BC11)


def deeplabv3_resnet101(num_classes: int) -> DeepLabV3:
    """Build the paper's base model."""
    return DeepLabV3("deeplabv3_resnet101", num_classes)


def deeplabv3_resnet50(num_classes: int) -> DeepLabV3:
    """Build DeepLabV3 with half of that backbone."""
    return DeepLabV3("deeplabv3_resnet50", num_classes)


def deeplabv3_mobilenet_v3_large(num_classes: int) -> DeepLabV3:
    """Build DeepLabV3 on a small, fast backbone, at output stride 16."""
    return DeepLabV3("deeplabv3_mobilenet_v3_large", num_classes)


def resnet_as_backbone(state: StateDict) -> dict[str, Tensor]:
    """Leave out the classifier of torchvision's ResNet."""
    return keys_without(state, "fc.")


def mobilenet_as_backbone(state: StateDict) -> dict[str, Tensor]:
    """Keep the features of torchvision's MobileNetV3."""
    return keys_below(state, "features.")


def keep_backbone(state: StateDict) -> dict[str, Tensor]:
    """Keep the backbone of torchvision's DeepLabV3."""
    return keys_below(state, "backbone.")
