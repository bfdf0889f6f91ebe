"""The journal under attack: full disks, crashes at every byte, edits, and a second writer."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandboxd.audit import checkpoint
from sandboxd.audit.line import body
from sandboxd.audit.segment import LONGEST_LINE_BYTES, segments
from sandboxd.errors import AuditUnavailable
from tests.fakes.events import violated
from tests.fakes.journal import checked, events, fill, open_journal, opened, records, signing_key


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
    result = checked(tmp_path)
    assert (result.ok, result.records, result.torn_bytes) == (True, 7, 0)


def test_a_journal_and_each_segment_of_it_begin_with_a_checkpoint_of_all_before(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10, segment_bytes=2000)
    assert len(paths) > 2
    firsts = [record for record in records(tmp_path) if record.seq in {int(path.stem) for path in paths}]
    assert [checkpoint.read(record).sealed.seq for record in firsts] == [int(path.stem) - 1 for path in paths]


def test_a_reopened_journal_goes_on_where_it_stood(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with opened(tmp_path) as journal:
        assert journal.append(body(violated()), 0).link.seq == 6
    assert checked(tmp_path).records == 6


def test_segments_rotate_by_size_and_stay_one_chain(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10, segment_bytes=1200)
    assert len(paths) > 2
    fill(tmp_path, 10, segment_bytes=1200)
    assert checked(tmp_path).ok
    assert len(events(tmp_path)) == 20
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)


def test_an_empty_newest_segment_is_what_a_crash_in_rotation_leaves(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / f"{6:020d}.jsonl").touch()
    assert checked(tmp_path).ok
    fill(tmp_path, 1)
    assert checked(tmp_path).records == 8


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(AuditUnavailable, match="in use by another"):
        open_journal(tmp_path)
    fill(tmp_path, 1)


# Crashes.


def test_a_crash_at_any_byte_of_the_last_record_loses_that_record_only(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with opened(tmp_path) as journal:
        journal.append(body(violated("last")), 0)
    (path,) = tmp_path.glob("*.jsonl")
    content = path.read_bytes()
    start = content.rindex(b"\n", 0, len(content) - 1) + 1
    for cut in range(start + 1, len(content)):
        path.write_bytes(content[:cut])
        assert checked(tmp_path).torn_bytes == cut - start
        with opened(tmp_path) as journal:
            assert journal.repair is not None
            assert (journal.repair.segment, journal.repair.removed_bytes) == (path.name, cut - start)
            assert journal.append(body(violated("after")), 0).link.seq == 4
        result = checked(tmp_path)
        assert (result.ok, result.records, result.torn_bytes) == (True, 4, 0)


def test_a_segment_whose_first_record_is_torn_begins_anew_with_a_checkpoint(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, 1)
    next_segment = path.with_name(f"{4:020d}.jsonl")
    next_segment.write_bytes(b'{"boot":"b')
    with opened(tmp_path) as journal:
        assert journal.append(body(violated()), 0).link.seq == 5
    assert checked(tmp_path).ok


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


def test_a_tail_without_end_is_no_torn_record_and_refused(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, 2)
    with path.open("ab") as file:
        file.write(b"x" * LONGEST_LINE_BYTES)
    assert f"(record 5): {LONGEST_LINE_BYTES} bytes without an end" in refused(tmp_path)
    found = checked(tmp_path).first_bad
    assert found is not None
    assert found.seq == 5


# Damage: a daemon refuses to go on after it and names the first bad record. `test_verify` has more kinds.

DAMAGE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "edited": (lambda rows: [*rows[:2], rows[2].replace(b"number 1", b"number 9"), *rows[3:]], 4),
    "edited_last": (lambda rows: [*rows[:-1], rows[-1].replace(b'"v":1', b'"v":3')], 7),
    "removed": (lambda rows: [rows[0], *rows[2:]], 2),
    "removed_first": (lambda rows: rows[1:], 1),
    "reordered": (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], 2),
    "repeated": (lambda rows: [rows[0], rows[0], *rows[1:]], 2),
    "blank_line": (lambda rows: [rows[0], b"", *rows[1:]], 2),
    "injected": (lambda rows: [rows[0], b'{"rule":"fake"}', *rows[1:]], 2),
}


def refused(directory: Path) -> str:
    with pytest.raises(AuditUnavailable, match="damaged") as caught:
        open_journal(directory)
    assert caught.value.reason == "audit_damaged"
    return caught.value.message


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_journal_is_not_gone_on_with(tmp_path: Path, kind: str) -> None:
    (path,) = fill(tmp_path, 5)
    damage, seq = DAMAGE[kind]
    path.write_bytes(b"\n".join(damage(path.read_bytes().split(b"\n")[:-1])) + b"\n")
    assert f"(record {seq})" in refused(tmp_path)


@pytest.mark.parametrize("lines", [0, 3])
def test_a_journal_cut_off_before_its_last_checkpoint_is_not_gone_on_with(tmp_path: Path, lines: int) -> None:
    (path,) = fill(tmp_path, 5)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
    assert f"cut behind record {lines}: record 7" in refused(tmp_path)


def test_a_journal_whose_last_checkpoint_is_gone_is_not_gone_on_with(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    (tmp_path / checkpoint.LAST).unlink()
    assert "'checkpoint.json', is gone" in refused(tmp_path)


def test_a_crash_at_the_first_start_before_its_checkpoint_is_kept_is_no_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.checkpoint(0)
    (tmp_path / checkpoint.LAST).unlink()
    fill(tmp_path, 1)
    assert checked(tmp_path).ok


@pytest.mark.parametrize("content", [b"", b"{}", b'{"torn', b"\xff"])
def test_a_last_checkpoint_that_is_none_is_damage(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, 1)
    (tmp_path / checkpoint.LAST).write_bytes(content)
    assert checkpoint.LAST in refused(tmp_path)


def test_the_key_of_the_last_checkpoint_is_told(tmp_path: Path) -> None:
    fill(tmp_path, 1, key=signing_key(7))
    with opened(tmp_path) as journal:
        assert journal.key_id == signing_key(7).key_id


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10, segment_bytes=1200)
    paths[-2].unlink()
    assert f"(record {int(paths[-2].stem)})" in refused(tmp_path)


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
        assert journal.append(body(violated("after")), 0).link.seq == 3
    result = checked(tmp_path)
    assert (result.ok, result.records) == (True, 3)
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
        assert journal.append(body(violated()), 0).link.seq == 3
    assert checked(tmp_path).records == 3
    assert path.exists()


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a directory away needs root")
    (tmp_path / "journal").mkdir()
    os.chown(tmp_path / "journal", 12345, 12345)
    with pytest.raises(AuditUnavailable):
        open_journal(tmp_path / "journal")


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    with pytest.raises(AuditUnavailable):
        open_journal(tmp_path / "journal")


def test_rewinding_takes_back_what_came_after(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        mark = journal.append(body(violated("kept")), 0)
        journal.append(body(violated("lost")), 0)
        journal.rewind(mark)
        assert journal.append(body(violated("next")), 0).link.seq == 3
    assert checked(tmp_path).records == 3


def test_a_checkpoint_that_is_taken_back_is_none(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        mark = journal.append(body(violated("kept")), 0)
        journal.checkpoint(1)
        journal.rewind(mark)
        assert journal.sealed is None
        journal.checkpoint(2)
    assert checked(tmp_path).checkpoints == 2


def test_rewinding_stops_at_the_begin_of_the_newest_segment(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        mark = journal.append(body(violated("kept")), 0)
        journal.append(body(violated("kept too")), 0)
        journal.rotate()
        journal.append(body(violated("lost")), 0)
        journal.rewind(mark)
        assert journal.append(body(violated("next")), 0).link.seq == 5
    assert [dict(record.fields)["detail"] for record in events(tmp_path)] == ["kept", "kept too", "next"]
    assert checked(tmp_path).ok


def test_records_that_a_rotation_could_not_bring_to_the_disk_are_not_taken_for_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as journal:
        mark = journal.checkpoint(0)
        journal.append(body(violated()), 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", _broken)
            with pytest.raises(AuditUnavailable):
                journal.rotate()
        with pytest.raises(AuditUnavailable):  # the kernel tells each failure once
            journal.sync()
        journal.rewind(mark)
        journal.sync()


def _broken(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


def test_a_segment_knows_when_it_was_begun(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(body(violated()), 1_700_000_000_000_000_005)
    with opened(tmp_path) as journal:
        assert journal.begun_ns == 1_700_000_000_000_000_005
        journal.rotate()
        assert (journal.begun_ns, journal.holds_nothing) == (0, True)
        journal.checkpoint(1_700_000_000_000_000_009)
        assert (journal.begun_ns, journal.holds_nothing) == (1_700_000_000_000_000_009, True)
        journal.append(body(violated()), 1_700_000_000_000_000_011)
        assert not journal.holds_nothing
