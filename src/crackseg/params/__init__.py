"""params.yaml: its keys and their effects (sections), reading and changing it (loading)."""

from crackseg.params.loading import change_params, flatten_params, load_params, parse_setting, value_types
from crackseg.params.sections import (
    AugmentParams,
    Choice,
    DataParams,
    EvaluateParams,
    LossParams,
    ModelParams,
    OptimizerParams,
    Params,
    PostprocessParams,
    PredictParams,
    RegistryParams,
    SchedulerParams,
    SearchDimension,
    SearchParams,
    TrainParams,
)

__all__ = [
    "AugmentParams",
    "Choice",
    "DataParams",
    "EvaluateParams",
    "LossParams",
    "ModelParams",
    "OptimizerParams",
    "Params",
    "PostprocessParams",
    "PredictParams",
    "RegistryParams",
    "SchedulerParams",
    "SearchDimension",
    "SearchParams",
    "TrainParams",
    "change_params",
    "flatten_params",
    "load_params",
    "parse_setting",
    "value_types",
]
