"""The daemon as a whole on a fake spawner: start, recovery, reload, drain. The journal, policy and socket are real."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandboxd import daemon
from sandboxd.audit.recorder import Recorder
from sandboxd.config import Config
from sandboxd.config import parse as parse_config
from sandboxd.daemon import EX_CONFIG, EX_SOFTWARE, Daemon
from sandboxd.errors import ConfigInvalid, Draining, PolicyDenied, RuntimeFailed
from sandboxd.model import Accepted, ArgvProgram, Caller, EndReason, ExecuteRequest, Outcome
from sandboxd.policy import rego_process
from sandboxd.profile.load import load_profiles
from sandboxd.settings.paths import shipped
from sandboxd.spawner import wire
from tests.fakes.runtime import FakeSandbox, forever
from tests.fakes.spawner import FakeSpawner, Templates
from tests.unit.test_recovery import STARTED, requested

CALLER = Caller("local", "uid:0", (), "Execute")
APPROVER = Caller("local", "uid:7", ("operator",), "Approve")
REQUEST = ExecuteRequest(ArgvProgram(("/bin/true",)))


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, since a socket's path is."""
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-unit-"))
    shutil.copytree(shipped("profiles"), directory / "profiles")
    shutil.copytree(shipped("policies"), directory / "policies")
    yield directory
    shutil.rmtree(directory)


def settings(home: Path, more: str = "", policy: str = "") -> Config:
    text = (
        f"listen: [{{unix: {home}/run/s.sock}}]\nstate_dir: {home}/state\nprofiles: {{paths: [{home}/profiles]}}\n"
        f"{policy or f'policy: {{paths: [{home}/policies]}}'}\nsinks: []\ndrain_grace_seconds: 0\n{more}"
    )
    return parse_config(text.encode(), "c.yaml")


def templates(home: Path) -> Templates:
    return tuple((profile.name, profile.digest) for profile in load_profiles([home / "profiles"]))


def journal(home: Path) -> list[dict[str, dict[str, object]]]:
    lines = [path.read_text().splitlines() for path in sorted((home / "state" / "journal").glob("*.jsonl"))]
    return [json.loads(line) for segment in lines for line in segment]


def rules(home: Path) -> list[object]:
    return [record["rule"] for record in journal(home)]


@asynccontextmanager
async def running(
    home: Path, spawner: FakeSpawner, more: str = "", policy: str = ""
) -> AsyncIterator[tuple[Daemon, asyncio.Task[int]]]:
    """A daemon that serves; drained at the end."""
    spawner.templates = spawner.templates or templates(home)
    node = Daemon(settings(home, more, policy), spawner)  # type: ignore[arg-type]
    task = asyncio.create_task(node.run())
    served = asyncio.create_task(spawner.served.wait())
    await asyncio.wait({task, served}, return_when=asyncio.FIRST_COMPLETED)
    served.cancel()
    if task.done():
        task.result()
    try:
        yield node, task
    finally:
        spawner.drain(wire.Drain(0.0))
        await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_serves_then_drains_and_both_are_on_record(home: Path) -> None:
    spawner = FakeSpawner()
    async with running(home, spawner) as (node, task):
        assert spawner.status == f"serving {home}/run/s.sock"
        assert (home / "run" / "s.sock").is_socket()
        outcome = [item async for item in node._executor.execute(REQUEST, CALLER)][-1]
        assert isinstance(outcome, Outcome) and outcome.end_reason is EndReason.EXITED
    assert task.result() == 0
    assert not (home / "run" / "s.sock").exists()
    told = [rule for rule in rules(home) if rule != "journal.checkpoint"]
    assert told[0] == "daemon.started"
    assert told[-2:] == ["execution.ended", "daemon.stopped"]
    assert rules(home)[-1] == "journal.checkpoint"


async def test_retention_waits_for_required_sinks_and_no_others(home: Path) -> None:
    node = Daemon(settings(home), FakeSpawner())  # type: ignore[arg-type]
    assert node._confirmed() == sys.maxsize
    for required, confirmed, most in ((False, 3, sys.maxsize), (True, 9, 9), (True, 7, 7), (True, 8, 7)):
        node._feeds.append(SimpleNamespace(required=required, confirmed=confirmed))  # type: ignore[arg-type]
        assert node._confirmed() == most


async def test_metrics_are_served_as_long_as_the_daemon_serves(home: Path) -> None:
    place = home / "run" / "metrics.sock"
    async with running(home, FakeSpawner(offered=3), f"metrics: {{listen: 'unix://{place}'}}\n") as (node, _):
        [_ async for _ in node._executor.execute(REQUEST, CALLER)]
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
    assert 'sandboxd_executions_ended_total{end_reason="EXITED"} 1.0\n' in page
    assert "sandboxd_stock_sandboxes 3.0\n" in page
    assert "sandboxd_policy_decision_seconds_count 0.0\n" not in page
    assert not place.exists()


async def test_a_place_for_metrics_that_is_taken_ends_the_start_and_the_api(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        more = f"metrics: {{listen: '127.0.0.1:{taken.getsockname()[1]}'}}\n"
        with pytest.raises(ConfigInvalid, match=r"metrics cannot be served at .* Address already in use"):
            async with running(home, FakeSpawner(), more):
                pass
    assert not (home / "run" / "s.sock").exists()


async def test_drain_ends_what_runs_and_refuses_what_comes(home: Path) -> None:
    spawner = FakeSpawner(script=forever)
    seen: list[object] = []
    async with running(home, spawner) as (node, task):
        async for item in node._executor.execute(REQUEST, CALLER):
            seen.append(item)
            if isinstance(item, Accepted):
                spawner.drain(wire.Drain(0.0))
        with pytest.raises(Draining):
            [_ async for _ in node._executor.execute(REQUEST, CALLER)]
    assert isinstance(seen[-1], Outcome) and seen[-1].end_reason is EndReason.NODE_SHUTDOWN
    assert spawner.alive == set()
    assert task.result() == 0


async def test_lost_spawner_ends_the_daemon(home: Path) -> None:
    spawner = FakeSpawner()
    async with running(home, spawner) as (_, task):
        spawner.lost()
        assert await task == EX_SOFTWARE
    assert [record["fields"] for record in journal(home) if str(record["rule"]) == "daemon.stopped"] == [
        {"reason": "spawner_lost"}
    ]


async def test_what_a_dead_daemon_left_is_ended_before_anything_is_served(home: Path) -> None:
    recorder = Recorder.open(home / "state", "node", "before", "write")
    for event in (STARTED, requested("a")):
        await recorder.record(event)
    await recorder.close()
    spawner = FakeSpawner()
    spawner.adopted = (FakeSandbox("s-a", forever, spawner), FakeSandbox("s-b", forever, spawner))
    spawner.alive = {"s-a", "s-b"}
    async with running(home, spawner):
        assert spawner.alive == set()
        ended, started = journal(home)[-2:]
    assert ended["ids"]["execution_id"] == "a"
    assert ended["fields"]["detail"] == "daemon_restarted"
    assert started["fields"]["recovered"] == 2


ESCALATING = """package sandboxd
import rego.v1
decision := {"verdict": "allow", "reasons": []} if input.action.type != "execution.start"
decision := {"verdict": "escalate", "reasons": [], "obligations": {"approval": {"ttl_seconds": 600, "quorum": 1}}} if {
	input.action.type == "execution.start"
}
"""


async def refusal(node: Daemon) -> PolicyDenied:
    with pytest.raises(PolicyDenied) as caught:
        [_ async for _ in node._executor.execute(REQUEST, CALLER)]
    return caught.value


async def test_what_was_approved_before_a_restart_is_used_once_after_it(home: Path) -> None:
    shutil.rmtree(home / "policies")
    (home / "policies").mkdir()
    (home / "policies" / "sandboxd.rego").write_text(ESCALATING)
    async with running(home, FakeSpawner()) as (node, _):
        denied = await refusal(node)
        assert denied.reason == "approval_required"
        await node._approvals.vote(denied.approval_id, APPROVER, approve=True, comment="")
    async with running(home, FakeSpawner()) as (node, _):
        outcome = [item async for item in node._executor.execute(REQUEST, CALLER)][-1]
        assert isinstance(outcome, Outcome) and outcome.end_reason is EndReason.EXITED
        assert (await refusal(node)).approval_id != denied.approval_id
    assert rules(home).count("approval.consumed") == 1


async def test_a_place_for_approvals_that_cannot_be_used_refuses_to_start(home: Path) -> None:
    (home / "state").mkdir()
    (home / "state" / "approvals").write_text("not a directory")
    spawner = FakeSpawner()
    with pytest.raises(ConfigInvalid, match="approvals cannot be kept"):
        async with running(home, spawner):
            pass
    assert not spawner.served.is_set()


async def test_the_webhook_is_told_by_a_running_daemon(home: Path) -> None:
    heard: list[bytes] = []

    async def hook(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"}"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hook, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (home / "policies" / "sandboxd.rego").write_text(ESCALATING)
    more = f"approvals: {{webhook: {{url: 'http://127.0.0.1:{port}/'}}}}\n"
    async with server, running(home, FakeSpawner(), more) as (node, _):
        await refusal(node)
        await until(lambda: bool(heard))
    assert b'"event": "approval.requested"' in heard[0]


async def test_reload_swaps_profiles_and_policy(home: Path) -> None:
    spawner = FakeSpawner()
    async with running(home, spawner) as (node, _):
        former = node._gate.engine
        spawner.served.clear()
        (home / "profiles" / "mine.yaml").write_text(
            "apiVersion: sandboxd.io/v1\nkind: SandboxProfile\nmetadata: {name: mine}\n"
            "spec: {extends: default, description: Mine}\n"
        )
        (home / "profiles" / "mine.yaml").chmod(0o644)
        spawner.reloaded(wire.Reloaded(0, templates(home)))
        await until(lambda: rules(home)[-1] == "config.reloaded")
        assert "mine" in node._profiles.names()
        assert node._gate.engine is not former
        assert journal(home)[-1]["fields"]["ok"] is True
        assert spawner.reloads == 0
        await until(spawner.served.is_set)


async def test_reload_of_policy_is_on_record_and_a_shadow_is_compared(home: Path) -> None:
    shutil.copytree(home / "policies", home / "next")
    deny = "package sandboxd\n\nimport rego.v1\n\ndecision := false\n"
    (home / "next" / "sandboxd.rego").write_text(deny)
    spawner = FakeSpawner()
    policy = f"policy: {{paths: [{home}/policies], shadow: {{paths: [{home}/next]}}}}\n"
    async with running(home, spawner, policy=policy) as (node, _):
        former = node._gate.engine.revision
        assert [item async for item in node._executor.execute(REQUEST, CALLER)]
        await until(lambda: "policy.shadow_differed" in rules(home))
        (home / "policies" / "sandboxd.rego").write_text("package sandboxd\n\ndecision := {\n")
        spawner.reloaded(wire.Reloaded(0, spawner.templates))
        await until(lambda: rules(home)[-1] == "config.reloaded")
        assert rules(home)[-2] == "policy.reload_failed"
        (home / "policies" / "sandboxd.rego").write_text(deny)
        spawner.reloaded(wire.Reloaded(0, spawner.templates))
        await until(lambda: rules(home)[-2:] == ["policy.reloaded", "config.reloaded"])
        assert journal(home)[-2]["fields"]["former_revision"] == former != node._gate.engine.revision


@pytest.mark.parametrize("broken", ["profiles/default.yaml", "policies/sandboxd.rego"])
async def test_reload_of_something_broken_changes_nothing(home: Path, broken: str) -> None:
    spawner = FakeSpawner()
    async with running(home, spawner) as (node, _):
        profiles, engine = node._profiles, node._gate.engine
        (home / broken).write_text("nonsense: [")
        spawner.reloaded(wire.Reloaded(0, spawner.templates))
        await until(lambda: "the last reload failed" in spawner.status)
        assert (node._profiles, node._gate.engine) == (profiles, engine)
        record = journal(home)[-1]["fields"]
        assert record["ok"] is False
        assert Path(broken).name in str(record["message"])


async def test_profiles_that_changed_since_the_spawner_read_them_are_compiled_again(home: Path) -> None:
    spawner = FakeSpawner(templates=(("default", "0" * 64),), recompiled=templates(home))
    async with running(home, spawner):
        assert spawner.reloads == 1


@pytest.mark.parametrize(
    ("recompiled", "error"), [((("default", "0" * 64),), ConfigInvalid), (None, RuntimeFailed)]
)  # fmt: skip
async def test_profiles_that_the_spawner_has_not_are_never_served(
    home: Path, recompiled: Templates | None, error: type[Exception]
) -> None:
    spawner = FakeSpawner(templates=(("default", "0" * 64),), recompiled=recompiled)
    with pytest.raises(error):
        async with running(home, spawner):
            pass
    assert not (home / "run" / "s.sock").exists()
    assert not spawner.served.is_set()


async def test_hangup_of_the_daemon_itself_ends_nothing(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As when somebody signals every process of that name."""
    async with running(home, FakeSpawner()) as (_, task):
        with caplog.at_level("INFO"):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "asked of the spawner" in caplog.text)
        assert not task.done()


@pytest.mark.parametrize("more", ["policy: {engine: nothing}\n", "sinks: [{type: nothing}]\n"])
def test_unknown_implementation_ends_the_start_as_a_configuration_error(home: Path, more: str) -> None:
    paths = f"listen: [{{unix: {home}/run/s.sock}}]\nstate_dir: {home}/state\nprofiles: {{paths: [{home}/profiles]}}\n"
    (home / "c.yaml").write_text(paths + more)
    assert started_with(home) == EX_CONFIG


def test_wrong_configuration_ends_the_start(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (home / "c.yaml").write_text("lissen: x\n")
    assert started_with(home) == EX_CONFIG
    assert "c.yaml:1: lissen: unknown key" in json.loads(capfd.readouterr().err.splitlines()[-1])["error"]


def test_policy_engine_that_does_not_run_ends_the_start_but_not_as_a_configuration_error(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong may pass, as want of memory does: the service manager is to try again."""
    (home / "worker.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setattr(rego_process, "_SCRIPT", home / "worker.py")
    paths = f"listen: [{{unix: {home}/run/s.sock}}]\nstate_dir: {home}/state\nprofiles: {{paths: [{home}/profiles]}}\n"
    (home / "c.yaml").write_text(paths)
    assert started_with(home) == EX_SOFTWARE
    assert "whatever the policy: it ended with status 3" in json.loads(capfd.readouterr().err.splitlines()[-1])["error"]


def test_opa_server_that_is_not_there_ends_the_start_but_not_as_a_configuration_error(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = f"listen: [{{unix: {home}/run/s.sock}}]\nstate_dir: {home}/state\nprofiles: {{paths: [{home}/profiles]}}\n"
    (home / "c.yaml").write_text(f"{paths}policy: {{engine: opa, opa: {{url: 'unix://{home}/opa.sock'}}}}\n")
    assert started_with(home) == EX_SOFTWARE
    error = json.loads(capfd.readouterr().err.splitlines()[-1])["error"]
    assert f"policy.opa.url 'unix://{home}/opa.sock': the OPA server does not answer: it cannot be reached" in error
    assert "start OPA there with `opa run --server`, or correct policy.opa" in error


def test_spawner_that_is_gone_ends_the_start(home: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    assert daemon.main(["--spawner-fd", str(theirs.detach())]) == EX_SOFTWARE


def started_with(home: Path) -> int:
    """The exit code of the whole process, told hello by a spawner that then says nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        wire.send(ours, wire.Hello("root", "6.1.0", (), templates(home), 0))
        return daemon.main(["--config", str(home / "c.yaml"), "--spawner-fd", str(theirs.detach())])
