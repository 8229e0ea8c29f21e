"""Photographs, truths and maps to measure on: synthetic and seeded."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from crackseg.data.synthetic.elements import draw_elements

_DIFFERENT = 10


def draw_pair(seed: int, size_px: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, uint8 (H, W, 3), and its 1-px truth, uint8 (H, W) of {0, 1}: dark lines on grainy concrete."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((size_px, size_px), np.uint8)
    cv2.polylines(truth, [rng.integers(0, size_px, (6, 2)).astype(np.int32)], False, 1)
    grain = cv2.GaussianBlur(rng.random((size_px, size_px, 3), np.float32), (0, 0), 1.2) * 120 + 90
    light = 60 * cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 1)[..., None]
    tint = np.array([8, 2, -10], np.float32)
    return (grain + tint - light).clip(0, 255).astype(np.uint8), truth


def draw_map(seed: int, size_px: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """A probability map as a trained model gives, float32 (H, W), and its truth, uint8 (H, W) of {0, 1}."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((size_px, size_px), np.uint8)
    points = rng.integers(0, size_px, (6, 2))
    cv2.polylines(truth, [points.astype(np.int32)], False, 1)
    near = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 1.5)
    noise = cv2.GaussianBlur(rng.random((size_px, size_px), np.float32), (0, 0), 2)
    prob = np.clip(0.9 * near / near.max() + 0.3 * noise - 0.1 + 0.02 * rng.random(noise.shape, np.float32), 0, 1)
    return prob.astype(np.float32), truth


def write_photographs(folder: Path, count: int, size: tuple[int, int] = (1600, 1200)) -> list[Path]:
    """Write photographs of two megapixels as JPEG, as a camera does; ten different ones, then copies of them."""
    folder.mkdir(parents=True)
    width, height = size
    paths = [folder / f"{number:03d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if number >= _DIFFERENT:
            shutil.copy(paths[number % _DIFFERENT], path)
            continue
        part, _ = draw_pair(number)
        image = np.tile(part, (-(-height // 512), -(-width // 512), 1))[:height, :width]
        ok, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
        assert ok
        path.write_bytes(content.tobytes())
    return paths


def draw_wall(number: int, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Concrete with the joints of planks in six of ten, as UAV75's: a photograph and its truth, see draw_pair."""
    image, truth = draw_pair(number, size_px)
    rng = np.random.default_rng([1, number])
    light, truth = draw_elements(image, truth, rng, ["joints"])
    return light.clip(0, 255).astype(np.uint8), truth
