"""The daemon's own log on stderr: one line per record, a constant message and its fields.

Never a place for tenant data that matters: that is audit's. Control characters are always escaped. Set up by `daemon`.
"""

import json
import logging
import sys
import time
from typing import Literal

# What every record has; the rest came in as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({**_head(record), **_fields(record)}, ensure_ascii=True, default=str)


class Text(logging.Formatter):
    """`time level logger: message key="value"`: values are JSON, so that a line stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={json.dumps(value, default=str)}" for name, value in _fields(record).items())
        return f"{_time(record)} {record.levelname.lower()} {record.name}: {_one_line(record.getMessage())}{fields}"


def set_up(level: str, style: Literal["json", "text"]) -> None:
    """For the whole process; a second call replaces the first. `level` is for our own; libraries warn only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("sandboxd").setLevel(level.upper())


def _head(record: logging.LogRecord) -> dict[str, str]:
    return {
        "time": _time(record),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _one_line(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)[1:-1].replace('\\"', '"')
