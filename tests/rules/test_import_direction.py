"""The folders stand in pipeline order, imports point only upwards, and no two modules need each other."""

import os
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.imports import direct_imports, list_modules

# From the top to the bottom; below `crackseg`, a folder or a module that lies beside the folders.
ORDER = [
    "errors", "child_processes", "ports", "progress", "types", "devices", "files", "plotting", "params", "lineage",
    "project",
    "data",
    "models",
    "geometry",
    "evaluation",
    "inference",
    "inspection",
    "tracking",
    "training",
    "registry",
    "serving",
    "experiments",
    "pipeline",
    "cli", "__main__",
]  # fmt: skip

# Only these (a module, or any module of a folder) may import the named library, so that a change of it stays in one
# place.
IMPORTERS = {
    "mlflow": {
        "crackseg.tracking", "crackseg.registry", "crackseg.serving", "crackseg.experiments.compare.resolve_runs",
    },
    "tqdm": {"crackseg.progress"},
    "click": {"crackseg.cli"},
    "optuna": {"crackseg.experiments.search"},
    "openpyxl": {"crackseg.inspection.workbook"},
    "rasterio": {
        "crackseg.inspection.mosaic_checks",
        "crackseg.inspection.mosaic_files",
        "crackseg.inspection.mosaic_lines",
        "crackseg.inspection.mosaic_prediction",
        "crackseg.inspection.mosaic_reading",
    },
    "gradio": {"crackseg.serving.page"},
    "matplotlib": {
        "crackseg.plotting",
        "crackseg.evaluation.plots",
        "crackseg.experiments.claims.figures",
        "crackseg.experiments.compare.figures",
        "crackseg.experiments.figures",
        "crackseg.experiments.paper.figures",
        "crackseg.experiments.search.figures",
        "crackseg.inference.drift_figure",
    },
}  # fmt: skip
OURS = set(list_modules()) - {"crackseg"}


def _place(module: str) -> int:
    name = module.split(".")[1]
    assert name in ORDER, f"{module} has no place in the order: put it into the folder where it belongs"
    return ORDER.index(name)


@pytest.mark.parametrize("module", sorted(OURS))
def test_imports_point_upwards(module: str) -> None:
    assert sorted(name for name in direct_imports(module) & OURS if _place(name) > _place(module)) == []


def test_no_modules_import_each_other() -> None:
    TopologicalSorter({module: direct_imports(module) & OURS - {module} for module in OURS}).prepare()


@pytest.mark.parametrize("library", IMPORTERS)
def test_library_stays_in_its_place(library: str) -> None:
    found = {m for m in list_modules() if any(n.split(".")[0] == library for n in direct_imports(m))}
    rooms = IMPORTERS[library]
    strangers = {m for m in found if not any(m == room or m.startswith(f"{room}.") for room in rooms)}
    assert not strangers
    assert {room for room in rooms if any(m == room or m.startswith(f"{room}.") for m in found)} == rooms


def test_every_place_in_the_order_is_taken() -> None:
    assert {module.split(".")[1] for module in OURS} == set(ORDER)


# Modules that one process imports in this order, each with the libraries that it has not imported by then. Those that
# stand aside are imported by a fork, whose libraries the next ones do not see.
_OF_LINES = ("scipy.spatial", "scipy.cluster", "scipy.signal", "skimage")
LIGHT: list[tuple[str, dict[str, tuple[str, ...]]]] = [
    ("", {
        "crackseg.cli": ("torch", "mlflow", "pandas", "numpy", "dvc", "pydantic", "ruamel"),
        "crackseg.pipeline.prepare": ("torch", "mlflow", "matplotlib", *_OF_LINES),
        "crackseg.pipeline.threshold": ("torch", "mlflow", "matplotlib", *_OF_LINES),
    }),
    ("aside", {
        "crackseg.pipeline.predict": ("torchvision", "mlflow", "matplotlib", *_OF_LINES),
        "crackseg.inference.files": ("torchvision", "mlflow", "matplotlib", "scipy.stats"),
    }),
    ("", {"crackseg.pipeline.evaluate": ("torch", "matplotlib", *_OF_LINES)}),
    ("aside", {"crackseg.pipeline.report": ("torch", *_OF_LINES)}),
    ("", {
        "crackseg.pipeline.train": ("torchvision", "matplotlib", "sympy", *_OF_LINES),
        "crackseg.pipeline.register": ("torchvision", "matplotlib", "scipy.stats", *_OF_LINES),
        "crackseg.experiments.search.run": ("torchvision", "matplotlib", "sklearn"),
    }),
]  # fmt: skip
_IMPORT_ALL = """
import os, sys
for aside, modules in {light!r}:
    if aside and os.fork():
        os.wait()
        continue
    for module, without in modules.items():
        __import__(module)
        print(module, [name for name in without if name in sys.modules], flush=True)
    if aside:
        os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_does_not_wait_for_libraries_it_does_not_use() -> None:
    """torch and MLflow take 2 to 3 s of a laptop's processor, others half a second, and `dvc repro` starts a dozen."""
    code = _IMPORT_ALL.format(light=LIGHT)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [f"{module} []" for _, modules in LIGHT for module in modules]
