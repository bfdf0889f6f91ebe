"""A sink's saved place as bytes on the disk: whatever stands there, what it has not had is sent, or all again."""

import tempfile
from pathlib import Path

from bench.soak.target import Broken, Target
from sandboxd.audit import cursor
from sandboxd.audit.choice import Choice
from sandboxd.audit.journal import Position
from sandboxd.audit.line import body
from sandboxd.audit.segment import segments
from sandboxd.event import ExecutionRefused
from sandboxd.settings.sinks.base import Filter
from tests.fakes.journal import open_journal

RECORDS = 6
EVERYTHING = Choice(Filter())
OUTSIDE = (
    "cursor.save",
    # what makes files
    *(f"segment.{name}" for name in ("segment_name", "private_directory", "open_private")),
)


class _Source:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        journal = open_journal(directory, 1024)
        for number in range(RECORDS):
            refused = ExecutionRefused("local", "uid:0", "s", str(number), "", "", "overloaded", "later")
            journal.append(body(refused), number)
        self.readable: Position = journal.position
        journal.close()


def target() -> Target:
    kept = tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-", dir="/dev/shm")
    directory = Path(kept.name)
    (directory / "journal").mkdir()
    source = _Source(directory / "journal")

    def run(data: bytes) -> object:
        _ = kept  # lives as long as this function
        (directory / "fuzz.json").write_bytes(data)
        place = cursor.load(directory, "fuzz")
        read = cursor.Reader(source, EVERYTHING, place).read()
        if (place is None or place.seq < source.readable.link.seq) and (read is None or not read.records):
            raise Broken(f"{place!r}: nothing is sent")
        return None if place is None else str(place.offset).translate(LETTERS)

    first = [segment.first_seq for segment in segments(source.directory)]
    seeds = (
        b'{"segment": 1, "offset": 0, "seq": 0}',
        *(b'{"segment": %d, "offset": 0, "seq": %d}' % (segment, segment - 1) for segment in first),
        b'{"segment": 0, "offset": 0, "seq": 6}',
        b"",
    )
    words = (b"1e999", b"9" * 40, b"-1", b"true", b"null", b'"\\ud800"', b"[" * 200)
    modules = ("sandboxd.audit.cursor", "sandboxd.audit.segment")
    return Target("cursor", modules, run, (), seeds, words, max_bytes=512, outside=OUTSIDE)


# Letters in place of digits, since numbers are all that comes out.
LETTERS = str.maketrans("123", "bug")
