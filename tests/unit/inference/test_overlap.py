"""Work in three threads gives the results of a plain loop, in its order, with few items in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from crackseg.inference.overlap import finish_behind, read_ahead

_LONG_S = 30.0  # a thread that does not do its part must not hang the tests


def nothing_alone(_: object) -> bool:
    return False


def list_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("crackseg-")]


def test_the_next_item_is_read_while_the_caller_works_and_no_further_one() -> None:
    read: list[int] = []
    second = threading.Event()

    def read_item(item: int) -> int:
        read.append(item)
        if item == 1:
            second.set()
        return item * 10

    with closing(read_ahead(read_item, range(5), alone=nothing_alone)) as results:
        assert next(results) == 0
        assert second.wait(_LONG_S)
        assert read == [0, 1]
        assert list(results) == [10, 20, 30, 40]


def test_after_a_large_item_the_next_one_is_read_only_when_the_caller_is_done() -> None:
    read: list[int] = []

    def read_item(item: int) -> int:
        read.append(item)
        return item

    with closing(read_ahead(read_item, range(4), alone=lambda item: item == 1)) as results:
        for item in results:
            if item == 1:
                assert read == [0, 1]
    assert read == [0, 1, 2, 3]


def test_an_item_is_finished_while_the_next_one_is_computed() -> None:
    computing = [threading.Event() for _ in range(4)]

    def compute() -> Iterator[int]:
        for item in range(3):
            computing[item].set()
            yield item
        computing[3].set()

    def finish(item: int) -> int:
        assert computing[item + 1].wait(_LONG_S)  # a plain loop would wait for ever
        return item * 10

    with closing(finish_behind(finish, compute(), alone=nothing_alone)) as results:
        assert list(results) == [0, 10, 20]


def test_a_large_item_is_finished_before_the_next_one_is_computed() -> None:
    finished: list[int] = []
    seen = []

    def compute() -> Iterator[int]:
        for item in range(3):
            seen.append(list(finished))
            yield item

    with closing(finish_behind(finished.append, compute(), alone=lambda item: item == 1)) as results:
        assert len(list(results)) == 3
    assert seen[2] == [0, 1]


@pytest.mark.parametrize("broken", [0, 2])
def test_an_error_comes_at_its_item_and_ends_the_threads(broken: int) -> None:
    def work(item: int) -> int:
        if item == broken:
            raise ValueError(f"item {item}")
        return item

    for way in (read_ahead, finish_behind):
        results, done = way(work, range(4), alone=nothing_alone), []
        with pytest.raises(ValueError, match=f"item {broken}"):
            done.extend(results)
        results.close()
        assert done == list(range(broken))
        assert list_threads() == []


def test_an_interrupted_loop_leaves_no_thread_behind() -> None:
    def interrupted() -> None:
        with (
            closing(read_ahead(str, range(9), alone=nothing_alone)) as read,
            closing(finish_behind(str, read, alone=nothing_alone)) as finished,
        ):
            next(finished)
            assert len(list_threads()) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list_threads() == []
