"""One training step of the paper's model against the plain loop of torchvision's references."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.models import segmentation

from benchmarks.measure import ROOT, Effort, Row, measure_in_turn
from benchmarks.scenes import draw_pair
from crackseg.devices import choose_device, choose_precision, set_determinism
from crackseg.models import build_model
from crackseg.params import load_params
from crackseg.training.losses import build_loss
from crackseg.training.optimizers import build_optimizer
from crackseg.training.step import build_stepper
from crackseg.types import ModelOutput

_BATCH = 2


def run(effort: Effort) -> list[Row]:
    """Row ``train-r101``."""
    params = load_params(ROOT / "params.yaml")
    device = choose_device("auto")
    set_determinism(device, False)  # the peer's, too: torchvision's references let cuDNN choose
    size_px = effort.pick(512, 256)
    pairs = [draw_pair(seed, size_px) for seed in range(_BATCH)]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))[:, None]
    loss_function = build_loss(**dict(params.loss))
    torch.manual_seed(0)
    network = build_model("deeplabv3_resnet101").to(device).to(memory_format=torch.channels_last)
    peer = segmentation.deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=1)
    peer.load_state_dict(network.body.state_dict())
    peer.to(device)
    optimizer = build_optimizer(network, params.optimizer)
    peer_optimizer = torch.optim.SGD(
        peer.parameters(),
        lr=params.optimizer.lr,
        momentum=params.optimizer.momentum,
        weight_decay=params.optimizer.weight_decay,
    )
    precision = choose_precision("auto", device)
    stepper = build_stepper(network, loss_function, device, precision)
    losses: dict[str, list[float]] = {"ours": [], "peer": []}

    def ours() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses["ours"].append(stepper.compute_gradients(images, masks).item())
        stepper.scaler.step(optimizer)
        stepper.scaler.update()
        _wait(device)

    def plain() -> None:  # as references/segmentation/train.py does it
        output = peer(images.to(device).float() / 255)["out"]
        loss = loss_function(ModelOutput(output), masks.to(device))
        peer_optimizer.zero_grad()
        loss.backward()
        peer_optimizer.step()
        losses["peer"].append(loss.item())
        _wait(device)

    network.train()
    peer.train()
    on_cpu = device.type == "cpu"  # where a step takes half a minute
    seconds = measure_in_turn(
        [ours, plain], repeats=1 if on_cpu else effort.pick(50, 20), warm_up=not (on_cpu and not effort.quick)
    )
    # Dropout differs from step to step, and with it the loss.
    np.testing.assert_allclose(losses["ours"][0], losses["peer"][0], rtol=0.1)
    words = str(precision).removeprefix("torch.")
    first = f"{losses['ours'][0]:.4f}, {losses['peer'][0]:.4f}"
    words += ", recorded" if stepper.graph else ""
    note = f"batch {_BATCH}, {size_px}²; ours {words}, channels last; first losses {first}"
    return [Row("train-r101", *seconds, "plain loop, eager float32", "s/step", note, target=2.3)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
