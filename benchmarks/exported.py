"""The exported U-Net in ONNX Runtime and in OpenVINO against our own path through torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.inference import SIZE_PX, make_network, model_folder
from benchmarks.measure import Effort, Row, measure_in_turn
from benchmarks.scenes import draw_pair
from crackseg.inference.engines import load_openvino
from crackseg.inference.predictor import build_predictor
from crackseg.params import PredictParams
from crackseg.serving.export import export_model

_ARCHITECTURE = "unet"


def run(effort: Effort) -> list[Row]:
    """Rows ``onnx`` and ``openvino``; exporting compares the file with torch, and fails if it differs."""
    params = PredictParams(tile_size_px=SIZE_PX, overlap_px=64, batch_size=1)
    network = make_network(_ARCHITECTURE)
    predictor = build_predictor(network, params, device="cpu", precision="float32")
    image, _ = draw_pair(0)
    tile = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        model_folder(folder, _ARCHITECTURE, network)
        proofs = {}
        for file_format, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
            path = Path(scratch) / f"exported{suffix}"
            exported = export_model(str(folder), None, file_format=file_format, out_path=path)
            proofs[file_format] = exported.parity.max_difference
        session = onnxruntime.InferenceSession(
            str(Path(scratch) / "exported.onnx"), providers=["CPUExecutionProvider"]
        )
        compiled = load_openvino().compile_model(
            str(Path(scratch) / "exported.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        torch_s, onnx_s, openvino_s = measure_in_turn(
            [
                lambda: predictor.predict_prob(image),
                lambda: session.run(None, {"image": tile}),
                lambda: compiled(tile),
            ],
            repeats=effort.pick(15, 7),
        )
    name = f"our torch path, {_ARCHITECTURE}, float32"
    return [
        Row("onnx", onnx_s, torch_s, name, "s/image", f"probabilities differ by {proofs['onnx']:.1e} at most"),
        Row(
            "openvino",
            openvino_s,
            torch_s,
            name,
            "s/image",
            f"probabilities differ by {proofs['openvino']:.1e} at most",
        ),
    ]
