"""The sink `falco_grpc`. Used by `any`, and by the sink."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator

from sandboxd import listening
from sandboxd.settings.section import AbsolutePath, Section
from sandboxd.settings.sinks.base import SinkSettings


class FalcoGrpcTls(Section):
    """A place that other machines reach. Whoever comes shows a certificate of `client_ca`, or learns nothing."""

    address: str
    certificate: AbsolutePath
    key: AbsolutePath
    client_ca: AbsolutePath

    @field_validator("address")
    @classmethod
    def _an_address(cls, address: str) -> str:
        listening.address(address)
        return address


class FalcoGrpcSettings(SinkSettings):
    """Served as Falco up to 0.43 did, for clients that fetch. `socket`: by default NAME.sock beside the API's own.

    The newest `queue_events` are kept until one of the clients has fetched them, and of these `queue_bytes` at most.
    """

    type: Literal["falco_grpc"]
    socket: AbsolutePath = ""
    socket_mode: Literal["0600", "0660"] = "0600"
    tls: FalcoGrpcTls | None = None
    queue_events: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    queue_bytes: Annotated[int, Field(ge=64 * 1024, le=1 << 30)] = 16 * 1024 * 1024

    @field_validator("required")
    @classmethod
    def _never_required(cls, required: bool) -> bool:
        if required:
            raise ValueError(
                "cannot be had of falco_grpc: clients fetch from it and confirm nothing, so nobody could tell that an"
                " event has arrived; leave it out, and require a sink that is sent to"
            )
        return required

    @field_validator("socket")
    @classmethod
    def _fits(cls, path: str) -> str:
        listening.place(f"unix://{path}")
        return path

    @property
    def hidden(self) -> tuple[str, ...]:
        return (str(Path(self.socket).parent),)

    def placed(self, directory: Path) -> Self:
        return self if self.socket else self.model_copy(update={"socket": str(directory / f"{self.name}.sock")})
