"""Save and load per-image confusion counts, from which later comparisons resample images without the maps."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crackseg.errors import CracksegError
from crackseg.evaluation.metrics import ImageCounts
from crackseg.files import write_bytes

_CURVES = ("predicted", "predicted_near_truth", "predicted_on_truth", "truth_near_prediction")


def write_counts(counts: Mapping[str, ImageCounts], path: Path) -> None:
    """Write the counts of a dataset's images by stem, compressed; the same bytes for the same counts."""
    stems = sorted(counts)
    arrays: dict[str, Any] = {
        name: np.stack([getattr(counts[stem], name) for stem in stems]).astype(np.int64) for name in _CURVES
    }
    arrays["stems"] = np.array(stems, dtype=np.str_)
    arrays["truth"] = np.array([counts[stem].truth for stem in stems], np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_counts(path: Path) -> dict[str, ImageCounts]:
    """Read the counts written by :func:`write_counts`, in the order of the stems.

    Raises:
        CracksegError: the file is damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            predicted, near_truth, on_truth, reached = (arrays[name] for name in _CURVES)
            return {
                str(stem): ImageCounts(predicted[i], near_truth[i], on_truth[i], reached[i], int(truth))
                for i, (stem, truth) in enumerate(zip(arrays["stems"], arrays["truth"], strict=True))
            }
    except (KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise CracksegError(
            f"{path}: not the counts of images that crackseg writes ({error}); score again with `dvc repro`"
        ) from error
