import asyncio

from sandboxd.sink.base import Record
from sandboxd.sink.turns import AT_ONCE, in_turns
from tests.fakes.records import records


async def test_others_have_their_turn_between_records() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    seen: list[tuple[Record, int]] = [(record, turns) async for record in in_turns(records(256))]
    running.cancel()
    assert [record for record, _ in seen] == records(256)
    assert [turn for _, turn in seen[::AT_ONCE]] == sorted({turn for _, turn in seen})
    assert len({turn for _, turn in seen}) == 256 // AT_ONCE


async def test_nothing_is_nothing() -> None:
    assert [record async for record in in_turns(())] == []
