"""Predict photographs in tiles and batches; used by validation, prediction, serving and export alike.

Shape legend: H, W the photograph; h, w a tile; B tiles in a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from crackseg.devices import choose_device, choose_precision
from crackseg.inference.engines import Engine, Plan, TorchEngine, fold_batch_norm
from crackseg.models.network import is_local
from crackseg.models.weights_file import load_network
from crackseg.params import PredictParams

_FLIPS = ((1,), (2,), (1, 2))  # axes of tiles (B, h, w, 3)


def build_predictor(network: nn.Module, params: PredictParams, *, device: str, precision: str) -> Predictor:
    """Build a predictor of finished weights from settings; batch normalisation is folded into them.

    Args:
        network: returns ModelOutput for images in [0, 1]; it is copied.
        params: tile size, overlap, tiles in a pass, engine.
        device, precision: as ``train.device`` and ``train.precision``; with the precision ``auto``
            crackseg.inference.autotune may choose a faster one.
    Raises:
        CracksegError: the device is not available.
    """
    chosen: torch.device = choose_device(device)
    return Predictor(
        fold_batch_norm(network),
        params,
        device=chosen,
        precision=choose_precision(precision, chosen),
        measured=precision == "auto",
    )


def load_predictor(weights_path: Path, *, device: str, precision: str) -> tuple[Predictor, dict[str, Any]]:
    """Build the predictor of trained weights, with the tiles of their training.

    Args:
        weights_path: written by training.
        device, precision: see :func:`build_predictor`.
    Returns:
        The predictor, and what the file holds besides: ``operating_threshold``, ``run_id``, ``data_source``, ….
    Raises:
        CracksegError: the weights cannot be read, or the device is not available.
    """
    network, extra = load_network(weights_path)
    params = PredictParams(**extra["predict"])
    return build_predictor(network, params, device=device, precision=precision), extra


class Predictor:
    """Run a model over photographs of any size.

    A photograph of at most ``tile_size_px`` is predicted as a whole; a larger one in overlapping tiles, whose logits
    are blended with weights that fall linearly towards a tile's edge and sum to one at every pixel. With ``fit_tiles``
    the tiles of a local network (see NetworkBody) have the sides that cost the fewest pixels, and begin at multiples of
    the network's ``size_multiple``: away from a tile's edges the result is that of the whole photograph.

    Args:
        network: returns ModelOutput for images in [0, 1]; put into evaluation mode on each call.
        params: tile size, overlap, tiles in a pass, engine.
        device, precision: see crackseg.devices.
        measured: True if crackseg.inference.autotune may choose another precision, memory format or engine.
    """

    def __init__(
        self,
        network: nn.Module,
        params: PredictParams,
        *,
        device: torch.device,
        precision: torch.dtype,
        measured: bool = False,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.params = params
        self.device = device
        self.precision = precision
        self.measured = measured
        # On a CPU several tiles in a pass are no faster, and take memory that a large photograph needs.
        together = 1 if device.type == "cpu" else params.batch_size
        self.plan = Plan("torch", str(precision).removeprefix("torch."), True, threads=0, batch_size=together)
        self._plain = TorchEngine(self.network, device, self.plan)
        self._settled: tuple[tuple[int, ...] | None, Engine] | None = None  # for tiles of this shape; None: of any

    def take(self, plan: Plan, engine: Engine, tile_shape: tuple[int, ...] | None) -> None:
        """Use another engine for tiles of this shape (h, w, 3), or of any; other sizes are predicted as before."""
        self.plan, self._settled = plan, (tile_shape, engine)

    def tile_sides(self, image_HW3: np.ndarray) -> tuple[int, int]:
        """Return height and width of a photograph's tiles, in pixels; the photograph's own if it needs no tiling."""
        height, width = image_HW3.shape[:2]
        return self._side(height), self._side(width)

    def tile_places(self, image_HW3: np.ndarray) -> tuple[list[Window], list[Window]]:
        """Return the rows and the columns of a photograph's tiles, see :func:`tile_windows`."""
        rows, columns = (
            tile_windows(length, self._side(length), self.params.overlap_px, self._multiple)
            for length in image_HW3.shape[:2]
        )
        return rows, columns

    @property
    def _multiple(self) -> int:
        """Number of pixels by which fitted tiles may move; 0 if the tiles are not fitted."""
        if self.params.fit_tiles and is_local(self.network):
            return self.network.body.size_multiple
        return 0

    def _side(self, length: int) -> int:
        tile, multiple = self.params.tile_size_px, self._multiple
        return fit_side(length, tile, self.params.overlap_px, multiple) if multiple else min(length, tile)

    def predict_prob(self, image_HW3: np.ndarray) -> np.ndarray:
        """Predict the crack probability of one photograph.

        Args:
            image_HW3: uint8 (H, W, 3), RGB.
        Returns:
            float32 (H, W) in [0, 1].
        """
        return sigmoid(self.predict_logits(image_HW3))

    def predict_logits(self, image_HW3: np.ndarray) -> np.ndarray:
        """Predict float32 log-odds; otherwise like :meth:`predict_prob`."""
        return next(self.predict_logits_of([image_HW3]))

    @torch.inference_mode()
    def predict_logits_of(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Predict a stream of photographs, in order, in constant memory.

        Consecutive photographs of one size that need no tiling share a pass.
        """
        waiting: list[np.ndarray] = []
        for image in images:
            whole = self.tile_sides(image) == image.shape[:2]
            if waiting and (not whole or image.shape != waiting[0].shape or len(waiting) == self._most_images()):
                yield from self._run(waiting)
                waiting = []
            if whole:
                waiting.append(image)
            else:
                yield self._predict_tiled(image)
        if waiting:
            yield from self._run(waiting)

    def _most_images(self) -> int:
        return self.params.batch_size if self._settled is None else self.plan.batch_size

    def _run(self, tiles: list[np.ndarray]) -> np.ndarray:
        """Return float32 logits (B, h, w) of uint8 tiles of one size; with ``flips``, the mean over their flips."""
        engine, tiles_Bhw3 = self._engine_for(tiles[0].shape), np.stack(tiles)
        logits_Bhw = engine(tiles_Bhw3)
        if not self.params.flips:
            return logits_Bhw
        for axes in _FLIPS:
            logits_Bhw = logits_Bhw + np.flip(engine(np.ascontiguousarray(np.flip(tiles_Bhw3, axes))), axes)
        return logits_Bhw / self.num_passes

    @property
    def num_passes(self) -> int:
        """Passes of the network through each tile."""
        return len(_FLIPS) + 1 if self.params.flips else 1

    def _engine_for(self, shape: tuple[int, ...]) -> Engine:
        if self._settled is not None and self._settled[0] in (None, shape):
            return self._settled[1]
        return self._plain

    def _predict_tiled(self, image_HW3: np.ndarray) -> np.ndarray:
        height, width = self.tile_sides(image_HW3)
        rows, columns = self.tile_places(image_HW3)
        logits = np.zeros(image_HW3.shape[:2], np.float32)
        places = [(row, column) for row in rows for column in columns]
        num_tiles = self.plan.batch_size
        for start in range(0, len(places), num_tiles):
            group = places[start : start + num_tiles]
            tiles = [
                _fill(image_HW3[r.start : r.stop, c.start : c.stop], height, width) for (r, _), (c, _) in group
            ]
            for ((r, row_weight), (c, column_weight)), result in zip(group, self._run(tiles), strict=True):
                weight = row_weight[:, None] * column_weight
                logits[r.start : r.stop, c.start : c.stop] += weight * result[: len(r), : len(c)]
        return logits


def fit_side(length: int, tile: int, overlap: int, multiple: int) -> int:
    """Return the side of tiles that covers ``length`` pixels with the fewest computed pixels.

    Args:
        length: of the photograph, in pixels.
        tile: preferred side; the result differs from it by at most a quarter, or is ``length`` if that is smaller.
        overlap: least overlap of neighbouring tiles, at most half of ``tile``.
        multiple: the result is one of it, unless a single tile covers ``length``.
    """
    most = tile + tile // 4
    if length <= most:
        return length
    least = -(-(tile - tile // 4) // multiple) * multiple
    sides = range(least, most + 1, multiple) or [tile]
    # Of equal costs the larger side: fewer seams.
    return min(sides, key=lambda side: (_count_tiles(length, side, overlap, multiple) * side, -side))


def _count_tiles(length: int, tile: int, overlap: int, multiple: int) -> int:
    overlap = _round_up(overlap, multiple)
    return -(-(_round_up(length, multiple) - overlap) // (tile - overlap))


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


Window = tuple[range, np.ndarray]
"""Pixels of a tile along one side of the photograph, and their weights, float32."""


def tile_windows(length: int, tile: int, overlap: int, multiple: int = 0) -> list[Window]:
    """Cover ``length`` pixels by windows of ``tile``, evenly spaced, overlapping by ``overlap`` or more.

    Args:
        length: of the photograph, in pixels.
        tile: of a window, in pixels.
        overlap: in pixels.
        multiple: if not 0, windows begin at multiples of it, and the last one may be cut short by less.
    Returns:
        (pixels, weight) for each window; at every pixel the weights of all windows sum to one.
    """
    if length <= tile:
        return [(range(length), np.ones(length, np.float32))]
    step = multiple or 1
    count = _count_tiles(length, tile, overlap, step)
    last = (_round_up(length, step) - tile) / step
    starts = [step * round(i * last / (count - 1)) for i in range(count)]
    ramp = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1)).clip(max=overlap + 1).astype(np.float64)
    total = np.zeros(starts[-1] + tile)
    for start in starts:
        total[start : start + tile] += ramp
    return [
        (
            range(start, min(start + tile, length)),
            (ramp / total[start : start + tile]).astype(np.float32)[: length - start],
        )
        for start in starts
    ]


def _fill(tile_hw3: np.ndarray, height: int, width: int) -> np.ndarray:
    """Repeat the edge of a tile that was cut short at the bottom or the right, as CrackNetwork pads images."""
    missing = height - tile_hw3.shape[0], width - tile_hw3.shape[1]
    if missing == (0, 0):
        return tile_hw3
    return np.pad(tile_hw3, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Turn float32 log-odds into probabilities in [0, 1], without overflow, in place."""
    return torch.from_numpy(logits).sigmoid_().numpy()
