"""Small datasets as people have them: photographs and ground truth in any folder, format and mode."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def make_photo(seed: int, size: tuple[int, int] = (48, 32)) -> np.ndarray:
    """Rough pavement, uint8 (H, W, 3) for a ``size`` of (width, height); no two seeds look alike."""
    rng = np.random.default_rng(seed)
    width, height = size
    rough = rng.normal(130, 40, (6, 8, 3)).clip(0, 255).astype(np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def make_mask(seed: int, size: tuple[int, int] = (48, 32)) -> np.ndarray:
    """A crack one pixel wide, {0, 1} uint8 (H, W)."""
    width, height = size
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    ys = rng.integers(0, height, 4)
    points = np.stack([np.linspace(0, width - 1, 4).astype(int), ys], axis=1)
    cv2.polylines(mask, [points.reshape(-1, 1, 2)], isClosed=False, color=1)
    return mask


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    """Save values as the image that the path's extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def add_photos(folder: Path, stems: list[str], extension: str = ".jpg", size: tuple[int, int] = (48, 32)) -> None:
    """Save a photograph for each stem, its content seeded by the stem."""
    for stem in stems:
        save(folder / f"{stem}{extension}", make_photo(seed_of(stem), size))


def add_masks(folder: Path, stems: list[str], extension: str = ".png", size: tuple[int, int] = (48, 32)) -> None:
    """Save a ground truth of 0 and 255 for each stem."""
    for stem in stems:
        save(folder / f"{stem}{extension}", make_mask(seed_of(stem), size) * np.uint8(255))


def seed_of(stem: str) -> int:
    """A number for a name, the same in each run."""
    return int.from_bytes(stem.encode()[-6:], "little")
