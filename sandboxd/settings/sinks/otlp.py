"""The sink `otlp`."""

from typing import Literal

from pydantic import field_validator

from sandboxd.settings.outbound import Outbound
from sandboxd.settings.sinks.base import SinkSettings

PATH = "/v1/logs"


class OtlpSettings(SinkSettings, Outbound):
    """OpenTelemetry logs over OTLP/HTTP as protobuf, to a collector or a backend that takes them itself.

    `url` is the receiver's base, as in OTEL_EXPORTER_OTLP_ENDPOINT: /v1/logs is put behind it.
    """

    type: Literal["otlp"]

    @field_validator("url")
    @classmethod
    def _base(cls, url: str) -> str:
        base = url.removesuffix("/")
        if "?" in base:
            raise ValueError("has a query; give the receiver's base, and what it wants to be told as headers")
        if base.endswith(PATH):
            raise ValueError(f"ends in {PATH}, which is put behind it; leave that out")
        return base
