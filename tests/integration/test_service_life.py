"""What a service manager and an operator see of sandboxd: readiness, reload, drain, and refusals to start.

Each test has a daemon of its own. Kills are in `test_cleanup_kill`, the parts on a fake spawner in the unit tests.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sandboxd.client import AuditUnavailable, Client, Draining, EndReason, Result, SandboxdError
from tests import in_flight, leftovers, proc, restart
from tests.daemon import CHECKOUT, Mode, RunningDaemon, configuration, start_daemon, wait_until_it_answers
from tests.skips import need_root

SLEEP = ["/bin/sh", "-c", "echo up; exec sleep 1000"]
SECONDS = 120.0


@pytest.fixture(autouse=True)
def _as_root() -> None:
    need_root()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The notify socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(SECONDS)
        yield listening


@contextlib.contextmanager
def running(client: Client) -> Iterator[list[Result | SandboxdError]]:
    """A program that has said its first word; its end is put into the list when the block is left."""
    ends: list[Result | SandboxdError] = []
    events = client.execute(SLEEP)
    next(events)
    next(events)
    yield ends
    try:
        ends += [event for event in events if isinstance(event, Result)]
    except SandboxdError as error:
        ends.append(error)


def told(manager: socket.socket) -> dict[str, str]:
    pairs = (line.partition("=") for line in manager.recv(4096).decode().splitlines())
    return {name: value for name, _, value in pairs}


def serve(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandboxd", "serve", "--config", str(config)],
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def test_service_manager_hears_of_readiness_reloads_and_the_stop(manager: socket.socket, tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    shutil.copytree(CHECKOUT / "profiles", profiles)
    within = ("/usr/bin/env", f"NOTIFY_SOCKET={manager.getsockname()}")
    with start_daemon(Mode.ROOT, f"profiles: {{paths: [{profiles}]}}\n", within) as daemon:
        ready = told(manager)
        assert (ready["READY"], ready["STATUS"]) == ("1", f"serving {daemon.socket}")

        daemon.reload()
        assert told(manager)["RELOADING"] == "1"
        assert told(manager) == ready

        (profiles / "default.yaml").write_text("nonsense")
        daemon.reload()
        assert int(told(manager)["MONOTONIC_USEC"]) > 0
        assert "reload failed" in told(manager)["STATUS"]

        daemon.process.terminate()
        assert told(manager) == {"STOPPING": "1"}
        assert daemon.process.wait(SECONDS) == 0


def test_service_manager_that_is_gone_does_not_end_the_node(manager: socket.socket) -> None:
    with start_daemon(Mode.ROOT, "", ("/usr/bin/env", f"NOTIFY_SOCKET={manager.getsockname()}")) as daemon:
        manager.close()
        daemon.reload()
        proc.until(lambda: "config.reloaded" in str(daemon.journal()), "the reload is on record")
        with daemon.client() as client:
            assert client.run(["/bin/echo", "on"]).stdout == b"on\n"


def reloads(daemon: RunningDaemon) -> int:
    return str(daemon.journal()).count("config.reloaded")


def _until_reloaded(daemon: RunningDaemon, before: int) -> None:
    proc.until(lambda: reloads(daemon) > before, "the reload is on record, whether it went well or not")


def test_what_runs_goes_on_through_reloads_good_and_bad(tmp_path: Path) -> None:
    profiles, policies = tmp_path / "profiles", tmp_path / "policies"
    shutil.copytree(CHECKOUT / "profiles", profiles)
    shutil.copytree(CHECKOUT / "policies", policies)
    paths = f"profiles: {{paths: [{profiles}]}}\npolicy: {{paths: [{policies}]}}\n"

    with start_daemon(Mode.ROOT, paths) as daemon, daemon.client() as client, running(client) as ends:
        whole = (profiles / "shell.yaml").read_text()
        (rule, *_) = sorted(path for path in policies.rglob("*.rego") if "test" not in path.name)
        wrong = [(profiles / "shell.yaml", whole + "\nspecc: 1\n"), (rule, "package sandboxd\n{"), (rule, "")]
        for file, text in wrong:
            before, count = file.read_text(), reloads(daemon)
            file.write_text(text)
            daemon.reload()
            _until_reloaded(daemon, count)
            assert client.run(["/bin/echo", "as before"], profile="shell").stdout == b"as before\n"
            file.write_text(before)
        count = reloads(daemon)
        (profiles / "shell.yaml").write_text(whole.replace("    fixed:\n", "    fixed:\n      NEW: new\n"))
        daemon.reload()
        _until_reloaded(daemon, count)
        assert client.run(["/bin/sh", "-c", "echo $NEW"], profile="shell").stdout == b"new\n"
        (living,) = client.executions(living_only=True)
        client.kill(living.execution_id)
    (end,) = ends
    assert isinstance(end, Result)
    assert end.end_reason == EndReason.KILLED


def test_sigterm_lets_nothing_new_in_and_ends_what_runs_after_the_grace() -> None:
    with start_daemon(Mode.ROOT, "drain_grace_seconds: 3\n") as daemon, daemon.client() as client:
        with running(client) as ends:
            daemon.process.terminate()
            with pytest.raises(Draining):
                while True:  # until the signal has arrived
                    client.run(["/bin/true"])
        (end,) = ends
        assert isinstance(end, Result)
        assert end.end_reason == EndReason.NODE_SHUTDOWN
        assert daemon.process.wait(SECONDS) == 0


def test_second_sigterm_ends_everything_at_once() -> None:
    with start_daemon(Mode.ROOT, "drain_grace_seconds: 3600\n") as daemon:
        everything = leftovers.of_the_host(daemon)
        with daemon.client() as client, running(client) as ends:
            daemon.process.terminate()
            proc.until(lambda: '"draining"' in daemon.log.read_text(), "the drain has begun")
            daemon.process.terminate()
            assert daemon.process.wait(SECONDS) == 0
        assert isinstance(ends[0], SandboxdError)
        left = leftovers.of_the_host(daemon)
        assert not left.programs
        assert not left.cgroups
        assert not left.mounts - everything.mounts


WRONG = {
    "config": ("", "limmits: {}\n", ":4: limmits: unknown key"),
    "profile": ("profiles/default.yaml", "profiles: {paths: [DIR/profiles]}\n", "default.yaml:"),
    "policy": ("policies/sandboxd.rego", "policy: {paths: [DIR/policies]}\n", "sandboxd.rego:"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_wrong_file_at_the_start_is_named_with_its_line_and_not_tried_again(what: str, tmp_path: Path) -> None:
    broken, setting, message = WRONG[what]
    tmp_path.chmod(0o711)
    for data in ("profiles", "policies"):
        shutil.copytree(CHECKOUT / data, tmp_path / data)
    if broken:
        (file,) = tmp_path.rglob(Path(broken).name)
        file.write_text(file.read_text() + "\n)nonsense(\n")
    config = tmp_path / "config.yaml"
    config.write_text(
        configuration(tmp_path / "run/s.sock", tmp_path / "state") + setting.replace("DIR", str(tmp_path))
    )
    done = serve(config)
    said = done.stdout + done.stderr
    assert done.returncode == 78, said
    assert said.count(message) == 1, said
    assert "Traceback" not in said
    assert "starting it again" not in said


def test_two_never_share_a_state_directory_or_a_socket(tmp_path: Path) -> None:
    with start_daemon(Mode.ROOT) as daemon:
        same = serve(daemon.config)
        assert same.returncode == 1
        assert "another sandboxd uses" in same.stderr
        assert str(daemon.state_dir) in same.stderr
        other = tmp_path / "config.yaml"
        other.write_text(configuration(daemon.socket, tmp_path / "state"))
        tmp_path.chmod(0o711)
        taken = serve(other)
        assert taken.returncode == 78
        assert "another daemon serves" in taken.stdout + taken.stderr
        with daemon.client() as client:
            assert client.run(["/bin/echo", "first"]).stdout == b"first\n"


def test_daemon_opens_no_io_uring(daemon: RunningDaemon) -> None:
    """The event loop's library would."""
    for process in (psutil.Process(daemon.process.pid), *psutil.Process(daemon.process.pid).children()):
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile: a ring would stay
                assert str(descriptor.readlink()) != "anon_inode:[io_uring]"


def test_the_daemons_grpc_is_started_with_a_switch_that_it_knows(daemon: RunningDaemon) -> None:
    """A version without it complains, and serves each request by one thread more."""
    pid = proc.daemon_pid(daemon.process.pid)
    assert b"GRPC_EXPERIMENTS=-event_engine_listener" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert "experiment" not in daemon.log.read_text().lower()


def test_stale_socket_is_replaced() -> None:
    with start_daemon(Mode.ROOT) as daemon:
        restart.kill_spawner(daemon)
        daemon.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(daemon.socket))
            owner = daemon.socket.parent.stat()
            os.chown(daemon.socket, owner.st_uid, owner.st_gid)
        with restart.restarted(daemon) as again, again.client() as client:
            assert client.run(["/bin/echo", "again"]).stdout == b"again\n"


# The last argument is the configuration, which lies beside the state directory.
SMALL_DISK = 'for c; do :; done; s=${c%/*}/state; mkdir "$s"; mount -t tmpfs -o size=1m small "$s"; exec "$@"'


def test_full_disk_refuses_with_the_reason_until_there_is_room_again() -> None:
    within = ("/usr/bin/unshare", "--mount", "/bin/sh", "-ec", SMALL_DISK, "sh")
    with start_daemon(Mode.ROOT, within=within) as daemon, daemon.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0
        filling = Path(f"/proc/{proc.daemon_pid(daemon.process.pid)}/root{daemon.state_dir}/filling")
        with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with pytest.raises(AuditUnavailable):
            for _ in range(100):  # the last page of the journal may have room for a few
                client.run(["/bin/true"])
        filling.unlink()
        assert client.run(["/bin/echo", "room"]).stdout == b"room\n"
        said = daemon.log.read_text()
    assert "cannot be written" in said
    assert "raceback" not in said, "an operator is told what to do about it, not where in our code it was noticed"


def test_daemon_that_cannot_be_given_its_sandboxes_does_not_wait_for_them_for_ever() -> None:
    """With one uid for all, a program can use up how many descriptors of that user may be under way."""
    with start_daemon(Mode.ROOTLESS, within=("/usr/bin/prlimit", "--nofile=600:600")) as daemon:
        too_many = in_flight.may_have_open(daemon.process.pid) + 1
        with daemon.client() as client:
            with running(client), in_flight.under_way(Mode.ROOTLESS.uid, too_many):
                restart.kill(proc.daemon_pid(daemon.process.pid))
                proc.until(lambda: "Adopt cannot be sent" in daemon.log.read_text(), "the spawner could not send it")
                wait_until_it_answers(daemon)
                with pytest.raises(SandboxdError) as refused:
                    client.run(["/bin/true"])
                assert refused.value.reason == "launch_failed"
            assert client.run(["/bin/echo", "again"]).stdout == b"again\n"
