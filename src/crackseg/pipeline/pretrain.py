"""`crackseg pretrain`: train the model that crackseg ships, on drawn scenes alone, through the training loop."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from crackseg.child_processes import terminations_as_interrupts
from crackseg.data.synthetic.elements import DEFAULT_ELEMENTS, ELEMENTS
from crackseg.data.synthetic.patches import ScenePatches, write_validation_scenes
from crackseg.devices import choose_device, choose_precision
from crackseg.errors import CracksegError
from crackseg.files import read_json, write_bytes, write_json
from crackseg.inference.detector import SETTINGS_NAME, WEIGHTS_NAME
from crackseg.lineage import PACKAGE, hash_modules, list_code
from crackseg.models import build_model
from crackseg.params import Params, load_params
from crackseg.params.choices import explain_choice
from crackseg.registry.package import PROBE_FILE, PROBE_NAME, build_analyzer, write_probe
from crackseg.tracking.store import Store
from crackseg.training.losses import build_loss
from crackseg.training.run import build_first_network, record_training
from crackseg.training.step import build_stepper

DATA_SOURCE = "scenes"
_PLAN_NAME, _MODEL_NAME = "pretrain.json", "model"
_NEEDED_BYTES = 500_000_000  # 240 scenes take 160 MB, checkpoints and the model 10 MB
_VALIDATION_SCENES, _PROBE_SCENES, _PROBE_PX = 24, 2, 224
_PACE_STEPS = 5
_log = logging.getLogger("crackseg")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the weights follow from; kept in the folder, so that a resumed run has it.

    Attributes:
        seed: of scenes, patches and weights.
        epochs: each takes one patch from each scene.
        elements: drawn over the patches.
        code: digest of the modules that draw and train.
        num_scenes: to train on.
        patch_px: side of a patch.
        width: of the U-Net.
    """

    seed: int
    epochs: int
    elements: tuple[str, ...]
    code: str
    num_scenes: int = 240
    patch_px: int = 256
    width: int = 8


def pretrain(
    root: Path,
    out_dir: Path,
    *,
    minutes: float = 10.0,
    epochs: int | None = None,
    seed: int = 0,
    elements: Sequence[str] = (),
    num_scenes: int = 240,
    patch_px: int = 256,
    num_workers: int = 2,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Path:
    """Train on drawn scenes, or resume a training in this folder that was killed; recorded as a run of MLflow.

    Args:
        root: the project; its store gets the run.
        out_dir: gets ``model`` (weights in half precision, settings, probe), and what a resumed training needs.
        minutes: of training; from the pace measured here follows the number of epochs.
        epochs: their number, instead of ``minutes``: the same weights on the same machine.
        seed: of scenes, patches and weights.
        elements: names of what is drawn over the patches; empty: the default ones.
        num_scenes, patch_px: see :class:`Plan`.
        num_workers: processes that render scenes and make patches.
        on_epoch: see ``record_training``.
    Returns:
        The folder of the finished model, as ``--model`` takes it.
    Raises:
        CracksegError: an element that does not exist, no room, a folder that holds another training, or one in which
            another process trains.
    """
    for name in elements:
        if name not in ELEMENTS:
            raise CracksegError(f"--element {name}: {explain_choice(name, tuple(ELEMENTS))}")
    out_dir.mkdir(parents=True, exist_ok=True)
    model_dir = out_dir / _MODEL_NAME
    try:
        with FileLock(out_dir / "pretrain.lock", timeout=0):
            plan = _settle(
                root,
                out_dir,
                minutes=minutes,
                epochs=epochs,
                seed=seed,
                elements=tuple(elements) or DEFAULT_ELEMENTS,
                code=_hash_code(),
                num_scenes=num_scenes,
                patch_px=patch_px,
            )
            if not _is_finished(out_dir):
                _train(root, out_dir, plan, model_dir, num_workers, on_epoch)
    except Timeout as error:
        raise CracksegError(f"{out_dir}: another `crackseg pretrain` works in this folder") from error
    return model_dir


def _is_finished(out_dir: Path) -> bool:
    """Return True if the probe, which is written last, is complete."""
    return (out_dir / _MODEL_NAME / PROBE_NAME / PROBE_FILE).is_file()


def _hash_code() -> str:
    """Hash the modules that scenes, patches and weights follow from, 12 digits."""
    drawing = sorted((PACKAGE / "data" / "synthetic").glob("*.py"))
    return hash_modules([*list_code("train"), *drawing, Path(__file__)])[:12]


def _settle(root: Path, out_dir: Path, *, minutes: float, epochs: int | None, **asked: object) -> Plan:
    """Take up the folder's plan, or make one; the number of epochs of an interrupted training stays."""
    path = out_dir / _PLAN_NAME
    if path.is_file():
        advice = f"choose another --out, or delete {out_dir}"
        stored = read_json(path, advice=advice)
        try:
            plan = Plan(**stored | {"elements": tuple(stored["elements"])})
        except (KeyError, TypeError) as error:
            raise CracksegError(f"{path}: not written by this version of crackseg; {advice}") from error
        wanted = asdict(plan) | asked | ({} if epochs is None else {"epochs": epochs})
        if other := [key for key, value in asdict(plan).items() if wanted[key] != value]:
            raise CracksegError(
                f"{out_dir} holds a training with {', '.join(f'{key} {stored[key]}' for key in other)}, not "
                f"{', '.join(str(wanted[key]) for key in other)}; resume it with the same options and "
                "version of crackseg, or choose another --out"
            )
        state = "resumed" if not _is_finished(out_dir) else "finished; choose another --out to train again"
        _log.info("%s holds a training of %d epochs, which is %s", out_dir, plan.epochs, state)
        return plan
    if others := [found.name for found in out_dir.iterdir() if found.name != "pretrain.lock"]:
        raise CracksegError(f"{out_dir} is not empty ({others[0]}): choose another --out")
    free = shutil.disk_usage(out_dir).free
    if free < _NEEDED_BYTES:
        raise CracksegError(
            f"{out_dir}: {free / 1e6:.0f} MB are free, and {_NEEDED_BYTES / 1e6:.0f} MB are needed; free some, or "
            "choose another --out"
        )
    plan = Plan(epochs=epochs or 1, **asked)  # type: ignore[arg-type]
    if epochs is None:
        params = _describe(root, plan, num_workers=0)
        steps = -(-plan.num_scenes // params.train.batch_size)
        epochs = max(1, round(60 * minutes / (steps * _measure_step(params, plan.patch_px))))
        plan = Plan(epochs=epochs, **asked)  # type: ignore[arg-type]
    write_json(path, asdict(plan))
    return plan


def _describe(root: Path, plan: Plan, *, num_workers: int) -> Params:
    """Give the settings of the training; params.yaml's where they do not matter to it."""
    base = load_params(root / "params.yaml")
    model = {
        "architecture": "unet", "init": "random", "num_classes": 1, "normalize": False, "train_layers": "all",
        "width": plan.width, "batch_norm": True, "encoder": "",
    }  # fmt: skip
    train = {
        "epochs": plan.epochs, "batch_size": 4, "accumulate": 1, "patches_per_image": 1, "seed": plan.seed,
        "num_workers": num_workers, "num_processes": 1, "validate_every": max(1, plan.epochs // 10),
    }  # fmt: skip
    changes = {
        "data": {"train_dataset": DATA_SOURCE},
        "model": model,
        "loss": {"name": "bce_soft_f", "crack_weight": 20.0, "tolerance_px": 2},
        "optimizer": {"name": "adamw", "lr": 3e-3, "momentum": 0.9, "weight_decay": 0.01},
        "scheduler": {"name": "onecycle"},
        "train": train,
        "predict": {"tile_size_px": 512, "overlap_px": 64, "batch_size": 4, "engine": "auto"},
        "postprocess": {"method": "none"},
    }
    return base.model_copy(
        update={section: getattr(base, section).model_copy(update=keys) for section, keys in changes.items()}
    )


def _measure_step(params: Params, patch_px: int) -> float:
    """Measure the seconds of a training step on this machine: the median of a few."""
    device = choose_device(params.train.device)
    network = build_model(**dict(params.model)).to(device).to(memory_format=torch.channels_last)
    network.train()
    stepper = build_stepper(
        network, build_loss(**dict(params.loss)), device, choose_precision(params.train.precision, device)
    )
    images = torch.zeros(params.train.batch_size, 3, patch_px, patch_px, dtype=torch.uint8)
    seconds = []
    for _ in range(_PACE_STEPS):
        started = time.monotonic()
        stepper.compute_gradients(images, images[:, :1], num_parts=1, num_counted=None)
        seconds.append(time.monotonic() - started)
    return sorted(seconds)[_PACE_STEPS // 2]


def _train(
    root: Path,
    out_dir: Path,
    plan: Plan,
    model_dir: Path,
    num_workers: int,
    on_epoch: Callable[[int, dict[str, float]], None] | None,
) -> None:
    params = _describe(root, plan, num_workers=num_workers)
    store = Store(root, may_be_away=True)
    patches = ScenePatches(
        out_dir / "scenes",
        num_scenes=plan.num_scenes,
        patches_per_scene=1,
        patch_px=plan.patch_px,
        seed=plan.seed,
        elements=plan.elements,
    )
    drawn = {"seed": plan.seed, "elements": plan.elements}
    val_samples = write_validation_scenes(out_dir / "validation", num_scenes=_VALIDATION_SCENES, **drawn)  # type: ignore[arg-type]
    checkpoint_dir = out_dir / "training"
    checkpoint_dir.mkdir(exist_ok=True)
    with (
        terminations_as_interrupts(),
        record_training(
            store,
            params,
            build_first_network(params, store),
            (patches, val_samples),
            checkpoint_dir,
            tags={"data.source": DATA_SOURCE, "scene_elements": ", ".join(plan.elements)},
            name="pretrain",
            on_epoch=on_epoch,
            system_metrics=True,
        ) as trained,
    ):
        weights_path = model_dir / WEIGHTS_NAME
        trained.save(weights_path, data_source=DATA_SOURCE, half=True)
        analyzer = build_analyzer(
            weights_path, val_samples, val_samples, params.postprocess, dataset=DATA_SOURCE,
            device=params.train.device, precision=params.train.precision,
        )  # fmt: skip
        write_bytes(model_dir / SETTINGS_NAME, analyzer.settings.to_json().encode())
        small = write_validation_scenes(
            out_dir / "probe",
            num_scenes=_PROBE_SCENES,
            size_px=_PROBE_PX,
            **drawn,  # type: ignore[arg-type]
        )
        write_probe(model_dir / PROBE_NAME, analyzer, small)
