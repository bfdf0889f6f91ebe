"""The shipped unit under a real systemd: readiness, cgroups, reload, stop, restart, and refusals it must not repeat."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.client import Chunk, Client, EndReason, Result, SandboxdError, State
from tests import proc
from tests.daemon import CGROUP_ROOT, CHECKOUT
from tests.deploy.booted import SYSTEMD, Booted, boot
from tests.deploy.test_manifests import DEPLOY
from tests.skips import need_program, need_root

pytestmark = pytest.mark.systemd

UNIT = "sandboxd.service"
CONFIG = f"profiles: {{paths: [{CHECKOUT}/profiles, /etc/sandboxd/profiles]}}\ndrain_grace_seconds: 1\n"
PROFILE = """apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata: {name: NAME}
spec: {description: of this test, extends: default}
"""
SLEEP = ["/bin/sh", "-c", "echo up; exec sleep 1000"]


@pytest.fixture(scope="module")
def booted() -> Iterator[Booted]:
    need_root()
    need_program(SYSTEMD, "systemd")
    accounts = {
        name: Path("/etc", name).read_text() + line
        for name, line in (
            ("passwd", "sandboxd:x:64330:64330::/nonexistent:/usr/sbin/nologin\n"),
            ("group", "sandboxd:x:64330:\n"),
        )
    }
    files = {
        f"systemd/system/{UNIT}": (DEPLOY / "systemd" / UNIT).read_text(),
        "sandboxd/config.yaml": CONFIG,
        "sandboxd/profiles/first.yaml": PROFILE.replace("NAME", "first"),
        **accounts,
    }
    with boot(files) as running:
        yield running


@pytest.fixture
def service(booted: Booted) -> Iterator[Booted]:
    """Started, and stopped afterwards whatever became of it."""
    started = booted.systemctl("start", UNIT)
    assert started.returncode == 0, f"{started.stderr}\n{booted.systemctl('status', '--lines=40', UNIT).stdout}"
    yield booted
    booted.systemctl("stop", UNIT)
    booted.systemctl("reset-failed", UNIT)


def client_of(service: Booted) -> Client:
    return Client(f"unix:{service.root}/run/sandboxd/sandboxd.sock")


def main_pid(service: Booted) -> int:
    """The host's number of the unit's main process, which is a child of systemd and has a number of its own there."""
    inner = service.show(UNIT, "MainPID")
    children = (process.pid for process in proc.descendants(service.pid) if process.parent == service.pid)
    (found,) = (pid for pid in children if _number_inside(pid) == inner)
    return found


def _number_inside(pid: int) -> str | None:
    """A process's number in the innermost of its pid namespaces; none if it has ended since it was listed."""
    try:
        return proc.status(pid)["NSpid"].split()[-1]
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_unit_is_started_when_it_serves_and_not_before(service: Booted) -> None:
    """No waiting: `systemctl start` came back because READY=1 had come."""
    with client_of(service) as client:
        assert client.run(["/bin/echo", "first"]).stdout == b"first\n"
    assert service.show(UNIT, "ActiveState") == "active"
    assert service.show(UNIT, "StatusText") == "serving /run/sandboxd/sandboxd.sock"


def test_unit_has_the_capabilities_that_it_names_and_the_daemon_none(service: Booted) -> None:
    spawner = main_pid(service)
    wanted = {0, 5, 6, 7, 8, 12, 18, 21}  # CHOWN KILL SETGID SETUID SETPCAP NET_ADMIN SYS_CHROOT SYS_ADMIN
    assert int(proc.status(spawner)["CapBnd"], 16) == sum(1 << number for number in wanted)
    daemon = proc.status(proc.daemon_pid(spawner))
    assert int(daemon["CapEff"], 16) == 0
    assert daemon["Uid"].split() == ["64330"] * 4


def test_sandboxes_are_in_the_delegated_cgroup_and_confined_in_full(service: Booted) -> None:
    with client_of(service) as client:
        events = client.execute(SLEEP)
        assert any(isinstance(event, Chunk) for event in events)
        (program,) = proc.with_argument(main_pid(service), "1000")
        lines = [line.split(":", 2) for line in Path(f"/proc/{program.pid}/cgroup").read_text().splitlines()]
        for execution in client.executions(living_only=True):
            client.kill(execution.execution_id)
        (result,) = (event for event in events if isinstance(event, Result))
        rows = {row.guarantee: row for row in client.run(["/bin/true"]).enforcement.rows}
    assert result.end_reason is EndReason.KILLED
    layer, limiting = (
        ("cgroup v2", {""}) if (CGROUP_ROOT / "cgroup.controllers").exists() else ("cgroup v1", {"memory", "pids"})
    )
    groups = {names: path for _, names, path in lines if names in limiting}
    assert set(groups) == limiting
    assert all(f"/{UNIT}/" in path for path in groups.values()), groups
    for guarantee in ("limit.memory", "limit.pids", "limit.cpus"):
        assert (rows[guarantee].state, rows[guarantee].layers) == (State.ENFORCED, (layer,))
    for guarantee in ("namespace.mount", "filesystem.proc", "filesystem.dev", "capabilities.none", "no_new_privs"):
        assert rows[guarantee].state is State.ENFORCED


def test_reload_takes_new_profiles_and_keeps_the_old_if_one_is_wrong(service: Booted) -> None:
    directory = service.root / "etc/sandboxd/profiles"
    with client_of(service) as client:
        (directory / "second.yaml").write_text(PROFILE.replace("NAME", "second"))
        assert service.systemctl("reload", UNIT).returncode == 0
        proc.until(lambda: "second" in _names(client), "the new profile is there")
        (directory / "third.yaml").write_text("kind: nothing")
        service.systemctl("reload", UNIT)
        proc.until(lambda: "failed" in service.show(UNIT, "StatusText"), "it says that it did not reload")
        assert {"first", "second"} <= _names(client)
        assert client.run(["/bin/true"]).exit_code == 0
    (directory / "third.yaml").unlink()
    assert service.show(UNIT, "ActiveState") == "active"


def _names(client: Client) -> set[str]:
    return {profile.name for profile in client.profiles()}


def test_stop_drains_and_leaves_nothing(service: Booted) -> None:
    spawner = main_pid(service)
    with client_of(service) as client:
        events = client.execute(SLEEP)
        assert any(isinstance(event, Chunk) for event in events)
        assert service.systemctl("stop", UNIT).returncode == 0
        try:
            (result,) = (event for event in events if isinstance(event, Result))
        except SandboxdError:
            pass  # the connection may have closed before the last word
        else:
            assert result.end_reason is EndReason.NODE_SHUTDOWN
    assert service.show(UNIT, "ActiveState") == "inactive"
    assert service.show(UNIT, "Result") == "success"
    assert spawner not in proc.processes()
    assert not [p for p in proc.descendants(service.pid) if "sandboxd" in " ".join(p.argv)]


def test_killed_main_process_is_started_again(service: Booted) -> None:
    former = main_pid(service)
    os.kill(former, signal.SIGKILL)
    proc.until(lambda: service.show(UNIT, "NRestarts") == "1", "systemd starts it again")
    assert service.systemctl("start", UNIT).returncode == 0, "it is ready again"
    assert main_pid(service) != former
    with client_of(service) as client:
        assert client.run(["/bin/echo", "again"]).stdout == b"again\n"


def test_wrong_configuration_is_not_tried_again(booted: Booted) -> None:
    config = booted.root / "etc/sandboxd/config.yaml"
    config.write_text("nonsense: 1\n")
    try:
        assert booted.systemctl("start", UNIT).returncode != 0
        assert booted.show(UNIT, "ExecMainStatus") == "78"
        assert booted.show(UNIT, "ActiveState") == "failed"
        assert booted.show(UNIT, "NRestarts") == "0"
    finally:
        config.write_text(CONFIG)
        booted.systemctl("reset-failed", UNIT)
