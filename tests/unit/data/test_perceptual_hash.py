from __future__ import annotations

import cv2
import numpy as np
import pytest

from crackseg.data.perceptual_hash import compute_fingerprint, find_duplicates
from tests.unit.data.importing.raw_sources import make_photo

PHOTO = cv2.resize(make_photo(0), (240, 160), interpolation=cv2.INTER_CUBIC)


def compare(first: np.ndarray, second: np.ndarray) -> list[bool]:
    """For each duplicate found, whether it is exact."""
    return [d.exact for d in find_duplicates([compute_fingerprint(first), compute_fingerprint(second)])]


def encode(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_same_pixels_are_an_exact_duplicate() -> None:
    assert compare(PHOTO, PHOTO.copy()) == [True]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: encode(p, 40),
        lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda p: (p * 0.8 + 20).astype(np.uint8),
        lambda p: np.rot90(p),
        lambda p: p[::-1],
        lambda p: encode(np.ascontiguousarray(np.rot90(p, 3)[:, ::-1]), 60),
    ],
    ids=["compressed", "scaled", "brighter", "turned", "mirrored", "turned, mirrored, compressed"],
)
def test_changed_copy_is_a_near_duplicate(change) -> None:
    assert compare(PHOTO, np.ascontiguousarray(change(PHOTO))) == [False]


def test_different_photographs_are_no_duplicates() -> None:
    prints = [compute_fingerprint(make_photo(seed)) for seed in range(40)]
    assert list(find_duplicates(prints)) == []


def test_every_pair_of_several_copies_is_found() -> None:
    prints = [compute_fingerprint(p) for p in (make_photo(1), PHOTO, make_photo(2), PHOTO, encode(PHOTO, 70))]
    found = {(d.first, d.second): d.exact for d in find_duplicates(prints)}
    assert found == {(1, 3): True, (1, 4): False, (3, 4): False}


def test_images_without_contrast_are_duplicates_only_if_equal() -> None:
    grey = np.full((32, 48, 3), 90, np.uint8)
    assert compare(grey, grey + 1) == []
    assert compare(grey, grey.copy()) == [True]
