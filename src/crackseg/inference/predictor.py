"""Predict photographs in tiles and batches; used by validation, prediction, serving and export alike.

Shape legend: H, W the photograph; h, w a tile; B tiles in a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from crackseg.devices import choose_device, choose_precision
from crackseg.inference.engines import Engine, Plan, TorchEngine
from crackseg.params import PredictParams

_FLIPS = ((1,), (2,), (1, 2))  # axes of tiles (B, h, w, 3)


def build_predictor(network: nn.Module, params: PredictParams, *, device: str, precision: str) -> Predictor:
    """Build a predictor from settings.

    Args:
        network: returns ModelOutput for images in [0, 1].
        params: tile size, overlap, tiles in a pass, engine.
        device, precision: as ``train.device`` and ``train.precision``; with the precision ``auto``
            crackseg.inference.autotune may choose a faster one.
    Raises:
        CracksegError: the device is not available.
    """
    chosen: torch.device = choose_device(device)
    return Predictor(
        network, params, device=chosen, precision=choose_precision(precision, chosen), measured=precision == "auto"
    )


class Predictor:
    """Run a model over photographs of any size.

    A photograph of at most ``tile_size_px`` is predicted as a whole; a larger one in overlapping tiles, whose logits
    are blended with weights that fall linearly towards a tile's edge and sum to one at every pixel.

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
        self._settled: tuple[tuple[int, ...], Engine] | None = None  # for tiles of this shape

    def take(self, plan: Plan, engine: Engine, tile_shape: tuple[int, ...]) -> None:
        """Use another engine for tiles of this shape (h, w, 3) from now on; other sizes are predicted as before."""
        self.plan, self._settled = plan, (tile_shape, engine)

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
            whole = max(image.shape[:2]) <= self.params.tile_size_px
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
        return logits_Bhw / (len(_FLIPS) + 1)

    def _engine_for(self, shape: tuple[int, ...]) -> Engine:
        if self._settled is not None and self._settled[0] == shape:
            return self._settled[1]
        return self._plain

    def _predict_tiled(self, image_HW3: np.ndarray) -> np.ndarray:
        height, width = image_HW3.shape[:2]
        tile, overlap = self.params.tile_size_px, self.params.overlap_px
        rows, columns = tile_windows(height, tile, overlap), tile_windows(width, tile, overlap)
        logits = np.zeros((height, width), np.float32)
        places = [(row, column) for row in rows for column in columns]
        num_tiles = self.plan.batch_size
        for start in range(0, len(places), num_tiles):
            group = places[start : start + num_tiles]
            tiles = [image_HW3[r.start : r.stop, c.start : c.stop] for (r, _), (c, _) in group]
            for ((r, row_weight), (c, column_weight)), result in zip(group, self._run(tiles), strict=True):
                logits[r.start : r.stop, c.start : c.stop] += row_weight[:, None] * column_weight * result
        return logits


def tile_windows(length: int, tile: int, overlap: int) -> list[tuple[range, np.ndarray]]:
    """Cover ``length`` pixels by windows of ``tile``, evenly spaced, overlapping by ``overlap`` or more.

    Returns:
        (pixels, weight) for each window; weight float32 of the window's length; at every pixel the weights of
        all windows sum to one.
    """
    if length <= tile:
        return [(range(length), np.ones(length, np.float32))]
    count = -(-(length - overlap) // (tile - overlap))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    ramp = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1)).clip(max=overlap + 1).astype(np.float64)
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += ramp
    return [
        (range(start, start + tile), (ramp / total[start : start + tile]).astype(np.float32)) for start in starts
    ]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Turn float32 log-odds into probabilities in [0, 1], without overflow, in place."""
    return torch.from_numpy(logits).sigmoid_().numpy()
