"""data/ -> outputs/prepared: check the data's version and validity, then resize."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from crackseg.data.catalog import data_source, list_splits
from crackseg.data.guard import check_data_is_committed
from crackseg.data.preprocessing import prepare_dataset
from crackseg.data.validation import validate_datasets
from crackseg.data.versioning import hash_dataset, hash_listing
from crackseg.errors import CracksegError
from crackseg.files import write_json
from crackseg.params import load_params
from crackseg.project import Layout, find_real_root

_log = logging.getLogger("crackseg")


def run(root: Path) -> None:
    """Prepare the datasets that params.yaml names.

    Raises:
        CracksegError: data/ is not the committed version, or a dataset has errors.
    """
    layout = Layout(root)
    params = load_params(layout.params).data
    listing, _ = check_data_is_committed(root, find_real_root(root))
    datasets = list(dict.fromkeys([params.train_dataset, *params.test_datasets]))
    _check_splits(layout.data, params.train_dataset, params.test_datasets, params.evaluate_split)
    reports = validate_datasets(layout.data, datasets, train_dataset=params.train_dataset)
    problems = [f"  {r.dataset}: {p}" for r in reports for p in r.errors]
    if problems:
        shown = "\n".join(problems[:20] + ([f"  and {len(problems) - 20} more"] if len(problems) > 20 else []))
        raise CracksegError(f"the data has errors; `crackseg data validate` shows all of them\n{shown}")
    for report in reports:
        for warning in report.warnings:
            _log.warning("%s: %s", report.dataset, warning)
    if layout.prepared.exists():
        shutil.rmtree(layout.prepared)
    for dataset in datasets:
        prepare_dataset(layout.data, dataset, layout.prepared, params)
    versions = {
        name: {"md5": hash_dataset(listing, name), "source": data_source(layout.data, name)} for name in datasets
    }
    write_json(layout.data_versions, {"md5": hash_listing(listing), "datasets": versions})


def _check_splits(data_dir: Path, train_dataset: str, test_datasets: tuple[str, ...], split: str) -> None:
    wanted = [(train_dataset, "train"), (train_dataset, "val"), *((name, split) for name in test_datasets)]
    for dataset, needed in wanted:
        present = {name: len(samples) for name, samples in list_splits(data_dir, dataset).items()}
        if not present[needed]:
            raise CracksegError(
                f"dataset {dataset} has no {needed} images (train {present['train']}, val {present['val']}, test "
                f"{present['test']}); choose another dataset or split in params.yaml, or import it with other splits"
            )
