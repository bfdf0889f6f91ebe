"""Looks at a living payload from outside, as root, and believes only /proc: every thread, then again after 50 more.

What a sandbox claims about itself is not asked. The expected values stand in `expected`.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.client import Accepted, Chunk, Client, Event
from tests import proc
from tests.daemon import RunningDaemon
from tests.posture import expected
from tests.skips import need_root

PAYLOAD = (Path(__file__).parent / "payload.py").read_bytes()
PROFILE = "default"


@dataclass(frozen=True, slots=True)
class Living:
    """One payload that stands still. `pid` is the host's."""

    execution_id: str
    pid: int
    events: Iterator[Event]

    def await_output(self, line: bytes) -> None:
        for event in self.events:
            if isinstance(event, Chunk) and line in event.data:
                return
        raise AssertionError(f"the payload ended before it said {line!r}")


@contextlib.contextmanager
def _living(daemon: RunningDaemon, client: Client) -> Iterator[Living]:
    before = {process.pid for process in proc.with_argument(daemon.process.pid, "payload.py")}
    argv = ["/usr/bin/python3", "payload.py"]
    with contextlib.closing(client.execute(argv, files={"payload.py": PAYLOAD}, profile=PROFILE)) as events:
        accepted = next(events)
        assert isinstance(accepted, Accepted)
        living = Living(accepted.execution_id, 0, events)
        living.await_output(b"up")
        (pid,) = {process.pid for process in proc.with_argument(daemon.process.pid, "payload.py")} - before
        yield Living(accepted.execution_id, pid, events)


@pytest.fixture
def two(daemon: RunningDaemon, client: Client) -> Iterator[tuple[Living, Living]]:
    need_root()
    with _living(daemon, client) as first, _living(daemon, client) as second:
        yield first, second


@pytest.fixture
def column(daemon: RunningDaemon) -> expected.Expected:
    return expected.COLUMNS[daemon.mode]


def _check_threads(pid: int, column: expected.Expected, at_least: int) -> set[int]:
    tids = proc.threads(pid)
    assert len(tids) >= at_least
    uids = set()
    for tid in tids:
        status = proc.status(pid, tid)
        assert status["Seccomp"] == "2"
        assert int(status.get("Seccomp_filters", "1")) >= 1
        assert status["NoNewPrivs"] == "1"
        for name in expected.CAPABILITY_SETS:
            assert int(status[name], 16) == 0, name
        uids |= {int(word) for word in status["Uid"].split()}
        gids = {int(word) for word in status["Gid"].split()}
        assert status["Groups"].split() == [], "no supplementary group"
        assert status["NSpid"].split()[-1] != status["Pid"], "in a pid namespace of its own"
        assert 0 not in gids
        assert gids <= set(column.ids)
    return uids


def test_every_thread_is_confined_and_50_more_as_well(
    two: tuple[Living, Living], column: expected.Expected, client: Client
) -> None:
    living, _ = two
    uids = _check_threads(living.pid, column, 1)
    client.kill(living.execution_id, signal.SIGUSR1)
    living.await_output(b"more")
    uids |= _check_threads(living.pid, column, 51)
    assert 0 not in uids
    assert len(uids) == 1
    assert uids <= set(column.ids)


def test_host_uid_belongs_to_one_sandbox(two: tuple[Living, Living], column: expected.Expected) -> None:
    first, second = (proc.status(living.pid)["Uid"].split()[0] for living in two)
    assert (first != second) == column.uid_per_sandbox


def test_every_namespace_differs_from_the_daemons_and_the_neighbours(
    two: tuple[Living, Living], daemon: RunningDaemon
) -> None:
    first, second = (proc.namespaces(living.pid) for living in two)
    own = proc.namespaces(proc.daemon_pid(daemon.process.pid))
    host = proc.namespaces(os.getpid())
    for kind in proc.NAMESPACES:
        assert len({first[kind], second[kind]} | {own[kind], host[kind]}) >= 3, f"{kind} is shared"
        assert first[kind] not in (second[kind], own[kind], host[kind]), kind
        assert second[kind] not in (own[kind], host[kind]), kind


def test_cgroup_is_the_sandboxs_own(two: tuple[Living, Living], client: Client) -> None:
    """Where the report says that a cgroup holds memory, both payloads are in one each, below the daemon's subtree."""
    rows = {row.guarantee: row for runtime in client.capabilities().runtimes for row in runtime.rows}
    paths = [
        {
            line.split(":", 2)[1]: line.split(":", 2)[2]
            for line in Path(f"/proc/{p.pid}/cgroup").read_text().splitlines()
        }
        for p in two
    ]
    if not any("cgroup" in layer for layer in rows["limit.memory"].layers):
        assert rows["limit.memory"].reason
        return
    controllers = [name for name in paths[0] if {"memory", "pids", "freezer", "cpu"} & set(name.split(",")) or not name]
    limited = [name for name in controllers if "sandboxd" in paths[0][name]]
    assert limited, paths[0]
    for name in limited:
        assert paths[0][name] != paths[1][name]
        assert "/sandboxd-" in paths[0][name]


def _bound(client: Client) -> dict[str, bool]:
    """Target → executable, of everything that the profile may bind."""
    spec = json.loads(client.profile(PROFILE).spec_json)
    binds = spec["root"]["binds"]
    targets = {bind.get("target") or bind["source"]: bool(bind.get("executable")) for bind in binds}
    return targets | {package["path"]: True for package in spec.get("packages", ())}


def test_mounts_are_the_expected_ones_with_their_flags(two: tuple[Living, Living], client: Client) -> None:
    bound = _bound(client)
    seen = set()
    for point, _, flags, _, optional in proc.mounts(two[0].pid):
        guarded = flags & expected.GUARDED_FLAGS
        assert not [field for field in optional if field.startswith(("shared:", "master:", "propagate_from:"))], point
        seen.add(point)
        if point in expected.MOUNTS:
            assert guarded == expected.MOUNTS[point], f"{point} has {sorted(flags)}"
        elif point.startswith("/proc/"):
            assert guarded >= expected.PROC_PART, f"{point} has {sorted(flags)}"
        else:
            above = [target for target in bound if point == target or point.startswith(target + "/")]
            assert above, f"{point} is in no profile"
            wanted = expected.BOUND if bound[max(above, key=len)] else expected.BOUND | {"noexec"}
            assert guarded == wanted, f"{point} has {sorted(flags)}"
    assert set(expected.MOUNTS) - seen <= {"/proc/sys"}, "nothing that must be there is missing"


def test_descriptors_are_the_three_streams(two: tuple[Living, Living]) -> None:
    for living in two:
        names = sorted(int(entry.name) for entry in Path(f"/proc/{living.pid}/fd").iterdir())
        assert names == [0, 1, 2]
        targets = {str(Path(f"/proc/{living.pid}/fd/{name}").readlink()) for name in names}
        assert all(target.startswith(("pipe:", "/memfd:", "/dev/null")) for target in targets), targets


def test_environment_has_the_profiles_keys(two: tuple[Living, Living], client: Client) -> None:
    block = Path(f"/proc/{two[0].pid}/environ").read_bytes().rstrip(b"\0")
    pairs = dict(pair.decode().split("=", 1) for pair in block.split(b"\0"))
    assert set(pairs) - expected.ENVIRONMENT_OF_PYTHON == {name for name, _ in client.profile(PROFILE).env}


def test_rlimits_are_the_profiles(two: tuple[Living, Living], client: Client) -> None:
    limits = dict(client.profile(PROFILE).limits)
    rows = {}
    for line in Path(f"/proc/{two[0].pid}/limits").read_text().splitlines()[1:]:
        rows[line[:26].strip()] = tuple(line[26:].split()[:2])
    assert rows["Max open files"] == (str(int(limits["open_files"])),) * 2
    assert rows["Max file size"] == (str(int(limits["file_size_bytes"])),) * 2
    assert rows["Max core file size"][1] in ("0", "1")
    assert rows["Max realtime priority"] == ("0", "0")
    assert rows["Max nice priority"] == ("0", "0")
    assert rows["Max pending signals"][1] != "unlimited"
    assert rows["Max msgqueue size"] == ("0", "0")
    assert rows["Max locked memory"][1] != "unlimited"


def test_kernel_kills_a_payload_before_the_daemon(two: tuple[Living, Living], daemon: RunningDaemon) -> None:
    own = int(Path(f"/proc/{proc.daemon_pid(daemon.process.pid)}/oom_score_adj").read_text())
    spawner = int(Path(f"/proc/{daemon.process.pid}/oom_score_adj").read_text())
    assert int(Path(f"/proc/{two[0].pid}/oom_score_adj").read_text()) > max(own, spawner)


def test_sandbox_uid_may_not_be_dumped_by_another_uid(two: tuple[Living, Living]) -> None:
    """init: its environment, memory and descriptors belong to root alone, since it is not dumpable."""
    for living in two:
        init = int(proc.status(living.pid)["PPid"])
        environ = Path(f"/proc/{init}/environ")
        assert environ.stat().st_uid in (0, 65534)
        names = {pair.partition(b"=")[0].decode() for pair in environ.read_bytes().split(b"\0") if pair}
        assert names <= expected.ENVIRONMENT_OF_INIT


def test_no_process_of_a_sandbox_has_host_uid_0(two: tuple[Living, Living], daemon: RunningDaemon) -> None:
    groups = proc.sandboxes(daemon.process.pid)
    assert len(groups) >= 2
    for process in (process for group in groups for process in group):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            assert "0" not in proc.status(process.pid)["Uid"].split(), process


def test_daemon_has_no_privilege(daemon: RunningDaemon) -> None:
    need_root()
    status = proc.status(proc.daemon_pid(daemon.process.pid))
    assert status["NoNewPrivs"] == "1"
    for name in expected.CAPABILITY_SETS:
        assert int(status[name], 16) == 0, name
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert status["Groups"].split() == []
