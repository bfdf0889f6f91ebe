"""What hostile and careless programs do to a node: one short act each, with the endings that are in order for it.

Each act goes through the public client, as a caller's would. Used by `node`.
"""

import contextlib
import itertools
import random
import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sandboxd.client import Chunk, Client, EndReason, Result, SandboxdError
from tests import proc
from tests.daemon import RunningDaemon
from tests.restart import kill

SLEEP = ("/bin/sh", "-c", "echo up; exec sleep 1000 ")
FLOOD = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2"
BOMB = ":(){ :|:& };:; wait; sleep 1000"
SURVIVORS = "trap '' TERM HUP INT; for i in 1 2 3; do setsid sleep 1000 & done; setsid sh -c 'sleep 1000 &'; exit 3"
EAT = "b = []\nwhile True: b.append(bytearray(1 << 20))"
FILL = "head -c 1G /dev/zero > big; for i in $(seq 5000); do : > f$i || break; done; exit 0"
CRASH = "import ctypes\nctypes.string_at(0)"
CLOSED = "exec >&- 2>&- <&-; kill -STOP $$"
# Where a cgroup cannot count, an rlimit answers instead and the program sees it as an error of its own.
SURVIVED = frozenset({EndReason.EXITED, EndReason.SIGNALED})


@dataclass(frozen=True, slots=True)
class Act:
    """`play` answers how it ended: an end reason, or the reason code of an error.

    `counted`: it asks for a limit that takes a cgroup, which a rootless node may have to refuse.
    """

    name: str
    play: Callable[[Client, RunningDaemon, random.Random], str]
    in_order: frozenset[str]
    counted: bool = False


def _shell(script: str, **limits: float) -> Callable[[Client, RunningDaemon, random.Random], str]:
    def play(client: Client, node: RunningDaemon, chance: random.Random) -> str:
        return client.run(["/bin/bash", "-c", script], limits=limits).end_reason

    return play


def _python(source: str, **limits: float) -> Callable[[Client, RunningDaemon, random.Random], str]:
    def play(client: Client, node: RunningDaemon, chance: random.Random) -> str:
        return client.run_code(source, profile="python", limits=limits).end_reason

    return play


def _files(client: Client, node: RunningDaemon, chance: random.Random) -> str:
    content = chance.randbytes(chance.randint(0, 200_000))
    result = client.run(["/bin/cp", "in/a", "out"], files={"in/a": content}, collect=["out", "in/*"])
    if {file.path: file.content for file in result.files} != {"out": content, "in/a": content}:
        return "files were lost or changed"
    return result.end_reason


def _cancel(client: Client, node: RunningDaemon, chance: random.Random) -> str:
    """The caller goes away, at once or after the first events."""
    with contextlib.closing(client.execute(SLEEP)) as events:
        for _ in itertools.islice(events, chance.randint(0, 2)):
            pass
    return EndReason.CANCELLED


def _deadline(client: Client, node: RunningDaemon, chance: random.Random) -> str:
    return client.run(SLEEP, timeout_seconds=chance.uniform(0.01, 0.3)).end_reason


def _killed(client: Client, node: RunningDaemon, chance: random.Random) -> str:
    """By its caller, sometimes with a signal of its choice, sometimes twice."""
    signum = chance.choice([None, None, signal.SIGTERM, signal.SIGKILL])

    def strike(execution_id: str) -> None:
        for _ in range(chance.randint(1, 2)):
            client.kill(execution_id, signum)

    return _struck(client, SLEEP, strike)


def _struck_from_outside(client: Client, node: RunningDaemon, chance: random.Random) -> str:
    """The program, or the init of its sandbox, is killed by somebody on the host."""
    mark = uuid.UUID(int=chance.getrandbits(128)).hex
    at_init = chance.random() < 0.5

    def strike(execution_id: str) -> None:
        for group in proc.sandboxes(node.process.pid):
            if any(mark in word for process in group for word in process.argv):
                victims = [group[0]] if at_init else group[1:]
                for process in victims:
                    kill(process.pid)

    return _struck(client, ("/bin/sh", "-c", "echo up; sleep 1000", mark), strike)


def _struck(client: Client, argv: tuple[str, ...], strike: Callable[[str], None]) -> str:
    execution_id = ""
    with contextlib.closing(client.execute(argv)) as events:
        for event in events:
            match event:
                case Chunk():
                    strike(execution_id)
                case Result():
                    return event.end_reason
                case _:
                    execution_id = event.execution_id
    return "no result"


def _refused(client: Client, node: RunningDaemon, chance: random.Random) -> str:
    wrong = chance.randrange(4)
    if wrong == 0:
        return client.run(["/bin/true"], profile="no-such").end_reason
    if wrong == 1:
        return client.run(["/bin/true"], limits={"memory_bytes": 1 << 50}).end_reason
    if wrong == 2:
        return client.run(["/bin/true"], files={"../x": b""}).end_reason
    return client.run(["/no/such/program"]).end_reason


def _ends(*reasons: str) -> frozenset[str]:
    return frozenset(str(reason) for reason in reasons)


ACTS = (
    Act("hello", _shell("echo hello"), _ends(EndReason.EXITED)),
    Act("python", _python("print(sum(range(10**5)))"), _ends(EndReason.EXITED)),
    Act("files", _files, _ends(EndReason.EXITED)),
    Act("flood", _shell(FLOOD), _ends(EndReason.EXITED, EndReason.SIGNALED, EndReason.OUTPUT_LIMIT)),
    Act("timeout", _shell("echo up; sleep 1000", wall_seconds=0.3), _ends(EndReason.WALL_TIMEOUT)),
    Act("idle", _shell("sleep 1000", idle_seconds=0.2), _ends(EndReason.IDLE_TIMEOUT)),
    Act("spin", _python("while True: pass", cpu_seconds=0.3), _ends(EndReason.CPU_TIMEOUT), counted=True),
    Act("stopped", _shell(CLOSED, wall_seconds=0.3), _ends(EndReason.WALL_TIMEOUT)),
    Act("survivors", _shell(SURVIVORS), _ends(EndReason.EXITED)),
    Act("fork bomb", _shell(BOMB, wall_seconds=1.0, pids=24), _ends(EndReason.WALL_TIMEOUT, *SURVIVED), counted=True),
    Act("memory", _python(EAT, memory_bytes=48 << 20), _ends(EndReason.MEMORY_LIMIT, *SURVIVED), counted=True),
    Act("disk", _shell(FILL, workspace_bytes=4 << 20), _ends(EndReason.EXITED)),
    Act("crash", _python(CRASH), _ends(EndReason.SIGNALED)),
    Act("cancel", _cancel, _ends(EndReason.CANCELLED)),
    Act("deadline", _deadline, _ends("deadline_exceeded")),
    Act("killed", _killed, _ends(EndReason.KILLED, EndReason.SIGNALED)),
    Act("struck", _struck_from_outside, _ends(EndReason.SIGNALED, EndReason.RUNTIME_FAILED, "runtime_failed")),
    Act(
        "refused",
        _refused,
        # a program that is not there ends as in a shell, with 127
        _ends("profile_unknown", "override_not_tighter", "invalid_request", EndReason.EXITED),
    ),
)


def play(act: Act, client: Client, node: RunningDaemon, chance: random.Random) -> str:
    try:
        return str(act.play(client, node, chance))
    except SandboxdError as error:
        return error.reason
