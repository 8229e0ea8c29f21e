"""What every architecture has to do; a new one is tested by its name in `ARCHITECTURES` alone."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crackseg.errors import CracksegError
from crackseg.inference.predictor import Predictor
from crackseg.models import ARCHITECTURES, build_model
from crackseg.models.deepcrack import _unpool
from crackseg.models.weights_file import ZerosForRandomNumbers, load_network, save_weights
from crackseg.params import PredictParams
from crackseg.types import ModelOutput

SMALL_ENCODERS = {  # of the same kind as an architecture's own
    "resnet101": "resnet18",
    "mit_b3": "mit_b0",
    "swin_small_patch4_window7_224": "mit_b0",
    "deit_base_patch16_384": "vit_tiny_patch16_224",
}


def small(architecture):
    """Give the options that make an architecture quick to test; some have no smaller form."""
    row = ARCHITECTURES[architecture]
    width = {"width": 8 if row.num_side_outputs else 4} if row.width else {}
    return width | ({"encoder": SMALL_ENCODERS.get(row.encoder, row.encoder)} if row.encoder else {})


EVERY_ARCHITECTURE = [  # deeplabv3_resnet50 is deeplabv3_resnet101 with fewer blocks
    pytest.param(name, marks=[pytest.mark.slow] if name == "deeplabv3_resnet50" else []) for name in ARCHITECTURES
]
SMP_ARCHITECTURES = ("unet_encoder", "pspnet", "deeplabv3plus", "segformer", "upernet")


def build(architecture, *, num_classes=1, **options):
    """Build a network with the weights that seed 0 draws, which takes most of the time and is done once."""
    with ZerosForRandomNumbers():
        network = build_model(architecture, num_classes=num_classes, **small(architecture), **options)
    network.body.load_state_dict(_drawn_weights(architecture, num_classes))
    torch.manual_seed(0)
    return network


@cache
def _drawn_weights(architecture, num_classes):
    torch.manual_seed(0)
    return build_model(architecture, num_classes=num_classes, **small(architecture)).body.state_dict()


def images(batch=1, height=65, width=49, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def bce_of_all_outputs(output: ModelOutput):
    mask = torch.zeros_like(output.logits)
    mask[..., 20, :] = 1
    return sum(F.binary_cross_entropy_with_logits(logits, mask) for logits in (output.logits, *output.side_logits))


@pytest.fixture
def small_parts(architecture, monkeypatch):
    """Make parts small that have no option for it: ResNet101 of 5 blocks, UPerNet's decoder of 64 channels."""
    if architecture == "deeplabv3_resnet101":
        from torchvision.models.resnet import Bottleneck, ResNet
        from torchvision.models.segmentation import deeplabv3

        def resnet(weights, **options):
            return ResNet(Bottleneck, [1, 1, 2, 1], **options)

        monkeypatch.setattr(deeplabv3, "resnet101", resnet)
    if architecture == "upernet":
        import segmentation_models_pytorch as smp

        original = smp.UPerNet
        monkeypatch.setattr(smp, "UPerNet", lambda *a, **o: original(*a, **o | {"decoder_channels": 64}))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
class TestEveryArchitecture:
    def test_logits_have_the_images_size_whatever_it_is(self, architecture):
        network = build(architecture).eval()
        for size in ((65, 49), (32, 32), (33, 100)):
            with torch.inference_mode():
                output = network(images(2, *size))
            assert isinstance(output, ModelOutput)
            assert len(output.side_logits) == ARCHITECTURES[architecture].num_side_outputs
            for logits in (output.logits, *output.side_logits):
                assert logits.shape == (2, 1, *size)
                assert logits.dtype == torch.float32
                assert logits.isfinite().all()

    def test_every_trained_parameter_gets_a_gradient(self, architecture):
        network = build(architecture)
        for module in network.modules():
            if type(module).__name__ == "DropPath":
                module.drop_prob = 0.0  # chance would leave whole blocks without a gradient
        bce_of_all_outputs(network(images(2))).backward()
        without = [
            name
            for name, parameter in network.named_parameters()
            if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
        ]
        assert not without

    def test_a_batch_of_one_trains_and_lowers_the_loss(self, architecture):
        network = build(architecture)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = bce_of_all_outputs(network(images(1)))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        assert all(parameter.isfinite().all() for parameter in network.state_dict().values())

    def test_evaluation_repeats_itself_and_does_not_depend_on_the_batch(self, architecture):
        network = build(architecture)
        network(images(2))  # running statistics away from their initial values
        network.eval()
        with torch.inference_mode():
            pair = network(images(2)).logits
            again = network(images(2)).logits
            alone = network(images(2)[:1]).logits
        assert torch.equal(pair, again)
        torch.testing.assert_close(pair[:1], alone, rtol=1e-4, atol=1e-4)

    def test_saved_and_loaded_it_predicts_the_same_to_the_bit(self, architecture, tmp_path):
        options = {"num_classes": 2, "normalize": True, "train_layers": "classifier"}
        network = build(architecture, **options)
        with torch.no_grad():
            network(images(2))
        network.eval()
        spec = {"architecture": architecture, **small(architecture), "init": "imagenet", **options}
        save_weights(tmp_path / "weights.pt", network, spec=spec, extra={"operating_threshold": 0.25})
        loaded, extra = load_network(tmp_path / "weights.pt", expected_architecture=architecture)
        assert extra == {"operating_threshold": 0.25}
        with torch.inference_mode():
            for ours, theirs in zip(network(images()), loaded(images()), strict=True):
                for a, b in zip(ours, theirs, strict=True):
                    assert torch.equal(a, b)

    def test_two_classes_give_the_log_odds_of_softmax(self, architecture):
        network = build(architecture, num_classes=2, normalize=False).eval()
        multiple = network.body.size_multiple
        batch = images(1, 2 * max(multiple, 32), 64)  # needs no padding, so the body can be asked directly
        with torch.inference_mode():
            output = network(batch)
            maps = network.body(batch)
        for logits, maps_B2HW in zip((output.logits, *output.side_logits), maps, strict=True):
            assert maps_B2HW.shape[1] == 2
            torch.testing.assert_close(logits.sigmoid()[:, 0], maps_B2HW.softmax(dim=1)[:, 1])

    def test_normalize_is_the_same_as_normalising_before_and_changes_no_key(self, architecture):
        plain = build(architecture).eval()
        normalizing = build(architecture, normalize=True).eval()
        assert list(plain.state_dict()) == list(normalizing.state_dict())
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        with torch.inference_mode():
            inside = normalizing(images()).logits
            before = plain((images() - mean) / std).logits
        assert torch.equal(inside, before)

    def test_train_layers_classifier_trains_the_head_and_nothing_else(self, architecture):
        network = build(architecture, train_layers="classifier")
        before = {name: value.clone() for name, value in network.body.named_parameters()}
        trained = {name for name, parameter in network.body.named_parameters() if parameter.requires_grad}
        heads = {
            "deepcrack": ("side_output.", "output."),
            "unet": ("output.",),
            "modified_unet": ("output.",),
            **dict.fromkeys(SMP_ARCHITECTURES, ("decoder.", "segmentation_head.")),
        }.get(architecture, ("classifier.",))
        assert trained == {name for name in before if name.startswith(heads)}
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        bce_of_all_outputs(network(images(2))).backward()
        optimizer.step()
        changed = {name for name, value in network.body.named_parameters() if not torch.equal(value, before[name])}
        assert changed == trained

    def test_the_common_predictor_maps_a_photograph_larger_than_a_tile(self, architecture):
        photograph = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
        params = PredictParams(tile_size_px=64, overlap_px=16, batch_size=4)
        network = build(architecture, normalize=True)
        predictor = Predictor(network, params, device=torch.device("cpu"), precision=torch.bfloat16)
        crack_prob = predictor.predict_prob(photograph)
        assert crack_prob.shape == (70, 100)
        assert crack_prob.dtype == np.float32
        assert ((crack_prob >= 0) & (crack_prob <= 1)).all()

    def test_channels_last_gives_the_same_logits(self, architecture):
        network = build(architecture).eval()
        with torch.inference_mode():
            contiguous = network(images()).logits
            network = network.to(memory_format=torch.channels_last)
            channels_last = network(images().to(memory_format=torch.channels_last)).logits
        # Of equal pixels, a pooling whose indices are used again (DeepCrack) takes either, hence not every pixel.
        apart = ~torch.isclose(channels_last, contiguous, rtol=1e-3, atol=1e-3)
        assert apart.double().mean() < 0.005
        torch.testing.assert_close(channels_last, contiguous, rtol=0.05, atol=0.05)


def test_frozen_pretrained_layers_keep_their_batch_statistics_in_training(tmp_path):
    torch.save(build("deepcrack").body.state_dict(), tmp_path / "own.pth")
    network = build_model(
        "deepcrack", **small("deepcrack"), init=str(tmp_path / "own.pth"), train_layers="classifier"
    )
    network.train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(images(2))
    assert len(before) > 0
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_the_head_on_a_frozen_pretrained_backbone_still_adapts_its_statistics(tmp_path):
    torch.save(build("deeplabv3_mobilenet_v3_large").body.state_dict(), tmp_path / "own.pth")
    network = build_model(
        "deeplabv3_mobilenet_v3_large", init=str(tmp_path / "own.pth"), train_layers="classifier"
    )
    before = {name: value.clone() for name, value in network.body.named_buffers()}
    network(images(2))
    changed = {name for name, value in network.body.named_buffers() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("classifier.") for name in changed)


def test_features_of_a_frozen_random_resnet101_stay_in_the_range_of_float16():
    network = build_model("deeplabv3_resnet101", train_layers="classifier")
    with torch.no_grad():
        features = network.body.backbone(images(2))["out"]
    assert 0.1 < features.abs().max() < 1000


def test_deeplabs_pooling_branch_uses_running_statistics_for_a_batch_of_one_only():
    pooled_norm = build("deeplabv3_mobilenet_v3_large").body.classifier[0].convs[-1][2]
    pooled_norm.running_mean.fill_(3.0)
    pooled = torch.full((1, 256, 1, 1), 5.0)
    torch.testing.assert_close(pooled_norm(pooled), torch.full_like(pooled, 2.0), rtol=1e-4, atol=1e-4)
    assert (pooled_norm.running_mean == 3).all()
    pair = torch.cat([pooled, pooled + 2])
    torch.testing.assert_close(pooled_norm(pair).sum(dim=0), torch.zeros(256, 1, 1))
    assert (pooled_norm.running_mean > 3).all()


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [
        ("deeplabv3_resnet101", 58.6),  # stated for one output and no auxiliary head
        ("unet", 1.9),
        ("modified_unet", 31.0),
        ("deepcrack", 29.6),
        ("unet_encoder", 3.8),
        pytest.param("pspnet", 48.8, marks=pytest.mark.slow),
        pytest.param("deeplabv3plus", 45.7, marks=pytest.mark.slow),
        pytest.param("encnet", 52.5, marks=pytest.mark.slow),
        pytest.param("segformer", 47.2, marks=pytest.mark.slow),
        pytest.param("upernet", 80.3, marks=pytest.mark.slow),
        pytest.param("setr", 89.6, marks=pytest.mark.slow),
        pytest.param("segmenter", 102.0, marks=pytest.mark.slow),
    ],
)
def test_parameter_counts_are_the_documented_ones(architecture, millions):
    with ZerosForRandomNumbers():
        count = sum(parameter.numel() for parameter in build_model(architecture).parameters())
    assert round(count / 1e6, 1) == millions


def test_deepcrack_has_vgg16s_thirteen_convolutions_and_their_mirror():
    with ZerosForRandomNumbers():
        body = build_model("deepcrack").body
    encoder = [m for m in body.encoder.modules() if isinstance(m, nn.Conv2d)]
    decoder = [m for stage in reversed(body.decoder) for m in stage.modules() if isinstance(m, nn.Conv2d)]
    encoder_widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert [m.out_channels for m in encoder] == encoder_widths
    assert [m.in_channels for m in decoder] == encoder_widths[::-1]
    assert all(m.in_channels == previous.out_channels for previous, m in itertools.pairwise(decoder))


def test_deepcrack_unpools_to_where_the_maximum_was():
    features = images(2, 8, 12)
    pooled, indices = F.max_pool2d(features, 2, return_indices=True)
    assert torch.equal(_unpool(pooled, indices, features), F.max_unpool2d(pooled, indices, 2))


def test_deepcrack_without_batch_norm_has_none_and_trains():
    network = build_model("deepcrack", width=8, batch_norm=False)
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    bce_of_all_outputs(network(images(1))).backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize(
    "architecture",
    [
        "unet",
        "deepcrack",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("deeplabv3_mobilenet_v3_large", "unet_encoder", "pspnet", "deeplabv3plus", "encnet")
        ),
    ],
)
def test_torch_export_keeps_height_width_and_batch_free(architecture):
    network = build_model(architecture, **small(architecture), num_classes=2, normalize=True).eval()
    sizes = {name: torch.export.Dim(name, min=33, max=4096) for name in ("height", "width")}
    free = {0: torch.export.Dim("batch", min=1, max=64), 2: sizes["height"], 3: sizes["width"]}
    program = torch.export.export(network, (images(2, 64, 96),), dynamic_shapes=(free,))
    for batch in (images(1, 65, 49), images(3, 96, 70)):
        with torch.no_grad():
            torch.testing.assert_close(program.module()(batch).logits, network(batch).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["segformer", "upernet", "setr", "segmenter"])
def test_torch_export_of_a_transformer_keeps_the_batch_free_at_one_size(architecture):
    network = build_model(architecture, **small(architecture), num_classes=2, normalize=True).eval()
    free = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(network, (images(2, 65, 97),), dynamic_shapes=(free,))
    for batch in (images(1, 65, 97), images(3, 65, 97, seed=1)):
        with torch.no_grad():
            torch.testing.assert_close(program.module()(batch).logits, network(batch).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"architecture": "deeplabv3_resnet_101"},
            ["did you mean deeplabv3_resnet101", "modified_unet"],
        ),
        ({"architecture": "xyz"}, ["'xyz'", "deeplabv3_resnet101", "deepcrack"]),
        ({"num_classes": 3}, ["num_classes", "3", "1, 2"]),
        ({"num_classes": True}, ["num_classes", "True"]),
        ({"train_layers": "classifer"}, ["train_layers", "did you mean classifier"]),
        ({"width": 0}, ["width", "0"]),
        ({"width": True}, ["width", "True"]),
        (
            {"architecture": "deeplabv3_resnet101", "width": 16},
            ["deeplabv3_resnet101", "unet, modified_unet", "null"],
        ),
        ({"encoder": "resnet18"}, ["unet has no encoder", "pspnet", "segmenter", 'model.encoder: ""']),
        ({"batch_norm": False}, ["batch_norm", "unet", "deepcrack"]),
    ],
)
def test_a_wrong_option_is_named_with_what_is_valid(options, words):
    with pytest.raises(CracksegError) as caught:
        build_model(**{"architecture": "unet", **options})
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.rand(1, 3, 31, 64), ["64 x 31", "32 x 32"]),
        (torch.rand(1, 64, 64, 3), ["(1, 64, 64, 3)", "channels first"]),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["uint8", "255"]),
    ],
)
def test_images_of_the_wrong_kind_are_refused_with_their_shape(batch, words):
    with pytest.raises(CracksegError) as caught:
        build("unet")(batch)
    assert all(word in str(caught.value) for word in words)
