"""Journals to look things up in: made line by line, with whatever records and damage a test wants."""

import json
from collections.abc import Sequence
from pathlib import Path

from sandboxd.audit.line import ORIGIN, Link, encode, follow
from sandboxd.audit.segment import segment_name

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000
Content = dict[str, object]


def content(
    rule: str = "policy.decided",
    priority: str = "Informational",
    *,
    tenant: str = "local",
    execution_id: str = "",
    sandbox_id: str = "",
    **fields: object,
) -> Content:
    ids = {"tenant": tenant, "execution_id": execution_id, "sandbox_id": sandbox_id}
    return {"rule": rule, "priority": priority, "ids": ids, "fields": fields}


def write(journal: Path, segments: Sequence[Sequence[Content | bytes]], link: Link = ORIGIN) -> Link:
    """A journal of those segments; bytes stand for a damaged line. Each record is a second after the one before."""
    journal.mkdir(mode=0o700, exist_ok=True)
    for segment in segments:
        with (journal / segment_name(link.seq + 1)).open("wb") as file:
            for item in segment:
                line = item if isinstance(item, bytes) else _encoded(item, link)
                file.write(line + b"\n")
                link = follow(link, line)
    return link


def _encoded(item: Content, link: Link) -> bytes:
    return encode(item, link, "boot", "node", START_NS + link.seq % 1_000_000 * SECOND_NS).rstrip(b"\n")


def rewritten(path: Path, number: int, **changes: object) -> None:
    """Line `number` (from 0) of that segment, edited in place: its length must stay."""
    lines = path.read_bytes().split(b"\n")
    record = json.loads(lines[number])
    record.update(changes)
    line = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    assert len(line) == len(lines[number]), "the lines behind it would move"
    lines[number] = line
    path.write_bytes(b"\n".join(lines))
