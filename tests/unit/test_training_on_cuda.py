"""What only a GPU can show: precision with a scaler, fused updates, determinism; left out where there is no CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from crackseg.checkpoint import LAST_NAME, load_state
from crackseg.devices import set_determinism
from crackseg.losses import build_loss
from crackseg.optimizers import build_optimizer
from crackseg.params import OptimizerParams
from crackseg.steps import Stepper
from crackseg.training import fit
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
    assert [row["train/loss"] for row in on_gpu] == pytest.approx([row["train/loss"] for row in on_cpu], rel=2e-2)


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
