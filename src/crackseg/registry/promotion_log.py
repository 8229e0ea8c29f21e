"""History of a registered model: all promotions and rollbacks, with user, time and reason.

A record is a tag of the registered model, ``mlflow.crackseg.history.000012``, with ``….000012.gate`` next to it if a
gate was run: it is stored with the model, also on a server. MLflow's page of the model does not show such tags; with
them it would be many screens long. Numbers leave no gap, and no number is written twice. Former versions of crackseg
wrote the same text into ``history.000012``; that is read, and renamed by the next command that repairs the registry.

Tags are last-write-wins and do not show who was first. Names of registered models do: the server creates a name once.
A writer claims number 12 by creating ``NAME.history-000012``, which holds the whole record from its first moment; the
record is then copied to the tags and the claim deleted. Any command that finds a claim left behind finishes it for its
writer (docs/adr/0007-promotions-as-a-log.md).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from crackseg.errors import CracksegError
from crackseg.tracking.ui_view import HIDDEN_TAG

Status = Literal["passed", "failed", "warning", "skipped"]
Action = Literal["promotion", "rollback", "outside"]
MAX_REASON_CHARACTERS = 1000
_MAX_TAG_CHARACTERS = 5000  # the column's width in MLflow's database
_KEY = re.compile(r"history\.(\d{6})")
_WRITER = "writer"  # tag of a claim: one attempt to write it


class Overtaken(CracksegError):
    """Another user has written a record since this writer read the history."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check of the gate.

    Attributes:
        name: of the check, in a word or two.
        status: ``warning`` does not fail the gate; ``skipped`` does not apply.
        message: a sentence with the values.
        figures: the values as numbers or text, by name.
    """

    name: str
    status: Status
    message: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """One promotion or rollback.

    Attributes:
        action: ``outside``: a change by hand that crackseg found: an alias moved or a version deleted.
        from_version: in production before; None if there was none.
        to_version: in production since then; None if there is none.
        time: UTC, ISO 8601.
        user: who did it (or, for ``outside``, who found it).
        reason: why.
        git_commit: of the code that did it.
        data_md5: version of the data on which the gate scored; empty if it scored none.
        forced: although the gate had failed.
        checks: of the gate.
        skipped: deleted versions that a rollback skipped; the nearest first.
        number: 1, 2, …; 0 before it is appended.
        applied: aliases and stages are set.
        intact: the record before it is still what it was when this one was written.
    """

    action: Action
    from_version: str | None
    to_version: str | None
    time: str
    user: str
    reason: str
    git_commit: str
    data_md5: str = ""
    forced: bool = False
    checks: tuple[Check, ...] = ()
    skipped: tuple[str, ...] = ()
    number: int = 0
    applied: bool = False
    intact: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return every attribute, for JSON."""
        return asdict(self)


class History:
    """The records of the registered model ``name``.

    Its methods raise MLflow's exceptions if the registry does not answer.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client = client
        self.name = name

    def read(self) -> list[Record]:
        """Read all records, oldest first.

        Raises:
            CracksegError: a record was changed by hand and cannot be read.
        """
        tags, former = self._read_tags()
        records: list[Record] = []
        before = ""
        for key in sorted(key for key in tags if _KEY.fullmatch(key)):
            record = _parse(key, tags, before)
            # Written twice: by this version and by a former one, or by hand.
            records.append(replace(record, intact=record.intact and former.get(key, tags[key]) == tags[key]))
            before = tags[key]
        return records

    def append(self, record: Record, *, after: int) -> Record:
        """Write the next record; ``after`` is the number of the last one that the writer knows (0: none).

        Returns:
            The record with its number; it is written, and no other has that number.
        Raises:
            Overtaken: there is a later record than ``after``, or one is being written; nothing was changed.
        """
        number = after + 1
        before = self._read_tags()[0].get(_key(after), "")
        tags = _format(record, _key(number), before)
        claim, writer = self._claim_name(number), uuid4().hex
        try:
            self.client.create_registered_model(
                claim,
                tags=tags | {_WRITER: writer},
                description=f"A change of {self.name} that is being written; gone in a moment.",
            )
        except MlflowException as error:
            # The second: MLflow reads the existing one for its message, and its writer has just removed it.
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                raise
            if not self._is_written(claim, writer):
                self.settle()
                raise Overtaken("another command is changing production at this moment") from error
        # The claim was free: the number is unused, or its writer has written it and removed the claim.
        if _key(number) in self._read_tags()[0]:
            self._delete_claim(claim)
            raise Overtaken("another command has changed production in the meantime")
        self._copy(tags)
        self._delete_claim(claim)
        return _parse(_key(number), tags, before)

    def settle(self) -> None:
        """Write records that others have claimed but not written, e.g. when they were killed; remove old claims.

        Tags of former versions of crackseg are renamed; their text stays as it is.
        """
        tags, former = self._read_tags()
        for name in sorted(former, reverse=True):  # a record after its gate's results
            if former[name] == tags[name]:  # else both stay, and the record shows as changed
                self._copy({name: former[name]})
                repeat(lambda name=name: self.client.delete_registered_model_tag(self.name, name))  # type: ignore[misc]
        claims = self.client.search_registered_models(f"name LIKE '{self.name}.history-%'")
        for claim in sorted(claims, key=lambda found: found.name):
            key = next((key for key in claim.tags if _KEY.fullmatch(key)), None)
            if key is None or claim.name != self._claim_name(int(key.split(".")[1])):
                continue  # a user's own model with such a name
            # Only after the claim was read: a record that exists now is not overwritten.
            if key not in self._read_tags()[0]:
                self._copy({k: v for k, v in claim.tags.items() if k.startswith(key)})
            self._delete_claim(claim.name)

    def mark_applied(self, record: Record) -> None:
        """Mark a record's aliases and stages as set."""
        self._copy({f"{_key(record.number)}.applied": "yes"})

    def _read_tags(self) -> tuple[dict[str, str], dict[str, str]]:
        """Read the history's tags: all by their keys without the hidden beginning; those without one in the store."""
        tags = self.client.get_registered_model(self.name).tags
        former = {key: text for key, text in tags.items() if _KEY.match(key)}
        hidden = {key.removeprefix(HIDDEN_TAG): text for key, text in tags.items() if key.startswith(HIDDEN_TAG)}
        return former | hidden, former

    def _claim_name(self, number: int) -> str:
        return f"{self.name}.history-{number:06d}"

    def _is_written(self, claim: str, writer: str) -> bool:
        """Return whether a claim is ours: MLflow sends a request again whose answer was lost.

        Another command's record may be equal, if two promote the same version within a second.
        """
        try:
            found = self.client.get_registered_model(claim)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return found.tags.get(_WRITER) == writer

    def _copy(self, tags: Mapping[str, str]) -> None:
        for key in sorted(tags, reverse=True):  # the record last: if it exists, the gate's results exist too
            hidden = HIDDEN_TAG + key
            repeat(lambda key=hidden, text=tags[key]: self.client.set_registered_model_tag(self.name, key, text))  # type: ignore[misc]

    def _delete_claim(self, claim: str) -> None:
        try:
            repeat(lambda: self.client.delete_registered_model(claim))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # another command settled it first
                raise


def repeat(write: Callable[[], object]) -> None:
    """Repeat an idempotent write if it fails: two processes that write the same tag at once disturb each other.

    MLflow's error does not tell this case from others; an error that persists is raised.
    """
    for wait_s in (0.05, 0.2, 0.8):
        try:
            write()
            return
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise
            time.sleep(wait_s)
    write()


def check_reason(reason: str) -> str:
    """Return a reason as one printable line; CracksegError if nothing is left, or too much."""
    reason = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    if not 1 <= len(reason) <= MAX_REASON_CHARACTERS:
        raise CracksegError(
            f"--reason has {len(reason)} characters; expected 1 to {MAX_REASON_CHARACTERS}: it stays in the history"
        )
    return reason


def find_former(records: Sequence[Record], existing: Collection[str] | None = None) -> list[str]:
    """Find versions that a rollback leads back to, the nearest first.

    Production is a stack: a promotion, also one by hand, adds a version on top. A rollback removes those above its
    target: after 1, 2, 3 and a rollback to 2, the next one leads to 1. A target that was removed before is put on top
    again.

    Args:
        records: the history, oldest first.
        existing: versions that are still registered; others are left out. None: all are.
    """
    stack: list[str] = []
    for record in records:
        version = record.to_version
        if version is None or version in stack[-1:]:
            continue
        if record.action == "rollback" and version in stack:
            while stack[-1] != version:
                stack.pop()
        else:
            stack.append(version)
    current = records[-1].to_version if records else None
    former: list[str] = []
    for version in reversed(stack[:-1] if current is not None else stack):
        nearer = former[-1] if former else current
        if version != nearer and (existing is None or version in existing):
            former.append(version)
    return former


def _key(number: int) -> str:
    return f"history.{number:06d}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _format(record: Record, key: str, before: str) -> dict[str, str]:
    """Return the tags of a record; the values of the gate are left out if they do not fit."""
    content = {
        "action": record.action, "from": record.from_version, "to": record.to_version, "time": record.time,
        "user": record.user, "reason": record.reason, "forced": record.forced, "git_commit": record.git_commit,
        "data_md5": record.data_md5, "record_before": _digest(before),
    } | ({"skipped": record.skipped} if record.skipped else {})  # fmt: skip
    for longest in (600, 300, 100):
        checks = [
            {"name": c.name, "status": c.status, "message": c.message[:longest], "figures": dict(c.figures)}
            for c in record.checks
        ]
        gate = _to_json(checks)
        if len(gate) > _MAX_TAG_CHARACTERS:
            gate = _to_json([{k: v for k, v in check.items() if k != "figures"} for check in checks])
        if len(gate) <= _MAX_TAG_CHARACTERS:
            break
    return {key: _to_json(content)} | ({f"{key}.gate": gate} if record.checks else {})


def _to_json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


def _parse(key: str, tags: Mapping[str, str], before: str) -> Record:
    try:
        content = json.loads(tags[key])
        checks = tuple(Check(**check) for check in json.loads(tags.get(f"{key}.gate", "[]")))
        return Record(
            action=content["action"],
            from_version=content["from"],
            to_version=content["to"],
            time=content["time"],
            user=content["user"],
            reason=content["reason"],
            git_commit=content["git_commit"],
            data_md5=content["data_md5"],
            forced=content["forced"],
            checks=checks,
            skipped=tuple(content.get("skipped", ())),
            number=int(key.split(".")[1]),
            applied=f"{key}.applied" in tags,
            intact=content["record_before"] == _digest(before),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CracksegError(
            f"the tag {HIDDEN_TAG}{key} of the registered model is not what crackseg wrote there: {tags[key][:80]!r}; "
            "write it back with MlflowClient.set_registered_model_tag (or delete it, if it is the last one)"
        ) from error
