"""The journal; docs/audit.md says what each key means. Used by `config`."""

from typing import Annotated, Literal

from pydantic import Field

from sandboxd.settings.section import Section


class Audit(Section):
    """`write`: an event is with the kernel before the action proceeds; `fsync`: it is on the disk."""

    durability: Literal["write", "fsync"] = "write"
    segment_bytes: Annotated[int, Field(ge=64 * 1024, le=1024**3)] = 64 * 1024 * 1024
