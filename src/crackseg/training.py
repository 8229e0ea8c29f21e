"""fit(): train a model, keep its best weights, go on after a kill.

The paper (section 3.2): SGD, momentum 0.9, weight decay 5e-4, batch 2, 300 epochs; the learning rate is
multiplied by 0.1 when the validation loss has not improved for 10 epochs. It does not say which weights of the 300
epochs it tests; we keep those with the best validation ODS (docs/adr/0004).
"""

from __future__ import annotations

import copy
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from crackseg.checkpoint import BEST_NAME, LAST_NAME, load_state, save_state
from crackseg.data.dataset import CrackDataset, build_loader
from crackseg.data.image_io import read_image, read_mask
from crackseg.devices import autocast, choose_device, choose_precision, describe_device
from crackseg.errors import CracksegError
from crackseg.inference import Predictor, sigmoid
from crackseg.losses import build_loss
from crackseg.metrics import ScoreAccumulator, count_image
from crackseg.params import (
    AugmentParams,
    LossParams,
    OptimizerParams,
    PredictParams,
    SchedulerParams,
    TrainParams,
)
from crackseg.records import CrackSample, ModelOutput

_log = logging.getLogger("crackseg")
_TOLERANCE_PX = 2  # of validation; the paper's d. Training does not follow `evaluate`: rescoring trains nothing.
_RAW_THRESHOLDS = 1024  # for the operating threshold: raw probabilities may fill a small part of [0, 1]
_CHECK_EVERY = 20  # steps from one look at the loss to the next: each look waits for the GPU

LossFunction = Callable[[ModelOutput, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """The sections of params.yaml that say how to train."""

    augment: AugmentParams
    loss: LossParams
    optimizer: OptimizerParams
    scheduler: SchedulerParams
    train: TrainParams
    predict: PredictParams


@dataclass(slots=True)
class Progress:
    """How far a training is and what was best; saved in the checkpoint."""

    epoch: int = 0  # epochs done
    step: int = 0  # optimiser steps done
    val_loss: float = math.inf
    best_epoch: int = -1
    best_ods: float = -1.0
    best_val_loss: float = math.inf
    operating_threshold: float = 0.5  # of the best weights: raw probability, chosen on validation images
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores of the validation images: loss, ODS by protocol, raw-probability threshold of the best F."""

    loss: float
    ods: float
    symmetric_ods: float
    strict_ods: float
    operating_threshold: float


def fit(
    network: nn.Module,
    train_samples: Sequence[CrackSample],
    val_samples: Sequence[CrackSample],
    recipe: TrainingRecipe,
    *,
    checkpoint_dir: Path,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> Progress:
    """Train ``network`` and load its best weights into it.

    Args:
        network: returns ModelOutput for images in [0, 1]; only parameters that require gradients are trained.
        train_samples, val_samples: prepared pairs, at least one each.
        recipe: how to train.
        checkpoint_dir: what was written here by a training that was killed is taken up again.
        on_epoch: called after each epoch with its number, from 0, and its metrics (MLflow names), before the
            checkpoint is written: a resumed training may call it once more for the same epoch.
    Returns:
        The progress at the end.
    Raises:
        CracksegError: no images, a damaged checkpoint, or a loss that is not a number.
    """
    if not val_samples:
        raise CracksegError("no validation images; give some the split `val` in the dataset's manifest")
    params = recipe.train
    device = choose_device(params.device)
    precision = choose_precision(params.precision, device)
    torch.manual_seed(params.seed)
    torch.backends.cudnn.benchmark = True

    dataset = CrackDataset(
        train_samples, recipe.augment, patches_per_image=params.patches_per_image, seed=params.seed
    )
    loader, sampler = build_loader(
        dataset,
        batch_size=params.batch_size,
        num_workers=params.num_workers,
        pin_memory=device.type == "cuda",
    )
    network = network.to(device).to(memory_format=torch.channels_last)
    predictor = Predictor(network, recipe.predict, device=device, precision=precision)
    loss_function = build_loss(recipe.loss.name, gamma=recipe.loss.gamma, alpha=recipe.loss.alpha)
    optimizer = build_optimizer(network, recipe.optimizer)
    scheduler = build_scheduler(optimizer, recipe.scheduler, num_steps=params.epochs * len(sampler))
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    stateful = {"network": network, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    progress = _resume(checkpoint_dir, stateful)
    if progress.epoch == 0 and device.type == "cpu":
        _announce_duration(network, loader, loss_function, precision, params.epochs)

    bar = tqdm(
        total=params.epochs * len(sampler),
        initial=progress.step,
        desc=f"train on {describe_device(device)}, {str(precision).removeprefix('torch.')}",
        unit="step",
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    with bar:
        for epoch in range(progress.epoch, params.epochs):
            started = time.monotonic()
            sampler.epoch = epoch
            train_loss = _train_one_epoch(
                epoch,
                network,
                loader,
                loss_function,
                optimizer,
                scheduler,
                scaler,
                device,
                precision,
                bar,
                checkpoint_dir,
            )
            progress.epoch, progress.step = epoch + 1, progress.step + len(sampler)
            train_seconds = time.monotonic() - started
            metrics = {
                "train/loss": train_loss,
                "lr": optimizer.param_groups[0]["lr"],
                "train/images_per_second": len(dataset) / train_seconds,
            }
            if progress.epoch % params.validate_every == 0 or progress.epoch == params.epochs:
                validation = validate(predictor, val_samples, loss_function)
                progress.val_loss = validation.loss
                metrics |= {
                    "val/loss": validation.loss,
                    "val/ods": validation.ods,
                    "val/symmetric_ods": validation.symmetric_ods,
                    "val/strict_ods": validation.strict_ods,
                }
                if (validation.ods, -validation.loss) > (progress.best_ods, -progress.best_val_loss):
                    progress.best_epoch, progress.best_ods = epoch, validation.ods
                    progress.best_val_loss = validation.loss
                    progress.operating_threshold = validation.operating_threshold
                    _save_unless_full(checkpoint_dir / BEST_NAME, {"network": network.state_dict()})
                bar.set_postfix(epoch=progress.epoch, loss=f"{train_loss:.3f}", val_ods=f"{validation.ods:.3f}")
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and progress.val_loss < math.inf:
                scheduler.step(progress.val_loss)  # every epoch, so that patience counts epochs
            progress.seconds += time.monotonic() - started
            progress.history.append({"epoch": epoch} | metrics)
            on_epoch(epoch, metrics)
            _checkpoint(checkpoint_dir, stateful, progress)
    network.load_state_dict(load_state(checkpoint_dir / BEST_NAME)["network"])
    return progress


def _train_one_epoch(
    epoch: int,
    network: nn.Module,
    loader: DataLoader,
    loss_function: LossFunction,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    scaler: torch.amp.GradScaler,
    device: torch.device,
    precision: torch.dtype,
    bar: tqdm,
    checkpoint_dir: Path,
) -> float:
    """One pass over the patches; returns the mean loss."""
    network.train()
    total = torch.zeros((), device=device)
    by_step = isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
    for step, (images_B3HW, masks_B1HW) in enumerate(loader, start=1):
        loss = _compute_loss(network, images_B3HW, masks_B1HW, loss_function, device, precision)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if by_step:
            scheduler.step()
        total += loss.detach()
        if (step % _CHECK_EVERY == 0 or step == len(loader)) and not torch.isfinite(total):
            best = checkpoint_dir / BEST_NAME
            kept = f"the best weights so far are in {best}" if best.exists() else "no epoch was complete"
            raise CracksegError(
                f"the training loss became {total.item()} in epoch {epoch + 1}, step {step}, at a learning rate of "
                f"{optimizer.param_groups[0]['lr']:g}; {kept}. Lower optimizer.lr"
                + ("" if precision == torch.float32 else ", or set train.precision to float32")
            )
        bar.update()
    return total.item() / len(loader)


def _compute_loss(
    network: nn.Module,
    images_B3HW: torch.Tensor,
    masks_B1HW: torch.Tensor,
    loss_function: LossFunction,
    device: torch.device,
    precision: torch.dtype,
) -> torch.Tensor:
    images_B3HW = images_B3HW.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    with autocast(device, precision):
        output = network(images_B3HW.float().div_(255))
    return loss_function(output, masks_B1HW.to(device, non_blocking=True))


def validate(predictor: Predictor, samples: Sequence[CrackSample], loss_function: LossFunction) -> Validation:
    """Score validation images with the predictor that evaluation and serving use."""
    total_loss = 0.0
    scaled, raw = ScoreAccumulator(), ScoreAccumulator(num_thresholds=_RAW_THRESHOLDS)
    logits = predictor.predict_logits_of(read_image(sample.image_path) for sample in samples)
    for sample, logits_HW in zip(samples, logits, strict=True):
        mask_HW = read_mask(sample.mask_path)
        as_batch = torch.from_numpy(logits_HW)[None, None]
        total_loss += loss_function(ModelOutput(as_batch), torch.from_numpy(mask_HW)[None, None]).item()
        crack_prob_HW = sigmoid(logits_HW.copy())
        scaled.add(count_image(crack_prob_HW, mask_HW, tolerance_px=_TOLERANCE_PX), sample.stem)
        raw.add(
            count_image(
                crack_prob_HW,
                mask_HW,
                tolerance_px=_TOLERANCE_PX,
                num_thresholds=_RAW_THRESHOLDS,
                min_max=False,
            ),
            sample.stem,
        )
    scores = scaled.result()
    return Validation(
        total_loss / len(samples),
        scores.paper.ods,
        scores.symmetric.ods,
        scores.strict.ods,
        raw.result().paper.threshold,
    )


def build_optimizer(network: nn.Module, params: OptimizerParams) -> torch.optim.Optimizer:
    """Build the optimiser over the parameters that are trained."""
    trained = [p for p in network.parameters() if p.requires_grad]
    if params.name == "sgd":
        return torch.optim.SGD(trained, lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay)
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.name]
    return adam(trained, lr=params.lr, betas=(params.momentum, 0.999), weight_decay=params.weight_decay)


def build_scheduler(optimizer: torch.optim.Optimizer, params: SchedulerParams, *, num_steps: int) -> Any:
    """Build the learning-rate scheduler: by epoch for plateau, by step for the others."""
    if params.name == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=params.factor, patience=params.patience
        )
    if params.name == "cosine":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, num_steps) / num_steps))
        )
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)


def _resume(checkpoint_dir: Path, stateful: dict[str, Any]) -> Progress:
    path = checkpoint_dir / LAST_NAME
    if not path.exists():
        return Progress()
    state = load_state(path)
    try:
        for name, holder in stateful.items():
            holder.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        progress = Progress(**json.loads(state["progress"]))
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise CracksegError(
            f"checkpoint {path} is of another training ({str(error).splitlines()[0][:120]}); delete the folder "
            f"{checkpoint_dir} to train from the beginning"
        ) from error
    _log.info("going on after epoch %d, from %s", progress.epoch, path)
    return progress


def _checkpoint(checkpoint_dir: Path, stateful: dict[str, Any], progress: Progress) -> None:
    state = {name: holder.state_dict() for name, holder in stateful.items()}
    state["rng"] = torch.get_rng_state()  # dropout draws from it
    state["cuda_rng"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state["progress"] = json.dumps(asdict(progress))
    _save_unless_full(checkpoint_dir / LAST_NAME, state)


def _save_unless_full(path: Path, state: dict[str, Any]) -> None:
    """Save; a full disk costs the newest checkpoint, not the training."""
    try:
        save_state(path, state)
    except OSError as error:
        if not path.exists() and path.name == BEST_NAME:
            raise CracksegError(
                f"{path} cannot be written ({error}); free some disk space and start again"
            ) from error
        _log.warning("checkpoint %s cannot be written (%s); going on with the one before", path, error)


def _announce_duration(
    network: nn.Module, loader: DataLoader, loss_function: LossFunction, precision: torch.dtype, epochs: int
) -> None:
    """Time one step on a copy of the network and say how long the whole training will take on this CPU."""
    dataset = loader.dataset
    assert isinstance(dataset, CrackDataset)
    assert loader.batch_sampler is not None
    addresses = next(iter(loader.batch_sampler))
    images, masks = (torch.stack(part) for part in zip(*(dataset[a] for a in addresses), strict=True))
    with torch.random.fork_rng(devices=[]):
        trial = copy.deepcopy(network).train()
        seconds = []
        for _ in range(2):  # the first pass pays for set-up
            started = time.monotonic()
            _compute_loss(trial, images, masks, loss_function, torch.device("cpu"), precision).backward()
            seconds.append(time.monotonic() - started)
            if seconds[0] > 2:
                break
    total = min(seconds) * len(loader) * epochs
    advice = "" if total < 900 else "; a GPU takes hours, and `make demo` trains a small model in minutes"
    if total < 1:
        return
    print(
        f"training on this CPU will take about {format_duration(total)}: {epochs} epochs of {len(loader)} steps, "
        f"{min(seconds):.2f} s each, without validation{advice}",
        flush=True,
    )


def format_duration(seconds: float) -> str:
    """Write a duration for people: ``45 s``, ``12 min``, ``3.5 h``, ``2.4 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
