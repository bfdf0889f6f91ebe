"""The sink `file`, and what every sink that writes a file has."""

import posixpath
from typing import Annotated, Literal

from pydantic import Field, field_validator

from sandboxd.settings.section import AbsolutePath
from sandboxd.settings.sinks.base import SinkSettings


class WrittenFile(SinkSettings):
    """A line each, appended to the file at `path`.

    A file that would grow over `rotate_bytes` becomes PATH.1, that one PATH.2, up to `keep` of them; 0: somebody else
    rotates (logrotate). `fsync`: a record counts as taken when it is on the disk.
    """

    path: AbsolutePath
    rotate_bytes: Annotated[int, Field(ge=0, le=1 << 40)] = 64 * 1024 * 1024
    keep: Annotated[int, Field(ge=1, le=1000)] = 8
    mode: Literal["0600", "0640"] = "0600"
    fsync: bool = False

    @field_validator("path")
    @classmethod
    def _a_file(cls, path: str) -> str:
        if posixpath.normpath(path) != path or path.startswith("//"):
            raise ValueError("must name a file, without . or .. and without / at its end")
        return path

    @field_validator("rotate_bytes")
    @classmethod
    def _room_for_records(cls, rotate_bytes: int) -> int:
        if 0 < rotate_bytes < 64 * 1024:
            raise ValueError("is less than a few records; use 65536 or more, or 0 to leave it to somebody else")
        return rotate_bytes

    @property
    def directories(self) -> tuple[str, ...]:
        return (posixpath.dirname(self.path),)


class FileSettings(WrittenFile):
    """`format`: Falco JSON, or the journal's own lines, which can be verified as the journal is."""

    type: Literal["file"]
    format: Literal["falco", "journal"] = "falco"
