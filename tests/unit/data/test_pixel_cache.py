"""Pairs from the cache must be the decoded files, and the cache must never stand in the way of a training."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from crackseg.data import pixel_cache
from crackseg.data.images.files import read_image, read_mask, write_mask, write_png
from crackseg.data.pixel_cache import PairReader, PixelCache
from crackseg.errors import CracksegError
from crackseg.types import CrackSample

SIZES = [(20, 30), (16, 16), (31, 7)]  # of the pairs: prepared images need not have one size
NUM_BYTES = sum(4 * height * width for height, width in SIZES)


def write_pairs(folder: Path, seed: int = 0) -> list[CrackSample]:
    rng = np.random.default_rng(seed)
    samples = []
    for i, size in enumerate(SIZES):
        image_path, mask_path = folder / f"{i}.png", folder / f"{i}_mask.png"
        write_png(image_path, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        write_mask(mask_path, rng.random(size) < 0.2)
        samples.append(CrackSample("D", str(i), "train", image_path, mask_path))
    return samples


def assert_decoded(reader: PairReader, samples: list[CrackSample]) -> None:
    assert len(reader) == len(samples)
    for sample, (image, mask) in zip(samples, reader, strict=True):
        np.testing.assert_array_equal(image, read_image(sample.image_path))
        np.testing.assert_array_equal(mask, read_mask(sample.mask_path))
        assert (image.dtype, mask.dtype) == (np.uint8, np.uint8)


def kept_in(cache: PixelCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if path.is_dir()}


@pytest.fixture
def cache(tmp_path: Path) -> PixelCache:
    return PixelCache(tmp_path / "cache", 2 * NUM_BYTES + 1000)


@pytest.fixture
def samples(tmp_path: Path) -> list[CrackSample]:
    return write_pairs(tmp_path / "pairs")


def test_kept_pairs_are_the_files_also_in_a_worker(samples: list[CrackSample], cache: PixelCache) -> None:
    assert_decoded(PairReader(samples), samples)
    reader = PairReader(samples, cache)
    assert_decoded(reader, samples)
    sent = pickle.dumps(reader)
    assert len(sent) < NUM_BYTES, "pixels were copied into the worker instead of shared"
    assert_decoded(pickle.loads(sent), samples)


def test_the_second_reader_decodes_nothing(
    samples: list[CrackSample], cache: PixelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PairReader(samples, cache)
    moved = tmp_path / "clone"  # as in DVC's temporary clones: the same files at another place
    shutil.copytree(samples[0].image_path.parent, moved)

    def refuse(_path: Path) -> np.ndarray:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixel_cache, "read_image", refuse)
    reader = PairReader(
        [CrackSample("D", s.stem, "train", moved / s.image_path.name, moved / s.mask_path.name) for s in samples],
        cache,
    )
    assert len(list(reader)) == len(samples)
    assert len(kept_in(cache)) == 1


def test_changed_pixels_are_seen(samples: list[CrackSample], cache: PixelCache) -> None:
    PairReader(samples, cache)
    write_png(samples[1].image_path, np.full((16, 16, 3), 9, np.uint8))
    assert_decoded(PairReader(samples, cache), samples)


def test_nobody_can_write_into_what_others_read(samples: list[CrackSample], cache: PixelCache) -> None:
    image, _mask = PairReader(samples, cache)[0]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 1


def test_the_cache_stays_within_its_bounds(cache: PixelCache, tmp_path: Path) -> None:
    lists = [write_pairs(tmp_path / str(seed), seed) for seed in range(4)]
    first = PairReader(lists[0], cache)
    (oldest,) = kept_in(cache)
    readers = [first] + [PairReader(samples, cache) for samples in lists[1:]]
    assert len(kept_in(cache)) == 2
    assert oldest not in kept_in(cache)
    for reader, samples in zip(readers, lists, strict=True):  # also those whose files are gone
        assert_decoded(reader, samples)


def test_what_a_killed_process_left_is_cleaned_up(samples: list[CrackSample], cache: PixelCache) -> None:
    (cache.folder / "0123.tmp").mkdir(parents=True)
    PairReader(samples, cache)
    assert not [name for name in kept_in(cache) if name.endswith(".tmp")]


def test_too_small_a_cache_is_said_and_hinders_nothing(
    samples: list[CrackSample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PairReader(samples[:1], PixelCache(tmp_path / "cache", NUM_BYTES))
    cache = PixelCache(tmp_path / "cache", NUM_BYTES - 1)
    kept = kept_in(cache)
    with caplog.at_level(logging.WARNING):
        assert_decoded(PairReader(samples, cache), samples)
    assert "train.cache_gb allows" in caplog.text
    assert kept_in(cache) == kept, "others lost their images for nothing"


def test_a_disk_that_is_nearly_full_is_said_and_hinders_nothing(
    samples: list[CrackSample],
    cache: PixelCache,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**12, 10**12, 10**6))
    with caplog.at_level(logging.WARNING):
        assert_decoded(PairReader(samples, cache), samples)
    assert "the disk has free" in caplog.text


def test_a_disk_that_fills_up_is_said_and_nothing_half_written_stays(
    samples: list[CrackSample],
    cache: PixelCache,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with caplog.at_level(logging.WARNING):
        assert_decoded(PairReader(samples, cache), samples)
    assert "No space left on device" in caplog.text
    assert kept_in(cache) == set()


def test_a_damaged_cache_is_decoded_anew(samples: list[CrackSample], cache: PixelCache) -> None:
    PairReader(samples, cache)
    (folder,) = (path for path in cache.folder.iterdir() if path.is_dir())
    with (folder / "pixels.raw").open("r+b") as file:
        file.truncate(10)
    assert_decoded(PairReader(samples, cache), samples)


def test_a_damaged_image_is_named(samples: list[CrackSample], cache: PixelCache) -> None:
    samples[2].image_path.write_bytes(samples[2].image_path.read_bytes()[:-100])
    with pytest.raises(CracksegError, match=r"2\.png: the image is damaged"):
        PairReader(samples, cache)
    assert kept_in(cache) == set()
