"""Independent parts in threads: the same as one after another, each with one BLAS thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from conformance.threads import in_threads


def blas_threads() -> int:
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_results_are_those_of_map_in_order(threads: int) -> None:
    def square(x: int) -> int:
        time.sleep(0.001 * (x % 3))  # the later ones may be done first
        return x * x

    with threadpool_limits(threads, "blas"):
        assert list(in_threads(square, range(50))) == [x * x for x in range(50)]


def test_parts_run_at_once_with_one_blas_thread_each() -> None:
    together = threading.Barrier(2, timeout=30)

    def part(_: int) -> int:
        together.wait()  # broken unless both are under way
        return blas_threads()

    with threadpool_limits(2, "blas"):
        before = blas_threads()
        if before < 2:
            pytest.fail("this BLAS cannot use two threads")
        assert set(in_threads(part, range(4))) == {1}
        assert blas_threads() == before


def test_no_more_items_are_taken_than_threads_can_compute() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    with threadpool_limits(2, "blas"):
        for done, _ in enumerate(in_threads(lambda item: item, items()), start=1):
            assert len(taken) <= done + 2


def test_an_error_reaches_the_caller() -> None:
    def refuse(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x

    for threads in (1, 2):
        with threadpool_limits(threads, "blas"), pytest.raises(ValueError, match="three"):
            list(in_threads(refuse, range(10)))
