"""What this node takes on, and where it listens, logs and is measured. Used by `config`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from sandboxd import listening
from sandboxd.settings.section import AbsolutePath, Section


class Listener(Section):
    """One place to listen at: `{unix: PATH}`."""

    unix: AbsolutePath | None = None
    tcp: str | None = None

    @model_validator(mode="after")
    def _only_unix_yet(self) -> "Listener":
        if self.tcp is not None:
            raise ValueError("a tcp listener needs TLS identities, which do not exist yet; use {unix: PATH}")
        if self.unix is None:
            raise ValueError("a listener needs its type; use {unix: PATH}")
        return self


class Profiles(Section):
    """Directories and files with profiles. Empty: the shipped ones."""

    paths: tuple[AbsolutePath, ...] = ()


class NodeLimits(Section):
    """What this node takes on. `max_per_minute` is for each tenant, 0 is no rate."""

    max_concurrent: Annotated[int, Field(ge=1, le=100_000)] = 256
    max_per_minute: Annotated[int, Field(ge=0)] = 0
    retained_executions: Annotated[int, Field(ge=0, le=100_000)] = 256
    retained_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Metrics(Section):
    """Where Prometheus reads, as `listening.place` has it; None: nowhere. What it reads stands in docs/metrics.md."""

    listen: str | None = None

    @field_validator("listen")
    @classmethod
    def _a_place(cls, listen: str | None) -> str | None:
        if listen is not None:
            listening.place(listen)
        return listen

    @property
    def place(self) -> listening.Loopback | Path | None:
        return None if self.listen is None else listening.place(self.listen)
