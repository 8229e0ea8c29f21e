"""The exported file answers as torch does, and says so only if it does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from crackseg.data.images.files import encode_png
from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.models import build_model
from crackseg.serving import export
from crackseg.serving.export import ProbabilityNetwork, compare, export_model
from tests.model_folder import write_model_folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("model"), {"architecture": "unet", "width": 4})


@pytest.fixture(scope="module")
def exported(model_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    return export_model(str(model_dir), None, file_format="onnx", out_path=path)


def test_file_takes_pixels_of_any_size_and_number_and_gives_probabilities(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported.paths[0]), providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 32, 32), (3, 47, 131), (2, 200, 64)):
        image = np.random.default_rng(0).integers(0, 256, (batch, 3, height, width), dtype=np.uint8)
        crack_prob = session.run(None, {"image": image})[0]
        assert crack_prob.shape == (batch, 1, height, width)
        assert crack_prob.dtype == np.float32
        assert 0 <= crack_prob.min() < crack_prob.max() <= 1


def test_parity_is_measured_and_small_but_not_assumed(exported):
    assert 0 < exported.parity.max_difference < 1e-4
    assert exported.parity.num_images == 2
    assert not exported.logged  # a folder has no version


def test_file_says_which_threshold_and_tiles_the_model_uses(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported.paths[0]), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert float(metadata["crackseg.operating_threshold"]) == 0.25
    assert json.loads(metadata["crackseg.predict"])["tile_size_px"] == 64


@pytest.fixture
def exported_before(exported, monkeypatch):
    """Torch's exporter takes seconds, and was run once."""
    monkeypatch.setattr(
        export, "_write_onnx", lambda network, path, metadata: shutil.copy(exported.paths[0], path)
    )


def test_openvino_file_answers_as_torch_too(model_dir, tmp_path, exported_before):
    done = export_model(str(model_dir), None, file_format="openvino", out_path=tmp_path / "model.xml")
    assert [path.name for path in done.paths] == ["model.xml", "model.bin"]
    assert all(path.stat().st_size > 100 for path in done.paths)
    assert done.parity.max_difference < 1e-4


def test_file_of_other_answers_is_refused_and_nothing_is_written(tmp_path, exported_before):
    other = write_model_folder(tmp_path / "other", {"architecture": "unet", "width": 4}, seed=1)
    with pytest.raises(CracksegError, match=r"differ from torch's by up to 0\."):
        export_model(str(other), None, file_format="onnx", out_path=tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_comparison_sees_a_difference_in_one_pixel_of_the_odd_size():
    network = ProbabilityNetwork(build_model("unet", width=4)).eval()

    def run(batch):
        with torch.inference_mode():
            answer = network(torch.from_numpy(batch)).numpy().copy()
        if batch.shape[2] % 2:
            answer[-1, 0, -1, -1] += 0.5
        return answer

    image = np.zeros((64, 48, 3), np.uint8)
    assert compare(network, run, [image], tile_px=64).max_difference == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("architecture", ["pspnet", "upernet"])
def test_architecture_that_cannot_be_exported_is_named(architecture, tmp_path):
    spec = {"architecture": architecture, "encoder": "resnet18" if architecture == "pspnet" else "mit_b0"}
    folder = write_model_folder(tmp_path / "model", spec)
    with pytest.raises(CracksegError, match=f"{architecture} cannot be exported"):
        export_model(str(folder), None, file_format="onnx", out_path=tmp_path / "model.onnx")


def test_wrong_requests_say_what_is_expected(model_dir, tmp_path, monkeypatch):
    with pytest.raises(CracksegError, match=r"ends in \.onnx"):
        export_model(str(model_dir), None, file_format="onnx", out_path=tmp_path / "model.xml")
    with pytest.raises(CracksegError, match="no such folder"):
        export_model(
            str(model_dir), None, file_format="onnx", out_path=tmp_path / "m.onnx", images_dir=Path("nowhere")
        )
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CracksegError, match="no photograph"):
        export_model(str(model_dir), None, file_format="onnx", out_path=tmp_path / "m.onnx", images_dir=empty)
    write_bytes(empty / "small.png", encode_png(np.zeros((20, 90), np.uint8)))
    with pytest.raises(CracksegError, match="too small"):
        export_model(str(model_dir), None, file_format="onnx", out_path=tmp_path / "m.onnx", images_dir=empty)
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(CracksegError, match=r"crackseg\[export\]"):
        export_model(str(model_dir), None, file_format="onnx", out_path=tmp_path / "m.onnx")
