"""All sinks that a configuration may name, told apart by `type`. A new sink is one more name here. Used by `config`."""

from typing import Annotated

from pydantic import Field

from sandboxd.settings.sinks.cloudevents import CloudEventsSettings
from sandboxd.settings.sinks.falco_grpc import FalcoGrpcSettings
from sandboxd.settings.sinks.falcosidekick import FalcosidekickSettings
from sandboxd.settings.sinks.file import FileSettings
from sandboxd.settings.sinks.ocsf import OcsfSettings
from sandboxd.settings.sinks.otlp import OtlpSettings
from sandboxd.settings.sinks.stdout import StdoutSettings
from sandboxd.settings.sinks.syslog import SyslogSettings

AnySink = Annotated[
    StdoutSettings
    | FileSettings
    | SyslogSettings
    | CloudEventsSettings
    | FalcoGrpcSettings
    | FalcosidekickSettings
    | OcsfSettings
    | OtlpSettings,
    Field(discriminator="type"),
]
