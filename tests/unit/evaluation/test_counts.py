"""Counts come back from their file as they were, and a damaged file is no crash."""

from pathlib import Path

import numpy as np
import pytest

from crackseg.errors import CracksegError
from crackseg.evaluation.counts import read_counts, write_counts
from crackseg.evaluation.metrics import ImageCounts, count_image


def make_counts() -> dict[str, ImageCounts]:
    rng = np.random.default_rng(0)
    return {
        stem: count_image(rng.random((20, 30)).astype(np.float32), rng.random((20, 30)) > share, num_thresholds=16)
        for stem, share in (("b", 0.9), ("001", 0.8), ("without crack", 1.0))
    }


def test_counts_come_back_as_they_were(tmp_path: Path) -> None:
    counts = make_counts()
    write_counts(counts, tmp_path / "counts.npz")
    back = read_counts(tmp_path / "counts.npz")
    assert list(back) == sorted(counts)
    for stem, expected in counts.items():
        assert back[stem].truth == expected.truth
        for name in ("predicted", "predicted_near_truth", "predicted_on_truth", "truth_near_prediction"):
            assert np.array_equal(getattr(back[stem], name), getattr(expected, name))


def test_the_same_counts_are_the_same_bytes_so_that_dvc_sees_no_change(tmp_path: Path) -> None:
    counts = make_counts()
    write_counts(counts, tmp_path / "one.npz")
    write_counts(dict(reversed(counts.items())), tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "counts.npz"
    write_counts(make_counts(), path)
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(CracksegError, match=r"counts\.npz: not the counts"):
        read_counts(path)
