"""`auto` means measured: how a network is best run on this machine, found by a short trial and remembered.

What was measured is kept for each architecture, tile size and machine in a file of the user's cache folder
(``CRACKSEG_CACHE_DIR``, else ``~/.cache/crackseg``). It holds times, not a choice: what is chosen also depends on how
many tiles are to be predicted, since converting or compiling a network takes seconds before the first tile.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from crackseg.devices import choose_precision, describe_device
from crackseg.errors import CracksegError, first_line
from crackseg.files import write_bytes
from crackseg.inference.engines import Engine, Plan, build_engine, has_compiler, has_openvino
from crackseg.inference.predictor import Predictor, tile_windows

CACHE_VARIABLE = "CRACKSEG_CACHE_DIR"
# A run that eager float32 ends sooner is not worth a trial, and one that it ends in ten times as long is worth a try of
# torch.compile, which takes 15 to 20 s of two cores.
_WORTH_S = 60.0
_WORTH_COMPILING_S = 600.0
# Each way is timed so often, or, where a pass takes seconds, at least twice and until so long is spent.
_ROUNDS, _FEWEST_ROUNDS, _LONG_S = 5, 2, 20.0
_MARGIN = 1.05  # what is not faster by this share than something simpler is not worth being different
# Largest difference of probability from eager float32, over the tile that was tried. Engines in float32 sum in other
# orders: a DeepLabV3-ResNet101 of random weights has up to 0.002 from float64 in eager torch, and as much in OpenVINO.
# Halves keep 8 bits, and their largest errors lie on a few steep edges: what counts is the mean.
_MOST_OFF = {"float32": ("largest", 5e-3), "bfloat16": ("mean", 2e-3), "float16": ("mean", 2e-3)}
_log = logging.getLogger("crackseg")


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to compute, as measured.

    Attributes:
        plan: the way.
        tile_s: seconds for a tile.
        setup_s: seconds before the first.
    """

    plan: Plan
    tile_s: float
    setup_s: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measurements on this machine; the first candidate is eager float32, simpler ones come first."""

    trials: tuple[Trial, ...]

    def choose(self, num_tiles: int) -> Plan:
        """The plan that is through so many tiles first; never one that is slower than eager float32."""
        best = self.trials[0]
        for trial in self.trials[1:]:
            if _duration(trial, num_tiles) * _MARGIN < _duration(best, num_tiles):
                best = trial
        return best.plan


def eager_plan(device: torch.device) -> Plan:
    """Return the baseline: eager torch, float32, one tile at a time."""
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    return Plan("torch", "float32", channels_last=False, threads=threads, batch_size=1)


def settle(predictor: Predictor, image_HW3: np.ndarray, num_images: int) -> None:
    """Choose a predictor's engine before a long run; a short one goes on as it is.

    With ``predict.engine: auto`` and the precision ``auto`` it is what was measured to be fastest; with ``openvino``
    that. In either case its answer for this photograph must agree with eager float32's. Photographs and tiles of other
    sizes are predicted by torch as before. ``predictor.plan`` says what was chosen.

    The registered model never does: its answers are torch's everywhere, as its probe and the gate expect.

    Args:
        predictor: is changed.
        image_HW3: the first of the photographs, uint8 (H, W, 3).
        num_images: how many are to be predicted.
    Raises:
        CracksegError: OpenVINO was asked for and is not installed, cannot take the network, or does not agree.
    """
    params, network, device = predictor.params, predictor.network, predictor.device
    if params.engine == "torch" or (params.engine == "auto" and not predictor.measured):
        return
    side, overlap = params.tile_size_px, params.overlap_px
    tile_hw3 = np.ascontiguousarray(image_HW3[:side, :side])
    plan: Plan | None
    if params.engine == "openvino":
        plan = _openvino_plan(device, predictor.plan.precision)
    else:
        rows, columns = (len(tile_windows(length, side, overlap)) for length in image_HW3.shape[:2])
        num_tiles = num_images * rows * columns
        plan = find_plan(network, device, tile_hw3, num_tiles=num_tiles, batch_size=params.batch_size)
    if plan is None:
        return
    try:
        engine = build_engine(network, device, plan, tile_hw3.shape[:2])
        eager = build_engine(network, device, eager_plan(device), tile_hw3.shape[:2])
        near = agrees(engine(tile_hw3[None]), eager(tile_hw3[None]), plan.precision)
        problem = "" if near else "its answers differ from float32 by too much"
    except CracksegError:
        raise
    except Exception as error:  # each library has its own for a network that it cannot take
        problem = first_line(error)
    if problem and params.engine == "openvino":
        raise CracksegError(f"predict.engine: openvino does not work for this model: {problem}; set it to torch")
    if problem:
        _log.warning("not predicting with %s: %s", plan, problem)
        return
    predictor.take(plan, engine, tile_hw3.shape)
    _log.info("predicting with %s", plan)


def _openvino_plan(device: torch.device, precision: str) -> Plan:
    if device.type != "cpu" or precision == "float16":
        raise CracksegError(
            f"predict.engine: openvino computes on the CPU, in float32 or bfloat16; here it is {device.type}, "
            f"{precision}: set predict.engine to auto or torch"
        )
    return Plan("openvino", precision, False, torch.get_num_threads(), 1)


def find_plan(
    network: nn.Module, device: torch.device, tile_hw3: np.ndarray, *, num_tiles: int, batch_size: int
) -> Plan | None:
    """Choose how to predict so many tiles of one size.

    Args:
        network: on the device.
        device: where.
        tile_hw3: one of the tiles, uint8 (h, w, 3).
        num_tiles: to predict.
        batch_size: most tiles in a pass.
    Returns:
        None if nothing is known of this network here, and too little is to be predicted to find out.
    """
    path = _cache_path(network, device, tile_hw3.shape, batch_size)
    calibration = _read(path)
    if calibration is None:
        baseline = build_engine(network, device, eager_plan(device), tile_hw3.shape[:2])
        eager_s = _time(baseline, tile_hw3[None])
        if eager_s * num_tiles < _WORTH_S:
            return None
        calibration = _measure_once(
            path, network, device, tile_hw3, batch_size, compiles=eager_s * num_tiles >= _WORTH_COMPILING_S
        )
    return calibration.choose(num_tiles)


def agrees(found: np.ndarray, expected: np.ndarray, precision: str) -> bool:
    """Return True if logits are close enough to those of eager float32 to be the same model's.

    Args:
        found, expected: float32 logits of the same tiles.
        precision: of ``found``; float32 may differ by 0.005 of probability at any pixel, half
            precision by 0.002 on average.
    """
    difference = np.abs(_sigmoid(found) - _sigmoid(expected))
    kind, most = _MOST_OFF[precision]
    return bool((difference.max() if kind == "largest" else difference.mean()) <= most)  # False for NaN, too


def calibrate(
    network: nn.Module, device: torch.device, tile_hw3: np.ndarray, *, batch_size: int, compiles: bool
) -> Calibration:
    """Measure the ways to compute in turn, on one tile; those that fail or do not agree are left out."""
    shape_hw = tile_hw3.shape[:2]
    baseline = eager_plan(device)
    expected = build_engine(network, device, baseline, shape_hw)(tile_hw3[None])
    built: list[tuple[Plan, Engine, float]] = []
    for plan in _list_plans(device, compiles=compiles):
        start = time.perf_counter()
        try:
            engine = build_engine(network, device, plan, shape_hw)
            found = engine(tile_hw3[None])
        except Exception as error:  # each library has its own for a network that it cannot take
            _log.info("calibration: %s does not work here (%s)", plan, first_line(error))
            continue
        setup_s = time.perf_counter() - start
        if agrees(found, expected, plan.precision):
            built.append((plan, engine, setup_s if plan.engine != "torch" else 0.0))
        else:
            _log.info("calibration: %s differs from float32 by too much and is left out", plan)
    times = _time_in_turn([engine for _, engine, _ in built], tile_hw3[None])
    trials = [Trial(plan, tile_s, setup_s) for (plan, _, setup_s), tile_s in zip(built, times, strict=True)]
    fastest = min(range(len(trials)), key=lambda i: trials[i].tile_s)
    trials += _vary(network, device, tile_hw3, trials[fastest], built[fastest][1], batch_size)
    return Calibration(tuple(trials))


def _list_plans(device: torch.device, *, compiles: bool) -> list[Plan]:
    """From the simplest to the most involved; the first is the baseline."""
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    precisions = ["float32", str(choose_precision("auto", device)).removeprefix("torch.")]
    if device.type == "cuda":  # as fast as bfloat16, and eight times as fine, where no value is over 65,504
        precisions.insert(1, "float16")
    precisions = list(dict.fromkeys(precisions))
    plans = [eager_plan(device), *(Plan("torch", precision, True, threads, 1) for precision in precisions)]
    if device.type == "cuda":
        plans += [Plan("graph", precision, True, 0, 1) for precision in precisions]
    if device.type == "cpu" and has_openvino():
        plans += [Plan("openvino", precision, False, threads, 1) for precision in precisions]
    if compiles and (device.type != "cpu" or has_compiler()):
        plans.append(Plan("compile", (precisions[1:] or precisions)[0], True, threads, 1))
    return plans


def _vary(
    network: nn.Module,
    device: torch.device,
    tile_hw3: np.ndarray,
    trial: Trial,
    engine: Engine,
    batch_size: int,
) -> list[Trial]:
    """Try the fastest way with fewer threads (two of a core get in each other's way), or more tiles a pass."""
    plan, varied = trial.plan, []
    if plan.threads >= 4:
        fewer = replace(plan, threads=plan.threads // 2)
        other = build_engine(network, device, fewer, tile_hw3.shape[:2])
        other(tile_hw3[None])
        seconds = _time_in_turn([engine, other], tile_hw3[None])
        varied.append(Trial(fewer, trial.tile_s * seconds[1] / seconds[0], trial.setup_s))
    if batch_size > 1 and device.type != "cpu":  # there several tiles in a pass are no faster, and need the memory
        several = replace(plan, batch_size=batch_size)
        together = build_engine(network, device, several, tile_hw3.shape[:2])
        tiles = np.repeat(tile_hw3[None], batch_size, axis=0)
        together(tiles)
        varied.append(Trial(several, _time_in_turn([together], tiles)[0] / batch_size, trial.setup_s))
    return varied


def _measure_once(
    path: Path, network: nn.Module, device: torch.device, tile_hw3: np.ndarray, batch_size: int, *, compiles: bool
) -> Calibration:
    """Measure and remember; of several processes one measures, and the others wait for what it finds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:  # a read-only home: measured for this run alone
        _log.info("calibration: %s cannot be written (%s)", path.parent, error.strerror)
        return calibrate(network, device, tile_hw3, batch_size=batch_size, compiles=compiles)
    try:
        known = _read(path)
        if known is None:
            _log.info("calibration: trying how to run this network fastest on %s", describe_device(device))
            known = calibrate(network, device, tile_hw3, batch_size=batch_size, compiles=compiles)
            for trial in known.trials:
                _log.info("  %.4f s a tile, %.1f s before: %s", trial.tile_s, trial.setup_s, trial.plan)
            _write(path, known)
        return known
    finally:
        lock.release()


def _cache_path(network: nn.Module, device: torch.device, shape: Sequence[int], batch_size: int) -> Path:
    """Return the cache file for everything that the times depend on: machine, versions, architecture, tile."""
    key = {
        "format": 1,
        "device": describe_device(device),
        "torch": torch.__version__,
        "openvino": _installed("openvino"),
        "network": repr(network),
        "tile": list(shape[:2]),
        "batch_size": batch_size,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    folder = os.environ.get(CACHE_VARIABLE)
    base = (
        Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crackseg"
    )
    return base / f"calibration-{digest}.json"


def _read(path: Path) -> Calibration | None:
    """Read earlier measurements; None if the file is missing, damaged or of another format."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"]
        trials = tuple(Trial(Plan(**row["plan"]), float(row["tile_s"]), float(row["setup_s"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Calibration(trials) if trials else None


def _write(path: Path, calibration: Calibration) -> None:
    rows = [{"plan": t.plan.to_dict(), "tile_s": t.tile_s, "setup_s": t.setup_s} for t in calibration.trials]
    try:
        write_bytes(path, (json.dumps({"trials": rows}, indent=2) + "\n").encode())
    except OSError as error:
        _log.info("calibration: %s cannot be written (%s)", path, error.strerror)


def _time_in_turn(engines: Sequence[Engine], tiles_Bhw3: np.ndarray) -> list[float]:
    """Median seconds of each; in turn, so that whatever else the machine does hits all alike."""
    seconds: list[list[float]] = [[] for _ in engines]
    start = time.perf_counter()
    for number in range(_ROUNDS):
        if number >= _FEWEST_ROUNDS and time.perf_counter() - start > _LONG_S:
            break
        for engine, taken in zip(engines, seconds, strict=True):
            taken.append(_time(engine, tiles_Bhw3))
    return [median(taken) for taken in seconds]


def _time(engine: Engine, tiles_Bhw3: np.ndarray) -> float:
    start = time.perf_counter()
    engine(tiles_Bhw3)
    return time.perf_counter() - start


def _duration(trial: Trial, num_tiles: int) -> float:
    return trial.setup_s + trial.tile_s * num_tiles


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).sigmoid().numpy()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
