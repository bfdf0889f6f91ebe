"""People decide over a real daemon that is killed and reloaded meanwhile: a grant is used once, for what it was given.

Who asks is another user than root, who decides: nobody decides about himself.
"""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.client import ApprovalState, Client, PolicyDenied, Result, SandboxdError
from tests import proc, reachable, restart
from tests.daemon import CHECKOUT, ORDINARY_UID, Mode, RunningDaemon, start_daemon, wait_until_it_answers
from tests.skips import need_root

SECONDS = 300.0
POLICY = """package sandboxd
# VERSION
import rego.v1
decision := {"verdict": "escalate", "reasons": [{"code": "review", "message": "somebody must look at it"}],
  "obligations": {"approval": {"ttl_seconds": 3600}}} if input.action.type == "execution.start"
decision := {"verdict": "allow", "reasons": []} if input.action.type == "profile.use"
decision := {"verdict": "allow", "reasons": []} if {
  input.action.type == "approval.decide"
  "operator" in input.caller.roles
}
"""
# As another user: so many identical requests at once; what became of each.
ASK = """
import json, sys, threading
from sandboxd.client import Client, SandboxdError
address, racing, *argv = sys.argv[1:]
ready, told = threading.Barrier(int(racing)), []
def ask():
    with Client(address) as client:
        client.check_version()
        ready.wait()
        try:
            told.append(["ran", client.run(argv).stdout.decode()])
        except SandboxdError as error:
            told.append([error.reason, getattr(error, "approval_id", "")])
threads = [threading.Thread(target=ask) for _ in range(int(racing))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(told))
"""
VOTE = """
import sys
from sandboxd.client import Client, SandboxdError
with Client(sys.argv[1]) as client:
    try:
        client.approve(sys.argv[2])
    except SandboxdError as error:
        print(error.reason)
"""
ECHO = ("/bin/echo", "reviewed")


@pytest.fixture(autouse=True)
def _as_root() -> None:
    need_root()


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "sandboxd.rego").write_text(POLICY)
    return tmp_path / "policies"


@contextlib.contextmanager
def serving(policies: Path, more: str = "") -> Iterator[RunningDaemon]:
    allowed = f"allowed_uids: [{ORDINARY_UID}]\npolicy: {{paths: [{policies}]}}\n"
    with start_daemon(Mode.ROOT, allowed + more) as daemon:
        daemon.config.parent.chmod(0o711)  # so that the other user comes to the socket
        yield daemon


def _as_other(script: str, daemon: RunningDaemon, *arguments: str) -> str:
    user = ["/usr/bin/setpriv", f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups"]
    command = [*reachable.prefix(CHECKOUT), *user, sys.executable, "-c", script, daemon.address, *arguments]
    ran = subprocess.run(
        command, cwd=CHECKOUT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=SECONDS
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def ask(daemon: RunningDaemon, *argv: str, racing: int = 1) -> list[tuple[str, str]]:
    told = json.loads(_as_other(ASK, daemon, str(racing), *(argv or ECHO)))
    assert len(told) == racing
    return [(what, about) for what, about in told]


def parked(daemon: RunningDaemon, *argv: str) -> str:
    ((reason, approval_id),) = ask(daemon, *argv)
    assert reason == "approval_required" and approval_id
    return approval_id


def events(daemon: RunningDaemon, rule: str) -> int:
    return sum(record["rule"] == rule for record in daemon.journal())


def kill_daemon(daemon: RunningDaemon) -> None:
    """SIGKILL, and wait for the one that the spawner starts instead."""
    (victim,) = [one.pid for one in proc.descendants(daemon.process.pid) if "sandboxd.daemon" in one.argv]
    restart.kill(victim)
    proc.until(lambda: victim not in proc.processes(), "the daemon is dead")
    wait_until_it_answers(daemon)


def test_what_is_pending_and_granted_outlives_the_daemon_and_is_used_once(policies: Path) -> None:
    with serving(policies) as daemon:
        approval_id = parked(daemon)
        kill_daemon(daemon)
        assert parked(daemon) == approval_id
        with daemon.client() as client:
            (pending,) = client.approvals()
            assert (pending.approval_id, pending.requester) == (approval_id, f"uid:{ORDINARY_UID}")
            assert json.loads(pending.shown)["program"] == {"argv": list(ECHO)}
            assert client.approve(approval_id, "looks right").state is ApprovalState.GRANTED
        kill_daemon(daemon)
        told = ask(daemon, racing=20)
        assert told.count(("ran", "reviewed\n")) == 1
        (again,) = {about for what, about in told if what != "ran"}
        assert again != approval_id
        assert {what for what, _ in told} == {"ran", "approval_required"}
        kill_daemon(daemon)
        assert parked(daemon) == again
        assert [events(daemon, f"approval.{what}") for what in ("requested", "granted", "consumed")] == [2, 1, 1]
        assert events(daemon, "execution.started") == 1


def test_a_grant_outlives_the_node_itself(policies: Path) -> None:
    with serving(policies) as daemon:
        approval_id = parked(daemon)
        with daemon.client() as client:
            client.approve(approval_id)
        restart.kill_spawner(daemon)
        with restart.restarted(daemon) as again:
            assert ask(again) == [("ran", "reviewed\n")]


def test_a_grant_is_void_for_other_arguments_and_under_another_policy(policies: Path) -> None:
    with serving(policies) as daemon, daemon.client() as client:
        client.approve(parked(daemon))
        other = parked(daemon, "/bin/echo", "reviewed", "not")
        bundle = policies / "sandboxd.rego"
        bundle.write_text(POLICY.replace("VERSION", "another"))
        daemon.reload()
        proc.until(lambda: events(daemon, "config.reloaded") == 1, "the reload is on record")
        assert parked(daemon) != other
        bundle.write_text(POLICY)
        daemon.reload()
        proc.until(lambda: events(daemon, "config.reloaded") == 2, "the reload is on record")
        assert ask(daemon) == [("ran", "reviewed\n")], "the control: the very same policy, the very same request"


def test_nobody_decides_about_himself_or_without_being_an_operator(policies: Path) -> None:
    with serving(policies) as daemon, daemon.client() as client:
        with pytest.raises(PolicyDenied) as own:
            client.run(ECHO)
        with daemon.client() as other_connection, pytest.raises(PolicyDenied) as refused:
            other_connection.approve(own.value.approval_id)
        assert refused.value.reason == "own_request"
        assert events(daemon, "approval.refused") == 1
        theirs = parked(daemon)
        assert _as_other(VOTE, daemon, theirs) == "policy_undefined", "no rule of this policy lets him"
        assert _as_other(VOTE, daemon, own.value.approval_id) == "not_found"
        assert client.approve(theirs).state is ApprovalState.GRANTED


def test_an_execute_waits_for_people_without_a_slot_where_the_node_lets_it(policies: Path) -> None:
    with (
        serving(policies, "approvals: {wait_seconds: 300}\nlimits: {max_concurrent: 1}\n") as daemon,
        daemon.client() as client,
        contextlib.closing(client.watch_approvals()) as updates,
    ):
        asking, pending = [], []
        for word in ("one", "two"):
            asking.append(_asking(daemon, "/bin/echo", word))
            pending.append(next(updates).approval_id)
        for (thread, told), approval_id in zip(asking, pending, strict=True):
            client.approve(approval_id)
            thread.join(SECONDS)
            assert told and told[0][0][0] == "ran"


def _asking(daemon: RunningDaemon, *argv: str) -> tuple[threading.Thread, list[list[tuple[str, str]]]]:
    """Another user who asks meanwhile, and what he was told."""
    told: list[list[tuple[str, str]]] = []
    thread = threading.Thread(target=lambda: told.append(ask(daemon, *argv)))
    thread.start()
    return thread, told


def test_what_waits_when_the_node_goes_down_is_told_its_approval(policies: Path) -> None:
    with serving(policies, "approvals: {wait_seconds: 300}\n") as daemon:
        asking, told = _asking(daemon)
        with daemon.client() as client, contextlib.closing(client.watch_approvals()) as watching:
            pending = next(watching)
            proc.until(lambda: events(daemon, "policy.decided") >= 1, "it was decided to wait")
            daemon.process.terminate()
            with pytest.raises(SandboxdError) as ended:
                list(watching)
        asking.join(SECONDS)
        assert ended.value.reason == "draining"
        assert told == [[("approval_required", pending.approval_id)]]


def test_a_flood_is_refused_while_others_are_heard(policies: Path) -> None:
    with serving(policies, "approvals: {max_pending: 5, max_per_minute: 1000}\n") as daemon, daemon.client() as client:
        reasons: list[str] = []
        for number in range(60):
            with pytest.raises(PolicyDenied) as caught:
                _run(client, number)
            reasons.append(caught.value.reason)
        assert reasons == ["approval_required"] * 5 + ["approval_flood"] * 55
        assert parked(daemon)
        assert events(daemon, "approval.requested") == 6


def _run(client: Client, number: int) -> Result:
    return client.run(["/bin/echo", str(number)])
