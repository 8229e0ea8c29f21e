"""Record the drift of predicted photographs as a monitoring run in MLflow."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.inference.drift import FigureDrift
from crackseg.inference.drift_figure import draw_drift
from crackseg.registry.loading import LoadedModel
from crackseg.tracking.store import Store, describe_code


def record_drift(
    root: Path,
    model: LoadedModel,
    values: Sequence[Mapping[str, float]],
    drifts: Sequence[FigureDrift],
    *,
    source: str,
    num_failed: int,
) -> str:
    """Record drift as a separate run, with values, a plot and the table of all photographs.

    Args:
        root: the project.
        model: that predicted.
        values: of each photograph, by name.
        drifts: from :func:`crackseg.inference.drift.compare`.
        source: where the photographs are.
        num_failed: photographs that could not be read.
    Returns:
        The run's id.
    Raises:
        CracksegError: no photograph, or the store cannot be opened.
    """
    if not drifts:
        raise CracksegError("no photograph could be read, so there is no drift to report")
    store = Store(root)
    settings = model.analyzer.settings
    run_id = store.create_run(f"drift {Path(source).name or source}")
    with store.record(run_id) as recorder, tempfile.TemporaryDirectory() as scratch:
        recorder.set_tags(
            describe_code(root)
            | {
                "kind": "monitoring",
                "model.uri": model.uri,
                "model.digest": model.digest,
                "model.run_id": settings.run_id,
                "model.dataset": settings.dataset,
                "source": source,
                "drifted": ", ".join(d.figure for d in drifts if d.drifted) or "none",
            }
        )
        metrics: dict[str, float] = {"num_images": len(values), "num_failed": num_failed}
        for drift in drifts:
            for key in ("ks", "p_value", "psi", "new_median", "reference_median"):
                metrics[f"{drift.figure}/{key}"] = getattr(drift, key)
        metrics["num_drifted"] = sum(bool(d.drifted) for d in drifts)
        recorder.log_metrics(metrics)
        content = {"figures": [asdict(d) for d in drifts], "photographs": [dict(f) for f in values]}
        write_bytes(Path(scratch) / "drift.json", (json.dumps(content, indent=2) + "\n").encode())
        title = f"{source} ({len(values)} photographs) and {settings.dataset}, {model.uri}"
        draw_drift(settings.reference, values, drifts, Path(scratch) / "drift.png", title=title)
        for name in ("drift.json", "drift.png"):
            recorder.log_file(Path(scratch) / name, "drift")
        recorder.end("FINISHED")
    return run_id
