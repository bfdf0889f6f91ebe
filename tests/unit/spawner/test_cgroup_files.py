import errno
import os
import signal
import time
from pathlib import Path

import pytest

from sandboxd.spawner.cgroup_files import (
    Directory,
    block_devices,
    find_named,
    kill_members,
    remove_tree,
    stands_still,
)
from sandboxd.spawner.cgroup_v1 import V1Tree
from tests.unit.spawner.conftest import SANDBOX_ID, Children


def test_errors_name_the_whole_path_and_the_value(tmp_path: Path) -> None:
    directory = Directory.open(str(tmp_path))
    with pytest.raises(FileNotFoundError) as missing:
        directory.write("x/memory.max", "5")
    assert missing.value.filename == f"{tmp_path}/x/memory.max"
    with pytest.raises(FileNotFoundError) as unread:
        directory.read("pids.max")
    assert unread.value.filename == f"{tmp_path}/pids.max"
    directory.close()


def test_refused_value_stands_in_the_error(v1_tree: V1Tree) -> None:
    made = v1_tree.create(SANDBOX_ID)
    directory = v1_tree._base["pids"]
    with pytest.raises(OSError, match="value 'many'") as refused:
        directory.write(f"{SANDBOX_ID}/pids.max", "many")
    assert refused.value.errno == errno.EINVAL
    assert refused.value.filename.endswith(f"{SANDBOX_ID}/pids.max")
    made.remove()


def test_removing_takes_what_is_below_first(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "d").mkdir()
    directory = Directory.open(str(tmp_path))
    remove_tree(directory, "a")
    remove_tree(directory, "a")
    assert list(tmp_path.iterdir()) == []
    directory.close()


def test_removing_gives_up_at_its_deadline_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("keeps it")
    directory = Directory.open(str(tmp_path))
    with pytest.raises(OSError, match="not empty") as kept:
        remove_tree(directory, "a", deadline=0.0)
    assert kept.value.filename == f"{tmp_path}/a"
    directory.close()


def test_listed_process_that_is_no_longer_a_member_is_spared(tmp_path: Path, children: Children) -> None:
    """The membership is read twice; a pid that is gone from it the second time may be somebody else by then."""
    bystander = children.start()
    member = children.start()

    class Changing(Directory):
        readings = iter(({bystander, member}, {member}))

        def pids(self) -> set[int]:
            return next(self.readings)

    directory = Changing(str(tmp_path), os.open(tmp_path, os.O_RDONLY))
    assert kill_members(directory) == 1
    assert os.WTERMSIG(children.reap(member)) == signal.SIGKILL
    assert os.waitpid(bystander, os.WNOHANG) == (0, 0)
    directory.close()


def test_directories_of_the_name_are_found_wherever_they_are(tmp_path: Path) -> None:
    for path in ("session/one/ours", "ours", "session/ours/ours", "other"):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(tmp_path / "session")
    assert sorted(find_named(str(tmp_path), "ours")) == [
        f"{tmp_path}/ours",
        f"{tmp_path}/session/one/ours",
        f"{tmp_path}/session/ours",
    ]


def test_only_real_disks_are_bandwidth_limited(tmp_path: Path) -> None:
    for name, size, device in (
        ("vda", "1000", "253:0"),
        ("sdb", "0", "8:16"),
        ("loop0", "8", "7:0"),
        ("zram0", "8", "252:0"),
        ("nvme0n1", "5", "259:0"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(f"{size}\n")
        (tmp_path / name / "dev").write_text(f"{device}\n")
    (tmp_path / "broken").mkdir()
    assert block_devices(tmp_path) == ("259:0", "253:0")
    assert block_devices(tmp_path / "missing") == ()


def test_threads_stand_still_in_the_states_that_count(tmp_path: Path, children: Children) -> None:
    pid = children.start()
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").read_text().split()[2] != "S" and time.monotonic() < until:
        time.sleep(0.01)
    (tmp_path / "tasks").write_text(f"{pid}\n2147483647\n")
    directory = Directory.open(str(tmp_path))
    assert stands_still(directory, "tasks", "SX"), "one that is gone stands still"
    assert not stands_still(directory, "tasks", "TX")
    directory.close()
