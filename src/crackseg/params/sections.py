"""params.yaml as frozen, typed sections: what each key takes, means and affects.

A key says at its field what changes with it (:mod:`crackseg.params.effects`); without that answer this module cannot be
imported.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from crackseg.params.choices import ArchitectureName, LossName
from crackseg.params.effects import (
    COUNTING,
    IMAGES,
    MAPS,
    NOTHING,
    PACE,
    RESULTS,
    SCORES,
    SEARCH,
    VERSION,
    WEIGHTS,
    Affects,
)

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Section(_Strict):
    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for name, field in cls.model_fields.items():
            if not any(isinstance(mark, Affects) for mark in field.metadata):
                raise TypeError(f"{cls.__name__}.{name}: say what changes with it: Annotated[…, Affects(…)]")


class DataParams(_Section):
    train_dataset: Annotated[str, Affects(WEIGHTS, VERSION)]
    """Dataset that training and validation images come from."""
    test_datasets: Annotated[tuple[str, ...], Field(min_length=1), Affects(RESULTS, VERSION)]
    """Datasets to predict and score, each a DVC stage of its own."""
    evaluate_split: Annotated[Literal["test", "val"], Affects(RESULTS)]
    """Split that is predicted and scored."""
    size_px: Annotated[int, Field(ge=32, le=16384), Affects(IMAGES, PACE)]
    """Side of the prepared images, in pixels (512 in the paper)."""
    resize: Annotated[Literal["square", "pad", "none"], Affects(IMAGES, PACE)]
    """``square`` distorts to size_px x size_px (the paper); ``pad`` keeps the aspect ratio and pads; ``none``
    keeps every image as it is."""
    mask_resize: Annotated[Literal["nearest", "line"], Affects(IMAGES)]
    """``nearest`` (the paper) breaks 1-px lines when it shrinks; ``line`` keeps them connected."""

    @model_validator(mode="after")
    def _no_dataset_twice(self) -> DataParams:
        if len(set(self.test_datasets)) < len(self.test_datasets):
            raise ValueError(f"test_datasets names a dataset twice: {', '.join(self.test_datasets)}")
        return self


class AugmentParams(_Section):
    flip_horizontal: Annotated[Probability, Affects(WEIGHTS)]
    """Probability of a left-right flip."""
    flip_vertical: Annotated[Probability, Affects(WEIGHTS)]
    """Probability of an up-down flip."""
    blur: Annotated[Probability, Affects(WEIGHTS)]
    """Probability of a Gaussian blur."""
    blur_sigma_px: Annotated[float, Field(ge=0, le=10), Affects(WEIGHTS)]
    """Largest standard deviation of that blur, in pixels."""
    hue: Annotated[float, Field(ge=0, le=0.5), Affects(WEIGHTS)]
    """Largest turn of the hue, as a share of the colour circle."""
    saturation: Annotated[Probability, Affects(WEIGHTS)]
    """Largest relative change of saturation."""
    brightness: Annotated[Probability, Affects(WEIGHTS)]
    """Largest change of brightness, as a share of full scale."""
    contrast: Annotated[Probability, Affects(WEIGHTS)]
    """Largest relative change of contrast around the mean."""
    crop_px: Annotated[int, Field(ge=0), Affects(WEIGHTS, PACE)]
    """Side of the random square crop, in pixels of the prepared image; 0 takes the whole image."""


class ModelParams(_Section):
    architecture: Annotated[ArchitectureName, Affects(WEIGHTS, PACE)]
    """A name from ``crackseg.models.ARCHITECTURES`` (docs/models.md)."""
    init: Annotated[str, Affects(WEIGHTS)]
    """``random``, ``imagenet`` (backbone), ``coco`` (the paper), a weights file, or ``models:/NAME/VERSION``."""
    num_classes: Annotated[Literal[1, 2], Affects(WEIGHTS)]
    """Output maps: crack alone, or background and crack."""
    normalize: Annotated[bool, Affects(WEIGHTS)]
    """Subtract ImageNet's mean and divide by its deviation, inside the model."""
    train_layers: Annotated[Literal["all", "classifier"], Affects(WEIGHTS, PACE)]
    """What is trained."""
    width: Annotated[Annotated[int, Field(ge=4, le=256)] | None, Affects(WEIGHTS, PACE)]
    """Channels of the first level, for the architectures that have a width; null takes the architecture's own."""
    batch_norm: Annotated[bool, Affects(WEIGHTS)]
    """Batch normalisation after each convolution; false only for an architecture that can do without."""
    encoder: Annotated[str, Affects(WEIGHTS, PACE)]
    """Encoder of smp or timm, for the architectures that have one to choose; empty takes the architecture's own."""


class LossParams(_Section):
    name: Annotated[LossName, Affects(WEIGHTS)]
    """A name from ``crackseg.training.losses.LOSSES``, e.g. ``focal``, the paper's (docs/losses.md)."""
    gamma: Annotated[float, Field(ge=0, le=100), Affects(WEIGHTS, when={"loss.name": "focal"})]
    """Focusing exponent of equation (2)."""
    alpha: Annotated[float, Field(gt=0), Affects(WEIGHTS, when={"loss.name": "focal"})]
    """Weight of the non-crack term of equation (2)."""
    # Files of before these keys existed lack them.
    crack_weight: Annotated[float, Field(gt=0, le=10_000), Affects(WEIGHTS, when={"loss.name": "bce_soft_f"})] = (
        20.0
    )
    """Factor of a crack pixel's cross-entropy."""
    tolerance_px: Annotated[int, Field(ge=0, le=100), Affects(WEIGHTS, when={"loss.name": "bce_soft_f"})] = 2
    """Half-width of the square dilation of the ground truth within which a prediction counts as right."""


class OptimizerParams(_Section):
    name: Annotated[Literal["sgd", "adam", "adamw"], Affects(WEIGHTS)]
    """Optimiser, as torch names it."""
    lr: Annotated[float, Field(gt=0, le=10), Affects(WEIGHTS)]
    """Initial learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1), Affects(WEIGHTS)]
    """Momentum of SGD; beta 1 of Adam and AdamW."""
    weight_decay: Annotated[float, Field(ge=0), Affects(WEIGHTS)]
    """Weight decay."""


class SchedulerParams(_Section):
    name: Annotated[Literal["plateau", "cosine", "none"], Affects(WEIGHTS)]
    """``plateau`` follows the validation loss (the paper); ``cosine`` falls to zero over the epochs, by step."""
    factor: Annotated[float, Field(gt=0, lt=1), Affects(WEIGHTS, when={"scheduler.name": "plateau"})]
    """What ``plateau`` multiplies the learning rate with."""
    patience: Annotated[int, Field(ge=0), Affects(WEIGHTS, when={"scheduler.name": "plateau"})]
    """Epochs without a better validation loss before ``plateau`` acts."""


class TrainParams(_Section):
    epochs: Annotated[PositiveInt, Affects(WEIGHTS)]
    """Passes over the training images."""
    batch_size: Annotated[PositiveInt, Affects(WEIGHTS, PACE)]
    """Patches in one step, over all parts and processes together."""
    accumulate: Annotated[PositiveInt, Affects(WEIGHTS, PACE)]
    """Parts that a step's batch is computed in, one after another, where a GPU cannot hold it whole."""
    patches_per_image: Annotated[PositiveInt, Affects(WEIGHTS, PACE)]
    """Random crops from each image in an epoch."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Affects(WEIGHTS)]
    """Seed of weights, order and augmentation."""
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Affects(WEIGHTS, MAPS, VERSION, PACE)]
    """``auto`` takes bfloat16 where the processor computes it fast, float16 on older GPUs, else float32; no TF32."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Affects(NOTHING)]
    """``auto`` takes cuda, else mps, else cpu."""
    deterministic: Annotated[bool, Affects(WEIGHTS, PACE)]
    """On a GPU, only kernels that give the same result every time; false takes the fastest."""
    compile: Annotated[bool, Affects(WEIGHTS, PACE)]
    """Let torch compile the network: some time at the beginning, then faster steps."""
    num_workers: Annotated[int, Field(ge=0, le=64), Affects(NOTHING)]
    """Processes that augment images, for each process that trains; the result does not depend on it."""
    cache_gb: Annotated[float, Field(ge=0), Affects(NOTHING)]
    """Gigabytes of disk for decoded images, which all trainings share; 0 keeps none."""
    num_processes: Annotated[
        int, Field(ge=1, le=64), Affects(PACE), Affects(WEIGHTS, when={"train.sync_batch_norm": False})
    ]
    """Processes of this machine that train together, one for each GPU (docs/distributed.md)."""
    sync_batch_norm: Annotated[bool, Affects(WEIGHTS)]
    """Several processes normalise by the statistics of the whole batch, not of each one's share."""
    validate_every: Annotated[PositiveInt, Affects(WEIGHTS, PACE)]
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
    tile_size_px: Annotated[int, Field(ge=64, le=8192), Affects(WEIGHTS, MAPS)]
    """Side of the inference window; an image up to this size is taken whole."""
    overlap_px: Annotated[int, Field(ge=0), Affects(WEIGHTS, MAPS)]
    """Overlap of neighbouring tiles, blended."""
    batch_size: Annotated[PositiveInt, Affects(NOTHING)]
    """Most tiles in one pass."""
    # Models that were registered before it existed lack it.
    engine: Annotated[Literal["auto", "torch", "openvino"], Affects(NOTHING)] = "auto"
    """What computes a long prediction: ``auto`` takes what was measured to be fastest (crackseg.inference.autotune)."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> PredictParams:
        if self.overlap_px * 2 > self.tile_size_px:
            raise ValueError(f"overlap_px {self.overlap_px} is more than half of tile_size_px {self.tile_size_px}")
        return self


class PostprocessParams(_Section):
    method: Annotated[Literal["none", "thin", "hysteresis", "link"], Affects(SCORES, VERSION)]
    """What is done to a map before its threshold (docs/post-processing.md)."""
    low_ratio: Annotated[
        float, Field(gt=0, le=1), Affects(SCORES, VERSION, when={"postprocess.method": ("hysteresis", "link")})
    ]
    """Share of the threshold that a weak pixel (``hysteresis``) or a gap on average (``link``) must reach."""
    max_gap_px: Annotated[PositiveInt, Affects(SCORES, VERSION, when={"postprocess.method": "link"})]
    """Longest gap between two line ends that ``link`` bridges, in pixels."""
    min_length_px: Annotated[int, Field(ge=0), Affects(SCORES, VERSION)]
    """Pieces with a shorter bounding box are dropped, after any method; 0 keeps all."""
    floor: Annotated[float, Field(gt=0, lt=1), Affects(SCORES, VERSION)]
    """Share of a map's range below which nothing is taken for a crack; unused where nothing is post-processed."""


class EvaluateParams(_Section):
    tolerance_px: Annotated[int, Field(ge=0, le=100), Affects(COUNTING)]
    """Half-width of the square dilation of the truth, d in the paper's section 3.3."""
    num_thresholds: Annotated[int, Field(ge=2, le=16384), Affects(COUNTING)]
    """Thresholds are k / (num_thresholds - 1)."""
    line_tolerance_px: Annotated[int, Field(ge=0, le=100), Affects(SCORES)]
    """Radius of the disc within which centre lines agree (centre-line IoU; OmniCrack30k's is 4)."""
    use_roi: Annotated[bool, Affects(COUNTING)]
    """Score only inside the region of interest, where a dataset has one."""


class RegistryParams(_Section):
    model_name: Annotated[str, Field(min_length=1, pattern=r"^[^/:]+$"), Affects(VERSION)]
    """Name of the registered model in MLflow."""
    max_drop: Annotated[float, Field(ge=0, le=1), Affects(NOTHING)]
    """What a challenger may lose on any one dataset against the model in production, in units of the score; a gain
    elsewhere does not make up for more."""
    max_slowdown: Annotated[float, Field(ge=1, le=1000), Affects(NOTHING)]
    """How many times the seconds for an image of the model in production a challenger may take."""


Choice = str | bool | int | float | None


class SearchDimension(_Strict):
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
    space: Annotated[
        dict[str, dict[str, Annotated[SearchDimension | None, BeforeValidator(_as_dimension)]]], Affects(SEARCH)
    ]
    """Section and key of params.yaml to search; null leaves a key as params.yaml has it."""
    paper: Annotated[Literal["grid", "table3", "none"], Affects(SEARCH)]
    """Which of the paper's cells are the first trials: those of section 3.1, only those of Table 3, or none."""
    trials: Annotated[PositiveInt, Affects(NOTHING)]
    """Trials of a study, the paper's cells among them."""
    protocol: Annotated[Literal["paper", "symmetric", "strict"], Affects(SEARCH)]
    """Protocol of the validation ODS that is maximised."""
    second_objective: Annotated[Literal["none", "inference_time", "parameters"], Affects(SEARCH)]
    """Minimised beside it: seconds for one validation image, or the network's number of parameters."""
    sampler: Annotated[Literal["tpe", "gp", "random", "grid"], Affects(SEARCH)]
    """Optuna's sampler; ``grid`` goes through the whole space in seeded order."""
    pruner: Annotated[Literal["median", "hyperband", "none"], Affects(SEARCH)]
    """What ends a trial early, by its validation ODS after an epoch; none with a second objective."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Affects(SEARCH)]
    """Of the sampler; the trainings have ``train.seed``."""
    keep: Annotated[int, Field(ge=0), Affects(NOTHING)]
    """Weights are kept of this many of the best trials."""


class Params(_Strict):
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
