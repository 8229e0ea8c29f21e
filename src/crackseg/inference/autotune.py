"""Autotuning of ``predict.engine: auto``: measure how a network runs fastest on this machine, and cache the times.

The times are kept for each architecture, tile size and machine in a file of the user's cache folder
(``CRACKSEG_CACHE_DIR``, else ``~/.cache/crackseg``). The choice is not kept: it also depends on the number of tiles,
since converting or compiling a network takes seconds before the first tile.
"""

from __future__ import annotations

import hashlib
import json
import logging
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
from crackseg.files import user_cache, write_bytes
from crackseg.inference.engines import ANY_SIZE, Engine, Plan, build_engine, has_compiler, has_openvino
from crackseg.inference.predictor import Predictor
from crackseg.models.network import is_local

# A run that takes eager float32 less is not worth measuring; one that takes ten times as long is worth a try of
# torch.compile, which takes 15 to 20 s on two cores.
_WORTH_S = 60.0
_WORTH_COMPILING_S = 600.0
# Rounds of timing for each candidate; if a pass takes seconds, at least two, until this time is spent.
_ROUNDS, _FEWEST_ROUNDS, _LONG_S = 5, 2, 20.0
_MARGIN = 1.05  # a candidate must be faster than a simpler one by this factor
# Largest difference of probability from eager float32, over the tile that was measured. Engines in float32 sum in
# different orders: a DeepLabV3-ResNet101 with random weights differs by up to 0.002 from float64, both in eager torch
# and in OpenVINO. Half precision has its largest errors on a few steep edges, so there the mean is compared.
_MOST_OFF = {"float32": ("largest", 5e-3), "bfloat16": ("mean", 2e-3), "float16": ("mean", 2e-3)}
_log = logging.getLogger("crackseg")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Execution plan with its measured times.

    Attributes:
        plan: the execution plan.
        tile_s: seconds for a tile.
        setup_s: seconds before the first tile.
    """

    plan: Plan
    tile_s: float
    setup_s: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Measurements on this machine; the first candidate is eager float32, simpler ones come first."""

    candidates: tuple[Candidate, ...]

    def choose(self, num_tiles: int) -> Plan:
        """Return the plan that needs the least time for a number of tiles; never a slower one than eager float32."""
        best = self.candidates[0]
        for candidate in self.candidates[1:]:
            if _duration(candidate, num_tiles) * _MARGIN < _duration(best, num_tiles):
                best = candidate
        return best.plan


def eager_plan(device: torch.device) -> Plan:
    """Return the baseline: eager torch, float32, one tile at a time."""
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    return Plan("torch", "float32", channels_last=False, threads=threads, batch_size=1)


def settle(predictor: Predictor, image_HW3: np.ndarray, num_images: int) -> None:
    """Choose a predictor's engine before a long run; for a short run nothing changes.

    With ``predict.engine: auto`` and the precision ``auto``, the engine measured to be fastest is used; with
    ``openvino``, OpenVINO. In both cases its result for this photograph must agree with eager float32. Photographs and
    tiles of other sizes are predicted by torch as before, unless network and engine take any size. ``predictor.plan``
    holds the choice.

    Not used by the registered model: it runs on torch everywhere, as its probe and the gate expect.

    Args:
        predictor: is changed.
        image_HW3: the first of the photographs, uint8 (H, W, 3).
        num_images: number of photographs to predict.
    Raises:
        CracksegError: OpenVINO was asked for and is not installed, cannot convert the network, or does not agree.
    """
    params, network, device = predictor.params, predictor.network, predictor.device
    if params.engine == "torch" or (params.engine == "auto" and not predictor.measured):
        return
    sides = predictor.tile_sides(image_HW3)
    # A copy: torch warns of an array that is read-only, as decoders return it.
    tile_hw3 = np.array(image_HW3[: sides[0], : sides[1]])
    plan: Plan | None
    if params.engine == "openvino":
        plan = _openvino_plan(device, predictor.plan.precision)
    else:
        rows, columns = predictor.tile_places(image_HW3)
        num_tiles = num_images * len(rows) * len(columns) * predictor.num_passes
        plan = find_plan(network, device, tile_hw3, num_tiles=num_tiles, batch_size=params.batch_size)
    if plan is None:
        return
    try:
        engine = build_engine(network, device, plan, tile_hw3.shape[:2])
        eager = build_engine(network, device, eager_plan(device), tile_hw3.shape[:2])
        near = agrees(engine(tile_hw3[None]), eager(tile_hw3[None]), plan.precision)
        problem = "" if near else "its results differ from float32 by too much"
    except CracksegError:
        raise
    except Exception as error:  # each library has its own error for a network that it cannot convert
        problem = first_line(error)
    if problem and params.engine == "openvino":
        raise CracksegError(f"predict.engine: openvino does not work for this model: {problem}; set it to torch")
    if problem:
        _log.warning("not predicting with %s: %s", plan, problem)
        return
    any_size = is_local(network) and plan.engine in ANY_SIZE
    predictor.take(plan, engine, None if any_size else tile_hw3.shape)
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
    """Choose the execution plan for a number of tiles of one size.

    Args:
        network: on the device.
        device: that computes.
        tile_hw3: one of the tiles, uint8 (h, w, 3).
        num_tiles: to predict.
        batch_size: most tiles in a pass.
    Returns:
        None if there are no times of this network here, and the run is too short to measure them.
    """
    path = _cache_path(network, device, tile_hw3.shape, batch_size)
    timings = _read(path)
    if timings is None:
        baseline = build_engine(network, device, eager_plan(device), tile_hw3.shape[:2])
        eager_s = _time(baseline, tile_hw3[None])
        if eager_s * num_tiles < _WORTH_S:
            return None
        timings = _measure_once(
            path, network, device, tile_hw3, batch_size, compiles=eager_s * num_tiles >= _WORTH_COMPILING_S
        )
    return timings.choose(num_tiles)


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


def measure_plans(
    network: nn.Module, device: torch.device, tile_hw3: np.ndarray, *, batch_size: int, compiles: bool
) -> Timings:
    """Measure all execution plans in turn, on one tile; those that fail or do not agree are left out."""
    shape_hw = tile_hw3.shape[:2]
    baseline = eager_plan(device)
    expected = build_engine(network, device, baseline, shape_hw)(tile_hw3[None])
    built: list[tuple[Plan, Engine, float]] = []
    for plan in _list_plans(device, compiles=compiles):
        start = time.perf_counter()
        try:
            engine = build_engine(network, device, plan, shape_hw)
            found = engine(tile_hw3[None])
        except Exception as error:  # each library has its own error for a network that it cannot convert
            _log.info("autotuning: %s does not work here (%s)", plan, first_line(error))
            continue
        setup_s = time.perf_counter() - start
        if agrees(found, expected, plan.precision):
            built.append((plan, engine, setup_s if plan.engine != "torch" else 0.0))
        else:
            _log.info("autotuning: %s differs from float32 by too much and is left out", plan)
    times = _time_in_turn([engine for _, engine, _ in built], tile_hw3[None])
    candidates = [
        Candidate(plan, tile_s, setup_s) for (plan, _, setup_s), tile_s in zip(built, times, strict=True)
    ]
    fastest = min(range(len(candidates)), key=lambda i: candidates[i].tile_s)
    candidates += _vary(network, device, tile_hw3, candidates[fastest], built[fastest][1], batch_size)
    return Timings(tuple(candidates))


def _list_plans(device: torch.device, *, compiles: bool) -> list[Plan]:
    """List execution plans from the simplest to the most complex; the first is the baseline."""
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    precisions = ["float32", str(choose_precision("auto", device)).removeprefix("torch.")]
    if device.type == "cuda":  # as fast as bfloat16, and eight times as exact, if no value is over 65,504
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
    candidate: Candidate,
    engine: Engine,
    batch_size: int,
) -> list[Candidate]:
    """Measure the fastest plan with fewer threads (two on one core slow each other), or more tiles in a pass."""
    plan, varied = candidate.plan, []
    if plan.threads >= 4:
        fewer = replace(plan, threads=plan.threads // 2)
        other = build_engine(network, device, fewer, tile_hw3.shape[:2])
        other(tile_hw3[None])
        seconds = _time_in_turn([engine, other], tile_hw3[None])
        varied.append(Candidate(fewer, candidate.tile_s * seconds[1] / seconds[0], candidate.setup_s))
    # On a CPU several tiles in a pass are no faster and need more memory.
    if batch_size > 1 and device.type != "cpu":
        several = replace(plan, batch_size=batch_size)
        together = build_engine(network, device, several, tile_hw3.shape[:2])
        tiles = np.repeat(tile_hw3[None], batch_size, axis=0)
        together(tiles)
        varied.append(Candidate(several, _time_in_turn([together], tiles)[0] / batch_size, candidate.setup_s))
    return varied


def _measure_once(
    path: Path, network: nn.Module, device: torch.device, tile_hw3: np.ndarray, batch_size: int, *, compiles: bool
) -> Timings:
    """Measure and cache the times; of several processes, one measures and the others wait for its result."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:  # a read-only home: measured for this run only
        _log.info("autotuning: %s cannot be written (%s)", path.parent, error.strerror)
        return measure_plans(network, device, tile_hw3, batch_size=batch_size, compiles=compiles)
    try:
        known = _read(path)
        if known is None:
            _log.info("autotuning: measuring how this network runs fastest on %s", describe_device(device))
            known = measure_plans(network, device, tile_hw3, batch_size=batch_size, compiles=compiles)
            for candidate in known.candidates:
                _log.info(
                    "  %.4f s a tile, %.1f s before: %s", candidate.tile_s, candidate.setup_s, candidate.plan
                )
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
    return user_cache() / f"calibration-{digest}.json"


def _read(path: Path) -> Timings | None:
    """Read earlier measurements; None if the file is missing, damaged or of another format."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"]
        candidates = tuple(
            Candidate(Plan(**row["plan"]), float(row["tile_s"]), float(row["setup_s"])) for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Timings(candidates) if candidates else None


def _write(path: Path, timings: Timings) -> None:
    rows = [{"plan": t.plan.to_dict(), "tile_s": t.tile_s, "setup_s": t.setup_s} for t in timings.candidates]
    try:
        write_bytes(path, (json.dumps({"trials": rows}, indent=2) + "\n").encode())
    except OSError as error:
        _log.info("autotuning: %s cannot be written (%s)", path, error.strerror)


def _time_in_turn(engines: Sequence[Engine], tiles_Bhw3: np.ndarray) -> list[float]:
    """Return the median seconds of each engine; timed in turn, so that other load on the machine affects all alike."""
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


def _duration(candidate: Candidate, num_tiles: int) -> float:
    return candidate.setup_s + candidate.tile_s * num_tiles


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).sigmoid().numpy()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
