"""Reads the journal for whoever looks back: records since a moment, oldest first. Never writes, never follows a link.

Safe for root to call on what the daemon's user owns. Called by `sandboxctl policy replay`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from sandboxd.audit.line import LineDamaged, decode
from sandboxd.audit.segment import lines, open_private, segments
from sandboxd.sink.base import Record


def records(journal: Path, rule: str, since: str) -> Iterator[Record]:
    """Those of one rule from `since` (UTC, as the journal writes times) on.

    OSError if the journal cannot be read, ValueError naming the segment if a record of that rule is damaged.
    """
    wanted = f'"rule":"{rule}"'.encode()  # lines are canonical JSON, and tenant text cannot hold an unescaped quote
    directory = os.open(journal, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in [segment.path.name for segment in segments(journal)]:
            try:
                segment = open_private(directory, name, os.O_RDONLY)
            except FileNotFoundError:
                continue  # retention took it meanwhile
            try:
                for _, line in lines(segment):
                    if wanted in line:
                        record = decode(line)
                        if record.rule == rule and record.time >= since:
                            yield record
            except LineDamaged as error:
                raise ValueError(f"{name}: {error}") from error
            finally:
                os.close(segment)
    finally:
        os.close(directory)
