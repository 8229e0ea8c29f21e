"""Procedural scenes and the sample made of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from crackseg.data.catalog import (
    KNOWN_DATASETS,
    MANIFEST_COLUMNS,
    SAMPLE_SOURCE,
    data_source,
    list_samples,
    read_manifest,
)
from crackseg.data.images.files import read_image, read_mask, read_size
from crackseg.data.preprocessing import resize_mask
from crackseg.data.synthetic.drawing import thin
from crackseg.data.synthetic.sample import write_sample
from crackseg.data.synthetic.scenes import Scene, render_scene
from crackseg.errors import CracksegError

LOOKS = tuple(KNOWN_DATASETS)
SMALL = (128, 96)
SMALL_COUNTS = {"CrackTree260": (3, 1, 2), "Stone331": (0, 0, 2)}


def _digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _mask_at_image_size(scene: Scene) -> np.ndarray:
    height, width = scene.image.shape[:2]
    return resize_mask(scene.mask, width, height, method="nearest")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("sample") / "data"
    write_sample(data_dir, seed=3, counts=SMALL_COUNTS, size=SMALL)
    return data_dir


@pytest.mark.parametrize("look", LOOKS)
def test_a_seed_gives_one_scene_and_another_seed_another(look: str) -> None:
    first, again, other = (render_scene(look, seed, size=SMALL) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.mask, other.mask)


def test_looks_differ_for_one_seed() -> None:
    images = [render_scene(look, 1, size=SMALL).image.tobytes() for look in LOOKS]
    assert len(set(images)) == len(LOOKS)


@pytest.mark.parametrize("look", LOOKS)
def test_scene_has_the_resolution_of_its_dataset(look: str) -> None:
    scene = render_scene(look, 0)
    known = KNOWN_DATASETS[look]
    assert scene.image.shape == (known.resolution[1], known.resolution[0], 3)
    assert scene.image.dtype == scene.mask.dtype == np.uint8
    assert scene.mask.shape == (known.mask_resolution[1], known.mask_resolution[0])
    assert set(np.unique(scene.mask)) == {0, 1}


def test_a_few_of_cracktree260_are_larger() -> None:
    shapes = [render_scene("CrackTree260", seed).mask.shape for seed in range(5)]
    assert set(shapes) == {(600, 800), (720, 960)}
    assert shapes.count((720, 960)) < 3


@pytest.mark.parametrize("look", LOOKS)
def test_truth_is_one_pixel_wide(look: str) -> None:
    for seed in range(4):
        mask = render_scene(look, seed, size=(256, 256)).mask
        full_3x3 = cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=0)
        assert not full_3x3.any()
        full_2x2 = cv2.erode(mask, np.ones((2, 2), np.uint8), borderValue=0)
        assert full_2x2.sum() < 0.03 * mask.sum()
        # Zhang-Suen's skeleton is another algorithm; at most corners of the curves may differ.
        assert _zhang_suen(mask).sum() > 0.9 * mask.sum()


def _zhang_suen(mask: np.ndarray) -> np.ndarray:
    image = np.pad(mask.astype(int), 1)
    while True:
        before = image.sum()
        for corners in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            shifts = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
            ring = np.stack([np.roll(image, (-dy, -dx), (0, 1)) for dy, dx in shifts])
            neighbours = ring.sum(axis=0)
            rises = ((ring == 0) & (np.roll(ring, -1, axis=0) == 1)).sum(axis=0)
            gone = (image == 1) & (neighbours >= 2) & (neighbours <= 6) & (rises == 1)
            for triple in corners:
                gone &= ring[list(triple)].prod(axis=0) == 0
            image[gone] = 0
        if image.sum() == before:
            return image[1:-1, 1:-1]


def test_thinning_keeps_connections_and_ends() -> None:
    mask = np.zeros((40, 40), np.uint8)
    cv2.polylines(mask, [np.array([(3, 3), (20, 17), (36, 15)])], False, 1, 2)
    cv2.circle(mask, (20, 28), 8, 1, 1)
    thinned = thin(mask)
    assert not (thinned & ~mask).any()
    assert cv2.connectedComponents(thinned)[0] == cv2.connectedComponents(mask)[0] == 3
    assert cv2.connectedComponents(1 - thinned, connectivity=4)[0] == 3  # the circle's hole is still closed
    xs = np.nonzero(thinned[:20])[1]  # the line; the circle lies below
    assert xs.min() <= 4
    assert xs.max() >= 35


@pytest.mark.parametrize("look", LOOKS)
def test_scene_without_crack_has_an_empty_mask(look: str) -> None:
    scene = render_scene(look, 2, size=SMALL, with_crack=False)
    assert not scene.mask.any()
    assert scene.image.std() > 3


@pytest.mark.parametrize("look", LOOKS)
def test_every_scene_with_cracks_has_truth(look: str) -> None:
    assert all(render_scene(look, seed, size=SMALL).mask.sum() >= 10 for seed in range(20))


def test_only_stone_has_a_region_and_its_truth_lies_inside() -> None:
    assert all(render_scene(look, 0, size=SMALL).roi is None for look in LOOKS if look != "Stone331")
    for seed in range(5):
        scene = render_scene("Stone331", seed, size=(192, 256))
        assert scene.roi is not None
        assert scene.roi.shape == scene.mask.shape == (128, 96)
        assert 0.4 < scene.roi.mean() < 0.95
        assert not (scene.mask & (1 - scene.roi)).any()


@pytest.mark.parametrize("look", LOOKS)
def test_cracks_in_the_picture_lie_on_the_truth(look: str) -> None:
    on_cracks, beside = [], []
    for seed in range(8):
        scene = render_scene(look, seed, size=(256, 256))
        grey = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY).astype(float)
        mask = _mask_at_image_size(scene)
        distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
        inside = np.ones(mask.shape, bool)
        if scene.roi is not None:  # the table around the stone is darker than any crack
            inside = cv2.erode(cv2.resize(scene.roi, (256, 256)), np.ones((25, 25), np.uint8), borderValue=1) > 0
        on_cracks += list(grey[(mask > 0) & inside])
        beside += list(grey[(distance > 7) & (distance < 9) & inside])
    # The median, because some cracks of CRKWH100 are sealed and bright.
    assert np.median(on_cracks) < 0.9 * np.median(beside)


def test_truth_moved_aside_no_longer_lies_on_the_dark() -> None:
    contrast = []
    for shift in (0, 4):
        on_cracks = []
        for seed in range(6):
            scene = render_scene("CrackTree260", seed, size=(256, 256))
            grey = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY)
            on_cracks += list(grey[np.roll(scene.mask, shift, (0, 1)) > 0])
        contrast.append(float(np.mean(on_cracks)))
    assert contrast[0] < 0.9 * contrast[1]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(CracksegError, match="CrackTree"):
        render_scene("Cracktree", 0)
    with pytest.raises(CracksegError, match="-1"):
        render_scene("CRKWH100", -1)
    with pytest.raises(CracksegError, match="at least 48"):
        render_scene("CRKWH100", 0, size=(40, 96))
    with pytest.raises(CracksegError, match="even"):
        render_scene("Stone331", 0, size=(97, 96))


def test_manifest_says_what_lies_on_disk(sample: Path) -> None:
    for dataset, counts in SMALL_COUNTS.items():
        table = read_manifest(sample, dataset)
        assert tuple(table.columns) == MANIFEST_COLUMNS
        assert table["split"].value_counts().to_dict() == {
            split: n for split, n in zip(("train", "val", "test"), counts, strict=True) if n
        }
        assert set(table["source"]) == {SAMPLE_SOURCE}
        assert data_source(sample, dataset) == SAMPLE_SOURCE
        assert table["stem"].is_unique
        for row in table.itertuples():
            image_path, mask_path = sample / dataset / row.image, sample / dataset / row.mask
            assert hashlib.sha256(image_path.read_bytes()).hexdigest() == row.image_sha256
            assert hashlib.sha256(mask_path.read_bytes()).hexdigest() == row.mask_sha256
            assert read_size(image_path) == (row.width, row.height) == SMALL
            assert read_size(mask_path) == (row.mask_width, row.mask_height)
            assert read_mask(mask_path).mean() == pytest.approx(row.crack_fraction, rel=1e-6)
            assert image_path.stem == mask_path.stem == row.stem
            assert bool(row.roi) == (dataset == "Stone331")


def test_samples_can_be_read_as_the_pipeline_does(sample: Path) -> None:
    samples = list_samples(sample, "Stone331", "test")
    assert len(samples) == 2
    for s in samples:
        assert read_image(s.image_path).shape == (96, 128, 3)
        assert s.roi_path is not None
        assert read_mask(s.roi_path).any()


def test_each_test_split_has_one_crack_free_image(sample: Path) -> None:
    for dataset in SMALL_COUNTS:
        table = read_manifest(sample, dataset)
        crack_free = table[table["crack_fraction"] == 0]
        assert list(crack_free["split"]) == ["test"]


def test_same_seed_gives_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", seed=3, counts=SMALL_COUNTS, size=SMALL)
    write_sample(tmp_path / "other", seed=4, counts=SMALL_COUNTS, size=SMALL)
    assert _digest(tmp_path / "again") == _digest(sample)
    assert set(_digest(tmp_path / "other").values()).isdisjoint(
        v for k, v in _digest(sample).items() if "images" in k
    )


def test_a_new_sample_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    counts = {"CRKWH100": (0, 0, 2)}
    write_sample(tmp_path / "data", seed=0, counts={"CRKWH100": (0, 0, 3)}, size=SMALL)
    write_sample(tmp_path / "data", seed=1, counts=counts, size=SMALL)
    write_sample(tmp_path / "fresh", seed=1, counts=counts, size=SMALL)
    assert _digest(tmp_path / "data") == _digest(tmp_path / "fresh")


def test_imported_photographs_are_not_overwritten(tmp_path: Path) -> None:
    write_sample(tmp_path, counts={"CRKWH100": (0, 0, 2)}, size=SMALL)
    manifest = tmp_path / "CRKWH100" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(SAMPLE_SOURCE, "imported:mine"))
    before = _digest(tmp_path)
    with pytest.raises(CracksegError, match="would be lost"):
        write_sample(tmp_path, counts={"CRKWH100": (0, 0, 2)}, size=SMALL)
    assert _digest(tmp_path) == before


@pytest.mark.parametrize(
    ("counts", "message"),
    [({"MyRoad": (1, 0, 0)}, "MyRoad"), ({"CRKWH100": (0, 0, 0)}, "not all 0"), ({"CRKWH100": (3, -1, 0)}, "-1")],
)
def test_wrong_counts_write_nothing(tmp_path: Path, counts: dict, message: str) -> None:
    with pytest.raises(CracksegError, match=message):
        write_sample(tmp_path / "data", counts=counts, size=SMALL)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_embedded_sample_is_under_10_mb_and_has_the_promised_shape(tmp_path: Path) -> None:
    write_sample(tmp_path / "data", seed=0)
    assert sum(p.stat().st_size for p in (tmp_path / "data").rglob("*") if p.is_file()) < 10e6
    for dataset, counts in {"CrackTree260": (12, 3, 5), **dict.fromkeys(LOOKS[1:], (0, 0, 6))}.items():
        table = read_manifest(tmp_path / "data", dataset)
        assert tuple((table["split"] == split).sum() for split in ("train", "val", "test")) == counts
        assert 1 <= (table["crack_fraction"] == 0).sum() <= len(table) / 6
        assert (table[table["split"] == "test"]["crack_fraction"] == 0).sum() == 1
