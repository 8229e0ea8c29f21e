"""Presets: named settings of training, written into params.yaml by `crackseg preset`.

A preset sets every key of ``PAPER``, with the changes of its row in ``PRESETS``; so one leaves nothing of another. All
other keys (datasets, device, search, registry, …) stay as they are in params.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crackseg.errors import CracksegError
from crackseg.params.choices import explain_choice
from crackseg.params.loading import flatten_params
from crackseg.params.sections import Params

PAPER: Mapping[str, Any] = {
    "data.resize": "square",
    "augment.flip_horizontal": 0.5,
    "augment.flip_vertical": 0.5,
    "augment.blur": 0.3,
    "augment.blur_sigma_px": 1.5,
    "augment.hue": 0.03,
    "augment.saturation": 0.2,
    "augment.brightness": 0.2,
    "augment.contrast": 0.2,
    "augment.crop_px": 448,
    "augment.rotate_quarter": 0.0,
    "augment.warp": 0.0,
    "augment.warp_zoom": 1.25,
    "augment.crop_at_cracks": 0.0,
    "augment.dilate_mask_px": 0,
    "augment.drawn_cracks": 0.0,
    "augment.scenes": 0.0,
    "model.architecture": "deeplabv3_resnet101",
    "model.init": "random",
    "model.num_classes": 1,
    "model.normalize": False,
    "model.train_layers": "all",
    "model.width": None,
    "model.batch_norm": True,
    "model.encoder": "",
    "loss.name": "focal",
    "loss.gamma": 2.0,
    "loss.alpha": 3.0,
    "loss.crack_weight": 20.0,
    "loss.tolerance_px": 2,
    "optimizer.name": "sgd",
    "optimizer.lr": 1e-4,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "scheduler.name": "plateau",
    "scheduler.factor": 0.1,
    "scheduler.patience": 10,
    "train.epochs": 300,
    "train.batch_size": 2,
    "train.accumulate": 1,
    "train.patches_per_image": 1,
    "train.deterministic": True,
    "train.num_workers": 2,
    "train.validate_every": 1,
    "train.ema_decay": 0.0,
    "train.flip_agreement": 0.0,
    "train.keep_initial": 0.0,
    "predict.overlap_px": 64,
    "predict.flips": False,
    "predict.fit_tiles": False,
}
"""The committed settings: the paper's best model. A test compares the two."""

_SHIPPED_UNET: Mapping[str, Any] = {
    "model.architecture": "unet",
    "model.init": "scenes",
    "model.width": 8,
    "loss.name": "bce_soft_f",
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.01,
    "scheduler.name": "onecycle",
    "augment.crop_px": 256,
    "augment.rotate_quarter": 0.5,
    "train.ema_decay": 0.98,
    "train.batch_size": 4,
    "train.patches_per_image": 4,
    # Both cores compute the network, and drawing patches takes little of the time.
    "train.num_workers": 0,
    # Half of the paper preset's: 10 % fewer pixels of a large photograph (docs/adr/0018).
    "predict.overlap_px": 32,
    "predict.fit_tiles": True,
}


@dataclass(frozen=True, slots=True)
class Preset:
    """A row of the table.

    Attributes:
        summary: one line for the list.
        changes: to ``PAPER``, by dotted key.
        minutes: of training, from which the number of epochs follows on the machine and for the dataset at hand; None:
            ``train.epochs`` is as the preset has it.
        own_photographs: it is for a dataset of the user's own: the only one in ``data/`` becomes the dataset.
    """

    summary: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    minutes: float | None = None
    own_photographs: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, by dotted key."""
        return {**PAPER, **self.changes}


PRESETS: dict[str, Preset] = {
    "paper": Preset("the paper's best model, as committed: DeepLabV3-ResNet101 from random weights; needs a GPU"),
    "laptop": Preset(
        "the shipped U-Net, trained further on your own photographs; minutes on a CPU",
        {
            **_SHIPPED_UNET,
            "data.resize": "none",
            "augment.warp": 0.75,
            "augment.crop_at_cracks": 0.4,
            "augment.scenes": 0.15,
            "train.flip_agreement": 1.0,
            "train.keep_initial": 0.2,
            "optimizer.lr": 1e-3,
            "train.epochs": 12,
            "train.validate_every": 3,
        },
        minutes=3,
        own_photographs=True,
    ),
    "quick": Preset(
        "the demo's: the shipped U-Net, trained further on the sample data; under a minute on two cores",
        {**_SHIPPED_UNET, "optimizer.lr": 1e-3, "train.epochs": 8, "train.validate_every": 4},
    ),
    "large-gpu": Preset(
        "a U-Net of width 64 from random weights with batches of 16; a GPU with 40 GB; its scores are not measured",
        {
            "model.architecture": "modified_unet",
            "loss.name": "bce_soft_f",
            "optimizer.name": "adamw",
            "optimizer.lr": 1e-3,
            "optimizer.weight_decay": 0.01,
            "scheduler.name": "onecycle",
            "train.batch_size": 16,
            "train.patches_per_image": 4,
            "train.epochs": 200,
            "train.deterministic": False,
            "train.num_workers": 8,
            "train.validate_every": 10,
        },
        own_photographs=True,
    ),
}


FOLLOW_FROM_MINUTES = ("train.epochs", "train.patches_per_image", "train.validate_every")
"""Keys whose values are chosen for a dataset, a machine and a number of minutes."""


def find_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        CracksegError: there is no such preset; the nearest is named.
    """
    if name not in PRESETS:
        raise CracksegError(f"preset {name!r}: {explain_choice(name, tuple(PRESETS))}")
    return PRESETS[name]


def name_current(params: Params) -> str:
    """Name the preset whose settings params.yaml has, without those that follow from minutes; "" if none."""
    flat = flatten_params(params)
    for name, preset in PRESETS.items():
        free = FOLLOW_FROM_MINUTES if preset.minutes else ()
        if all(flat[key] == value for key, value in preset.settings.items() if key not in free):
            return name
    return ""
