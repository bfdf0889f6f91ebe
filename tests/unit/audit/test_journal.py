"""The journal under attack: full disks, crashes at every byte, edits, and a second writer."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandboxd.audit.journal import BadRecord, Journal, verify
from sandboxd.audit.line import body
from sandboxd.audit.segment import segments
from sandboxd.errors import AuditUnavailable
from tests.fakes.events import violated


@contextmanager
def opened(directory: Path, segment_bytes: int = 1 << 20) -> Iterator[Journal]:
    journal = Journal(directory, "boot", "node", segment_bytes)
    try:
        yield journal
    finally:
        journal.close()


def fill(directory: Path, count: int, segment_bytes: int = 1 << 20) -> list[Path]:
    with opened(directory, segment_bytes) as journal:
        for number in range(count):
            journal.append(body(violated(f"number {number}")), number)
    return [segment.path for segment in segments(directory)]


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Writes beyond that many bytes of a file come short or fail with EFBIG, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_records_are_numbered_chained_and_verified(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    result = verify(tmp_path)
    assert (result.ok, result.records, result.torn_bytes) == (True, 5, 0)


def test_a_reopened_journal_goes_on_where_it_stood(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with opened(tmp_path) as journal:
        assert journal.append(body(violated()), 0).link.seq == 4
    assert verify(tmp_path).records == 4


def test_segments_rotate_by_size_and_stay_one_chain(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10, segment_bytes=1200)
    assert len(paths) > 2
    fill(tmp_path, 10, segment_bytes=1200)
    assert verify(tmp_path).records == 20
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)


def test_an_empty_newest_segment_is_what_a_crash_in_rotation_leaves(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / f"{4:020d}.jsonl").touch()
    fill(tmp_path, 1)
    assert verify(tmp_path).records == 4


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(AuditUnavailable, match="in use by another"):
        Journal(tmp_path, "boot", "node", 1 << 20)
    fill(tmp_path, 1)


# Crashes.


def test_a_crash_at_any_byte_of_the_last_record_loses_that_record_only(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, 3)
    content = path.read_bytes()
    start = content.rindex(b"\n", 0, len(content) - 1) + 1
    for cut in range(start + 1, len(content)):
        path.write_bytes(content[:cut])
        assert verify(tmp_path).torn_bytes == cut - start
        with opened(tmp_path) as journal:
            assert journal.repair is not None
            assert (journal.repair.segment, journal.repair.removed_bytes) == (path.name, cut - start)
            assert journal.append(body(violated("after")), 0).link.seq == 3
        result = verify(tmp_path)
        assert (result.ok, result.records, result.torn_bytes) == (True, 3, 0)


def test_a_tail_of_zeros_after_a_power_cut_is_torn_off(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, 2)
    path.write_bytes(path.read_bytes() + bytes(4096))
    with opened(tmp_path) as journal:
        assert journal.repair is not None
        assert journal.repair.removed_bytes == 4096


def test_a_whole_journal_is_not_repaired(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    with opened(tmp_path) as journal:
        assert journal.repair is None


# Damage: what, which record is named, and that a daemon refuses to go on after it.

DAMAGE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "edited": (lambda rows: [rows[0], rows[1].replace(b"number 1", b"number 9"), *rows[2:]], 3),
    "edited_last": (lambda rows: [*rows[:-1], rows[-1].replace(b'"v":1', b'"v":3')], 5),
    "removed": (lambda rows: [rows[0], *rows[2:]], 2),
    "removed_first": (lambda rows: rows[1:], 1),
    "reordered": (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], 2),
    "repeated": (lambda rows: [rows[0], rows[0], *rows[1:]], 2),
    "blank_line": (lambda rows: [rows[0], b"", *rows[1:]], 2),
    "injected": (lambda rows: [rows[0], b'{"rule":"fake"}', *rows[1:]], 2),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_the_first_bad_record_named(tmp_path: Path, kind: str) -> None:
    (path,) = fill(tmp_path, 5)
    damage, seq = DAMAGE[kind]
    path.write_bytes(b"\n".join(damage(path.read_bytes().split(b"\n")[:-1])) + b"\n")
    result = verify(tmp_path)
    assert isinstance(result.first_bad, BadRecord)
    assert (result.ok, result.first_bad.segment, result.first_bad.seq, result.records) == (
        False,
        path.name,
        seq,
        seq - 1,
    )
    with pytest.raises(AuditUnavailable, match=rf"record {seq}") as caught:
        Journal(tmp_path, "boot", "node", 1 << 20)
    assert caught.value.reason == "audit_damaged"


def test_a_rewritten_record_with_a_consistent_chain_up_to_it_is_found_at_the_next(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, 3)
    rows = path.read_bytes().split(b"\n")[:-1]
    forged = json.loads(rows[0])
    forged["fields"]["detail"] = "forged"
    rows[0] = json.dumps(forged, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(b"\n".join(rows) + b"\n")
    found = verify(tmp_path).first_bad
    assert found is not None
    assert found.seq == 2


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10, segment_bytes=1200)
    paths[1].unlink()
    found = verify(tmp_path).first_bad
    assert found is not None
    assert found.seq == int(paths[1].stem)


def test_removing_the_oldest_segments_is_retention_and_no_damage(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10, segment_bytes=1200)
    paths[0].unlink()
    assert verify(tmp_path).ok
    fill(tmp_path, 1)


def test_a_tear_in_an_older_segment_is_damage(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10, segment_bytes=1200)
    paths[0].write_bytes(paths[0].read_bytes()[:-10])
    assert not verify(tmp_path).ok


# Disks that are full, broken or read-only.


def test_a_write_that_comes_short_leaves_no_partial_line_and_no_hole(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(body(violated("before")), 0)
        (path,) = [segment.path for segment in segments(tmp_path)]
        size = path.stat().st_size
        for room in (0, 1, 100):
            with file_size_limit(size + room), pytest.raises(AuditUnavailable, match="cannot be written"):
                journal.append(body(violated("refused")), 0)
            assert path.stat().st_size == size
        assert journal.append(body(violated("after")), 0).link.seq == 2
    result = verify(tmp_path)
    assert (result.ok, result.records) == (True, 2)
    assert b"refused" not in path.read_bytes()


def test_a_full_disk_refuses_until_there_is_room_again(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    script = Path(__file__).with_name("full_disk.py")
    command = ["unshare", "--mount", sys.executable, str(script), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(script.parents[3])})


def test_a_descriptor_that_fails_refuses_and_is_tried_again(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(body(violated()), 0)
        (path,) = [segment.path for segment in segments(tmp_path)]
        working = os.dup(journal._descriptor)
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            os.dup2(full.fileno(), journal._descriptor)
        with pytest.raises(AuditUnavailable):
            journal.append(body(violated()), 0)
        os.dup2(working, journal._descriptor)
        os.close(working)
        assert journal.append(body(violated()), 0).link.seq == 2
    assert verify(tmp_path).records == 2
    assert path.exists()


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a directory away needs root")
    (tmp_path / "journal").mkdir()
    os.chown(tmp_path / "journal", 12345, 12345)
    with pytest.raises(AuditUnavailable):
        Journal(tmp_path / "journal", "boot", "node", 1 << 20)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    with pytest.raises(AuditUnavailable):
        Journal(tmp_path / "journal", "boot", "node", 1 << 20)


def test_rewinding_takes_back_what_came_after(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        mark = journal.append(body(violated("kept")), 0)
        journal.append(body(violated("lost")), 0)
        journal.rewind(mark)
        assert journal.append(body(violated("next")), 0).link.seq == 2
    assert verify(tmp_path).records == 2


def test_rewinding_stops_at_the_begin_of_the_newest_segment(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=100) as journal:
        mark = journal.append(body(violated("kept")), 0)
        journal.append(body(violated("kept too")), 0)
        journal.append(body(violated("lost")), 0)
        journal.rewind(mark)
        assert journal.append(body(violated("next")), 0).link.seq == 3
    assert verify(tmp_path).records == 3
