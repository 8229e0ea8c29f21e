"""Measure how long a training step takes on this machine, from which a number of epochs follows."""

from __future__ import annotations

import time

import numpy as np
import torch

from crackseg.data.augmentation import augment_pair
from crackseg.devices import choose_device, choose_precision
from crackseg.models import build_model
from crackseg.params import Params
from crackseg.training.losses import build_loss
from crackseg.training.optimizers import build_optimizer
from crackseg.training.step import build_stepper, choose_memory_format

_WARM_UP_STEPS, _TIMED_STEPS, _TIMED_S = 2, 8, 10.0
_PHOTO_PX = 512


def measure_step(params: Params) -> float:
    """Measure the seconds of a training step: patches, gradients and update; the median of a few.

    Args:
        params: the settings; only their sizes matter, so weights are random and photographs are noise.
    """
    device = choose_device(params.train.device)
    torch.manual_seed(0)
    network = build_model(**dict(params.model) | {"init": "random"}).to(device)
    memory_format = choose_memory_format(network, device)
    network = network.to(memory_format=memory_format).train()
    precision = choose_precision(params.train.precision, device)
    stepper = build_stepper(network, build_loss(**dict(params.loss)), device, precision, memory_format)
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
        loss = stepper.compute_gradients(images, masks, num_parts=params.train.accumulate)
        stepper.scaler.step(optimizer)
        stepper.scaler.update()
        loss.item()  # waits for a GPU
        if step >= _WARM_UP_STEPS:
            seconds.append(time.monotonic() - started)
        if sum(seconds) > _TIMED_S:
            break
    return float(np.median(seconds))
