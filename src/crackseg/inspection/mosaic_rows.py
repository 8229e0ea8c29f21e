"""Finished rows of tiles of an orthomosaic on disk, so that a run that was stopped resumes."""

from __future__ import annotations

import io
import json
import logging
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crackseg.files import write_bytes

_log = logging.getLogger("crackseg")
_MADE_FROM = "made_from.json"


class KeptRows:
    """Rows of one mosaic, from the top, in a folder of their own.

    Args:
        folder: made if needed. Rows of another mosaic, model or threshold in it are deleted.
        made_from: identifies what the rows are made from, as JSON.

    Attributes:
        num_kept: rows that an earlier run finished.
    """

    def __init__(self, folder: Path, made_from: Mapping[str, Any]) -> None:
        self._folder = folder
        expected = json.dumps(made_from, sort_keys=True)
        known = folder / _MADE_FROM
        if not known.is_file() or known.read_text(encoding="utf-8") != expected:
            shutil.rmtree(folder, ignore_errors=True)
            write_bytes(known, expected.encode())
        self.num_kept = self._num = next(k for k in range(10**9) if not self._is_whole(k))

    def __len__(self) -> int:
        return self._num

    def add(self, mask_hW: np.ndarray, score_hW: np.ndarray) -> None:
        """Keep the next row: mask and probabilities, uint8."""
        content = io.BytesIO()
        np.savez_compressed(content, mask=mask_hW, score=score_hW)
        write_bytes(self._path(self._num), content.getvalue(), durable=True)
        self._num += 1

    def read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read all rows from the top: mask and probabilities."""
        for k in range(self._num):
            with np.load(self._path(k)) as row:
                yield row["mask"], row["score"]

    def _is_whole(self, number: int) -> bool:
        """Return whether a row is there; a damaged one is not, which is said."""
        path = self._path(number)
        try:
            with np.load(path) as row:
                return {"mask", "score"} <= set(row.files)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            _log.warning("%s: damaged; it is predicted again, with the rows below it", path)
            return False

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"
