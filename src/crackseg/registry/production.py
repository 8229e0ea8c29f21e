"""The version in production: promote, roll back, delete, and repair interrupted or manual changes.

The history's last record names the version in production. Alias ``production``, stage ``Production``, alias
``previous`` and stage ``Archived`` follow from it (:meth:`Production.repair`), so a command killed between two steps is
finished by the next one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from crackseg.errors import CracksegError, first_line
from crackseg.params import load_params
from crackseg.registry.model_page import show_last_change
from crackseg.registry.promotion_log import (
    Action,
    Check,
    History,
    Overtaken,
    Record,
    check_reason,
    find_former,
    repeat,
)
from crackseg.tracking.connection import is_outage
from crackseg.tracking.store import Store, describe_code, find_user

PRODUCTION_ALIAS = "production"
PREVIOUS_ALIAS = "previous"
_PRODUCTION_STAGE = "Production"
_ARCHIVED_STAGE = "Archived"
_LOCK_SECONDS = 120


@dataclass(frozen=True, slots=True)
class RegistryState:
    """The registry as it was read.

    Attributes:
        records: the history, oldest first.
        versions: every version by its number as text, oldest first.
        aliases: version by alias.
    """

    records: list[Record]
    versions: dict[str, ModelVersion]
    aliases: dict[str, str]

    @property
    def in_production(self) -> str | None:
        """Return the version in production by the history; it may have been deleted by hand."""
        return self.records[-1].to_version if self.records else None

    @property
    def last_number(self) -> int:
        """Return the number of the last record; 0 if there is none."""
        return self.records[-1].number if self.records else 0

    @property
    def former(self) -> list[str]:
        """Return versions that a rollback can lead to, the nearest first."""
        return find_former(self.records, self.versions)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Return deleted versions that a rollback would skip, the nearest first."""
        nearer = takewhile(lambda version: version not in self.former[:1], find_former(self.records))
        return tuple(dict.fromkeys(version for version in nearer if version not in self.versions))

    def stage_of(self, version: str) -> str:
        """Return the stage of a version, e.g. ``Production``, ``Archived`` or ``None``."""
        return str(self.versions[version].current_stage)

    def get_version(self, version: str, name: str) -> ModelVersion:
        """Return one version; CracksegError if there is none of that number."""
        found = self.versions.get(version.removeprefix("v"))
        if found is None:
            raise CracksegError(
                f"model {name!r} has no version {version}; there are: {', '.join(self.versions) or 'none'}"
            )
        return found


@dataclass(frozen=True, slots=True)
class Fault:
    """A difference between history and registry.

    Attributes:
        message: the difference and its repair.
        record: to append to the history first, if the registry was changed by hand; else None.
    """

    message: str
    record: Record | None = None


class NotRegistered(CracksegError):
    """Raised where no model of a name is registered: the store answered."""


class Production:
    """The registered model ``name`` and its version in production.

    Args:
        store: where the model is registered.
        name: of the registered model.
    Raises:
        NotRegistered: no model of that name is registered.
        CracksegError: the registry does not answer.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.client = store.client
        self.history = History(store.client, name)
        with registry_errors(store):
            try:
                self.client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise NotRegistered(
                    f"no model {name!r} is registered in {store.uri}: `dvc repro` trains and registers one "
                    "(registry.model_name in params.yaml names it)"
                ) from error

    def read(self) -> RegistryState:
        """Read the state of the registry; change nothing."""
        with registry_errors(self.store):
            model = self.client.get_registered_model(self.name)
            found: list[ModelVersion] = []
            page = self.client.search_model_versions(f"name = '{self.name}'")
            found += page
            while page.token:
                page = self.client.search_model_versions(f"name = '{self.name}'", page_token=page.token)
                found += page
            versions = {str(v.version): v for v in sorted(found, key=lambda v: int(v.version))}
            aliases = {alias: str(version) for alias, version in model.aliases.items()}
            return RegistryState(self.history.read(), versions, aliases)

    def find_fault(self, state: RegistryState) -> Fault | None:
        """Compare the registry with the history; None if they agree. Change nothing."""
        expected, actual = state.in_production, state.aliases.get(PRODUCTION_ALIAS)
        if expected is not None and expected not in state.versions:
            return self._replace_deleted(state, expected, actual)
        last = state.records[-1] if state.records else None
        if last and not last.applied:
            return Fault(
                f"the {last.action} to version {last.to_version} by {last.user} ({last.time}) had been interrupted; "
                "it is finished now"
            )
        staged = [v for v in state.versions if state.stage_of(v) == _PRODUCTION_STAGE]
        if actual is None and expected is None:
            actual = staged[-1] if staged else None
        if actual is not None and actual != expected:
            return Fault(
                f"version {actual} had been put into production outside crackseg, without a gate; it stays there, and "
                "the history has a record of it now",
                self._describe("outside", expected, actual, "found in production; not put there by crackseg"),
            )
        if expected is not None and actual is None:
            return Fault(
                f"the alias {PRODUCTION_ALIAS} had been removed; it is back on version {expected} "
                "(`crackseg rollback` takes a version out of production)"
            )
        former = state.former[0] if state.former else None
        if staged != ([] if expected is None else [expected]) or state.aliases.get(PREVIOUS_ALIAS) != former:
            return Fault(
                f"stages or the alias {PREVIOUS_ALIAS} had been changed outside crackseg; they follow the alias "
                f"{PRODUCTION_ALIAS} again (version {expected or 'none'})"
            )
        return None

    def repair(self) -> list[str]:
        """Finish an interrupted change, and make history and registry agree after manual changes.

        Returns:
            A sentence for each difference and its repair; empty if there was none.
        """
        notes: list[str] = []
        with registry_errors(self.store), self._lock():
            self.history.settle()
            while (fault := self.find_fault(self.read())) and len(notes) < 4:  # repairing one may reveal the next
                if fault.record:
                    try:
                        self.history.append(fault.record, after=self.read().last_number)
                    except Overtaken:
                        continue
                self._apply()
                notes.append(fault.message)
        return notes

    def change(self, record: Record, *, after: int) -> Record:
        """Write a record, then set aliases and stages to match.

        Args:
            record: the change; its ``to_version`` exists.
            after: number of the last record when the decision was made.
        Raises:
            CracksegError: another user was faster; nothing was changed.
        """
        with registry_errors(self.store), self._lock():
            try:
                written = self.history.append(record, after=after)
            except Overtaken as error:
                self._apply()  # the other's change, which may have been interrupted
                last = self.history.read()[-1]
                raise CracksegError(
                    f"{error}: {last.user} has put version {last.to_version} into production ({last.action} at "
                    f"{last.time}); nothing was changed here. See `crackseg history` and try again"
                ) from error
            self._apply()
            return replace(written, applied=True)

    def rollback(self, *, to: str | None, reason: str) -> Record:
        """Put a version that was in production before back; by default the one before the current version.

        Raises:
            CracksegError: there is no such version, it never was in production, or its files are gone.
        """
        reason = check_reason(reason)
        state = self.read()
        current = state.in_production
        if current is None:
            raise CracksegError(
                f"no version of {self.name!r} is in production yet; `crackseg promote` puts one there"
            )
        if to is None:
            if not state.former:
                raise CracksegError(_describe_dead_end(state))
            to, skipped = state.former[0], state.skipped
        else:
            skipped = ()
        to = str(state.get_version(to, self.name).version)
        if to == current:
            raise CracksegError(f"version {to} is in production already")
        if to not in {record.to_version for record in state.records}:
            raise CracksegError(
                f"version {to} never was in production, so no gate has passed it; use `crackseg promote {to}`"
            )
        self._check_files(to)
        record = replace(self._describe("rollback", current, to, reason), skipped=skipped)
        return self.change(record, after=state.last_number)

    def promote(
        self,
        version: str,
        state: RegistryState,
        *,
        reason: str,
        checks: Sequence[Check],
        data_md5: str,
        forced: bool,
    ) -> Record:
        """Put a version into production, after ``checks`` against the version in ``state``."""
        record = self._describe("promotion", state.in_production, version, reason)
        record = replace(record, checks=tuple(checks), data_md5=data_md5, forced=forced)
        return self.change(record, after=state.last_number)

    def delete(self, version: str, *, force: bool) -> None:
        """Delete a version, but never the one in production.

        Args:
            force: also the version that a rollback would return to.
        Raises:
            CracksegError: the version is in production, or a rollback would go back to it and ``force`` is not set.
        """
        with registry_errors(self.store), self._lock():
            state = self.read()
            version = str(state.get_version(version, self.name).version)
            if version in (state.in_production, state.aliases.get(PRODUCTION_ALIAS)):
                raise CracksegError(
                    f"version {version} is in production and cannot be deleted; promote another or roll back first"
                )
            if version in state.former[:1] and not force:
                raise CracksegError(
                    f"version {version} is what `crackseg rollback` would go back to; delete it with --force"
                )
            self.client.delete_model_version(self.name, version)
            if state.in_production is not None:
                self._apply()  # `previous` may have lost its version

    def _apply(self) -> None:
        """Set aliases and stages to match the history's last record. Every step can be repeated."""
        while True:
            state = self.read()
            record = state.records[-1]
            version, former = record.to_version, record.from_version
            if version is not None:
                # One call moves it, so it always points to a version.
                self._set_alias(PRODUCTION_ALIAS, version)
                self._set_stage(version, _PRODUCTION_STAGE)
            for other in state.versions:
                if other != version and (other == former or state.stage_of(other) == _PRODUCTION_STAGE):
                    self._set_stage(other, _ARCHIVED_STAGE)
            if state.former:
                self._set_alias(PREVIOUS_ALIAS, state.former[0])
            elif PREVIOUS_ALIAS in state.aliases:
                repeat(lambda: self.client.delete_registered_model_alias(self.name, PREVIOUS_ALIAS))
            show_last_change(self.client, self.name, record)
            self.history.mark_applied(record)
            if self.history.read()[-1].number == record.number:
                return  # else another command has added a record: apply that

    def _set_alias(self, alias: str, version: str) -> None:
        repeat(lambda: self.client.set_registered_model_alias(self.name, alias, version))

    def _set_stage(self, version: str, stage: str) -> None:
        # Without archive_existing_versions: with it, MLflow's statement is refused by PostgreSQL over psycopg 3.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated, but users still load by them
            repeat(lambda: self.client.transition_model_version_stage(self.name, version, stage))

    def _replace_deleted(self, state: RegistryState, deleted: str, actual: str | None) -> Fault:
        found = actual or (state.former[0] if state.former else None)
        record = self._describe("outside", deleted, found, f"version {deleted} had been deleted outside crackseg")
        then = f"version {found} is in production instead" if found else "nothing is in production"
        return Fault(
            f"version {deleted} was in production and has been deleted outside crackseg; {then}. "
            "`crackseg promote` puts another there",
            record,
        )

    def _check_files(self, version: str) -> None:
        """Refuse a version whose files are gone; their content is not checked."""
        try:
            files = mlflow.artifacts.list_artifacts(f"models:/{self.name}/{version}")
        except Exception as error:  # MLflow, requests and the file system raise different classes
            raise CracksegError(f"the files of version {version} cannot be listed: {first_line(error)}") from error
        if not any(Path(f.path).name == "MLmodel" for f in files):
            raise CracksegError(
                f"the files of version {version} are gone from the artifact store; nothing changed"
            )

    def _describe(self, action: Action, from_version: str | None, to_version: str | None, reason: str) -> Record:
        code = describe_code(self.store.root)
        commit = code["git.commit"] + (" (dirty)" if code["git.state"] == "dirty" else "")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Record(action, from_version, to_version, now, find_user(), reason, commit)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Lock against other processes on this machine; between machines the history's numbers decide."""
        try:
            with FileLock(self.store.home / "promotion.lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise CracksegError(
                f"another crackseg has been changing production for {_LOCK_SECONDS} s ({error.lock_file}); try again"
            ) from error


def _describe_dead_end(state: RegistryState) -> str:
    """Say why there is no version for a rollback, and which versions `--to` accepts."""
    current = state.in_production
    before = (
        f"what was in production before version {current} is deleted ({', '.join(state.skipped)})"
        if state.skipped
        else f"before version {current} none was in production"
    )
    others = [v for v in state.versions if v != current and any(r.to_version == v for r in state.records)]
    hint = f"; `crackseg rollback --to VERSION` takes what was rolled back: {', '.join(others)}" if others else ""
    return f"there is no version to go back to: {before}{hint}"


@contextmanager
def registry_errors(store: Store) -> Iterator[None]:
    """Turn MLflow's exceptions into CracksegError if the registry does not answer."""
    try:
        yield
    except MlflowException as error:
        how = "" if is_outage(error, store.uri) else f" as expected: {first_line(error)}"
        raise CracksegError(
            f"the registry {store.uri} does not answer{how}; check MLFLOW_TRACKING_URI and that the server runs. "
            "The next command finishes an interrupted change"
        ) from error


def open_production(root: Path) -> Production:
    """Open the registered model that params.yaml names."""
    name = load_params(root / "params.yaml").registry.model_name
    return Production(Store(root), name)
