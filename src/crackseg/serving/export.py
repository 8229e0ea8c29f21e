"""Export a model's network to ONNX or OpenVINO, for programs without torch, and check it on photographs.

The file takes ``image``, uint8 (B, 3, H, W), RGB, and gives ``crack_prob``, float32 (B, 1, H, W) in [0, 1]; B, H and W
are free, H and W at least 32. What belongs to the network (scaling, normalisation, padding, sigmoid) is inside; tiles,
post-processing and the threshold are not: its metadata say what the model uses.

Shape legend: B images, H, W their size.
"""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crackseg.data.catalog import warn_of_source
from crackseg.data.images.files import IMAGE_EXTENSIONS, read_image
from crackseg.errors import CracksegError
from crackseg.files import hash_file, write_bytes
from crackseg.inference.detector import SETTINGS_NAME, WEIGHTS_NAME, ModelSettings
from crackseg.inference.engines import compile_openvino, load_openvino, without_advice
from crackseg.models import ARCHITECTURES
from crackseg.models.network import MIN_SIDE_PX
from crackseg.models.state_dicts import read_weights
from crackseg.models.weights_file import load_network
from crackseg.progress import name_step
from crackseg.registry.package import PROBE_NAME
from crackseg.registry.shipped import name_model
from crackseg.tracking.fetching import fetch_model
from crackseg.tracking.store import Store

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
TOLERANCE = 1e-3  # of probability, in float32
ARTIFACT_DIR = "export"
_LARGEST_SIDE = 16384
_MOST_IMAGES = 20
_Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest difference between the probabilities of the file and of torch.

    Attributes:
        max_difference: of probability, over all pixels of all inputs.
        num_images: photographs compared, each at two sizes, one of them odd.
        num_pixels: compared.
    """

    max_difference: float
    num_images: int
    num_pixels: int


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export.

    Attributes:
        paths: the file, or the two of OpenVINO.
        model: ``models:/NAME/VERSION`` or the folder that it was made from.
        parity: how it compares with torch.
        logged: whether it is also an artifact of the version's run.
        warning: that the model must not be used, a sentence; "" for others. The file carries it in its metadata.
    """

    paths: tuple[Path, ...]
    model: str
    parity: Parity
    logged: bool
    warning: str = ""


class ProbabilityNetwork(nn.Module):
    """Network from uint8 pixels to probabilities, as it is exported."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Take uint8 (B, 3, H, W); return float32 (B, 1, H, W) in [0, 1]."""
        return torch.sigmoid(self.network(image.float() / 255).logits)


def export_model(
    uri: str,
    store: Store | None,
    *,
    file_format: str,
    out_path: Path | None = None,
    images_dir: Path | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Export a model, compare it with torch on photographs, and log it with its version.

    Args:
        uri: ``models:/NAME/VERSION``, or the folder of a downloaded version.
        store: where the version is registered; None for a folder.
        file_format: ``onnx`` or ``openvino``.
        out_path: ends in ``.onnx`` or ``.xml`` (with ``.bin`` next to it); None: named after the version, here.
        images_dir: photographs to compare on, 20 at most; None takes the version's probe.
        tolerance: largest difference of probability that is accepted.
    Raises:
        CracksegError: an architecture that cannot be exported, a library that is not installed, no
            photograph, or a larger difference; nothing is written or logged then.
    """
    suffix = FORMATS[file_format]
    name = name_model(uri)
    out_path = out_path or Path(re.sub(r"\W+", "-", name.removeprefix("models:/")).strip("-") + suffix)
    if out_path.suffix != suffix:
        raise CracksegError(f"--out {out_path}: a file of format {file_format} ends in {suffix}")
    _require(file_format)
    with tempfile.TemporaryDirectory() as scratch:
        folder = fetch_model(uri, Path(scratch) / "model") if store else Path(uri)
        name_step(f"read {name}")
        network, settings, metadata = _open(folder, name)
        images = _read_images(images_dir or _only(folder, PROBE_NAME, name) / "images")
        onnx_path = Path(scratch) / "model.onnx"
        name_step(f"write the network as {file_format}")
        _write_onnx(network, onnx_path, metadata)
        paths = [onnx_path] if file_format == "onnx" else _convert_to_openvino(onnx_path)
        name_step(f"compare the file with torch on {len(images)} photographs, at two sizes")
        parity = compare(network, _RUNNERS[file_format](paths[0]), images, tile_px=settings.predict.tile_size_px)
        if not parity.max_difference <= tolerance:  # also true for NaN
            raise CracksegError(
                f"{name}: probabilities of the {file_format} file differ from torch's by up to "
                f"{parity.max_difference:.2g} on {parity.num_images} photographs, more than {tolerance:g}; nothing was "
                "written (--tolerance sets the limit)"
            )
        written = [out_path.with_suffix(path.suffix) for path in paths]
        for path, target in reversed([*zip(paths, written, strict=True)]):  # OpenVINO's weights before their .xml
            write_bytes(target, path.read_bytes())
        if store:
            name_step("log the file with its version")
            _log(store, uri, file_format, paths, parity)
    warning = warn_of_source(settings.data_source)
    return Exported(tuple(written), name, parity, logged=store is not None, warning=warning)


def compare(network: nn.Module, run: _Run, images: Sequence[np.ndarray], *, tile_px: int) -> Parity:
    """Compare an exported file with torch on photographs, each at its size and at an odd one, and two in one batch.

    Args:
        network: takes uint8 (B, 3, H, W), gives probabilities; on the CPU, in float32.
        run: the same of the file.
        images: uint8 (H, W, 3), RGB; cut to ``tile_px`` where they are larger.
        tile_px: the model's tile.
    """
    worst, num_pixels = 0.0, 0
    for image_HW3 in images:
        tile = image_HW3[:tile_px, :tile_px]
        height, width = (max(MIN_SIDE_PX + 1, side - 5 - side % 2) for side in tile.shape[:2])
        odd = tile[: height - (height + 1) % 2, : width - (width + 1) % 2]
        for batch in (tile[None], np.stack([odd, odd[:, ::-1]])):
            batch_B3HW = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
            with torch.inference_mode():
                expected = network(torch.from_numpy(batch_B3HW)).numpy()
            found = run(batch_B3HW)
            if found.shape != expected.shape:
                raise CracksegError(f"the exported file answers {found.shape} to an image of {batch_B3HW.shape}")
            difference = float(np.abs(found - expected).max())
            worst = max(worst, difference) if np.isfinite(difference) else float("nan")
            num_pixels += expected.size
    return Parity(worst, len(images), num_pixels)


def _open(folder: Path, name: str) -> tuple[ProbabilityNetwork, ModelSettings, dict[str, str]]:
    weights_path = _only(folder, WEIGHTS_NAME, name)
    settings = ModelSettings.read(_only(folder, SETTINGS_NAME, name))
    architecture = (read_weights(weights_path).model or {}).get("architecture")
    if architecture in ARCHITECTURES and ARCHITECTURES[architecture].exports_one_size:
        raise CracksegError(
            f"{name}: {architecture} cannot be exported: its pooling would be tied to one image size; "
            "docs/exporting.md lists the architectures that can"
        )
    network, _ = load_network(weights_path)
    metadata = {
        "crackseg.model": name,
        "crackseg.architecture": str(architecture),
        "crackseg.operating_threshold": repr(settings.operating_threshold),
        "crackseg.predict": settings.predict.model_dump_json(),
        "crackseg.postprocess": settings.postprocess.model_dump_json(),
        "crackseg.weights_sha256": hash_file(weights_path, "sha256"),
    }
    if warning := warn_of_source(settings.data_source):
        metadata["crackseg.warning"] = warning
    return ProbabilityNetwork(network).eval(), settings, metadata


def _only(folder: Path, file_name: str, name: str) -> Path:
    found = sorted(folder.rglob(file_name))
    if len(found) != 1:
        raise CracksegError(
            f"{name}: expected one {file_name} in it, found {len(found)}; register the model again "
            "(`dvc repro --force --single-item register`)"
        )
    return found[0]


def _read_images(folder: Path) -> list[np.ndarray]:
    if not folder.is_dir():
        raise CracksegError(f"{folder}: no such folder of photographs")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_EXTENSIONS)[:_MOST_IMAGES]
    if not paths:
        raise CracksegError(f"{folder}: no photograph to compare on; expected {', '.join(IMAGE_EXTENSIONS)}")
    images = [read_image(path) for path in paths]
    for path, image_HW3 in zip(paths, images, strict=True):
        if min(image_HW3.shape[:2]) <= MIN_SIDE_PX:
            raise CracksegError(
                f"{path}: {image_HW3.shape[1]} x {image_HW3.shape[0]} pixels are too small to compare on; "
                f"each side must be over {MIN_SIDE_PX}"
            )
    return images


def _require(file_format: str) -> None:
    libraries = ("onnx", "onnxscript", "onnxruntime" if file_format == "onnx" else "openvino")
    for library in libraries:
        try:
            load_openvino() if library == "openvino" else importlib.import_module(library)
        except ImportError as error:
            raise CracksegError(
                f"--format {file_format} needs {library} ({error}): pip install 'crackseg[export]'"
            ) from error


def _write_onnx(network: ProbabilityNetwork, path: Path, metadata: dict[str, str]) -> None:
    example = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    height, width = (torch.export.Dim(side, min=MIN_SIDE_PX, max=_LARGEST_SIDE) for side in ("height", "width"))
    free = {0: torch.export.Dim("batch", min=1, max=1024), 2: height, 3: width}
    with without_advice():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=["crack_prob"],
            dynamic_shapes=(free,),
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(metadata)
        program.save(str(path))


def _convert_to_openvino(onnx_path: Path) -> list[Path]:
    openvino = load_openvino()
    model = openvino.convert_model(str(onnx_path))
    path = onnx_path.with_suffix(".xml")
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def _run_onnx(path: Path) -> _Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"image": batch})[0]


def _run_openvino(path: Path) -> _Run:
    # Its default on recent processors is bfloat16, which the comparison must not include.
    compiled = compile_openvino(str(path), {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(batch)[0]


_RUNNERS: dict[str, Callable[[Path], _Run]] = {"onnx": _run_onnx, "openvino": _run_openvino}


def _log(store: Store, uri: str, file_format: str, paths: Sequence[Path], parity: Parity) -> None:
    """Log the file in the version's run, and set tags on the version with its place and the differences."""
    name, version = uri.removeprefix("models:/").split("/")
    run_id = store.client.get_model_version(name, version).run_id
    for path in paths:
        store.client.log_artifact(run_id, str(path), ARTIFACT_DIR)
    content: dict[str, Any] = {
        "artifact": f"{ARTIFACT_DIR}/{paths[0].name}",
        "sha256": {path.name: hash_file(path, "sha256") for path in paths},
        "max_difference": parity.max_difference,
        "num_images": parity.num_images,
    }
    store.client.set_model_version_tag(name, version, f"export.{file_format}", json.dumps(content))
