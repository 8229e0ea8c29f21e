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
    "crackseg.project",
    "crackseg.tracking.store_address",
    "crackseg.devices",
    "crackseg.params",
    "crackseg.lineage",
    "crackseg.types",
    "crackseg.data.catalog",
    "crackseg.data.images.damage",
    "crackseg.data.images.kinds",
    "crackseg.data.images.value_range",
    "crackseg.data.images.decoding",
    "crackseg.data.images.files",
    "crackseg.errors",
    "crackseg.data.importing.account",
    "crackseg.data.masks.stored",
    "crackseg.data.masks.crack_values",
    "crackseg.data.masks.kinds",
    "crackseg.data.masks.formats",
    "crackseg.data.importing.folder_words",
    "crackseg.data.importing.folder_walk",
    "crackseg.data.importing.folder_roles",
    "crackseg.data.importing.index_files",
    "crackseg.data.importing.annotations",
    "crackseg.data.importing.shapes",
    "crackseg.data.importing.pairing",
    "crackseg.data.importing.annotated_pairs",
    "crackseg.data.importing.split_lists",
    "crackseg.data.importing.source_splits",
    "crackseg.data.importing.discovery",
    "crackseg.data.importing.splits",
    "crackseg.data.importing.staging",
    "crackseg.data.importing.importer",
    "crackseg.data.synthetic.drawing",
    "crackseg.data.synthetic.scenes",
    "crackseg.data.synthetic.sample",
    "crackseg.data.perceptual_hash",
    "crackseg.data.validation",
    "crackseg.data.versioning",
    "crackseg.data.guard",
    "crackseg.data.importing.versioned_import",
    "crackseg.data.preprocessing",
    "crackseg.data.augmentation",
    "crackseg.data.pixel_cache",
    "crackseg.data.dataset",
    "crackseg.models",
    "crackseg.training.losses",
    "crackseg.evaluation.metrics",
    "crackseg.evaluation.counts",
    "crackseg.evaluation.bootstrap",
    "crackseg.geometry.centerlines",
    "crackseg.geometry.postprocessing",
    "crackseg.evaluation.stored_maps",
    "crackseg.inference.engines",
    "crackseg.inference.engines",
    "crackseg.inference.autotune",
    "crackseg.inference.predictor",
    "crackseg.inference.maps",
    "crackseg.inference.detector",
    "crackseg.inference.drift",
    "crackseg.data.image_files",
    "crackseg.inference.table",
    "crackseg.geometry",
    "crackseg.inference.files",
    "crackseg.inference.annotation_export",
    "crackseg.tracking.artifact_places",
    "crackseg.tracking.connection",
    "crackseg.tracking.outbox",
    "crackseg.tracking.runs",
    "crackseg.tracking.store",
    "crackseg.tracking.transfer",
    "crackseg.training.distributed.synchronized",
    "crackseg.training.distributed.processes",
    "crackseg.training.checkpoint",
    "crackseg.training.optimizers",
    "crackseg.training.step_graph",
    "crackseg.training.step",
    "crackseg.training.loop",
    "crackseg.training.distributed.launching",
    "crackseg.files",
    "crackseg.evaluation.scoring",
    "crackseg.experiments.metric_faults",
    "crackseg.experiments.postprocessing_ablation",
    "crackseg.training.run",
    "crackseg.experiments.claims.study",
    "crackseg.evaluation.plots",
    "crackseg.experiments.claims.figures",
    "crackseg.experiments.claims.report",
    "crackseg.evaluation.report",
    "crackseg.experiments.paper",
    "crackseg.registry.package",
    "crackseg.registry.loading",
    "crackseg.inference.drift_figure",
    "crackseg.serving.monitoring",
    "crackseg.registry.pyfunc",
    "crackseg.registry.register",
    "crackseg.registry.card",
    "crackseg.experiments.compare",
    "crackseg.pipeline",
    "crackseg.registry.isolated_worker",
    "crackseg.registry.promotion_log",
    "crackseg.registry.production",
    "crackseg.registry.gate",
    "crackseg.registry.promotion",
    "crackseg.experiments.search",
    "crackseg.serving.http",
    "crackseg.serving.export",
    "crackseg.serving.spark",
    "crackseg.serving.deployment",
    "crackseg.cli.doctor",
    "crackseg.pipeline.demo",
    "crackseg.serving.page",
    "crackseg.cli",
    "crackseg.__main__",
]
NO_PLACE = {"crackseg", "crackseg.data"}  # package heads, importable from everywhere

# Only these (a module, or any module of a package) may import the named library, so that a change of it stays in one
# room.
IMPORTERS = {
    "mlflow": {
        "crackseg.tracking.connection",
        "crackseg.tracking.outbox",
        "crackseg.tracking.runs",
        "crackseg.tracking.store",
        "crackseg.tracking.transfer",
        "crackseg.registry.register",
        "crackseg.registry.pyfunc",
        "crackseg.registry.isolated_worker",
        "crackseg.registry.promotion_log",
        "crackseg.registry.production",
        "crackseg.registry.gate",
        "crackseg.registry.promotion",
        "crackseg.registry.card",
        "crackseg.serving.http",
        "crackseg.serving.spark",
        "crackseg.serving.deployment",
        "crackseg.experiments.compare.resolve_runs",
    },
    "click": {"crackseg.cli"},
    "tqdm": {"crackseg.progress"},
    "optuna": {"crackseg.experiments.search"},
    "gradio": {"crackseg.serving.page"},
    "matplotlib": {
        "crackseg.experiments.claims.figures",
        "crackseg.evaluation.plots",
        "crackseg.experiments.paper.figures",
        "crackseg.experiments.search.figures",
        "crackseg.experiments.compare.figures",
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
        ("crackseg.pipeline.prepare", ("torch", "mlflow")),
        ("crackseg.pipeline.predict", ("torchvision", "mlflow", "matplotlib")),
        ("crackseg.pipeline.train", ("torchvision", "matplotlib")),
        ("crackseg.pipeline.evaluate", ("torch",)),
        ("crackseg.pipeline.report", ("torch",)),
        ("crackseg.inference.files", ("torchvision", "mlflow")),
    ],
)
def test_a_process_does_not_wait_for_libraries_it_does_not_use(module: str, without: tuple[str, ...]) -> None:
    """torch, torchvision and MLflow take 3 to 5 s of a laptop's processor each, and `dvc repro` starts a dozen."""
    code = f"import sys, {module}; print([name for name in {without!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
