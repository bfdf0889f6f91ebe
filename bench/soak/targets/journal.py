"""A journal's segments as bytes on the disk: `verify` judges any, `Journal` opens or refuses any, `decode` reads lines.

Segments are divided by NUL; where the first is empty, older ones are gone. Lines are chained again before the second
look, so that mutations reach what lies behind the hash.
"""

import contextlib
import json
import tempfile
from pathlib import Path

from bench.soak.target import Broken, Target
from sandboxd.audit.journal import Journal, verify
from sandboxd.audit.line import ORIGIN, LineDamaged, Link, body, decode, encode, follow
from sandboxd.audit.segment import segment_name
from sandboxd.errors import AuditUnavailable
from sandboxd.event import ExecutionRefused

MOST_SEGMENTS = 3
# What writes, and what a record is made from.
OUTSIDE = (
    *(f"journal.Journal.{name}" for name in ("position", "directory", "sync", "rewind", "_create")),
    *(f"line.{name}" for name in ("body", "_put", "_item", "_sha256")),
)


def target() -> Target:
    # In memory: a real journal waits for its disk, and that is not what is tried here.
    place = tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-", dir="/dev/shm")
    directory = Path(place.name)

    def run(data: bytes) -> object:
        _ = place.name  # kept alive with this function
        parts = data.split(b"\0")[:MOST_SEGMENTS]
        _judge(directory, parts)
        return _judge(directory, _chained(parts))

    modules = ("sandboxd.audit.line", "sandboxd.audit.journal", "sandboxd.audit.segment")
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
    last = _lay_out(directory, parts)
    found = verify(directory)
    whole = sum(part.count(b"\n") for part in parts)
    if found.records > whole or (found.ok and found.records != whole):
        raise Broken(f"{found!r} for {whole} lines")
    try:
        journal = Journal(directory, "b" * 32, "node", 1 << 20)
    except AuditUnavailable as error:
        if found.ok:
            raise Broken(f"verified, but not opened: {error}") from error
    else:
        journal.append({"rule": "r", "priority": "Notice", "ids": {}, "fields": {}}, 1)
        journal.close()
        # of closed segments it believes the last line
        if found.ok is not verify(directory).ok or (found.first_bad is not None and found.first_bad.segment == last):
            raise Broken("damaged, but opened" if not found.ok else "damaged by being opened")
    record = None
    for line in parts[-1].splitlines()[:4]:
        with contextlib.suppress(LineDamaged):
            record = decode(line)
    return record if found.ok else None


def _lay_out(directory: Path, parts: list[bytes]) -> str:
    """Each segment under the name of its first record; the last one's name."""
    for path in directory.iterdir():
        path.unlink()
    first = 1
    for part in parts:
        name = segment_name(first)
        if part or first > 1 or len(parts) == 1:
            (directory / name).write_bytes(part)
        first += part.count(b"\n") or 1
    return name


def _chained(parts: list[bytes]) -> list[bytes]:
    """Each line that is an object, made canonical and the next of the chain."""
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
            with contextlib.suppress(RecursionError):
                line = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
            result += line + b"\n"
            link = follow(link, line)
        found.append(result)
    return found


def _seeds() -> tuple[bytes, ...]:
    lines: list[bytes] = []
    link = Link(0, ORIGIN.digest)
    for number in range(3):
        line = encode(
            body(ExecutionRefused("local", "uid:0", "s", str(number), "", "", "overloaded", "later")),
            link,
            "b" * 32,
            "node",
            number,
        )
        lines.append(line)
        link = follow(link, line[:-1])
    two, older_gone = lines[0] + lines[1] + b"\0" + lines[2], b"\0" + lines[1] + b"\0" + lines[2]
    return (b"".join(lines), two, older_gone, lines[0], lines[0][:-1], lines[1], b"", b"\n")
