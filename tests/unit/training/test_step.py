"""A batch computed in parts must be the same step as the batch in one go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from crackseg.errors import CracksegError
from crackseg.models import build_model
from crackseg.training import loop
from crackseg.training.agreement import FlipAgreement
from crackseg.training.loop import fit
from crackseg.training.losses import Loss, build_loss
from crackseg.training.step import Stepper, choose_memory_format, explained_step_errors
from crackseg.types import ModelOutput
from tests.tiny_training import SampleList, make_network, make_recipe, make_samples

FOCAL = build_loss("focal", gamma=2.0, alpha=3.0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[SampleList, SampleList]:
    return make_samples(tmp_path_factory.mktemp("pairs"))


def make_stepper(network: nn.Module, loss_function: Loss = FOCAL) -> Stepper:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Stepper(network.train(), loss_function, torch.device("cpu"), torch.float32, scaler)


def make_batch(num_patches: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num_patches, 3, 32, 32), generator=generator, dtype=torch.uint8)
    masks = (torch.rand((num_patches, 1, 32, 32), generator=generator) < 0.1).byte()
    masks[0] = 0  # one patch has no crack at all
    return images, masks


def gradients_of(network: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["focal", "bce"])
@pytest.mark.parametrize("num_parts", [2, 3, 5])
def test_gradients_in_parts_are_those_of_the_whole_batch(name: str, num_parts: int) -> None:
    loss_function = build_loss(name, gamma=2.0, alpha=3.0)
    results = []
    for parts in (1, num_parts):
        torch.manual_seed(0)
        network = build_model("deepcrack", width=4, batch_norm=False)
        loss = make_stepper(network, loss_function).compute_gradients(*make_batch(5), num_parts=parts)
        results.append((loss, gradients_of(network)))
    (whole_loss, whole), (loss, in_parts) = results
    torch.testing.assert_close(loss, whole_loss, rtol=1e-5, atol=0)
    scale = max(float(g.abs().max()) for g in whole)
    for expected, found in zip(whole, in_parts, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6 * scale)


@pytest.mark.parametrize("num_parts", [1, 2])
def test_agreement_pulls_towards_what_the_averaged_weights_say_of_the_flipped_batch(num_parts: int) -> None:
    """By hand: the teacher's answer for the left-right flip, flipped back, in the step that has this flip."""
    torch.manual_seed(0)
    network, teacher = (build_model("deepcrack", width=4, batch_norm=False) for _ in range(2))
    images, masks = make_batch(4)
    stepper = make_stepper(network)
    plain = stepper.compute_gradients(images, masks)
    with torch.no_grad():
        taught = teacher.eval()(images.flip(3).float() / 255).logits.sigmoid().flip(3)
    prob = network(images.float() / 255).logits.sigmoid()
    expected = 0.5 * (prob - taught).square().sum() / (prob.square().sum() + taught.square().sum())
    expected.backward()  # added to the gradients of the plain loss
    together = gradients_of(network)
    network.zero_grad()
    agreeing = replace(stepper, agreement=FlipAgreement(teacher, 0.5))
    loss = agreeing.compute_gradients(images, masks, num_parts=num_parts, step=2)
    torch.testing.assert_close(loss - plain, expected.detach(), rtol=1e-3, atol=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in together)
    for found, gradient in zip(gradients_of(network), together, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-6 * scale)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_network_that_agrees_with_itself_has_no_second_term() -> None:
    agreement = FlipAgreement(nn.Identity(), 1.0)
    logits = torch.randn(2, 1, 8, 8)
    assert agreement.distance(logits, logits.sigmoid()) == 0
    assert agreement.distance(torch.full((1, 1, 4, 4), -1e4), torch.zeros(1, 1, 4, 4)) == 0  # not 0 / 0
    apart = agreement.distance(torch.full((1, 1, 4, 4), 1e4), torch.zeros(1, 1, 4, 4))
    assert apart == 1


def test_the_memory_format_follows_from_architecture_and_device_and_changes_no_gradient() -> None:
    results = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        network = build_model("modified_unet", width=4)
        assert choose_memory_format(network, torch.device("cpu")) == torch.contiguous_format
        assert choose_memory_format(network, torch.device("cuda")) == torch.channels_last
        network.to(memory_format=memory_format)
        stepper = replace(make_stepper(network), memory_format=memory_format)
        results.append([stepper.compute_gradients(*make_batch(3)), *gradients_of(network)])
    for last, first in zip(*results, strict=True):
        torch.testing.assert_close(first, last, rtol=1e-3, atol=1e-4)
    assert choose_memory_format(make_network(0), torch.device("cpu")) == torch.channels_last


def test_both_passes_over_a_part_drop_the_same_units() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(8, 1, 1))

        def forward(self, images: torch.Tensor) -> ModelOutput:
            return ModelOutput(self.layers(images))

    torch.manual_seed(0)
    network = Dropping()
    images, masks = make_batch(4)
    torch.manual_seed(7)
    as_trained = (images / 255).contiguous(memory_format=torch.channels_last)  # the order in which units are drawn
    logits = torch.cat([network(part).logits for part in as_trained.tensor_split(2)])
    FOCAL(ModelOutput(logits), masks).backward()
    expected = gradients_of(network)
    network.zero_grad()
    torch.manual_seed(7)
    make_stepper(network).compute_gradients(images, masks, num_parts=2)
    for found, wanted in zip(gradients_of(network), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_running_statistics_see_each_part_once() -> None:
    network = make_network(0)
    make_stepper(network).compute_gradients(*make_batch(4), num_parts=2)
    counts = {m.num_batches_tracked.item() for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counts == {2}


def curve_of(samples: tuple[SampleList, SampleList], folder: Path, **train: object) -> list[float]:
    folder.mkdir()
    recipe = make_recipe(train=train)
    torch.manual_seed(0)
    network = build_model("deepcrack", width=4, batch_norm=False)
    progress = fit(network, *samples, recipe, checkpoint_dir=folder, on_epoch=lambda *_: None)
    return [row[key] for row in progress.history for key in ("train/loss", "val/loss")]


def test_loss_curve_with_accumulation_is_that_of_the_large_batch(samples: tuple, tmp_path: Path) -> None:
    # 8 patches in batches of 3: the last batch has 2, and fewer parts than the others.
    whole = curve_of(samples, tmp_path / "whole", batch_size=3)
    in_parts = curve_of(samples, tmp_path / "parts", batch_size=3, accumulate=3)
    assert in_parts == pytest.approx(whole, rel=1e-3)
    assert whole[-2] < whole[0]


@pytest.mark.slow
def test_compiled_network_learns_as_the_plain_one(samples: tuple, tmp_path: Path) -> None:
    plain = curve_of(samples, tmp_path / "plain", epochs=2)
    assert curve_of(samples, tmp_path / "compiled", epochs=2, compile=True) == pytest.approx(plain, rel=1e-2)


def test_a_network_that_cannot_be_compiled_is_said(
    samples: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(loop, "compile_network", lambda network: torch.compile(network, backend=broken))
    with pytest.raises(CracksegError, match=r"train\.compile: .*no compiler.*train\.compile to false"):
        curve_of(samples, tmp_path / "a", compile=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "Lower train.num_workers"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "resumes from the last checkpoint"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate"),
            "train.batch_size",
        ),
        (MemoryError("Unable to allocate 9 GiB"), "train.batch_size"),
    ],
)
def test_memory_that_is_too_small_is_said_with_what_helps(error: Exception, said: str) -> None:
    with pytest.raises(CracksegError, match=said), explained_step_errors():
        raise error
