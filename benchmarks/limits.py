"""Where the time goes, and how far that is from what the machine can do: ``python -m benchmarks.limits``.

Networks run on all cores, timed on the clock, so leave the machine alone meanwhile; what a loader's worker does, on one
core, in processor time.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inference import make_network
from benchmarks.measure import ROOT, measure_in_turn
from benchmarks.scenes import draw_pair
from crackseg.data.augmentation import augment_pair
from crackseg.data.catalog import list_samples
from crackseg.data.dataset import CrackDataset
from crackseg.data.images.files import read_image, read_mask, write_mask, write_png, write_probability_map
from crackseg.data.pixel_cache import PixelCache
from crackseg.data.preprocessing import prepare_dataset
from crackseg.data.synthetic.sample import write_sample
from crackseg.devices import choose_device, describe_device
from crackseg.evaluation.metrics import count_image
from crackseg.geometry.centerlines import count_lines
from crackseg.inference.engines import Plan, build_engine, has_openvino
from crackseg.inference.predictor import Predictor, sigmoid
from crackseg.params import PredictParams, load_params
from crackseg.training.losses import build_loss
from crackseg.training.optimizers import build_optimizer

_CPU = torch.device("cpu")
_MODELS = {"deeplabv3_resnet101": 3, "deeplabv3_mobilenet_v3_large": 9, "unet": 9}  # and repeats
_REPEATS = 9  # of everything else
_SIZE_PX = 512
_PAIRS = 20  # of the sample, for what a training image costs


def main() -> None:
    """Print the tables of docs/performance.md and docs/performance-data.md; on a machine with a GPU, those of GPUs."""
    device = choose_device("auto")
    if device.type == "cuda":
        _print_gpu(device)
        return
    threads = torch.get_num_threads()
    matrices = np.random.default_rng(0).random((2, 2048, 2048), np.float32)
    # MKL leaves some processors half idle.
    numpy_rate, torch_rate = _measure_product(matrices), _measure_product(torch.from_numpy(matrices))
    copy = _measure_copy()
    limit = max(numpy_rate, torch_rate)
    print(
        f"| limits of {threads} cores | |\n|---|---:|\n"
        f"| product of two matrices of 2,048², float32, NumPy | {numpy_rate:.0f} GFLOP/s |\n"
        f"| the same, torch | {torch_rate:.0f} GFLOP/s |\n"
        f"| copy of 256 MB by one core, read and written | {copy:.1f} GB/s |\n"
    )
    print("| a prediction of 512² | GFLOP | s | GFLOP/s | of the limit |\n|---|---:|---:|---:|---:|")
    for architecture, repeats in _MODELS.items():
        for words, gflop, seconds in _measure_predictions(architecture, repeats, device):
            rate = gflop / seconds
            print(f"| {words} | {gflop:.1f} | {seconds:.3f} | {rate:.0f} | {rate / limit:.0%} |")
    print("\n| operations, torch in channels last | share of the time |\n|---|---|")
    for architecture in _MODELS:
        print(f"| {architecture} | {_list_operations(architecture)} |")
    for title, steps in (
        ("around a prediction", _around_a_prediction()),
        ("a training step, U-Net, 2 patches of 448²", _training_step()),
    ):
        total = sum(steps.values())
        print(f"\n| {title} | ms | share |\n|---|---:|---:|")
        for name, seconds in steps.items():
            print(f"| {name} | {1000 * seconds:.2f} | {seconds / total:.1%} |")
    print("\n| a training image, one core | decoded each time, ms | from the cache, ms |\n|---|---:|---:|")
    for name, cells in _training_image().items():
        print(f"| {name} | {' | '.join('–' if s is None else f'{1000 * s:.1f}' for s in cells)} |")


def _measure_product(matrices: np.ndarray | torch.Tensor) -> float:
    """GFLOP/s of the product of two square matrices: by OpenBLAS for NumPy's, by MKL for torch's."""
    a, b = matrices

    def product() -> None:
        a @ b
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return 2 * len(a) ** 3 / _seconds(product) / 1e9


def _measure_copy() -> float:
    source = np.ones(64_000_000, np.float32)  # larger than any cache
    target = np.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: np.copyto(target, source)) / 1e9


def _print_gpu(device: torch.device) -> None:
    print(f"| limits of {describe_device(device)} | |\n|---|---:|")
    limits = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        matrices = torch.rand((2, 8192, 8192), device=device).to(dtype)
        limits[dtype] = _measure_product(matrices)
        print(f"| product of two matrices of 8,192², {dtype} | {limits[dtype]:.0f} GFLOP/s |")
    source = torch.ones(1 << 28, device=device)
    target = torch.empty_like(source)
    rate = 2 * source.nbytes / _seconds(lambda: (target.copy_(source), torch.cuda.synchronize())) / 1e9
    print(f"| copy of 1 GB, read and written | {rate:.0f} GB/s |")
    print("\n| a prediction of 512² | GFLOP | ms | TFLOP/s | of the limit of halves |\n|---|---:|---:|---:|---:|")
    for architecture in _MODELS:
        for words, gflop, seconds in _measure_predictions(architecture, 30, device):
            rate = gflop / seconds
            print(
                f"| {words} | {gflop:.1f} | {1000 * seconds:.2f} | {rate / 1e3:.1f} | "
                f"{rate / limits[torch.float16]:.0%} |"
            )


def _measure_predictions(architecture: str, repeats: int, device: torch.device) -> list[tuple[str, float, float]]:
    """What was run, GFLOP and seconds for a tile, of each way to run a network; the ways in turn."""
    network = make_network(architecture).to(device)
    tile = draw_pair(0, _SIZE_PX)[0][None]
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(torch.from_numpy(tile).to(device).permute(0, 3, 1, 2).float() / 255)
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    plans = [Plan("torch", "float32", channels_last, threads, 1) for channels_last in (False, True)]
    if device.type == "cuda":
        plans += [Plan("graph", precision, True, 0, 1) for precision in ("float32", "float16", "bfloat16")]
        plans += [Plan("graph", "float16", True, 0, 8)]
    elif has_openvino():
        plans += [Plan("openvino", "float32", False, threads, 1)]
    engines = [build_engine(network, device, plan, (_SIZE_PX, _SIZE_PX)) for plan in plans]
    tiles = [np.repeat(tile, plan.batch_size, axis=0) for plan in plans]
    seconds = measure_in_turn([partial(*pair) for pair in zip(engines, tiles, strict=True)], repeats=repeats)
    gflop = counter.get_total_flops() / 1e9
    return [
        (f"{architecture}, {plan}", gflop, s / plan.batch_size) for plan, s in zip(plans, seconds, strict=True)
    ]


def _list_operations(architecture: str) -> str:
    predictor = _predictor(architecture)
    image, _ = draw_pair(0)
    predictor.predict_logits(image)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        predictor.predict_logits(image)
    taken: Counter[str] = Counter()
    for event in profiled.key_averages():
        taken[event.key.removeprefix("aten::")] += event.self_cpu_time_total
    total = sum(taken.values())
    return ", ".join(f"{name} {us / total:.0%}" for name, us in taken.most_common(5))


def _around_a_prediction() -> dict[str, float]:
    """What `dvc repro` does with one image of 512² around the U-Net."""
    params = load_params(ROOT / "params.yaml")
    image, mask = draw_pair(0)
    predictor = _predictor("unet")
    logits = predictor.predict_logits(image)
    prob = sigmoid(logits.copy())
    # As many crack pixels as a good model finds; one of random weights finds none, or all.
    crack_mask = cv2.dilate(mask, np.ones((3, 3), np.uint8))
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
            "centre lines of both": _seconds(lambda: count_lines(crack_mask, mask)),
        }


def _training_step() -> dict[str, float]:
    """A step of the U-Net at the committed settings: batch 2, patches of 448 px."""
    params = load_params(ROOT / "params.yaml")
    network = make_network("unet").to(memory_format=torch.channels_last).train()
    loss_function = build_loss(**dict(params.loss))
    optimizer = build_optimizer(network, params.optimizer)
    rng = np.random.default_rng(0)
    pairs = [draw_pair(seed) for seed in range(2)]
    seconds: dict[str, list[float]] = {}

    def timed(name: str, start: float) -> float:
        now = time.perf_counter()
        seconds.setdefault(name, []).append(now - start)
        return now

    for _ in range(6):
        now = time.perf_counter()
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


def _training_image() -> dict[str, tuple[float | None, float | None]]:
    """What a loader's worker does for a patch at the committed settings: seconds without and with the cache."""
    params = load_params(ROOT / "params.yaml")
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sample(folder / "data", seed=0, counts={"CrackTree260": (_PAIRS, 0, 0)})
        prepare_dataset(folder / "data", "CrackTree260", folder / "prepared", params.data)
        samples = list_samples(folder / "prepared", "CrackTree260")
        cache = PixelCache(folder / "decoded", 1 << 30)
        build = partial(CrackDataset, samples, params.augment, patches_per_image=1, seed=0)
        decoding, cached = build(), build(cache=cache)
        cached[0, 0]  # maps the file

        def for_each(work: Callable[[int], object]) -> float:
            return _seconds(lambda: [work(number) for number in range(_PAIRS)], clock=time.thread_time) / _PAIRS

        pairs = [cached.pairs[number] for number in range(_PAIRS)]
        augmented = for_each(lambda number: augment_pair(*pairs[number], params.augment, rng))
        return {
            "decode image and mask": (for_each(lambda number: decoding.pairs[number]), None),
            "copy them out of the mapped file": (
                None,
                for_each(lambda n: [part.copy() for part in cached.pairs[n]]),
            ),
            "augment (flip, crop, blur, hue, saturation, brightness, contrast)": (augmented, augmented),
            "a patch as the dataset gives it": (
                for_each(lambda number: decoding[0, number]),
                for_each(lambda number: cached[0, number]),
            ),
        }


def _predictor(architecture: str) -> Predictor:
    params = PredictParams(tile_size_px=512, overlap_px=64, batch_size=1)
    return Predictor(make_network(architecture), params, device=_CPU, precision=torch.float32)


def _seconds(work: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> float:
    return measure_in_turn([work], repeats=_REPEATS, clock=clock)[0]


if __name__ == "__main__":
    main()
