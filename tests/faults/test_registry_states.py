"""Whatever users, MLflow's own pages and kills do to the registry, the next command makes it agree with its history."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from mlflow import MlflowClient

from crackseg.errors import CracksegError
from crackseg.registry.production import Production
from crackseg.tracking.ui_view import HIDDEN_TAG
from tests.registry_store import NAME, WRITES, make_registry, open_production, promote

pytestmark = pytest.mark.slow
_USERS = st.integers(0, 1)
_NUMBERS = st.integers(0, 5)
_template: list[Path] = []


class Killed(BaseException):
    """Stands for kill -9: this and every later write of the command do not happen."""


@contextmanager
def dying(before_write: int) -> Iterator[None]:
    """Kill what runs in the block before its write of this number, from 0."""
    done = 0

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if done >= before_write:
                raise Killed
            done += 1
            return original(*args, **kwargs)

        return write

    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            patch.setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))
        with suppress(Killed):
            yield


class Registry(RuleBasedStateMachine):
    """Two users of one registry; each has read its state at some time, maybe long ago."""

    def __init__(self) -> None:
        super().__init__()
        if not _template:
            root = Path(tempfile.mkdtemp(prefix="crackseg-registry-")) / "root"
            root.mkdir()
            make_registry(root, 4)
            _template.append(root)
        self.folder = Path(tempfile.mkdtemp(prefix="crackseg-registry-"))
        shutil.copytree(_template[0], self.folder / "root")
        self.users = [open_production(self.folder / "root") for _ in range(2)]
        self.states = [user.read() for user in self.users]
        self.written: dict[str, str] = {}
        self.settled = True

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def choose(self, number: int) -> str:
        versions = list(self.users[0].read().versions)
        return versions[number % len(versions)]

    def command(self, user: int, action: Callable[[Production], object]) -> None:
        """As a command does: repair, then act; a refusal is an answer."""
        production = self.users[user]
        production.repair()
        self.states[user] = production.read()
        with suppress(CracksegError):
            action(production)
        self.settled = True

    @initialize()
    def begin(self) -> None:
        promote(self.users[0], "1")

    @rule(user=_USERS, number=_NUMBERS)
    def promote(self, user: int, number: int) -> None:
        version = self.choose(number)
        if version != self.users[user].read().in_production:
            self.command(user, lambda production: promote(production, version))

    @rule(user=_USERS, number=_NUMBERS)
    def promote_on_what_was_read_long_ago(self, user: int, number: int) -> None:
        """The gate took an hour: if production has changed, nothing happens."""
        production, state, version = self.users[user], self.states[user], self.choose(number)
        before = production.read()
        if version == before.in_production:
            return
        arguments = {"reason": "slow", "checks": (), "data_md5": "", "forced": False}
        if before.last_number == state.last_number:
            production.promote(version, state, **arguments)  # type: ignore[arg-type]
        else:
            with pytest.raises(CracksegError, match="nothing was changed here"):
                production.promote(version, state, **arguments)  # type: ignore[arg-type]
            assert production.read().last_number == before.last_number
        self.settled = False  # a command repairs before it reads; this one had read long ago

    @rule(user=_USERS)
    def roll_back(self, user: int) -> None:
        self.command(user, lambda production: production.rollback(to=None, reason="worse"))

    @rule(user=_USERS, number=_NUMBERS)
    def delete(self, user: int, number: int) -> None:
        version = self.choose(number)
        self.command(user, lambda production: production.delete(version, force=True))
        assert self.users[user].read().in_production != version or version in self.users[user].read().versions

    @rule()
    def register(self) -> None:
        source = (self.folder / "root" / "models" / "1").as_uri()
        self.users[0].client.create_model_version(NAME, source)

    @rule(user=_USERS, number=_NUMBERS, before_write=st.integers(0, 12), rolls_back=st.booleans())
    def be_killed(self, user: int, number: int, before_write: int, rolls_back: bool) -> None:
        version = self.choose(number)
        with dying(before_write):
            self.command(
                user,
                (lambda p: p.rollback(to=None, reason="worse"))
                if rolls_back
                else (lambda p: promote(p, version) if version != p.read().in_production else None),
            )
        self.settled = False

    @rule(number=_NUMBERS)
    def move_the_alias_by_hand(self, number: int) -> None:
        self.users[0].client.set_registered_model_alias(NAME, "production", self.choose(number))
        self.settled = False

    @rule()
    def remove_the_alias_by_hand(self) -> None:
        self.users[0].client.delete_registered_model_alias(NAME, "production")
        self.settled = False

    @rule(number=_NUMBERS, stage=st.sampled_from(["Production", "Archived", "None"]))
    def move_the_stage_by_hand(self, number: int, stage: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.users[0].client.transition_model_version_stage(NAME, self.choose(number), stage)
        self.settled = False

    @precondition(lambda self: len(self.users[0].read().versions) > 2)
    @rule(number=_NUMBERS)
    def delete_by_hand(self, number: int) -> None:
        self.users[0].client.delete_model_version(NAME, self.choose(number))
        self.settled = False

    @rule(user=_USERS)
    def next_command(self, user: int) -> None:
        self.command(user, lambda _production: None)

    @invariant()
    def the_history_only_grows(self) -> None:
        tags = self.users[0].client.get_registered_model(NAME).tags
        history = {key: text for key, text in tags.items() if key.startswith(f"{HIDDEN_TAG}history.")}
        assert self.written.items() <= history.items()
        self.written = history
        records = self.users[0].history.read()
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        assert all(record.intact for record in records)

    @invariant()
    def after_a_command_all_agree(self) -> None:
        if not self.settled:
            return
        production = self.users[0]
        state = production.read()
        assert production.find_fault(state) is None
        current = state.in_production
        assert state.aliases.get("production") == current
        assert [v for v in state.versions if state.stage_of(v) == "Production"] == ([current] if current else [])
        assert state.aliases.get("previous") == (state.former[0] if state.former else None)
        assert [m.name for m in production.client.search_registered_models()] == [NAME]
        if current:
            production._check_files(current)  # it loads from there


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
