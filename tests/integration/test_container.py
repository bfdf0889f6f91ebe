"""sandboxd as a pod: in what an engine makes of the DaemonSet's manifest, with the capabilities that it lists.

The manifest is read by the test, so that what is promised there is what is tried here.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sandboxd.client import EndReason, Result, State
from tests import container, proc, restart
from tests.daemon import CHECKOUT, Mode, RunningDaemon, configuration, start_daemon, wait_until_it_answers
from tests.skips import need_root

MANIFEST = CHECKOUT / "deploy/kubernetes/base/daemonset.yaml"
PROFILE = "build"  # the widest of those shipped: loopback, an executable workspace


def listed() -> tuple[str, ...]:
    (only,) = YAML(typ="safe").load(MANIFEST)["spec"]["template"]["spec"]["containers"]
    return tuple(only["securityContext"]["capabilities"]["add"])


@pytest.fixture(scope="module")
def pod() -> Iterator[RunningDaemon]:
    need_root()
    with start_daemon(Mode.ROOT, within=container.prefix(listed())) as daemon:
        yield daemon


def states(result: Result) -> dict[str, State]:
    return {row.guarantee: row.state for row in result.enforcement.rows}


def test_container_is_as_engines_make_them() -> None:
    """Control: without this the other tests would show nothing."""
    need_root()
    say = (
        "import os; from pathlib import Path;"
        "flags = {l.split()[4]: l.split()[5] for l in open('/proc/self/mountinfo')};"
        "ro = sorted(p for p, f in flags.items() if f.startswith('ro'));"
        "print(os.getpid(), [l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')]);"
        "print(*ro)"
    )
    done = subprocess.run(
        [*container.prefix(("KILL",)), sys.executable, "-c", say],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    first, mounts = done.stdout.splitlines()
    kill_only = f"{1 << 5:016x}"
    assert first == f"1 {['0' * 16, kill_only, kill_only, kill_only, '0' * 16]}"
    assert {"/", "/sys", "/proc/sys", "/proc/irq"} <= set(mounts.split())
    assert any(point.startswith("/sys/fs/cgroup") for point in mounts.split())


def test_program_has_every_guarantee_that_it_has_on_the_node_itself(
    pod: RunningDaemon, daemon_root: RunningDaemon
) -> None:
    argv = ["/bin/sh", "-c", "id -u; cp /bin/echo . && ./echo made"]
    with pod.client() as inside, daemon_root.client() as outside:
        in_pod = inside.run(argv, profile=PROFILE, network="loopback")
        on_node = outside.run(argv, profile=PROFILE, network="loopback")
    assert (in_pod.stdout, in_pod.exit_code) == (b"1000\nmade\n", 0)
    assert states(in_pod) == states(on_node)
    assert states(in_pod)["limit.memory"] == State.ENFORCED
    assert states(in_pod)["limit.pids"] == State.ENFORCED


def test_memory_limit_ends_a_program(pod: RunningDaemon) -> None:
    with pod.client() as client:
        result = client.run(["/usr/bin/python3", "-c", "bytearray(300 << 20)"], limits={"memory_bytes": 100 << 20})
    assert result.end_reason == EndReason.MEMORY_LIMIT


def test_payload_is_nobody_of_the_node_and_cannot_change_its_kernel(pod: RunningDaemon) -> None:
    attempt = "echo x > /proc/sys/kernel/core_pattern || echo refused; cat /proc/self/status; sleep 1000"
    with pod.client() as client:
        events = client.execute(["/bin/sh", "-c", attempt], profile=PROFILE)
        seen = b""
        for event in events:
            seen += getattr(event, "data", b"")
            if b"nonvoluntary_ctxt_switches" in seen:
                break
        (program, *_) = proc.with_argument(pod.process.pid, "core_pattern")
        uids = proc.status(program.pid)["Uid"].split()
        client.kill(client.executions(living_only=True)[0].execution_id)
        list(events)
    assert b"refused" in seen
    assert all(int(uid) >= 1 << 30 for uid in uids)


def test_orphans_of_a_killed_daemon_do_not_stay_as_zombies_of_pid_1(pod: RunningDaemon) -> None:
    """In a container the spawner is PID 1, to whom the daemon's own children fall."""
    former = proc.daemon_pid(pod.process.pid)
    workers = [process.pid for process in proc.descendants(former)]
    assert workers
    restart.kill(former)
    proc.until(lambda: former not in proc.processes(), "the daemon is dead")
    wait_until_it_answers(pod)
    proc.until(lambda: not any(Path("/proc", str(pid)).exists() for pid in workers), "its children are reaped")


def test_second_life_on_the_same_state_needs_no_further_capability(pod: RunningDaemon) -> None:
    with start_daemon(Mode.ROOT, within=container.prefix(listed())) as daemon:
        with daemon.client() as client:
            client.run(["/bin/true"])
        daemon.process.terminate()
        daemon.process.wait(60)
        with restart.restarted(daemon) as again, again.client() as client:
            assert client.run(["/bin/echo", "again"]).stdout == b"again\n"


@pytest.mark.parametrize("name", listed())
def test_one_capability_less_refuses_the_start_by_its_name(name: str, tmp_path: Path) -> None:
    need_root()
    tmp_path.chmod(0o755)
    config = tmp_path / "config.yaml"
    config.write_text(configuration(tmp_path / "run/s.sock", tmp_path / "state"))
    rest = tuple(other for other in listed() if other != name)
    done = subprocess.run(
        [*container.prefix(rest), sys.executable, "-m", "sandboxd", "serve", "--config", str(config)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode not in (0, 70), done.stderr
    assert f"CAP_{name}" in done.stderr
    assert "Traceback" not in done.stderr
