"""Strong changes that make one drawn patch many photographs: turns, zoom, colour, contrast, blur, noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np


def cut_patch(
    image: np.ndarray, mask: np.ndarray, size_px: int, rng: np.random.Generator, *, zoom: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a random square, turn it by quarters and flip it; some are seen from another distance and at a slant.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask: uint8 (H, W), 0 or 1, of the same size.
        size_px: side of the patch, at most that of the image.
        zoom: fraction of the patches whose scale is changed, by 0.6 to 1.7; a half of these are foreshortened, up to
            2.5 times, more so at the far side.
    Returns:
        uint8 (size_px, size_px, 3) and (size_px, size_px); lines of the mask are one pixel wide again.
    """
    if rng.random() < zoom:
        image, mask = _see_from_elsewhere(image, mask, size_px, rng)
    else:
        top, left = (int(rng.integers(0, length - size_px + 1)) for length in image.shape[:2])
        image, mask = (array[top : top + size_px, left : left + size_px] for array in (image, mask))
    turns, flips = int(rng.integers(4)), rng.random() < 0.5
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if flips:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def _see_from_elsewhere(
    image: np.ndarray, mask: np.ndarray, size_px: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Warp a four-sided part of the image to the patch; beyond the image's rim it is mirrored."""
    # A quarter of a second, which training without scenes need not wait for.
    from skimage.morphology import skeletonize

    side = size_px / float(np.exp(rng.uniform(np.log(0.6), np.log(1.7))))
    tall = wide_near = wide_far = side
    if rng.random() < 0.5:
        tall = side * rng.uniform(1, 2.5)
        wide_far = side * rng.uniform(1, 2)
    angle = rng.uniform(0, 2 * np.pi)
    corners = np.array(((-wide_far, -tall), (wide_far, -tall), (wide_near, tall), (-wide_near, tall))) / 2
    turn = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
    corners = corners @ turn.T
    height, width = mask.shape
    reach = np.minimum(np.abs(corners).max(axis=0), (width / 2, height / 2))
    centre = rng.uniform(reach, np.array((width, height)) - reach)
    target = np.array(((0, 0), (size_px, 0), (size_px, size_px), (0, size_px)))
    matrix = cv2.getPerspectiveTransform((corners + centre).astype(np.float32), target.astype(np.float32))
    shrinks = max(side, (tall + wide_far) / 2) / size_px
    if shrinks > 1.15:  # a camera averages what falls into a pixel
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * shrinks)
    shape = (size_px, size_px)
    wide = cv2.dilate(mask, np.ones((3, 3), np.uint8)) if shrinks > 1.15 else mask
    seen = cv2.warpPerspective(wide * np.float32(1), matrix, shape, borderMode=cv2.BORDER_REFLECT_101)
    return cv2.warpPerspective(image, matrix, shape, borderMode=cv2.BORDER_REFLECT_101), skeletonize(
        seen > 0.4
    ).astype(np.uint8)


def photograph_patch(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change contrast, brightness, colour, gamma and sharpness strongly, and add noise and traces of JPEG.

    Args:
        light: float32 (H, W, 3), RGB, about 0 to 255.
    Returns:
        uint8 (H, W, 3).
    """
    mean = np.float32(light.mean())
    light = (light - mean) * np.float32(rng.uniform(0.45, 1.6)) + mean + np.float32(rng.uniform(-50, 50))
    light = light * (1 + rng.normal(0, 0.08, 3).astype(np.float32))
    colour = rng.random()
    if colour < 0.5:  # three in ten grey, two in ten paler or more colourful
        grey = light.mean(axis=2, keepdims=True)
        light = grey + (light - grey) * np.float32(0 if colour < 0.3 else rng.uniform(0, 2.5))
    if rng.random() < 0.5:
        light = 255 * (light.clip(0, 255) / 255) ** np.float32(rng.uniform(0.6, 1.6))
    if rng.random() < 0.15:  # darker towards a corner
        light = light * _vignette(rng, light.shape[:2])
    blur = rng.random()
    if blur < 0.5:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, 1.4))
    elif blur < 0.57:  # motion
        length = int(rng.integers(2, 6))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, 0), (length - 1, int(rng.integers(length))), 1.0)
        light = cv2.filter2D(light, -1, kernel / kernel.sum())
    if rng.random() < 0.6:
        channels = 1 if rng.random() < 0.5 else 3
        noise = rng.standard_normal((*light.shape[:2], channels), dtype=np.float32)
        light = light + np.float32(rng.uniform(0, 12)) * noise
    image = np.rint(light).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        ok, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
        assert ok, image.shape
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    return image


def _vignette(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = (np.linspace(0, 1, length, dtype=np.float32) for length in size)
    corner = rng.integers(0, 2, 2)
    distance = np.hypot(y[:, None] - corner[0], x - corner[1])
    return (1 - np.float32(rng.uniform(0.1, 0.5)) * distance / np.float32(1.4))[..., None]
