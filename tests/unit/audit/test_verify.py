"""Verification against whoever can write to the journal's directory, by hand and by a thousand random edits."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.audit import checkpoint
from sandboxd.audit.key import SigningKey
from sandboxd.audit.line import ORIGIN, Link, body, encode, follow
from sandboxd.audit.segment import LONGEST_LINE_BYTES, segments
from sandboxd.audit.verify import Abandoned, BadRecord, Fault, verify
from sandboxd.event import JournalTrimmed
from tests.fakes.events import violated
from tests.fakes.journal import KEY, checked, fill, open_journal, signing_key
from tests.unit.audit.mutation import (
    LAST,
    RANDOM,
    Files,
    contents,
    edited,
    every,
    first_changed,
    laid_out,
    names,
    rows,
    with_line,
)

SEGMENT_BYTES = 3000
EDITS = 1000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Twenty events in several segments, a checkpoint as the last record."""
    directory = tmp_path_factory.mktemp("whole") / "journal"
    fill(directory, 20, segment_bytes=SEGMENT_BYTES)
    return contents(directory)


def first_bad(directory: Path, files: Files) -> BadRecord | None:
    return checked(laid_out(directory / "changed", files)).first_bad


def test_a_whole_journal_is_good_and_says_how_far_it_is_signed(tmp_path: Path, whole: Files) -> None:
    result = checked(laid_out(tmp_path / "copy", whole))
    total = len(every(whole))
    assert (result.ok, result.records, result.first_seq, result.last_seq) == (True, total, 1, total)
    assert len(names(whole)) > 3
    assert (result.sealed_seq, result.key_id, result.checkpoints) == (total - 1, KEY.key_id, len(names(whole)) + 1)


def test_without_a_key_the_chain_alone_is_checked(tmp_path: Path, whole: Files) -> None:
    directory = laid_out(tmp_path / "copy", whole)
    assert verify(directory, None).ok
    assert verify(directory, None).sealed_seq == checked(directory).sealed_seq


def test_an_empty_directory_is_an_empty_journal(tmp_path: Path) -> None:
    result = checked(tmp_path)
    assert (result.ok, result.records, result.sealed_seq) == (True, 0, 0)


# What is done to one record, and which fault is named. The first segments have three or four records each.

ONE: dict[str, tuple[Callable[[bytes], bytes], Fault]] = {
    "a value": (lambda line: edited(line, detail="forged"), Fault.EDITED),
    "a field more": (lambda line: edited(line, more=1), Fault.EDITED),
    "the version": (lambda line: line.replace(b'"v":1', b'"v":2'), Fault.MALFORMED),
    "white space": (lambda line: line.replace(b":", b": ", 1), Fault.EDITED),
    "no JSON": (lambda line: line[:40] + b"\n", Fault.MALFORMED),
    "an empty line": (lambda line: b"\n", Fault.MALFORMED),
    "another number": (lambda line: line.replace(b'"seq":', b'"seq":9'), Fault.EDITED),
    "a number that is none": (lambda line: line.replace(b'"seq":', b'"seq":"x","time":'), Fault.MALFORMED),
    "a fraction": (lambda line: line.replace(b',"time"', b'.0,"time"'), Fault.MALFORMED),
    "another predecessor": (lambda line: line.replace(b'"prev":"', b'"prev":"0'), Fault.EDITED),
    "a predecessor that is none": (lambda line: line.replace(b'"prev":"', b'"prev":0,"_":"'), Fault.MALFORMED),
}


@pytest.mark.parametrize("seq", [2, 3, 6, 11])
@pytest.mark.parametrize("kind", ONE)
def test_an_edited_record_is_named(tmp_path: Path, whole: Files, kind: str, seq: int) -> None:
    edit, fault = ONE[kind]
    _, _, line = every(whole)[seq - 1]
    assert edit(line) != line
    found = first_bad(tmp_path, with_line(whole, seq, edit(line)))
    assert found is not None
    assert (found.seq, found.fault) == (seq, fault)


def test_the_last_record_before_the_last_checkpoint_is_named(tmp_path: Path, whole: Files) -> None:
    seq = len(every(whole)) - 1
    _, _, line = every(whole)[seq - 1]
    found = first_bad(tmp_path, with_line(whole, seq, edited(line, detail="forged")))
    assert found is not None
    assert (found.seq, found.fault) == (seq, Fault.EDITED)


def test_a_segment_and_a_line_in_it_are_told(tmp_path: Path, whole: Files) -> None:
    name = names(whole)[1]
    lines = rows(whole, name)
    lines[1] = edited(lines[1], detail="forged")
    found = first_bad(tmp_path, {**whole, name: b"".join(lines)})
    assert found is not None
    assert (found.segment, found.line, found.seq) == (name, 2, int(name[:20]) + 1)


# Checkpoints.


def rechained(files: Files, at: int, line: bytes, key: SigningKey | None = None) -> Files:
    """`line` as record `at`, and every later one made to fit, as one can who has no key, or another one."""
    changed = dict.fromkeys(names(files), b"")
    link = ORIGIN
    for number, (name, _, old) in enumerate(every(files), 1):
        record = json.loads(line if number == at else old)
        record |= {"seq": link.seq + 1, "prev": link.digest}
        if record["rule"] == "journal.checkpoint":
            record["fields"] |= {"sealed_seq": link.seq, "sealed_digest": link.digest}
            if key is not None:
                record = json.loads(encode(checkpoint.content(key, "boot", link, 0), link, "boot", "node", 0))
        new = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        changed[name] += new + b"\n"
        last, link = new, follow(link, new)
    return {**changed, LAST: last + b"\n"}


@pytest.mark.parametrize("seq", [2, 7, 15])
def test_a_journal_written_anew_from_some_record_on_is_found_at_the_next_checkpoint(
    tmp_path: Path, whole: Files, seq: int
) -> None:
    _, _, line = every(whole)[seq - 1]
    found = first_bad(tmp_path, rechained(whole, seq, edited(line, detail="forged")))
    after = next(
        number for number, (_, _, old) in enumerate(every(whole), 1) if number > seq and b"journal.checkpoint" in old
    )
    assert found is not None
    assert (found.seq, found.fault) == (after, Fault.BAD_SIGNATURE)


def test_a_journal_signed_with_another_key_is_found_at_its_first_checkpoint(tmp_path: Path, whole: Files) -> None:
    other = signing_key(2)
    found = first_bad(tmp_path, rechained(whole, 0, b"", other))
    assert found is not None
    assert (found.seq, found.fault) == (1, Fault.WRONG_KEY)
    liar = SigningKey(other.private, KEY.key_id)
    found = first_bad(tmp_path, rechained(whole, 0, b"", liar))
    assert found is not None
    assert (found.seq, found.fault) == (1, Fault.BAD_SIGNATURE)


def test_a_journal_without_checkpoints_is_none_of_ours(tmp_path: Path) -> None:
    link, data = ORIGIN, b""
    for number in range(5):
        line = encode(body(violated()), link, "boot", "node", number)
        data, link = data + line, follow(link, line[:-1])
    found = first_bad(tmp_path, {f"{1:020d}.jsonl": data})
    assert found is not None
    assert (found.seq, found.fault) == (1, Fault.MISSING)


# What is missing.


def test_a_missing_segment_is_named_by_its_first_record(tmp_path: Path, whole: Files) -> None:
    for gone in names(whole)[1:-1]:
        found = first_bad(tmp_path, {name: content for name, content in whole.items() if name != gone})
        assert found is not None
        assert (found.seq, found.fault) == (int(gone[:20]), Fault.MISSING)


def test_missing_oldest_segments_are_no_retention_unless_a_record_says_so(tmp_path: Path, whole: Files) -> None:
    first, second, *_ = names(whole)
    found = first_bad(tmp_path, {name: content for name, content in whole.items() if name != first})
    assert found is not None
    assert (found.seq, found.fault, found.segment) == (1, Fault.MISSING, second)


def test_retention_leaves_a_journal_that_begins_with_a_signed_checkpoint(tmp_path: Path) -> None:
    paths = fill(tmp_path, 20, segment_bytes=SEGMENT_BYTES)
    journal = open_journal(tmp_path, SEGMENT_BYTES)
    journal.append(body(JournalTrimmed("", "", "", "", "", "", int(paths[2].stem), 2, 0, 0, "age")), 0)
    journal.checkpoint(0)
    assert journal.sealed is not None
    journal.keep(journal.sealed)
    journal.close()
    assert checked(tmp_path).ok  # said, and not done yet
    for path in paths[:2]:
        path.unlink()
    result = checked(tmp_path)
    assert (result.ok, result.first_seq) == (True, int(paths[2].stem))
    before = contents(tmp_path)
    lines = rows(before, paths[2].name)
    forged = {**before, paths[2].name: b"".join([lines[0].replace(b'"prev":"', b'"prev":"0'), *lines[1:]])}
    found = first_bad(tmp_path, forged)
    assert found is not None
    assert (found.seq, found.fault) == (int(paths[2].stem), Fault.EDITED)
    paths[2].unlink()
    bad = checked(tmp_path).first_bad
    assert bad is not None
    assert (bad.seq, bad.fault) == (int(paths[2].stem), Fault.MISSING)


def test_a_retention_that_no_checkpoint_sealed_is_none(tmp_path: Path) -> None:
    paths = fill(tmp_path, 20, segment_bytes=SEGMENT_BYTES)
    journal = open_journal(tmp_path, SEGMENT_BYTES)
    journal.append(body(JournalTrimmed("", "", "", "", "", "", int(paths[1].stem), 1, 0, 0, "age")), 0)
    journal.close()
    paths[0].unlink()
    bad = checked(tmp_path).first_bad
    assert bad is not None
    assert (bad.seq, bad.fault) == (1, Fault.MISSING)


@pytest.mark.parametrize("lost", [1, 2, 5, 9])
def test_a_tail_that_was_cut_off_is_found_by_the_last_checkpoint(tmp_path: Path, whole: Files, lost: int) -> None:
    left = dict(whole)
    for _ in range(lost):
        newest = names(left)[-1]
        left[newest] = b"".join(rows(left, newest)[:-1])
        if not left[newest]:
            del left[newest]
    found = first_bad(tmp_path, left)
    assert found is not None
    assert (found.seq, found.fault) == (len(every(whole)) - lost + 1, Fault.TRUNCATED)


def test_a_missing_last_checkpoint_is_found(tmp_path: Path, whole: Files) -> None:
    found = first_bad(tmp_path, {name: content for name, content in whole.items() if name != LAST})
    assert found is not None
    assert (found.segment, found.fault) == (LAST, Fault.MISSING)


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"", Fault.MALFORMED), (b"{}\n", Fault.MALFORMED), (b"\xff\n", Fault.MALFORMED)],
)
def test_a_last_checkpoint_that_is_none_is_found(tmp_path: Path, whole: Files, content: bytes, fault: Fault) -> None:
    found = first_bad(tmp_path, {**whole, LAST: content})
    assert found is not None
    assert (found.segment, found.fault) == (LAST, fault)


def test_a_last_checkpoint_of_another_journal_is_found(tmp_path: Path, whole: Files) -> None:
    for other, fault in ((KEY, Fault.EDITED), (signing_key(2), Fault.WRONG_KEY)):
        link = Link(5, "d" * 64)
        line = encode(checkpoint.content(other, "boot", link, 0), link, "boot", "node", 0)
        found = first_bad(tmp_path, {**whole, LAST: line})
        assert found is not None
        assert (found.segment, found.fault) == (LAST, fault)


def test_a_newest_segment_emptied_is_found(tmp_path: Path, whole: Files) -> None:
    newest = names(whole)[-1]
    earlier = rows(whole, names(whole)[-2])[0]
    assert b"journal.checkpoint" in earlier
    found = first_bad(tmp_path, {**whole, newest: b"", LAST: earlier})  # and an older last checkpoint put back
    assert found is None  # as after a crash: what is not signed yet is not missed
    later = f"{int(newest[:20]) + 5:020d}.jsonl"
    left = {name: content for name, content in whole.items() if name != newest}
    found = first_bad(tmp_path, {**left, later: b"", LAST: earlier})
    assert found is not None
    assert (found.seq, found.fault) == (int(newest[:20]), Fault.MISSING)


# What is in another place.


def test_records_in_another_order_are_found(tmp_path: Path, whole: Files) -> None:
    lines = [line for _, _, line in every(whole)]
    for one, other in ((2, 3), (2, 9), (5, 12), (1, 8)):
        found = first_bad(tmp_path, with_line(with_line(whole, one, lines[other - 1]), other, lines[one - 1]))
        assert found is not None
        assert (found.seq, found.fault) == (one, Fault.REORDERED)


def test_a_record_that_is_there_twice_is_found(tmp_path: Path, whole: Files) -> None:
    for seq in (1, 2, 7, len(every(whole))):
        _, _, line = every(whole)[seq - 1]
        found = first_bad(tmp_path, with_line(whole, seq, line + line))
        assert found is not None
        assert (found.seq, found.fault) == (seq + 1, Fault.REORDERED)


def test_segments_under_each_others_names_are_found(tmp_path: Path, whole: Files) -> None:
    _, second, third, *_ = names(whole)
    found = first_bad(tmp_path, {**whole, second: whole[third], third: whole[second]})
    assert found is not None
    assert (found.seq, found.fault) == (int(second[:20]), Fault.REORDERED)


def test_a_segment_under_another_name_is_found(tmp_path: Path, whole: Files) -> None:
    second = names(whole)[1]
    moved = {f"{int(second[:20]) + 1:020d}.jsonl" if name == second else name: text for name, text in whole.items()}
    found = first_bad(tmp_path, moved)
    assert found is not None
    assert (found.seq, found.fault) == (int(second[:20]), Fault.MALFORMED)


def test_a_segment_of_another_journal_is_found(tmp_path: Path, whole: Files) -> None:
    """Of the same key, even: two lives of one node, spliced."""
    other = tmp_path / "other"
    journal = open_journal(other, SEGMENT_BYTES, boot="another")
    for number in range(20):
        journal.append(body(violated(f"other {number}")), number)
    journal.close()
    spliced = [name for name in names(whole)[1:-1] if (other / name).exists()]
    assert spliced
    for name in spliced:
        found = first_bad(tmp_path, {**whole, name: (other / name).read_bytes()})
        assert found is not None
        assert found.seq in (int(name[:20]) - 1, int(name[:20]))


def test_what_is_no_line_at_all_is_found(tmp_path: Path, whole: Files) -> None:
    newest = names(whole)[-1]
    found = first_bad(tmp_path, {**whole, newest: whole[newest] + b"x" * LONGEST_LINE_BYTES})
    assert found is not None
    assert (found.seq, found.fault) == (len(every(whole)) + 1, Fault.TRUNCATED)


# Who asks.


def test_links_are_not_followed(tmp_path: Path, whole: Files) -> None:
    laid_out(tmp_path / "real", whole)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="Not a directory"):
        checked(tmp_path / "link")
    directory = laid_out(tmp_path / "changed", whole)
    path = segments(directory)[1].path
    path.symlink_to(path.rename(tmp_path / "elsewhere"))
    with pytest.raises(OSError, match="symbolic links"):
        checked(directory)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PermissionError, match="not a regular file"):
        checked(directory)


def test_whoever_asked_may_go(tmp_path: Path, whole: Files) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Abandoned):
        verify(laid_out(tmp_path / "copy", whole), KEY.private.public_key(), abandoned=lambda: next(asked))


# A thousand random edits.


@pytest.mark.parametrize("seed", range(10))
def test_each_random_edit_is_found_and_its_first_record_named(tmp_path: Path, whole: Files, seed: int) -> None:
    chance = random.Random(seed)
    done = 0
    while done < EDITS // 10:
        edit = chance.choice(RANDOM)
        after = edit(whole, chance)
        if after == whole:
            continue
        done += 1
        found = first_bad(tmp_path, after)
        what = f"seed {seed}, edit {done}, {edit.__name__}: {found}"
        assert found is not None, what
        if {name: after.get(name) for name in names(whole)} == {name: whole[name] for name in names(whole)}:
            assert found.segment == LAST, what
        else:
            assert found.seq == first_changed(whole, after), what
