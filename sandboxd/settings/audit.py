"""The journal; docs/audit.md says what each key means. Used by `config`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sandboxd.settings.section import Section


class Audit(Section):
    """`write`: an event is with the kernel before the action proceeds; `fsync`: it is on the disk.

    Without `retain_seconds` and `retain_bytes` nothing is ever deleted. `on_failure` is for what runs when the journal
    cannot be written: what is new is refused in any case.
    `refusals_per_minute`: so many refused requests of each caller are on record one by one, the others are counted.
    Without `index` a query reads line by line.
    """

    durability: Literal["write", "fsync"] = "write"
    segment_bytes: Annotated[int, Field(ge=64 * 1024, le=1024**3)] = 64 * 1024 * 1024
    segment_seconds: Annotated[float, Field(ge=60, le=31 * 86400)] = 86400.0
    checkpoint_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    retain_seconds: Annotated[float, Field(ge=60)] | None = None
    retain_bytes: Annotated[int, Field(ge=128 * 1024)] | None = None
    on_failure: Literal["continue", "kill"] = "continue"
    refusals_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 120
    index: bool = True

    @model_validator(mode="after")
    def _room_for_a_segment(self) -> "Audit":
        """The newest segment is never deleted."""
        if self.retain_bytes is not None and self.retain_bytes < 2 * self.segment_bytes:
            raise ValueError(
                f"retain_bytes must be at least twice segment_bytes, {2 * self.segment_bytes}: the newest segment stays"
            )
        return self
