"""outputs/model -> outputs/threshold.json: the operating threshold, after post-processing."""

from __future__ import annotations

from pathlib import Path

from crackseg.data.catalog import list_samples
from crackseg.evaluation.stored_maps import changes_maps
from crackseg.files import write_json
from crackseg.params import Params, load_params
from crackseg.project import Layout, read_output


def run(root: Path) -> None:
    """Choose the threshold at which the finished model marks cracks, and at which false alarms are counted."""
    layout = Layout(root)
    params = load_params(layout.params)
    of_training = read_output(layout.training)["train"]["operating_threshold"]
    again = changes_maps(params.postprocess)
    threshold = _choose(layout, params, of_training) if again else of_training
    write_json(layout.threshold, {"operating_threshold": threshold})
    reason = "after post-processing" if again else "as training chose it; no post-processing changes the maps"
    print(f"operating threshold {threshold:.4f}, {reason}", flush=True)


def _choose(layout: Layout, params: Params, of_training: float) -> float:
    # Only here, since they bring torch: without post-processing the stage is done in a second.
    from crackseg.inference.operating_threshold import choose_threshold, predict_map
    from crackseg.inference.predictor import load_predictor

    predictor, _ = load_predictor(layout.weights, device=params.train.device, precision=params.train.precision)
    val_samples = list_samples(layout.prepared, params.data.train_dataset, "val")
    return choose_threshold(predict_map(predictor), val_samples, params.postprocess, of_training=of_training)
