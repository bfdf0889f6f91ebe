"""The sink `falcosidekick`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from sandboxd.settings.outbound import Outbound
from sandboxd.settings.sinks.base import SinkSettings


class FalcosidekickSettings(SinkSettings, Outbound):
    """Falco JSON, a POST for each event, to falcosidekick or to Falco's collector plugin.

    At most `connections` events are under way at once, of one execution never more than one. `compression` is given up
    with a receiver that does not take it: falcosidekick itself does not, a gateway before it may.
    """

    type: Literal["falcosidekick"]
    connections: Annotated[int, Field(ge=1, le=64)] = 4

    @field_validator("url")
    @classmethod
    def _without_query(cls, url: str) -> str:
        if "?" in url:
            raise ValueError(
                "has a query, which falcosidekick does not read; leave it out (a token goes to token_file)"
            )
        return url
