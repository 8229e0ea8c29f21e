"""The project that commands get: found from below it, its store opened only for a command that needs it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from crackseg.cli import cli
from crackseg.errors import CracksegError
from crackseg.pipeline import evaluate, predict


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml", "sub/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "sub")
    return tmp_path


def test_a_command_that_needs_no_store_opens_none(project: Path) -> None:
    result = CliRunner().invoke(cli, ["data", "validate"])
    assert f"{project / 'data'} holds no datasets" in str(result.exception)
    assert not (project / "mlruns").exists()


@pytest.mark.parametrize("words", [["search", "--study", "night", "show"], ["search", "show", "--study", "night"]])
def test_a_study_may_be_named_before_and_after_the_subcommand(project: Path, words: list[str]) -> None:
    result = CliRunner().invoke(cli, words)
    assert "no study 'night'" in str(result.exception)
    assert (project / "mlruns").is_dir()


def test_a_stage_of_a_dataset_that_was_not_prepared_names_those_that_were(project: Path) -> None:
    (project / "outputs").mkdir()
    (project / "outputs" / "data_versions.json").write_text('{"datasets": {"BRIDGE7": {}, "WALL": {}}}')
    (project / "params.yaml").write_bytes((Path(__file__).parents[3] / "params.yaml").read_bytes())
    for run in (predict.run, evaluate.run):
        with pytest.raises(CracksegError, match="no dataset 'NOPE' among the prepared ones: BRIDGE7, WALL"):
            run(project, "NOPE")


@pytest.mark.parametrize("command", ["ui", "serve", "app"])
def test_a_port_that_no_machine_has_is_refused_before_anything_starts(project: Path, command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--port", "99999"])
    assert result.exit_code == 2
    assert "99999 is not in the range 1<=x<=65535" in result.output
    assert not (project / "mlruns").exists()
