"""Engines that run a network over tiles: eager torch, a CUDA graph, compiled torch, OpenVINO.

Shape legend: B tiles in a pass, h, w a tile.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib.util
import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from crackseg.devices import autocast, full_float32
from crackseg.errors import CracksegError
from crackseg.models.network import is_local

# Before a graph is recorded: libraries allocate memory and choose kernels in their first passes.
_WARM_UP_PASSES = 3
_MOST_RECORDINGS = 8  # of a graph: each size of tiles has one, with memory of its own
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CAST_BY_AUTOCAST = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_FOLDING_PX = 32  # of the example that folding is observed and checked with: what every network takes
_MOST_OFF_FOLDED = 1e-6  # of the largest log-odds, in float64

ANY_SIZE = ("torch", "graph", "openvino")
"""Engines that run a local network over tiles of any size, not only of the one that they were built for."""

Engine = Callable[[np.ndarray], np.ndarray]
"""Function from uint8 tiles (B, h, w, 3), RGB, to float32 logits (B, h, w)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Execution plan.

    Attributes:
        engine: ``torch``, ``graph``, ``compile`` or ``openvino``.
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
        """Return the fields for JSON."""
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
            # A GPU is through with a small network before Python has named its kernels one by one.
            mode = "reduce-overhead" if device.type == "cuda" else None
            self._forward = torch.compile(network, dynamic=False, mode=mode)

    @torch.inference_mode()
    def __call__(self, tiles_Bhw3: np.ndarray) -> np.ndarray:
        self.network.eval()
        with _threads(self.plan.threads), full_float32():
            return self._compute(torch.from_numpy(tiles_Bhw3).to(self.device)).cpu().numpy()

    def _compute(self, tiles_Bhw3: Tensor) -> Tensor:
        """Compute float32 logits (B, h, w) from uint8 tiles, both on the device."""
        layout = torch.channels_last if self.plan.channels_last else torch.contiguous_format
        batch = tiles_Bhw3.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=layout)
        with autocast(self.device, _DTYPES[self.plan.precision]):
            output = self._forward(batch)
        return output.logits[:, 0].float()


class GraphEngine(TorchEngine):
    """CUDA graph: torch's kernels of one pass, recorded once and then launched together.

    A GPU finishes most kernels of one tile before Python has launched the next one; a graph needs no Python.

    Args:
        network, device, plan: as for TorchEngine; CUDA. The weights must not be moved afterwards.
    """

    def __init__(self, network: nn.Module, device: torch.device, plan: Plan) -> None:
        super().__init__(network, device, plan)
        self._recordings: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    @torch.inference_mode()
    def __call__(self, tiles_Bhw3: np.ndarray) -> np.ndarray:
        # A last pass of fewer tiles runs one by one instead of needing another recording.
        together = len(tiles_Bhw3) if len(tiles_Bhw3) == self.plan.batch_size else 1
        shape = (together, *tiles_Bhw3.shape[1:])
        if shape not in self._recordings:
            if len(self._recordings) == _MOST_RECORDINGS:
                return super().__call__(tiles_Bhw3)
            self._recordings[shape] = self._record(shape)
        graph, tiles, logits = self._recordings[shape]
        answers = []
        for start in range(0, len(tiles_Bhw3), together):
            tiles.copy_(torch.from_numpy(tiles_Bhw3[start : start + together]))
            graph.replay()
            answers.append(logits.cpu().numpy())
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _record(self, shape: tuple[int, ...]) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """Return a graph, and the memory that it reads tiles from and writes logits to."""
        self.network.eval()
        tiles = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream(self.device)
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside), full_float32(), _fastest_kernels():
            for _ in range(_WARM_UP_PASSES):
                self._compute(tiles)
            with torch.cuda.graph(graph, stream=aside):
                logits = self._compute(tiles)
        torch.cuda.current_stream(self.device).wait_stream(aside)
        return graph, tiles, logits


class OpenVinoEngine:
    """Network converted for CPUs by OpenVINO, one tile at a time.

    Args:
        network: as for torch, on the CPU.
        shape_hw: of every tile; a local network takes tiles of any size.
        plan: precision and threads.
    Raises:
        CracksegError: OpenVINO is not installed.
        Exception: OpenVINO's error for a network that it cannot convert.
    """

    def __init__(self, network: nn.Module, shape_hw: tuple[int, int], plan: Plan) -> None:
        if not has_openvino():
            raise CracksegError("predict.engine: openvino needs OpenVINO: pip install 'crackseg[export]'")
        openvino = load_openvino()
        size = [-1, -1] if is_local(network) else [*shape_hw]
        example = torch.zeros(1, 3, *shape_hw, dtype=torch.uint8)
        with without_advice(), torch.inference_mode():
            model = openvino.convert_model(
                _LogitsNetwork(network).eval(), example_input=example, input=[1, 3, *size]
            )
        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[plan.precision],
            "INFERENCE_NUM_THREADS": plan.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = compile_openvino(model, settings)

    def __call__(self, tiles_Bhw3: np.ndarray) -> np.ndarray:
        tiles_B3hw = np.ascontiguousarray(tiles_Bhw3.transpose(0, 3, 1, 2))
        # Its result is a view of memory that the next pass overwrites.
        return np.concatenate([self._compiled(tile[None])[0][:, 0].copy() for tile in tiles_B3hw])


class _LogitsNetwork(nn.Module):
    """Network from stored pixels, 0 to 255, to one map of log-odds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image.float() / 255).logits


def build_engine(network: nn.Module, device: torch.device, plan: Plan, shape_hw: tuple[int, int]) -> Engine:
    """Build the engine of an execution plan; the network is copied if it has to change."""
    if plan.engine == "openvino":
        return OpenVinoEngine(network, shape_hw, plan)
    prepared = _prepare(network, device, plan)
    if plan.engine == "graph":
        return GraphEngine(prepared, device, plan)
    return TorchEngine(prepared, device, plan)


def has_openvino() -> bool:
    """Return True if OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def load_openvino() -> ModuleType:
    """Import OpenVINO without the telemetry that it brings.

    That reports each import and each conversion to its makers, by a process that takes two seconds of the processor
    and, offline, waits for a timeout. Without the module OpenVINO takes a stand-in of its own, which does nothing.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def compile_openvino(model: Any, settings: dict[str, Any]) -> Any:
    """Compile a model, or the file of one, for the CPU; Ctrl-C and other signals are handled as before.

    On processors with large registers (AVX-512) OpenVINO gives each compiled model's thread a stack for signals of its
    own, and puts back that of a model which is gone by then. Python's handlers run on such a stack, and the process
    ended by SIGSEGV with the next signal. Without one they run on the usual stack.
    """
    compiled = load_openvino().Core().compile_model(model, "CPU", settings)
    if sys.platform == "linux":
        none = _SignalStack(None, _SS_DISABLE, 0)
        ctypes.CDLL(None).sigaltstack(ctypes.byref(none), None)
    return compiled


class _SignalStack(ctypes.Structure):
    """``stack_t`` of ``sigaltstack(2)``."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


_SS_DISABLE = 2


def has_compiler() -> bool:
    """Return True if torch.compile can work here: on a CPU it calls a C++ compiler."""
    return sys.platform != "win32" and any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def _prepare(network: nn.Module, device: torch.device, plan: Plan) -> nn.Module:
    """Prepare a copy of the network for a plan: fold, cast and lay out the weights once instead of in each pass."""
    if not plan.channels_last:  # default torch
        return copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    prepared = fold_batch_norm(network)
    for module in prepared.modules():
        if isinstance(module, _CAST_BY_AUTOCAST):
            module.to(_DTYPES[plan.precision])
    return prepared.to(memory_format=torch.channels_last)


@contextlib.contextmanager
def _fastest_kernels() -> Iterator[None]:
    """Let cuDNN measure the fastest kernels, unless deterministic ones are required."""
    former = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = former


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
    """Suppress the log messages and warnings of exporters and converters."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(former)


@torch.no_grad()
def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Copy a network, with every batch normalisation that directly follows a convolution folded into its weights.

    The order of the modules is observed in one pass, so it works for any network. A convolution or a normalisation that
    is used twice in a pass is not folded. Other readers of a convolution's result than the normalisation are not seen:
    if the copy's answer for an example is another one for that reason, nothing is folded.

    Args:
        network: is not changed; returns ModelOutput.
    Returns:
        In evaluation mode; up to rounding it gives the same results as ``network``.
    """
    weight = next(network.parameters())
    folded = copy.deepcopy(network).eval().to("cpu", torch.float64)  # in which rounding hides nothing
    example_B3HW = torch.rand((1, 3, _FOLDING_PX, _FOLDING_PX), generator=torch.Generator().manual_seed(0))
    example_B3HW = example_B3HW.double()
    calls: dict[nn.Module, int] = {}
    # By the id of the result, which is kept so that its id is not used again.
    made_by: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made_by[id(output)] = (module, output)
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made_by:
            pairs.append((made_by[id(inputs[0])][0], module))

    hooks = [m.register_forward_hook(note) for m in folded.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    expected = folded(example_B3HW).logits
    for hook in hooks:
        hook.remove()
    if not pairs:
        return folded.to(weight)
    names = {module: name for name, module in folded.named_modules()}
    for convolution, normalisation in pairs:
        # One without running statistics normalises by the batch at hand.
        if calls[convolution] == calls[normalisation] == 1 and normalisation.running_mean is not None:
            _fold(convolution, normalisation)
            parent, _, name = names[normalisation].rpartition(".")
            setattr(folded.get_submodule(parent), name, _keep_activation(normalisation))
    off = (folded(example_B3HW).logits - expected).abs().max() / expected.abs().max().clamp_min(1)
    return folded.to(weight) if off <= _MOST_OFF_FOLDED else copy.deepcopy(network).eval()


def _keep_activation(normalisation: nn.BatchNorm2d) -> nn.Module:
    """Return what a normalisation does besides: timm's (``BatchNormAct2d``) hold their activation, torch's nothing."""
    parts = (getattr(normalisation, name, None) for name in ("drop", "act"))
    return nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))


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
