"""Choose the device, the precision and the determinism of torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from crackseg.errors import CracksegError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 512 << 20, 128 << 20

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _keep_freed_memory() -> None:
    """Let this process keep freed memory for the next tensors: up to 512 MB, blocks of up to 128 MB.

    glibc gives large blocks back to the system when they are freed, and has the system clear new pages for the next
    ones. That was a fifth of the time of a U-Net's pass over 512² on a CPU, and a seventh of a training step. Without
    effect elsewhere than with glibc, or where the user has set it: by ``MALLOC_…`` or ``GLIBC_TUNABLES``.
    """
    chosen = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    if sys.platform != "linux" or any(name in os.environ for name in chosen):
        return
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # musl has none
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)


# Before the first tensor; whatever computes with torch imports this module.
_keep_freed_memory()


def choose_device(name: str) -> torch.device:
    """Turn ``train.device`` into a device: ``auto`` takes cuda, else mps, else cpu.

    Raises:
        CracksegError: torch does not find the named accelerator.
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


def set_determinism(device: torch.device, deterministic: bool) -> None:
    """Choose between deterministic and fastest CUDA kernels for this process; CPU kernels are always deterministic.

    Args:
        device: that will compute; without effect unless it is CUDA.
        deterministic: True repeats a training run bit by bit on the same GPU and versions, and warns of operations
            without a deterministic kernel. False takes the kernels that cuDNN measures to be fastest.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read with the first matrix product
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Only useful for finding bugs, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Return an autocast context for ``dtype``; one without effect for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    # A pass uses each weight once, so caching the cast weights saves nothing, and a CUDA graph cannot hold them.
    return torch.autocast(device.type, dtype=dtype, cache_enabled=False)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Disable TF32, so that float32 gives the same results on a GPU as on a CPU.

    TF32 keeps 11 of float32's 24 bits. For speed, choose float16: as exact as TF32, and faster.
    """
    former = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = former


def describe_device(device: torch.device) -> str:
    """Name the hardware for people and MLflow, e.g. ``cpu (AMD EPYC, x86_64, 2 threads)``."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    words = [_name_cpu(), platform.machine(), f"{threads} thread{'s' if threads > 1 else ''}"]
    return f"{device.type} ({', '.join(word for word in words if word)})"


def _name_cpu() -> str:
    """Return the processor's model, or "" if the system does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        name = platform.processor()
        return "" if name == platform.machine() else name
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
