"""The history is a chain of tags of the registered model: nothing is written twice, lost, or changed unnoticed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crackseg.errors import CracksegError
from crackseg.registry.promotion_log import Check, History, Overtaken, Record, check_reason, find_former
from crackseg.tracking.ui_view import HIDDEN_TAG
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
    """The history's tags by their keys without the beginning that hides them in MLflow."""
    return {
        key.removeprefix(HIDDEN_TAG): text for key, text in history.client.get_registered_model(NAME).tags.items()
    }


def shown_tags(history: History) -> list[str]:
    """Tags that MLflow's page of the model shows."""
    return [key for key in history.client.get_registered_model(NAME).tags if not key.startswith("mlflow.")]


def test_records_come_back_as_written_and_do_not_fill_the_models_page(history: History) -> None:
    checks = (Check("better", "failed", "0.71 -> 0.70", {"low": -0.02}), Check("speed", "passed", "x 1.0"))
    first = history.append(make_record(None, "1"), after=0)
    second = history.append(make_record("1", "2", checks=checks, forced=True, data_md5="d41d"), after=1)
    assert history.read() == [first, second]
    assert (second.number, second.forced, second.checks, second.reason) == (2, True, checks, "bëtter")
    shown = tags_of(history)
    assert shown.keys() == {"history.000001", "history.000002", "history.000002.gate"}
    assert json.loads(shown["history.000002"])["from"] == "1"
    assert json.loads(shown["history.000002.gate"])[0]["message"] == "0.71 -> 0.70"
    assert shown_tags(history) == []
    assert [m.name for m in history.client.search_registered_models()] == [NAME]


def test_a_history_of_a_former_release_stays_word_for_word_and_leaves_the_models_page(history: History) -> None:
    checks = (Check("speed", "passed", "x 1.0"),)
    for number in range(3):
        history.append(make_record(str(number) if number else None, str(number + 1), checks=checks), after=number)
        history.mark_applied(history.read()[-1])
    records, texts = history.read(), tags_of(history)
    for key, text in texts.items():
        history.client.set_registered_model_tag(NAME, key, text)
        history.client.delete_registered_model_tag(NAME, HIDDEN_TAG + key)
    assert history.read() == records
    history.append(make_record("3", "4"), after=3)  # next to former ones
    assert history.read()[:3] == records
    assert all(r.intact for r in history.read())
    history.settle()
    assert shown_tags(history) == []
    assert history.read()[:3] == records
    assert texts.items() <= tags_of(history).items()


def test_a_record_that_two_releases_wrote_differently_shows_as_changed(history: History) -> None:
    history.append(make_record(None, "1"), after=0)
    history.client.set_registered_model_tag(NAME, "history.000001", tags_of(history)["history.000001"] + " ")
    history.settle()
    assert [r.intact for r in history.read()] == [False]
    assert shown_tags(history) == ["history.000001"]


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


def test_of_two_equal_records_at_once_only_one_is_its_writers(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two users of one name promote the same version within a second, on two machines."""
    record = make_record(None, "1")
    write = history._copy

    def meet_the_other(tags: dict[str, str]) -> None:
        monkeypatch.setattr(history, "_copy", write)
        with pytest.raises(Overtaken):
            history.append(record, after=0)
        write(tags)

    monkeypatch.setattr(history, "_copy", meet_the_other)
    assert history.append(record, after=0).number == 1
    assert len(history.read()) == 1


def test_a_claim_that_mlflow_sends_twice_is_still_its_writers(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = history.client.create_registered_model

    def lose_the_answer(*args: Any, **kwargs: Any) -> None:
        create(*args, **kwargs)
        create(*args, **kwargs)  # by MLflow's HTTP client

    monkeypatch.setattr(history.client, "create_registered_model", lose_the_answer)
    assert history.append(make_record(None, "1"), after=0).number == 1
    assert [r.to_version for r in history.read()] == ["1"]
    assert [m.name for m in history.client.search_registered_models()] == [NAME]


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
    history.client.set_registered_model_tag(NAME, HIDDEN_TAG + "history.000002", changed)
    assert [r.intact for r in history.read()] == [True, True, False]
    history.client.delete_registered_model_tag(NAME, HIDDEN_TAG + "history.000002")
    assert [(r.number, r.intact) for r in history.read()] == [(1, True), (3, False)]
    history.client.set_registered_model_tag(NAME, HIDDEN_TAG + "history.000003", "nothing")
    with pytest.raises(
        CracksegError, match=r"tag mlflow\.crackseg\.history\.000003 .* is not what crackseg wrote"
    ):
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
        ("", ""), ("1", ""), ("1 2 3", "2 1"), ("1 2 -", "2 1"),
        ("1 2 1", "2 1"),  # promoted again: 2 was in production before
        ("1 2 1 2", "1 2 1"), ("1 2 1 3 2", "3 1 2 1"),
        ("1 2 3 r2", "1"), ("1 2 3 r1", ""), ("1 2 3 r1 4", "1"), ("1 2 3 r2 r1", ""),
        ("1 2 r1 2", "1"),  # promoted again after a rollback
        ("1 2 3 r1 r3", "1"),  # what was rolled back, by --to
        ("1 2 1 r2", "1"), ("1 2 1 r2 r1", ""), ("1 2 1 3 r1", "2 1"),
        ("1 2 2", "1"),  # found by hand where the history had it
    ],
)  # fmt: skip
def test_the_way_back_is_what_was_in_production_before(moves: str, former: str) -> None:
    assert find_former([make_move(move) for move in moves.split()]) == former.split()


@pytest.mark.parametrize(
    ("moves", "deleted", "former"),
    [("1 2 3", "2", "1"), ("1 2 1", "2", ""), ("1 2 3 2", "3", "1"), ("3 1 2 1", "2", "3"), ("1 2 -", "2", "1")],
)
def test_the_way_back_passes_over_deleted_versions(moves: str, deleted: str, former: str) -> None:
    records = [make_move(move) for move in moves.split()]
    assert find_former(records, {"1", "2", "3"} - set(deleted)) == former.split()


def make_move(move: str) -> Record:
    """A record: `2` promotes version 2, `r2` rolls back to it, `-` leaves nothing in production."""
    record = make_record(None, None if move == "-" else move.removeprefix("r"))
    return replace(record, action="rollback") if move.startswith("r") else record


class WayBack(RuleBasedStateMachine):
    """A user who keeps a pile of notes beside the registry: any promotion goes on top, any rollback takes it off."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []
        self.existing = set("12345")
        self.pile: list[str] = []

    def change(self, move: str) -> None:
        self.records.append(replace(make_move(move), number=len(self.records) + 1))

    def throw_away_deleted(self) -> None:
        kept = [version for version in self.pile if version in self.existing]
        self.pile = [v for i, v in enumerate(kept) if i == 0 or v != kept[i - 1]]

    @rule(version=st.sampled_from("12345"))
    def promote(self, version: str) -> None:
        if version in self.existing and self.pile[-1:] != [version]:
            self.change(version)
            self.pile.append(version)

    @precondition(lambda self: len(self.pile) > 1)
    @rule()
    def roll_back(self) -> None:
        goal = find_former(self.records, self.existing)[0]
        self.pile.pop()
        assert goal == self.pile[-1]
        self.change(f"r{goal}")

    @precondition(lambda self: len(self.pile) > 1)
    @rule(data=st.data())
    def roll_back_further(self, data: st.DataObject) -> None:
        goal = data.draw(st.sampled_from(sorted({*self.pile} - {self.pile[-1]})))
        while self.pile[-1] != goal:
            self.pile.pop()
        self.change(f"r{goal}")

    @rule(version=st.sampled_from("12345"))
    def delete(self, version: str) -> None:
        if self.pile[-1:] != [version]:
            self.existing.discard(version)
            self.throw_away_deleted()

    @precondition(lambda self: self.pile)
    @rule()
    def delete_what_is_in_production(self) -> None:
        """By hand in MLflow; the next command falls back to what was there before."""
        self.existing.discard(self.pile[-1])
        former = find_former(self.records, self.existing)
        self.throw_away_deleted()
        self.records.append(replace(make_move(former[0] if former else "-"), action="outside"))

    @invariant()
    def the_way_back_is_the_pile(self) -> None:
        current = self.records[-1].to_version if self.records else None
        assert current == (self.pile[-1] if self.pile else None)
        assert find_former(self.records, self.existing) == self.pile[-2::-1]


TestWayBack = WayBack.TestCase
TestWayBack.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
