"""A model of the gate: its files, loaded in a process of their own, without the repository and without pickles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from crackseg.child_processes import find_reason
from crackseg.errors import CracksegError
from crackseg.inference.detector import SETTINGS_NAME
from crackseg.params import PostprocessParams
from crackseg.registry.shipped import SHIPPED_LABEL, package_shipped
from crackseg.registry.version_tags import read_tags
from crackseg.tracking.fetching import fetch_model

_SCRIPT = Path(__file__).with_name("isolated_worker.py")


@dataclass(frozen=True, slots=True)
class Contender:
    """A model that the gate compares: a registered version, or the model that crackseg ships.

    Attributes:
        label: ``version 3``, or ``scenes (shipped with crackseg)``.
        fetch: brings its files, given an empty folder for them; returns where they are.
        tags: of the registered version.
        shipped: True for the model that crackseg ships.
    """

    label: str
    fetch: Callable[[Path], Path]
    tags: Mapping[str, str]
    shipped: bool = False

    @classmethod
    def of_version(cls, version: ModelVersion) -> Contender:
        """Describe a registered version."""
        uri = f"models:/{version.name}/{version.version}"
        return cls(f"version {version.version}", lambda folder: fetch_model(uri, folder), read_tags(version))

    @classmethod
    def of_shipped(cls) -> Contender:
        """Describe the model that crackseg ships, which is used while nothing is in production."""
        return cls(SHIPPED_LABEL, lambda _folder: package_shipped(), {}, shipped=True)


class VersionFailure(Exception):
    """A version does not load or does not answer; the message gives the reason."""


class VersionProcess:
    """A version of the model, loaded in a process without the repository and with pickles forbidden.

    Args:
        model_dir: the version's files.
        scratch: an empty folder, in which it runs.
    Raises:
        VersionFailure: it does not load.
    """

    def __init__(self, model_dir: Path, scratch: Path) -> None:
        self.model_dir = model_dir
        self.scratch = scratch
        scratch.mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW_"))}
        self._log = (scratch / "log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT), str(model_dir.resolve())],
            cwd=scratch,
            env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )
        try:
            hello = self._read()
        except BaseException:
            self.close()
            raise
        self.load_seconds = float(hello["load_seconds"])
        self.signature: dict[str, str] = hello["signature"]

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; VersionFailure if there is none."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended; reading gives the reason
        return self._read()

    def predict(self, images: Sequence[Path], maps: Sequence[Path]) -> list[dict[str, float]]:
        """Predict image files; write a probability map for each and return its values."""
        answer = self.ask(do="predict", images=[str(p.resolve()) for p in images], maps=[str(p) for p in maps])
        return answer["rows"]

    def time(self, images: Sequence[Path]) -> float:
        """Measure the seconds for an image, one at a time."""
        return float(self.ask(do="time", images=[str(p.resolve()) for p in images])["seconds_per_image"])

    @cached_property
    def operation(self) -> tuple[float, PostprocessParams]:
        """The model's operating threshold and post-processing; VersionFailure if its settings cannot be read."""
        try:
            path = next(self.model_dir.rglob(SETTINGS_NAME))
            settings = json.loads(path.read_text(encoding="utf-8"))
            postprocessing = PostprocessParams.model_validate_json(json.dumps(settings["postprocess"]))
            return float(settings["operating_threshold"]), postprocessing
        except (StopIteration, KeyError, ValueError, TypeError, ValidationError) as error:
            raise VersionFailure(
                f"its {SETTINGS_NAME} cannot be read by this version of crackseg ({error})"
            ) from error

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:]
            reason = f" ({found})" if (found := find_reason(code)) else ""
            raise VersionFailure(
                f"its process ended with code {code}{reason}: {''.join(last)[:300] or 'it printed nothing'}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise VersionFailure(answer["error"])
        return answer


@contextmanager
def loaded(contender: Contender, folder: Path) -> Iterator[VersionProcess]:
    """Load a model in a process, while the context lasts.

    Args:
        contender: the model.
        folder: new, for its files and its scratch.
    Raises:
        VersionFailure: its files cannot be fetched, or it does not load.
    """
    (folder / "model").mkdir(parents=True)
    try:
        model_dir = contender.fetch(folder / "model")
    except CracksegError as error:
        raise VersionFailure(f"its files cannot be fetched: {error}") from error
    process = VersionProcess(model_dir, folder / "scratch")
    try:
        yield process
    finally:
        process.close()
