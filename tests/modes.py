"""The three ways in which a node can run the daemon, for fixtures that start one in each of them."""

import pytest

from tests.daemon import Mode
from tests.skips import need_program, need_root

EACH = (
    pytest.param(Mode.ROOT, marks=pytest.mark.root),
    pytest.param(Mode.ROOTLESS, marks=pytest.mark.rootless),
    pytest.param(Mode.ROOTLESS_SUBUID, marks=pytest.mark.rootless),
)


def need_mode(mode: Mode) -> None:
    """Skips what this machine cannot start a daemon for. An ordinary user is one where the tests run as one."""
    if mode is not Mode.ROOTLESS:
        need_root()
    if mode is Mode.ROOTLESS_SUBUID:
        need_program("newuidmap", "uidmap")
