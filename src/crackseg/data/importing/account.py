"""Account of an import: what was recognised in the source, and what was skipped.

Printed at the end of an import and kept as ``data/NAME/import.json``, so that nothing is guessed or left out without
a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crackseg.errors import CracksegError, join_some

ACCOUNT_NAME = "import.json"
TOPICS = ("split", "folders", "labels", "shapes", "mask values", "files", "links", "lists")
_MAX_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was recognised or passed over.

    Attributes:
        topic: one of ``TOPICS``.
        text: a plain sentence without its full stop.
        names: all files or labels concerned.
    """

    topic: str
    text: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = f": {join_some(self.names, _MAX_NAMES_SHOWN)}" if self.names else ""
        return f"{self.topic}: {self.text}{names}"


@dataclass(slots=True)
class ImportAccount:
    """Entries on what an import recognised and passed over.

    Attributes:
        recognised: the entries of what is used, and how it was understood.
        passed_over: the entries of what is not used.
        renewed: whether the entries are those of the dataset's first import, since its own folder is imported again.
        reopened: topics that are decided again nevertheless.
    """

    recognised: list[Entry] = field(default_factory=list)
    passed_over: list[Entry] = field(default_factory=list)
    renewed: bool = False
    reopened: set[str] = field(default_factory=set)

    def recognise(self, topic: str, text: str, names: Iterable[object] = ()) -> None:
        """Record something that is used, and how it was understood.

        Nothing is recorded where a dataset's own folder is imported again: its masks of 0 and 255 and its manifest
        are the import's own, and the account of the first import says where they are from.
        """
        if not self.renewed or topic in self.reopened:
            _add(self.recognised, topic, text, names)

    def pass_over(self, topic: str, text: str, names: Iterable[object] = ()) -> None:
        """Record something in the source that is not used."""
        _add(self.passed_over, topic, text, names)

    def reopen(self, topic: str) -> None:
        """Drop what the first import recognised of a topic, since it is decided again."""
        if self.renewed:
            self.recognised = [entry for entry in self.recognised if entry.topic != topic]
            self.reopened.add(topic)

    def to_lines(self) -> list[str]:
        """Say it for the terminal, a line for each entry under its heading."""
        first = ", at its first import" if self.renewed else ""
        lines = []
        for heading, entries in (("recognised", self.recognised), ("passed over", self.passed_over)):
            if entries:
                lines += [f"  {heading}{first}:", *(f"    {entry}" for entry in _in_order(entries))]
        return lines

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return the content of ``import.json``: all names of each entry, in a fixed order."""
        return {
            key: [{"topic": e.topic, "text": e.text, "names": list(e.names)} for e in _in_order(entries)]
            for key, entries in (("recognised", self.recognised), ("passed_over", self.passed_over))
        }

    def to_bytes(self) -> bytes:
        """Encode the content of ``import.json``; the same bytes for the same account."""
        return (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()


def read_account(path: Path) -> ImportAccount:
    """Read the account of a dataset's first import, to carry it over to the next one of the same folder.

    Raises:
        CracksegError: the file is not an account.
    """
    try:
        content = json.loads(path.read_bytes())
        entries = {
            key: [Entry(str(e["topic"]), str(e["text"]), tuple(map(str, e["names"]))) for e in content[key]]
            for key in ("recognised", "passed_over")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise CracksegError(
            f"{path}: not the account of an import ({type(error).__name__}: {error}); restore it with "
            "`dvc checkout data.dvc`, or delete it"
        ) from error
    return ImportAccount(entries["recognised"], entries["passed_over"], renewed=True)


def _add(entries: list[Entry], topic: str, text: str, names: Iterable[object]) -> None:
    assert topic in TOPICS, topic
    # A name that is not UTF-8, as of an archive from another system, is shown with its bytes.
    shown = tuple(str(name).encode("utf-8", "backslashreplace").decode() for name in names)
    entry = Entry(topic, text, shown)
    if entry not in entries:
        entries.append(entry)


def _in_order(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda e: TOPICS.index(e.topic) if e.topic in TOPICS else len(TOPICS))
