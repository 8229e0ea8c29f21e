"""The shipped model: it starts a training, it is small, and what cannot be had is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from crackseg.errors import CracksegError
from crackseg.models import build_model, initialization, shipped
from crackseg.models.state_dicts import read_weights
from crackseg.registry.loading import load_model


def test_a_training_starts_from_the_shipped_weights() -> None:
    network = build_model("unet", init="scenes", width=8)
    stored = read_weights(shipped.SHIPPED_WEIGHTS).state_dict
    for key, value in network.body.state_dict().items():
        assert torch.equal(value, stored[key].to(value.dtype)), key
    assert next(network.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("architecture", "options", "said"),
    [
        ("unet", {"width": 16}, r"for unet of width 16, only for unet of width 8 \(model.width: 8\)"),
        ("unet", {}, "of width 16"),
        ("deepcrack", {}, "no such weights for deepcrack, only for unet"),
        ("unet", {"width": 8, "normalize": True}, "model.normalize: false"),
        ("unet", {"width": 8, "num_classes": 2}, "model.num_classes: 1$"),
        ("deeplabv3_resnet50", {"normalize": True}, "no such weights for deeplabv3_resnet50, only for unet"),
    ],
)
def test_a_network_without_such_weights_names_those_that_have(architecture: str, options: dict, said: str) -> None:
    with pytest.raises(CracksegError, match=said):
        build_model(architecture, init="scenes", **options)


def test_a_damaged_file_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = tmp_path / "unet8.pt"
    cut.write_bytes(shipped.SHIPPED_WEIGHTS.read_bytes()[:1000])
    monkeypatch.setattr(initialization, "WEIGHTS_BY_WIDTH", {("unet", 8): cut})
    with pytest.raises(CracksegError, match=r"unet8\.pt.*install it again"):
        build_model("unet", init="scenes", width=8)


def test_the_shipped_files_stay_small() -> None:
    files = [path for path in shipped.SHIPPED_CARD.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6


def test_it_answers_as_its_probe_says() -> None:
    from crackseg.data.images.files import read_image

    probe = json.loads((shipped.SHIPPED_PROBE / "probe.json").read_text(encoding="utf-8"))
    analyzer = load_model("scenes", None).analyzer
    for stem, expected in probe["images"].items():
        found = analyzer.analyze(read_image(shipped.SHIPPED_PROBE / "images" / f"{stem}.png"))
        assert np.isclose(found.crack_fraction, expected["crack_fraction"], rtol=0.1, atol=0.002)
