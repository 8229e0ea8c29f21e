"""Batch normalisation folded into the convolutions before it, for prediction: the same map from fewer passes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


@torch.no_grad()
def fold_batch_norm(network: nn.Module, example_B3HW: Tensor) -> nn.Module:
    """Copy a network, with every batch normalisation that directly follows a convolution folded into its weights.

    What follows what is seen in one pass, so any network can be given. A convolution or a normalisation that is used
    twice in a pass stays as it is. What else reads a convolution's result than the normalisation after it cannot be
    seen; none of our architectures does, and whoever predicts with the copy compares its answers first.

    Args:
        network: is not changed.
        example_B3HW: what it takes, on its device.
    Returns:
        In evaluation mode; up to rounding it answers as ``network`` does there.
    """
    folded = copy.deepcopy(network).eval()
    calls: dict[nn.Module, int] = {}
    # By the id of the result, which is kept so that its id stays its own.
    made_by: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made_by[id(output)] = (module, output)
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made_by:
            pairs.append((made_by[id(inputs[0])][0], module))

    hooks = [m.register_forward_hook(note) for m in folded.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    folded(example_B3HW)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in folded.named_modules()}
    for convolution, normalisation in pairs:
        # One without running statistics normalises by the batch at hand.
        if calls[convolution] == calls[normalisation] == 1 and normalisation.running_mean is not None:
            _fold(convolution, normalisation)
            parent, _, name = names[normalisation].rpartition(".")
            setattr(folded.get_submodule(parent), name, nn.Identity())
    return folded


def _fold(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> None:
    assert normalisation.running_mean is not None
    assert normalisation.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        normalisation.running_mean,
        normalisation.running_var,
        normalisation.eps,
        normalisation.weight,
        normalisation.bias,
    )
