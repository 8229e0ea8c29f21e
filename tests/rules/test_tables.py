"""Architectures and losses stand in one table each, and nothing else in the package knows them by name."""

import ast
import re

import pytest

from crackseg.lineage import ANSWERS
from crackseg.models import ARCHITECTURES
from crackseg.params.choices import ARCHITECTURE_NAMES, LOSS_NAMES
from crackseg.training.losses import LOSSES
from tests.docs.pages import ROOT
from tests.imports import direct_imports, list_modules

# Configurations, which name an architecture as a value of `model.architecture`.
CONFIGURATIONS = {
    "crackseg.experiments.paper.configurations",
    "crackseg.experiments.paper.table3",
    "crackseg.experiments.claims.study",
    "crackseg.params.presets",
    "crackseg.pipeline.pretrain",
}
OF_ALL = {"initialization", "network", "registry", "shipped", "state_dicts", "weights_file"}


def test_settings_are_checked_against_the_names_of_the_tables() -> None:
    assert tuple(ARCHITECTURES) == ARCHITECTURE_NAMES
    assert tuple(LOSSES) == LOSS_NAMES


@pytest.mark.parametrize("key", sorted(key for key in ANSWERS if key.startswith("loss.") and key != "loss.name"))
def test_a_key_of_the_losses_affects_those_that_read_it(key: str) -> None:
    """Else a run is trained again for a key that its loss ignores, or kept although a key changed it."""
    reading = {name for name, kind in LOSSES.items() if key.removeprefix("loss.") in kind.parameters}
    conditions = [set(mark.when.get("loss.name", ())) for mark in ANSWERS[key]]
    assert conditions == [reading]


def test_every_parameter_of_a_loss_is_a_key() -> None:
    wanted = {f"loss.{parameter}" for kind in LOSSES.values() for parameter in kind.parameters}
    assert wanted <= set(ANSWERS)


@pytest.mark.parametrize("module", sorted(set(list_modules()) - CONFIGURATIONS))
def test_no_other_module_names_an_architecture(module: str) -> None:
    if module.startswith("crackseg.models."):
        return
    tree = ast.parse(list_modules()[module].read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not texts & set(ARCHITECTURES)
    bodies = [name for name in direct_imports(module) if name.startswith("crackseg.models.")]
    assert {name.split(".")[2] for name in bodies} <= OF_ALL


def test_the_pages_of_models_and_losses_have_every_row() -> None:
    models = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for name, row in ARCHITECTURES.items():
        pattern = rf"^\| `{name}`.* `{row.encoder}` " if row.encoder else rf"^\| `{name}`"
        assert re.search(pattern, models, re.MULTILINE), name
    losses = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    for name, kind in LOSSES.items():
        keys = ", ".join(f"`loss.{key}`" for key in kind.parameters) or "–"
        assert f"| `{name}` | {kind.summary} | {keys} |" in losses, name
