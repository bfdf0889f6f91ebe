"""Events in a file of this node, a line each: for a log collector, or to keep.

Never blocks the event loop. Found by name through `plugin`; `sink.ocsf` writes other lines by it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from sandboxd.audit.line import VERSION
from sandboxd.settings.sinks.file import FileSettings, WrittenFile
from sandboxd.sink.base import Record, Sink
from sandboxd.sink.falco_event import falco_line
from sandboxd.sink.log_file import LogFile
from sandboxd.sink.turns import in_turns
from sandboxd.sink.worker import Worker


class FileSink:
    """Sending nothing opens the file, so that a required one proves itself."""

    def __init__(self, file: LogFile, line: Callable[[Record], bytes]) -> None:
        self._file = file
        self._line = line
        self._moved = False
        self._worker = Worker("sink-file")

    async def send(self, records: Sequence[Record]) -> None:
        lines = b"".join([self._line(record) async for record in in_turns(records)])
        await self._worker.run(lambda: self._append(lines))

    def reopen(self) -> None:
        self._moved = True

    async def close(self) -> None:
        self._worker.close(self._file.close)

    def _append(self, lines: bytes) -> None:
        if self._moved:
            self._moved = False
            self._file.close()
        self._file.append(lines)


def journal_line(record: Record) -> bytes:
    """The line that the record was read from, byte for byte: its SHA-256 is `record.digest`."""
    content = {
        "boot": record.boot,
        "fields": dict(record.fields),
        "ids": dict(record.ids),
        "node": record.node,
        "prev": record.prev,
        "priority": record.priority,
        "rule": record.rule,
        "seq": record.seq,
        "time": record.time,
        "v": VERSION,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def create(settings: FileSettings, _node: str) -> Sink:
    return FileSink(log_file(settings), falco_line if settings.format == "falco" else journal_line)


def log_file(settings: WrittenFile) -> LogFile:
    path, mode = Path(settings.path), int(settings.mode, 8)
    return LogFile(path, mode, settings.rotate_bytes, settings.keep, fsync=settings.fsync)
