"""params.yaml as frozen, typed sections: the only reader of settings.

Unknown keys, wrong types, NaN and duplicate keys are errors that name the key, the value and the nearest
valid one. ruamel.yaml reads the file because DVC does: PyYAML takes ``1e-3`` for text and keeps the last of two
equal keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from crackseg.errors import CracksegError
from crackseg.params_problems import explain_problem

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataParams(_Section):
    train_dataset: str
    """Dataset that training and validation images come from."""
    test_datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Datasets to predict and score, each a DVC stage of its own."""
    evaluate_split: Literal["test", "val"]
    """Split that is predicted and scored."""
    size_px: Annotated[int, Field(ge=32, le=16384)]
    """Side of the prepared images, in pixels (512 in the paper)."""
    resize: Literal["square", "pad", "none"]
    """``square`` distorts to size_px x size_px (the paper); ``pad`` keeps the aspect ratio and pads; ``none``
    keeps every image as it is."""
    mask_resize: Literal["nearest", "line"]
    """``nearest`` (the paper) breaks 1-px lines when it shrinks; ``line`` keeps them connected."""

    @model_validator(mode="after")
    def _no_dataset_twice(self) -> DataParams:
        if len(set(self.test_datasets)) < len(self.test_datasets):
            raise ValueError(f"test_datasets names a dataset twice: {', '.join(self.test_datasets)}")
        return self


class AugmentParams(_Section):
    flip_horizontal: Probability
    """Probability of a left-right flip."""
    flip_vertical: Probability
    """Probability of an up-down flip."""
    blur: Probability
    """Probability of a Gaussian blur."""
    blur_sigma_px: Annotated[float, Field(ge=0, le=10)]
    """Largest standard deviation of that blur, in pixels."""
    hue: Annotated[float, Field(ge=0, le=0.5)]
    """Largest turn of the hue, as a share of the colour circle."""
    saturation: Probability
    """Largest relative change of saturation."""
    brightness: Probability
    """Largest change of brightness, as a share of full scale."""
    contrast: Probability
    """Largest relative change of contrast around the mean."""
    crop_px: Annotated[int, Field(ge=0)]
    """Side of the random square crop, in pixels of the prepared image; 0 takes the whole image."""


class ModelParams(_Section):
    architecture: str
    """A name from ``crackseg.models.ARCHITECTURES``."""
    init: str
    """``random``, ``imagenet`` (backbone), ``coco`` (the paper), a weights file, or ``models:/NAME/VERSION``."""
    num_classes: Literal[1, 2]
    """Output maps: crack alone, or background and crack."""
    normalize: bool
    """Subtract ImageNet's mean and divide by its deviation, inside the model."""
    train_layers: Literal["all", "classifier"]
    """What is trained."""
    width: Annotated[int, Field(ge=4, le=256)] | None
    """Channels of the first level (``unet``, ``modified_unet``, ``deepcrack``); null takes the architecture's own."""
    batch_norm: bool
    """Batch normalisation after each convolution (``deepcrack`` only)."""
    encoder: str
    """Encoder of smp or timm, for the architectures that have one to choose; empty takes the architecture's own."""


class LossParams(_Section):
    name: Literal["focal", "bce"]
    """The paper's balanced binary focal loss (equation 2), or binary cross-entropy."""
    gamma: Annotated[float, Field(ge=0, le=100)]
    """Focusing exponent of equation (2)."""
    alpha: Annotated[float, Field(gt=0)]
    """Weight of the non-crack term of equation (2)."""


class OptimizerParams(_Section):
    name: Literal["sgd", "adam", "adamw"]
    """Optimiser, as torch names it."""
    lr: Annotated[float, Field(gt=0, le=10)]
    """Initial learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of SGD; beta 1 of Adam and AdamW."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay."""


class SchedulerParams(_Section):
    name: Literal["plateau", "cosine", "none"]
    """``plateau`` follows the validation loss (the paper); ``cosine`` falls to zero over the epochs, by step."""
    factor: Annotated[float, Field(gt=0, lt=1)]
    """What ``plateau`` multiplies the learning rate with."""
    patience: Annotated[int, Field(ge=0)]
    """Epochs without a better validation loss before ``plateau`` acts."""


class TrainParams(_Section):
    epochs: PositiveInt
    """Passes over the training images."""
    batch_size: PositiveInt
    """Patches in one step, over all parts and processes together."""
    accumulate: PositiveInt
    """Parts that a step's batch is computed in, one after another, where a GPU cannot hold it whole."""
    patches_per_image: PositiveInt
    """Random crops from each image in an epoch."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Seed of weights, order and augmentation."""
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    """``auto`` takes bfloat16 where the processor computes it fast, float16 on older GPUs, else float32; no TF32."""
    device: Literal["auto", "cpu", "cuda", "mps"]
    """``auto`` takes cuda, else mps, else cpu."""
    deterministic: bool
    """On a GPU, only kernels that give the same result every time; false takes the fastest."""
    compile: bool
    """Let torch compile the network: some time at the beginning, then faster steps."""
    num_workers: Annotated[int, Field(ge=0, le=64)]
    """Processes that augment images, for each process that trains; the result does not depend on it."""
    cache_gb: Annotated[float, Field(ge=0)]
    """Gigabytes of disk for decoded images, which all trainings share; 0 keeps none."""
    num_processes: Annotated[int, Field(ge=1, le=64)]
    """Processes of this machine that train together, one for each GPU (docs/distributed.md)."""
    sync_batch_norm: bool
    """Several processes normalise by the statistics of the whole batch, not of each one's share."""
    validate_every: PositiveInt
    """Epochs from one validation to the next; the last epoch is always validated."""

    @model_validator(mode="after")
    def _batch_can_be_divided(self) -> TrainParams:
        if self.num_processes * self.accumulate > self.batch_size:
            raise ValueError(
                f"num_processes {self.num_processes} times accumulate {self.accumulate} is more than batch_size "
                f"{self.batch_size}, which counts the patches of all processes together"
            )
        return self


class PredictParams(_Section):
    tile_size_px: Annotated[int, Field(ge=64, le=8192)]
    """Side of the inference window; an image up to this size is taken whole."""
    overlap_px: Annotated[int, Field(ge=0)]
    """Overlap of neighbouring tiles, blended."""
    batch_size: PositiveInt
    """Most tiles in one pass."""
    engine: Literal["auto", "torch", "openvino"] = "auto"  # models that were registered before it existed lack it
    """What computes a long prediction: ``auto`` takes what was measured to be fastest (crackseg.calibration)."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> PredictParams:
        if self.overlap_px * 2 > self.tile_size_px:
            raise ValueError(f"overlap_px {self.overlap_px} is more than half of tile_size_px {self.tile_size_px}")
        return self


class PostprocessParams(_Section):
    method: Literal["none", "thin", "hysteresis", "link"]
    """What is done to a map before its threshold (docs/post-processing.md)."""
    low_ratio: Annotated[float, Field(gt=0, le=1)]
    """Share of the threshold that a weak pixel (``hysteresis``) or a gap on average (``link``) must reach."""
    max_gap_px: PositiveInt
    """Longest gap between two line ends that ``link`` bridges, in pixels."""
    min_length_px: Annotated[int, Field(ge=0)]
    """Pieces with a shorter bounding box are dropped, after any method; 0 keeps all."""
    floor: Annotated[float, Field(gt=0, lt=1)]
    """Share of a map's range below which nothing is taken for a crack; unused where nothing is post-processed."""


class EvaluateParams(_Section):
    tolerance_px: Annotated[int, Field(ge=0, le=100)]
    """Half-width of the square dilation of the truth, d in the paper's section 3.3."""
    num_thresholds: Annotated[int, Field(ge=2, le=16384)]
    """Thresholds are k / (num_thresholds - 1)."""
    line_tolerance_px: Annotated[int, Field(ge=0, le=100)]
    """Radius of the disc within which centre lines agree (centre-line IoU; OmniCrack30k's is 4)."""
    use_roi: bool
    """Score only inside the region of interest, where a dataset has one."""


class RegistryParams(_Section):
    model_name: Annotated[str, Field(min_length=1, pattern=r"^[^/:]+$")]
    """Name of the registered model in MLflow."""
    max_drop: Annotated[float, Field(ge=0, le=1)]
    """What a challenger may lose on any one dataset against the model in production, in units of the score; a gain
    elsewhere does not make up for more."""
    max_slowdown: Annotated[float, Field(ge=1, le=1000)]
    """How many times the seconds for an image of the model in production a challenger may take."""


Choice = str | bool | int | float | None


class SearchDimension(_Section):
    """What one key of params.yaml may be in a search: a range, or choices (a list stands for choices alone)."""

    low: float | None = None
    """Least value of a range."""
    high: float | None = None
    """Greatest value of a range; for a whole-number key the range is of whole numbers."""
    log: bool = False
    """Draw from the range on a logarithmic scale."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Distance of the range's values from one to the next; ``grid`` needs it."""
    choices: tuple[Choice, ...] | None = None
    """The values, instead of a range."""
    when: dict[str, Choice | tuple[Choice, ...]] = Field(default_factory=dict)
    """The key is searched only where these other keys have this value, or one of these."""


def _as_dimension(value: Any) -> Any:
    value = {"choices": value} if isinstance(value, list) else value
    # What has passed through here counts as Python's, no longer as JSON: strictly, a list is then no tuple.
    return _lists_as_tuples(value)


def _lists_as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lists_as_tuples(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


class SearchParams(_Section):
    space: dict[str, dict[str, Annotated[SearchDimension | None, BeforeValidator(_as_dimension)]]]
    """Section and key of params.yaml to search; null leaves a key as params.yaml has it."""
    paper: Literal["grid", "table3", "none"]
    """Which of the paper's cells are the first trials: those of section 3.1, only those of Table 3, or none."""
    trials: PositiveInt
    """Trials of a study, the paper's cells among them."""
    protocol: Literal["paper", "symmetric", "strict"]
    """Protocol of the validation ODS that is maximised."""
    second_objective: Literal["none", "inference_time", "parameters"]
    """Minimised beside it: seconds for one validation image, or the network's number of parameters."""
    sampler: Literal["tpe", "gp", "random", "grid"]
    """Optuna's sampler; ``grid`` goes through the whole space in seeded order."""
    pruner: Literal["median", "hyperband", "none"]
    """What ends a trial early, by its validation ODS after an epoch; none with a second objective."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Of the sampler; the trainings have ``train.seed``."""
    keep: Annotated[int, Field(ge=0)]
    """Weights are kept of this many of the best trials."""


class Params(_Section):
    """The whole of params.yaml; functions get their own section, never this."""

    data: DataParams
    augment: AugmentParams
    model: ModelParams
    loss: LossParams
    optimizer: OptimizerParams
    scheduler: SchedulerParams
    train: TrainParams
    predict: PredictParams
    postprocess: PostprocessParams
    evaluate: EvaluateParams
    search: SearchParams
    registry: RegistryParams

    @model_validator(mode="after")
    def _crop_fits(self) -> Params:
        if self.data.resize != "none" and self.augment.crop_px > self.data.size_px:
            raise ValueError(
                f"augment.crop_px {self.augment.crop_px} is larger than data.size_px {self.data.size_px}"
            )
        return self


def load_params(path: Path) -> Params:
    """Read and check a params.yaml.

    Raises:
        CracksegError: the file is missing or no YAML, or a key is unknown, missing, doubled, of the wrong type
            or out of range; the message names the file, the key, the value and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CracksegError(
            f"{path}: cannot be read ({error.strerror}); run crackseg in the project's folder"
        ) from error
    except UnicodeDecodeError as error:
        raise CracksegError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        plain = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise CracksegError(
            f"{path}: {str(error.problem).split(' with ')[0]}{where}; keep one of the two"
        ) from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise CracksegError(f"{path}: not valid YAML{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(plain, dict):
        raise CracksegError(f"{path}: expected sections such as `model:` and `loss:`, got {type(plain).__name__}")
    return _check(plain, str(path))


def change_params(params: Params, changes: Mapping[str, Any], *, source: str) -> Params:
    """Set keys such as ``loss.gamma`` anew, and check the whole again.

    Args:
        params: what to begin from; left as it is.
        changes: values by dotted key.
        source: where the changes come from, for messages, e.g. ``-S``.
    Raises:
        CracksegError: as :func:`load_params`.
    """
    content = params.model_dump(mode="json")
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = content
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise CracksegError(f"{source}: unknown key {key}; {part} holds a value and no further keys")
        section[name] = value
    return _check(content, source)


def parse_setting(text: str) -> tuple[str, Any]:
    """Read ``KEY=VALUE`` as `dvc exp run -S` does: the value is YAML.

    Raises:
        CracksegError: there is no key, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise CracksegError(f"-S {text}: expected KEY=VALUE, e.g. loss.gamma=4")
    try:
        return key, YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        raise CracksegError(f"-S {text}: the value is not valid YAML") from error


def _check(plain: dict, source: str) -> Params:
    try:
        # From JSON: strict Python input would refuse lists for tuples; NaN and dates become strings here and so
        # fail their field's type with the key named.
        return Params.model_validate_json(json.dumps(_jsonable(plain), default=str))
    except ValidationError as error:
        # Unknown keys first: a misspelt key is reported as unknown and as missing, and the former is the cause.
        problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise CracksegError("\n".join(explain_problem(source, e, _valid_keys()) for e in problems)) from error


def _valid_keys() -> dict[str, list[str]]:
    keys = {name: list(field.annotation.model_fields) for name, field in Params.model_fields.items()}  # type: ignore[union-attr]
    return keys | {"search.space": list(SearchDimension.model_fields)}


def flatten_params(params: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Flatten to ``{"loss.gamma": 2.0, …}``, the keys that MLflow shows; without ``search``.

    A search looks for the settings of trainings; nothing of a training follows from it.
    """
    flat: dict[str, Any] = {}
    for key, value in params:
        if isinstance(value, SearchParams):
            continue
        if isinstance(value, BaseModel):
            flat.update(flatten_params(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
