"""Which processor computes, in which precision."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

import torch

from crackseg.errors import CracksegError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Turn ``train.device`` into a device: ``auto`` takes cuda, else mps, else cpu.

    Raises:
        CracksegError: the named accelerator is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available.get(name, False):
        present = ", ".join(kind for kind, there in available.items() if there)
        raise CracksegError(
            f"train.device = {name!r}: torch {torch.__version__} finds no such device here (present: {present}); "
            "set train.device to auto, or install a torch build and driver that see it"
        )
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn ``train.precision`` into the dtype of autocast.

    ``auto`` takes bfloat16 where the processor multiplies it natively (measured on a CPU with AVX-512 bf16: a
    training step of DeepLabV3-ResNet101 takes 8.2 s instead of 17.5 s), else float32.
    """
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)():
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to ``dtype``; nothing at all for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def describe_device(device: torch.device) -> str:
    """Name the hardware for people and MLflow, e.g. ``cpu (AMD EPYC, x86_64, 2 threads)``."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    words = [_name_cpu(), platform.machine(), f"{threads} thread{'s' if threads > 1 else ''}"]
    return f"{device.type} ({', '.join(word for word in words if word)})"


def _name_cpu() -> str:
    """The processor's model where the system tells it, else ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        name = platform.processor()
        return "" if name == platform.machine() else name
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
