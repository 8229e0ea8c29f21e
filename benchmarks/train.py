"""One training step of the paper's model against the plain loop of torchvision's references."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.models import segmentation

from benchmarks.measure import ROOT, Effort, Row, measure_in_turn
from benchmarks.scenes import draw_pair
from crackseg.devices import autocast, choose_precision
from crackseg.losses import build_loss
from crackseg.models import build_model
from crackseg.optimizers import build_optimizer
from crackseg.params import load_params
from crackseg.records import ModelOutput

_BATCH = 2
_SIZE_PX = 512
_CPU = torch.device("cpu")


def run(effort: Effort) -> list[Row]:
    """Row ``train-r101``."""
    params = load_params(ROOT / "params.yaml")
    pairs = [draw_pair(seed, _SIZE_PX) for seed in range(_BATCH)]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))[:, None]
    loss_function = build_loss(params.loss.name, gamma=params.loss.gamma, alpha=params.loss.alpha)
    torch.manual_seed(0)
    network = build_model("deeplabv3_resnet101").to(memory_format=torch.channels_last)
    peer = segmentation.deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=1)
    peer.load_state_dict(network.body.state_dict())
    optimizer = build_optimizer(network, params.optimizer)
    peer_optimizer = torch.optim.SGD(
        peer.parameters(),
        lr=params.optimizer.lr,
        momentum=params.optimizer.momentum,
        weight_decay=params.optimizer.weight_decay,
    )
    precision = choose_precision("auto", _CPU)
    losses: dict[str, list[float]] = {"ours": [], "peer": []}

    def ours() -> None:  # as crackseg.training does it
        batch = images.contiguous(memory_format=torch.channels_last)
        with autocast(_CPU, precision):
            output = network(batch.float().div_(255))
        loss = loss_function(output, masks)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses["ours"].append(loss.item())

    def plain() -> None:  # as references/segmentation/train.py does it
        output = peer(images.float() / 255)["out"]
        loss = loss_function(ModelOutput(output), masks)
        peer_optimizer.zero_grad()
        loss.backward()
        peer_optimizer.step()
        losses["peer"].append(loss.item())

    network.train()
    peer.train()
    # A step takes tens of seconds on two cores: the quick run has no warm-up, which the first step hardly feels.
    seconds = measure_in_turn([ours, plain], repeats=effort.pick(2, 1), warm_up=not effort.quick)
    # Dropout differs from step to step, and with it the loss.
    np.testing.assert_allclose(losses["ours"][0], losses["peer"][0], rtol=0.1)
    words = str(precision).removeprefix("torch.")
    first = f"{losses['ours'][0]:.4f}, {losses['peer'][0]:.4f}"
    note = f"batch {_BATCH}, {_SIZE_PX}²; ours {words}, channels last; first losses {first}"
    return [Row("train-r101", *seconds, "plain loop, eager float32", "s/step", note, target=2.3)]
