"""A policy worker in hostile hands: its frames while three questions wait, and the decisions that come of them."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys

from bench.soak.target import Broken, Shape, Target
from sandboxd.model import Verdict
from sandboxd.policy import rego
from sandboxd.policy.rego_process import Answer, Worker, WorkerGone

WAITING = 3
# What starts, asks and ends it.
OUTSIDE = tuple(
    f"rego_process.Worker.{name}"
    for name in ("start", "pid", "try_out", "ask", "_connect", "_attach", "drain", "kill", "_expire")
)


def target() -> Target:
    process = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    process.wait()
    loop = asyncio.new_event_loop()

    def run(data: bytes) -> object:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            worker = Worker(process, ours)
            futures = [loop.create_future() for _ in range(WAITING)]
            worker._pending.extend(futures)
            middle = len(data) // 2
            worker.data_received(data[:middle])
            worker.data_received(data[middle:])
            worker.connection_lost(None)
        _at_start(process, data)
        return [found for future in futures if (found := _decided(future)) is not None]

    frames = [
        _frame(1, {"expressions": [{"verdict": "deny", "reasons": [{"code": "c", "message": "m"}]}]}),
        _frame(1, {"expressions": [True]}),
        _frame(1, {"expressions": [{"verdict": "transform", "obligations": {"limits": {"pids": 4}}}]}),
    ]
    failed = b"\0\0\0\x05\3wrong"
    seeds = (b"".join(frames), failed + b"\0\0\0\0\2" + frames[1], frames[0][:20], b"\0\0\0\1\1\xff", b"\xff" * 8)
    words = (b"\0\0\0\0\2", b"\0\0\0\4\1true", b"\0\0\0\x02\1{}", b"\0\x10\0\0\1")
    return Target("engine", ("sandboxd.policy.rego_process",), run, (), seeds, words, Shape.BYTES, outside=OUTSIDE)


def _at_start(process: subprocess.Popen[bytes], data: bytes) -> None:
    """The same bytes as the answer to a bundle, which is waited for without an event loop."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(WorkerGone):
            Worker(process, ours).load(b"")


def _decided(future: asyncio.Future[Answer]) -> object:
    if not future.done():
        raise Broken("a question waits for a worker that is gone")
    try:
        answer = future.result()
    except WorkerGone:
        return None
    decision = rego._decision(answer, "r1")
    if decision.verdict is not Verdict.DENY and answer.status != 1:
        raise Broken(f"{answer!r} does not deny")
    return answer.text


def _frame(status: int, value: object) -> bytes:
    text = json.dumps(value).encode()
    return len(text).to_bytes(4, "big") + bytes([status]) + text
