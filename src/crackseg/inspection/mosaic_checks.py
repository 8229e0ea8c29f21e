"""Check that the files of a mosaic are whole: GDAL ends well on a full disk, with files that nobody can read."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crackseg.errors import CracksegError, first_line
from crackseg.inspection.mosaic_reading import open_raster

_ROWS = 512  # read at once, two rows of blocks of 256


def crc_of(path: Path) -> int:
    """Compute the CRC-32 of the pixels of a raster's first band, from the top, row by row."""
    from rasterio.windows import Window

    crc = 0
    with open_raster(path) as file:
        for top in range(0, file.height, _ROWS):
            window = Window(0, top, file.width, min(_ROWS, file.height - top))
            crc = zlib.crc32(file.read(1, window=window), crc)
    return crc


def check_raster(path: Path, crc: int) -> None:
    """Check that a raster has the pixels of this :func:`crc_of`; raises a CracksegError."""
    if crc_of(path) != crc:
        raise _not_whole(path, "its pixels are not those that were written")


def check_erased(path: Path, erased: Iterable[tuple[Any, np.ndarray]]) -> None:
    """Check that a mask has no crack at pixels that were erased: windows, and bool (h, w); raises a CracksegError."""
    with open_raster(path) as file:
        if any((file.read(1, window=window)[own_hw] == 1).any() for window, own_hw in erased):
            raise _not_whole(path, "what was erased is there again")


def check_geopackage(path: Path, layer: str, num_features: int) -> None:
    """Check that a GeoPackage is a sound database with so many features; raises a CracksegError."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        (count,) = connection.execute(f'SELECT count(*) FROM "{layer}"').fetchone()
    if found != "ok" or count != num_features:
        raise _not_whole(path, f"{count} of {num_features} cracks, {found}")


@contextlib.contextmanager
def whole_or_said(out_dir: Path) -> Iterator[None]:
    """Turn errors of GDAL and SQLite, which are no OSError, into a CracksegError that names the folder."""
    from pyogrio.errors import DataLayerError, DataSourceError
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (CPLE_BaseError, RasterioError, DataLayerError, DataSourceError, sqlite3.Error) as error:
        raise _not_whole(out_dir, first_line(error)) from error


def _not_whole(path: Path, reason: str) -> CracksegError:
    return CracksegError(
        f"{path}: could not be written whole ({reason}); is the disk full (No space left on device)? Make room, and "
        "the same command continues from the rows of tiles that are kept"
    )
