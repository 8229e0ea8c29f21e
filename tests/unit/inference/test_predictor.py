"""Validation, evaluation and serving all see a photograph through the one predictor."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from crackseg.inference.predictor import Predictor, build_predictor, fit_side, sigmoid, tile_windows
from crackseg.models import build_model
from crackseg.params import PredictParams
from crackseg.types import ModelOutput

SIGHT_PX = (
    112  # more than a pixel of our U-Net sees: 2 (1 + 2 + 4 + 8) + 2 · 16 down, 2 (8 + 4 + 2 + 1) up, and strides
)


class LocalNetwork(nn.Module):
    """Looks at each pixel alone, so that tiling must change nothing; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[int, ...]] = []

    def forward(self, images_B3HW: torch.Tensor) -> ModelOutput:
        self.passes.append(tuple(images_B3HW.shape))
        return ModelOutput(images_B3HW.mean(dim=1, keepdim=True) * 8 - 4)


def make_predictor(tile: int = 64, overlap: int = 16, batch: int = 3) -> tuple[Predictor, LocalNetwork]:
    network = LocalNetwork()
    params = PredictParams(tile_size_px=tile, overlap_px=overlap, batch_size=batch)
    return Predictor(network, params, device=torch.device("cpu"), precision=torch.float32), network


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 700),
    tile=st.integers(64, 200),
    share=st.floats(0, 0.5),
    multiple=st.sampled_from([0, 16, 32]),
)
def test_tile_weights_add_up_to_one_everywhere(length: int, tile: int, share: float, multiple: int) -> None:
    if multiple:
        tile -= tile % multiple
    overlap = int(tile * share)
    windows = tile_windows(length, tile, overlap, multiple)
    total = np.zeros(length)
    for pixels, weight in windows:
        assert len(pixels) == len(weight)
        assert min(tile, length) - max(multiple - 1, 0) <= len(pixels) <= tile
        assert not multiple or pixels.start % multiple == 0
        assert (weight >= 0).all()
        total[pixels.start : pixels.stop] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    steps = np.diff([pixels.start for pixels, _ in windows])
    assert (steps <= tile - overlap).all()


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 3000), tile=st.integers(64, 600), share=st.floats(0, 0.5))
def test_fitted_tiles_cost_no_more_and_differ_by_at_most_a_quarter(length: int, tile: int, share: float) -> None:
    tile -= tile % 16
    overlap = int(tile * share) // 16 * 16
    side = fit_side(length, tile, overlap, 16)
    if length <= tile * 5 // 4:
        assert side == length
        return
    assert side % 16 == 0
    assert abs(side - tile) <= tile / 4
    aligned = -(-length // 16) * 16
    cost = [len(tile_windows(aligned, size, overlap)) * size for size in (side, tile)]
    assert cost[0] <= cost[1]


def test_a_photograph_of_8192_px_costs_a_quarter_more_than_its_pixels() -> None:
    side = fit_side(8192, 512, 64, 16)
    assert (side, len(tile_windows(8192, side, 64, 16))) == (608, 15)  # 1.24 times its pixels, instead of 1.41


def predict_fitted(network: nn.Module, image_HW3: np.ndarray, tile: int) -> np.ndarray:
    params = PredictParams(tile_size_px=tile, overlap_px=64, batch_size=1, fit_tiles=True)
    predictor = Predictor(network, params, device=torch.device("cpu"), precision=torch.float32)
    return predictor.predict_logits(image_HW3)


@pytest.mark.parametrize("tile", [384, 512])
def test_inside_a_fitted_tile_the_answer_is_that_of_the_whole_photograph(tile: int) -> None:
    """Whatever the side of the tiles, only what is blended near their edges may differ."""
    torch.manual_seed(0)
    network = build_model("unet", width=2).eval()
    height, width = 405, 905  # no multiples of 16: the last tiles are filled up
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole, tiled = predict_fitted(network, image, 1024), predict_fitted(network, image, tile)
    assert np.abs(whole - tiled).max() > 1e-3  # it was tiled
    sides = [fit_side(length, tile, 64, network.body.size_multiple) for length in image.shape[:2]]
    far_HW = np.ones((height, width), bool)
    for axis, (length, side) in enumerate(zip(image.shape[:2], sides, strict=True)):
        for pixels, _ in tile_windows(length, side, 64, network.body.size_multiple):
            for edge in {pixels.start, pixels.stop} - {0, length}:
                near = slice(max(edge - SIGHT_PX, 0), edge + SIGHT_PX)
                far_HW[(slice(None),) * axis + (near,)] = False
    assert far_HW.mean() > 0.1
    np.testing.assert_allclose(tiled[far_HW], whole[far_HW], atol=1e-4)


def test_tiles_of_a_network_that_sees_the_whole_tile_keep_their_side() -> None:
    network = build_model("deeplabv3_mobilenet_v3_large")
    params = PredictParams(tile_size_px=64, overlap_px=16, batch_size=1, fit_tiles=True)
    predictor = Predictor(network, params, device=torch.device("cpu"), precision=torch.float32)
    assert predictor.tile_sides(np.zeros((75, 300, 3), np.uint8)) == (64, 64)


def test_settings_stored_by_an_older_version_keep_their_tiles() -> None:
    stored = PredictParams(tile_size_px=64, overlap_px=16, batch_size=1)
    predictor = Predictor(
        build_model("unet", width=2), stored, device=torch.device("cpu"), precision=torch.float32
    )
    assert predictor.tile_sides(np.zeros((75, 300, 3), np.uint8)) == (64, 64)


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (200, 131), (40, 300)])
def test_tiles_leave_no_seam(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    predictor, _ = make_predictor()
    expected = image.astype(np.float64).mean(axis=2) / 255 * 8 - 4
    np.testing.assert_allclose(predictor.predict_logits(image), expected, atol=1e-5)


def test_stream_keeps_order_across_sizes_and_batches() -> None:
    sizes = [(32, 32)] * 5 + [(40, 32)] + [(90, 70)] + [(32, 32)] * 2
    images = [np.full((*size, 3), 20 * i, np.uint8) for i, size in enumerate(sizes)]
    predictor, network = make_predictor()
    results = list(predictor.predict_logits_of(iter(images)))
    assert [r.shape for r in results] == sizes
    np.testing.assert_allclose([r.mean() for r in results], [20 * i / 255 * 8 - 4 for i in range(9)], atol=1e-5)
    assert max(shape[0] for shape in network.passes) == 3


def test_a_finished_model_predicts_the_same_without_its_normalisation_layers() -> None:
    network = build_model("unet", init="scenes", width=8).eval()
    params = PredictParams(tile_size_px=64, overlap_px=16, batch_size=2)
    image = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    plain = Predictor(network, params, device=torch.device("cpu"), precision=torch.float32)
    folded = build_predictor(network, params, device="cpu", precision="float32")
    np.testing.assert_allclose(folded.predict_prob(image), plain.predict_prob(image), atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.network.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_predicting_switches_dropout_and_batch_statistics_off() -> None:
    predictor, network = make_predictor()
    network.train()
    predictor.predict_prob(np.zeros((32, 32, 3), np.uint8))
    assert not network.training


def test_sigmoid_does_not_overflow() -> None:
    prob = sigmoid(np.array([[-1e30, -100, 0, 100, 1e30]], np.float32))
    np.testing.assert_allclose(prob, [[0, 0, 0.5, 1, 1]], atol=1e-6)


class LeaningNetwork(nn.Module):
    """Each pixel's log-odds are the value of its left neighbour: another answer in each position."""

    def forward(self, images_B3HW: torch.Tensor) -> ModelOutput:
        return ModelOutput(images_B3HW[:, :1].roll(1, dims=3))


@pytest.mark.parametrize("size", [(40, 40), (130, 90)])
def test_flips_average_the_log_odds_of_four_positions(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    params = PredictParams(tile_size_px=64, overlap_px=16, batch_size=3, flips=True)
    predictor = Predictor(LeaningNetwork(), params, device=torch.device("cpu"), precision=torch.float32)
    logits = predictor.predict_logits(image)
    values = image[..., 0].astype(np.float64) / 255
    inside = (slice(20, 36), slice(2, 20))  # away from the edges of tiles, around which the network wraps
    expected = (np.roll(values, 1, axis=1) + np.roll(values, -1, axis=1)) / 2
    np.testing.assert_allclose(logits[inside], expected[inside], atol=1e-5)
