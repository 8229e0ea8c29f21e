"""The photographs of a visit: seen once, apart from each other, and a broken one leaves the others alone."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crackseg.data.images.files import encode_png
from crackseg.errors import CracksegError
from crackseg.inference.detector import CrackAnalyzer, ReferenceStatistics
from crackseg.inference.drift import FIGURES
from crackseg.serving.page.session import Session
from tests.odd_pictures import BROKEN, make_scene
from tests.tiny_model import make_model


class CountingCache:
    """Two versions that count what they are asked."""

    def __init__(self, analyzer: CrackAnalyzer) -> None:
        self.asked: list[str] = []
        self.analyzer = analyzer

    def load(self, version: str) -> Any:
        if version not in "12":
            raise CracksegError(f"models:/cracks/{version}: its files are gone")

        def predict_prob(image: np.ndarray) -> np.ndarray:
            self.asked.append(version)
            return self.analyzer.predictor.predict_prob(image)

        counting = CrackAnalyzer(SimpleNamespace(predict_prob=predict_prob), self.analyzer.settings)  # type: ignore[arg-type]
        return SimpleNamespace(analyzer=counting, digest=version)


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory: pytest.TempPathFactory) -> CrackAnalyzer:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cache(analyzer: CrackAnalyzer) -> CountingCache:
    return CountingCache(analyzer)


@pytest.fixture
def session(cache: CountingCache, tmp_path: Path) -> Session:
    (tmp_path / "sessions").mkdir()
    return Session(cache, tmp_path / "sessions")  # type: ignore[arg-type]


def drop(session: Session, paths: list[Path], version: str | None = "1") -> list[str]:
    return list(session.inspect([str(path) for path in paths], version))


def write(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content or encode_png(make_scene()))
    return path


def test_the_model_sees_each_photograph_once(session: Session, cache: CountingCache, tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.png"), write(tmp_path / "b.png")
    drop(session, [first])
    for threshold in np.linspace(0, 1, 50):
        session.inspections["a.png"].find_cracks(threshold)
    drop(session, [first, second])
    assert list(session.inspections) == ["a.png", "b.png"]
    assert cache.asked == ["1", "1"]
    drop(session, [first, second], version="2")
    assert cache.asked == ["1", "1", "2", "2"]


def test_broken_files_are_named_and_the_others_shown(session: Session, tmp_path: Path) -> None:
    files = [write(tmp_path / name, content or b" ") for name, (content, _) in BROKEN.items()]
    (tmp_path / "empty.png").write_bytes(b"")
    drop(session, [files[0], write(tmp_path / "good.png"), *files[1:]])
    assert list(session.inspections) == ["good.png"]
    for problem, (_, message) in zip(session.problems, BROKEN.values(), strict=True):
        assert problem.startswith(message)


def test_a_full_disk_is_said_and_the_photograph_is_tried_again(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.png")
    with monkeypatch.context() as full:
        full.setattr(
            np, "save", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        )
        drop(session, [path])
    assert session.inspections == {}
    assert "a.png: its result cannot be kept in" in session.problems[0]
    assert "No space left on device" in session.problems[0]
    drop(session, [path])
    assert list(session.inspections) == ["a.png"]


def test_photographs_of_one_name_stay_apart(session: Session, tmp_path: Path) -> None:
    dark = encode_png((make_scene() // 3).astype(np.uint8))
    drop(session, [write(tmp_path / "x" / "1.png"), write(tmp_path / "y" / "1.png", dark)])
    assert list(session.inspections) == ["1.png", "1.png (2)"]
    one, other = session.inspections.values()
    assert one.values["brightness"] > 2 * other.values["brightness"]


def test_what_is_taken_away_is_gone_from_the_disk(session: Session, tmp_path: Path) -> None:
    drop(session, [write(tmp_path / "a.png"), write(tmp_path / "b.png")])
    maps = [inspection.map_path for inspection in session.inspections.values()]
    drop(session, [tmp_path / "b.png"])
    assert [path.exists() for path in maps] == [False, True]
    session.close()
    assert not list((tmp_path / "sessions").iterdir())


@pytest.mark.parametrize(("version", "said"), [(None, "none is in production"), ("7", "its files are gone")])
def test_a_version_that_is_not_there_is_said(
    session: Session, tmp_path: Path, version: str | None, said: str
) -> None:
    drop(session, [write(tmp_path / "a.png")], version)
    assert not session.inspections
    (problem,) = session.problems
    assert said in problem


def test_ten_photographs_of_another_kind_are_reported(
    cache: CountingCache, session: Session, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    values = {name: tuple(rng.normal(0.9, 0.01, 40)) for name in FIGURES}
    reference = ReferenceStatistics(num_images=40, **values)
    analyzer = cache.analyzer
    cache.analyzer = CrackAnalyzer(
        analyzer.predictor, analyzer.settings.model_copy(update={"reference": reference})
    )
    paths = [
        write(tmp_path / f"{i}.png", encode_png((make_scene() * share).astype(np.uint8)))
        for i, share in enumerate(np.linspace(0.3, 0.6, 10))
    ]
    drop(session, paths)
    assert "not like those" in session.drift
    assert "brightness" in session.drift
    drop(session, paths[:9])
    assert session.drift == ""


def test_a_measurement_that_was_overtaken_knows_it(session: Session) -> None:
    first = session.begin_measurement()
    assert not session.is_outdated(first)
    second = session.begin_measurement()
    assert session.is_outdated(first)
    assert not session.is_outdated(second)
