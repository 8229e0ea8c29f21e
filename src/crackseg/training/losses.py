"""Training losses, from logits to one number, and the table of them.

Shape legend: B batch, 1 channel, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F

from crackseg.errors import CracksegError
from crackseg.params.choices import explain_choice
from crackseg.types import ModelOutput

Loss = Callable[[ModelOutput, torch.Tensor], torch.Tensor]


class Sums(Protocol):
    """Turn values of a part of a batch into those of the whole batch, if several processes have the parts."""

    def add(self, sums: torch.Tensor) -> torch.Tensor:
        """Add up over the parts; differentiable."""

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the maximum over the parts; without gradient."""


def balanced_focal_loss(
    logits_B1HW: torch.Tensor,
    mask_B1HW: torch.Tensor,
    *,
    gamma: float,
    alpha: float,
    sums: Sums | None = None,
) -> torch.Tensor:
    """Compute the binary focal loss of the paper (section 3.2, equation 2) from logits.

    With ŷ the crack probability of a pixel, y₊ the crack pixels and y₋ the others::

        L = - Σ_{y₊} (1 - ŷ)^γ log ŷ / Σ_{y₊} (1 - ŷ)^γ  -  α Σ_{y₋} ŷ^γ log(1 - ŷ) / Σ_{y₋} ŷ^γ

    Each class thus counts as one weighted mean, however few its pixels are. The paper does not say over which
    pixels the sums run; here they run over the whole batch. A class without a pixel (a batch without cracks)
    contributes 0. The gradient is that of the formula as written: the denominators are not held constant.

    Args:
        logits_B1HW: float (B, 1, H, W), log-odds of crack.
        mask_B1HW: bool, uint8 or float (B, 1, H, W), 1 where there is a crack, else 0.
        gamma: focusing exponent, >= 0; 0 weights all pixels of a class equally.
        alpha: weight of the non-crack term, > 0; 3 in the paper.
        sums: if the batch is divided among processes; the loss is then that of the whole batch in each of them, and a
            part may be empty.
    Returns:
        Scalar, >= 0; float64 for float64 logits, else float32.
    Raises:
        CracksegError: the shapes differ.
    """
    logits_B1HW, crack_B1HW = _prepare(logits_B1HW, mask_B1HW)
    # Log-odds of the right answer: with it, both classes have the same formula.
    margin = torch.where(crack_B1HW, logits_B1HW, -logits_B1HW)
    log_prob = F.logsigmoid(margin)
    log_weight = gamma * F.logsigmoid(-margin)

    # A confident model's weights all underflow (ŷ^γ = e^-200 at γ = 4 and a logit of -50). Only their ratios
    # matter, so the heaviest pixel of each class is given weight 1. The shift cancels: it needs no gradient.
    with torch.no_grad():
        heaviest_crack = _greatest(torch.where(crack_B1HW, log_weight, -torch.inf))
        heaviest_other = _greatest(torch.where(crack_B1HW, -torch.inf, log_weight))
        if sums is not None:
            heaviest_crack, heaviest_other = sums.maximum(torch.stack([heaviest_crack, heaviest_other]))
        shift = torch.where(crack_B1HW, heaviest_crack, heaviest_other)
    weight = torch.exp(log_weight - shift)
    weighted_log_prob = weight * log_prob

    def weighted_mean(among_B1HW: torch.Tensor) -> torch.Tensor:
        total_weight = torch.where(among_B1HW, weight, 0).sum()  # at least the heaviest one's 1, if any
        weighted_sum = torch.where(among_B1HW, weighted_log_prob, 0).sum()
        if sums is not None:
            total_weight, weighted_sum = sums.add(torch.stack([total_weight, weighted_sum]))
        # Not clamp_min(1): it passes the wrong gradient where one pixel holds all of the weight.
        return weighted_sum / torch.where(total_weight > 0, total_weight, 1)

    return -weighted_mean(crack_B1HW) - alpha * weighted_mean(~crack_B1HW)


def bce_loss(logits_B1HW: torch.Tensor, mask_B1HW: torch.Tensor, *, sums: Sums | None = None) -> torch.Tensor:
    """Compute binary cross-entropy from logits, the mean over all pixels of the batch.

    The paper's baseline (section 3.2), which learns almost nothing on hair-thin cracks: the few crack pixels
    vanish in the mean. Arguments, result and errors as in :func:`balanced_focal_loss`.
    """
    logits_B1HW, crack_B1HW = _prepare(logits_B1HW, mask_B1HW)
    truth_B1HW = crack_B1HW.to(logits_B1HW.dtype)
    if sums is None:
        return F.binary_cross_entropy_with_logits(logits_B1HW, truth_B1HW)
    total = F.binary_cross_entropy_with_logits(logits_B1HW, truth_B1HW, reduction="sum")
    total, num_pixels = sums.add(torch.stack([total, total.new_tensor(logits_B1HW.numel())]))
    return total / num_pixels


def bce_soft_f_loss(
    logits_B1HW: torch.Tensor,
    mask_B1HW: torch.Tensor,
    *,
    crack_weight: float,
    tolerance_px: int,
    sums: Sums | None = None,
) -> torch.Tensor:
    """Compute weighted cross-entropy plus 1 − soft F, the paper's scoring (section 3.3) made differentiable.

    With p the crack probabilities, G the ground truth and G⊕d its dilation by a (2d + 1)² square, summed over the
    whole batch::

        TP = Σ p · (G⊕d)    FP = Σ p · (1 − G⊕d)    FN = Σ (1 − p) · G    F = 2 TP / (2 TP + FP + FN)

        L = mean of cross-entropy, crack pixels weighted  +  1 − F

    The gradient of F alone is almost zero while all p are small; cross-entropy provides one. A batch without crack
    pixels has F = 0: its second term is the constant 1, and only the cross-entropy has a gradient.

    Args:
        logits_B1HW, mask_B1HW, sums: as in :func:`balanced_focal_loss`, and so are result and errors.
        crack_weight: factor of the cross-entropy of a crack pixel, > 0; the mean is over all pixels, each counted once.
        tolerance_px: d, >= 0.
    """
    logits_B1HW, crack_B1HW = _prepare(logits_B1HW, mask_B1HW)
    truth_B1HW = crack_B1HW.to(logits_B1HW.dtype)
    near_B1HW = F.max_pool2d(truth_B1HW, 2 * tolerance_px + 1, stride=1, padding=tolerance_px)
    prob_B1HW = logits_B1HW.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(
        logits_B1HW, truth_B1HW, pos_weight=logits_B1HW.new_tensor(crack_weight), reduction="sum"
    )
    true_positive = (prob_B1HW * near_B1HW).sum()
    false_positive = (prob_B1HW * (1 - near_B1HW)).sum()
    # σ(−z) rather than 1 − p, which loses all precision near p = 1.
    false_negative = (torch.sigmoid(-logits_B1HW) * truth_B1HW).sum()
    totals = torch.stack(
        [cross_entropy, true_positive, false_positive, false_negative, logits_B1HW.new_tensor(logits_B1HW.numel())]
    )
    if sums is not None:
        totals = sums.add(totals)
    cross_entropy, true_positive, false_positive, false_negative, num_pixels = totals.unbind()
    doubled = 2 * true_positive
    denominator = doubled + false_positive + false_negative
    # All p underflow to 0, and there is no crack: 0 / 0, which is 0 as for any p above 0.
    soft_f = doubled / torch.where(denominator > 0, denominator, 1)
    return cross_entropy / num_pixels + 1 - soft_f


@dataclass(frozen=True, slots=True)
class LossKind:
    """A loss as ``loss.name`` chooses it.

    Attributes:
        function: of logits and mask (B, 1, H, W); takes ``sums`` and the parameters by name.
        summary: one line for documents.
        parameters: keys of params.yaml's ``loss`` section that it reads; the others do not affect it.
    """

    function: Callable[..., torch.Tensor]
    summary: str
    parameters: tuple[str, ...] = ()


# Names are read from this literal, without importing it, by crackseg.params.choices.
LOSSES: dict[str, LossKind] = {
    "focal": LossKind(
        balanced_focal_loss,
        "The paper's balanced binary focal loss (section 3.2, equation 2).",
        parameters=("gamma", "alpha"),
    ),
    "bce": LossKind(bce_loss, "Binary cross-entropy, the paper's baseline."),
    "bce_soft_f": LossKind(
        bce_soft_f_loss,
        "Weighted cross-entropy plus 1 − soft F: the paper's scoring protocol made differentiable.",
        parameters=("crack_weight", "tolerance_px"),
    ),
}


def build_loss(name: str, *, sums: Sums | None = None, **parameters: object) -> Loss:
    """Build the loss that training minimises.

    Args:
        name: a key of ``LOSSES``.
        sums: see :func:`balanced_focal_loss`.
        parameters: the keys of params.yaml's ``loss`` section, in the ranges that it takes; those that this loss
            does not read are ignored.
    Returns:
        A function of a ModelOutput and a mask (B, 1, H, W) in {0, 1}: the loss of ``logits`` plus the same
        loss of every one of ``side_logits`` (DeepCrack supervises each scale), a scalar.
    Raises:
        CracksegError: unknown name, or one of its parameters is not given.
    """
    if name not in LOSSES:
        raise CracksegError(f"loss.name = {name!r}: {explain_choice(name, tuple(LOSSES))}")
    kind = LOSSES[name]
    if missing := [key for key in kind.parameters if key not in parameters]:
        raise CracksegError(f"loss.name = {name!r}: it also needs {', '.join(f'loss.{key}' for key in missing)}")
    loss_of = partial(kind.function, sums=sums, **{key: parameters[key] for key in kind.parameters})

    def total_loss(output: ModelOutput, mask_B1HW: torch.Tensor) -> torch.Tensor:
        total = loss_of(output.logits, mask_B1HW)
        for side_logits_B1HW in output.side_logits:
            total = total + loss_of(side_logits_B1HW, mask_B1HW)
        return total

    return total_loss


def _greatest(values: torch.Tensor) -> torch.Tensor:
    return values.amax() if values.numel() else values.new_tensor(-torch.inf)


def _prepare(logits_B1HW: torch.Tensor, mask_B1HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring logits to at least float32 and the mask to bool; refuse shapes that would broadcast."""
    if logits_B1HW.shape != mask_B1HW.shape:
        raise CracksegError(
            f"logits have the shape {tuple(logits_B1HW.shape)} and the mask {tuple(mask_B1HW.shape)}; expected "
            "the same (B, 1, H, W) for both"
        )
    if logits_B1HW.dtype != torch.float64:
        # Half precision cannot hold the sums over some 10^5 pixels, nor for log ŷ near ŷ = 1.
        logits_B1HW = logits_B1HW.float()
    return logits_B1HW, mask_B1HW > 0.5
