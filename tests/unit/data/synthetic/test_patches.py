"""Patches of drawn scenes: seeded, rendered once, elements that add no crack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crackseg.cli.pretrain import pretrain
from crackseg.data.synthetic import patches
from crackseg.data.synthetic.elements import DEFAULT_ELEMENTS, ELEMENTS, draw_elements
from crackseg.data.synthetic.patches import ScenePatches, write_validation_scenes
from crackseg.data.synthetic.photographing import cut_patch


def _patches(folder: Path, seed: int = 0) -> ScenePatches:
    return ScenePatches(folder, num_scenes=2, patches_per_scene=2, patch_px=64, seed=seed)


def test_a_patch_is_the_same_from_a_new_scene_a_kept_one_and_a_damaged_file(tmp_path: Path) -> None:
    first, again = _patches(tmp_path)[3, 1], _patches(tmp_path)[3, 1]
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    for other in (again, _patches(tmp_path)[3, 1]):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert first[0].shape == (3, 64, 64)
    assert set(first[1].unique().tolist()) <= {0, 1}
    assert not torch.equal(first[0], _patches(tmp_path)[4, 1][0])


def test_on_a_full_disk_a_scene_is_used_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    expected = _patches(tmp_path / "kept")[0, 1]
    monkeypatch.setattr(patches, "write_bytes", refuse)
    found = _patches(tmp_path / "full")[0, 1]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_documents_and_help_name_the_elements() -> None:
    lines = (Path(__file__).parents[4] / "docs" / "shipped-model.md").read_text(encoding="utf-8").splitlines()
    rows = [f"| `{name}` | {element.summary} |" for name, element in ELEMENTS.items()]
    assert [line for line in lines if line in rows] == rows
    (option,) = [param for param in pretrain.params if param.name == "elements"]
    assert f"[default: {', '.join(DEFAULT_ELEMENTS)}]" in option.help


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_element_is_finite_seeded_and_changes_the_light(name: str) -> None:
    changes = [ELEMENTS[name].draw(np.random.default_rng(seed), (80, 120)) for seed in (*range(8), 0)]
    assert all(change.shape == (80, 120) and np.isfinite(change).all() for change in changes)
    assert np.array_equal(changes[0], changes[-1])
    assert any(np.abs(change).max() > 5 for change in changes)


def test_a_patch_without_elements_is_the_image() -> None:
    image = np.full((16, 16, 3), 90, np.uint8)
    assert np.array_equal(draw_elements(image, np.random.default_rng(0), ()), image)


def test_zoomed_lines_stay_one_pixel_wide() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[100] = 1
    image = np.zeros((200, 200, 3), np.uint8)
    for seed in range(20):
        _, cut = cut_patch(image, mask, 128, np.random.default_rng(seed), zoom=1)
        assert min(cut.sum(axis=0).max(), cut.sum(axis=1).max()) <= 1


def test_validation_scenes_are_written_once(tmp_path: Path) -> None:
    (sample,) = write_validation_scenes(tmp_path, num_scenes=1, seed=0, size_px=64)
    before = sample.image_path.stat().st_mtime_ns
    assert write_validation_scenes(tmp_path, num_scenes=1, seed=0, size_px=64) == [sample]
    assert sample.image_path.stat().st_mtime_ns == before
