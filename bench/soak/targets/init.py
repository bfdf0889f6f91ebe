"""An init in hostile hands: packets on its socket, one a line, while the daemon starts, waits, collects and stops.

The first line may be a digit: so many packets as a good init sends them go before the others. A line that begins with
`+` comes with a small file, one with `-` with a device, one with `!` with a file that cannot be
read. The daemon's side must end in an answer or in `RuntimeFailed`, never in another error, and hand on nothing that a
response cannot hold.
"""

import asyncio
import contextlib
import os
import socket

import uvloop

from bench.soak.target import Broken, Target
from sandboxd.errors import InvalidRequest, RuntimeFailed
from sandboxd.model import Collected, ExecPlan, ExitStatus, InputFile, LimitId, SandboxUsage
from sandboxd.profile.load import load_profiles
from sandboxd.runtime.process_sandbox import ProcessSandbox
from sandboxd.settings.paths import shipped
from sandboxd.spawner import wire

MAX_BYTES, MAX_FILES, MAX_LINES = 4096, 3, 24
TURNS = 3  # of the event loop, until an answer has led to the next request
MOST = 1 << 63
# What waits for a full socket, and what the kernel and the spawner tell.
OUTSIDE = (
    "link.Link._write",
    *(f"process_sandbox.ProcessSandbox.{name}" for name in ("on_oom", "_on_oom_event", "lost")),
)
GOOD = (
    *(wire.encode(wire.Answer(number, 0, "", ())) for number in (0, 1)),
    wire.encode(wire.Started("e", 7)),
    wire.encode(wire.Exited("e", 256, 0.1, 0.2, 4096, ("file_size",))),
    b"+" + wire.encode(wire.FileOpened(2, "out/report.txt", 7, 0o644)),
    wire.encode(wire.Answer(2, 0, "", (("out/deep", "too deep"), ("socket", "not a regular file")))),
    wire.encode(wire.Answer(3, 0, "", ())),
)
DIGITS = tuple(b"%d" % number for number in range(1 + len(GOOD)))


def target() -> Target:
    limits = load_profiles([shipped("profiles")], filters_proved=True).get("strict").limits
    plan = ExecPlan("e", ("/bin/true",), (), "/", limits, b"", (InputFile("f", b"x", 0o644),), ("*",))
    loop = uvloop.new_event_loop()  # the daemon's
    raised: list[str] = []
    loop.set_exception_handler(lambda _, context: raised.append(repr(context.get("exception") or context["message"])))

    def run(data: bytes) -> object:
        raised.clear()
        collected = loop.run_until_complete(_talk(data, plan))
        if raised:
            raise Broken(f"the event loop was told {raised[0]}")
        return collected

    modules = ("sandboxd.runtime.process_sandbox", "sandboxd.runtime.link")
    words = (
        b"\n",
        b"\n+",
        b"\n-",
        b"\n!",
        b'"e"',
        b'"\\ud800"',
        b'"../x"',
        b"9" * 30,
        b"-1",
        b'"errno":5',
        b'"request_id":2',
    )
    return Target("init", modules, run, (), _seeds(), words, outside=OUTSIDE)


async def _talk(data: bytes, plan: ExecPlan) -> object:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    sandbox = ProcessSandbox("s", 1, {"init": ours.detach()}, (), frozenset(), lambda: None)
    work = asyncio.ensure_future(_work(sandbox, plan))
    with theirs:
        for line in _packets(data):
            await _turns()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _send(theirs, line)
        await _turns()
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while theirs.recv(1):  # what the daemon sent; left unread it would take the last packets with it
                pass
    try:
        found: object = await work
    except InvalidRequest:
        found = None
    except RuntimeFailed as error:
        found = error.message.split() if error.reason == "confinement_failed" else None
    sandbox.ended(())
    _hold_usage(await sandbox.destroy())
    return found


def _packets(data: bytes) -> list[bytes]:
    first, *others = data.split(b"\n")[:MAX_LINES]
    return [*GOOD[: int(first)], *others] if first in DIGITS else [first, *others]


async def _turns() -> None:
    """The daemon's side comes to act on what was sent."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def _work(sandbox: ProcessSandbox, plan: ExecPlan) -> Collected:
    """The whole way."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        await sandbox.start(plan, null, null, null)
    finally:
        os.close(null)
    await sandbox.signal("e", 15)
    _hold_status(await sandbox.wait("e"))
    _hold_usage(sandbox.usage())
    if not set(sandbox.limits_reached()) <= set(LimitId):
        raise Broken(f"{sandbox.limits_reached()!r}")
    collected = await sandbox.collect(plan.collect, MAX_BYTES, MAX_FILES)
    _hold_files(collected)
    await sandbox.stop("e")
    return collected


def _send(theirs: socket.socket, line: bytes) -> None:
    match line[:1]:
        case b"+":
            fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
            os.write(fd, b"content")
        case b"-" | b"!":
            path = "/dev/null" if line[:1] == b"-" else "/proc/self/mem"
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        case _:
            theirs.send(line or b"0")
            return
    try:
        socket.send_fds(theirs, [line[1:] or b"0"], [fd])
    finally:
        os.close(fd)


def _hold_status(status: ExitStatus) -> None:
    if not 0 <= (status.exit_code or 0) <= 255 or not 0 <= (status.signal or 0) < 128:
        raise Broken(f"{status!r}")


def _hold_usage(usage: SandboxUsage) -> None:
    if usage.peak_memory_bytes >= MOST:
        raise Broken(f"{usage!r} is more than a response can hold")


def _hold_files(collected: Collected) -> None:
    if len(collected.files) > MAX_FILES or sum(len(file.content) for file in collected.files) > MAX_BYTES:
        raise Broken("more files than were asked for")
    if any(part in ("", ".", "..") for file in collected.files for part in file.path.split("/")):
        raise Broken("a path that leads out")


def _seeds() -> tuple[bytes, ...]:
    """The whole conversation, told from each of its places on; and what goes wrong in it."""
    failed = wire.encode(wire.ExecFailed("e", "seccomp", 22, "x"))
    opened = GOOD[4][1:]
    return (
        b"\n".join(GOOD),
        *(b"\n".join((digit, *GOOD[number:])) for number, digit in enumerate(DIGITS)),
        b"2\n" + failed,
        *(b"4\n%b%b" % (kind, opened) for kind in (b"!", b"-")),
        b"",
    )
