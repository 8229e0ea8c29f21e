"""The history is a chain of tags of the registered model: nothing is written twice, lost, or changed unnoticed."""

from __future__ import annotations

import json

import pytest

from crackseg.errors import CracksegError
from crackseg.history import Check, History, Overtaken, Record, check_reason, find_former
from tests.registry_store import NAME, make_registry


def make_record(from_version: str | None, to_version: str | None, **more: object) -> Record:
    facts = {"time": "2026-01-02T03:04:05Z", "user": "ada", "reason": "bëtter", "git_commit": "abc"} | more
    return Record("promotion", from_version, to_version, **facts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> History:
    return make_registry(tmp_path_factory.mktemp("registry"), 2).history


@pytest.fixture
def history(registry: History) -> History:
    """A history without records."""
    for key in registry.client.get_registered_model(NAME).tags:
        registry.client.delete_registered_model_tag(NAME, key)
    for model in registry.client.search_registered_models(f"name LIKE '{NAME}.history-%'"):
        registry.client.delete_registered_model(model.name)
    return registry


def tags_of(history: History) -> dict[str, str]:
    return history.client.get_registered_model(NAME).tags


def test_records_come_back_as_written_and_show_as_tags(history: History) -> None:
    checks = (Check("better", "failed", "0.71 -> 0.70", {"low": -0.02}), Check("speed", "passed", "x 1.0"))
    first = history.append(make_record(None, "1"), after=0)
    second = history.append(make_record("1", "2", checks=checks, forced=True, data_md5="d41d"), after=1)
    assert history.read() == [first, second]
    assert (second.number, second.forced, second.checks, second.reason) == (2, True, checks, "bëtter")
    shown = tags_of(history)
    assert shown.keys() == {"history.000001", "history.000002", "history.000002.gate"}
    assert json.loads(shown["history.000002"])["from"] == "1"
    assert json.loads(shown["history.000002.gate"])[0]["message"] == "0.71 -> 0.70"
    assert [m.name for m in history.client.search_registered_models()] == [NAME]


def test_a_number_is_written_once(history: History) -> None:
    history.append(make_record(None, "1"), after=0)
    with pytest.raises(Overtaken):
        history.append(make_record(None, "2"), after=0)
    assert [r.to_version for r in history.read()] == ["1"]
    assert [m.name for m in history.client.search_registered_models()] == [NAME]


def test_a_claim_left_behind_is_finished_for_its_writer(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as dying:
        dying.setattr(history, "_copy", lambda _tags: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            history.append(make_record(None, "1"), after=0)
    assert history.read() == []
    with pytest.raises(Overtaken):
        history.append(make_record(None, "2"), after=0)
    assert [r.to_version for r in history.read()] == ["1"]
    history.append(make_record("1", "2"), after=1)


def test_a_late_claim_of_a_written_number_overwrites_nothing(history: History) -> None:
    history.append(make_record(None, "1"), after=0)
    late = {"history.000001": '{"to": "2"}'}
    history.client.create_registered_model(f"{NAME}.history-000001", tags=late)
    history.settle()
    assert [r.to_version for r in history.read()] == ["1"]
    assert [m.name for m in history.client.search_registered_models()] == [NAME]


def test_a_model_of_somebody_else_under_such_a_name_is_left_alone(history: History) -> None:
    history.client.create_registered_model(f"{NAME}.history-of-cracks")
    history.settle()
    assert len(history.client.search_registered_models()) == 2
    history.client.delete_registered_model(f"{NAME}.history-of-cracks")


def test_a_changed_or_missing_record_is_noticed(history: History) -> None:
    for number in range(3):
        history.append(make_record(str(number) if number else None, str(number + 1)), after=number)
    assert all(r.intact for r in history.read())
    changed = tags_of(history)["history.000002"].replace("ada", "eve")
    history.client.set_registered_model_tag(NAME, "history.000002", changed)
    assert [r.intact for r in history.read()] == [True, True, False]
    history.client.delete_registered_model_tag(NAME, "history.000002")
    assert [(r.number, r.intact) for r in history.read()] == [(1, True), (3, False)]
    history.client.set_registered_model_tag(NAME, "history.000003", "nothing")
    with pytest.raises(CracksegError, match=r"tag history\.000003 .* is not what crackseg wrote"):
        history.read()


def test_a_record_fits_the_database_whatever_the_gate_says(history: History) -> None:
    checks = tuple(
        Check(f"check {i}", "passed", "m" * 3000, {str(k): 0.123456 for k in range(200)}) for i in range(9)
    )
    record = make_record(None, "1", checks=checks, reason=check_reason("ü" * 1000))
    history.append(record, after=0)
    assert all(len(value) <= 5000 for value in tags_of(history).values())
    (kept,) = history.read()
    assert [c.name for c in kept.checks] == [c.name for c in checks]
    assert all(c.message.startswith("mmm") for c in kept.checks)


def test_reasons_are_one_printable_line() -> None:
    assert check_reason("  wet\n stone\x00 ") == "wet stone"
    with pytest.raises(CracksegError, match="--reason has 0 characters"):
        check_reason("\n\t")


@pytest.mark.parametrize(
    ("moves", "former"),
    [
        ("", ""), ("1", ""), ("1 2 3", "2 1"), ("1 2 3 2", "1"), ("1 2 3 1", ""), ("1 2 3 1 4", "1"),
        ("1 2 1 2", "1"), ("1 2 1 3 2", "3 1"), ("1 2 -", "2 1"),
    ],
)  # fmt: skip
def test_the_way_back_leaves_out_what_was_rolled_back(moves: str, former: str) -> None:
    versions = [None if move == "-" else move for move in moves.split()]
    records = [make_record(None, version) for version in versions]
    assert find_former(records) == former.split()
