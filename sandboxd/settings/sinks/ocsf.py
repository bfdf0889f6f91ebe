"""The sink `ocsf`."""

from typing import Literal

from sandboxd.settings.sinks.file import WrittenFile


class OcsfSettings(WrittenFile):
    """Events of the Open Cybersecurity Schema Framework. `raw_data`: each with its line of the journal."""

    type: Literal["ocsf"]
    raw_data: bool = True
