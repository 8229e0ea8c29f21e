"""Encoders by name, from segmentation-models-pytorch (smp) and timm, for the systems of the paper's Table 1.

Both libraries are an optional extra and take seconds to import, so they are imported when an encoder is built.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from crackseg.errors import CracksegError, first_line
from crackseg.models.hub_weights import fetch_from_hub, loading
from crackseg.models.network import MIN_SIDE_PX, NetworkBody
from crackseg.models.packaged_weights import PACKAGED
from crackseg.models.parts import fix_same_padding

PYRAMID_DEPTH = 5  # halvings of the size, as far as every network for classification goes
# What the two libraries raise, among them, for an encoder that does not do what a decoder asks of it.
_UNFIT_ENCODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class PyramidEncoder:
    """Encoder with smp's interface: returns its input, and features with the size halved at each level.

    Attributes:
        name: smp's name, or timm's; if both have it, it is smp's, and ``tu-NAME`` is timm's (as in smp).
        output_stride: 32, or less: then the last levels are dilated instead of halved.
    """

    name: str
    output_stride: int = 32

    def smp_name(self) -> str:
        """Return the name by which smp's own models are given this encoder.

        Raises:
            CracksegError: neither library has it; the nearest names are shown.
        """
        import timm
        from segmentation_models_pytorch.encoders import encoders

        if self.name in encoders:
            return self.name
        timm_name = self.name.removeprefix("tu-")
        if not timm.is_model(timm_name):
            raise _unknown_encoder(self.name, [*encoders, *timm.list_models()])
        return f"tu-{timm_name}"

    def options(self) -> dict[str, Any]:
        """Return further arguments of this encoder's constructor, besides its depth and stride."""
        if self.name.removeprefix("tu-").startswith(("swin_", "swinv2_")):
            # timm builds them for images of one size, and without shifted windows where one window spans the
            # image. Any size, and windows shifted whatever it is: as in Swin's own code for segmentation.
            return {"strict_img_size": False, "always_partition": True}
        return {}

    def build(self, *, pretrained: bool) -> Any:
        """Build the encoder: from images to a list of features, with ``out_channels`` channels.

        Raises:
            CracksegError: there is no such encoder, or its pretrained weights are not available.
            ImportError, or any error of smp's and timm's: see :func:`explained_errors`.
        """
        from segmentation_models_pytorch.encoders import encoders, get_encoder

        name = self.smp_name()
        options = {"depth": PYRAMID_DEPTH, "output_stride": self.output_stride, **self.options()}
        if not pretrained:
            return get_encoder(name, weights=None, **options)
        if name not in encoders:
            options["pretrained_cfg_overlay"] = _timm_weights(name.removeprefix("tu-"))
            with loading(name):
                return get_encoder(name, weights=True, **options)
        from safetensors.torch import load_file

        available = encoders[name]["pretrained_settings"]
        if "imagenet" not in available:
            raise _no_pretrained_weights(name, f"smp has {', '.join(available)} instead")
        encoder = get_encoder(name, weights=None, **options)
        path = fetch_from_hub(available["imagenet"]["repo_id"], revision=available["imagenet"]["revision"])
        with loading(name):
            encoder.load_state_dict(load_file(path))
        return encoder


@dataclass(frozen=True, slots=True)
class VisionTransformer:
    """Plain vision transformer of timm: one feature map, of the last block, before the last norm.

    Attributes:
        name: timm's.
        drop_path_rate: fraction of the residual branches dropped in training, in the last block; rising up to it.
    """

    name: str
    drop_path_rate: float = 0.0

    def build(self, *, pretrained: bool) -> Any:
        """Build the encoder: from images to a list of one (B, C, h, w); ``feature_info`` has C and the patch's side.

        Raises:
            CracksegError: there is no such encoder, it is none of this kind, or its pretrained weights cannot be
                had.
            ImportError, or any error of timm's: see :func:`explained_errors`.
        """
        import timm

        name = self.name.removeprefix("tu-")
        if not timm.is_model(name):
            raise _unknown_encoder(self.name, timm.list_models())
        options: dict[str, Any] = {
            "features_only": True,
            "feature_cls": "getter",
            "out_indices": (-1,),
            "dynamic_img_size": True,  # position embeddings are interpolated to each image's grid of patches
            "drop_path_rate": self.drop_path_rate,
        }
        try:
            encoder: Any = timm.create_model(name, pretrained=False, **options)
        except TypeError as error:
            raise CracksegError(
                f"model.encoder = {self.name!r}: no vision transformer that takes images of any size"
                f"{_native_size(name)}; choose one that does: most vit_*, deit_* and eva02_* of timm"
            ) from error
        if len({level["reduction"] for level in encoder.model.feature_info}) > 1:
            raise CracksegError(
                f"model.encoder = {self.name!r}: this encoder's features shrink from level to level; expected a "
                "plain vision transformer: vit_*, deit_* or eva02_* of timm"
            )
        if not pretrained:
            return encoder
        options["pretrained_cfg_overlay"] = _timm_weights(name)
        with loading(name):
            return timm.create_model(name, pretrained=True, **options)


EncoderSource = PyramidEncoder | VisionTransformer


class EncoderBody(NetworkBody):
    """Body on an encoder by name.

    Args:
        source: builds the encoder, also with pretrained weights.
        encoder: with random weights.
        stride: pixels of the image per position of the encoder's coarsest features.
    """

    def __init__(self, source: EncoderSource, encoder: nn.Module, *, stride: int) -> None:
        super().__init__()
        fix_same_padding(encoder)
        self.source = source
        self.encoder = encoder
        # At least 2 x 2 positions: otherwise a batch of one leaves batch normalisation a single value.
        self.size_multiple = stride if stride < MIN_SIDE_PX else 2 * stride

    def load_pretrained_encoder(self) -> None:
        """Replace the encoder by one with the ImageNet weights of smp or timm.

        Raises:
            CracksegError: there are none, or they cannot be downloaded, or the cached file is damaged.
        """
        self.encoder = self.source.build(pretrained=True)
        fix_same_padding(self.encoder)


@contextlib.contextmanager
def explained_errors(architecture: str, encoder: str, *, usual: str) -> Iterator[None]:
    """Turn errors of the two libraries into a CracksegError that names the setting to change.

    Args:
        architecture, encoder: names; the encoder chosen.
        usual: the encoder that the architecture has if none is chosen.
    """
    try:
        yield
    except CracksegError:
        raise
    except ImportError as error:
        raise CracksegError(
            f"model.architecture = {architecture!r}: it needs segmentation-models-pytorch and timm, which cannot "
            f"be imported ({error}); install them with pip install 'crackseg[models]'"
        ) from error
    except _UNFIT_ENCODER_ERRORS as error:
        raise CracksegError(
            f"model.encoder = {encoder!r}: {architecture} cannot be built on this encoder "
            f'({first_line(error, 500)}); choose another, or set model.encoder: "" for {usual}'
        ) from error


def try_out(body: EncoderBody) -> None:
    """Pass an empty image through the new body, so that an unsuitable encoder is found when it is chosen.

    All tensors are on torch's meta device: only shapes are computed. In training mode, because some encoders cannot be
    trained with a batch of one, which the last batch of an epoch may be.

    Raises:
        RuntimeError: the encoder does not take images of any size, or its features do not fit the decoder.
    """
    height, width = (-(-side // body.size_multiple) * body.size_multiple for side in (96, 64))
    tensors = itertools.chain(body.named_parameters(), body.named_buffers())
    on_meta = {name: tensor.to("meta") for name, tensor in tensors}
    image = torch.empty(1, 3, height, width, device="meta")
    try:
        with torch.no_grad():
            maps = torch.func.functional_call(body, on_meta, (image,))
    except _UNFIT_ENCODER_ERRORS as error:
        what = first_line(error)
        raise RuntimeError(
            f"one image of {width} x {height} pixels: {what}{_native_size(body.source.name)}"
        ) from error
    if maps[0].shape[-2:] != image.shape[-2:]:
        raise RuntimeError(f"one image of {width} x {height} pixels: a map of {tuple(maps[0].shape)}")


def _native_size(name: str) -> str:
    """Return the size for which timm builds an encoder; nothing if the encoder is smp's."""
    from segmentation_models_pytorch.encoders import encoders
    from timm.models import get_pretrained_cfg

    config = None if name in encoders else get_pretrained_cfg(name.removeprefix("tu-"))
    return f"; timm builds it for {config.input_size[2]} x {config.input_size[1]}" if config else ""


def _timm_weights(name: str) -> dict[str, Any]:
    """Find the default weights of a timm model; return the part of its configuration that points to them.

    Those of an installed package come first: the same file everywhere, and no network is needed.
    """
    import timm
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise _no_pretrained_weights(name, "timm has none on the Hugging Face hub")
    packaged = PACKAGED.get(name.removesuffix(f".{config.tag}"))
    if packaged is not None and (path := packaged.find()) is not None:
        return {"state_dict": packaged.read(path, timm.create_model(name).state_dict())}
    shipped_by = packaged.distribution if packaged else ""
    # custom_load is for NumPy files of other places; the hub has all weights in timm's own layout.
    return {"file": str(fetch_from_hub(config.hf_hub_id, shipped_by=shipped_by)), "custom_load": False}


def _no_pretrained_weights(name: str, why: str) -> CracksegError:
    return CracksegError(
        f"model.init = 'imagenet': there are no such weights for model.encoder = {name!r} ({why}); "
        "choose another encoder, or model.init: random"
    )


def _unknown_encoder(name: str, known: list[str]) -> CracksegError:
    names = sorted(set(known))
    close = [other for other in names if other.startswith(name)][:3]
    close = close or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists timm's"
    return CracksegError(f"model.encoder = {name!r}: no encoder of that name; {hint}")
