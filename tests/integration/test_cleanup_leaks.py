"""Many launches, clients that leave, kills at once: nothing adds up, and nothing is left at the end."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandboxd.client import Accepted, Chunk, Client, DeadlineExceeded, EndReason, Overloaded, Result, SandboxdError
from tests import leftovers, proc
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.skips import need_root

SLEEP = ["/bin/sh", "-c", "echo up; exec sleep 1000"]


SETTINGS = "limits: {max_concurrent: 8}\ndrain_grace_seconds: 1\n"


@pytest.fixture(scope="module", params=list(Mode), ids=str)
def node(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    need_root()
    with start_daemon(request.param, SETTINGS) as daemon:
        yield daemon


@pytest.fixture(params=list(Mode), ids=str)
def mortal(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    """One that a test may end."""
    need_root()
    with start_daemon(request.param, SETTINGS) as daemon:
        yield daemon


def _settled(node: RunningDaemon, before: leftovers.Leftovers) -> None:
    proc.until(lambda: not leftovers.of_sandboxes(node).beyond(before), "nothing is left")


def _census(node: RunningDaemon) -> dict[str, int]:
    """Counts that must not grow with the number of launches."""
    spawner = node.process.pid
    return {
        "descriptors of the spawner": leftovers.descriptors(spawner),
        "descriptors of the daemon": leftovers.descriptors(proc.daemon_pid(spawner)),
        "processes": len(proc.descendants(spawner)),
        "cgroups": len(leftovers.cgroups(node)),
        "mounts of the spawner": len(list(proc.mounts(spawner))),
        "namespaces": len(leftovers.namespaces()),
    }


def test_200_launches_one_after_the_other_leak_nothing(node: RunningDaemon) -> None:
    with node.client() as client:
        for _ in range(10):
            client.run(["/bin/true"])
        before, census = leftovers.of_sandboxes(node), _census(node)
        for index in range(200):
            result = client.run(["/bin/echo", str(index)])
            assert result.stdout == f"{index}\n".encode()
        _settled(node, before)
        slack = {"processes": 8, "cgroups": 60, "namespaces": 60, "mounts of the spawner": 0}  # the stock refills
        grown = {
            name: (census[name], count)
            for name, count in _census(node).items()
            if count > census[name] + slack.get(name, 16)
        }
        assert not grown


def test_a12_client_that_leaves_takes_its_execution_with_it(node: RunningDaemon) -> None:
    with node.client() as client:
        before = leftovers.of_sandboxes(node)
        for _ in range(10):
            events = client.execute(SLEEP)
            accepted = next(events)
            assert isinstance(accepted, Accepted)
            next(events)
            events.close()
            proc.until(lambda: not client.executions(living_only=True), "it is no longer living")
            ended = client.execution(accepted.execution_id).result
            assert ended is not None
            assert ended.end_reason is EndReason.CANCELLED
        _settled(node, before)


def test_a12_connection_that_breaks_takes_its_execution_with_it(node: RunningDaemon) -> None:
    """Not a polite cancellation: the socket closes."""
    before = leftovers.of_sandboxes(node)
    client = node.client()
    events = client.execute(SLEEP)
    assert len(list(itertools.islice(events, 2))) == 2
    client.close()
    _settled(node, before)
    with contextlib.suppress(SandboxdError):
        events.close()


def test_deadline_of_the_call_takes_the_whole_tree_with_it_and_leaves_what_it_wrote(node: RunningDaemon) -> None:
    tree = "trap '' TERM HUP INT; setsid sleep 1000 & (sleep 1000 &); echo part; while :; do sleep 1000; done"
    with node.client() as client:
        before = leftovers.of_sandboxes(node)
        events = client.execute(["/bin/sh", "-c", tree], timeout_seconds=10)
        accepted = next(events)
        assert isinstance(accepted, Accepted)
        seen = b""
        with pytest.raises(DeadlineExceeded):
            for event in events:
                assert isinstance(event, Chunk)
                seen += event.data
        assert seen == b"part\n"
        _settled(node, before)
        ended = client.execution(accepted.execution_id).result
        assert ended is not None
        assert ended.end_reason is EndReason.CANCELLED
        assert client.logs(accepted.execution_id).stdout == b"part\n"


def test_a09_cancelled_at_any_moment_leaves_nothing(node: RunningDaemon) -> None:
    """Deadlines from before the launch can begin to after it is over; each ends the call somewhere else."""
    with node.client() as client:
        before = leftovers.of_sandboxes(node)
        for step in range(40):
            with contextlib.suppress(SandboxdError):
                client.run(["/bin/echo", "x"], timeout_seconds=0.001 + step * 0.004, files={"a": b"x"}, collect=["*"])
        _settled(node, before)  # on a slow machine they may still have every slot of this node
        for taken in range(6):
            events = client.execute(["/bin/sh", "-c", "while :; do echo x; done"])
            list(itertools.islice(events, taken))
            events.close()
        _settled(node, before)
        assert client.run(["/bin/true"]).exit_code == 0


def test_a09_a_hundred_kills_at_once_are_one_kill(node: RunningDaemon) -> None:
    with node.client() as client:
        before = leftovers.of_sandboxes(node)
        with contextlib.closing(client.execute(SLEEP)) as events:
            accepted = next(events)
            assert isinstance(accepted, Accepted)
            next(events)
            with ThreadPoolExecutor(20) as pool:
                list(pool.map(lambda _: client.kill(accepted.execution_id), range(100)))
            (result,) = [event for event in events if isinstance(event, Result)]
        assert result.end_reason is EndReason.KILLED
        client.kill(accepted.execution_id)
        _settled(node, before)


def test_r22_more_than_the_slots_are_refused_and_nothing_is_left(node: RunningDaemon) -> None:
    with node.client() as client:
        before = leftovers.of_sandboxes(node)
        answers: list[str] = []

        def ask(_: int) -> None:
            try:
                client.run(["/bin/sleep", "0.2"])
            except Overloaded:
                answers.append("refused")
            else:
                answers.append("ran")

        with ThreadPoolExecutor(40) as pool:
            list(pool.map(ask, range(300)))
        assert set(answers) == {"refused", "ran"}
        _settled(node, before)


def test_r22_crash_loop_leaves_nothing(node: RunningDaemon) -> None:
    with node.client() as client:
        before = leftovers.of_sandboxes(node)
        for argv in [["/bin/sh", "-c", "kill -SEGV $$"], ["/no/such"], ["/bin/sh", "-c", "exit 3"]] * 15:
            client.run(argv)
        _settled(node, before)


def test_drain_kills_what_does_not_end(mortal: RunningDaemon) -> None:
    """SIGTERM of the whole node, with a program that would go on: afterwards neither is there."""
    ends: list[Result | SandboxdError] = []

    def run(client: Client) -> None:
        try:
            ends.append(client.run(SLEEP))
        except SandboxdError as error:
            ends.append(error)

    with mortal.client() as client:
        thread = threading.Thread(target=run, args=(client,))
        thread.start()
        proc.until(lambda: len(proc.sandboxed_programs(mortal.process.pid)) > 0, "it runs")
        mortal.process.terminate()
        mortal.process.wait(120)
        thread.join()
    (end,) = ends
    assert isinstance(end, SandboxdError) or end.end_reason in (EndReason.NODE_SHUTDOWN, EndReason.CANCELLED)
    left = leftovers.of_the_host(mortal)
    assert not left.programs
    assert not left.cgroups
