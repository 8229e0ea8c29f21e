"""The rooms stand in pipeline order, and imports point only upwards."""

import subprocess
import sys

import pytest

from crackseg.lineage import direct_imports, list_modules

# From the top of the house to the bottom; a name stands for the module, or for all modules of the package.
ORDER = [
    "crackseg.errors",
    "crackseg.progress",
    "crackseg.child_processes",
    "crackseg.project_folder",
    "crackseg.store_address",
    "crackseg.devices",
    "crackseg.params",
    "crackseg.lineage",
    "crackseg.records",
    "crackseg.data.catalog",
    "crackseg.data.damage",
    "crackseg.data.image_kinds",
    "crackseg.data.value_range",
    "crackseg.data.decoding",
    "crackseg.data.image_io",
    "crackseg.data.wording",
    "crackseg.data.account",
    "crackseg.data.stored_masks",
    "crackseg.data.crack_values",
    "crackseg.data.mask_kinds",
    "crackseg.data.mask_formats",
    "crackseg.data.folder_words",
    "crackseg.data.folder_walk",
    "crackseg.data.layouts",
    "crackseg.data.index_files",
    "crackseg.data.annotations",
    "crackseg.data.shapes",
    "crackseg.data.pairing",
    "crackseg.data.annotated_pairs",
    "crackseg.data.split_lists",
    "crackseg.data.source_splits",
    "crackseg.data.discovery",
    "crackseg.data.splits",
    "crackseg.data.staging",
    "crackseg.data.importers",
    "crackseg.data.crack_drawing",
    "crackseg.data.scenes",
    "crackseg.data.synthetic",
    "crackseg.data.perceptual_hash",
    "crackseg.data.validation",
    "crackseg.data.versioning",
    "crackseg.data.guard",
    "crackseg.data.versioned_import",
    "crackseg.data.preprocessing",
    "crackseg.data.augmentation",
    "crackseg.data.decoded",
    "crackseg.data.dataset",
    "crackseg.models",
    "crackseg.losses",
    "crackseg.metrics",
    "crackseg.count_files",
    "crackseg.bootstrap",
    "crackseg.centerlines",
    "crackseg.postprocessing",
    "crackseg.stored_maps",
    "crackseg.folding",
    "crackseg.engines",
    "crackseg.calibration",
    "crackseg.inference",
    "crackseg.predicted_maps",
    "crackseg.analysis",
    "crackseg.drift",
    "crackseg.photographs",
    "crackseg.prediction_table",
    "crackseg.measurement",
    "crackseg.prediction",
    "crackseg.annotation_export",
    "crackseg.artifact_places",
    "crackseg.store_connection",
    "crackseg.outbox",
    "crackseg.runs",
    "crackseg.tracking",
    "crackseg.store_transfer",
    "crackseg.synchronized",
    "crackseg.processes",
    "crackseg.checkpoint",
    "crackseg.optimizers",
    "crackseg.step_graph",
    "crackseg.steps",
    "crackseg.training",
    "crackseg.launching",
    "crackseg.tables",
    "crackseg.evaluation",
    "crackseg.weak_points",
    "crackseg.postprocessing_study",
    "crackseg.trials",
    "crackseg.study",
    "crackseg.plots",
    "crackseg.study_figures",
    "crackseg.study_report",
    "crackseg.report",
    "crackseg.paper",
    "crackseg.model_package",
    "crackseg.model_loading",
    "crackseg.drift_figure",
    "crackseg.monitoring",
    "crackseg.serving",
    "crackseg.registry",
    "crackseg.model_card",
    "crackseg.compare",
    "crackseg.stages",
    "crackseg.clean_process",
    "crackseg.history",
    "crackseg.production",
    "crackseg.gate",
    "crackseg.promotion",
    "crackseg.search",
    "crackseg.scoring_server",
    "crackseg.export",
    "crackseg.spark_batch",
    "crackseg.deployment",
    "crackseg.doctor",
    "crackseg.demo",
    "crackseg.app",
    "crackseg.cli",
    "crackseg.__main__",
]
NO_PLACE = {"crackseg", "crackseg.data"}  # package heads, importable from everywhere

# Only these (a module, or any module of a package) may import the named library, so that a change of it stays in one
# room.
IMPORTERS = {
    "mlflow": {
        "crackseg.store_connection",
        "crackseg.outbox",
        "crackseg.runs",
        "crackseg.tracking",
        "crackseg.store_transfer",
        "crackseg.registry",
        "crackseg.serving",
        "crackseg.clean_process",
        "crackseg.history",
        "crackseg.production",
        "crackseg.gate",
        "crackseg.promotion",
        "crackseg.model_card",
        "crackseg.scoring_server",
        "crackseg.spark_batch",
        "crackseg.deployment",
        "crackseg.compare.finding",
    },
    "click": {"crackseg.cli"},
    "tqdm": {"crackseg.progress"},
    "optuna": {"crackseg.search"},
    "gradio": {"crackseg.app"},
    "matplotlib": {
        "crackseg.study_figures",
        "crackseg.plots",
        "crackseg.paper.figures",
        "crackseg.search.figures",
        "crackseg.compare.figures",
    },
}


def _place(module: str) -> int:
    places = [i for i, name in enumerate(ORDER) if module == name or module.startswith(f"{name}.")]
    assert places, f"{module} has no place in the order: add it where it belongs"
    return max(places, key=lambda i: len(ORDER[i]))


@pytest.mark.parametrize("module", sorted(set(list_modules()) - NO_PLACE))
def test_imports_point_upwards(module: str) -> None:
    ours = {name for name in direct_imports(module) if name in list_modules()} - NO_PLACE
    below = sorted(name for name in ours if _place(name) > _place(module))
    assert not below


@pytest.mark.parametrize("library", IMPORTERS)
def test_library_stays_in_its_room(library: str) -> None:
    found = {m for m in list_modules() if any(n.split(".")[0] == library for n in direct_imports(m))}
    rooms = IMPORTERS[library]
    strangers = {m for m in found if not any(m == room or m.startswith(f"{room}.") for room in rooms)}
    assert not strangers
    assert {room for room in rooms if any(m == room or m.startswith(f"{room}.") for m in found)} == rooms


def test_every_place_in_the_order_is_taken() -> None:
    modules = set(list_modules())
    assert [name for name in ORDER if name not in modules] == []


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("crackseg.stages.prepare", ("torch", "mlflow")),
        ("crackseg.stages.predict", ("torchvision", "mlflow", "matplotlib")),
        ("crackseg.stages.train", ("torchvision", "matplotlib")),
        ("crackseg.stages.evaluate", ("torch",)),
        ("crackseg.stages.report", ("torch",)),
        ("crackseg.prediction", ("torchvision", "mlflow")),
    ],
)
def test_a_process_does_not_wait_for_libraries_it_does_not_use(module: str, without: tuple[str, ...]) -> None:
    """torch, torchvision and MLflow take 3 to 5 s of a laptop's processor each, and `dvc repro` starts a dozen."""
    code = f"import sys, {module}; print([name for name in {without!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
