"""The photographs of a visit: seen once, apart from each other, and a broken one leaves the others alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crackseg.data.images.files import encode_png
from crackseg.errors import CracksegError
from crackseg.inference.detector import CrackAnalyzer, ReferenceStatistics
from crackseg.inference.drift import FIGURES
from crackseg.serving.page.session import Desk
from tests.odd_pictures import BROKEN, make_scene
from tests.tiny_model import make_model


class Shelf:
    """Two versions that count what they are asked."""

    def __init__(self, analyzer: CrackAnalyzer) -> None:
        self.asked: list[str] = []
        self.analyzer = analyzer

    def take(self, version: str) -> Any:
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
def shelf(analyzer: CrackAnalyzer) -> Shelf:
    return Shelf(analyzer)


@pytest.fixture
def desk(shelf: Shelf, tmp_path: Path) -> Desk:
    (tmp_path / "desks").mkdir()
    return Desk(shelf, tmp_path / "desks")  # type: ignore[arg-type]


def drop(desk: Desk, paths: list[Path], version: str | None = "1") -> list[str]:
    return list(desk.inspect([str(path) for path in paths], version))


def write(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content or encode_png(make_scene()))
    return path


def test_the_model_sees_each_photograph_once(desk: Desk, shelf: Shelf, tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.png"), write(tmp_path / "b.png")
    drop(desk, [first])
    for threshold in np.linspace(0, 1, 50):
        desk.inspections["a.png"].find_cracks(threshold)
    drop(desk, [first, second])
    assert list(desk.inspections) == ["a.png", "b.png"]
    assert shelf.asked == ["1", "1"]
    drop(desk, [first, second], version="2")
    assert shelf.asked == ["1", "1", "2", "2"]


def test_broken_files_are_named_and_the_others_shown(desk: Desk, tmp_path: Path) -> None:
    files = [write(tmp_path / name, content or b" ") for name, (content, _) in BROKEN.items()]
    (tmp_path / "empty.png").write_bytes(b"")
    drop(desk, [files[0], write(tmp_path / "good.png"), *files[1:]])
    assert list(desk.inspections) == ["good.png"]
    for problem, (_, message) in zip(desk.problems, BROKEN.values(), strict=True):
        assert problem.startswith(message)


def test_photographs_of_one_name_stay_apart(desk: Desk, tmp_path: Path) -> None:
    dark = encode_png((make_scene() // 3).astype(np.uint8))
    drop(desk, [write(tmp_path / "x" / "1.png"), write(tmp_path / "y" / "1.png", dark)])
    assert list(desk.inspections) == ["1.png", "1.png (2)"]
    one, other = desk.inspections.values()
    assert one.figures["brightness"] > 2 * other.figures["brightness"]


def test_what_is_taken_away_is_gone_from_the_disk(desk: Desk, tmp_path: Path) -> None:
    drop(desk, [write(tmp_path / "a.png"), write(tmp_path / "b.png")])
    maps = [inspection.map_path for inspection in desk.inspections.values()]
    drop(desk, [tmp_path / "b.png"])
    assert [path.exists() for path in maps] == [False, True]
    desk.close()
    assert not list((tmp_path / "desks").iterdir())


@pytest.mark.parametrize(("version", "said"), [(None, "none is in production"), ("7", "its files are gone")])
def test_a_version_that_is_not_there_is_said(desk: Desk, tmp_path: Path, version: str | None, said: str) -> None:
    drop(desk, [write(tmp_path / "a.png")], version)
    assert not desk.inspections
    (problem,) = desk.problems
    assert said in problem


def test_ten_photographs_of_another_kind_are_said_to_be_so(shelf: Shelf, desk: Desk, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {name: tuple(rng.normal(0.9, 0.01, 40)) for name in FIGURES}
    reference = ReferenceStatistics(num_images=40, **values)
    analyzer = shelf.analyzer
    shelf.analyzer = CrackAnalyzer(
        analyzer.predictor, analyzer.settings.model_copy(update={"reference": reference})
    )
    paths = [
        write(tmp_path / f"{i}.png", encode_png((make_scene() * share).astype(np.uint8)))
        for i, share in enumerate(np.linspace(0.3, 0.6, 10))
    ]
    drop(desk, paths)
    assert "not like those" in desk.drift
    assert "brightness" in desk.drift
    drop(desk, paths[:9])
    assert desk.drift == ""


def test_a_measurement_that_was_overtaken_knows_it(desk: Desk) -> None:
    first = desk.begin_turn()
    assert not desk.is_overtaken(first)
    second = desk.begin_turn()
    assert desk.is_overtaken(first)
    assert not desk.is_overtaken(second)
