"""What a child of the spawner may write, and what ends the reading of it."""

import asyncio
import os
from contextlib import aclosing

import pytest

from sandboxd.errors import RuntimeFailed
from sandboxd.runtime.examination import MAX_PIECE_BYTES, pieces


async def read(written: bytes) -> list[tuple[str, bytes]]:
    ours, theirs = os.pipe()

    def write() -> None:
        with os.fdopen(theirs, "wb") as file:
            file.write(written)

    writing = asyncio.create_task(asyncio.to_thread(write))
    try:
        return [piece async for piece in pieces(ours)]
    finally:
        await asyncio.wait({writing})


async def test_pieces_come_in_their_order_and_whole() -> None:
    data = os.urandom(MAX_PIECE_BYTES)
    found = await read(b"processes.json 2\n[]" + b"workspace.tar %d\n%s" % (len(data), data) + b"mounts.txt 1\n\n")
    assert found == [("processes.json", b"[]"), ("workspace.tar", data), ("mounts.txt", b"\n")]
    assert await read(b"") == []


@pytest.mark.parametrize(
    "written",
    [
        b"passwd 1\nx",
        b"../x 1\nx",
        b"processes.json 0\n",
        b"processes.json -1\n",
        b"processes.json 65537\n",
        b"processes.json 999999\n",
        b"processes.json 1 1\nx",
        b"processes.json\n",
        b"processes.json 5\nabc",
        b"\xff 1\nx",
        b"x" * 200_000,
    ],
)
async def test_what_no_child_of_ours_writes_ends_it(written: bytes) -> None:
    with pytest.raises(RuntimeFailed) as failure:
        await read(written)
    assert failure.value.reason == "examine_failed"


async def test_who_leaves_early_closes_the_pipe() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"processes.json 1\nx")
    async with aclosing(pieces(ours)) as found:
        assert await anext(found) == ("processes.json", b"x")
    await asyncio.sleep(0)
    with pytest.raises(BrokenPipeError):
        os.write(theirs, b"x")
    os.close(theirs)
