"""What only a GPU can show: precision, recorded steps and passes, determinism; left out where there is no CUDA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crackseg.devices import set_determinism
from crackseg.files import CACHE_VARIABLE
from crackseg.inference.autotune import agrees, eager_plan, settle
from crackseg.inference.engines import Plan, build_engine
from crackseg.inference.predictor import build_predictor
from crackseg.params import OptimizerParams, PredictParams
from crackseg.training.checkpoint import LAST_NAME, load_state
from crackseg.training.loop import fit
from crackseg.training.losses import build_loss
from crackseg.training.optimizers import build_optimizer
from crackseg.training.step import Stepper
from crackseg.training.step_graph import StepGraph
from crackseg.types import ModelOutput
from tests.tiny_training import SampleList, make_network, make_recipe, make_samples

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[SampleList, SampleList]:
    return make_samples(tmp_path_factory.mktemp("pairs"))


def train_on(
    device: str, samples: tuple[SampleList, SampleList], folder: Path, **train: object
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    folder.mkdir()
    recipe = make_recipe(train={"device": device, **train})
    network = make_network(0)
    progress = fit(network, *samples, recipe, checkpoint_dir=folder, on_epoch=lambda *_: None)
    return network.state_dict(), progress.history


def test_float32_training_is_that_of_the_cpu(samples: tuple, tmp_path: Path) -> None:
    _, on_cpu = train_on("cpu", samples, tmp_path / "cpu")
    _, on_gpu = train_on("cuda", samples, tmp_path / "gpu")
    assert [row["train/loss"] for row in on_gpu] == pytest.approx([row["train/loss"] for row in on_cpu], rel=1e-2)


def test_recorded_training_is_that_kernel_by_kernel(
    samples: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, history = train_on("cuda", samples, tmp_path / "recorded", deterministic=True)
    monkeypatch.setattr(StepGraph, "__call__", lambda *_: None)
    plain, plain_history = train_on("cuda", samples, tmp_path / "plain", deterministic=True)
    assert [row["train/loss"] for row in history] == pytest.approx(
        [row["train/loss"] for row in plain_history], rel=1e-4
    )
    for name, weight in plain.items():
        torch.testing.assert_close(recorded[name], weight, rtol=1e-3, atol=1e-4)


def test_a_recorded_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    samples: tuple, tmp_path: Path
) -> None:
    whole, _ = train_on("cuda", samples, tmp_path / "whole", deterministic=True)
    folder = tmp_path / "stopped"
    folder.mkdir()
    recipe = make_recipe(train={"device": "cuda", "deterministic": True})

    class Stop(Exception):
        pass

    def stop(epoch: int, _metrics: dict[str, float]) -> None:
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(make_network(0), *samples, recipe, checkpoint_dir=folder, on_epoch=stop)
    network = make_network(1)
    fit(network, *samples, recipe, checkpoint_dir=folder, on_epoch=lambda *_: None)
    assert [key for key, weight in network.state_dict().items() if not torch.equal(weight, whole[key])] == []


def test_recording_leaves_statistics_and_random_numbers_alone() -> None:
    network = make_network(0).cuda().train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    graph = StepGraph(network, build_loss("focal", gamma=2.0, alpha=3.0), torch.float32)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, device="cuda")
    masks = (torch.rand((2, 1, 64, 64), device="cuda") < 0.05).byte()
    numbers = torch.cuda.get_rng_state()
    graph._record(images, masks)
    assert torch.equal(torch.cuda.get_rng_state(), numbers)
    assert [name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])] == []
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_step_that_cannot_be_recorded_is_computed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, images: torch.Tensor) -> ModelOutput:
            assert images.mean().item() >= 0  # waits for the GPU, which a recording cannot
            return ModelOutput(self.layer(images))

    network = Looking().cuda().train()
    loss_function = build_loss("focal", gamma=2.0, alpha=3.0)
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    graph = StepGraph(network, loss_function, torch.float32)
    stepper = Stepper(network, loss_function, torch.device("cuda"), torch.float32, scaler, graph)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    masks = (torch.rand((2, 1, 64, 64)) < 0.05).byte()
    losses = [stepper.compute_gradients(images, masks).item() for _ in range(2)]
    assert losses[0] == pytest.approx(losses[1])
    assert network.layer.weight.grad is not None
    assert "cannot be recorded" in caplog.text


@pytest.mark.parametrize("engine", ["torch", "graph"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_engine_gives_the_same_maps_also_for_a_last_pass_of_fewer(engine: str, precision: str) -> None:
    device = torch.device("cuda")
    network = make_network(3).to(device).eval()
    tiles = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    expected = build_engine(network, device, eager_plan(device), (64, 64))(tiles)
    run = build_engine(network, device, Plan(engine, precision, True, 0, 2), (64, 64))
    found = np.concatenate([run(tiles[start : start + 2]) for start in (0, 2, 4)])
    again = run(tiles[:2])
    for part in range(5):
        assert agrees(found[part : part + 1], expected[part : part + 1], precision)
    np.testing.assert_array_equal(again, found[:2])


def test_a_long_prediction_on_a_gpu_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    params = PredictParams(tile_size_px=64, overlap_px=16, batch_size=4)
    predictor = build_predictor(make_network(3).eval(), params, device="cuda", precision="auto")
    photograph = np.random.default_rng(0).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    before = predictor.predict_prob(photograph)
    settle(predictor, photograph, 30_000)
    assert predictor.plan.engine == "graph"
    assert np.abs(predictor.predict_prob(photograph) - before).mean() < 5e-3


def test_deterministic_training_ends_with_the_same_weights_to_the_bit(samples: tuple, tmp_path: Path) -> None:
    first, _ = train_on("cuda", samples, tmp_path / "a", precision="auto", deterministic=True)
    second, _ = train_on("cuda", samples, tmp_path / "b", precision="auto", deterministic=True)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_determinism_can_be_switched_off_again() -> None:
    set_determinism(torch.device("cuda"), True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    set_determinism(torch.device("cuda"), False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize("accumulate", [1, 2])
def test_float16_learns_with_its_scaler(samples: tuple, tmp_path: Path, accumulate: int) -> None:
    _, history = train_on("cuda", samples, tmp_path / "a", precision="float16", accumulate=accumulate)
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    assert load_state(tmp_path / "a" / LAST_NAME)["scaler"]["scale"] > 0


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_fused_update_is_that_of_the_cpu(name: str) -> None:
    params = OptimizerParams(name=name, lr=0.01, momentum=0.9, weight_decay=0.0005)
    weights = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        layer = nn.Linear(8, 4).to(device)
        optimizer = build_optimizer(layer, params)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.linspace(-1, 1, 8, device=device)).square().sum().backward()
            optimizer.step()
        weights.append(layer.weight.detach().cpu())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def test_parts_need_less_memory_than_the_whole_batch() -> None:
    network = make_network(0, width=16).cuda().train()
    device = torch.device("cuda")
    loss_function = build_loss("focal", gamma=2.0, alpha=3.0)
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    stepper = Stepper(network, loss_function, device, torch.float32, scaler)
    images = torch.randint(0, 256, (8, 3, 256, 256), dtype=torch.uint8)
    masks = (torch.rand((8, 1, 256, 256)) < 0.05).byte()
    peaks = []
    for num_parts in (1, 4):
        torch.cuda.reset_peak_memory_stats()
        stepper.compute_gradients(images, masks, num_parts=num_parts)
        network.zero_grad(set_to_none=True)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 0.6 * peaks[0]


@pytest.mark.slow
def test_compiled_training_is_the_plain_one(samples: tuple, tmp_path: Path) -> None:
    _, plain = train_on("cuda", samples, tmp_path / "plain")
    _, compiled = train_on("cuda", samples, tmp_path / "compiled", compile=True)
    losses = [[row["train/loss"] for row in history] for history in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
