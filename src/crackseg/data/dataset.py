"""Training and validation pairs as torch batches.

What the i-th patch of an epoch looks like follows from (seed, epoch, i) alone: the number of workers, a
restart in the middle of training, or the order of loading change nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from crackseg.data.augmentation import augment_pair
from crackseg.data.pixel_cache import PairReader, PixelCache
from crackseg.data.synthetic.elements import ELEMENTS
from crackseg.data.synthetic.patches import LOOKS, ScenePatches
from crackseg.errors import CracksegError
from crackseg.files import keep_newest
from crackseg.lineage import PACKAGE, hash_modules
from crackseg.params import AugmentParams
from crackseg.types import CrackSample

# What the server of the loader's workers imports once, with torch, for all of them. Tests add what theirs need.
PRELOAD: tuple[str, ...] = ("crackseg.data.dataset",)
_KEPT_SCENE_FOLDERS = 4  # a few seeds of the same code; a training run that loses its own draws the scenes again
_NUM_SCENES = 40  # for `augment.scenes`: each is rendered once and gives many patches


class PatchSource(Protocol):
    """Training patches addressed by (epoch, index), as the module's head says.

    Attributes:
        seed: of the order.
    """

    seed: int

    def __len__(self) -> int:
        """Return the number of patches of an epoch."""

    def __getitem__(self, address: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image uint8 (3, h, w) and mask uint8 (1, h, w) of {0, 1}."""


class CrackDataset(Dataset):
    """Augmented patches, addressed by (epoch, index).

    Args:
        samples: pairs of one size each (image and mask agree), e.g. of the prepared data.
        augment: what happens to them.
        patches_per_image: random patches that an epoch takes from each image.
        seed: see the module's head.
        cache: where the decoded pairs are kept.
        scenes_dir: where drawn scenes are kept, for ``augment.scenes``.
    """

    def __init__(
        self,
        samples: Sequence[CrackSample],
        augment: AugmentParams,
        *,
        patches_per_image: int,
        seed: int,
        cache: PixelCache | None = None,
        scenes_dir: Path | None = None,
    ) -> None:
        if not samples:
            raise CracksegError("no training images; give some the split `train` in the dataset's manifest")
        self.pairs = PairReader(samples, cache)
        self.augment = augment
        self.patches_per_image = patches_per_image
        self.seed = seed
        self.scenes = _open_scenes(scenes_dir, augment.crop_px, seed) if augment.scenes else None

    def __len__(self) -> int:
        return len(self.pairs) * self.patches_per_image

    def __getitem__(self, address: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image uint8 (3, h, w) and mask uint8 (1, h, w) of {0, 1}."""
        epoch, index = address
        rng = np.random.default_rng([self.seed, epoch, index])
        if self.scenes is not None and rng.random() < self.augment.scenes:
            return self.scenes[epoch, index]
        image, mask = self.pairs[index % len(self.pairs)]
        image, mask = augment_pair(image, mask, self.augment, rng)
        # What no operation has touched is still the cache's, which torch must not have.
        image, mask = (np.require(array, requirements="W") for array in (image, mask))
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)[None]


def _open_scenes(folder: Path | None, patch_px: int, seed: int) -> ScenePatches:
    """Open the drawn scenes of this code, which other code would draw differently; remove those of long ago.

    They have every look and every element, since the shipped model learnt from all (docs/training-recipe.md has what
    the sample's looks without more cracks gave).
    """
    assert folder is not None, "augment.scenes needs a folder"
    drawing = hash_modules(sorted((PACKAGE / "data" / "synthetic").glob("*.py")))[:12]
    keep_newest(folder, f"{drawing}-{seed}", _KEPT_SCENE_FOLDERS)
    return ScenePatches(
        folder / f"{drawing}-{seed}",
        num_scenes=_NUM_SCENES,
        patch_px=patch_px,
        seed=seed,
        looks=LOOKS,
        elements=tuple(ELEMENTS),
    )


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), shuffled again in each epoch; the last batch may be smaller.

    Args:
        num_patches: in an epoch.
        batch_size: patches in one step, over all processes.
        seed: see the module's head.
        share, num_shares: number of this process's part of each batch, and number of parts; the batches themselves do
            not depend on them.
    """

    def __init__(
        self, num_patches: int, batch_size: int, seed: int, *, share: int = 0, num_shares: int = 1
    ) -> None:
        self.num_patches = num_patches
        self.batch_size = batch_size
        self.seed = seed
        self.share, self.num_shares = share, num_shares
        self.epoch = 0  # set before each pass

    def __len__(self) -> int:
        return -(-self.num_patches // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_patches).tolist()
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            # A pass needs a patch: a process whose part is empty takes one that counts nowhere.
            yield [(self.epoch, index) for index in batch[self._share_of(len(batch))] or batch[:1]]

    def batch_length(self, step: int) -> int:
        """Patches in the batch of a step, from 0, over all shares."""
        return min(self.batch_size, self.num_patches - step * self.batch_size)

    def share_length(self, step: int) -> int:
        """Patches of the batch of a step that are this share's; where there is none, 0, and the loader gives one."""
        share = self._share_of(self.batch_length(step))
        return share.stop - share.start

    def _share_of(self, length: int) -> slice:
        return slice(length * self.share // self.num_shares, length * (self.share + 1) // self.num_shares)


def build_loader(
    dataset: PatchSource,
    *,
    batch_size: int,
    num_workers: int,
    pin_memory: bool,
    share: int = 0,
    num_shares: int = 1,
) -> tuple[DataLoader, EpochSampler]:
    """Build the training loader; set ``sampler.epoch`` before each pass over it.

    Batches are images uint8 (B, 3, h, w) and masks uint8 (B, 1, h, w), B this process's part of ``batch_size`` patches.
    """
    sampler = EpochSampler(len(dataset), batch_size, dataset.seed, share=share, num_shares=num_shares)
    loader = DataLoader(
        cast(Dataset, dataset),
        batch_sampler=sampler,
        num_workers=num_workers,
        multiprocessing_context=_worker_context() if num_workers else None,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
    )
    return loader, sampler


def _worker_context() -> BaseContext:
    """Start workers from a clean process: a fork of this one would inherit the locks of OpenCV's, MLflow's and our
    own threads, and hang on one of them now and then."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(1)  # the workers themselves are the parallelism
