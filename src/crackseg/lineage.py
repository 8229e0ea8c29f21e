"""Settings and code that a result depends on: settings as annotated in params, code as listed for each stage.

Checkpoints, searches and comparisons of runs derive their lists from here. tests/rules checks that dvc.yaml names the
same, and that the listed code covers what the stages import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
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
        "data/synthetic",
        "evaluation/metrics.py",
        "inference/engines.py",
        "inference/predictor.py",
        "models",
        "pipeline/train.py",
        "training",
    ),
    "threshold": (
        "data/catalog.py",
        "data/images",
        "evaluation",
        "geometry",
        "inference",
        "models",
        "pipeline/threshold.py",
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
"""By stage, the folders and modules of the package that its results depend on, as in dvc.yaml's deps.

Left out are modules for messages, paths, settings, figures and records (errors, project, files, params, types,
devices, plotting, tracking): a change there must not train a model again."""


def _read_answers() -> dict[str, tuple[Affects, ...]]:
    answers = {}
    for section, field in Params.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        for name, of_key in field.annotation.model_fields.items():
            answers[f"{section}.{name}"] = tuple(mark for mark in of_key.metadata if isinstance(mark, Affects))
    return answers


ANSWERS: Mapping[str, tuple[Affects, ...]] = _read_answers()
"""By dotted key, the annotations of its field."""


def keys_changing(*effects: Effect) -> frozenset[str]:
    """Return the keys that change one of these products directly."""
    return frozenset(key for key, marks in ANSWERS.items() if any(mark.effects & set(effects) for mark in marks))


def keys_behind(*effects: Effect, settings: Mapping[str, object] | None = None) -> frozenset[str]:
    """Return the keys that one of these products depends on, directly or through a product that it is made from.

    Args:
        effects: the products.
        settings: flat, values or their text; keys that have no effect with these values are left out.
    """
    return frozenset(
        key
        for key, marks in ANSWERS.items()
        if any(mark.reaches(effect) and mark.holds(settings or {}) for mark in marks for effect in effects)
    )


def settings_behind(effect: Effect, settings: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return the settings that a product depends on.

    Args:
        effect: the product.
        settings: flat, values or their text as MLflow records it. Unknown keys, of another version of crackseg, are
            kept.
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


def describe_training(settings: Mapping[str, object]) -> str:
    """Name a training run by its main settings: ``unet focal γ2 α3 lr 0.001 seed 0``.

    Args:
        settings: flat, values or their text as MLflow records it.
    """
    behind = keys_behind(Effect.WEIGHTS, settings=settings)
    weights = [f"{_SYMBOLS[key]}{_short(settings[key])}" for key in _SYMBOLS if key in behind]
    init = "" if settings["model.init"] == "random" else f"from {settings['model.init']}"
    words = [settings["model.architecture"], init, settings["loss.name"], *weights]
    numbers = f"lr {_short(settings['optimizer.lr'])} seed {settings['train.seed']}"
    return " ".join([*(str(word) for word in words if word), numbers])


def _short(value: object) -> str:
    return f"{float(str(value)):g}"


def list_code(*stages: str) -> tuple[Path, ...]:
    """List the modules that the results of these stages depend on, sorted."""
    places = {PACKAGE / place for stage in stages for place in CODE[stage]}
    return tuple(sorted({path for place in places for path in ([place] if place.suffix else place.rglob("*.py"))}))


def hash_code(*stages: str) -> str:
    """Hash the files of :func:`list_code`."""
    return hash_modules(list_code(*stages))


def hash_modules(paths: Iterable[Path]) -> str:
    """Hash modules of the package with their names, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
