"""A journal's segments as bytes on the disk: `verify` judges any, `Journal` opens or refuses any, `decode` reads lines.

Segments are divided by NUL; where the first is empty, older ones are gone. The last checkpoint among the lines is the
one kept beside them. Lines are chained again before the second look, and checkpoints signed again before the third, so
that mutations reach what lies behind hash and signature.
"""

import contextlib
import json
import tempfile
from pathlib import Path

from bench.soak.target import Broken, Target
from sandboxd.audit import checkpoint
from sandboxd.audit.line import ORIGIN, LineDamaged, Link, body, decode, encode, follow
from sandboxd.audit.segment import segment_name
from sandboxd.errors import AuditUnavailable
from sandboxd.event import ExecutionRefused, JournalCheckpoint, JournalTrimmed
from tests.fakes.journal import KEY, checked, keep, open_journal

MOST_SEGMENTS = 3
_CHECKPOINT = f'"rule":"{JournalCheckpoint.rule}"'.encode()
# What writes.
OUTSIDE = (
    *(f"journal.Journal.{name}" for name in ("directory", "sync", "rewind", "give_up_sync", "rotate", "_create")),
    *(f"journal.Journal.{name}" for name in ("position", "holds_nothing")),
)


def target() -> Target:
    # In memory: a real journal waits for its disk, and that is not what is tried here.
    place = tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-", dir="/dev/shm")
    directory = Path(place.name)

    def run(data: bytes) -> object:
        _ = place.name  # kept alive with this function
        parts = data.split(b"\0")[:MOST_SEGMENTS]
        _judge(directory, parts)
        _judge(directory, _chained(parts, signed=False))
        return _judge(directory, _chained(parts, signed=True))

    modules = tuple(f"sandboxd.audit.{name}" for name in ("line", "journal", "segment", "checkpoint", "verify"))
    words = (
        b"\n",
        b"\0",
        b'"seq":1',
        b'"v":1',
        b"1e999",
        b"NaN",
        b"9" * 40,
        b'"\\ud800"',
        b"[" * 300 + b"]" * 300,
        b'{"a":1}',
    )
    return Target("journal", modules, run, (LineDamaged,), _seeds(), words, outside=OUTSIDE)


def _judge(directory: Path, parts: list[bytes]) -> object:
    """The last record of a journal that was opened."""
    _lay_out(directory, parts)
    found = checked(directory)
    whole = sum(part.count(b"\n") for part in parts)
    if found.records > whole or (found.ok and found.records != whole):
        raise Broken(f"{found!r} for {whole} lines")
    try:
        journal = open_journal(directory)
    except AuditUnavailable as error:
        if found.ok:
            raise Broken(f"verified, but not opened: {error}") from error
    else:
        journal.append({"rule": "r", "priority": "Notice", "ids": {}, "fields": {}}, 1)
        keep(journal)
        journal.close()
        after = checked(directory)
        # the last checkpoint is put beside it again after a crash in the first start
        if found.ok is not after.ok and not (found.first_bad and found.first_bad.segment == checkpoint.LAST):
            raise Broken(f"{after.first_bad or 'mended'!r} after it was opened with {found.first_bad!r}")
    record = None
    for line in parts[-1].splitlines()[:4]:
        with contextlib.suppress(LineDamaged):
            record = decode(line)
    return record if found.ok else None


def _lay_out(directory: Path, parts: list[bytes]) -> None:
    """Each segment under the name of its first record."""
    for path in directory.iterdir():
        path.unlink()
    first = 1
    for part in parts:
        name = segment_name(first)
        if part or first > 1 or len(parts) == 1:
            (directory / name).write_bytes(part)
        first += part.count(b"\n") or 1
    if found := [line for part in parts for line in part.splitlines() if _CHECKPOINT in line]:
        (directory / checkpoint.LAST).write_bytes(found[-1] + b"\n")


def _chained(parts: list[bytes], *, signed: bool) -> list[bytes]:
    """Each line that is an object, canonical and next in the chain; checkpoints seal it, with our key if `signed`."""
    link = ORIGIN if parts[0] else Link(1, ORIGIN.digest)
    found = []
    for part in parts:
        result = b""
        for line in part.splitlines()[:8]:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                result += line + b"\n"
                continue
            if isinstance(record, dict):
                record |= {"seq": link.seq + 1, "prev": link.digest}
                if record.get("rule") == JournalCheckpoint.rule and isinstance(record.get("fields"), dict):
                    record["fields"] |= {"sealed_seq": link.seq, "sealed_digest": link.digest}
                    if signed:
                        record |= json.loads(encode(checkpoint.content(KEY, "b" * 32, link, 1), link, "b" * 32, "n", 1))
            with contextlib.suppress(RecursionError):
                line = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
            result += line + b"\n"
            link = follow(link, line)
        found.append(result)
    return found


def _seeds() -> tuple[bytes, ...]:
    lines: list[bytes] = []
    link = Link(0, ORIGIN.digest)
    refused = body(ExecutionRefused("local", "uid:0", "s", "e", "", "", "overloaded", "later"))
    trimmed = body(JournalTrimmed("", "", "", "", "", "", 2, 1, 0, 9, "age"))
    for number, content in enumerate((None, refused, None, refused, trimmed, None)):
        content = content or checkpoint.content(KEY, "b" * 32, link, number)
        line = encode(content, link, "b" * 32, "node", number)
        lines.append(line)
        link = follow(link, line[:-1])
    whole, two, gone = b"".join(lines), lines[0] + lines[1] + b"\0" + b"".join(lines[2:]), b"\0" + b"".join(lines[2:])
    return (whole, two, gone, lines[0], lines[0][:-1], lines[1], b"".join(lines[:3]), b"", b"\n")
