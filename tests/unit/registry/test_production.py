"""Production is never in doubt: killed, raced or changed by hand, alias, stage and history agree after a command."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from crackseg.errors import CracksegError
from crackseg.registry.loading import pin_alias
from crackseg.registry.production import Production
from crackseg.serving.deployment import find_production
from tests.registry_store import (
    NAME,
    PROCESSES,
    describe,
    die_before_write,
    make_registry,
    open_production,
    promote,
    promote_at_once,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of four versions, none in production; a fresh database takes seconds."""
    root = tmp_path_factory.mktemp("registry")
    make_registry(root, 4)
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def production(root: Path) -> Production:
    return open_production(root)


def check_agreement(production: Production) -> dict:
    """The chain has no gap, and aliases and stages say what it says."""
    seen = describe(production)
    chain = seen["chain"]
    assert [c[1] for c in chain] == [None, *(c[2] for c in chain)][: len(chain)]
    current = chain[-1][2] if chain else None
    assert seen["production"] == current
    assert [v for v, stage in seen["stages"].items() if stage == "Production"] == ([current] if current else [])
    assert production.find_fault(production.read()) is None
    models = production.client.search_registered_models()
    assert [m.name for m in models] == [NAME]  # no claim is left on the models page
    return seen


def test_the_old_one_is_archived_and_named_previous(production: Production) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # MLflow's warning of deprecated stages must not reach the user
        promote(production, "1")
        assert describe(production)["previous"] is None
        promote(production, "3")
    seen = check_agreement(production)
    assert seen == {
        "chain": [("promotion", None, "1"), ("promotion", "1", "3")],
        "production": "3",
        "previous": "1",
        "stages": {"1": "Archived", "2": "None", "3": "Production", "4": "None"},
    }


def test_rolling_back_takes_the_way_back(production: Production) -> None:
    for version in ("1", "2", "3"):
        promote(production, version)
    assert production.rollback(to=None, reason="worse").to_version == "2"
    assert describe(production)["previous"] == "1"  # and not 3, which was bad
    assert production.rollback(to=None, reason="worse, too").to_version == "1"
    dead_end = r"before version 1 none was in production; .*--to VERSION` takes what was rolled back: 2, 3"
    with pytest.raises(CracksegError, match=dead_end):
        production.rollback(to=None, reason="and on")
    assert production.rollback(to="3", reason="it was the camera").to_version == "3"
    seen = check_agreement(production)
    assert seen["stages"] == {"1": "Archived", "2": "Archived", "3": "Production", "4": "None"}
    records = production.read().records
    assert [r.reason for r in records if r.action == "rollback"] == ["worse", "worse, too", "it was the camera"]


def test_after_a_promotion_to_an_earlier_version_the_later_one_is_the_way_back(production: Production) -> None:
    for version in ("1", "2", "1"):
        promote(production, version)
    assert check_agreement(production)["previous"] == "2"
    assert production.rollback(to=None, reason="2 was better").to_version == "2"
    assert check_agreement(production)["previous"] == "1"
    assert production.rollback(to=None, reason="it was not").to_version == "1"
    assert check_agreement(production)["previous"] is None
    promote(production, "2")  # again, after it was rolled back
    assert check_agreement(production)["previous"] == "1"


def test_a_rollback_names_the_deleted_versions_that_it_passes_over(production: Production) -> None:
    for version in ("1", "2", "3"):
        promote(production, version)
    production.delete("2", force=True)
    record = production.rollback(to=None, reason="worse")
    assert (record.to_version, record.skipped) == ("1", ("2",))
    assert production.read().records[-1].skipped == ("2",)
    production.client.delete_model_version(NAME, "3")
    promote(production, "4")
    production.delete("1", force=True)
    with pytest.raises(CracksegError, match=r"what was in production before version 4 is deleted \(1\)$"):
        production.rollback(to=None, reason="worse, too")
    check_agreement(production)


@pytest.mark.parametrize(
    ("to", "reason", "said"),
    [
        ("9", "x", "has no version 9; there are: 1, 2, 3, 4"),
        ("4", "x", "version 4 never was in production"),
        ("2", "x", "version 2 is in production already"),
        (None, "  ", "--reason has 0 characters"),
        (None, "x" * 1001, "--reason has 1001 characters"),
    ],
)
def test_a_wrong_rollback_changes_nothing(production: Production, to: str | None, reason: str, said: str) -> None:
    promote(production, "1")
    promote(production, "2")
    before = describe(production)
    with pytest.raises(CracksegError, match=said):
        production.rollback(to=to, reason=reason)
    assert describe(production) == before


def test_no_rollback_to_a_version_without_files(production: Production, root: Path) -> None:
    promote(production, "1")
    promote(production, "2")
    source = Path(production.read().versions["1"].source.removeprefix("file://"))
    gone = source.rename(source.with_name("gone"))
    try:
        with pytest.raises(CracksegError, match="files of version 1"):
            production.rollback(to=None, reason="worse")
    finally:
        gone.rename(source)
    assert describe(production)["production"] == "2"


@pytest.mark.slow
@pytest.mark.parametrize("action", ["first promotion", "promotion", "rollback"])
def test_killed_before_any_write_the_next_command_mends_it(
    root: Path, production: Production, action: str
) -> None:
    before: list[str] = {"first promotion": [], "promotion": ["1"], "rollback": ["1", "2"]}[action]
    for version in before:
        promote(production, version)
    untouched = root.with_name("untouched")
    shutil.copytree(root, untouched)
    goal = {"first promotion": "1", "promotion": "2", "rollback": "1"}[action]
    kills = 0
    while True:
        trial = root.with_name(f"killed-{kills + 1}")
        shutil.copytree(untouched, trial)
        process = PROCESSES.Process(
            target=die_before_write,
            args=(trial, kills + 1, action.split()[-1].replace("promotion", "promote"), goal),
        )
        process.start()
        process.join(60)
        killed = open_production(trial)
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
        kills += 1
        if before:  # whatever was reached, it points to a version
            assert describe(killed)["production"] in (before[-1], goal)
        notes = killed.repair()
        seen = check_agreement(killed)
        begun = kills > 1  # the first write is the claim, with all that is needed to finish
        assert seen["production"] == (goal if begun else before[-1] if before else None)
        assert not notes or "had been interrupted" in notes[0]
        assert killed.repair() == []
        promote(killed, "4")
        check_agreement(killed)
    assert kills >= 6
    check_agreement(killed)


@pytest.mark.parametrize(
    ("one_machine", "rounds"),
    [
        pytest.param(True, 3, marks=pytest.mark.slow, id="one machine"),
        pytest.param(False, 3, marks=pytest.mark.slow, id="many machines"),
        pytest.param(False, 1, id="many machines, once"),
    ],
)
def test_of_many_at_once_one_wins_and_the_others_are_told(
    root: Path, production: Production, one_machine: bool, rounds: int
) -> None:
    promote(production, "1")
    for round_number in range(1, rounds + 1):
        barrier, said = PROCESSES.Barrier(4), PROCESSES.SimpleQueue()
        candidates = [v for v in ("1", "2", "3", "4") if v != production.read().in_production]
        candidates.append(candidates[0])  # two want the same
        processes = [
            PROCESSES.Process(target=promote_at_once, args=(root, version, barrier, said, one_machine))
            for version in candidates
        ]
        for process in processes:
            process.start()
        answers = [said.get() for _ in processes]
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        winners = [version for version, answer in answers if answer == "won"]
        assert len(winners) == 1, answers
        losers = [answer for _, answer in answers if answer != "won"]
        assert all(f"put version {winners[0]} into production" in answer for answer in losers)
        assert all("nothing was changed here" in answer for answer in losers)
        assert production.repair() == []
        seen = check_agreement(production)
        assert seen["production"] == winners[0]
        assert len(seen["chain"]) == 1 + round_number


def test_an_alias_moved_by_hand_is_taken_over_and_recorded(production: Production) -> None:
    promote(production, "1")
    production.client.set_registered_model_alias(NAME, "production", "3")
    (note,) = production.repair()
    assert "version 3 had been put into production outside crackseg, without a gate" in note
    seen = check_agreement(production)
    assert seen["chain"][-1] == ("outside", "1", "3")
    assert (seen["previous"], seen["stages"]["1"]) == ("1", "Archived")


@pytest.mark.parametrize("by", ["alias", "stage"])
def test_what_was_in_production_before_crackseg_is_taken_over(production: Production, by: str) -> None:
    if by == "alias":
        production.client.set_registered_model_alias(NAME, "production", "2")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            production.client.transition_model_version_stage(NAME, "2", "Production")
    assert len(production.repair()) == 1
    assert check_agreement(production)["chain"] == [("outside", None, "2")]


def test_stage_and_alias_do_not_drift_apart(production: Production) -> None:
    promote(production, "1")
    promote(production, "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        production.client.transition_model_version_stage(NAME, "4", "Production")
    assert "changed outside crackseg" in production.repair()[0]
    assert check_agreement(production)["production"] == "2"
    production.client.delete_registered_model_alias(NAME, "production")
    assert "had been removed; it is back on version 2" in production.repair()[0]
    production.client.delete_registered_model_alias(NAME, "previous")
    assert len(production.repair()) == 1
    assert check_agreement(production)["previous"] == "1"


def test_production_deleted_by_hand_falls_back_to_the_version_before(production: Production) -> None:
    promote(production, "1")
    promote(production, "2")
    production.client.delete_model_version(NAME, "2")
    (note,) = production.repair()
    assert "version 2 was in production and has been deleted outside crackseg; version 1 is in production" in note
    seen = check_agreement(production)
    assert seen["chain"][-1] == ("outside", "2", "1")
    production.client.delete_model_version(NAME, "1")
    (note,) = production.repair()
    assert "nothing is in production" in note
    assert check_agreement(production)["chain"][-1] == ("outside", "1", None)
    promote(production, "3")
    assert check_agreement(production)["production"] == "3"


def test_what_is_in_production_cannot_be_deleted(production: Production) -> None:
    for version in ("1", "2", "3"):
        promote(production, version)
    with pytest.raises(CracksegError, match="version 3 is in production and cannot be deleted"):
        production.delete("3", force=True)
    with pytest.raises(CracksegError, match="version 2 is what `crackseg rollback` would go back to"):
        production.delete("2", force=False)
    production.delete("2", force=True)
    assert describe(production)["previous"] == "1"
    production.delete("4", force=False)
    assert list(describe(production)["stages"]) == ["1", "3"]
    check_agreement(production)


def test_whoever_uses_what_is_in_production_finishes_a_killed_promotion_first(
    root: Path, production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(production, "1")
    params = (Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8")
    (root / "params.yaml").write_text(params.replace("model_name: crackseg", f"model_name: {NAME}"))
    process = PROCESSES.Process(target=die_before_write, args=(root, 3, "promote", "2"))  # its record is written
    process.start()
    process.join()
    assert process.exitcode == -9
    assert describe(production)["production"] == "1"
    (root / "dvc.yaml").touch()
    monkeypatch.chdir(root)
    uri = find_production()
    assert pin_alias(uri, production.store) == f"models:/{NAME}/2"
    check_agreement(production)


def test_a_stage_names_the_version_as_the_alias_does_without_a_warning(production: Production) -> None:
    promote(production, "1")
    promote(production, "3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pin_alias(f"models:/{NAME}/Production", production.store) == f"models:/{NAME}/3"
        assert pin_alias(f"models:/{NAME}/Archived", production.store) == f"models:/{NAME}/1"
        with pytest.raises(CracksegError, match="no version of cracks is called Staging"):
            pin_alias(f"models:/{NAME}/Staging", production.store)
    assert pin_alias(f"models:/{NAME}/4", production.store) == f"models:/{NAME}/4"


def test_no_such_model_is_named(root: Path) -> None:
    store = open_production(root).store
    with pytest.raises(CracksegError, match="no model 'bridges' is registered"):
        Production(store, "bridges")
