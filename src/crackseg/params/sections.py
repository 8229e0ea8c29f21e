"""Frozen, typed sections of params.yaml: the type, the meaning and the effects of each key.

Each field is annotated with its effects (:mod:`crackseg.params.effects`); without them this module cannot be imported.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

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
from crackseg.params.width_classes import WidthClass, check_width_classes
from crackseg.types import Surface

Probability = Annotated[float, Field(ge=0, le=1)]
LARGEST_SCENE_PATCH_PX = 512  # side of a drawn scene (crackseg.data.synthetic.patches)
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
    """``square`` distorts to size_px x size_px (the paper); ``pad`` keeps the aspect ratio and pads; ``none`` does
    not resize."""
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
    """Largest shift of the hue, as a fraction of the colour circle."""
    saturation: Annotated[Probability, Affects(WEIGHTS)]
    """Largest relative change of saturation."""
    brightness: Annotated[Probability, Affects(WEIGHTS)]
    """Largest change of brightness, as a fraction of full scale."""
    contrast: Annotated[Probability, Affects(WEIGHTS)]
    """Largest relative change of contrast around the mean."""
    crop_px: Annotated[int, Field(ge=0), Affects(WEIGHTS, PACE)]
    """Side of the random square crop, in pixels of the prepared image; 0 keeps the whole image."""
    # Older files lack these keys (docs/training-recipe.md says what each gave).
    rotate_quarter: Annotated[Probability, Affects(WEIGHTS)] = 0.0
    """Probability of a turn by 90 degrees; with both flips at 0.5, 0.5 makes all eight positions equally likely."""
    warp: Annotated[Probability, Affects(WEIGHTS, PACE)] = 0.0
    """Probability of a turn by any angle up to 45 degrees, together with a zoom."""
    warp_zoom: Annotated[float, Field(ge=1, le=1.5), Affects(WEIGHTS)] = 1.25
    """Largest factor by which a warped patch is enlarged or reduced."""
    crop_at_cracks: Annotated[Probability, Affects(WEIGHTS)] = 0.0
    """Fraction of the crops that are placed around a crack pixel, if the image has one."""
    dilate_mask_px: Annotated[int, Field(ge=0, le=20), Affects(WEIGHTS)] = 0
    """Half-width of a square by which the ground truth of training patches is dilated; validation keeps it."""
    drawn_cracks: Annotated[Probability, Affects(WEIGHTS)] = 0.0
    """Probability that a crack is drawn into a patch without crack pixels."""
    scenes: Annotated[Probability, Affects(WEIGHTS)] = 0.0
    """Fraction of the patches that are taken from drawn scenes, as the shipped model was trained with."""


class ModelParams(_Section):
    architecture: Annotated[ArchitectureName, Affects(WEIGHTS, PACE)]
    """A name from ``crackseg.models.ARCHITECTURES`` (docs/models.md)."""
    init: Annotated[str, Affects(WEIGHTS)]
    """``random``, ``scenes`` (the shipped model), ``imagenet`` (backbone), ``coco`` (the paper), a weights file, or
    ``models:/NAME/VERSION``."""
    num_classes: Annotated[Literal[1, 2], Affects(WEIGHTS)]
    """Output maps: crack alone, or background and crack."""
    normalize: Annotated[bool, Affects(WEIGHTS)]
    """Subtract ImageNet's mean and divide by its deviation, inside the model."""
    train_layers: Annotated[Literal["all", "classifier"], Affects(WEIGHTS, PACE)]
    """Layers that are trained."""
    width: Annotated[Annotated[int, Field(ge=4, le=256)] | None, Affects(WEIGHTS, PACE)]
    """Channels of the first level, for architectures with a width; null is the architecture's default."""
    batch_norm: Annotated[bool, Affects(WEIGHTS)]
    """Batch normalisation after each convolution; false only for architectures that allow it."""
    encoder: Annotated[str, Affects(WEIGHTS, PACE)]
    """Encoder of smp or timm, for architectures with a choice; empty is the architecture's default."""


class LossParams(_Section):
    name: Annotated[LossName, Affects(WEIGHTS)]
    """A name from ``crackseg.training.losses.LOSSES``, e.g. ``focal``, the paper's (docs/losses.md)."""
    gamma: Annotated[float, Field(ge=0, le=100), Affects(WEIGHTS, when={"loss.name": "focal"})]
    """Focusing exponent of equation (2)."""
    alpha: Annotated[float, Field(gt=0), Affects(WEIGHTS, when={"loss.name": "focal"})]
    """Weight of the non-crack term of equation (2)."""
    # Older files lack these keys.
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
    name: Annotated[Literal["plateau", "cosine", "onecycle", "none"], Affects(WEIGHTS)]
    """``plateau`` follows the validation loss (the paper); ``cosine`` falls to zero over the epochs, by step;
    ``onecycle`` rises over the first 30 % of the steps and falls to zero over the others."""
    factor: Annotated[float, Field(gt=0, lt=1), Affects(WEIGHTS, when={"scheduler.name": "plateau"})]
    """Factor by which ``plateau`` multiplies the learning rate."""
    patience: Annotated[int, Field(ge=0), Affects(WEIGHTS, when={"scheduler.name": "plateau"})]
    """Epochs without a better validation loss before ``plateau`` reduces the learning rate."""


class TrainParams(_Section):
    epochs: Annotated[PositiveInt, Affects(WEIGHTS)]
    """Passes over the training images."""
    batch_size: Annotated[PositiveInt, Affects(WEIGHTS, PACE)]
    """Patches in one step, over all parts and processes."""
    accumulate: Annotated[PositiveInt, Affects(WEIGHTS, PACE)]
    """Parts in which a step's batch is computed, one after another, if a GPU cannot hold all of it."""
    patches_per_image: Annotated[PositiveInt, Affects(WEIGHTS, PACE)]
    """Random crops from each image in an epoch."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Affects(WEIGHTS)]
    """Seed of weights, order and augmentation."""
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Affects(WEIGHTS, MAPS, VERSION, PACE)]
    """``auto`` takes bfloat16 if the processor computes it fast, float16 on older GPUs, else float32; never TF32."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Affects(NOTHING)]
    """``auto`` takes cuda, else mps, else cpu."""
    deterministic: Annotated[bool, Affects(WEIGHTS, PACE)]
    """Use only deterministic kernels on a GPU; false takes the fastest."""
    compile: Annotated[bool, Affects(WEIGHTS, PACE)]
    """Compile the network with torch: a slower start, then faster steps."""
    num_workers: Annotated[int, Field(ge=0, le=64), Affects(NOTHING)]
    """Processes that augment images, for each process that trains; the result does not depend on it."""
    cache_gb: Annotated[float, Field(ge=0), Affects(NOTHING)]
    """Gigabytes of disk for decoded images, used by all training runs; 0 keeps none."""
    num_processes: Annotated[
        int, Field(ge=1, le=64), Affects(PACE), Affects(WEIGHTS, when={"train.sync_batch_norm": False})
    ]
    """Processes on this machine that train together, one for each GPU (docs/distributed.md)."""
    sync_batch_norm: Annotated[bool, Affects(WEIGHTS)]
    """With several processes, normalise by the statistics of the whole batch, not of each process's part."""
    validate_every: Annotated[PositiveInt, Affects(WEIGHTS, PACE)]
    """Epochs from one validation to the next; the last epoch is always validated."""
    # Older files lack these keys.
    ema_decay: Annotated[float, Field(ge=0, lt=1), Affects(WEIGHTS, PACE)] = 0.0
    """Decay per step of an exponential moving average of the weights, which is validated and saved; 0: no average."""
    flip_agreement: Annotated[float, Field(ge=0), Affects(WEIGHTS, PACE)] = 0.0
    """Weight of a second term of the loss: agreement with what the averaged weights (``ema_decay``) say of the flipped
    patch, so that one pass is nearly as good as ``predict.flips``; 0: none."""
    keep_initial: Annotated[float, Field(ge=0, lt=1), Affects(WEIGHTS)] = 0.0
    """Fraction of the initial weights in those that are validated and saved, so that a model that is trained further
    keeps what it knew of other images."""

    @model_validator(mode="after")
    def _agreement_has_a_teacher(self) -> TrainParams:
        if self.flip_agreement and not self.ema_decay:
            raise ValueError(
                f"flip_agreement {self.flip_agreement:g} is agreement with the averaged weights, but ema_decay is 0: "
                "set ema_decay, for example to 0.98, or flip_agreement to 0"
            )
        return self

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
    """Side of the inference window; an image up to this size is predicted without tiles."""
    overlap_px: Annotated[int, Field(ge=0), Affects(WEIGHTS, MAPS)]
    """Overlap of neighbouring tiles, blended."""
    batch_size: Annotated[PositiveInt, Affects(NOTHING)]
    """Most tiles in one pass."""
    # Models that were registered earlier lack this key.
    engine: Annotated[Literal["auto", "torch", "openvino"], Affects(NOTHING)] = "auto"
    """Engine of a long prediction; ``auto`` takes the one measured to be fastest (crackseg.inference.autotune)."""
    flips: Annotated[bool, Affects(WEIGHTS, MAPS)] = False
    """Average the log-odds of the tile and its three flips; takes four times as long."""
    fit_tiles: Annotated[bool, Affects(WEIGHTS, MAPS)] = False
    """Choose the sides of a photograph's tiles, within a quarter of ``tile_size_px``, so that the fewest pixels are
    computed; only ``unet``, ``modified_unet`` and ``deepcrack``, whose answer does not depend on a tile's size."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> PredictParams:
        if self.overlap_px * 2 > self.tile_size_px:
            raise ValueError(f"overlap_px {self.overlap_px} is more than half of tile_size_px {self.tile_size_px}")
        return self


class PostprocessParams(_Section):
    method: Annotated[Literal["none", "thin", "hysteresis", "link"], Affects(SCORES, VERSION)]
    """Post-processing of a map before its threshold (docs/post-processing.md)."""
    low_ratio: Annotated[
        float, Field(gt=0, le=1), Affects(SCORES, VERSION, when={"postprocess.method": ("hysteresis", "link")})
    ]
    """Fraction of the threshold that a weak pixel (``hysteresis``) or a gap on average (``link``) must reach."""
    max_gap_px: Annotated[PositiveInt, Affects(SCORES, VERSION, when={"postprocess.method": "link"})]
    """Longest gap between two line ends that ``link`` bridges, in pixels."""
    min_length_px: Annotated[int, Field(ge=0), Affects(SCORES, VERSION)]
    """Connected components with a shorter bounding box are removed, after any method; 0 keeps all."""
    floor: Annotated[float, Field(gt=0, lt=1), Affects(SCORES, VERSION)]
    """Fraction of a map's range below which no pixel is a crack; unused without post-processing."""


class EvaluateParams(_Section):
    tolerance_px: Annotated[int, Field(ge=0, le=100), Affects(COUNTING)]
    """Half-width of the square dilation of the ground truth, d in the paper's section 3.3."""
    num_thresholds: Annotated[int, Field(ge=2, le=16384), Affects(COUNTING)]
    """Thresholds are k / (num_thresholds - 1)."""
    line_tolerance_px: Annotated[int, Field(ge=0, le=100), Affects(SCORES)]
    """Radius of the disc within which centre lines agree (centre-line IoU; OmniCrack30k's is 4)."""
    use_roi: Annotated[bool, Affects(COUNTING)]
    """Score only inside the region of interest, if a dataset has one."""


class RegistryParams(_Section):
    model_name: Annotated[str, Field(min_length=1, pattern=r"^[^/:]+$"), Affects(VERSION)]
    """Name of the registered model in MLflow."""
    max_drop: Annotated[float, Field(ge=0, le=1), Affects(NOTHING)]
    """Largest loss of score on any one dataset that a challenger may have against the model in production; a gain on
    another dataset does not make up for it."""
    max_slowdown: Annotated[float, Field(ge=1, le=1000), Affects(NOTHING)]
    """Largest time for an image that a challenger may take, as a multiple of the time of the model in production."""
    # Projects of an earlier crackseg lack this key.
    max_false_alarms: Annotated[float | None, Field(ge=0, le=1), Affects(NOTHING)] = None
    """Largest fraction of the crack-free photographs on which a challenger may mark a crack; null: no limit."""


class MeasureParams(_Section):
    """Rules applied to measured cracks (docs/measuring.md); files of an earlier crackseg lack this section."""

    surface: Annotated[Surface, Affects(NOTHING)] = "concrete"
    """Surface of the photographs: its width classes, and the names for networks of cracks."""
    classes: Annotated[tuple[WidthClass, ...] | None, Affects(NOTHING)] = None
    """Width classes in mm, the finest first, instead of those of the surface; null: those of the surface."""
    direction_deg: Annotated[float, Field(ge=0, lt=180), Affects(NOTHING)] = 90.0
    """Direction of the road or member in the photographs, counter-clockwise from the picture's x axis: 90 is upwards.
    Cracks along it are longitudinal."""

    @field_validator("classes")
    @classmethod
    def _one_class_for_each_width(cls, classes: tuple[WidthClass, ...] | None) -> tuple[WidthClass, ...] | None:
        if classes is not None:
            check_width_classes(classes)
        return classes


Choice = str | bool | int | float | None


class SearchDimension(_Strict):
    """Values of one key of params.yaml in a search: a range, or choices (a list is short for choices)."""

    low: float | None = None
    """Lowest value of a range."""
    high: float | None = None
    """Highest value of a range; an integer key has a range of integers."""
    log: bool = False
    """Draw from the range on a logarithmic scale."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Distance between neighbouring values of the range; needed for ``grid``."""
    choices: tuple[Choice, ...] | None = None
    """The values, instead of a range."""
    when: dict[str, Choice | tuple[Choice, ...]] = Field(default_factory=dict)
    """The key is searched only where these other keys have this value, or one of these values."""


def _as_dimension(value: Any) -> Any:
    value = {"choices": value} if isinstance(value, list) else value
    # pydantic takes the result of a validator as Python, not as JSON: in strict mode, a list is then no tuple.
    return _lists_as_tuples(value)


def _lists_as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lists_as_tuples(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


class SearchParams(_Section):
    space: Annotated[
        dict[str, dict[str, Annotated[SearchDimension | None, BeforeValidator(_as_dimension)]]], Affects(SEARCH)
    ]
    """Sections and keys of params.yaml to search; null keeps the value of params.yaml."""
    paper: Annotated[Literal["grid", "table3", "none"], Affects(SEARCH)]
    """The paper's configurations that are the first trials: those of section 3.1, only those of Table 3, or none."""
    trials: Annotated[PositiveInt, Affects(NOTHING)]
    """Trials of a study, including the paper's configurations."""
    protocol: Annotated[Literal["paper", "symmetric", "strict"], Affects(SEARCH)]
    """Protocol of the validation ODS that is maximised."""
    second_objective: Annotated[Literal["none", "inference_time", "parameters"], Affects(SEARCH)]
    """Second value to minimise: seconds for one validation image, or the network's number of parameters."""
    sampler: Annotated[Literal["tpe", "gp", "random", "grid"], Affects(SEARCH)]
    """Optuna's sampler; ``grid`` tries the whole space in seeded order."""
    pruner: Annotated[Literal["median", "hyperband", "none"], Affects(SEARCH)]
    """Optuna's pruner, by the validation ODS after each epoch; none with a second objective."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Affects(SEARCH)]
    """Seed of the sampler; training runs have ``train.seed``."""
    keep: Annotated[int, Field(ge=0), Affects(NOTHING)]
    """Number of the best trials whose weights are kept."""


class Params(_Strict):
    """All sections of params.yaml; a function takes only its own section."""

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
    measure: MeasureParams = MeasureParams()

    @model_validator(mode="after")
    def _crop_fits(self) -> Params:
        if self.data.resize != "none" and self.augment.crop_px > self.data.size_px:
            raise ValueError(
                f"augment.crop_px {self.augment.crop_px} is larger than data.size_px {self.data.size_px}"
            )
        return self

    @model_validator(mode="after")
    def _something_to_keep(self) -> Params:
        if self.train.keep_initial and self.model.init == "random":
            raise ValueError(
                f"train.keep_initial {self.train.keep_initial:g} keeps initial weights, but model.init is random; set "
                "train.keep_initial: 0, or model.init to trained weights such as scenes"
            )
        return self

    @model_validator(mode="after")
    def _scenes_have_the_patches_size(self) -> Params:
        if self.augment.scenes and not 32 <= self.augment.crop_px <= LARGEST_SCENE_PATCH_PX:
            raise ValueError(
                f"augment.scenes {self.augment.scenes:g} needs patches of drawn scenes: set augment.crop_px, which is "
                f"{self.augment.crop_px}, to between 32 and {LARGEST_SCENE_PATCH_PX}"
            )
        return self
