"""Landlock rulesets on the real kernel, in children that are thrown away."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.spawner import landlock, sys
from tests.skips import need_kernel


def _restricted(rules: list[tuple[str, str]], attempt: Callable[[], object]) -> bool:
    """Whether the attempt works in a child under these rules."""
    need_kernel("Landlock", present=landlock.abi() > 0)
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            ruleset = landlock.build(landlock.abi(), rules, scoped=True)
            sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
            sys.landlock_restrict_self(ruleset)
            attempt()
            status = 0
        except PermissionError:
            status = 1
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1)
    return status == 0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "f").write_text("x")
    (tmp_path / "d").mkdir()
    return tmp_path


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "read": lambda tree: (tree / "f").read_text(),
    "list": lambda tree: list(tree.iterdir()),
    "write": lambda tree: (tree / "f").write_text("y"),
    "create": lambda tree: (tree / "new").touch(),
    "mkdir": lambda tree: (tree / "new").mkdir(),
    "remove": lambda tree: (tree / "f").unlink(),
    "link": lambda tree: (tree / "new").symlink_to("x"),
    "fifo": lambda tree: os.mkfifo(tree / "new"),
}


@pytest.mark.parametrize("name", ATTEMPTS)
@pytest.mark.parametrize(
    ("access", "allowed"),
    [("read", {"read", "list"}), ("write", set(ATTEMPTS)), ("list", {"list"}), ("device", {"read"}), (None, set())],
)
def test_rule_allows_what_its_name_says_and_nothing_else(
    access: str | None, allowed: set[str], name: str, tree: Path
) -> None:
    """The last row is the control's other half: without a rule nothing works, and unrestricted everything does."""
    rules = [(str(tree), access)] if access else []
    works = _restricted(rules, lambda: ATTEMPTS[name](tree))
    if access == "device":
        assert works == (name in ("read", "write"))
        return
    assert works == (name in allowed)
    if access is None:
        ATTEMPTS[name](tree)


def test_rule_for_a_missing_path_grants_nothing(tree: Path) -> None:
    assert not _restricted([(str(tree / "missing"), "write")], lambda: (tree / "f").read_text())


def test_rule_on_a_file_leaves_its_neighbours_closed(tree: Path) -> None:
    (tree / "g").write_text("x")
    assert _restricted([(str(tree / "f"), "write")], lambda: (tree / "f").write_text("y"))
    assert not _restricted([(str(tree / "f"), "write")], lambda: (tree / "g").read_text())


def test_handled_rights_grow_with_the_abi_and_never_shrink() -> None:
    rights = [landlock.handled_access(version) for version in range(1, 9)]
    assert rights[0] == (1 << 13) - 1
    assert all(newer & older == older for older, newer in itertools.pairwise(rights))
    assert rights[1] >> 13 & 1
    assert rights[2] >> 14 & 1
    assert rights[4] >> 15 & 1


def test_kernel_without_landlock_has_abi_0(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(attributes: bytes | None, flags: int = 0) -> int:
        raise OSError(38, "landlock_create_ruleset")

    monkeypatch.setattr(sys, "landlock_create_ruleset", missing)
    assert landlock.abi() == 0
