"""Read an orthomosaic band by band as photograph rows, with what it has data for, and measure on its ground."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from crackseg.errors import CracksegError

NEEDS = "places on earth need rasterio, pyogrio and pyproj: pip install 'crackseg[geo]'"
_LOOK_PX = 1024  # longer side of the reduced mosaic that colours and values are judged by
# GDAL would take a twentieth of the machine's memory for blocks. These are two rows of blocks of 512 px in a mosaic of
# 48,000 px with four bands.
_CACHE_MB = "192"
_BITS = (8, 10, 11, 12, 14, 16)


def can_read_mosaics() -> bool:
    """Return True if the libraries of the extra [geo] are installed."""
    return all(find_spec(name) for name in ("rasterio", "pyogrio", "pyproj"))


def open_raster(path: Path, mode: str = "r", **profile: Any) -> Any:
    """Open a raster as rasterio does, without its warning that there is no place: remarks say so."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


class Mosaic:
    """An open orthomosaic; a ``with`` closes its file.

    Args:
        path: GeoTIFF or any raster that GDAL reads.
        bands: numbers of the bands for red, green and blue, or of one grey band; None: as the file says.
    Attributes:
        width, height: pixels.
        bands: numbers of the bands that are read.
        crs: rasterio's CRS, or None.
        transform: affine, from pixel corners (column, row) to the CRS.
        remarks: how it was read, where that had to be decided.
    Raises:
        CracksegError: the libraries are not installed, or the file is no raster that can be read as a photograph.
    """

    def __init__(self, path: Path, bands: Sequence[int] | None = None) -> None:
        os.environ.setdefault("GDAL_CACHEMAX", _CACHE_MB)  # GDAL reads it at its first block
        try:
            import pyogrio  # noqa: F401
            import pyproj
            from rasterio.errors import RasterioError
        except ImportError as error:
            raise CracksegError(f"{NEEDS} ({error})") from error
        logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # its messages name no file; ours do
        if not path.is_file():
            raise CracksegError(f"{path}: no such file; expected an orthomosaic, e.g. a GeoTIFF")
        try:
            self._dataset = open_raster(path)
        except RasterioError as error:
            raise CracksegError(f"{path}: not a raster that can be read ({error})") from error
        self.path = path
        self.width, self.height = self._dataset.width, self._dataset.height
        self.crs, self.transform = self._dataset.crs, self._dataset.transform
        self.remarks: list[str] = []
        self.bands = self._choose_bands(bands)
        self._look()
        self._geod = pyproj.Geod(ellps="WGS84")
        self._to_wgs84 = self._find_way_to_wgs84(pyproj)

    def __enter__(self) -> Mosaic:
        return self

    def __exit__(self, *_: object) -> None:
        self._dataset.close()

    def read_rows(self, top: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Read rows: uint8 (count, W, 3), the mosaic's usual colour where it has no data, and bool (count, W)."""
        from rasterio.windows import Window

        values, valid_HW = self._read(f"rows {top} to {top + count}", window=Window(0, top, self.width, count))
        valid_HW &= np.isfinite(values).all(axis=0) if values.dtype.kind == "f" else True
        if self._full_scale != 255 or values.dtype != np.uint8:
            scaled = np.nan_to_num(values.astype(np.float32)) * np.float32(255 / self._full_scale)
            values = scaled.round().clip(0, 255).astype(np.uint8)
        rgb_HW3 = np.broadcast_to(values.transpose(1, 2, 0), (*valid_HW.shape, 3)).copy()
        rgb_HW3[~valid_HW] = self._usual
        return rgb_HW3, valid_HW

    @property
    def has_ground(self) -> bool:
        """Return True if lengths on the ground are known."""
        return self._to_wgs84 is not None or self._unit_m is not None

    @property
    def has_places(self) -> bool:
        """Return True if pixels have longitude and latitude."""
        return self._to_wgs84 is not None

    def to_crs(self, points: np.ndarray) -> np.ndarray:
        """Map pixel centres, float (N, 2) as x and y, to the CRS (pixels stay what they are without a transform)."""
        x, y = points.T + 0.5
        t = self.transform
        return np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)

    def to_wgs84(self, points: np.ndarray) -> np.ndarray:
        """Map pixel centres to longitude and latitude, degrees; only with :attr:`has_places`."""
        assert self._to_wgs84 is not None
        return np.stack(self._to_wgs84.transform(*self.to_crs(points).T), axis=1)

    def length_m(self, points: np.ndarray) -> float:
        """Measure a line through pixel centres on the ground, in metres; only with :attr:`has_ground`."""
        if self._to_wgs84 is not None:
            longitudes, latitudes = self.to_wgs84(points).T
            return float(self._geod.line_length(longitudes, latitudes))
        assert self._unit_m is not None
        return float(np.hypot(*np.diff(self.to_crs(points), axis=0).T).sum() * self._unit_m)

    def mm_per_px(self, point: np.ndarray) -> float:
        """Return the ground sample distance at a pixel: the root of the area of a pixel, in millimetres."""
        steps = [np.array([point, point + step]) for step in ((1.0, 0.0), (0.0, 1.0))]
        if self._to_wgs84 is None:
            assert self._unit_m is not None
            return math.sqrt(abs(self.transform.determinant)) * self._unit_m * 1000
        sides = [self.length_m(step) for step in steps]
        # A sheared pixel has less area than the product of its sides.
        t = self.transform
        shear = abs(t.determinant) / (math.hypot(t.a, t.d) * math.hypot(t.b, t.e))
        return 1000 * math.sqrt(sides[0] * sides[1] * shear)

    def _choose_bands(self, bands: Sequence[int] | None) -> list[int]:
        count = self._dataset.count
        if bands is not None:
            if len(bands) not in (1, 3) or not all(1 <= band <= count for band in bands):
                raise CracksegError(
                    f"--bands {','.join(map(str, bands))}: {self.path} has {count} bands; expected one or three "
                    "of them, e.g. --bands 3,2,1 for red, green and blue"
                )
            return list(bands)
        meanings = [interpretation.name for interpretation in self._dataset.colorinterp]
        if "palette" in meanings:
            raise CracksegError(
                f"{self.path}: its values are numbers of a palette; convert it: gdal_translate -expand rgb IN OUT"
            )
        if {"red", "green", "blue"} <= set(meanings):
            return [meanings.index(colour) + 1 for colour in ("red", "green", "blue")]
        plain = [number for number, meaning in enumerate(meanings, start=1) if meaning != "alpha"]
        if len(plain) == 1:
            return plain
        if len(plain) == 3:
            return plain
        raise CracksegError(
            f"{self.path} has {count} bands ({', '.join(meanings)}), and none says that it is red, green or blue; name "
            "them: --bands 3,2,1, or --bands 1 for grey"
        )

    def _read(self, what: str, **place: Any) -> tuple[np.ndarray, np.ndarray]:
        """Read values (bands, h, w), and bool (h, w) where there are any."""
        from rasterio.errors import RasterioError

        try:
            values = self._dataset.read(self.bands, **place)
            masks = self._dataset.read_masks(self.bands, **place)
        except RasterioError as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise CracksegError(
                f"{self.path}: {what} cannot be read, so the file is damaged or cut short ({reason})"
            ) from error
        return values, np.logical_and.reduce(masks > 0)

    def _look(self) -> None:
        """Judge the range of the values and the usual colour by a reduced mosaic."""
        factor = max(1.0, max(self.width, self.height) / _LOOK_PX)
        shape = (len(self.bands), max(1, round(self.height / factor)), max(1, round(self.width / factor)))
        values, valid = self._read("the whole, reduced,", out_shape=shape)
        known = values[:, valid].astype(np.float64)
        known = known[:, np.isfinite(known).all(axis=0)]
        if not known.size:
            raise CracksegError(f"{self.path}: not one pixel has data (no-data value or alpha)")
        if known.min() < 0:
            raise CracksegError(f"{self.path}: values from {known.min():g} are no colours; expected 0 or more")
        largest = known.max()
        if values.dtype == np.uint8:
            self._full_scale = 255.0
        elif values.dtype.kind == "f" and largest <= 1.001:
            self._full_scale = 1.0
        else:
            bits = next((bits for bits in _BITS if largest < 2**bits), None)
            if bits is None:
                raise CracksegError(f"{self.path}: values to {largest:g} are no colours; expected at most 65535")
            self._full_scale = float(2**bits - 1)
        if values.dtype != np.uint8:
            self.remarks.append(
                f"{values.dtype} values up to {largest:g} read with full scale {self._full_scale:g}"
            )
        usual = np.median(known, axis=1) * 255 / self._full_scale
        self._usual = np.broadcast_to(usual.round().clip(0, 255).astype(np.uint8), 3).copy()

    def _find_way_to_wgs84(self, pyproj: Any) -> Any:
        self._unit_m: float | None = None
        if self.crs is None:
            self.remarks.append(
                "no CRS: lengths and widths are in pixels, and there is no GeoJSON; --mm-per-px gives a scale"
            )
            return None
        own = None
        try:
            own = pyproj.CRS.from_user_input(self.crs)
            way = pyproj.Transformer.from_crs(own, 4326, always_xy=True)
            middle = self.to_crs(np.array([[self.width / 2, self.height / 2]]))
            longitude, latitude = way.transform(*middle[0])
            if abs(longitude) <= 360 and abs(latitude) <= 90:  # neither infinite nor nan
                return way
            reason = "its coordinates lie outside of where it is defined"
        except pyproj.exceptions.ProjError as error:
            reason = " ".join(str(error).split())
        axis = own.axis_info[0] if own is not None and own.axis_info and not own.is_geographic else None
        if own is None or axis is None or not axis.unit_conversion_factor:
            raise CracksegError(
                f"{self.path}: its CRS leads neither to longitude and latitude ({reason}) nor to a unit of length; "
                "assign the right one: gdal_edit.py -a_srs EPSG:… FILE"
            )
        self._unit_m = float(axis.unit_conversion_factor)
        self.remarks.append(
            f"the CRS {own.name} has no way to longitude and latitude ({reason}): no GeoJSON; lengths by its unit"
        )
        return None
