"""Two sandboxes alive at the same time, of one tenant or of two: they do not meet, see, signal or starve each other.

The first runs and says so on its output; then the second tries.
"""

import contextlib
import itertools
import shlex
from collections.abc import Iterator, Sequence

import pytest

from sandboxd.client import Accepted, Chunk, EndReason, Result
from tests import proc
from tests.escape.attempt import OF_NETWORK, Attempt, command
from tests.escape.confined import Confined, shipped
from tests.escape.test_sockets import UNREACHED


@contextlib.contextmanager
def living(confined: Confined, argv: Sequence[str], *modules: str) -> Iterator[tuple[Accepted, bytes]]:
    """A program that runs for the time of the block: what was accepted, and its first output."""
    with contextlib.closing(confined.client.execute(argv, files=shipped(modules))) as events:
        accepted = next(events)
        assert isinstance(accepted, Accepted)
        first = b""
        for event in events:
            assert not isinstance(event, Result), f"it ended: {event}"
            if isinstance(event, Chunk):
                first = event.data
                break
        yield accepted, first


SLEEPER = ["/bin/sh", "-c", "echo up; exec sleep 1000"]


MEETING = ("18080", "sandboxd-meeting")
SERVE = command("sockets", ("listen_and_wait", *MEETING))
CALLS = (("connect_abstract", MEETING[1]), ("connect_tcp", MEETING[0], "127.0.0.1"))


@pytest.mark.parametrize("profile", ["default", "build"])  # without and with a loopback of its own
def test_n12_a_listener_of_one_is_not_reached_by_the_other(profile: str, confined: Confined) -> None:
    running = confined.client.execute(SERVE, files=shipped(["sockets"]), profile=profile)
    with contextlib.closing(running) as events:
        chunks = [event.data for event in itertools.islice(events, 2) if isinstance(event, Chunk)]
        assert chunks[0].startswith(b"listening"), chunks
        for arguments in CALLS:
            attempt = Attempt("N12", arguments[0], UNREACHED, arguments[1:], trace=OF_NETWORK)
            confined.demand("sockets", attempt, profile=profile)


def test_n12_control_within_one_sandbox_it_is_reached(confined: Confined) -> None:
    script = f"{shlex.join(SERVE)} > up & until grep -q listening up; do sleep 0.1; done"
    for arguments in CALLS:
        script += "; " + shlex.join(command("sockets", arguments))
    seen = confined.run(["/bin/sh", "-c", script], ["sockets"], profile="build")
    assert seen.stdout.count(b'"outcome": "worked"') == len(CALLS), seen


def test_the_other_is_not_listed_and_not_signalled(confined: Confined) -> None:
    with living(confined, SLEEPER) as (first, output):
        assert output == b"up\n"
        assert confined.probe("leaks", ("pids",)).detail == ""
        confined.probe("system_calls", ("kill_all",))
        assert confined.client.execution(first.execution_id).result is None


def test_namespaces_ids_and_cgroups_are_not_shared(confined: Confined) -> None:
    spawner = confined.daemon.process.pid
    with living(confined, SLEEPER), living(confined, SLEEPER):

        def sleeping() -> list[proc.Process]:
            return [p for p in proc.descendants(spawner) if p.argv[:2] == ("sleep", "1000")]

        proc.until(lambda: len(sleeping()) == 2, "two programs that sleep")  # each says up before it execs
        running = sleeping()
        first, second = (proc.namespaces(process.pid) for process in running)
        own = proc.namespaces(proc.daemon_pid(spawner))
        for kind in proc.NAMESPACES:
            if kind == "user" and confined.daemon.mode == "root":
                continue  # compared by id below: as root the spawner may own one for all
            assert len({first[kind], second[kind], own[kind]}) == 3, kind
        uids = {proc.status(process.pid)["Uid"].split()[0] for process in running}
        assert "0" not in uids
        if confined.daemon.mode != "rootless":
            assert len(uids) == 2, "one uid for each sandbox"


@pytest.mark.parametrize("hog", ["while :; do :; done", "yes", ":(){ :|:& };:"], ids=["cpu", "output", "forks"])
def test_one_that_takes_all_leaves_the_other_able_to_run(hog: str, confined: Confined) -> None:
    with contextlib.closing(confined.client.execute(["/bin/bash", "-c", f"echo up; {hog}"])) as events:
        next(events)
        next(events)
        result = confined.run(["/bin/echo", "alive"])
    assert result.end_reason is EndReason.EXITED
    assert result.stdout == b"alive\n"


def test_names_of_shared_memory_are_not_shared(confined: Confined) -> None:
    with living(confined, ["/bin/sh", "-c", "echo secret > /dev/shm/name; echo up; exec sleep 1000"]):
        result = confined.run(["/bin/cat", "/dev/shm/name"])
        assert result.exit_code == 1
        assert b"secret" not in result.stdout
