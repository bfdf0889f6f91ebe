"""Who waits gets his turn, whatever others have waiting or give up."""

import asyncio

from sandboxd.analysis.turns import Turns


async def _order(turns: Turns, *asks: str) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Those who ask, in this order, each for one turn; what is filled is the order in which they had it."""
    had: list[str] = []

    async def ask(who: str) -> None:
        await turns.acquire(who)
        had.append(who)
        turns.release()

    tasks = [asyncio.create_task(ask(who)) for who in asks]
    await asyncio.sleep(0)
    return had, tasks


async def test_who_asks_much_makes_others_wait_for_one_turn_of_his() -> None:
    turns = Turns()
    await turns.acquire("a")
    had, tasks = await _order(turns, "a", "a", "a", "b", "c", "b")
    turns.release()
    await asyncio.gather(*tasks)
    assert had == ["b", "c", "a", "b", "a", "a"]
    assert not turns.taken


async def test_who_gave_up_is_passed_over() -> None:
    turns = Turns()
    await turns.acquire("a")
    had, tasks = await _order(turns, "b", "c")
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    turns.release()
    await tasks[1]
    assert had == ["c"]
    assert not turns.taken


async def test_turn_of_one_who_gives_up_as_it_comes_goes_to_the_next() -> None:
    turns = Turns()
    await turns.acquire("a")
    had, tasks = await _order(turns, "b", "c")
    turns.release()
    tasks[0].cancel()
    await asyncio.wait(set(tasks))
    assert had == ["c"]
    assert not turns.taken
