"""The top of the model's page in MLflow names the last change, and leaves a person's words alone."""

from __future__ import annotations

import pytest

from crackseg.registry.model_page import describe_model
from crackseg.registry.production import Production
from tests.registry_store import NAME, make_registry, promote


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Production:
    return make_registry(tmp_path_factory.mktemp("page"), 2)


def read_description(production: Production) -> str:
    return production.client.get_registered_model(NAME).description or ""


def test_the_description_names_the_last_change_only(production: Production) -> None:
    ours = describe_model(NAME)
    production.client.update_registered_model(NAME, ours)
    promote(production, "1", reason=r"finds `wet` stone\d")
    promote(production, "2", reason="*better* " * 40)
    promote(production, "1", reason=r"finds `wet` stone\d")
    text = read_description(production)
    assert text.startswith(ours.rstrip())
    (line,) = [line for line in text.splitlines() if line.startswith("Last change: ")]
    assert line.startswith("Last change: version 1 in production since 20")
    assert r"(finds \`wet\` stone\\d); record 3 of `crackseg history`." in line

    production.client.update_registered_model(NAME, f"Ours, ask Ada.\n\n{line}\n\nMore.")
    production.rollback(to=None, reason="worse")
    assert read_description(production).startswith("Ours, ask Ada.\n\nLast change: version 2 in production since")
    assert read_description(production).endswith("\n\nMore.")


def test_a_persons_description_stays(production: Production) -> None:
    production.client.update_registered_model(NAME, "Ours, ask Ada.")
    current = production.read().in_production
    promote(production, "1" if current == "2" else "2")
    assert read_description(production) == "Ours, ask Ada."
