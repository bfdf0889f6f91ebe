"""Fixtures for tests against the real kernel: processes that are certainly gone afterwards, and cgroup trees."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandboxd.spawner import cgroup, cgroup_v1, cgroup_v2
from sandboxd.spawner.cgroup_files import Directory
from tests.skips import need_kernel, need_root
from tests.unit.spawner import spawner_rig
from tests.unit.spawner.spawner_rig import Daemon, Rig, Sandbox

SANDBOX_ID = "0123456789abcdef0123456789abcdef"


class Children:
    """Forks children that run a function and then wait for a signal; ends and reaps every one of them."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def start(self, body: Callable[[], None] = lambda: None, before: Callable[[int], None] = lambda pid: None) -> int:
        """`before` runs in the parent with the child's pid, and only then does the child run `body`."""
        go_read, go_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            try:
                os.read(go_read, 1)
                body()
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        self.pids.append(pid)
        os.close(go_read)
        before(pid)
        os.write(go_write, b"g")
        os.close(go_write)
        return pid

    def reap(self, pid: int) -> int:
        """The wait status of a child that has ended, or will."""
        self.pids.remove(pid)
        return os.waitpid(pid, 0)[1]

    def end(self) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A real spawner of this test's own; nothing was compiled yet."""
    need_root()
    with spawner_rig.start(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for all tests of a module: none of them may end or reload it."""
    need_root()
    with spawner_rig.start(tmp_path_factory.mktemp("spawner")) as started:
        yield started


@pytest.fixture(scope="module")
def spawner(shared_rig: Rig) -> Daemon:
    """The daemon's side of `shared_rig`."""
    shared_rig.compile(spawner_rig.TEMPLATE)
    return shared_rig.daemon()


@pytest.fixture
def sandbox(spawner: Daemon) -> Iterator[Sandbox]:
    """A real, complete sandbox, gone afterwards."""
    made = spawner.ready_sandbox()
    yield made
    spawner.destroy(made)


@pytest.fixture
def children() -> Iterator[Children]:
    started = Children()
    yield started
    started.end()


@pytest.fixture
def subtree() -> str:
    return f"sandboxd-test-{os.getpid()}"


@pytest.fixture
def tree(subtree: str) -> Iterator[cgroup.CgroupTree]:
    """The tree that this machine really has."""
    need_root()
    found = cgroup.detect(subtree)
    need_kernel(f"cgroups: {found.reason}", present=found.version != "none")
    yield found
    found.reconcile()
    found.close()


@pytest.fixture
def v1_tree(tree: cgroup.CgroupTree) -> cgroup_v1.V1Tree:
    need_kernel("cgroup v1 controllers", present=isinstance(tree, cgroup_v1.V1Tree))
    assert isinstance(tree, cgroup_v1.V1Tree)
    return tree


@pytest.fixture
def v2_tree(subtree: str) -> Iterator[cgroup_v2.V2Tree]:
    """A v2 tree on whatever v2 hierarchy there is, if need be one without controllers."""
    need_root()
    found = cgroup.detect(subtree)
    if not isinstance(found, cgroup_v2.V2Tree):
        found.close()
        points = [
            point
            for point in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
            if Path(point, "cgroup.controllers").exists()
        ]
        need_kernel("a cgroup v2 hierarchy", present=bool(points))
        found = cgroup_v2.V2Tree(subtree, Directory.open(points[0]), points[0])
    yield found
    found.reconcile()
    found.close()
