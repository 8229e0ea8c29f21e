"""Time of training: measured on a step as training takes it, and announced from its first steps."""

from pathlib import Path

import pytest

from crackseg.params import change_params, load_params
from crackseg.training.pace import DurationNotice, format_duration, measure_step

COMMITTED = load_params(Path(__file__).parents[3] / "params.yaml")


def test_a_step_takes_longer_with_more_patches() -> None:
    tiny = {"model.architecture": "unet", "model.width": 4, "augment.crop_px": 32, "train.device": "cpu"}
    one, many = (
        measure_step(change_params(COMMITTED, tiny | {"train.batch_size": size}, source="test"))
        for size in (1, 16)
    )
    assert 0 < one < many


def test_durations_are_for_people() -> None:
    assert [format_duration(s) for s in (5, 600, 7200, 250_000)] == ["5 s", "10 min", "2.0 h", "2.9 days"]


def test_the_announced_duration_is_of_the_steps_after_the_first_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("crackseg.training.pace.time.monotonic", lambda: now)
    notice = DurationNotice(num_epochs=60, num_steps=12)
    for seconds in (9.0, 8.0, *[2.0] * 20):  # set-up, then the pace that stays
        now += seconds
        notice.end_step()
    said = capsys.readouterr().out
    assert said.count("training on this CPU will take about 24 min: 60 epochs of 12 steps, 2.00 s each") == 1


def test_the_duration_of_slow_steps_is_announced_after_half_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("crackseg.training.pace.time.monotonic", lambda: now)
    notice = DurationNotice(num_epochs=300, num_steps=130)
    for _ in range(3):
        now += 40.0
        notice.end_step()
    assert "300 epochs of 130 steps, 40.00 s each" in capsys.readouterr().out
