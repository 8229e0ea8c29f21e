"""The losses, held against equation (2) of the paper as mpmath computes it with 40 digits."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from crackseg.errors import CracksegError
from crackseg.training.losses import LOSSES, balanced_focal_loss, bce_loss, bce_soft_f_loss, build_loss
from crackseg.types import ModelOutput

GAMMAS = [0, 0.5, 1, 2, 4, 10]
PARAMETERS: dict[str, Any] = {"gamma": 2, "alpha": 3, "crack_weight": 20.0, "tolerance_px": 2}


# --- equation (2), pixel by pixel ---------------------------------------------------------------------------


def slow_focal_loss(logits: list[float], is_crack: list[bool], gamma: float, alpha: float) -> mpmath.mpf:
    def class_term(pixels: list[tuple[mpmath.mpf, mpmath.mpf]]) -> mpmath.mpf:
        weights = [wrong**gamma for _, wrong in pixels]
        if not pixels:
            return mpmath.mpf(0)
        return -sum(w * mpmath.log(right) for w, (right, _) in zip(weights, pixels, strict=True)) / sum(weights)

    crack_probs = [1 / (1 + mpmath.exp(-z)) for z in logits]
    other_probs = [1 / (1 + mpmath.exp(z)) for z in logits]  # 1 - ŷ, without losing digits
    pairs = list(zip(crack_probs, other_probs, is_crack, strict=True))
    cracks = [(y, n) for y, n, crack in pairs if crack]
    others = [(n, y) for y, n, crack in pairs if not crack]
    return class_term(cracks) + alpha * class_term(others)


def slow_focal_gradient(logits: list[float], is_crack: list[bool], gamma: float, alpha: float) -> list[float]:
    """Central differences at 40 digits: exact to about 20."""
    step = mpmath.mpf(10) ** -12
    gradient = []
    for i in range(len(logits)):
        left, right = ([mpmath.mpf(z) for z in logits] for _ in range(2))
        left[i], right[i] = left[i] - step, right[i] + step
        rise = slow_focal_loss(right, is_crack, gamma, alpha) - slow_focal_loss(left, is_crack, gamma, alpha)
        gradient.append(float(rise / (2 * step)))
    return gradient


def check_against_formula(
    logits: list[float], is_crack: list[bool], gamma: float, alpha: float, dtype: torch.dtype, tolerance: float
) -> None:
    logits_B1HW = torch.tensor(logits, dtype=dtype).reshape(1, 1, 1, -1).requires_grad_()
    mask_B1HW = torch.tensor(is_crack).reshape(1, 1, 1, -1)
    loss = balanced_focal_loss(logits_B1HW, mask_B1HW, gamma=gamma, alpha=alpha)
    loss.backward()
    assert logits_B1HW.grad is not None
    stored = logits_B1HW.detach().flatten().tolist()  # as rounded to dtype
    with mpmath.workdps(40):
        value = float(slow_focal_loss(stored, is_crack, gamma, alpha))
        gradient = slow_focal_gradient(stored, is_crack, gamma, alpha)
    assert loss.item() == pytest.approx(value, rel=tolerance, abs=tolerance)
    scale = max(1.0, max(abs(g) for g in gradient))
    assert logits_B1HW.grad.flatten().tolist() == pytest.approx(gradient, rel=tolerance, abs=tolerance * scale)


# --- the balanced focal loss --------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    pixels=st.lists(st.tuples(st.floats(-100, 100), st.booleans()), min_size=1, max_size=9),
    gamma=st.sampled_from(GAMMAS),
    alpha=st.sampled_from([0.5, 1, 3]),
)
def test_value_and_gradient_are_those_of_the_formula(
    pixels: list[tuple[float, bool]], gamma: float, alpha: float
) -> None:
    logits, is_crack = (list(column) for column in zip(*pixels, strict=True))
    check_against_formula(logits, is_crack, gamma, alpha, torch.float64, 1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_float32_keeps_to_the_formula_where_every_weight_underflows(gamma: float) -> None:
    """All pixels are right by logits of 20 to 100: at γ = 4 their weights are e^-80 to e^-400."""
    logits = [20.0, 25.5, 60.0, 100.0, -20.0, -21.0, -77.0, -100.0]
    is_crack = [True] * 4 + [False] * 4
    check_against_formula(logits, is_crack, gamma, 3, torch.float32, 2e-4)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_float32_keeps_to_the_formula_where_every_pixel_is_wrong(gamma: float) -> None:
    logits = [-100.0, -99.0, -3.0, 0.0, 100.0, 98.5, 7.0, 0.25]
    is_crack = [True] * 4 + [False] * 4
    check_against_formula(logits, is_crack, gamma, 3, torch.float32, 1e-5)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_one_pixel_that_holds_all_of_the_weight_gets_the_whole_gradient(gamma: float) -> None:
    check_against_formula([-4.0, 90.0, 95.0, 4.0, -90.0], [True] * 3 + [False] * 2, gamma, 3, torch.float32, 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_half_precision_logits_are_computed_in_float32(gamma: float, dtype: torch.dtype) -> None:
    logits = torch.linspace(-100, 100, 64).reshape(1, 1, 8, 8).to(dtype)
    mask = torch.arange(64).reshape(1, 1, 8, 8) % 3 == 0
    loss = balanced_focal_loss(logits, mask, gamma=gamma, alpha=3)
    exact = balanced_focal_loss(logits.double(), mask, gamma=gamma, alpha=3)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_autocast_does_not_lower_the_precision() -> None:
    logits = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 20
    mask = logits.roll(1, dims=3) > 0
    plain = balanced_focal_loss(logits, mask, gamma=2, alpha=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert balanced_focal_loss(logits, mask, gamma=2, alpha=3).item() == plain.item()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("mask_value", [0, 1])
@pytest.mark.parametrize("logit", [-100.0, 0.0, 100.0])
def test_an_image_of_one_class_alone_has_a_finite_loss_and_gradient(
    gamma: float, mask_value: int, logit: float
) -> None:
    check_against_formula([logit] * 4, [bool(mask_value)] * 4, gamma, 3, torch.float32, 1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2])
def test_gradcheck_passes_in_float64(gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, 1, 2, 3, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    mask = torch.rand(2, 1, 2, 3, generator=generator) < 0.3
    assert torch.autograd.gradcheck(lambda z: balanced_focal_loss(z, mask, gamma=gamma, alpha=3), logits)


def test_a_whole_batch_of_photographs_sums_without_drifting() -> None:
    """Half a million pixels: a running float32 sum would be off by 1e-5 and more."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 512, 512, generator=generator) * 3 - 2
    mask = torch.rand(2, 1, 512, 512, generator=generator) < 0.004
    loss = balanced_focal_loss(logits, mask, gamma=2, alpha=3)
    exact = balanced_focal_loss(logits.double(), mask, gamma=2, alpha=3)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_a_crack_weighs_the_same_however_few_its_pixels() -> None:
    """The point of the balanced form: doubling the background changes nothing."""
    logits = torch.tensor([[[[2.0, -1.0, 0.5, -3.0]]]])
    mask = torch.tensor([[[[1, 0, 0, 0]]]])
    wider_logits = torch.cat([logits, logits[..., 1:]], dim=3)
    wider_mask = torch.cat([mask, mask[..., 1:]], dim=3)
    loss = balanced_focal_loss(logits, mask, gamma=2, alpha=3)
    assert balanced_focal_loss(wider_logits, wider_mask, gamma=2, alpha=3).item() == pytest.approx(loss.item())


def test_the_sums_run_over_the_whole_batch() -> None:
    """An image without cracks adds background to the one sum; it does not halve the crack term."""
    logits = torch.tensor([2.0, -1.0, 0.5, -3.0]).reshape(2, 1, 1, 2)
    mask = torch.tensor([1, 0, 0, 0]).reshape(2, 1, 1, 2)
    batch = balanced_focal_loss(logits, mask, gamma=2, alpha=3)
    as_one_image = balanced_focal_loss(logits.reshape(1, 1, 1, 4), mask.reshape(1, 1, 1, 4), gamma=2, alpha=3)
    assert batch.item() == as_one_image.item()


# --- cross-entropy ------------------------------------------------------------------------------------------


def test_bce_is_the_mean_of_minus_log_likelihood_over_all_pixels() -> None:
    logits = torch.tensor([[[[-100.0, -2.0, 0.0, 3.0, 100.0]]]])
    mask = torch.tensor([[[[0, 1, 1, 0, 0]]]], dtype=torch.uint8)
    terms = [0.0, math.log1p(math.exp(2)), math.log(2), math.log1p(math.exp(3)), 100.0]
    assert bce_loss(logits, mask).item() == pytest.approx(sum(terms) / 5, rel=1e-6)


def test_bce_of_half_precision_logits_is_float32() -> None:
    logits = torch.linspace(-9, 9, 16).reshape(1, 1, 4, 4).bfloat16()
    mask = logits > 1
    loss = bce_loss(logits, mask)
    assert loss.dtype == torch.float32
    assert loss.item() == F.binary_cross_entropy_with_logits(logits.float(), mask.float()).item()


# --- cross-entropy and soft F ---------------------------------------------------------------------------------


def slow_bce_soft_f(logits_BHW: np.ndarray, mask_BHW: np.ndarray, crack_weight: float, tolerance_px: int) -> float:
    """Compute the loss pixel by pixel, from its definition."""
    prob = 1 / (1 + np.exp(-logits_BHW))
    tp = fp = fn = cross_entropy = 0.0
    for b, y, x in np.ndindex(*mask_BHW.shape):
        d = tolerance_px
        window = mask_BHW[b, max(0, y - d) : y + d + 1, max(0, x - d) : x + d + 1]
        p, is_crack, is_near = prob[b, y, x], mask_BHW[b, y, x], window.any()
        tp += p * is_near
        fp += p * (not is_near)
        fn += (1 - p) * is_crack
        cross_entropy -= crack_weight * np.log(p) if is_crack else np.log(1 - p)
    return cross_entropy / mask_BHW.size + 1 - 2 * tp / (2 * tp + fp + fn)


def make_batch(crack_fraction: float, shape: tuple[int, ...] = (2, 1, 9, 12)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    return logits, torch.rand(shape, generator=generator) < crack_fraction


@pytest.mark.parametrize("tolerance_px", [0, 1, 2])
@pytest.mark.parametrize("crack_weight", [1.0, 20.0])
@pytest.mark.parametrize("crack_fraction", [0, 0.02, 1])
def test_soft_f_is_its_definition(crack_fraction: float, crack_weight: float, tolerance_px: int) -> None:
    logits, mask = make_batch(crack_fraction)
    expected = slow_bce_soft_f(logits[:, 0].numpy(), mask[:, 0].numpy(), crack_weight, tolerance_px)
    options = {"crack_weight": crack_weight, "tolerance_px": tolerance_px}
    assert bce_soft_f_loss(logits, mask, **options).item() == pytest.approx(expected, rel=1e-12)
    assert bce_soft_f_loss(logits.float(), mask, **options).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("crack_fraction", [0, 0.1, 1])
def test_the_gradient_of_soft_f_is_right(crack_fraction: float) -> None:
    logits, mask = make_batch(crack_fraction, (2, 1, 4, 5))
    loss = partial(bce_soft_f_loss, mask_B1HW=mask, crack_weight=20.0, tolerance_px=1)
    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("mask_value", [0, 1])
@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
def test_soft_f_of_one_class_alone_is_finite(mask_value: int, logit: float) -> None:
    logits = torch.full((1, 1, 4, 4), logit, requires_grad=True)
    loss = bce_soft_f_loss(logits, torch.full((1, 1, 4, 4), mask_value), crack_weight=20.0, tolerance_px=2)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if not mask_value:  # the cross-entropy, and a constant
        expected = bce_loss(logits.detach(), torch.zeros(1, 1, 4, 4)) + 1
        assert loss.item() == pytest.approx(expected.item())


def test_a_line_drawn_beside_the_crack_costs_no_more_than_the_cross_entropy() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8, :] = 1
    beside = torch.where(mask.roll(2, dims=2) > 0, 30.0, -30.0)
    too_far = torch.where(mask.roll(3, dims=2) > 0, 30.0, -30.0)
    near, far = (
        bce_soft_f_loss(z, mask, crack_weight=1e-6, tolerance_px=2).item()
        - bce_loss(z, torch.zeros_like(mask)).item()
        for z in (beside, too_far)
    )
    assert near == pytest.approx(1 - 2 / 3, abs=1e-4)  # every mark is right, and the line itself is missed
    assert far == pytest.approx(1, abs=1e-4)


class TwoShares:
    """Add what another share of the batch gave to each sum."""

    def __init__(self, others: torch.Tensor | None) -> None:
        self.others = others
        self.seen: torch.Tensor | None = None

    def add(self, sums: torch.Tensor) -> torch.Tensor:
        self.seen = sums
        return sums if self.others is None else sums + self.others

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        raise AssertionError("not used")


def test_shares_of_a_batch_have_the_soft_f_of_the_batch_even_if_one_is_empty() -> None:
    logits, mask = make_batch(0.05)
    options: dict[str, Any] = {"crack_weight": 20.0, "tolerance_px": 2}
    whole = bce_soft_f_loss(logits, mask, **options).item()
    for cut in (0, 1):
        first = TwoShares(None)
        bce_soft_f_loss(logits[:cut], mask[:cut], **options, sums=first)
        assert first.seen is not None
        second = TwoShares(first.seen)
        shared = bce_soft_f_loss(logits[cut:], mask[cut:], **options, sums=second)
        assert shared.item() == pytest.approx(whole, rel=1e-12)


# --- all of them, as training uses them ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32, torch.int64])
def test_the_dtype_of_the_mask_does_not_matter(name: str, dtype: torch.dtype) -> None:
    logits = torch.linspace(-3, 3, 16).reshape(1, 1, 4, 4)
    mask = torch.arange(16).reshape(1, 1, 4, 4) % 3 == 0
    loss = build_loss(name, **PARAMETERS)
    assert loss(ModelOutput(logits), mask.to(dtype)).item() == loss(ModelOutput(logits), mask).item()


@pytest.mark.parametrize("name", LOSSES)
def test_every_side_output_adds_the_same_loss(name: str) -> None:
    logits, first, second = (torch.linspace(-3, high, 16).reshape(1, 1, 4, 4) for high in (1, 2, 3))
    mask = torch.arange(16).reshape(1, 1, 4, 4) % 3 == 0
    loss = build_loss(name, **PARAMETERS)
    apart = sum(loss(ModelOutput(z), mask).item() for z in (logits, first, second))
    assert loss(ModelOutput(logits, (first, second)), mask).item() == pytest.approx(apart)


def test_build_loss_hands_on_gamma_and_alpha() -> None:
    logits = torch.linspace(-3, 3, 16).reshape(1, 1, 4, 4)
    mask = torch.arange(16).reshape(1, 1, 4, 4) % 3 == 0
    built = build_loss("focal", gamma=1.5, alpha=0.7)(ModelOutput(logits), mask)
    assert built.item() == balanced_focal_loss(logits, mask, gamma=1.5, alpha=0.7).item()


@pytest.mark.parametrize("name", LOSSES)
def test_descending_the_loss_finds_the_cracks(name: str) -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3, :] = 1
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    loss = build_loss(name, **PARAMETERS)
    for _ in range(40):
        optimizer.zero_grad()
        loss(ModelOutput(logits), mask).backward()
        optimizer.step()
    assert torch.equal(logits > 0, mask > 0)


@pytest.mark.parametrize(
    "loss_of",
    [partial(kind.function, **{key: PARAMETERS[key] for key in kind.parameters}) for kind in LOSSES.values()],
)
def test_a_mask_that_would_broadcast_is_refused(loss_of) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CracksegError, match=r"\(2, 1, 4, 4\).*\(2, 4, 4\)"):
        loss_of(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))


def test_an_unknown_loss_or_one_without_its_parameters_is_named() -> None:
    with pytest.raises(CracksegError, match=r"'focl': expected one of focal, bce.*; did you mean focal"):
        build_loss("focl", **PARAMETERS)
    with pytest.raises(CracksegError, match=r"'focal': it also needs loss\.alpha"):
        build_loss("focal", gamma=2)
