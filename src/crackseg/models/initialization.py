"""Initial weights of a network: random, of drawn scenes, ImageNet, COCO, or a file.

``random`` needs nothing here: all models draw their weights when they are built.
"""

from __future__ import annotations

import contextlib
import difflib
import http.client
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from crackseg.errors import CracksegError, first_line
from crackseg.models.encoders import EncoderBody
from crackseg.models.network import NetworkBody
from crackseg.models.shipped import SHIPPED_NAME, WEIGHTS_BY_WIDTH
from crackseg.models.state_dicts import DAMAGED_FILE_ERRORS, StateDict, keys_without, load_state, read_weights
from crackseg.progress import is_quiet

DOWNLOAD_TIMEOUT_S = 30  # without receiving data; torch.hub itself would wait for ever

Loader = Callable[[Any, str], None]
"""Gives a body (or a part of it) pretrained weights; the second argument is the architecture's name, for messages."""


def initialize(
    body: NetworkBody,
    architecture: str,
    init: str,
    *,
    offers: Mapping[str, Mapping[str, Loader]],
    num_classes: int = 1,
) -> None:
    """Give a freshly built body its initial weights.

    Args:
        body: as its constructor left it, with random weights.
        architecture: its name.
        init: ``random``: left as it is. A name from ``offers``: ``scenes`` for the whole network, as crackseg ships
            it (:mod:`crackseg.models.shipped`); ``imagenet`` for the backbone or the encoder;
            ``coco``: the backbone from torchvision's DeepLabV3 weights, trained on COCO with VOC's labels; the
            classifier stays new and random, since the paper replaces all of it (section 3.1), and the auxiliary
            classifier is dropped. Anything else: path of a weights file (crackseg's, or a bare state dict in
            torchvision's key layout), taken over whole.
            A ``models:/…`` or ``runs:/…`` URI has to be resolved to such a path by the caller.
        offers: by architecture and name, what loads pretrained weights.
        num_classes: maps that the body returns; a weights file has to be of as many.
    Raises:
        CracksegError: no such weights for this architecture, no such file, a file of another architecture, or
            a download that failed.
    """
    named = dict.fromkeys(name for of_one in offers.values() for name in of_one)
    if init in offers[architecture]:
        offers[architecture][init](body, architecture)
    elif init in named:
        raise _no_weights(architecture, init, [name for name, of_one in offers.items() if init in of_one])
    elif init != "random":
        _initialize_from_file(body, architecture, init, num_classes, names=("random", *named))


def load_encoder(body: EncoderBody, _architecture: str) -> None:
    """Load a pretrained encoder by name from smp or timm; a Loader."""
    body.load_pretrained_encoder()


def load_shipped(body: NetworkBody, architecture: str) -> None:
    """Take the weights that crackseg ships, for a network of their width; a Loader."""
    width = getattr(body, "width", None)
    path = WEIGHTS_BY_WIDTH.get((architecture, width))
    if path is None:
        have = ", ".join(f"{name} of width {wide} (model.width: {wide})" for name, wide in WEIGHTS_BY_WIDTH)
        raise CracksegError(
            f"model.init = {SHIPPED_NAME!r}: there are no such weights for {architecture} of width {width}, only for "
            f"{have}; set that width, or model.init: random"
        )
    try:
        _take_over(body, architecture, path)
    except CracksegError as error:
        raise CracksegError(
            f"{error}; the weights belong to crackseg: install it again (pip install --force-reinstall)"
        ) from error


def from_torchvision(
    weights: str | Callable[[Any], str], *, part: str, convert: Callable[[StateDict], dict[str, Tensor]]
) -> Loader:
    """Return a Loader of torchvision's published weights.

    Args:
        weights: torchvision's name of them, e.g. ``ResNet50_Weights.IMAGENET1K_V1``; or what gives it for a body.
        part: name of the body's sub-module that takes them.
        convert: from torchvision's state dict to that of the part.
    """

    def load(body: NetworkBody, architecture: str) -> None:
        from torchvision.models import get_weight  # takes seconds to import, and most networks do not need it

        found = get_weight(weights if isinstance(weights, str) else weights(body))
        state = convert(fetch(found))
        load_state(body.get_submodule(part), state, source=_file_name(found), target=f"{architecture}'s {part}")

    return load


def fetch(weights: Any) -> dict[str, Tensor]:
    """Return torchvision weights from torch.hub's cache, or download them into it.

    A downloaded file is checked against the hash in its name, a file that was in the cache is not.

    Raises:
        CracksegError: not in the cache and cannot be downloaded, or the cached file is damaged.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(weights)
    try:
        with _network_timeout(), contextlib.redirect_stdout(sys.stderr):  # torch.hub announces on stdout
            return weights.get_state_dict(
                progress=not is_quiet(), check_hash=True, weights_only=True, map_location="cpu"
            )
    except (http.client.HTTPException, *DAMAGED_FILE_ERRORS) as error:
        reason = getattr(error, "reason", None) or first_line(error)
        if cached.exists():  # torch.hub keeps only complete files, so this one was damaged or copied there
            raise CracksegError(
                f"{cached}: the weights in the cache are damaged or cannot be read ({reason}); delete this file, "
                f"and it is downloaded again from {weights.url}"
            ) from error
        raise CracksegError(
            f"{cached.name}: the pretrained weights are not in the cache and cannot be downloaded ({reason})\n"
            f"  either fetch {weights.url} elsewhere and put it, under this name, into\n"
            f"  {cached.parent}\n"
            "  or start without pretrained weights: model.init: random"
        ) from error


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _initialize_from_file(
    body: NetworkBody, architecture: str, init: str, num_classes: int, *, names: Sequence[str]
) -> None:
    if re.match(r"(models|runs):/", init):
        raise CracksegError(f"model.init = {init!r}: this URI has to be resolved to a local weights file first")
    path = Path(init).expanduser()
    if not path.is_file():
        close = difflib.get_close_matches(init, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "check the path"
        raise CracksegError(
            f"model.init = {init!r}: neither one of {', '.join(names)} nor a file that exists; {hint}"
        )
    _take_over(body, architecture, path, num_classes)


def _take_over(body: NetworkBody, architecture: str, path: Path, num_classes: int | None = None) -> None:
    """Copy a weights file whole; ``num_classes`` None: of as many maps as the file has, or the shapes differ."""
    stored = read_weights(path)
    if stored.model is not None and stored.model.get("architecture") != architecture:
        raise CracksegError(
            f"{path}: holds weights of {stored.model.get('architecture')}, but model.architecture is "
            f"{architecture}; set the one or the other"
        )
    if stored.model is not None and num_classes is not None and stored.model.get("num_classes", 1) != num_classes:
        raise CracksegError(
            f"{path}: holds weights of a model with num_classes {stored.model.get('num_classes', 1)}, but "
            f"model.num_classes is {num_classes}; set the one or the other"
        )
    # torchvision's own files have an auxiliary classifier, which no model here has.
    state = keys_without(stored.state_dict, "aux_classifier.")
    load_state(body, state, source=str(path), target=f"{architecture} as model: describes it")


def _no_weights(architecture: str, init: str, available: list[str]) -> CracksegError:
    return CracksegError(
        f"model.init = {init!r}: there are no such weights for {architecture}, only for {', '.join(available)}; "
        "set model.init: random, or a path of your own weights"
    )


def _file_name(weights: Any) -> str:
    return Path(urlparse(weights.url).path).name
