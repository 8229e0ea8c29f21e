"""Known datasets, and the layout of a dataset on disk: ``data/NAME/{images,masks,roi,manifest.csv}``.

The four of the paper (its Table 2) are known by name; any other name is a dataset of the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pandas as pd

from crackseg.errors import CracksegError, first_line
from crackseg.types import CrackSample

SPLITS = ("train", "val", "test")
MANIFEST_COLUMNS = (
    "stem", "image", "mask", "roi", "split", "width", "height", "mask_width", "mask_height",
    "crack_fraction", "image_sha256", "mask_sha256", "source",
)  # fmt: skip
SAMPLE_SOURCE = "sample"  # manifest ``source`` of the embedded, procedurally made data
IMPORTED_SOURCE = "imported"  # manifest ``source`` begins with this for what a user brought


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """A dataset of the paper's Table 2.

    Attributes:
        name: as the paper writes it.
        role: ``train`` (split 200/20/40) or ``test`` (every image is a test image).
        num_images: in the original bundle.
        resolution: (width, height) in pixels; CrackTree260 has a few of 960 x 720 as well.
        mask_resolution: (width, height) of the ground truth as downloaded.
    """

    name: str
    role: Literal["train", "test"]
    num_images: int
    resolution: tuple[int, int]
    mask_resolution: tuple[int, int]


KNOWN_DATASETS = {
    d.name: d
    for d in (
        KnownDataset("CrackTree260", "train", 260, (800, 600), (800, 600)),
        KnownDataset("CRKWH100", "test", 100, (512, 512), (512, 512)),
        KnownDataset("CrackLS315", "test", 315, (512, 512), (512, 512)),
        # Stone331's ground truth is published at half the photographs' size.
        KnownDataset("Stone331", "test", 331, (1024, 1024), (512, 512)),
    )
}


def check_dataset_name(name: str) -> str:
    """Return ``name`` if it can be a folder and an MLflow metric prefix; raise CracksegError if not."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise CracksegError(
            f"dataset name {name!r}: expected letters, digits, '_', '-' or '.', at most 64, beginning with "
            "a letter or digit (it names a folder and MLflow metrics)"
        )
    return name


def read_manifest(data_dir: Path, dataset: str) -> pd.DataFrame:
    """Read ``data_dir/dataset/manifest.csv``; text columns as str, absent ROI as ``""``.

    A process parses a file once until the file changes; the table returned is the caller's own.

    Raises:
        CracksegError: the dataset or its manifest is not there, it is damaged, or columns are missing.
    """
    path = data_dir / dataset / "manifest.csv"
    if not path.is_file():
        present = sorted(p.parent.name for p in data_dir.glob("*/manifest.csv"))
        raise CracksegError(
            f"no dataset {dataset!r}: {path} does not exist; present: {', '.join(present) or 'none'}. "
            "Fetch the versioned data with `dvc pull data.dvc`, or bring your own with "
            f"`crackseg data import SOURCE --name {dataset}`"
        )
    state = path.stat()
    return _parse_manifest(path.absolute(), (state.st_ino, state.st_size, state.st_mtime_ns)).copy()


@lru_cache(maxsize=16)
def _parse_manifest(path: Path, _state: tuple[int, int, int]) -> pd.DataFrame:
    text = dict.fromkeys(("stem", "image", "mask", "roi", "split", "image_sha256", "mask_sha256", "source"), str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CracksegError(
            f"{path}: damaged ({first_line(error)}); bring data/ back to the version that git knows with "
            "`dvc checkout --force data.dvc`, or import the dataset again"
        ) from error
    missing = [c for c in MANIFEST_COLUMNS if c not in table.columns]
    if missing:
        raise CracksegError(f"{path} lacks the columns {missing}; import the dataset again")
    return table


def list_samples(data_dir: Path, dataset: str, split: str | None = None) -> list[CrackSample]:
    """List a dataset's samples in manifest order, of one split or of all (``split=None``)."""
    table = read_manifest(data_dir, dataset)
    folder = data_dir / dataset
    return [
        CrackSample(dataset, r.stem, r.split, folder / r.image, folder / r.mask, folder / r.roi if r.roi else None)
        for r in table.itertuples(index=False)
        if split is None or r.split == split
    ]


def list_splits(data_dir: Path, dataset: str) -> dict[str, list[CrackSample]]:
    """List a dataset's samples by split (each of ``SPLITS``), in manifest order; the manifest is read once."""
    samples = list_samples(data_dir, dataset)
    return {split: [sample for sample in samples if sample.split == split] for split in SPLITS}


def spread_evenly(samples: Sequence[CrackSample], most: int | None) -> list[CrackSample]:
    """Take at most so many (None: all), evenly from the first to the last."""
    count = min(most or len(samples), len(samples))
    return [samples[round(i * (len(samples) - 1) / max(1, count - 1))] for i in range(count)]


def warn_of_source(source: str) -> str:
    """Return a warning of a model whose training data is ``source``; "" for one that may be used.

    Wherever a model is used this is said: terminal, page, tables, JSON and HTTP header.
    """
    if source != SAMPLE_SOURCE:
        return ""
    return (
        "THIS MODEL WAS TRAINED ON THE EMBEDDED SYNTHETIC SAMPLE: it has never seen a real crack and must not inspect "
        "anything."
    )


def data_source(data_dir: Path, dataset: str) -> str:
    """Return ``sample`` for the embedded procedural data, ``imported`` for a user's own data."""
    sources = set(read_manifest(data_dir, dataset)["source"])
    return SAMPLE_SOURCE if sources == {SAMPLE_SOURCE} else IMPORTED_SOURCE
