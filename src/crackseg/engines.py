"""What can run a network over tiles: torch as it is, torch compiled, OpenVINO.

Shape legend: B tiles in a pass, h, w a tile.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crackseg.devices import autocast
from crackseg.errors import CracksegError

ENGINES = ("torch", "compile", "openvino")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Engine = Callable[[np.ndarray], np.ndarray]
"""Takes uint8 tiles (B, h, w, 3), RGB, and gives float32 logits (B, h, w)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to compute.

    Attributes:
        engine: one of ``ENGINES``.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        channels_last: torch's memory format.
        threads: of the processor, for one pass; 0 on a GPU.
        batch_size: most tiles in a pass.
    """

    engine: str
    precision: str
    channels_last: bool
    threads: int
    batch_size: int

    def __str__(self) -> str:
        words = [self.engine, self.precision]
        words += ["channels last"] if self.channels_last else []
        words += [f"{self.threads} threads"] if self.threads else []
        return ", ".join([*words, f"{self.batch_size} tiles a pass"])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class TorchEngine:
    """torch, eager or compiled.

    Args:
        network: returns ModelOutput for images in [0, 1]; put into evaluation mode on each call.
        device: where it computes; the network is there already.
        plan: precision, memory format and threads; the format is the network's already.
    """

    def __init__(self, network: nn.Module, device: torch.device, plan: Plan) -> None:
        self.network = network
        self.device = device
        self.plan = plan
        self._forward: Callable[[Tensor], Any] = network
        if plan.engine == "compile":
            self._forward = torch.compile(network, dynamic=False)

    @torch.inference_mode()
    def __call__(self, tiles_Bhw3: np.ndarray) -> np.ndarray:
        self.network.eval()
        layout = torch.channels_last if self.plan.channels_last else torch.contiguous_format
        batch = torch.from_numpy(tiles_Bhw3).to(self.device).permute(0, 3, 1, 2)
        with _threads(self.plan.threads), autocast(self.device, _DTYPES[self.plan.precision]):
            output = self._forward(batch.float().div_(255).contiguous(memory_format=layout))
        return output.logits[:, 0].float().cpu().numpy()


class OpenVinoEngine:
    """The network converted for Intel's and AMD's processors, for tiles of one size, one at a time.

    Args:
        network: as for torch, on the CPU.
        shape_hw: of every tile.
        plan: precision and threads.
    Raises:
        CracksegError: OpenVINO is not installed.
        Exception: whatever OpenVINO says of a network that it cannot convert.
    """

    def __init__(self, network: nn.Module, shape_hw: tuple[int, int], plan: Plan) -> None:
        if not has_openvino():
            raise CracksegError("predict.engine: openvino needs OpenVINO: pip install 'crackseg[export]'")
        import openvino

        example = torch.zeros(1, 3, *shape_hw, dtype=torch.uint8)
        with without_advice(), torch.inference_mode():
            model = openvino.convert_model(
                _LogitsNetwork(network).eval(), example_input=example, input=[1, 3, *shape_hw]
            )
        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[plan.precision],
            "INFERENCE_NUM_THREADS": plan.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)

    def __call__(self, tiles_Bhw3: np.ndarray) -> np.ndarray:
        tiles_B3hw = np.ascontiguousarray(tiles_Bhw3.transpose(0, 3, 1, 2))
        # Its result is a view of memory that the next pass overwrites.
        return np.concatenate([self._compiled(tile[None])[0][:, 0].copy() for tile in tiles_B3hw])


class _LogitsNetwork(nn.Module):
    """From stored pixels to one map of log-odds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image.float() / 255).logits


def build_engine(network: nn.Module, device: torch.device, plan: Plan, shape_hw: tuple[int, int]) -> Engine:
    """Build what a plan says; the network given is copied if its memory format has to change."""
    if plan.engine == "openvino":
        return OpenVinoEngine(network, shape_hw, plan)
    return TorchEngine(_in_format(network, channels_last=plan.channels_last), device, plan)


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def has_compiler() -> bool:
    """Whether torch.compile can work here: on a CPU it calls a C++ compiler."""
    return sys.platform != "win32" and any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def _in_format(network: nn.Module, *, channels_last: bool) -> nn.Module:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    weights = [p for p in network.parameters() if p.ndim == 4]
    if all(p.is_contiguous(memory_format=layout) for p in weights):
        return network
    return copy.deepcopy(network).to(memory_format=layout)


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    former = torch.get_num_threads()
    if number in (0, former):
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(former)


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Keep what exporters and converters say of their own steps out of the terminal."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(former)
