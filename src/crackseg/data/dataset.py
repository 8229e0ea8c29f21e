"""Training and validation pairs as torch batches.

What the i-th patch of an epoch looks like follows from (seed, epoch, i) alone: the number of workers, a
restart in the middle of training, or the order of loading change nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from multiprocessing.context import BaseContext

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from crackseg.data.augmentation import augment_pair
from crackseg.data.image_io import read_image, read_mask
from crackseg.errors import CracksegError
from crackseg.params import AugmentParams
from crackseg.records import CrackSample

_CACHE_BYTES = 1 << 30  # decoded images that one process keeps


class CrackDataset(Dataset):
    """Augmented patches, addressed by (epoch, index).

    Args:
        samples: pairs of one size each (image and mask agree), e.g. of the prepared data.
        augment: what happens to them.
        patches_per_image: random patches that an epoch takes from each image.
        seed: see the module's head.
    """

    def __init__(
        self, samples: Sequence[CrackSample], augment: AugmentParams, *, patches_per_image: int, seed: int
    ) -> None:
        if not samples:
            raise CracksegError("no training images; give some the split `train` in the dataset's manifest")
        self.samples = list(samples)
        self.augment = augment
        self.patches_per_image = patches_per_image
        self.seed = seed
        self._decoded: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._decoded_bytes = 0

    def __len__(self) -> int:
        return len(self.samples) * self.patches_per_image

    def __getitem__(self, address: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image uint8 (3, h, w) and mask uint8 (1, h, w) of {0, 1}."""
        epoch, index = address
        rng = np.random.default_rng([self.seed, epoch, index])
        image, mask = augment_pair(*self._decode(index % len(self.samples)), self.augment, rng)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)[None]

    def _decode(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number in self._decoded:
            return self._decoded[number]
        sample = self.samples[number]
        pair = read_image(sample.image_path), read_mask(sample.mask_path)
        size = sum(array.nbytes for array in pair)
        if self._decoded_bytes + size <= _CACHE_BYTES:
            self._decoded[number] = pair
            self._decoded_bytes += size
        return pair


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), shuffled anew each epoch; the last batch may be smaller."""

    def __init__(self, num_patches: int, batch_size: int, seed: int) -> None:
        self.num_patches = num_patches
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0  # set before each pass

    def __len__(self) -> int:
        return -(-self.num_patches // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_patches).tolist()
        for start in range(0, len(order), self.batch_size):
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]


def build_loader(
    dataset: CrackDataset, *, batch_size: int, num_workers: int, pin_memory: bool
) -> tuple[DataLoader, EpochSampler]:
    """Build the training loader; set ``sampler.epoch`` before each pass over it.

    Batches are images uint8 (B, 3, h, w) and masks uint8 (B, 1, h, w).
    """
    sampler = EpochSampler(len(dataset), batch_size, dataset.seed)
    loader = DataLoader(
        dataset,
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
    context.set_forkserver_preload(["crackseg.data.dataset"])  # torch is imported once, not by each worker
    return context


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(1)  # the workers themselves are the parallelism
