"""Queue of a run's records for MLflow, kept on disk until the store has accepted them.

A tracking server that goes away, or a full disk under it, must not end a training of six hours: every record is
first appended to ``mlruns/outbox/NAME/records.jsonl``, then a background thread delivers it. What could not be
delivered stays there, and the next crackseg command that reaches the same store delivers it.

NAME is the run's id. For a run that the store does not have yet, the first record describes it
(``crackseg.tracking.runs``); delivery finds or creates the run, and sends the other records there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from crackseg.errors import CracksegError, first_line
from crackseg.files import make_folder, sync, sync_files, sync_folders, write_bytes
from crackseg.tracking.connection import StoreAwayError
from crackseg.tracking.store_address import describe_silence, hide_password

_log = logging.getLogger("crackseg")
_RETRY_SECONDS = 15.0
_NOTE_TAG = "mlflow.note.content"  # a run's description in MLflow
_LOCKS, _REFUSED = "locks", "refused"  # folders next to those of the runs
_STORE = "store"  # file of an outbox with the address of the store that it is for
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "PERMISSION_DENIED")


FindRun = Callable[[Mapping[str, Any]], str]
"""Find or create the run that the first record of an outbox describes; returns its id in the store."""


class Outbox:
    """The records of one run, delivered in order by a background thread.

    Args:
        folder: ``mlruns/outbox/NAME``; made if absent, and removed when all is delivered.
        client: the store to deliver to; None, while it does not answer, keeps the records.
        uri: the store's address; kept with the records, which are for no other store.
        find_run: called for an outbox whose first record describes the run.
        lock_timeout: seconds to wait for another process that holds this run's outbox.
    Raises:
        filelock.Timeout: it still does.
    """

    def __init__(
        self,
        folder: Path,
        client: MlflowClient | None,
        *,
        uri: str = "",
        find_run: FindRun | None = None,
        lock_timeout: float = 60,
    ) -> None:
        self.name = folder.name
        self._folder, self._uri, self._find_run = folder, uri, find_run
        locks = folder.parent / _LOCKS  # not in the folder, which goes away while the lock is held
        locks.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(locks / self.name)
        self._lock.acquire(timeout=lock_timeout)
        make_folder(folder, durable=True)
        if uri and not (folder / _STORE).exists():
            write_bytes(folder / _STORE, hide_password(uri).encode(), durable=True)
        self._records = folder / "records.jsonl"
        self._mark = folder / "delivered"
        self._unwritten: list[str] = []  # while the local disk is full
        self._torn = self._records.exists()  # the last line may be cut, by a kill or a full disk
        self._refused = False
        self._run_id = ""  # in the store, once it is known
        # By metric and step, the values that the store has, in the order in which they came; as text, so that NaN is
        # equal to itself.
        self._known: dict[str, dict[int, list[str]]] = {}
        self._recorded: set[str] | None = None  # names of the metrics that the run has
        # After a kill or a power loss, the store may have taken batches whose receipts were lost: look before sending
        # what is here now again.
        self._may_repeat_until = self._records.stat().st_size if self._records.exists() else 0
        self._wake = threading.Event()
        self._closing = False
        self._problem: str | None = None
        self._thread: threading.Thread | None = None
        if client is not None:
            self._client = client
            self._thread = threading.Thread(target=self._deliver_forever, name=f"outbox-{self.name}", daemon=True)
            self._thread.start()

    def steps_waiting(self) -> set[tuple[str, int]]:
        """Return the metrics and steps of earlier records that are kept here."""
        return {
            (key, record["step"])
            for record in self._read(0)
            if record["kind"] == "metrics"
            for key in record["values"]
        }

    def count_waiting(self) -> int:
        """Count the records that are not delivered."""
        return sum(1 for _ in self._read(self._offset())) + len(self._unwritten)

    def put(self, kind: str, **content: Any) -> None:
        """Keep a record and return at once; ``kind`` is a key of ``_SENDERS``."""
        line = json.dumps({"kind": kind, "time_ms": int(time.time() * 1000), **content}) + "\n"
        self._unwritten.append(line)
        self._write()
        self._wake.set()

    def put_file(self, path: Path, artifact_dir: str) -> None:
        """Keep a copy of a file, to become an artifact under ``artifact_dir``."""
        copy = self._folder / "files" / uuid.uuid4().hex / path.name
        try:
            copy.parent.mkdir(parents=True)
            shutil.copyfile(path, copy)
            sync_files([copy])  # a record whose file is not there counts as delivered
            sync_folders([copy.parent.parent, self._folder])
        except OSError as error:
            _log.warning("artifact %s cannot be kept for MLflow: %s", path, error)
            return
        self.put("artifact", path=copy.relative_to(self._folder).as_posix(), artifact_dir=artifact_dir)

    def close(self, *, timeout: float = 60.0) -> bool:
        """Deliver what is left and stop.

        Returns:
            True when the store has everything (the folder is then removed); False when records stay here.
        """
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
        self._write()
        busy = self._thread is not None and self._thread.is_alive()
        waiting = self.count_waiting()
        complete = not busy and not waiting
        if self._unwritten:
            _log.warning(
                "%d records cannot be written to %s (%s)", len(self._unwritten), self._records, self._problem
            )
        elif not complete:
            _log.warning(
                "%s: %d records kept in %s; delivered by the next crackseg command that reaches it, or by "
                "`crackseg store deliver`",
                describe_silence(self._uri, self._problem or ("too slow" if busy else "")), waiting, self._folder,
            )  # fmt: skip
        if complete:
            shutil.rmtree(self._folder, ignore_errors=True)
        if not busy:  # else it may still deliver: no one must do the same next to it
            self.release()
        return complete

    def release(self) -> None:
        """Let other processes write and deliver."""
        self._lock.release()

    def _write(self) -> None:
        is_new = not self._records.exists()
        try:
            with self._records.open("a", encoding="utf-8") as file:
                if self._torn:
                    file.write("\n")
                    self._torn = False
                while self._unwritten:
                    file.write(self._unwritten[0])
                    file.flush()
                    self._unwritten.pop(0)
                os.fsync(file.fileno())
            if is_new:
                sync_folders([self._folder])
        except OSError as error:
            self._torn = True
            if self._problem != str(error):
                _log.warning("cannot write %s (%s); continuing, records are kept in memory", self._records, error)
            self._problem = str(error)

    def _read(self, offset: int) -> Iterator[dict[str, Any]]:
        """Yield whole records from a byte offset on, each with the offset behind it as ``end``."""
        if not self._records.exists():
            return
        with self._records.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # still being written
                    return
                offset += len(line)
                try:
                    record = json.loads(line)
                except ValueError:  # cut by a kill or a full disk
                    continue
                yield record | {"end": offset}

    def _offset(self) -> int:
        try:
            return int(self._mark.read_text())
        except (OSError, ValueError):
            return 0

    def _deliver_forever(self) -> None:
        while True:
            self._wake.wait(_RETRY_SECONDS)
            self._wake.clear()
            closing = self._closing  # read before delivering: what is put later sets the event again
            try:
                self._deliver()
                self._problem = None
            except Exception as error:  # whatever the store or the network raises must not end a training run
                if self._problem is None:
                    _log.warning("%s; keeping records locally", describe_silence(self._uri, first_line(error)))
                self._problem = first_line(error)
            if closing:
                return

    def _deliver(self) -> None:
        for record in self._read(self._offset()):
            try:
                self._run_id = self._run_id or self._find()
                if record["kind"] in _SENDERS:  # else it described the run
                    _SENDERS[record["kind"]](self, record)
            except StoreAwayError:
                raise
            except (MlflowException, CracksegError) as error:
                if isinstance(error, MlflowException) and error.error_code not in _REFUSALS:
                    raise
                self._set_aside(record, error)
            temporary = self._mark.with_suffix(".tmp")
            temporary.write_text(str(record["end"]))
            temporary.replace(self._mark)

    def _find(self) -> str:
        first = next(self._read(0))
        if first["kind"] in _SENDERS:
            return self.name
        assert self._find_run is not None, first
        return self._find_run(first)

    def _set_aside(self, record: dict[str, Any], error: Exception) -> None:
        """Move away a record that the store refuses for good, so that it does not block later ones."""
        path = self._folder.parent / _REFUSED / f"{self.name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record | {"refused": first_line(error)}) + "\n")
            sync(file)
        if not self._refused:
            _log.warning(
                "the tracking store refuses records of run %s (%s); see %s", self.name, first_line(error), path
            )
        self._refused = True

    def _send_metrics(self, record: dict[str, Any]) -> None:
        step = record["step"]
        may_repeat = record["end"] <= self._may_repeat_until
        values = {k: v for k, v in record["values"].items() if not self._has(k, v, record, may_repeat=may_repeat)}
        metrics = [Metric(key, value, record["time_ms"], step) for key, value in values.items()]
        if metrics:
            self._client.log_batch(self._run_id, metrics=metrics)
        for key, value in values.items():
            if key in self._known:
                self._known[key].setdefault(step, []).append(repr(value))
            elif self._recorded is not None:
                self._recorded.add(key)

    def _has(self, key: str, value: float, record: dict[str, Any], *, may_repeat: bool) -> bool:
        """Return True if the store has what a record says of a metric, or a former run of the step did."""
        if not (may_repeat or record.get("only_new") or record.get("only_new_steps")):
            return False
        present = self._values_in_store(key).get(record["step"], [])
        if record.get("only_new_steps") or not present:
            return bool(present)
        # A value that has changed and changed back is new again, but not if it is the record that came twice.
        return repr(value) in (present if may_repeat else present[-1:])

    def _send_note(self, record: dict[str, Any]) -> None:
        present = self._client.get_run(self._run_id).data.tags.get(_NOTE_TAG, "")
        if not present or present.startswith(tuple(record["over"])):
            self._client.set_tag(self._run_id, _NOTE_TAG, record["text"])

    def _send_curve(self, record: dict[str, Any]) -> None:
        key = record["name"]
        known = self._values_in_store(key)
        points = {int(step): value for step, value in record["values"].items() if int(step) not in known}
        if points:
            self._client.log_batch(
                self._run_id,
                metrics=[Metric(key, value, record["time_ms"], step) for step, value in points.items()],
            )
        known.update({step: [repr(value)] for step, value in points.items()})

    def _values_in_store(self, key: str) -> dict[int, list[str]]:
        if self._recorded is None:  # one request, instead of one for each metric that the run does not have
            self._recorded = set(self._client.get_run(self._run_id).data.metrics)
        if key not in self._known:
            history = self._client.get_metric_history(self._run_id, key) if key in self._recorded else []
            values: dict[int, list[str]] = {}
            for metric in sorted(history, key=lambda m: m.timestamp):
                values.setdefault(metric.step, []).append(repr(metric.value))
            self._known[key] = values
        return self._known[key]

    def _send_params(self, record: dict[str, Any]) -> None:
        self._client.log_batch(self._run_id, params=[Param(k, str(v)) for k, v in record["values"].items()])

    def _send_tags(self, record: dict[str, Any]) -> None:
        self._client.log_batch(self._run_id, tags=[RunTag(k, str(v)) for k, v in record["values"].items()])

    def _send_artifact(self, record: dict[str, Any]) -> None:
        path = self._folder / record["path"]
        if path.exists():  # else it was delivered and its receipt was lost
            self._client.log_artifact(self._run_id, str(path), record["artifact_dir"] or None)
            shutil.rmtree(path.parent, ignore_errors=True)

    def _send_dataset(self, record: dict[str, Any]) -> None:
        dataset = Dataset(
            name=record["name"], digest=record["digest"], source_type="local", source=record["source"],
            profile=record["profile"],
        )  # fmt: skip
        tags = [InputTag("mlflow.data.context", record["context"])]
        self._client.log_inputs(self._run_id, [DatasetInput(dataset, tags)])

    def _send_status(self, record: dict[str, Any]) -> None:
        if record["value"] == "RUNNING":
            self._client.update_run(self._run_id, status="RUNNING")
        else:
            self._client.set_terminated(self._run_id, status=record["value"], end_time=record["time_ms"])


_SENDERS = {
    "metrics": Outbox._send_metrics,
    "curve": Outbox._send_curve,
    "params": Outbox._send_params,
    "tags": Outbox._send_tags,
    "note": Outbox._send_note,
    "artifact": Outbox._send_artifact,
    "dataset": Outbox._send_dataset,
    "status": Outbox._send_status,
}


def begin_outbox(folder: Path, uri: str, kind: str, **description: Any) -> None:
    """Make an outbox whose first record describes the run, unless there is one."""
    outbox = Outbox(folder, None, uri=uri)
    if not outbox.count_waiting():
        outbox.put(kind, **description)
    outbox.release()


class Deliveries(NamedTuple):
    """Numbers of outboxes: delivered, still waiting, and kept for another store."""

    delivered: int
    waiting: int
    elsewhere: int = 0


def deliver_left_over(
    outbox_dir: Path, client: MlflowClient, *, uri: str = "", find_run: FindRun | None = None
) -> Deliveries:
    """Deliver what earlier commands left; skip runs that another process is still writing."""
    delivered = waiting = elsewhere = 0
    for folder in sorted(list_waiting(outbox_dir), key=_read_kind):
        try:
            store = (folder / _STORE).read_text(encoding="utf-8")
        except OSError:  # kept by an earlier version
            store = ""
        if store and store != hide_password(uri):
            elsewhere += 1
            continue
        try:
            outbox = Outbox(folder, client, uri=uri, find_run=find_run, lock_timeout=0)
        except Timeout:
            continue
        if outbox.close(timeout=30):
            delivered += 1
        else:
            waiting += 1
    return Deliveries(delivered, waiting, elsewhere)


def list_waiting(outbox_dir: Path) -> list[Path]:
    """List the outboxes that hold records or are being written."""
    return [path for path in outbox_dir.glob("*") if path.name not in (_LOCKS, _REFUSED) and path.is_dir()]


def _read_kind(folder: Path) -> tuple[bool, str]:
    """Return a sort key: results come after the runs that they belong to."""
    try:
        with (folder / "records.jsonl").open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError):
        first = {}
    return first.get("kind") == "results", folder.name
