"""Real cracks on surfaces that a model has never seen: ``python -m benchmarks.moved_cracks DATASET [--model URI]``.

No row of ``python -m benchmarks``, since it measures scores and not speed. Few have photographs of a second surface
with ground truth. So the cracks of a dataset's validation images are moved: the ratio of the pixels at a crack to
those of the surface around it darkens another photograph, at the crack's own width and two and three times as wide.
Ten images, four surfaces and three widths take about two minutes of one core's time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from skimage.morphology import skeletonize

from crackseg.data.catalog import list_samples
from crackseg.data.images.files import read_image, read_mask
from crackseg.evaluation.metrics import ScoreAccumulator, count_image
from crackseg.registry.loading import load_model

WIDER = (1, 2, 3)
_SIDE_PX = 512
_AROUND_PX = 31  # the median over this square is the surface without its crack


def main() -> None:
    """Print the ODS (paper protocol, tolerance 2 px) for each surface and width, and marks where no crack is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moved_cracks", description=__doc__)
    parser.add_argument("dataset", help="with ground truth, imported into the project's data folder")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the project's data folder")
    parser.add_argument("--model", action="append", help="address of a model; may be repeated; the shipped one")
    parser.add_argument(
        "--surface",
        type=Path,
        action="append",
        default=[],
        help="photograph without cracks, in addition; repeated",
    )
    arguments = parser.parse_args()
    samples = list_samples(arguments.data, arguments.dataset, "val")
    photographs = [(read_image(s.image_path), read_mask(s.mask_path)) for s in samples]
    photographs = [(image, mask) for image, mask in photographs if mask.any() and min(mask.shape) >= _SIDE_PX]
    if not photographs:
        parser.error(
            f"{arguments.dataset}: none of {len(samples)} validation images has a crack and {_SIDE_PX} px"
        )
    print(f"cracks of {len(photographs)} of {len(samples)} validation images")
    surfaces = {name: _cut_square(np.dstack([getattr(skimage.data, name)()] * 3)) for name in ("brick", "moon")}
    surfaces |= {path.stem: _cut_square(read_image(path)) for path in arguments.surface}
    for address in arguments.model or ["scenes"]:
        analyzer = load_model(address, None).analyzer
        predict, threshold = analyzer.predictor.predict_prob, analyzer.settings.operating_threshold
        print(f"{address}, operating threshold {threshold:.3f}")
        scores = []
        for name, surface in surfaces.items():
            row = []
            for wider in WIDER:
                moved = ScoreAccumulator()
                for number, (image, mask) in enumerate(_move(photographs, surface, wider)):
                    moved.add(count_image(predict(image), mask, tolerance_px=2), str(number))
                row.append(moved.result().paper.ods)
            scores += row
            marked = int((predict(surface) >= threshold).sum())
            print(
                f"  {name}: {', '.join(f'{s:.3f}' for s in row)}; {marked} px marked without a crack", flush=True
            )
        print(f"  mean {np.mean(scores):.3f}", flush=True)


def _move(
    photographs: list[tuple[np.ndarray, np.ndarray]], surface: np.ndarray, wider: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Darken the surface as each photograph's cracks do, seen from nearer by: uint8 (N, N, 3) and mask (N, N)."""
    for image, mask in photographs:
        around = cv2.merge([cv2.medianBlur(channel, _AROUND_PX) for channel in cv2.split(image)])
        near = cv2.GaussianBlur(cv2.dilate(mask, np.ones((5, 5), np.uint8)).astype(np.float32), (0, 0), 1.0)
        darker = np.minimum(image / np.maximum(around, 1).astype(np.float32), 1)
        ratio = 1 - near[..., None] * (1 - darker)
        side = _SIDE_PX // wider
        top, left = (
            int(np.clip(np.median(p) - side / 2, 0, n - side))
            for p, n in zip(np.nonzero(mask), mask.shape, strict=True)
        )
        part = np.s_[top : top + side, left : left + side]
        size = surface.shape[1::-1]
        if wider > 1:
            thick = cv2.dilate(mask, np.ones((3, 3), np.uint8))[part].astype(np.float32)
            lines = skeletonize(cv2.resize(thick, size) > 0.5).astype(np.uint8)
        else:
            lines = mask[part]
        ratio = cv2.resize(ratio[part].astype(np.float32), size)
        yield np.rint(surface * ratio).clip(0, 255).astype(np.uint8), np.ascontiguousarray(lines)


def _cut_square(image: np.ndarray) -> np.ndarray:
    """Cut the middle of the lower edge, where a photograph of a road shows the road; (512, 512, 3)."""
    if min(image.shape[:2]) < _SIDE_PX:
        factor = _SIDE_PX / min(image.shape[:2])
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    left = (image.shape[1] - _SIDE_PX) // 2
    return np.ascontiguousarray(image[image.shape[0] - _SIDE_PX :, left : left + _SIDE_PX])


if __name__ == "__main__":
    main()
