"""A network with folded normalisation must give the same maps, whatever its architecture."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from crackseg.inference.engines import fold_batch_norm
from crackseg.models import ARCHITECTURES, build_model
from crackseg.types import ModelOutput
from tests.warm_commands import warm_python


def with_statistics(network: nn.Module) -> nn.Module:
    """As after a training: neither means of 0 nor variances of 1, in float64 so that rounding hides nothing."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.double().eval()


_QUICK = {"unet", "modified_unet", "deepcrack", "deeplabv3_mobilenet_v3_large", "unet_encoder"}


@pytest.mark.parametrize(
    "architecture",
    [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(ARCHITECTURES)],
)
def test_folded_network_gives_the_same_map(architecture: str) -> None:
    torch.manual_seed(0)
    network = with_statistics(build_model(architecture))
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    folded = fold_batch_norm(network)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image).logits, network(image).logits, rtol=1e-6, atol=1e-8)
    before, after = (
        sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) for net in (network, folded)
    )
    assert after == 0 or after < before


def test_what_is_used_twice_stays_as_it_is() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.own = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 1)
            self.first, self.second, self.third = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(1)

        def forward(self, image: torch.Tensor) -> ModelOutput:
            return ModelOutput(self.third(self.own(self.second(self.shared(self.first(self.shared(image)))))))

    network = with_statistics(Twice())
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    folded = fold_batch_norm(network)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image).logits, network(image).logits)
    kept = [isinstance(module, nn.BatchNorm2d) for module in (folded.first, folded.second, folded.third)]
    assert kept == [True, True, False]


class Normalised(nn.Module):
    """A convolution and its normalisation; ``skip`` adds the convolution's own result, which folding changes."""

    def __init__(self, *, skip: bool, track_running_stats: bool = True) -> None:
        super().__init__()
        self.skip = skip
        self.convolution = nn.Conv2d(3, 1, 3, padding=1)
        self.normalisation = nn.BatchNorm2d(1, track_running_stats=track_running_stats)

    def forward(self, image: torch.Tensor) -> ModelOutput:
        features = self.convolution(image)
        return ModelOutput(self.normalisation(features) + features * self.skip)


def test_normalisation_by_the_batch_at_hand_stays() -> None:
    folded = fold_batch_norm(Normalised(skip=False, track_running_stats=False).eval())
    assert isinstance(folded.normalisation, nn.BatchNorm2d)


def test_a_network_that_also_reads_what_is_normalised_keeps_its_answers() -> None:
    torch.manual_seed(0)
    assert not isinstance(fold_batch_norm(with_statistics(Normalised(skip=False))).normalisation, nn.BatchNorm2d)
    network = with_statistics(Normalised(skip=True))
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(fold_batch_norm(network)(image).logits, network(image).logits)


def test_the_network_given_is_left_as_it_is() -> None:
    network = with_statistics(build_model("unet", width=4)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fold_batch_norm(network)
    assert network.training
    assert [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])] == []
    assert all(parameter.requires_grad for parameter in network.parameters())


SIGNALLED = """
import gc, os, signal, torch
from crackseg.inference.engines import Plan, build_engine
from crackseg.models import build_model

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
network = build_model("unet", width=4).eval()
plan = Plan("openvino", "float32", False, 1, 1)
first, second = (build_engine(network, torch.device("cpu"), plan, (64, 64)) for _ in "ab")
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_after_engines_are_gone_is_handled() -> None:
    answer = subprocess.run([warm_python(), "-c", SIGNALLED], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "handled\n"), answer.stderr
