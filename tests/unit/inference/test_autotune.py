"""`auto` means measured: the fastest way that agrees, remembered, and never slower than eager float32."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crackseg.errors import CracksegError
from crackseg.files import CACHE_VARIABLE
from crackseg.inference import autotune
from crackseg.inference.autotune import (
    Candidate,
    Timings,
    agrees,
    eager_plan,
    find_plan,
    measure_plans,
    settle,
)
from crackseg.inference.engines import Engine, Plan, build_engine
from crackseg.inference.predictor import Predictor, build_predictor
from crackseg.params import PredictParams
from tests.tiny_training import make_network

CPU = torch.device("cpu")
EAGER = Plan("torch", "float32", False, 1, 1)
FAST = Plan("openvino", "float32", False, 1, 1)
TILE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each measurement, which finds nothing but eager float32 and takes no time."""
    made: list[int] = []

    def measure(*_: object, **__: object) -> Timings:
        made.append(1)
        return Timings((Candidate(EAGER, 1.0, 0.0),))

    monkeypatch.setattr(autotune, "measure_plans", measure)
    return made


def make_predictor(engine: str = "auto", precision: str = "auto") -> Predictor:
    params = PredictParams(tile_size_px=64, overlap_px=16, batch_size=2, engine=engine)
    return build_predictor(make_network(3).eval(), params, device="cpu", precision=precision)


def test_setup_time_is_weighed_against_the_length_of_the_run() -> None:
    measured = Timings((Candidate(EAGER, 1.0, 0.0), Candidate(FAST, 0.5, 10.0)))
    assert measured.choose(5) == EAGER
    assert measured.choose(1000) == FAST


def test_never_slower_than_eager_float32() -> None:
    slower = [Candidate(Plan("openvino", "float32", False, n, 1), 1.0 + n / 10, 0.0) for n in range(4)]
    assert Timings((Candidate(EAGER, 1.0, 0.0), *slower)).choose(10**6) == EAGER


def test_agreement_is_asked_of_every_pixel_in_float32_and_on_average_in_halves() -> None:
    expected = np.zeros((1, 100, 100), np.float32)
    one_off = expected.copy()
    one_off[0, 0, 0] = 1
    assert not agrees(one_off, expected, "float32")
    assert agrees(one_off, expected, "bfloat16")
    assert agrees(expected + 1e-3, expected, "float32")
    assert not agrees(expected + np.float32("nan"), expected, "bfloat16")


def test_every_engine_gives_the_same_map() -> None:
    network = make_network(3).eval()
    expected = build_engine(network, CPU, EAGER, (64, 64))(TILE[None])
    tiles = np.stack([TILE, TILE[::-1]])
    for plan in (Plan("torch", "float32", True, 1, 2), FAST):
        found = build_engine(network, CPU, plan, (64, 64))(tiles)
        assert found.shape == (2, 64, 64)
        assert found.dtype == np.float32
        assert agrees(found[:1], expected, "float32")


def test_openvino_reports_no_conversion_to_its_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = []
    monkeypatch.setattr("multiprocessing.Process.start", lambda process: reports.append(process))
    monkeypatch.delenv("CI", raising=False)  # there it never does
    build_engine(make_network(3).eval(), CPU, FAST, (64, 64))
    assert not reports


def test_a_way_that_fails_or_answers_otherwise_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    true_build = autotune.build_engine

    def build(network: nn.Module, device: torch.device, plan: Plan, shape_hw: tuple[int, int]) -> Engine:
        if plan.engine == "openvino":
            raise RuntimeError("no such operation")
        engine = true_build(network, device, plan, shape_hw)
        return (lambda tiles: engine(tiles) + 1) if plan.channels_last else engine

    monkeypatch.setattr(autotune, "build_engine", build)
    measured = measure_plans(make_network(3).eval(), CPU, TILE, batch_size=1, compiles=False)
    assert {(t.plan.engine, t.plan.channels_last) for t in measured.candidates} == {("torch", False)}


def test_short_runs_measure_nothing_and_long_ones_once(own_cache: Path, calls: list[int]) -> None:
    network = make_network(3).eval()
    assert find_plan(network, CPU, TILE, num_tiles=3, batch_size=2) is None
    assert not own_cache.exists()
    for _ in range(2):
        assert find_plan(network, CPU, TILE, num_tiles=10**9, batch_size=2) == EAGER
    assert find_plan(network, CPU, TILE, num_tiles=3, batch_size=2) == EAGER  # remembered costs nothing
    assert len(calls) == 1


def test_processes_that_start_together_measure_once(own_cache: Path, calls: list[int]) -> None:
    networks = [make_network(3).eval() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda n: find_plan(n, CPU, TILE, num_tiles=10**9, batch_size=2), networks))
    assert plans == [EAGER] * 4
    assert len(calls) == 1
    assert len(list(own_cache.glob("*.json"))) == 1


def test_a_damaged_file_is_measured_again(own_cache: Path, calls: list[int]) -> None:
    network = make_network(3).eval()
    find_plan(network, CPU, TILE, num_tiles=10**9, batch_size=1)
    path = next(own_cache.glob("*.json"))
    for content in ("{", '{"trials": []}', json.dumps({"trials": [{"plan": {"engine": "torch"}}]})):
        path.write_text(content, encoding="utf-8")
        assert find_plan(network, CPU, TILE, num_tiles=10**9, batch_size=1) == EAGER
    assert len(calls) == 4


def test_eager_float32_is_always_among_what_is_measured() -> None:
    measured = measure_plans(make_network(3).eval(), CPU, TILE, batch_size=2, compiles=False)
    assert measured.candidates[0].plan == eager_plan(CPU)
    assert {candidate.plan.engine for candidate in measured.candidates} == {"torch", "openvino"}


def test_a_network_that_takes_seconds_is_timed_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    network, passes = make_network(3).eval(), []
    passed = [0.0]  # seconds on the clock

    def build(_network: nn.Module, _device: torch.device, plan: Plan, shape_hw: tuple[int, int]) -> Engine:
        plain = build_engine(network, CPU, plan if plan.engine == "torch" else EAGER, shape_hw)

        def answer(tiles: np.ndarray) -> np.ndarray:
            passes.append(plan)
            passed[0] += pass_s * len(tiles)
            return plain(tiles)

        return answer

    monkeypatch.setattr(autotune, "build_engine", build)
    monkeypatch.setattr("crackseg.inference.autotune.time.perf_counter", lambda: passed[0])
    counts = {}
    for pass_s in (0.1, 10.0):
        passes.clear()
        found = measure_plans(network, CPU, TILE, batch_size=2, compiles=False)
        assert found.candidates[0].tile_s == pytest.approx(pass_s)
        counts[pass_s] = len(passes)
    assert counts[10.0] < counts[0.1] * 0.7


def test_a_named_precision_is_kept_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crackseg.inference.autotune.find_plan", lambda *_, **__: FAST)
    for predictor in (make_predictor(precision="bfloat16"), make_predictor(engine="torch")):
        before = predictor.plan
        settle(predictor, TILE, 10**9)
        assert predictor.plan == before


def test_settled_predictor_gives_the_same_maps_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crackseg.inference.autotune.find_plan", lambda *_, **__: FAST)
    plain, settled = make_predictor(precision="float32"), make_predictor()
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 64), (40, 64), (150, 70))]
    settle(settled, images[0], 10**6)
    assert settled.plan == FAST
    monkeypatch.setattr(settled, "_plain", None)  # a U-Net is local: the chosen engine takes all sizes
    for image in images:
        np.testing.assert_allclose(settled.predict_prob(image), plain.predict_prob(image), atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_a_photograph_that_is_read_only_as_decoders_return_it_draws_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    photograph = np.zeros((64, 64, 3), np.uint8)
    photograph.flags.writeable = False
    settle(make_predictor(), photograph, 1)


def test_an_engine_that_does_not_agree_for_these_weights_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crackseg.inference.autotune.find_plan", lambda *_, **__: FAST)
    monkeypatch.setattr("crackseg.inference.autotune.agrees", lambda *_: False)
    predictor = make_predictor()
    before = predictor.plan
    settle(predictor, TILE, 10**6)
    assert predictor.plan == before
    with pytest.raises(CracksegError, match="differ from float32"):
        settle(make_predictor(engine="openvino"), TILE, 1)


def test_openvino_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crackseg.inference.engines.has_openvino", lambda: False)
    with pytest.raises(CracksegError, match=r"crackseg\[export\]"):
        settle(make_predictor(engine="openvino"), TILE, 1)
