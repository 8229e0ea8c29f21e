"""Several processes must train as one does, and none may wait for ever for one that is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crackseg.data.dataset import EpochSampler
from crackseg.errors import CracksegError
from crackseg.training.checkpoint import BEST_NAME, LAST_NAME, PREVIOUS_NAME
from crackseg.training.distributed.processes import Processes, check_gpus
from crackseg.training.loop import fit
from tests import shared_training
from tests.shared_training import CASES, start_processes, train_case, validate_once
from tests.tiny_training import make_network, make_recipe, make_samples

SCRIPT = Path(shared_training.__file__)


@pytest.fixture(scope="module")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    make_samples(folder)
    return folder


@pytest.fixture(scope="module")
def of_two(pairs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder that two processes trained in, and what each of them found."""
    out = tmp_path_factory.mktemp("two")
    processes = start_processes(SCRIPT, [str(pairs_dir), str(out)], 2)
    try:
        said = [process.communicate(timeout=280)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return out, [json.loads((out / f"results{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_loss_curve_of_one(
    name: str, of_two: tuple[Path, list[dict]], pairs_dir: Path, tmp_path: Path
) -> None:
    alone = [value for row in train_case(name, pairs_dir, tmp_path) for value in row]
    tolerance = 5e-3 if name.startswith("batch norm") else 1e-4  # the statistics are summed in another order
    for results in of_two[1]:
        assert [value for row in results[name] for value in row] == pytest.approx(alone, rel=tolerance)


def test_two_processes_score_as_one_to_the_bit(of_two: tuple[Path, list[dict]], pairs_dir: Path) -> None:
    alone = validate_once(pairs_dir)
    assert [results["validation"] for results in of_two[1]] == [alone, alone]


def test_only_the_first_process_writes(of_two: tuple[Path, list[dict]]) -> None:
    written = {p.relative_to(of_two[0]).as_posix() for p in of_two[0].rglob("*.pt")}
    assert written == {f"0/{case}/{name}" for case in CASES for name in (BEST_NAME, LAST_NAME, PREVIOUS_NAME)}


@pytest.mark.parametrize(
    ("num_patches", "batch_size", "num_shares"), [(8, 3, 2), (8, 7, 2), (10, 5, 4), (3, 4, 4)]
)
def test_shares_of_a_batch_are_the_batch(num_patches: int, batch_size: int, num_shares: int) -> None:
    whole = list(EpochSampler(num_patches, batch_size, seed=3))
    samplers = [
        EpochSampler(num_patches, batch_size, 3, share=i, num_shares=num_shares) for i in range(num_shares)
    ]
    shares = [list(sampler) for sampler in samplers]
    for step, batch in enumerate(whole):
        lengths = [sampler.share_length(step) for sampler in samplers]
        assert max(lengths) - min(lengths) <= 1
        counted = [share[step][:length] for share, length in zip(shares, lengths, strict=True)]
        assert [address for part in counted for address in part] == batch
        assert all(share[step] for share in shares), "a process with nothing to compute would be waited for"


def test_a_batch_smaller_than_the_processes_is_refused(pairs_dir: Path, tmp_path: Path) -> None:
    train, val = make_samples(tmp_path)
    with pytest.raises(CracksegError, match=r"train\.batch_size 2 cannot be divided among 4 processes"):
        fit(
            make_network(0), train, val, make_recipe(), checkpoint_dir=tmp_path, on_epoch=lambda *_: None,
            processes=Processes(rank=1, size=4),
        )  # fmt: skip


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_gpus(1)
    with pytest.raises(CracksegError, match="2 processes need as many GPUs, and this machine has 1"):
        check_gpus(2)
