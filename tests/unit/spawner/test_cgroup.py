"""Detection: on files as kernels and container engines write them, then for real."""

import os
from pathlib import Path

import pytest

from sandboxd.spawner import cgroup, cgroup_v2
from sandboxd.spawner.cgroup_files import Directory
from sandboxd.spawner.cgroup_v1 import V1Tree
from tests.unit.spawner.conftest import SANDBOX_ID, Children

V1_LINE = "35 31 0:32 {root} {point} rw,nosuid,relatime shared:9 - cgroup cgroup rw,{options}\n"
V2_LINE = "30 23 0:27 {root} {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def _proc(tmp_path: Path, mountinfo: str, own: str) -> Path:
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "mountinfo").write_bytes(f"23 1 253:0 / / rw - ext4 /dev/root rw\n{mountinfo}".encode())
    (proc / "self" / "cgroup").write_text(own)
    return proc


def test_v1_controllers_mounted_together_share_one_directory(tmp_path: Path) -> None:
    for name in ("memory/svc", "pids/svc", "cpu,cpuacct/svc"):
        (tmp_path / name).mkdir(parents=True)
    mountinfo = "".join(
        V1_LINE.format(root="/", point=tmp_path / name, options=name) for name in ("memory", "pids", "cpu,cpuacct")
    )
    proc = _proc(tmp_path, mountinfo, "4:memory:/svc\n3:pids:/svc\n2:cpu,cpuacct:/svc\n1:name=systemd:/\n0::/\n")
    tree = cgroup.detect("sandboxd-x", proc)
    assert isinstance(tree, V1Tree)
    assert (tree.version, tree.controllers) == ("v1", frozenset({"memory", "pids", "cpu", "cpuacct"}))
    assert (tmp_path / "cpu,cpuacct" / "svc" / "sandboxd-x").is_dir()
    assert len(tree._hierarchies) == 3
    tree.close()
    assert not (tmp_path / "cpu,cpuacct" / "svc" / "sandboxd-x").exists()


@pytest.mark.parametrize("odd", ["\r", "\x0b", "\x1c", "\x85", "\xa0", "\u2028"], ids=ascii)
def test_mount_point_of_any_characters_hides_no_hierarchy(tmp_path: Path, odd: str) -> None:
    (tmp_path / f"memory{odd}").mkdir()
    mountinfo = V1_LINE.format(root="/", point=tmp_path / f"memory{odd}", options="memory")
    tree = cgroup.detect("sandboxd-x", _proc(tmp_path, mountinfo, "4:memory:/\n"))
    assert tree.version == "v1"
    assert (tmp_path / f"memory{odd}" / "sandboxd-x").is_dir()
    tree.close()


def test_v1_container_that_sees_only_its_own_part_works_below_it(tmp_path: Path) -> None:
    (tmp_path / "memory" / "inner").mkdir(parents=True)
    mountinfo = V1_LINE.format(root="/docker/abc", point=tmp_path / "memory", options="memory")
    tree = cgroup.detect("sandboxd-x", _proc(tmp_path, mountinfo, "4:memory:/docker/abc/inner\n"))
    assert tree.version == "v1"
    assert (tmp_path / "memory" / "inner" / "sandboxd-x").is_dir()
    tree.close()


def test_of_two_mounts_at_one_place_the_later_one_counts(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir(parents=True)
    mountinfo = "".join(
        V1_LINE.format(root=root, point=tmp_path / "memory", options="memory") for root in ("/", "/docker/abc")
    )
    tree = cgroup.detect("sandboxd-x", _proc(tmp_path, mountinfo, "4:memory:/docker/abc\n"))
    assert (tree.version, tree.reason) == ("v1", "")
    assert (tmp_path / "memory" / "sandboxd-x").is_dir()
    tree.close()


def test_hierarchies_that_an_engine_mounted_read_only_are_the_ones_to_make_writable() -> None:
    lines = [
        "33 30 0:29 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755",
        "34 33 0:30 /docker/a /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,memory",
        "35 33 0:31 /docker/a /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids",
        "36 33 0:32 / /sys/fs/cgroup\\040two ro - cgroup2 cgroup rw",
    ]
    assert cgroup._read_only(lines) == ["/sys/fs/cgroup/memory", "/sys/fs/cgroup two"]


@pytest.mark.parametrize("own", ["/elsewhere", "/../..", "/docker/abcd"])
def test_own_cgroup_outside_the_mounted_part_is_not_used(tmp_path: Path, own: str) -> None:
    (tmp_path / "memory").mkdir()
    mountinfo = V1_LINE.format(root="/docker/abc", point=tmp_path / "memory", options="memory")
    tree = cgroup.detect("sandboxd-x", _proc(tmp_path, mountinfo, f"4:memory:{own}\n"))
    assert (tree.version, tree.controllers) == ("none", frozenset())
    assert repr(own) in tree.reason


def test_v2_without_memory_and_pids_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.controllers").write_text("hugetlb\n")
    (tmp_path / "unified" / "cgroup.procs").write_text("")
    (tmp_path / "memory").mkdir()
    mountinfo = V2_LINE.format(root="/", point=tmp_path / "unified") + V1_LINE.format(
        root="/", point=tmp_path / "memory", options="memory"
    )
    proc = _proc(tmp_path, mountinfo, "4:memory:/\n0::/\n")
    tree = cgroup.detect("sandboxd-x", proc)
    assert tree.version == "v1"
    assert not (tmp_path / "unified" / "sandboxd-x").exists()
    tree.close()
    (proc / "self" / "cgroup").write_text("0::/\n")
    alone = cgroup.detect("sandboxd-x", proc)
    assert (alone.version, "hugetlb" in alone.reason) == ("none", True)


def test_v2_own_cgroup_is_looked_at_and_not_the_root_of_the_hierarchy(tmp_path: Path) -> None:
    own = tmp_path / "unified" / "system.slice" / "ours"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("hugetlb\n")
    (own / "cgroup.procs").write_text("")
    mountinfo = V2_LINE.format(root="/", point=tmp_path / "unified")
    tree = cgroup.detect("sandboxd-x", _proc(tmp_path, mountinfo, "0::/system.slice/ours\n"))
    assert f"cgroup v2 {str(own)!r}: memory and pids are not among its controllers 'hugetlb'" in tree.reason


def test_v2_subtree_is_made_below_the_own_cgroup(tmp_path: Path) -> None:
    """Plain files stand for the kernel's: what is written stays, so switching on reads back as done."""
    own = tmp_path / "fs" / "user.slice" / "run.scope"
    (own / "sandboxd-x").mkdir(parents=True)
    for directory in (own, own / "sandboxd-x"):
        (directory / "cgroup.controllers").write_text("cpu memory pids\n")
        (directory / "cgroup.subtree_control").write_text("memory pids\n")
        (directory / "cgroup.procs").write_text("")
    (own / "cgroup.type").write_text("domain\n")
    mountinfo = V2_LINE.format(root="/", point=tmp_path / "fs")
    parent = cgroup._v2_parent(cgroup._mounts(mountinfo.splitlines())[1] or pytest.fail(), str(own))
    assert parent.path == str(own)
    leaf = own / cgroup_v2.SUPERVISOR
    leaf.mkdir()
    (leaf / "cgroup.procs").write_text("")
    again = cgroup._v2_parent(cgroup._mounts(mountinfo.splitlines())[1] or pytest.fail(), str(leaf))
    assert again.path == str(own)
    parent.close()
    again.close()


def test_nothing_mounted_is_said(tmp_path: Path) -> None:
    tree = cgroup.detect("sandboxd-x", _proc(tmp_path, "", "0::/\n"))
    assert (tree.version, tree.reason) == ("none", "no cgroup hierarchy is mounted")


def test_escaped_mount_point_is_read(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    mountinfo = V1_LINE.format(root="/", point=str(tmp_path / "a b").replace(" ", "\\040"), options="pids")
    tree = cgroup.detect("sandboxd-x", _proc(tmp_path, mountinfo, "4:pids:/\n"))
    assert tree.controllers == {"pids"}
    tree.close()


def test_this_machine_as_root_has_memory_and_pids(tree: cgroup.CgroupTree) -> None:
    assert {"memory", "pids"} <= tree.controllers
    made = tree.create(SANDBOX_ID)
    assert {"memory", "pids"} <= set(made.limit(cgroup.CgroupLimits(memory_bytes=1 << 24, pids=4)))
    made.remove()


def test_two_subtrees_never_touch_each_other(tree: cgroup.CgroupTree, subtree: str, children: Children) -> None:
    made = tree.create(SANDBOX_ID)
    pid = children.start(before=made.attach)
    other = cgroup.detect(f"{subtree}-other")
    try:
        other.create(SANDBOX_ID)
        assert other.reconcile() == 1
    finally:
        other.close()
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    made.kill()
    made.remove()


def test_ordinary_user_without_delegation_has_none(tree: cgroup.CgroupTree, subtree: str) -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            found = cgroup.detect(f"{subtree}-user")
            os.write(write_end, f"{found.version} {found.reason}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(pid, 0)
    answer = os.read(read_end, 4096).decode()
    os.close(read_end)
    assert answer.startswith("none ")
    assert "ermission denied" in answer


def test_open_descriptors_are_given_back(subtree: str, tree: cgroup.CgroupTree) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    other = cgroup.detect(f"{subtree}-other")
    made = other.create(SANDBOX_ID)
    made.limit(cgroup.CgroupLimits(memory_bytes=1 << 24, pids=4, cpus=1.0))
    made.usage()
    made.kill()
    made.remove()
    other.close()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_directory_that_is_gone_reads_as_empty(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    directory = Directory.open(str(tmp_path / "x"))
    (tmp_path / "x").rmdir()
    assert directory.pids() == set()
    directory.close()
