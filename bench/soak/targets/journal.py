"""A journal's segment as bytes on the disk: `verify` judges any, `Journal` opens or refuses any, `decode` reads lines.

Lines are chained again before the second look, so that mutations reach what lies behind the hash.
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


def target() -> Target:
    # In memory: a real journal waits for its disk, and that is not what is tried here.
    place = tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-", dir="/dev/shm")
    path = Path(place.name, segment_name(1))

    def run(data: bytes) -> object:
        _ = place.name  # kept alive with this function
        _judge(path, data)
        return _judge(path, _chained(data))

    modules = ("sandboxd.audit.line", "sandboxd.audit.journal", "sandboxd.audit.segment")
    words = (
        b"\n",
        b'"seq":1',
        b'"v":1',
        b"1e999",
        b"NaN",
        b"9" * 40,
        b'"\\ud800"',
        b"[" * 300 + b"]" * 300,
        b'{"a":1}',
    )
    return Target("journal", modules, run, (LineDamaged,), _seeds(), words)


def _judge(path: Path, data: bytes) -> object:
    """The last record of a journal that was opened."""
    path.write_bytes(data)
    found = verify(path.parent)
    whole = data.count(b"\n")
    if found.records > whole or (found.ok and found.records != whole):
        raise Broken(f"{found!r} for {whole} lines")
    try:
        journal = Journal(path.parent, "b" * 32, "node", 1 << 20)
    except AuditUnavailable as error:
        if found.ok:
            raise Broken(f"verified, but not opened: {error}") from error
    else:
        journal.append({"rule": "r", "priority": "Notice", "ids": {}, "fields": {}}, 1)
        journal.close()
        if not found.ok or not verify(path.parent).ok:
            raise Broken("damaged, but opened")
    record = None
    for line in data.splitlines()[:4]:
        with contextlib.suppress(LineDamaged):
            record = decode(line)
    return record if found.ok else None


def _chained(data: bytes) -> bytes:
    """Each line that is an object, made canonical and the next of the chain."""
    link = ORIGIN
    result = b""
    for line in data.splitlines()[:8]:
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
    return result


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
    return (b"".join(lines), lines[0], lines[0][:-1], lines[1], b"", b"\n")
