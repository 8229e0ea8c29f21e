"""Training loop: fit() trains a model, keeps its best weights and resumes after an interruption.

The paper (section 3.2): SGD, momentum 0.9, weight decay 5e-4, batch 2, 300 epochs; the learning rate is
multiplied by 0.1 when the validation loss has not improved for 10 epochs. It does not say which weights of the 300
epochs it tests; we keep those with the best validation ODS (docs/adr/0004).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from crackseg import progress as progress_bar
from crackseg.data.dataset import CrackDataset, EpochSampler, PatchSource, build_loader
from crackseg.data.pixel_cache import PairReader, PixelCache
from crackseg.devices import choose_device, choose_precision, describe_device, set_determinism
from crackseg.errors import CracksegError
from crackseg.evaluation.metrics import RAW_THRESHOLDS, ScoreAccumulator, count_image
from crackseg.inference.predictor import Predictor, sigmoid
from crackseg.params import (
    AugmentParams,
    LossParams,
    OptimizerParams,
    Params,
    PredictParams,
    SchedulerParams,
    TrainParams,
)
from crackseg.training.agreement import FlipAgreement
from crackseg.training.average import AveragedWeights, WithInitialWeights
from crackseg.training.checkpoint import BEST_NAME, Progress, load_state, resume, save_progress, save_unless_full
from crackseg.training.distributed.processes import ALONE, Processes
from crackseg.training.losses import Loss, build_loss
from crackseg.training.optimizers import build_optimizer, build_scheduler
from crackseg.training.pace import DurationNotice
from crackseg.training.step import Stepper, build_stepper, compile_network, explained_step_errors
from crackseg.types import CrackSample, ModelOutput

# Of validation; the paper's d. Training does not depend on `evaluate`: other scoring trains nothing again.
_TOLERANCE_PX = 2
_SCENES_NAME = "scenes"  # of the folder of drawn scenes, next to that of the decoded images
_CHECK_EVERY = 20  # steps between checks of the loss: each check waits for the GPU


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """Sections of params.yaml that training depends on."""

    augment: AugmentParams
    loss: LossParams
    optimizer: OptimizerParams
    scheduler: SchedulerParams
    train: TrainParams
    predict: PredictParams

    @classmethod
    def of(cls, params: Params) -> TrainingRecipe:
        """Select the sections from params."""
        return cls(params.augment, params.loss, params.optimizer, params.scheduler, params.train, params.predict)


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
    train_samples: Sequence[CrackSample] | PatchSource,
    val_samples: Sequence[CrackSample],
    recipe: TrainingRecipe,
    *,
    checkpoint_dir: Path,
    on_epoch: Callable[[int, dict[str, float]], None],
    cache_dir: Path | None = None,
    processes: Processes = ALONE,
    checks: Mapping[str, Sequence[CrackSample]] | None = None,
    take_last: bool = False,
) -> Progress:
    """Train ``network`` and load its best weights into it.

    Several processes, each with a part of every batch and of the validation images, train like a single one, up to
    rounding (docs/distributed.md). All call this with the same arguments; the first one writes, and has the best
    weights in the end.

    Args:
        network: returns ModelOutput for images in [0, 1]; only parameters that require gradients are trained.
        train_samples, val_samples: prepared pairs, at least one each; or to train with, patches from elsewhere.
        recipe: settings of training.
        checkpoint_dir: a checkpoint in it is resumed.
        on_epoch: called after each epoch with its number, from 0, and its metrics (MLflow names), before the
            checkpoint is written: a resumed training run may call it again for the same epoch. Only of the first
            process.
        cache_dir: of decoded images, shared by all training runs; None: no cache.
        processes: that train together.
        checks: photographs by name that are scored at each validation as ``check/NAME/ods``, and decide nothing.
        take_last: take the weights of the last validation instead of the one with the best ODS.
    Returns:
        The progress at the end.
    Raises:
        CracksegError: no images, a damaged checkpoint, or a loss that is not a number.
    """
    if not val_samples:
        raise CracksegError("no validation images; give some the split `val` in the dataset's manifest")
    params = recipe.train
    _check_division(params, processes)
    device = choose_device(params.device)
    precision = choose_precision(params.precision, device)
    torch.manual_seed(params.seed)
    set_determinism(device, params.deterministic)

    cache = PixelCache(cache_dir, int(params.cache_gb * 1e9)) if cache_dir and params.cache_gb else None
    dataset: PatchSource = (
        CrackDataset(
            train_samples,
            recipe.augment,
            patches_per_image=params.patches_per_image,
            seed=params.seed,
            cache=cache,
            scenes_dir=(cache_dir or checkpoint_dir).with_name(_SCENES_NAME),
        )
        if isinstance(train_samples, Sequence)
        else train_samples
    )
    val_pairs = PairReader(val_samples, cache)
    check_pairs = {name: PairReader(samples, None) for name, samples in (checks or {}).items()}
    loader, sampler = build_loader(
        dataset,
        batch_size=params.batch_size,
        num_workers=params.num_workers,
        pin_memory=device.type == "cuda",
        share=processes.rank,
        num_shares=processes.size,
    )
    initial = {key: value.clone() for key, value in network.state_dict().items()} if params.keep_initial else {}
    network = network.to(device)
    average = AveragedWeights(network, params.ema_decay) if params.ema_decay else None
    trained_weights = average.module if average else network
    between = None
    if params.keep_initial:  # only the first process has the initial weights
        between = WithInitialWeights(trained_weights, processes.broadcast(initial), params.keep_initial)
    scored = between.module if between else trained_weights
    predictor = Predictor(scored, recipe.predict, device=device, precision=precision)
    loss_function = build_loss(**dict(recipe.loss))
    batch_loss_function = build_loss(**dict(recipe.loss), sums=processes.sums)
    optimizer = build_optimizer(network, recipe.optimizer)
    scheduler = build_scheduler(optimizer, recipe.scheduler, num_steps=params.epochs * len(sampler))
    stepper = build_stepper(
        network, loss_function, device, precision
    )  # after the predictor: both choose a memory format
    stateful = {"network": network, "optimizer": optimizer, "scheduler": scheduler, "scaler": stepper.scaler}
    if average:
        stateful["average"] = average
    progress = resume(checkpoint_dir, stateful, processes)
    notice = None
    if progress.epoch == 0 and device.type == "cpu" and processes.is_first:
        notice = DurationNotice(params.epochs, len(sampler))
    trained = processes.wrap(network, sync_batch_norm=params.sync_batch_norm)
    if average and progress.step == 0:
        average.begin()  # the other processes have the first one's weights only now
    if params.compile:
        trained = compile_network(trained)
    graph = None if params.compile or processes.size > 1 else stepper.graph
    agreement = None
    if average and params.flip_agreement:
        agreement = FlipAgreement(average.module, params.flip_agreement, processes.sums)
    stepper = replace(
        stepper, network=trained, loss_function=batch_loss_function, graph=graph, agreement=agreement
    )

    bar = progress_bar.progress(
        None,
        f"train on {describe_device(device)}, {str(precision).removeprefix('torch.')}",
        "step",
        total=params.epochs * len(sampler),
        initial=progress.step,
        show=processes.is_first,
    )
    with bar, explained_step_errors(), processes.explained_losses():
        for epoch in range(progress.epoch, params.epochs):
            started, cpu_started = time.monotonic(), time.process_time()
            sampler.epoch = epoch
            if processes.size > 1:  # each drops its own units, and the same after a restart
                numbers = np.random.default_rng([params.seed, epoch, processes.rank])
                torch.manual_seed(int(numbers.integers(2**63)))
            train_loss = _train_one_epoch(
                stepper,
                loader,
                sampler,
                optimizer,
                scheduler,
                bar,
                checkpoint_dir,
                params.accumulate,
                processes,
                notice,
                average,
                progress.step,
            )
            processes.share_buffers(network)
            if average:
                processes.share_buffers(average.module)
            progress.epoch, progress.step = epoch + 1, progress.step + len(sampler)
            train_seconds = time.monotonic() - started
            metrics = {
                "train/loss": train_loss,
                "lr": optimizer.param_groups[0]["lr"],
                "train/images_per_second": len(dataset) / train_seconds,
            }
            if progress.epoch % params.validate_every == 0 or progress.epoch == params.epochs:
                if between:
                    between.update(trained_weights)
                validation = validate(predictor, val_pairs, loss_function, processes)
                progress.val_loss = validation.loss
                metrics |= {
                    "val/loss": validation.loss,
                    "val/ods": validation.ods,
                    "val/symmetric_ods": validation.symmetric_ods,
                    "val/strict_ods": validation.strict_ods,
                }
                for name, pairs in check_pairs.items():
                    metrics[f"check/{name}/ods"] = validate(predictor, pairs, loss_function, processes).ods
                is_better = (validation.ods, -validation.loss) > (progress.best_ods, -progress.best_val_loss)
                if take_last or is_better:
                    progress.best_epoch, progress.best_ods = epoch + 1, validation.ods
                    progress.best_val_loss = validation.loss
                    progress.operating_threshold = validation.operating_threshold
                    if processes.is_first:
                        save_unless_full(checkpoint_dir / BEST_NAME, {"network": scored.state_dict()})
                bar.set_postfix(epoch=progress.epoch, loss=f"{train_loss:.3f}", val_ods=f"{validation.ods:.3f}")
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and progress.val_loss < math.inf:
                scheduler.step(progress.val_loss)  # every epoch, so that patience counts epochs
            progress.seconds += time.monotonic() - started
            progress.cpu_seconds += time.process_time() - cpu_started
            progress.history.append({"epoch": epoch + 1} | metrics)
            if processes.is_first:
                on_epoch(epoch, metrics)
                save_progress(checkpoint_dir, stateful, progress, processes)
    if processes.is_first:
        network.load_state_dict(load_state(checkpoint_dir / BEST_NAME)["network"])
    return progress


def _check_division(params: TrainParams, processes: Processes) -> None:
    if params.accumulate * processes.size > params.batch_size:
        raise CracksegError(
            f"train.batch_size {params.batch_size} cannot be divided among {processes.size} processes in "
            f"{params.accumulate} part(s) each: it counts the patches of all of them together; raise it to at least "
            f"{params.accumulate * processes.size}"
        )


def _train_one_epoch(
    stepper: Stepper,
    loader: DataLoader,
    sampler: EpochSampler,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    bar: progress_bar.Bar,
    checkpoint_dir: Path,
    accumulate: int,
    processes: Processes,
    notice: DurationNotice | None,
    average: AveragedWeights | None,
    first_step: int,
) -> float:
    """Train one epoch, whose first step has this number; return the mean loss."""
    stepper.network.train()
    total = torch.zeros((), device=stepper.device)
    by_step = isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
    for step, (images_B3HW, masks_B1HW) in enumerate(loader):
        optimizer.zero_grad(set_to_none=True)
        # The last batch may be smaller; all processes must have as many parts, as they exchange in each.
        num_parts = min(accumulate, max(1, sampler.batch_length(step) // processes.size))
        num_counted = None if sampler.share_length(step) else 0
        total += stepper.compute_gradients(
            images_B3HW, masks_B1HW, num_parts=num_parts, num_counted=num_counted, step=first_step + step
        )
        stepper.scaler.step(optimizer)
        stepper.scaler.update()
        if average:
            average.update()
        if by_step:
            scheduler.step()
        bar.update()
        if notice:
            notice.end_step()
        if (step + 1) % _CHECK_EVERY and step + 1 < len(loader):
            continue
        if not torch.isfinite(total):
            best = checkpoint_dir / BEST_NAME
            kept = f"the best weights so far are in {best}" if best.exists() else "no epoch was complete"
            if not processes.is_first:
                kept = "see the message of process 0 for what is kept"
            raise CracksegError(
                f"the training loss became {total.item()} in epoch {sampler.epoch + 1}, step {step + 1}, at a learning "
                f"rate of {optimizer.param_groups[0]['lr']:g}; {kept}. Lower optimizer.lr"
                + ("" if stepper.precision == torch.float32 else ", or set train.precision to float32")
            )
    return total.item() / len(loader)


def validate(
    predictor: Predictor,
    pairs: PairReader,
    loss_function: Loss,
    processes: Processes = ALONE,
) -> Validation:
    """Score validation images with the predictor that evaluation and serving use.

    Several processes score each image once, and all return the scores of all images. They are identical to those of one
    process with the same weights, since counts are integers and each pass has the same images.
    """
    passes = range(0, len(pairs), predictor.params.batch_size)
    mine = [
        number
        for start in passes[processes.rank :: processes.size]
        for number in range(start, min(start + predictor.params.batch_size, len(pairs)))
    ]
    losses: dict[int, float] = {}
    scaled, raw = ScoreAccumulator(), ScoreAccumulator(num_thresholds=RAW_THRESHOLDS)
    logits = predictor.predict_logits_of(pairs[number][0] for number in mine)
    for number, logits_HW in zip(mine, logits, strict=True):
        stem, mask_HW = pairs.samples[number].stem, pairs[number][1]
        as_batch = torch.from_numpy(logits_HW)[None, None]
        losses[number] = loss_function(ModelOutput(as_batch), torch.tensor(mask_HW)[None, None]).item()
        crack_prob_HW = sigmoid(logits_HW.copy())
        scaled.add(count_image(crack_prob_HW, mask_HW, tolerance_px=_TOLERANCE_PX), stem)
        raw.add(
            count_image(
                crack_prob_HW,
                mask_HW,
                tolerance_px=_TOLERANCE_PX,
                num_thresholds=RAW_THRESHOLDS,
                min_max=False,
            ),
            stem,
        )
    if processes.size > 1:
        shares = processes.gather((losses, scaled, raw))
        losses, scaled, raw = {}, ScoreAccumulator(), ScoreAccumulator(num_thresholds=RAW_THRESHOLDS)
        for other_losses, other_scaled, other_raw in shares:
            losses |= other_losses
            scaled.merge(other_scaled)
            raw.merge(other_raw)
    scores = scaled.result()
    return Validation(
        sum(losses[number] for number in range(len(pairs))) / len(pairs),
        scores.paper.ods,
        scores.symmetric.ods,
        scores.strict.ods,
        raw.result().paper.threshold,
    )
