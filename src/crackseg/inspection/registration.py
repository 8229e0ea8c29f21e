"""Register a photograph of a surface onto an earlier one by features, then by ECC; or say why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from crackseg.errors import CracksegError

_FEATURES_PX, _ECC_PX = 1600, 800  # longer side at which features are found and the intensities are aligned
_NUM_FEATURES = 4000
_RATIO = 0.8  # of the distances of the best and the second match (Lowe, 2004)
_INLIER_PX = 3.0  # at the size of the features
_MIN_MATCHES = 25  # random matches of two places agree by a dozen at most
_MIN_OVERLAP = 0.25  # of the earlier photograph
_MIN_SPREAD = 0.05  # of the earlier photograph that the matches lie around
_LARGEST_ZOOM = 4.0


class NotRegistered(CracksegError):
    """Raised for two photographs that cannot be registered; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Homography from a later photograph to an earlier one.

    Attributes:
        to_before: float (3, 3), pixels (x, y, 1) of the later photograph to those of the earlier one.
        error_px: root mean square distance of matched points, in pixels of the earlier photograph.
        num_matches: points that agree on it.
        overlap: fraction of the earlier photograph that the later one shows.
    """

    to_before: np.ndarray
    error_px: float
    num_matches: int
    overlap: float


def register(before_HW3: np.ndarray, after_HW3: np.ndarray) -> Registration:
    """Find the homography between two photographs of one plane surface.

    Args:
        before_HW3, after_HW3: uint8, RGB, of any sizes.
    Raises:
        NotRegistered: they do not show the same place, from too different a view, or hardly overlap.
    """
    before, scale_before = _reduce(before_HW3, _FEATURES_PX)
    after, scale_after = _reduce(after_HW3, _FEATURES_PX)
    ours, theirs = _match(before, after)
    if len(ours) < _MIN_MATCHES:
        raise NotRegistered(_too_few(len(ours)))
    matrix, inliers = cv2.findHomography(
        theirs, ours, cv2.USAC_MAGSAC, _INLIER_PX, maxIters=10_000, confidence=0.9999
    )
    chosen = np.zeros(len(ours), bool) if matrix is None else inliers.ravel().astype(bool)
    if chosen.sum() < _MIN_MATCHES:
        raise NotRegistered(_too_few(int(chosen.sum())))
    spread = cv2.contourArea(cv2.convexHull(ours[chosen])) / before.size
    if spread < _MIN_SPREAD:
        raise NotRegistered(
            f"the {chosen.sum()} points that both photographs show lie in {spread:.0%} of the picture; expected a view "
            "of the same place with more structure around the cracks"
        )
    to_before = np.linalg.inv(scale_before) @ matrix @ scale_after
    to_before = _refine(before_HW3, after_HW3, to_before / to_before[2, 2])
    overlap = _check_view(before_HW3.shape[:2], after_HW3.shape[:2], to_before)
    points = map_points(np.linalg.inv(scale_before), ours[chosen])
    there = map_points(to_before, map_points(np.linalg.inv(scale_after), theirs[chosen]))
    error_px = float(np.sqrt(np.mean(np.sum((points - there) ** 2, axis=1))))
    return Registration(to_before, error_px, int(chosen.sum()), overlap)


def map_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points, float (N, 2), by a homography."""
    if not len(points):
        return np.empty((0, 2))
    return cv2.perspectiveTransform(points[None].astype(float), matrix)[0]


def zoom_at(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the factor, float (N,), by which a homography enlarges lengths at points, on average over directions."""
    x, y = points.T
    scale = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    return np.sqrt(np.abs(np.linalg.det(matrix)) / np.abs(scale) ** 3)


def _too_few(count: int) -> str:
    return (
        f"only {count} points agree, and {_MIN_MATCHES} are needed: the photographs do not show the same place, "
        "or from too different a view, light or sharpness"
    )


def _reduce(image_HW3: np.ndarray, longest_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a grey image, uint8, with local contrast evened out, and the matrix from the photograph to it."""
    height, width = image_HW3.shape[:2]
    factor = min(1.0, longest_px / max(height, width))
    grey = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    if factor < 1:
        grey = cv2.resize(grey, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    fx, fy = grey.shape[1] / width, grey.shape[0] / height
    # Pixel centres are whole numbers.
    matrix = np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1.0]])
    return cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8)).apply(grey), matrix


def _match(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return matching points of both images, float32 (N, 2) each."""
    sift = cv2.SIFT.create(nfeatures=_NUM_FEATURES, contrastThreshold=0.02)
    points, described = zip(*(sift.detectAndCompute(image, None) for image in (before, after)), strict=True)
    if any(each is None or len(each) < 2 for each in described):
        return np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    roots = [np.sqrt(each / np.maximum(each.sum(axis=1, keepdims=True), 1e-9)) for each in described]  # RootSIFT
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(roots[0], roots[1], k=2)
    good = [m for m, *others in matches if others and m.distance < _RATIO * others[0].distance]
    ours = np.array([points[0][m.queryIdx].pt for m in good], np.float32).reshape(-1, 2)
    theirs = np.array([points[1][m.trainIdx].pt for m in good], np.float32).reshape(-1, 2)
    return ours, theirs


def _refine(before_HW3: np.ndarray, after_HW3: np.ndarray, to_before: np.ndarray) -> np.ndarray:
    """Align the intensities (ECC, Evangelidis and Psarakis, 2008); keep the start if that is no better."""
    before, scale_before = _reduce(before_HW3, _ECC_PX)
    after, scale_after = _reduce(after_HW3, _ECC_PX)
    start = scale_after @ np.linalg.inv(to_before) @ np.linalg.inv(scale_before)  # ECC maps the template's pixels
    start = (start / start[2, 2]).astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-5)
    try:
        known = _correlate(before, after, start)
        correlation, found = cv2.findTransformECC(
            before, after, start.copy(), cv2.MOTION_HOMOGRAPHY, criteria, np.full_like(after, 255), 5
        )
    except cv2.error:  # it does not converge
        return to_before
    if not np.isfinite(found).all() or correlation <= known:
        return to_before
    refined = np.linalg.inv(scale_before) @ np.linalg.inv(found.astype(float)) @ scale_after
    return refined / refined[2, 2]


def _correlate(before: np.ndarray, after: np.ndarray, to_after: np.ndarray) -> float:
    size = before.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    blurred = [cv2.GaussianBlur(image, (5, 5), 0) for image in (before, after)]
    seen = cv2.warpPerspective(
        np.full_like(after, 255), to_after, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    return float(cv2.computeECC(blurred[0], cv2.warpPerspective(blurred[1], to_after, size, flags=flags), seen))


def _check_view(before: tuple[int, int], after: tuple[int, int], to_before: np.ndarray) -> float:
    """Return the fraction of the earlier photograph that the later one shows.

    Raises:
        NotRegistered: the homography mirrors, folds or enlarges beyond sense, or they hardly overlap.
    """
    height, width = after
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)
    depth = corners @ to_before[2, :2] + to_before[2, 2]
    zooms = zoom_at(to_before, corners)
    if depth.min() <= 0 or np.linalg.det(to_before) <= 0 or max(zooms.max(), 1 / zooms.min()) > _LARGEST_ZOOM:
        raise NotRegistered(
            "the matching points give no view that a camera could have; they show different places"
        )
    overlap = float(find_seen(Registration(to_before, 0, 0, 0), after, before).mean())
    if overlap < _MIN_OVERLAP:
        raise NotRegistered(
            f"the photographs overlap by {overlap:.0%} of the earlier one; {_MIN_OVERLAP:.0%} are needed"
        )
    return overlap


def warp_to_before(
    image: np.ndarray, registration: Registration, size: tuple[int, int], *, outside: float = 0
) -> np.ndarray:
    """Resample an image of the later photograph in the frame of the earlier one.

    Args:
        image: uint8 (H, W, 3) or float32 (H, W).
        registration: of both.
        size: (width, height) of the earlier photograph.
        outside: value where the later photograph shows nothing.
    """
    middle = np.array([[size[0] / 2, size[1] / 2]])
    shrinks = float(zoom_at(np.linalg.inv(registration.to_before), middle)[0])
    if shrinks > 1.1:  # a camera averages what falls into a pixel
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * shrinks)
    interpolation = cv2.INTER_CUBIC if image.dtype == np.uint8 else cv2.INTER_LINEAR
    border = (outside,) * 4
    return cv2.warpPerspective(image, registration.to_before, size, flags=interpolation, borderValue=border)


def find_seen(registration: Registration, after: tuple[int, int], before: tuple[int, int]) -> np.ndarray:
    """Return what both photographs show, bool (H, W) in the frame of the earlier one.

    Args:
        registration: of both.
        after, before: (height, width) of the photographs.
    """
    ones = np.ones(after, np.uint8)
    return cv2.warpPerspective(ones, registration.to_before, before[::-1], flags=cv2.INTER_NEAREST) > 0
