"""The training augmentations of a decoded pair against torchvision v2 and albumentations, on one core."""

from __future__ import annotations

import time

import albumentations
import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.measure import ROOT, Effort, Row, measure_in_turn
from benchmarks.scenes import draw_pair
from crackseg.data.augmentation import augment_pair, shift_hue_saturation
from crackseg.params import AugmentParams, load_params

_PAIRS = 16  # a run over all of them is one repeat: the operations are random


def run(effort: Effort) -> list[Row]:
    """Rows ``augment`` and ``augment-albumentations``."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    params = load_params(ROOT / "params.yaml").augment
    pairs = [draw_pair(seed) for seed in range(_PAIRS)]
    tensors = [
        (tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1).contiguous()), tv_tensors.Mask(mask))
        for image, mask in pairs
    ]
    by_torchvision, by_albumentations = _torchvision(params), _albumentations(params)
    _check_same_operations(*pairs[0])
    rng = np.random.default_rng(0)

    def ours() -> None:
        for image, mask in pairs:
            augment_pair(image, mask, params, rng)

    def torchvision_v2() -> None:
        for image, mask in tensors:
            by_torchvision(image, mask)

    def albumentations_2() -> None:
        for image, mask in pairs:
            by_albumentations(image=image, mask=mask)

    seconds = measure_in_turn(
        [ours, torchvision_v2, albumentations_2], repeats=effort.pick(15, 4), clock=time.thread_time
    )
    ours_ms, torchvision_ms, albumentations_ms = (1000 * s / _PAIRS for s in seconds)
    note = (
        "settings of params.yaml; flips and crops equal, blur within 1.5 and hue within 3 grey levels on average"
    )
    version = albumentations.__version__
    return [
        Row("augment", ours_ms, torchvision_ms, "torchvision v2", "ms/pair", note, target=12),
        Row(
            "augment-albumentations",
            ours_ms,
            albumentations_ms,
            f"albumentations {version}",
            "ms/pair",
            note,
            target=1,
        ),
    ]


def _torchvision(params: AugmentParams) -> v2.Compose:
    kernel = 2 * round(3 * params.blur_sigma_px) + 1
    return v2.Compose(
        [
            v2.RandomCrop(params.crop_px),
            v2.RandomHorizontalFlip(params.flip_horizontal),
            v2.RandomVerticalFlip(params.flip_vertical),
            v2.RandomApply([v2.GaussianBlur(kernel, sigma=(0.1, params.blur_sigma_px))], p=params.blur),
            v2.ColorJitter(params.brightness, params.contrast, params.saturation, params.hue),
        ]
    )


def _albumentations(params: AugmentParams) -> albumentations.Compose:
    def around_one(share: float) -> tuple[float, float]:
        return 1 - share, 1 + share

    return albumentations.Compose(
        [
            albumentations.RandomCrop(params.crop_px, params.crop_px),
            albumentations.HorizontalFlip(p=params.flip_horizontal),
            albumentations.VerticalFlip(p=params.flip_vertical),
            albumentations.GaussianBlur(sigma_limit=(0.1, params.blur_sigma_px), blur_limit=0, p=params.blur),
            albumentations.ColorJitter(
                brightness=around_one(params.brightness),
                contrast=around_one(params.contrast),
                saturation=around_one(params.saturation),
                hue=(-params.hue, params.hue),
                p=1,
            ),
        ]
    )


def _check_same_operations(image: np.ndarray, mask: np.ndarray) -> None:
    """Where an operation has one definition, all three must agree on it.

    Brightness, contrast and saturation are defined differently in each (docs/adr/0003), at the same cost.
    """
    nothing = dict.fromkeys(AugmentParams.model_fields, 0) | {"warp_zoom": 1}
    tensor = torch.from_numpy(image).permute(2, 0, 1)

    def with_only(**changes: float) -> np.ndarray:
        params = AugmentParams.model_validate(nothing | changes)
        result, result_mask = augment_pair(image, mask, params, np.random.default_rng(5))
        if "flip_horizontal" in changes:
            np.testing.assert_array_equal(result_mask, mask[:, ::-1])
        return result

    flipped = with_only(flip_horizontal=1.0)
    np.testing.assert_array_equal(flipped, v2.functional.horizontal_flip(tensor).permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(flipped, albumentations.HorizontalFlip(p=1)(image=image)["image"])
    rng = np.random.default_rng(5)
    rng.random(3), rng.uniform(-1, 1, 4)
    sigma = rng.uniform(0, 1.5)
    blurred = v2.functional.gaussian_blur(tensor, [9, 9], [sigma, sigma]).permute(1, 2, 0).numpy()
    _assert_near(with_only(blur=1.0, blur_sigma_px=1.5), blurred, levels=1.5)
    turned = v2.functional.adjust_hue(tensor, 0.03).permute(1, 2, 0).numpy()
    _assert_near(shift_hue_saturation(image, 0.03, 1.0), turned, levels=3)


def _assert_near(ours: np.ndarray, theirs: np.ndarray, *, levels: float) -> None:
    difference = float(np.abs(ours.astype(int) - theirs.astype(int)).mean())
    assert difference <= levels, difference
