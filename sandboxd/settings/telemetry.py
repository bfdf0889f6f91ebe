"""Where the daemon tells OpenTelemetry what it does, and how much: by default nowhere and nothing. Used by `config`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sandboxd.settings.outbound import Outbound
from sandboxd.settings.section import Section


class Otlp(Outbound):
    """A collector: `/v1/traces` and `/v1/metrics` are asked for below `url`."""

    protocol: Literal["http/protobuf"] = "http/protobuf"

    @model_validator(mode="after")
    def _a_place_for_paths(self) -> "Otlp":
        if "?" in self.url or self.url.endswith("/"):
            raise ValueError("url is what stands before /v1/traces; leave out a query and the last /")
        return self


class Telemetry(Section):
    """`sample_ratio` is of executions whose callers are in no trace; of the others the caller's own flag says it."""

    otlp: Otlp | None = None
    traces: bool = True
    metrics: bool = True
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    metrics_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0

    @model_validator(mode="after")
    def _somewhere(self) -> "Telemetry":
        if self.otlp is None and self.model_fields_set:
            raise ValueError("has nowhere to go; set otlp: {url: http://127.0.0.1:4318}, or leave telemetry out")
        return self

    @property
    def measures(self) -> bool:
        return self.otlp is not None and self.metrics
