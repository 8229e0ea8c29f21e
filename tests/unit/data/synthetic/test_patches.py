"""Patches of drawn scenes: seeded, rendered once, elements that add no crack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crackseg.data.images.files import read_mask
from crackseg.data.synthetic import patches
from crackseg.data.synthetic.elements import ELEMENTS, draw_elements
from crackseg.data.synthetic.patches import ScenePatches, draw_scene, write_validation_scenes
from crackseg.data.synthetic.photographing import cut_patch
from crackseg.data.synthetic.scenes import render_scene
from crackseg.data.synthetic.surfaces import SURFACES, render_surface


def _patches(folder: Path, seed: int = 0) -> ScenePatches:
    return ScenePatches(folder, num_scenes=2, patch_px=64, seed=seed)


def test_a_patch_is_the_same_from_a_new_scene_a_kept_one_and_a_damaged_file(tmp_path: Path) -> None:
    first, again = _patches(tmp_path)[3, 1], _patches(tmp_path)[3, 1]
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    for other in (again, _patches(tmp_path)[3, 1]):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert first[0].shape == (3, 64, 64)
    assert set(first[1].unique().tolist()) <= {0, 1}
    assert not torch.equal(first[0], _patches(tmp_path)[4, 1][0])


def test_an_epoch_with_more_patches_than_scenes_keeps_no_more_scenes(tmp_path: Path) -> None:
    source = _patches(tmp_path)
    assert not torch.equal(source[0, 0][0], source[0, 2][0])
    assert [path.name for path in tmp_path.iterdir()] == ["0.png"]


def test_on_a_full_disk_a_scene_is_used_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    expected = _patches(tmp_path / "kept")[0, 1]
    monkeypatch.setattr(patches, "write_bytes", refuse)
    found = _patches(tmp_path / "full")[0, 1]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_documents_name_the_elements_and_surfaces() -> None:
    lines = (Path(__file__).parents[4] / "docs" / "shipped-model.md").read_text(encoding="utf-8").splitlines()
    rows = [f"| `{name}` | {element.summary} |" for name, element in ELEMENTS.items()]
    assert [line for line in lines if line in rows] == rows
    (surfaces,) = [line for line in lines if "`painted_steel`" in line]
    assert all(f"`{name}`" in surfaces for name in SURFACES)


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_element_is_finite_seeded_and_changes_the_light(name: str) -> None:
    image, mask = np.full((80, 120, 3), 120, np.float32), np.zeros((80, 120), np.uint8)
    mask[40] = 1
    drawn = [ELEMENTS[name].draw(np.random.default_rng(seed), image, mask) for seed in (*range(8), 0)]
    for light, left in drawn:
        assert light.shape == image.shape
        assert np.isfinite(light).all()
        assert set(np.unique(left).tolist()) <= {0, 1}
    assert np.array_equal(drawn[0][0], drawn[-1][0])
    assert any(np.abs(light - image).max() > 5 for light, _ in drawn)
    assert (image == 120).all()
    assert mask.sum() == 120


@pytest.mark.parametrize("name", ELEMENTS)
def test_only_cracks_add_to_the_ground_truth(name: str) -> None:
    image, mask = np.full((80, 120, 3), 120, np.float32), np.zeros((80, 120), np.uint8)
    marked = [ELEMENTS[name].draw(np.random.default_rng(seed), image, mask)[1].any() for seed in range(8)]
    assert any(marked) == ELEMENTS[name].is_crack


def test_what_is_hidden_is_no_ground_truth() -> None:
    image, mask = np.full((80, 120, 3), 120, np.float32), np.ones((80, 120), np.uint8)
    for name in ("plants", "borders", "seals"):
        left = [ELEMENTS[name].draw(np.random.default_rng(seed), image, mask)[1].mean() for seed in range(8)]
        assert min(left) < 0.95, name


def test_a_patch_without_elements_is_the_image() -> None:
    image, mask = np.full((16, 16, 3), 90, np.uint8), np.eye(16, dtype=np.uint8)
    light, left = draw_elements(image, mask, np.random.default_rng(0), ())
    assert np.array_equal(light, image)
    assert np.array_equal(left, mask)


@pytest.mark.parametrize("name", SURFACES)
def test_a_surface_is_seeded_and_cracked_only_if_asked(name: str) -> None:
    (image, mask), again = (render_surface(name, 3, size=(96, 64), with_crack=True) for _ in range(2))
    assert image.shape == (64, 96, 3)
    assert np.array_equal(image, again[0])
    assert mask.any()
    assert not render_surface(name, 3, size=(96, 64), with_crack=False)[1].any()


def test_joints_of_slabs_are_no_cracks_in_a_scene() -> None:
    number = next(n for n in range(0, 400, 4) if _find_joints(n) is not None)
    joints = _find_joints(number)
    assert joints is not None
    assert not (draw_scene(0, number)[1] & joints).any()


def _find_joints(number: int) -> np.ndarray | None:
    seed = int(np.random.default_rng([0, number]).integers(2**31))
    return render_scene("CrackTree260", seed, size=(512, 512)).joints


def test_lines_stay_one_pixel_wide_from_another_distance() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[100] = 1
    image = np.zeros((200, 200, 3), np.uint8)
    for seed in range(20):
        _, cut = cut_patch(image, mask, 128, np.random.default_rng(seed), zoom=1)
        square = cut[:-1, :-1] & cut[1:, :-1] & cut[:-1, 1:] & cut[1:, 1:]
        assert not square.any()
    assert cut_patch(image, mask, 128, np.random.default_rng(3), zoom=1)[0].shape == (128, 128, 3)


def test_half_of_the_validation_scenes_have_no_crack(tmp_path: Path) -> None:
    looks = ("concrete", "asphalt")
    samples = write_validation_scenes(tmp_path, num_scenes=4, seed=0, looks=looks)
    assert [read_mask(sample.mask_path).any() for sample in samples] == [True, True, False, False]


def test_validation_scenes_are_written_once(tmp_path: Path) -> None:
    (sample,) = write_validation_scenes(tmp_path, num_scenes=1, seed=0, size_px=64)
    before = sample.image_path.stat().st_mtime_ns
    assert write_validation_scenes(tmp_path, num_scenes=1, seed=0, size_px=64) == [sample]
    assert sample.image_path.stat().st_mtime_ns == before
