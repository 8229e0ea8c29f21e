"""Find the run in which results are recorded."""

from __future__ import annotations

from crackseg.lineage import keys_changing
from crackseg.params import Params, flatten_params
from crackseg.params.effects import COUNTING, MAPS, RESULTS, SCORES
from crackseg.project import Layout, read_output
from crackseg.tracking.store import Store


def find_result_run(store: Store, layout: Layout, params: Params) -> str:
    """Find the run that results under the current settings belong to: the training run, or a child of it."""
    flat = flatten_params(params)
    settings = {key: flat[key] for key in keys_changing(MAPS, COUNTING, SCORES, RESULTS)}
    settings["data.md5"] = read_output(layout.data_versions)["md5"]
    return store.run_for_settings(read_output(layout.run)["run_id"], settings)
