import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.approval.case import Case, State, state
from sandboxd.approval.store import Store
from tests.fakes.approvals import asked, case, no, yes
from tests.skips import need_root

GRANTED = case(yes())
NAME = f"{1:032x}.json"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "approvals")
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path: Path, store: Store) -> Path:
    """The file of a case that is granted."""
    store.save(GRANTED)
    return tmp_path / "approvals" / NAME


def test_what_is_saved_is_loaded_oldest_first(store: Store, tmp_path: Path) -> None:
    later = case(no(at=1010.0, comment="\x1b[2J \ud7ff é"), question=asked("c" * 64), number=0, requested_at=1009.0)
    for each in (later, GRANTED):
        store.save(each)
    assert Store(tmp_path / "approvals").load() == (GRANTED, later)


def test_nobody_else_can_read_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_vote_replaces_the_case_and_a_removed_one_does_not_come_back(store: Store) -> None:
    store.save(case())
    store.save(GRANTED)
    assert store.load() == (GRANTED,)
    store.remove(GRANTED)
    store.remove(GRANTED)
    assert store.load() == ()


def test_a_file_that_is_cut_at_any_byte_is_no_grant(file: Path, store: Store) -> None:
    whole = file.read_bytes()
    assert store.load() == (GRANTED,), "the control"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert store.load() == (), length
        assert not file.exists(), "it is put aside"


def test_a_file_in_which_any_byte_differs_is_no_grant(file: Path, store: Store) -> None:
    whole = file.read_bytes()
    for index in range(len(whole)):
        file.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        assert store.load() == (), index


def test_a_file_with_more_behind_it_is_no_grant(file: Path, store: Store) -> None:
    file.write_bytes(file.read_bytes() * 2)
    assert store.load() == ()


def _forged(tmp_path: Path, forged: Case, name: str = NAME) -> tuple[Case, ...]:
    """What is loaded of a file that is whole, digest and all, and says this."""
    with_digest = Store(tmp_path / "forge")
    with_digest.save(forged)
    directory = tmp_path / "approvals"
    (directory / name).write_bytes((tmp_path / "forge" / f"{forged.approval_id}.json").read_bytes())
    return Store(directory).load()


def test_a_grant_that_cannot_have_come_about_is_none(file: Path, tmp_path: Path) -> None:
    assert _forged(tmp_path, GRANTED) == (GRANTED,), "the control"
    assert _forged(tmp_path, case(yes("uid:1000"))) == (), "the requester's own vote"
    assert _forged(tmp_path, case(yes(), yes(), question=asked(quorum=2))) == (), "one approver twice"


def test_a_case_under_the_name_of_another_is_none(store: Store, tmp_path: Path) -> None:
    assert _forged(tmp_path, GRANTED, f"{2:032x}.json") == ()


@pytest.mark.parametrize("name", ["x.json", f"{1:032x}.json.damaged", f"{1:031x}.json", f"{1:032X}.JSON"])
def test_a_file_of_another_name_is_none(store: Store, tmp_path: Path, name: str) -> None:
    assert _forged(tmp_path, GRANTED, name) == ()


def test_what_cannot_be_read_is_no_grant_and_the_rest_is_loaded(file: Path, store: Store) -> None:
    other = case(question=asked("c" * 64), number=2)
    store.save(other)
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert store.load() == (other,)
    os.mkfifo(file)
    assert store.load() == (other,)


def test_a_directory_in_the_place_of_the_store_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "approvals").symlink_to(tmp_path)
    with pytest.raises(OSError):
        Store(tmp_path / "approvals")


def test_what_was_never_renamed_is_no_case(file: Path, store: Store) -> None:
    file.rename(file.with_name(f".{NAME}"))
    assert store.load() == ()
    assert list(file.parent.iterdir()) == []


def test_on_a_full_disk_nothing_changes(tmp_path: Path) -> None:
    need_root()
    script = [sys.executable, "-m", "tests.unit.approval.full_disk", str(tmp_path)]
    ran = subprocess.run(["unshare", "--mount", *script], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


KILLED = """
import os, sys
from pathlib import Path
from sandboxd.approval import store
from tests.fakes.approvals import asked, case, yes
left = int(sys.argv[2])
def dying(real):
    def call(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return real(*args, **kwargs)
    return call
opened = store.Store(Path(sys.argv[1]))
for name in ("open", "fsync", "rename", "unlink", "fdopen"):
    setattr(os, name, dying(getattr(os, name)))
opened.save(case())
opened.save(case(yes()))
opened.remove(case(yes()))
print("done")
"""


def test_killed_at_any_step_the_case_is_what_it_was_before_or_after_it(tmp_path: Path) -> None:
    seen: list[State | None] = []
    for step in range(100):
        directory = tmp_path / str(step)
        ran = subprocess.run(
            [sys.executable, "-c", KILLED, str(directory), str(step)], capture_output=True, text=True, timeout=120
        )
        opened = Store(directory)
        found = opened.load()
        assert found in ((), (case(),), (GRANTED,))
        assert [path for path in directory.iterdir() if path.name.endswith(".damaged")] == []
        opened.close()
        seen.append(state(found[0], 1001.0) if found else None)
        if "done" in ran.stdout:
            break
        assert ran.returncode == -9, ran.stderr
    order = [None, State.PENDING, State.GRANTED, None]
    assert [now for now, before in zip(seen, [object(), *seen], strict=False) if now != before] == order
