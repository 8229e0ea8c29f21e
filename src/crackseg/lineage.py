"""Causes of a result: settings, as said at the fields of params, and code, as named for each stage.

From here come the keys of checkpoints and trials, which runs are alike, what a search compares, what a comparison of
runs accepts; tests/rules holds dvc.yaml's deps and params to it, and the code to what the stages import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from crackseg.params import Params
from crackseg.params.effects import Affects, Effect

_Value = TypeVar("_Value")
_SYMBOLS = {"loss.gamma": "γ", "loss.alpha": "α"}

PACKAGE = Path(__file__).parent

CODE: Mapping[str, tuple[str, ...]] = {
    "prepare": ("data", "pipeline/prepare.py"),
    "train": (
        "data/augmentation.py",
        "data/catalog.py",
        "data/dataset.py",
        "data/images",
        "data/pixel_cache.py",
        "evaluation/metrics.py",
        "inference/engines.py",
        "inference/predictor.py",
        "models",
        "pipeline/train.py",
        "training",
    ),
    "predict": ("data/catalog.py", "data/images", "inference", "models", "pipeline/predict.py"),
    "evaluate": ("data/catalog.py", "data/images", "data/masks", "evaluation", "geometry", "pipeline/evaluate.py"),
    "report": ("data/catalog.py", "data/images", "evaluation", "geometry", "pipeline/report.py"),
    "register": (
        "data/catalog.py",
        "data/images",
        "evaluation",
        "geometry",
        "inference",
        "models",
        "pipeline/register.py",
        "registry",
    ),
}
"""By stage, the folders and modules of the package that its results follow from, as in dvc.yaml's deps.

Not among them: what words messages, finds the project, carries settings and records (errors, project, files, params,
types, devices, plotting, tracking). A change there must not train a model again."""


def _read_answers() -> dict[str, tuple[Affects, ...]]:
    answers = {}
    for section, field in Params.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        for name, of_key in field.annotation.model_fields.items():
            answers[f"{section}.{name}"] = tuple(mark for mark in of_key.metadata if isinstance(mark, Affects))
    return answers


ANSWERS: Mapping[str, tuple[Affects, ...]] = _read_answers()
"""By dotted key, what is said at its field."""


def keys_changing(*effects: Effect) -> frozenset[str]:
    """List the keys that change one of these products directly."""
    return frozenset(key for key, marks in ANSWERS.items() if any(mark.effects & set(effects) for mark in marks))


def keys_behind(*effects: Effect, settings: Mapping[str, object] | None = None) -> frozenset[str]:
    """List the keys that one of these products follows from, directly or through what it is made from.

    Args:
        effects: the products.
        settings: flat values, or their text: leave out keys that need other ones to have an effect.
    """
    return frozenset(
        key
        for key, marks in ANSWERS.items()
        if any(mark.reaches(effect) and mark.holds(settings or {}) for mark in marks for effect in effects)
    )


def settings_behind(effect: Effect, settings: Mapping[str, _Value]) -> dict[str, _Value]:
    """Choose the settings that a product follows from.

    Args:
        effect: the product.
        settings: flat, values or their text as MLflow records it. Keys that another version of crackseg had are
            kept: nothing is known of them.
    """
    behind = keys_behind(effect, settings=settings)
    return {key: value for key, value in settings.items() if key in behind or key not in ANSWERS}


def describe_loss(settings: Mapping[str, object]) -> str:
    """Name a loss with the parameters that it reads: ``focal (γ = 2.0, α = 3.0)``.

    Args:
        settings: flat, values or their text as MLflow records it.
    """
    behind = keys_behind(Effect.WEIGHTS, settings=settings) - {"loss.name"}
    keys = [key for key in ANSWERS if key.startswith("loss.") and key in behind and key in settings]
    words = [f"{_SYMBOLS.get(key, key.removeprefix('loss.'))} = {settings[key]}" for key in keys]
    name = str(settings.get("loss.name", "?"))
    return f"{name} ({', '.join(words)})" if words else name


def list_code(*stages: str) -> tuple[Path, ...]:
    """List the modules that the results of these stages follow from, sorted."""
    places = {PACKAGE / place for stage in stages for place in CODE[stage]}
    return tuple(sorted({path for place in places for path in ([place] if place.suffix else place.rglob("*.py"))}))


def hash_code(*stages: str) -> str:
    """Hash the text of :func:`list_code`: changes when any of these files does."""
    digest = hashlib.sha256()
    for path in list_code(*stages):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
