"""The sink `cloudevents`."""

from typing import Annotated, Literal

from pydantic import Field

from sandboxd.settings.outbound import Outbound
from sandboxd.settings.sinks.base import SinkSettings


class CloudEventsSettings(SinkSettings, Outbound):
    """CloudEvents 1.0 as JSON over HTTP. `structured`: a POST for each event, `connections` at once, of one execution
    never more than one. `batched`: a POST for up to `batch_events` and `batch_bytes`, one after the other; by itself an
    event may be larger. A receiver that takes less at a time (413) gets less.
    """

    type: Literal["cloudevents"]
    mode: Literal["structured", "batched"] = "structured"
    connections: Annotated[int, Field(ge=1, le=64)] = 4
    batch_events: Annotated[int, Field(ge=1, le=256)] = 100
    batch_bytes: Annotated[int, Field(ge=4096, le=64 * 1024 * 1024)] = 512 * 1024
