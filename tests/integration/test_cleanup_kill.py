"""SIGKILL of each process at each step of an execution, then: no process, mount, cgroup, namespace, file is left.

Where the spawner itself dies, reconciliation at the next start is allowed, and is shown.
"""

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum

import pytest

from sandboxd.client import Chunk, Client, EndReason, Result, SandboxdError
from tests import leftovers, proc, restart
from tests.daemon import Mode, RunningDaemon, start_daemon, wait_until_it_answers
from tests.skips import need_root


class Victim(StrEnum):
    PAYLOAD = "payload"
    INIT = "init"
    DAEMON = "daemon"
    SPAWNER = "spawner"


class Step(StrEnum):
    BEFORE = "before-launch"
    DURING = "during-launch"
    RUNNING = "running"
    COLLECTING = "collecting"


PROGRAM = ["/bin/sh", "-c", "echo up; exec sleep 1000"]
# Enough to collect that a kill falls into it, most of the time; when it does not, it falls beside it, which is as good.
COLLECTED = ["/bin/bash", "-c", "for i in {1..60}; do head -c 50000 /dev/urandom > f$i; done; echo up"]


@pytest.fixture(scope="module", params=[Mode.ROOT, Mode.ROOTLESS], ids=str)
def node(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    """One for all tests but those that end its spawner: after each the same spawner must go on as if nothing was."""
    need_root()  # to see and to kill processes of other users
    with start_daemon(request.param) as daemon:
        yield daemon


@pytest.fixture(params=[Mode.ROOT, Mode.ROOTLESS], ids=str)
def mortal(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    """One whose spawner may end."""
    need_root()
    with start_daemon(request.param) as daemon:
        yield daemon


def _victims(node: RunningDaemon, victim: Victim) -> list[int]:
    spawner = node.process.pid
    match victim:
        case Victim.PAYLOAD:
            return [process.pid for process in proc.sandboxed_programs(spawner)]
        case Victim.INIT:
            return [group[0].pid for group in proc.sandboxes(spawner)]
        case Victim.DAEMON:
            # Possibly none: one that was killed a moment ago is only being started again.
            return [process.pid for process in proc.descendants(spawner) if "sandboxd.daemon" in process.argv]
        case Victim.SPAWNER:
            return [spawner]


def _strike(node: RunningDaemon, victim: Victim) -> None:
    if victim is Victim.SPAWNER:
        restart.kill_spawner(node)
        return
    for pid in _victims(node, victim):
        restart.kill(pid)


def _run(client: Client, argv: list[str], collect: list[str], on_output: Callable[[], None]) -> Result | SandboxdError:
    """Run and strike at the first output; the result, or the error that the caller sees."""
    try:
        with contextlib.closing(client.execute(argv, collect=collect)) as events:
            for event in events:
                if isinstance(event, Chunk):
                    on_output()
                if isinstance(event, Result):
                    return event
    except SandboxdError as error:
        return error
    raise AssertionError("the stream ended with neither a result nor an error")


def _nothing_is_left(node: RunningDaemon, before: leftovers.Leftovers) -> None:
    def clean() -> bool:
        return not leftovers.of_sandboxes(node).beyond(before)

    try:
        proc.until(clean, "nothing is left")
    except AssertionError:
        raise AssertionError(f"left behind: {leftovers.of_sandboxes(node).beyond(before)}") from None


@pytest.mark.parametrize("step", list(Step), ids=str)
@pytest.mark.parametrize("victim", [Victim.PAYLOAD, Victim.INIT, Victim.DAEMON], ids=str)
def test_killed_anywhere_leaves_nothing(victim: Victim, step: Step, node: RunningDaemon) -> None:
    with node.client() as client:
        client.run(["/bin/true"])
        before = leftovers.of_sandboxes(node)
        _strike_at(step, node, victim, client)
    wait_until_it_answers(node)
    assert node.process.poll() is None
    _nothing_is_left(node, before)
    with node.client() as client:
        assert client.run(["/bin/echo", "again"]).stdout == b"again\n"


@pytest.mark.parametrize("step", list(Step), ids=str)
def test_killed_spawner_takes_all_with_it_and_starts_clean(step: Step, mortal: RunningDaemon) -> None:
    with mortal.client() as client:
        client.run(["/bin/true"])
        before = leftovers.of_sandboxes(mortal)
        _strike_at(step, mortal, Victim.SPAWNER, client)
    left = leftovers.of_the_host(mortal).programs
    assert not left, f"outlived the spawner: {sorted(left)}"
    with restart.restarted(mortal) as again:
        _nothing_is_left(again, before)
        with again.client() as client:
            assert client.run(["/bin/echo", "again"]).stdout == b"again\n"
    gone = leftovers.of_the_host(mortal)
    assert not gone.programs
    assert not gone.cgroups
    assert not gone.mounts - before.mounts


def _strike_at(step: Step, node: RunningDaemon, victim: Victim, client: Client) -> None:
    match step:
        case Step.BEFORE:
            _strike(node, victim)
        case Step.DURING:
            _strike_during(node, victim, client)
        case Step.RUNNING:
            end = _run(client, PROGRAM, [], lambda: _strike(node, victim))
            _check_end(victim, end)
        case Step.COLLECTING:
            _run(client, COLLECTED, ["f*"], lambda: _strike(node, victim))


def _strike_during(node: RunningDaemon, victim: Victim, client: Client) -> None:
    """Kill while many launches are under way, at points that differ each time since nothing holds them still."""
    ends: list[Result | SandboxdError] = []
    threads = [
        threading.Thread(target=lambda: ends.append(_run(client, ["/bin/true"], [], lambda: None))) for _ in range(12)
    ]
    for thread in threads[:6]:
        thread.start()
    for index, thread in enumerate(threads[6:]):
        thread.start()
        if index % 2 == 0 and (victim is not Victim.SPAWNER or index == 2):
            _strike(node, victim)
    for thread in threads:
        thread.join()
    assert len(ends) == len(threads), "every caller gets an answer"


def _check_end(victim: Victim, end: Result | SandboxdError) -> None:
    match victim:
        case Victim.PAYLOAD:
            assert isinstance(end, Result)
            assert (end.end_reason, end.signal) == (EndReason.SIGNALED, 9)
        case Victim.INIT:
            assert isinstance(end, SandboxdError) or end.end_reason in (
                EndReason.RUNTIME_FAILED,
                EndReason.SIGNALED,
                EndReason.KILLED,
            )
        case Victim.SPAWNER:  # the daemon may still have the time to tell
            assert isinstance(end, SandboxdError) or end.end_reason is EndReason.RUNTIME_FAILED
        case Victim.DAEMON:
            assert isinstance(end, SandboxdError), "nobody was there to tell how it ended"


def test_r23_daemon_killed_with_20_living_sandboxes(node: RunningDaemon) -> None:
    """The spawner starts it again; each sandbox is then dead, or known to the new daemon and still its to kill."""
    with node.client() as client, contextlib.ExitStack() as streams:
        before = leftovers.of_sandboxes(node)
        for _ in range(20):  # `shell` lets the first live until the last is there, on a slow machine too
            events = streams.enter_context(contextlib.closing(client.execute(PROGRAM, profile="shell")))
            assert len(list(itertools.islice(events, 2))) == 2
        assert len(proc.sandboxed_programs(node.process.pid)) >= 20
        old = proc.daemon_pid(node.process.pid)
        restart.kill(old)
        proc.until(lambda: old not in proc.processes(), "the daemon is dead")
        wait_until_it_answers(node)
    with node.client() as client:
        for execution in client.executions(living_only=True):
            client.kill(execution.execution_id)
        _nothing_is_left(node, before)
        assert client.executions(living_only=True) == ()


def test_journal_goes_on_after_a_kill(node: RunningDaemon) -> None:
    """The execution that nobody could see to its end is on record as requested, and the chain goes on behind it."""
    with node.client() as client:
        _run(client, PROGRAM, [], lambda: _strike(node, Victim.DAEMON))
    wait_until_it_answers(node)
    with node.client() as client:
        last = client.run(["/bin/true"]).execution_id
    records = [json.dumps(record) for record in node.journal()]
    assert sum("execution.requested" in record for record in records) >= 2
    assert any(last in record for record in records)
