"""What lies before one visitor: the photographs that were dropped, and what the chosen version makes of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crackseg.data.catalog import warn_of_source
from crackseg.errors import CracksegError
from crackseg.inference.drift import MIN_IMAGES, compare, count_reference, describe_drift, warn_of_reference
from crackseg.serving.page.inspection import Inspection, inspect_photograph
from crackseg.serving.page.model_cache import ModelShelf


@dataclass(frozen=True, slots=True)
class Turn:
    """A measurement that was begun, and where its files go."""

    number: int
    folder: Path


class Desk:
    """The photographs of one visit.

    Args:
        shelf: where the models are.
        folder: gets a folder for this visit's maps and downloads.

    Attributes:
        inspections: by the name that the page shows, in the order dropped.
        shown: name of the one that the visitor looks at; "" while there is none.
        problems: what was wrong with files, or with the version; a sentence each.
        warnings: that the model must not be used, or knows too few photographs to compare with; a sentence each.
        drift: said of the photographs together, if there are enough and they are unlike the model's own; else "".
    """

    def __init__(self, shelf: ModelShelf, folder: Path) -> None:
        self.inspections: dict[str, Inspection] = {}
        self.shown = ""
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.drift = ""
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self._shelf = shelf
        self._digest = ""  # of the model that `_seen` is from
        self._seen: dict[str, Inspection | CracksegError] = {}  # by path
        self._turns = [Turn(0, self.folder / "0")]

    @property
    def current(self) -> Inspection | None:
        """What the visitor looks at; None before there is anything, and while photographs are looked at anew."""
        return self.inspections.get(self.shown)

    def inspect(self, paths: Sequence[str], version: str | None) -> Iterator[str]:
        """Let a version see the photographs that it has not seen, and take away those that are not among ``paths``.

        Args:
            paths: of the files that were dropped.
            version: a number; None if none was chosen.
        Yields:
            Before each step what it is, and a last time when all is done.
        """
        self.inspections, self.shown, self.problems, self.warnings, self.drift = {}, "", [], [], ""
        paths = list(dict.fromkeys(paths))
        self._forget(set(self._seen) - set(paths))
        if not paths:
            return
        if version is None:
            self.problems = ["Choose a version of the model: none is in production."]
            return
        yield f"Loading version {version} …"
        try:
            model = self._shelf.take(version)
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
                map_path = Path(tempfile.mkdtemp(dir=self.folder)) / "map.npy"
                try:
                    self._seen[path] = inspect_photograph(model.analyzer, Path(path), map_path)
                except CracksegError as error:
                    self._seen[path] = error
            self._lay_out(self._seen[path])
        figures = [inspection.figures for inspection in self.inspections.values()]
        if len(figures) >= MIN_IMAGES:
            drifts = compare(settings.reference, figures)
            self.drift = describe_drift(drifts) if any(d.drifted for d in drifts) else ""
        yield ""

    def begin_turn(self) -> Turn:
        """Begin a measurement; those begun before are overtaken, and the files of all but the last of them go."""
        number = self._turns[-1].number + 1
        for overtaken in self._turns[:-1]:
            shutil.rmtree(overtaken.folder, ignore_errors=True)
        self._turns = [self._turns[-1], Turn(number, self.folder / str(number))]
        return self._turns[-1]

    def is_overtaken(self, turn: Turn) -> bool:
        """A later measurement has begun, so what this one found is not what is seen."""
        return turn != self._turns[-1]

    def close(self) -> None:
        """Throw away all that was made for this visit."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lay_out(self, seen: Inspection | CracksegError) -> None:
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
