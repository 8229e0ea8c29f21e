"""Seconds of training on one core until drawn walls reach ODS 0.9.

Our U-Net and loss, against a common library's network with the same loss and patches, and against the paper's loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from benchmarks.measure import ROOT, Effort, Row
from benchmarks.scenes import draw_wall
from crackseg.data.augmentation import augment_pair
from crackseg.evaluation.metrics import ScoreAccumulator, count_image
from crackseg.models import build_model
from crackseg.params import load_params
from crackseg.training.average import AveragedWeights
from crackseg.training.losses import Loss, build_loss
from crackseg.types import ModelOutput

_BATCH, _LR, _DECAY = 4, 4e-3, 0.9
_FIRST_VALIDATION = 1000  # training scenes have lower numbers


@dataclass(frozen=True, slots=True)
class Task:
    """Size of the task.

    Attributes:
        ods: to be reached by the validation scenes, paper's protocol.
        size_px: side of a scene.
        patch_px: side of what is cut from it to train with.
        num_scenes: to train with.
        num_validation: to score.
        validate_every: steps.
        most_s: processor seconds of ours.
        peers: most of the peers, in times of ours.
    """

    ods: float = 0.9
    size_px: int = 256
    patch_px: int = 128
    num_scenes: int = 48
    num_validation: int = 8
    validate_every: int = 20
    most_s: float = 300.0
    peers: float = 4.0


def run(effort: Effort) -> list[Row]:
    """Rows ``train-to-0.9`` and ``train-to-0.9-focal``."""
    return compare(Task(peers=1.0) if effort.quick else Task())


def compare(task: Task) -> list[Row]:
    """Train ours until it is there, then the peers, until a multiple of that time."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    soft_f = build_loss("bce_soft_f", crack_weight=20.0, tolerance_px=2)
    focal = build_loss("focal", gamma=2.0, alpha=3.0)
    ours_s, ods = _train(lambda: build_model("unet", width=8), soft_f, task, task.most_s)
    assert ods >= task.ods, f"ours has ODS {ods:.3f} after {ours_s:.0f} s"
    limit_s = task.peers * ours_s
    rows = []
    for name, peer_name, build, loss in (
        ("train-to-0.9", "segmentation-models-pytorch, U-Net-ResNet18", _Peer, soft_f),
        (
            "train-to-0.9-focal",
            "the same U-Net with the paper's loss",
            lambda: build_model("unet", width=8),
            focal,
        ),
    ):
        seconds, ods = _train(build, loss, task, limit_s)
        reached = f"ODS {ods:.3f}" if ods >= task.ods else f"not within {limit_s:.0f} s: ODS {ods:.3f}"
        note = f"drawn concrete, patches of {task.patch_px}², AdamW {_LR:g}, averaged weights; the peer: {reached}"
        rows.append(Row(name, ours_s, seconds, peer_name, "s of one core", note))
    return rows


class _Peer(nn.Module):
    """The library's network without pretrained weights, with the output that our losses take."""

    def __init__(self) -> None:
        super().__init__()
        self.body = smp.Unet("resnet18", encoder_weights=None, classes=1)

    def forward(self, images: Tensor) -> ModelOutput:
        return ModelOutput(self.body(images))


def _train(build: Callable[[], nn.Module], loss_function: Loss, task: Task, most_s: float) -> tuple[float, float]:
    """Train; returns the processor seconds of the steps alone, and the last ODS."""
    torch.manual_seed(0)
    network = build()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR)
    average = AveragedWeights(network, _DECAY)
    params = load_params(ROOT / "params.yaml").augment.model_copy(update={"crop_px": task.patch_px})
    pairs = [draw_wall(number, task.size_px) for number in range(task.num_scenes)]
    validation = [draw_wall(_FIRST_VALIDATION + number, task.size_px) for number in range(task.num_validation)]
    rng = np.random.default_rng(0)
    seconds, ods, step = 0.0, 0.0, 0
    while seconds < most_s:
        started = time.thread_time()
        network.train()
        chosen = rng.integers(len(pairs), size=_BATCH)
        patches = [augment_pair(*pairs[number], params, rng) for number in chosen]
        images = torch.from_numpy(np.stack([image for image, _ in patches])).permute(0, 3, 1, 2).float() / 255
        masks = torch.from_numpy(np.stack([mask for _, mask in patches]))[:, None]
        optimizer.zero_grad()
        loss_function(network(images), masks).backward()
        optimizer.step()
        average.update()
        seconds += time.thread_time() - started
        step += 1
        if step % task.validate_every == 0 and (ods := _score(average.module, validation)) >= task.ods:
            break
    return seconds, ods


@torch.inference_mode()
def _score(network: nn.Module, pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    network.eval()
    scores = ScoreAccumulator()
    for number, (image, mask) in enumerate(pairs):
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        prob = network(batch).logits[0, 0].sigmoid().numpy()
        scores.add(count_image(prob, mask, tolerance_px=2), str(number))
    return scores.result().paper.ods
