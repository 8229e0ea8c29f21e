"""Write the embedded sample: procedural scenes as the paper's four datasets, in the canonical layout.

An alternative to the importers for users who have not downloaded anything yet. The manifests have ``sample`` as their
source, so that no score on these data is taken for one on the published datasets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from crackseg.data.catalog import KNOWN_DATASETS, MANIFEST_COLUMNS, SAMPLE_SOURCE, SPLITS, read_manifest
from crackseg.data.images.files import encode_png, write_mask
from crackseg.data.importing.staging import open_staging_area
from crackseg.data.synthetic.scenes import Scene, render_scene
from crackseg.errors import CracksegError
from crackseg.files import hash_file, write_bytes, write_csv
from crackseg.progress import progress

DEFAULT_COUNTS: Mapping[str, tuple[int, int, int]] = {
    "CrackTree260": (12, 3, 5),
    "CRKWH100": (0, 0, 6),
    "CrackLS315": (0, 0, 6),
    "Stone331": (0, 0, 6),
}
_JPEG_QUALITY = 88  # with it the whole sample stays under 10 MB
_IMAGE_SUFFIX = {"CRKWH100": ".png"}  # the others are JPEG, as in the original bundle


def write_sample(
    data_dir: Path,
    *,
    seed: int = 0,
    counts: Mapping[str, tuple[int, int, int]] | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Write sample datasets as ``data_dir/NAME``; an earlier sample of the same name is replaced.

    The same arguments give the same bytes on the same platform. One test image in six, and at least one if there
    are several, shows no crack; so does one training image in ten.

    Args:
        data_dir: the data folder.
        seed: any integer >= 0.
        counts: numbers of train, val and test images of each dataset to write; None for the embedded sample.
        size: (width, height) of all photographs in pixels; None for each dataset's own.
    Raises:
        CracksegError: a dataset that is not the paper's, numbers or a seed below 0, a size that is too small, or
            an imported dataset of that name, which would be lost.
    """
    counts = DEFAULT_COUNTS if counts is None else counts
    for dataset, numbers in counts.items():
        _check_request(data_dir, dataset, numbers)
    if seed < 0:
        raise CracksegError(f"seed {seed}: expected an integer of at least 0")
    total = sum(sum(numbers) for numbers in counts.values())
    bar = progress(None, "draw the sample", "image", total=total)
    with bar, open_staging_area(data_dir) as (staging, _):
        for dataset, numbers in counts.items():
            rng = np.random.default_rng([seed, list(KNOWN_DATASETS).index(dataset)])
            folder = staging.new(dataset)
            rows = []
            for stem, split, with_crack in _plan(rng, dataset, numbers):
                scene = render_scene(dataset, int(rng.integers(2**31)), size=size, with_crack=with_crack)
                rows.append(
                    {**_write_scene(folder, dataset, stem, scene), "split": split, "source": SAMPLE_SOURCE}
                )
                bar.update()
            table = pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS))
            write_csv(table, folder / "manifest.csv", digits=9)
        staging.swap_in(list(counts))


def _check_request(data_dir: Path, dataset: str, numbers: tuple[int, int, int]) -> None:
    if dataset not in KNOWN_DATASETS:
        raise CracksegError(f"no look {dataset!r}; expected one of {', '.join(KNOWN_DATASETS)}")
    if min(numbers) < 0 or sum(numbers) == 0:
        raise CracksegError(
            f"{dataset}: {numbers} images of train, val and test; expected none below 0, not all 0"
        )
    target = data_dir / dataset
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not (target / "manifest.csv").is_file() or set(read_manifest(data_dir, dataset)["source"]) != {
        SAMPLE_SOURCE
    }:
        raise CracksegError(
            f"{target} holds data that are not the sample's and would be lost; write the sample to another folder "
            "with --out, or move these away first"
        )


def _plan(rng: np.random.Generator, dataset: str, numbers: tuple[int, int, int]) -> list[tuple[str, str, bool]]:
    """Decide (stem, split, with_crack) of each image, sorted by stem."""
    num_train, _, num_test = numbers
    num_crack_free = (num_train // 10, 0, max(num_test // 6, int(num_test > 1)))
    parts = [
        (split, i >= free)
        for split, number, free in zip(SPLITS, numbers, num_crack_free, strict=True)
        for i in range(number)
    ]
    stems = _make_stems(rng, dataset, len(parts))
    return sorted((stem, *parts[i]) for stem, i in zip(stems, rng.permutation(len(parts)), strict=True))


def _make_stems(rng: np.random.Generator, dataset: str, number: int) -> list[str]:
    """Names like the originals': 6192, 1000, 0001-2, 738."""
    if dataset == "CRKWH100":
        return [str(1000 + i) for i in range(number)]
    ascending = np.cumsum(rng.integers(1, 7, number))
    if dataset == "CrackLS315":
        return [f"{n:04d}-{rng.integers(1, 4)}" for n in ascending]
    first = 6191 if dataset == "CrackTree260" else 737
    return [str(first + n) for n in ascending]


def _write_scene(folder: Path, dataset: str, stem: str, scene: Scene) -> dict[str, Any]:
    """Write a scene's files; return what the manifest says of them."""
    suffix = _IMAGE_SUFFIX.get(dataset, ".jpg")
    image_path, mask_path = folder / "images" / f"{stem}{suffix}", folder / "masks" / f"{stem}.png"
    write_bytes(image_path, encode_png(scene.image) if suffix == ".png" else _encode_jpeg(scene.image))
    write_mask(mask_path, scene.mask)
    if scene.roi is not None:
        write_mask(folder / "roi" / f"{stem}.png", scene.roi)
    return {
        "stem": stem,
        "image": f"images/{image_path.name}",
        "mask": f"masks/{mask_path.name}",
        "roi": "" if scene.roi is None else f"roi/{stem}.png",
        "width": scene.image.shape[1],
        "height": scene.image.shape[0],
        "mask_width": scene.mask.shape[1],
        "mask_height": scene.mask.shape[0],
        "crack_fraction": float(scene.mask.mean()),
        "image_sha256": hash_file(image_path, "sha256"),
        "mask_sha256": hash_file(mask_path, "sha256"),
    }


def _encode_jpeg(image: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert ok, image.shape
    return content.tobytes()
