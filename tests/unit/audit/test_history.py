import os
from pathlib import Path

import pytest

from sandboxd.audit.history import MAX_LINE_BYTES, Damage, Found, Place, judge, scan
from sandboxd.audit.line import timestamp
from sandboxd.audit.search import Search
from sandboxd.audit.segment import Segment, segments
from tests.unit.audit.looked_up import SECOND_NS, START_NS, content, rewritten, write


def decisions(journal: Path, since: str = "") -> list[object]:
    found = scan(journal, Search(rule="policy.decided", since=since))
    return [dict(one.record.fields)["verdict"] if isinstance(one, Found) else one.reason for one in found]


def journal(tmp_path: Path) -> Path:
    records = [
        item for number in range(40) for item in (content(verdict=f"v{number}"), content("daemon.stopped", reason="x"))
    ]
    write(tmp_path / "journal", [records[:30], records[30:60], records[60:]])
    return tmp_path / "journal"


def test_what_is_looked_for_comes_in_order_over_all_segments(tmp_path: Path) -> None:
    where = journal(tmp_path)
    assert decisions(where) == [f"v{number}" for number in range(40)]
    assert decisions(where, timestamp(START_NS + 70 * SECOND_NS)) == [f"v{number}" for number in range(35, 40)]
    assert decisions(where, timestamp(START_NS + 80 * SECOND_NS)) == []


def test_a_damaged_line_is_told_where_it_stands_and_a_link_is_not_followed(tmp_path: Path) -> None:
    where = journal(tmp_path)
    first, second, _ = segments(where)
    rewritten(first.path, 1, v=2)
    assert decisions(where)[:3] == ["v0", "schema version 2 is not 1", "v1"]
    first.path.unlink()
    first.path.symlink_to(second.path)
    with pytest.raises(OSError, match="symbolic links"):
        decisions(where)
    first.path.unlink()
    os.mkfifo(first.path)
    with pytest.raises(PermissionError, match="not a regular file"):
        decisions(where)


def test_a_linked_and_an_absent_journal_are_refused(tmp_path: Path) -> None:
    where = journal(tmp_path)
    (tmp_path / "linked").symlink_to(where)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        decisions(tmp_path / "linked")
    with pytest.raises(FileNotFoundError):
        decisions(tmp_path / "absent")


def test_no_line_is_so_long_that_it_is_taken_for_a_record() -> None:
    damage = judge(Segment(Path("s"), 1), Place(1, 0, MAX_LINE_BYTES + 1), b"")
    assert isinstance(damage, Damage) and "more than any record" in damage.reason
