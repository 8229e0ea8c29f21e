"""Random flips, crop, blur, hue, saturation, brightness and contrast, image and mask together (section 3.3).

The paper names the operations and not their ranges; ours are in params.yaml and docs/adr/0003. Turns, zoom, crops
around cracks, drawn cracks and dilated ground truth are not the paper's, and off unless params.yaml sets them.
"""

from __future__ import annotations

import cv2
import numpy as np

from crackseg.data.synthetic.drawing import CrackStyle, draw_contrast, draw_truth, make_network
from crackseg.params import AugmentParams

_DRAWN_STYLE = CrackStyle(num_main=(1, 3), width_px=(0.8, 3.0), contrast=(0.25, 0.7), branch_every_px=150)
_JITTER = 0.35  # of the crop's side: largest distance of the chosen crack pixel from the crop's centre


def augment_pair(
    image: np.ndarray, mask: np.ndarray, params: AugmentParams, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Augment one training pair; every random number comes from ``rng``, in a fixed order.

    Args:
        image: uint8 (H, W, 3), RGB; not changed.
        mask: uint8 (H, W) of {0, 1}; not changed.
    Returns:
        image and mask of (crop_px, crop_px), or of the whole size for ``crop_px`` 0; mask is never interpolated.
    """
    # An operation that is off draws no number, so that the others draw the same with and without it.
    if params.warp and rng.random() < params.warp:
        image, mask = warp_pair(image, mask, params, rng)
    else:
        image, mask = crop_pair(image, mask, params.crop_px, rng, at_cracks=params.crop_at_cracks)
    if params.drawn_cracks and rng.random() < params.drawn_cracks and not mask.any():
        image, mask = _draw_cracks(image, rng)
    if params.rotate_quarter and rng.random() < params.rotate_quarter:
        image, mask = (cv2.rotate(array, cv2.ROTATE_90_CLOCKWISE) for array in (image, mask))
    chance = rng.random(3)
    strength = rng.uniform(-1, 1, 4)
    sigma_px = rng.uniform(0, params.blur_sigma_px)
    image, mask = _flip(
        image, mask, horizontal=chance[0] < params.flip_horizontal, vertical=chance[1] < params.flip_vertical
    )
    if chance[2] < params.blur and sigma_px > 0.1:  # below, the kernel is a single pixel
        image = cv2.GaussianBlur(image, (0, 0), sigma_px)
    image = shift_hue_saturation(image, strength[0] * params.hue, 1 + strength[1] * params.saturation)
    image = shift_brightness_contrast(image, strength[2] * params.brightness, 1 + strength[3] * params.contrast)
    if params.dilate_mask_px:
        side = 2 * params.dilate_mask_px + 1
        mask = cv2.dilate(mask, np.ones((side, side), np.uint8))
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def _draw_cracks(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one or two dark cracks into a photograph without cracks, as in the drawn scenes; also return their mask."""
    strokes = make_network(rng, image.shape[1::-1], _DRAWN_STYLE)
    light = 1 - draw_contrast(strokes, image.shape[1::-1])[..., None]
    return np.rint(image * light).astype(np.uint8), draw_truth(strokes, image.shape[1::-1])


def _flip(
    image: np.ndarray, mask: np.ndarray, *, horizontal: bool, vertical: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Flip both. OpenCV copies as it flips; NumPy's reversed view, copied, took half of all augmentation's time."""
    if not (horizontal or vertical):
        return image, mask
    code = -1 if horizontal and vertical else int(horizontal)
    return cv2.flip(image, code), cv2.flip(mask, code)


def crop_pair(
    image: np.ndarray, mask: np.ndarray, crop_px: int, rng: np.random.Generator, *, at_cracks: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the same random square from both; a smaller image is first continued by reflection.

    Args:
        at_cracks: fraction of the crops that contain a crack pixel, chosen at random, if there is any.
    """
    if not crop_px:
        return image, mask
    image, mask, top, left = _place_crop(image, mask, crop_px, rng, at_cracks)
    window = (slice(top, top + crop_px), slice(left, left + crop_px))
    return image[window], mask[window]


def warp_pair(
    image: np.ndarray, mask: np.ndarray, params: AugmentParams, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square that is turned by up to 45° and zoomed by up to ``warp_zoom`` from both; edges are reflected.

    A line of one pixel has gaps after a turn if its pixels are looked up. So thin parts of the mask are drawn anew,
    with a line between each two pixels that touch.

    Returns:
        As :func:`augment_pair`.
    """
    height, width = (params.crop_px, params.crop_px) if params.crop_px else image.shape[:2]
    top = left = 0
    if params.crop_px:
        image, mask, top, left = _place_crop(image, mask, params.crop_px, rng, params.crop_at_cracks)
    angle = rng.uniform(-np.pi / 4, np.pi / 4)
    zoom = params.warp_zoom ** rng.uniform(-1, 1)
    turn = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    target = np.array([(width - 1) / 2, (height - 1) / 2])
    # Half of the sides of what the square covers of the image, which may end before.
    reach = np.ceil(np.abs(np.linalg.inv(turn)) @ target).astype(int) + 2
    image, mask = (_cut_around(array, left + width // 2, top + height // 2, *reach) for array in (image, mask))
    source = reach - (np.array([width, height]) // 2 - target)
    place = np.column_stack([turn, target - turn @ source])  # of a pixel (x, y, 1)
    warped = cv2.warpAffine(image, place, (width, height), flags=cv2.INTER_LINEAR)
    return warped, move_mask(mask, place, (height, width))


def _cut_around(array: np.ndarray, x: int, y: int, reach_x: int, reach_y: int) -> np.ndarray:
    """Cut what is at most ``reach`` from a pixel, continued by reflection."""
    top, bottom, left, right = y - reach_y, y + reach_y + 1, x - reach_x, x + reach_x + 1
    inside = array[max(0, top) : bottom, max(0, left) : right]
    edges = (max(0, -top), max(0, bottom - array.shape[0]), max(0, -left), max(0, right - array.shape[1]))
    return cv2.copyMakeBorder(inside, *edges, cv2.BORDER_REFLECT_101) if any(edges) else inside


def move_mask(mask: np.ndarray, place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Move the pixels of a mask: squares of four are looked up, the others get lines between neighbours.

    Args:
        mask: uint8 of {0, 1}.
        place: float (2, 3), from a pixel (x, y, 1) to its new place.
        shape: height and width of the result.
    """
    # Not MORPH_OPEN: with an even square it shifts by a pixel. A line along the mask's edge is not wide.
    square = np.ones((2, 2), np.uint8)
    wide = cv2.dilate(cv2.erode(mask, square, borderValue=0), square, anchor=(0, 0))
    moved = cv2.warpAffine(wide, place, shape[::-1], flags=cv2.INTER_NEAREST)
    rows, columns = np.nonzero(mask)
    # Pixels at the edge have neighbours, too.
    crack, thin = (np.pad(pixels > 0, 1) for pixels in (mask, mask - wide))
    points = []
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = (rows + 1, columns + 1), (rows + 1 + down, columns + 1 + right)
        joined = crack[there] & (thin[here] | thin[there])
        # Steps of at most a row and a column leave no gap, and more of them make a line thicker.
        num_steps = int(np.ceil(np.abs(place[:, :2] @ (right, down)).max() - 1e-6))
        along = np.linspace(0, 1, num_steps + 1)[:, None]
        points.append([(columns[joined] + along * right).ravel(), (rows[joined] + along * down).ravel()])
    x, y = np.rint(place[:, :2] @ np.concatenate(points, axis=1) + place[:, 2:]).astype(int)
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    moved[y[inside], x[inside]] = 1
    return moved


def _place_crop(
    image: np.ndarray, mask: np.ndarray, crop_px: int, rng: np.random.Generator, at_cracks: float
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Return both, continued by reflection if they are smaller, and the first row and column of a random crop."""
    missing = [max(0, crop_px - side) for side in image.shape[:2]]
    if any(missing):
        edges = (missing[0] // 2, missing[0] - missing[0] // 2, missing[1] // 2, missing[1] - missing[1] // 2)
        image, mask = (cv2.copyMakeBorder(array, *edges, cv2.BORDER_REFLECT_101) for array in (image, mask))
    top = int(rng.integers(0, image.shape[0] - crop_px + 1))
    left = int(rng.integers(0, image.shape[1] - crop_px + 1))
    if at_cracks and rng.random() < at_cracks and len(places := np.flatnonzero(mask)):
        pixel = np.unravel_index(int(places[rng.integers(len(places))]), mask.shape)
        away = rng.uniform(-_JITTER, _JITTER, 2) * crop_px
        top, left = (
            int(np.clip(at + shift - crop_px / 2, 0, side - crop_px))
            for at, shift, side in zip(pixel, away, mask.shape, strict=True)
        )
    return image, mask, top, left


def shift_hue_saturation(image: np.ndarray, hue: float, saturation: float) -> np.ndarray:
    """Shift the hue by a fraction of the circle and multiply the saturation; RGB uint8 in and out."""
    if hue == 0 and saturation == 1:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # H in 0..179
    table = np.empty((256, 1, 3), np.uint8)
    levels = np.arange(256)
    table[:, 0, 0] = (levels + round(hue * 180)) % 180
    table[:, 0, 1] = (levels * saturation).clip(0, 255).round()
    table[:, 0, 2] = levels
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)


def shift_brightness_contrast(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    """Scale around the image's mean grey and add a fraction of full scale; uint8 in and out."""
    if brightness == 0 and contrast == 1:
        return image
    mean = float(np.mean(cv2.mean(image)[:3]))
    table = ((np.arange(256) - mean) * contrast + mean + brightness * 255).clip(0, 255).round().astype(np.uint8)
    return cv2.LUT(image, table)
