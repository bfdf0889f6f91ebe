import os
from pathlib import Path

import pytest

from sandboxd.audit.line import LineDamaged
from sandboxd.audit.retention import Archive, Held, Limits, Pack, Removal, removal
from sandboxd.audit.segment import private_directory, segments
from tests.fakes.journal import fill

HOUR = 3600
HOUR_NS = HOUR * 1_000_000_000
ALL = 1 << 62
NONE = Limits(None, None)
# Begun at hours 0, 1, 2, 3; ten records each.
HELD = [Held(f"s{number}", 10 * number + 1, 100, number * HOUR_NS) for number in range(4)]
PACKS = [Pack(f"p{number}", 50, number * HOUR_NS + HOUR_NS // 2) for number in range(4)]
NOW = 4 * HOUR_NS


def gone(found: Removal | None) -> tuple[list[str], list[str], int, str] | None:
    if found is None:
        return None
    names = [held.name for held in found.segments], [pack.name for pack in found.packs]
    return *names, found.first_seq, found.reason


def test_without_limits_everything_stays() -> None:
    assert removal(HELD, PACKS, NONE, NOW, ALL) is None
    assert removal([], [], Limits(1, 1), NOW, ALL) is None


def test_what_ended_too_long_ago_goes_with_the_documents_that_only_it_names() -> None:
    # The first ended at hour 1, the second at hour 2.
    assert gone(removal(HELD, PACKS, Limits(2 * HOUR, None), NOW, ALL)) == (["s0", "s1"], ["p0", "p1"], 21, "age")
    assert gone(removal(HELD, PACKS, Limits(2.5 * HOUR, None), NOW, ALL)) == (["s0"], ["p0"], 11, "age")


def test_the_oldest_go_until_segments_and_documents_fit() -> None:
    assert removal(HELD, PACKS, Limits(None, 600), NOW, ALL) is None
    assert gone(removal(HELD, PACKS, Limits(None, 599), NOW, ALL)) == (["s0"], ["p0"], 11, "bytes")
    assert gone(removal(HELD, PACKS, Limits(None, 300), NOW, ALL)) == (["s0", "s1"], ["p0", "p1"], 21, "bytes")


def test_the_newest_segment_stays_whatever_the_limits_say() -> None:
    found = removal(HELD, PACKS, Limits(0.0, 1), NOW + 99 * HOUR_NS, ALL)
    assert gone(found) == (["s0", "s1", "s2"], ["p0", "p1", "p2"], 31, "age")


@pytest.mark.parametrize(
    ("confirmed", "names"), [(0, []), (9, []), (10, ["s0"]), (29, ["s0", "s1"]), (30, ["s0", "s1", "s2"])]
)
def test_nothing_goes_that_a_required_sink_has_not_confirmed(confirmed: int, names: list[str]) -> None:
    for limits in (Limits(0.0, None), Limits(None, 1)):
        found = removal(HELD, [], limits, NOW, confirmed)
        assert [held.name for held in (found.segments if found is not None else ())] == names


def test_a_document_stored_just_before_the_oldest_segment_stays() -> None:
    pack = Pack("p", 1, HOUR_NS - 1_000_000_000)  # a second before the second segment was begun
    found = removal(HELD, [pack], Limits(2.5 * HOUR, None), NOW, ALL)
    assert gone(found) == (["s0"], [], 11, "age")


def test_documents_older_than_the_oldest_segment_go_by_themselves() -> None:
    found = removal(HELD[1:], PACKS, Limits(99 * HOUR, None), NOW, ALL)
    assert gone(found) == ([], ["p0"], 11, "age")


def test_a_segment_without_a_record_has_not_begun() -> None:
    held = [HELD[0], Held("s1", 11, 0, None)]
    assert removal(held, PACKS, Limits(0.0, None), NOW, ALL) is None
    assert gone(removal(held, PACKS, Limits(None, 1), NOW, ALL)) == (["s0"], [], 11, "bytes")


def test_a_removal_tells_what_it_takes() -> None:
    found = removal(HELD, PACKS, Limits(2 * HOUR, None), NOW, ALL)
    assert found is not None
    event = found.event()
    assert (event.first_seq, event.segments, event.packs, event.removed_bytes, event.reason) == (21, 2, 2, 300, "age")


# With files.


def archive(directory: Path) -> Archive:
    fill(directory / "journal", 20, segment_bytes=4000)
    os.close(private_directory(directory / "documents"))
    return Archive(directory / "journal", directory / "documents")


def pack(directory: Path, name: str, seconds: int) -> None:
    (directory / "documents" / name).write_bytes(b"x" * 10)
    os.utime(directory / "documents" / name, (seconds, seconds))


def test_segments_and_packs_go_from_the_disk(tmp_path: Path) -> None:
    files = archive(tmp_path)
    before = segments(tmp_path / "journal")
    assert len(before) > 2
    pack(tmp_path, "1.pack", -1000)
    pack(tmp_path, "2.pack", -1000)
    found = files.removal(Limits(None, 1), 0, before[1].first_seq - 1, "2.pack")
    assert gone(found) == ([before[0].path.name], ["1.pack"], before[1].first_seq, "bytes")
    assert found is not None
    assert found.segments[0].size_bytes == before[0].path.stat().st_size
    for _ in range(2):  # also one that is gone already
        files.remove(found)
    assert segments(tmp_path / "journal") == before[1:]
    assert [path.name for path in (tmp_path / "documents").iterdir()] == ["2.pack"]


def test_a_damaged_segment_is_evidence_and_nothing_goes(tmp_path: Path) -> None:
    files = archive(tmp_path)
    segments(tmp_path / "journal")[1].path.write_bytes(b"nothing\n")
    with pytest.raises(LineDamaged):
        files.removal(Limits(None, 1), 0, ALL, "")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    files = archive(tmp_path)
    oldest = segments(tmp_path / "journal")[0].path
    oldest.symlink_to(oldest.rename(tmp_path / "elsewhere"))
    with pytest.raises(OSError, match="symbolic links"):
        files.removal(Limits(None, 1), 0, ALL, "")
