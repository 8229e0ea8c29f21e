"""The three steps of a photograph on its way to its files: read it, predict it, finish its pictures and its row.

crackseg.inference.files takes photographs through them, crackseg.inference.overlap in several threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from crackseg.data.image_files import Photograph
from crackseg.data.images.decoding import decode_photograph, open_image
from crackseg.data.images.files import read_file, write_mask, write_probability_map
from crackseg.errors import CracksegError
from crackseg.files import sync_files, write_bytes
from crackseg.inference.detector import CrackAnalyzer, ModelSettings
from crackseg.inference.drift import measure_photograph, warn_of_use
from crackseg.inference.overlap import MOST_OVERLAPPED_PIXELS
from crackseg.inference.table import COLUMNS, Row

_OVERLAY_PX = 4096  # longest side
_OVERLAY_QUALITY = 90
_CRACK_RGB = (255, 40, 0)


def name_files(photograph: Photograph) -> dict[str, str]:
    """Name the files of a photograph's result, by column of the table, relative to its folder."""
    name = photograph.name
    return {"mask": f"masks/{name}.png", "overlay": f"overlays/{name}.jpg", "map": f"maps/{name}.png"}


def describe_use(settings: ModelSettings, figures: Mapping[str, float]) -> str:
    """Return the column ``warning``: the model must not be used, or the photograph is unlike its own."""
    return " ".join(warn_of_use(settings, [figures]))


def identify(path: Path) -> Row:
    """Identify a version of a file without reading it, by size and time; empty if the file is missing."""
    try:
        status = path.stat()
    except OSError:
        return {"image": str(path), "size_bytes": "", "modified_ns": ""}
    return {"image": str(path), "size_bytes": str(status.st_size), "modified_ns": str(status.st_mtime_ns)}


@dataclass(slots=True)
class Work:
    """A photograph on its way; each step lets go of the arrays that the next ones do not need."""

    photograph: Photograph
    row: Row
    content: bytes = b""  # of the file, until it is decoded
    pixels: int = 0
    image_HW3: np.ndarray | None = None
    background_hw3: np.ndarray | None = None  # for the overlay
    crack_prob_HW: np.ndarray | None = None
    measured: dict[str, float] = field(default_factory=dict)


def is_large(work: Work) -> bool:
    """Return True if there should be only one such photograph in memory at a time."""
    return work.pixels > MOST_OVERLAPPED_PIXELS


@dataclass(frozen=True, slots=True)
class Job:
    """The three steps of a photograph; a CracksegError in one of them becomes the row's error.

    Attributes:
        analyzer: the model.
        out_dir: of the results.
        model: identifier of the weights and settings.
        threshold: in [0, 1].
        wanted: columns of the pictures to write: ``mask``, ``overlay``, ``map``.
    """

    analyzer: CrackAnalyzer
    out_dir: Path
    model: str
    threshold: float
    wanted: Set[str]

    def read(self, photograph: Photograph) -> Work:
        """Read a photograph, and decode and measure it unless it is large."""
        row = dict.fromkeys(COLUMNS, "") | identify(photograph.path)
        row |= {"model": self.model, "threshold": repr(self.threshold)}
        work = Work(photograph, row)
        with _noted(work):
            work.content = read_file(photograph.path)
            width, height = open_image(work.content, str(photograph.path)).size
            work.pixels = width * height
            if not is_large(work):
                self._decode(work)
        return work

    def _decode(self, work: Work) -> None:
        decoded = decode_photograph(work.content, name=str(work.photograph.path))
        work.content, work.image_HW3 = b"", decoded.image_HW3
        height, width = decoded.image_HW3.shape[:2]
        work.row |= {"width": str(width), "height": str(height), "remark": decoded.remark}
        work.measured = measure_photograph(decoded.image_HW3)

    def predict(self, work: Work) -> Work:
        """Compute the map; returns the same object."""
        with _noted(work):
            # A thread keeps some of the memory that it has freed: a large photograph is decoded here instead.
            if work.content and not work.row["error"]:
                self._decode(work)
            if work.image_HW3 is not None:
                work.crack_prob_HW = self.analyzer.predictor.predict_prob(work.image_HW3)  # refuses a few pixels
                # With a hundred megapixels, a photograph and its map leave no memory for a third of that size.
                work.background_hw3 = _reduce(work.image_HW3)
        work.content, work.image_HW3 = b"", None
        return work

    def finish(self, work: Work) -> Row:
        """Write the wanted pictures and return the row."""
        with _noted(work):
            self._write(work)
        return work.row

    def _write(self, work: Work) -> None:
        crack_prob_HW, work.crack_prob_HW = work.crack_prob_HW, None
        if crack_prob_HW is None:  # it could not be read
            return
        paths = {column: path for column, path in name_files(work.photograph).items() if column in self.wanted}
        if "map" in paths:
            write_probability_map(self.out_dir / paths["map"], crack_prob_HW)
        prediction = self.analyzer.describe_map(crack_prob_HW, threshold=self.threshold)
        crack_mask_HW, measured = prediction.crack_mask, work.measured
        for name in ("crack_fraction", "crack_length_px", "score", "confidence"):
            measured[name] = getattr(prediction, name)
        del prediction, crack_prob_HW
        write_mask(self.out_dir / paths["mask"], crack_mask_HW)
        if "overlay" in paths and work.background_hw3 is not None:
            write_bytes(self.out_dir / paths["overlay"], draw_overlay(work.background_hw3, crack_mask_HW))
        # The row says that they are there; after a power loss it must not be there without them.
        sync_files(path for path in map(self.out_dir.__truediv__, paths.values()) if path.exists())
        work.row |= {name: f"{value:.6g}" for name, value in measured.items()}
        work.row |= {**paths, "warning": describe_use(self.analyzer.settings, measured)}


@contextmanager
def _noted(work: Work) -> Iterator[None]:
    """Write an error of this photograph into its row, which is then without values."""
    try:
        yield
    except CracksegError as error:
        message, path = " ".join(str(error).split()), str(work.photograph.path)
        for column in ("width", "height", "remark"):
            work.row[column] = ""
        work.row["error"] = message if path in message else f"{path}: {message}"


def draw_overlay(image_hw3: np.ndarray, crack_mask_HW: np.ndarray) -> bytes:
    """Draw crack pixels in red on a photograph.

    If the photograph is smaller than the mask, a pixel is red if any of its mask pixels is crack, so that hair-thin
    cracks stay visible.

    Args:
        image_hw3: uint8 (h, w, 3), RGB, of the mask's size or smaller.
        crack_mask_HW: bool (H, W).
    Returns:
        A JPEG file's content.
    """
    height, width = image_hw3.shape[:2]
    crack_hw: np.ndarray = crack_mask_HW.astype(np.uint8) * np.uint8(255)
    if crack_hw.shape != (height, width):
        crack_hw = cv2.resize(crack_hw, (width, height), interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(image_hw3, cv2.COLOR_RGB2BGR)
    on = crack_hw > 0
    picture[on] = (0.3 * picture[on] + 0.7 * np.array(_CRACK_RGB[::-1])).astype(np.uint8)
    ok, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _OVERLAY_QUALITY])
    assert ok
    return content.tobytes()


def _reduce(image_HW3: np.ndarray) -> np.ndarray:
    """Reduce a photograph to the largest size of an overlay, if it is larger."""
    height, width = image_HW3.shape[:2]
    scale = _OVERLAY_PX / max(height, width)
    if scale >= 1:
        return image_HW3
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
