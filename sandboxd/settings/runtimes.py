"""The runtimes of this node. Used by `config`."""

from typing import Annotated, Final

from pydantic import Field, model_validator

from sandboxd.settings.section import Section

FIRST_SANDBOX_ID: Final = 1879048192  # 0x70000000: above the ranges that adduser and systemd hand out
LAST_ID: Final = 2**32 - 2
IDS_PER_SANDBOX: Final = 16


class IdRange(Section):
    """Host ids of sandboxes when started as root: nobody else on this machine may have one of them."""

    start: Annotated[int, Field(ge=65536, le=LAST_ID)] = FIRST_SANDBOX_ID
    count: Annotated[int, Field(ge=IDS_PER_SANDBOX)] = 65536

    @model_validator(mode="after")
    def _within_ids(self) -> "IdRange":
        if self.start + self.count - 1 > LAST_ID:
            raise ValueError(f"start + count is over {LAST_ID}; choose a smaller count")
        return self


class ProcessRuntimeSettings(Section):
    """The process runtime. `daemon_user` is who the daemon becomes when started as root."""

    ids: IdRange = IdRange()
    daemon_user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "sandboxd"
    blank_stock: Annotated[int, Field(ge=0, le=256)] = 4


class Runtimes(Section):
    process: ProcessRuntimeSettings = ProcessRuntimeSettings()
