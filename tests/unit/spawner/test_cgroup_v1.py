"""Against the real hierarchies of this machine, as root."""

import errno
import os
import select
import signal
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from sandboxd.spawner import cgroup, counters
from sandboxd.spawner.cgroup_base import CgroupLimits
from sandboxd.spawner.cgroup_v1 import V1Cgroup, V1Tree
from tests.unit.spawner.conftest import SANDBOX_ID, Children

MEBIBYTE = 1 << 20


@pytest.fixture
def made(v1_tree: V1Tree) -> Iterator[V1Cgroup]:
    sandbox = v1_tree.create(SANDBOX_ID)
    yield sandbox
    sandbox.kill()
    sandbox.remove()


def _file(tree: V1Tree, controller: str, name: str) -> str:
    return tree._base[controller].read(f"{SANDBOX_ID}/{name}").strip()


def _allocate() -> None:
    held = []
    while True:
        held.append(bytearray(MEBIBYTE))


def test_limits_stand_in_the_kernel(v1_tree: V1Tree, made: V1Cgroup) -> None:
    set_now = made.limit(CgroupLimits(memory_bytes=32 * MEBIBYTE, pids=7, cpus=0.25))
    assert {"memory", "pids", "cpus"} <= set(set_now)
    assert _file(v1_tree, "memory", "memory.limit_in_bytes") == str(32 * MEBIBYTE)
    if "swap" in set_now:
        assert _file(v1_tree, "memory", "memory.memsw.limit_in_bytes") == str(32 * MEBIBYTE)
    assert _file(v1_tree, "pids", "pids.max") == "7"
    assert _file(v1_tree, "cpu", "cpu.cfs_quota_us") == "25000"


@pytest.mark.parametrize("second", [16 * MEBIBYTE, 128 * MEBIBYTE, 0])
def test_memory_limit_may_change_in_either_direction(v1_tree: V1Tree, made: V1Cgroup, second: int) -> None:
    made.limit(CgroupLimits(memory_bytes=64 * MEBIBYTE))
    made.limit(CgroupLimits(memory_bytes=second))
    limit = int(_file(v1_tree, "memory", "memory.limit_in_bytes"))
    assert limit == second if second else limit > 1 << 60


def test_what_is_set_already_is_not_written_again(v1_tree: V1Tree, made: V1Cgroup) -> None:
    limits = CgroupLimits(memory_bytes=32 * MEBIBYTE, pids=7, cpus=0.5)
    named = made.limit(limits)
    v1_tree._base["pids"].write(f"{SANDBOX_ID}/pids.max", "9")  # a second write of ours would take this back
    assert made.limit(limits) == named
    assert _file(v1_tree, "pids", "pids.max") == "9"


def test_bandwidth_limit_names_each_disk(v1_tree: V1Tree, made: V1Cgroup) -> None:
    set_now = made.limit(CgroupLimits(io_read_bytes_per_second=MEBIBYTE))
    lines = _file(v1_tree, "blkio", "blkio.throttle.read_bps_device").splitlines()
    assert lines == [f"{device} {MEBIBYTE}" for device in sorted(v1_tree._devices)]
    assert ("io" in set_now) == bool(v1_tree._devices)
    assert _file(v1_tree, "blkio", "blkio.throttle.write_bps_device") == ""


def test_all_sandboxes_together_weigh_as_one_process_on_each_cpu(v1_tree: V1Tree) -> None:
    assert v1_tree._base["cpu"].read("cpu.shares").strip() == str(1024 * (os.cpu_count() or 1))


def test_cpu_limit_above_the_parents_is_left_to_the_parent(v1_tree: V1Tree, subtree: str) -> None:
    parent = v1_tree._base["cpu"]
    parent.write("cpu.cfs_quota_us", "50000")
    inner = V1Tree("inner", {"cpu": v1_tree._own["cpu"].child(subtree)}, {"cpu": v1_tree._roots["cpu"]})
    try:
        sandbox = inner.create(SANDBOX_ID)
        with pytest.raises(OSError, match="value '100000'") as refused:  # the control: this is what v1 does
            inner._base["cpu"].write(f"{SANDBOX_ID}/cpu.cfs_quota_us", "100000")
        assert refused.value.errno == errno.EINVAL
        assert sandbox.limit(CgroupLimits(cpus=1.0)) == ("cpus",)
        assert sandbox.limit(CgroupLimits(cpus=0.25)) == ("cpus",)
        assert inner._base["cpu"].read(f"{SANDBOX_ID}/cpu.cfs_quota_us").strip() == "25000"
        sandbox.remove()
    finally:
        inner.close()


def test_attached_process_is_in_every_hierarchy(v1_tree: V1Tree, made: V1Cgroup, children: Children) -> None:
    pid = children.start(before=made.attach)
    for base in v1_tree._base.values():
        assert base.read(f"{SANDBOX_ID}/cgroup.procs").split() == [str(pid)]


def test_fork_beyond_the_pids_limit_fails_and_is_counted(made: V1Cgroup, children: Children) -> None:
    made.limit(CgroupLimits(pids=1))
    reported, report = os.pipe()

    def fork_once() -> None:
        try:
            os.fork()
        except BlockingIOError:
            os.write(report, b"refused")

    children.start(fork_once, before=made.attach)
    assert os.read(reported, 16) == b"refused"
    numbers = dict(made.usage())
    assert (numbers["pids_denied"], numbers["peak_pids"]) == (1, 1)
    os.close(reported)
    os.close(report)


def test_memory_beyond_the_limit_kills_and_tells(made: V1Cgroup, children: Children) -> None:
    made.limit(CgroupLimits(memory_bytes=16 * MEBIBYTE))
    fds = dict(made.counters())
    try:
        with closing(select.epoll()) as poller:
            poller.register(fds[counters.OOM], select.EPOLLIN)
            pid = children.start(_allocate, before=made.attach)
            assert poller.poll(30) == [(fds[counters.OOM], select.EPOLLIN)]
        assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
        numbers = dict(counters.read(fds))
        assert numbers["oom_kills"] >= 1
        assert 0 < numbers["peak_memory_bytes"] <= 16 * MEBIBYTE
    finally:
        for fd in fds.values():
            os.close(fd)


def test_cpu_time_is_counted(made: V1Cgroup, children: Children) -> None:
    reported, report = os.pipe()

    def burn() -> None:
        while sum(os.times()[:2]) < 0.05:
            pass
        os.write(report, b"!")

    children.start(burn, before=made.attach)
    os.read(reported, 1)
    numbers = dict(made.usage())
    assert numbers["cpu_user_seconds"] + numbers["cpu_system_seconds"] > 0.02
    os.close(reported)
    os.close(report)


def test_kill_ends_stopped_and_stubborn_processes_and_their_children(made: V1Cgroup, children: Children) -> None:
    reported, report = os.pipe()

    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            os.write(report, b"!")
            os.kill(os.getpid(), signal.SIGSTOP)
        signal.pause()

    pid = children.start(stubborn, before=made.attach)
    os.read(reported, 1)
    made.kill()
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
    made.remove()
    os.close(report)
    assert os.read(reported, 1) == b""  # the grandchild held the other end
    os.close(reported)


def test_kill_ends_a_fork_bomb(made: V1Cgroup, children: Children) -> None:
    made.limit(CgroupLimits(pids=64))

    def bomb() -> None:
        while True:
            with suppress(BlockingIOError):
                os.fork()

    pid = children.start(bomb, before=made.attach)
    made.kill()
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
    made.remove()
    made.remove()


def test_leftovers_of_an_earlier_run_are_killed_and_removed(v1_tree: V1Tree, subtree: str, children: Children) -> None:
    pid = children.start(before=v1_tree.create(SANDBOX_ID).attach)
    v1_tree.create("f" * 32)
    later = cgroup.detect(subtree)
    assert later.reconcile() == 2
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
    assert all(not base.subdirectories() for base in v1_tree._base.values())
    assert later.reconcile() == 0
    later.close()


def test_leftovers_in_another_cgroup_are_found(v1_tree: V1Tree, subtree: str) -> None:
    elsewhere = v1_tree._own["pids"]
    elsewhere.make(f"{subtree}-moved")
    elsewhere.make(f"{subtree}-moved/{subtree}")
    elsewhere.make(f"{subtree}-moved/{subtree}/{SANDBOX_ID}")
    try:
        assert v1_tree.reconcile() == 1
        assert elsewhere.child(f"{subtree}-moved").subdirectories() == []
    finally:
        for name in (f"{subtree}-moved/{subtree}/{SANDBOX_ID}", f"{subtree}-moved/{subtree}", f"{subtree}-moved"):
            with suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=elsewhere.fd)


def test_half_made_sandbox_is_taken_back(v1_tree: V1Tree) -> None:
    last = v1_tree._hierarchies[-1]
    last.make(SANDBOX_ID)
    with pytest.raises(FileExistsError):
        v1_tree.create(SANDBOX_ID)
    assert [base.path for base in v1_tree._hierarchies if base.has(SANDBOX_ID)] == [last.path]


def test_nothing_is_left_after_close(subtree: str, v1_tree: V1Tree) -> None:
    paths = [base.path for base in v1_tree._base.values()]
    other = cgroup.detect(f"{subtree}-other")
    assert isinstance(other, V1Tree)
    other_paths = [base.path for base in other._base.values()]
    other.close()
    assert [path for path in other_paths if os.access(path, os.F_OK)] == []
    assert [path for path in paths if not os.access(path, os.F_OK)] == []


def _counting(children: Children, made: V1Cgroup) -> tuple[int, int]:
    """A child of that cgroup that writes as long as it runs; its pid, and where that is read."""
    read, write = os.pipe2(os.O_NONBLOCK)

    def count() -> None:
        while True:
            with suppress(BlockingIOError):
                os.write(write, b".")

    pid = children.start(count, before=made.attach)
    os.close(write)
    return pid, read


def _drained(fd: int) -> int:
    found = 0
    with suppress(BlockingIOError):
        while piece := os.read(fd, 1 << 20):
            found += len(piece)
    return found


def _frozen(made: V1Cgroup) -> None:
    while not made.freeze():
        pass


def test_frozen_process_does_nothing_until_it_is_thawed(made: V1Cgroup, children: Children) -> None:
    _, read = _counting(children, made)
    _frozen(made)
    _drained(read)
    assert _drained(read) == 0, "all that it had written was read, and nothing came after"
    made.thaw()
    assert select.select([read], [], [], 30)[0]
    os.close(read)


def test_frozen_process_dies_of_a_kill_without_another_instruction(made: V1Cgroup, children: Children) -> None:
    pid, read = _counting(children, made)
    _frozen(made)
    _drained(read)
    os.kill(pid, signal.SIGKILL)
    made.let_die()
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
    assert os.read(read, 1) == b""
    os.close(read)


def test_v1_keeps_what_is_frozen_from_dying_so_kill_and_reconcile_thaw_it(
    v1_tree: V1Tree, made: V1Cgroup, children: Children
) -> None:
    for end in (made.kill, v1_tree.let_die, v1_tree.reconcile):
        made = v1_tree.create(SANDBOX_ID) if end == v1_tree.reconcile else made
        pid, read = _counting(children, made)
        _frozen(made)
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the control: it does not die of that"
        end()
        assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
        os.close(read)
        if end == v1_tree.let_die:
            made.remove()


def test_cgroup_without_a_freezer_says_so(v1_tree: V1Tree, made: V1Cgroup) -> None:
    made._base = {name: base for name, base in v1_tree._base.items() if name != "freezer"}
    for verb in (made.freeze, made.thaw):
        with pytest.raises(OSError, match="freezer"):
            verb()
    made.let_die()
