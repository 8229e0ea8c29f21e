"""Time of training on this machine: measured before it, to choose epochs, or announced from its first steps."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import torch

from crackseg import progress as progress_bar
from crackseg.data.augmentation import augment_pair
from crackseg.devices import choose_device, choose_precision
from crackseg.models import build_model
from crackseg.params import Params
from crackseg.training.agreement import FlipAgreement
from crackseg.training.average import AveragedWeights
from crackseg.training.losses import build_loss
from crackseg.training.optimizers import build_optimizer
from crackseg.training.step import build_stepper

_WARM_UP_STEPS = 2
_TIMED_STEPS, _TIMED_S = 8, 10.0  # at most, of a measurement
_NOTICE_STEPS, _NOTICE_S = 10, 30.0  # steps or seconds after which training announces its duration
_PHOTO_PX = 512


def measure_step(params: Params) -> float:
    """Measure the seconds of a training step: patches, gradients and update; the median of a few.

    Args:
        params: the settings; only their sizes matter, so weights are random and photographs are noise.
    """
    device = choose_device(params.train.device)
    torch.manual_seed(0)
    network = build_model(**dict(params.model) | {"init": "random"}).to(device).train()
    precision = choose_precision(params.train.precision, device)
    average = AveragedWeights(network, params.train.ema_decay) if params.train.ema_decay else None
    stepper = build_stepper(network, build_loss(**dict(params.loss)), device, precision)
    if average and params.train.flip_agreement:
        stepper = replace(stepper, agreement=FlipAgreement(average.module, params.train.flip_agreement))
    optimizer = build_optimizer(network, params.optimizer)
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (_PHOTO_PX, _PHOTO_PX, 3), dtype=np.uint8)
    mask = np.eye(_PHOTO_PX, dtype=np.uint8)
    seconds: list[float] = []
    for step in range(_WARM_UP_STEPS + _TIMED_STEPS):
        started = time.monotonic()
        pairs = [augment_pair(photo, mask, params.augment, rng) for _ in range(params.train.batch_size)]
        images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in pairs])
        masks = torch.stack([torch.from_numpy(mask)[None] for _, mask in pairs])
        optimizer.zero_grad(set_to_none=True)
        loss = stepper.compute_gradients(images, masks, num_parts=params.train.accumulate, step=step)
        stepper.scaler.step(optimizer)
        stepper.scaler.update()
        if average:
            average.update()
        loss.item()  # waits for a GPU
        if step >= _WARM_UP_STEPS:
            seconds.append(time.monotonic() - started)
        if sum(seconds) > _TIMED_S:
            break
    return float(np.median(seconds))


class DurationNotice:
    """Announce once how long training will take, from the time of its first steps.

    The very first steps include set-up and are not counted. A step includes batch, gradients and update.

    Args:
        num_epochs, num_steps: epochs, and steps in each.
    """

    def __init__(self, num_epochs: int, num_steps: int) -> None:
        self._num_epochs, self._num_steps = num_epochs, num_steps
        self._ends: list[float] | None = []

    def end_step(self) -> None:
        """Record the end of a step."""
        if self._ends is None:
            return
        self._ends.append(time.monotonic())
        seconds = np.diff(self._ends[_WARM_UP_STEPS - 1 :])
        if not len(seconds) or (len(seconds) < _NOTICE_STEPS and seconds.sum() < _NOTICE_S):
            return
        self._ends = None
        step = float(np.median(seconds))
        total = step * self._num_steps * self._num_epochs
        if total < 1:
            return
        # The demo takes minutes; training as in the paper takes days.
        advice = "" if total < 6 * 3600 else "; a GPU takes hours, and `make demo` trains a small model in minutes"
        progress_bar.write(
            f"training on this CPU will take about {format_duration(total)}: {self._num_epochs} epochs of "
            f"{self._num_steps} steps, {step:.2f} s each, without validation{advice}",
            file=sys.stdout,
        )
        sys.stdout.flush()


def format_duration(seconds: float) -> str:
    """Write a duration for people: ``45 s``, ``12 min``, ``3.5 h``, ``2.4 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
