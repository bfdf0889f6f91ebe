"""Who a sandbox is on the host: never root, never somebody else."""

from pathlib import Path

import pytest

from sandboxd.spawner import ids, trial
from sandboxd.spawner.ids import PER_SANDBOX, IdPool, IdsUnavailable, subordinate_range

START = 0x60000000


def test_blocks_never_overlap_and_the_first_is_not_for_sandboxes() -> None:
    pool = IdPool(START, START, 10 * PER_SANDBOX, single=False)
    blocks = [pool.take() for _ in range(9)]
    uids = [uid for block in blocks for uid in range(block.uid, block.uid + PER_SANDBOX)]
    assert len(set(uids)) == len(uids)
    assert min(uids) == START + PER_SANDBOX
    assert max(uids) == START + 10 * PER_SANDBOX - 1


def test_exhausted_pool_says_what_to_do_and_serves_again_once_one_came_back() -> None:
    pool = IdPool(START, START, 3 * PER_SANDBOX, single=False)
    first, second = pool.take(), pool.take()
    with pytest.raises(IdsUnavailable, match="widen the id range"):
        pool.take()
    pool.give_back(second)
    assert pool.take() == second
    pool.give_back(first)
    assert pool.take() == first


def test_block_given_back_is_the_last_to_be_used_again() -> None:
    pool = IdPool(START, START, 5 * PER_SANDBOX, single=False)
    first = pool.take()
    pool.give_back(first)
    assert first not in [pool.take() for _ in range(3)]
    assert pool.take() == first


def test_maps_give_init_and_payloads_each_their_own_id_and_never_0() -> None:
    block = IdPool(START, START + 5, 4 * PER_SANDBOX, single=False).take()
    assert block.uid_map() == f"0 {block.uid} 1\n1000 {block.uid + 1} 15\n"
    assert block.gid_map() == f"0 {block.gid} 1\n1000 {block.gid + 1} 15\n"
    assert (block.payload_uid, block.init_inside) == (block.uid + 1, 0)


def test_single_id_is_everybodys_and_root_of_nothing() -> None:
    pool = IdPool(1234, 1234, 1, single=True)
    block = pool.take()
    assert pool.take() == block
    assert block.uid_map() == "1000 1234 1\n"
    assert (block.payload_uid, block.init_inside) == (1234, 1000)


@pytest.mark.parametrize("uid,gid,count", [(0, START, 4096), (START, 0, 4096), (START, START, 31), (-1, 1, 4096)])
def test_range_with_root_or_without_room_is_refused(uid: int, gid: int, count: int) -> None:
    with pytest.raises(IdsUnavailable):
        IdPool(uid, gid, count, single=False)


def test_root_alone_is_refused_as_a_single_id() -> None:
    with pytest.raises(IdsUnavailable):
        IdPool(0, 0, 1, single=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("other:100000:65536\n", None),
        ("me:100000:65536\n", (100000, 65536)),
        ("1000:7:65536\n", (7, 65536)),
        ("other:1:1\nme:100000:65536\nme:2:2\n", (100000, 65536)),
        ("me:0:65536\n", None),
        ("me:-5:65536\n", None),
        ("me:x:65536\nme\nme:\n::\n", None),
        ("me:1:" + "9" * 5000, None),
        ("\udcff:1:2\nme:100000:65536\n", (100000, 65536)),
    ],
)
def test_subordinate_range_is_the_first_usable_one(text: str, expected: tuple[int, int] | None, tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text(text, errors="surrogateescape")
    assert subordinate_range(path, "me", 1000) == expected
    assert subordinate_range(tmp_path / "missing", "me", 1000) is None


def test_tool_that_cannot_be_started_ends_nothing_but_its_own_process() -> None:
    """In the process that starts it the caller's code would go on a second time, and the caller would believe it."""
    answer = trial.attempt(lambda: ids._unshare_and_map(("no-such-tool", "0")))
    assert answer.startswith("no-such-tool cannot be started: No such file or directory")
