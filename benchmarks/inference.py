"""A photograph through each model as `auto` computes it, against the network as torch runs it by itself."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import segmentation

from benchmarks.measure import Effort, Row, measure_in_turn
from benchmarks.scenes import draw_pair
from crackseg.devices import choose_device, full_float32
from crackseg.evaluation.metrics import ScoreAccumulator, count_image
from crackseg.files import CACHE_VARIABLE
from crackseg.inference.autotune import settle
from crackseg.inference.predictor import Predictor, build_predictor, sigmoid
from crackseg.models import CrackNetwork, build_model
from crackseg.params import PredictParams
from crackseg.training.losses import build_loss

SIZE_PX = 512
MOST_ODS_DIFFERENCE = 0.002
_IMAGES_ON_GPU = 30_000  # that `auto` is told of: enough for a trial, not for torch.compile
# A GPU can afford as many that its ODS, too, is that of a network that finds something.
_TRAINING_PX, _TRAINING_STEPS, _TRAINING_STEPS_ON_GPU = 128, 12, 400


@dataclass(frozen=True, slots=True)
class Case:
    """A row, and the models to compare.

    Attributes:
        row: its name.
        architecture: of ours; the peer has the same weights.
        target: the least ratio asked for.
        repeats: of a full and of a quick run.
        num_images: that `auto` is told of, likewise: enough for a trial, and for the small networks in a full run for
            torch.compile, too; a quick run measures engines for the U-Net only.
        num_steps: of training, likewise.
    """

    row: str
    architecture: str
    target: float
    repeats: tuple[int, int]
    num_images: tuple[int, int]
    num_steps: tuple[int, int] = (_TRAINING_STEPS, _TRAINING_STEPS)


_CASES = (
    Case("inference-r101", "deeplabv3_resnet101", 3.2, (3, 1), (100, 10), (_TRAINING_STEPS, 6)),
    Case("inference-unet", "unet", 4.0, (15, 7), (10_000, 400)),
    Case("inference-mnv3", "deeplabv3_mobilenet_v3_large", 4.0, (15, 7), (20_000, 100)),
)


def run(effort: Effort) -> list[Row]:
    """Rows ``inference-r101``, ``inference-unet`` and ``inference-mnv3``."""
    return [_compare(case, effort) for case in _CASES]


def make_network(architecture: str, num_steps: int = _TRAINING_STEPS) -> CrackNetwork:
    """A network after a few steps of training, seeded.

    How long a pass takes does not depend on the weights, but how far halves move its answers does: random layers blow
    rounding up to a hundred times what it is in a network that was trained.
    """
    torch.manual_seed(0)
    device = choose_device("auto")
    network = build_model(architecture).to(device).train()
    if device.type != "cpu":
        num_steps = _TRAINING_STEPS_ON_GPU
    images, masks = zip(*(draw_pair(seed, _TRAINING_PX) for seed in range(2)), strict=True)
    images_B3HW = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 255
    masks_B1HW = torch.from_numpy(np.stack(masks)).to(device)[:, None]
    loss_function = build_loss("focal", gamma=2.0, alpha=3.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss_function(network(images_B3HW), masks_B1HW).backward()
        optimizer.step()
    return network.cpu().eval()


def _compare(case: Case, effort: Effort) -> Row:
    network = make_network(case.architecture, effort.pick(*case.num_steps))
    peer, peer_name = _peer(case.architecture, network)
    peer.to(choose_device("auto"))
    params = PredictParams(tile_size_px=SIZE_PX, overlap_px=64, batch_size=4)
    predictor = build_predictor(network, params, device="auto", precision="auto")
    images = [draw_pair(seed) for seed in range(effort.pick(2, 1))]
    with tempfile.TemporaryDirectory() as cache:
        former = os.environ.get(CACHE_VARIABLE)
        os.environ[CACHE_VARIABLE] = cache
        try:
            on_gpu = predictor.device.type == "cuda"
            settle(predictor, images[0][0], _IMAGES_ON_GPU if on_gpu else effort.pick(*case.num_images))
        finally:
            os.environ.pop(CACHE_VARIABLE) if former is None else os.environ.update({CACHE_VARIABLE: former})
    difference = _ods_difference(predictor, peer, images)
    assert difference < MOST_ODS_DIFFERENCE, f"{case.row}: ODS differs by {difference:.4f}"
    image = images[0][0]
    ours, theirs = measure_in_turn(
        [lambda: predictor.predict_logits(image), lambda: _predict_peer(peer, image)],
        repeats=effort.pick(*case.repeats),
        warm_up=predictor.device.type == "cuda",  # on a CPU, both have predicted already
    )
    note = f"auto chose: {predictor.plan}; ODS differs by {difference:.5f}"
    return Row(case.row, ours, theirs, peer_name, "s/image", note, target=case.target)


def _peer(architecture: str, network: CrackNetwork) -> tuple[nn.Module, str]:
    """torchvision's own model with the same weights; torchvision has no U-Net, which stands for itself."""
    if not architecture.startswith("deeplabv3"):
        return network.body, "eager float32"
    build = getattr(segmentation, architecture)
    model = build(weights=None, weights_backbone=None, num_classes=1)
    model.load_state_dict(network.body.state_dict(), strict=True)
    return model.eval(), "torchvision eager float32"


@torch.inference_mode()
def _predict_peer(peer: nn.Module, image_HW3: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(image_HW3).to(next(peer.parameters()).device)
    output = peer(image.permute(2, 0, 1)[None].float() / 255)
    logits = output["out"] if isinstance(output, dict) else output[0]
    return logits[0, 0].cpu().numpy()


@full_float32()
def _ods_difference(predictor: Predictor, peer: nn.Module, pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    found, expected = ScoreAccumulator(), ScoreAccumulator()
    for number, (image, mask) in enumerate(pairs):
        found.add(count_image(predictor.predict_prob(image), mask), str(number))
        expected.add(count_image(sigmoid(_predict_peer(peer, image).copy()), mask), str(number))
    return abs(found.result().paper.ods - expected.result().paper.ods)


def model_folder(folder: Path, architecture: str, network: CrackNetwork) -> Path:
    """A finished model as `crackseg export` takes it: weights, settings, and photographs to compare on."""
    from crackseg.data.images.files import write_png
    from crackseg.inference.detector import SETTINGS_NAME, WEIGHTS_NAME, ModelSettings, ReferenceStatistics
    from crackseg.models.weights_file import save_weights
    from crackseg.params import PostprocessParams
    from crackseg.registry.package import PROBE_NAME

    nothing: dict[str, tuple[float, ...]] = dict.fromkeys(
        ("brightness", "contrast", "sharpness", "crack_fraction", "confidence"), ()
    )
    settings = ModelSettings(
        operating_threshold=0.5,
        predict=PredictParams(tile_size_px=SIZE_PX, overlap_px=64, batch_size=1),
        postprocess=PostprocessParams(method="none", low_ratio=0.6, max_gap_px=10, min_length_px=0, floor=0.25),
        reference=ReferenceStatistics(num_images=0, **nothing),
        data_source="sample",
        dataset="synthetic",
        run_id="0" * 32,
    )
    save_weights(folder / WEIGHTS_NAME, network, spec={"architecture": architecture}, extra={})
    (folder / SETTINGS_NAME).write_text(settings.to_json(), encoding="utf-8")
    write_png(folder / PROBE_NAME / "images" / "0.png", draw_pair(0)[0])
    return folder
