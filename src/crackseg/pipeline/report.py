"""outputs/scores -> outputs/report: figures and a page, also as artifacts of the run."""

from __future__ import annotations

from pathlib import Path

from crackseg.evaluation.report import write_report
from crackseg.evaluation.score_files import flatten_scores, mean_ods, read_scores
from crackseg.lineage import describe_loss
from crackseg.params import flatten_params, load_params
from crackseg.pipeline.result_run import find_result_run
from crackseg.progress import name_step
from crackseg.project import Layout, read_output
from crackseg.tracking.run_notes import BEGINNINGS, describe_run
from crackseg.tracking.store import Store


def run(root: Path) -> None:
    """Write the report of all datasets and record it."""
    layout = Layout(root)
    params = load_params(layout.params)
    store = Store(root, may_be_away=True)
    title = f"{params.model.architecture}, {describe_loss(flatten_params(params))}"
    name_step("draw curves and example images")
    write_report(
        layout.report,
        title=title,
        datasets=params.data.test_datasets,
        split=params.data.evaluate_split,
        prepared_dir=layout.prepared,
        predictions_dir=layout.predictions,
        scores_dir=layout.scores,
        history_path=layout.history,
        training_seconds=read_output(layout.training)["train"]["training_seconds"],
        postprocessing=params.postprocess,
        use_roi=params.evaluate.use_roi,
    )
    scores = read_scores(layout.scores, params.data.test_datasets)
    ods = {"mean": mean_ods(scores)} | {name: scores[name]["ods"] for name in scores}
    name_step("log the report in MLflow")
    with store.record(find_result_run(store, layout, params)) as recorder:
        # A run of changed settings may lack the datasets whose scoring was skipped as unchanged.
        figures = {k: v for name in scores for k, v in flatten_scores(scores, name).items()}
        recorder.log_metrics(figures | {"mean/ods": ods["mean"]}, only_new=True)
        recorder.describe(describe_run(root, params, ods), over=BEGINNINGS)
        for path in sorted(layout.report.iterdir()):
            recorder.log_file(path, "report")
    print("report: outputs/report/report.md", flush=True)
