"""The paper's configurations: the ten columns of its Table 3 and the 256 combinations of its section 3.1.

A configuration is a set of changes to params.yaml. All other keys are the recipe that the configurations share and stay
as in params.yaml, except options that the configuration's architecture does not have; :data:`RECIPE` holds what the
paper says about them.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from crackseg.errors import CracksegError
from crackseg.lineage import keys_behind, settings_behind
from crackseg.params import Params, change_params, flatten_params
from crackseg.params.effects import RESULTS

Setting = str | int | float | bool

LOSSES: tuple[tuple[str, int | None], ...] = (("bce", None), ("focal", 1), ("focal", 2), ("focal", 4))  # and gamma
LEARNING_RATES = (0.1, 0.01, 0.001, 0.0001)
INITS = ("coco", "random")
NUM_CLASSES = (1, 2)
NORMALIZE = (False, True)
TRAIN_LAYERS = ("all", "classifier")
GRID_ARCHITECTURE = "deeplabv3_resnet101"

RECIPE: Mapping[str, Any] = {
    "data.size_px": 512,
    "data.resize": "square",
    "data.mask_resize": "nearest",
    "data.train_dataset": "CrackTree260",
    "loss.alpha": 3.0,
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0005,
    "scheduler.name": "plateau",
    "scheduler.factor": 0.1,
    "scheduler.patience": 10,
    "train.epochs": 300,
    "train.batch_size": 2,
    "evaluate.tolerance_px": 2,
    "postprocess.method": "none",
}
"""Settings of all configurations, from sections 3.2 and 3.3; the committed params.yaml agrees with them."""

BEYOND: Mapping[str, Any] = {
    "data.evaluate_split": "test",
    "augment.rotate_quarter": 0.0,
    "augment.warp": 0.0,
    "augment.crop_at_cracks": 0.0,
    "augment.dilate_mask_px": 0,
    "augment.drawn_cracks": 0.0,
    "augment.scenes": 0.0,
    "model.width": None,
    "train.accumulate": 1,
    "train.patches_per_image": 1,
    "train.ema_decay": 0.0,
    "train.flip_agreement": 0.0,
    "train.keep_initial": 0.0,
    "predict.flips": False,
    "postprocess.min_length_px": 0,
}
"""Values with which nothing is done that the paper does not do; the committed params.yaml agrees with them."""


class PaperRow(NamedTuple):
    """The key of a configuration's values in Table 3, as text; empty where the paper names none."""

    system: str
    init: str = ""
    loss: str = ""
    gamma: str = ""


@dataclass(frozen=True)
class Configuration:
    """One experiment of the paper."""

    name: str
    """Stable; lower case, digits and hyphens, so that it can name a DVC experiment."""
    system: str
    """The architecture, a key of ``crackseg.models.ARCHITECTURES``."""
    settings: tuple[tuple[str, Setting], ...]
    """Keys of params.yaml and their values that distinguish it from the other configurations."""
    paper_row: PaperRow | None = None
    """The row of its values in Table 3; None if it is not there."""


def _make_deeplabv3(
    loss: str, gamma: int | None, lr: float, num_classes: int, normalize: bool, init: str, train_layers: str
) -> Configuration:
    """Make one of the 256; the eight that Table 3 reports are named after it, the others after the grid."""
    settings: list[tuple[str, Setting]] = [("loss.name", loss)]
    if gamma is not None:
        settings.append(("loss.gamma", gamma))
    loss_name = loss if gamma is None else f"{loss}-g{gamma}"
    model: dict[str, Setting] = {
        "model.architecture": GRID_ARCHITECTURE,
        "model.init": init,
        "model.num_classes": num_classes,
        "model.normalize": normalize,
        "model.train_layers": train_layers,
    }
    row = None
    name = (
        f"grid-{init}-{loss_name}-lr{lr:.0e}-{num_classes}map-{'norm' if normalize else 'raw'}-{train_layers}"
    ).replace("e-0", "e-")
    if (lr, num_classes, normalize, train_layers) == (0.0001, 1, False, "all"):
        row = PaperRow(GRID_ARCHITECTURE, init, loss, "" if gamma is None else str(gamma))
        name = f"table3-{init}-{loss_name}"
    return Configuration(name, GRID_ARCHITECTURE, (*model.items(), *settings, ("optimizer.lr", lr)), row)


def _make_baseline(architecture: str, **settings: Setting) -> Configuration:
    model: dict[str, Setting] = {
        "model.architecture": architecture,
        "model.init": "random",
        "model.num_classes": 1,
        "model.normalize": False,
        "model.train_layers": "all",
    }
    own = {key.replace("_", ".", 1): value for key, value in settings.items()}
    return Configuration(
        f"table3-{architecture.replace('_', '-')}",
        architecture,
        tuple((model | own).items()),
        PaperRow(architecture),
    )


GRID: tuple[Configuration, ...] = tuple(
    _make_deeplabv3(loss, gamma, lr, num_classes, normalize, init, train_layers)
    for (loss, gamma), lr, num_classes, normalize, init, train_layers in itertools.product(
        LOSSES, LEARNING_RATES, NUM_CLASSES, NORMALIZE, INITS, TRAIN_LAYERS
    )
)
"""Section 3.1: 4 losses × 4 learning rates × 2 outputs × 2 normalisations × 2 initialisations × 2 choices of layers."""

# The recipe of the two baselines is our choice, see docs/adr/0006.
TABLE3: tuple[Configuration, ...] = (
    _make_baseline("modified_unet", loss_name="focal", loss_gamma=2, optimizer_lr=0.0001),
    _make_baseline("deepcrack", loss_name="bce", optimizer_lr=0.0001),
    *(
        configuration
        for init in INITS
        for configuration in GRID
        if configuration.paper_row and configuration.paper_row.init == init
    ),
)
"""The columns of Table 3, in its order; its eight DeepLabV3 configurations are members of the grid."""


def choose_configurations(
    *, table3: bool = False, grid: bool = False, names: Sequence[str] = ()
) -> tuple[Configuration, ...]:
    """List the configurations of Table 3, of the grid, and those named, each once.

    Raises:
        CracksegError: nothing is chosen, or a name is unknown (the nearest are shown).
    """
    known = {configuration.name: configuration for configuration in (*TABLE3, *GRID)}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ";"
            raise CracksegError(
                f"the paper has no configuration {name!r}{hint} `crackseg paper queue --grid --dry-run` lists them"
            )
    chosen = (TABLE3 if table3 else ()) + (GRID if grid else ()) + tuple(known[name] for name in names)
    if not chosen:
        raise CracksegError("no configurations chosen: give --table3, --grid or --cell NAME")
    return tuple(dict.fromkeys(chosen))


def apply_configuration(
    params: Params, configuration: Configuration, overrides: Mapping[str, Any] | None = None
) -> Params:
    """Return the settings of a configuration's run: params.yaml, then ``overrides``, then the configuration's own.

    Raises:
        CracksegError: an override that params.yaml cannot have.
    """
    return change_params(params, settings_of(configuration, overrides or {}), source="-S")


def settings_of(configuration: Configuration, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's and the configuration's settings, without those of another architecture in params.yaml."""
    from crackseg.models import ARCHITECTURES  # imports torch, which lists of configurations do not need

    left_over: dict[str, Any] = {}
    architecture = ARCHITECTURES[configuration.system]
    if architecture.width is None:
        left_over["model.width"] = None
    if not architecture.encoder:
        left_over["model.encoder"] = ""
    if not architecture.optional_batch_norm:
        left_over["model.batch_norm"] = True
    return {**left_over, **overrides, **dict(configuration.settings)}


def matches(configuration: Configuration, run_params: Mapping[str, str]) -> bool:
    """Return whether a run is of this configuration, under any recipe (see :func:`find_departures`).

    Args:
        configuration: the configuration.
        run_params: flat params as MLflow recorded them, e.g. ``{"loss.gamma": "2.0", …}``.
    """
    return all(_agree(value, run_params.get(key)) for key, value in configuration.settings)


def find_departures(
    configuration: Configuration, run_params: Mapping[str, str]
) -> dict[str, tuple[Any, str | None]]:
    """List settings of a run that differ from the paper's recipe or go beyond it: key, the paper's value, its own."""
    recipe = {key: value for key, value in RECIPE.items() if key not in dict(configuration.settings)}
    counts = keys_behind(RESULTS, settings=run_params)
    return {
        key: (value, run_params.get(key))
        for key, value in recipe.items()
        if key in counts and not _agree(value, run_params.get(key))
    } | {
        key: ("unset" if value is None else value, run_params[key])
        for key, value in BEYOND.items()
        # A run of an older version does not have all of them.
        if key in counts and key in run_params and not _agree(value, run_params[key])
    }


def runs_alike(params: Params, run_params: Mapping[str, str]) -> bool:
    """Return whether a run had these settings in every key that its results depend on, except for rounding.

    The seed counts: a configuration that is queued again with another seed is an intended repetition.
    """
    settings = settings_behind(RESULTS, flatten_params(params))
    return all(_agree(value, run_params.get(key)) for key, value in settings.items())


def _agree(value: Any, recorded: str | None) -> bool:
    """Compare a value with MLflow's text of it: 2 is "2.0", 0.0001 is "1e-04", True is "True"."""
    if recorded is None or isinstance(value, bool) or not isinstance(value, int | float):
        return str(value) == recorded
    try:
        return float(recorded) == float(value)
    except ValueError:
        return False
