"""Checks of this machine: Python, torch, GPU, OpenCV, extras, weights cache, free disk."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from crackseg.cli.doctor.findings import Finding
from crackseg.errors import first_line
from crackseg.params import Params

OLDEST_PYTHON = (3, 11)
_LITTLE_GB, _TOO_LITTLE_GB = 5.0, 1.0
_NOT_FOR_USERS = ("dev", "docs", "bench", "audit")
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def check_python() -> Finding:
    """Check the interpreter, and that it is in a virtual environment."""
    shown = f"{sys.version.split()[0]}, {sys.prefix}"
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding(
            "Python", "failed", shown, f"crackseg needs {oldest} or newer: make setup PYTHON=python{oldest}"
        )
    if sys.prefix == sys.base_prefix:
        advice = "other projects share its packages; `make setup` makes a separate environment"
        return Finding("Python", "warning", f"{shown}, not a virtual environment", advice)
    return Finding("Python", "ok", shown)


def check_torch() -> Finding:
    """Check torch and torchvision, whose versions must match."""
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")
        torch.ones(2).sum().item()
    except Exception as error:  # a missing library, versions that do not match, an unsupported processor
        advice = "pip install -c constraints.txt torch torchvision: their versions must match"
        return Finding("torch", "failed", f"cannot be loaded: {first_line(error)}", advice)
    return Finding("torch", "ok", f"{torch.__version__}, torchvision {version('torchvision')}")


def check_gpu(params: Params | None) -> Finding:
    """Check whether torch can use a GPU, and whether params.yaml asks for one."""
    try:
        torch = importlib.import_module("torch")
    except Exception:  # reported by check_torch
        return Finding("GPU", "warning", "not checked: torch cannot be loaded")
    wanted = params.train.device if params else "auto"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found = f"{torch.cuda.get_device_name()}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        return Finding("GPU", "ok", found)
    if torch.backends.mps.is_available():
        if wanted == "cuda":
            return Finding("GPU", "failed", "mps, but train.device is cuda", "set train.device: auto")
        return Finding("GPU", "ok", "Apple's (mps)")
    if wanted not in ("auto", "cpu"):
        advice = "set train.device: auto, or install a torch build and a driver that see it"
        return Finding("GPU", "failed", f"none, but train.device is {wanted}", advice)
    if shutil.which("nvidia-smi"):
        build = (
            "was built without CUDA" if torch.version.cuda is None else f"was built for CUDA {torch.version.cuda}"
        )
        advice = "run `nvidia-smi`: if it lists a GPU, install a torch build for its driver (pytorch.org)"
        return Finding("GPU", "warning", f"NVIDIA's tools are here, but torch {build} and finds none", advice)
    return Finding("GPU", "ok", "none: training runs on the CPU, and shows first how long it will take")


def check_opencv() -> Finding:
    """Check OpenCV, of which only one build may be installed."""
    builds = [name for name in _OPENCV if _is_installed(name)]
    try:
        cv2 = importlib.import_module("cv2")
    except Exception as error:  # libGL.so.1, as a rule
        advice = f"pip uninstall -y {' '.join(builds) or 'opencv-python'} && pip install opencv-python-headless"
        return Finding("OpenCV", "failed", f"cannot be loaded: {first_line(error)}", advice)
    if len(builds) > 1:
        advice = (
            f"they overwrite each other's files: pip uninstall -y {' '.join(builds)} && pip install {builds[-1]}"
        )
        return Finding("OpenCV", "warning", f"{cv2.__version__}, from {' and '.join(builds)}", advice)
    return Finding("OpenCV", "ok", str(cv2.__version__))


def check_packages(params: Params | None) -> list[Finding]:
    """Check the required packages, and the extras that are complete."""
    try:
        wanted = [Requirement(text) for text in requires("crackseg") or []]
    except PackageNotFoundError:
        advice = "run `make setup`, or pip install -e ."
        return [Finding("packages", "failed", "crackseg itself is not installed", advice)]
    plain = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    missing = [str(r) for r in plain if not _satisfies(r)]
    advice = f"pip install -c constraints.txt {' '.join(repr(m) for m in missing)}"
    packages = Finding("packages", "failed", f"missing or too old: {', '.join(missing)}", advice)
    if not missing:
        packages = Finding("packages", "ok", f"all {len(plain)} that are required")
    return [packages, _check_extras([r for r in wanted if r not in plain], params)]


def _check_extras(wanted: list[Requirement], params: Params | None) -> Finding:
    lacking: dict[str, list[str]] = {}
    for extra in distribution("crackseg").metadata.get_all("Provides-Extra") or []:
        if extra not in _NOT_FOR_USERS:
            of_extra = [r for r in wanted if r.marker and r.marker.evaluate({"extra": extra})]
            lacking[extra] = [r.name for r in of_extra if r.name != "crackseg" and not _satisfies(r)]
    whole = [extra for extra, names in lacking.items() if not names]
    absent = {extra: names for extra, names in lacking.items() if names}
    if params and "models" in absent and _needs_models(params.model.architecture):
        said = f"model.architecture {params.model.architecture} needs {', '.join(absent['models'])}"
        return Finding("extras", "failed", said, "pip install -e '.[models]'")
    shown = f"installed: {', '.join(whole) or 'none'}"
    if not absent:
        return Finding("extras", "ok", shown)
    shown += "; not installed: " + ", ".join(f"{extra} ({' '.join(names)})" for extra, names in absent.items())
    return Finding("extras", "ok", shown, f"where one is needed: pip install -e '.[{','.join(absent)}]'")


def _needs_models(architecture: str) -> bool:
    try:
        return bool(importlib.import_module("crackseg.models").ARCHITECTURES[architecture].extra_packages)
    except Exception:  # torch cannot be loaded, which check_torch reports
        return False


def check_weights_cache(params: Params | None) -> Finding:
    """Check for cached pretrained weights, and whether params.yaml needs any."""
    torch_home = Path(
        os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    )
    hub_home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    )
    folders = [torch_home.expanduser() / "hub" / "checkpoints", hub_home.expanduser() / "hub"]
    files = [path for path in folders[0].glob("*.pth") if path.is_file()]
    encoders = [path for path in folders[1].glob("models--*") if path.is_dir()]
    sizes = sum(path.stat().st_size for path in files) / 1e6
    shown = f"{len(files)} files, {sizes:.0f} MB in {folders[0]}; {len(encoders)} encoders in {folders[1]}"
    init = params.model.init if params else "random"
    if init in ("imagenet", "coco") and not files and not encoders:
        advice = (
            "the first training run downloads them; without a network put them there, or set model.init: random"
        )
        return Finding("weights cache", "warning", f"empty, and model.init is {init} ({shown})", advice)
    return Finding("weights cache", "ok", shown)


def check_disk(places: dict[str, Path]) -> Finding:
    """Check the free space of data, cache and store."""
    free = {name: shutil.disk_usage(_nearest(path)).free / 1e9 for name, path in places.items()}
    shown = ", ".join(f"{gb:.1f} GB for {name}" for name, gb in free.items())
    least = min(free, key=lambda name: free[name])
    advice = f"make room at {places[least]}; `dvc gc --workspace --all-experiments` deletes unused cached files"
    if free[least] < _TOO_LITTLE_GB:
        return Finding("free disk", "failed", f"{shown}: too little for {least}", advice)
    if free[least] < _LITTLE_GB:
        return Finding("free disk", "warning", f"{shown}: little for {least}", advice)
    return Finding("free disk", "ok", shown)


def _nearest(path: Path) -> Path:
    """Return the path, or its nearest existing parent."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _satisfies(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(re.sub(r"\+.*", "", version(requirement.name)), prereleases=True)
    except PackageNotFoundError:
        return False
