"""Incidents answered on a real node: what is frozen does nothing, what is quarantined stays so, and nothing is left."""

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.client import (
    Accepted,
    Chunk,
    Client,
    Effect,
    EndReason,
    Event,
    Measure,
    NotFound,
    PolicyDenied,
    Result,
    SandboxdError,
    Target,
    Unenforceable,
)
from tests import leftovers, proc, restart
from tests.daemon import CHECKOUT, Mode, RunningDaemon, start_daemon, wait_until_it_answers
from tests.skips import need_root

COUNT = ["/bin/sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"]
MEDIATED = """\
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata: {name: mediated, labels: {sandboxd.io/reviewed: "true"}}
spec:
  description: each exec is a question
  extends: shell
  mediate: [process.exec]
"""
EXECS = 100
MODES = [Mode.ROOT, Mode.ROOTLESS]


@pytest.fixture(scope="module", params=MODES, ids=str)
def node(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    need_root()  # to see the processes of other users
    with tempfile.TemporaryDirectory(prefix="sandboxd-test-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        Path(directory, "mediated.yaml").write_text(MEDIATED)
        with start_daemon(request.param, f"profiles: {{paths: [{CHECKOUT / 'profiles'}, {directory}]}}\n") as daemon:
            yield daemon


class Counting:
    """A program that counts, and the stream that its numbers come through."""

    def __init__(self, client: Client, argv: list[str], **options: object) -> None:
        self.events = client.execute(argv, profile="shell", **options)  # type: ignore[arg-type]
        accepted = next(self.events)
        assert isinstance(accepted, Accepted)
        self.execution_id, self.sandbox_id = accepted.execution_id, accepted.sandbox_id
        assert isinstance(next(self.events), Chunk), "it runs"

    @property
    def target(self) -> Target:
        return Target(execution_id=self.execution_id)

    def goes_on(self) -> bool:
        """Whether more comes than can be under way."""
        seen = sum(1 for event in itertools.islice(self.events, 60) if isinstance(event, Chunk))
        return seen == 60

    def result(self) -> Result:
        events: list[Event] = list(self.events)
        assert isinstance(events[-1], Result)
        return events[-1]


@contextlib.contextmanager
def counting(client: Client, argv: list[str] = COUNT, **options: object) -> Iterator[Counting]:
    running = Counting(client, argv, **options)
    try:
        yield running
    finally:
        with contextlib.suppress(SandboxdError):
            client.respond(Measure.KILL, running.target)
        running.events.close()


def programs(node: RunningDaemon) -> list[int]:
    return [process.pid for process in proc.sandboxed_programs(node.process.pid)]


def switches(node: RunningDaemon) -> dict[int, tuple[str, str]]:
    """How often each program was given a CPU."""
    found = {pid: proc.status(pid) for pid in programs(node)}
    return {pid: (s["voluntary_ctxt_switches"], s["nonvoluntary_ctxt_switches"]) for pid, s in found.items()}


def stands_still(node: RunningDaemon) -> bool:
    before = switches(node)
    os.sched_yield()
    for _ in range(20):
        subprocess.run(["/bin/true"], check=True)  # time for whoever wants a CPU
    return bool(before) and switches(node) == before


def effects(client: Client, measure: Measure, target: Target) -> list[Effect]:
    return [one.effect for one in client.respond(measure, target, "a test")]


def standing(client: Client, running: Counting) -> set[tuple[bool, bool]]:
    """Whether it is frozen and whether held, by each way to ask."""
    listed = [one for one in client.executions() if one.execution_id == running.execution_id]
    return {(one.frozen, one.held) for one in (client.execution(running.execution_id), *listed)}


def test_frozen_program_does_nothing_until_it_is_thawed(node: RunningDaemon) -> None:
    with node.client() as client, counting(client) as running:
        assert not stands_still(node), "the control: it runs"
        assert effects(client, Measure.FREEZE, running.target) == [Effect.FROZEN]
        assert stands_still(node)
        assert standing(client, running) == {(True, False)}
        assert effects(client, Measure.FREEZE, Target(sandbox_id=running.sandbox_id)) == [Effect.UNCHANGED]
        with pytest.raises(Unenforceable) as refused:
            client.kill(running.execution_id, 18)
        assert refused.value.reason == "frozen"
        assert effects(client, Measure.THAW, running.target) == [Effect.THAWED]
        assert standing(client, running) == {(False, False)}
        assert running.goes_on()
        assert effects(client, Measure.KILL, running.target) == [Effect.KILLED]
        assert running.result().end_reason is EndReason.KILLED


def test_frozen_program_can_be_killed_and_leaves_nothing(node: RunningDaemon) -> None:
    with node.client() as client:
        client.run(["/bin/true"])
        before = leftovers.of_sandboxes(node)
        with counting(client) as running:
            client.respond(Measure.FREEZE, running.target)
            client.kill(running.execution_id)
            assert running.result().end_reason is EndReason.KILLED
    proc.until(lambda: not leftovers.of_sandboxes(node).beyond(before), "nothing is left")


def test_programs_that_policy_is_asked_about_all_run_however_often_they_are_frozen(node: RunningDaemon) -> None:
    starts = f"echo up; for i in $(seq {EXECS}); do /bin/true || exit 9; done; echo all"
    with node.client() as client:
        with contextlib.closing(client.execute(["/bin/sh", "-c", starts], profile="mediated")) as events:
            accepted = next(events)
            assert isinstance(accepted, Accepted) and isinstance(next(events), Chunk)
            target = Target(execution_id=accepted.execution_id)
            for _ in range(10):
                try:
                    client.respond(Measure.FREEZE, target)
                    client.respond(Measure.THAW, target)
                except Unenforceable as over:
                    assert over.reason == "already_ended"
                    break
            *_, result = events
        assert isinstance(result, Result)
        assert (result.exit_code, result.violations) == (0, ())


def test_wall_deadline_of_a_frozen_program_goes_on(node: RunningDaemon) -> None:
    with node.client() as client, counting(client, limits={"wall_seconds": 3}) as running:
        client.respond(Measure.FREEZE, running.target)
        assert running.result().end_reason is EndReason.WALL_TIMEOUT


def test_what_is_over_or_unknown_cannot_be_frozen(node: RunningDaemon) -> None:
    with node.client() as client:
        over = client.run(["/bin/true"]).execution_id
        with pytest.raises(Unenforceable) as refused:
            client.respond(Measure.FREEZE, Target(execution_id=over))
        assert refused.value.reason == "already_ended"
        with pytest.raises(NotFound):
            client.respond(Measure.FREEZE, Target(sandbox_id="f" * 32))


def test_each_response_is_on_record_after_its_decision(node: RunningDaemon) -> None:
    with node.client() as client, counting(client) as running:
        client.respond(Measure.FREEZE, running.target, "why")
        records = node.records_of(running.execution_id)
        decided, taken = records[-2:]
        assert (decided["rule"], decided["fields"]["action"]) == ("policy.decided", "sandbox.pause")  # type: ignore[index]
        fields = taken["fields"]
        assert isinstance(fields, dict)
        assert (taken["rule"], fields["measure"], fields["comment"]) == ("response.taken", "freeze", "why")
        assert fields["effects"] == [[running.execution_id, "frozen"]]


def test_evidence_of_a_frozen_sandbox_is_taken_and_holds_no_path_of_the_tenants(
    node: RunningDaemon, tmp_path: Path
) -> None:
    hostile = "mkdir -p 'a b' && echo secret >'a b/found' && ln -s /etc/shadow link && printf x >\"$(printf 'n\\nl')\""
    with node.client() as client, counting(client, ["/bin/sh", "-c", f"{hostile}; {COUNT[2]}"]) as running:
        client.respond(Measure.FREEZE, running.target)
        target = tmp_path / "evidence"
        command = [sys.executable, "-c", "from sandboxd.cli import sandboxctl_main; sandboxctl_main()"]
        forensics = ["sandbox", "forensics", running.sandbox_id, "-o", str(target)]
        environment = {**os.environ, "SANDBOXD_ADDRESS": node.address}
        subprocess.run([*command, *forensics], check=True, env=environment, timeout=120)
        again = subprocess.run([*command, *forensics], check=False, env=environment, timeout=120, capture_output=True)
        assert again.returncode == 125, "it takes no directory that is there already"
        assert target.stat().st_mode & 0o777 == 0o700
        assert stands_still(node)
    found = {path.name: path.read_bytes() for path in target.iterdir()}
    assert set(found) == {
        *("execution.json", "limits.json", "enforcement.json", "processes.json", "mounts.txt"),
        *("workspace.tar", "workspace.json", "events.jsonl"),
    }
    with tarfile.open(fileobj=io.BytesIO(found["workspace.tar"])) as archive:
        assert set(archive.getnames()) == {"workspace/a b", "workspace/a b/found", "workspace/n%0Al"}
    assert json.loads(found["execution.json"])["frozen"] is True
    processes = json.loads(found["processes.json"])
    assert any(process["argv"][:1] == ["/bin/sh"] and process["exe"] for process in processes)
    assert json.loads(found["limits.json"])["wall_seconds"] > 0
    assert json.loads(found["enforcement.json"])["rows"]
    assert b"response.taken" in found["events.jsonl"] and b"execution.requested" in found["events.jsonl"]
    assert b" /workspace " in found["mounts.txt"]


def test_killed_daemon_leaves_nothing_frozen(node: RunningDaemon) -> None:
    with node.client() as client, contextlib.suppress(SandboxdError), counting(client) as running:
        client.respond(Measure.FREEZE, running.target)
        frozen = programs(node)
        restart.kill(proc.daemon_pid(node.process.pid))
        wait_until_it_answers(node)  # the next one ends what it is handed
        proc.until(lambda: not set(frozen) & set(proc.processes()), "what was frozen is gone")
    with node.client() as client:
        assert client.run(["/bin/echo", "again"]).stdout == b"again\n"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_killed_spawner_leaves_nothing_frozen(mode: Mode) -> None:
    need_root()
    with start_daemon(mode) as daemon:
        with daemon.client() as client, contextlib.suppress(SandboxdError), counting(client) as running:
            client.respond(Measure.FREEZE, running.target)
            frozen = programs(daemon)
            assert frozen
            restart.kill_spawner(daemon)
            proc.until(lambda: not set(frozen) & set(proc.processes()), "what was frozen is gone")
        left = leftovers.of_the_host(daemon).programs
        assert not left, f"outlived the spawner: {sorted(left)}"
        with restart.restarted(daemon) as again, again.client() as client:
            assert client.run(["/bin/echo", "again"]).stdout == b"again\n"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_quarantine_keeps_and_denies_until_it_is_lifted_also_across_a_restart(mode: Mode) -> None:
    need_root()
    with start_daemon(mode) as daemon, daemon.client() as client:
        me = f"uid:{mode.uid}"
        with counting(client, limits={"wall_seconds": 3}) as running:
            assert effects(client, Measure.QUARANTINE, running.target) == [Effect.HELD]
            running.events.close()  # neither its caller's going nor its deadline ends it
            with pytest.raises(PolicyDenied) as denied:
                client.run(["/bin/true"])
            assert (denied.value.reason, "quarantined" in denied.value.message_for_agent) == ("quarantined", True)
            with pytest.raises(Unenforceable):
                client.respond(Measure.THAW, running.target)
            assert stands_still(daemon)
            assert standing(client, running) == {(True, True)}
            (one,) = client.quarantines()
            assert (one.tenant, one.subject, one.by, one.comment) == ("local", me, me, "a test")
            held = programs(daemon)
            client.respond(Measure.LIFT, Target(subject=me))
            proc.until(lambda: not set(held) & set(proc.processes()), "what its caller's going ended")
            assert client.run(["/bin/true"]).exit_code == 0
            client.respond(Measure.QUARANTINE, Target(subject=me))
        restart.kill(proc.daemon_pid(daemon.process.pid))
        wait_until_it_answers(daemon)
        assert _denied(daemon)
        daemon.process.terminate()
        daemon.process.wait()
        with restart.restarted(daemon) as again, again.client() as later:
            with pytest.raises(PolicyDenied) as denied:
                later.run(["/bin/true"])
            assert denied.value.reason == "quarantined"
            later.respond(Measure.LIFT, Target(subject=me))
            assert later.run(["/bin/true"]).exit_code == 0
            with pytest.raises(NotFound):
                later.respond(Measure.LIFT, Target(subject=me))


def _denied(daemon: RunningDaemon) -> bool:
    with daemon.client() as client, contextlib.suppress(SandboxdError):
        try:
            client.run(["/bin/true"])
        except PolicyDenied as denied:
            return denied.reason == "quarantined"
    return False
