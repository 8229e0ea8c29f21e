"""outputs/model, outputs/prepared/DATASET -> outputs/predictions/DATASET: probability maps."""

from __future__ import annotations

from pathlib import Path

from crackseg.data.catalog import list_samples
from crackseg.inference.maps import predict_split
from crackseg.inference.predictor import build_predictor
from crackseg.models.weights_file import load_network
from crackseg.params import load_params
from crackseg.project import Layout, read_data_version, require_made


def run(root: Path, dataset: str) -> None:
    """Predict the evaluated split of one dataset."""
    layout = Layout(root)
    params = load_params(layout.params)
    read_data_version(layout, dataset)
    network, _ = load_network(require_made(layout.weights))
    predictor = build_predictor(
        network, params.predict, device=params.train.device, precision=params.train.precision
    )
    samples = list_samples(layout.prepared, dataset, params.data.evaluate_split)
    predict_split(predictor, samples, layout.predictions / dataset)
