"""What the doctor says of this machine, played to be in worse shape than it is."""

from __future__ import annotations

import importlib
import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crackseg.cli.doctor import machine
from crackseg.params import Params, change_params, load_params

PARAMS = load_params(Path(__file__).parents[4] / "params.yaml")


def _with(**changes: Any) -> Params:
    return change_params(PARAMS, {key.replace("__", "."): value for key, value in changes.items()}, source="test")


def _break(monkeypatch: pytest.MonkeyPatch, module: str, error: Exception) -> None:
    real = importlib.import_module

    def load(name: str) -> Any:
        if name == module:
            raise error
        return real(name)

    monkeypatch.setattr(machine.importlib, "import_module", load)


def _remove(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    real = machine.version

    def look_up(name: str) -> str:
        if name in packages:
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(machine, "version", look_up)


def test_what_is_fine_is_called_fine() -> None:
    assert machine.check_torch().status == "ok"
    assert machine.check_opencv().status == "ok"
    packages, _extras = machine.check_packages(PARAMS)
    assert packages.status == "ok", packages.message


def test_an_old_python_fails_and_a_shared_one_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "base_prefix", sys.prefix)
    assert machine.check_python().status == "warning"
    monkeypatch.setattr(machine, "OLDEST_PYTHON", (99, 0))
    assert machine.check_python().status == "failed"


def test_a_torchvision_of_another_torch_fails_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    _break(monkeypatch, "torchvision", RuntimeError("operator torchvision::nms does not exist"))
    finding = machine.check_torch()
    assert finding.status == "failed"
    assert "torchvision::nms" in finding.message
    assert "constraints.txt" in finding.advice


def test_an_opencv_that_wants_a_screen_fails_with_the_headless_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _break(monkeypatch, "cv2", ImportError("libGL.so.1: cannot open shared object file"))
    finding = machine.check_opencv()
    assert finding.status == "failed"
    assert "opencv-python-headless" in finding.advice


def test_two_builds_of_opencv_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_is_installed", lambda name: "contrib" not in name)
    assert machine.check_opencv().status == "warning"


@pytest.mark.parametrize(
    ("cuda", "device", "driver", "status"),
    [
        (False, "auto", None, "ok"),
        (False, "cuda", None, "failed"),
        (False, "auto", "/usr/bin/nvidia-smi", "warning"),
        (True, "cuda", None, "ok"),
    ],
)
def test_a_gpu_that_is_asked_for_must_be_there(
    cuda: bool, device: str, driver: str | None, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: cuda, mem_get_info=lambda: (1e9, 2e9), get_device_name=lambda: "a GPU"
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)),
        version=SimpleNamespace(cuda=None),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(shutil, "which", lambda _name: driver)
    finding = machine.check_gpu(_with(train__device=device))
    assert finding.status == status
    assert bool(finding.advice) == (status != "ok")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _remove(monkeypatch, "optuna")
    packages, _ = machine.check_packages(PARAMS)
    assert packages.status == "failed"
    assert "optuna" in packages.message
    assert "optuna" in packages.advice


def test_an_extra_fails_only_where_the_settings_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _remove(monkeypatch, "timm", "segmentation-models-pytorch")
    assert machine.check_packages(PARAMS)[1].status == "ok"
    assert "models (segmentation-models-pytorch timm)" in machine.check_packages(PARAMS)[1].message
    needed = machine.check_packages(_with(model__architecture="segformer"))[1]
    assert needed.status == "failed"
    assert "'.[models]'" in needed.advice


def test_an_empty_cache_is_warned_of_where_weights_will_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    assert machine.check_weights_cache(PARAMS).status == "ok"
    assert machine.check_weights_cache(_with(model__init="imagenet")).status == "warning"
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "hub" / "checkpoints" / "resnet101.pth").write_bytes(b"0" * 3_000_000)
    finding = machine.check_weights_cache(_with(model__init="imagenet"))
    assert finding.status == "ok"
    assert "1 files, 3 MB" in finding.message


@pytest.mark.parametrize(("free_gb", "status"), [(0.2, "failed"), (3.0, "warning"), (80.0, "ok")])
def test_a_full_disk_is_found_before_the_run(
    free_gb: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _path: SimpleNamespace(free=free_gb * 1e9))
    assert machine.check_disk({"the store": tmp_path / "not" / "there"}).status == status
