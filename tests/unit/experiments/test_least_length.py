"""`crackseg choose-length`: the least length that leaves few photographs without cracks marked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from crackseg.cli import cli
from crackseg.data.catalog import list_splits
from crackseg.data.images.files import write_mask
from crackseg.data.synthetic.sample import write_sample
from crackseg.errors import CracksegError
from crackseg.experiments.least_length import choose_length
from crackseg.inference.operating_threshold import OperatingPoint
from crackseg.params import load_params
from crackseg.project import Layout
from tests.tiny_model import NO_POSTPROCESSING, make_model

ROOT = Path(__file__).parents[3]
DATASET = load_params(ROOT / "params.yaml").data.train_dataset


def point(length_px: int, f: float, num_alarmed: int) -> OperatingPoint:
    return OperatingPoint(
        NO_POSTPROCESSING.model_copy(update={"min_length_px": length_px}), 0.5, f, 4, 4, 10, num_alarmed
    )


def test_the_shortest_length_with_few_alarms_is_chosen_even_if_a_longer_one_scores_better() -> None:
    points = [point(0, 0.9, 10), point(40, 0.8, 1), point(80, 0.85, 1), point(160, 0.6, 0)]
    assert choose_length(points, 0.1).postprocessing.min_length_px == 40
    assert choose_length(points, 0.0).postprocessing.min_length_px == 160
    assert choose_length(points, 1.0).postprocessing.min_length_px == 0


def test_where_no_length_is_enough_the_fewest_alarms_are_told() -> None:
    with pytest.raises(CracksegError, match=r"at most 10 % of the 10 photographs .* fewest, 4, with 80 px"):
        choose_length([point(0, 0.9, 10), point(80, 0.5, 4)], 0.1)


def test_a_length_that_finds_no_crack_at_all_is_not_chosen() -> None:
    with pytest.raises(CracksegError, match=r"fewest, 9, with 40 px"):
        choose_length([point(0, 0.9, 10), point(40, 0.8, 9), point(300, 0.0, 0)], 0.1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an untrained U-Net and two training and two validation images."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    layout = Layout(tmp_path)
    write_sample(layout.prepared, seed=1, counts={DATASET: (2, 2, 0)}, size=(96, 96))
    layout.weights.parent.mkdir(parents=True)
    make_model(tmp_path / "made")
    shutil.copy(tmp_path / "made" / "weights.pt", layout.weights)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blacken(project: Path) -> None:
    for samples in list_splits(Layout(project).prepared, DATASET).values():
        if samples:
            write_mask(samples[0].mask_path, np.zeros((96, 96), np.uint8))


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    cli.main(["choose-length", *arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_the_table_counts_photographs_of_training_and_validation_and_the_length_is_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blacken(project)
    before = (project / "params.yaml").read_text(encoding="utf-8")
    said = run("--length-px", "0", "--length-px", "40", "--max-false-alarms", "1", capsys=capsys)
    assert said.count("of 1 |") == 2  # one validation image has cracks
    assert said.count("of 2 |") == 2  # one of validation and one of training has none
    assert "chosen: postprocess.min_length_px=" in said
    assert (project / "params.yaml").read_text(encoding="utf-8") == before
    said = run("--length-px", "40", "--max-false-alarms", "1", "--write", capsys=capsys)
    assert "postprocess.min_length_px: 0 -> 40" in said
    assert load_params(project / "params.yaml").postprocess.min_length_px == 40
    said = run("--length-px", "40", "--max-false-alarms", "1", "--write", capsys=capsys)
    assert "params.yaml has postprocess.min_length_px=40 already" in said


@pytest.mark.parametrize(
    ("mask", "said"),
    [(np.eye(96, dtype=np.uint8), "without cracks, with black masks"),
     (np.zeros((96, 96), np.uint8), "with cracks")],
)  # fmt: skip
def test_data_that_shows_only_one_of_both_is_named(
    project: Path, capsys: pytest.CaptureFixture[str], mask: np.ndarray, said: str
) -> None:
    for samples in list_splits(Layout(project).prepared, DATASET).values():
        for sample in samples:
            write_mask(sample.mask_path, mask)
    with pytest.raises(
        CracksegError, match=rf"{DATASET}: lengths cannot be compared without photographs {said}, and"
    ):
        run("--length-px", "2", capsys=capsys)


def test_a_project_without_a_trained_model_is_told_how_to_make_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "outputs")
    with pytest.raises(CracksegError, match=r"weights\.pt was not made yet.*dvc repro"):
        run(capsys=capsys)
