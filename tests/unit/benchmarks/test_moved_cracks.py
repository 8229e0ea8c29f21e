"""Cracks that are moved onto another surface, which models are scored with."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks import moved_cracks

from crackseg.data.synthetic.sample import write_sample


def draw_photograph() -> tuple[np.ndarray, np.ndarray]:
    """An even surface with a dark line of 3 px from side to side, and the line's middle as ground truth."""
    image, mask = np.full((512, 512, 3), 160, np.uint8), np.zeros((512, 512), np.uint8)
    image[255:258] = 80
    mask[256] = 1
    return image, mask


@pytest.mark.parametrize("wider", moved_cracks.WIDER)
def test_a_moved_crack_darkens_the_surface_along_its_ground_truth_and_nowhere_else(wider: int) -> None:
    surface = np.full((512, 512, 3), 100, np.uint8)
    ((image, lines),) = moved_cracks._move([draw_photograph()], surface, wider)
    rows = np.flatnonzero(lines.any(axis=1))
    assert 1 <= len(rows) <= 2  # a skeleton may jump by a pixel
    assert int(image[rows[0], 256, 0]) == pytest.approx(50, abs=10)
    dark_rows = np.flatnonzero(image[:, 256, 0] < 75)
    assert len(dark_rows) == pytest.approx(3 * wider, abs=wider)
    assert np.all(image[:200] == 100)


def test_a_dataset_without_cracks_of_that_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample(tmp_path / "data", counts={"CrackTree260": (1, 1, 1)}, size=(96, 96))
    monkeypatch.setattr("sys.argv", ["moved_cracks", "CrackTree260", "--data", str(tmp_path / "data")])
    with pytest.raises(SystemExit):
        moved_cracks.main()
    assert "none of 1 validation images has a crack and 512 px" in capsys.readouterr().err
