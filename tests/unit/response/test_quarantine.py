"""The file of quarantines: whole or not there, and a start that is refused where it is neither."""

import hashlib
import os
from pathlib import Path

import pytest

from sandboxd.errors import ConfigInvalid
from sandboxd.model import Caller
from sandboxd.response.quarantine import FILE, Quarantine, Quarantines

ONE = Quarantine("local", "uid:1000", 5.0, "uid:0", "rule", 'a "comment"\n')
ALL = Quarantine("local", "", 6.0, "webhook", "", "")


def caller(subject: str, tenant: str = "local") -> Caller:
    return Caller(tenant, subject, (), "x")


def test_nobody_is_barred_where_nothing_was_ever_kept(tmp_path: Path) -> None:
    quarantines = Quarantines(tmp_path / "state")
    assert (tuple(quarantines), quarantines.barred(caller("uid:1000"))) == ((), "")


def test_what_was_added_is_there_in_the_next_life_and_what_was_removed_is_not(tmp_path: Path) -> None:
    first = Quarantines(tmp_path / "state")
    first.add(ONE)
    first.add(ALL)
    second = Quarantines(tmp_path / "state")
    assert tuple(second) == (ONE, ALL)
    second.remove(ONE)
    assert tuple(Quarantines(tmp_path / "state")) == (ALL,)
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600
    for quarantines in (first, second):
        quarantines.close()


def test_subject_is_barred_alone_and_a_tenant_whole(tmp_path: Path) -> None:
    quarantines = Quarantines(tmp_path / "state")
    quarantines.add(ONE)
    assert quarantines.barred(caller("uid:1000"))
    assert not quarantines.barred(caller("uid:100")) and not quarantines.barred(caller("uid:1000", "other"))
    quarantines.add(ALL)
    assert quarantines.barred(caller("uid:100")) and not quarantines.barred(caller("uid:100", "other"))
    assert quarantines.find("local", "uid:1000") == ONE and quarantines.find("local", "uid:1") is None


def _signed(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", _signed(b"[]")[:-1], _signed(b"[]") + b" ", _signed(b"{}"), _signed(b'[{"tenant": 1}]'), b"\xff" * 80],
)
def test_file_that_is_not_what_was_written_keeps_the_daemon_from_starting(tmp_path: Path, content: bytes) -> None:
    quarantines = Quarantines(tmp_path / "state")
    quarantines.add(ONE)
    path = tmp_path / "state" / FILE
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match="who is quarantined is not known"):
        Quarantines(tmp_path / "state")


def test_every_cut_of_the_file_is_noticed(tmp_path: Path) -> None:
    Quarantines(tmp_path / "state").add(ONE)
    path = tmp_path / "state" / FILE
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigInvalid):
            Quarantines(tmp_path / "state")


def test_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    Quarantines(tmp_path / "state").add(ONE)
    path = tmp_path / "state" / FILE
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigInvalid):
        Quarantines(tmp_path / "state")


def test_half_written_one_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantines = Quarantines(tmp_path / "state")
    quarantines.add(ONE)

    def killed(*_args: object, **_kwargs: object) -> None:
        raise OSError(5, "killed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(OSError, match="killed"):
            quarantines.add(ALL)
        with pytest.raises(OSError, match="killed"):
            quarantines.remove(ONE)
    assert tuple(quarantines) == (ONE, ALL), "it holds all the same, and is not lifted by halves"
    assert tuple(Quarantines(tmp_path / "state")) == (ONE,)
