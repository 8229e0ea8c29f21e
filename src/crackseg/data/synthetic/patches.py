"""Training patches of drawn scenes, rendered by the loader's workers as they are needed, and kept for later epochs.

A patch follows from (seed, epoch, index) alone, and a scene from (seed, number), as in :mod:`crackseg.data.dataset`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from crackseg.data.catalog import KNOWN_DATASETS
from crackseg.data.images.files import encode_png, write_mask
from crackseg.data.synthetic.elements import draw_elements, list_elements
from crackseg.data.synthetic.photographing import cut_patch, photograph_patch
from crackseg.data.synthetic.scenes import render_scene
from crackseg.data.synthetic.surfaces import SURFACES, render_surface
from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.types import CrackSample

SCENE_PX = 512
_ZOOMED = 0.25  # of the patches
LOOKS = (*KNOWN_DATASETS, *SURFACES)
DEFAULT_LOOKS = tuple(KNOWN_DATASETS)  # docs/shipped-model.md has what the others gave
_FIRST_VALIDATION_SCENE = 2**20  # training scenes have lower numbers


class ScenePatches(Dataset):
    """Patches addressed by (epoch, index): uint8 images (3, P, P) and masks (1, P, P) of {0, 1}.

    Args:
        folder: keeps the rendered scenes, as ``NUMBER.png`` with the mask as the alpha channel; one that is there is
            not rendered again.
        num_scenes: the looks in turn, one in ten of each without cracks; each gives one patch in an epoch.
        patch_px: side of a patch, P.
        seed: see the module's head.
        looks: of ``LOOKS``; None: the default ones.
        elements: names of what is drawn over the patches; None: the default ones.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_scenes: int,
        patch_px: int,
        seed: int,
        looks: Sequence[str] | None = None,
        elements: Sequence[str] | None = None,
    ) -> None:
        self.folder = folder
        self.num_scenes = num_scenes
        self.patch_px = patch_px
        self.seed = seed
        self.looks = tuple(looks or DEFAULT_LOOKS)
        self.elements = elements

    def __len__(self) -> int:
        return self.num_scenes

    def __getitem__(self, address: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, index = address
        rng = np.random.default_rng([self.seed, epoch, index])
        image, mask = make_patch(*self._take_scene(index % self.num_scenes), self.patch_px, rng, self.elements)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)[None]

    def _take_scene(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        path = self.folder / f"{number}.png"
        try:
            stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
            if stored is None:
                raise TypeError("no picture")
            return np.ascontiguousarray(stored[..., :3]), (stored[..., 3] > 0).astype(np.uint8)
        except (OSError, cv2.error, TypeError, IndexError):  # not there yet, or cut short by a full disk
            with_crack = number // len(self.looks) % 10 != 7
            image, mask = draw_scene(self.seed, number, self.looks, with_crack=with_crack)
            with contextlib.suppress(OSError):  # a full disk: the scene is rendered again in the next epoch
                write_bytes(path, _encode(np.dstack([image, mask * np.uint8(255)])))
            return image, mask


def draw_scene(
    seed: int, number: int, looks: Sequence[str] = DEFAULT_LOOKS, *, with_crack: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Render a scene: uint8 (512, 512, 3), RGB, and mask (512, 512) of {0, 1}; joints are no cracks in it."""
    look = looks[number % len(looks)]
    scene_seed = int(np.random.default_rng([seed, number]).integers(2**31))
    if look in SURFACES:
        return render_surface(look, scene_seed, size=(SCENE_PX, SCENE_PX), with_crack=with_crack)
    half_size = look == "Stone331"  # its mask has half the photograph's size
    side = 2 * SCENE_PX if half_size else SCENE_PX
    scene = render_scene(look, scene_seed, size=(side, side), with_crack=with_crack)
    image, mask = scene.image, scene.mask
    if half_size:
        image = cv2.resize(image, (SCENE_PX, SCENE_PX), interpolation=cv2.INTER_AREA)
    if scene.joints is not None:
        mask = mask * (1 - cv2.dilate(scene.joints, np.ones((3, 3), np.uint8)))
    return image, mask


def make_patch(
    image: np.ndarray,
    mask: np.ndarray,
    size_px: int,
    rng: np.random.Generator,
    elements: Sequence[str] | None = None,
    *,
    zoom: float = _ZOOMED,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a patch, draw elements over it and photograph it; see the modules of these names."""
    image, mask = cut_patch(image, mask, size_px, rng, zoom=zoom)
    light, mask = draw_elements(image, mask, rng, elements)
    return photograph_patch(light, rng), mask


def write_validation_scenes(
    folder: Path,
    *,
    num_scenes: int,
    seed: int,
    looks: Sequence[str] | None = None,
    elements: Sequence[str] | None = None,
    size_px: int = SCENE_PX,
) -> list[CrackSample]:
    """Write whole scenes, with elements and photographed as patches are, that no training sees.

    After one of each look with cracks comes one of each without any: on photographs, cracks take few of the pixels, and
    a threshold that is chosen where they take many is too low.

    Args:
        num_scenes, seed, looks, elements: as in :class:`ScenePatches`.
        size_px: side of the square that is cut from each.
        folder: gets ``images`` and ``masks``; what is there already stays.
    Raises:
        CracksegError: the folder cannot be written.
    """
    looks = tuple(looks or DEFAULT_LOOKS)
    samples = []
    for number in range(_FIRST_VALIDATION_SCENE, _FIRST_VALIDATION_SCENE + num_scenes):
        stem = f"scene-{number - _FIRST_VALIDATION_SCENE:03d}"
        paths = folder / "images" / f"{stem}.png", folder / "masks" / f"{stem}.png"
        samples.append(CrackSample("scenes", stem, "val", *paths, None))
        if all(path.is_file() for path in paths):
            continue
        rng = np.random.default_rng([seed, number, 1])
        with_crack = (number - _FIRST_VALIDATION_SCENE) // len(looks) % 2 == 0
        names = list_elements(elements, with_cracks=with_crack)
        image, mask = make_patch(*draw_scene(seed, number, looks, with_crack=with_crack), size_px, rng, names)
        try:
            write_bytes(paths[0], encode_png(image))
            write_mask(paths[1], mask)
        except OSError as error:
            raise CracksegError(f"{paths[0]}: the scene cannot be written ({error.strerror})") from error
    return samples


def _encode(pixels: np.ndarray) -> bytes:
    ok, content = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok, pixels.shape
    return content.tobytes()
