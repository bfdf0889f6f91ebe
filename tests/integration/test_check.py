"""`sandboxd check` as each kind of user really sees it: what it says, and that its exit status says the same."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxd.host.check import Finding
from sandboxd.model import Guarantee
from tests import reachable
from tests.daemon import CHECKOUT
from tests.skips import need_program, need_root

UID = 64_340
AS_USER = ("/usr/bin/setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
# In a mount namespace of its own, with accounts of the test's.
ACCOUNTS = 'for f in passwd group subuid subgid; do mount --bind "$0/$f" "/etc/$f"; done; exec "$@"'
PRIVATE = ("/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", ACCOUNTS)
KEYS = {"schema", "mode", "rows", "profiles", "unstartable", "exit_code"}


def _checked(home: Path, *before: str) -> dict[str, Any]:
    command = [*reachable.prefix(CHECKOUT), *before, sys.executable, "-B", "-m", "sandboxd", "check", "--json"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    told: dict[str, Any] = json.loads(done.stdout)
    assert told.keys() == KEYS
    assert told["exit_code"] == done.returncode
    assert {row["state"] for row in told["rows"]} <= set(Finding)
    assert set(Guarantee) <= {row["feature"] for row in told["rows"]}
    assert all(row["consequence"] for row in told["rows"] if row["state"] != "ok"), "what would mend it"
    return told


def _states(told: dict[str, Any]) -> dict[str, str]:
    return {row["feature"]: row["state"] for row in told["rows"]}


@pytest.fixture
def home() -> Iterator[Path]:
    """The user's, with account files beside it in which he is known and has no subordinate ids."""
    need_root()
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-test-", dir="/tmp"))
    directory.chmod(0o755)
    for name in ("passwd", "group", "subuid", "subgid"):
        Path("/etc", name).touch()
        (directory / name).write_text(Path("/etc", name).read_text())
    with (directory / "passwd").open("a") as passwd:
        passwd.write(f"check-test:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin\n")
    (directory / "home").mkdir()
    os.chown(directory / "home", UID, UID)
    yield directory / "home"
    shutil.rmtree(directory)


def test_root_can_have_every_guarantee_of_ids(home: Path) -> None:
    told = _checked(home)
    assert told["mode"] == "root"
    assert _states(told)["id.per_sandbox"] == "ok"
    assert "subordinate ids" not in _states(told)
    assert told["exit_code"] < 2


def test_user_without_subordinate_ids_is_told_how_to_get_them(home: Path) -> None:
    told = _checked(home, *PRIVATE, str(home.parent), *AS_USER)
    assert told["mode"] == "rootless-single"
    assert (_states(told)["subordinate ids"], _states(told)["id.per_sandbox"]) == ("degraded", "missing")
    assert [refused["profile"] for refused in told["unstartable"]] == ["strict"]
    assert told["exit_code"] == 1


def test_user_without_an_account_is_told_that_he_needs_one(home: Path) -> None:
    told = _checked(home, *AS_USER)
    assert told["mode"] == "rootless-single"
    assert _states(told)["subordinate ids"] == "degraded"
    assert told["exit_code"] == 1


def test_home_that_cannot_be_entered_is_a_row_that_says_so(home: Path) -> None:
    home.chmod(0o700)
    os.chown(home, 0, 0)
    told = _checked(home, *AS_USER)
    (row,) = (row for row in told["rows"] if row["feature"] == "state directory")
    assert row["state"] == "missing"
    assert f"{str(home)!r} is not writable for uid {UID}" in row["consequence"]


def test_user_with_subordinate_ids_lacks_only_what_cgroups_and_id_maps_carry(home: Path) -> None:
    need_program("newuidmap", "uidmap")
    for name in ("subuid", "subgid"):
        with (home.parent / name).open("a") as ranges:
            ranges.write("check-test:1500000000:65536\n")
    told = _checked(home, *PRIVATE, str(home.parent), *AS_USER)
    assert told["mode"] == "rootless-subuid"
    assert (_states(told)["subordinate ids"], _states(told)["id.per_sandbox"]) == ("ok", "ok")
    assert _states(told)["filesystem.sockets"] == "missing"
