"""Read the next photograph and finish the last one while the network computes: one thread before it, one after it.

Decoding, thinning and writing hold Python's lock only for moments, so the threads use a core that the network leaves
idle. Order and results are those of a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

MOST_OVERLAPPED_PIXELS = 32_000_000
"""Pixels of a photograph; of larger ones there should be only one in memory at a time."""


def read_ahead(
    read: Callable[[_Item], _Result], items: Iterable[_Item], *, alone: Callable[[_Result], bool]
) -> Generator[_Result]:
    """Read items in order, each while the caller works on the one before.

    To be closed by the caller (``contextlib.closing``), which then waits for a read that has begun.

    Args:
        read: called in a thread; an error is raised here, at its item.
        items: to be read.
        alone: True for a result so large that the next item is read only after the caller is done with it.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(1, "crackseg-read") as pool:

        def begin() -> Future[_Result] | None:
            for item in waiting:
                return pool.submit(read, item)
            return None

        future = begin()
        while future is not None:
            result = future.result()
            is_alone = alone(result)
            future = None if is_alone else begin()
            yield result
            del result
            if is_alone:
                future = begin()


def finish_behind(
    finish: Callable[[_Item], _Result], items: Iterable[_Item], *, alone: Callable[[_Item], bool]
) -> Generator[_Result]:
    """Finish items in order, each while the next one is computed.

    To be closed by the caller (``contextlib.closing``), which then waits for an item that is being finished.

    Args:
        finish: called in a thread; an error is raised here, at its item.
        items: an iterator that computes each item when it is asked for it.
        alone: True for an item so large that it is finished here, before the next one is computed.
    """
    with ThreadPoolExecutor(1, "crackseg-finish") as pool:
        future: Future[_Result] | None = None
        for item in items:
            if future is not None:
                yield future.result()
            # A thread keeps some of the memory that it has freed, as much as 64 MB with glibc: large ones do without.
            future = None if alone(item) else pool.submit(finish, item)
            if future is None:
                yield finish(item)
            del item
        if future is not None:
            yield future.result()
