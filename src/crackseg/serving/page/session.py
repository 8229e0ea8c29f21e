"""Per-session state: dropped photographs and their results."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crackseg.data.catalog import warn_of_source
from crackseg.errors import CracksegError
from crackseg.inference.drift import MIN_IMAGES, compare, count_reference, describe_drift, warn_of_reference
from crackseg.models.shipped import SHIPPED_NAME
from crackseg.serving.page.findings import Findings
from crackseg.serving.page.inspection import Inspection, inspect_photograph
from crackseg.serving.page.model_cache import ModelCache
from crackseg.serving.page.scale_points import Point


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement that was begun, and the folder of its files."""

    number: int
    folder: Path


class Session:
    """The photographs of one session.

    Args:
        cache: the models.
        folder: gets a folder for this session's maps and downloads.

    Attributes:
        inspections: by the name that the page shows, in the order dropped.
        shown: name of the photograph that is displayed; "" while there is none.
        problems: what was wrong with files, or with the version; a sentence each.
        warnings: that the model must not be used, or has too few training photographs to compare with; a sentence each.
        points: at most two, clicked on the displayed photograph for its scale.
        scale_text: millimetres per pixel that two points gave, as they stand in their field; "" if they gave none.
        unwritten: the last measurement and its findings, until its downloads are written; None when they are.
        drift: warning that the photographs together are unlike the training ones; "" if not, or if there are too few.
    """

    def __init__(self, cache: ModelCache, folder: Path) -> None:
        self.inspections: dict[str, Inspection] = {}
        self.shown = ""
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.drift = ""
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.points: tuple[Point, ...] = ()
        self.scale_text = ""
        self.unwritten: tuple[Measurement, Findings] | None = None
        self._folders: dict[str, Path] = {}
        self._cache = cache
        self._digest = ""  # of the model that `_seen` is from
        self._seen: dict[str, Inspection | CracksegError] = {}  # by path
        self._measurements = [Measurement(0, self.folder / "0")]

    @property
    def current(self) -> Inspection | None:
        """Return the displayed inspection; None if there is none, also while photographs are predicted again."""
        return self.inspections.get(self.shown)

    def inspect(self, paths: Sequence[str], version: str | None) -> Iterator[str]:
        """Predict the photographs that are new, and remove those that are not among ``paths``.

        Args:
            paths: of the files that were dropped.
            version: a number, or ``scenes``; None if none was chosen.
        Yields:
            The name of each step before it, and "" at the end.
        """
        self.inspections, self.shown, self.problems, self.warnings, self.drift = {}, "", [], [], ""
        paths = list(dict.fromkeys(paths))
        self._forget(set(self._seen) - set(paths))
        if not paths:
            return
        if version is None:
            self.problems = ["Choose a version of the model: none is in production."]
            return
        yield f"Loading {version if version == SHIPPED_NAME else f'version {version}'} …"
        try:
            model = self._cache.load(version)
        except CracksegError as error:
            self.problems = [str(error)]
            return
        settings = model.analyzer.settings
        said = (warn_of_source(settings.data_source), warn_of_reference(count_reference(settings.reference)))
        self.warnings = [sentence for sentence in said if sentence]
        if model.digest != self._digest:
            self._forget(set(self._seen))
            self._digest = model.digest
        for number, path in enumerate(paths, 1):
            if path not in self._seen:
                yield f"Photograph {number} of {len(paths)}: {Path(path).name} …"
                try:
                    map_path = Path(tempfile.mkdtemp(dir=self.folder)) / "map.npy"
                    self._seen[path] = inspect_photograph(model.analyzer, Path(path), map_path)
                except CracksegError as error:
                    self._seen[path] = error
                except OSError as error:  # a full disk; not remembered, so that it is tried again
                    self.problems.append(
                        f"{Path(path).name}: its result cannot be kept in {self.folder} ({error.strerror or error}); "
                        "free some space and drop it again"
                    )
                    continue
            self._add(self._seen[path])
        values = [inspection.values for inspection in self.inspections.values()]
        if len(values) >= MIN_IMAGES:
            drifts = compare(settings.reference, values)
            self.drift = describe_drift(drifts) if any(d.drifted for d in drifts) else ""
        yield ""

    def begin_measurement(self) -> Measurement:
        """Begin a measurement; earlier ones are outdated, and the files of all but the last are deleted."""
        number = self._measurements[-1].number + 1
        for outdated in self._measurements[:-1]:
            shutil.rmtree(outdated.folder, ignore_errors=True)
        self._measurements = [self._measurements[-1], Measurement(number, self.folder / str(number))]
        self.unwritten = None
        return self._measurements[-1]

    def is_outdated(self, measurement: Measurement) -> bool:
        """Return whether a later measurement has begun."""
        return measurement != self._measurements[-1]

    def renew_folder(self, purpose: str) -> Path:
        """Make an empty folder, and delete the former one of the same purpose."""
        if former := self._folders.get(purpose):
            shutil.rmtree(former, ignore_errors=True)
        self._folders[purpose] = Path(tempfile.mkdtemp(dir=self.folder))
        return self._folders[purpose]

    def close(self) -> None:
        """Delete all files of this session."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _add(self, seen: Inspection | CracksegError) -> None:
        if isinstance(seen, CracksegError):
            self.problems.append(str(seen))
            return
        name, copies = seen.name, 1
        while name in self.inspections:
            copies += 1
            name = f"{seen.name} ({copies})"
        self.inspections[name] = seen

    def _forget(self, paths: set[str]) -> None:
        for path in paths:
            seen = self._seen.pop(path)
            if isinstance(seen, Inspection):
                shutil.rmtree(seen.map_path.parent, ignore_errors=True)
