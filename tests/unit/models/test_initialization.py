"""Initial weights and weights files, with torchvision's real key layouts and no network."""

import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models
from torchvision.models import segmentation
from torchvision.models.vgg import cfgs, make_layers

from crackseg.errors import CracksegError
from crackseg.models import build_model
from crackseg.models.weights_file import load_network, save_weights

IMAGENET_MOBILENET = "mobilenet_v3_large-8738ca79.pth"
COCO_MOBILENET = "deeplabv3_mobilenet_v3_large-fc3c493d.pth"
MOBILENET = "deeplabv3_mobilenet_v3_large"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """torch.hub's checkpoint folder, empty, and a network that is down."""

    def no_network(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def with_random_values(state_dict):
    generator = torch.Generator().manual_seed(7)
    return {
        key: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value
        for key, value in state_dict.items()
    }


def without_counters(state_dict):
    """As torchvision's older files are."""
    return {key: value for key, value in state_dict.items() if not key.endswith("num_batches_tracked")}


def assert_holds(module, expected):
    state = module.state_dict()
    assert expected
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


def error_of(*args, **kwargs):
    with pytest.raises(CracksegError) as caught:
        build_model(*args, **kwargs)
    return str(caught.value)


def test_imagenet_weights_of_mobilenet_arrive_in_the_backbone(cache):
    state = with_random_values(models.mobilenet_v3_large().state_dict())
    torch.save(state, cache / IMAGENET_MOBILENET)
    network = build_model(MOBILENET, init="imagenet")
    expected = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    assert_holds(network.body.backbone, expected)
    assert len(expected) == len(network.body.backbone.state_dict())


def test_imagenet_weights_of_resnet_arrive_in_the_backbone_though_they_have_no_counters(cache):
    state = without_counters(with_random_values(models.resnet50().state_dict()))
    torch.save(state, cache / "resnet50-0676ba61.pth")
    network = build_model("deeplabv3_resnet50", init="imagenet")
    assert_holds(network.body.backbone, {k: v for k, v in state.items() if not k.startswith("fc.")})


def test_coco_weights_arrive_in_the_backbone_and_the_classifier_is_new(cache):
    published = segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None, num_classes=21, aux_loss=True)
    state = with_random_values(published.state_dict())
    assert any(key.startswith("aux_classifier.") for key in state)
    torch.save(state, cache / COCO_MOBILENET)
    torch.manual_seed(3)
    network = build_model(MOBILENET, init="coco")
    expected = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    assert_holds(network.body.backbone, expected)
    torch.manual_seed(3)
    assert_holds(network.body.classifier, build_model(MOBILENET).body.classifier.state_dict())


@pytest.mark.parametrize(
    ("batch_norm", "file_name"), [(True, "vgg16_bn-6c64b313.pth"), (False, "vgg16-397923af.pth")]
)
def test_deepcracks_encoder_computes_what_vgg16_computes(cache, batch_norm, file_name):
    vgg = make_layers(cfgs["D"], batch_norm=batch_norm)
    values = with_random_values(vgg.state_dict())
    for key, value in values.items():
        if value.ndim == 4:
            value.sub_(1).mul_(0.1)
        elif key.endswith("bias"):
            value.sub_(1)
    vgg.load_state_dict(values)
    state = {f"features.{key}": value for key, value in values.items()}
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, cache / file_name)
    encoder = build_model("deepcrack", init="imagenet", batch_norm=batch_norm).body.encoder.eval()
    ours = theirs = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for stage in encoder:
            ours = torch.max_pool2d(stage(ours), 2)
        theirs = vgg.eval()(theirs)
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "init", "file_name"),
    [
        ("deeplabv3_resnet101", "imagenet", "resnet101-63fe2227.pth"),
        ("deeplabv3_resnet101", "coco", "deeplabv3_resnet101_coco-586e9e4e.pth"),
        ("deepcrack", "imagenet", "vgg16_bn-6c64b313.pth"),
    ],
)
def test_weights_that_cannot_be_downloaded_name_file_folder_and_alternative(
    cache, architecture, init, file_name, capsys
):
    message = error_of(architecture, init=init)
    assert file_name in message
    assert f"https://download.pytorch.org/models/{file_name}" in message
    assert str(cache) in message
    assert "no route to host" in message
    assert "model.init: random" in message
    assert not list(cache.iterdir())
    assert capsys.readouterr().out == ""  # a --json on stdout stays clean


def test_a_download_that_times_out_is_the_same_clear_error(cache, monkeypatch):
    def too_slow(*_args, **_kwargs):
        raise TimeoutError("timed out")

    monkeypatch.setattr("torch.hub.urlopen", too_slow)
    assert "timed out" in error_of(MOBILENET, init="imagenet")


def test_a_download_with_the_wrong_content_is_refused_and_not_kept(cache, monkeypatch, tmp_path):
    (tmp_path / "page.html").write_bytes(b"<html>sign in to the hotel's network</html>")
    page = (tmp_path / "page.html").as_uri()
    monkeypatch.setattr("torch.hub.urlopen", lambda _request: urllib.request.urlopen(page))
    message = error_of(MOBILENET, init="imagenet")
    assert IMAGENET_MOBILENET in message
    assert "invalid hash" in message
    assert not list(cache.iterdir())


def test_a_cached_file_cut_short_is_named_with_what_to_do(cache):
    (cache / IMAGENET_MOBILENET).write_bytes(b"PK\x03\x04 cut short")
    message = error_of(MOBILENET, init="imagenet")
    assert str(cache / IMAGENET_MOBILENET) in message
    assert "delete this file" in message


@pytest.mark.parametrize(
    ("architecture", "init", "available"),
    [("unet", "imagenet", "deepcrack"), ("unet", "coco", "deeplabv3_resnet101"), ("deepcrack", "coco", MOBILENET)],
)
def test_an_architecture_without_such_weights_says_which_have_them(architecture, init, available):
    message = error_of(architecture, init=init)
    assert architecture in message
    assert available in message


def test_a_bare_state_dict_in_torchvisions_layout_is_taken_over_whole(tmp_path):
    theirs = segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None, num_classes=1, aux_loss=True)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    network = build_model(MOBILENET, init=str(tmp_path / "theirs.pth")).eval()
    images = torch.rand(1, 3, 65, 49)
    with torch.inference_mode():
        assert torch.equal(network(images).logits, theirs.eval()(images)["out"])


def test_a_weights_file_of_crackseg_serves_as_initial_weights(tmp_path):
    source = build_model("unet", width=4)
    save_weights(tmp_path / "a.pt", source, spec={"architecture": "unet", "width": 4}, extra={})
    network = build_model("unet", width=4, init=str(tmp_path / "a.pt"), normalize=True)
    assert_holds(network.body, source.body.state_dict())


@pytest.mark.parametrize("init", ["imagnet", "weights/none.pt", ""])
def test_an_init_that_is_neither_a_name_nor_a_file_says_so(init):
    message = error_of("unet", init=init)
    assert repr(init) in message
    assert "random, imagenet, coco" in message
    assert ("did you mean imagenet?" in message) == (init == "imagnet")


@pytest.mark.parametrize("init", ["models:/crackseg/3", "runs:/0123abc/model"])
def test_an_unresolved_uri_is_not_taken_for_a_path(init):
    assert "resolved" in error_of("unet", init=init)


def write(path: Path, content) -> Path:
    torch.save(content, path)
    return path


class NotAllowed:
    """Unpickling this would run code that the file chose."""

    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_that_would_execute_code_is_refused(tmp_path, capsys):
    path = write(tmp_path / "evil.pt", {"weight": NotAllowed()})
    assert "not a weights file" in error_of("unet", init=str(path))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("kept_bytes", [0, 100, 5000])
def test_a_weights_file_cut_short_is_refused(tmp_path, kept_bytes):
    whole = write(tmp_path / "whole.pt", build_model("unet", width=4).body.state_dict()).read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[:kept_bytes])
    assert str(path) in error_of("unet", width=4, init=str(path))
    with pytest.raises(CracksegError, match="damaged or cut short"):
        load_network(path)


def test_a_folder_given_as_weights_is_refused(tmp_path):
    assert "nor a file that exists" in error_of("unet", init=str(tmp_path))
    with pytest.raises(CracksegError, match="cannot be read"):
        load_network(tmp_path)


def test_a_training_checkpoint_is_not_taken_for_a_state_dict(tmp_path):
    path = write(tmp_path / "checkpoint.pt", {"epoch": 3, "optimizer": {}, "network": {}})
    message = error_of("unet", init=str(path))
    assert "epoch, optimizer, network" in message
    assert "model.state_dict()" in message


def test_weights_of_another_architecture_are_refused_by_name(tmp_path):
    path = tmp_path / "unet.pt"
    save_weights(path, build_model("unet", width=4), spec={"architecture": "unet", "width": 4}, extra={})
    message = error_of(MOBILENET, init=str(path))
    assert "weights of unet" in message
    assert MOBILENET in message
    with pytest.raises(CracksegError, match="holds weights of unet, expected deepcrack"):
        load_network(path, expected_architecture="deepcrack")


def test_a_bare_state_dict_of_another_architecture_names_the_first_keys(tmp_path):
    path = write(tmp_path / "resnet.pth", models.resnet18().state_dict())
    message = error_of("unet", width=4, init=str(path))
    assert "missing: encoder.0.0.0.weight" in message
    assert "unknown: conv1.weight" in message


def test_weights_with_another_number_of_classes_name_the_shapes(tmp_path):
    path = write(tmp_path / "two.pth", build_model("unet", width=4, num_classes=2).body.state_dict())
    message = error_of("unet", width=4, init=str(path))
    assert "output.weight: (2, 4, 1, 1) instead of (1, 4, 1, 1)" in message


def test_loading_a_network_leaves_the_random_state_alone(tmp_path):
    path = tmp_path / "unet.pt"
    save_weights(path, build_model("unet", width=4), spec={"architecture": "unet", "width": 4}, extra={})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_network(path)
    assert torch.equal(torch.rand(3), expected)


def test_numpy_numbers_kept_with_the_weights_can_be_read_back(tmp_path):
    path, spec = tmp_path / "unet.pt", {"architecture": "unet", "width": 4}
    save_weights(path, build_model("unet", width=4), spec=spec, extra={"operating_threshold": np.float64(0.5)})
    assert load_network(path)[1] == {"operating_threshold": 0.5}
    with pytest.raises(TypeError):
        save_weights(path, build_model("unet", width=4), spec=spec, extra={"curve": np.zeros(3)})


def test_a_bare_state_dict_cannot_be_loaded_as_a_network(tmp_path):
    path = write(tmp_path / "bare.pth", build_model("unet", width=4).body.state_dict())
    with pytest.raises(CracksegError, match="bare state dict"):
        load_network(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version 2"),
        ({"extra": None}, "parts missing"),
        ({"model": {"architecture": "unet", "depth": 5}}, "depth"),
        ({"model": {"architecture": "unett", "width": 4}}, "did you mean unet"),
        ({"model": {"architecture": "unet", "width": 8}}, "of another shape"),
    ],
)
def test_a_weights_file_that_this_version_cannot_read_says_why(tmp_path, change, words):
    path = tmp_path / "unet.pt"
    save_weights(path, build_model("unet", width=4), spec={"architecture": "unet", "width": 4}, extra={})
    content = torch.load(path, weights_only=True)
    with pytest.raises(CracksegError, match=words):
        load_network(write(path, {**content, **change}))


def test_a_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    network, spec = build_model("unet", width=4), {"architecture": "unet", "width": 4}
    save_weights(tmp_path / "a.pt", network, spec=spec, extra={"epoch": 1})

    def disk_full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crackseg.files.os.replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(tmp_path / "a.pt", network, spec=spec, extra={"epoch": 2})
    assert load_network(tmp_path / "a.pt")[1] == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.pt"]


def test_two_class_weights_do_not_pass_for_one_class(tmp_path):
    path = tmp_path / "weights.pt"
    spec = {"architecture": "unet", "width": 4, "num_classes": 2}
    save_weights(path, build_model(**spec), spec=spec, extra={})
    message = error_of("unet", width=4, init=str(path))
    assert "num_classes 2" in message
    assert "model.num_classes is 1" in message
