"""Prepare photographs of any size for the models (the paper's section 3.3).

The image is resized by pixel area, the 1-px ground truth by nearest neighbour as in the paper, or line by line.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from crackseg.data.catalog import MANIFEST_COLUMNS, list_samples, read_manifest
from crackseg.data.images.files import encode_png, read_image, read_mask, write_mask
from crackseg.errors import CracksegError
from crackseg.files import write_bytes, write_csv
from crackseg.params import DataParams
from crackseg.progress import progress
from crackseg.types import CrackSample


class PreparedPair(NamedTuple):
    """image uint8 (H, W, 3) RGB; mask uint8 (H, W) of {0, 1}; roi uint8 (H, W) of {0, 1}, or None for all."""

    image: np.ndarray
    mask: np.ndarray
    roi: np.ndarray | None


def resize_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize by pixel area when shrinking (the paper), linearly when enlarging; uint8 in, uint8 out."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_mask(mask: np.ndarray, width: int, height: int, *, method: str) -> np.ndarray:
    """Resize a mask of {0, 1}.

    Args:
        mask: uint8 (H, W).
        width, height: the new size in pixels.
        method: ``nearest`` is the paper's: each new pixel has the value at its middle. Shrinking 800 x 600 to
            512 x 512 it drops about half of a 1-px line's pixels. ``line`` moves every crack pixel to its new
            place instead, so that neighbours stay neighbours and no line breaks; where a side grows, it is the
            same as ``nearest``.

    The paper does not say which nearest neighbour it took. The middle, as in Pillow, leaves ground truth where
    :func:`resize_image` leaves the crack. OpenCV's ``INTER_NEAREST`` takes each cell's first pixel, which moves the
    ground truth half a pixel right and down against the photograph, in the resized datasets and not in the others.

    Returns:
        uint8 (height, width) of {0, 1}.
    """
    if mask.shape == (height, width):
        return mask
    shrinks = height <= mask.shape[0] and width <= mask.shape[1]
    if method == "nearest" or not shrinks:
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    rows, columns = np.nonzero(mask)
    resized = np.zeros((height, width), np.uint8)
    resized[(2 * rows + 1) * height // (2 * mask.shape[0]), (2 * columns + 1) * width // (2 * mask.shape[1])] = 1
    return resized


def prepare_pair(
    image: np.ndarray,
    mask: np.ndarray,
    roi: np.ndarray | None,
    *,
    size_px: int,
    resize: str,
    mask_resize: str,
) -> PreparedPair:
    """Resize an image, its ground truth and its region of interest to one size.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask, roi: uint8 of {0, 1}; their size may differ from the image's (Stone331's ground truth is half as large).
        size_px: side of the result for ``square`` and ``pad``.
        resize: ``square`` distorts to size_px x size_px (the paper); ``pad`` shrinks or enlarges the longer side
            to size_px and fills the rest with the mean colour, outside the region of interest; ``none`` keeps
            the image's own size.
        mask_resize: see :func:`resize_mask`.
    """
    height, width = image.shape[:2]
    if resize == "square":
        width = height = size_px
    elif resize == "pad":
        scale = size_px / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    pair = PreparedPair(
        resize_image(image, width, height),
        resize_mask(mask, width, height, method=mask_resize),
        None if roi is None else resize_mask(roi, width, height, method="nearest"),
    )
    if resize != "pad" or (height, width) == (size_px, size_px):
        return pair
    inside = pair.roi if pair.roi is not None else np.ones((height, width), np.uint8)
    colour = pair.image.mean(axis=(0, 1)).round().tolist()
    padding = (0, size_px - height, 0, size_px - width, cv2.BORDER_CONSTANT)
    return PreparedPair(
        cv2.copyMakeBorder(pair.image, *padding, value=colour),
        cv2.copyMakeBorder(pair.mask, *padding, value=0),
        cv2.copyMakeBorder(inside, *padding, value=0),
    )


def prepare_dataset(data_dir: Path, dataset: str, prepared_dir: Path, params: DataParams) -> None:
    """Write ``prepared_dir/dataset`` in the canonical layout, every image in the size that the models take."""
    out = prepared_dir / dataset
    if out.exists():
        shutil.rmtree(out)
    manifest = read_manifest(data_dir, dataset).set_index("stem")
    rows = []
    samples = list_samples(data_dir, dataset)
    for sample in progress(samples, f"prepare {dataset}", "image"):
        pair = _prepare_sample(sample, params)
        row = manifest.loc[sample.stem].to_dict()
        row |= {"stem": sample.stem, "image": f"images/{sample.stem}.png", "mask": f"masks/{sample.stem}.png"}
        row["height"], row["width"] = row["mask_height"], row["mask_width"] = pair.mask.shape
        row["crack_fraction"] = float(pair.mask.mean())
        write_bytes(out / row["image"], encode_png(pair.image))
        write_mask(out / row["mask"], pair.mask)
        row["roi"] = f"roi/{sample.stem}.png" if pair.roi is not None else ""
        if pair.roi is not None:
            write_mask(out / row["roi"], pair.roi)
        rows.append(row)
    write_csv(pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS)), out / "manifest.csv", digits=None)


def _prepare_sample(sample: CrackSample, params: DataParams) -> PreparedPair:
    roi = read_mask(sample.roi_path) if sample.roi_path else None
    try:
        image, mask = read_image(sample.image_path), read_mask(sample.mask_path)
    except CracksegError as error:
        raise CracksegError(f"{sample.dataset}: {error}; see `crackseg data validate`") from error
    return prepare_pair(
        image, mask, roi, size_px=params.size_px, resize=params.resize, mask_resize=params.mask_resize
    )
