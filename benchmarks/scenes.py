"""Photographs, truths and maps to measure on: synthetic and seeded."""

from __future__ import annotations

import cv2
import numpy as np


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
