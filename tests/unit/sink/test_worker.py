import asyncio
import threading
from functools import partial

import pytest

from sandboxd.sink.worker import Worker


async def test_work_is_done_in_order_in_one_thread_that_is_not_the_loops() -> None:
    worker, seen = Worker("w"), list[tuple[int, str]]()

    def work(number: int) -> None:
        seen.append((number, threading.current_thread().name))

    await asyncio.gather(*(worker.run(partial(work, number)) for number in range(5)))
    assert seen == [(number, "w") for number in range(5)]
    worker.close(lambda: None)


async def test_what_work_raises_is_raised_where_it_was_asked_for_and_the_next_goes_on() -> None:
    worker = Worker("w")

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await worker.run(fail)
    await worker.run(lambda: None)
    worker.close(lambda: None)


async def test_work_that_was_given_up_is_finished_before_the_next_and_before_the_release() -> None:
    worker, go, seen = Worker("w"), threading.Event(), list[str]()
    released = threading.Event()

    def slow() -> None:
        go.wait(20)
        seen.append("slow")

    task = asyncio.create_task(worker.run(slow))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    after = asyncio.create_task(worker.run(lambda: seen.append("after")))
    await asyncio.sleep(0)
    go.set()
    await after
    worker.close(released.set)
    assert await asyncio.to_thread(released.wait, 20)
    assert seen == ["slow", "after"]


def test_a_thread_that_is_stuck_does_not_hold_up_the_exit() -> None:
    worker = Worker("w")
    assert worker._thread.daemon


async def test_the_loop_may_end_while_work_is_under_way() -> None:
    worker, go, finished = Worker("w"), threading.Event(), threading.Event()

    def wait() -> None:
        go.wait(20)

    def elsewhere() -> None:
        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await worker.run(wait)

        asyncio.run(give_up())

    await asyncio.to_thread(elsewhere)
    go.set()
    worker.close(finished.set)
    assert await asyncio.to_thread(finished.wait, 20)
