"""What the page shows of a large photograph must not lose what is one pixel wide."""

import cv2
import numpy as np

from crackseg.serving.page.pictures import CRACK_RGB, VIEW_PX, encode_cracks, encode_heat, encode_view, view_size

LARGE = (3001, 5003)  # height, width: 2.44 pixels to one of the view


def decode(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_a_crack_of_one_pixel_stays_whole_in_a_large_photograph() -> None:
    mask = np.zeros(LARGE, bool)
    for row in range(100, 2900):
        mask[row, row] = True
    shown = decode(encode_cracks(mask))
    assert shown.shape == (*view_size(*LARGE), 4)
    on = shown[..., 3] > 0
    pieces, _ = cv2.connectedComponents(on.astype(np.uint8), connectivity=8)
    assert pieces == 2  # the crack and all else
    assert np.ptp(np.flatnonzero(on.any(axis=1))) >= 2799 * VIEW_PX / 5003 - 1
    assert (shown[on] == (*CRACK_RGB[::-1], 255)).all()
    assert not shown[~on].any()


def test_a_small_photograph_is_shown_pixel_for_pixel() -> None:
    mask = np.random.default_rng(0).random((40, 60)) > 0.5
    assert np.array_equal(decode(encode_cracks(mask))[..., 3] > 0, mask)
    image = np.full((40, 60, 3), (200, 100, 50), np.uint8)
    shown = cv2.cvtColor(decode(encode_view(image)), cv2.COLOR_BGR2RGB)
    assert np.abs(shown.astype(int) - image).max() < 6


def test_a_single_sure_pixel_is_seen_in_the_heat_of_a_large_photograph() -> None:
    crack_prob = np.zeros(LARGE, np.float32)
    crack_prob[1501, 2502] = 1
    shown = decode(encode_heat(crack_prob))
    assert shown.shape == (*view_size(*LARGE), 3)
    brightness = shown.max(axis=2)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert brightness.max() > 120
    assert abs(row - 1501 * VIEW_PX / 5003) <= 2
    assert abs(column - 2502 * VIEW_PX / 5003) <= 2
