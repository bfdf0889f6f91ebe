"""Events of the Open Cybersecurity Schema Framework in a file of this node, one JSON object a line.

Found by name through `plugin`.
"""

from functools import partial

from sandboxd.settings.sinks.ocsf import OcsfSettings
from sandboxd.sink.base import Sink
from sandboxd.sink.file import FileSink, log_file
from sandboxd.sink.ocsf_event import ocsf_line


def create(settings: OcsfSettings, _node: str) -> Sink:
    return FileSink(log_file(settings), partial(ocsf_line, raw_data=settings.raw_data))
