import pytest

from sandboxd.spawner.cgroup_base import CgroupLimits, NoCgroup, NoTree, checked_sandbox_id, checked_subtree
from tests.unit.spawner.conftest import SANDBOX_ID


@pytest.mark.parametrize("sandbox_id", ["", ".", "..", "../" + "a" * 29, "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "\n"])
def test_sandbox_id_that_is_no_plain_hexadecimal_name_is_refused(sandbox_id: str) -> None:
    with pytest.raises(ValueError, match="32 lower-case hexadecimal"):
        checked_sandbox_id(sandbox_id)


@pytest.mark.parametrize("subtree", ["", "..", "a/b", "a b", "-a", "x" * 65, "a\n"])
def test_subtree_that_is_no_plain_name_is_refused(subtree: str) -> None:
    with pytest.raises(ValueError, match="cgroup name"):
        checked_subtree(subtree)


def test_node_without_cgroups_sets_no_limit_and_says_why() -> None:
    tree = NoTree("nothing is mounted")
    made = tree.create(SANDBOX_ID)
    made.attach(1)
    assert made.limit(CgroupLimits(memory_bytes=1, pids=1, cpus=1.0)) == ()
    assert (made.counters(), made.usage(), made.directory_fd) == ((), (), None)
    assert (tree.reason, tree.controllers, tree.reconcile()) == ("nothing is mounted", frozenset(), 0)


def test_node_without_cgroups_still_refuses_a_bad_id() -> None:
    with pytest.raises(ValueError, match="sandbox id"):
        NoTree("").create("../x")


def test_no_cgroup_cannot_be_frozen_and_says_so() -> None:
    for verb in (NoCgroup().freeze, NoCgroup().thaw):
        with pytest.raises(OSError, match="no cgroup"):
            verb()
    NoCgroup().let_die()
    NoTree("").let_die()
    assert (NoTree("").held(), NoTree("").outlived) == ((), False)
