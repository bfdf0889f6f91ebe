"""Against a real v2 hierarchy; where that one has no controllers, the tests of limits skip."""

import errno
import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sandboxd.spawner import counters, sys
from sandboxd.spawner.cgroup_base import CgroupLimits
from sandboxd.spawner.cgroup_files import Directory, remove_tree
from sandboxd.spawner.cgroup_v2 import SUPERVISOR, V2Cgroup, V2Tree, enable, leave_leaf, move_to_leaf
from tests.skips import need_kernel
from tests.unit.spawner.conftest import SANDBOX_ID, Children

MEBIBYTE = 1 << 20


@pytest.fixture
def made(v2_tree: V2Tree) -> Iterator[V2Cgroup]:
    sandbox = v2_tree.create(SANDBOX_ID)
    yield sandbox
    sandbox.kill()
    sandbox.remove()


def _need(tree: V2Tree, controller: str) -> None:
    need_kernel(f"the {controller} controller in cgroup v2", present=controller in tree.controllers)


def test_child_is_born_in_its_cgroup(v2_tree: V2Tree, made: V2Cgroup, children: Children) -> None:
    pid, pidfd = sys.clone3(0, made.directory_fd)
    if pid == 0:
        while True:
            signal.pause()
    children.pids.append(pid)
    os.close(pidfd)
    assert v2_tree._base.read(f"{SANDBOX_ID}/cgroup.procs").split() == [str(pid)]


def test_attached_process_is_a_member(v2_tree: V2Tree, made: V2Cgroup, children: Children) -> None:
    pid = children.start(before=made.attach)
    assert v2_tree._base.read(f"{SANDBOX_ID}/cgroup.procs").split() == [str(pid)]


def test_kill_ends_stopped_and_stubborn_processes_and_their_children(made: V2Cgroup, children: Children) -> None:
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
    made.kill()
    made.remove()
    assert made.directory_fd is None
    os.close(report)
    assert os.read(reported, 1) == b""
    os.close(reported)


def test_kill_without_cgroup_kill_ends_a_fork_bomb_too(
    made: V2Cgroup, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Directory.write

    def old_kernel(self: Directory, name: str, value: str) -> None:
        if name == "cgroup.kill":
            raise FileNotFoundError(errno.ENOENT, "Linux before 5.14", name)
        write(self, name, value)

    monkeypatch.setattr(Directory, "write", old_kernel)

    def bomb() -> None:
        for _ in range(40):
            with suppress(BlockingIOError):
                os.fork()

    pid = children.start(bomb, before=made.attach)
    made.kill()
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL


def test_leftovers_are_killed_and_removed(v2_tree: V2Tree, made: V2Cgroup, children: Children) -> None:
    pid = children.start(before=made.attach)
    v2_tree._base.make(f"{SANDBOX_ID}/below")
    assert v2_tree.reconcile() == 1
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
    assert v2_tree._base.subdirectories() == []


def test_cpu_time_is_counted_without_any_controller(made: V2Cgroup) -> None:
    assert {"cpu_user_seconds", "cpu_system_seconds"} <= dict(made.usage()).keys()


def test_counters_are_readable_and_the_callers(made: V2Cgroup) -> None:
    fds = dict(made.counters())
    assert dict(counters.read(fds)).keys() == dict(made.usage()).keys()
    for fd in fds.values():
        os.close(fd)


def test_without_controllers_no_limit_is_claimed(made: V2Cgroup, v2_tree: V2Tree) -> None:
    need_kernel("a v2 hierarchy without controllers", present=not v2_tree.controllers)
    assert made.limit(CgroupLimits(memory_bytes=MEBIBYTE, pids=1, cpus=1.0, io_read_bytes_per_second=1)) == ()


def test_limits_stand_in_the_kernel(v2_tree: V2Tree, made: V2Cgroup) -> None:
    _need(v2_tree, "memory")
    assert {"memory", "pids"} <= set(made.limit(CgroupLimits(memory_bytes=32 * MEBIBYTE, pids=7, cpus=0.25)))
    directory = v2_tree._base
    assert directory.read(f"{SANDBOX_ID}/memory.max").strip() == str(32 * MEBIBYTE)
    assert directory.read(f"{SANDBOX_ID}/memory.oom.group").strip() == "1"
    assert directory.read(f"{SANDBOX_ID}/pids.max").strip() == "7"
    if v2_tree._swap:
        assert directory.read(f"{SANDBOX_ID}/memory.swap.max").strip() == "0"
    if "cpu" in v2_tree.controllers:
        assert directory.read(f"{SANDBOX_ID}/cpu.max").split() == ["25000", "100000"]


def test_bandwidth_limit_names_each_disk(v2_tree: V2Tree, made: V2Cgroup) -> None:
    _need(v2_tree, "io")
    set_now = made.limit(CgroupLimits(io_write_bytes_per_second=MEBIBYTE))
    assert ("io" in set_now) == bool(v2_tree._devices)
    lines = sorted(v2_tree._base.read(f"{SANDBOX_ID}/io.max").splitlines())
    assert lines == sorted(f"{device} rbps=max wbps={MEBIBYTE} riops=max wiops=max" for device in v2_tree._devices)


def test_memory_beyond_the_limit_kills_the_whole_cgroup(v2_tree: V2Tree, made: V2Cgroup, children: Children) -> None:
    _need(v2_tree, "memory")
    made.limit(CgroupLimits(memory_bytes=16 * MEBIBYTE))

    def allocate() -> None:
        held = []
        while True:
            held.append(bytearray(MEBIBYTE))

    bystander = children.start(before=made.attach)
    pid = children.start(allocate, before=made.attach)
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
    assert os.WTERMSIG(children.reap(bystander)) == signal.SIGKILL
    assert dict(made.usage())["oom_kills"] >= 1


def test_processes_move_into_a_leaf_and_back(v2_tree: V2Tree, children: Children) -> None:
    """What the rule against processes in inner cgroups demands, and that nothing of it stays behind."""
    v2_tree._base.make("service")
    parent = v2_tree._base.child("service")
    pid = children.start(before=lambda pid: parent.write("cgroup.procs", str(pid)))
    move_to_leaf(parent)
    assert parent.pids() == set()
    assert parent.read(f"{SUPERVISOR}/cgroup.procs").split() == [str(pid)]
    assert set(enable(parent, parent.read("cgroup.controllers").split())) == v2_tree.controllers
    parent.make("sandboxd-other")
    leave_leaf(parent)
    assert parent.has(SUPERVISOR), "another daemon works here"
    remove_tree(parent, "sandboxd-other")
    leave_leaf(parent)
    assert parent.pids() == {pid}
    assert (parent.subdirectories(), parent.read("cgroup.subtree_control").strip()) == ([], "")
    parent.close()


def test_controller_that_cannot_be_switched_on_is_not_reported(v2_tree: V2Tree) -> None:
    assert set(enable(v2_tree._base, ["memory", "pids", "cpu", "io"])) == v2_tree.controllers


def _counting(children: Children, made: V2Cgroup) -> tuple[int, int]:
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


def _frozen(made: V2Cgroup) -> None:
    while not made.freeze():
        pass


def test_frozen_process_does_nothing_until_it_is_thawed(made: V2Cgroup, children: Children) -> None:
    _, read = _counting(children, made)
    _frozen(made)
    _drained(read)
    assert _drained(read) == 0, "all that it had written was read, and nothing came after"
    made.thaw()
    assert select.select([read], [], [], 30)[0]
    os.close(read)


def test_frozen_process_dies_of_a_kill_without_another_instruction(made: V2Cgroup, children: Children) -> None:
    pid, read = _counting(children, made)
    _frozen(made)
    _drained(read)
    os.kill(pid, signal.SIGKILL)
    made.let_die()
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
    assert os.read(read, 1) == b""
    os.close(read)


def test_kill_ends_a_frozen_process(made: V2Cgroup, children: Children) -> None:
    pid, read = _counting(children, made)
    _frozen(made)
    made.kill()
    assert os.WTERMSIG(children.reap(pid)) == signal.SIGKILL
    os.close(read)
