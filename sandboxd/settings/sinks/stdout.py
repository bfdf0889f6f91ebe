"""The sink `stdout`."""

from typing import Literal

from sandboxd.settings.sinks.base import SinkSettings


class StdoutSettings(SinkSettings):
    """Falco JSON, a line each, on the daemon's standard output."""

    type: Literal["stdout"]
