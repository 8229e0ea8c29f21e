"""`crackseg pretrain`: train the model that crackseg ships, on drawn scenes alone, through the training loop."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from crackseg.child_processes import terminations_as_interrupts
from crackseg.data.catalog import list_samples
from crackseg.data.images.files import read_image, read_mask
from crackseg.data.synthetic.elements import DEFAULT_ELEMENTS, ELEMENTS
from crackseg.data.synthetic.patches import DEFAULT_LOOKS, LOOKS, ScenePatches, write_validation_scenes
from crackseg.devices import choose_device, choose_precision
from crackseg.errors import CracksegError
from crackseg.files import read_json, sole_writer, write_json
from crackseg.inference.detector import WEIGHTS_NAME
from crackseg.lineage import hash_modules, list_code
from crackseg.models.network import CrackNetwork
from crackseg.params import Params, load_params
from crackseg.params.choices import explain_choice
from crackseg.registry.package import PROBE_FILE, PROBE_NAME, build_analyzer, write_answers
from crackseg.tracking.store import Store
from crackseg.training.average import mix_weights
from crackseg.training.pace import measure_step
from crackseg.training.run import build_first_network, record_training
from crackseg.types import CrackSample

DATA_SOURCE = "scenes"
_PLAN_NAME, _LOCK_NAME, _MODEL_NAME = "pretrain.json", "pretrain.lock", "model"
# On disk; the rest are the validation scenes, and 20 MB of checkpoints and the model.
_SCENE_BYTES, _OTHER_BYTES = 700_000, 120_000_000
_ALL = "all"
# The threshold is chosen once, on more scenes than are scored at each validation: by 40 of them it differs by 0.12 from
# seed to seed.
_VALIDATION_SCENES, _THRESHOLD_SCENES, _PROBE_SCENES, _PROBE_PX = 40, 120, 2, 224
_EMA_DECAY = 0.995
_LR, _FURTHER_LR = 3e-3, 2e-3  # from random weights, and from those of a former training
# Of what is marked, in a photograph of any size. On drawn scenes it costs nothing, and most false alarms are shorter.
_MIN_LENGTH_PX = 40
# On drawn scenes F is nearly the same over a wide range of thresholds. Photographs hold more that looks like a crack,
# so the upper end of the range is taken.
_F_LOSS = 0.05
_log = logging.getLogger("crackseg")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the weights follow from; kept in the folder, so that a resumed run has it.

    Attributes:
        seed: of scenes, patches and weights.
        epochs: each takes one patch from each scene.
        looks: of the scenes, in turn.
        elements: drawn over the patches.
        init: as ``model.init``.
        mix: the model whose weights are a part of the saved ones, as ``model.init``; "" for none.
        mix_fraction: that part, in [0, 1).
        code: digest of the modules that draw and train.
        precision: in which a step is computed, e.g. ``float32``.
        num_scenes: to train on.
        patch_px: side of a patch.
        lr: highest learning rate of the cycle.
        flip_agreement: as ``train.flip_agreement``.
        width: of the U-Net.
    """

    seed: int
    epochs: int
    looks: tuple[str, ...]
    elements: tuple[str, ...]
    init: str
    mix: str
    mix_fraction: float
    code: str
    precision: str
    num_scenes: int
    patch_px: int
    lr: float
    flip_agreement: float
    width: int = 8


def pretrain(
    root: Path,
    out_dir: Path,
    *,
    minutes: float = 10.0,
    epochs: int | None = None,
    seed: int = 0,
    looks: Sequence[str] = (),
    elements: Sequence[str] = (),
    init: str = "random",
    mix: tuple[str, float] = ("", 0.0),
    lr: float | None = None,
    flip_agreement: float = 0.0,
    checks: Sequence[str] = (),
    num_scenes: int = 600,
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
        looks: names of what the scenes look like; empty: the default ones; ``all``: every one.
        elements: names of what is drawn over the patches, likewise.
        init: first weights: as ``model.init``, or the folder of a finished training.
        mix: another model, as ``init``, and the fraction of its weights in the saved ones, in [0, 1).
        lr: highest learning rate of the cycle; None: 0.003 from random weights, 0.002 from others.
        flip_agreement: see :class:`Plan`.
        checks: datasets of the project whose validation images (all, if it has none) are scored at each validation;
            they train nothing and choose nothing.
        num_scenes, patch_px: see :class:`Plan`.
        num_workers: processes that render scenes and make patches.
        on_epoch: see ``record_training``.
    Returns:
        The folder of the finished model, as ``--model`` takes it.
    Raises:
        CracksegError: a look, element or dataset that does not exist, no room, a folder that holds another training, or
            one in which another process trains.
    """
    looks = _choose("look", looks, LOOKS, DEFAULT_LOOKS)
    elements = _choose("element", elements, tuple(ELEMENTS), DEFAULT_ELEMENTS)
    check_samples = {name: _list_check(root, name) for name in checks}
    base = load_params(root / "params.yaml").train
    model_dir, is_new = out_dir / _MODEL_NAME, not out_dir.exists()
    out_dir.mkdir(parents=True, exist_ok=True)
    with (
        _removed_if_refused(out_dir, is_new),
        sole_writer(out_dir / _LOCK_NAME, f"{out_dir}: another `crackseg pretrain` works in this folder"),
    ):
        plan = _settle(
            root,
            out_dir,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            looks=looks,
            elements=elements,
            init=_find_weights(init),
            mix=_find_weights(mix[0]),
            mix_fraction=mix[1],
            code=_hash_code(),
            precision=str(choose_precision(base.precision, choose_device(base.device))).removeprefix("torch."),
            num_scenes=num_scenes,
            patch_px=patch_px,
            lr=lr or (_LR if init == "random" else _FURTHER_LR),
            flip_agreement=flip_agreement,
        )
        if not _is_finished(out_dir):
            _train(root, out_dir, plan, model_dir, num_workers, check_samples, on_epoch)
    return model_dir


@contextmanager
def _removed_if_refused(out_dir: Path, is_new: bool) -> Iterator[None]:
    """Remove a folder that was made for a training that is refused before it wrote anything."""
    try:
        yield
    except CracksegError:
        if is_new and {path.name for path in out_dir.iterdir()} <= {_LOCK_NAME}:
            shutil.rmtree(out_dir, ignore_errors=True)
        raise


def _choose(
    option: str, names: Sequence[str], known: tuple[str, ...], default: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the names that an option asks for."""
    if _ALL in names:
        return known
    for name in names:
        if name not in known:
            raise CracksegError(f"--{option} {name}: {explain_choice(name, (*known, _ALL))}")
    return tuple(names) or default


def _find_weights(address: str) -> str:
    """Return the file of a former run's model, or the address itself."""
    weights = Path(address, WEIGHTS_NAME)
    return str(weights.resolve()) if address and weights.is_file() else address


def _list_check(root: Path, dataset: str) -> list[CrackSample]:
    """List the photographs of a check, each of which can be read and has a mask of its size."""
    data_dir = root / "data"
    samples = list_samples(data_dir, dataset, "val") or list_samples(data_dir, dataset)
    if not samples:
        raise CracksegError(f"--check {dataset}: it has no images; see `crackseg data validate {dataset}`")
    for sample in samples:
        image, mask = read_image(sample.image_path), read_mask(sample.mask_path)
        if image.shape[:2] != mask.shape:
            raise CracksegError(
                f"--check {dataset}: {sample.image_path} has {image.shape[1]} x {image.shape[0]} pixels and its mask "
                f"{mask.shape[1]} x {mask.shape[0]}; a check needs masks of the image's size"
            )
    return samples


def _is_finished(out_dir: Path) -> bool:
    """Return True if the probe, which is written last, is complete."""
    return (out_dir / _MODEL_NAME / PROBE_NAME / PROBE_FILE).is_file()


def _hash_code() -> str:
    """Hash the modules that scenes, patches and weights follow from, 12 digits."""
    return hash_modules([*list_code("train"), Path(__file__)])[:12]


def _settle(root: Path, out_dir: Path, *, minutes: float, epochs: int | None, **asked: object) -> Plan:
    """Take up the folder's plan, or make one; the number of epochs of an interrupted training stays."""
    path = out_dir / _PLAN_NAME
    if path.is_file():
        advice = f"choose another --out, or delete {out_dir}"
        stored = read_json(path, advice=advice)
        try:
            plan = Plan(**stored | {key: tuple(stored[key]) for key in ("looks", "elements")})
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
    # A kill while the plan was written leaves the beginning of it.
    begun = {found.name for found in out_dir.glob(".*.tmp")} | {_LOCK_NAME}
    if others := sorted({found.name for found in out_dir.iterdir()} - begun):
        raise CracksegError(f"{out_dir} is not empty ({others[0]}): choose another --out")
    free = shutil.disk_usage(out_dir).free
    needed = int(str(asked["num_scenes"])) * _SCENE_BYTES + _OTHER_BYTES
    if free < needed:
        raise CracksegError(
            f"{out_dir}: {free / 1e6:.0f} MB are free, and {needed / 1e6:.0f} MB are needed; free some, or "
            "choose another --out"
        )
    plan = Plan(epochs=epochs or 1, **asked)  # type: ignore[arg-type]
    if epochs is None:
        params = _describe(root, plan, num_workers=0)
        steps = -(-plan.num_scenes // params.train.batch_size)
        epochs = max(1, round(60 * minutes / (steps * measure_step(params))))
        plan = Plan(epochs=epochs, **asked)  # type: ignore[arg-type]
    for option, init in {"init": plan.init, "mix": plan.mix}.items():
        try:
            if init or plan.mix_fraction:  # weights that cannot be loaded are no plan
                _build_network(root, plan, init)
        except CracksegError as error:
            raise CracksegError(f"--{option} {init}: {error}") from error
    write_json(path, asdict(plan))
    return plan


def _build_network(root: Path, plan: Plan, init: str) -> CrackNetwork:
    params = _describe(root, replace(plan, init=init), num_workers=0)
    return build_first_network(params, Store(root, may_be_away=True))[0]


def _describe(root: Path, plan: Plan, *, num_workers: int) -> Params:
    """Give the settings of the training; params.yaml's where they do not matter to it."""
    base = load_params(root / "params.yaml")
    model = {
        "architecture": "unet", "init": plan.init, "num_classes": 1, "normalize": False, "train_layers": "all",
        "width": plan.width, "batch_norm": True, "encoder": "",
    }  # fmt: skip
    train = {
        "epochs": plan.epochs, "batch_size": 4, "accumulate": 1, "patches_per_image": 1, "seed": plan.seed,
        "num_workers": num_workers, "num_processes": 1, "validate_every": max(1, plan.epochs // 10),
        "precision": plan.precision, "compile": False, "ema_decay": _EMA_DECAY,
        "flip_agreement": plan.flip_agreement, "keep_initial": 0.0,
    }  # fmt: skip
    changes = {
        "data": {"train_dataset": DATA_SOURCE},
        "augment": {"crop_px": plan.patch_px},
        "model": model,
        "loss": {"name": "bce_soft_f", "crack_weight": 20.0, "tolerance_px": 2},
        "optimizer": {"name": "adamw", "lr": plan.lr, "momentum": 0.9, "weight_decay": 0.01},
        "scheduler": {"name": "onecycle"},
        "train": train,
        "predict": {
            "tile_size_px": 512,
            "overlap_px": 32,
            "batch_size": 4,
            "engine": "auto",
            "flips": False,
            "fit_tiles": True,
        },
        "postprocess": {"method": "none", "min_length_px": _MIN_LENGTH_PX},
    }
    return base.model_copy(
        update={section: getattr(base, section).model_copy(update=keys) for section, keys in changes.items()}
    )


def _train(
    root: Path,
    out_dir: Path,
    plan: Plan,
    model_dir: Path,
    num_workers: int,
    checks: Mapping[str, Sequence[CrackSample]],
    on_epoch: Callable[[int, dict[str, float]], None] | None,
) -> None:
    params = _describe(root, plan, num_workers=num_workers)
    store = Store(root, may_be_away=True)
    patches = ScenePatches(
        out_dir / "scenes",
        num_scenes=plan.num_scenes,
        patch_px=plan.patch_px,
        seed=plan.seed,
        looks=plan.looks,
        elements=plan.elements,
    )
    drawn = {"seed": plan.seed, "looks": plan.looks, "elements": plan.elements}
    val_samples = write_validation_scenes(out_dir / "validation", num_scenes=_THRESHOLD_SCENES, **drawn)  # type: ignore[arg-type]
    checkpoint_dir = out_dir / "training"
    checkpoint_dir.mkdir(exist_ok=True)
    with (
        terminations_as_interrupts(),
        record_training(
            store,
            params,
            build_first_network(params, store),
            (patches, val_samples[:_VALIDATION_SCENES]),
            checkpoint_dir,
            tags={
                "data.source": DATA_SOURCE,
                "scene_looks": ", ".join(plan.looks),
                "scene_elements": ", ".join(plan.elements),
            },
            name="pretrain",
            on_epoch=on_epoch,
            system_metrics=True,
            checks=checks,
            # Where the cycle of the learning rate ends, not where forty drawn scenes happen to be scored best:
            # docs/shipped-model.md has what that gave.
            take_last=True,
        ) as trained,
    ):
        if plan.mix:
            mix_weights(trained.network, _build_network(root, plan, plan.mix).state_dict(), plan.mix_fraction)
            trained.recorder.set_tags({"mixed_with": plan.mix, "mixed_fraction": f"{plan.mix_fraction:g}"})
        weights_path = model_dir / WEIGHTS_NAME
        trained.save(weights_path, data_source=DATA_SOURCE, half=True)
        analyzer = build_analyzer(
            weights_path, val_samples, val_samples, params.postprocess, dataset=DATA_SOURCE,
            device=params.train.device, precision=params.train.precision, f_loss=_F_LOSS,
        )  # fmt: skip
        small = write_validation_scenes(
            out_dir / "probe",
            num_scenes=_PROBE_SCENES,
            size_px=_PROBE_PX,
            **drawn,  # type: ignore[arg-type]
        )
        write_answers(model_dir, analyzer, small)
