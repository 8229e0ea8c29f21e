"""Augmentation moves image and mask together and follows from its seed alone."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from crackseg.data.augmentation import augment_pair, move_mask, shift_brightness_contrast, shift_hue_saturation
from crackseg.data.dataset import CrackDataset, build_loader
from crackseg.data.images.files import write_mask, write_png
from crackseg.errors import CracksegError
from crackseg.params import AugmentParams
from crackseg.types import CrackSample

NOTHING = {
    "flip_horizontal": 0.0, "flip_vertical": 0.0, "blur": 0.0, "blur_sigma_px": 0.0, "hue": 0.0,
    "saturation": 0.0, "brightness": 0.0, "contrast": 0.0, "crop_px": 0,
}  # fmt: skip
ALL = AugmentParams(
    flip_horizontal=0.5, flip_vertical=0.5, blur=0.5, blur_sigma_px=1.5, hue=0.1, saturation=0.3, brightness=0.2,
    contrast=0.3, crop_px=24,
)  # fmt: skip


def make_params(**changes: float) -> AugmentParams:
    return AugmentParams(**NOTHING | changes)


def make_pair(height: int = 40, width: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """An image whose blue channel is the mask, so that any drift between the two shows."""
    rng = np.random.default_rng(1)
    mask = (rng.random((height, width)) < 0.2).astype(np.uint8)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[..., 2] = mask * 255
    return image, mask


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("crop_px", [0, 24, 64])
def test_mask_stays_on_its_image(seed: int, crop_px: int) -> None:
    params = make_params(flip_horizontal=0.5, flip_vertical=0.5, crop_px=crop_px)
    image, mask = augment_pair(*make_pair(), params, np.random.default_rng(seed))
    np.testing.assert_array_equal(image[..., 2], mask * 255)
    assert mask.shape == ((crop_px, crop_px) if crop_px else (40, 48))


def test_flips_mirror_both_ways() -> None:
    image, mask = make_pair()
    for horizontal, vertical, window in (
        (1.0, 0.0, np.s_[:, ::-1]), (0.0, 1.0, np.s_[::-1]), (1.0, 1.0, np.s_[::-1, ::-1]),
    ):  # fmt: skip
        params = make_params(flip_horizontal=horizontal, flip_vertical=vertical)
        flipped, flipped_mask = augment_pair(image, mask, params, np.random.default_rng(0))
        np.testing.assert_array_equal(flipped, image[window])
        np.testing.assert_array_equal(flipped_mask, mask[window])


def test_without_any_operation_nothing_changes() -> None:
    image, mask = make_pair()
    result = augment_pair(image, mask, make_params(), np.random.default_rng(0))
    np.testing.assert_array_equal(result[0], image)
    np.testing.assert_array_equal(result[1], mask)


@pytest.mark.parametrize(
    "operation",
    [
        {"flip_horizontal": 1.0}, {"flip_vertical": 1.0}, {"blur": 1.0, "blur_sigma_px": 3.0}, {"hue": 0.3},
        {"saturation": 0.9}, {"brightness": 0.4}, {"contrast": 0.8}, {"crop_px": 24},
    ],
    ids=lambda operation: next(iter(operation)),
)  # fmt: skip
def test_every_operation_of_the_paper_does_something(operation: dict) -> None:
    image, mask = make_pair()
    changed, _ = augment_pair(image, mask, make_params(**operation), np.random.default_rng(3))
    assert changed.shape != image.shape or (changed != image).any()


def test_the_given_pair_is_left_as_it_was() -> None:
    image, mask = make_pair()
    before = image.copy(), mask.copy()
    for seed in range(5):
        augment_pair(image, mask, ALL, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_hue_goes_round_the_circle() -> None:
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert shift_hue_saturation(red, 1 / 3, 1.0)[0, 0].tolist() == [0, 255, 0]
    assert shift_hue_saturation(red, 0.0, 0.0)[0, 0].tolist() == [255, 255, 255]


def test_contrast_turns_around_the_mean_and_brightness_adds() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = 100, 140
    assert shift_brightness_contrast(image, 0.0, 0.5)[0, :, 0].tolist() == [110, 130]
    assert shift_brightness_contrast(image, 0.1, 1.0)[0, :, 0].tolist() == [126, 166]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., CrackDataset]:
    samples = []
    for i in range(3):
        image, mask = make_pair(40 + i, 48)
        write_png(tmp_path / f"{i}.png", image)
        write_mask(tmp_path / f"{i}_mask.png", mask)
        samples.append(CrackSample("D", str(i), "train", tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"))
    return lambda **options: CrackDataset(samples, ALL, **{"patches_per_image": 2, "seed": 7} | options)


def load_epochs(dataset: CrackDataset, num_workers: int, epochs: list[int]) -> list[torch.Tensor]:
    loader, sampler = build_loader(dataset, batch_size=4, num_workers=num_workers, pin_memory=False)
    batches = []
    for epoch in epochs:
        sampler.epoch = epoch
        batches += [torch.cat([images, masks], dim=1) for images, masks in loader]
    return batches


def test_batches_do_not_depend_on_the_number_of_workers(make_dataset: Callable[..., CrackDataset]) -> None:
    alone = load_epochs(make_dataset(), 0, [0, 1])
    assert [len(batch) for batch in alone] == [4, 2, 4, 2]
    for batch, other in zip(alone, load_epochs(make_dataset(), 2, [0, 1]), strict=True):
        assert torch.equal(batch, other)


def test_a_resumed_epoch_sees_what_it_would_have_seen(make_dataset: Callable[..., CrackDataset]) -> None:
    straight, resumed = load_epochs(make_dataset(), 0, [0, 1]), load_epochs(make_dataset(), 0, [1])
    assert all(torch.equal(a, b) for a, b in zip(straight[2:], resumed, strict=True))


def test_epochs_and_seeds_differ(make_dataset: Callable[..., CrackDataset]) -> None:
    first = load_epochs(make_dataset(), 0, [0])
    assert not torch.equal(first[0], load_epochs(make_dataset(), 0, [1])[0])
    assert not torch.equal(first[0], load_epochs(make_dataset(seed=8), 0, [0])[0])


def test_no_training_images_is_said() -> None:
    with pytest.raises(CracksegError, match="no training images"):
        CrackDataset([], ALL, patches_per_image=1, seed=0)


def test_quarter_turns_turn_both(tmp_path: Path) -> None:
    image, mask = make_pair()
    turned, turned_mask = augment_pair(image, mask, make_params(rotate_quarter=1.0), np.random.default_rng(0))
    np.testing.assert_array_equal(turned, np.rot90(image, -1))
    np.testing.assert_array_equal(turned_mask, np.rot90(mask, -1))


def draw_truth(kind: str) -> np.ndarray:
    mask = np.zeros((160, 200), np.uint8)
    if kind == "disk":
        return cv2.circle(mask, (100, 80), 20, 1, -1)
    if kind == "hair-thin":
        return cv2.polylines(mask, [np.array([(20, 100), (60, 30), (120, 90), (190, 5)])], isClosed=False, color=1)
    if kind == "at the edge":
        mask[0, 10:100] = mask[20:90, 0] = 1
        return mask
    mask[50 : 50 + int(kind), 20:100] = 1
    return mask


@pytest.mark.parametrize("kind", ["hair-thin", "at the edge", "1", "2", "3", "4", "disk"])
def test_a_mask_that_is_moved_by_whole_pixels_keeps_every_pixel(kind: str) -> None:
    mask = draw_truth(kind)
    for right, down in ((0, 0), (7, 3)):
        place = np.array([[1.0, 0.0, right], [0.0, 1.0, down]])
        expected = np.zeros_like(mask)
        expected[down:, right:] = mask[: mask.shape[0] - down, : mask.shape[1] - right]
        np.testing.assert_array_equal(move_mask(mask, place, mask.shape), expected)


@pytest.mark.parametrize("seed", range(12))
def test_a_turned_hair_thin_line_is_still_one_thin_line_on_its_image(seed: int) -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[150] = 1
    image = np.dstack([255 - 255 * cv2.dilate(mask, np.ones((3, 3), np.uint8))] * 3)
    params = make_params(crop_px=128, crop_at_cracks=1.0, warp=1.0)
    warped, line = augment_pair(image, mask, params, np.random.default_rng(seed))
    assert line.shape == (128, 128)
    num_components, _, stats, _ = cv2.connectedComponentsWithStats(line)
    assert num_components == 2  # background and line
    assert warped[line == 1].mean() < 60
    far = cv2.dilate(line, np.ones((9, 9), np.uint8)) == 0
    assert warped[8:-8, 8:-8][far[8:-8, 8:-8]].min() > 200
    width, height = stats[1, cv2.CC_STAT_WIDTH], stats[1, cv2.CC_STAT_HEIGHT]
    assert min(width, height) > 1  # it was turned
    assert line.sum() < 1.35 * max(width, height)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crop_px", [0, 96, 300])
def test_a_warped_wide_crack_stays_solid_and_on_its_image(seed: int, crop_px: int) -> None:
    mask = draw_truth("disk")
    image = np.dstack([255 * mask] * 3)
    params = make_params(crop_px=crop_px, crop_at_cracks=1.0, warp=1.0, warp_zoom=1.5)
    warped, disk = augment_pair(image, mask, params, np.random.default_rng(seed))
    assert disk.shape == warped.shape[:2] == ((crop_px, crop_px) if crop_px else (160, 200))
    assert ((warped[..., 0] > 127) != disk).sum() <= 0.05 * disk.sum()
    assert cv2.connectedComponents(1 - disk, connectivity=4)[0] == 2  # no holes in it
    if crop_px != 300:  # that one has reflections, too
        assert disk.sum() < 1.02 * 1.5**2 * mask.sum()
    if not crop_px:
        assert disk.sum() > 0.98 / 1.5**2 * mask.sum()
        assert disk.sum() != mask.sum()


def test_warping_follows_from_the_seed() -> None:
    image, mask = make_pair()
    params = make_params(warp=1.0)
    patches = [augment_pair(image, mask, params, np.random.default_rng(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(patches[0], patches[1])
    assert (patches[0] != patches[2]).any()
    assert (patches[0] != image).any()


def test_crops_at_cracks_have_a_crack_and_are_not_always_centred_on_it() -> None:
    image, mask = np.zeros((400, 300, 3), np.uint8), np.zeros((400, 300), np.uint8)
    mask[2, 297] = mask[200, 100] = 1
    found = set()
    for seed in range(40):
        _, crop = augment_pair(
            image, mask, make_params(crop_px=64, crop_at_cracks=1.0), np.random.default_rng(seed)
        )
        assert crop.shape == (64, 64)
        assert crop.any()
        found.add(tuple(np.argwhere(crop)[0].tolist()))
    assert len(found) > 10


def test_crops_at_cracks_of_an_image_without_cracks_are_anywhere() -> None:
    blank = np.zeros((100, 100), np.uint8)
    image = np.dstack([blank] * 3)
    assert not augment_pair(image, blank, make_params(crop_px=32, crop_at_cracks=1.0), np.random.default_rng(0))[
        1
    ].any()


def test_ground_truth_is_dilated_and_the_image_is_not() -> None:
    image, mask = make_pair()
    same, dilated = augment_pair(image, mask, make_params(dilate_mask_px=1), np.random.default_rng(0))
    np.testing.assert_array_equal(same, image)
    assert ((dilated == 1) >= (mask == 1)).all()
    assert dilated.sum() > mask.sum()


def test_cracks_are_drawn_only_where_there_are_none() -> None:
    blank, grey = np.zeros((96, 128), np.uint8), np.full((96, 128, 3), 180, np.uint8)
    params = make_params(drawn_cracks=1.0)
    drawn, mask = augment_pair(grey, blank, params, np.random.default_rng(0))
    assert mask.any()
    assert drawn[mask == 1].mean() < 150  # as dark as a crack, on its line
    assert (drawn[cv2.dilate(mask, np.ones((15, 15), np.uint8)) == 0] == 180).all()
    image, cracked = make_pair()
    np.testing.assert_array_equal(augment_pair(image, cracked, params, np.random.default_rng(0))[0], image)


def test_what_is_off_changes_no_random_number() -> None:
    """Runs of earlier versions must give the same patches."""
    image, mask = make_pair()
    first = augment_pair(image, mask, ALL, np.random.default_rng(3))[0]
    on = ALL.model_copy(update={"dilate_mask_px": 2})
    np.testing.assert_array_equal(augment_pair(image, mask, on, np.random.default_rng(3))[0], first)


def test_a_fraction_of_the_patches_are_drawn_scenes_and_follow_from_the_seed(tmp_path: Path) -> None:
    image = np.full((64, 64, 3), 77, np.uint8)
    write_png(tmp_path / "a.png", image)
    write_mask(tmp_path / "a_mask.png", np.zeros((64, 64), np.uint8))
    samples = [CrackSample("x", "a", "train", tmp_path / "a.png", tmp_path / "a_mask.png")]
    params = make_params(crop_px=32, scenes=0.25)

    def draw(folder: str) -> list[np.ndarray]:
        dataset = CrackDataset(samples, params, patches_per_image=1, seed=0, scenes_dir=tmp_path / folder)
        return [dataset[epoch, 0][0].numpy() for epoch in range(40)]

    patches = draw("scenes")
    of_scenes = [patch for patch in patches if not (patch == 77).all()]
    assert 3 <= len(of_scenes) <= 20
    for patch, again in zip(patches, draw("elsewhere"), strict=True):
        np.testing.assert_array_equal(patch, again)
