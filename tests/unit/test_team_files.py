"""compose.yaml, .env.example, Dockerfile and the workflow agree with each other and with the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML
from tools.lock import CONSTRAINTS, read_pins

from tests.pipeline.compose_file import ROOT, MissingVariable, list_variables, read_compose

EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if re.match(r"[A-Z0-9_]+=", line)
)
FILLED = {name: f"value-of-{name}" for name in EXAMPLE}


def _services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = read_compose(FILLED)["services"]
    return services


@pytest.mark.parametrize("name", EXAMPLE)
def test_it_does_not_start_while_a_secret_is_missing(name: str) -> None:
    for variables in ({k: v for k, v in FILLED.items() if k != name}, FILLED | {name: ""}):
        with pytest.raises(MissingVariable, match=name):
            read_compose(variables)


def test_the_example_names_what_must_be_set_and_has_no_value() -> None:
    treated = list_variables()
    assert set(EXAMPLE) == {name for name, how in treated.items() if how == ":?"}
    assert set(EXAMPLE.values()) == {""}
    secret = re.compile(r"PASSWORD|SECRET|KEY")
    assert {name for name in treated if secret.search(name)} <= set(EXAMPLE)  # none has a default


def test_no_secret_is_written_into_the_file_or_a_command() -> None:
    for service in _services().values():
        assert "value-of-" not in re.sub("value-of-MLFLOW_ALLOWED_HOSTS", "", " ".join(service.get("command", [])))
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|_KEY", key):
                assert value.startswith("value-of-"), key


def test_every_volume_config_and_service_that_is_used_is_there() -> None:
    content, services = read_compose(FILLED), _services()
    for service in services.values():
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in content["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in content["configs"]
        for name, wait in service.get("depends_on", {}).items():
            healthy = wait["condition"] == "service_healthy"
            assert ("healthcheck" in services[name]) == healthy
        image = service["image"]
        assert "build" in service or re.search(r":v?\d", image), f"{image}: which version?"


def test_the_server_knows_the_address_of_the_other_services() -> None:
    services = _services()
    command = " ".join(services["mlflow"]["command"])
    database = services["postgres"]["environment"]
    assert f"postgresql+psycopg://{database['POSTGRES_USER']}@postgres:5432/{database['POSTGRES_DB']}" in command
    port = services["s3"]["ports"][0].split(":")[-1]
    assert services["mlflow"]["environment"]["MLFLOW_S3_ENDPOINT_URL"] == f"http://s3:{port}"
    assert f'endpoint_url="http://s3:{port}"' in services["buckets"]["command"][-1]
    assert (
        services["s3"]["environment"]["ROOT_SECRET_KEY"]
        == services["mlflow"]["environment"]["AWS_SECRET_ACCESS_KEY"]
    )
    published = services["mlflow"]["ports"][0].split(":")[-1]
    assert f"--port={published}" in command


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def test_the_image_is_made_of_files_and_packages_that_exist() -> None:
    text = _dockerfile()
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (.+)$", text, re.M) for name in line.split()[:-1]}
    assert copied == admitted
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = read_pins(ROOT / CONSTRAINTS)
    installs = re.findall(r"pip install (.+)$", text, re.M)
    assert all("-c constraints.txt" in line for line in installs)
    for line in installs:
        for word in re.sub(r"-c \S+|\$\w+", "", line).replace('"', "").split():
            name, _, extras = word.partition("[")
            if name == ".":
                assert set(extras.rstrip("]").split(",")) <= set(project["optional-dependencies"])
            else:
                assert canonicalize_name(name) in pins
    python = re.search(r"^ARG PYTHON=(\S+)", text, re.M)
    assert python is not None
    assert f"{python[1]}.0" in SpecifierSet(project["requires-python"])


def test_compose_builds_a_stage_of_the_dockerfile() -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)", _dockerfile(), re.M)
    targets = {service["build"]["target"] for service in _services().values() if "build" in service}
    assert targets <= set(stages)
    assert stages[-1] == "crackseg"  # what `docker build .` makes


def test_the_workflow_runs_what_ci_runs_here() -> None:
    path = ROOT / ".github" / "workflows" / "ci.yml"
    (job,) = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert Path(ROOT / ".ci" / "run").stat().st_mode & 0o111
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [
        step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})
    ]
    assert versions
    assert all(f"{version}.0" in SpecifierSet(project["requires-python"]) for version in versions)
