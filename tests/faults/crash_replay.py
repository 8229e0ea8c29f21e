"""Replay power losses: log what a program does to a folder, and build what a disk may hold of it after each moment.

The idea is that of ALICE (Pillai et al., OSDI 2014) and of SQLite's test6.c. A file system may lose

- names (made, renamed, removed) that were changed since their folder was last synced: all, the last ones, or one alone;
- content that was written since the file was last synced: all, or half of what was added.

Content is read when the next operation begins, so several writes to a file in between count as one. SQLite's files are
databases: what SQLite has committed is on the disk (tests/faults/test_database.py), and nothing else of them is.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

_HEARD = ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir")
_WRITING = os.O_WRONLY | os.O_RDWR
_Names = dict[str, int]  # the number of a file's content by its path; -1: a folder
_active: list[Log] = []


@dataclass
class Log:
    """What was done below ``root``: tuples of a word, paths relative to it, and numbers of contents."""

    root: Path
    databases: frozenset[str] = frozenset()
    operations: list[tuple[Any, ...]] = field(default_factory=list)
    contents: list[list[bytes]] = field(default_factory=list)  # of each file, one after the other
    names: _Names = field(default_factory=dict)
    before: _Names = field(default_factory=dict)
    marks: list[tuple[int, int]] = field(default_factory=list)  # (operations before, value)
    lock: threading.RLock = field(default_factory=threading.RLock)
    reading: bool = False

    def mark(self, value: int) -> None:
        """Note that the program has promised something by now."""
        with self.lock:
            self.look()
            self.marks.append((len(self.operations), value))

    def promised(self, number: int) -> int:
        """Return the last value marked within the first ``number`` operations; 0 before the first."""
        return max((value for before, value in self.marks if before <= number), default=0)

    def look(self) -> None:
        """Log the content of files that changed since the last look."""
        self.reading = True
        for path, file in [*self.names.items()]:
            if file >= 0 and (content := (self.root / path).read_bytes()) != self.contents[file][-1]:
                self.contents[file].append(content)
                word = "commit" if path in self.databases else "write"
                self.operations.append((word, file, len(self.contents[file]) - 1))
        self.reading = False

    def add_file(self, path: str, content: bytes = b"") -> None:
        self.contents.append([content])
        self.names[path] = len(self.contents) - 1

    def relative(self, path: Any, folder: int = -1) -> str | None:
        """Return a path below the root as it is logged; None elsewhere."""
        if isinstance(path, int) or path is None:
            return None
        base = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()
        whole = os.path.join(os.path.realpath(base), os.fsdecode(path))
        return os.path.relpath(whole, self.root) if whole.startswith(f"{self.root}{os.sep}") else None

    def change(self, *operation: Any) -> None:
        self.operations.append(operation)
        apply_name_change(self.names, operation)


def apply_name_change(names: _Names, operation: tuple[Any, ...]) -> bool:
    """Make, move or remove names as the operation says; False, and nothing, if it does not apply."""
    word, first, *rest = operation
    goes = {"rename": rest[0] if rest else "", "remove": first}.get(word)
    if goes and any(name.startswith(f"{goes}/") for name in names):
        return False  # only an empty folder can be replaced or removed
    parent = os.path.dirname(rest[0] if word in ("rename", "link") else first)
    if (parent and names.get(parent) != -1) or (word not in ("create", "mkdir") and first not in names):
        return False
    if word in ("create", "mkdir"):
        names[first] = rest[0] if rest else -1
    elif word == "link":
        names[rest[0]] = names[first]
    elif word == "remove":
        del names[first]
    else:
        inside = [name for name in names if name == first or name.startswith(f"{first}/")]
        for name in inside:
            names[rest[0] + name[len(first) :]] = names.pop(name)
    return True


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _active and event in _HEARD:
        with _active[0].lock:
            _note(_active[0], event, arguments)


def _note(log: Log, event: str, arguments: tuple[Any, ...]) -> None:
    if log.reading:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
        if (path := log.relative(arguments[0])) and path not in log.names:
            log.look()
            log.add_file(path)
            log.change("create", path, log.names[path])
            (log.root / path).touch()  # the hook is called before the file is made
    elif event in ("os.rename", "os.link"):
        source, target = log.relative(arguments[0], arguments[2]), log.relative(arguments[1], arguments[3])
        log.look()
        if source and target:
            log.change(event.removeprefix("os."), source, target)
    elif event in ("os.remove", "os.rmdir", "os.mkdir") and (path := log.relative(arguments[0], arguments[-1])):
        exists = os.path.lexists(log.root / path)
        if exists == (event != "os.mkdir"):
            log.look()
            log.change("mkdir" if event == "os.mkdir" else "remove", path)


sys.addaudithook(_hear)  # stays for the life of the process, and does nothing while no log is active


@contextmanager
def logged(root: Path, *databases: str) -> Iterator[Log]:
    """Log what is done below a folder while the block runs; what is there before counts as on the disk.

    Args:
        root: the folder.
        databases: SQLite's files below it, which are there.
    """
    log = Log(root.resolve(), frozenset(databases))
    for path in sorted(log.root.rglob("*")):
        if path.is_dir():
            log.names[str(path.relative_to(log.root))] = -1
        else:
            log.add_file(str(path.relative_to(log.root)), path.read_bytes())
    log.before = dict(log.names)

    def fsync(handle: int) -> None:
        path = log.relative(os.readlink(f"/proc/self/fd/{handle}"))
        at_root = os.path.realpath(f"/proc/self/fd/{handle}") == str(log.root)
        with log.lock:
            log.look()
            if path is not None:
                log.operations.append(("sync names", path) if log.names[path] < 0 else ("sync", log.names[path]))
            elif at_root:
                log.operations.append(("sync names", ""))

    def sync() -> None:
        with log.lock:
            log.look()
            log.operations.append(("sync all",))

    def look_at_databases(_connection: object) -> None:
        with log.lock:
            log.look()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        if hasattr(os, "sync"):
            patch.setattr(os, "sync", sync)
        _active.append(log)
        event.listen(Engine, "begin", look_at_databases)  # what was committed before
        try:
            yield log
            log.look()
        finally:
            _active.clear()
            event.remove(Engine, "begin", look_at_databases)


def replay(log: Log, folder: Path, check: Callable[[Path, int], None]) -> int:
    """Build each state that the disk may hold, and check it.

    Args:
        log: of what was done.
        folder: for the states, one at a time.
        check: gets the folder of a state and the last promise before it; raises if the state is wrong.
    Returns:
        The number of different states.
    """
    seen = set()
    for number in range(len(log.operations) + 1):
        for names, contents in _list_states(log, number):
            tree = {name: b"" if file < 0 else contents[file] for name, file in names.items()}
            state = (tuple(sorted((n, names[n] < 0, c) for n, c in tree.items())), log.promised(number))
            if state in seen:
                continue
            seen.add(state)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name in sorted(names, key=lambda name: name.count("/")):
                if names[name] < 0:
                    (folder / name).mkdir()
                else:
                    (folder / name).write_bytes(tree[name])
            last = log.operations[number - 1][:3] if number else "the beginning"
            try:
                check(folder, log.promised(number))
            except Exception as error:
                held = {name: len(content) for name, content in tree.items() if names[name] >= 0}
                raise AssertionError(f"after {number} operations ({last}): {error}\n{held}") from error
    return len(seen)


def _list_states(log: Log, number: int) -> Iterator[tuple[_Names, list[bytes]]]:
    changes: list[tuple[Any, ...]] = []  # of names, in order
    lasting: set[int] = set()  # those that a sync of their folder put on the disk
    synced = [file[0] for file in log.contents]
    newest = list(synced)
    for operation in log.operations[:number]:
        word = operation[0]
        if word == "write":
            newest[operation[1]] = log.contents[operation[1]][operation[2]]
        elif word == "commit":
            newest[operation[1]] = synced[operation[1]] = log.contents[operation[1]][operation[2]]
        elif word == "sync":
            synced[operation[1]] = newest[operation[1]]
        elif word == "sync all":
            synced, lasting = list(newest), set(range(len(changes)))
        elif word == "sync names":
            lasting |= {i for i, change in enumerate(changes) if operation[1] in _folders(change)}
        else:
            changes.append(operation)
    pending = [i for i in range(len(changes)) if i not in lasting]
    kept = [{*pending[:k]} for k in range(len(pending) + 1)]
    kept += [{*pending} - {lost} for lost in pending] + [{alone} for alone in pending]
    half = [old + new[len(old) : (len(old) + len(new) + 1) // 2] if new.startswith(old) else new[: len(new) // 2]
            for old, new in zip(synced, newest, strict=True)]  # fmt: skip
    for chosen, contents in itertools.product(kept, (newest, synced, half)):
        names: _Names = dict(log.before)
        for i in sorted(lasting | chosen):  # those whose folder is lost, or whose place is taken, do not apply
            apply_name_change(names, changes[i])
        yield names, contents


def _folders(change: tuple[Any, ...]) -> set[str]:
    return {os.path.dirname(path) for path in change[1:] if isinstance(path, str)}
