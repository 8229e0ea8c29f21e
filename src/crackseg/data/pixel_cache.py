"""Cache of decoded pairs on disk, used by all training runs on them.

Decoding is a large part of what a training pair costs (docs/performance-data.md). So the pixels of a list of pairs are
written to one file, which all map into memory: the loader's workers, the processes of several GPUs, the trials
of a search, experiments in DVC's temporary clones. The system holds its pages once, and lets go of them where memory is
short.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from crackseg.data.images.files import read_image, read_mask, read_size
from crackseg.progress import progress
from crackseg.types import CrackSample

_log = logging.getLogger("crackseg")
CACHE_NAME = "decoded"  # of the folder, next to the tracking store
_PIXELS, _INDEX = "pixels.raw", "index.json"
_FORMAT = b"1"  # of the two files; a new one makes new caches
_LEAVE_FREE = 1 << 30  # bytes of the disk: checkpoints and records need some


@dataclass(frozen=True, slots=True)
class PixelCache:
    """Place and size of the cache of decoded pairs.

    Attributes:
        folder: a folder for each list of pairs, named by a hash of their files; the least recently used goes first.
        max_bytes: of all of them together.
    """

    folder: Path
    max_bytes: int


class _Place(NamedTuple):
    """Position of a pair in the file: image uint8 (height, width, 3), then mask uint8 (mask_height, mask_width)."""

    start: int
    height: int
    width: int
    mask_height: int
    mask_width: int

    @property
    def size(self) -> int:
        return 3 * self.height * self.width + self.mask_height * self.mask_width


class PairReader(Sequence[tuple[np.ndarray, np.ndarray]]):
    """Image uint8 (H, W, 3) and mask uint8 (H, W) of {0, 1} of each sample, by number; read-only.

    Without a cache, or if the cache or the disk is full, each pair is decoded whenever it is asked for.

    Args:
        samples: prepared pairs.
        cache: where to keep them decoded.
    Raises:
        CracksegError: an image or mask cannot be read.
    """

    def __init__(self, samples: Sequence[CrackSample], cache: PixelCache | None = None) -> None:
        self.samples = list(samples)
        self._folder = _keep(self.samples, cache) if cache is not None and self.samples else None
        self._pixels: np.ndarray | None = None
        self._places: list[_Place] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: Any) -> Any:
        if self._pixels is None and self._folder is not None:
            self._open(self._folder)
        if self._pixels is None:
            sample = self.samples[number]
            return read_image(sample.image_path), read_mask(sample.mask_path)
        place = self._places[number]
        middle = place.start + 3 * place.height * place.width
        return (
            self._pixels[place.start : middle].reshape(place.height, place.width, 3),
            self._pixels[middle : place.start + place.size].reshape(place.mask_height, place.mask_width),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the pixels: a worker maps the file itself."""
        return self.__dict__ | {"_pixels": None}

    def _open(self, folder: Path) -> None:
        try:
            places = [_Place(*row) for row in json.loads((folder / _INDEX).read_text(encoding="utf-8"))]
            pixels = np.memmap(folder / _PIXELS, np.uint8, mode="r")
            if len(places) != len(self.samples) or len(pixels) != places[-1].start + places[-1].size:
                raise ValueError("cut short")
        except (OSError, ValueError, TypeError):  # made room for others meanwhile, or damaged
            self._folder = None
            return
        self._places, self._pixels = places, pixels.view(np.ndarray)


def _keep(samples: Sequence[CrackSample], cache: PixelCache) -> Path | None:
    """Return the folder with these pairs, written now unless it exists; None if it cannot be written."""
    try:
        folder = cache.folder / _hash_files(samples)
        cache.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.folder / "cache.lock"):  # a second process finds what the first has written
            if not folder.is_dir():
                places = _plan(samples)
                if not _make_room(cache, places[-1].start + places[-1].size):
                    return None
                _write(folder, samples, places)
            os.utime(folder)
        return folder
    except OSError as error:
        _log.warning(
            "decoded images cannot be kept in %s (%s); each is decoded whenever it is needed",
            cache.folder, error.strerror or error,
        )  # fmt: skip
        return None


def _hash_files(samples: Sequence[CrackSample]) -> str:
    digest = hashlib.blake2b(_FORMAT, digest_size=16)
    for sample in samples:
        for path in (sample.image_path, sample.mask_path):
            digest.update(hashlib.blake2b(path.read_bytes(), digest_size=16).digest())
    return digest.hexdigest()


def _plan(samples: Sequence[CrackSample]) -> list[_Place]:
    places: list[_Place] = []
    start = 0
    for sample in samples:
        (width, height), (mask_width, mask_height) = read_size(sample.image_path), read_size(sample.mask_path)
        places.append(_Place(start, height, width, mask_height, mask_width))
        start += places[-1].size
    return places


def _make_room(cache: PixelCache, num_bytes: int) -> bool:
    """Delete the least recently used folders until there is space; False if it is still not enough."""
    if _is_too_much(num_bytes, cache.max_bytes, "train.cache_gb allows"):
        return False
    kept = sorted((f for f in cache.folder.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime)
    for folder in [f for f in kept if f.suffix == ".tmp"]:  # of a process that was killed: the lock is ours
        shutil.rmtree(folder, ignore_errors=True)
        kept.remove(folder)
    sizes = {folder: sum(f.stat().st_size for f in folder.iterdir()) for folder in kept}
    while kept and sum(sizes.values()) + num_bytes > cache.max_bytes:
        # A process that has mapped it keeps it until it ends; a worker that would open it now decodes instead.
        shutil.rmtree(kept[0], ignore_errors=True)
        del sizes[kept.pop(0)]
    return not _is_too_much(num_bytes, shutil.disk_usage(cache.folder).free - _LEAVE_FREE, "the disk has free")


def _is_too_much(num_bytes: int, limit: int, what: str) -> bool:
    if num_bytes <= limit:
        return False
    _log.warning(
        "the decoded images would take %.1f GB and %s %.1f GB; each is decoded whenever it is needed",
        num_bytes / 1e9, what, max(0, limit) / 1e9,
    )  # fmt: skip
    return True


def _write(folder: Path, samples: Sequence[CrackSample], places: Sequence[_Place]) -> None:
    """Write next to the final path and rename, so that no reader sees a part of it."""
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        # Plain writing, not a writable map: on a full disk that would kill the process.
        with (temporary / _PIXELS).open("wb") as file:
            for sample in progress(samples, "decode once", "image"):
                file.write(read_image(sample.image_path).tobytes())
                file.write(read_mask(sample.mask_path).tobytes())
            file.flush()
            os.fsync(file.fileno())
        (temporary / _INDEX).write_text(json.dumps(places), encoding="utf-8")
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
