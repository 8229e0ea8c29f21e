"""What a run has to tell MLflow, kept on disk until the store has taken it.

A tracking server that goes away, or a full disk under it, must not end a six-hour training: every record is
first appended to ``mlruns/outbox/RUN_ID/records.jsonl``, then a background thread delivers it. What could not be
delivered stays there, and the next crackseg command delivers it.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

_log = logging.getLogger("crackseg")
_RETRY_SECONDS = 15.0
_LOCKS, _REFUSED = "locks", "refused"  # folders beside those of the runs
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "PERMISSION_DENIED")


class Outbox:
    """The records of one run, delivered in order by a background thread.

    Args:
        folder: ``mlruns/outbox/RUN_ID``; made if absent, and removed when all is delivered.
        client: the store to deliver to.
        lock_timeout: seconds to wait for another process that holds this run's outbox.
    Raises:
        filelock.Timeout: it still does.
    """

    def __init__(self, folder: Path, client: MlflowClient, *, lock_timeout: float = 60) -> None:
        self.run_id = folder.name
        self._folder = folder
        self._client = client
        locks = folder.parent / _LOCKS  # not in the folder, which goes away while the lock is held
        locks.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(locks / self.run_id)
        self._lock.acquire(timeout=lock_timeout)
        folder.mkdir(exist_ok=True)
        self._records = folder / "records.jsonl"
        self._mark = folder / "delivered"
        self._unwritten: list[str] = []  # while the local disk is full
        self._torn = self._records.exists()  # the last line may be cut, by a kill or a full disk
        self._refused = False
        self.steps_seen = {
            (key, record["step"])
            for record in self._read(0)
            if record["kind"] == "metrics"
            for key in record["values"]
        }
        # After a kill, the store may have taken a batch whose receipt was lost: look before sending it again.
        self._may_repeat = self._records.exists()
        self._wake = threading.Event()
        self._closing = False
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._deliver_forever, name=f"outbox-{self.run_id}", daemon=True)
        self._thread.start()

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
        self._thread.join(timeout)
        self._write()
        complete = not self._thread.is_alive() and not self._unwritten and not any(self._read(self._offset()))
        if not complete:
            _log.warning(
                "the tracking store cannot be reached (%s); records of run %s are kept in %s and delivered "
                "by the next crackseg command, or by `crackseg store deliver`",
                self._problem or "too slow", self.run_id, self._folder,
            )  # fmt: skip
        if complete:
            shutil.rmtree(self._folder, ignore_errors=True)
        if not self._thread.is_alive():  # else it may still deliver: nobody must do the same beside it
            self._lock.release()
        return complete

    def _write(self) -> None:
        try:
            with self._records.open("a", encoding="utf-8") as file:
                if self._torn:
                    file.write("\n")
                    self._torn = False
                while self._unwritten:
                    file.write(self._unwritten[0])
                    file.flush()
                    self._unwritten.pop(0)
        except OSError as error:
            self._torn = True
            if self._problem != str(error):
                _log.warning("cannot write %s (%s); going on, records are kept in memory", self._records, error)
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
            except Exception as error:  # whatever the store or the network throws must not end a training
                if self._problem is None:
                    _log.warning("the tracking store does not answer (%s); keeping records locally", _short(error))
                self._problem = _short(error)
            if closing:
                return

    def _deliver(self) -> None:
        for record in self._read(self._offset()):
            try:
                _SENDERS[record["kind"]](self, record)
            except MlflowException as error:
                if error.error_code not in _REFUSALS:
                    raise
                self._set_aside(record, error)
            temporary = self._mark.with_suffix(".tmp")
            temporary.write_text(str(record["end"]))
            temporary.replace(self._mark)

    def _set_aside(self, record: dict[str, Any], error: MlflowException) -> None:
        """Keep a record that the store answers and will never take, so that it blocks nothing behind it."""
        path = self._folder.parent / _REFUSED / f"{self.run_id}.jsonl"
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record | {"refused": _short(error)}) + "\n")
        if not self._refused:
            _log.warning(
                "the tracking store refuses records of run %s (%s); see %s", self.run_id, _short(error), path
            )
        self._refused = True

    def _send_metrics(self, record: dict[str, Any]) -> None:
        values, step = record["values"], record["step"]
        if self._may_repeat:
            values = {k: v for k, v in values.items() if not self._has_step(k, step)}
            self._may_repeat = False
        metrics = [Metric(key, value, record["time_ms"], step) for key, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def _has_step(self, key: str, step: int) -> bool:
        return any(metric.step == step for metric in self._client.get_metric_history(self.run_id, key))

    def _send_params(self, record: dict[str, Any]) -> None:
        self._client.log_batch(self.run_id, params=[Param(k, str(v)) for k, v in record["values"].items()])

    def _send_tags(self, record: dict[str, Any]) -> None:
        self._client.log_batch(self.run_id, tags=[RunTag(k, str(v)) for k, v in record["values"].items()])

    def _send_artifact(self, record: dict[str, Any]) -> None:
        path = self._folder / record["path"]
        if path.exists():  # else it was delivered and its receipt was lost
            self._client.log_artifact(self.run_id, str(path), record["artifact_dir"] or None)
            shutil.rmtree(path.parent, ignore_errors=True)

    def _send_dataset(self, record: dict[str, Any]) -> None:
        dataset = Dataset(
            name=record["name"], digest=record["digest"], source_type="local", source=record["source"],
            profile=record["profile"],
        )  # fmt: skip
        tags = [InputTag("mlflow.data.context", record["context"])]
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def _send_status(self, record: dict[str, Any]) -> None:
        if record["value"] == "RUNNING":
            self._client.update_run(self.run_id, status="RUNNING")
        else:
            self._client.set_terminated(self.run_id, status=record["value"], end_time=record["time_ms"])


_SENDERS = {
    "metrics": Outbox._send_metrics,
    "params": Outbox._send_params,
    "tags": Outbox._send_tags,
    "artifact": Outbox._send_artifact,
    "dataset": Outbox._send_dataset,
    "status": Outbox._send_status,
}


def deliver_left_over(outbox_dir: Path, client: MlflowClient) -> tuple[int, int]:
    """Deliver what earlier commands had to leave behind; runs that a living process writes are passed over.

    Returns:
        (runs delivered, runs that still wait).
    """
    delivered = waiting = 0
    for folder in sorted(outbox_dir.glob("*")):
        if folder.name in (_LOCKS, _REFUSED) or not folder.is_dir():
            continue
        try:
            outbox = Outbox(folder, client, lock_timeout=0)
        except Timeout:
            continue
        if outbox.close(timeout=30):
            delivered += 1
        else:
            waiting += 1
    return delivered, waiting


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]
