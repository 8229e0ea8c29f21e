"""Where the time goes, and how far that is from what a core can do: ``python -m benchmarks.limits``.

Everything on one core, in processor time of that core, which leaves out what other programs take.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inference import make_network
from benchmarks.measure import ROOT
from benchmarks.scenes import draw_pair
from crackseg.data.augmentation import augment_pair
from crackseg.data.image_io import read_image, read_mask, write_mask, write_png, write_probability_map
from crackseg.inference import Predictor, sigmoid
from crackseg.losses import build_loss
from crackseg.metrics import count_image
from crackseg.optimizers import build_optimizer
from crackseg.params import PredictParams, load_params

_CPU = torch.device("cpu")
_MODELS = {"deeplabv3_resnet101": 1, "deeplabv3_mobilenet_v3_large": 5, "unet": 5}  # and repeats


def main() -> None:
    """Print the tables of docs/performance.md."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    matmul, copy = _measure_matmul(), _measure_copy()
    print(
        f"| limit of a core | {matmul:.1f} GFLOP/s (matmul, float32) | {copy:.1f} GB/s (copy, read and written) |\n"
    )
    print("| a prediction of 512² | GFLOP | s | GFLOP/s | of the limit | longest operations |")
    print("|---|---:|---:|---:|---:|---|")
    for architecture, repeats in _MODELS.items():
        gflop, seconds, shares = _measure_prediction(architecture, repeats)
        rate = gflop / seconds
        print(f"| {architecture} | {gflop:.1f} | {seconds:.3f} | {rate:.1f} | {rate / matmul:.0%} | {shares} |")
    for title, steps in (("around a prediction", _around_a_prediction()), ("a training step", _training_step())):
        total = sum(steps.values())
        print(f"\n| {title} | ms | share |\n|---|---:|---:|")
        for name, seconds in steps.items():
            print(f"| {name} | {1000 * seconds:.2f} | {seconds / total:.1%} |")


def _measure_matmul() -> float:
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    return 2 * 2048**3 / _seconds(lambda: a @ b, 5) / 1e9


def _measure_copy() -> float:
    source = np.ones(64_000_000, np.float32)  # larger than any cache
    target = np.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: np.copyto(target, source), 7) / 1e9


def _measure_prediction(architecture: str, repeats: int) -> tuple[float, float, str]:
    predictor = _predictor(architecture)
    image, _ = draw_pair(0)
    counter = FlopCounterMode(display=False)
    with counter:
        predictor.predict_logits(image)
    seconds = _seconds(lambda: predictor.predict_logits(image), repeats)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        predictor.predict_logits(image)
    taken: Counter[str] = Counter()
    for event in profiled.key_averages():
        taken[event.key.removeprefix("aten::")] += event.self_cpu_time_total
    total = sum(taken.values())
    shares = ", ".join(f"{name} {us / total:.0%}" for name, us in taken.most_common(4))
    return counter.get_total_flops() / 1e9, seconds, shares


def _around_a_prediction() -> dict[str, float]:
    """What `dvc repro` does with one image of 512² around the U-Net."""
    params = load_params(ROOT / "params.yaml")
    image, mask = draw_pair(0)
    predictor = _predictor("unet")
    logits = predictor.predict_logits(image)
    prob = sigmoid(logits.copy())
    with tempfile.TemporaryDirectory() as scratch:
        image_path, mask_path, map_path = (Path(scratch) / f"{name}.png" for name in ("image", "mask", "map"))
        write_png(image_path, image)
        write_mask(mask_path, mask)
        return {
            "read the photograph (PNG)": _seconds(lambda: read_image(image_path)),
            "the network (U-Net 16)": _seconds(lambda: predictor.predict_logits(image)),
            "probabilities": _seconds(lambda: sigmoid(logits.copy())),
            "write the map (16-bit PNG)": _seconds(lambda: write_probability_map(map_path, prob)),
            "read the truth": _seconds(lambda: read_mask(mask_path)),
            "count at 256 thresholds": _seconds(
                lambda: count_image(prob, mask, tolerance_px=params.evaluate.tolerance_px)
            ),
        }


def _training_step() -> dict[str, float]:
    """A step of the U-Net at the committed settings: batch 2, patches of 448 px."""
    params = load_params(ROOT / "params.yaml")
    network = make_network("unet").to(memory_format=torch.channels_last).train()
    loss_function = build_loss(params.loss.name, gamma=params.loss.gamma, alpha=params.loss.alpha)
    optimizer = build_optimizer(network, params.optimizer)
    rng = np.random.default_rng(0)
    pairs = [draw_pair(seed) for seed in range(2)]
    seconds: dict[str, list[float]] = {}

    def timed(name: str, start: float) -> float:
        now = time.thread_time()
        seconds.setdefault(name, []).append(now - start)
        return now

    for _ in range(6):
        now = time.thread_time()
        patches = [augment_pair(image, mask, params.augment, rng) for image, mask in pairs]
        images = torch.from_numpy(np.stack([image for image, _ in patches])).permute(0, 3, 1, 2)
        masks = torch.from_numpy(np.stack([mask for _, mask in patches]))[:, None]
        now = timed("augmentation of two pairs", now)
        output = network(images.float().div_(255))
        now = timed("forward", now)
        loss = loss_function(output, masks)
        now = timed("loss", now)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        now = timed("backward", now)
        optimizer.step()
        timed("optimiser", now)
    return {name: median(taken[1:]) for name, taken in seconds.items()}


def _predictor(architecture: str) -> Predictor:
    params = PredictParams(tile_size_px=512, overlap_px=64, batch_size=1)
    return Predictor(make_network(architecture), params, device=_CPU, precision=torch.float32)


def _seconds(work: Callable[[], object], repeats: int = 9) -> float:
    work()
    taken = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return median(taken)


if __name__ == "__main__":
    main()
