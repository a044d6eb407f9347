"""Work that falls into independent parts, done by as many threads as BLAS would use.

NumPy leaves the interpreter to others while it computes, and most of its functions use one thread; so two
parts in two threads are done sooner than one after the other with two threads for the products alone.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController, threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the function of every item, in order; at most one item for each thread is under way or waiting.

    Parameters
    ----------
    function
        Neither changes what another item's call reads, nor depends on their order.
    items
        What it is called with.
    """
    threads = max((pool["num_threads"] for pool in _blas().info()), default=1)
    if threads == 1:
        yield from map(function, items)
        return
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as executor:
        under_way: deque[Future[R]] = deque()
        for item in items:
            under_way.append(executor.submit(function, item))
            if len(under_way) >= threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


@functools.cache
def _blas() -> ThreadpoolController:
    """Return what asks NumPy's BLAS: to find it, every library of the process is looked at."""
    return ThreadpoolController().select(user_api="blas")
