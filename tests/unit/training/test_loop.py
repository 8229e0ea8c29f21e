"""A training can be repeated to the bit, killed and taken up again, and says what goes wrong."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crackseg.errors import CracksegError
from crackseg.training import loop
from crackseg.training.checkpoint import BEST_NAME, LAST_NAME, checkpoint_key, load_state
from crackseg.training.loop import fit
from tests.tiny_training import SampleList, make_network, make_recipe, make_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[SampleList, SampleList]:
    return make_samples(tmp_path_factory.mktemp("pairs"))


def run_fit(
    samples: tuple[SampleList, SampleList], folder: Path, *, stop_after: int | None = None, **changes: object
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Train a tiny network; ``stop_after`` raises as Ctrl-C does, before that epoch's checkpoint is written."""
    folder.mkdir(exist_ok=True)
    recipe = make_recipe(**changes)
    network = make_network(recipe.train.seed)

    def on_epoch(epoch: int, _metrics: dict[str, float]) -> None:
        if epoch == stop_after:
            raise KeyboardInterrupt

    progress = fit(network, *samples, recipe, checkpoint_dir=folder, on_epoch=on_epoch)
    return network.state_dict(), progress.history


def run_interrupted(samples: tuple[SampleList, SampleList], folder: Path, **changes: object) -> tuple:
    """Train as ``run_fit`` does, stopped in the first epoch and again in the third."""
    for stop in (0, 2):
        with pytest.raises(KeyboardInterrupt):
            run_fit(samples, folder, stop_after=stop, **changes)
    return run_fit(samples, folder, **changes)


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_same_seed_gives_the_same_weights_to_the_bit(samples: tuple, tmp_path: Path) -> None:
    first, history = run_fit(samples, tmp_path / "a")
    second, _ = run_fit(samples, tmp_path / "b", num_workers=2)
    assert_same_weights(first, second)
    third, _ = run_fit(samples, tmp_path / "c", seed=1)
    assert any(not torch.equal(first[key], third[key]) for key in first)
    assert history[-1]["train/loss"] < history[0]["train/loss"]


@pytest.mark.parametrize("scheduler", ["cosine", "plateau", "onecycle"])
def test_interrupted_training_ends_with_the_weights_of_a_straight_one(
    samples: tuple, tmp_path: Path, scheduler: str
) -> None:
    straight, straight_history = run_fit(samples, tmp_path / "straight", scheduler=scheduler)
    resumed, history = run_interrupted(samples, tmp_path / "stopped", scheduler=scheduler)
    assert_same_weights(straight, resumed)
    pairs = zip(straight_history, history, strict=True)
    assert all(a["train/loss"] == b["train/loss"] and a["val/ods"] == b["val/ods"] for a, b in pairs)


def test_interrupted_training_keeps_the_average_of_its_weights_and_the_initial_ones(
    samples: tuple, tmp_path: Path
) -> None:
    train = {"ema_decay": 0.9, "keep_initial": 0.25}
    straight, history = run_fit(samples, tmp_path / "straight", train=train)
    resumed, _ = run_interrupted(samples, tmp_path / "stopped", train=train)
    assert_same_weights(straight, resumed)
    without, plain_history = run_fit(samples, tmp_path / "without")
    assert [row["train/loss"] for row in history] == [row["train/loss"] for row in plain_history]
    assert any(not torch.equal(straight[key], without[key]) for key in straight)
    assert [row["val/ods"] for row in history] != [row["val/ods"] for row in plain_history]


def test_interrupted_training_that_agrees_with_its_flips_ends_with_the_same_weights(
    samples: tuple, tmp_path: Path
) -> None:
    average = {"ema_decay": 0.9, "batch_size": 3}  # 3 steps an epoch, and four flips in turn
    straight, history = run_fit(samples, tmp_path / "straight", train=average | {"flip_agreement": 1.0})
    resumed, _ = run_interrupted(samples, tmp_path / "stopped", train=average | {"flip_agreement": 1.0})
    assert_same_weights(straight, resumed)
    without, plain_history = run_fit(samples, tmp_path / "without", train=average)
    assert any(not torch.equal(straight[key], without[key]) for key in straight)
    assert history[0]["train/loss"] > plain_history[0]["train/loss"]


def test_the_last_weights_are_taken_on_demand_though_earlier_ones_scored_better(
    samples: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate, falling = loop.validate, itertools.count(0.9, -0.1)
    monkeypatch.setattr(loop, "validate", lambda *args: replace(validate(*args), ods=next(falling)))
    recipe, taken = make_recipe(), []
    for take_last in (False, True):
        folder = tmp_path / str(take_last)
        folder.mkdir()
        settings = {"checkpoint_dir": folder, "on_epoch": lambda *_: None, "take_last": take_last}
        taken.append(fit(make_network(0), *samples, recipe, **settings).best_epoch)
    assert taken == [1, recipe.train.epochs]


def test_kill_9_at_any_moment_loses_at_most_an_epoch(samples: tuple, tmp_path: Path) -> None:
    straight, _ = run_fit(samples, tmp_path / "straight")
    script = "from tests.tiny_training import main; main()"
    command = [sys.executable, "-c", script, str(samples[0][0].image_path.parent), str(tmp_path / "killed")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200  # a busy machine takes long to import; a test may take 300 s
    while (
        not (tmp_path / "killed" / LAST_NAME).exists() and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.wait()
    assert json.loads(load_state(tmp_path / "killed" / LAST_NAME)["progress"])["epoch"] >= 1
    resumed, _ = run_fit(samples, tmp_path / "killed")
    assert_same_weights(straight, resumed)


def test_a_finished_training_is_not_trained_again(samples: tuple, tmp_path: Path) -> None:
    first, history = run_fit(samples, tmp_path / "a")
    again, same_history = run_fit(samples, tmp_path / "a", stop_after=0)  # no epoch is left to stop after
    assert_same_weights(first, again)
    assert history == same_history


def test_nan_loss_stops_with_advice_and_keeps_the_best_weights(samples: tuple, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_fit(samples, tmp_path / "a", stop_after=1)
    kept = (tmp_path / "a" / BEST_NAME).read_bytes()
    state = load_state(tmp_path / "a" / LAST_NAME)
    state["optimizer"]["param_groups"][0]["lr"] = float("inf")
    state["scheduler"]["base_lrs"] = [float("inf")]
    torch.save(state, tmp_path / "a" / LAST_NAME)
    with pytest.raises(
        CracksegError,
        match=r"the training loss became (nan|inf) in epoch 2, step 4.*best\.pt\. Lower optimizer\.lr",
    ):
        run_fit(samples, tmp_path / "a")
    assert (tmp_path / "a" / BEST_NAME).read_bytes() == kept


def test_damaged_checkpoint_is_named(samples: tuple, tmp_path: Path) -> None:
    (tmp_path / LAST_NAME).write_bytes(b"half a checkpoint")
    with pytest.raises(CracksegError, match=r"last\.pt is damaged .* delete the folder"):
        run_fit(samples, tmp_path)


def test_checkpoint_of_another_network_is_refused(samples: tuple, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_fit(samples, tmp_path / "a", stop_after=1)
    recipe = make_recipe()
    with pytest.raises(CracksegError, match="is of another training"):
        fit(make_network(0, width=8), *samples, recipe, checkpoint_dir=tmp_path / "a", on_epoch=lambda *_: None)


def test_checkpoints_of_other_settings_data_or_code_are_kept_apart() -> None:
    key = checkpoint_key({"loss.gamma": 2.0}, "aa", "c")
    assert key == checkpoint_key({"loss.gamma": 2.0}, "aa", "c")
    others = [({"loss.gamma": 4.0}, "aa", "c"), ({"loss.gamma": 2.0}, "bb", "c"), ({"loss.gamma": 2.0}, "aa", "d")]
    assert len({key, *(checkpoint_key(*other) for other in others)}) == 4


def test_a_full_disk_costs_a_checkpoint_not_the_training(
    samples: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, _ = run_fit(samples, tmp_path / "straight")
    import crackseg.training.checkpoint

    real_save = crackseg.training.checkpoint.save_state

    def save_unless_last(path: Path, state: dict) -> None:
        if path.name == LAST_NAME:
            raise OSError(28, "No space left on device")
        real_save(path, state)

    monkeypatch.setattr(crackseg.training.checkpoint, "save_state", save_unless_last)
    weights, _ = run_fit(samples, tmp_path / "full")
    assert_same_weights(straight, weights)


def test_no_validation_images_is_said(samples: tuple, tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match="no validation images"):
        run_fit((samples[0], []), tmp_path)
