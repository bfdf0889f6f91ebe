"""The daemon's end, against a peer that does as the test says."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandboxd.policy.rego_process import Answer, Status, Worker, WorkerGone, WorkerLate

FRAME = struct.Struct(">IB")


@pytest.fixture
def pair() -> Iterator[tuple[Worker, socket.socket]]:
    """A worker whose process only sleeps, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    worker = Worker(process, ours)
    yield worker, theirs
    theirs.close()
    worker.kill()


def frame(status: int, text: bytes) -> bytes:
    return FRAME.pack(len(text), status) + text


async def test_an_answer_in_pieces_is_put_together(pair: tuple[Worker, socket.socket]) -> None:
    worker, peer = pair
    asked = [asyncio.create_task(worker.ask(b"x", 20)) for _ in range(2)]
    for byte in frame(1, b"one") + frame(2, b""):
        peer.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [Answer(Status.ANSWER, "one"), Answer(Status.UNDEFINED, "")]
    worker.abandon(late=False)


@pytest.mark.parametrize("data", [FRAME.pack(1 << 30, 1), frame(9, b""), frame(1, b"\xff")])
async def test_a_peer_that_breaks_the_protocol_is_gone(pair: tuple[Worker, socket.socket], data: bytes) -> None:
    worker, peer = pair
    asked = asyncio.create_task(worker.ask(b"x", 20))
    await asyncio.sleep(0)
    peer.send(data)
    with pytest.raises(WorkerGone):
        await asked
    with pytest.raises(WorkerGone):
        await worker.ask(b"x", 20)


async def test_an_answer_that_nobody_asked_for_is_a_broken_protocol(pair: tuple[Worker, socket.socket]) -> None:
    worker, peer = pair
    peer.send(frame(1, b"one") + frame(1, b"two"))
    with pytest.raises(WorkerGone):
        await asyncio.gather(worker.ask(b"x", 20), worker.ask(b"x", 20), worker.ask(b"x", 20))


async def test_a_silent_peer_is_late_and_the_others_hear_it_when_it_is_abandoned(
    pair: tuple[Worker, socket.socket],
) -> None:
    worker, _ = pair
    patient = asyncio.create_task(worker.ask(b"x", 20))
    with pytest.raises(WorkerLate):
        await worker.ask(b"x", 0)
    worker.abandon(late=True)
    with pytest.raises(WorkerLate):
        await patient


async def test_a_peer_that_hangs_up_is_gone(pair: tuple[Worker, socket.socket]) -> None:
    worker, peer = pair
    asked = asyncio.create_task(worker.ask(b"x", 20))
    await asyncio.sleep(0)
    peer.close()
    with pytest.raises(WorkerGone):
        await asked


async def test_a_caller_that_leaves_does_not_shift_the_answers(pair: tuple[Worker, socket.socket]) -> None:
    worker, peer = pair
    leaving, staying = (asyncio.create_task(worker.ask(b"x", 20)) for _ in range(2))
    while len(worker._pending) < 2:
        await asyncio.sleep(0)
    leaving.cancel()
    peer.send(frame(1, b"for who left") + frame(1, b"for who stayed"))
    assert (await staying).text == "for who stayed"
    worker.abandon(late=False)


def test_a_real_worker_starts_loads_answers_and_is_reaped() -> None:
    worker = Worker.start()
    text = b'{"modules": [["p", "package p\\na := input"]], "data": "{}", "entrypoint": "p/a"}'
    assert worker.load(text).status is Status.ANSWER
    assert worker.try_out(b"7").text == '{"expressions":[7]}'
    worker.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
