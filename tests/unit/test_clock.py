import asyncio
import time

import pytest

from sandboxd.clock import LoopClock


async def test_time_goes_on_within_one_turn_of_the_loop() -> None:
    clock = LoopClock(asyncio.get_running_loop())
    began = clock.time()
    while time.monotonic() == began:
        pass
    assert clock.time() > began


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.0004, 0.0016, 0.0055])
async def test_no_timer_fires_before_its_time(seconds: float) -> None:
    clock = LoopClock(asyncio.get_running_loop())
    for _ in range(20):
        due = clock.time() + seconds
        fired: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        clock.call_at(due, lambda fired=fired: fired.set_result(clock.time()))  # type: ignore[misc]
        assert await fired >= due


async def test_timer_that_was_cancelled_does_not_fire() -> None:
    clock = LoopClock(asyncio.get_running_loop())
    fired: list[str] = []
    clock.call_at(clock.time() + 0.001, lambda: fired.append("cancelled")).cancel()
    later = asyncio.get_running_loop().create_future()
    clock.call_at(clock.time() + 0.01, lambda: later.set_result(None))
    await later
    assert fired == []
