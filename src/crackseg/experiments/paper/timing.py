"""Time inference and training steps of every architecture on this machine, for Table 4."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from crackseg.devices import choose_precision, describe_device
from crackseg.errors import CracksegError
from crackseg.inference.predictor import Predictor, build_predictor
from crackseg.models import ARCHITECTURES, build_model
from crackseg.params import PredictParams
from crackseg.progress import progress
from crackseg.training.losses import build_loss
from crackseg.training.step import build_stepper

SIZE_PX = 512
CROP_PX, BATCH_SIZE = 448, 2  # of a training step: params.yaml's crop, the paper's batch
TRAINING_STEPS = 3
_WARM_UP_IMAGES = 2  # the first pass allocates, and on a GPU chooses its kernels
_REPEAT_S = 0.2  # least length of a repeat: single passes of a few milliseconds are too short for the clock


@dataclass(frozen=True, slots=True)
class InferenceTiming:
    """Time of one image.

    Attributes:
        architecture: a key of ``crackseg.models.ARCHITECTURES``.
        precision: ``float32``, ``bfloat16`` or ``float16``; "" if nothing was timed.
        seconds: per image, one for each repeat; empty if the architecture cannot be built here.
        problem: the reason why it cannot be built; "" if it can.
    """

    architecture: str
    precision: str
    seconds: tuple[float, ...]
    problem: str = ""

    @property
    def median_s(self) -> float:
        """Median over the repeats, NaN if there are none."""
        return median(self.seconds) if self.seconds else math.nan


def choose_architectures(names: str | None) -> tuple[str, ...]:
    """Read names with commas between; None means all.

    Raises:
        CracksegError: there is no such architecture.
    """
    if names is None:
        return tuple(ARCHITECTURES)
    chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    if unknown := [name for name in chosen if name not in ARCHITECTURES]:
        raise CracksegError(
            f"--architectures: unknown {', '.join(map(repr, unknown))}; expected some of {', '.join(ARCHITECTURES)}, "
            "separated by commas"
        )
    return chosen


def time_architectures(
    architectures: Sequence[str], *, device: torch.device, repeats: int
) -> list[InferenceTiming]:
    """Time each architecture in float32, and in the precision of ``train.precision: auto`` if that is another.

    Weights are random: the time of a pass does not depend on them.

    Args:
        architectures: keys of ``crackseg.models.ARCHITECTURES``.
        device: where to.
        repeats: measurements of each, at least 1.
    """
    precisions = dict.fromkeys([torch.float32, choose_precision("auto", device)])
    timings: list[InferenceTiming] = []
    with progress(architectures, f"time inference on {describe_device(device)}", "model") as bar:
        for architecture in bar:
            bar.set_postfix_str(architecture)
            timings += _time_architecture(architecture, precisions, device, repeats)
    return timings


def _time_architecture(
    architecture: str, precisions: Iterable[torch.dtype], device: torch.device, repeats: int
) -> list[InferenceTiming]:
    try:
        with torch.random.fork_rng(devices=[]):
            network = build_model(architecture)
    except CracksegError as error:
        return [InferenceTiming(architecture, "", (), problem=str(error))]
    params = PredictParams(tile_size_px=SIZE_PX, overlap_px=0, batch_size=1)
    timings = []
    for precision in precisions:
        name = str(precision).removeprefix("torch.")
        predictor = build_predictor(network, params, device=device.type, precision=name)
        timings.append(
            InferenceTiming(architecture, name, time_predictor(predictor, size_px=SIZE_PX, repeats=repeats))
        )
    return timings


def time_predictor(predictor: Predictor, *, size_px: int, repeats: int) -> tuple[float, ...]:
    """Time the steps from a decoded photograph to its probability map, including copies to and from the device.

    Args:
        predictor: to be timed.
        size_px: side of the photograph.
        repeats: measurements; each takes as many images as fill 0.2 s, one after the other.
    Returns:
        Seconds per image, one for each repeat.
    """
    image_HW3 = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    for _ in range(_WARM_UP_IMAGES):
        started = time.perf_counter()
        predictor.predict_prob(image_HW3)
        pass_s = time.perf_counter() - started
    num_images = max(1, math.ceil(_REPEAT_S / pass_s))
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(num_images):
            predictor.predict_prob(image_HW3)  # returns a NumPy array on the host, so the device has finished
        seconds.append((time.perf_counter() - started) / num_images)
    return tuple(seconds)


def time_training(architectures: Sequence[str], *, device: torch.device) -> dict[str, tuple[float, ...]]:
    """Time steps of training: forward, focal loss, backward and SGD, on one random batch, the first step left out.

    Args:
        architectures: keys of ``crackseg.models.ARCHITECTURES``; what cannot be built here is left out.
        device: where to.
    Returns:
        By architecture, the seconds of each of ``TRAINING_STEPS`` steps.
    """
    seconds = {}
    with progress(architectures, f"time training on {describe_device(device)}", "model") as bar:
        for architecture in bar:
            bar.set_postfix_str(architecture)
            try:
                with torch.random.fork_rng(devices=[]):
                    seconds[architecture] = _time_steps(architecture, device)
            except CracksegError:
                continue  # the timing of inference gives the reason
    return seconds


def _time_steps(architecture: str, device: torch.device) -> tuple[float, ...]:
    network = build_model(architecture).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    loss_function = build_loss("focal", gamma=2, alpha=3)
    stepper = build_stepper(network, loss_function, device, choose_precision("auto", device))
    images_B3HW = torch.randint(0, 256, (BATCH_SIZE, 3, CROP_PX, CROP_PX), dtype=torch.uint8)
    masks_B1HW = (torch.rand(BATCH_SIZE, 1, CROP_PX, CROP_PX) < 0.01).to(torch.uint8)
    seconds = []
    for _ in range(TRAINING_STEPS + 1):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        stepper.compute_gradients(images_B3HW, masks_B1HW)
        stepper.scaler.step(optimizer)
        stepper.scaler.update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return tuple(seconds[1:])
