"""A result that was computed by other code is not taken for a present one."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from crackseg import lineage


@pytest.fixture
def copied(tmp_path: Path) -> ModuleType:
    """Make a copy of the package whose files a test may change; its own module reads them."""
    package = tmp_path / "crackseg"
    shutil.copytree(lineage.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.spec_from_file_location("copied_lineage", package / "lineage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("crackseg.stages.train", "step_graph.py"),
        ("crackseg.stages.train", "engines.py"),
        ("crackseg.stages.train", "folding.py"),
        ("crackseg.stages.train", "losses.py"),
        ("crackseg.stages.train", "models/__init__.py"),
        ("crackseg.stages.train", "data/augmentation.py"),
        ("crackseg.trials", "training.py"),
        ("crackseg.trials", "evaluation.py"),
        ("crackseg.trials", "postprocessing.py"),
        ("crackseg.trials", "predicted_maps.py"),
    ],
)
def test_a_training_or_trial_of_other_code_is_not_resumed(copied: ModuleType, module: str, name: str) -> None:
    before = copied.hash_code(module)
    path = copied.PACKAGE / name
    path.write_text(path.read_text(encoding="utf-8") + "\nPRECISION = 1\n", encoding="utf-8")
    assert copied.hash_code(module) != before


@pytest.mark.parametrize("name", ["errors.py", "tracking.py", "plots.py", "cli/app.py", "registry.py"])
def test_a_change_that_no_weight_follows_from_keeps_a_checkpoint(copied: ModuleType, name: str) -> None:
    before = copied.hash_code("crackseg.stages.train")
    (copied.PACKAGE / name).write_text("# another text\n", encoding="utf-8")
    assert copied.hash_code("crackseg.stages.train") == before


def test_imports_by_name_and_heads_of_packages_count(copied: ModuleType) -> None:
    (copied.PACKAGE / "losses.py").write_text('import importlib\nimportlib.import_module("crackseg.plots")\n')
    listed = {path.relative_to(copied.PACKAGE).as_posix() for path in copied.list_code("crackseg.losses")}
    assert {"losses.py", "plots.py"} <= listed
    assert "models/__init__.py" in {
        path.relative_to(copied.PACKAGE).as_posix() for path in copied.list_code("crackseg.models.unet")
    }
