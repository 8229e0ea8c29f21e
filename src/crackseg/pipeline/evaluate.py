"""outputs/predictions/DATASET -> outputs/scores/DATASET*: ODS, OIS, AP under three protocols."""

from __future__ import annotations

from pathlib import Path

from crackseg.data.catalog import list_samples
from crackseg.evaluation.counts import write_counts
from crackseg.evaluation.false_alarms import FalseAlarms, describe_false_alarms
from crackseg.evaluation.metrics import ImageCounts
from crackseg.evaluation.score_files import flatten_scores, read_scores
from crackseg.evaluation.scoring import score_split, write_scores
from crackseg.params import load_params
from crackseg.pipeline.result_run import find_result_run
from crackseg.project import Layout, read_data_version, read_output
from crackseg.tracking.store import Store
from crackseg.tracking.ui_view import PRECISION_AT_RECALL
from crackseg.types import PLAN_NAME


def run(root: Path, dataset: str) -> None:
    """Score one dataset's saved maps and record the scores in the run that trained the model."""
    layout = Layout(root)
    params = load_params(layout.params)
    store = Store(root, may_be_away=True)
    version = read_data_version(layout, dataset)
    samples = list_samples(layout.prepared, dataset, params.data.evaluate_split)
    counts: dict[str, ImageCounts] = {}
    scores, lines, alarms = score_split(
        samples,
        layout.predictions / dataset,
        params.evaluate,
        params.postprocess,
        operating_threshold=read_output(layout.threshold)["operating_threshold"],
        on_counts=counts.__setitem__,
    )
    write_counts(counts, layout.scores / f"{dataset}_counts.npz")
    plan = read_output(layout.predictions / dataset / PLAN_NAME)
    write_scores(scores, lines, alarms, dataset, layout.scores, extra={"data_source": version["source"]})
    with store.record(find_result_run(store, layout, params)) as recorder:
        recorder.log_metrics(flatten_scores(read_scores(layout.scores, [dataset]), dataset), only_new=True)
        recorder.log_curve(f"{dataset}/{PRECISION_AT_RECALL}", scores.paper.curve.precision_at_recall())
        recorder.set_tags({f"predict.{dataset}.{key}": value for key, value in plan.items()})
        recorder.log_file(layout.scores / f"{dataset}_pr.csv", "pr_curves")
        recorder.log_file(layout.scores / f"{dataset}_images.csv", "per_image")
        recorder.log_file(layout.scores / f"{dataset}_counts.npz", "per_image")
        recorder.log_dataset(
            f"{dataset}-{params.data.evaluate_split}",
            version["md5"],
            context="evaluation",
            num_images=len(samples),
            source=version["source"],
        )
    figures = scores.paper
    print(
        f"{dataset}: ODS {figures.ods:.4f}  OIS {figures.ois:.4f}  AP {figures.ap:.4f}  "
        f"centre-line IoU {lines.centerline_iou:.4f}  false alarms "
        f"{describe_false_alarms(FalseAlarms.pool(alarms.values()).to_dict())}",
        flush=True,
    )
